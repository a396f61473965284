//! R79: nothing that a store keeps can be exchanged, cut, extended or reordered without the reader finding out.

use super::*;

const LEN: usize = 5 * 1024 + 100;

fn plaintext(seed: u64) -> Vec<u8> {
    Seeded::new(seed).bytes(LEN)
}

/// Opens `sealed` as the reader would, and demands that it is refused before its final chunk is released.
fn assert_refused(what: &str, sealed: &Sealed, key: &TenantKey) {
    let Ok(dek) = sealed.wrapped.unwrap(key, &sealed.identity) else { return };
    let opened = open_stream(Opener::new(dek, sealed.identity), &sealed.bytes(), 700);
    assert!(opened.is_err(), "{what} was not detected");
}

fn with_chunks(sealed: &Sealed, change: impl FnOnce(&mut Vec<Bytes>)) -> Sealed {
    let mut changed = sealed.clone();
    change(&mut changed.chunks);
    changed
}

#[test]
fn r079_any_reorder_duplicate_loss_or_extension_of_chunks_is_detected() {
    let (sealed, key) = (seal(object(7, 1, 1), &plaintext(1), 1), tenant_key(7, 1));
    let count = sealed.chunks.len();
    assert_eq!(sealed.open(&key).unwrap(), plaintext(1));
    for i in 0..count {
        assert_refused("a lost chunk", &with_chunks(&sealed, |chunks| drop(chunks.remove(i))), &key);
        for j in 0..count {
            if i != j {
                assert_refused("a swap of chunks", &with_chunks(&sealed, |chunks| chunks.swap(i, j)), &key);
                let overwrite = |chunks: &mut Vec<Bytes>| chunks[i] = chunks[j].clone();
                assert_refused("a chunk over another", &with_chunks(&sealed, overwrite), &key);
            }
            let duplicate = |chunks: &mut Vec<Bytes>| chunks.insert(i, chunks[j].clone());
            assert_refused("a duplicate", &with_chunks(&sealed, duplicate), &key);
        }
    }
    for extension in [&[0][..], &[0; 16], &[0; 1040]] {
        let extend = |chunks: &mut Vec<Bytes>| chunks.push(Bytes::copy_from_slice(extension));
        assert_refused("an extension", &with_chunks(&sealed, extend), &key);
    }
}

#[test]
fn r079_a_cut_at_any_byte_is_detected() {
    let (sealed, key) = (seal(object(7, 1, 1), &plaintext(1), 1), tenant_key(7, 1));
    let bytes = sealed.bytes();
    for len in 0..bytes.len() {
        let opener = Opener::new(sealed.dek(&key), sealed.identity);
        assert!(open_stream(opener, &bytes[..len], bytes.len()).is_err(), "cut at {len}");
    }
}

#[test]
fn r079_an_empty_last_chunk_belongs_to_the_empty_object_alone() {
    let (sealed, key) = (seal(object(7, 1, 1), &[1; 2048], 1), tenant_key(7, 1));
    let (_, unlocked) = sealed.metadata.open(&sealed.dek(&key), &sealed.identity).unwrap();
    let mut chunks = vec![sealed.chunks[0].clone()];
    let mut reshaped: bytes::BytesMut = (&[1; 1024][..]).into();
    unlocked.chunks().seal(1, chunk::Place::Inner, &mut reshaped);
    chunks.push(reshaped.freeze());
    let mut empty = bytes::BytesMut::new();
    unlocked.chunks().seal(2, chunk::Place::Last, &mut empty);
    chunks.push(empty.freeze());
    let reshaped = Sealed { chunks, ..sealed };
    assert_eq!(reshaped.open(&key), Err(Refused::Open(OpenError::Truncated)));
}

