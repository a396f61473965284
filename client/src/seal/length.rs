//! Lengths: how plaintext, chunks and sealed bytes relate, and what padding hides of them.
//!
//! Pure arithmetic on `u64`, never on trust: every length that comes from outside is checked and may be refused.

use super::header::HEADER_LEN;

/// Bytes of an AES-GCM tag.
pub const TAG_LEN: usize = 16;

/// Most chunks of one object: their index has 32 bits.
pub(crate) const CHUNKS_MAX: u64 = 1 << 32;

/// Plaintext bytes per chunk: from 1 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkLen(u32);

impl ChunkLen {
    /// 64 KiB, what every object is sealed with outside tests.
    pub const DEFAULT: Self = Self(64 * 1024);
    /// 1 KiB.
    pub const MIN: Self = Self(1024);
    /// 1 MiB: the most memory that a header may make an opener use.
    pub const MAX: Self = Self(1024 * 1024);

    /// A chunk length, or `None` when it lies outside the bounds.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        let len = Self(bytes);
        (Self::MIN..=Self::MAX).contains(&len).then_some(len)
    }

    /// The bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Plaintext bytes of a full chunk.
    pub(crate) fn text(self) -> usize {
        self.0 as usize
    }

    /// Sealed bytes of a full chunk.
    pub(crate) fn sealed(self) -> usize {
        self.text() + TAG_LEN
    }
}

/// Sealed bytes of an object of `plaintext_len` bytes, or `None` when it has too many chunks.
#[must_use]
pub fn sealed_len(plaintext_len: u64, chunk_len: ChunkLen) -> Option<u64> {
    let chunks = plaintext_len.div_ceil(u64::from(chunk_len.get())).max(1);
    (chunks <= CHUNKS_MAX).then(|| HEADER_LEN as u64 + plaintext_len + chunks * TAG_LEN as u64)
}

/// Plaintext bytes in an object of `sealed_len` bytes, or `None` when no object has that length.
#[must_use]
pub fn plaintext_len(sealed_len: u64, chunk_len: ChunkLen) -> Option<u64> {
    let chunks = chunk_count(sealed_len, chunk_len)?;
    Some(sealed_len - HEADER_LEN as u64 - chunks * TAG_LEN as u64)
}

/// Chunks of an object of `sealed_len` bytes, or `None` when no object has that length.
pub(crate) fn chunk_count(sealed_len: u64, chunk_len: ChunkLen) -> Option<u64> {
    let body = sealed_len.checked_sub(HEADER_LEN as u64)?;
    let (full, rest) = (body / chunk_len.sealed() as u64, body % chunk_len.sealed() as u64);
    let chunks = if rest == 0 { full } else { full + 1 };
    // The last chunk is empty in the empty object alone.
    let is_last_sound = rest == 0 || rest > TAG_LEN as u64 || (full == 0 && rest == TAG_LEN as u64);
    ((1..=CHUNKS_MAX).contains(&chunks) && is_last_sound).then_some(chunks)
}

/// The length to which Padmé pads `len`: at most 12 % more, and few enough classes that a length says little.
///
/// From "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (Nikitin et al., 2019): of a
/// length of e + 1 bits, only the top bits that the length of e itself needs stay free.
#[must_use]
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_u64 << (exponent - kept.min(exponent))) - 1;
    len.checked_add(mask).map_or(u64::MAX, |padded| padded & !mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_object_is_a_header_and_a_tag() {
        assert_eq!(sealed_len(0, ChunkLen::DEFAULT), Some(HEADER_LEN as u64 + 16));
    }

    #[test]
    fn lengths_that_no_object_has_are_refused() {
        let header = HEADER_LEN as u64;
        for sealed in [0, 15, header - 1, header, header + 15, header + 1024 + 16 + 16, u64::MAX] {
            assert_eq!(plaintext_len(sealed, ChunkLen::MIN), None, "{sealed}");
        }
    }

    #[test]
    fn r089_padme_leaves_few_lengths() {
        assert_eq!([0, 1, 2, 9, 1000, 1025, 1_000_000].map(padme), [0, 1, 2, 10, 1024, 1088, 1_015_808]);
        let classes: std::collections::BTreeSet<u64> = (1..1 << 16).map(padme).collect();
        assert!(classes.len() < 230, "{}", classes.len());
    }

    proptest! {
        #[test]
        fn sealed_and_plaintext_lengths_are_inverse(len in 0..1_u64 << 41, chunk in 1024_u32..=1 << 20) {
            let chunk = ChunkLen::new(chunk).unwrap();
            let sealed = sealed_len(len, chunk).unwrap();
            prop_assert_eq!(plaintext_len(sealed, chunk), Some(len));
        }

        #[test]
        fn hostile_lengths_never_panic(sealed: u64, chunk in 1024_u32..=1 << 20) {
            let chunk = ChunkLen::new(chunk).unwrap();
            if let Some(len) = plaintext_len(sealed, chunk) {
                prop_assert_eq!(sealed_len(len, chunk), Some(sealed));
            }
        }

        #[test]
        fn r089_padme_costs_at_most_an_eighth(len in 0..1_u64 << 60) {
            let padded = padme(len);
            prop_assert!(padded >= len && padded - len <= len / 8);
            prop_assert_eq!(padme(padded), padded);
        }
    }
}
