//! The one gate through which every sync of a store goes. After a sync failed, nothing the store
//! wrote since its last good sync is known, and asking again would be answered by a page cache that
//! has already forgotten the error: so the gate closes for good, and says so in another file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trefoil_protocol::mutant;

use crate::disk::{Disk, DiskError, DiskFile};

/// The file that says whether the store is suspect. It exists from the store's creation on, so that
/// marking it needs no new name and no sync.
pub const SUSPECT_FILE: &str = "suspect";

const REASON_MAX: usize = 200;
const CLEAR: u8 = b'-';
const SUSPECT: u8 = b'!';

/// Why a sync was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// This sync failed. The store is poisoned and marked suspect.
    #[error("sync failed, the store is suspect: {0}")]
    Failed(#[source] DiskError),
    /// An earlier sync failed; nothing was asked of the disk.
    #[error("the store is poisoned by an earlier failed sync")]
    Poisoned,
}

/// For who stages: the error of the disk, or that there was one before.
impl From<SyncError> for DiskError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Failed(error) => error,
            SyncError::Poisoned => {
                Self::Io { operation: "sync", path: SUSPECT_FILE.to_owned(), reason: error.to_string() }
            }
        }
    }
}

/// A store's permission to sync. Clones share the state.
#[derive(Clone)]
pub struct Health<D> {
    disk: D,
    poisoned: Arc<AtomicBool>,
}

impl<D: Disk> Health<D> {
    /// The gate of a store, closed from the start if the store is marked suspect.
    pub fn open(disk: &D) -> Result<Health<D>, DiskError> {
        let health = Health { disk: disk.clone(), poisoned: Arc::new(AtomicBool::new(false)) };
        let suspect = health.suspicion()?.is_some();
        health.poisoned.store(suspect, Ordering::SeqCst);
        Ok(health)
    }

    /// Writes the marker file of a new store; the caller syncs it.
    pub(crate) fn prepare(disk: &D) -> Result<D::File, DiskError> {
        let file = disk.create(SUSPECT_FILE)?;
        let mut clear = [b' '; REASON_MAX + 1];
        clear[0] = CLEAR;
        file.write_at(0, &[&clear])?;
        Ok(file)
    }

    /// Makes a file's bytes durable.
    pub fn sync_data(&self, file: &D::File) -> Result<(), SyncError> {
        self.guarded(|| mutant!(M22, file.sync_data(), file.sync_data().or(Ok(()))))
    }

    /// Makes the names in a directory durable.
    pub fn sync_directory(&self, directory: &str) -> Result<(), SyncError> {
        self.guarded(|| self.disk.sync_directory(directory))
    }

    /// Makes the bytes of several files, and the names in several directories, durable.
    pub(crate) fn sync_together(&self, files: &[D::File], directories: &[String]) -> Result<(), SyncError> {
        let sync = || self.disk.sync_together(files, directories);
        self.guarded(|| mutant!(M22, sync(), sync().or(Ok(()))))
    }

    /// Whether a sync failed in this run or the store was opened suspect.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// Refuses a poisoned store.
    pub fn check(&self) -> Result<(), SyncError> {
        match self.is_poisoned() {
            true => Err(SyncError::Poisoned),
            false => Ok(()),
        }
    }

    /// What the marker file says: the reason of the failed sync, or `None`.
    pub fn suspicion(&self) -> Result<Option<String>, DiskError> {
        let mut bytes = [0; REASON_MAX + 1];
        self.disk.open(SUSPECT_FILE)?.read_at(0, &mut bytes)?;
        Ok(match bytes[0] {
            CLEAR => None,
            _ => Some(String::from_utf8_lossy(&bytes[1..]).trim().to_owned()),
        })
    }

    /// Closes the gate and says why, for a reason other than a failed sync.
    pub(crate) fn distrust(&self, reason: &str) {
        if !self.poisoned.swap(true, Ordering::SeqCst) {
            self.mark(reason);
        }
    }

    /// Takes the mark away after everything on the store was read again.
    pub(crate) fn clear(&self) -> Result<(), SyncError> {
        let file = Self::prepare(&self.disk).map_err(SyncError::Failed)?;
        file.sync_data().map_err(SyncError::Failed)?;
        self.poisoned.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn guarded(&self, sync: impl FnOnce() -> Result<(), DiskError>) -> Result<(), SyncError> {
        self.check()?;
        sync().map_err(|error| {
            self.poisoned.store(true, Ordering::SeqCst);
            self.mark(&error.to_string());
            SyncError::Failed(error)
        })
    }

    /// Says in the other file why the store is suspect. Not synced: no sync may follow a failed one,
    /// and a crash that loses the mark leaves an unclean store, which is verified as well.
    fn mark(&self, reason: &str) {
        let mut bytes = [b' '; REASON_MAX + 1];
        bytes[0] = SUSPECT;
        let kept = reason.len().min(REASON_MAX);
        bytes[1..=kept].copy_from_slice(&reason.as_bytes()[..kept]);
        let written = self.disk.open(SUSPECT_FILE).and_then(|file| file.write_at(0, &[&bytes]));
        // The caller exits on the sync's error; a mark that cannot be written changes nothing.
        drop(written);
    }
}

impl<D> fmt::Debug for Health<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}
