//! Proofs for ranges of leaves: the few hashes beside a range that lead from it to the root.
//!
//! A proof, and all that is said with it, comes from a peer: every shape of it is an answer, never a panic.

use std::ops::Range;

use blake3::hazmat::{Mode, merge_subtrees_non_root};
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{
    HASH_LEN, LEAF_LEN, LeafPlace, NodeHash, TreeError, check_leaf_count, join_root, leaf_count, leaf_hash,
    left_leaves, subtree,
};

/// Most siblings that a proof can need: two per level of the deepest tree a `u64` length allows.
pub const SIBLINGS_MAX: usize = 2 * (64 - LEAF_LEN.trailing_zeros() as usize);

/// The hashes beside a range of leaves: with them the range alone leads to the root.
///
/// They stand in the order in which a walk from the root, left before right, meets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeProof {
    siblings: Vec<NodeHash>,
}

impl RangeProof {
    /// The proof for leaves `range` of an object of `total_len` bytes with these leaves.
    ///
    /// # Errors
    /// When the leaves do not match the length or the range does not lie in the object.
    pub fn build(leaves: &[NodeHash], total_len: u64, range: Range<u64>) -> Result<Self, TreeError> {
        check_leaf_count(leaves, total_len)?;
        check_range(&range, leaves.len() as u64)?;
        let mut siblings = Vec::new();
        collect_siblings(leaves, 0, &range, &mut siblings);
        Ok(Self { siblings })
    }

    /// The siblings, in the order of the walk.
    #[must_use]
    pub fn siblings(&self) -> &[NodeHash] {
        &self.siblings
    }
}

/// All complete subtrees of one object, to prove many ranges of it: [`RangeProof::build`] walks over every
/// leaf for each range, this does so once.
#[derive(Clone, Debug)]
pub struct ProvingTree {
    /// The hashes of the complete subtrees of 1, 2, 4, .. leaves, from left to right.
    levels: Vec<Vec<NodeHash>>,
}

impl ProvingTree {
    /// The tree over these leaves of an object of `total_len` bytes.
    ///
    /// # Errors
    /// When the leaves do not match the length.
    pub fn new(leaves: Vec<NodeHash>, total_len: u64) -> Result<Self, TreeError> {
        check_leaf_count(&leaves, total_len)?;
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let (pairs, _) = below.as_chunks::<2>();
            let merged = pairs.iter().map(|[l, r]| merge_subtrees_non_root(l, r, Mode::Hash));
            levels.push(merged.collect());
        }
        Ok(Self { levels })
    }

    /// The proof for leaves `range`: the same as [`RangeProof::build`] gives.
    ///
    /// # Errors
    /// When the range does not lie in the object.
    pub fn prove(&self, range: Range<u64>) -> Result<RangeProof, TreeError> {
        let leaves = self.levels[0].len() as u64;
        check_range(&range, leaves)?;
        let mut siblings = Vec::new();
        self.collect(0..leaves, &range, &mut siblings);
        Ok(RangeProof { siblings })
    }

    fn collect(&self, node: Range<u64>, range: &Range<u64>, siblings: &mut Vec<NodeHash>) {
        if are_apart(&node, range) {
            siblings.push(self.subtree(node));
        } else if node.end - node.start > 1 {
            let middle = node.start + left_leaves(node.end - node.start);
            self.collect(node.start..middle, range, siblings);
            self.collect(middle..node.end, range, siblings);
        }
    }

    /// A complete subtree is known; the one at the right edge is made of complete ones.
    fn subtree(&self, node: Range<u64>) -> NodeHash {
        let leaves = node.end - node.start;
        if leaves.is_power_of_two() {
            return self.levels[leaves.trailing_zeros() as usize][(node.start / leaves) as usize];
        }
        let middle = node.start + left_leaves(leaves);
        let (left, right) = (self.subtree(node.start..middle), self.subtree(middle..node.end));
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

impl<C> Encode<C> for RangeProof {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.siblings.as_flattened())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RangeProof {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        if d.datatype()? != Type::Bytes {
            return Err(minicbor::decode::Error::message("a range proof is one byte string").at(at));
        }
        let (siblings, rest) = d.bytes()?.as_chunks::<HASH_LEN>();
        if !rest.is_empty() || siblings.len() > SIBLINGS_MAX {
            return Err(minicbor::decode::Error::message("a range proof is 0 to SIBLINGS_MAX hashes").at(at));
        }
        Ok(Self { siblings: siblings.to_vec() })
    }
}

