//! How many retries a client may send: fewer than one for ten requests, in the long run. A cluster that has too much to
//! do gets little more from clients that try again; the others wait for their turn.
//!
//! What costs: an ask after one that was refused because there was too much, that was not answered in time,
//! or whose stream broke. To follow a volume to its new primary costs nothing.

use std::time::Duration;

use trefoil_protocol::time::BootTime;

/// One retry for so many requests: with those that are there at first, still less than a tenth.
const REQUESTS_PER_RETRY: i64 = 12;
/// Retries that a client may send before it has asked much.
const SAVED_FIRST: i64 = 10;
/// Retries that may be saved up.
const SAVED_MAX: i64 = 100;
/// Retries that may be owed.
const OWED_MAX: i64 = 100;
/// Without anything saved, one retry is sent so often all the same, and is owed: a client that only waits
/// for what it asked would ask nothing new.
const ANYWAY_EVERY: Duration = Duration::from_secs(1);

/// The retries of one client, whichever of its operations they are for.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// In shares of a retry: a request saves one, a retry costs [`REQUESTS_PER_RETRY`]; owed if negative.
    saved: i64,
    last: Option<BootTime>,
    requests: u64,
    retries: u64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { saved: SAVED_FIRST * REQUESTS_PER_RETRY, last: None, requests: 0, retries: 0 }
    }
}

impl RetryBudget {
    /// A request was sent for the first time.
    pub(super) fn requested(&mut self) {
        self.requests += 1;
        self.saved = (self.saved + 1).min(SAVED_MAX * REQUESTS_PER_RETRY);
    }

    /// Takes one retry.
    ///
    /// # Errors
    /// When to ask again for it at the latest.
    pub(super) fn take(&mut self, now: BootTime) -> Result<(), BootTime> {
        let anyway_at = self.last.map_or(now, |last| last + ANYWAY_EVERY);
        if self.saved < REQUESTS_PER_RETRY && now < anyway_at {
            return Err(anyway_at);
        }
        self.saved = (self.saved - REQUESTS_PER_RETRY).max(-OWED_MAX * REQUESTS_PER_RETRY);
        self.last = Some(now);
        self.retries += 1;
        Ok(())
    }

    /// How many requests were sent, each counted once.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// How many retries were sent that cost something.
    pub fn retries(&self) -> u64 {
        self.retries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    #[test]
    fn r049_retries_are_a_tenth_of_the_requests_however_many_are_wanted() {
        let mut budget = RetryBudget::default();
        for millis in 0..100_000 {
            if millis % 10 == 0 {
                budget.requested();
            }
            let _ = budget.take(at(millis));
        }
        assert_eq!(budget.requests(), 10_000);
        assert!((800..=1_000).contains(&budget.retries()), "{}", budget.retries());
    }

    #[test]
    fn who_asks_nothing_new_still_tries_once_a_second() {
        let mut budget = RetryBudget::default();
        let sent = |budget: &mut RetryBudget, from: u64, to: u64| {
            (from..to).filter(|millis| budget.take(at(*millis)).is_ok()).count()
        };
        assert_eq!(sent(&mut budget, 0, 1000), SAVED_FIRST as usize);
        assert_eq!(sent(&mut budget, 1000, 11_000), 10);
        assert_eq!(budget.take(at(11_000)), Err(at(11_009)));
    }
}
