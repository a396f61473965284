//! R80: the commitment stands before AES-GCM, which alone does not tell one key from another.

use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use super::*;
use crate::seal::aead::witness;
use crate::seal::derive::Derived;

#[test]
fn r080_a_wrong_key_is_rejected_before_any_gcm() {
    let sealed = seal(object(7, 1, 1), b"some text", 1);
    let wrong = || Dek::from_secret(Secret::copy_of(&[0x55; 32]));
    let before = witness::opens();
    let refused = open_stream(Opener::new(wrong(), sealed.identity), &sealed.bytes(), 700);
    assert_eq!(refused, Err(OpenError::Unlock(UnlockError::WrongKey)));
    let refused = sealed.metadata.open(&wrong(), &sealed.identity);
    assert_eq!(refused.err(), Some(MetadataError::Unlock(UnlockError::WrongKey)));
    assert_eq!(witness::opens(), before, "AES-GCM ran under a key that the header does not commit to");
    sealed.open(&tenant_key(7, 1)).unwrap();
    assert!(witness::opens() > before, "the witness counts");
}

/// An invisible salamander: one ciphertext whose tag is right under two keys. AES-GCM takes it under both.
#[test]
fn r080_a_ciphertext_made_for_two_keys_opens_under_one() {
    let identity = Identity { object: object(7, 1, 1), attempt: 0 };
    let deks = [[1; 32], [2; 32]].map(|key| Dek::from_secret(Secret::copy_of(&key)));
    let salt = [3; 32];
    let [mine, theirs] = deks.each_ref().map(|dek| Derived::new(dek, &salt, &identity));
    let commitment = mine.commitment;
    let header = Header { chunk_len: ChunkLen::MIN, identity, kek_version: 1, salt, commitment };

    let mut nonce = [0; 12];
    nonce[11] = 1;
    let mut aad = [0; 41];
    aad[..32].copy_from_slice(&header.hash());
    aad[36] = 1;
    aad[37..].copy_from_slice(&32_u32.to_be_bytes());
    let keys = [mine.payload.expose(), theirs.payload.expose()];
    let chunk = salamander(keys, &nonce, &aad);

    for key in keys {
        let mut text = chunk[..32].to_vec();
        let tag: &[u8; 16] = chunk[32..].try_into().unwrap();
        let gcm = Aes256Gcm::new(key.into());
        gcm.decrypt_inout_detached((&nonce).into(), &aad, text.as_mut_slice().into(), tag.into())
            .expect("AES-GCM alone takes the salamander under both keys");
    }
    let sealed = [&header.to_bytes()[..], &chunk].concat();
    let [mine, theirs] = deks;
    assert_eq!(open_stream(Opener::new(mine, identity), &sealed, 700).unwrap().len(), 32);
    let refused = open_stream(Opener::new(theirs, identity), &sealed, 700);
    assert_eq!(refused, Err(OpenError::Unlock(UnlockError::WrongKey)));
}

/// Two blocks of ciphertext and a tag that is right under both keys: the second block is solved for.
fn salamander(keys: [&[u8; 32]; 2], nonce: &[u8; 12], aad: &[u8; 41]) -> Vec<u8> {
    let first = u128::from_be_bytes([0xC1; 16]);
    let lengths = ((41 * 8) << 64) | (32 * 8);
    let mut padded = [0; 48];
    padded[..41].copy_from_slice(aad);
    // What the tag is without the second block, and the weight that block has in it.
    let [(rest_a, weight_a), (rest_b, weight_b)] = keys.map(|key| {
        let aes = Aes256::new(key.into());
        let encrypt = |block: [u8; 16]| -> u128 {
            let mut block = block.into();
            aes.encrypt_block(&mut block);
            u128::from_be_bytes(block.into())
        };
        let h = encrypt([0; 16]);
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(nonce);
        counter[15] = 1;
        let aad_blocks = padded.chunks(16).map(|block| u128::from_be_bytes(block.try_into().unwrap()));
        let blocks = aad_blocks.chain([first, 0, lengths]);
        let hash = blocks.fold(0, |hash, block| multiply(hash ^ block, h));
        (hash ^ encrypt(counter), multiply(h, h))
    });
    let second = multiply(rest_a ^ rest_b, invert(weight_a ^ weight_b));
    let tag = rest_a ^ multiply(second, weight_a);
    [first, second, tag].map(u128::to_be_bytes).concat()
}

/// Multiplication in GHASH's field (NIST SP 800-38D, section 6.3).
fn multiply(x: u128, mut y: u128) -> u128 {
    let mut product = 0;
    for bit in (0..128).rev() {
        product ^= if x >> bit & 1 == 1 { y } else { 0 };
        y = (y >> 1) ^ if y & 1 == 1 { 0xE1 << 120 } else { 0 };
    }
    product
}

/// x^(2^128 - 2), which is 1/x.
fn invert(x: u128) -> u128 {
    let (mut inverse, mut square) = (1 << 127, x);
    for _ in 1..128 {
        square = multiply(square, square);
        inverse = multiply(inverse, square);
    }
    inverse
}
