//! Metadata: what the tenant says about an object, sealed apart from the payload, so that asking costs no payload.
//!
//! Sealed metadata begins with the object's header, so that it opens by itself and gives a range read its keys. It is
//! encrypted under a key of its own that only one message is ever encrypted with: the data key is fresh per attempt,
//! and [`MetadataSealer`] is consumed. So its nonce is all zeros; a counter would have nothing to count.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::aead::{Cipher, NONCE_LEN, Nonce};
use super::derive::{UnlockError, Unlocked};
use super::header::{HEADER_LEN, Header, Identity};
use super::keys::Dek;
use super::length::TAG_LEN;
use crate::secret::Secret;

/// Most bytes of encoded metadata.
const ENCODED_MAX: usize = 8 * 1024;

const NONCE: Nonce = [0; NONCE_LEN];

/// What is known of an object besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Metadata {
    /// Bytes of the object, without padding.
    #[n(0)]
    pub plaintext_len: u64,
    /// When the client made it: milliseconds since 1970 by its own clock.
    #[n(1)]
    pub created_ms: u64,
    /// The tenant's own pairs.
    #[n(2)]
    pub user: BTreeMap<String, String>,
}

/// Why metadata was not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// More than 8 KiB.
    #[error("metadata has {0} bytes, at most {ENCODED_MAX} are allowed")]
    TooLong(usize),
    /// Too short to hold a header and a tag.
    #[error("sealed metadata of {0} bytes is cut short")]
    Truncated(usize),
    /// Its header is not the object's, or commits to another key.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// Damaged.
    #[error("the metadata's tag does not match")]
    Tag,
    /// Sealed by this tenant, but not metadata as this program knows it.
    #[error("the metadata is not of a known form")]
    Form,
}

/// Seals the metadata of one attempt, once.
///
/// ```compile_fail,E0382
/// # use trefoil_client::seal::*;
/// fn seal_twice(sealer: MetadataSealer, one: &Metadata, other: &Metadata) {
///     let _ = (sealer.seal(one), sealer.seal(other));
/// }
/// ```
#[derive(Debug)]
pub struct MetadataSealer {
    key: Secret<32>,
    header: [u8; HEADER_LEN],
    header_hash: [u8; 32],
}

impl MetadataSealer {
    pub(crate) fn new(key: Secret<32>, header: &Header) -> Self {
        Self { key, header: header.to_bytes(), header_hash: header.hash() }
    }

    /// Seals `metadata`.
    ///
    /// # Errors
    /// When it is too long.
    pub fn seal(self, metadata: &Metadata) -> Result<SealedMetadata, MetadataError> {
        let mut text =
            Zeroizing::new(minicbor::to_vec(metadata).expect("encoding into memory does not fail"));
        if text.len() > ENCODED_MAX {
            return Err(MetadataError::TooLong(text.len()));
        }
        let tag = Cipher::new(&self.key).seal(&NONCE, &associated_data(&self.header_hash), &mut text);
        Ok(SealedMetadata([&self.header[..], &text, &tag].concat().into()))
    }
}

/// Sealed metadata: `header ‖ ciphertext ‖ tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedMetadata(Bytes);

impl SealedMetadata {
    /// Takes bytes that are said to be sealed metadata; [`SealedMetadata::open`] finds out.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The metadata, and the header unlocked, which is all that a range read needs.
    ///
    /// # Errors
    /// When the header is not `expected`'s or commits to another key, or the metadata is damaged or unknown.
    pub fn open(&self, dek: &Dek, expected: &Identity) -> Result<(Metadata, Unlocked), MetadataError> {
        let cut_short = MetadataError::Truncated(self.0.len());
        let (header, body) = self.0.split_at_checked(HEADER_LEN).ok_or(cut_short.clone())?;
        let (text, tag) = body.split_last_chunk::<TAG_LEN>().ok_or(cut_short)?;
        if text.len() > ENCODED_MAX {
            return Err(MetadataError::TooLong(text.len()));
        }
        let unlocked = Unlocked::open(dek, header, expected)?;
        let mut text = Zeroizing::new(text.to_vec());
        let aad = associated_data(unlocked.header_hash());
        unlocked.metadata().open(&NONCE, &aad, &mut text, tag).map_err(|_| MetadataError::Tag)?;
        let metadata = minicbor::decode(&text).map_err(|_| MetadataError::Form)?;
        Ok((metadata, unlocked))
    }
}

fn associated_data(header_hash: &[u8; 32]) -> [u8; 36] {
    let mut aad = [0; 36];
    aad[..32].copy_from_slice(header_hash);
    aad[32..].copy_from_slice(b"meta");
    aad
}
