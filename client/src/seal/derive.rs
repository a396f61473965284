//! From a data key to the keys that encrypt: HKDF-SHA256, and the commitment that must match before they exist.
//!
//! An [`Unlocked`] is the proof that a data key belongs to a header. Payload and metadata ciphers of an opener can be
//! made from it alone, so that no AES-GCM can run under a data key that was not checked.

use hkdf::Hkdf;
use sha2::Sha256;

use super::aead::Cipher;
use super::chunk::ChunkCipher;
use super::header::{Header, HeaderError, Identity};
use super::keys::Dek;
use crate::secret::{self, Secret};

/// Everything that one attempt's data key gives.
pub(crate) struct Derived {
    pub(crate) payload: Secret<32>,
    pub(crate) metadata: Secret<32>,
    pub(crate) commitment: [u8; 32],
}

impl Derived {
    pub(crate) fn new(dek: &Dek, salt: &[u8; 32], identity: &Identity) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(salt), dek.secret().expose());
        let context = identity.context();
        let expand = |purpose: &[u8], key: &mut [u8; 32]| {
            hkdf.expand_multi_info(&[purpose, &context], key).expect("HKDF-SHA256 gives up to 8160 bytes");
        };
        let mut commitment = [0; 32];
        expand(b"commit", &mut commitment);
        Self {
            payload: Secret::filled_by(|key| expand(b"payload", key)),
            metadata: Secret::filled_by(|key| expand(b"meta", key)),
            commitment,
        }
    }
}

/// Why a header was not unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// The bytes are not a header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The header belongs to another object, version, attempt or tenant.
    #[error("the header belongs to another object, version or attempt")]
    OtherObject,
    /// The data key is not the one that the header commits to.
    #[error("the data key is not the one that the header commits to")]
    WrongKey,
}

/// A header with the keys of the data key that it commits to.
pub struct Unlocked {
    header: Header,
    header_hash: [u8; 32],
    payload: Secret<32>,
    metadata: Secret<32>,
}

impl Unlocked {
    /// Checks that `header` is one of `expected` and commits to `dek`; no AES-GCM runs here.
    ///
    /// # Errors
    /// When the bytes are no header, belong elsewhere, or commit to another key.
    pub fn open(dek: &Dek, header: &[u8], expected: &Identity) -> Result<Self, UnlockError> {
        let header = Header::parse(header)?;
        if header.identity != *expected {
            return Err(UnlockError::OtherObject);
        }
        let derived = Derived::new(dek, &header.salt, &header.identity);
        if !secret::is_equal(&derived.commitment, &header.commitment) {
            return Err(UnlockError::WrongKey);
        }
        let header_hash = header.hash();
        Ok(Self { header, header_hash, payload: derived.payload, metadata: derived.metadata })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn header_hash(&self) -> &[u8; 32] {
        &self.header_hash
    }

    pub(crate) fn chunks(&self) -> ChunkCipher {
        ChunkCipher::new(&self.payload, self.header_hash)
    }

    pub(crate) fn metadata(&self) -> Cipher {
        Cipher::new(&self.metadata)
    }
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unlocked").field("header", &self.header).finish_non_exhaustive()
    }
}
