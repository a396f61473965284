//! The key bag of a volume: the wrapped data keys, in one encrypted file whose key lies in the
//! volume's superblock. Dropping a key means writing a new bag without it under a new bag key and
//! destroying the old pair: afterwards no earlier copy of a bag file can be opened.
//!
//! Until the bag holds a key durably, the key rides in its record. Randomness is handed in.

use std::collections::BTreeMap;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::ids::VersionId;
use zeroize::Zeroizing;

use crate::disk::{Disk, DiskError, DiskFile};
use crate::health::{Health, SyncError};
use crate::index::{Index, ObjectVersion};
use crate::store::{Volume, VolumeState};
use crate::superblock::{SuperblockError, TwoSlots};
use crate::volume::RecordReadError;

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

/// The wrapped keys that the bag holds durably.
#[derive(Clone, Debug, Default)]
pub struct KeyBag {
    generation: u64,
    entries: BTreeMap<VersionId, BagEntry>,
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

    fn changed(&self, add: &[BagEntry], drop: &[VersionId]) -> KeyBag {
        let mut entries = self.entries.clone();
        entries.extend(add.iter().map(|entry| (entry.version, entry.clone())));
        for version in drop {
            entries.remove(version);
        }
        KeyBag { generation: self.generation + 1, entries }
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
        let entries = list.into_iter().map(|entry| (entry.version, entry)).collect();
        Ok(KeyBag { generation, entries })
    }
}

/// One rotation, to be run on a disk thread. While it runs nothing else writes the superblock.
#[derive(Debug)]
#[must_use = "nothing is rotated until the job runs"]
pub struct RotationJob<D: Disk> {
    disk: D,
    health: Health<D>,
    directory: String,
    superblock: TwoSlots<D, VolumeState>,
    bag: KeyBag,
    bag_key: Zeroizing<[u8; 32]>,
}

/// A finished rotation, to be handed back to the volume.
#[derive(Debug)]
#[must_use = "the volume takes over the new bag with `Volume::rotated`"]
pub struct Rotated<D: Disk> {
    superblock: TwoSlots<D, VolumeState>,
    bag: KeyBag,
}

impl<D: Disk> RotationJob<D> {
    /// Rotates. After an error the volume has to be opened again, which finds one complete pair and
    /// finishes the rest. The order of steps, and what a crash after each leaves:
    ///
    /// 1. new bag written, synced, named, read back, compared: both slots still name the old pair;
    /// 2. one slot names the new pair, synced: the new pair counts, the old one is whole;
    /// 3. the other slot too, synced: the old bag key is gone from the disk;
    /// 4. old bag zeroed, synced, unnamed: a crash before is finished at the next open.
    pub fn run(mut self) -> Result<Rotated<D>, BagError> {
        let old = self.superblock.value().clone();
        let generation = self.bag.generation;
        let new =
            VolumeState { bag_key: BagKey::from(&self.bag_key), bag_generation: generation, ..old.clone() };
        self.write_bag(&new)?;
        self.superblock.write_both(new)?;
        if old.bag_generation > 0 {
            destroy(&self.disk, &self.health, &self.directory, old.bag_generation)?;
        }
        Ok(Rotated { superblock: self.superblock, bag: self.bag })
    }

    fn write_bag(&self, state: &VolumeState) -> Result<(), BagError> {
        let generation = self.bag.generation;
        let sealed = self.bag.seal(state);
        let file = self.disk.create(&bag_path(&self.directory, generation))?;
        file.allocate(sealed.len() as u64)?;
        file.write_at(0, &[&sealed])?;
        self.health.sync_data(&file)?;
        self.health.sync_directory(&self.directory)?;
        let mut again = vec![0; sealed.len()];
        file.read_at(0, &mut again)?;
        let same = again == sealed && KeyBag::open(&again, state)?.entries == self.bag.entries;
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

    /// A rotation that adds (or replaces) entries and drops others, under a new random bag key.
    /// At most one replica of a volume rotates at a time; that is the caller's to see to.
    pub fn rotation_job(
        &self,
        add: &[BagEntry],
        drop: &[VersionId],
        bag_key: Zeroizing<[u8; 32]>,
    ) -> RotationJob<D> {
        RotationJob {
            disk: self.disk.clone(),
            health: self.log.health.clone(),
            directory: self.log.segments.directory.clone(),
            superblock: self.superblock.clone(),
            bag: self.bag.changed(add, drop),
            bag_key,
        }
    }

    /// Takes over a finished rotation. The keys that it added may now be erased from their records.
    pub fn rotated(&mut self, rotated: Rotated<D>) {
        self.superblock = rotated.superblock;
        self.bag = rotated.bag;
    }

    /// Whether the bag file on disk still opens and holds what is in memory.
    pub(crate) fn bag_is_whole(&self) -> Result<bool, DiskError> {
        if self.bag.generation == 0 {
            return Ok(true);
        }
        match read_bag(&self.disk, &self.log.segments.directory, self.superblock.value()) {
            Ok(bag) => Ok(bag.entries == self.bag.entries),
            Err(BagError::Disk(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// The wrapped key of a version held here: from the bag, or from its record while it still rides
    /// there. `None` if the version is erased or was delivered without it.
    pub fn wrapped_key(&self, object: &ObjectVersion) -> Result<Option<Bytes>, RecordReadError> {
        match self.bag.get(object.version()) {
            Some(entry) => Ok(Some(entry.wrapped.clone())),
            None => Ok(self.log.record(object.lsn)?.wrapped().cloned()),
        }
    }

    /// The wrapped keys that still ride in records of versions held here, at most `limit`.
    pub fn keys_in_records(&self, index: &Index, limit: usize) -> Result<Vec<BagEntry>, RecordReadError> {
        let mut keys = Vec::new();
        for object in index.held().filter(|object| self.bag.get(object.version()).is_none()) {
            if keys.len() == limit {
                break;
            }
            let record = self.log.record(object.lsn)?;
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
/// generations are destroyed, after both slots name the current one.
pub(crate) fn open_bag<D: Disk>(
    disk: &D,
    health: &Health<D>,
    directory: &str,
    superblock: &mut TwoSlots<D, VolumeState>,
) -> Result<KeyBag, BagError> {
    let state = superblock.value().clone();
    let bag = match state.bag_generation {
        0 => KeyBag::default(),
        _ => read_bag(disk, directory, &state)?,
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

fn read_bag<D: Disk>(disk: &D, directory: &str, state: &VolumeState) -> Result<KeyBag, BagError> {
    let file = disk.open(&bag_path(directory, state.bag_generation))?;
    let mut sealed = vec![0; file.length()? as usize];
    file.read_at(0, &mut sealed)?;
    KeyBag::open(&sealed, state)
}

fn destroy<D: Disk>(disk: &D, health: &Health<D>, directory: &str, generation: u64) -> Result<(), BagError> {
    let path = bag_path(directory, generation);
    let file = disk.open(&path)?;
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
