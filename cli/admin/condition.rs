//! What `status` and the lists say of nodes, voters and stopped volumes: how each is, by its own word and by
//! what the control plane knows.

use std::collections::BTreeMap;

use serde::Serialize;
use trefoil_protocol::config::{NodeEntry, NodeState, VolumeConfig};
use trefoil_protocol::ids::{NodeId, VolumeId};
use trefoil_protocol::message::admin::{ClusterStatus, StoreView, VoterStatus};
use trefoil_protocol::message::control::{StopCause, StoppedVolume};

use super::load::LoadView;

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeView {
    pub(crate) id: String,
    pub(crate) dc: String,
    /// `up`, `down`, `fenced`, or `verifying`: its store is suspect and reads all that it holds.
    pub(crate) state: &'static str,
    pub(crate) pid: u32,
    /// How long ago the byte that has waited longest for the scrub was read.
    pub(crate) scrubbed_ms: Option<u64>,
    /// Damaged records that the scrub found in this run of the node.
    pub(crate) damaged: u64,
    /// How far a suspect store has read itself.
    pub(crate) verifying: Option<VerifyingView>,
    /// How much it has to do.
    pub(crate) load: Option<LoadView>,
}

/// How far a suspect store has read itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VerifyingView {
    pub(crate) volumes_read: u32,
    pub(crate) volumes: u32,
}

/// A volume that is stopped on a store until somebody has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StoppedLine {
    pub(crate) volume: u64,
    pub(crate) tenant: String,
    pub(crate) node: String,
    pub(crate) epoch: u64,
    /// `lost`: every store that answers has the record damaged. `differs`: a committed record there is not
    /// the primary's.
    pub(crate) cause: &'static str,
    pub(crate) lsn: Option<u64>,
}

impl NodeView {
    /// What the control plane knows of it and what it says of its store.
    pub(crate) fn of(status: &ClusterStatus, node: &NodeEntry) -> Self {
        let store = status.stores.iter().find(|store| store.node == node.node);
        // What a node that is down said last is not how it is.
        let serving = store.filter(|_| node.state == NodeState::Up);
        let verifying = store.filter(|_| node.state == NodeState::Down).and_then(verifying);
        Self {
            id: node.node.to_string(),
            dc: node.dc.to_string(),
            state: if verifying.is_some() { "verifying" } else { node.state.name() },
            pid: node.pid,
            scrubbed_ms: serving.and_then(|store| store.oldest_unread).map(|age| age.0),
            damaged: serving.map_or(0, |store| store.damaged),
            verifying,
            load: serving.and_then(|store| store.load).map(LoadView::of),
        }
    }

    /// For people, if it has too much to do.
    pub(crate) fn load_text(&self) -> Option<String> {
        self.load.and_then(|load| load.text(&self.id))
    }

    /// A line of the table.
    pub(crate) fn row(&self) -> Vec<String> {
        let state = match self.verifying {
            Some(VerifyingView { volumes_read, volumes }) => {
                format!("verifying, {volumes_read} of {volumes} volumes read")
            }
            None => self.state.to_owned(),
        };
        let damaged = if self.damaged > 0 { format!(", {} damaged", self.damaged) } else { String::new() };
        let scrub = self.scrubbed_ms.map(age_text);
        let scrub = scrub.map_or_else(|| "unknown".to_owned(), |age| age + &damaged);
        vec![self.id.clone(), self.dc.clone(), state, self.pid.to_string(), scrub]
    }
}

/// An age as people read it, in its largest unit.
fn age_text(millis: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)];
    let large = units.into_iter().find(|(_, unit)| millis >= 2 * unit);
    large.map_or_else(|| format!("{}s", millis / 1000), |(name, unit)| format!("{}{name}", millis / unit))
}

fn verifying(store: &StoreView) -> Option<VerifyingView> {
    store.verifying.map(|(volumes_read, volumes)| VerifyingView { volumes_read, volumes })
}

impl StoppedLine {
    /// Where volumes are stopped, as far as a member of theirs says so that is up.
    pub(crate) fn all(status: &ClusterStatus) -> Vec<Self> {
        let volumes: BTreeMap<VolumeId, &VolumeConfig> =
            status.volumes.iter().map(|volume| (volume.volume, volume)).collect();
        let up = |node: NodeId| {
            status.nodes.iter().any(|entry| entry.node == node && entry.state == NodeState::Up)
        };
        let stores = status.stores.iter().filter(|store| up(store.node));
        let told = stores.flat_map(|store| store.stopped.iter().map(|stopped| (store.node, stopped)));
        let of_member = |(node, stopped): (NodeId, &StoppedVolume)| {
            let volume = volumes.get(&stopped.volume)?;
            volume.member(node).is_some().then(|| Self::of(status, volume, node, stopped))
        };
        told.filter_map(of_member).collect()
    }

    fn of(status: &ClusterStatus, volume: &VolumeConfig, node: NodeId, stopped: &StoppedVolume) -> Self {
        Self {
            volume: stopped.volume.0,
            tenant: tenant_name(status, volume),
            node: node.to_string(),
            epoch: stopped.epoch.0,
            cause: match stopped.cause {
                StopCause::Lost => LOST,
                StopCause::Differs => "differs",
            },
            lsn: stopped.lsn.map(|lsn| lsn.0),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { volume, tenant, node, epoch, .. } = self;
        let record = self.lsn.map_or_else(|| "a record".to_owned(), |lsn| format!("record {lsn}"));
        let why = match self.cause {
            LOST => {
                format!(
                    "{record} is damaged on every store that answers; start a store that has it, or restore one"
                )
            }
            _ => format!(
                "{record} is committed there and is not the primary's; that copy takes part in nothing"
            ),
        };
        format!("stopped: volume {volume} of {tenant} on {node}, epoch {epoch}: {why}")
    }
}

const LOST: &str = "lost";

/// A voter of the control plane, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VoterView {
    pub(crate) id: String,
    pub(crate) dc: String,
    /// `leader`, `follower` or `witness`.
    pub(crate) role: &'static str,
    /// `voting`, `learning` or `excused`.
    pub(crate) stand: &'static str,
    pub(crate) reachable: bool,
    /// How far its log is known to go.
    pub(crate) log: u64,
    pub(crate) control: String,
}

impl VoterView {
    /// All of them, by data centre and name.
    pub(super) fn all(voters: &[VoterStatus]) -> Vec<Self> {
        let mut all: Vec<Self> = voters.iter().map(Self::of).collect();
        all.sort_by(|one, other| (&one.dc, &one.id).cmp(&(&other.dc, &other.id)));
        all
    }

    fn of(voter: &VoterStatus) -> Self {
        let role = match (voter.leads, voter.entry.witness) {
            (true, _) => "leader",
            (false, true) => "witness",
            (false, false) => "follower",
        };
        Self {
            id: voter.entry.name.to_string(),
            dc: voter.entry.dc.to_string(),
            role,
            stand: voter.stand.name(),
            reachable: voter.reachable,
            log: voter.matched,
            control: voter.entry.control.to_string(),
        }
    }

    /// The cells of its line in a table.
    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.dc.clone(),
            self.role.to_owned(),
            self.stand.to_owned(),
            if self.reachable { "yes".to_owned() } else { "no".to_owned() },
            self.log.to_string(),
        ]
    }
}

pub(super) fn tenant_name(status: &ClusterStatus, volume: &VolumeConfig) -> String {
    let tenant = status.tenants.iter().find(|tenant| tenant.tenant == volume.tenant);
    tenant.map_or_else(|| volume.tenant.to_string(), |tenant| tenant.name.to_string())
}
