//! News: what a node must be told of changes behind the position it has, and the requests that wait
//! for some.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::config::{MemberState, NodeEntry, Protection};
use trefoil_protocol::ids::{ConfigIndex, NodeId, StoreId, VolumeId};
use trefoil_protocol::message::control::News;
use trefoil_protocol::time::BootTime;

use crate::controller::recruit::COPIES;
use crate::event::RequestId;
use crate::state::{State, VolumeRecord};

/// The longest that a watch waits for news.
const WATCH_MAX: Duration = Duration::from_secs(1);

/// How many volumes one message tells of: a node takes each over with writes to its disk, and must
/// come to renew its lease in between.
const VOLUMES_TOLD: usize = 128;

/// What a node has been told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Everything up to here.
    pub(crate) index: ConfigIndex,
    /// Of the changes of the next position, those of the volumes up to this one.
    pub(crate) partly: Option<VolumeId>,
}

impl Told {
    /// Everything up to a position and nothing beyond.
    pub(crate) fn up_to(index: ConfigIndex) -> Self {
        Self { index, partly: None }
    }

    fn contains(self, record: &VolumeRecord) -> bool {
        record.told <= self.index
            || (record.told == self.index.next() && Some(record.config.volume) <= self.partly)
    }
}

/// What `node` must know beyond what it was told, oldest changes first, as far as it fits one message.
pub(crate) fn news(state: &State, node: NodeId, since: Told) -> News {
    let store = state.topology.node(node).map(|entry| entry.store);
    let behind = state.volumes.told_after(since.index).filter(|record| !since.contains(record));
    let concerned = behind.filter(|record| !record.is_sought() && concerns(record, node, store));
    // One more than fit tells whether these are all.
    let mut volumes: Vec<&VolumeRecord> = concerned.take(VOLUMES_TOLD + 1).collect();
    let told = shorten(&mut volumes).unwrap_or_else(|| Told::up_to(state.applied));
    let nodes = state.topology.nodes().filter(|record| record.changed > since.index);
    let tenants = state.tenants.all().filter(|record| record.changed > since.index);
    News {
        index: told.index,
        partly: told.partly,
        now: state.clock.now(),
        volumes: volumes.iter().map(|record| record.config.clone()).collect(),
        nodes: nodes.map(|record| record.entry.clone()).collect(),
        tenants: tenants.map(|record| record.entry.clone()).collect(),
        retire: state.topology.node(node).map_or_else(Vec::new, |entry| to_retire(state, entry)),
        signers: state.voters.signers(),
        links: state.links.policies().to_vec(),
        voters: state.voters.leaders().copied().collect(),
        tell: store
            .map_or_else(Vec::new, |store| state.volumes.to_be_told_by(store).take(VOLUMES_TOLD).collect()),
    }
}

/// Keeps the oldest changes, which come first, if there are more than fit one message, and says up to
/// where these tell everything.
fn shorten(volumes: &mut Vec<&VolumeRecord>) -> Option<Told> {
    if volumes.len() <= VOLUMES_TOLD {
        return None;
    }
    volumes.truncate(VOLUMES_TOLD);
    let last = volumes[VOLUMES_TOLD - 1];
    Some(Told { index: last.told.previous(), partly: Some(last.config.volume) })
}

/// Whether the node holds, held or leads the volume, or did so lately enough to be asked about it.
fn concerns(record: &VolumeRecord, node: NodeId, store: Option<StoreId>) -> bool {
    record.config.member(node).is_some()
        || record.roles.contains_key(&node)
        || store
            .is_some_and(|store| record.config.ever_held.contains(&store) || record.fenced.contains(&store))
}

/// Volumes that have enough complete copies without this node's, or another history than it has; no more
/// than fit, it is told again.
fn to_retire(state: &State, entry: &NodeEntry) -> Vec<VolumeId> {
    let spare = state.volumes.left_by(entry.store).filter(|record| {
        let config = &record.config;
        let live = |m: &&trefoil_protocol::config::Member| {
            m.state == MemberState::InSync && state.topology.is_live(m)
        };
        let is_left =
            config.ever_held.contains(&entry.store) && config.member_of_store(entry.store).is_none();
        let is_spare = !record.is_estranged(entry.store)
            && config.activated
            && config.protection == Protection::BothDcs
            && config.members.iter().filter(live).count() >= COPIES;
        is_left && (is_spare || record.is_discarded(entry.store))
    });
    spare.map(|record| record.config.volume).take(VOLUMES_TOLD).collect()
}

/// Whether somebody who waits should be woken: for nothing that can wait until the wait is over.
fn is_worth_telling(state: &State, node: NodeId, since: Told) -> bool {
    let store = state.topology.node(node).map(|entry| entry.store);
    let mut behind = state.volumes.told_after(since.index).filter(|record| !since.contains(record));
    state.links.changed() > since.index
        || behind.any(|record| concerns(record, node, store))
        || state.topology.nodes().any(|record| record.changed > since.index)
        || state.tenants.all().any(|record| record.changed > since.index)
}

struct Watch {
    request: RequestId,
    since: Told,
    until: BootTime,
}

/// Requests that wait for news, one a node.
#[derive(Default)]
pub(crate) struct Watches {
    nodes: BTreeMap<NodeId, Watch>,
    looked_at: ConfigIndex,
}

impl Watches {
    /// Lets a request wait. An older one of the same node is given back, to be answered at once.
    pub(crate) fn wait(
        &mut self,
        node: NodeId,
        request: RequestId,
        since: Told,
        now: BootTime,
    ) -> Option<RequestId> {
        let watch = Watch { request, since, until: now + WATCH_MAX };
        self.looked_at = ConfigIndex(0);
        self.nodes.insert(node, watch).map(|older| older.request)
    }

    /// Whoever asked is gone.
    pub(crate) fn forget(&mut self, request: RequestId) {
        self.nodes.retain(|_, watch| watch.request != request);
    }

    /// The answers that are due: there is news, or the wait is over.
    pub(crate) fn due(&mut self, state: &State, now: BootTime) -> Vec<(RequestId, News)> {
        let mut answers = Vec::new();
        let unchanged = state.applied == std::mem::replace(&mut self.looked_at, state.applied);
        if unchanged && self.next_due().is_none_or(|until| now < until) {
            return answers;
        }
        self.nodes.retain(|node, watch| {
            let due = now >= watch.until || is_worth_telling(state, *node, watch.since);
            if due {
                answers.push((watch.request, news(state, *node, watch.since)));
            }
            !due
        });
        answers
    }

    /// Gives up all, for a leader that leads no more.
    pub(crate) fn take_all(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.nodes).into_values().map(|watch| watch.request).collect()
    }

    /// When the next wait is over.
    pub(crate) fn next_due(&self) -> Option<BootTime> {
        self.nodes.values().map(|watch| watch.until).min()
    }
}
