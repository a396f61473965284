//! The names of things: small, copyable, totally ordered, printable. Every other type in the
//! workspace refers to tenants, nodes, volumes and versions by these and by nothing else.
//!
//! An identifier never carries meaning beyond identity: no time, no location, no secret.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

/// A text that is not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct InvalidId {
    /// What was being parsed, e.g. `node id`.
    pub kind: &'static str,
    /// The offending text, shortened.
    pub text: String,
    /// What is allowed.
    pub reason: &'static str,
}

impl InvalidId {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        let text = text.chars().take(64).collect();
        Self { kind, text, reason }
    }
}

const SHORT_NAME_RULE: &str = "1 to 15 of a-z, 0-9 and `-`";

/// Up to fifteen characters of `a-z`, `0-9` and `-`, kept inline so that it copies freely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortName([u8; 16]);

impl ShortName {
    /// The longest name in bytes.
    pub const LENGTH_MAX: usize = 15;

    fn parse(kind: &'static str, text: &str) -> Result<Self, InvalidId> {
        let bytes = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if bytes.is_empty() || bytes.len() > Self::LENGTH_MAX || !bytes.iter().all(allowed) {
            return Err(InvalidId::new(kind, text, SHORT_NAME_RULE));
        }
        let mut name = [0; 16];
        name[..bytes.len()].copy_from_slice(bytes);
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|b| *b == 0).unwrap_or(16);
        std::str::from_utf8(&self.0[..length]).expect("parsed from ASCII")
    }
}

macro_rules! named_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ShortName);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                ShortName::parse($kind, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                e.str(self.as_str())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                d.str()?.parse().map_err(|_| DecodeError::message(concat!("invalid ", $kind)))
            }
        }
    };
}

named_id!(
    /// A process of the cluster that holds data or configuration, e.g. `a1`.
    NodeId,
    "node id"
);
named_id!(
    /// A data centre, e.g. `a`.
    DcId,
    "data centre id"
);
named_id!(
    /// A rack or other failure domain inside a data centre.
    RackId,
    "rack id"
);
named_id!(
    /// The name a tenant was created under. Names may be used again after a tenant is erased; ids
    /// are not.
    TenantName,
    "tenant name"
);
named_id!(
    /// A named operator.
    OperatorId,
    "operator id"
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self).map_err(|_| {
                    InvalidId::new(stringify!($name), text, "a decimal number below 2^64")
                })
            }
        }
    };
}

number_id!(
    /// A voter of the control plane's log; follows from its name.
    VoterId
);
number_id!(
    /// A tenant. Given out by the control plane, never used again.
    TenantId
);
number_id!(
    /// A person or service of a tenant.
    PrincipalId
);
number_id!(
    /// A shard of one tenant's objects: the unit of placement, replication, failover and purge.
    VolumeId
);
number_id!(
    /// The fencing number of a volume's configuration. Every change of configuration raises it.
    Epoch
);
number_id!(
    /// The position of a record in its volume's log; the first record has 1, 0 is "none".
    Lsn
);
number_id!(
    /// The position of a command in the control plane's log.
    ConfigIndex
);
number_id!(
    /// One run of a storage node process over one store; raised by the control plane at each start.
    Incarnation
);
number_id!(
    /// A signed permission to purge.
    OrderId
);

impl Epoch {
    /// The next fencing number. The last one stays: it can only come from a peer that made it up.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl ConfigIndex {
    /// The position that follows. The last one stays: it can only come from a peer that made it up.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before; the first stays.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Lsn {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The position that follows. The last one stays: it can only come from a peer that made it up.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before; [`Lsn::ZERO`] stays.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let wrong = || InvalidId::new(stringify!($name), text, concat!($length, " bytes in hexadecimal"));
                let mut bytes = [0; $length];
                if text.len() != 2 * $length || !text.is_ascii() {
                    return Err(wrong());
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                let bytes = d.bytes()?.try_into();
                bytes.map(Self).map_err(|_| DecodeError::message(concat!(stringify!($name), " of a wrong length")))
            }
        }
    };
}

bytes_id!(
    /// One formatted disk. A store that lost its data comes back under a new id.
    StoreId,
    16
);
bytes_id!(
    /// One version of one object: random bits chosen by the client that wrote it.
    VersionId,
    16
);
bytes_id!(
    /// One running client; scopes its idempotency tokens.
    ClientInstance,
    16
);
bytes_id!(
    /// A 32-byte blake3 hash, always of ciphertext or of public structure, never of plaintext.
    Hash,
    32
);
bytes_id!(
    /// A keyed hash of an object's name under a key that only the tenant has; it outlives the name
    /// so that a purge can be followed after the name is erased.
    NameTag,
    16
);
bytes_id!(
    /// An Ed25519 public key.
    PublicKey,
    32
);

impl VoterId {
    /// The voter of this name. A name is given once: whoever lost its log comes back under another.
    pub fn of(name: NodeId) -> Self {
        let hash = blake3::hash(name.as_str().as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        // Zero means nobody to the log's library.
        Self(u64::from_le_bytes(*first) | 1)
    }
}

impl Hash {
    /// The hash of nothing before the first record of a log.
    pub const ZERO: Self = Self([0; 32]);
}

/// One attempt to upload the bytes of one version. Other bytes need another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct UploadId {
    /// The version the bytes are meant for.
    #[n(0)]
    pub version: VersionId,
    /// The attempt's number, from 0.
    #[n(1)]
    pub attempt: u32,
}

/// Makes one mutation happen at most once, whatever is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Token {
    /// The client that speaks.
    #[n(0)]
    pub instance: ClientInstance,
    /// Its count of mutations, from 1.
    #[n(1)]
    pub sequence: u64,
}

/// One of the two cross connections between the data centres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LinkId {
    /// Link `1`.
    #[n(1)]
    One,
    /// Link `2`.
    #[n(2)]
    Two,
}

impl LinkId {
    /// Both links.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The link's number as operators write it.
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The other one of the two.
    pub fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        assert_eq!("a1".parse::<NodeId>().unwrap().to_string(), "a1");
        for bad in ["", "A1", "0123456789abcdef", "a_1", "ä"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn byte_ids_survive_text_and_cbor() {
        let id = VersionId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<VersionId>().unwrap(), id);
        let bytes = minicbor::to_vec(id).unwrap();
        assert_eq!(minicbor::decode::<VersionId>(&bytes).unwrap(), id);
        assert!(minicbor::decode::<StoreId>(&[0x41, 7]).is_err());
        assert!("zz".repeat(16).parse::<VersionId>().is_err());
    }
}
