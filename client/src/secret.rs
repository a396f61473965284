//! Key bytes in memory: overwritten when dropped, never printed, never copied by accident.
//!
//! A secret lives behind one heap pointer from its making to its drop, so that moving it leaves no copy on a stack. It
//! must never gain `Clone`, `PartialEq`, or any form of encoding; the foot of this file holds that at compile time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes in place.
    pub fn filled_by(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// A secret with these bytes. The caller's copy stays the caller's to wipe.
    #[must_use]
    pub fn copy_of(bytes: &[u8; N]) -> Self {
        Self::filled_by(|place| place.copy_from_slice(bytes))
    }

    /// The bytes, for a primitive that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Whether both hold the same bytes, in time that does not depend on them.
    #[must_use]
    pub fn is_equal(&self, other: &Self) -> bool {
        is_equal(&*self.0, &*other.0)
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Compares two byte strings in time that depends on their lengths alone.
#[must_use]
pub fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Fails to compile when `$secret` implements `$forbidden`: the call then has two candidates to choose from.
#[cfg(test)]
macro_rules! assert_never_implements {
    ($secret:ty: $($forbidden:path),+) => {
        $(const _: fn() = || {
            trait Candidate<A> {
                fn choose() {}
            }
            impl<T: ?Sized> Candidate<()> for T {}
            struct Forbidden;
            impl<T: ?Sized + $forbidden> Candidate<Forbidden> for T {}
            let _ = <$secret as Candidate<_>>::choose;
        };)+
    };
}
#[cfg(test)]
pub(crate) use assert_never_implements;

#[cfg(test)]
mod tests {
    use super::*;

    assert_never_implements!(Secret<32>: Clone, PartialEq, AsRef<[u8]>, std::fmt::Display, minicbor::Encode<()>);

    #[test]
    fn r088_debug_of_a_secret_is_a_constant() {
        let (one, other) = (Secret::copy_of(&[1; 32]), Secret::copy_of(&[2; 32]));
        assert_eq!(format!("{one:?}"), "Secret(..)");
        assert_eq!(format!("{one:?}"), format!("{other:#?}"));
    }

    #[test]
    fn secrets_compare_by_their_bytes() {
        let secret = Secret::copy_of(&[1; 32]);
        assert!(secret.is_equal(&Secret::copy_of(&[1; 32])));
        assert!(!secret.is_equal(&Secret::copy_of(&[2; 32])));
        assert!(!is_equal(&[0; 3], &[0; 4]));
    }
}
