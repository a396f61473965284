//! How many wraps of data keys a client keeps at hand. Their counters come from the custodian, who may
//! be out of reach while the control plane changes its leader: whoever asks for more only when it has
//! none left waits for that with everything it writes.

use std::time::Duration;

use trefoil_protocol::time::BootTime;

/// Use is counted in spans of this length; what was used in this one and the one before is kept at hand.
/// One span alone is several times as long as an election takes.
const SPAN: Duration = Duration::from_secs(5);

/// As many are always wanted: half of what the custodian gives at once.
const LEAST: u64 = 512;

/// More are never wanted.
const MOST: u64 = 1 << 17;

/// Counts the wraps that are used.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    span_began: BootTime,
    used: u64,
    used_before: u64,
}

impl Stock {
    /// Nothing was used yet.
    pub fn new(now: BootTime) -> Self {
        Self { span_began: now, used: 0, used_before: 0 }
    }

    /// One was used.
    pub fn note(&mut self, now: BootTime) {
        self.turn(now);
        self.used += 1;
    }

    /// Whether another block should be asked for, with so many left.
    pub fn is_short(&mut self, left: u64, now: BootTime) -> bool {
        self.turn(now);
        left < (self.used + self.used_before).clamp(LEAST, MOST)
    }

    fn turn(&mut self, now: BootTime) {
        let elapsed = now.since(self.span_began);
        if elapsed >= SPAN {
            self.used_before = if elapsed < 2 * SPAN { self.used } else { 0 };
            self.used = 0;
            self.span_began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    #[test]
    fn as_much_is_kept_as_was_used_lately() {
        let mut stock = Stock::new(at(0));
        assert!(stock.is_short(LEAST - 1, at(0)) && !stock.is_short(LEAST, at(0)));
        for millis in 0..4_000 {
            stock.note(at(millis));
        }
        assert!(stock.is_short(3_999, at(4_000)) && !stock.is_short(4_000, at(4_000)));
        assert!(stock.is_short(3_999, at(9_000)), "of the span before");
        assert!(!stock.is_short(LEAST, at(30_000)), "long ago");
        for _ in 0..MOST + 9 {
            stock.note(at(30_000));
        }
        assert!(!stock.is_short(MOST, at(30_000)));
    }
}
