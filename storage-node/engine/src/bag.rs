//! The key bag of a volume: the wrapped data keys, in one encrypted file whose key lies in the
//! volume's superblock. Dropping a key means writing a new bag without it under a new bag key and
//! destroying the old pair: afterwards no earlier copy of a bag file can be opened.
//!
//! Until the bag holds a key durably, the key rides in its record. Randomness is handed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::record::Record;
use zeroize::Zeroizing;

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::Position;
use crate::health::{Health, SyncError};
use crate::index::Index;
use crate::state::version_of;
use crate::store::{Volume, VolumeState};
use crate::superblock::{SuperblockError, TwoSlots};
use crate::volume::{RecordReadError, StageError};

const MAGIC: [u8; 4] = *b"TRFK";
const FORMAT: u32 = 1;
const HEAD_LENGTH: usize = 24;

/// A wrapped data key of one version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BagEntry {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// The tenant key's version that wraps it.
    #[n(1)]
    pub kek_version: u32,
    /// The wrapped key.
    #[cbor(n(2), with = "trefoil_protocol::codec::bytes")]
    pub wrapped: Bytes,
}

/// The key of one bag. Overwritten in memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BagKey(Zeroizing<[u8; 32]>);

impl From<&Zeroizing<[u8; 32]>> for BagKey {
    fn from(key: &Zeroizing<[u8; 32]>) -> BagKey {
        BagKey(key.clone())
    }
}

impl<C> Encode<C> for BagKey {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0[..])?.ok()
    }
}

impl<'b, C> Decode<'b, C> for BagKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let key: [u8; 32] =
            d.bytes()?.try_into().map_err(|_| DecodeError::message("a bag key has 32 bytes"))?;
        Ok(BagKey(Zeroizing::new(key)))
    }
}

/// Why a bag cannot be read or rotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A sync failed; the store is poisoned.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The superblock could not be written.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The bag file is not what the superblock's key encrypted.
    #[error("the key bag of generation {generation} is damaged")]
    Damaged {
        /// Its generation.
        generation: u64,
    },
}

/// The wrapped keys that the bag holds durably. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KeyBag {
    generation: u64,
    entries: Arc<BTreeMap<VersionId, BagEntry>>,
}

impl KeyBag {
    /// How often the bag was rotated; goes into erase receipts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The wrapped key of a version.
    pub fn get(&self, version: VersionId) -> Option<&BagEntry> {
        self.entries.get(&version)
    }

    /// All entries, by version.
    pub fn entries(&self) -> impl Iterator<Item = &BagEntry> {
        self.entries.values()
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn changed(&self, add: &[BagEntry], drop: &[VersionId]) -> KeyBag {
        let mut entries = BTreeMap::clone(&self.entries);
        entries.extend(add.iter().map(|entry| (entry.version, entry.clone())));
        for version in drop {
            entries.remove(version);
        }
        KeyBag { generation: self.generation + 1, entries: Arc::new(entries) }
    }

    fn seal(&self, state: &VolumeState) -> Vec<u8> {
        let list: Vec<&BagEntry> = self.entries.values().collect();
        let plain = Zeroizing::new(codec::to_vec(&list));
        let payload = Payload { msg: &plain, aad: &associated(state, self.generation) };
        let sealed = cipher(state)
            .encrypt(&Nonce::default(), payload)
            .expect("a bag is far shorter than the cipher's limit");
        let mut file = Vec::with_capacity(HEAD_LENGTH + sealed.len());
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&FORMAT.to_le_bytes());
        file.extend_from_slice(&self.generation.to_le_bytes());
        file.extend_from_slice(&(sealed.len() as u64).to_le_bytes());
        file.extend_from_slice(&sealed);
        file
    }

