//! Opening a volume's log after whatever happened: read every segment from end to end, fold the
//! frames in the order they were written, and say exactly what is damaged and what is undecided.
//!
//! Recovery never removes, cuts or overwrites anything. A bad stretch at the end of the log is "torn
//! or rotten, undecided" until peers have answered; a bad record below it is a hole to repair.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trefoil_protocol::codec;
use trefoil_protocol::ids::{Hash, Lsn, UploadId};
use trefoil_protocol::record::Record;

use crate::bag::BagError;
use crate::disk::{Disk, DiskError, DiskFile as _};
use crate::frame::{Content, Position, Scope};
use crate::health::{Health, SyncError};
use crate::scan::{Found, FoundFrame, Scan, ScanError};
use crate::segment::{Head, Room, SegmentLayout, Segments};
use crate::state::{EraseTarget, Leaf, LogState, Place, RecordFault, version_of};
use crate::superblock::SuperblockError;
use crate::volume::{HardState, LogIdentity, StageError, VolumeLog};

/// What can be said about the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing bad stands at the end.
    Clean,
    /// Something at the end is torn or rotten: records from here on may have been acknowledged.
    /// Peers decide; [`VolumeLog::settle_tail`] or appended records record the decision.
    Undecided {
        /// The first record that may be lost.
        from_lsn: Lsn,
    },
}

/// A stretch of a segment that is neither a frame nor untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// Where it begins.
    pub from: Position,
    /// The offset where it ends.
    pub to: u64,
}

/// What opening a volume's log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the last run ended with a proof of clean shutdown that matches the log.
    pub clean: bool,
    /// The end of the log.
    pub tail: Tail,
    /// Damaged records below it.
    pub faulty: BTreeMap<Lsn, RecordFault>,
    /// Stretches that hold no frame.
    pub bad_ranges: Vec<BadRange>,
    /// Leaves of uploads that were torn and do not count.
    pub torn_leaves: Vec<(UploadId, u64)>,
    /// Erases that began and have to be run again.
    pub unfinished_erases: Vec<EraseTarget>,
    /// Records in the log.
    pub records: u64,
    /// Bytes of segments scanned.
    pub scanned_bytes: u64,
}

/// Why a log cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A segment cannot be scanned.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The superblock is unusable.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The sync of what a crashed run left behind failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The key bag cannot be opened.
    #[error(transparent)]
    Bag(#[from] BagError),
    /// Recovery's own note could not be staged.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The superblock belongs to another store or volume.
    #[error("the volume's superblock names {got:?}, expected {expected:?}")]
    Foreign {
        /// What it names.
        got: LogIdentity,
        /// What was expected.
        expected: LogIdentity,
    },
}

/// Where a clean run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleanEnd {
    pub(crate) last: Lsn,
    pub(crate) chain: Hash,
    pub(crate) at: Position,
}

/// What recovery needs to know besides the files.
pub(crate) struct Recovery<'a, D: Disk> {
    pub(crate) disk: &'a D,
    pub(crate) health: &'a Health<D>,
    pub(crate) directory: &'a str,
    pub(crate) identity: LogIdentity,
    pub(crate) scope: Scope,
    pub(crate) layout: SegmentLayout,
    pub(crate) clean_end: Option<CleanEnd>,
}

