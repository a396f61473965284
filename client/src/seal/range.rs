//! Range reads: which sealed bytes a plaintext range needs, and their opening.
//!
//! A plan is pure arithmetic on lengths from the object's record. The range opener knows which chunk is the last and
//! must never release a byte outside the range, nor one of a chunk whose tag failed.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use trefoil_protocol::tree::LEAF_LEN;
use zeroize::Zeroize;

use super::chunk::{ChunkCipher, Place, gather};
use super::derive::Unlocked;
use super::header::HEADER_LEN;
use super::length::{ChunkLen, chunk_count, plaintext_len};
use super::opener::OpenError;

/// Why a range cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangePlanError {
    /// No sealed object has that length.
    #[error("no sealed object has {0} bytes")]
    SealedLen(u64),
    /// The range is empty or reaches past the object.
    #[error("bytes {start}..{end} do not lie in an object of {plaintext_len}")]
    Bounds {
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// Bytes that the object has.
        plaintext_len: u64,
    },
}

/// What to fetch for a range of plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePlan {
    plaintext: Range<u64>,
    chunk_len: ChunkLen,
    chunks: Range<u64>,
    chunk_count: u64,
    sealed: Range<u64>,
    sealed_len: u64,
}

impl RangePlan {
    /// The plan for `plaintext` in an object of `sealed_len` bytes.
    ///
    /// Padding counts as plaintext here: a caller that pads clamps the range to the length in the metadata.
    ///
    /// # Errors
    /// When no object has that length or the range does not lie in it.
    pub fn new(sealed_len: u64, chunk_len: ChunkLen, plaintext: Range<u64>) -> Result<Self, RangePlanError> {
        let unsound = RangePlanError::SealedLen(sealed_len);
        let object_len = plaintext_len(sealed_len, chunk_len).ok_or(unsound)?;
        let chunk_count = chunk_count(sealed_len, chunk_len).ok_or(unsound)?;
        if plaintext.start >= plaintext.end || plaintext.end > object_len {
            let Range { start, end } = plaintext;
            return Err(RangePlanError::Bounds { start, end, plaintext_len: object_len });
        }
        let text = u64::from(chunk_len.get());
        let chunks = plaintext.start / text..(plaintext.end - 1) / text + 1;
        let sealed_at = |chunk: u64| HEADER_LEN as u64 + chunk * chunk_len.sealed() as u64;
        let sealed = sealed_at(chunks.start)..sealed_len.min(sealed_at(chunks.end));
        Ok(Self { plaintext, chunk_len, chunks, chunk_count, sealed, sealed_len })
    }

    /// The sealed bytes that hold the range: whole chunks.
    #[must_use]
    pub fn sealed(&self) -> Range<u64> {
        self.sealed.clone()
    }

    /// The integrity leaves that cover [`RangePlan::sealed`].
    #[must_use]
    pub fn leaves(&self) -> Range<u64> {
        self.sealed.start / LEAF_LEN..self.sealed.end.div_ceil(LEAF_LEN)
    }

    /// Where [`RangePlan::sealed`] lies within the bytes of [`RangePlan::leaves`].
    #[must_use]
    pub fn sealed_in_leaves(&self) -> Range<u64> {
        let leaves_at = self.leaves().start * LEAF_LEN;
        self.sealed.start - leaves_at..self.sealed.end - leaves_at
    }
}

/// Opens the chunks of one range.
#[derive(Debug)]
pub struct RangeOpener {
    plan: RangePlan,
    /// `None` after an error.
    chunks: Option<ChunkCipher>,
    /// The chunk in `buffer`.
    next: u64,
    pub(crate) buffer: BytesMut,
}

impl RangeOpener {
    /// An opener for the range of `plan`.
    ///
    /// # Panics
    /// When the plan was made for another chunk length than the header's.
    #[must_use]
    pub fn new(unlocked: &Unlocked, plan: RangePlan) -> Self {
        assert_eq!(unlocked.header().chunk_len, plan.chunk_len, "a plan is made from the object's header");
        let next = plan.chunks.start;
        Self { plan, chunks: Some(unlocked.chunks()), next, buffer: BytesMut::new() }
    }

    /// Takes bytes of [`RangePlan::sealed`] off the front of `sealed` until a chunk is opened or nothing is left.
    ///
    /// Call it until `sealed` is empty; the bytes it gives are the range's next.
    ///
    /// # Errors
    /// When a chunk is refused or bytes follow the range. The opener is dead then.
    pub fn push(&mut self, sealed: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        let opened = self.try_push(sealed);
        if opened.is_err() {
            self.chunks = None;
            self.buffer.as_mut().zeroize();
        }
        opened
    }

    /// Says whether the whole range was given.
    ///
    /// # Errors
    /// When bytes are missing or an error came before.
    pub fn finish(self) -> Result<(), OpenError> {
        match (&self.chunks, self.next == self.plan.chunks.end) {
            (None, _) => Err(OpenError::Dead),
            (Some(_), false) => Err(OpenError::Truncated),
            (Some(_), true) => Ok(()),
        }
    }

    fn try_push(&mut self, sealed: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        let chunks = self.chunks.as_ref().ok_or(OpenError::Dead)?;
        if self.next == self.plan.chunks.end {
            return if sealed.is_empty() { Ok(None) } else { Err(OpenError::TooLong) };
        }
        let full = self.plan.sealed_chunk_len(self.next);
        gather(sealed, full, &mut self.buffer);
        if self.buffer.len() < full {
            return Ok(None);
        }
        let index = u32::try_from(self.next).expect("a plan has at most 2^32 chunks");
        let place = if self.next + 1 == self.plan.chunk_count { Place::Last } else { Place::Inner };
        chunks.open(index, place, &mut self.buffer).map_err(|_| OpenError::Tag { chunk: index })?;
        let opened = self.buffer.split().freeze().slice(self.plan.wanted_of(self.next));
        self.next += 1;
        Ok(Some(opened))
    }
}

impl RangePlan {
    fn sealed_chunk_len(&self, chunk: u64) -> usize {
        let full = self.chunk_len.sealed() as u64;
        let start = HEADER_LEN as u64 + chunk * full;
        full.min(self.sealed_len - start) as usize
    }

    /// The part of a chunk's plaintext that lies in the range.
    fn wanted_of(&self, chunk: u64) -> Range<usize> {
        let text = u64::from(self.chunk_len.get());
        let at = chunk * text;
        let start = self.plaintext.start.max(at) - at;
        let end = self.plaintext.end.min(at + text) - at;
        start as usize..end as usize
    }
}
