//! Reading a segment from its first byte to its last, whatever state it is in: every frame that is
//! whole, and every stretch that is neither a frame nor untouched zeroes. Decides nothing.

use bytes::Bytes;

use crate::disk::{DiskError, DiskFile};
use crate::frame::{ALIGNMENT, Content, FrameError, HEADER_LENGTH, Header, Position, Scope};

const WINDOW: usize = 16 << 10;
const SEARCH_WINDOW: usize = 256 << 10;

/// Something found in a segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// A frame with a valid header.
    Frame(Box<FoundFrame>),
    /// Bytes that are no frame, although frames follow or the bytes are not zero.
    Bad { from: Position, to: u64 },
}

/// A frame with a valid header. Leaves are not read: their bytes are checked where needed.
#[derive(Debug)]
pub(crate) struct FoundFrame {
    pub(crate) header: Header,
    /// The header's hash, which the next frame names.
    pub(crate) link: [u8; 16],
    /// The public part, if it matches its checksum.
    pub(crate) public: Option<Bytes>,
    /// Whether the wrapped key and the erasable part of a record match their checksums.
    pub(crate) wrapped_whole: bool,
    pub(crate) erasable_whole: bool,
}

/// Why a segment cannot be scanned at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A frame of another format version: start the program that wrote it.
    #[error("segment {segment}, offset {offset}: {error}")]
    Format {
        /// The segment.
        segment: u64,
        /// The offset in it.
        offset: u64,
        /// The version found.
        error: FrameError,
    },
}

/// A walk over one segment.
pub(crate) struct Scan<'a, F> {
    window: Window<'a, F>,
    segment: u64,
    scope: &'a Scope,
    at: u64,
}

impl<'a, F: DiskFile> Scan<'a, F> {
    pub(crate) fn new(file: &'a F, segment: u64, length: u64, scope: &'a Scope) -> Self {
        Scan { window: Window { file, length, start: 0, bytes: Vec::new() }, segment, scope, at: 0 }
    }

    /// Goes on at a place where a frame begins.
    pub(crate) fn from(file: &'a F, at: Position, end: u64, scope: &'a Scope) -> Self {
        Scan { at: at.offset, ..Self::new(file, at.segment, end, scope) }
    }

    /// How far it is.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// The next thing found, in the order of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, ScanError> {
        let Some(header) = self.header_at(self.at)? else {
            return self.after_a_gap();
        };
        let frame = self.frame(header)?;
        self.at = frame.header.end();
        Ok(Some(Found::Frame(Box::new(frame))))
    }

    fn position(&self, offset: u64) -> Position {
        Position { segment: self.segment, offset }
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<Header>, ScanError> {
        let at = self.position(offset);
        let Some(bytes) = self.window.get(offset, HEADER_LENGTH)? else {
            return Ok(None);
        };
        match Header::parse(bytes, at, self.scope) {
            Ok(header) if offset + header.length() as u64 <= self.window.length => Ok(Some(header)),
            Err(error @ FrameError::Format { .. }) => {
                Err(ScanError::Format { segment: at.segment, offset, error })
            }
            _ => Ok(None),
        }
    }

    fn frame(&mut self, header: Header) -> Result<FoundFrame, ScanError> {
        let start = header.position.offset;
        let bytes = self.window.get(start, HEADER_LENGTH)?.unwrap_or_default();
        let link = bytes.try_into().map_or([0; 16], crate::frame::link);
        let mut frame = FoundFrame { header, link, public: None, wrapped_whole: true, erasable_whole: true };
        if matches!(header.content, Content::Leaf { .. }) {
            return Ok(frame);
        }
        let whole = self.window.get(start, header.length())?.unwrap_or_default();
        let part = |index: usize| {
            let from = header.part_offset(index);
            let bytes = whole.get(from..from + header.lengths[index])?;
            header.check_part(index, bytes).ok().map(|()| bytes)
        };
        frame.public = part(0).map(Bytes::copy_from_slice);
        frame.wrapped_whole = part(1).is_some();
        frame.erasable_whole = part(2).is_some();
        Ok(frame)
    }

    /// Skips what is no frame up to the next one or the end of the file.
    fn after_a_gap(&mut self) -> Result<Option<Found>, ScanError> {
        let from = self.position(self.at);
        let mut at = self.at;
        let mut touched = false;
        while at < self.window.length {
            let step = (self.window.length - at).min(SEARCH_WINDOW as u64);
            let chunk = self.window.chunk(at, step as usize)?;
            let zero = chunk.iter().all(|byte| *byte == 0);
            touched |= !zero;
            if !zero && let Some(next) = self.frame_within(at, step)? {
                self.at = next;
                return Ok(Some(Found::Bad { from, to: next }));
            }
            at += step;
        }
        self.at = self.window.length;
        Ok(touched.then_some(Found::Bad { from, to: at }))
    }

    fn frame_within(&mut self, from: u64, length: u64) -> Result<Option<u64>, ScanError> {
        let first = from.max(self.at + ALIGNMENT).next_multiple_of(ALIGNMENT);
        let mut at = first;
        while at < from + length {
            if self.header_at(at)?.is_some() {
                return Ok(Some(at));
            }
            at += ALIGNMENT;
        }
        Ok(None)
    }
}

/// A part of the file in memory.
struct Window<'a, F> {
    file: &'a F,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<F: DiskFile> Window<'_, F> {
    /// `wanted` bytes at `offset`, or `None` past the end of the file.
    fn get(&mut self, offset: u64, wanted: usize) -> Result<Option<&[u8]>, DiskError> {
        if offset + wanted as u64 > self.length {
            return Ok(None);
        }
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + wanted as u64 > end {
            let length = (self.length - offset).min(wanted.max(WINDOW) as u64);
            self.fill(offset, length as usize)?;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + wanted]))
    }

    /// Exactly the bytes at `offset`, which lie in the file, kept for the lookups that follow.
    fn chunk(&mut self, offset: u64, length: usize) -> Result<&[u8], DiskError> {
        self.fill(offset, length)?;
        Ok(&self.bytes)
    }

    fn fill(&mut self, offset: u64, length: usize) -> Result<(), DiskError> {
        self.bytes.resize(length, 0);
        self.start = offset;
        self.file.read_at(offset, &mut self.bytes)
    }
}
