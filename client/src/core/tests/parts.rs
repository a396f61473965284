//! Parts and the geometry of ranges: plaintext range, chunks, leaves, and back.

use std::ops::Range;

use proptest::prelude::*;
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::tenant::{DataPart, Want};
use trefoil_protocol::tree::{LEAF_LEN, NodeHash, RangeProof, TreeBuilder};

use super::*;
use crate::entropy::Entropy;
use crate::failure::Damage;
use crate::seal::*;
use crate::secret::Secret;

struct Counted(u8);

impl Entropy for Counted {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0);
    }
}

fn tenant_key() -> TenantKey {
    TenantKey::new(TenantId(1), 1, Secret::copy_of(&[9; 32]))
}

struct Sealed {
    bytes: Vec<u8>,
    leaves: Vec<NodeHash>,
    root: Hash,
    dek: Dek,
    identity: Identity,
    metadata: SealedMetadata,
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn seal(text: &[u8]) -> Sealed {
    let object = ObjectIdentity { tenant: TenantId(1), name: [3; 32], version: VersionId([4; 16]) };
    let attempt = Attempts::new(object).begin(&mut Counted(0));
    let identity = attempt.identity();
    let block = WrapBlock { key_version: 1, instance: 1, start: 0, end: 9 };
    let mut counter = WrapCounter::new(block).unwrap();
    let Begun { mut sealer, header, wrapped } =
        Sealer::begin(attempt, &tenant_key(), &mut counter, ChunkLen::DEFAULT).unwrap();
    let mut bytes = header.to_vec();
    let mut rest = text;
    while !rest.is_empty() {
        bytes.extend(sealer.push(&mut rest).unwrap().iter().flatten());
    }
    let end = sealer.finish();
    bytes.extend_from_slice(&end.last);
    let metadata = Metadata { plaintext_len: text.len() as u64, created_ms: 1, user: Default::default() };
    let metadata = end.metadata.seal(&metadata).unwrap();
    let (mut tree, mut leaves) = (TreeBuilder::new(), Vec::new());
    tree.push(&bytes, &mut leaves);
    let tree = tree.finish();
    leaves.push(tree.last);
    let dek = wrapped.unwrap(&tenant_key(), &identity).unwrap();
    let leaves = leaves.into_iter().map(|leaf| leaf.hash).collect();
    Sealed { bytes, leaves, root: Hash(tree.root), dek, identity, metadata }
}

impl Sealed {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn slice(&self, first: u64, count: u64) -> Bytes {
        let end = self.length().min((first + count) * LEAF_LEN);
        Bytes::copy_from_slice(&self.bytes[(first * LEAF_LEN) as usize..end as usize])
    }

