//! Which stores are slow: nodes tell how long stores took for a small piece of work, and like is compared
//! with like, the same measure on the same kind of way. A store counts as slow when most of those who
//! measured it say so for a while; it is on probation from then on until it was well for longer.
//!
//! Whoever has too much to do is not slow: to take its work away would give the others more. How long work
//! takes there, seen from without, tells how much waits, so it is judged by nothing but how long its disk takes
//! for a piece of work once it begins. And like is compared with like only where the usual is fast.
//!
//! It judges only. What follows is decided where configurations are chosen; nothing here may look at a
//! volume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_protocol::config::NodeEntry;
use trefoil_protocol::ids::{DcId, NodeId, StoreId};
use trefoil_protocol::message::admin::{SlowState, SlowStore};
use trefoil_protocol::message::control::StoreTiming;
use trefoil_protocol::time::{BootTime, Millis};

use crate::caution::Caution;

/// How often a judgement is made.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a node said before counts for so long.
const WORD_AGE_MAX: Duration = Duration::from_secs(3);
/// So many who measured a store must agree; one alone may be slow itself.
const VOTES_LEAST: usize = 2;
/// Acknowledgements carry payload of any length: they must be slower by so many times more.
const ACK_FLOORS: u32 = 5;
/// What is seen on one way alone is waited for longer than what all see.
const WAY_WAITS: f64 = 1.5;
/// From so many measurements on, one more or less moves no median.
const MANY: usize = 64;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Probe,
    Ack,
    /// An operation of the disk, by its own node's word.
    Flush,
}

/// On what kind of way: from which data centre to which, or none, where a node measured its own store.
type Way = (Measure, Option<(DcId, DcId)>);

/// One node's word on one store.
#[derive(Clone, Copy, Debug)]
struct Sight {
    way: Way,
    by: NodeId,
    of: NodeId,
    store: StoreId,
    micros: u32,
}

/// A store that was found to be slow, or may be.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When it was there last.
    there_at: BootTime,
    slow_since: Option<BootTime>,
    good_since: Option<BootTime>,
    /// It was slow for so long that it was put out.
    put_out_at: Option<BootTime>,
    micros: u32,
    usual: u32,
}

/// What this leader knows of the stores' pace; a new one begins anew.
#[derive(Debug, Default)]
pub(crate) struct Health {
    told: BTreeMap<NodeId, (BootTime, Vec<StoreTiming>)>,
    stores: BTreeMap<StoreId, Doubt>,
    /// Stores that one node finds slow, which nobody else does: since when.
    ways: BTreeMap<(NodeId, StoreId), BootTime>,
    /// Those for which that was said for a while, and when last.
    slow_ways: BTreeMap<(NodeId, StoreId), BootTime>,
    looked_at: Option<BootTime>,
}

impl Health {
    /// A node says what it measured.
    pub(crate) fn heard(&mut self, node: NodeId, timings: &[StoreTiming], now: BootTime) {
        self.told.insert(node, (now, timings.to_vec()));
    }

