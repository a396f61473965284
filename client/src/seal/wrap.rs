//! Wrapping: a data key under its tenant's key, by AES-256-GCM with counted nonces.
//!
//! Counters come from the custodian in blocks that it reserves durably before it hands them out, so that a crash skips
//! nonces and never repeats one. A counter here must never run back: a block that touches a spent one is refused.

use std::collections::{BTreeMap, VecDeque};

use super::aead::{Cipher, NONCE_LEN, Nonce, TagMismatch};
use super::header::Identity;
use super::keys::{Dek, TenantKey};
use super::length::TAG_LEN;
use super::{LABEL, push_field};
use crate::secret::Secret;

/// Most wraps under one version of a tenant key; the custodian rotates before.
pub const WRAPS_PER_KEY_MAX: u64 = 1 << 30;

/// Counters `start..end` that the custodian reserved for one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapBlock {
    /// The version of the tenant key under which they may be used.
    pub key_version: u32,
    /// The first part of the nonce: who counts. The custodian gives each reserving instance its own.
    pub instance: u32,
    /// First counter.
    pub start: u64,
    /// One past the last counter.
    pub end: u64,
}

/// Why a block of counters was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockRefused {
    /// Empty, or past the most wraps of one key.
    #[error("counters {0}..{1} are empty or pass 2^30")]
    Bounds(u64, u64),
    /// For another version of the key.
    #[error("the block is for key version {got}, the counter for {expected}")]
    KeyVersion {
        /// The block's.
        got: u32,
        /// The counter's.
        expected: u32,
    },
    /// Counters that were handed in before.
    #[error("counter {start} was handed in before, up to {spent}")]
    Reused {
        /// The block's first counter.
        start: u64,
        /// One past the last counter seen of that instance.
        spent: u64,
    },
}

/// Gives out each reserved counter once.
#[derive(Debug)]
pub struct WrapCounter {
    block: WrapBlock,
    /// What comes after it.
    further: VecDeque<WrapBlock>,
    /// One past the last counter handed in, by instance.
    spent: BTreeMap<u32, u64>,
}

impl WrapCounter {
    /// A counter over its first block.
    ///
    /// # Errors
    /// When the block is out of bounds.
    pub fn new(block: WrapBlock) -> Result<Self, BlockRefused> {
        check_bounds(&block)?;
        let spent = BTreeMap::from([(block.instance, block.end)]);
        Ok(Self { block, further: VecDeque::new(), spent })
    }

    /// Takes a further block, which is counted when those before it are used up.
    ///
    /// # Errors
    /// When the block is out of bounds, for another key version, or overlaps or precedes one handed in before.
    pub fn refill(&mut self, block: WrapBlock) -> Result<(), BlockRefused> {
        check_bounds(&block)?;
        let expected = self.block.key_version;
        if block.key_version != expected {
            return Err(BlockRefused::KeyVersion { got: block.key_version, expected });
        }
        let spent = self.spent.entry(block.instance).or_default();
        if block.start < *spent {
            return Err(BlockRefused::Reused { start: block.start, spent: *spent });
        }
        *spent = block.end;
        self.further.push_back(block);
        Ok(())
    }

    /// Counters left in all blocks.
    #[must_use]
    pub fn left(&self) -> u64 {
        let blocks = self.further.iter().chain([&self.block]);
        blocks.map(|block| block.end - block.start).sum()
    }

    /// The version of the tenant key under which they may be used.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        self.block.key_version
    }

    fn next(&mut self, key_version: u32) -> Result<Nonce, WrapError> {
        if key_version != self.block.key_version {
            return Err(WrapError::KeyVersion { key: key_version, counter: self.block.key_version });
        }
        if self.block.start == self.block.end {
            self.block = self.further.pop_front().ok_or(WrapError::Exhausted)?;
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.block.instance.to_be_bytes());
        nonce[4..].copy_from_slice(&self.block.start.to_be_bytes());
        self.block.start += 1;
        Ok(nonce)
    }
}

fn check_bounds(block: &WrapBlock) -> Result<(), BlockRefused> {
    if block.start < block.end && block.end <= WRAPS_PER_KEY_MAX {
        return Ok(());
    }
    Err(BlockRefused::Bounds(block.start, block.end))
}

/// Why a data key was not wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The block is used up: ask the custodian for another.
    #[error("the reserved wrap counters are used up")]
    Exhausted,
    /// The counter was reserved under another version of the key.
    #[error("key version {key} with counters of version {counter}")]
    KeyVersion {
        /// The key's version.
        key: u32,
        /// The counter's version.
        counter: u32,
    },
    /// The object belongs to another tenant than the key.
    #[error("the tenant key belongs to another tenant")]
    OtherTenant,
}

