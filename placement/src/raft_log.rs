//! [`ControlLog`] by Raft: pre-vote, check-quorum, and an election time-out that is drawn once per
//! start from the entropy handed in, so that a simulation repeats exactly.
//!
//! The entries behind the snapshot are kept in memory as well; the store is read at the start only.

use raft::eraftpb::{ConfState, Entry, HardState as RaftHardState, Message, Snapshot};
use raft::{
    Config, Error as RaftError, GetEntriesContext, RaftState, RawNode, Ready, StateRole, Storage,
    StorageError,
};
use trefoil_protocol::ids::ConfigIndex;

use crate::custodian::Entropy;
use crate::event::VoterId;
use crate::log::{Committed, ControlLog, MalformedMessage, NotLeading, Progress};
use crate::log_store::{HardState, LogBatch, LogSnapshot, LogStore, LogStoreError, StoredLog};
use crate::voter_message::{decode, encode, from_entry, from_snapshot, to_entry, to_snapshot};

/// Ticks without a leader before an election; drawn between this and twice this.
const ELECTION_TICKS: usize = 10;
/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// The most bytes of entries in one message.
const MESSAGE_MAX: u64 = 1 << 20;
/// The most bytes of proposals that wait to be committed.
const UNCOMMITTED_MAX: u64 = 64 << 20;

/// One voter's Raft.
pub struct RaftLog<S> {
    node: RawNode<Cache>,
    store: S,
    leading_since: Option<u64>,
}

impl<S: LogStore> RaftLog<S> {
    /// Opens the log of `voter`. A new log begins with a snapshot of `genesis`, which must be the
    /// same on all voters: a joint start from nothing is something Raft cannot do.
    pub fn open(
        voter: VoterId,
        voters: &[VoterId],
        mut store: S,
        genesis: impl FnOnce() -> Vec<u8>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, LogSnapshot), LogStoreError> {
        let stored = match store.load()? {
            Some(stored) => stored,
            None => begin(&mut store, voters, genesis())?,
        };
        let alone = stored.snapshot.voters == [voter.0];
        let snapshot = stored.snapshot.clone();
        let config = config(voter, snapshot.index, entropy);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, Cache::new(stored), &logger)
            .map_err(|error| LogStoreError::Damaged(error.to_string()))?;
        if alone {
            // Nobody else could win, so there is nothing to wait for.
            node.campaign().expect("a single voter may stand for election");
        }
        Ok((Self { node, store, leading_since: None }, snapshot))
    }

    /// Gives the store back.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The store.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Keeps what a [`Ready`] wants kept. After a crash before the sync nothing of it was promised
    /// to anybody; after it, all of it holds.
    fn keep(&mut self, ready: &Ready) -> Result<(), LogStoreError> {
        let snapshot = Some(ready.snapshot()).filter(|s| s.get_metadata().index > 0).map(from_snapshot);
        let batch = LogBatch {
            drops_entries: snapshot.is_some(),
            snapshot,
            entries: ready.entries().iter().map(from_entry).collect(),
            hard_state: ready.hs().map(from_hard_state),
        };
        self.node.mut_store().take(&batch);
        // A commit index alone need not be kept: the next election finds it again.
        if ready.must_sync() || batch.snapshot.is_some() {
            self.store.write(batch)?;
            self.store.sync()?;
        }
        Ok(())
    }

    fn take_committed(&mut self, entries: Vec<Entry>, progress: &mut Progress) {
        for entry in entries {
            if self.node.raft.state == StateRole::Leader && entry.term == self.node.raft.term {
                self.leading_since = Some(entry.term);
            }
            progress.committed.push(Committed { index: ConfigIndex(entry.index), data: entry.data.to_vec() });
        }
    }

    fn take_ready(&mut self, progress: &mut Progress) -> Result<(), LogStoreError> {
        let mut ready = self.node.ready();
        send(ready.take_messages(), progress);
        self.keep(&ready)?;
        if ready.snapshot().get_metadata().index > 0 {
            progress.restored = Some(ready.snapshot().data.to_vec());
            progress.committed.clear();
        }
        send(ready.take_persisted_messages(), progress);
        for state in ready.take_read_states() {
            if let Ok(round) = state.request_ctx.as_slice().try_into() {
                progress.confirmed.push(u64::from_le_bytes(round));
            }
        }
        let committed = ready.take_committed_entries();
        self.take_committed(committed, progress);
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().hard_state.commit = commit;
        }
        send(light.take_messages(), progress);
        self.take_committed(light.take_committed_entries(), progress);
        self.node.advance_apply();
        Ok(())
    }
}

