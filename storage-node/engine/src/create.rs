//! The beginning of a volume on a store: its directory and its superblock, made durable before anything
//! is written to its log. Many volumes begin together when a tenant is made or a store is lost, so that
//! jobs can be run together and share their syncs.

use trefoil_protocol::ids::{Hash, Lsn};

use crate::bag::BagKey;
use crate::disk::Disk;
use crate::frame::{Owner, Position};
use crate::health::Health;
use crate::recovery::CleanEnd;
use crate::segment::Unsynced;
use crate::store::{
    Store, StoreError, VOLUME_FILE, VOLUMES, VolumeSecrets, VolumeState, WrittenEnd, directory_of,
};
use crate::superblock::TwoSlots;

/// The creation of one volume, to be run on a disk thread.
#[derive(Debug)]
#[must_use = "nothing is created until the job runs"]
pub struct CreateJob<D: Disk> {
    disk: D,
    health: Health<D>,
    directory: String,
    state: VolumeState,
}

impl<D: Disk> Store<D> {
    /// The job that creates an empty volume, or does nothing if it exists.
    pub fn create_job(&self, owner: Owner, secrets: &VolumeSecrets) -> CreateJob<D> {
        let empty = CleanEnd { last: Lsn::ZERO, chain: Hash::ZERO, at: Position::default() };
        let state = VolumeState {
            store: self.state().store,
            tenant: owner.tenant,
            volume: owner.volume,
            seal: secrets.seal,
            bag_key: BagKey::from(&secrets.bag_key),
            bag_generation: 0,
            clean_end: Some(WrittenEnd::of(empty)),
        };
        CreateJob {
            disk: self.disk.clone(),
            health: self.health.clone(),
            directory: directory_of(owner),
            state,
        }
    }
}

impl<D: Disk> CreateJob<D> {
    /// Creates the volume.
    pub fn run(self) -> Result<(), StoreError> {
        let health = self.health.clone();
        let unsynced = self.prepare()?;
        sync(&health, &unsynced)
    }

    /// Creates several volumes of one store at once; the outcomes are in the order of the jobs.
    pub fn run_all(jobs: Vec<Self>) -> Vec<Result<(), StoreError>> {
        let Some(health) = jobs.first().map(|job| job.health.clone()) else { return Vec::new() };
        let mut together = Unsynced { files: Vec::new(), directories: Vec::new(), bytes: 0 };
        let mut outcomes = Vec::new();
        for job in jobs {
            match job.prepare() {
                Ok(unsynced) => {
                    together = together.with(unsynced);
                    outcomes.push(Ok(()));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let synced = sync(&health, &together);
        outcomes.into_iter().map(|prepared| prepared.and_then(|()| synced.clone())).collect()
    }

    /// Writes what makes the volume; the syncs that are still to be done make it one.
    fn prepare(self) -> Result<Unsynced<D::File>, StoreError> {
        let path = format!("{}/{VOLUME_FILE}", self.directory);
        if TwoSlots::<D, VolumeState>::open(&self.disk, &self.health, &path).is_ok() {
            return Ok(Unsynced { files: Vec::new(), directories: Vec::new(), bytes: 0 });
        }
        self.disk.create_directory(&self.directory)?;
        let superblock = TwoSlots::prepare(&self.disk, &self.health, &path, self.state)?;
        // The superblock, then its name, then the directory's: a crash before leaves no volume.
        let directories = vec![self.directory, VOLUMES.to_owned()];
        Ok(Unsynced { files: vec![superblock.file().clone()], directories, bytes: 0 })
    }
}

fn sync<D: Disk>(health: &Health<D>, unsynced: &Unsynced<D::File>) -> Result<(), StoreError> {
    let mut directories = unsynced.directories.clone();
    directories.sort();
    directories.dedup();
    directories.reverse();
    Ok(health.sync_together(&unsynced.files, &directories)?)
}
