//! Three of something: one for each copy of an object. A place that needs three copies takes a
//! `Triple`, so that two or four cannot be passed.

use minicbor::{Decode, Encode};

/// Exactly three values, the first one for the first copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Triple<T>(#[n(0)] pub [T; 3]);

impl<T> Triple<T> {
    /// The first copy's value.
    pub fn first(&self) -> &T {
        &self.0[0]
    }

    /// All three in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Applies `f` to each.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Triple<U> {
        Triple(self.0.map(f))
    }
}
