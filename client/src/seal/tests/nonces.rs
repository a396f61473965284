//! R77 and R78: no (key, nonce) encrypts twice, and a retry has a key of its own.

use super::*;
use crate::seal::aead::witness;

fn repeats(mut uses: Vec<witness::Use>) -> usize {
    uses.sort_unstable();
    uses.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

#[test]
fn r077_no_key_and_nonce_repeat_over_a_million_chunks_with_retries() {
    seal_without_repeats(1_000_000);
}

/// `TREFOIL_CHUNKS=100000000 cargo test --release -p trefoil-client r077_long -- --ignored --nocapture`
#[test]
#[ignore = "as many chunks as TREFOIL_CHUNKS says, a hundred million without it: 3 GiB of memory"]
fn r077_long_no_key_and_nonce_repeat() {
    let asked = std::env::var("TREFOIL_CHUNKS").ok();
    seal_without_repeats(asked.map_or(100_000_000, |text| text.parse().expect("a number of chunks")));
}

/// Objects of many lengths, each abandoned midway a few times before it is finished.
fn seal_without_repeats(chunks: usize) {
    let (key, mut counter, mut entropy) = (tenant_key(7, 1), counter(1, 0), Seeded::new(77));
    let plaintext = vec![0xA5; 600 * 1024];
    let mut uses = witness::take_seals();
    uses.clear();
    for version in 0_u32.. {
        if uses.len() >= chunks {
            break;
        }
        let mut id = object(7, 1, 0);
        id.version.0[..4].copy_from_slice(&version.to_be_bytes());
        let mut attempts = Attempts::new(id);
        for broken_after in [version % 7, version % 61] {
            let begun =
                Sealer::begin(attempts.begin(&mut entropy), &key, &mut counter, ChunkLen::MIN).unwrap();
            let mut sealer = begun.sealer;
            let mut sent = &plaintext[..broken_after as usize * 1024 + 1];
            while !sent.is_empty() {
                sealer.push(&mut sent).unwrap();
            }
        }
        let whole = &plaintext[..(version as usize * 7919) % plaintext.len()];
        seal_attempt(attempts.begin(&mut entropy), &key, &mut counter, whole, ChunkLen::MIN);
        uses.append(&mut witness::take_seals());
    }
    assert!(uses.len() >= chunks);
    println!("r077: {} chunk encryptions", uses.len());
    assert_eq!(repeats(uses), 0);
}

#[test]
fn the_witness_of_repeats_finds_one() {
    let one = ([1; 8], [2; 12]);
    assert_eq!(repeats(vec![one, ([1; 8], [3; 12]), one]), 1);
}

/// That an attempt cannot be sealed twice is shown where it is a compile error: on [`Attempt`] and [`MetadataSealer`].
#[test]
fn r078_a_retry_has_a_new_key_a_new_salt_and_shares_no_ciphertext() {
    let (key, mut counter, mut entropy) = (tenant_key(7, 1), counter(1, 0), Seeded::new(78));
    let mut attempts = Attempts::new(object(7, 1, 1));
    let plaintext = [0; 4096];
    let mut seal =
        || seal_attempt(attempts.begin(&mut entropy), &key, &mut counter, &plaintext, ChunkLen::MIN);
    let (first, second) = (seal(), seal());
    assert_eq!((first.identity.attempt, second.identity.attempt), (0, 1));
    let salts = [&first, &second].map(|sealed| Header::parse(&sealed.header).unwrap().salt);
    assert_ne!(salts[0], salts[1]);
    assert!(!first.dek(&key).secret().is_equal(second.dek(&key).secret()));
    let blocks = |sealed: &Sealed| -> std::collections::BTreeSet<Vec<u8>> {
        sealed.chunks.iter().flat_map(|chunk| chunk.chunks(16).map(<[u8]>::to_vec)).collect()
    };
    assert!(blocks(&first).is_disjoint(&blocks(&second)));
}

#[test]
fn r082_wrap_counters_never_run_back_and_end_at_two_to_the_thirty() {
    let block = |instance, start, end| WrapBlock { key_version: 1, instance, start, end };
    let mut counter = WrapCounter::new(block(1, 10, 12)).unwrap();
    for used in [block(1, 9, 20), block(1, 10, 12), block(1, 11, 30), block(1, 0, 1)] {
        assert!(matches!(counter.refill(used), Err(BlockRefused::Reused { spent: 12, .. })), "{used:?}");
    }
    assert!(counter.refill(WrapBlock { key_version: 2, ..block(1, 12, 13) }).is_err());
    counter.refill(block(2, 0, 5)).unwrap();
    counter.refill(block(1, 12, 13)).unwrap();
    assert!(matches!(counter.refill(block(2, 4, 6)), Err(BlockRefused::Reused { .. })));
    for outside in [block(3, 5, 5), block(3, 6, 5), block(3, 0, WRAPS_PER_KEY_MAX + 1)] {
        assert!(matches!(WrapCounter::new(outside), Err(BlockRefused::Bounds(..))));
    }

    let (key, mut entropy) = (tenant_key(7, 1), Seeded::new(82));
    let mut attempts = Attempts::new(object(7, 1, 1));
    assert_eq!(counter.left(), 2 + 5 + 1, "what is left of a block is used before the next one");
    for _ in 0..8 {
        assert!(Sealer::begin(attempts.begin(&mut entropy), &key, &mut counter, ChunkLen::MIN).is_ok());
    }
    assert_eq!(counter.left(), 0);
    let refused = Sealer::begin(attempts.begin(&mut entropy), &key, &mut counter, ChunkLen::MIN);
    assert_eq!(refused.err(), Some(WrapError::Exhausted));
}
