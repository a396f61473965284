//! The sync of a volume as a value: what the log's owner hands to a disk thread, and the ticket with
//! which the outcome comes back. In the simulator the same job runs at a simulated time.

use crate::disk::Disk;
use crate::health::{Health, SyncError};
use crate::segment::Unsynced;

/// Names one sync job of one volume log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncTicket(pub(crate) u64);

/// One group sync: every file with staged bytes once, then the directory if a segment is new.
#[derive(Debug)]
#[must_use = "what is staged becomes durable only when the job has run"]
pub struct SyncJob<D: Disk> {
    pub(crate) ticket: SyncTicket,
    pub(crate) unsynced: Unsynced<D::File>,
    pub(crate) health: Health<D>,
}

impl<D: Disk> SyncJob<D> {
    /// Which job this is; hand it back with the outcome.
    pub fn ticket(&self) -> SyncTicket {
        self.ticket
    }

    /// Bytes that it makes durable.
    pub fn bytes(&self) -> u64 {
        self.unsynced.bytes
    }

    /// Syncs. After an error the store is poisoned and marked suspect: the caller acknowledges
    /// nothing more and exits.
    ///
    /// A crash between the steps leaves a new segment without a durable name: its frames are lost
    /// as if never written, and nothing of them was acknowledged.
    pub fn run(self) -> Result<(), SyncError> {
        self.health.sync_together(&self.unsynced.files, &self.unsynced.directories)
    }

    /// Syncs for several volumes of one store at once, with one outcome for all.
    pub fn run_all(jobs: Vec<Self>) -> Result<(), SyncError> {
        jobs.into_iter().reduce(Self::with).map_or(Ok(()), Self::run)
    }

    fn with(self, other: Self) -> Self {
        Self { unsynced: self.unsynced.with(other.unsynced), ..self }
    }
}
