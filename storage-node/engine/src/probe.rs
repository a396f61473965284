//! A probe of the store: pages are written, made durable and read back, as an object would be. It says
//! how the device does its work when nobody has work for it, and touches no volume.

use bytes::Bytes;
use trefoil_protocol::ids::Hash;

use crate::disk::{Disk, DiskError, DiskFile};
use crate::health::{Health, SyncError};
use crate::store::Store;

/// The file that probes write, over and over.
const PROBE_FILE: &str = "probe";

/// Why a probe did not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A write or a read failed. Nothing that anybody relies on lies there.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The sync failed; the store is poisoned.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Probes that share one flush, to be run on the threads that flush volumes.
#[derive(Debug)]
#[must_use = "nothing is probed until the job runs"]
pub struct ProbeJob<D: Disk> {
    disk: D,
    health: Health<D>,
    pages: Vec<Bytes>,
}

impl<D: Disk> Store<D> {
    /// The job that writes these pages and reads them back.
    pub fn probe_job(&self, pages: Vec<Bytes>) -> ProbeJob<D> {
        ProbeJob { disk: self.disk.clone(), health: self.health.clone(), pages }
    }
}

impl<D: Disk> ProbeJob<D> {
    /// Bytes that it makes durable.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(|page| page.len() as u64).sum()
    }

    /// Writes, syncs, drops what is cached and reads back; answers the hash of each page as it was read.
    /// The file's name is not made durable: a crash that loses it loses nothing.
    pub fn run(self) -> Result<Vec<Hash>, ProbeError> {
        let file = self.disk.create(PROBE_FILE)?;
        let pages: Vec<&[u8]> = self.pages.iter().map(|page| &page[..]).collect();
        file.write_at(0, &pages)?;
        self.health.sync_data(&file)?;
        file.forget_cached()?;
        let (mut offset, mut hashes) = (0, Vec::new());
        for page in pages {
            let mut read = vec![0; page.len()];
            file.read_at(offset, &mut read)?;
            offset += page.len() as u64;
            hashes.push(Hash(*blake3::hash(&read).as_bytes()));
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::{DiskOperation, FaultDisk, Outcome, ScriptedFault};
    use crate::segment::SegmentLayout;
    use trefoil_protocol::ids::StoreId;

    fn store(disk: &FaultDisk) -> Store<FaultDisk> {
        Store::format(disk, StoreId([1; 16]), "a1".parse().unwrap(), &[2; 32]).unwrap();
        Store::open(disk, SegmentLayout::default()).unwrap()
    }

    #[test]
    fn a_probe_answers_the_hashes_of_what_lies_on_the_disk() {
        let store = store(&FaultDisk::new());
        for byte in [1, 2] {
            let pages = vec![Bytes::from(vec![byte; 4096]), Bytes::from(vec![byte + 7; 100])];
            let hashes = pages.iter().map(|page| Hash(*blake3::hash(page).as_bytes())).collect();
            assert_eq!(store.probe_job(pages).run(), Ok(hashes));
        }
    }

    #[test]
    fn a_failed_sync_of_a_probe_poisons_the_store_like_any_other() {
        let disk = FaultDisk::new();
        let store = store(&disk);
        disk.inject(ScriptedFault { operation: DiskOperation::Sync, nth: 1, outcome: Outcome::Error });
        let failed = store.probe_job(vec![Bytes::from_static(b"page")]).run();
        assert!(matches!(failed, Err(ProbeError::Sync(SyncError::Failed(_)))), "{failed:?}");
        assert!(store.health().is_poisoned());
    }
}
