//! One record of a volume's log: the same bytes on the wire and on every disk, so that all copies of
//! a volume have one chain of hashes.
//!
//! A record has three parts. The *public* part (a fixed header and a CBOR body) is never erased and
//! is what the chain covers; it holds no name and no key. The *wrapped key* moves to the key bag and
//! is zeroed here afterwards. The *erasable* part (name, metadata, small payload) is zeroed when the
//! version is erased. Header and hashes tell each part's original length and content, so a missing
//! part is recognised and a damaged one is refused.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::config::Protection;
use crate::deletion::{PURGE_ITEMS_MAX, PurgeItem, SignedCertificate, SignedPurgeOrder};
use crate::ids::{
    Epoch, Hash, Lsn, NameTag, NodeId, OrderId, PrincipalId, StoreId, TenantId, Token, UploadId, VersionId,
    VolumeId,
};
use crate::key::ObjectKey;
use crate::layout::{Layout, layout};
use crate::time::{CpTime, Millis};

/// Sealed objects up to this many bytes ride in the record; longer ones are streamed before it.
pub const INLINE_MAX: u64 = 16 * 1024;
/// The longest public body.
pub const BODY_MAX: usize = 1 << 20;
/// The longest wrapped key.
pub const WRAPPED_MAX: usize = 128;
/// The longest sealed metadata.
pub const METADATA_MAX: usize = 16 * 1024;
/// The longest erasable part: name, metadata, inline payload and their framing.
pub const ERASABLE_MAX: usize = ObjectKey::LENGTH_MAX + METADATA_MAX + INLINE_MAX as usize + 256;

const MAGIC: [u8; 4] = *b"TRFR";
const FORMAT: u8 = 1;

/// The fixed header, little-endian; its byte table is in docs/wire-format.md.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    format: u8,
    kind: u8,
    wrapped_length: U16,
    body_length: U32,
    erasable_length: U32,
    tenant: U64,
    volume: U64,
    epoch: U64,
    lsn: U64,
    previous: [u8; 32],
    wrapped_hash: [u8; 32],
    erasable_hash: [u8; 32],
    body_crc: U32,
    header_crc: U32,
}

/// Length of the fixed header in bytes.
pub const HEADER_LENGTH: usize = size_of::<RawHeader>();
const _: () = assert!(HEADER_LENGTH == 152);

/// Where the fields of a record's header lie.
pub const HEADER_LAYOUT: Layout = layout!(RawHeader {
    magic,
    format,
    kind,
    wrapped_length,
    body_length,
    erasable_length,
    tenant,
    volume,
    epoch,
    lsn,
    previous,
    wrapped_hash,
    erasable_hash,
    body_crc,
    header_crc,
});

/// Bytes that are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Too few bytes.
    #[error("a record needs {needed} bytes, {got} are there")]
    Truncated {
        /// How many bytes were needed.
        needed: usize,
        /// How many there were.
        got: usize,
    },
    /// The first bytes are not a record's.
    #[error("record magic is {got:02x?}, expected \"TRFR\"")]
    Magic {
        /// What was found.
        got: [u8; 4],
    },
    /// Written by another version of the format.
    #[error("record format {got} is not known to this version, which knows {FORMAT}")]
    Format {
        /// The format found.
        got: u8,
    },
    /// A length is above its limit.
    #[error("record {field} of {got} bytes is above the limit of {limit}")]
    TooLong {
        /// Which part.
        field: &'static str,
        /// Its length.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A checksum or hash does not match.
    #[error("record {part} is damaged: its {check} does not match")]
    Damaged {
        /// Which part.
        part: &'static str,
        /// Which check failed.
        check: &'static str,
    },
    /// The body or erasable part is not the CBOR it should be.
    #[error("record {part} cannot be decoded: {reason}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition {
    /// The tenant that owns the volume.
    pub tenant: TenantId,
    /// The volume whose log this is.
    pub volume: VolumeId,
    /// The epoch under which the record was first written.
    pub epoch: Epoch,
    /// Its position in the log.
    pub lsn: Lsn,
    /// The chain hash of the record before it ([`Hash::ZERO`] for the first).
    pub previous: Hash,
}