/// Checks that `bytes` are the whole leaves from `first_leaf` on, of the object with this root and length.
///
/// Bytes and their position are bound by the root in every case. The length is bound as far as the tree shows it: a
/// range that holds the last leaf proves where the object ends, an inner range does not. Take `total_len` from where
/// the root comes from.
///
/// # Errors
/// Whatever does not fit: the range, the number of bytes, the proof's shape, or the root.
pub fn verify_range(
    root: &NodeHash,
    total_len: u64,
    first_leaf: u64,
    bytes: &[u8],
    proof: &RangeProof,
) -> Result<(), TreeError> {
    let count = (bytes.len() as u64).div_ceil(LEAF_LEN).max(1);
    let range = first_leaf..first_leaf.saturating_add(count);
    check_range(&range, leaf_count(total_len))?;
    let expected = total_len.min(range.end.saturating_mul(LEAF_LEN)) - range.start * LEAF_LEN;
    if bytes.len() as u64 != expected {
        return Err(TreeError::Length { got: bytes.len() as u64, expected });
    }
    let place = LeafPlace::in_object(total_len);
    let hashes: Vec<NodeHash> = if bytes.is_empty() {
        vec![leaf_hash(0, bytes, place)]
    } else {
        bytes
            .chunks(LEAF_LEN as usize)
            .zip(first_leaf..)
            .map(|(leaf, index)| leaf_hash(index, leaf, place))
            .collect()
    };
    verify_leaves(root, total_len, first_leaf, &hashes, proof)
}

/// [`verify_range`] for leaves that are hashed already.
///
/// # Errors
/// As [`verify_range`], apart from the number of bytes.
pub fn verify_leaves(
    root: &NodeHash,
    total_len: u64,
    first_leaf: u64,
    hashes: &[NodeHash],
    proof: &RangeProof,
) -> Result<(), TreeError> {
    let leaves = leaf_count(total_len);
    let range = first_leaf..first_leaf.saturating_add(hashes.len() as u64);
    check_range(&range, leaves)?;
    let mut walk = Walk { range, hashes, siblings: proof.siblings.iter() };
    let computed = match leaves {
        1 => hashes[0],
        _ => join_root(walk.halves(0..leaves)?),
    };
    if walk.siblings.next().is_some() {
        return Err(TreeError::Shape);
    }
    if computed == *root { Ok(()) } else { Err(TreeError::Root) }
}

/// A walk over the tree that takes hashes of the range from `hashes` and all others from the proof.
struct Walk<'a> {
    range: Range<u64>,
    hashes: &'a [NodeHash],
    siblings: std::slice::Iter<'a, NodeHash>,
}

