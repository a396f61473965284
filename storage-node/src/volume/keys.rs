//! Where the wrapped keys of one volume are on this store: in their records, on the way to the key
//! bag, in the bag, or condemned there. Only remembers; the bag is the engine's, and when it is
//! rotated is [`super::rotation`]'s to say.
//!
//! A key is always in its record or in the bag, durably, until its version is erased.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trefoil_engine::{BagEntry, Disk, EraseTarget, Rotated, RotationJob, StageError, Volume};
use trefoil_protocol::ids::{Lsn, VersionId};
use trefoil_protocol::record::{Put, Record};
use trefoil_protocol::time::CpTime;
use zeroize::Zeroizing;

/// The most keys that one rotation adds.
const MOVED_AT_ONCE: usize = 1 << 16;

/// A wrapped key in a committed record.
#[derive(Clone, Debug)]
struct Riding {
    entry: BagEntry,
    at: CpTime,
}

/// The wrapped keys of a volume, but for those that rest in the bag.
#[derive(Debug, Default)]
pub struct Keys {
    riding: BTreeMap<Lsn, Riding>,
    /// Given to a rotation, or found in the bag and in the record too: to be zeroed there once the
    /// bag has them.
    moving: BTreeMap<VersionId, Lsn>,
    /// In the bag although their versions are erased.
    condemned: BTreeSet<VersionId>,
    rotating: bool,
    /// The bag on disk is not what it was when it was written.
    bag_is_damaged: bool,
}

impl Keys {
    /// A put is committed, or its record was repaired, and carries its key.
    pub fn rides<D: Disk>(&mut self, volume: &Volume<D>, put: &Put, record: &Record) {
        let version = put.upload.version;
        let Some(wrapped) = record.wrapped().filter(|_| !volume.log.is_version_gone(version)) else { return };
        if volume.bag().get(version).is_some() {
            // A rotation got this far before a crash.
            if !volume.log.is_key_moved(version) {
                self.moving.insert(version, record.lsn());
            }
            return;
        }
        // A copy: the record's own buffer may be a whole message.
        let wrapped = Bytes::copy_from_slice(wrapped);
        let entry = BagEntry { version, kek_version: put.kek_version, wrapped };
        self.riding.insert(record.lsn(), Riding { entry, at: put.cause.at });
    }

    /// Looks through a bag that was just opened.
    pub fn opened<D: Disk>(&mut self, volume: &Volume<D>) {
        let versions = volume.bag().entries().map(|entry| entry.version);
        self.condemned = versions.filter(|version| volume.log.is_version_gone(*version)).collect();
    }

    /// How many keys ride in their records, and since when the oldest does.
    pub fn riding(&self) -> (usize, Option<CpTime>) {
        (self.riding.len(), self.riding.values().next().map(|riding| riding.at))
    }

    /// Whether the bag has to be written anew, whatever rides: it holds keys that must go, or is not
    /// what it was.
    pub fn must_rotate<D: Disk>(&self, volume: &Volume<D>) -> bool {
        !self.condemned.is_empty() || self.bag_is_damaged || volume.is_bag_lost()
    }

    /// A scrub found the bag damaged; memory has what it held.
    pub fn bag_is_damaged(&mut self) {
        self.bag_is_damaged = true;
    }

    /// Whether a rotation is under way.
    pub fn is_rotating(&self) -> bool {
        self.rotating
    }

    /// The rotation for what waits.
    pub fn rotation_job<D: Disk>(
        &mut self,
        volume: &mut Volume<D>,
        bag_key: Zeroizing<[u8; 32]>,
    ) -> RotationJob<D> {
        self.rotating = true;
        let batch = self.riding.iter().take(MOVED_AT_ONCE);
        let add: Vec<BagEntry> = batch.clone().map(|(_, riding)| riding.entry.clone()).collect();
        self.moving.extend(batch.map(|(lsn, riding)| (riding.entry.version, *lsn)));
        volume.rotation_job(add, self.condemned.iter().copied().collect(), bag_key)
    }

    /// A rotation ended; `false` if there was no room for it.
    pub fn rotated<D: Disk>(&mut self, volume: &mut Volume<D>, rotated: Rotated<D>) -> bool {
        self.rotating = false;
        let done = volume.rotated(rotated);
        self.bag_is_damaged &= !done;
        self.condemned.retain(|version| volume.bag().get(*version).is_some());
        self.moving.retain(|version, _| volume.bag().get(*version).is_some());
        let overtaken = self.moving.keys().filter(|version| volume.log.is_version_gone(**version));
        self.condemned.extend(overtaken.copied().collect::<Vec<_>>());
        done
    }

    /// Stages the zeroing of what the bag holds by now.
    pub fn zero_moved<D: Disk>(&mut self, volume: &mut Volume<D>) -> Result<(), StageError> {
        if self.rotating || self.moving.is_empty() {
            return Ok(());
        }
        let left = self.moving.keys().filter(|version| !volume.log.is_version_gone(**version));
        let targets: Vec<EraseTarget> = left.map(|version| EraseTarget::WrappedKey(*version)).collect();
        volume.log.begin_erase(&targets)?;
        for lsn in std::mem::take(&mut self.moving).values() {
            self.riding.remove(lsn);
        }
        Ok(())
    }

    /// A version's erase began: its key moves nowhere any more.
    pub fn forget(&mut self, put: Lsn) {
        self.riding.remove(&put);
    }

    /// A version is erased: its key has to leave the bag.
    pub fn erased<D: Disk>(&mut self, volume: &Volume<D>, version: VersionId) {
        if volume.bag().get(version).is_some() {
            self.condemned.insert(version);
        }
    }

    /// Whether this version's key is neither in the bag nor on the way to it.
    pub fn is_gone<D: Disk>(&self, volume: &Volume<D>, version: VersionId) -> bool {
        let on_the_way = self.rotating && self.moving.contains_key(&version);
        !on_the_way && volume.bag().get(version).is_none() && !volume.is_bag_lost()
    }
}