/// Who asked for a mutation, and under which token it takes effect at most once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cause {
    /// The idempotency token.
    #[n(0)]
    pub token: Token,
    /// Every token of this instance below this mark was confirmed by the client and is forgotten.
    #[n(1)]
    pub confirmed_below: u64,
    /// Hash of the request; the same token with another request is an error.
    #[n(2)]
    pub request: Hash,
    /// Who asked, from the verified certificate.
    #[n(3)]
    pub principal: PrincipalId,
    /// Control-plane time at the primary when the record was made.
    #[n(4)]
    pub at: CpTime,
}

/// A new version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Put {
    /// The version and the attempt whose bytes these are.
    #[n(0)]
    pub upload: UploadId,
    /// blake3 of the sealed bytes.
    #[n(1)]
    pub root: Hash,
    /// Length of the sealed bytes.
    #[n(2)]
    pub sealed_length: u64,
    /// Keyed hash of the name.
    #[n(3)]
    pub name_tag: NameTag,
    /// Version of the tenant key that wraps this version's data key.
    #[n(4)]
    pub kek_version: u32,
    /// The live version that this one replaces, if any; it enters the delete window.
    #[n(5)]
    pub replaces: Option<VersionId>,
    /// The delete window that the replaced version gets.
    #[n(6)]
    pub window: Millis,
    /// Who and when.
    #[n(7)]
    pub cause: Cause,
}

/// The logical delete of a live version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delete {
    /// The version that is hidden.
    #[n(0)]
    pub version: VersionId,
    /// How long it can be undeleted, from `cause.at`.
    #[n(1)]
    pub window: Millis,
    /// Who and when.
    #[n(2)]
    pub cause: Cause,
}

/// The return of a logically deleted version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Undelete {
    /// The version that becomes live again.
    #[n(0)]
    pub version: VersionId,
    /// The tombstone that this undoes; another one means the undelete lost a race.
    #[n(1)]
    pub tombstone: Lsn,
    /// Who and when.
    #[n(2)]
    pub cause: Cause,
}

/// The point of no return of a purge: from here no undelete, and erasing may begin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Purging {
    /// The control plane's signed permission.
    #[n(0)]
    pub order: SignedPurgeOrder,
    /// The order's items whose tombstones still stood when this record was made; the rest of the
    /// order is void.
    #[cbor(n(1), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
    pub items: Vec<PurgeItem>,
    /// The store that keeps its copy until all others are erased (the first copy).
    #[n(2)]
    pub retained: StoreId,
}

/// All copies but the retained one are gone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OthersErased {
    /// The purge order.
    #[n(0)]
    pub order: OrderId,
    /// The versions this is true of.
    #[cbor(n(1), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
    pub versions: Vec<VersionId>,
    /// Control-plane time at the primary when the record was made; the first copy's retention runs
    /// from it.
    #[n(2)]
    pub at: CpTime,
}

/// The end of a delete: every copy is erased and the control plane certified it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certified {
    /// The version that is gone.
    #[n(0)]
    pub version: VersionId,
    /// The certificate that the tenant can fetch.
    #[n(1)]
    pub certificate: SignedCertificate,
}

