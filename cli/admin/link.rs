//! What `status` says of the two links between the data centres: whether they carry, how long the way is, what
//! went over them and what of it was repair.

use serde::Serialize;
use trefoil_protocol::ids::LinkId;
use trefoil_protocol::message::admin::ClusterStatus;
use trefoil_protocol::message::control::LinkReport;
use trefoil_protocol::message::traffic::Traffic;

use crate::output;

/// A link between the data centres.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LinkView {
    pub(crate) id: u8,
    /// `up`, `slow`, `degraded`, `drained`, `cut` or `unknown`.
    pub(crate) state: &'static str,
    /// The longest round trip between two nodes.
    pub(crate) rtt_us: u32,
    /// Packets that the present connections of all nodes sent,
    pub(crate) packets: u64,
    /// and how many of these were lost.
    pub(crate) lost: u64,
    /// Records and payload as they come from clients, sent by nodes in their present runs.
    pub(crate) clients: TrafficView,
    /// Payload that somebody catches up on.
    pub(crate) repair: TrafficView,
    /// Acknowledgements, questions, probes.
    pub(crate) control: TrafficView,
    /// Bytes a second that repair may take of it in either direction.
    pub(crate) repair_limit: Option<u64>,
}

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TrafficView {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl From<Traffic> for TrafficView {
    fn from(Traffic { frames, bytes }: Traffic) -> Self {
        Self { frames, bytes }
    }
}

impl LinkView {
    /// The columns of the table.
    pub(crate) const HEAD: [&str; 8] =
        ["LINK", "STATE", "ROUND TRIP", "LOST", "CLIENTS", "REPAIR", "CONTROL", "REPAIR LIMIT"];

    /// Both of them.
    pub(crate) fn all(status: &ClusterStatus) -> Vec<Self> {
        LinkId::ALL.into_iter().map(|link| Self::of(status, link)).collect()
    }

    fn of(status: &ClusterStatus, link: LinkId) -> Self {
        let mut sum = LinkReport::unknown(link);
        status.links.iter().flatten().filter(|report| report.link == link).for_each(|report| sum.add(report));
        let policy = status.link_policies.iter().find(|policy| policy.link == link);
        let is_drained = policy.is_some_and(|policy| policy.drained);
        let state = match (sum.healthy, sum.silent) {
            (0, 0) => "unknown",
            (_, 0) if is_drained => "drained",
            (_, 0) if sum.slow > 0 => "slow",
            (_, 0) => "up",
            (0, _) => "cut",
            _ => "degraded",
        };
        Self {
            id: link.number(),
            state,
            rtt_us: sum.rtt_us,
            packets: sum.packets,
            lost: sum.lost,
            clients: sum.traffic.clients.into(),
            repair: sum.traffic.repair.into(),
            control: sum.traffic.control.into(),
            repair_limit: policy.and_then(|policy| policy.repair_limit),
        }
    }

    /// Whether traffic can go over it, or nothing is known to the contrary.
    pub(crate) fn carries(&self) -> bool {
        matches!(self.state, "up" | "slow" | "drained" | "unknown")
    }

    /// A line of the table.
    pub(crate) fn row(&self) -> Vec<String> {
        let bytes = |traffic: TrafficView| output::bytes(traffic.bytes);
        let limit = self.repair_limit.map(|limit| output::bytes(limit) + "/s");
        vec![
            self.id.to_string(),
            self.state.to_owned(),
            format!("{}.{} ms", self.rtt_us / 1000, self.rtt_us % 1000 / 100),
            format!("{} of {}", self.lost, self.packets),
            bytes(self.clients),
            bytes(self.repair),
            bytes(self.control),
            limit.unwrap_or_else(|| "none".to_owned()),
        ]
    }
}
