//! Whether the disk gets on with what was asked of it. A store with a long queue is busy; one whose queue
//! does not move is stuck, and nobody should wait for it.

use std::time::Duration;

use trefoil_protocol::time::BootTime;

/// A disk that finishes nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The flushes that the disk threads have not finished.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushes {
    under_way: usize,
    moved_at: BootTime,
}

impl Flushes {
    /// So many more were asked for.
    pub(crate) fn begun(&mut self, count: usize, now: BootTime) {
        if self.under_way == 0 {
            self.moved_at = now;
        }
        self.under_way += count;
    }

    /// One is finished.
    pub(crate) fn ended(&mut self, now: BootTime) {
        self.under_way = self.under_way.saturating_sub(1);
        self.moved_at = now;
    }

    /// Whether something was finished lately, or nothing is waited for.
    pub(crate) fn move_on(self, now: BootTime) -> bool {
        self.under_way == 0 || now.since(self.moved_at) < STUCK_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_long_queue_that_moves_is_no_stuck_disk() {
        let mut flushes = Flushes::default();
        assert!(flushes.move_on(at(100)), "nothing is waited for");
        flushes.begun(1000, at(100));
        assert!(flushes.move_on(at(101)));
        assert!(!flushes.move_on(at(102)));
        flushes.ended(at(103));
        assert!(flushes.move_on(at(104)));
    }
}
