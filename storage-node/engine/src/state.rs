//! What a volume's frames add up to: which frame holds which record, where every leaf of every
//! upload lies, what is being erased. The same functions fold frames into it while they are staged
//! and while they are recovered, so that both see one log.
//!
//! Holds places, never bytes, and does no reading or writing.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{Epoch, Hash, Lsn, UploadId, VersionId};
use trefoil_protocol::record::RecordBody;

use crate::frame::{Header, Position};

/// What an erase removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum EraseTarget {
    /// Everything of a version: names, metadata, small payload, wrapped key in every record frame,
    /// and the leaves of all its uploads, wherever they lie.
    #[n(0)]
    Version(#[n(0)] VersionId),
    /// The leaves of one upload that no record refers to.
    #[n(1)]
    Upload(#[n(0)] UploadId),
    /// The wrapped key in a version's record frames, after the key bag holds it durably.
    #[n(2)]
    WrappedKey(#[n(0)] VersionId),
}

/// How a record of the log is damaged on this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// The record is missing or unreadable; its place in the log is known.
    Record,
    /// The record is there, its name, metadata and small payload are damaged.
    Erasable,
    /// The record is there, its wrapped key is damaged.
    WrappedKey,
}

/// A frame's place and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) length: usize,
}

impl Place {
    pub(crate) fn of(header: &Header) -> Place {
        Place { position: header.position, length: header.length() }
    }
}

/// Most volumes of a store with thousands have hardly a record, and no room for more.
const FEW: usize = 4;

/// One position of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Its chain hash; known for a missing record too, once its successor is there.
    pub(crate) chain: Option<Hash>,
    pub(crate) place: Option<Place>,
}

/// One leaf of an upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) place: Place,
    pub(crate) hash: [u8; 32],
    pub(crate) length: usize,
}

/// One attempt to upload a version's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upload {
    pub(crate) leaves: BTreeMap<u64, Leaf>,
    /// Frames of this upload that do not count: replaced or torn. An erase covers them too.
    pub(crate) elsewhere: Vec<Place>,
}

impl Upload {
    /// Every place where bytes of the upload lie.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let counting = self.leaves.values().map(|leaf| leaf.place);
        counting.chain(self.elsewhere.iter().copied())
    }
}

/// Everything known of a volume's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogState {
    pub(crate) records: Vec<Slot>,
    pub(crate) faults: BTreeMap<Lsn, RecordFault>,
    /// Every record frame that carries parts of a version, cut and replaced frames included.
    pub(crate) frames: BTreeMap<VersionId, Vec<Place>>,
    pub(crate) uploads: BTreeMap<UploadId, Upload>,
    pub(crate) erasing: BTreeSet<EraseTarget>,
    pub(crate) erased: BTreeSet<EraseTarget>,
    pub(crate) epoch: Epoch,
    pub(crate) membership: Vec<u8>,
    pub(crate) committed: Lsn,
}

impl LogState {
    /// The last position of the log and its chain hash.
    pub(crate) fn last(&self) -> (Lsn, Hash) {
        let lsn = Lsn(self.records.len() as u64);
        let chain = self.records.last().and_then(|slot| slot.chain);
        (lsn, chain.unwrap_or(Hash::ZERO))
    }

    pub(crate) fn slot(&self, lsn: Lsn) -> Option<&Slot> {
        let at = usize::try_from(lsn.0.checked_sub(1)?).ok()?;
        self.records.get(at)
    }

    /// Folds in a record frame. `previous` is `None` when its public part cannot be read.
    pub(crate) fn add_record(
        &mut self,
        lsn: Lsn,
        chain: Hash,
        previous: Option<Hash>,
        place: Place,
        fault: Option<RecordFault>,
    ) {
        if lsn == Lsn::ZERO {
            return;
        }
        if self.replaces_in_place(lsn, chain) {
            let present_is_whole = self.slot(lsn).is_some() && !self.faults.contains_key(&lsn);
            if fault.is_some() && present_is_whole {
                return;
            }
        } else {
            // Another record at this position: whatever stood here and above was cut.
            self.cut(lsn.previous());
        }
        if let Some(previous) = previous {
            self.settle_predecessor(lsn.previous(), previous);
        }
        while self.last().0 < lsn.previous() {
            self.push_missing(None);
        }
        let slot = Slot { chain: Some(chain), place: Some(place) };
        let at = lsn.previous().0 as usize;
        if at == self.records.len() {
            self.push(slot);
        } else {
            self.records[at] = slot;
        }
        self.faults.remove(&lsn);
        if let Some(fault) = fault {
            self.faults.insert(lsn, fault);
        }
    }

