//! The frame: the unit in which segments are written. A fixed header says where the frame stands,
//! whose it is and what its parts hash to, so that torn, misplaced, stale and foreign frames are
//! told apart. Byte table: docs/disk-format.md.
//!
//! A frame has up to three parts behind its header, each with its own checksum: the *public* part
//! is never erased; the *wrapped key* and the *erasable* part (of a record: name, metadata, small
//! payload; of a payload frame: the leaf's bytes) may be zeroed in place without touching the header.

use trefoil_protocol::ids::{Epoch, Hash, Lsn, TenantId, UploadId, VersionId, VolumeId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a frame's header in bytes.
pub const HEADER_LENGTH: usize = 192;
/// Frames begin at multiples of this many bytes.
pub const ALIGNMENT: u64 = 64;
/// The longest part; no valid header claims more.
pub const PART_MAX: usize = 2 << 20;

const MAGIC: [u8; 4] = *b"TRFS";
const FORMAT: u8 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    format: u8,
    kind: u8,
    reserved: U16,
    segment: U64,
    offset: U64,
    tenant: U64,
    volume: U64,
    epoch: U64,
    committed: U64,
    synced_segment: U64,
    synced_offset: U64,
    previous: [u8; 16],
    version: [u8; 16],
    attempt: U32,
    spare: U32,
    number: U64,
    hash: [u8; 32],
    lengths: [U32; 3],
    crcs: [U32; 3],
    tail: [u8; 12],
    header_crc: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LENGTH);
const _: () = assert!((HEADER_LENGTH as u64).is_multiple_of(ALIGNMENT));

/// A place in a volume's segments; later frames have greater places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// The byte in it.
    pub offset: u64,
}

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeId,
}

/// What the frames of one volume on one store have in common. The seal goes into every header's
/// checksum, so that a tenant cannot upload bytes that look like a frame: it does not know it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Whose frames they are.
    pub owner: Owner,
    /// Random bytes from the volume's superblock.
    pub seal: [u8; 16],
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.owner.fmt(f)
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The first frame of a segment; its public part names the store and what the segment is for.
    SegmentStart,
    /// A record of the log: public part, wrapped key, erasable part.
    Record {
        /// Its position in the log.
        lsn: Lsn,
        /// Its chain hash.
        chain: Hash,
    },
    /// One leaf of an upload, in the erasable part.
    Leaf {
        /// The upload.
        upload: UploadId,
        /// The leaf's index.
        index: u64,
        /// The leaf's hash in the tree of the sealed object.
        hash: [u8; 32],
    },
    /// Every record above `last` that stands before this frame is cut off.
    Cut {
        /// The last record that stays.
        last: Lsn,
    },
    /// The epoch the store promised and what it remembers of its membership (public part).
    HardState,
    /// Erasing of the targets in the public part begins: from here their bytes are neither a hole
    /// nor a source.
    EraseBegin,
    /// Erasing of the targets in the public part is complete and synced.
    EraseDone,
    /// The leaf frames at the places in the public part were found torn and do not count.
    Discard,
}

impl Content {
    fn kind(&self) -> u8 {
        match self {
            Content::SegmentStart => 1,
            Content::Record { .. } => 2,
            Content::Leaf { .. } => 3,
            Content::Cut { .. } => 4,
            Content::HardState => 5,
            Content::EraseBegin => 6,
            Content::EraseDone => 7,
            Content::Discard => 8,
        }
    }
}

/// A parsed frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the frame stands.
    pub position: Position,
    /// Whose it is.
    pub owner: Owner,
    /// The highest epoch the store had promised when it wrote the frame.
    pub epoch: Epoch,
    /// The committed point the store knew; a lower bound.
    pub committed: Lsn,
    /// Everything before this place was durable when the frame was written.
    pub synced: Position,
    /// First half of the hash of the frame before this one ([`link`]).
    pub previous: [u8; 16],
    /// What the frame holds.
    pub content: Content,
    /// Lengths of the parts: public, wrapped key, erasable.
    pub lengths: [usize; 3],
    /// CRC-32 of each part as it was written.
    pub crcs: [u32; 3],
}