/// What a record does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RecordBody {
    /// A primary begins its epoch; committing this commits everything before it.
    #[n(0)]
    EpochStart {
        /// The primary.
        #[n(0)]
        primary: NodeId,
        /// The rule acknowledgements follow.
        #[n(1)]
        protection: Protection,
    },
    /// See [`Put`].
    #[n(1)]
    Put(#[n(0)] Put),
    /// See [`Delete`].
    #[n(2)]
    Delete(#[n(0)] Delete),
    /// See [`Undelete`].
    #[n(3)]
    Undelete(#[n(0)] Undelete),
    /// See [`Purging`].
    #[n(4)]
    Purging(#[n(0)] Purging),
    /// See [`OthersErased`].
    #[n(5)]
    OthersErased(#[n(0)] OthersErased),
    /// See [`Certified`].
    #[n(6)]
    Certified(#[n(0)] Certified),
    /// A token that will never take effect.
    #[n(7)]
    Void {
        /// The token.
        #[n(0)]
        token: Token,
    },
    /// An upload that no record will ever refer to; its bytes may be erased.
    #[n(8)]
    UploadVoid {
        /// The upload.
        #[n(0)]
        upload: UploadId,
    },
}

impl RecordBody {
    fn kind(&self) -> u8 {
        match self {
            Self::EpochStart { .. } => 0,
            Self::Put(_) => 1,
            Self::Delete(_) => 2,
            Self::Undelete(_) => 3,
            Self::Purging(_) => 4,
            Self::OthersErased(_) => 5,
            Self::Certified(_) => 6,
            Self::Void { .. } => 7,
            Self::UploadVoid { .. } => 8,
        }
    }

    /// The cause of a mutation that a client asked for.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Put(put) => Some(&put.cause),
            Self::Delete(delete) => Some(&delete.cause),
            Self::Undelete(undelete) => Some(&undelete.cause),
            _ => None,
        }
    }
}

/// What is zeroed when a version is erased.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Erasable {
    /// Random bytes of the primary, so that the public hash of this part tells nothing about it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// The object's name.
    #[n(1)]
    pub key: ObjectKey,
    /// Metadata sealed by the client.
    #[cbor(n(2), with = "crate::codec::bytes")]
    pub metadata: Bytes,
    /// The sealed object, if it is at most [`INLINE_MAX`] bytes.
    #[cbor(n(3), with = "crate::codec::optional_bytes")]
    pub payload: Option<Bytes>,
}

/// A parsed record. Cheap to clone: the parts share their buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    position: RecordPosition,
    body: RecordBody,
    public: Bytes,
    wrapped: Option<Bytes>,
    erasable: Option<Bytes>,
    lengths: PartLengths,
}

/// Original lengths of the parts, whether they are still there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLengths {
    /// Header and body.
    pub public: usize,
    /// The wrapped key.
    pub wrapped: usize,
    /// Name, metadata, inline payload.
    pub erasable: usize,
}

impl PartLengths {
    /// All parts together.
    pub fn total(self) -> usize {
        self.public + self.wrapped + self.erasable
    }
}

impl Record {
    /// Makes a record.
    ///
    /// # Panics
    /// If a part is above its limit: the caller has checked what came from outside.
    pub fn new(
        position: RecordPosition,
        body: RecordBody,
        wrapped: Option<Bytes>,
        erasable: Option<&Erasable>,
    ) -> Self {
        let erasable = erasable.map(|part| Bytes::from(crate::codec::to_vec(part)));
        let encoded_body = crate::codec::to_vec(&body);
        let lengths = PartLengths {
            public: HEADER_LENGTH + encoded_body.len(),
            wrapped: wrapped.as_ref().map_or(0, Bytes::len),
            erasable: erasable.as_ref().map_or(0, Bytes::len),
        };
        assert!(
            encoded_body.len() <= BODY_MAX
                && lengths.wrapped <= WRAPPED_MAX
                && lengths.erasable <= ERASABLE_MAX
        );
        let mut header = RawHeader {
            magic: MAGIC,
            format: FORMAT,
            kind: body.kind(),
            wrapped_length: U16::new(u16::try_from(lengths.wrapped).expect("below its limit")),
            body_length: U32::new(u32::try_from(encoded_body.len()).expect("below its limit")),
            erasable_length: U32::new(u32::try_from(lengths.erasable).expect("below its limit")),
            tenant: U64::new(position.tenant.0),
            volume: U64::new(position.volume.0),
            epoch: U64::new(position.epoch.0),
            lsn: U64::new(position.lsn.0),
            previous: position.previous.0,
            wrapped_hash: part_hash(wrapped.as_deref()).0,
            erasable_hash: part_hash(erasable.as_deref()).0,
            body_crc: U32::new(crc32fast::hash(&encoded_body)),
            header_crc: U32::ZERO,
        };
        header.header_crc = U32::new(header_crc(&header));
        let mut public = BytesMut::with_capacity(lengths.public);
        public.put_slice(header.as_bytes());
        public.put_slice(&encoded_body);
        Self { position, body, public: public.freeze(), wrapped, erasable, lengths }
    }