    /// Judges, once a second; whether anything changed. `there` are the nodes that are up and heard.
    pub(crate) fn look<'n>(
        &mut self,
        there: impl Iterator<Item = &'n NodeEntry>,
        caution: &Caution,
        now: BootTime,
    ) -> bool {
        if self.looked_at.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return false;
        }
        self.looked_at = Some(now);
        let there: BTreeMap<StoreId, &NodeEntry> = there.map(|entry| (entry.store, entry)).collect();
        self.told.retain(|_, (at, _)| now.since(*at) <= WORD_AGE_MAX);
        let sights = self.sights(&there);
        let before = (self.put_out(), self.slow_ways.len());
        let complaints = Complaints::of(&sights, self.crowded(&there), caution);
        // A store that is not there is judged by its silence, and comes back as it was. Whoever is slow may be late with a
        // renewal, too: a moment of silence is no reason to begin anew.
        for (store, doubt) in &mut self.stores {
            if there.contains_key(store) {
                doubt.there_at = now;
                continue;
            }
            doubt.good_since = None;
            if now.since(doubt.there_at) > WORD_AGE_MAX {
                doubt.slow_since = None;
            }
        }
        for store in there.keys() {
            self.judge(*store, &complaints, caution, now);
        }
        for store in &complaints.in_a_crowd {
            if let Some(doubt) = self.stores.get_mut(store) {
                (doubt.slow_since, doubt.good_since) = (None, None);
            }
        }
        self.stores.retain(|_, doubt| doubt.slow_since.is_some() || doubt.put_out_at.is_some());
        self.judge_ways(&complaints, caution, now);
        before != (self.put_out(), self.slow_ways.len())
    }

    /// Whether the store was put out and has not been well for long enough since: it gets no role.
    pub(crate) fn is_unfit(&self, store: StoreId) -> bool {
        self.stores.get(&store).is_some_and(|doubt| doubt.put_out_at.is_some())
    }

    /// Whether the store is slow now, and has been for a while.
    pub(crate) fn is_slow(&self, store: StoreId) -> bool {
        let doubt = self.stores.get(&store);
        doubt.is_some_and(|doubt| doubt.put_out_at.is_some() && doubt.slow_since.is_some())
    }

    /// Whether this node has found the store slow for a while, though others do not.
    pub(crate) fn is_slow_from(&self, node: NodeId, store: StoreId) -> bool {
        self.slow_ways.contains_key(&(node, store))
    }

    /// What operators are told.
    pub(crate) fn view<'n>(
        &self,
        nodes: impl Iterator<Item = &'n NodeEntry>,
        now: BootTime,
    ) -> Vec<SlowStore> {
        let nodes: BTreeMap<StoreId, NodeId> = nodes.map(|entry| (entry.store, entry.node)).collect();
        let told = |(store, doubt): (&StoreId, &Doubt)| {
            let (put_out, node) = (doubt.put_out_at?, *nodes.get(store)?);
            let state = if doubt.slow_since.is_some() { SlowState::Slow } else { SlowState::Probation };
            let Doubt { micros, usual, .. } = *doubt;
            let since = Millis::from(now.since(doubt.slow_since.or(doubt.good_since).unwrap_or(put_out)));
            Some(SlowStore { node, store: *store, state, since, took_us: micros, usual_us: usual })
        };
        self.stores.iter().filter_map(told).collect()
    }

    fn put_out(&self) -> Vec<(StoreId, bool)> {
        let out = self.stores.iter().filter(|(_, doubt)| doubt.put_out_at.is_some());
        out.map(|(store, doubt)| (*store, doubt.slow_since.is_some())).collect()
    }

    /// Stores that have more to do than they can, by their own word.
    fn crowded(&self, there: &BTreeMap<StoreId, &NodeEntry>) -> BTreeSet<StoreId> {
        let own = |entry: &&NodeEntry| {
            let (_, timings) = self.told.get(&entry.node)?;
            timings.iter().find(|timing| timing.store == entry.store)
        };
        there.values().filter_map(own).filter(|own| own.crowded).map(|own| own.store).collect()
    }

    fn sights(&self, there: &BTreeMap<StoreId, &NodeEntry>) -> Vec<Sight> {
        let crowded = self.crowded(there);
        let mut sights = Vec::new();
        let observers = there.values().filter_map(|entry| Some((entry, self.told.get(&entry.node)?)));
        for (by, (_, timings)) in observers {
            for timing in timings {
                let Some(of) = there.get(&timing.store) else { continue };
                let sight = |measure, micros| Sight {
                    way: (measure, (by.node != of.node).then_some((by.dc, of.dc))),
                    by: by.node,
                    of: of.node,
                    store: timing.store,
                    micros,
                };
                if by.node == of.node {
                    sights.extend(timing.flush_us.map(|micros| sight(Measure::Flush, micros)));
                }
                if !crowded.contains(&timing.store) {
                    sights.extend(timing.probe_us.map(|micros| sight(Measure::Probe, micros)));
                    sights.extend(timing.ack_us.map(|micros| sight(Measure::Ack, micros)));
                }
            }
        }
        sights
    }

    fn judge(&mut self, store: StoreId, complaints: &Complaints, caution: &Caution, now: BootTime) {
        let Some(votes) = complaints.stores.get(&store).filter(|votes| votes.are_enough()) else {
            return;
        };
        let slow = votes.disk_is_slow || votes.against >= VOTES_LEAST && 2 * votes.against > votes.cast();
        let fresh = Doubt {
            there_at: now,
            slow_since: None,
            good_since: None,
            put_out_at: None,
            micros: 0,
            usual: 0,
        };
        let doubt = self.stores.entry(store).or_insert(fresh);
        if !slow {
            doubt.slow_since = None;
            let good_since = *doubt.good_since.get_or_insert(now);
            if now.since(good_since) >= caution.probation {
                doubt.put_out_at = None;
            }
            return;
        }
        (doubt.micros, doubt.usual) = votes.worst;
        doubt.good_since = None;
        let slow_since = *doubt.slow_since.get_or_insert(now);
        if now.since(slow_since) >= caution.slow_for {
            doubt.put_out_at.get_or_insert(now);
        }
    }

    fn judge_ways(&mut self, complaints: &Complaints, caution: &Caution, now: BootTime) {
        // Whoever is slow finds others slow.
        let doubted: BTreeSet<StoreId> =
            self.stores.iter().filter(|(_, doubt)| doubt.slow_since.is_some()).map(|(s, _)| *s).collect();
        let before = std::mem::take(&mut self.ways);
        for (by, by_store, store) in &complaints.ways {
            if !doubted.contains(by_store) && !doubted.contains(store) {
                let since = before.get(&(*by, *store)).copied().unwrap_or(now);
                self.ways.insert((*by, *store), since);
            }
        }
        let wait = caution.slow_for.mul_f64(WAY_WAITS);
        let slow = self.ways.iter().filter(|(_, since)| now.since(**since) >= wait);
        self.slow_ways.extend(slow.map(|(way, _)| (*way, now)));
        self.slow_ways.retain(|_, last| now.since(*last) <= caution.probation);
    }
}