/// Bytes that are not the frame they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame begins here.
    #[error("no frame begins here")]
    Magic,
    /// Written by another version of the format.
    #[error("frame format {got} is not known to this version, which knows {FORMAT}")]
    Format {
        /// The format found.
        got: u8,
    },
    /// The header's checksum does not match.
    #[error("the frame header's CRC does not match")]
    HeaderCrc,
    /// A header field has a value that no writer produces.
    #[error("the frame header's {field} is out of range")]
    Field {
        /// Which field.
        field: &'static str,
    },
    /// A valid frame that belongs to another place.
    #[error("the frame says it stands at {got:?}, but was read at {expected:?}")]
    Misplaced {
        /// Where it says it stands.
        got: Position,
        /// Where it was read.
        expected: Position,
    },
    /// A valid frame of another volume.
    #[error("the frame belongs to {got:?}, expected {expected:?}")]
    Foreign {
        /// Whose it says it is.
        got: Owner,
        /// Whose it should be.
        expected: Owner,
    },
    /// A part's checksum does not match.
    #[error("the frame's {part} does not match its CRC")]
    PartCrc {
        /// Which part.
        part: &'static str,
    },
}

/// The names of a frame's parts, in order.
pub const PART_NAMES: [&str; 3] = ["public part", "wrapped key", "erasable part"];

impl Header {
    /// Bytes of header and parts, without the padding to the next frame.
    pub fn length(&self) -> usize {
        HEADER_LENGTH + self.lengths.iter().sum::<usize>()
    }

    /// Where the next frame begins.
    pub fn end(&self) -> u64 {
        self.position.offset + padded(self.length() as u64)
    }

    /// Offset of a part from the frame's start.
    pub fn part_offset(&self, part: usize) -> usize {
        HEADER_LENGTH + self.lengths[..part].iter().sum::<usize>()
    }

    /// Checks one part's bytes.
    pub fn check_part(&self, part: usize, bytes: &[u8]) -> Result<(), FrameError> {
        if bytes.len() == self.lengths[part] && crc32fast::hash(bytes) == self.crcs[part] {
            Ok(())
        } else {
            Err(FrameError::PartCrc { part: PART_NAMES[part] })
        }
    }

    /// The header's bytes.
    pub fn encode(&self, seal: &[u8; 16]) -> [u8; HEADER_LENGTH] {
        let mut raw = RawHeader {
            magic: MAGIC,
            format: FORMAT,
            kind: self.content.kind(),
            reserved: U16::ZERO,
            segment: U64::new(self.position.segment),
            offset: U64::new(self.position.offset),
            tenant: U64::new(self.owner.tenant.0),
            volume: U64::new(self.owner.volume.0),
            epoch: U64::new(self.epoch.0),
            committed: U64::new(self.committed.0),
            synced_segment: U64::new(self.synced.segment),
            synced_offset: U64::new(self.synced.offset),
            previous: self.previous,
            version: [0; 16],
            attempt: U32::ZERO,
            spare: U32::ZERO,
            number: U64::ZERO,
            hash: [0; 32],
            lengths: self.lengths.map(|length| U32::new(length as u32)),
            crcs: self.crcs.map(U32::new),
            tail: [0; 12],
            header_crc: U32::ZERO,
        };
        match self.content {
            Content::Record { lsn, chain } => {
                raw.number = U64::new(lsn.0);
                raw.hash = chain.0;
            }
            Content::Leaf { upload, index, hash } => {
                raw.version = upload.version.0;
                raw.attempt = U32::new(upload.attempt);
                raw.number = U64::new(index);
                raw.hash = hash;
            }
            Content::Cut { last } => raw.number = U64::new(last.0),
            _ => {}
        }
        let mut bytes: [u8; HEADER_LENGTH] = zerocopy::transmute!(raw);
        let crc = sealed_crc(&bytes, seal);
        bytes[HEADER_LENGTH - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Parses a header and checks that it stands where it was read and belongs to `scope`.
    pub fn parse(bytes: &[u8], at: Position, scope: &Scope) -> Result<Header, FrameError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| FrameError::Magic)?;
        if raw.magic != MAGIC {
            return Err(FrameError::Magic);
        }
        if sealed_crc(raw.as_bytes(), &scope.seal) != raw.header_crc.get() {
            return Err(FrameError::HeaderCrc);
        }
        if raw.format != FORMAT {
            return Err(FrameError::Format { got: raw.format });
        }
        let header = Header::from_raw(raw)?;
        if header.owner != scope.owner {
            return Err(FrameError::Foreign { got: header.owner, expected: scope.owner });
        }
        if header.position != at {
            return Err(FrameError::Misplaced { got: header.position, expected: at });
        }
        Ok(header)
    }

