//! `trefoil status`: the cluster as the control plane knows it, told so that it never says healthy
//! while an object is short of a copy, and never says loss where there is none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use trefoil_protocol::config::{MemberState, NodeState, Protection, VolumeConfig};
use trefoil_protocol::ids::LinkId;
use trefoil_protocol::message::admin::ClusterStatus;

use super::connection::Admin;
use crate::failure::{Failure, Kind, Verdict};
use crate::output::{self, Format};

/// Copies of every object in a healthy cluster.
const COPIES: usize = 3;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Tell again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
}

/// What `status --json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StatusView {
    /// Everything is as it should be.
    pub(crate) healthy: bool,
    /// The weakest rule of any volume.
    pub(crate) protection: &'static str,
    /// Live objects.
    pub(crate) objects: u64,
    /// How many of them lack a copy at the moment. A volume that nobody reported on counts as one:
    /// unknown is not healthy.
    pub(crate) objects_short_of_copies: u64,
    /// Storage nodes.
    pub(crate) nodes: Vec<NodeView>,
    /// The two links.
    pub(crate) links: Vec<LinkView>,
    /// Volumes.
    pub(crate) volumes: Vec<VolumeView>,
    /// Deletes with a certificate.
    pub(crate) certified: u64,
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeView {
    pub(crate) id: String,
    pub(crate) dc: String,
    pub(crate) state: &'static str,
    pub(crate) pid: u32,
}

/// A link between the data centres: `up`, `degraded`, `cut` or `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LinkView {
    pub(crate) id: u8,
    pub(crate) state: &'static str,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VolumeView {
    pub(crate) id: u64,
    pub(crate) tenant: String,
    pub(crate) epoch: u64,
    pub(crate) primary: Option<String>,
    pub(crate) in_sync: Vec<String>,
    pub(crate) catching_up: Vec<String>,
    pub(crate) protection: &'static str,
    pub(crate) active: bool,
}

impl StatusView {
    /// Reads the control plane's state.
    pub(crate) fn of(status: &ClusterStatus) -> Self {
        let volumes: Vec<VolumeView> =
            status.volumes.iter().map(|volume| volume_view(status, volume)).collect();
        let unreported = status.volumes.iter().filter(|volume| !is_reported(status, volume)).count() as u64;
        let short: u64 = status.statistics.iter().map(|volume| volume.short_of_copies).sum();
        let objects_short_of_copies = short + unreported;
        let both = status.volumes.iter().all(|volume| volume.protection == Protection::BothDcs);
        let links = link_views(status);
        let linked = links.iter().all(|link| matches!(link.state, "up" | "unknown"));
        let up = status.nodes.iter().all(|node| node.state == NodeState::Up);
        let whole = volumes.iter().all(VolumeView::whole);
        Self {
            healthy: whole && both && up && linked && objects_short_of_copies == 0,
            protection: if both { Protection::BothDcs } else { Protection::SingleDc }.reported(),
            objects: status.statistics.iter().map(|volume| volume.objects).sum(),
            objects_short_of_copies,
            nodes: status.nodes.iter().map(node_view).collect(),
            links,
            volumes,
            certified: status.certified,
        }
    }

    /// Whether every node is up and every volume takes writes with three in-sync replicas.
    pub(crate) fn whole(&self) -> bool {
        self.protection == Protection::BothDcs.reported()
            && self.volumes.iter().all(VolumeView::whole)
            && self.nodes.iter().all(|node| node.state == NodeState::Up.name())
    }

    /// How many volumes each node leads.
    pub(crate) fn primaries(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for primary in self.volumes.iter().filter_map(|volume| volume.primary.clone()) {
            *counts.entry(primary).or_default() += 1;
        }
        counts
    }

    /// How many volumes each data centre leads.
    pub(crate) fn primaries_by_centre(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (node, count) in self.primaries() {
            if let Some(node) = self.nodes.iter().find(|known| known.id == node) {
                *counts.entry(node.dc.clone()).or_default() += count;
            }
        }
        counts
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let verdict = if self.healthy { "healthy" } else { "not healthy" };
        let nodes = output::table(
            &["NODE", "DC", "STATE", "PID"],
            self.nodes
                .iter()
                .map(|n| vec![n.id.clone(), n.dc.clone(), n.state.to_owned(), n.pid.to_string()]),
        );
        let links = output::table(
            &["LINK", "STATE"],
            self.links.iter().map(|link| vec![link.id.to_string(), link.state.to_owned()]),
        );
        let volumes = output::table(
            &["VOLUME", "TENANT", "EPOCH", "PRIMARY", "IN SYNC", "CATCHING UP", "PROTECTION"],
            self.volumes.iter().map(VolumeView::row),
        );
        format!(
            "{verdict}: {}, {} short of a copy, protection {}, {} certified\n\n\
             {nodes}\n\n{links}\n\n{volumes}",
            output::counted(self.objects, "object"),
            self.objects_short_of_copies,
            self.protection,
            output::counted(self.certified, "delete")
        )
    }
}

impl VolumeView {
    fn whole(&self) -> bool {
        self.active && self.in_sync.len() >= COPIES
    }

    fn row(&self) -> Vec<String> {
        let primary = match (&self.primary, self.active) {
            (Some(node), true) => node.clone(),
            (Some(node), false) => format!("{node} (starting)"),
            (None, _) => "none".to_owned(),
        };
        vec![
            self.id.to_string(),
            self.tenant.clone(),
            self.epoch.to_string(),
            primary,
            self.in_sync.join(" "),
            self.catching_up.join(" "),
            self.protection.to_owned(),
        ]
    }
}

fn is_reported(status: &ClusterStatus, volume: &VolumeConfig) -> bool {
    status.statistics.iter().any(|statistics| statistics.volume == volume.volume)
}

