//! Sealed bytes on their way in: frames of leaves, put in order and, where a proof comes with them,
//! checked against the root before they go on.
//!
//! A whole object needs no proof here: each of its chunks is authenticated when it is opened, and the
//! last one says that it is the last. A part of an object is proven range by range, so that memory stays
//! small. Where the bytes stopped, another replica goes on.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::tenant::{DataPart, LEAF_RANGES_MAX, Want};
use trefoil_protocol::tree::{LEAF_LEN, RangeProof, leaf_count, verify_range};

use crate::failure::Damage;

/// Leaves that are proven together: 1 MiB.
pub const LEAVES_PER_RANGE: u64 = 16;

/// The leaves of one object that are wanted, and how far they have come.
#[derive(Clone, Debug)]
pub struct Parts {
    root: Hash,
    sealed_length: u64,
    /// The leaf that the next bytes given out begin with.
    next: u64,
    end: u64,
    mode: Mode,
}

#[derive(Clone, Debug)]
enum Mode {
    /// The whole object streams in without proofs.
    Whole,
    /// Ranges with proofs; this much of the current one is here.
    Proven { range: BytesMut, proof: Option<RangeProof> },
}

impl Parts {
    /// All leaves, as the answer to [`Want::Whole`] brings them.
    ///
    /// # Errors
    /// When no object has that length.
    pub fn whole(root: Hash, sealed_length: u64) -> Result<Self, Damage> {
        let parts = Self::leaves(root, sealed_length, 0..leaf_count(sealed_length))?;
        Ok(Self { mode: Mode::Whole, ..parts })
    }

    /// These leaves, proven.
    ///
    /// # Errors
    /// When no object has that length, or the leaves do not lie in it.
    pub fn leaves(root: Hash, sealed_length: u64, leaves: Range<u64>) -> Result<Self, Damage> {
        let Range { start: next, end } = leaves;
        let count = leaf_count(sealed_length);
        if next >= end || end > count || count > u64::from(u32::MAX) {
            return Err(Damage::Answer("an object has at most 2^32 - 1 leaves, a range some of them"));
        }
        Ok(Self {
            root,
            sealed_length,
            next,
            end,
            mode: Mode::Proven { range: BytesMut::new(), proof: None },
        })
    }

    /// Whether everything was given out.
    pub fn is_complete(&self) -> bool {
        self.next == self.end
    }

    /// What to ask for next, by version and with proofs; what came of an unfinished range is dropped.
    pub fn resume(&mut self) -> Want {
        self.mode = Mode::Proven { range: BytesMut::new(), proof: None };
        let starts = (self.next..self.end).step_by(LEAVES_PER_RANGE as usize).take(LEAF_RANGES_MAX);
        Want::Leaves(
            starts
                .map(|first| (index(first), index(self.end.min(first + LEAVES_PER_RANGE) - first)))
                .collect(),
        )
    }

    /// The leaf that the next bytes begin with.
    pub fn next_leaf(&self) -> u64 {
        self.next
    }

    /// Takes a frame and gives out the sealed bytes that follow, once they may go on.
    ///
    /// # Errors
    /// When the frame is not the one that follows, or its bytes do not lead to the root.
    pub fn accept(&mut self, part: DataPart, bulk: Bytes) -> Result<Option<Bytes>, Damage> {
        match &mut self.mode {
            Mode::Whole => self.accept_whole(&part, bulk).map(Some),
            Mode::Proven { .. } => self.accept_proven(part, &bulk),
        }
    }

    fn accept_whole(&mut self, part: &DataPart, bulk: Bytes) -> Result<Bytes, Damage> {
        if u64::from(part.first) != self.next {
            return Err(Damage::Answer("leaves come in order"));
        }
        let left = self.sealed_length - self.next * LEAF_LEN;
        let got = bulk.len() as u64;
        if got == 0 || got > left || (got < left && !got.is_multiple_of(LEAF_LEN)) {
            return Err(Damage::Answer("a frame holds whole leaves"));
        }
        self.next += got.div_ceil(LEAF_LEN);
        Ok(bulk)
    }

    fn accept_proven(&mut self, part: DataPart, bulk: &Bytes) -> Result<Option<Bytes>, Damage> {
        let expected = self.range_bytes();
        let Mode::Proven { range, proof } = &mut self.mode else {
            unreachable!("only called for proven ranges");
        };
        if u64::from(part.first) * LEAF_LEN != self.next * LEAF_LEN + range.len() as u64 {
            return Err(Damage::Answer("leaves come in order"));
        }
        if bulk.is_empty() || range.len() as u64 + bulk.len() as u64 > expected {
            return Err(Damage::Answer("a range has the bytes that were asked for"));
        }
        if range.is_empty() {
            *proof = part.proof;
        }
        range.extend_from_slice(bulk);
        if (range.len() as u64) < expected {
            return Ok(None);
        }
        let proven = proof.take().ok_or(Damage::Answer("a range comes with its proof"))?;
        let bytes = range.split().freeze();
        verify_range(&self.root.0, self.sealed_length, self.next, &bytes, &proven)?;
        self.next = self.end.min(self.next + LEAVES_PER_RANGE);
        Ok(Some(bytes))
    }

    /// Bytes of the range that begins at the next leaf.
    fn range_bytes(&self) -> u64 {
        let end = self.end.min(self.next + LEAVES_PER_RANGE);
        self.sealed_length.min(end * LEAF_LEN) - self.next * LEAF_LEN
    }
}

fn index(leaf: u64) -> u32 {
    u32::try_from(leaf).expect("checked when made: at most 2^32 - 1 leaves")
}
