//! One chunk: its nonce, its associated data, and its encryption in place.
//!
//! The nonce of chunk i is `0^7 ‖ be32(i) ‖ last`, so that within an attempt it repeats only if an index does. The
//! associated data adds the header's hash and the chunk's length. A buffer whose tag failed must hold zeros.

use bytes::BytesMut;
use zeroize::Zeroize;

use super::aead::{Cipher, Nonce, TagMismatch};
use super::length::TAG_LEN;
use crate::secret::Secret;

/// Whether a chunk ends its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Further chunks follow.
    Inner = 0,
    /// The last chunk.
    Last = 1,
}

/// The chunks of one attempt.
#[derive(Debug)]
pub(crate) struct ChunkCipher {
    cipher: Cipher,
    header_hash: [u8; 32],
}

impl ChunkCipher {
    pub(crate) fn new(payload: &Secret<32>, header_hash: [u8; 32]) -> Self {
        Self { cipher: Cipher::new(payload), header_hash }
    }

    /// Encrypts `chunk` in place and appends its tag.
    pub(crate) fn seal(&self, index: u32, place: Place, chunk: &mut BytesMut) {
        let aad = self.associated_data(index, place, chunk.len());
        let tag = self.cipher.seal(&nonce(index, place), &aad, chunk);
        chunk.extend_from_slice(&tag);
    }

    /// Decrypts `chunk` in place and removes its tag; on a mismatch overwrites all of it with zeros.
    pub(crate) fn open(&self, index: u32, place: Place, chunk: &mut BytesMut) -> Result<(), TagMismatch> {
        let text_len = chunk.len().checked_sub(TAG_LEN).ok_or(TagMismatch)?;
        let (text, tag) = chunk.split_at_mut(text_len);
        let tag = (&*tag).try_into().expect("what follows the text is the tag");
        let aad = self.associated_data(index, place, text_len);
        let opened = self.cipher.open(&nonce(index, place), &aad, text, tag);
        match opened {
            Ok(()) => chunk.truncate(text_len),
            Err(TagMismatch) => chunk.as_mut().zeroize(),
        }
        opened
    }

    fn associated_data(&self, index: u32, place: Place, text_len: usize) -> [u8; 41] {
        let text_len = u32::try_from(text_len).expect("a chunk is at most 1 MiB");
        let mut aad = [0; 41];
        aad[..32].copy_from_slice(&self.header_hash);
        aad[32..36].copy_from_slice(&index.to_be_bytes());
        aad[36] = place as u8;
        aad[37..].copy_from_slice(&text_len.to_be_bytes());
        aad
    }
}

/// Moves bytes from the front of `input` until `buffer` holds `full` of them or nothing is left.
///
/// A first small piece gets the memory that it needs, anything more a whole chunk's: small objects stay small and
/// large ones are copied once.
pub(crate) fn gather(input: &mut &[u8], full: usize, buffer: &mut BytesMut) {
    let (taken, rest) = input.split_at(input.len().min(full - buffer.len()));
    if buffer.capacity() < buffer.len() + taken.len() + TAG_LEN {
        let is_small = buffer.is_empty() && rest.is_empty();
        let wanted = if is_small { taken.len() } else { full - buffer.len() };
        buffer.reserve(wanted + TAG_LEN);
    }
    buffer.extend_from_slice(taken);
    *input = rest;
}

fn nonce(index: u32, place: Place) -> Nonce {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = place as u8;
    nonce
}