impl<S: LogStore> ControlLog for RaftLog<S> {
    fn tick(&mut self) {
        self.node.tick();
    }

    fn receive(&mut self, from: VoterId, message: &[u8]) -> Result<(), MalformedMessage> {
        let message = decode(from.0, message)?;
        // What Raft refuses is a message of a former term or membership: as good as lost.
        let _ = self.node.step(message);
        Ok(())
    }

    fn propose(&mut self, command: Vec<u8>) -> Result<(), NotLeading> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotLeading);
        }
        self.node.propose(Vec::new(), command).map_err(|_| NotLeading)
    }

    fn confirm(&mut self, round: u64) {
        self.node.read_index(round.to_le_bytes().to_vec());
    }

    fn advance(&mut self) -> Result<Progress, LogStoreError> {
        let mut progress = Progress::default();
        while self.node.has_ready() {
            self.take_ready(&mut progress)?;
        }
        Ok(progress)
    }

    fn leads(&self) -> Option<u64> {
        let raft = &self.node.raft;
        self.leading_since.filter(|term| raft.state == StateRole::Leader && raft.term == *term)
    }

    fn length(&self) -> usize {
        self.node.store().entries.len()
    }

    fn compact(&mut self, index: ConfigIndex, state: Vec<u8>) -> Result<(), LogStoreError> {
        let cache = self.node.store();
        let term = cache.term(index.0).map_err(|error| LogStoreError::Damaged(error.to_string()))?;
        let voters = cache.snapshot.voters.clone();
        let snapshot = Some(LogSnapshot { index: index.0, term, voters, data: state });
        let batch = LogBatch { snapshot, ..LogBatch::default() };
        self.node.mut_store().take(&batch);
        self.store.write(batch)?;
        self.store.sync()
    }
}

fn begin<S: LogStore>(store: &mut S, voters: &[VoterId], data: Vec<u8>) -> Result<StoredLog, LogStoreError> {
    let voters = voters.iter().map(|voter| voter.0).collect();
    let snapshot = LogSnapshot { index: 1, term: 1, voters, data };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    store.write(LogBatch {
        snapshot: Some(snapshot.clone()),
        hard_state: Some(hard_state),
        ..LogBatch::default()
    })?;
    store.sync()?;
    Ok(StoredLog { hard_state, snapshot, entries: Vec::new() })
}

fn config(voter: VoterId, applied: u64, entropy: &mut dyn Entropy) -> Config {
    let mut draw = [0];
    entropy.fill(&mut draw);
    let ticks = ELECTION_TICKS + usize::from(draw[0]) % ELECTION_TICKS;
    Config {
        id: voter.0,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        // One outcome, so that Raft's own random numbers decide nothing.
        min_election_tick: ticks,
        max_election_tick: ticks + 1,
        applied,
        max_size_per_msg: MESSAGE_MAX,
        max_uncommitted_size: UNCOMMITTED_MAX,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    }
}

fn send(messages: Vec<Message>, progress: &mut Progress) {
    let encoded = messages.iter().filter_map(|message| Some((VoterId(message.to), encode(message)?)));
    progress.messages.extend(encoded);
}