    fn open(file: &[u8], state: &VolumeState) -> Result<KeyBag, BagError> {
        let generation = state.bag_generation;
        let damaged = || BagError::Damaged { generation };
        let head_is = |at: usize, expected: &[u8]| file.get(at..at + expected.len()) == Some(expected);
        let known =
            head_is(0, &MAGIC) && head_is(4, &FORMAT.to_le_bytes()) && head_is(8, &generation.to_le_bytes());
        let length = file.get(16..HEAD_LENGTH).and_then(|bytes| bytes.try_into().ok());
        let length = length.map_or(u64::MAX, u64::from_le_bytes);
        let rest = file.get(HEAD_LENGTH..).unwrap_or_default();
        let sealed = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let (true, Some(sealed)) = (known, sealed) else {
            return Err(damaged());
        };
        let payload = Payload { msg: sealed, aad: &associated(state, generation) };
        let plain = cipher(state).decrypt(&Nonce::default(), payload);
        let plain = Zeroizing::new(plain.map_err(|_| damaged())?);
        let list: Vec<BagEntry> = codec::from_slice(&plain).map_err(|_| damaged())?;
        let entries: BTreeMap<_, _> = list.into_iter().map(|entry| (entry.version, entry)).collect();
        Ok(KeyBag { generation, entries: Arc::new(entries) })
    }
}

/// One rotation, to be run on a disk thread. It has the volume's superblock meanwhile.
#[derive(Debug)]
#[must_use = "nothing is rotated until the job runs"]
pub struct RotationJob<D: Disk> {
    disk: D,
    health: Health<D>,
    directory: String,
    superblock: TwoSlots<D, VolumeState>,
    bag: KeyBag,
    add: Vec<BagEntry>,
    drop: Vec<VersionId>,
    bag_key: Zeroizing<[u8; 32]>,
    reserve_bytes: u64,
}

/// A finished rotation, to be handed back to the volume.
#[derive(Debug)]
#[must_use = "the volume takes over the new bag with `Volume::rotated`"]
pub struct Rotated<D: Disk> {
    superblock: TwoSlots<D, VolumeState>,
    /// `None` if the disk had no room for a new bag: nothing changed.
    bag: Option<KeyBag>,
}

impl<D: Disk> RotationJob<D> {
    /// Rotates, unless the disk has no room for a new bag. After an error the volume has to be opened
    /// again, which finds one complete pair and finishes the rest. The order of steps, and what a
    /// crash after each leaves:
    ///
    /// 1. new bag written, synced, named, read back, compared: both slots still name the old pair;
    /// 2. one slot names the new pair, synced: the new pair counts, the old one is whole;
    /// 3. the other slot too, synced: the old bag key is gone from the disk;
    /// 4. old bag zeroed, synced, unnamed: a crash before is finished at the next open.
    pub fn run(mut self) -> Result<Rotated<D>, BagError> {
        let old = self.superblock.value().clone();
        let (bag, new) = match self.write_new(&old) {
            Ok(written) => written,
            Err(BagError::Disk(DiskError::Full { .. })) => {
                let superblock = self.superblock;
                return Ok(Rotated { superblock, bag: None });
            }
            Err(error) => return Err(error),
        };
        self.superblock.write_both(new)?;
        if old.bag_generation > 0 {
            destroy(&self.disk, &self.health, &self.directory, old.bag_generation)?;
        }
        Ok(Rotated { superblock: self.superblock, bag: Some(bag) })
    }

    /// Writes the new bag. On a full disk keys are still dropped, for which the reserve is there, but
    /// none are added.
    fn write_new(&self, old: &VolumeState) -> Result<(KeyBag, VolumeState), BagError> {
        let bag = self.bag.changed(&self.add, &self.drop);
        let new = VolumeState {
            bag_key: BagKey::from(&self.bag_key),
            bag_generation: bag.generation,
            ..old.clone()
        };
        let sealed = bag.seal(&new);
        let needed = (sealed.len() as u64).saturating_add(self.reserve_bytes);
        if self.disk.free_bytes()? < needed && !self.add.is_empty() {
            let path = bag_path(&self.directory, bag.generation);
            if self.drop.is_empty() {
                return Err(DiskError::Full { path, needed }.into());
            }
            let bag = self.bag.changed(&[], &self.drop);
            self.write_bag(&bag, &bag.seal(&new), &new)?;
            return Ok((bag, new));
        }
        self.write_bag(&bag, &sealed, &new)?;
        Ok((bag, new))
    }

