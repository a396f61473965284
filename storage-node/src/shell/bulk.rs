//! A frame's bulk is one run of bytes; the core gives it in parts.

use bytes::{Bytes, BytesMut};

/// One part passes as it is; several are copied together.
pub(super) fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}