    /// Parses the public part; `bytes` may go on behind it.
    pub fn parse_public(bytes: &Bytes) -> Result<Self, RecordError> {
        let header = parse_header(bytes)?;
        let lengths = lengths_of(&header)?;
        if bytes.len() < lengths.public {
            return Err(RecordError::Truncated { needed: lengths.public, got: bytes.len() });
        }
        let encoded_body = &bytes[HEADER_LENGTH..lengths.public];
        if crc32fast::hash(encoded_body) != header.body_crc.get() {
            return Err(RecordError::Damaged { part: "body", check: "CRC" });
        }
        let body: RecordBody = crate::codec::from_slice(encoded_body)
            .map_err(|error| RecordError::Malformed { part: "body", reason: error.to_string() })?;
        if body.kind() != header.kind {
            return Err(RecordError::Damaged { part: "header", check: "kind" });
        }
        let position = RecordPosition {
            tenant: TenantId(header.tenant.get()),
            volume: VolumeId(header.volume.get()),
            epoch: Epoch(header.epoch.get()),
            lsn: Lsn(header.lsn.get()),
            previous: Hash(header.previous),
        };
        let public = bytes.slice(..lengths.public);
        Ok(Self { position, body, public, wrapped: None, erasable: None, lengths })
    }

    /// The lengths of all parts, read from the fixed header alone.
    pub fn part_lengths(header: &[u8]) -> Result<PartLengths, RecordError> {
        lengths_of(&parse_header(header)?)
    }

    /// Attaches the wrapped key after checking it against the header.
    pub fn with_wrapped(mut self, wrapped: Bytes) -> Result<Self, RecordError> {
        let header = self.raw_header();
        if wrapped.len() != self.lengths.wrapped || part_hash(Some(&wrapped)).0 != header.wrapped_hash {
            return Err(RecordError::Damaged { part: "wrapped key", check: "hash" });
        }
        self.wrapped = Some(wrapped);
        Ok(self)
    }

    /// Attaches the erasable part after checking it against the header.
    pub fn with_erasable(mut self, erasable: Bytes) -> Result<Self, RecordError> {
        let header = self.raw_header();
        if erasable.len() != self.lengths.erasable || part_hash(Some(&erasable)).0 != header.erasable_hash {
            return Err(RecordError::Damaged { part: "erasable part", check: "hash" });
        }
        self.erasable = Some(erasable);
        Ok(self)
    }

    /// The record as it stands after its version was erased.
    pub fn without_erasable(mut self) -> Self {
        self.wrapped = None;
        self.erasable = None;
        self
    }

    /// The same record with parts of its own: as it came, they may be slices of a whole message, which
    /// would be kept as long as the record is.
    #[must_use]
    pub fn detached(self) -> Record {
        let own = |part: &Bytes| Bytes::copy_from_slice(part);
        let (wrapped, erasable) = (self.wrapped.as_ref().map(own), self.erasable.as_ref().map(own));
        Record { public: own(&self.public), wrapped, erasable, ..self }
    }

    /// The record as it stands after its wrapped key moved to the key bag.
    pub fn without_wrapped(mut self) -> Self {
        self.wrapped = None;
        self
    }

    /// Where the record stands.
    pub fn position(&self) -> &RecordPosition {
        &self.position
    }

    /// Its position in the log.
    pub fn lsn(&self) -> Lsn {
        self.position.lsn
    }

    /// The epoch under which it was first written.
    pub fn epoch(&self) -> Epoch {
        self.position.epoch
    }

    /// What it does.
    pub fn body(&self) -> &RecordBody {
        &self.body
    }

    /// Header and body, as on disk and on the wire.
    pub fn public(&self) -> &Bytes {
        &self.public
    }

    /// The wrapped key, if it is (still) part of the record.
    pub fn wrapped(&self) -> Option<&Bytes> {
        self.wrapped.as_ref()
    }

    /// The encoded erasable part, if it is (still) there.
    pub fn erasable_bytes(&self) -> Option<&Bytes> {
        self.erasable.as_ref()
    }

    /// Decodes the erasable part; `None` if it is gone or never was.
    pub fn erasable(&self) -> Result<Option<Erasable>, RecordError> {
        let decode = |bytes: &Bytes| {
            crate::codec::from_slice(bytes)
                .map_err(|error| RecordError::Malformed { part: "erasable part", reason: error.to_string() })
        };
        self.erasable.as_ref().map(decode).transpose()
    }

    /// Original lengths of the parts.
    pub fn lengths(&self) -> PartLengths {
        self.lengths
    }

    /// The hash that the next record names as its predecessor: over the public part only, so that
    /// erasing breaks no chain.
    pub fn chain_hash(&self) -> Hash {
        Hash(*blake3::hash(&self.public).as_bytes())
    }

