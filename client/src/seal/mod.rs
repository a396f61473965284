//! Sealing: what turns an object into bytes that a store may keep, and back.
//!
//! `docs/sealed-format.md` has the byte tables; this module is their only writer. The pieces, from the keys down:
//! [`TenantKey`] wraps one data key per [`Attempt`]; the data key gives a payload key, a metadata key and a commitment;
//! [`Sealer`], [`Opener`], [`RangeOpener`] and [`SealedMetadata`] work under those.
//!
//! Three rules hold everywhere. A (key, nonce) pair encrypts once: an attempt is consumed by its sealer. No AES-GCM runs
//! under a data key before its commitment was compared. No byte of a chunk is released before its tag was checked.

mod aead;
mod attempt;
mod chunk;
mod derive;
mod header;
mod keys;
mod length;
mod metadata;
mod opener;
mod range;
mod sealer;
mod wrap;

#[cfg(test)]
mod tests;

pub use attempt::{Attempt, Attempts};
pub use derive::{UnlockError, Unlocked};
pub use header::{HEADER_LEN, Header, HeaderError, Identity, ObjectIdentity};
pub use keys::{Dek, NameHash, NameKey, TenantKey, name_hash, name_tag};
pub use length::{ChunkLen, TAG_LEN, padme, plaintext_len, sealed_len};
pub use metadata::{Metadata, MetadataError, MetadataSealer, SealedMetadata};
pub use opener::{OpenError, Opener};
pub use range::{RangeOpener, RangePlan, RangePlanError};
pub use sealer::{Begun, SealEnd, SealError, Sealer};
pub use wrap::{
    BlockRefused, RewrapError, UnwrapError, WRAPS_PER_KEY_MAX, WrapBlock, WrapCounter, WrapError, WrappedDek,
};

/// The label that separates Trefoil's keys from every other use of the same primitives.
pub(crate) const LABEL: &[u8] = b"trefoil/v1";

/// Appends `field` with its length, so that no two lists of fields read the same.
pub(crate) fn push_field(encoded: &mut Vec<u8>, field: &[u8]) {
    let len = u16::try_from(field.len()).expect("fields of a context are short");
    encoded.extend_from_slice(&len.to_be_bytes());
    encoded.extend_from_slice(field);
}
