//! The discrete-event kernel: virtual time, the event queue and the running trace hash.
//!
//! An event's place in the queue is (time, keyed tie, sequence), so that events at one instant are
//! explored in every order and never first-in-first-out by accident. Every event that is taken,
//! and every decision that somebody reports, enters a 128-bit hash: two runs are the same run when
//! and only when their hashes are equal. The kernel knows nothing of nodes, disks or messages.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

pub use trefoil_drill::{MICROSECOND, MILLISECOND, SECOND};

use crate::random::{Stream, prf};
use crate::trace::{Trace, TraceSummary, Traced};

/// Names a scheduled event, so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(u64);

/// Who scheduled an event. Ties are drawn per origin, so that one origin's events more or fewer
/// move nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(pub u64);

/// An event with its place in the queue.
#[derive(Debug)]
struct Scheduled<E> {
    at: u64,
    tie: u64,
    sequence: u64,
    event: E,
}

impl<E> Scheduled<E> {
    fn key(&self) -> (u64, u64, u64) {
        (self.at, self.tie, self.sequence)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    /// Reversed, because `BinaryHeap` gives the greatest first and we want the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// The event queue, the clock of true time, and the trace.
#[derive(Debug)]
pub struct Kernel<E> {
    seed: u64,
    now: u64,
    sequence: u64,
    scheduled_by: BTreeMap<Origin, u64>,
    queue: BinaryHeap<Scheduled<E>>,
    cancelled: BTreeSet<u64>,
    trace: Trace,
}

impl<E: Traced> Kernel<E> {
    /// An empty kernel at time zero.
    #[must_use]
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self {
            seed,
            now: 0,
            sequence: 0,
            scheduled_by: BTreeMap::new(),
            queue: BinaryHeap::new(),
            cancelled: BTreeSet::new(),
            trace,
        }
    }

    /// The seed that every keyed stream of this run is derived from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// True time in nanoseconds since the run began. No node sees it; checkers do.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Puts an event at a time that is not yet past; an earlier one is due now.
    pub fn schedule(&mut self, at: u64, origin: Origin, event: E) -> EventId {
        let sequence = self.sequence;
        self.sequence += 1;
        let counter = self.scheduled_by.entry(origin).or_default();
        let tie = prf(self.seed, Stream::Sched, origin.0, *counter);
        *counter += 1;
        let at = at.max(self.now);
        self.queue.push(Scheduled { at, tie, sequence, event });
        EventId(sequence)
    }

    /// Takes an event out of the queue again. The event must still be in it: cancelling one that
    /// was delivered would leave its mark behind for ever.
    pub fn cancel(&mut self, id: EventId) {
        self.cancelled.insert(id.0);
    }

    /// The next event, if one is due up to and including `until`; time moves to it.
    pub fn next_until(&mut self, until: u64) -> Option<E> {
        loop {
            if self.queue.peek()?.at > until {
                self.now = self.now.max(until);
                return None;
            }
            let due = self.queue.pop()?;
            if !self.cancelled.is_empty() && self.cancelled.remove(&due.sequence) {
                continue;
            }
            self.now = due.at;
            self.trace.event(due.at, due.tie, &due.event);
            return Some(due.event);
        }
    }

    /// Reports a decision that is not an event (a drawn delay, a torn sector, a drop), so that two
    /// runs which differ in it have different hashes.
    pub fn decide(&mut self, label: &'static str, value: u64) {
        self.trace.decision(self.now, label, value);
    }

    /// How many events wait, cancelled ones included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many events were taken.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.trace.events()
    }

    /// Closes the trace and gives its hash.
    pub fn finish(self) -> TraceSummary {
        self.trace.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Origin};
    use crate::trace::{Digest, Trace, Traced};

    #[derive(Debug)]
    struct Number(u64);

    impl Traced for Number {
        fn digest(&self, digest: &mut Digest) {
            digest.word(self.0);
        }
    }

    fn order_of(seed: u64) -> Vec<u64> {
        let mut kernel = Kernel::new(seed, Trace::silent());
        for number in 0..16 {
            kernel.schedule(5, Origin(number % 3), Number(number));
        }
        std::iter::from_fn(|| kernel.next_until(10).map(|taken| taken.0)).collect()
    }

    #[test]
    fn time_goes_forward_and_ties_are_explored() {
        assert_eq!(order_of(1), order_of(1));
        assert_ne!(order_of(1), order_of(2));
        assert_ne!(order_of(1), (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn a_cancelled_event_never_comes_and_time_stops_at_the_horizon() {
        let mut kernel = Kernel::new(1, Trace::silent());
        let doomed = kernel.schedule(1, Origin(0), Number(1));
        kernel.schedule(2, Origin(0), Number(2));
        kernel.schedule(9, Origin(0), Number(3));
        kernel.cancel(doomed);
        assert_eq!(kernel.next_until(5).map(|taken| taken.0), Some(2));
        assert!(kernel.next_until(5).is_none());
        assert_eq!((kernel.now(), kernel.events()), (5, 1));
    }

    #[test]
    fn a_decision_changes_the_hash() {
        let plain = Kernel::<Number>::new(1, Trace::silent()).finish();
        let mut kernel = Kernel::<Number>::new(1, Trace::silent());
        kernel.decide("drop", 1);
        assert_ne!(kernel.finish().hash, plain.hash);
    }
}