    /// The frames a node answers with, `per_frame` leaves in each.
    fn serve(&self, want: &Want, per_frame: u64) -> Vec<(DataPart, Bytes)> {
        let ranges: Vec<(u64, u64)> = match want {
            Want::Leaves(ranges) => ranges.iter().map(|(a, b)| (u64::from(*a), u64::from(*b))).collect(),
            _ => vec![(0, self.leaves.len() as u64)],
        };
        let mut frames = Vec::new();
        for (first, count) in ranges {
            let range = first..first + count;
            let mut proof = match want {
                Want::Leaves(_) => {
                    Some(RangeProof::build(&self.leaves, self.length(), range.clone()).unwrap())
                }
                _ => None,
            };
            for leaf in range.clone().step_by(per_frame as usize) {
                let bulk = self.slice(leaf, per_frame.min(range.end - leaf));
                frames.push((DataPart { first: leaf as u32, proof: proof.take(), last: false }, bulk));
            }
        }
        frames
    }
}

fn object_and_range() -> impl Strategy<Value = (usize, Range<u64>)> {
    let edges = prop::sample::select(vec![0_usize, 1, 16, 160, 65_376, 65_392, 65_536]);
    (0..3_usize, edges, 0..65_536_usize, any::<bool>())
        .prop_map(|(chunks, edge, any, at_edge)| (chunks * 65_536 + if at_edge { edge } else { any }).max(1))
        .prop_flat_map(|len| (Just(len), 0..len as u64, 0..len as u64))
        .prop_map(|(len, a, b)| (len, a.min(b)..a.max(b) + 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_of_plaintext_comes_back_from_the_leaves_that_cover_it(
        (len, range) in object_and_range(),
        per_frame in 1_u64..4,
    ) {
        let text = plaintext(len);
        let sealed = seal(&text);
        let (_, unlocked) = sealed.metadata.open(&sealed.dek, &sealed.identity).unwrap();
        let plan = RangePlan::new(sealed.length(), unlocked.header().chunk_len, range.clone()).unwrap();
        let (leaves, within) = (plan.leaves(), plan.sealed_in_leaves());
        prop_assert!(leaves.end - leaves.start <= (range.end - range.start).div_ceil(LEAF_LEN) + 2);
        let mut parts = Parts::leaves(sealed.root, sealed.length(), leaves).unwrap();
        let want = parts.resume();
        let mut fetched: Vec<u8> = Vec::new();
        for (part, bulk) in sealed.serve(&want, per_frame) {
            fetched.extend(parts.accept(part, bulk).unwrap().iter().flatten());
        }
        prop_assert!(parts.is_complete());
        let mut opener = RangeOpener::new(&unlocked, plan);
        let mut rest = &fetched[within.start as usize..within.end as usize];
        let mut opened: Vec<u8> = Vec::new();
        while !rest.is_empty() {
            opened.extend(opener.push(&mut rest).unwrap().iter().flatten());
        }
        opener.finish().unwrap();
        prop_assert!(opened == text[range.start as usize..range.end as usize]);
    }

    #[test]
    fn a_broken_download_goes_on_where_it_stopped(
        len in 1_usize..200_000,
        per_frame in 1_u64..4,
        stops in prop::collection::vec(0_usize..4, 0..5),
    ) {
        let sealed = seal(&plaintext(len));
        let mut parts = Parts::whole(sealed.root, sealed.length()).unwrap();
        let mut got: Vec<u8> = Vec::new();
        let mut want = Want::Whole;
        for stop in stops.into_iter().chain([usize::MAX]) {
            for (part, bulk) in sealed.serve(&want, per_frame).into_iter().take(stop) {
                got.extend(parts.accept(part, bulk).unwrap().iter().flatten());
            }
            if parts.is_complete() {
                break;
            }
            want = parts.resume();
        }
        prop_assert!(got == sealed.bytes);
    }

    #[test]
    fn a_changed_byte_never_passes_a_proof(len in 1_usize..200_000, at: prop::sample::Index) {
        let mut sealed = seal(&plaintext(len));
        let mut parts = Parts::leaves(sealed.root, sealed.length(), 0..sealed.leaves.len() as u64).unwrap();
        let want = parts.resume();
        let at = at.index(sealed.bytes.len());
        sealed.bytes[at] ^= 1;
        let mut results = sealed.serve(&want, 2).into_iter().map(|(part, bulk)| parts.accept(part, bulk));
        prop_assert!(results.any(|result| matches!(result, Err(Damage::Tree(_)))));
    }
}

#[test]
fn frames_out_of_place_are_refused() {
    let sealed = seal(&plaintext(150_000));
    let part = |first| DataPart { first, proof: None, last: false };
    let whole = || Parts::whole(sealed.root, sealed.length()).unwrap();
    assert!(whole().accept(part(1), sealed.slice(1, 1)).is_err(), "not the first leaf");
    assert!(whole().accept(part(0), sealed.slice(0, 1).slice(..100)).is_err(), "not a whole leaf");
    assert!(whole().accept(part(0), Bytes::new()).is_err(), "nothing");
    assert!(whole().accept(part(0), [&sealed.bytes[..], &[0]].concat().into()).is_err(), "too much");
    let mut proven = Parts::leaves(sealed.root, sealed.length(), 0..2).unwrap();
    assert!(proven.accept(part(0), sealed.slice(0, 2)).is_err(), "no proof");
}

#[test]
fn lengths_that_no_object_has_are_refused() {
    assert!(Parts::whole(Hash::ZERO, u64::MAX).is_err());
    assert!(Parts::leaves(Hash::ZERO, 100, 1..2).is_err());
    assert!(Parts::leaves(Hash::ZERO, 100, 1..1).is_err());
}
