//! The header of a sealed object: 144 fixed bytes that say how the rest was sealed, and for what.
//!
//! The byte table is in `docs/sealed-format.md`. The header is public and chosen by whoever stores it: parsing must
//! never panic, and nothing in it is believed before the commitment and the first tag matched.

use sha2::{Digest, Sha256};
use trefoil_protocol::ids::{TenantId, UploadId, VersionId};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::keys::NameHash;
use super::length::ChunkLen;
use super::{LABEL, push_field};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<HeaderBytes>();

const MAGIC: [u8; 8] = *b"TREFOIL\0";
const FORMAT: u16 = 1;
/// AES-256-GCM under HKDF-SHA256 keys.
const ALGORITHM: u8 = 1;

const _: () = assert!(HEADER_LEN == 144, "docs/sealed-format.md says 144");

/// The fields in the order and the width in which they are stored.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 8],
    format: U16,
    algorithm: u8,
    reserved: u8,
    chunk_len: U32,
    tenant: U64,
    kek_version: U32,
    attempt: U32,
    version: [u8; 16],
    name: NameHash,
    salt: [u8; 32],
    commitment: [u8; 32],
}

/// One version of one tenant's object, whatever attempt wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectIdentity {
    /// The tenant.
    pub tenant: TenantId,
    /// Keyed hash of the object's name.
    pub name: NameHash,
    /// The version.
    pub version: VersionId,
}

/// What a sealed object is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The object and its version.
    pub object: ObjectIdentity,
    /// Which attempt to write it, counted from 0.
    pub attempt: u32,
}

impl Identity {
    /// How the stores name the bytes of this attempt.
    #[must_use]
    pub fn upload(&self) -> UploadId {
        UploadId { version: self.object.version, attempt: self.attempt }
    }

    /// The context of every key of this attempt: label, algorithm and identity, each with its length.
    pub(crate) fn context(&self) -> Vec<u8> {
        let mut context = Vec::with_capacity(96);
        push_field(&mut context, LABEL);
        push_field(&mut context, &[ALGORITHM]);
        push_field(&mut context, &self.object.tenant.0.to_be_bytes());
        push_field(&mut context, &self.object.name);
        push_field(&mut context, &self.object.version.0);
        push_field(&mut context, &self.attempt.to_be_bytes());
        context
    }
}

/// A header's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Plaintext bytes per chunk.
    pub chunk_len: ChunkLen,
    /// What the object is bound to.
    pub identity: Identity,
    /// The tenant key version under which the data key was first wrapped; a rewrap leaves it as it is.
    pub kek_version: u32,
    /// Fresh random bytes of this attempt.
    pub salt: [u8; 32],
    /// What only the right data key leads to.
    pub commitment: [u8; 32],
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too few or too many bytes.
    #[error("a header has {HEADER_LEN} bytes, got {0}")]
    Length(usize),
    /// Another magic.
    #[error("these bytes are not a sealed object")]
    Magic,
    /// A format or algorithm that this program does not know, or a reserved bit.
    #[error("format {format}, algorithm {algorithm}, reserved {reserved} is not known here")]
    Unknown {
        /// The format number found.
        format: u16,
        /// The algorithm number found.
        algorithm: u8,
        /// The reserved byte found.
        reserved: u8,
    },
    /// A chunk length out of bounds.
    #[error("a chunk length of {0} bytes is out of bounds")]
    ChunkLen(u32),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// When the bytes are not a header of format 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let raw = HeaderBytes::read_from_bytes(bytes).map_err(|_| HeaderError::Length(bytes.len()))?;
        if raw.magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (format, algorithm, reserved) = (raw.format.get(), raw.algorithm, raw.reserved);
        if (format, algorithm, reserved) != (FORMAT, ALGORITHM, 0) {
            return Err(HeaderError::Unknown { format, algorithm, reserved });
        }
        let chunk_len =
            ChunkLen::new(raw.chunk_len.get()).ok_or(HeaderError::ChunkLen(raw.chunk_len.get()))?;
        let object = ObjectIdentity {
            tenant: TenantId(raw.tenant.get()),
            name: raw.name,
            version: VersionId(raw.version),
        };
        Ok(Self {
            chunk_len,
            identity: Identity { object, attempt: raw.attempt.get() },
            kek_version: raw.kek_version.get(),
            salt: raw.salt,
            commitment: raw.commitment,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let raw = HeaderBytes {
            magic: MAGIC,
            format: FORMAT.into(),
            algorithm: ALGORITHM,
            reserved: 0,
            chunk_len: self.chunk_len.get().into(),
            tenant: self.identity.object.tenant.0.into(),
            kek_version: self.kek_version.into(),
            attempt: self.identity.attempt.into(),
            version: self.identity.object.version.0,
            name: self.identity.object.name,
            salt: self.salt,
            commitment: self.commitment,
        };
        zerocopy::transmute!(raw)
    }

    /// SHA-256 of the header's bytes: what every chunk's associated data begins with.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }
}