    /// Cuts every record above `last`. The frames stay known by their versions.
    pub(crate) fn cut(&mut self, last: Lsn) {
        self.records.truncate(last.0 as usize);
        self.faults.split_off(&last.next());
    }

    /// A record frame with a wrapped key behind the erase of that key: it rides in its record again,
    /// because the bag that had it is lost.
    pub(crate) fn key_rides_again(&mut self, version: VersionId) {
        self.erased.remove(&EraseTarget::WrappedKey(version));
    }

    /// Notes that a frame carries parts of a version.
    pub(crate) fn note_frame(&mut self, version: VersionId, place: Place) {
        self.frames.entry(version).or_default().push(place);
    }

    /// Folds in a leaf frame; the last one of an index counts.
    pub(crate) fn add_leaf(&mut self, upload: UploadId, index: u64, leaf: Leaf) {
        let upload = self.uploads.entry(upload).or_default();
        if let Some(replaced) = upload.leaves.insert(index, leaf) {
            upload.elsewhere.push(replaced.place);
        }
    }

    /// Takes a leaf out of what counts; its frame stays known.
    pub(crate) fn drop_leaf(&mut self, upload: UploadId, index: u64) {
        if let Some(upload) = self.uploads.get_mut(&upload)
            && let Some(leaf) = upload.leaves.remove(&index)
        {
            upload.elsewhere.push(leaf.place);
        }
    }

    /// Whether a version's record parts and leaves are erased or on the way.
    pub(crate) fn is_version_gone(&self, version: VersionId) -> bool {
        self.is_gone(EraseTarget::Version(version))
    }

    /// Whether an upload's leaves are erased or on the way.
    pub(crate) fn is_upload_gone(&self, upload: UploadId) -> bool {
        self.is_version_gone(upload.version) || self.is_gone(EraseTarget::Upload(upload))
    }

    /// Whether the wrapped key in a version's records is erased or on the way.
    pub(crate) fn is_wrapped_gone(&self, version: VersionId) -> bool {
        self.is_version_gone(version) || self.is_gone(EraseTarget::WrappedKey(version))
    }

    /// Whether a wrapped key must not be written again: its version is gone, or the erase of the key
    /// in the record is under way and would not find the new place.
    pub(crate) fn is_wrapped_going(&self, version: VersionId) -> bool {
        self.is_version_gone(version) || self.erasing.contains(&EraseTarget::WrappedKey(version))
    }

    pub(crate) fn is_gone(&self, target: EraseTarget) -> bool {
        self.erasing.contains(&target) || self.erased.contains(&target)
    }

    fn replaces_in_place(&self, lsn: Lsn, chain: Hash) -> bool {
        let known = self.slot(lsn).map(|slot| slot.chain);
        match known {
            Some(Some(known)) => known == chain,
            Some(None) => true,
            None => true,
        }
    }

    /// The record before must have the hash that its successor names; one that has another was
    /// replaced by a writing that is lost.
    fn settle_predecessor(&mut self, lsn: Lsn, chain: Hash) {
        if lsn == Lsn::ZERO {
            return;
        }
        while self.last().0 < lsn {
            self.push_missing(None);
        }
        let slot = &mut self.records[lsn.previous().0 as usize];
        if slot.chain != Some(chain) {
            let known = slot.chain.is_some();
            slot.chain = Some(chain);
            if known {
                slot.place = None;
            }
            if slot.place.is_none() {
                self.faults.insert(lsn, RecordFault::Record);
            }
        }
    }

    fn push_missing(&mut self, chain: Option<Hash>) {
        self.push(Slot { chain, place: None });
        self.faults.insert(self.last().0, RecordFault::Record);
    }

    fn push(&mut self, slot: Slot) {
        if self.records.len() < FEW {
            self.records.reserve_exact(1);
        }
        self.records.push(slot);
    }
}

/// The version whose name, metadata, payload or key a record carries or concerns.
pub(crate) fn version_of(body: &RecordBody) -> Option<VersionId> {
    match body {
        RecordBody::Put(put) => Some(put.upload.version),
        RecordBody::Delete(delete) => Some(delete.version),
        RecordBody::Undelete(undelete) => Some(undelete.version),
        RecordBody::Certified(certified) => Some(certified.version),
        _ => None,
    }
}
