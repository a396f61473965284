//! Keyed randomness: every draw is a pure function of (seed, stream, entity, counter).
//!
//! It exists so that removing one consumer of randomness (a fault, a client, a link) shifts no
//! draw of any other: a shrunk plan keeps meeting the same world. Nothing here may use floating
//! point (its results differ between optimisation levels), system time or the system's entropy.

/// What a draw is for. Each purpose is a world of its own; none ever shifts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Stream {
    /// Which operation a client does next, on which key, with how many bytes.
    Workload = 1,
    /// Delay, loss, duplication of messages on a link.
    Link = 2,
    /// Which un-synced sectors survive a crash, how long a sync takes.
    Disk = 3,
    /// Rates and offsets of the nodes' clocks.
    Clock = 4,
    /// Which of several events at one instant comes first.
    Sched = 5,
    /// Which faults strike, whom and when.
    FaultPlan = 6,
    /// What a node's core asks for: election time-outs, identifiers, jitter.
    NodeInternal = 7,
    /// How far disk threads were when their process died.
    BrokenWork = 8,
    /// When a starved process stands still, and for how long.
    Starvation = 9,
}

/// One draw: 64 bits that depend on all four arguments and on nothing else.
#[must_use]
pub const fn prf(seed: u64, stream: Stream, entity: u64, counter: u64) -> u64 {
    let keyed = mix(seed ^ mix((stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let owned = mix(keyed ^ entity.wrapping_mul(0xd6e8_feb8_6659_fd93));
    mix(owned.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The draws of one consumer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draws {
    seed: u64,
    stream: Stream,
    entity: u64,
    counter: u64,
}

impl Draws {
    /// The draws of `entity` (a client, a directed link, a disk, a node's incarnation) in `stream`.
    #[must_use]
    pub const fn new(seed: u64, stream: Stream, entity: u64) -> Self {
        Self { seed, stream, entity, counter: 0 }
    }

    /// How many draws were taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.counter
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        let drawn = prf(self.seed, self.stream, self.entity, self.counter);
        self.counter += 1;
        drawn
    }

    /// A number in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is zero: there is nothing to choose from.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a draw needs at least one outcome");
        // The bias of the multiply-shift is below 2^-32 for every bound used here.
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a 128-bit product fits 64 bits")
    }

    /// A number in `low..=high`.
    ///
    /// # Panics
    /// If `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an interval has its low end first");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next(),
        }
    }

    /// True with probability `per_million` / 1 000 000. Always takes one draw, so that a change
    /// of probability shifts nothing.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// An exponentially distributed length with the given mean, in integers only: minus the
    /// logarithm of a uniform draw, interpolated linearly between powers of two.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        const LN_2_Q32: u128 = 2_977_044_472;
        let uniform = self.next() | 1;
        let zeros = uniform.leading_zeros();
        let mantissa = (uniform << zeros) & (u64::MAX >> 1);
        // -log2(uniform / 2^64), as a fixed-point number with 32 fraction bits.
        let log2_q32 = (u128::from(zeros + 1) << 32) - u128::from(mantissa >> 31);
        let scaled = (u128::from(mean) * log2_q32 * LN_2_Q32) >> 64;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// One of the items, or nothing from nothing.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).expect("a slice's length fits 64 bits");
        if count == 0 {
            return None;
        }
        let index = usize::try_from(self.below(count)).expect("an index below a length fits");
        items.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::{Draws, Stream, prf};

    #[test]
    fn a_draw_depends_on_each_of_its_four_keys() {
        let base = prf(1, Stream::Link, 2, 3);
        assert_eq!(base, prf(1, Stream::Link, 2, 3));
        assert_ne!(base, prf(2, Stream::Link, 2, 3));
        assert_ne!(base, prf(1, Stream::Disk, 2, 3));
        assert_ne!(base, prf(1, Stream::Link, 3, 3));
        assert_ne!(base, prf(1, Stream::Link, 2, 4));
    }

    #[test]
    fn one_consumer_never_shifts_another() {
        let mut lonely = Draws::new(7, Stream::Workload, 1);
        let alone: Vec<u64> = (0..8).map(|_| lonely.next()).collect();
        let mut first = Draws::new(7, Stream::Workload, 1);
        let mut second = Draws::new(7, Stream::Workload, 2);
        let beside: Vec<u64> = (0..8)
            .map(|_| {
                second.next();
                first.next()
            })
            .collect();
        assert_eq!(alone, beside);
    }

    #[test]
    fn distributions_have_their_means() {
        let mut draws = Draws::new(3, Stream::Link, 9);
        let total: u64 = (0..20_000).map(|_| draws.exponential(1_000_000)).sum();
        let mean = total / 20_000;
        assert!((920_000..1_080_000).contains(&mean), "the mean was {mean}");
        let hits = (0..20_000).filter(|_| draws.chance(250_000)).count();
        assert!((4_700..5_300).contains(&hits), "one in four came {hits} times");
        assert!((0..1_000).all(|_| (5..=9).contains(&draws.between(5, 9))));
    }
}
