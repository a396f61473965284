//! Probes: every other second a node asks its own store and those of a few others to do a small piece of
//! work, which takes the way of a record: the peers' connection, the loop of the other node, its disk threads,
//! its disk and back. A node that renews its lease on time and does its work a hundred times too slowly shows
//! here and nowhere else.
//!
//! An answer says how long the disk threads had the probe: that is taken off, because it tells how much there
//! is to do. How well the disk does it is told by all of its work ([`crate::work_rate`]); a probe that does
//! not come back tells of a disk that does nothing.
//!
//! It measures only; nobody is put out by it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::{Disk, ProbeError, Store};
use trefoil_protocol::config::{NodeEntry, NodeState};
use trefoil_protocol::ids::{DcId, Epoch, Hash, NodeId, StoreId, TenantId, VolumeId};
use trefoil_protocol::message::control::StoreTiming;
use trefoil_protocol::message::peer::{PROBE_BYTES_MAX, PeerBody, PeerMessage};
use trefoil_protocol::time::BootTime;

use crate::effect::{Effect, Lane};
use crate::event::Spent;
use crate::outbox::{Identity, Outbox};
use crate::timings::Timings;
use crate::view::View;
use crate::work_rate::WorkRate;

/// How often each store in question is probed.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Of each data centre so many other nodes are probed, so that each is probed by as many.
const PROBED_PER_DC: usize = 2;
/// The length of a probe: little for the narrowest link, and as much work as any for a disk.
const PAGE_BYTES: usize = 1024;
/// A probe without an answer counts with its age from here on,
const OVERDUE: Duration = Duration::from_secs(1);
/// and is given up here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages about no volume name this one.
pub(crate) const NO_VOLUME: VolumeId = VolumeId(0);

/// A probe without its answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    store: StoreId,
    sent: BootTime,
    hash: Hash,
}

/// Work that somebody asked this store for, and when that was.
#[derive(Clone, Debug)]
struct Asked {
    by: NodeId,
    number: u64,
    at: BootTime,
}

/// The probes of a node, both ways.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    timings: Timings,
    open: BTreeMap<u64, Open>,
    last_number: u64,
    next: BootTime,
    /// Pages that wait for the disk, at most one for each who asks.
    waiting: BTreeMap<NodeId, (Asked, Bytes)>,
    at_work: Vec<Asked>,
    /// Since when.
    at_work_since: BootTime,
}

impl Probing {
    /// Sends what is due.
    pub(crate) fn begin<D: Disk>(
        &mut self,
        me: &Identity,
        view: &View,
        store: &Store<D>,
        now: BootTime,
        out: &mut Outbox<D>,
    ) {
        if now < self.next {
            return;
        }
        self.next = now + PROBE_EVERY;
        self.give_up(view, now);
        for (node, target) in neighbours(view, me.node) {
            self.last_number += 1;
            let (number, page) = (self.last_number, page(&out.salt()));
            let hash = Hash(*blake3::hash(&page).as_bytes());
            self.open.insert(number, Open { store: target, sent: now, hash });
            match node == me.node {
                true => drop(self.waiting.insert(node, (Asked { by: node, number, at: now }, page))),
                false => out.push(message(me, node, PeerBody::Probe { number }, vec![page])),
            }
        }
        self.work(store, now, out);
    }

    /// Another node says something about no volume.
    pub(crate) fn peer<D: Disk>(
        &mut self,
        from: NodeId,
        said: PeerBody,
        bulk: Bytes,
        store: &Store<D>,
        now: BootTime,
        out: &mut Outbox<D>,
    ) {
        match said {
            PeerBody::Probe { number } if bulk.len() <= PROBE_BYTES_MAX => {
                self.waiting.insert(from, (Asked { by: from, number, at: now }, bulk));
                self.work(store, now, out);
            }
            PeerBody::Probed { number, hash, disk_us } => {
                self.answered(number, hash, Duration::from_micros(disk_us.into()), now);
            }
            _ => {}
        }
    }

    /// Probes that shared a flush are done.
    pub(crate) fn worked<D: Disk>(
        &mut self,
        result: Result<Vec<Hash>, ProbeError>,
        spent: Spent,
        me: &Identity,
        store: &Store<D>,
        now: BootTime,
        out: &mut Outbox<D>,
    ) {
        let asked = std::mem::take(&mut self.at_work);
        match result {
            Ok(hashes) => {
                for (Asked { by, number, at }, hash) in asked.into_iter().zip(hashes) {
                    let at_disk = self.at_work_since.since(at) + spent.waited + spent.took;
                    if by == me.node {
                        self.answered(number, hash, at_disk, now);
                        continue;
                    }
                    let disk_us = u32::try_from(at_disk.as_micros()).unwrap_or(u32::MAX);
                    out.push(message(me, by, PeerBody::Probed { number, hash, disk_us }, Vec::new()));
                }
            }
            // Whoever asked sees no answer, which is what it is there to see.
            Err(ProbeError::Disk(_)) => {}
            Err(ProbeError::Sync(error)) => return out.fail_store(error),
        }
        self.work(store, now, out);
    }

