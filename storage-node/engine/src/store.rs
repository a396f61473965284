//! A store: one formatted directory tree with its identity, its signing key, its proof of clean
//! shutdown and a directory for each volume. A store that lost its data comes back under a new id;
//! nothing here guesses one.

use std::fmt;

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{Hash, Incarnation, Lsn, NodeId, StoreId, TenantId, VolumeId};
use zeroize::Zeroizing;

use crate::bag::{BagKey, KeyBag, open_bag};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::{Owner, Position, Scope};
use crate::health::{Health, SUSPECT_FILE, SyncError};
use crate::recovery::{CleanEnd, OpenError, Recovery, RecoveryReport};
use crate::segment::{SegmentLayout, Unsynced};
use crate::superblock::{SuperblockError, TwoSlots};
use crate::sync::SyncJob;
use crate::volume::{LogIdentity, VolumeLog};

const STORE_FILE: &str = "store";
const SIGNING_KEY_FILE: &str = "signing-key";
pub(crate) const VOLUMES: &str = "volumes";
pub(crate) const VOLUME_FILE: &str = "volume";

/// What the store's superblock says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreState {
    /// The store's id, given at formatting and never changed.
    #[n(0)]
    pub store: StoreId,
    /// The node that runs it.
    #[n(1)]
    pub node: NodeId,
    /// The last incarnation that the control plane gave.
    #[n(2)]
    pub incarnation: Incarnation,
    /// Whether the last run ended with everything synced and said so.
    #[n(3)]
    pub clean: bool,
}

/// What the volume's superblock says.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VolumeState {
    #[n(0)]
    pub(crate) store: StoreId,
    #[n(1)]
    pub(crate) tenant: TenantId,
    #[n(2)]
    pub(crate) volume: VolumeId,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) seal: [u8; 16],
    #[n(4)]
    pub(crate) bag_key: BagKey,
    #[n(5)]
    pub(crate) bag_generation: u64,
    #[n(6)]
    pub(crate) clean_end: Option<WrittenEnd>,
}

/// [`CleanEnd`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WrittenEnd {
    #[n(0)]
    last: Lsn,
    #[n(1)]
    chain: Hash,
    #[n(2)]
    segment: u64,
    #[n(3)]
    offset: u64,
}

impl fmt::Debug for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeState")
            .field("store", &self.store)
            .field("tenant", &self.tenant)
            .field("volume", &self.volume)
            .field("bag_generation", &self.bag_generation)
            .field("clean_end", &self.clean_end)
            .finish_non_exhaustive()
    }
}

/// Why a store cannot be formatted or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A sync failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The superblock is unusable.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// There is a store already; formatting would destroy it.
    #[error("there is a store already")]
    Exists,
    /// The directory holds no store.
    #[error("no store was formatted here")]
    NotFormatted,
}

/// Secret random bytes for a new volume, handed in: the engine has no randomness.
pub struct VolumeSecrets {
    /// Goes into every frame header's checksum.
    pub seal: [u8; 16],
    /// The first bag key.
    pub bag_key: Zeroizing<[u8; 32]>,
}

/// An open store.
#[derive(Debug)]
pub struct Store<D: Disk> {
    pub(crate) disk: D,
    pub(crate) health: Health<D>,
    superblock: TwoSlots<D, StoreState>,
    pub(crate) layout: SegmentLayout,
}

impl StoreError {
    /// Whether there was no room for it; nothing is wrong with the store then.
    pub fn is_full(&self) -> bool {
        let full = |error: &DiskError| matches!(error, DiskError::Full { .. });
        match self {
            Self::Disk(error) | Self::Superblock(SuperblockError::Disk(error)) => full(error),
            _ => false,
        }
    }
}

impl<D: Disk> Store<D> {
    /// Formats an empty disk. A crash before the end leaves no superblock, hence no store, and
    /// formatting can be begun again.
    pub fn format(disk: &D, store: StoreId, node: NodeId, signing_key: &[u8; 32]) -> Result<(), StoreError> {
        if Self::holds_data(disk) {
            return Err(StoreError::Exists);
        }
        let suspect = Health::prepare(disk)?;
        let health = Health::open(disk)?;
        health.sync_data(&suspect)?;
        let key = disk.create(SIGNING_KEY_FILE)?;
        key.write_at(0, &[signing_key])?;
        health.sync_data(&key)?;
        disk.create_directory(VOLUMES)?;
        health.sync_directory("")?;
        let state = StoreState { store, node, incarnation: Incarnation::default(), clean: true };
        TwoSlots::create(disk, &health, STORE_FILE, state)?;
        health.sync_directory("")?;
        Ok(())
    }

    /// Whether formatting would destroy something: a readable store, one of another version, or
    /// volumes whose superblock is damaged. What a crash while formatting leaves is none of these.
    fn holds_data(disk: &D) -> bool {
        let volumes = disk.list(VOLUMES).is_ok_and(|names| !names.is_empty());
        let unformatted = |error| match error {
            StoreError::NotFormatted => true,
            StoreError::Superblock(error) => matches!(error, SuperblockError::BothSlotsDamaged { .. }),
            _ => false,
        };
        volumes || !Self::open(disk, SegmentLayout::default()).is_err_and(unformatted)
    }

