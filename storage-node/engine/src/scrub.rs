//! Looking for rot: every record against the chain of hashes, every live leaf against its hash and
//! the root in the index, every other frame against its checksums, both slots of the superblock, the
//! key bag. And the way back: a leaf is written again only if it leads to the root in the index.
//!
//! Reports, changes nothing: the log's owner takes the faults over and repairs from peers.

use bytes::Bytes;
use trefoil_protocol::ids::{Hash, Lsn, UploadId, VersionId};
use trefoil_protocol::tree::{self, LEAF_LEN, LeafPlace, RangeProof, TreeError};

use crate::disk::{Disk, DiskError};
use crate::frame::{Content, Position};
use crate::index::{Index, ObjectVersion};
use crate::read::ReadError;
use crate::recovery::is_whole;
use crate::scan::{Found, Scan, ScanError};
use crate::state::{Leaf, RecordFault};
use crate::store::Volume;
use crate::volume::{RecordReadError, StageError, VolumeLog};

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrubFault {
    /// A record or a part of it.
    Record {
        /// Its position in the log.
        lsn: Lsn,
        /// What is damaged.
        fault: RecordFault,
    },
    /// A leaf of a live or deleted version, missing or damaged.
    Leaf {
        /// The upload.
        upload: UploadId,
        /// The leaf.
        index: u64,
    },
    /// All leaves are whole, and lead to another root than the index has.
    Root {
        /// The version.
        version: VersionId,
    },
    /// A leaf of an upload that no record refers to (yet).
    LooseLeaf {
        /// The upload.
        upload: UploadId,
        /// The leaf.
        index: u64,
    },
    /// A stretch of a segment that is neither a frame nor untouched, and was not known.
    Frame {
        /// Where it begins.
        from: Position,
        /// The offset where it ends.
        to: u64,
    },
    /// A slot of the volume's superblock; the other one holds the value.
    Slot {
        /// 0 or 1.
        slot: usize,
    },
    /// The key bag does not open.
    Bag,
}

/// What a scrub read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Records verified.
    pub records: u64,
    /// Leaves verified.
    pub leaves: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as it was written.
    pub faults: Vec<ScrubFault>,
}

/// Why a scrub could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrubError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A segment cannot be scanned.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Why a leaf was not repaired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// The bytes do not lead to the root that the index has: the source is corrupt.
    #[error("the copy does not lead to the object's root: {0}")]
    Unverified(#[from] TreeError),
    /// The other leaves that would prove this one are missing here; ask for a proof.
    #[error("leaf {index} cannot be verified without a proof")]
    NeedsProof {
        /// The leaf.
        index: u64,
    },
    /// The leaves could not be staged.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// A scrub under way. Step it until it is done, as slowly as the foreground likes.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    next: Next,
    report: ScrubReport,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Record(Lsn),
    Version(Option<VersionId>),
    Loose,
    Segment(u64),
    Superblock,
    Done,
}

impl Default for Next {
    fn default() -> Self {
        Next::Record(Lsn(1))
    }
}

impl Scrub {
    /// Verifies at least `bytes` more bytes, or the rest; answers the report when done.
    pub fn step<D: Disk>(
        &mut self,
        volume: &Volume<D>,
        index: &Index,
        bytes: u64,
    ) -> Result<Option<&ScrubReport>, ScrubError> {
        let until = self.report.bytes.saturating_add(bytes);
        while self.report.bytes < until && !matches!(self.next, Next::Done) {
            self.next = match self.next {
                Next::Record(lsn) => self.record(volume, lsn)?,
                Next::Version(after) => self.version(volume, index, after)?,
                Next::Loose => self.loose_leaves(volume, index)?,
                Next::Segment(first) => self.segment(volume, first)?,
                Next::Superblock => self.superblock(volume)?,
                Next::Done => Next::Done,
            };
        }
        Ok(matches!(self.next, Next::Done).then_some(&self.report))
    }

