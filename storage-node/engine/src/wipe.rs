//! The end of a whole volume on one store: every byte of its directory overwritten, given back and
//! unnamed. Whether it may end was decided before: the store is no member any more and the control
//! plane said so.

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::Owner;
use crate::health::{Health, SyncError};
use crate::store::{Store, VOLUME_FILE, directory_of};

/// What the superblock is called once the volume is no volume any more.
const WIPED_FILE: &str = "wiped";
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Why a volume was not wiped. Run it again after the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WipeError {
    /// A write, punch or removal failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A sync failed; the store is poisoned.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// The wiping of one volume, to be run on a disk thread.
#[derive(Debug)]
#[must_use = "nothing is wiped until the job runs"]
pub struct WipeJob<D: Disk> {
    disk: D,
    health: Health<D>,
    directory: String,
}

impl<D: Disk> Store<D> {
    /// The job that wipes everything this store holds of a volume, which is not open.
    pub fn wipe_job(&self, owner: Owner) -> WipeJob<D> {
        WipeJob { disk: self.disk.clone(), health: self.health.clone(), directory: directory_of(owner) }
    }
}

impl<D: Disk> WipeJob<D> {
    /// Wipes, in this order; a crash anywhere leaves something that can be wiped again:
    ///
    /// 1. every file but the superblock: zeroed, synced, punched, synced, unnamed;
    /// 2. the superblock renamed, synced: from here on there is no volume to be opened;
    /// 3. the superblock zeroed and unnamed like the rest.
    pub fn run(self) -> Result<(), WipeError> {
        let names = match self.disk.list(&self.directory) {
            Ok(names) => names,
            Err(DiskError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (superblock, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name == VOLUME_FILE || name == WIPED_FILE);
        for name in others {
            self.wipe(&name)?;
        }
        if superblock.iter().any(|name| name == VOLUME_FILE) {
            self.disk.rename(&self.path(VOLUME_FILE), &self.path(WIPED_FILE))?;
            self.health.sync_directory(&self.directory)?;
        }
        if superblock.is_empty() { Ok(()) } else { self.wipe(WIPED_FILE) }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    fn wipe(&self, name: &str) -> Result<(), WipeError> {
        let path = self.path(name);
        let file = self.disk.open(&path)?;
        let length = file.length()?;
        let mut offset = 0;
        while offset < length {
            let part = usize::try_from(length - offset).map_or(ZEROES.len(), |rest| rest.min(ZEROES.len()));
            file.write_at(offset, &[&ZEROES[..part]])?;
            offset += part as u64;
        }
        self.health.sync_data(&file)?;
        file.punch(0, length)?;
        self.health.sync_data(&file)?;
        self.disk.remove(&path)?;
        self.health.sync_directory(&self.directory)?;
        Ok(())
    }
}
