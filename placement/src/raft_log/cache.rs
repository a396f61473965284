//! What Raft reads while it runs: everything behind the snapshot, in memory. The store is read at
//! the start only.

use raft::eraftpb::{Entry, HardState as RaftHardState, Snapshot};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};

use super::message::{conf_state, to_entry, to_snapshot};
use crate::log_store::{HardState, LogBatch, LogSnapshot, StoredLog};

/// What Raft reads while it runs.
pub(super) struct Cache {
    pub(super) hard_state: HardState,
    pub(super) snapshot: LogSnapshot,
    pub(super) entries: Vec<Entry>,
}

impl Cache {
    pub(super) fn new(stored: StoredLog) -> Self {
        let entries = stored.entries.into_iter().map(to_entry).collect();
        let mut hard_state = stored.hard_state;
        // The snapshot is committed, whatever the promise written before it says.
        hard_state.commit = hard_state.commit.max(stored.snapshot.index);
        hard_state.term = hard_state.term.max(stored.snapshot.term);
        Self { hard_state, snapshot: stored.snapshot, entries }
    }

    pub(super) fn take(&mut self, batch: &LogBatch) {
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

    pub(super) fn last(&self) -> u64 {
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
        Ok(RaftState::new(hard_state, conf_state(&self.snapshot)))
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
