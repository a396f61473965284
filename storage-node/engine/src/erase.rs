//! Making bytes gone: zeroed in place, synced, their blocks given back, synced again, wherever on
//! this store they lie: record frames, leaves, cut tails, replaced and torn frames.
//!
//! An erase is three steps of the log's owner: begin (durable), the job, done (durable); only then a
//! receipt. From the begin on the bytes are neither a hole to repair nor a source to copy from. It
//! only ever zeroes, so it can be run again after a crash anywhere. Whether it is permitted was
//! decided before: a purge record committed, or an upload voided, or a key safe in the bag.

use std::collections::BTreeMap;
use std::ops::Range;

use trefoil_protocol::codec;
use trefoil_protocol::ids::{UploadId, VersionId};

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::{Content, HEADER_LENGTH, Header, Position, Scope};
use crate::health::{Health, SyncError};
use crate::recovery::BadRange;
use crate::segment::Room;
use crate::state::{EraseTarget, LogState, Place};
use crate::volume::{StageError, VolumeLog};

/// A stretch of a segment whose bytes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErasedRange {
    /// Where it begins.
    pub at: Position,
    /// How long it is.
    pub length: u64,
}

/// What an erase job did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an erase counts once `VolumeLog::erased` noted it and a sync followed"]
pub struct EraseReport {
    /// What was erased.
    pub targets: Vec<EraseTarget>,
    /// The ranges overwritten, ascending.
    pub ranges: Vec<ErasedRange>,
    /// Bytes in stretches that hold no readable frame and could not be erased, because the log still
    /// has damaged or undecided records that they may belong to. Give no receipt until it is 0.
    pub unknown_bytes: u64,
    /// How many of the known bad ranges are blank after it.
    blank: usize,
}

impl EraseReport {
    /// Bytes overwritten.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.length).sum()
    }
}

/// Why an erase did not finish. Run it again after the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    /// A write or punch failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A sync failed; the store is poisoned.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// The overwriting itself, to be run on a disk thread.
#[derive(Debug)]
#[must_use = "nothing is erased until the job runs"]
pub struct EraseJob<D: Disk> {
    targets: Vec<EraseTarget>,
    files: BTreeMap<u64, D::File>,
    scope: Scope,
    ranges: Vec<ErasedRange>,
    /// Parts of record frames, whose headers say where they lie.
    parts: Vec<(Place, Range<usize>)>,
    unknown_bytes: u64,
    blank: usize,
    health: Health<D>,
}

impl<D: Disk> EraseJob<D> {
    /// Zeroes, syncs, punches, syncs. The first sync makes the overwriting reach the device before
    /// the blocks are given back: a hole alone would leave the old blocks as they were.
    pub fn run(mut self) -> Result<EraseReport, EraseError> {
        self.health.check()?;
        for (place, parts) in std::mem::take(&mut self.parts) {
            let range = self.range_of_parts(place, parts)?;
            self.ranges.extend(Some(range).filter(|range| range.length > 0));
        }
        self.ranges.sort();
        self.ranges.dedup();
        for range in &self.ranges {
            zero(self.file(range), range)?;
        }
        self.sync()?;
        let blocks: Vec<&ErasedRange> = self.ranges.iter().filter(|range| range.length >= BLOCK).collect();
        for range in &blocks {
            self.file(range).punch(range.at.offset, range.length)?;
        }
        if !blocks.is_empty() {
            self.sync()?;
        }
        Ok(EraseReport {
            targets: self.targets,
            ranges: self.ranges,
            unknown_bytes: self.unknown_bytes,
            blank: self.blank,
        })
    }

