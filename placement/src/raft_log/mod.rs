//! [`ControlLog`] by Raft: pre-vote, check-quorum, and election time-outs that are drawn from the
//! entropy handed in, so that a simulation repeats exactly.

mod cache;
mod message;

use std::collections::BTreeMap;

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState as RaftHardState,
    Message,
};
use raft::{Config, ProgressState, RawNode, Ready, SnapshotStatus, StateRole};
use trefoil_protocol::ids::{ConfigIndex, VoterId};
use trefoil_protocol::message::voter::{LogSnapshot, RaftKind, RaftMessage};
use trefoil_protocol::mutant;

use self::cache::Cache;
use self::message::{conf_state, from_entry, from_message, received_snapshot, to_entry, to_message};
use crate::custodian::Entropy;
use crate::log::{Committed, ControlLog, Founding, Membership, NotLeading, PeerProgress, Progress};
use crate::log_store::{HardState, LogBatch, LogStore, LogStoreError, StoredLog};

/// Ticks without a leader before an election; drawn between this and twice this.
const ELECTION_TICKS: usize = 10;
/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks after which a snapshot that was not confirmed is sent again.
const SNAPSHOT_TICKS: u32 = 50;
/// The most bytes of entries in one message.
const MESSAGE_MAX: u64 = 1 << 20;
/// The most bytes of proposals that wait to be committed.
const UNCOMMITTED_MAX: u64 = 64 << 20;

/// One voter's Raft.
pub struct RaftLog<S> {
    node: RawNode<Cache>,
    store: S,
    leading_since: Option<u64>,
    /// Who votes and who follows, as of the last entry applied.
    members: ConfState,
    patience: Patience,
    /// For how many ticks each follower has owed the confirmation of a snapshot.
    snapshots: BTreeMap<u64, u32>,
}