/// Who finds one store slow, and who does not.
#[derive(Debug, Default)]
struct Votes {
    against: usize,
    for_it: usize,
    /// Its own node's word on the disk, which nobody else sees.
    disk_is_slow: bool,
    /// The worst that anybody measured, and what is usual there.
    worst: (u32, u32),
}

impl Votes {
    fn cast(&self) -> usize {
        self.against + self.for_it
    }

    fn are_enough(&self) -> bool {
        self.disk_is_slow || self.cast() >= VOTES_LEAST
    }
}

/// Everything that is said against stores at one time.
#[derive(Debug, Default)]
struct Complaints {
    stores: BTreeMap<StoreId, Votes>,
    /// Who complains, what store that one runs, of which store.
    ways: Vec<(NodeId, StoreId, StoreId)>,
    /// Stores of which nothing can be said, because work takes long everywhere.
    in_a_crowd: BTreeSet<StoreId>,
}

impl Complaints {
    fn of(sights: &[Sight], mut crowd: BTreeSet<StoreId>, caution: &Caution) -> Self {
        let mut ways: BTreeMap<Way, Vec<Sight>> = BTreeMap::new();
        for sight in sights {
            ways.entry(sight.way).or_default().push(*sight);
        }
        for sights in ways.values_mut() {
            sights.sort_unstable_by_key(|sight| (sight.micros, sight.by, sight.of));
        }
        let mut opinions: BTreeMap<(StoreId, NodeId), Option<(u32, u32)>> = BTreeMap::new();
        let mut slow_disks = BTreeMap::new();
        for sight in sights {
            let Some(usual) = usual(&ways[&sight.way], sight.of) else { continue };
            if u64::from(usual) > floor_of(sight, caution) {
                crowd.insert(sight.store);
                continue;
            }
            let slow = is_slow(sight, usual, caution).then_some((sight.micros, usual));
            if sight.way.0 == Measure::Flush {
                slow_disks.extend(slow.map(|figures| (sight.store, figures)));
                continue;
            }
            let opinion = opinions.entry((sight.store, sight.by)).or_default();
            *opinion = (*opinion).max(slow);
        }
        let runs = |node: NodeId| sights.iter().find(|sight| sight.of == node).map(|sight| sight.store);
        let mut complaints = Self { in_a_crowd: crowd, ..Self::default() };
        for ((store, by), opinion) in opinions {
            let votes = complaints.stores.entry(store).or_default();
            // Whoever speaks against itself needs no second witness.
            let weight = if runs(by) == Some(store) { VOTES_LEAST } else { 1 };
            match opinion {
                Some(figures) => {
                    votes.against += weight;
                    votes.worst = votes.worst.max(figures);
                    complaints.ways.extend(runs(by).map(|own| (by, own, store)));
                }
                None => votes.for_it += 1,
            }
        }
        for (store, figures) in slow_disks {
            let votes = complaints.stores.entry(store).or_default();
            votes.disk_is_slow = true;
            votes.worst = votes.worst.max(figures);
        }
        let is_judged = |store: &StoreId| complaints.stores.get(store).is_some_and(Votes::are_enough);
        complaints.in_a_crowd.retain(|store| !is_judged(store));
        complaints
    }
}

/// The lower median of a way without those that have this node at one end.
fn usual(sorted: &[Sight], node: NodeId) -> Option<u32> {
    if sorted.len() >= MANY {
        return Some(sorted[(sorted.len() - 1) / 2].micros);
    }
    let others: Vec<u32> = sorted
        .iter()
        .filter(|sight| sight.by != node && sight.of != node)
        .map(|sight| sight.micros)
        .collect();
    (!others.is_empty()).then(|| others[(others.len() - 1) / 2])
}

fn is_slow(sight: &Sight, usual: u32, caution: &Caution) -> bool {
    let (took, usual) = (u64::from(sight.micros), u64::from(usual));
    took > usual * u64::from(caution.slow_times) && took > usual + floor_of(sight, caution)
}

/// How much longer than usual is slow at least, in microseconds.
fn floor_of(sight: &Sight, caution: &Caution) -> u64 {
    let floor = match sight.way.0 {
        Measure::Probe | Measure::Flush => caution.slow_floor,
        Measure::Ack => caution.slow_floor * ACK_FLOORS,
    };
    u64::try_from(floor.as_micros()).unwrap_or(u64::MAX)
}