    /// Opens a store. A suspect one opens too, poisoned: it can be read and repaired from, and
    /// takes nothing.
    pub fn open(disk: &D, layout: SegmentLayout) -> Result<Store<D>, StoreError> {
        let missing = |error| match error {
            DiskError::NotFound { .. } => StoreError::NotFormatted,
            error => StoreError::Disk(error),
        };
        disk.open(STORE_FILE).map_err(missing)?;
        disk.open(SUSPECT_FILE).map_err(missing)?;
        let health = Health::open(disk)?;
        if health.is_poisoned() {
            disk.open(STORE_FILE)?.forget_cached()?;
        }
        let superblock = TwoSlots::open(disk, &health, STORE_FILE)?;
        Ok(Store { disk: disk.clone(), health, superblock, layout })
    }

    /// What the superblock says.
    pub fn state(&self) -> &StoreState {
        self.superblock.value()
    }

    /// The gate for syncs, for whoever writes besides the volume logs.
    pub fn health(&self) -> &Health<D> {
        &self.health
    }

    /// Why the store is suspect, if it is.
    pub fn suspicion(&self) -> Result<Option<String>, DiskError> {
        self.health.suspicion()
    }

    /// Marks the store as not to be believed: nothing is synced any more, and the next run reads all of
    /// it before it does anything else.
    pub fn distrust(&self, reason: &str) {
        self.health.distrust(reason);
    }

    /// Takes the mark away after everything on the store was read again: from here on it is as after a
    /// crash, and its volumes are compared with their peers before any of them counts.
    pub fn clear_suspicion(&mut self) -> Result<(), StoreError> {
        self.health.clear()?;
        // A name that was given before the failed sync may be in memory only.
        self.health.sync_directory("")?;
        self.health.sync_directory(VOLUMES)?;
        for owner in self.volumes()? {
            self.health.sync_directory(&directory_of(owner))?;
        }
        Ok(())
    }

    /// The store's signing key.
    pub fn signing_key(&self) -> Result<Zeroizing<[u8; 32]>, DiskError> {
        let mut key = Zeroizing::new([0; 32]);
        self.disk.open(SIGNING_KEY_FILE)?.read_at(0, &mut key[..])?;
        Ok(key)
    }

    /// Begins a run under a new incarnation: from here until [`Store::end_cleanly`] the store
    /// counts as not cleanly shut down.
    pub fn begin(&mut self, incarnation: Incarnation) -> Result<(), SuperblockError> {
        let state = StoreState { incarnation, clean: false, ..self.state().clone() };
        self.superblock.write(state)
    }

    /// Ends a run; every volume log was closed before.
    pub fn end_cleanly(mut self) -> Result<(), SuperblockError> {
        let state = StoreState { clean: true, ..self.state().clone() };
        self.superblock.write(state)
    }

    /// The volumes that have a directory here.
    pub fn volumes(&self) -> Result<Vec<Owner>, DiskError> {
        let names = self.disk.list(VOLUMES)?;
        Ok(names.iter().filter_map(|name| owner_of(name)).filter(|owner| self.is_volume(*owner)).collect())
    }

    /// A directory without a superblock is what a wipe leaves, or a creation that was cut short; so is
    /// one with nothing but an unreadable superblock: no log was ever begun there.
    fn is_volume(&self, owner: Owner) -> bool {
        let directory = directory_of(owner);
        let path = format!("{directory}/{VOLUME_FILE}");
        let names = self.disk.list(&directory).unwrap_or_default();
        let readable = || TwoSlots::<D, VolumeState>::open(&self.disk, &self.health, &path).is_ok();
        names.iter().any(|name| name == VOLUME_FILE) && (names.len() > 1 || readable())
    }

    /// Creates an empty volume. Does nothing if it exists.
    pub fn create_volume(&self, owner: Owner, secrets: &VolumeSecrets) -> Result<(), StoreError> {
        self.create_job(owner, secrets).run()
    }