    fn from_raw(raw: &RawHeader) -> Result<Header, FrameError> {
        let lengths = raw.lengths.map(|length| length.get() as usize);
        if lengths.iter().any(|length| *length > PART_MAX) {
            return Err(FrameError::Field { field: "length" });
        }
        Ok(Header {
            position: Position { segment: raw.segment.get(), offset: raw.offset.get() },
            owner: Owner { tenant: TenantId(raw.tenant.get()), volume: VolumeId(raw.volume.get()) },
            epoch: Epoch(raw.epoch.get()),
            committed: Lsn(raw.committed.get()),
            synced: Position { segment: raw.synced_segment.get(), offset: raw.synced_offset.get() },
            previous: raw.previous,
            content: content_of(raw)?,
            lengths,
            crcs: raw.crcs.map(U32::get),
        })
    }
}

fn content_of(raw: &RawHeader) -> Result<Content, FrameError> {
    let number = raw.number.get();
    Ok(match raw.kind {
        1 => Content::SegmentStart,
        2 => Content::Record { lsn: Lsn(number), chain: Hash(raw.hash) },
        3 => Content::Leaf {
            upload: UploadId { version: VersionId(raw.version), attempt: raw.attempt.get() },
            index: number,
            hash: raw.hash,
        },
        4 => Content::Cut { last: Lsn(number) },
        5 => Content::HardState,
        6 => Content::EraseBegin,
        7 => Content::EraseDone,
        8 => Content::Discard,
        _ => return Err(FrameError::Field { field: "kind" }),
    })
}

fn sealed_crc(header: &[u8], seal: &[u8; 16]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..HEADER_LENGTH - 4]);
    hasher.update(seal);
    hasher.finalize()
}

/// What the next frame names as its predecessor: the first half of the header's hash.
pub fn link(header: &[u8; HEADER_LENGTH]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(header).as_bytes()[..16]);
    half
}

/// `length` rounded up to where the next frame may begin.
pub fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            position: Position { segment: 7, offset: 4096 },
            owner: Owner { tenant: TenantId(1), volume: VolumeId(2) },
            epoch: Epoch(3),
            committed: Lsn(4),
            synced: Position { segment: 6, offset: 128 },
            previous: [0xAB; 16],
            content: Content::Leaf {
                upload: UploadId { version: VersionId([0xCD; 16]), attempt: 5 },
                index: 6,
                hash: [0xEF; 32],
            },
            lengths: [0, 0, 65_536],
            crcs: [0, 0, 0x1234_5678],
        }
    }

    const SEAL: [u8; 16] = *b"0123456789abcdef";

    fn scope() -> Scope {
        Scope { owner: sample().owner, seal: SEAL }
    }

    fn parse(bytes: &[u8]) -> Result<Header, FrameError> {
        Header::parse(bytes, sample().position, &scope())
    }

    #[test]
    fn a_frame_header_has_its_golden_bytes() {
        let golden = concat!(
            "5452465301030000070000000000000000100000000000000100000000000000",
            "0200000000000000030000000000000004000000000000000600000000000000",
            "8000000000000000ababababababababababababababababcdcdcdcdcdcdcdcd",
            "cdcdcdcdcdcdcdcd05000000000000000600000000000000efefefefefefefef",
            "efefefefefefefefefefefefefefefefefefefefefefefef0000000000000000",
            "00000100000000000000000078563412000000000000000000000000e0debf9a",
        );
        let hex: String = sample().encode(&SEAL).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn a_header_survives_its_codec() {
        assert_eq!(parse(&sample().encode(&SEAL)), Ok(sample()));
    }

    #[test]
    fn r007_every_flipped_bit_of_a_header_is_found() {
        let bytes = sample().encode(&SEAL);
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&wrong).is_err(), "bit {bit}");
        }
        for length in 0..HEADER_LENGTH {
            assert!(parse(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn r005_a_frame_of_another_place_segment_or_volume_is_refused() {
        let bytes = sample().encode(&SEAL);
        let position = sample().position;
        let elsewhere = Position { offset: position.offset + 64, ..position };
        let other_segment = Position { segment: 8, ..position };
        let mut other_volume = scope();
        other_volume.owner.volume = VolumeId(9);
        for at in [elsewhere, other_segment] {
            let refused = Header::parse(&bytes, at, &scope());
            assert!(matches!(refused, Err(FrameError::Misplaced { .. })));
        }
        let refused = Header::parse(&bytes, position, &other_volume);
        assert!(matches!(refused, Err(FrameError::Foreign { .. })));
    }

    #[test]
    fn a_frame_under_another_seal_is_not_a_frame() {
        let forged = sample().encode(b"fedcba9876543210");
        assert_eq!(parse(&forged), Err(FrameError::HeaderCrc));
    }
}
