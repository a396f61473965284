//! Object keys: the names under which a tenant finds its objects, and the volume a key falls into.

use std::fmt;

use bytes::Bytes;
use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};

/// A key that is empty, too long or not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Keys have at least one byte.
    #[error("an object key must not be empty")]
    Empty,
    /// Keys have at most [`ObjectKey::LENGTH_MAX`] bytes.
    #[error("an object key has at most 1024 bytes, this one has {length}")]
    TooLong {
        /// The length in bytes.
        length: usize,
    },
    /// Keys are Unicode text.
    #[error("an object key must be UTF-8; byte {offset} is not")]
    NotUtf8 {
        /// Where the text stops being UTF-8.
        offset: usize,
    },
}

/// An object's name within its tenant: 1 to 1024 bytes of UTF-8, ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Bytes);

impl ObjectKey {
    /// The longest key in bytes.
    pub const LENGTH_MAX: usize = 1024;

    /// Checks and takes over a key's bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, InvalidKey> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => return Err(InvalidKey::Empty),
            length if length > Self::LENGTH_MAX => return Err(InvalidKey::TooLong { length }),
            _ => {}
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            return Err(InvalidKey::NotUtf8 { offset: error.valid_up_to() });
        }
        Ok(Self(bytes))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when made")
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<C> Encode<C> for ObjectKey {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ObjectKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let bytes = d.bytes()?;
        Self::new(Bytes::copy_from_slice(bytes)).map_err(|_| DecodeError::message("invalid object key"))
    }
}

/// Which of a tenant's `volume_count` volumes (a power of two) holds `key`: the low bits of the
/// key's blake3 hash, so that splitting a volume moves whole hash ranges.
pub fn volume_slot(key: &ObjectKey, volume_count: u32) -> u32 {
    assert!(volume_count.is_power_of_two(), "volume counts are powers of two");
    let hash = blake3::hash(key.as_bytes());
    let low = u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("four bytes"));
    low & (volume_count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        assert_eq!(ObjectKey::new(""), Err(InvalidKey::Empty));
        assert_eq!(ObjectKey::new(vec![b'k'; 1025]), Err(InvalidKey::TooLong { length: 1025 }));
        assert_eq!(ObjectKey::new(vec![b'a', 0xff]), Err(InvalidKey::NotUtf8 { offset: 1 }));
        assert_eq!(ObjectKey::new("ключ/🗝").unwrap().as_str(), "ключ/🗝");
    }

    #[test]
    fn every_slot_is_used() {
        let slots: std::collections::BTreeSet<_> =
            (0..64).map(|i| volume_slot(&ObjectKey::new(format!("k{i}")).unwrap(), 4)).collect();
        assert_eq!(slots.len(), 4);
    }
}
