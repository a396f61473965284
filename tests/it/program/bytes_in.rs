//! Looks for bytes in bytes.

/// Whether `sought`, of eight bytes or more, stands anywhere in `bytes`.
pub(super) fn holds(bytes: &[u8], sought: &[u8]) -> bool {
    let head = u64::from_le_bytes(sought[..8].try_into().expect("eight bytes"));
    bytes.windows(sought.len()).any(|window| {
        u64::from_le_bytes(window[..8].try_into().expect("eight bytes")) == head && window == sought
    })
}
