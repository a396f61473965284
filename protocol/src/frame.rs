//! The header that opens every frame on a stream: what follows, and how long it is.
//!
//! A frame is `header ‖ body ‖ bulk`: the body is an encoded message, the bulk is payload that is
//! handed on without being parsed. The header is 16 bytes, little-endian:
//!
//! | offset | bytes | field       | rule                                  |
//! |-------:|------:|-------------|---------------------------------------|
//! |      0 |     4 | magic       | `TRF1`                                |
//! |      4 |     2 | version     | [`FRAME_VERSION`]                     |
//! |      6 |     2 | flags       | reserved, zero                        |
//! |      8 |     4 | body length | at most [`BODY_BYTES_MAX`]            |
//! |     12 |     4 | bulk length | at most [`BULK_BYTES_MAX`]            |
//!
//! Nothing here may allocate or trust a length: a header comes from a peer, and every field that
//! is not exactly as it must be is an error that says where, what came and what was expected.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::{Layout, layout};

/// The first four bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"TRF1";

/// The only version of the header in use.
pub const FRAME_VERSION: u16 = 1;

/// Length of an encoded header in bytes.
pub const FRAME_HEADER_BYTES: usize = 16;

/// The longest body a frame may carry: 1 MiB.
pub const BODY_BYTES_MAX: u32 = 1 << 20;

/// The longest bulk a frame may carry: 4 MiB.
pub const BULK_BYTES_MAX: u32 = 4 << 20;

/// The lengths of a frame's two parts; holding one proves that both are within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    body_bytes: u32,
    bulk_bytes: u32,
}

/// Why sixteen bytes are no frame header, or why a frame may not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameHeaderError {
    /// The first four bytes are not `TRF1`: the peer speaks something else or the stream slipped.
    #[error("frame header at byte 0: magic is {got:02x?}, expected {FRAME_MAGIC:02x?} (TRF1)")]
    Magic {
        /// The bytes found.
        got: [u8; 4],
    },
    /// A header version this program does not know.
    #[error("frame header at byte 4: version is {got}, expected {FRAME_VERSION}")]
    Version {
        /// The version found.
        got: u16,
    },
    /// Reserved flags are set.
    #[error("frame header at byte 6: reserved flags are {got:#06x}, expected 0")]
    Flags {
        /// The flags found.
        got: u16,
    },
    /// The body is longer than a frame may carry.
    #[error("frame header at byte 8: body of {got} bytes, expected at most {BODY_BYTES_MAX}")]
    BodyTooLong {
        /// The length found.
        got: u64,
    },
    /// The bulk is longer than a frame may carry.
    #[error("frame header at byte 12: bulk of {got} bytes, expected at most {BULK_BYTES_MAX}")]
    BulkTooLong {
        /// The length found.
        got: u64,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFrameHeader {
    magic: [u8; 4],
    version: U16,
    flags: U16,
    body_length: U32,
    bulk_length: U32,
}

const _: () = assert!(size_of::<RawFrameHeader>() == FRAME_HEADER_BYTES);

/// Where the fields of a frame header lie.
pub const FRAME_LAYOUT: Layout = layout!(RawFrameHeader { magic, version, flags, body_length, bulk_length });

impl FrameHeader {
    /// A header for a body and a bulk of these lengths in bytes.
    ///
    /// # Errors
    /// When one of them is longer than a frame may carry.
    pub fn new(body_bytes: usize, bulk_bytes: usize) -> Result<Self, FrameHeaderError> {
        Ok(Self {
            body_bytes: within(body_bytes as u64, BODY_BYTES_MAX)
                .ok_or(FrameHeaderError::BodyTooLong { got: body_bytes as u64 })?,
            bulk_bytes: within(bulk_bytes as u64, BULK_BYTES_MAX)
                .ok_or(FrameHeaderError::BulkTooLong { got: bulk_bytes as u64 })?,
        })
    }

    /// Length of the body in bytes.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes as usize
    }

    /// Length of the bulk in bytes.
    pub fn bulk_bytes(&self) -> usize {
        self.bulk_bytes as usize
    }

    /// The sixteen bytes that open the frame.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let raw = RawFrameHeader {
            magic: FRAME_MAGIC,
            version: U16::new(FRAME_VERSION),
            flags: U16::new(0),
            body_length: U32::new(self.body_bytes),
            bulk_length: U32::new(self.bulk_bytes),
        };
        zerocopy::transmute!(raw)
    }

    /// Parses a header that came from a peer.
    ///
    /// # Errors
    /// The first field, in order, that is not as the table above says.
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameHeaderError> {
        let raw: RawFrameHeader = zerocopy::transmute!(bytes);
        if raw.magic != FRAME_MAGIC {
            return Err(FrameHeaderError::Magic { got: raw.magic });
        }
        if raw.version.get() != FRAME_VERSION {
            return Err(FrameHeaderError::Version { got: raw.version.get() });
        }
        if raw.flags.get() != 0 {
            return Err(FrameHeaderError::Flags { got: raw.flags.get() });
        }
        Self::new(raw.body_length.get() as usize, raw.bulk_length.get() as usize)
    }
}

fn within(length: u64, limit: u32) -> Option<u32> {
    u32::try_from(length).ok().filter(|length| *length <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_has_its_documented_bytes() {
        let header = FrameHeader::new(0x0102, 0x030405).expect("both lengths are allowed");
        assert_eq!(header.encode(), [b'T', b'R', b'F', b'1', 1, 0, 0, 0, 2, 1, 0, 0, 5, 4, 3, 0]);
    }

    #[test]
    fn the_format_page_says_the_same() {
        let page = include_str!("../../docs/wire-format.md");
        let golden = FrameHeader::new(258, 197_637).expect("both lengths are allowed").encode();
        let golden = golden.map(|byte| format!("{byte:02x}")).join(" ");
        for expected in [
            format!("258 bytes with a bulk of 197637 bytes begins `{golden}`"),
            format!("| 4 | 2 | version | {FRAME_VERSION} |"),
            format!("| 8 | 4 | body length | at most {BODY_BYTES_MAX} |"),
            format!("| 12 | 4 | bulk length | at most {BULK_BYTES_MAX} |"),
        ] {
            assert!(page.contains(&expected), "docs/wire-format.md lacks: {expected}");
        }
    }

    #[test]
    fn a_part_one_byte_too_long_is_refused_with_its_length() {
        let body = BODY_BYTES_MAX as usize + 1;
        let bulk = BULK_BYTES_MAX as usize + 1;
        assert_eq!(FrameHeader::new(body, 0), Err(FrameHeaderError::BodyTooLong { got: body as u64 }));
        assert_eq!(FrameHeader::new(0, bulk), Err(FrameHeaderError::BulkTooLong { got: bulk as u64 }));
        assert!(FrameHeader::new(body - 1, bulk - 1).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(body in 0..=BODY_BYTES_MAX, bulk in 0..=BULK_BYTES_MAX) {
            let header = FrameHeader::new(body as usize, bulk as usize).expect("within limits");
            prop_assert_eq!(FrameHeader::decode(header.encode()), Ok(header));
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_header_that_encodes_to_them(bytes: [u8; 16]) {
            if let Ok(header) = FrameHeader::decode(bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }

        #[test]
        fn one_wrong_byte_names_its_field(at in 0_usize..8, flip in 1_u8..) {
            let mut bytes = FrameHeader::new(7, 9).expect("within limits").encode();
            bytes[at] ^= flip;
            let error = FrameHeader::decode(bytes).expect_err("one byte is wrong");
            let text = error.to_string();
            prop_assert!(text.contains("expected"), "{}", text);
        }
    }
}
