//! Where a voter keeps its part of the control plane's log: what must be kept, the trait that keeps
//! it, and a store in memory that can lose whatever was not synced.
//!
//! Keeping is synchronous: `sync` returns when everything written is durable, inside
//! [`Placement::step`](crate::Placement::step). The control plane commits a few commands a second in
//! steady state, so one flush per step costs less than the states between "written" and "durable"
//! would cost in thought.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
pub use trefoil_protocol::message::voter::{LogEntry, LogSnapshot};

/// Why the log could not be kept or read. Nothing is retried on the same store: a failed sync may
/// have lost anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogStoreError {
    /// The system refused.
    #[error("the control plane's log could not be {action}: {reason}")]
    Failed {
        /// `read`, `written` or `synced`.
        action: &'static str,
        /// What the system said.
        reason: String,
    },
    /// What was read is not what was written.
    #[error("the control plane's log is damaged: {0}")]
    Damaged(String),
}

/// What Raft must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct HardState {
    /// The newest term heard of.
    #[n(0)]
    pub term: u64,
    /// Whom this voter voted for in it; 0 for nobody.
    #[n(1)]
    pub vote: u64,
    /// Up to where the log is known to be committed.
    #[n(2)]
    pub commit: u64,
    /// Names this copy of the log; drawn when it is begun.
    #[n(3)]
    pub log: u64,
}

/// Everything a voter finds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// The promise.
    pub hard_state: HardState,
    /// The state from which to replay.
    pub snapshot: LogSnapshot,
    /// The entries behind the snapshot, contiguous.
    pub entries: Vec<LogEntry>,
}

/// One flush worth of changes, applied in this order: snapshot, entries, hard state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// A newer snapshot; every entry up to its index goes.
    pub snapshot: Option<LogSnapshot>,
    /// With a snapshot that came from another voter, the entries behind it go as well.
    pub drops_entries: bool,
    /// Entries to append; they replace what stands at or behind the first one's index.
    pub entries: Vec<LogEntry>,
    /// The newest promise.
    pub hard_state: Option<HardState>,
}

impl LogBatch {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }
}

/// Keeps a voter's log.
pub trait LogStore {
    /// What was kept; `None` if this voter is new.
    fn load(&self) -> Result<Option<StoredLog>, LogStoreError>;

    /// Takes a batch; all of it becomes durable with the next [`LogStore::sync`], or none.
    fn write(&mut self, batch: LogBatch) -> Result<(), LogStoreError>;

    /// Returns when everything written is durable.
    fn sync(&mut self) -> Result<(), LogStoreError>;
}

/// What the next sync of a [`MemoryLogStore`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextSync {
    /// Succeeds.
    #[default]
    Succeeds,
    /// Fails, and nothing of it is durable.
    FailsLost,
    /// Fails although all of it is durable.
    FailsKept,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shelf {
    hard_state: HardState,
    snapshot: Option<LogSnapshot>,
    entries: BTreeMap<u64, LogEntry>,
}

impl Shelf {
    fn put(&mut self, batch: LogBatch) {
        if let Some(snapshot) = batch.snapshot {
            self.entries.retain(|index, _| *index > snapshot.index && !batch.drops_entries);
            self.snapshot = Some(snapshot);
        }
        if let Some(first) = batch.entries.first() {
            let first = first.index;
            self.entries.retain(|index, _| *index < first);
        }
        self.entries.extend(batch.entries.into_iter().map(|entry| (entry.index, entry)));
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
    }
}

/// A log in memory, for the simulator and for tests: what was written but not synced is lost by
/// [`MemoryLogStore::crash`].
#[derive(Clone, Debug, Default)]
pub struct MemoryLogStore {
    durable: Shelf,
    written: Vec<LogBatch>,
    next_sync: NextSync,
}

impl MemoryLogStore {
    /// The power goes; what was not synced is lost.
    pub fn crash(&mut self) {
        self.written.clear();
        self.next_sync = NextSync::Succeeds;
    }

    /// Decides what the next sync does.
    pub fn plan_sync(&mut self, next: NextSync) {
        self.next_sync = next;
    }

    /// How many entries are durable behind the snapshot.
    pub fn durable_entries(&self) -> usize {
        self.durable.entries.len()
    }
}

impl LogStore for MemoryLogStore {
    fn load(&self) -> Result<Option<StoredLog>, LogStoreError> {
        let Some(snapshot) = self.durable.snapshot.clone() else { return Ok(None) };
        let entries = self.durable.entries.values().cloned().collect();
        Ok(Some(StoredLog { hard_state: self.durable.hard_state, snapshot, entries }))
    }

    fn write(&mut self, batch: LogBatch) -> Result<(), LogStoreError> {
        self.written.push(batch);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogStoreError> {
        let plan = std::mem::take(&mut self.next_sync);
        let written = std::mem::take(&mut self.written);
        if plan != NextSync::FailsLost {
            written.into_iter().for_each(|batch| self.durable.put(batch));
        }
        if plan == NextSync::Succeeds {
            return Ok(());
        }
        Err(LogStoreError::Failed { action: "synced", reason: "input/output error".into() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trefoil_protocol::ids::VoterId;
    use trefoil_protocol::message::voter::EntryKind;

    use super::*;

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry { index, term, kind: EntryKind::Command, data: vec![index as u8].into() }
    }

    fn snapshot(index: u64) -> LogSnapshot {
        LogSnapshot { index, term: 1, voters: vec![VoterId(1)], learners: Vec::new(), data: Bytes::new() }
    }

    #[test]
    fn a_crash_loses_exactly_what_was_not_synced() {
        let mut store = MemoryLogStore::default();
        assert_eq!(store.load().unwrap(), None);
        store.write(LogBatch { snapshot: Some(snapshot(1)), ..LogBatch::default() }).unwrap();
        store.write(LogBatch { entries: vec![entry(2, 1)], ..LogBatch::default() }).unwrap();
        store.sync().unwrap();
        store.write(LogBatch { entries: vec![entry(3, 1)], ..LogBatch::default() }).unwrap();
        store.crash();
        assert_eq!(store.load().unwrap().unwrap().entries, [entry(2, 1)]);
    }

    #[test]
    fn appending_replaces_what_stood_there_and_a_snapshot_takes_its_entries_place() {
        let mut store = MemoryLogStore::default();
        let entries = vec![entry(2, 1), entry(3, 1), entry(4, 1)];
        store.write(LogBatch { snapshot: Some(snapshot(1)), entries, ..LogBatch::default() }).unwrap();
        store.write(LogBatch { entries: vec![entry(3, 2)], ..LogBatch::default() }).unwrap();
        store.write(LogBatch { snapshot: Some(snapshot(2)), ..LogBatch::default() }).unwrap();
        store.sync().unwrap();
        assert_eq!(store.load().unwrap().unwrap().entries, [entry(3, 2)]);
    }

    #[test]
    fn a_failed_sync_may_have_kept_or_lost_everything() {
        for (plan, kept) in [(NextSync::FailsLost, false), (NextSync::FailsKept, true)] {
            let mut store = MemoryLogStore::default();
            store.write(LogBatch { snapshot: Some(snapshot(1)), ..LogBatch::default() }).unwrap();
            store.plan_sync(plan);
            assert!(store.sync().is_err());
            assert_eq!(store.load().unwrap().is_some(), kept);
        }
    }
}
