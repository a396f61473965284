//! R83: after a failed tag there is nothing to see, neither in what was returned nor in the buffer.

use bytes::BytesMut;

use super::*;
use crate::seal::chunk::{ChunkCipher, Place};

const CHUNKS: usize = 6;

fn damaged(sealed: &Sealed, chunk: usize, byte: usize) -> Vec<u8> {
    let mut chunks = sealed.chunks.clone();
    let mut changed = chunks[chunk].to_vec();
    changed[byte] ^= 0x80;
    chunks[chunk] = changed.into();
    [&sealed.header[..], &chunks.concat()].concat()
}

#[test]
fn r083_a_fault_in_any_chunk_releases_only_the_chunks_before_it_and_leaves_zeros() {
    let (plaintext, key) = (vec![0xEE; CHUNKS * 1024 - 10], tenant_key(7, 1));
    let sealed = seal(object(7, 1, 1), &plaintext, 1);
    for chunk in 0..CHUNKS {
        for byte in [0, 500, sealed.chunks[chunk].len() - 16, sealed.chunks[chunk].len() - 1] {
            let bytes = damaged(&sealed, chunk, byte);
            let mut opener = Opener::new(sealed.dek(&key), sealed.identity);
            let (mut rest, mut released) = (&bytes[..], Vec::new());
            let refused = loop {
                match opener.push(&mut rest) {
                    Ok(Some(opened)) => released.extend_from_slice(&opened),
                    Ok(None) => break opener_end(opener),
                    Err(refused) => {
                        assert!(!opener.buffer.is_empty() && opener.buffer.iter().all(|byte| *byte == 0));
                        assert_eq!(opener.push(&mut rest), Err(OpenError::Dead));
                        assert_eq!(opener.finish(), Err(OpenError::Dead));
                        break refused;
                    }
                }
            };
            assert_eq!(refused, OpenError::Tag { chunk: chunk as u32 });
            assert_eq!(released, plaintext[..chunk * 1024], "only whole chunks before chunk {chunk}");
        }
    }
}

fn opener_end(opener: Opener) -> OpenError {
    opener.finish().expect_err("the damaged chunk is the last")
}

#[test]
fn r083_a_refused_buffer_holds_zeros_text_and_tag() {
    for place in [Place::Inner, Place::Last] {
        for index in [0, 1, u32::MAX] {
            let cipher = ChunkCipher::new(&Secret::copy_of(&[3; 32]), [4; 32]);
            let mut chunk = BytesMut::from(&[0xEE; 1024][..]);
            cipher.seal(index, place, &mut chunk);
            chunk[77] ^= 1;
            assert!(cipher.open(index, place, &mut chunk).is_err());
            assert_eq!(chunk, [0; 1040][..]);
        }
    }
}

#[test]
fn r083_a_refused_header_leaves_zeros_too() {
    let sealed = seal(object(7, 1, 1), &[0xEE; 5000], 1);
    let mut opener = Opener::new(Dek::from_secret(Secret::copy_of(&[5; 32])), sealed.identity);
    assert_eq!(opener.push(&mut &sealed.bytes()[..]), Err(OpenError::Unlock(UnlockError::WrongKey)));
    assert_eq!(opener.buffer, [0; HEADER_LEN][..]);
}

#[test]
fn r083_a_range_opener_dies_with_zeros() {
    let (sealed, key) = (seal(object(7, 1, 1), &[0xEE; 5000], 1), tenant_key(7, 1));
    let (_, unlocked) = sealed.metadata.open(&sealed.dek(&key), &sealed.identity).unwrap();
    let plan = RangePlan::new(sealed.bytes().len() as u64, ChunkLen::MIN, 1024..3000).unwrap();
    let bytes = damaged(&sealed, 2, 9);
    let mut opener = RangeOpener::new(&unlocked, plan.clone());
    let mut rest = &bytes[plan.sealed().start as usize..plan.sealed().end as usize];
    assert_eq!(opener.push(&mut rest).unwrap().unwrap(), [0xEE; 1024][..]);
    assert_eq!(opener.push(&mut rest), Err(OpenError::Tag { chunk: 2 }));
    assert!(!opener.buffer.is_empty() && opener.buffer.iter().all(|byte| *byte == 0));
    assert_eq!(opener.push(&mut rest), Err(OpenError::Dead));
}