impl Walk<'_> {
    fn halves(&mut self, node: Range<u64>) -> Result<(NodeHash, NodeHash), TreeError> {
        let middle = node.start + left_leaves(node.end - node.start);
        let left = self.node(node.start..middle)?;
        let right = self.node(middle..node.end)?;
        Ok((left, right))
    }

    fn node(&mut self, node: Range<u64>) -> Result<NodeHash, TreeError> {
        if are_apart(&node, &self.range) {
            return self.siblings.next().copied().ok_or(TreeError::Shape);
        }
        if node.end - node.start == 1 {
            return Ok(self.hashes[(node.start - self.range.start) as usize]);
        }
        let (left, right) = self.halves(node)?;
        Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

fn collect_siblings(leaves: &[NodeHash], start: u64, range: &Range<u64>, siblings: &mut Vec<NodeHash>) {
    let node = start..start + leaves.len() as u64;
    if are_apart(&node, range) {
        siblings.push(subtree(leaves));
    } else if leaves.len() > 1 {
        let (left, right) = leaves.split_at(left_leaves(leaves.len() as u64) as usize);
        collect_siblings(left, start, range, siblings);
        collect_siblings(right, start + left.len() as u64, range, siblings);
    }
}

fn are_apart(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.end <= b.start || b.end <= a.start
}

fn check_range(range: &Range<u64>, leaves: u64) -> Result<(), TreeError> {
    if range.start < range.end && range.end <= leaves {
        return Ok(());
    }
    Err(TreeError::Range { first: range.start, end: range.end, leaves })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{build, object};
    use super::*;
    use proptest::prelude::*;

    const LEAF: usize = LEAF_LEN as usize;

    fn slice_of(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
        let end = bytes.len().min(range.end as usize * LEAF);
        bytes[range.start as usize * LEAF..end].to_vec()
    }

    #[test]
    fn every_range_of_small_trees_verifies() {
        for leaves in 1..=9_u64 {
            let bytes = object(leaves as usize * LEAF - 5);
            let (hashes, end) = build(&bytes, LEAF);
            for first in 0..leaves {
                for past in first + 1..=leaves {
                    let proof = RangeProof::build(&hashes, end.total_len, first..past).unwrap();
                    let data = slice_of(&bytes, &(first..past));
                    verify_range(&end.root, end.total_len, first, &data, &proof).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_tree_that_proves_many_ranges_proves_each_like_one() {
        for leaves in 1..=35_u64 {
            let hashes: Vec<NodeHash> = (0..leaves).map(|leaf| [leaf as u8; HASH_LEN]).collect();
            let length = leaves * LEAF_LEN - 1;
            let tree = ProvingTree::new(hashes.clone(), length).unwrap();
            for first in 0..=leaves {
                for past in 0..=leaves + 1 {
                    let one = RangeProof::build(&hashes, length, first..past);
                    assert_eq!(tree.prove(first..past), one, "{first}..{past} of {leaves}");
                }
            }
        }
        assert!(ProvingTree::new(vec![[0; HASH_LEN]; 2], LEAF_LEN).is_err());
    }

    #[test]
    fn a_range_with_the_last_leaf_proves_the_length() {
        let bytes = object(3 * LEAF + 100);
        let (hashes, end) = build(&bytes, LEAF);
        let proof = RangeProof::build(&hashes, end.total_len, 2..4).unwrap();
        let data = slice_of(&bytes, &(2..4));
        for wrong in (0..8 * LEAF_LEN).step_by(4099).chain([end.total_len - 1, end.total_len + 1, u64::MAX]) {
            assert!(verify_range(&end.root, wrong, 2, &data, &proof).is_err(), "length {wrong}");
        }
    }

    fn flip(bytes: &mut [u8], bit: prop::sample::Index) {
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    fn object_and_range() -> impl Strategy<Value = (usize, Range<u64>)> {
        (1..10 * LEAF).prop_flat_map(|len| {
            let leaves = leaf_count(len as u64);
            (0..leaves, 0..leaves).prop_map(move |(a, b)| (len, a.min(b)..a.max(b) + 1))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_range_verifies_and_any_flipped_bit_fails(
            (len, range) in object_and_range(),
            bit: prop::sample::Index,
            shift in 1_u64..20,
        ) {
            let bytes = object(len);
            let (hashes, end) = build(&bytes, 50_000);
            let proof = RangeProof::build(&hashes, end.total_len, range.clone()).unwrap();
            let data = slice_of(&bytes, &range);
            prop_assert_eq!(verify_range(&end.root, end.total_len, range.start, &data, &proof), Ok(()));

            let mut wrong = data.clone();
            flip(&mut wrong, bit);
            prop_assert!(verify_range(&end.root, end.total_len, range.start, &wrong, &proof).is_err());

            let mut wrong = end.root;
            flip(&mut wrong, bit);
            prop_assert!(verify_range(&wrong, end.total_len, range.start, &data, &proof).is_err());

            prop_assert!(verify_range(&end.root, end.total_len, range.start + shift, &data, &proof).is_err());
            if !proof.siblings.is_empty() {
                let mut wrong = proof.clone();
                flip(wrong.siblings.as_flattened_mut(), bit);
                prop_assert!(verify_range(&end.root, end.total_len, range.start, &data, &wrong).is_err());
                wrong = proof.clone();
                wrong.siblings.pop();
                prop_assert!(verify_range(&end.root, end.total_len, range.start, &data, &wrong).is_err());
            }
            let mut wrong = proof;
            wrong.siblings.push(end.root);
            prop_assert!(verify_range(&end.root, end.total_len, range.start, &data, &wrong).is_err());
        }

        #[test]
        fn a_proof_survives_its_codec(siblings in prop::collection::vec(any::<NodeHash>(), 0..=SIBLINGS_MAX)) {
            let proof = RangeProof { siblings };
            let encoded = minicbor::to_vec(&proof).unwrap();
            prop_assert_eq!(minicbor::decode::<RangeProof>(&encoded).unwrap(), proof);
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(
            encoded in prop::collection::vec(any::<u8>(), 0..200),
            siblings in prop::collection::vec(any::<NodeHash>(), 0..=SIBLINGS_MAX),
            total_len: u64, first: u64, data_len in 0..2 * LEAF,
        ) {
            let _ = minicbor::decode::<RangeProof>(&encoded);
            let proof = RangeProof { siblings };
            prop_assert!(verify_range(&[7; 32], total_len, first, &object(data_len), &proof).is_err());
            prop_assert!(verify_leaves(&[7; 32], total_len, first, &[[1; 32]; 3], &proof).is_err());
            prop_assert!(verify_leaves(&[7; 32], total_len, first % leaf_count(total_len), &[[1; 32]], &proof).is_err());
        }
    }

    #[test]
    fn a_proof_with_too_many_siblings_is_refused() {
        let mut encoded = Vec::new();
        Encoder::new(&mut encoded).bytes(&vec![0; (SIBLINGS_MAX + 1) * HASH_LEN]).unwrap();
        assert!(minicbor::decode::<RangeProof>(&encoded).is_err());
    }
}
