//! CBOR as Trefoil uses it: numbered fields, unknown fields skipped, `Bytes` as byte strings, and
//! nothing allocated beyond what the input holds.

use minicbor::{Decode, Encode};

/// Encodes a value.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

/// Decodes a value that fills `bytes` exactly.
pub fn from_slice<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(minicbor::decode::Error::message("bytes left over behind the value"));
    }
    Ok(value)
}

/// `Bytes` as a CBOR byte string.
pub mod bytes {
    use bytes::Bytes;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    /// Writes the byte string.
    pub fn encode<C, W: Write>(
        value: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(value)?.ok()
    }

    /// Reads the byte string.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        d.bytes().map(Bytes::copy_from_slice)
    }
}

/// `Option<Bytes>` as a CBOR byte string or null.
pub mod optional_bytes {
    use bytes::Bytes;
    use minicbor::data::Type;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    /// Writes the byte string or null.
    pub fn encode<C, W: Write>(
        value: &Option<Bytes>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(bytes) => e.bytes(bytes)?.ok(),
            None => e.null()?.ok(),
        }
    }

    /// Reads the byte string or null.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Option<Bytes>, DecodeError> {
        if d.datatype()? == Type::Null {
            return d.null().map(|()| None);
        }
        d.bytes().map(|bytes| Some(Bytes::copy_from_slice(bytes)))
    }
}