impl<D: Disk> Recovery<'_, D> {
    pub(crate) fn open(self) -> Result<(VolumeLog<D>, RecoveryReport), OpenError> {
        let store = self.identity.store;
        let segments =
            Segments::open(self.disk, self.health, self.directory, self.scope, store, self.layout)?;
        let mut fold = Fold::default();
        for (id, segment) in &segments.files {
            let mut scan = Scan::new(&segment.file, *id, segment.length, &self.scope);
            fold.segment_begins(*id, segment.length);
            while let Some(found) = scan.next()? {
                fold.add(found);
            }
            fold.segment_ends();
        }
        let clean = fold.ends_at(self.clean_end);
        if !clean {
            fold.find_torn_leaves(&segments)?;
        }
        self.finish(segments, fold, clean)
    }

    fn finish(
        self,
        mut segments: Segments<D>,
        mut fold: Fold,
        clean: bool,
    ) -> Result<(VolumeLog<D>, RecoveryReport), OpenError> {
        let report = fold.report(clean);
        fold.forget_erased();
        let resumed = fold.head.filter(|_| clean);
        segments.rest_at(fold.head.map(|head| head.at).unwrap_or_default());
        for (segment, end) in &fold.ends {
            segments.used(*segment, *end);
        }
        if !clean && !self.health.is_poisoned() {
            segments.give_back_rest()?;
            // What a crashed process left may still be in the page cache only: it counts as here
            // once it is synced.
            segments.suspect_unsynced(fold.synced.segment);
        }
        let mut log =
            VolumeLog::recovered(self.identity, segments, self.health.clone(), fold.state, fold.synced);
        log.found_bad = fold.bad_ranges;
        log.undecided = match report.tail {
            Tail::Undecided { from_lsn } => Some(from_lsn),
            Tail::Clean => None,
        };
        if let Some(head) = resumed {
            log.resume(head);
        } else if !self.health.is_poisoned() {
            log.discard(&fold.torn)?;
            log.sync_now()?;
        }
        if !self.health.is_poisoned() {
            log.all_is_durable();
        }
        Ok((log, report))
    }
}

/// Frames folded so far.
#[derive(Default)]
struct Fold {
    state: LogState,
    synced: Position,
    bad_ranges: Vec<BadRange>,
    /// Bad places and the first record each may have held; see [`Fold::undecided_from`].
    doubts: Vec<(Position, Lsn)>,
    head: Option<Head>,
    /// Whether the frame just before is known, so that the next must name it.
    link_known: bool,
    leaves: Vec<(UploadId, u64, Leaf)>,
    discarded: BTreeSet<Position>,
    torn: Vec<(UploadId, u64, Place)>,
    /// Records whose parts do not match their checksums: decided when all erases are known.
    unmatched: Vec<Unmatched>,
    scanned: u64,
    /// Where each segment's frames end.
    ends: BTreeMap<u64, u64>,
}

struct Unmatched {
    at: Position,
    lsn: Lsn,
    version: Option<trefoil_protocol::ids::VersionId>,
    fault: RecordFault,
}

impl Fold {
    fn segment_begins(&mut self, id: u64, length: u64) {
        self.scanned += length;
        let expected = self.head.map_or(1, |head| head.at.segment + 1);
        if id != expected {
            self.doubt(Position { segment: id, offset: 0 });
        }
        let previous = self.head.map_or([0; 16], |head| head.previous);
        self.link_known = false;
        self.head = Some(Head { at: Position { segment: id, offset: 0 }, length, previous, reserve: false });
    }

    fn segment_ends(&mut self) {
        let end = self.head.map(|head| head.at).unwrap_or_default();
        self.ends.insert(end.segment, end.offset);
    }

    fn add(&mut self, found: Found) {
        match found {
            Found::Bad { from, to } => {
                self.bad_ranges.push(BadRange { from, to });
                self.doubt(from);
                self.link_known = false;
                if let Some(head) = &mut self.head {
                    head.at.offset = to;
                }
            }
            Found::Frame(frame) => self.add_frame(&frame),
        }
    }

    fn add_frame(&mut self, frame: &FoundFrame) {
        let header = &frame.header;
        self.state.epoch = self.state.epoch.max(header.epoch);
        self.state.committed = self.state.committed.max(header.committed);
        self.synced = self.synced.max(header.synced);
        if let Some(head) = &mut self.head {
            if self.link_known && head.previous != header.previous {
                // A frame that another one should precede: a write was lost without a trace.
                self.doubts.push((header.position, self.state.last().0.next()));
            }
            head.at.offset = header.end();
            head.previous = frame.link;
            self.link_known = true;
        }
        let place = Place::of(header);
        match header.content {
            Content::Record { lsn, chain } => self.add_record(frame, lsn, chain, place),
            Content::Leaf { upload, index, hash } => {
                let length = header.lengths[2];
                let leaf = Leaf { place, hash, length };
                self.leaves.push((upload, index, leaf));
            }
            Content::Cut { last } => {
                self.state.cut(last);
                // Whatever a bad place before the cut held above it is cut as well.
                self.doubts.retain(|(_, from)| *from <= last);
            }
            _ => self.add_note(frame),
        }
    }

