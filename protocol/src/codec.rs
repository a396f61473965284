//! CBOR as Trefoil uses it: numbered fields, unknown fields skipped, `Bytes` as byte strings, and
//! nothing allocated beyond a small multiple of what the input holds.
//!
//! Whatever comes in is walked once before it is decoded: a value of indefinite length, a tag, a float
//! or nesting that no message has is refused there, so that no decoder behind it can be driven into
//! deep recursion or long skips. Limits of single lists, texts and byte strings stand at the fields,
//! through [`list`], [`text`] and [`bytes::decode_limited`].

use minicbor::decode::{Decoder, Error};
use minicbor::{Decode, Encode};

/// How deep a value may be nested. The deepest message, a certificate in an answer, needs half of it.
pub const DEPTH_MAX: usize = 32;

/// Encodes a value.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

/// Decodes a value that fills `bytes` exactly.
pub fn from_slice<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Error> {
    if end_of_value(bytes)? != bytes.len() {
        return Err(Error::message("bytes left over behind the value"));
    }
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(Error::message("the value ends before its bytes do"));
    }
    Ok(value)
}

/// Decodes a list of at most `MAX` values.
pub fn list<'b, const MAX: usize, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, Error> {
    let at = d.position();
    let count = d.array()?.ok_or_else(|| Error::message("a list of indefinite length").at(at))?;
    if count > MAX as u64 {
        return Err(Error::message(format!("a list of {count}, at most {MAX} are allowed")).at(at));
    }
    (0..count).map(|_| d.decode_with(ctx)).collect()
}

/// Decodes a text of at most `MAX` bytes.
pub fn text<const MAX: usize, C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, Error> {
    let at = d.position();
    let text = d.str()?;
    if text.len() > MAX {
        return Err(
            Error::message(format!("a text of {} bytes, at most {MAX} are allowed", text.len())).at(at)
        );
    }
    Ok(text.to_owned())
}

/// Where the first value in `bytes` ends, if it has the form that every value of ours has.
fn end_of_value(bytes: &[u8]) -> Result<usize, Error> {
    let mut open: Vec<u64> = Vec::with_capacity(DEPTH_MAX);
    let mut at = 0;
    loop {
        let head = Head::read(bytes, at)?;
        at = head.end;
        match head.items {
            0 => {
                while let Some(left) = open.last_mut() {
                    *left -= 1;
                    if *left > 0 {
                        break;
                    }
                    open.pop();
                }
                if open.is_empty() {
                    return Ok(at);
                }
            }
            _ if open.len() == DEPTH_MAX => {
                return Err(Error::message(format!("nested deeper than {DEPTH_MAX}")).at(at));
            }
            items => open.push(items),
        }
    }
}

/// The head of a CBOR item, and its string if it has one.
struct Head {
    /// How many items it holds.
    items: u64,
    /// Where the next item begins.
    end: usize,
}

impl Head {
    fn read(bytes: &[u8], at: usize) -> Result<Self, Error> {
        let first = *bytes.get(at).ok_or_else(Error::end_of_input)?;
        let wrong = |what: &'static str| Err(Error::message(what).at(at));
        let (argument, end) = match first & 0x1f {
            value @ 0..=23 => (u64::from(value), at + 1),
            size @ 24..=27 => {
                let end = at + 1 + (1 << (size - 24));
                let number = bytes.get(at + 1..end).ok_or_else(Error::end_of_input)?;
                (number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), end)
            }
            31 => return wrong("an item of indefinite length"),
            _ => return wrong("an item of no known length"),
        };
        let rest = (bytes.len() - end) as u64;
        match first >> 5 {
            0 | 1 => Ok(Self { items: 0, end }),
            2 | 3 if argument <= rest => Ok(Self { items: 0, end: end + argument as usize }),
            4 if argument <= rest => Ok(Self { items: argument, end }),
            5 if argument <= rest / 2 => Ok(Self { items: 2 * argument, end }),
            2..=5 => Err(Error::end_of_input().at(at)),
            6 => wrong("a tag"),
            _ if matches!(first, 0xf4..=0xf6) => Ok(Self { items: 0, end }),
            _ => wrong("a simple value that is neither a truth value nor null"),
        }
    }
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

    /// Reads a byte string of at most `MAX` bytes.
    pub fn decode_limited<const MAX: usize, C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        let at = d.position();
        let bytes = d.bytes()?;
        if bytes.len() > MAX {
            let text = format!("a byte string of {}, at most {MAX} bytes are allowed", bytes.len());
            return Err(DecodeError::message(text).at(at));
        }
        Ok(Bytes::copy_from_slice(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        end_of_value(bytes).expect_err("not of our form").to_string()
    }

    #[test]
    fn a_value_ends_where_its_bytes_end() {
        for value in [&[0x00][..], &[0x82, 0x01, 0x41, 0x07], &[0xa1, 0x01, 0x80], &[0x19, 1, 0], &[0xf6]] {
            assert_eq!(end_of_value(value).unwrap(), value.len());
            for length in 0..value.len() {
                assert!(end_of_value(&value[..length]).is_err());
            }
        }
        assert!(from_slice::<u64>(&[1, 1]).unwrap_err().to_string().contains("left over"));
    }

    #[test]
    fn what_no_message_has_is_refused() {
        for (bytes, reason) in [
            (&[0x9f, 0xff][..], "indefinite"),
            (&[0x5f, 0x41, 0x07, 0xff], "indefinite"),
            (&[0xc1, 0x01], "a tag"),
            (&[0xf9, 0, 0], "simple value"),
            (&[0x1c], "no known length"),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "end of input"),
            (&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "end of input"),
            (&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "end of input"),
            (&[0x81; 1000], "nested deeper"),
        ] {
            assert!(refusal(bytes).contains(reason), "{}", refusal(bytes));
        }
    }

    #[test]
    fn a_list_says_how_many_it_may_hold() {
        let numbers = to_vec(&vec![1_u8, 2, 3]);
        let read = |bytes| list::<2, (), u8>(&mut Decoder::new(bytes), &mut ());
        assert!(read(&numbers).unwrap_err().to_string().contains("at most 2"));
        assert_eq!(read(&to_vec(&vec![1_u8, 2])).unwrap(), [1, 2]);
    }
}