    fn range_of_parts(&self, place: Place, parts: Range<usize>) -> Result<ErasedRange, DiskError> {
        let mut bytes = [0; HEADER_LENGTH];
        self.files[&place.position.segment].read_at(place.position.offset, &mut bytes)?;
        Ok(match Header::parse(&bytes, place.position, &self.scope) {
            Ok(header) => {
                let from = header.part_offset(parts.start);
                stretch(place.position, from, header.lengths[parts].iter().sum())
            }
            // The header rotted since it was read: nothing in the frame can be told apart, and
            // the record can be had from a peer.
            Err(_) => stretch(place.position, HEADER_LENGTH, place.length - HEADER_LENGTH),
        })
    }

    fn file(&self, range: &ErasedRange) -> &D::File {
        self.files.get(&range.at.segment).expect("the job has the file of each of its ranges")
    }

    fn sync(&self) -> Result<(), SyncError> {
        self.files.values().try_for_each(|file| self.health.sync_data(file))
    }
}

impl<D: Disk> VolumeLog<D> {
    /// Stages the beginning of an erase. From here on the targets are unreadable.
    pub fn begin_erase(&mut self, targets: &[EraseTarget]) -> Result<(), StageError> {
        let new: Vec<EraseTarget> =
            targets.iter().copied().filter(|target| !self.state.is_gone(*target)).collect();
        for batch in new.chunks(TARGETS_PER_FRAME) {
            let public = codec::to_vec(&batch.to_vec());
            let header = self.stage(Content::EraseBegin, [&public, &[], &[]], Room::Reserve)?;
            for target in batch {
                self.state.erasing.insert(*target);
                self.erase_notes.insert(*target, header.position);
            }
        }
        Ok(())
    }

    /// The job for every erase whose beginning is durable and whose end is not noted; `None` if
    /// there is none.
    pub fn erase_job(&self) -> Result<Option<EraseJob<D>>, DiskError> {
        let begun = |target: &&EraseTarget| self.is_note_durable(target);
        let targets: Vec<EraseTarget> = self.state.erasing.iter().filter(begun).copied().collect();
        if targets.is_empty() {
            return Ok(None);
        }
        let (mut ranges, mut parts) = (Vec::new(), Vec::new());
        for target in &targets {
            self.places_of(*target, &mut ranges, &mut parts);
        }
        let bad_ranges = self.bad_ranges();
        let unknown: Vec<ErasedRange> = bad_ranges.iter().skip(self.blank).map(range_of).collect();
        let (mut unknown_bytes, mut blank) = (0, bad_ranges.len());
        if self.state.faults.is_empty() && self.undecided.is_none() {
            ranges.extend(unknown);
        } else {
            unknown_bytes = unknown.iter().map(|range| range.length).sum();
            blank = self.blank;
        }
        let segments = ranges.iter().map(|range| range.at.segment);
        let mut files = BTreeMap::new();
        for segment in segments.chain(parts.iter().map(|(place, _)| place.position.segment)) {
            files.insert(segment, self.segments.file(segment)?.clone());
        }
        let (scope, health) = (self.segments.scope, self.health.clone());
        Ok(Some(EraseJob { targets, files, scope, ranges, parts, unknown_bytes, blank, health }))
    }

    /// Notes that a job is done. After the sync that follows, [`Self::is_erased`] says so and a
    /// receipt may be given.
    pub fn erased(&mut self, report: &EraseReport) -> Result<(), StageError> {
        self.blank = self.blank.max(report.blank);
        for batch in report.targets.chunks(TARGETS_PER_FRAME) {
            let public = codec::to_vec(&batch.to_vec());
            let header = self.stage(Content::EraseDone, [&public, &[], &[]], Room::Reserve)?;
            for target in batch {
                self.state.finish_erase(*target);
                self.erase_notes.insert(*target, header.position);
            }
        }
        Ok(())
    }

    /// Whether a target is erased and the note of it durable.
    pub fn is_erased(&self, target: EraseTarget) -> bool {
        self.state.erased.contains(&target) && self.is_note_durable(&target)
    }

    /// The erases that began and are not done, also from runs before.
    pub fn unfinished_erases(&self) -> impl Iterator<Item = EraseTarget> {
        self.state.erasing.iter().copied()
    }