    fn add_record(&mut self, frame: &FoundFrame, lsn: Lsn, chain: Hash, place: Place) {
        let public = frame.public.as_ref();
        let parsed = public.and_then(|public| Record::parse_public(public).ok());
        let parsed = parsed.filter(|record| record.lsn() == lsn && record.chain_hash() == chain);
        let previous = parsed.as_ref().map(|record| record.position().previous);
        let version = parsed.as_ref().and_then(|record| version_of(record.body()));
        if let Some(version) = version
            && frame.header.lengths[1] + frame.header.lengths[2] > 0
        {
            self.state.note_frame(version, place);
            if frame.header.lengths[1] > 0 {
                self.state.key_rides_again(version);
            }
        }
        let fault = parsed.is_none().then_some(RecordFault::Record);
        if fault.is_some() && frame.header.lengths[1] + frame.header.lengths[2] > 0 {
            // Nobody can tell whose name, key and payload stand in it.
            self.bad_ranges.push(BadRange { from: place.position, to: frame.header.end() });
        }
        let next = self.state.last().0.next();
        self.state.add_record(lsn, chain, previous, place, fault);
        // The record may show that others before it are missing, or were replaced by ones that are.
        for lost in [next, lsn.previous()] {
            if lost < lsn && self.state.faults.contains_key(&lost) {
                let at = self.bad_ranges.last().map_or(place.position, |bad| bad.from);
                self.doubts.push((at, lost));
            }
        }
        if fault.is_some() {
            self.doubts.push((place.position, lsn));
            return;
        }
        for (whole, fault) in
            [(frame.wrapped_whole, RecordFault::WrappedKey), (frame.erasable_whole, RecordFault::Erasable)]
        {
            if !whole {
                self.unmatched.push(Unmatched { at: place.position, lsn, version, fault });
            }
        }
    }

    fn doubt(&mut self, at: Position) {
        self.doubts.push((at, self.state.last().0.next()));
    }

    /// The first record that may be lost without anything here proving that it existed or did not.
    /// A doubt is over when the log holds the record after all, or when the bad place was synced
    /// once and records follow it: then it is damage, and in the set of faults.
    fn undecided_from(&self) -> Option<Lsn> {
        let open = |(at, from): &&(Position, Lsn)| {
            let followed = *from <= self.state.last().0;
            let refilled = followed && !self.state.faults.contains_key(from);
            let damaged = followed && *at < self.synced;
            !refilled && !damaged
        };
        self.doubts.iter().filter(open).map(|(_, from)| *from).min()
    }

    fn add_note(&mut self, frame: &FoundFrame) {
        let Some(public) = &frame.public else {
            let header = &frame.header;
            self.bad_ranges.push(BadRange { from: header.position, to: header.end() });
            self.doubt(header.position);
            return;
        };
        match frame.header.content {
            Content::HardState => {
                if let Ok(hard_state) = codec::from_slice::<HardState>(public) {
                    self.state.epoch = self.state.epoch.max(hard_state.epoch);
                    self.state.membership = hard_state.membership;
                }
            }
            Content::EraseBegin => self.state.erasing.extend(targets(public)),
            Content::EraseDone => {
                for target in targets(public) {
                    self.state.erasing.remove(&target);
                    self.state.erased.insert(target);
                }
            }
            Content::Discard => self.discarded.extend(places(public)),
            _ => {}
        }
    }

    /// Whether the log ends exactly where the proof of a clean shutdown says.
    fn ends_at(&mut self, clean_end: Option<CleanEnd>) -> bool {
        let discarded = std::mem::take(&mut self.discarded);
        for (upload, index, leaf) in std::mem::take(&mut self.leaves) {
            if discarded.contains(&leaf.place.position) {
                let upload = self.state.uploads.entry(upload).or_default();
                upload.elsewhere.push(leaf.place);
            } else {
                self.state.add_leaf(upload, index, leaf);
            }
        }
        self.find_part_faults();
        let at = self.head.map(|head| head.at).unwrap_or_default();
        let (last, chain) = self.state.last();
        let end = CleanEnd { last, chain, at };
        match clean_end {
            Some(clean_end) if clean_end == end && self.undecided_from().is_none() => {
                self.synced = at;
                true
            }
            Some(clean_end) => {
                // The proof names what must be here. A log that ends before it has lost its end.
                if last < clean_end.last {
                    self.doubt(at);
                }
                false
            }
            None => false,
        }
    }

