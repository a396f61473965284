//! The opener: sealed bytes in, plaintext out, each chunk only after its tag matched.
//!
//! A full chunk is held until a further byte or the end shows whether it is the last; the flag in its nonce must agree,
//! which is how truncation and extension are found. After any error the opener is dead and its buffer holds zeros.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize;

use super::chunk::{ChunkCipher, Place, gather};
use super::derive::{UnlockError, Unlocked};
use super::header::{HEADER_LEN, Identity};
use super::keys::Dek;
use super::length::{ChunkLen, TAG_LEN};

/// Why opening stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header was refused.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// A chunk is damaged, out of place, or not the last where it should be.
    #[error("chunk {chunk} does not match its tag")]
    Tag {
        /// Its index.
        chunk: u32,
    },
    /// The bytes end inside the header or a tag.
    #[error("the sealed object is cut short")]
    Truncated,
    /// More bytes than the object or the range has.
    #[error("bytes follow the end")]
    TooLong,
    /// An earlier error ended this opener.
    #[error("the opener ended with an earlier error")]
    Dead,
}

/// Opens one object from its first byte to its last.
#[derive(Debug)]
pub struct Opener {
    stage: Stage,
    pub(crate) buffer: BytesMut,
    /// Bytes still to release, where padding follows them.
    left: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    Header { dek: Dek, expected: Identity },
    Chunks { chunks: ChunkCipher, chunk_len: ChunkLen, index: u32 },
    Dead,
}

impl Opener {
    /// An opener for the object that `expected` names, under its data key.
    #[must_use]
    pub fn new(dek: Dek, expected: Identity) -> Self {
        Self { stage: Stage::Header { dek, expected }, buffer: BytesMut::new(), left: None }
    }

    /// Releases only the first `plaintext_len` bytes: what follows is padding. Metadata has the length.
    #[must_use]
    pub fn trimmed_to(mut self, plaintext_len: u64) -> Self {
        self.left = Some(plaintext_len);
        self
    }

    /// Takes bytes off the front of `sealed` until a chunk is opened or nothing is left.
    ///
    /// Call it until `sealed` is empty; the bytes it gives are the object's next.
    ///
    /// # Errors
    /// When the header or a chunk is refused. The opener is dead then.
    pub fn push(&mut self, sealed: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        let opened = self.try_push(sealed);
        self.die_on_error(opened)
    }

    /// Opens what is held as the last chunk.
    ///
    /// # Errors
    /// When it is not the last chunk, or the object is cut short.
    pub fn finish(mut self) -> Result<Bytes, OpenError> {
        let opened = self.try_finish();
        self.die_on_error(opened)
    }

    fn try_push(&mut self, sealed: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        if let Stage::Header { dek, expected } = &self.stage {
            gather(sealed, HEADER_LEN, &mut self.buffer);
            if self.buffer.len() < HEADER_LEN {
                return Ok(None);
            }
            let unlocked = Unlocked::open(dek, &self.buffer, expected)?;
            self.buffer.clear();
            let chunk_len = unlocked.header().chunk_len;
            self.stage = Stage::Chunks { chunks: unlocked.chunks(), chunk_len, index: 0 };
        }
        let Stage::Chunks { chunks, chunk_len, index } = &mut self.stage else {
            return Err(OpenError::Dead);
        };
        gather(sealed, chunk_len.sealed(), &mut self.buffer);
        if sealed.is_empty() {
            return Ok(None);
        }
        chunks.open(*index, Place::Inner, &mut self.buffer).map_err(|_| OpenError::Tag { chunk: *index })?;
        *index = index.checked_add(1).ok_or(OpenError::TooLong)?;
        Ok(Some(self.release()))
    }

    fn try_finish(&mut self) -> Result<Bytes, OpenError> {
        let (chunks, index) = match &self.stage {
            Stage::Header { .. } => return Err(OpenError::Truncated),
            Stage::Chunks { chunks, index, .. } => (chunks, *index),
            Stage::Dead => return Err(OpenError::Dead),
        };
        // A sealer makes an empty chunk for the empty object alone.
        if self.buffer.len() < TAG_LEN || (self.buffer.len() == TAG_LEN && index > 0) {
            return Err(OpenError::Truncated);
        }
        chunks.open(index, Place::Last, &mut self.buffer).map_err(|_| OpenError::Tag { chunk: index })?;
        let last = self.release();
        if self.left.is_some_and(|left| left > 0) { Err(OpenError::Truncated) } else { Ok(last) }
    }

    fn release(&mut self) -> Bytes {
        let mut opened = self.buffer.split().freeze();
        if let Some(left) = &mut self.left {
            opened.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= opened.len() as u64;
        }
        opened
    }

    fn die_on_error<T>(&mut self, result: Result<T, OpenError>) -> Result<T, OpenError> {
        if result.is_err() {
            self.stage = Stage::Dead;
            self.buffer.as_mut().zeroize();
        }
        result
    }
}