/// Why a data key was not unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// Not the 64 bytes of a wrapped key.
    #[error("a wrapped data key has {len} bytes, got {0}", len = WrappedDek::LEN)]
    Length(usize),
    /// Another version of the tenant key is needed.
    #[error("wrapped under key version {needed}, got version {got}")]
    KeyVersion {
        /// The version that wrapped it.
        needed: u32,
        /// The version at hand.
        got: u32,
    },
    /// The object belongs to another tenant than the key.
    #[error("the tenant key belongs to another tenant")]
    OtherTenant,
    /// Damaged, or wrapped for another object, version, attempt or key.
    #[error("the wrapped data key is not one of this object under this key")]
    Tag,
}

/// A data key under a tenant key: `be32(key version) ‖ nonce ‖ ciphertext ‖ tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDek([u8; Self::LEN]);

const NONCE_AT: usize = 4;
const TEXT_AT: usize = NONCE_AT + NONCE_LEN;
const TAG_AT: usize = TEXT_AT + 32;

impl WrappedDek {
    /// Bytes of a wrapped data key.
    pub const LEN: usize = TAG_AT + TAG_LEN;

    /// Takes bytes that are said to be a wrapped data key.
    ///
    /// # Errors
    /// When there are not [`WrappedDek::LEN`] of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnwrapError> {
        bytes.try_into().map(Self).map_err(|_| UnwrapError::Length(bytes.len()))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The version of the tenant key that wrapped it.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        u32::from_be_bytes(*self.0.first_chunk().expect("a wrapped key has 64 bytes"))
    }

    /// The data key.
    ///
    /// # Errors
    /// When the key is of another tenant or version, or the tag does not match.
    pub fn unwrap(&self, key: &TenantKey, identity: &Identity) -> Result<Dek, UnwrapError> {
        if key.tenant() != identity.object.tenant {
            return Err(UnwrapError::OtherTenant);
        }
        if key.version() != self.key_version() {
            return Err(UnwrapError::KeyVersion { needed: self.key_version(), got: key.version() });
        }
        let nonce = self.0[NONCE_AT..TEXT_AT].try_into().expect("the nonce has its place");
        let tag = self.0[TAG_AT..].try_into().expect("the tag has its place");
        let aad = associated_data(identity, key.version());
        let mut opened = Ok(());
        let dek = Secret::filled_by(|text| {
            text.copy_from_slice(&self.0[TEXT_AT..TAG_AT]);
            opened = Cipher::new(key.secret()).open(nonce, &aad, text, tag);
        });
        opened.map(|()| Dek::from_secret(dek)).map_err(|TagMismatch| UnwrapError::Tag)
    }

    /// The same data key under another version of the tenant's key; the payload stays as it is.
    ///
    /// # Errors
    /// As [`WrappedDek::unwrap`] under `from`, and when `counter` has nothing for `to`.
    pub fn rewrap(
        &self,
        from: &TenantKey,
        to: &TenantKey,
        counter: &mut WrapCounter,
        identity: &Identity,
    ) -> Result<Self, RewrapError> {
        let dek = self.unwrap(from, identity)?;
        Ok(wrap(&dek, to, counter, identity)?)
    }
}

/// Why a data key was not rewrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewrapError {
    /// It was not unwrapped.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
    /// It was not wrapped again.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

pub(crate) fn wrap(
    dek: &Dek,
    key: &TenantKey,
    counter: &mut WrapCounter,
    identity: &Identity,
) -> Result<WrappedDek, WrapError> {
    if key.tenant() != identity.object.tenant {
        return Err(WrapError::OtherTenant);
    }
    let nonce = counter.next(key.version())?;
    let mut wrapped = [0; WrappedDek::LEN];
    wrapped[..NONCE_AT].copy_from_slice(&key.version().to_be_bytes());
    wrapped[NONCE_AT..TEXT_AT].copy_from_slice(&nonce);
    let text = &mut wrapped[TEXT_AT..TAG_AT];
    text.copy_from_slice(dek.secret().expose());
    let tag = Cipher::new(key.secret()).seal(&nonce, &associated_data(identity, key.version()), text);
    wrapped[TAG_AT..].copy_from_slice(&tag);
    Ok(WrappedDek(wrapped))
}

fn associated_data(identity: &Identity, key_version: u32) -> Vec<u8> {
    let mut aad = Vec::with_capacity(128);
    push_field(&mut aad, LABEL);
    push_field(&mut aad, &identity.object.tenant.0.to_be_bytes());
    push_field(&mut aad, &identity.object.name);
    push_field(&mut aad, &identity.object.version.0);
    push_field(&mut aad, &identity.attempt.to_be_bytes());
    push_field(&mut aad, &key_version.to_be_bytes());
    push_field(&mut aad, b"dek");
    aad
}
