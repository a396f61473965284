//! Where the fields of a fixed header lie, taken from the struct that is read and written, so that a
//! byte table in the docs can be held against it.

/// The fields of a fixed header in their order.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Each field's name and the byte at which it begins.
    pub fields: &'static [(&'static str, usize)],
    /// Length of the header in bytes; the last field ends here.
    pub length: usize,
}

/// The [`Layout`] of a `repr(C)` struct without padding.
macro_rules! layout {
    ($header:ty { $($field:ident),+ $(,)? }) => {
        $crate::layout::Layout {
            fields: &[$((stringify!($field), std::mem::offset_of!($header, $field))),+],
            length: size_of::<$header>(),
        }
    };
}

pub(crate) use layout;
