//! The integrity tree of a sealed object: 64 KiB leaves whose hashes are blake3 subtree chaining values.
//!
//! It exists so that any range of a sealed object can be checked against the one root in its record, and so that a
//! store can name the damaged leaf instead of the damaged object. The root is plain `blake3::hash` of all bytes: the
//! leaves are a way to reach it, never a second truth.
//!
//! It must never see plaintext, and it must never panic on a proof, a range or a length that a peer chose.

mod proof;

use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

pub use proof::{ProvingTree, RangeProof, SIBLINGS_MAX, verify_leaves, verify_range};

/// Bytes per leaf. Only the last leaf of an object may be shorter.
pub const LEAF_LEN: u64 = 64 * 1024;

/// Most leaves that an object can have: as many as a `u64` length allows.
pub const LEAVES_MAX: u64 = 1 << (64 - LEAF_LEN.trailing_zeros());

const HASH_LEN: usize = 32;

// A leaf must be a whole blake3 subtree: a power of two of blake3's own 1 KiB chunks.
const _: () = assert!(LEAF_LEN.is_power_of_two() && LEAF_LEN >= blake3::CHUNK_LEN as u64);

/// The hash of one leaf or inner node: 32 bytes.
///
/// An object of a single leaf has no inner nodes; its leaf's hash is the root itself.
pub type NodeHash = [u8; HASH_LEN];

/// One finished leaf, in the order of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Position of the leaf, from 0.
    pub index: u64,
    /// Its hash.
    pub hash: NodeHash,
}

/// Whether a leaf stands alone or among others: blake3 finishes the two differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafPlace {
    /// The object has this one leaf; its hash is the root.
    Only,
    /// The object has at least two leaves.
    Among,
}

impl LeafPlace {
    /// The place of every leaf in an object of `total_len` bytes.
    #[must_use]
    pub fn in_object(total_len: u64) -> Self {
        if total_len <= LEAF_LEN { Self::Only } else { Self::Among }
    }
}

/// Number of leaves of an object of `total_len` bytes; an empty object has one empty leaf.
#[must_use]
pub fn leaf_count(total_len: u64) -> u64 {
    total_len.div_ceil(LEAF_LEN).max(1)
}

/// The bytes that leaf `index` covers in an object of `total_len` bytes, or `None` when there is no such leaf.
#[must_use]
pub fn leaf_range(index: u64, total_len: u64) -> Option<Range<u64>> {
    let start = (index < leaf_count(total_len)).then(|| index * LEAF_LEN)?;
    Some(start..total_len.min(start.saturating_add(LEAF_LEN)))
}

/// The hash of one leaf.
///
/// # Panics
/// When `bytes` cannot be that leaf: longer than [`LEAF_LEN`], or empty among others, or an only leaf past index 0, or
/// when no object has a leaf `index`.
#[must_use]
pub fn leaf_hash(index: u64, bytes: &[u8], place: LeafPlace) -> NodeHash {
    let mut hasher = LeafHasher::new(index);
    let taken = hasher.push(bytes);
    assert_eq!(taken, bytes.len(), "a leaf holds at most LEAF_LEN bytes");
    hasher.finish(place)
}

/// Hashes one leaf as its bytes come in.
#[derive(Clone, Debug)]
pub struct LeafHasher {
    index: u64,
    hasher: Hasher,
}

impl LeafHasher {
    /// A hasher for leaf `index`.
    ///
    /// # Panics
    /// When no object has that leaf: an index from a peer is checked first, by [`leaf_range`] or [`LEAVES_MAX`].
    #[must_use]
    pub fn new(index: u64) -> Self {
        assert!(index < LEAVES_MAX, "no object has a leaf {index}");
        let mut hasher = Hasher::new();
        if index > 0 {
            hasher.set_input_offset(index * LEAF_LEN);
        }
        Self { index, hasher }
    }

