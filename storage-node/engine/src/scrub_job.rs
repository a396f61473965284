//! A scrub of a volume in use, a stretch at a time: a job that reads one stretch of a segment on a
//! disk thread and checks every frame in it, and the taking over of what it found. The log goes on
//! being written meanwhile.
//!
//! The job decides nothing: whether a frame still counts, or was erased while it was read, is known
//! to the log alone.

use trefoil_protocol::ids::{Lsn, UploadId};
use trefoil_protocol::tree::{LEAF_LEN, LeafPlace, leaf_hash};

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::{Content, Position, Scope};
use crate::recovery::BadRange;
use crate::scan::{Found, FoundFrame, Scan, ScanError};
use crate::scrub::ScrubFault;
use crate::state::{Place, RecordFault};
use crate::volume::VolumeLog;

/// The reading of one stretch, to be run on a disk thread.
#[derive(Debug)]
#[must_use = "nothing is read until the job runs"]
pub struct ScrubJob<D: Disk> {
    file: D::File,
    scope: Scope,
    at: Position,
    /// Where what is durable ends in this segment.
    end: u64,
    bytes: u64,
}

/// What one stretch held.
#[derive(Debug)]
#[must_use = "what was found counts once the log took it over"]
pub struct Scrubbed {
    /// Where it began.
    pub from: Position,
    /// Where it ended: the next stretch begins there, or with the next segment.
    pub end: Position,
    /// Bytes read.
    pub bytes: u64,
    suspects: Vec<Suspect>,
}

impl Scrubbed {
    /// Whether it is the first stretch of a volume's log.
    pub fn is_first(&self) -> bool {
        self.from.offset == 0 && self.from.segment <= 1
    }
}

/// Something that may be damage.
#[derive(Clone, Copy, Debug)]
enum Suspect {
    /// A frame with a part that does not match.
    Frame { at: Position, end: u64, content: Content, fault: RecordFault },
    /// No frame begins here, and something is written here.
    Bad { from: Position, to: u64 },
}

impl<D: Disk> ScrubJob<D> {
    /// The most that it reads.
    pub fn bytes_max(&self) -> u64 {
        self.bytes.min(self.end.saturating_sub(self.at.offset))
    }

    /// Reads and checks. At the beginning of a segment what is cached of it is dropped, so that the disk
    /// is read and not the memory; it was synced, so nothing is lost by that but a little time.
    pub fn run(self) -> Result<Scrubbed, ScanError> {
        if self.at.offset == 0 {
            self.file.forget_cached()?;
        }
        let (segment, until) = (self.at.segment, self.at.offset.saturating_add(self.bytes));
        let mut scan = Scan::from(&self.file, self.at, self.end, &self.scope);
        let mut suspects = Vec::new();
        while scan.offset() < until
            && let Some(found) = scan.next()?
        {
            match found {
                Found::Bad { from, to } => suspects.push(Suspect::Bad { from, to }),
                Found::Frame(frame) => suspects.extend(self.check(&frame)?),
            }
        }
        let offset = scan.offset();
        let end = Position { segment, offset };
        Ok(Scrubbed { from: self.at, end, bytes: offset - self.at.offset, suspects })
    }

    fn check(&self, frame: &FoundFrame) -> Result<Option<Suspect>, DiskError> {
        let header = &frame.header;
        let fault = match header.content {
            Content::Leaf { index, hash, .. } => {
                let mut bytes = vec![0; header.lengths[2]];
                self.file.read_at(header.position.offset + header.part_offset(2) as u64, &mut bytes)?;
                (!is_leaf(index, &bytes, hash)).then_some(RecordFault::Erasable)
            }
            _ if frame.public.is_none() => Some(RecordFault::Record),
            _ if !frame.wrapped_whole => Some(RecordFault::WrappedKey),
            _ if !frame.erasable_whole => Some(RecordFault::Erasable),
            _ => None,
        };
        let (at, end, content) = (header.position, header.end(), header.content);
        Ok(fault.map(|fault| Suspect::Frame { at, end, content, fault }))
    }
}

/// Whether these bytes have this hash as a leaf, of an object of one leaf or of more.
fn is_leaf(index: u64, bytes: &[u8], hash: [u8; 32]) -> bool {
    let has = |place| leaf_hash(index, bytes, place) == hash;
    let among_others = !bytes.is_empty() && has(LeafPlace::in_object(2 * LEAF_LEN));
    among_others || (index == 0 && has(LeafPlace::in_object(LEAF_LEN)))
}