    /// The three steps on this thread, for whoever has no disk thread.
    pub fn erase_now(&mut self, targets: &[EraseTarget]) -> Result<Option<EraseReport>, EraseNowError> {
        self.begin_erase(targets)?;
        self.sync_now()?;
        let Some(job) = self.erase_job()? else {
            return Ok(None);
        };
        let report = job.run()?;
        self.erased(&report)?;
        self.sync_now()?;
        Ok(Some(report))
    }

    fn places_of(
        &self,
        target: EraseTarget,
        ranges: &mut Vec<ErasedRange>,
        parts: &mut Vec<(Place, Range<usize>)>,
    ) {
        let frames = |version| self.state.frames.get(&version).into_iter().flatten().copied();
        match target {
            EraseTarget::Version(version) => {
                parts.extend(frames(version).map(|place| (place, FIRST_SECRET_PART..3)));
                for (_, places) in self.state.uploads_of(version) {
                    ranges.extend(places.places().map(leaf_bytes));
                }
            }
            EraseTarget::Upload(upload) => {
                let places = self.state.uploads.get(&upload);
                ranges.extend(places.into_iter().flat_map(|places| places.places()).map(leaf_bytes));
            }
            EraseTarget::WrappedKey(version) => {
                parts.extend(frames(version).map(|place| (place, FIRST_SECRET_PART..2)));
            }
        }
    }
}

/// Why [`VolumeLog::erase_now`] stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraseNowError {
    /// A note could not be staged.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A sync failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The job failed.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// A place could not be looked up.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a file system can give back begins here: a shorter range holds no whole block.
const BLOCK: u64 = 4096;

/// Part 0 is public and stays; the wrapped key and the erasable part follow it.
const FIRST_SECRET_PART: usize = 1;

/// Keeps the notes' frames far below the limit of a part.
const TARGETS_PER_FRAME: usize = 4096;

impl LogState {
    /// The uploads of a version, all attempts.
    pub(crate) fn uploads_of(
        &self,
        version: VersionId,
    ) -> impl Iterator<Item = (&UploadId, &crate::state::Upload)> {
        let attempt = |attempt| UploadId { version, attempt };
        self.uploads.range(attempt(0)..=attempt(u32::MAX))
    }

    /// Moves a target to the erased ones and forgets the places of what is gone.
    pub(crate) fn finish_erase(&mut self, target: EraseTarget) {
        self.erasing.remove(&target);
        self.erased.insert(target);
        match target {
            EraseTarget::Version(version) => {
                let uploads: Vec<UploadId> = self.uploads_of(version).map(|(id, _)| *id).collect();
                for upload in uploads {
                    self.uploads.remove(&upload);
                }
                self.frames.remove(&version);
            }
            EraseTarget::Upload(upload) => {
                self.uploads.remove(&upload);
            }
            EraseTarget::WrappedKey(_) => {}
        }
    }
}

fn leaf_bytes(place: Place) -> ErasedRange {
    stretch(place.position, HEADER_LENGTH, place.length - HEADER_LENGTH)
}

fn stretch(frame: Position, from: usize, length: usize) -> ErasedRange {
    let at = Position { segment: frame.segment, offset: frame.offset + from as u64 };
    ErasedRange { at, length: length as u64 }
}

fn range_of(bad: &BadRange) -> ErasedRange {
    ErasedRange { at: bad.from, length: bad.to - bad.from.offset }
}

fn zero(file: &impl DiskFile, range: &ErasedRange) -> Result<(), DiskError> {
    const ZEROES: &[u8] = &[0; 64 << 10];
    let mut at = range.at.offset;
    let end = at + range.length;
    while at < end {
        let step = (end - at).min(ZEROES.len() as u64);
        file.write_at(at, &[&ZEROES[..step as usize]])?;
        at += step;
    }
    Ok(())
}
