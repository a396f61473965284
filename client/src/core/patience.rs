//! How long to wait, and how long to rest between two tries.

use std::time::Duration;

/// The times of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After this long without success or progress, the operation gives up.
    pub deadline: Duration,
    /// A peer that is silent for this long is given up at first; twice as long each further time.
    pub silence_first: Duration,
    /// The longest a peer may be silent.
    pub silence_max: Duration,
    /// The first rest between two tries; twice as long each further time.
    pub rest_first: Duration,
    /// The longest rest.
    pub rest_max: Duration,
    /// How long a mutation that ran out of time may take to learn its outcome.
    pub outcome: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            silence_first: Duration::from_secs(3),
            silence_max: Duration::from_secs(15),
            rest_first: Duration::from_millis(20),
            rest_max: Duration::from_secs(1),
            outcome: Duration::from_secs(10),
        }
    }
}

/// Spreads the tries of many clients. Fed with one random number, it needs no other source; it must
/// never be used for keys.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A spread from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Between half of `length` and all of it. SplitMix64 (Steele, Lea, Flood 2014).
    pub fn spread(&mut self, length: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let half = length / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(mixed % nanos.max(1))
    }
}

/// A length of time that doubles up to a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubling {
    next: Duration,
    max: Duration,
}

impl Doubling {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    pub(super) fn current(&self) -> Duration {
        self.next
    }

    pub(super) fn grow(&mut self) {
        self.next = (self.next * 2).min(self.max);
    }
}