/// Two objects that differ in one thing, every part of one put into the other: MinIO's SSE-C swap, by name.
#[test]
fn r079_no_part_of_another_object_version_attempt_or_tenant_fits() {
    let (key, other_key) = (tenant_key(7, 1), tenant_key(8, 1));
    let one = seal(object(7, 1, 1), &plaintext(1), 1);
    let mut attempts = Attempts::new(object(7, 1, 1));
    let mut entropy = Seeded::new(5);
    attempts.begin(&mut entropy);
    let retried =
        seal_attempt(attempts.begin(&mut entropy), &key, &mut counter(1, 900), &plaintext(2), ChunkLen::MIN);
    for (what, other) in [
        ("object", seal(object(7, 2, 1), &plaintext(2), 2)),
        ("version", seal(object(7, 1, 2), &plaintext(2), 3)),
        ("tenant", seal(object(8, 1, 1), &plaintext(2), 4)),
        ("attempt", retried),
        ("twin with the same identity", seal(object(7, 1, 1), &plaintext(2), 6)),
    ] {
        assert_refused(what, &Sealed { header: other.header.clone(), ..one.clone() }, &key);
        assert_refused(what, &Sealed { chunks: other.chunks.clone(), ..one.clone() }, &key);
        assert_refused(what, &Sealed { wrapped: other.wrapped.clone(), ..one.clone() }, &key);
        let body = Sealed { identity: one.identity, wrapped: one.wrapped.clone(), ..other.clone() };
        assert_refused(what, &body, &key);
        for index in 0..one.chunks.len() {
            let splice = |chunks: &mut Vec<Bytes>| chunks[index] = other.chunks[index].clone();
            assert_refused(what, &with_chunks(&one, splice), &key);
        }
        assert!(other.metadata.open(&one.dek(&key), &one.identity).is_err(), "metadata of another {what}");
        if other.identity != one.identity {
            let whole = Sealed { identity: one.identity, ..other.clone() };
            assert!(whole.wrapped.unwrap(&key, &one.identity).is_err(), "the whole of another {what}");
            let own = other.dek(if what == "tenant" { &other_key } else { &key });
            let refused = open_stream(Opener::new(own, one.identity), &other.bytes(), 700);
            assert_eq!(refused, Err(OpenError::Unlock(UnlockError::OtherObject)), "{what}");
        }
    }
}

#[test]
fn r079_wrapped_keys_and_key_versions_do_not_cross() {
    let sealed = seal(object(7, 1, 1), &plaintext(1), 1);
    let (first, second) = (tenant_key(7, 1), tenant_key(7, 2));
    let rewrapped = sealed.wrapped.rewrap(&first, &second, &mut counter(2, 0), &sealed.identity).unwrap();
    let moved = Sealed { wrapped: rewrapped.clone(), ..sealed.clone() };
    assert_eq!(moved.open(&second).unwrap(), plaintext(1), "a rewrap leaves the payload readable");
    assert_eq!(moved.open(&first), Err(Refused::Unwrap(UnwrapError::KeyVersion { needed: 2, got: 1 })));

    for (wrapped, version) in [(&sealed.wrapped, 2_u32), (&rewrapped, 1)] {
        let mut relabelled = *wrapped.as_bytes();
        relabelled[..4].copy_from_slice(&version.to_be_bytes());
        let relabelled = WrappedDek::from_bytes(&relabelled).unwrap();
        let refused = relabelled.unwrap(&tenant_key(7, version), &sealed.identity);
        assert_eq!(refused.err(), Some(UnwrapError::Tag));
    }
    let refused = sealed.wrapped.unwrap(&tenant_key(8, 1), &sealed.identity);
    assert_eq!(refused.err(), Some(UnwrapError::OtherTenant));
    let impostor = TenantKey::new(TenantId(7), 1, Secret::copy_of(&[9; 32]));
    assert_eq!(sealed.wrapped.unwrap(&impostor, &sealed.identity).err(), Some(UnwrapError::Tag));
    for byte in 4..WrappedDek::LEN {
        let mut damaged = *sealed.wrapped.as_bytes();
        damaged[byte] ^= 1;
        let refused = WrappedDek::from_bytes(&damaged).unwrap().unwrap(&first, &sealed.identity);
        assert_eq!(refused.err(), Some(UnwrapError::Tag), "byte {byte}");
    }
}

/// Crucible once sealed with empty associated data: each field of the header must matter to the first tag.
#[test]
fn r079_every_header_byte_is_bound() {
    let (sealed, key) = (seal(object(7, 1, 1), &plaintext(1), 1), tenant_key(7, 1));
    for byte in 0..HEADER_LEN {
        for bit in 0..8 {
            let mut header = sealed.header.to_vec();
            header[byte] ^= 1 << bit;
            let damaged = Sealed { header: header.into(), ..sealed.clone() };
            assert!(damaged.open(&key).is_err(), "bit {bit} of byte {byte}");
        }
    }
}
