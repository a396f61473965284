//! Segments: the preallocated, append-only files of one volume, and the head at which frames are
//! written. Staging is one positioned write into the page cache; durability is somebody else's.
//!
//! A segment's space is allocated before its first frame, so no sync ever meets a full disk. A part
//! of the disk is kept in reserve for what must work on a full one: deletes, tombstones, erasing.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::ids::{Epoch, Lsn, StoreId};

use crate::disk::{Disk, DiskError, DiskFile};
use crate::frame::{self, Content, HEADER_LENGTH, Header, Position, Scope};
use crate::health::Health;
use crate::recovery::BadRange;

/// How a volume lays out its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLayout {
    /// Bytes of a full-grown segment.
    pub segment_bytes: u64,
    /// Bytes of the first segment; each next one is as large as what the others hold together, up to
    /// `segment_bytes`, so that a small volume takes little room.
    pub first_segment_bytes: u64,
    /// Bytes of the disk that ordinary writes leave free.
    pub reserve_bytes: u64,
    /// Bytes of a segment that is cut from the reserve when the disk is full.
    pub reserve_segment_bytes: u64,
}

impl Default for SegmentLayout {
    fn default() -> Self {
        SegmentLayout {
            segment_bytes: 64 << 20,
            first_segment_bytes: 64 << 10,
            reserve_bytes: 8 << 20,
            reserve_segment_bytes: 256 << 10,
        }
    }
}

/// What a write may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Everything but the reserve.
    Ordinary,
    /// The reserve too: deletes, erasing and what the volume needs to stay safe.
    Reserve,
}

/// What every frame says about the moment it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) epoch: Epoch,
    pub(crate) committed: Lsn,
    pub(crate) synced: Position,
}

/// The public part of a segment's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentStart {
    #[n(0)]
    pub(crate) store: StoreId,
    #[n(1)]
    pub(crate) reserve: bool,
}

/// One segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment<F> {
    pub(crate) file: F,
    pub(crate) length: u64,
    /// Where its frames end.
    pub(crate) used: u64,
}

/// Where the next frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) at: Position,
    pub(crate) length: u64,
    pub(crate) previous: [u8; 16],
    pub(crate) reserve: bool,
}

/// All segments of a volume.
#[derive(Debug)]
pub(crate) struct Segments<D: Disk> {
    disk: D,
    pub(crate) directory: String,
    pub(crate) scope: Scope,
    store: StoreId,
    layout: SegmentLayout,
    pub(crate) files: BTreeMap<u64, Box<Segment<D::File>>>,
    head: Option<Head>,
    end: Position,
    dirty: BTreeSet<u64>,
    /// Bytes of frames staged since the last sync was begun.
    staged: u64,
    health: Health<D>,
    names_changed: bool,
    /// The last segment has no durable name yet: nothing that may have to be erased is written to it.
    unnamed: bool,
    /// A file beside the segments that the next sync has to cover.
    beside: Option<D::File>,
    /// Where a write failed and half a frame may stand.
    pub(crate) half_written: Vec<BadRange>,
}

/// What has to be synced for everything staged so far to be durable.
#[derive(Debug)]
pub(crate) struct Unsynced<F> {
    pub(crate) files: Vec<F>,
    pub(crate) directories: Vec<String>,
    /// Bytes of frames.
    pub(crate) bytes: u64,
}

impl<F> Unsynced<F> {
    /// Both together.
    pub(crate) fn with(mut self, other: Unsynced<F>) -> Self {
        self.files.extend(other.files);
        self.directories.extend(other.directories);
        self.bytes += other.bytes;
        self
    }
}

impl<D: Disk> Segments<D> {
    /// Opens the segment files in `directory`; the head is set by recovery.
    pub(crate) fn open(
        disk: &D,
        health: &Health<D>,
        directory: &str,
        scope: Scope,
        store: StoreId,
        layout: SegmentLayout,
    ) -> Result<Self, DiskError> {
        let mut files = BTreeMap::new();
        for name in disk.list(directory)? {
            if let Some(id) = segment_id(&name) {
                let file = disk.open(&format!("{directory}/{name}"))?;
                let length = file.length()?;
                files.insert(id, Box::new(Segment { file, length, used: length }));
            }
        }
        Ok(Segments {
            disk: disk.clone(),
            directory: directory.to_owned(),
            scope,
            store,
            layout,
            files,
            head: None,
            end: Position::default(),
            dirty: BTreeSet::new(),
            staged: 0,
            health: health.clone(),
            names_changed: false,
            unnamed: false,
            beside: None,
            half_written: Vec::new(),
        })
    }

