//! Attempts: each is one chance to seal one stream of bytes, with a data key and a salt of its own.
//!
//! A retry either sends the identical sealed bytes again or begins a new attempt. There is no third way: an [`Attempt`]
//! is neither copied nor taken apart, and [`Sealer::begin`](super::Sealer::begin) consumes it.

use super::header::{Identity, ObjectIdentity};
use super::keys::Dek;
use crate::entropy::Entropy;

/// Numbers the attempts to write one version.
#[derive(Debug)]
pub struct Attempts {
    object: ObjectIdentity,
    next: u32,
}

impl Attempts {
    /// No attempt yet.
    #[must_use]
    pub fn new(object: ObjectIdentity) -> Self {
        Self { object, next: 0 }
    }

    /// The next attempt, with a fresh data key and salt.
    ///
    /// # Panics
    /// After 2^32 - 1 attempts.
    pub fn begin(&mut self, entropy: &mut dyn Entropy) -> Attempt {
        let identity = Identity { object: self.object, attempt: self.next };
        self.next = self.next.checked_add(1).expect("no version is attempted 2^32 times");
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        Attempt { identity, dek: Dek::random(entropy), salt }
    }
}

/// One attempt: it can be sealed once.
///
/// ```compile_fail,E0382
/// # use trefoil_client::seal::*;
/// fn reseal(attempt: Attempt, key: &TenantKey, counter: &mut WrapCounter) {
///     let first = Sealer::begin(attempt, key, counter, ChunkLen::DEFAULT);
///     let other_bytes = Sealer::begin(attempt, key, counter, ChunkLen::DEFAULT);
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use trefoil_client::seal::*;
/// fn copy(attempt: &Attempt) -> Attempt {
///     Attempt::clone(attempt)
/// }
/// ```
#[derive(Debug)]
pub struct Attempt {
    pub(crate) identity: Identity,
    pub(crate) dek: Dek,
    pub(crate) salt: [u8; 32],
}

impl Attempt {
    /// What its sealed object will be bound to.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }
}
