//! How long this store's disk takes for its work, however much that is: the time in which flushes were under
//! way, for each operation and each 64 KiB of what they made durable. A disk that has too much to do makes
//! everybody wait and takes no longer for each piece; one that is slow does.
//!
//! It measures only. What is slow is decided by the control plane, which can compare.

use std::collections::VecDeque;
use std::time::Duration;

use trefoil_protocol::time::BootTime;

use crate::event::Spent;
use crate::yielding::{OPERATION, Work};

/// What is older says nothing.
const SECONDS: usize = 10;
/// A flush that waited for its turn longer than this came to a crowd.
const LONG: Duration = Duration::from_millis(100);
/// One in so many of them, and how long a piece of work takes from without says nothing of the store.
const CROWD: u64 = 4;

/// What was done in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    flushes: u64,
    waited_long: u64,
    took: Duration,
    work: Work,
}

/// What was done lately.
#[derive(Debug, Default)]
pub(crate) struct WorkRate(VecDeque<Second>);

impl WorkRate {
    /// A flush ended.
    pub(crate) fn flushed(&mut self, spent: Spent, now: BootTime) {
        let second = self.second(now);
        second.flushes += 1;
        second.waited_long += u64::from(spent.waited > LONG);
        second.took += spent.took;
        second.work.add(Work::one(spent.bytes));
    }

    /// Whether there is more to do than the disk can, so that work waits.
    pub(crate) fn is_crowded(&self, now: BootTime) -> bool {
        let flushes: u64 = self.recent(now).map(|second| second.flushes).sum();
        let waited_long: u64 = self.recent(now).map(|second| second.waited_long).sum();
        waited_long > 0 && waited_long * CROWD >= flushes
    }

    /// Microseconds for an operation, or for 64 KiB.
    pub(crate) fn micros(&self, now: BootTime) -> Option<u32> {
        let took: Duration = self.recent(now).map(|second| second.took).sum();
        let weight: u64 = self.recent(now).map(|second| second.work.weight()).sum();
        let micros = took.as_micros() * u128::from(OPERATION) / u128::from((weight > 0).then_some(weight)?);
        Some(u32::try_from(micros).unwrap_or(u32::MAX))
    }

    fn recent(&self, now: BootTime) -> impl Iterator<Item = &Second> {
        let first = second_of(now).saturating_sub(SECONDS as u64 - 1);
        self.0.iter().filter(move |second| second.number >= first)
    }

    fn second(&mut self, now: BootTime) -> &mut Second {
        let number = second_of(now);
        if self.0.back().is_none_or(|last| last.number != number) {
            if self.0.len() >= SECONDS {
                self.0.pop_front();
            }
            self.0.push_back(Second { number, ..Second::default() });
        }
        self.0.back_mut().expect("it was pushed if there was none")
    }
}

fn second_of(now: BootTime) -> u64 {
    now.0 / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    /// A disk that does a job in `operation` milliseconds and a MiB in as many times 8, and has so many jobs in
    /// a row for ten seconds, each with so many bytes.
    fn measured(operation: u64, in_a_row: u64, bytes: u64) -> (bool, u32) {
        let mut rate = WorkRate::default();
        let took = operation * 1_000 + operation * 8_000 * bytes / (1 << 20);
        let took = Duration::from_micros(took);
        for millis in 0..10_000 {
            if millis % 100 == 0 {
                let waited = took * u32::try_from(in_a_row - 1).unwrap();
                rate.flushed(Spent { waited, took, bytes }, at(millis));
            }
        }
        (rate.is_crowded(at(9_999)), rate.micros(at(9_999)).unwrap())
    }

    #[test]
    fn r047_a_loaded_disk_is_crowded_and_takes_no_longer_for_a_piece_of_work() {
        let idle = measured(2, 1, 1024);
        let loaded = measured(2, 50, 300_000);
        assert!(!idle.0 && loaded.0);
        assert!(loaded.1 <= idle.1 && idle.1 < 2_100, "{idle:?} and {loaded:?}");
    }

    #[test]
    fn r047_a_slow_disk_takes_longer_for_a_piece_of_work_whatever_it_has_to_do() {
        for (in_a_row, bytes) in [(1, 1024), (50, 300_000)] {
            let (well, slow) = (measured(2, in_a_row, bytes).1, measured(40, in_a_row, bytes).1);
            assert!(slow > 15 * well, "{slow} and {well}");
        }
    }

    #[test]
    fn few_long_waits_and_old_ones_are_no_crowd() {
        let mut rate = WorkRate::default();
        let spent = |millis| Spent { waited: Duration::from_millis(millis), took: Duration::ZERO, bytes: 0 };
        assert!(!rate.is_crowded(at(0)) && rate.micros(at(0)).is_none());
        rate.flushed(spent(500), at(0));
        assert!(rate.is_crowded(at(9_000)));
        (0..4).for_each(|_| rate.flushed(spent(20), at(1_000)));
        assert!(!rate.is_crowded(at(1_000)));
        assert!(rate.micros(at(20_000)).is_none());
    }
}
