//! Reads what webpki does not tell about a leaf certificate: every URI name it carries and whether
//! its key may sign.
//!
//! This walks the DER of a certificate that webpki has already parsed and verified, or is about to
//! refuse. It decides nothing; bytes it cannot follow are [`LeafError`], never a panic.

const TAG_BIT_STRING: u8 = 0x03;
const TAG_OCTET_STRING: u8 = 0x04;
const TAG_OID: u8 = 0x06;
const TAG_SEQUENCE: u8 = 0x30;
/// `[3] EXPLICIT`, the extensions of a to-be-signed certificate.
const TAG_EXTENSIONS: u8 = 0xa3;
/// `[6] IMPLICIT IA5String`, a URI among the alternative names.
const TAG_URI: u8 = 0x86;

/// 2.5.29.15, key usage.
const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// 2.5.29.17, subject alternative name.
const OID_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The first bit of the key usage, `digitalSignature`.
const DIGITAL_SIGNATURE: u8 = 0x80;

/// What a leaf certificate says beside its signature, chain, validity and purpose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaf<'a> {
    /// Every URI among the alternative names, in order, as raw bytes.
    pub(crate) uris: Vec<&'a [u8]>,
    /// The key usage extension is there and allows digital signatures.
    pub(crate) may_sign: bool,
}

/// The bytes are no certificate this reader can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate: {what} is not where it should be")]
pub(crate) struct LeafError {
    /// The part of the certificate that was expected next.
    what: &'static str,
}

impl<'a> Leaf<'a> {
    /// Reads a DER certificate.
    pub(crate) fn read(certificate: &'a [u8]) -> Result<Self, LeafError> {
        let mut outer = Reader(certificate);
        let mut body = Reader(outer.expect(TAG_SEQUENCE, "certificate")?);
        let mut signed = Reader(body.expect(TAG_SEQUENCE, "signed part")?);
        let mut leaf = Self::default();
        while let Some((tag, value)) = signed.next("field")? {
            if tag == TAG_EXTENSIONS {
                leaf.read_extensions(value)?;
            }
        }
        Ok(leaf)
    }

    fn read_extensions(&mut self, explicit: &'a [u8]) -> Result<(), LeafError> {
        let mut extensions = Reader(Reader(explicit).expect(TAG_SEQUENCE, "extensions")?);
        while let Some((_, extension)) = extensions.next("extension")? {
            let mut fields = Reader(extension);
            let oid = fields.expect(TAG_OID, "extension id")?;
            let value = fields.find(TAG_OCTET_STRING, "extension value")?;
            match oid {
                OID_KEY_USAGE => self.may_sign = may_sign(value)?,
                OID_ALTERNATIVE_NAME => self.read_alternative_names(value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_alternative_names(&mut self, value: &'a [u8]) -> Result<(), LeafError> {
        let mut names = Reader(Reader(value).expect(TAG_SEQUENCE, "alternative names")?);
        while let Some((tag, name)) = names.next("alternative name")? {
            if tag == TAG_URI {
                self.uris.push(name);
            }
        }
        Ok(())
    }
}

fn may_sign(value: &[u8]) -> Result<bool, LeafError> {
    let bits = Reader(value).expect(TAG_BIT_STRING, "key usage")?;
    // The first byte counts the unused bits at the end.
    Ok(bits.get(1).is_some_and(|first| first & DIGITAL_SIGNATURE != 0))
}

/// The rest of a DER value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element's tag and value, or `None` at the end.
    fn next(&mut self, what: &'static str) -> Result<Option<(u8, &'a [u8])>, LeafError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.element().map(Some).ok_or(LeafError { what })
    }

    /// The value of the next element, which must have this tag.
    fn expect(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], LeafError> {
        match self.next(what)? {
            Some((found, value)) if found == tag => Ok(value),
            _ => Err(LeafError { what }),
        }
    }

    /// The value of the first element with this tag.
    fn find(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], LeafError> {
        while let Some((found, value)) = self.next(what)? {
            if found == tag {
                return Ok(value);
            }
        }
        Err(LeafError { what })
    }

    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (length, rest) = read_length(rest)?;
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }
}

/// A DER length: one byte below 128, or a count of up to four big-endian bytes.
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let length = digits
        .iter()
        .try_fold(0_usize, |length, digit| length.checked_mul(256)?.checked_add(usize::from(*digit)))?;
    Some((length, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Leaf::read(&bytes);
        }
    }

    #[test]
    fn a_certificate_without_extensions_has_no_names_and_may_not_sign() {
        let empty_body = [0x30, 0x02, 0x30, 0x00];
        assert_eq!(Leaf::read(&empty_body), Ok(Leaf::default()));
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        assert!(Leaf::read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00]).is_err());
    }
}
