//! The sealer: plaintext in, sealed bytes out, one chunk of memory.
//!
//! The object's length need not be known: a full chunk is held until a further byte or the end shows whether it is the
//! last. A sealer must never encrypt a chunk index twice; it counts up and is consumed at its end.

use bytes::{Bytes, BytesMut};

use super::attempt::Attempt;
use super::chunk::{ChunkCipher, Place, gather};
use super::derive::Derived;
use super::header::{Header, Identity};
use super::keys::TenantKey;
use super::length::{ChunkLen, padme, sealed_len};
use super::metadata::MetadataSealer;
use super::wrap::{WrapCounter, WrapError, WrappedDek, wrap};

const ZEROS: [u8; 4096] = [0; 4096];

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
    /// Bytes taken, without padding.
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
    /// Bytes taken, padding included.
    taken_len: u64,
    padding_len: u64,
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
            taken_len: 0,
            padding_len: 0,
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
    ///
    /// # Panics
    /// After padding: its length would be lost.
    pub fn push(&mut self, plaintext: &mut &[u8]) -> Result<Option<Bytes>, SealError> {
        assert_eq!(self.padding_len, 0, "plaintext comes before padding");
        self.take(plaintext)
    }

    /// Padding bytes that would bring what was pushed to its Padmé class.
    #[must_use]
    pub fn padding_wanted(&self) -> u64 {
        padme(self.taken_len) - self.taken_len
    }

    /// As [`Sealer::push`], with `left` bytes of padding, counted down as they are taken.
    ///
    /// # Errors
    /// When the object has too many chunks.
    pub fn push_padding(&mut self, left: &mut u64) -> Result<Option<Bytes>, SealError> {
        while *left > 0 {
            let offered = ZEROS.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let mut rest = &ZEROS[..offered];
            let sealed = self.take(&mut rest)?;
            let taken = (offered - rest.len()) as u64;
            *left -= taken;
            self.padding_len += taken;
            if sealed.is_some() {
                return Ok(sealed);
            }
        }
        Ok(None)
    }

    /// Seals what is held as the last chunk; an empty object has one empty chunk.
    #[must_use]
    pub fn finish(mut self) -> SealEnd {
        let last = self.seal_buffer(Place::Last);
        let sealed_len = sealed_len(self.taken_len, self.chunk_len).expect("push counted the chunks");
        let plaintext_len = self.taken_len - self.padding_len;
        SealEnd { last, plaintext_len, sealed_len, metadata: self.metadata }
    }

    fn take(&mut self, plaintext: &mut &[u8]) -> Result<Option<Bytes>, SealError> {
        let offered = plaintext.len();
        gather(plaintext, self.chunk_len.text(), &mut self.buffer);
        self.taken_len += (offered - plaintext.len()) as u64;
        if plaintext.is_empty() {
            return Ok(None);
        }
        let next = self.index.checked_add(1).ok_or(SealError::TooLong)?;
        let sealed = self.seal_buffer(Place::Inner);
        self.index = next;
        Ok(Some(sealed))
    }

    fn seal_buffer(&mut self, place: Place) -> Bytes {
        self.chunks.seal(self.index, place, &mut self.buffer);
        self.buffer.split().freeze()
    }
}