    fn raw_header(&self) -> RawHeader {
        RawHeader::read_from_bytes(&self.public[..HEADER_LENGTH]).expect("a parsed record has a whole header")
    }
}

fn part_hash(part: Option<&[u8]>) -> Hash {
    part.map_or(Hash::ZERO, |bytes| Hash(*blake3::hash(bytes).as_bytes()))
}

fn header_crc(header: &RawHeader) -> u32 {
    crc32fast::hash(&header.as_bytes()[..HEADER_LENGTH - 4])
}

fn parse_header(bytes: &[u8]) -> Result<RawHeader, RecordError> {
    let (header, _) = RawHeader::read_from_prefix(bytes)
        .map_err(|_| RecordError::Truncated { needed: HEADER_LENGTH, got: bytes.len() })?;
    if header.magic != MAGIC {
        return Err(RecordError::Magic { got: header.magic });
    }
    if header.format != FORMAT {
        return Err(RecordError::Format { got: header.format });
    }
    if header_crc(&header) != header.header_crc.get() {
        return Err(RecordError::Damaged { part: "header", check: "CRC" });
    }
    Ok(header)
}

fn lengths_of(header: &RawHeader) -> Result<PartLengths, RecordError> {
    let limited = |field, got: usize, limit| {
        if got > limit { Err(RecordError::TooLong { field, got, limit }) } else { Ok(got) }
    };
    Ok(PartLengths {
        public: HEADER_LENGTH + limited("body", header.body_length.get() as usize, BODY_MAX)?,
        wrapped: limited("wrapped key", usize::from(header.wrapped_length.get()), WRAPPED_MAX)?,
        erasable: limited("erasable part", header.erasable_length.get() as usize, ERASABLE_MAX)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientInstance;

    fn sample() -> Record {
        let position = RecordPosition {
            tenant: TenantId(1),
            volume: VolumeId(2),
            epoch: Epoch(3),
            lsn: Lsn(4),
            previous: Hash([5; 32]),
        };
        let cause = Cause {
            token: Token { instance: ClientInstance([1; 16]), sequence: 9 },
            confirmed_below: 8,
            request: Hash([2; 32]),
            principal: PrincipalId(7),
            at: CpTime(1000),
        };
        let body = RecordBody::Put(Put {
            upload: UploadId { version: VersionId([6; 16]), attempt: 0 },
            root: Hash([7; 32]),
            sealed_length: 5,
            name_tag: NameTag([8; 16]),
            kek_version: 1,
            replaces: None,
            window: Millis(5),
            cause,
        });
        let erasable = Erasable {
            salt: [9; 16],
            key: ObjectKey::new("name").unwrap(),
            metadata: Bytes::from_static(b"meta"),
            payload: Some(Bytes::from_static(b"bytes")),
        };
        Record::new(position, body, Some(Bytes::from_static(b"wrapped")), Some(&erasable))
    }

    #[test]
    fn zeroing_breaks_no_chain() {
        let record = sample();
        let erased = record.clone().without_erasable();
        assert_eq!(record.chain_hash(), erased.chain_hash());
        let parsed = Record::parse_public(erased.public()).unwrap();
        assert_eq!(parsed, erased);
        assert_eq!(parsed.lengths(), record.lengths());
    }

    #[test]
    fn parts_are_checked_against_the_header() {
        let record = sample();
        let parsed = Record::parse_public(record.public()).unwrap();
        let whole = parsed
            .clone()
            .with_wrapped(record.wrapped().unwrap().clone())
            .and_then(|r| r.with_erasable(record.erasable_bytes().unwrap().clone()))
            .unwrap();
        assert_eq!(whole, record);
        assert_eq!(whole.erasable().unwrap().unwrap().key.as_str(), "name");
        assert!(parsed.clone().with_wrapped(Bytes::from_static(b"wrappee")).is_err());
        assert!(parsed.with_erasable(Bytes::from_static(b"else")).is_err());
    }

    #[test]
    fn every_flipped_bit_of_the_public_part_is_found() {
        let public = sample().public().to_vec();
        for bit in 0..public.len() * 8 {
            let mut bytes = public.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse_public(&Bytes::from(bytes)).is_err(), "bit {bit}");
        }
        for length in 0..public.len() {
            assert!(Record::parse_public(&Bytes::copy_from_slice(&public[..length])).is_err());
        }
    }
}