    fn record<D: Disk>(&mut self, volume: &Volume<D>, lsn: Lsn) -> Result<Next, ScrubError> {
        match volume.log.record(lsn) {
            Ok(record) => {
                self.report.records += 1;
                self.report.bytes += record.lengths().total() as u64;
            }
            Err(RecordReadError::Absent { .. }) => return Ok(Next::Version(None)),
            Err(RecordReadError::Faulty { lsn, fault }) => {
                self.report.faults.push(ScrubFault::Record { lsn, fault });
            }
            Err(RecordReadError::Disk(error)) => return Err(error.into()),
        }
        Ok(Next::Record(lsn.next()))
    }

    fn version<D: Disk>(
        &mut self,
        volume: &Volume<D>,
        index: &Index,
        after: Option<VersionId>,
    ) -> Result<Next, ScrubError> {
        let Some(object) = index.held_after(after) else {
            return Ok(Next::Loose);
        };
        let version = object.version();
        if !volume.log.state.is_version_gone(version) {
            match object.inline {
                true => self.inline(volume, object),
                false => self.leaves(volume, object)?,
            }
        }
        Ok(Next::Version(Some(version)))
    }

    fn inline<D: Disk>(&mut self, volume: &Volume<D>, object: &ObjectVersion) {
        // A record that cannot be read was reported as such.
        let record = volume.log.record(object.lsn).ok();
        let erasable = record.and_then(|record| record.erasable().ok().flatten());
        if let Some(payload) = erasable.and_then(|erasable| erasable.payload)
            && blake3::hash(&payload) != object.root.0
        {
            self.report.faults.push(ScrubFault::Root { version: object.version() });
        }
    }

    fn leaves<D: Disk>(&mut self, volume: &Volume<D>, object: &ObjectVersion) -> Result<(), ScrubError> {
        let (upload, length) = (object.upload, object.sealed_length);
        let mut hashes = Vec::new();
        for index in 0..tree::leaf_count(length) {
            let plan = volume.log.read_plan(upload, length, index..index + 1);
            match plan.and_then(|job| job.run().map(|leaves| (job.hashes().next(), leaves))) {
                Ok((hash, leaves)) => {
                    self.report.leaves += 1;
                    self.report.bytes += leaves.iter().map(|leaf| leaf.len() as u64).sum::<u64>();
                    hashes.extend(hash);
                }
                Err(ReadError::Disk(error)) => return Err(error.into()),
                Err(_) => self.report.faults.push(ScrubFault::Leaf { upload, index }),
            }
        }
        let all = hashes.len() as u64 == tree::leaf_count(length);
        if all && tree::root_from_leaves(&hashes, length) != Ok(object.root.0) {
            self.report.faults.push(ScrubFault::Root { version: object.version() });
        }
        Ok(())
    }

    /// Leaves that no version here refers to have no root yet: their frames' checksums must hold.
    fn loose_leaves<D: Disk>(&mut self, volume: &Volume<D>, index: &Index) -> Result<Next, ScrubError> {
        let log = &volume.log;
        for (upload, places) in &log.state.uploads {
            let referred = index.version(upload.version).is_some_and(|object| object.upload == *upload);
            if referred || log.state.is_upload_gone(*upload) {
                continue;
            }
            for (index, leaf) in &places.leaves {
                self.report.bytes += leaf.length as u64;
                self.report.leaves += 1;
                if !is_whole(&log.segments, leaf)? {
                    self.report.faults.push(ScrubFault::LooseLeaf { upload: *upload, index: *index });
                }
            }
        }
        Ok(Next::Segment(0))
    }

    fn segment<D: Disk>(&mut self, volume: &Volume<D>, first: u64) -> Result<Next, ScrubError> {
        let log = &volume.log;
        let Some((id, segment)) = log.segments.files.range(first..).next() else {
            return Ok(Next::Superblock);
        };
        let known = log.bad_ranges();
        let is_news = |from: Position| !known.iter().any(|bad| bad.from == from);
        let mut scan = Scan::new(&segment.file, *id, segment.length, &log.segments.scope);
        while let Some(found) = scan.next()? {
            match found {
                Found::Bad { from, to } if is_news(from) => {
                    self.report.faults.push(ScrubFault::Frame { from, to });
                }
                Found::Bad { .. } => {}
                Found::Frame(frame) => {
                    let header = frame.header;
                    let is_note = !matches!(header.content, Content::Record { .. } | Content::Leaf { .. });
                    self.report.bytes += header.length() as u64;
                    let (from, to) = (header.position, header.end());
                    if is_note && frame.public.is_none() && is_news(from) {
                        self.report.faults.push(ScrubFault::Frame { from, to });
                    }
                }
            }
        }
        Ok(Next::Segment(id + 1))
    }