    /// A member acknowledged a record of a volume that this node leads.
    pub(crate) fn acknowledged(&mut self, store: StoreId, took: Duration, now: BootTime) {
        self.timings.acknowledged(store, took, now);
    }

    /// What to tell the control plane, of the own store also how long its disk takes for its work.
    pub(crate) fn report(&mut self, own: StoreId, rate: &WorkRate, now: BootTime) -> Vec<StoreTiming> {
        let mut overdue: BTreeMap<StoreId, Vec<Duration>> = BTreeMap::new();
        for open in self.open.values().filter(|open| now.since(open.sent) >= OVERDUE) {
            overdue.entry(open.store).or_default().push(now.since(open.sent));
        }
        let mut timings = self.timings.report(&overdue, now);
        if let Some(timing) = timings.iter_mut().find(|timing| timing.store == own) {
            timing.flush_us = rate.micros(now);
            timing.crowded = rate.is_crowded(now);
        }
        timings
    }

    /// When to look again.
    pub(crate) fn next_wakeup(&self) -> BootTime {
        self.next
    }

    /// A wrong hash is no answer.
    fn answered(&mut self, number: u64, hash: Hash, at_disk: Duration, now: BootTime) {
        if self.open.get(&number).is_some_and(|open| open.hash == hash) {
            let open = self.open.remove(&number).expect("it was found");
            self.timings.probed(open.store, now.since(open.sent).saturating_sub(at_disk), now);
        }
    }

    fn give_up(&mut self, view: &View, now: BootTime) {
        let is_up = |store| view.node_of_store(store).is_some_and(|node| node.state == NodeState::Up);
        self.open.retain(|_, open| {
            let over = now.since(open.sent) >= PATIENCE;
            if over && is_up(open.store) {
                self.timings.probed(open.store, PATIENCE, now);
            }
            !over && is_up(open.store)
        });
    }

    /// One flush at a time, for everybody who waits.
    fn work<D: Disk>(&mut self, store: &Store<D>, now: BootTime, out: &mut Outbox<D>) {
        if !self.at_work.is_empty() || self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (asked, pages) = waiting.into_values().unzip();
        (self.at_work, self.at_work_since) = (asked, now);
        out.push(Effect::Probe { job: store.probe_job(pages) });
    }
}

fn message<D: Disk>(me: &Identity, to: NodeId, body: PeerBody, bulk: Vec<Bytes>) -> Effect<D> {
    let message = PeerMessage {
        tenant: TenantId(0),
        volume: NO_VOLUME,
        epoch: Epoch(0),
        store: me.store,
        incarnation: me.incarnation,
        body,
    };
    Effect::SendPeer { to, lane: Lane::Log, message, bulk }
}

/// Bytes that no device has seen before.
fn page(salt: &[u8; 32]) -> Bytes {
    let mut page = vec![0; PAGE_BYTES];
    blake3::Hasher::new_keyed(salt).finalize_xof().fill(&mut page);
    page.into()
}

/// The node itself, and of each data centre the next few nodes that are up, from its own place in the
/// order of names on.
fn neighbours(view: &View, me: NodeId) -> Vec<(NodeId, StoreId)> {
    let mut centres: BTreeMap<DcId, Vec<&NodeEntry>> = BTreeMap::new();
    for node in view.nodes.values().filter(|node| node.state == NodeState::Up) {
        centres.entry(node.dc).or_default().push(node);
    }
    let Some(own) = view.nodes.get(&me) else { return Vec::new() };
    let place = centres.get(&own.dc).and_then(|nodes| nodes.iter().position(|node| node.node == me));
    let Some(place) = place else { return Vec::new() };
    let next = |nodes: Vec<&NodeEntry>| {
        let others = (0..nodes.len()).map(|step| nodes[(place + step) % nodes.len()]);
        let others = others.filter(|node| node.node != me).take(PROBED_PER_DC);
        others.map(|node| (node.node, node.store)).collect::<Vec<_>>()
    };
    centres.into_values().flat_map(next).chain([(me, own.store)]).collect()
}
