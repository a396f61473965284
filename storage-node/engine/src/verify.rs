//! The whole reading of a volume on a suspect store: what a failed sync left in the page cache is
//! dropped first, so that every byte comes from the device. It writes nothing, because the store is
//! poisoned until everything on it was read.
//!
//! It says what is damaged; whether the store may be believed again is decided by who asked.

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::Owner;
use crate::recovery::OpenError;
use crate::scrub::{ScrubError, ScrubReport};
use crate::segment::SegmentLayout;
use crate::store::{Store, StoreError, directory_of};

/// Why a volume could not be read to its end: the store stays suspect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The scrub could not go on.
    #[error(transparent)]
    Scrub(#[from] ScrubError),
}

/// The reading of one volume, to be run on a disk thread.
#[derive(Debug)]
#[must_use = "nothing is read until the job runs"]
pub struct VerifyJob<D: Disk> {
    disk: D,
    layout: SegmentLayout,
    owner: Owner,
}

impl<D: Disk> Store<D> {
    /// The job that reads everything of a volume, which is not open, from the device.
    pub fn verify_job(&self, owner: Owner) -> VerifyJob<D> {
        VerifyJob { disk: self.disk.clone(), layout: self.layout, owner }
    }
}

impl<D: Disk> VerifyJob<D> {
    /// Which volume.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Drops what is cached of the volume's files, then opens it as after a crash and scrubs all of it.
    pub fn run(self) -> Result<ScrubReport, VerifyError> {
        let directory = directory_of(self.owner);
        for name in self.disk.list(&directory)? {
            self.disk.open(&format!("{directory}/{name}"))?.forget_cached()?;
        }
        let store = Store::open(&self.disk, self.layout)?;
        let (volume, _) = store.open_volume(self.owner)?;
        let index = volume.log.rebuild_index(volume.log.last().0)?;
        Ok(volume.scrub(&index)?)
    }
}