fn from_hard_state(state: &RaftHardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// What Raft reads while it runs.
struct Cache {
    hard_state: HardState,
    snapshot: LogSnapshot,
    entries: Vec<Entry>,
}

impl Cache {
    fn new(stored: StoredLog) -> Self {
        let entries = stored.entries.into_iter().map(to_entry).collect();
        let mut hard_state = stored.hard_state;
        // The snapshot is committed, whatever the promise written before it says.
        hard_state.commit = hard_state.commit.max(stored.snapshot.index);
        hard_state.term = hard_state.term.max(stored.snapshot.term);
        Self { hard_state, snapshot: stored.snapshot, entries }
    }

    fn take(&mut self, batch: &LogBatch) {
        if let Some(snapshot) = &batch.snapshot {
            self.entries.retain(|entry| entry.index > snapshot.index && !batch.drops_entries);
            self.snapshot = snapshot.clone();
        }
        for entry in &batch.entries {
            let place = entry.index.checked_sub(self.snapshot.index + 1).map(|place| place as usize);
            let place = place.filter(|place| *place <= self.entries.len()).expect("the log has no holes");
            self.entries.truncate(place);
            self.entries.push(to_entry(entry.clone()));
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
    }

    fn last(&self) -> u64 {
        self.snapshot.index + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> Result<usize, RaftError> {
        if index <= self.snapshot.index {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        usize::try_from(index - self.snapshot.index - 1)
            .map_err(|_| RaftError::Store(StorageError::Unavailable))
    }
}

impl Storage for Cache {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = RaftHardState::default();
        hard_state.term = self.hard_state.term;
        hard_state.vote = self.hard_state.vote;
        hard_state.commit = self.hard_state.commit;
        Ok(RaftState::new(hard_state, ConfState::from((self.snapshot.voters.clone(), Vec::new()))))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let range = self.position(low)?..self.position(high)?;
        let found = self.entries.get(range).ok_or(RaftError::Store(StorageError::Unavailable))?;
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        for entry in found {
            let size = entry.data.len() as u64;
            if !taken.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        let entry = self.entries.get(self.position(index)?);
        entry.map(|entry| entry.term).ok_or(RaftError::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if request_index > self.snapshot.index {
            return Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(to_snapshot(&self.snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_store::{MemoryLogStore, NextSync};

    fn open(store: MemoryLogStore) -> (RaftLog<MemoryLogStore>, LogSnapshot) {
        let mut entropy = |bytes: &mut [u8]| bytes.fill(3);
        RaftLog::open(VoterId(1), &[VoterId(1)], store, || b"genesis".to_vec(), &mut entropy).unwrap()
    }

    fn commands(progress: &Progress) -> Vec<Vec<u8>> {
        progress.committed.iter().map(|c| c.data.clone()).filter(|data| !data.is_empty()).collect()
    }

    #[test]
    fn a_single_voter_leads_at_once_and_finds_its_log_again() {
        let (mut log, snapshot) = open(MemoryLogStore::default());
        assert_eq!(snapshot.data, b"genesis");
        log.advance().unwrap();
        assert!(log.leads().is_some());
        for command in [b"one", b"two"] {
            log.propose(command.to_vec()).unwrap();
        }
        assert_eq!(commands(&log.advance().unwrap()), [b"one", b"two"]);
        let mut store = log.into_store();
        store.crash();
        let (mut log, _) = open(store);
        assert_eq!(commands(&log.advance().unwrap()), [b"one", b"two"]);
    }

    #[test]
    fn nothing_is_committed_by_a_sync_that_failed() {
        let (mut log, _) = open(MemoryLogStore::default());
        log.advance().unwrap();
        log.propose(b"lost".to_vec()).unwrap();
        log.store_mut().plan_sync(NextSync::FailsLost);
        assert!(log.advance().is_err());
        let mut store = log.into_store();
        store.crash();
        let (mut log, _) = open(store);
        assert!(commands(&log.advance().unwrap()).is_empty());
    }

    #[test]
    fn a_compacted_log_starts_from_its_snapshot() {
        let (mut log, _) = open(MemoryLogStore::default());
        log.advance().unwrap();
        log.propose(b"one".to_vec()).unwrap();
        let last = log.advance().unwrap().committed.last().unwrap().index;
        log.compact(last, b"state".to_vec()).unwrap();
        assert_eq!(log.length(), 0);
        log.propose(b"two".to_vec()).unwrap();
        log.advance().unwrap();
        let (mut log, snapshot) = open(log.into_store());
        assert_eq!((snapshot.index, snapshot.data.as_slice()), (last.0, b"state".as_slice()));
        assert_eq!(commands(&log.advance().unwrap()), [b"two"]);
    }

    #[test]
    fn a_confirmed_round_comes_back() {
        let (mut log, _) = open(MemoryLogStore::default());
        log.advance().unwrap();
        log.confirm(7);
        assert_eq!(log.advance().unwrap().confirmed, [7]);
    }
}
