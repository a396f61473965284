//! Where random bytes come from: handed in, so that the simulator can seed them.
//!
//! Nothing in this crate may reach for randomness in any other way. A source that repeats itself breaks every key made
//! from it, so production has one source, the operating system.

/// A source of random bytes.
pub trait Entropy {
    /// Fills `bytes` with fresh random bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[cfg(feature = "shell")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

#[cfg(feature = "shell")]
impl Entropy for OsEntropy {
    /// # Panics
    /// When the operating system has no random bytes to give: no key may be made without them.
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system's generator answers");
    }
}