    /// Takes as many of `bytes` as still fit and says how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let room = LEAF_LEN - self.hashed();
        let taken = bytes.len().min(room as usize);
        self.hasher.update(&bytes[..taken]);
        taken
    }

    /// The leaf's hash.
    ///
    /// # Panics
    /// When the leaf is empty among others, or an only leaf past index 0.
    #[must_use]
    pub fn finish(self, place: LeafPlace) -> NodeHash {
        match place {
            LeafPlace::Only => {
                assert_eq!(self.index, 0, "an only leaf is the first");
                *self.hasher.finalize().as_bytes()
            }
            LeafPlace::Among => self.hasher.finalize_non_root(),
        }
    }

    fn is_full(&self) -> bool {
        self.hashed() == LEAF_LEN
    }

    fn hashed(&self) -> u64 {
        self.hasher.count()
    }
}

/// What a [`TreeBuilder`] knows at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEnd {
    /// The last leaf.
    pub last: Leaf,
    /// `blake3::hash` of every byte pushed.
    pub root: NodeHash,
    /// How many bytes were pushed.
    pub total_len: u64,
}

/// Cuts a stream of bytes into leaves and keeps only what the root needs: one hash per level.
///
/// A leaf is handed out when the first byte after it arrives, or at the end: until then an only leaf and a first leaf
/// look alike, and they hash differently.
#[derive(Clone, Debug)]
pub struct TreeBuilder {
    current: LeafHasher,
    total_len: u64,
    spine: Spine,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self { current: LeafHasher::new(0), total_len: 0, spine: Spine::default() }
    }

    /// Takes all of `bytes` and appends each leaf that they complete to `leaves`.
    pub fn push(&mut self, mut bytes: &[u8], leaves: &mut Vec<Leaf>) {
        while !bytes.is_empty() {
            if self.current.is_full() {
                leaves.push(self.next_leaf());
            }
            let taken = self.current.push(bytes);
            self.total_len += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// The last leaf, the root and the length.
    #[must_use]
    pub fn finish(self) -> TreeEnd {
        let place = LeafPlace::in_object(self.total_len);
        let last = Leaf { index: self.current.index, hash: self.current.finish(place) };
        TreeEnd { last, root: self.spine.root(last.hash), total_len: self.total_len }
    }

    fn next_leaf(&mut self) -> Leaf {
        let index = self.current.index;
        let full = std::mem::replace(&mut self.current, LeafHasher::new(index + 1));
        let hash = full.finish(LeafPlace::Among);
        self.spine.push(hash);
        Leaf { index, hash }
    }
}

/// The roots of the complete subtrees left of the current leaf, largest first: a binary counter of leaves.
///
/// Subtrees are merged only when a further leaf is known to follow, because the topmost merge is finished as the root.
#[derive(Clone, Debug, Default)]
struct Spine {
    leaves: u64,
    subtrees: Vec<NodeHash>,
}

impl Spine {
    fn push(&mut self, leaf: NodeHash) {
        self.merge_complete();
        self.subtrees.push(leaf);
        self.leaves += 1;
    }

    /// Leaves one subtree for each set bit of the leaf count.
    fn merge_complete(&mut self) {
        while self.subtrees.len() > self.leaves.count_ones() as usize {
            let (left, right) = self.pop_two();
            self.subtrees.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    fn root(mut self, last: NodeHash) -> NodeHash {
        if self.subtrees.is_empty() {
            return last;
        }
        self.push(last);
        while self.subtrees.len() > 2 {
            let (left, right) = self.pop_two();
            self.subtrees.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
        let (left, right) = self.pop_two();
        *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
    }

    fn pop_two(&mut self) -> (NodeHash, NodeHash) {
        let right = self.subtrees.pop().expect("a merge follows two pushes");
        let left = self.subtrees.pop().expect("a merge follows two pushes");
        (left, right)
    }
}

/// Why leaves, a range or a proof were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The leaves given are not as many as the length has.
    #[error("{got} leaves given, the length has {expected}")]
    LeafCount {
        /// Leaves given.
        got: u64,
        /// Leaves that the length has.
        expected: u64,
    },
    /// The range is empty or reaches past the object.
    #[error("leaves {first}..{end} do not lie in an object of {leaves} leaves")]
    Range {
        /// First leaf asked for.
        first: u64,
        /// One past the last leaf asked for.
        end: u64,
        /// Leaves that the object has.
        leaves: u64,
    },
    /// The bytes do not fill the leaves they claim to be.
    #[error("{got} bytes given for leaves that hold {expected}")]
    Length {
        /// Bytes given.
        got: u64,
        /// Bytes that the leaves hold.
        expected: u64,
    },
    /// The proof has too few or too many siblings for the range.
    #[error("the proof does not have the shape of the range")]
    Shape,
    /// The bytes are not those that the root names.
    #[error("the bytes do not hash to the root")]
    Root,
}

/// The root over all leaves of an object of `total_len` bytes: `blake3::hash` of those bytes.
///
/// # Errors
/// [`TreeError::LeafCount`] when there are not as many leaves as the length has.
pub fn root_from_leaves(leaves: &[NodeHash], total_len: u64) -> Result<NodeHash, TreeError> {
    check_leaf_count(leaves, total_len)?;
    Ok(if let [only] = leaves { *only } else { join_root(subtree_halves(leaves)) })
}

fn subtree(leaves: &[NodeHash]) -> NodeHash {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = subtree_halves(leaves);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

fn subtree_halves(leaves: &[NodeHash]) -> (NodeHash, NodeHash) {
    let (left, right) = leaves.split_at(left_leaves(leaves.len() as u64) as usize);
    (subtree(left), subtree(right))
}

fn join_root((left, right): (NodeHash, NodeHash)) -> NodeHash {
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// Leaves in the left half: the largest power of two below `leaves`, as blake3 splits.
fn left_leaves(leaves: u64) -> u64 {
    leaves.div_ceil(2).next_power_of_two()
}

fn check_leaf_count(leaves: &[NodeHash], total_len: u64) -> Result<(), TreeError> {
    let (got, expected) = (leaves.len() as u64, leaf_count(total_len));
    if got == expected { Ok(()) } else { Err(TreeError::LeafCount { got, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: usize = LEAF_LEN as usize;

    pub(super) fn object(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }

    pub(super) fn build(bytes: &[u8], step: usize) -> (Vec<NodeHash>, TreeEnd) {
        let (mut builder, mut leaves) = (TreeBuilder::new(), Vec::new());
        for piece in bytes.chunks(step) {
            builder.push(piece, &mut leaves);
        }
        let end = builder.finish();
        leaves.push(end.last);
        assert!(leaves.iter().zip(0..).all(|(leaf, index)| leaf.index == index));
        (leaves.into_iter().map(|leaf| leaf.hash).collect(), end)
    }

    #[test]
    fn the_root_is_plain_blake3_at_every_edge() {
        let mut lengths = vec![0, 1, 1023, 1024, 1025];
        for leaves in 1..=9 {
            lengths.extend([leaves * LEAF - 1, leaves * LEAF, leaves * LEAF + 1]);
        }
        for len in lengths {
            let bytes = object(len);
            let root = *blake3::hash(&bytes).as_bytes();
            for step in [LEAF, 70_001, 3 * LEAF] {
                let (leaves, end) = build(&bytes, step);
                assert_eq!((end.root, end.total_len), (root, len as u64), "length {len}, step {step}");
                assert_eq!(root_from_leaves(&leaves, len as u64), Ok(root), "length {len}");
            }
        }
    }

    #[test]
    fn an_empty_object_has_one_leaf_that_is_the_root() {
        let (leaves, end) = build(&[], 1);
        assert_eq!(leaves, [end.root]);
        verify_range(&end.root, 0, 0, &[], &RangeProof::default()).unwrap();
        assert_eq!(leaf_range(0, 0), Some(0..0));
        assert_eq!(leaf_range(1, LEAF_LEN), None);
    }
}