impl<D: Disk> VolumeLog<D> {
    /// The stretch at `at`, or where the next segment begins; `None` behind the last durable frame.
    pub fn scrub_job(&self, at: Position, bytes: u64) -> Option<ScrubJob<D>> {
        let found = self.segments.files.range(at.segment..).find_map(|(id, segment)| {
            let offset = if *id == at.segment { at.offset } else { 0 };
            let end = match *id == self.synced.segment {
                true => segment.used.min(self.synced.offset),
                false => segment.used,
            };
            let is_durable = *id <= self.synced.segment;
            (is_durable && offset < end).then(|| (*id, offset, end, segment.file.clone()))
        });
        let (segment, offset, end, file) = found?;
        let at = Position { segment, offset };
        Some(ScrubJob { file, scope: self.segments.scope, at, end, bytes })
    }

    /// Takes over what a stretch held: damage that still counts does not count any more from here on,
    /// and is named.
    pub fn scrubbed(&mut self, scrubbed: &Scrubbed) -> Vec<ScrubFault> {
        let mut faults = Vec::new();
        for suspect in &scrubbed.suspects {
            match *suspect {
                Suspect::Frame { at, content: Content::Record { lsn, .. }, fault, .. } => {
                    faults.extend(self.damaged_record(lsn, at, fault));
                }
                Suspect::Frame { at, content: Content::Leaf { upload, index, .. }, .. } => {
                    faults.extend(self.damaged_leaf(upload, index, at));
                }
                Suspect::Frame { at, end, .. } => faults.push(ScrubFault::Frame { from: at, to: end }),
                Suspect::Bad { from, to } => faults.extend(self.damaged_range(from, to)),
            }
        }
        faults
    }

    fn damaged_record(&mut self, lsn: Lsn, at: Position, fault: RecordFault) -> Option<ScrubFault> {
        let counts = self.state.slot(lsn)?.place.is_some_and(|place| place.position == at);
        if !counts || self.state.faults.contains_key(&lsn) {
            return None;
        }
        // A key or a name that was erased on purpose is none that rotted.
        let is_damaged = match fault {
            RecordFault::Record => true,
            _ => self.record(lsn).is_err(),
        };
        is_damaged.then(|| {
            self.state.faults.insert(lsn, fault);
            ScrubFault::Record { lsn, fault }
        })
    }

    fn damaged_leaf(&mut self, upload: UploadId, index: u64, at: Position) -> Option<ScrubFault> {
        let counts = self.leaf(upload, index).is_some_and(|leaf| leaf.place.position == at);
        if !counts || self.state.is_upload_gone(upload) {
            return None;
        }
        self.state.drop_leaf(upload, index);
        Some(ScrubFault::Leaf { upload, index })
    }

    /// Whatever the log knows to lie in a stretch without a readable frame is damaged.
    fn damaged_range(&mut self, from: Position, to: u64) -> Vec<ScrubFault> {
        if self.bad_ranges().iter().any(|bad| bad.from == from) {
            return Vec::new();
        }
        let inside = |place: &Place| {
            let at = place.position;
            at.segment == from.segment && (from.offset..to).contains(&at.offset)
        };
        let slots = (1..).map(Lsn).zip(&self.state.records);
        let records: Vec<(Lsn, Position)> =
            slots.filter_map(|(lsn, slot)| Some((lsn, slot.place.filter(inside)?.position))).collect();
        let uploads = self.state.uploads.iter();
        let leaves: Vec<(UploadId, u64, Position)> = uploads
            .flat_map(|(upload, places)| places.leaves.iter().map(move |leaf| (*upload, leaf)))
            .filter(|(_, (_, leaf))| inside(&leaf.place))
            .map(|(upload, (index, leaf))| (upload, *index, leaf.place.position))
            .collect();
        let mut faults = vec![ScrubFault::Frame { from, to }];
        for (lsn, at) in records {
            faults.extend(self.damaged_record(lsn, at, RecordFault::Record));
        }
        for (upload, index, at) in leaves {
            faults.extend(self.damaged_leaf(upload, index, at));
        }
        self.segments.half_written.push(BadRange { from, to });
        faults
    }
}