impl<S: LogStore> RaftLog<S> {
    /// Opens the log of `voter`. A new log begins with a snapshot of the founding state, which must
    /// be the same on all voters: a joint start from nothing is something Raft cannot do.
    pub fn open(
        voter: VoterId,
        mut store: S,
        founding: impl FnOnce() -> Founding,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, LogSnapshot), LogStoreError> {
        let stored = match store.load()? {
            Some(stored) => stored,
            None => begin(&mut store, founding(), entropy)?,
        };
        let alone = stored.snapshot.voters == [voter];
        let snapshot = stored.snapshot.clone();
        let members = conf_state(&snapshot);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config(voter, snapshot.index), Cache::new(stored), &logger)
            .map_err(|error| LogStoreError::Damaged(error.to_string()))?;
        let mut patience = Patience::draw(entropy);
        patience.renew(&mut node);
        if alone {
            // Nobody else could win, so there is nothing to wait for.
            node.campaign().expect("a single voter may stand for election");
        }
        let log = Self { node, store, leading_since: None, members, patience, snapshots: BTreeMap::new() };
        Ok((log, snapshot))
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
        let snapshot = received_snapshot(ready.snapshot());
        let log = self.log_id();
        let batch = LogBatch {
            drops_entries: snapshot.is_some(),
            snapshot,
            entries: ready.entries().iter().map(from_entry).collect(),
            hard_state: ready.hs().map(|state| from_hard_state(state, log)),
        };
        self.node.mut_store().take(&batch);
        // A commit index alone need not be kept: the next election finds it again.
        if ready.must_sync() || batch.snapshot.is_some() {
            self.store.write(batch)?;
            // The bug: others hear of what a crash still takes away.
            mutant!(C01, self.store.sync(), Ok(()))?;
        }
        Ok(())
    }

    fn take_committed(&mut self, entries: Vec<Entry>, progress: &mut Progress) {
        for entry in entries {
            if self.node.raft.state == StateRole::Leader && entry.term == self.node.raft.term {
                self.leading_since = Some(entry.term);
            }
            progress.changes_members |= entry.get_entry_type() != EntryType::EntryNormal;
            let data = proposed(&entry);
            progress.committed.push(Committed { index: ConfigIndex(entry.index), data });
        }
    }

    fn take_ready(&mut self, progress: &mut Progress) -> Result<(), LogStoreError> {
        let mut ready = self.node.ready();
        send(ready.take_messages(), progress);
        self.keep(&ready)?;
        if let Some(snapshot) = received_snapshot(ready.snapshot()) {
            self.members = conf_state(&snapshot);
            progress.restored = Some(snapshot.data);
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

    /// A snapshot that is lost on its way leaves its follower waiting for ever: it is given up for
    /// lost after a while, and sent again.
    fn look_after_snapshots(&mut self) {
        let waits = |state: ProgressState| state == ProgressState::Snapshot;
        let followers: Vec<u64> =
            self.node.raft.prs().iter().filter(|(_, p)| waits(p.state)).map(|(id, _)| *id).collect();
        self.snapshots.retain(|id, _| followers.contains(id));
        for follower in followers {
            let waited = self.snapshots.entry(follower).or_default();
            *waited += 1;
            if *waited > SNAPSHOT_TICKS {
                self.snapshots.remove(&follower);
                self.node.report_snapshot(follower, SnapshotStatus::Failure);
            }
        }
    }

    fn members_of(&self, numbers: &[u64]) -> Vec<VoterId> {
        numbers.iter().copied().map(VoterId).collect()
    }
}

impl<S: LogStore> ControlLog for RaftLog<S> {
    fn tick(&mut self) {
        let before = Standing::of(&self.node);
        self.node.tick();
        self.look_after_snapshots();
        let stood = self.node.raft.state != StateRole::Leader && self.node.raft.election_elapsed == 0;
        if stood || before != Standing::of(&self.node) {
            self.patience.renew(&mut self.node);
        }
        self.patience.hold(&mut self.node);
    }

    fn receive(&mut self, from: VoterId, message: RaftMessage) {
        if !is_sound(&message, self.node.store().last()) {
            return;
        }
        let before = Standing::of(&self.node);
        // What Raft refuses is a message of a former term or membership: as good as lost.
        let _ = self.node.step(to_message(from, VoterId(self.node.raft.id), message));
        if before != Standing::of(&self.node) {
            self.patience.renew(&mut self.node);
        }
        self.patience.hold(&mut self.node);
    }

    fn propose(&mut self, command: Vec<u8>) -> Result<(), NotLeading> {
        if self.node.raft.state != StateRole::Leader {
            return Err(NotLeading);
        }
        self.node.propose(Vec::new(), command).map_err(|_| NotLeading)
    }

    fn propose_membership(&mut self, change: Membership, command: Vec<u8>) -> Result<(), NotLeading> {
        if self.node.raft.state != StateRole::Leader || self.node.raft.has_pending_conf() {
            return Err(NotLeading);
        }
        self.node.propose_conf_change(command, conf_change(change)).map_err(|_| NotLeading)
    }

    fn change_members(&mut self, change: Membership) -> Result<(), LogStoreError> {
        let changed = self.node.apply_conf_change(&conf_change(change));
        self.members = changed.map_err(|error| LogStoreError::Damaged(format!("{change:?}: {error}")))?;
        Ok(())
    }

    fn confirm(&mut self, round: u64) {
        self.node.read_index(round.to_le_bytes().to_vec());
    }

    fn advance(&mut self) -> Result<Progress, LogStoreError> {
        let mut progress = Progress::default();
        while self.node.has_ready() && !progress.changes_members {
            self.take_ready(&mut progress)?;
        }
        Ok(progress)
    }

    fn leads(&self) -> Option<u64> {
        let raft = &self.node.raft;
        self.leading_since.filter(|term| raft.state == StateRole::Leader && raft.term == *term)
    }

    fn leader(&self) -> Option<VoterId> {
        Some(VoterId(self.node.raft.leader_id)).filter(|leader| leader.0 != 0)
    }

    fn log_id(&self) -> u64 {
        self.node.store().hard_state.log
    }

    fn peers(&self) -> Vec<PeerProgress> {
        if self.node.raft.state != StateRole::Leader {
            return Vec::new();
        }
        let mut peers: Vec<PeerProgress> = self
            .node
            .raft
            .prs()
            .iter()
            .map(|(id, progress)| PeerProgress {
                voter: VoterId(*id),
                active: *id == self.node.raft.id || progress.recent_active,
                matched: progress.matched,
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.voter);
        peers
    }

    fn hand_over(&mut self, to: &[VoterId]) {
        if self.node.raft.lead_transferee.is_some() {
            return;
        }
        let fit = self.peers().into_iter().filter(|peer| peer.active && to.contains(&peer.voter));
        if let Some(best) = fit.max_by_key(|peer| (peer.matched, peer.voter)) {
            self.node.transfer_leader(best.voter.0);
        }
    }

    fn length(&self) -> usize {
        self.node.store().entries.len()
    }

    fn compact(&mut self, index: ConfigIndex, state: Vec<u8>) -> Result<(), LogStoreError> {
        // The bug: a restart applies once more what the state has in it already.
        let index = mutant!(C02, index.0, index.0 - 1);
        let cache = self.node.store();
        let term =
            raft::Storage::term(cache, index).map_err(|error| LogStoreError::Damaged(error.to_string()))?;
        let voters = self.members_of(&self.members.voters);
        // The bug: whoever starts from this snapshot takes itself for the only voter.
        let voters = mutant!(C03, voters, vec![VoterId(self.node.raft.id)]);
        let learners = self.members_of(&self.members.learners);
        let snapshot = Some(LogSnapshot { index, term, voters, learners, data: state.into() });
        let batch = LogBatch { snapshot, ..LogBatch::default() };
        self.node.mut_store().take(&batch);
        self.store.write(batch)?;
        self.store.sync()
    }
}

/// What was proposed with an entry, a change of the members too.
fn proposed(entry: &Entry) -> bytes::Bytes {
    match entry.get_entry_type() {
        EntryType::EntryNormal => entry.data.clone(),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => entry.context.clone(),
    }
}

/// Everything that stands behind a stored log's snapshot, whether it is known to be committed or not.
pub fn proposals(stored: &StoredLog) -> Vec<Committed> {
    let entries = stored.entries.iter().cloned().map(to_entry);
    entries.map(|entry| Committed { index: ConfigIndex(entry.index), data: proposed(&entry) }).collect()
}

fn begin<S: LogStore>(
    store: &mut S,
    founding: Founding,
    entropy: &mut dyn Entropy,
) -> Result<StoredLog, LogStoreError> {
    // Whoever joins a log has nothing of it before its first snapshot.
    let first = u64::from(!founding.voters.is_empty());
    begin_at(first, store, founding, entropy)
}

/// Begins a log behind `index`, in place of any that was there.
///
/// # Errors
/// When it cannot be written.
pub fn begin_at<S: LogStore>(
    index: u64,
    store: &mut S,
    founding: Founding,
    entropy: &mut dyn Entropy,
) -> Result<StoredLog, LogStoreError> {
    let mut log = [0; 8];
    entropy.fill(&mut log);
    // Its terms are no terms of a log before it.
    let snapshot = LogSnapshot {
        index,
        term: index,
        voters: founding.voters,
        learners: Vec::new(),
        data: founding.state.into(),
    };
    let hard_state = HardState { term: index, vote: 0, commit: index, log: u64::from_le_bytes(log) };
    store.write(LogBatch {
        snapshot: Some(snapshot.clone()),
        drops_entries: true,
        hard_state: Some(hard_state),
        ..LogBatch::default()
    })?;
    store.sync()?;
    Ok(StoredLog { hard_state, snapshot, entries: Vec::new() })
}

/// In the library's words, which say the kind and the number of one member. That there is one only
/// makes it the simple kind of change, for which no joint majority is needed.
fn conf_change(change: Membership) -> ConfChangeV2 {
    let (kind, voter) = match change {
        Membership::Learn(voter) => (ConfChangeType::AddLearnerNode, voter),
        Membership::Vote(voter) => (ConfChangeType::AddNode, voter),
        Membership::Leave(voter) => (ConfChangeType::RemoveNode, voter),
    };
    let mut single = ConfChangeSingle { node_id: voter.0, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    ConfChangeV2 { changes: vec![single].into(), ..ConfChangeV2::default() }
}

fn config(voter: VoterId, applied: u64) -> Config {
    Config {
        id: voter.0,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        min_election_tick: ELECTION_TICKS,
        max_election_tick: 2 * ELECTION_TICKS,
        applied,
        max_size_per_msg: MESSAGE_MAX,
        max_uncommitted_size: UNCOMMITTED_MAX,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    }
}

/// Draws how long this voter waits for a leader, anew in each term and after each election in vain:
/// two voters that waited equally long do not do so for ever.
/// Raft draws it as well, from a source that no simulation repeats; that draw is always replaced.
struct Patience {
    seed: [u8; 32],
    drawn: u64,
    ticks: usize,
}

impl Patience {
    fn draw(entropy: &mut dyn Entropy) -> Self {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        Self { seed, drawn: 0, ticks: ELECTION_TICKS }
    }

    fn renew(&mut self, node: &mut RawNode<Cache>) {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes());
        self.ticks = ELECTION_TICKS + usize::from(hash.as_bytes()[0]) % ELECTION_TICKS;
        self.hold(node);
    }

    fn hold(&self, node: &mut RawNode<Cache>) {
        node.raft.set_randomized_election_timeout(self.ticks);
    }
}

/// What an election changes.
#[derive(PartialEq, Eq)]
struct Standing(u64, StateRole);

impl Standing {
    fn of(node: &RawNode<Cache>) -> Self {
        Self(node.raft.term, node.raft.state)
    }
}

/// Whether a message is one that a voter which holds `last` entries can be sent.
fn is_sound(message: &RaftMessage, last: u64) -> bool {
    let follows = (message.index + 1..).zip(&message.entries).all(|(index, entry)| entry.index == index);
    let known = message.kind != RaftKind::Heartbeat || message.commit <= last;
    let whole = (message.kind == RaftKind::Snapshot) == message.snapshot.is_some();
    follows && known && whole
}

fn send(messages: Vec<Message>, progress: &mut Progress) {
    let said = messages.iter().filter_map(|message| Some((VoterId(message.to), from_message(message)?)));
    progress.messages.extend(said);
}

fn from_hard_state(state: &RaftHardState, log: u64) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit, log }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log_store::{MemoryLogStore, NextSync};

    fn open(store: MemoryLogStore) -> (RaftLog<MemoryLogStore>, LogSnapshot) {
        let mut entropy = |bytes: &mut [u8]| bytes.fill(3);
        let founding = || Founding { voters: vec![VoterId(1)], state: b"genesis".to_vec() };
        RaftLog::open(VoterId(1), store, founding, &mut entropy).unwrap()
    }

    fn commands(progress: &Progress) -> Vec<Bytes> {
        progress.committed.iter().map(|c| c.data.clone()).filter(|data| !data.is_empty()).collect()
    }

    #[test]
    fn a_single_voter_leads_at_once_and_finds_its_log_again() {
        let (mut log, snapshot) = open(MemoryLogStore::default());
        assert_eq!(snapshot.data.as_ref(), b"genesis");
        log.advance().unwrap();
        assert!(log.leads().is_some());
        for command in [b"one", b"two"] {
            log.propose(command.to_vec()).unwrap();
        }
        assert_eq!(commands(&log.advance().unwrap()), ["one", "two"]);
        let mut store = log.into_store();
        store.crash();
        let (mut log, _) = open(store);
        assert_eq!(commands(&log.advance().unwrap()), ["one", "two"]);
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
        assert_eq!((snapshot.index, snapshot.data.as_ref()), (last.0, b"state".as_slice()));
        assert_eq!(commands(&log.advance().unwrap()), ["two"]);
    }

    #[test]
    fn a_confirmed_round_comes_back() {
        let (mut log, _) = open(MemoryLogStore::default());
        log.advance().unwrap();
        log.confirm(7);
        assert_eq!(log.advance().unwrap().confirmed, [7]);
    }
}
