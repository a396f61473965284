//! Streams: whatever the lengths and the pieces, what was sealed is what is opened, whole or by range.

use std::ops::Range;

use proptest::prelude::*;
use trefoil_protocol::tree;

use super::*;

#[test]
fn every_length_around_a_chunk_survives() {
    for len in [0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 10 * 1024] {
        let plaintext = Seeded::new(1).bytes(len);
        let sealed = seal(object(7, 1, 1), &plaintext, 1);
        assert_eq!(sealed.chunks.len(), len.div_ceil(1024).max(1), "length {len}");
        assert_eq!(sealed_len(len as u64, ChunkLen::MIN), Some(sealed.bytes().len() as u64));
        assert_eq!(sealed.open(&tenant_key(7, 1)).unwrap(), plaintext, "length {len}");
    }
}

#[test]
fn metadata_opens_without_the_payload() {
    let sealed = seal(object(7, 1, 1), b"body", 1);
    let dek = sealed.dek(&tenant_key(7, 1));
    let (metadata, unlocked) = sealed.metadata.open(&dek, &sealed.identity).unwrap();
    assert_eq!((metadata.plaintext_len, metadata.user), (4, user_pairs()));
    assert_eq!(unlocked.header(), &Header::parse(&sealed.header).unwrap());
}

#[test]
fn too_much_metadata_is_refused() {
    let attempt = Attempts::new(object(7, 1, 1)).begin(&mut Seeded::new(1));
    let begun = Sealer::begin(attempt, &tenant_key(7, 1), &mut counter(1, 0), ChunkLen::DEFAULT).unwrap();
    let user = [("k".to_owned(), "v".repeat(9000))].into();
    let refused = begun.sealer.finish().metadata.seal(&Metadata { plaintext_len: 0, created_ms: 0, user });
    assert!(matches!(refused, Err(MetadataError::TooLong(_))));
}

fn open_range(sealed: &Sealed, range: Range<u64>, step: usize) -> Vec<u8> {
    let bytes = sealed.bytes();
    let (_, unlocked) = sealed.metadata.open(&sealed.dek(&tenant_key(7, 1)), &sealed.identity).unwrap();
    let plan = RangePlan::new(bytes.len() as u64, ChunkLen::MIN, range).unwrap();
    let leaves = plan.leaves();
    let leaf_bytes = leaves.start * tree::LEAF_LEN..(bytes.len() as u64).min(leaves.end * tree::LEAF_LEN);
    let fetched = &bytes[leaf_bytes.start as usize..leaf_bytes.end as usize];
    let within = plan.sealed_in_leaves();
    let mut opener = RangeOpener::new(&unlocked, plan);
    let mut plaintext = Vec::new();
    for mut piece in fetched[within.start as usize..within.end as usize].chunks(step) {
        while !piece.is_empty() {
            plaintext.extend(opener.push(&mut piece).unwrap().iter().flatten());
        }
    }
    opener.finish().unwrap();
    plaintext
}

#[test]
fn ranges_outside_the_object_have_no_plan() {
    let sealed_len = sealed_len(5000, ChunkLen::MIN).unwrap();
    for range in [0..0, 5..5, 0..5001, 5000..5001, 9..u64::MAX, Range { start: 9, end: 3 }] {
        assert!(RangePlan::new(sealed_len, ChunkLen::MIN, range.clone()).is_err(), "{range:?}");
    }
    assert!(RangePlan::new(sealed_len - 2000, ChunkLen::MIN, 0..1).is_ok());
    assert!(RangePlan::new(100, ChunkLen::MIN, 0..1).is_err());
}

#[test]
fn a_range_refuses_missing_and_further_bytes() {
    let sealed = seal(object(7, 1, 1), &[9; 5000], 1);
    let (_, unlocked) = sealed.metadata.open(&sealed.dek(&tenant_key(7, 1)), &sealed.identity).unwrap();
    let plan = RangePlan::new(sealed.bytes().len() as u64, ChunkLen::MIN, 1500..1600).unwrap();
    let chunk = sealed.chunks[1].clone();

    let mut opener = RangeOpener::new(&unlocked, plan.clone());
    assert_eq!(opener.push(&mut &chunk[..100]), Ok(None));
    assert_eq!(opener.finish(), Err(OpenError::Truncated));

    let mut opener = RangeOpener::new(&unlocked, plan);
    assert_eq!(opener.push(&mut &chunk[..]).unwrap().unwrap().len(), 100);
    assert_eq!(opener.push(&mut &[0][..]), Err(OpenError::TooLong));
    assert_eq!(opener.finish(), Err(OpenError::Dead));
}