fn node_view(node: &trefoil_protocol::config::NodeEntry) -> NodeView {
    NodeView { id: node.node.to_string(), dc: node.dc.to_string(), state: node.state.name(), pid: node.pid }
}

fn volume_view(status: &ClusterStatus, volume: &VolumeConfig) -> VolumeView {
    let tenant = status.tenants.iter().find(|tenant| tenant.tenant == volume.tenant);
    let members = |state: MemberState| -> Vec<String> {
        let members = volume.members.iter().filter(|member| member.state == state);
        members.map(|member| member.node.to_string()).collect()
    };
    VolumeView {
        id: volume.volume.0,
        tenant: tenant.map_or_else(|| volume.tenant.to_string(), |tenant| tenant.name.to_string()),
        epoch: volume.epoch.0,
        primary: volume.primary.map(|node| node.to_string()),
        in_sync: members(MemberState::InSync),
        catching_up: members(MemberState::CatchingUp),
        protection: volume.protection.reported(),
        active: volume.activated && volume.primary.is_some(),
    }
}

fn link_views(status: &ClusterStatus) -> Vec<LinkView> {
    let state = |link: LinkId| {
        let reports = status.links.iter().flatten().filter(|report| report.link == link);
        match reports.fold((0, 0), |sum, report| (sum.0 + report.healthy, sum.1 + report.silent)) {
            (0, 0) => "unknown",
            (_, 0) => "up",
            (0, _) => "cut",
            _ => "degraded",
        }
    };
    LinkId::ALL.into_iter().map(|link| LinkView { id: link.number(), state: state(link) }).collect()
}

/// Tells the state once, or again and again.
pub(crate) async fn run(arguments: &StatusArguments, admin: &Admin, format: Format) -> Verdict {
    loop {
        match admin.status().await {
            Ok(status) => format.answer(&StatusView::of(&status), StatusView::text),
            Err(failure) if arguments.watch && failure.kind == Kind::Unavailable => {
                output::note(&failure.message);
            }
            Err(failure) => return Err(failure),
        }
        if !arguments.watch {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Waits until `wanted` holds of the cluster's state.
pub(crate) async fn wait_until(
    admin: &Admin,
    patience: Duration,
    what: &str,
    wanted: impl Fn(&StatusView) -> bool,
) -> Verdict<StatusView> {
    let began = Instant::now();
    loop {
        let answer = admin.status().await.map(|status| StatusView::of(&status));
        if let Ok(view) = &answer
            && wanted(view)
        {
            return answer;
        }
        if began.elapsed() > patience {
            let seen = answer.map_or_else(|failure| failure.message, |view| view.text());
            let waited = patience.as_secs();
            return Err(Failure::unavailable(format!("waited {waited} s in vain for {what}\n{seen}")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::config::Member;
    use trefoil_protocol::ids::{ConfigIndex, Epoch, StoreId, TenantId, VolumeId};
    use trefoil_protocol::message::control::{LinkReport, VolumeStatistics};
    use trefoil_protocol::time::{CpTime, Millis};

    use super::*;

    fn cluster() -> ClusterStatus {
        let member = |node: &str, dc: &str, n: u8| Member {
            node: node.parse().unwrap(),
            dc: dc.parse().unwrap(),
            store: StoreId([n; 16]),
            state: MemberState::InSync,
        };
        let volume = VolumeConfig {
            volume: VolumeId(1),
            tenant: TenantId(1),
            slot: 0,
            epoch: Epoch(3),
            primary: Some("a1".parse().unwrap()),
            members: vec![member("a1", "a", 1), member("a2", "a", 2), member("b1", "b", 3)],
            protection: Protection::BothDcs,
            activated: true,
            changed: ConfigIndex(9),
            intervals: vec![],
            ever_held: vec![],
            window: Millis(1),
            first_copy_retention: Millis(0),
        };
        ClusterStatus {
            now: CpTime(0),
            nodes: vec![],
            tenants: vec![],
            volumes: vec![volume],
            statistics: vec![VolumeStatistics {
                volume: VolumeId(1),
                objects: 7,
                short_of_copies: 0,
                bytes: 70,
            }],
            certified: 0,
            links: Some(vec![LinkReport { link: LinkId::One, healthy: 9, silent: 0 }]),
        }
    }

    #[test]
    fn a_whole_cluster_is_healthy() {
        let view = StatusView::of(&cluster());
        assert!(view.healthy && view.whole());
        assert_eq!((view.objects, view.links[0].state, view.links[1].state), (7, "up", "unknown"));
    }

    #[test]
    fn status_never_says_healthy_while_a_copy_is_missing_or_unknown() {
        type Harm = fn(&mut ClusterStatus);
        let harms: [(&str, Harm); 6] = [
            ("an object is short", |status| status.statistics[0].short_of_copies = 1),
            ("nobody reported", |status| status.statistics.clear()),
            ("a member is gone", |status| status.volumes[0].members.truncate(2)),
            ("a member catches up", |status| status.volumes[0].members[1].state = MemberState::CatchingUp),
            ("not active", |status| status.volumes[0].activated = false),
            ("one data centre", |status| status.volumes[0].protection = Protection::Restoring),
        ];
        for (harm, inflict) in harms {
            let mut status = cluster();
            inflict(&mut status);
            assert!(!StatusView::of(&status).healthy, "{harm}");
        }
    }

    #[test]
    fn a_cut_link_is_told() {
        let mut status = cluster();
        status.links = Some(vec![LinkReport { link: LinkId::Two, healthy: 0, silent: 9 }]);
        let view = StatusView::of(&status);
        assert_eq!(view.links[1].state, "cut");
        assert!(!view.healthy);
    }
}