    /// Opens a volume: recovers its log and takes away its proof of clean shutdown.
    pub fn open_volume(&self, owner: Owner) -> Result<(Volume<D>, RecoveryReport), OpenError> {
        let directory = directory_of(owner);
        let path = format!("{directory}/{VOLUME_FILE}");
        let mut superblock: TwoSlots<D, VolumeState> = TwoSlots::open(&self.disk, &self.health, &path)?;
        let identity = LogIdentity { store: self.state().store, tenant: owner.tenant, volume: owner.volume };
        let state = superblock.value().clone();
        let got = LogIdentity { store: state.store, tenant: state.tenant, volume: state.volume };
        if got != identity {
            return Err(OpenError::Foreign { got, expected: identity });
        }
        let recovery = Recovery {
            disk: &self.disk,
            health: &self.health,
            directory: &directory,
            identity,
            scope: Scope { owner, seal: state.seal },
            layout: self.layout,
            clean_end: state.clean_end.map(CleanEnd::from),
        };
        let (mut log, report) = recovery.open()?;
        let opened = open_bag(&self.disk, &self.health, &directory, &mut superblock)?;
        let bag_lost = opened.is_none();
        let bag = opened.unwrap_or_else(|| KeyBag::lost(&state));
        if state.clean_end.is_some() && !self.health.is_poisoned() {
            // Nothing is acknowledged before the log's next sync, which covers this.
            superblock.stage(VolumeState { clean_end: None, ..state })?;
            log.segments.sync_beside(superblock.file().clone());
        }
        let (superblock, disk) = (Some(superblock), self.disk.clone());
        Ok((Volume { log, superblock, bag, bag_lost, disk }, report))
    }

    /// Every file of the store, for raw scans.
    pub fn files(&self) -> Result<Vec<String>, DiskError> {
        let mut files = Vec::new();
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            for name in self.disk.list(&directory)? {
                let path = match directory.is_empty() {
                    true => name,
                    false => format!("{directory}/{name}"),
                };
                match self.disk.list(&path) {
                    Ok(_) => directories.push(path),
                    Err(_) => files.push(path),
                }
            }
        }
        files.sort();
        Ok(files)
    }

    pub(crate) fn disk(&self) -> &D {
        &self.disk
    }
}

/// An open volume: its log and its superblock.
#[derive(Debug)]
pub struct Volume<D: Disk> {
    /// The log.
    pub log: VolumeLog<D>,
    /// Away while the key bag is rotated, so that nothing else writes it.
    pub(crate) superblock: Option<TwoSlots<D, VolumeState>>,
    pub(crate) bag: KeyBag,
    pub(crate) bag_lost: bool,
    pub(crate) disk: D,
}

impl<D: Disk> Volume<D> {
    /// Writes both slots of the superblock again: one of them was damaged. A rotation of the key bag does
    /// that anyway.
    pub fn write_slots_again(&mut self) -> Result<(), SuperblockError> {
        match &mut self.superblock {
            Some(superblock) => superblock.write_both(superblock.value().clone()),
            None => Ok(()),
        }
    }

    /// Syncs what is staged and writes the proof of clean shutdown: last record, its hash, and
    /// where the log ends. There is no proof while the key bag is being rotated.
    pub fn close(self) -> Result<(), SuperblockError> {
        Self::close_all(vec![self])
    }

    /// Closes several volumes of one store at once.
    pub fn close_all(mut volumes: Vec<Self>) -> Result<(), SuperblockError> {
        let Some(health) = volumes.first().map(|volume| volume.log.health.clone()) else { return Ok(()) };
        health.check()?;
        // Of what a thread syncs meanwhile nobody here hears the outcome: no proof either.
        volumes.retain(|volume| volume.log.is_at_rest());
        let jobs: Vec<SyncJob<D>> = volumes.iter_mut().filter_map(|volume| volume.log.sync_job()).collect();
        // Where a new run took the proof away and nothing was staged since, that has to be durable before
        // the other slot is written.
        let slots = volumes.iter().filter_map(|volume| volume.superblock.as_ref());
        let staged = slots.filter(|slots| slots.is_staged()).map(|slots| slots.file().clone()).collect();
        let slots = Unsynced { files: staged, directories: Vec::new(), bytes: 0 };
        let unsynced = jobs.into_iter().fold(slots, |all, job| all.with(job.unsynced));
        health.sync_together(&unsynced.files, &unsynced.directories)?;
        let mut proofs = Vec::new();
        for volume in volumes {
            let (last, chain) = volume.log.last();
            let clean_end = CleanEnd { last, chain, at: volume.log.segments.end() };
            let Some(mut superblock) = volume.superblock else { continue };
            superblock.synced();
            let clean_end = Some(WrittenEnd::of(clean_end));
            superblock.stage(VolumeState { clean_end, ..superblock.value().clone() })?;
            proofs.push(superblock.file().clone());
        }
        Ok(health.sync_together(&proofs, &[])?)
    }
}

impl WrittenEnd {
    pub(crate) fn of(end: CleanEnd) -> WrittenEnd {
        WrittenEnd { last: end.last, chain: end.chain, segment: end.at.segment, offset: end.at.offset }
    }
}

impl From<WrittenEnd> for CleanEnd {
    fn from(end: WrittenEnd) -> CleanEnd {
        CleanEnd {
            last: end.last,
            chain: end.chain,
            at: Position { segment: end.segment, offset: end.offset },
        }
    }
}

pub(crate) fn directory_of(owner: Owner) -> String {
    format!("{VOLUMES}/{}-{}", owner.tenant, owner.volume)
}

fn owner_of(name: &str) -> Option<Owner> {
    let (tenant, volume) = name.split_once('-')?;
    Some(Owner { tenant: tenant.parse().ok()?, volume: volume.parse().ok()? })
}
