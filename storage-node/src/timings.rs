//! How long stores take for their work, as this node sees it: medians over the last few pieces of work,
//! of probes and of acknowledgements apart. What is slow is decided by the control plane, which can
//! compare; nothing is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trefoil_protocol::ids::StoreId;
use trefoil_protocol::message::control::{StoreTiming, TIMINGS_MAX};
use trefoil_protocol::time::BootTime;

/// So many of the last pieces of work count.
const KEPT: usize = 9;
/// Fewer say nothing.
const LEAST: usize = 3;
/// What is older says nothing.
const AGE_MAX: Duration = Duration::from_secs(10);

/// The last pieces of work of one kind at one store.
#[derive(Clone, Debug, Default)]
struct Window(VecDeque<(BootTime, Duration)>);

impl Window {
    fn note(&mut self, took: Duration, now: BootTime) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, took));
    }

    /// The lower median, with `open`, what is under way for longer than usual.
    fn median(&self, open: &[Duration], now: BootTime) -> Option<u32> {
        let recent = self.0.iter().filter(|(at, _)| now.since(*at) <= AGE_MAX).map(|(_, took)| *took);
        let mut all: Vec<Duration> = recent.chain(open.iter().copied()).collect();
        all.sort_unstable();
        let middle = (all.len() >= LEAST).then(|| all[(all.len() - 1) / 2])?;
        Some(u32::try_from(middle.as_micros()).unwrap_or(u32::MAX))
    }

    fn is_over(&self, now: BootTime) -> bool {
        self.0.back().is_none_or(|(at, _)| now.since(*at) > AGE_MAX)
    }
}

/// What one store was seen to do.
#[derive(Clone, Debug, Default)]
struct Seen {
    probes: Window,
    acks: Window,
}

/// What all stores were seen to do.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    stores: BTreeMap<StoreId, Seen>,
}

impl Timings {
    /// A probe was answered, or will not be.
    pub(crate) fn probed(&mut self, store: StoreId, took: Duration, now: BootTime) {
        self.stores.entry(store).or_default().probes.note(took, now);
    }

    /// A record was acknowledged.
    pub(crate) fn acknowledged(&mut self, store: StoreId, took: Duration, now: BootTime) {
        self.stores.entry(store).or_default().acks.note(took, now);
    }

    /// What to tell, with the probes that are under way.
    pub(crate) fn report(
        &mut self,
        open: &BTreeMap<StoreId, Vec<Duration>>,
        now: BootTime,
    ) -> Vec<StoreTiming> {
        self.stores.retain(|store, seen| {
            open.contains_key(store) || !(seen.probes.is_over(now) && seen.acks.is_over(now))
        });
        for store in open.keys() {
            self.stores.entry(*store).or_default();
        }
        let timing = |(store, seen): (&StoreId, &Seen)| {
            let open = open.get(store).map_or(&[][..], Vec::as_slice);
            let (probe_us, ack_us) = (seen.probes.median(open, now), seen.acks.median(&[], now));
            (probe_us.is_some() || ack_us.is_some()).then_some(StoreTiming {
                store: *store,
                probe_us,
                ack_us,
                flush_us: None,
                crowded: false,
            })
        };
        self.stores.iter().filter_map(timing).take(TIMINGS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([1; 16]);

    fn at(second: u64) -> BootTime {
        BootTime(second * 1_000_000_000)
    }

    fn probe_us(timings: &mut Timings, open: &[Duration], second: u64) -> Option<u32> {
        let open = BTreeMap::from([(STORE, open.to_vec())]);
        timings.report(&open, at(second)).first().and_then(|timing| timing.probe_us)
    }

    #[test]
    fn one_slow_answer_is_no_median_and_three_of_five_are() {
        let (mut timings, [fast, slow]) = (Timings::default(), [2, 300].map(Duration::from_millis));
        for (second, took) in [fast, fast, slow].into_iter().enumerate() {
            timings.probed(STORE, took, at(second as u64));
        }
        assert_eq!(probe_us(&mut timings, &[], 2), Some(2_000));
        assert_eq!(probe_us(&mut timings, &[slow, slow], 2), Some(300_000), "what is open counts");
    }

    #[test]
    fn few_and_old_pieces_of_work_say_nothing() {
        let mut timings = Timings::default();
        for second in 0..2 {
            timings.probed(STORE, Duration::from_millis(1), at(second));
        }
        assert_eq!(probe_us(&mut timings, &[], 2), None);
        timings.acknowledged(STORE, Duration::from_millis(1), at(2));
        assert_eq!(probe_us(&mut timings, &[], 2), None, "acknowledgements are not probes");
        timings.probed(STORE, Duration::from_millis(1), at(2));
        assert_eq!(probe_us(&mut timings, &[], 2), Some(1_000));
        assert_eq!(probe_us(&mut timings, &[], 13), None);
    }
}
