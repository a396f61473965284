//! Each node's own idea of time, derived from true time: a boot clock with a rate error and a
//! wall clock that an operator or a broken time server may move.
//!
//! Leases are counted on boot clocks, so their rate error is what the protocol's drift bound must
//! cover. The wall clock exists to be wrong: no decision may depend on it.

pub use trefoil_drill::SuspendedClock;

use crate::random::{Draws, Stream};

const MILLION: u128 = 1_000_000;

/// What a node reads from its clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeTime {
    /// Nanoseconds since the machine booted (suspended time included).
    pub boot: u64,
    /// Nanoseconds since the Unix epoch, as far as this node believes.
    pub wall: u64,
}

/// The clocks of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    rate_ppm: i32,
    anchor_true: u64,
    anchor_boot: u64,
    wall_ahead: i128,
    stopped_since: Option<u64>,
}

impl Clock {
    /// A clock that reads `boot` at true time zero and gains `rate_ppm` microseconds per second.
    ///
    /// # Panics
    /// If the clock would run backwards.
    #[must_use]
    pub fn new(rate_ppm: i32, boot: u64) -> Self {
        assert!(rate_ppm > -1_000_000, "a boot clock never runs backwards");
        // Simulated runs begin on 1 January 2026; any date would do.
        let wall_ahead = 1_767_225_600_000_000_000 - i128::from(boot);
        Self { rate_ppm, anchor_true: 0, anchor_boot: boot, wall_ahead, stopped_since: None }
    }

    /// The clock of a node as its keyed stream draws it: rate within the bound, up to a week
    /// since boot.
    #[must_use]
    pub fn drawn(seed: u64, node: u64, rate_ppm_max: u32) -> Self {
        let mut draws = Draws::new(seed, Stream::Clock, node);
        let bound = i32::try_from(rate_ppm_max).expect("a rate bound is far below 2^31 ppm");
        let rate = draws.between(0, 2 * u64::from(rate_ppm_max));
        let rate = i32::try_from(rate).expect("twice the bound fits") - bound;
        Self::new(rate, draws.below(7 * 24 * 3_600 * crate::kernel::SECOND))
    }

    /// What the node reads at a moment of true time.
    #[must_use]
    pub fn read(&self, true_time: u64) -> NodeTime {
        let running_until = self.stopped_since.map_or(true_time, |since| since.min(true_time));
        let elapsed = u128::from(running_until.saturating_sub(self.anchor_true));
        let boot = u128::from(self.anchor_boot) + elapsed * self.pace() / MILLION;
        let boot = u64::try_from(boot).expect("a simulated run ends centuries before 2^64 ns");
        let wall = u64::try_from(i128::from(boot) + self.wall_ahead).unwrap_or(0);
        NodeTime { boot, wall }
    }

    /// The first moment of true time at which the boot clock reads at least `boot`.
    #[must_use]
    pub fn true_time_of(&self, boot: u64) -> u64 {
        let ahead = u128::from(boot.saturating_sub(self.anchor_boot));
        let elapsed = (ahead * MILLION).div_ceil(self.pace());
        self.anchor_true.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Changes the rate from `true_time` on, without a step.
    pub fn set_rate(&mut self, true_time: u64, rate_ppm: i32) {
        assert!(rate_ppm > -1_000_000, "a boot clock never runs backwards");
        self.anchor_boot = self.read(true_time).boot;
        self.anchor_true = true_time;
        self.rate_ppm = rate_ppm;
    }

    /// Moves the wall clock, forward or back. The boot clock does not notice.
    pub fn jump_wall(&mut self, by_ns: i64) {
        self.wall_ahead += i128::from(by_ns);
    }

    /// The machine is suspended.
    pub fn suspend(&mut self, true_time: u64, clock: SuspendedClock) {
        if clock == SuspendedClock::Stops {
            self.stopped_since.get_or_insert(true_time);
        }
    }

    /// The machine goes on.
    pub fn resume(&mut self, true_time: u64) {
        if self.stopped_since.is_some() {
            self.anchor_boot = self.read(true_time).boot;
            self.anchor_true = true_time;
            self.stopped_since = None;
        }
    }

    /// The machine boots anew: its boot clock begins again, its wall clock does not.
    pub fn reboot(&mut self, true_time: u64) {
        self.resume(true_time);
        let before = self.read(true_time);
        self.anchor_true = true_time;
        self.anchor_boot = 0;
        self.wall_ahead += i128::from(before.boot);
    }

    fn pace(&self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.rate_ppm)).expect("checked when it was set")
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, SuspendedClock};
    use crate::kernel::SECOND;

    #[test]
    fn a_fast_clock_gains_its_rate() {
        let clock = Clock::new(200, 5 * SECOND);
        assert_eq!(clock.read(10 * SECOND).boot, 15 * SECOND + 2_000_000);
    }

    #[test]
    fn a_timer_is_never_early_and_never_late_by_more_than_rounding() {
        for rate in [-200, 0, 1, 200, 50_000] {
            let clock = Clock::new(rate, 77);
            for boot in [78, 1_000_003, 3 * SECOND + 1] {
                let due = clock.true_time_of(boot);
                assert!(clock.read(due).boot >= boot);
                assert!(clock.read(due - 1).boot < boot);
            }
        }
    }

    #[test]
    fn a_hidden_suspend_stops_the_boot_clock_and_an_honest_one_does_not() {
        let (mut hidden, mut honest) = (Clock::new(0, 0), Clock::new(0, 0));
        hidden.suspend(SECOND, SuspendedClock::Stops);
        honest.suspend(SECOND, SuspendedClock::RunsOn);
        for clock in [&mut hidden, &mut honest] {
            clock.resume(4 * SECOND);
        }
        assert_eq!(hidden.read(5 * SECOND).boot, 2 * SECOND);
        assert_eq!(honest.read(5 * SECOND).boot, 5 * SECOND);
    }

    #[test]
    fn wall_jumps_and_reboots_move_one_clock_each() {
        let mut clock = Clock::new(0, 9 * SECOND);
        let before = clock.read(SECOND);
        clock.jump_wall(-3_600_000_000_000);
        assert_eq!(clock.read(SECOND).boot, before.boot);
        assert_eq!(clock.read(SECOND).wall, before.wall - 3_600 * SECOND);
        clock.reboot(SECOND);
        assert_eq!(clock.read(2 * SECOND).boot, SECOND);
        assert_eq!(clock.read(SECOND).wall, before.wall - 3_600 * SECOND);
    }
}