    fn write_bag(&self, bag: &KeyBag, sealed: &[u8], state: &VolumeState) -> Result<(), BagError> {
        let generation = bag.generation;
        let path = bag_path(&self.directory, generation);
        let file = self.disk.create(&path)?;
        if let Err(error) = file.allocate(sealed.len() as u64) {
            // Nothing was written to it. If its name outlives a crash, the next open removes it.
            self.disk.remove(&path)?;
            return Err(error.into());
        }
        file.write_at(0, &[sealed])?;
        self.health.sync_data(&file)?;
        self.health.sync_directory(&self.directory)?;
        let mut again = vec![0; sealed.len()];
        file.read_at(0, &mut again)?;
        let same = again == sealed && KeyBag::open(&again, state)?.entries == bag.entries;
        match same {
            true => Ok(()),
            false => Err(BagError::Damaged { generation }),
        }
    }
}

impl<D: Disk> Volume<D> {
    /// The bag's keys.
    pub fn bag(&self) -> &KeyBag {
        &self.bag
    }

    /// Whether the bag that the superblock names could not be opened: its keys have to come from
    /// other copies, and a rotation has to destroy what is left of it.
    pub fn is_bag_lost(&self) -> bool {
        self.bag_lost
    }

    /// A rotation that adds (or replaces) entries and drops others, under a new random bag key.
    /// At most one replica of a volume rotates at a time; that is the caller's to see to.
    ///
    /// # Panics
    /// If a rotation is under way.
    pub fn rotation_job(
        &mut self,
        add: Vec<BagEntry>,
        drop: Vec<VersionId>,
        bag_key: Zeroizing<[u8; 32]>,
    ) -> RotationJob<D> {
        RotationJob {
            disk: self.disk.clone(),
            health: self.log.health.clone(),
            directory: self.log.segments.directory.clone(),
            superblock: self.superblock.take().expect("one rotation of a volume at a time"),
            bag: self.bag.clone(),
            add,
            drop,
            bag_key,
            reserve_bytes: self.log.segments.reserve_bytes(),
        }
    }

    /// Takes over a finished rotation; `false` if there was no room for one. Keys that the bag holds
    /// now may be erased from their records.
    pub fn rotated(&mut self, rotated: Rotated<D>) -> bool {
        self.superblock = Some(rotated.superblock);
        let Some(bag) = rotated.bag else { return false };
        self.bag = bag;
        self.bag_lost = false;
        true
    }