    fn superblock<D: Disk>(&mut self, volume: &Volume<D>) -> Result<Next, ScrubError> {
        self.report.faults.extend(volume.check_fixed_files()?);
        Ok(Next::Done)
    }
}

impl<D: Disk> Volume<D> {
    /// Reads both slots of the superblock and the key bag; while the bag is being rotated there is nothing
    /// to compare them with.
    pub fn check_fixed_files(&self) -> Result<Vec<ScrubFault>, DiskError> {
        let mut faults = Vec::new();
        let Some(superblock) = self.superblock.as_ref() else { return Ok(faults) };
        for (slot, whole) in superblock.whole_slots()?.into_iter().enumerate() {
            if !whole {
                faults.push(ScrubFault::Slot { slot });
            }
        }
        if !self.bag_is_whole()? {
            faults.push(ScrubFault::Bag);
        }
        Ok(faults)
    }

    /// A whole scrub at once.
    pub fn scrub(&self, index: &Index) -> Result<ScrubReport, ScrubError> {
        let mut scrub = Scrub::default();
        scrub.step(self, index, u64::MAX)?;
        Ok(scrub.report)
    }
}

impl<D: Disk> VolumeLog<D> {
    /// Takes over what a scrub found: damaged records count as faulty, damaged leaves as missing,
    /// until they are repaired.
    pub fn take_faults(&mut self, report: &ScrubReport) {
        for fault in &report.faults {
            match fault {
                ScrubFault::Record { lsn, fault } => {
                    self.state.faults.insert(*lsn, *fault);
                }
                ScrubFault::Leaf { upload, index } | ScrubFault::LooseLeaf { upload, index } => {
                    self.state.drop_leaf(*upload, *index);
                }
                _ => {}
            }
        }
    }

    /// Writes leaves again from a peer's copy, if they lead to the root that the index has. Whole
    /// leaves from `first` on, with the proof for exactly this range.
    pub fn repair_leaves(
        &mut self,
        object: &ObjectVersion,
        first: u64,
        bytes: &Bytes,
        proof: &RangeProof,
    ) -> Result<(), RepairError> {
        tree::verify_range(&object.root.0, object.sealed_length, first, bytes, proof)?;
        let place = LeafPlace::in_object(object.sealed_length);
        for (leaf, index) in bytes.chunks(LEAF_LEN as usize).zip(first..) {
            self.write_again(object.upload, index, tree::leaf_hash(index, leaf, place), leaf)?;
        }
        Ok(())
    }

    /// Writes one leaf again from a peer's copy, if with the leaves that are here it leads to the
    /// root that the index has.
    pub fn repair_leaf(
        &mut self,
        object: &ObjectVersion,
        index: u64,
        bytes: &[u8],
    ) -> Result<(), RepairError> {
        let length = object.sealed_length;
        let hash = tree::leaf_hash(index, bytes, LeafPlace::in_object(length));
        let hash_of = |other: u64| match other == index {
            true => Some(hash),
            false => self.leaf(object.upload, other).map(|leaf| leaf.hash),
        };
        let hashes: Option<Vec<[u8; 32]>> = (0..tree::leaf_count(length)).map(hash_of).collect();
        let hashes = hashes.ok_or(RepairError::NeedsProof { index })?;
        if Hash(tree::root_from_leaves(&hashes, length)?) != object.root {
            return Err(RepairError::Unverified(TreeError::Root));
        }
        Ok(self.write_again(object.upload, index, hash, bytes)?)
    }

    /// A leaf that is here and whole is not written again.
    fn write_again(
        &mut self,
        upload: UploadId,
        index: u64,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<(), StageError> {
        if self.state.is_upload_gone(upload) {
            return Err(StageError::Erased { upload });
        }
        let same = |leaf: &&Leaf| leaf.hash == hash;
        if let Some(leaf) = self.leaf(upload, index).filter(same)
            && is_whole(&self.segments, leaf)?
        {
            return Ok(());
        }
        self.write_leaf(upload, index, hash, bytes).map(|_| ())
    }
}
