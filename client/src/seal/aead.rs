//! The one door to AES-256-GCM: every encryption and decryption of this crate passes here, in place.
//!
//! It exists so that tests can count the calls and remember every (key, nonce). It must never leave anything but zeros
//! in a buffer whose tag did not match (aes-gcm before 0.10.3 left plaintext there, RUSTSEC-2023-0096).

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use zeroize::Zeroize;

use super::length::TAG_LEN;
use crate::secret::Secret;

pub(crate) const NONCE_LEN: usize = 12;

/// A nonce that its maker vouches for: used once under one key.
pub(crate) type Nonce = [u8; NONCE_LEN];

/// A tag that did not match. The buffer holds zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagMismatch;

/// AES-256-GCM under one key.
pub(crate) struct Cipher {
    gcm: Box<Aes256Gcm>,
    #[cfg(test)]
    key: [u8; 8],
}

impl Cipher {
    pub(crate) fn new(key: &Secret<32>) -> Self {
        Self {
            gcm: Box::new(Aes256Gcm::new(key.expose().into())),
            #[cfg(test)]
            key: witness::fingerprint(key),
        }
    }

    /// Encrypts `text` in place and returns its tag.
    pub(crate) fn seal(&self, nonce: &Nonce, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        #[cfg(test)]
        witness::saw_seal(self.key, nonce);
        let tag = self.gcm.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(text));
        tag.expect("a chunk is far below AES-GCM's 64 GiB").into()
    }

    /// Decrypts `text` in place when `tag` matches; otherwise overwrites it with zeros.
    pub(crate) fn open(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), TagMismatch> {
        #[cfg(test)]
        witness::saw_open();
        let opened =
            self.gcm.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(&mut *text), tag.into());
        opened.map_err(|_| {
            text.zeroize();
            TagMismatch
        })
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// What this thread's ciphers did, for tests.
#[cfg(test)]
pub(crate) mod witness {
    use std::cell::{Cell, RefCell};

    use super::Nonce;
    use crate::secret::Secret;

    /// The (key, nonce) of one encryption; 64 bits of the key's hash stand for the key.
    pub(crate) type Use = ([u8; 8], Nonce);

    thread_local! {
        static OPENS: Cell<u64> = const { Cell::new(0) };
        static SEALS: RefCell<Vec<Use>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn fingerprint(key: &Secret<32>) -> [u8; 8] {
        let hash = blake3::hash(key.expose());
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    pub(super) fn saw_seal(key: [u8; 8], nonce: &Nonce) {
        SEALS.with_borrow_mut(|seals| seals.push((key, *nonce)));
    }

    pub(super) fn saw_open() {
        OPENS.set(OPENS.get() + 1);
    }

    /// Decryptions on this thread so far.
    pub(crate) fn opens() -> u64 {
        OPENS.get()
    }

    /// Every encryption on this thread since the last call.
    pub(crate) fn take_seals() -> Vec<Use> {
        SEALS.take()
    }
}
