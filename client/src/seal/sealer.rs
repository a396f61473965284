//! The sealer: plaintext in, sealed bytes out, one chunk of memory.
//!
//! The object's length need not be known: a full chunk is held until a further byte or the end shows whether it is the
//! last. A sealer must never encrypt a chunk index twice; it counts up and is consumed at its end.

use bytes::{Bytes, BytesMut};

use super::attempt::Attempt;
use super::chunk::{ChunkCipher, Place};
use super::derive::Derived;
use super::header::{Header, Identity};
use super::keys::TenantKey;
use super::length::{ChunkLen, sealed_len};
use super::metadata::MetadataSealer;
use super::wrap::{WrapCounter, WrapError, WrappedDek, wrap};

/// Why sealing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than 2^32 chunks.
    #[error("the object has more than 2^32 chunks")]
    TooLong,
}

/// A begun attempt.
#[derive(Debug)]
pub struct Begun {
    /// Takes the plaintext.
    pub sealer: Sealer,
    /// The first bytes of the sealed object.
    pub header: Bytes,
    /// The data key, for the object's record.
    pub wrapped: WrappedDek,
}

/// What is known once the last byte is sealed.
#[derive(Debug)]
pub struct SealEnd {
    /// The last bytes of the sealed object.
    pub last: Bytes,
    /// Bytes taken.
    pub plaintext_len: u64,
    /// Bytes given, header and last chunk included.
    pub sealed_len: u64,
    /// Seals this attempt's metadata, once.
    pub metadata: MetadataSealer,
}

/// Seals one object.
#[derive(Debug)]
pub struct Sealer {
    chunks: ChunkCipher,
    metadata: MetadataSealer,
    identity: Identity,
    chunk_len: ChunkLen,
    /// Index of the chunk in `buffer`.
    index: u32,
    buffer: BytesMut,
    plaintext_len: u64,
}

impl Sealer {
    /// Consumes an attempt: wraps its data key and writes its header.
    ///
    /// # Errors
    /// When the data key cannot be wrapped. The attempt is spent all the same.
    pub fn begin(
        attempt: Attempt,
        key: &TenantKey,
        counter: &mut WrapCounter,
        chunk_len: ChunkLen,
    ) -> Result<Begun, WrapError> {
        let Attempt { identity, dek, salt } = attempt;
        let wrapped = wrap(&dek, key, counter, &identity)?;
        let derived = Derived::new(&dek, &salt, &identity);
        let header =
            Header { chunk_len, identity, kek_version: key.version(), salt, commitment: derived.commitment };
        let sealer = Self {
            chunks: ChunkCipher::new(&derived.payload, header.hash()),
            metadata: MetadataSealer::new(derived.metadata, &header),
            identity,
            chunk_len,
            index: 0,
            buffer: BytesMut::new(),
            plaintext_len: 0,
        };
        Ok(Begun { sealer, header: Bytes::copy_from_slice(&header.to_bytes()), wrapped })
    }

    /// What the sealed object is bound to.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Takes bytes off the front of `plaintext` until a chunk is sealed or nothing is left.
    ///
    /// Call it until `plaintext` is empty; the bytes it gives are the sealed object's next.
    ///
    /// # Errors
    /// When the object has too many chunks.
    pub fn push(&mut self, plaintext: &mut &[u8]) -> Result<Option<Bytes>, SealError> {
        self.fill(plaintext);
        if plaintext.is_empty() {
            return Ok(None);
        }
        let next = self.index.checked_add(1).ok_or(SealError::TooLong)?;
        let sealed = self.seal_buffer(Place::Inner);
        self.index = next;
        Ok(Some(sealed))
    }

    /// Seals what is held as the last chunk; an empty object has one empty chunk.
    #[must_use]
    pub fn finish(mut self) -> SealEnd {
        let last = self.seal_buffer(Place::Last);
        let sealed_len = sealed_len(self.plaintext_len, self.chunk_len).expect("push counted the chunks");
        SealEnd { last, plaintext_len: self.plaintext_len, sealed_len, metadata: self.metadata }
    }

    fn fill(&mut self, plaintext: &mut &[u8]) {
        let room = self.chunk_len.text() - self.buffer.len();
        let (taken, rest) = plaintext.split_at(room.min(plaintext.len()));
        if !taken.is_empty() && self.buffer.is_empty() && !rest.is_empty() {
            self.buffer.reserve(self.chunk_len.sealed());
        }
        self.buffer.extend_from_slice(taken);
        self.plaintext_len += taken.len() as u64;
        *plaintext = rest;
    }

    fn seal_buffer(&mut self, place: Place) -> Bytes {
        self.chunks.seal(self.index, place, &mut self.buffer);
        self.buffer.split().freeze()
    }
}
