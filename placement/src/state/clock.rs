//! The control plane's clock. It advances by ticks in the log and by nothing else; each tick is at
//! most what its leader's boot clock measured since the tick before, and never more than
//! [`TICK_MAX`], so that no reading of any one clock can end a window.

use std::time::Duration;

use minicbor::{Decode, Encode};
use trefoil_protocol::time::{CpTime, Millis};

/// How often a leader ticks.
pub const TICK_EVERY: Duration = Duration::from_millis(500);

/// The most that one tick adds. A leader that was busy or asleep for longer makes windows longer.
pub const TICK_MAX: Millis = Millis(2_000);

const _: () = assert!(TICK_MAX.0 as u128 >= TICK_EVERY.as_millis());

/// The clock on which delete windows run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ClusterClock {
    #[n(0)]
    now: CpTime,
}

impl ClusterClock {
    /// The time.
    pub fn now(&self) -> CpTime {
        self.now
    }

    pub(super) fn advance(&mut self, by: Millis) {
        self.now = self.now + Duration::from(by.min(TICK_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tick_adds_no_more_than_its_limit() {
        let mut clock = ClusterClock::default();
        clock.advance(Millis(365 * 24 * 3600 * 1000));
        assert_eq!(clock.now(), CpTime(TICK_MAX.0));
        clock.advance(Millis(0));
        assert_eq!(clock.now(), CpTime(TICK_MAX.0));
    }
}