    /// Goes on writing where a clean run ended.
    pub(crate) fn resume(&mut self, head: Head) {
        self.end = head.at;
        self.head = Some(head);
    }

    /// Notes where the frames end without going on there: after an unclean end the next frame begins
    /// a new segment.
    pub(crate) fn rest_at(&mut self, end: Position) {
        self.end = end;
    }

    /// Notes where a segment's frames end.
    pub(crate) fn used(&mut self, segment: u64, end: u64) {
        if let Some(segment) = self.files.get_mut(&segment) {
            segment.used = end;
        }
    }

    /// Gives back the untouched rest of the last segment, which nothing will be written to. It reads
    /// as zero before and after.
    pub(crate) fn give_back_rest(&self) -> Result<(), DiskError> {
        match self.files.last_key_value() {
            Some((_, segment)) if segment.used < segment.length => {
                segment.file.punch(segment.used, segment.length - segment.used)
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the disk that ordinary writes leave free.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.layout.reserve_bytes
    }

    /// Where the last frame ends.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Writes one frame behind the last; answers its header.
    pub(crate) fn stage(
        &mut self,
        stamp: Stamp,
        content: Content,
        parts: [&[u8]; 3],
        room: Room,
    ) -> Result<Header, DiskError> {
        let length: usize = HEADER_LENGTH + parts.iter().map(|part| part.len()).sum::<usize>();
        let padded = frame::padded(length as u64);
        let head = self.head_for(padded, stamp, room)?;
        self.staged += padded;
        self.write(head, stamp, content, parts)
    }

    /// A file's read of `length` bytes at a place.
    pub(crate) fn read(&self, at: Position, length: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; length];
        self.file(at.segment)?.read_at(at.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The file of a segment.
    pub(crate) fn file(&self, segment: u64) -> Result<&D::File, DiskError> {
        let found = self.files.get(&segment).map(|segment| &segment.file);
        found.ok_or_else(|| DiskError::NotFound {
            path: format!("{}/{}", self.directory, segment_name(segment)),
        })
    }

    /// Takes the list of what is staged and not synced; `None` if there is nothing.
    pub(crate) fn take_unsynced(&mut self) -> Option<Unsynced<D::File>> {
        if self.dirty.is_empty() && !self.names_changed {
            return None;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let files = dirty.iter().filter_map(|id| self.files.get(id));
        let renamed = std::mem::take(&mut self.names_changed);
        Some(Unsynced {
            files: files.map(|segment| segment.file.clone()).chain(self.beside.take()).collect(),
            directories: renamed.then(|| self.directory.clone()).into_iter().collect(),
            bytes: std::mem::take(&mut self.staged),
        })
    }

    /// The last sync that was begun has ended well.
    pub(crate) fn synced(&mut self) {
        self.unnamed &= self.names_changed;
    }

    /// This file is to be synced with whatever is staged next.
    pub(crate) fn sync_beside(&mut self, file: D::File) {
        self.beside = Some(file);
    }

    /// Counts segments from `first` on as unsynced: what a crashed process left in the page cache.
    pub(crate) fn suspect_unsynced(&mut self, first: u64) {
        self.dirty.extend(self.files.range(first..).map(|(id, _)| *id));
        self.names_changed = true;
    }

    fn head_for(&mut self, length: u64, stamp: Stamp, room: Room) -> Result<Head, DiskError> {
        if let Some(head) = self.head
            && head.at.offset + length <= head.length
            && (room == Room::Reserve || !head.reserve)
        {
            return Ok(head);
        }
        self.roll(length, stamp, room)
    }

    /// Begins a new segment that has room for a frame of `length` bytes.
    fn roll(&mut self, length: u64, stamp: Stamp, room: Room) -> Result<Head, DiskError> {
        let id = self.files.last_key_value().map_or(1, |(last, _)| last + 1);
        let path = format!("{}/{}", self.directory, segment_name(id));
        let least = (length + 4096).next_multiple_of(4096);
        let (bytes, reserve) = self.size_of_next(least, room, &path)?;
        let file = self.disk.create(&path)?;
        self.names_changed = true;
        // From here on the file is listed even if its allocation fails, so that its id is not used
        // for another beginning.
        let segment = self.files.entry(id).or_insert_with(|| Box::new(Segment { file, length: 0, used: 0 }));
        segment.file.allocate(bytes)?;
        segment.length = bytes;
        self.unnamed = true;
        let head = Head {
            at: Position { segment: id, offset: 0 },
            length: bytes,
            previous: self.head.map_or([0; 16], |head| head.previous),
            reserve,
        };
        let start = codec::to_vec(&SegmentStart { store: self.store, reserve });
        self.write(head, stamp, Content::SegmentStart, [&start, &[], &[]])?;
        Ok(self.head.expect("a written frame leaves a head"))
    }

    /// Whether the disk has room for a further segment of ordinary writes.
    pub(crate) fn may_grow(&self) -> Result<bool, DiskError> {
        Ok(self.disk.free_bytes()? >= self.next_bytes().saturating_add(self.layout.reserve_bytes))
    }

    /// Bytes that the next segment should have: a volume's segments double until they are full-sized.
    fn next_bytes(&self) -> u64 {
        let full = self.layout.segment_bytes;
        let mut present = 0;
        // Asked with every acknowledgement: not all of many segments are counted.
        for segment in self.files.values() {
            present += segment.used;
            if present >= full {
                break;
            }
        }
        present.max(self.layout.first_segment_bytes).min(full)
    }

    /// Bytes for the next segment and whether they come from the reserve.
    fn size_of_next(&self, least: u64, room: Room, path: &str) -> Result<(u64, bool), DiskError> {
        let layout = &self.layout;
        let grown = self.next_bytes().max(least);
        let free = self.disk.free_bytes()?;
        if free >= grown.saturating_add(layout.reserve_bytes) {
            return Ok((grown, false));
        }
        let small = layout.reserve_segment_bytes.max(least);
        if room == Room::Reserve && free >= small {
            return Ok((small, true));
        }
        Err(DiskError::Full { path: path.to_owned(), needed: grown })
    }

    /// The name before the bytes: a crash frees the blocks of a file without a name with what was written
    /// there, and no erase reaches them. What is never erased needs no name before the next sync.
    fn name_before(&mut self, parts: [&[u8]; 3]) -> Result<(), DiskError> {
        if self.unnamed && parts[1].len() + parts[2].len() > 0 {
            self.health.sync_directory(&self.directory)?;
            (self.unnamed, self.names_changed) = (false, false);
        }
        Ok(())
    }

    fn write(
        &mut self,
        head: Head,
        stamp: Stamp,
        content: Content,
        parts: [&[u8]; 3],
    ) -> Result<Header, DiskError> {
        let header = Header {
            position: head.at,
            owner: self.scope.owner,
            epoch: stamp.epoch,
            committed: stamp.committed,
            synced: stamp.synced,
            previous: head.previous,
            content,
            lengths: parts.map(<[u8]>::len),
            crcs: parts.map(crc32fast::hash),
        };
        self.name_before(parts)?;
        let bytes = header.encode(&self.scope.seal);
        // Until the frame is whole there is no head: after a failed write the next frame begins a
        // new segment and never stands behind half a frame.
        self.head = None;
        let file = self.file(head.at.segment)?;
        let written = file.write_at(head.at.offset, &[&bytes, parts[0], parts[1], parts[2]]);
        if written.is_err() {
            self.half_written.push(BadRange { from: head.at, to: header.end().min(head.length) });
        }
        written?;
        self.dirty.insert(head.at.segment);
        if let Some(segment) = self.files.get_mut(&head.at.segment) {
            segment.used = header.end();
        }
        self.end = Position { offset: header.end(), ..head.at };
        self.head = Some(Head { at: self.end, previous: frame::link(&bytes), ..head });
        Ok(header)
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(id: u64) -> String {
    format!("segment-{id:016x}")
}

fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(id) == name).then_some(id)
}