    /// A part that does not match is damage, unless its version is erased or on the way.
    fn find_part_faults(&mut self) {
        for unmatched in std::mem::take(&mut self.unmatched) {
            let state = &mut self.state;
            let gone = unmatched.version.is_some_and(|version| match unmatched.fault {
                RecordFault::WrappedKey => state.is_wrapped_gone(version),
                _ => state.is_version_gone(version),
            });
            // A repaired record has a later frame; only the one that counts can be damaged.
            let counts = state.slot(unmatched.lsn).and_then(|slot| slot.place);
            if !gone && counts.is_some_and(|place| place.position == unmatched.at) {
                state.faults.entry(unmatched.lsn).or_insert(unmatched.fault);
                self.doubts.push((unmatched.at, unmatched.lsn));
            }
        }
    }

    /// Leaves behind the last known sync may be torn: those that do not match do not count.
    fn find_torn_leaves<D: Disk>(&mut self, segments: &Segments<D>) -> Result<(), DiskError> {
        let mut torn = Vec::new();
        for (upload, places) in &self.state.uploads {
            if self.state.is_upload_gone(*upload) {
                continue;
            }
            for (index, leaf) in &places.leaves {
                if leaf.place.position >= self.synced && !is_whole(segments, leaf)? {
                    torn.push((*upload, *index, leaf.place));
                }
            }
        }
        for (upload, index, _) in &torn {
            self.state.drop_leaf(*upload, *index);
        }
        self.torn = torn;
        Ok(())
    }

    fn forget_erased(&mut self) {
        for target in self.state.erased.clone() {
            if !self.state.erasing.contains(&target) {
                self.state.finish_erase(target);
            }
        }
    }

    fn report(&self, clean: bool) -> RecoveryReport {
        RecoveryReport {
            clean,
            tail: match self.undecided_from() {
                None => Tail::Clean,
                Some(from_lsn) => Tail::Undecided { from_lsn },
            },
            faulty: self.state.faults.clone(),
            bad_ranges: self.bad_ranges.clone(),
            torn_leaves: self.torn.iter().map(|(upload, index, _)| (*upload, *index)).collect(),
            unfinished_erases: self.state.erasing.iter().copied().collect(),
            records: self.state.records.len() as u64,
            scanned_bytes: self.scanned,
        }
    }
}

impl<D: Disk> VolumeLog<D> {
    /// Stages the decision that nothing above the log's last record is missing: the peers have
    /// answered. Until then each open reports the tail as undecided again.
    pub fn settle_tail(&mut self) -> Result<(), StageError> {
        let last = self.state.last().0;
        self.stage(Content::Cut { last }, [&[]; 3], Room::Reserve)?;
        self.undecided = None;
        Ok(())
    }

    /// Notes leaf frames that do not count, so that a later open does not take them for whole.
    pub(crate) fn discard(&mut self, torn: &[(UploadId, u64, Place)]) -> Result<(), StageError> {
        for batch in torn.chunks(1024) {
            let places: Vec<(u64, u64)> =
                batch.iter().map(|(_, _, place)| (place.position.segment, place.position.offset)).collect();
            let public = codec::to_vec(&places);
            self.stage(Content::Discard, [&public, &[], &[]], Room::Reserve)?;
        }
        Ok(())
    }
}

/// Whether a leaf's frame is what was written there.
pub(crate) fn is_whole<D: Disk>(segments: &Segments<D>, leaf: &Leaf) -> Result<bool, DiskError> {
    let Place { position, length } = leaf.place;
    let mut frame = vec![0; length];
    segments.file(position.segment)?.read_at(position.offset, &mut frame)?;
    let header = crate::frame::Header::parse(&frame, position, &segments.scope);
    Ok(header.is_ok_and(|header| header.check_part(2, &frame[header.part_offset(2)..]).is_ok()))
}

fn targets(public: &Bytes) -> Vec<EraseTarget> {
    codec::from_slice(public).unwrap_or_default()
}

fn places(public: &Bytes) -> Vec<Position> {
    let places: Vec<(u64, u64)> = codec::from_slice(public).unwrap_or_default();
    let position = |(segment, offset)| Position { segment, offset };
    places.into_iter().map(position).collect()
}