#[test]
fn r089_padded_objects_fall_in_padme_classes_and_open_to_their_length() {
    let key = tenant_key(7, 1);
    let mut lengths = std::collections::BTreeSet::new();
    for len in (0..200_000_usize).step_by(997) {
        let plaintext = vec![0xEE; len];
        let attempt = Attempts::new(object(7, 1, 1)).begin(&mut Seeded::new(len as u64));
        let begun = Sealer::begin(attempt, &key, &mut counter(1, 0), ChunkLen::MIN).unwrap();
        let (mut sealer, mut sealed, mut rest) = (begun.sealer, begun.header.to_vec(), &plaintext[..]);
        while !rest.is_empty() {
            sealed.extend(sealer.push(&mut rest).unwrap().iter().flatten());
        }
        let mut padding = sealer.padding_wanted();
        while padding > 0 {
            sealed.extend(sealer.push_padding(&mut padding).unwrap().iter().flatten());
        }
        let identity = sealer.identity();
        let end = sealer.finish();
        sealed.extend_from_slice(&end.last);
        assert_eq!((end.plaintext_len, end.sealed_len), (len as u64, sealed.len() as u64));
        assert_eq!(plaintext_len(end.sealed_len, ChunkLen::MIN), Some(padme(len as u64)));
        lengths.insert(end.sealed_len);

        let opener = |trim| {
            let dek = begun.wrapped.unwrap(&key, &identity).unwrap();
            Opener::new(dek, identity).trimmed_to(trim)
        };
        assert_eq!(open_stream(opener(len as u64), &sealed, 5000).unwrap(), plaintext);
        assert_eq!(open_stream(opener(padme(len as u64) + 1), &sealed, 5000), Err(OpenError::Truncated));
    }
    assert!(lengths.len() < 120, "201 lengths fell in {} classes", lengths.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces_seal_and_open_the_same(len in 0..20_000_usize, cut in 1..5000_usize, step in 1..5000_usize) {
        let plaintext = Seeded::new(len as u64).bytes(len);
        let attempt = Attempts::new(object(7, 1, 1)).begin(&mut Seeded::new(1));
        let begun = Sealer::begin(attempt, &tenant_key(7, 1), &mut counter(1, 0), ChunkLen::MIN).unwrap();
        let (mut sealer, mut sealed) = (begun.sealer, begun.header.to_vec());
        for mut piece in plaintext.chunks(cut) {
            while !piece.is_empty() {
                sealed.extend(sealer.push(&mut piece).unwrap().iter().flatten());
            }
        }
        let identity = sealer.identity();
        sealed.extend_from_slice(&sealer.finish().last);
        let dek = begun.wrapped.unwrap(&tenant_key(7, 1), &identity).unwrap();
        prop_assert_eq!(open_stream(Opener::new(dek, identity), &sealed, step).unwrap(), plaintext);
    }

    #[test]
    fn any_range_opens_to_its_bytes(
        len in 1..200_000_usize,
        (a, b) in any::<(prop::sample::Index, prop::sample::Index)>(),
        step in 1..5000_usize,
    ) {
        let plaintext = Seeded::new(len as u64).bytes(len);
        let sealed = seal(object(7, 1, 1), &plaintext, 1);
        let (a, b) = (a.index(len), b.index(len));
        let range = a.min(b)..a.max(b) + 1;
        let opened = open_range(&sealed, range.start as u64..range.end as u64, step);
        prop_assert_eq!(&opened[..], &plaintext[range]);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in 0..144_usize) {
        let _ = Header::parse(&bytes);
        let _ = WrappedDek::from_bytes(&bytes);
        let sealed = seal(object(7, 1, 1), b"x", 1);
        let dek = sealed.dek(&tenant_key(7, 1));
        prop_assert!(SealedMetadata::from_bytes(bytes.clone().into()).open(&dek, &sealed.identity).is_err());
        prop_assert!(open_stream(Opener::new(dek, sealed.identity), &bytes, 7).is_err());
        let mut header = sealed.header.to_vec();
        header[flip] ^= 1 << (bytes.len() % 8);
        let damaged = Sealed { header: header.into(), ..sealed };
        prop_assert!(damaged.open(&tenant_key(7, 1)).is_err());
    }
}