    /// Whether the bag file on disk still opens and holds what is in memory. While a rotation is under
    /// way it does: that has just written one and read it back.
    pub(crate) fn bag_is_whole(&self) -> Result<bool, DiskError> {
        let Some(superblock) = self.superblock.as_ref().filter(|_| self.bag.generation > 0) else {
            return Ok(true);
        };
        match read_bag(&self.disk, &self.log.segments.directory, superblock.value()) {
            Ok(bag) => Ok(bag.entries == self.bag.entries),
            Err(BagError::Disk(DiskError::NotFound { .. })) => Ok(false),
            Err(BagError::Disk(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Stages a record as [`crate::VolumeLog::append`] does, without a wrapped key that the bag has.
    pub fn append(&mut self, record: &Record) -> Result<Position, StageError> {
        let in_bag = version_of(record.body()).is_some_and(|version| self.bag.get(version).is_some());
        match record.wrapped() {
            Some(_) if in_bag => self.log.append(&record.clone().without_wrapped()),
            _ => self.log.append(record),
        }
    }

    /// The wrapped keys that still ride in records of versions held here, at most `limit`.
    pub fn keys_in_records(&self, index: &Index, limit: usize) -> Result<Vec<BagEntry>, RecordReadError> {
        let mut keys = Vec::new();
        for object in index.held() {
            if keys.len() == limit {
                break;
            }
            let record = match self.log.record(object.lsn) {
                // What is damaged is reported elsewhere.
                Err(RecordReadError::Faulty { .. }) => continue,
                read => read?,
            };
            if let Some(wrapped) = record.wrapped() {
                keys.push(BagEntry {
                    version: object.version(),
                    kek_version: object.kek_version,
                    wrapped: wrapped.clone(),
                });
            }
        }
        Ok(keys)
    }
}

/// Opens the bag that the superblock names and finishes what a crashed rotation left: bags of other
/// generations are destroyed, after both slots name the current one. `None` if the bag is damaged.
pub(crate) fn open_bag<D: Disk>(
    disk: &D,
    health: &Health<D>,
    directory: &str,
    superblock: &mut TwoSlots<D, VolumeState>,
) -> Result<Option<KeyBag>, BagError> {
    let state = superblock.value().clone();
    let bag = match state.bag_generation {
        0 => Some(KeyBag::default()),
        _ => match read_bag(disk, directory, &state) {
            Ok(bag) => Some(bag),
            Err(BagError::Damaged { .. } | BagError::Disk(DiskError::NotFound { .. })) => None,
            Err(error) => return Err(error),
        },
    };
    let generations = disk.list(directory)?.into_iter().filter_map(|name| generation_of(&name));
    let left: Vec<u64> = generations.filter(|generation| *generation != state.bag_generation).collect();
    if !left.is_empty() && !health.is_poisoned() {
        superblock.write_both(state)?;
        for generation in left {
            destroy(disk, health, directory, generation)?;
        }
    }
    Ok(bag)
}

impl KeyBag {
    /// In the place of a bag that cannot be read: its number goes on, its keys are not there.
    pub(crate) fn lost(state: &VolumeState) -> KeyBag {
        KeyBag { generation: state.bag_generation, entries: Arc::default() }
    }
}

fn read_bag<D: Disk>(disk: &D, directory: &str, state: &VolumeState) -> Result<KeyBag, BagError> {
    let file = disk.open(&bag_path(directory, state.bag_generation))?;
    let mut sealed = vec![0; file.length()? as usize];
    file.read_at(0, &mut sealed)?;
    KeyBag::open(&sealed, state)
}

fn destroy<D: Disk>(disk: &D, health: &Health<D>, directory: &str, generation: u64) -> Result<(), BagError> {
    let path = bag_path(directory, generation);
    let file = match disk.open(&path) {
        // A damaged directory may have lost the name before.
        Err(DiskError::NotFound { .. }) => return Ok(()),
        opened => opened?,
    };
    let length = file.length()?;
    file.write_at(0, &[&vec![0; length as usize]])?;
    health.sync_data(&file)?;
    file.punch(0, length)?;
    health.sync_data(&file)?;
    disk.remove(&path)?;
    health.sync_directory(directory)?;
    Ok(())
}

/// Each bag key seals exactly one bag, so that the nonce may be a constant.
fn cipher(state: &VolumeState) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new((&*state.bag_key.0).into())
}

fn associated(state: &VolumeState, generation: u64) -> Vec<u8> {
    let mut bytes = b"trefoil/v1 key bag".to_vec();
    bytes.extend_from_slice(&state.store.0);
    bytes.extend_from_slice(&state.tenant.0.to_le_bytes());
    bytes.extend_from_slice(&state.volume.0.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes
}

fn bag_path(directory: &str, generation: u64) -> String {
    format!("{directory}/bag-{generation}")
}

fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix("bag-")?.parse().ok()
}
