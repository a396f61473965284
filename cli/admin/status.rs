//! `trefoil status`: the cluster as the control plane knows it, told so that it never says healthy
//! while an object is short of a copy, and never says loss where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use trefoil_protocol::config::{MemberState, NodeEntry, NodeState, Protection, SingleDcPolicy, VolumeConfig};
use trefoil_protocol::debt;
use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::admin::{ClusterStatus, DebtView, SearchView, SlowState};
use trefoil_protocol::time::CpTime;

use super::condition::{NodeView, StoppedLine, VoterView, tenant_name};
use super::connection::Admin;
use super::link::LinkView;
use super::loss::LossLine;
use super::plan::ProgressView;
use super::refused::{self, RefusedLine};
use super::slow::SlowLine;
use super::tenant::Policy;
use super::unanswered;
use crate::failure::{Kind, Verdict};
use crate::output::{self, Format};
use crate::quantity;

/// Copies of every object in a healthy cluster.
const COPIES: usize = 3;

/// So many volumes are told one by one to people; programs are told all.
const VOLUMES_SHOWN: usize = 24;

/// So many stops are told one by one.
const STOPPED_SHOWN: usize = 8;

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
    /// The control plane's voters, as its leader sees them.
    pub(crate) voters: Vec<VoterView>,
    /// Nodes and voters that do not answer.
    pub(crate) unanswered: Vec<String>,
    /// The two links.
    pub(crate) links: Vec<LinkView>,
    /// Volumes.
    pub(crate) volumes: Vec<VolumeView>,
    /// Deletes with a certificate.
    pub(crate) certified: u64,
    /// What one data centre alone has acknowledged, by volume.
    pub(crate) at_risk: Vec<AtRiskLine>,
    /// Where old objects wait for a copy in one data centre.
    pub(crate) debts: Vec<DebtLine>,
    /// Stores that were put out because they are or were slow.
    pub(crate) slow: Vec<SlowLine>,
    /// Volumes that a restored control plane has not found yet.
    pub(crate) sought: Vec<SoughtLine>,
    /// What volumes went on without, as long as a store is kept apart.
    pub(crate) lost: Vec<LossLine>,
    /// What is stopped on a store until somebody has looked.
    pub(crate) stopped: Vec<StoppedLine>,
    /// Overrides that were refused in the last 24 hours, the newest last.
    pub(crate) refused: Vec<RefusedLine>,
    /// The plan that was applied last, while something of it is left.
    pub(crate) plan: Option<ProgressView>,
}

/// A volume that is down until stores say what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SoughtLine {
    pub(crate) volume: u64,
    /// Stores that must speak first; none if its tenant is not known any more.
    pub(crate) waits_for: Vec<String>,
    /// What was acknowledged since then is unknown until they have spoken.
    pub(crate) unknown_since_ms: Option<u64>,
}

impl SoughtLine {
    fn text(&self) -> String {
        let Self { volume, waits_for, unknown_since_ms } = self;
        match waits_for.is_empty() {
            true => format!(
                "volume {volume} is of a tenant that was made after the restored state: nobody opens it"
            ),
            false => {
                let since = unknown_since_ms.map_or_else(String::new, |since| {
                    format!("; what was acknowledged is UNKNOWN since {} until then", CpTime(since))
                });
                format!(
                    "volume {volume} waits until these stores have spoken: {}{since}",
                    waits_for.join(", ")
                )
            }
        }
    }
}

/// What would be lost of a volume with the one data centre that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AtRiskLine {
    pub(crate) volume: u64,
    pub(crate) tenant: String,
    /// `counted` by the primary, `at_most` if nobody who has it answers, or `unknown`.
    pub(crate) known: &'static str,
    pub(crate) objects: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) last_lsn: Option<u64>,
    /// Versions hidden meanwhile; each of them is on the control plane's list.
    pub(crate) hidden: u64,
    /// How old the oldest of it may be.
    pub(crate) age_ms: Option<u64>,
}

/// Old objects without a copy in one data centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DebtLine {
    pub(crate) volume: u64,
    pub(crate) tenant: String,
    /// How many; `None` if the primary did not say.
    pub(crate) objects: Option<u64>,
    pub(crate) age_ms: u64,
    /// Whether it has waited for longer than it may: its repair goes on by force.
    pub(crate) overdue: bool,
    /// Nodes that are not there and may have them, where the primary itself waits for their bytes.
    pub(crate) waits_for: Vec<String>,
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
    /// The primary, while it leads without payload of older objects.
    pub(crate) owing: Option<String>,
    pub(crate) protection: &'static str,
    /// What its tenant wants in `SingleDc`: `available` or `strict`.
    pub(crate) policy: &'static str,
    pub(crate) active: bool,
}

impl StatusView {
    /// Reads the control plane's state.
    pub(crate) fn of(status: &ClusterStatus) -> Self {
        let stopped = StoppedLine::all(status);
        let volumes: Vec<VolumeView> =
            status.volumes.iter().map(|volume| volume_view(status, &stopped, volume)).collect();
        let reported: BTreeSet<_> = status.statistics.iter().map(|statistics| statistics.volume).collect();
        let unreported =
            status.volumes.iter().filter(|volume| !reported.contains(&volume.volume)).count() as u64;
        let short: u64 = status.statistics.iter().map(|volume| volume.short_of_copies).sum();
        let objects_short_of_copies = short + unreported;
        let both = status.volumes.iter().all(|volume| volume.protection == Protection::BothDcs);
        let links = LinkView::all(status);
        let linked = links.iter().all(LinkView::carries);
        let up = status.nodes.iter().all(|node| node.state == NodeState::Up);
        let whole = volumes.iter().all(VolumeView::whole);
        let heard = status.voters.iter().all(|voter| voter.reachable);
        let swift = status.slow.iter().all(|store| store.state != SlowState::Slow);
        Self {
            healthy: whole
                && status.sought.is_empty()
                && both
                && up
                && heard
                && linked
                && swift
                && objects_short_of_copies == 0,
            protection: if both { Protection::BothDcs } else { Protection::SingleDc }.reported(),
            objects: status.statistics.iter().map(|volume| volume.objects).sum(),
            objects_short_of_copies,
            nodes: status.nodes.iter().map(|node| NodeView::of(status, node)).collect(),
            voters: VoterView::all(&status.voters),
            unanswered: unanswered::names(status),
            links,
            volumes,
            certified: status.certified,
            at_risk: status.volumes.iter().filter_map(|volume| at_risk_line(status, volume)).collect(),
            debts: status.debts.iter().filter_map(|debt| debt_line(status, debt)).collect(),
            slow: status.slow.iter().map(SlowLine::of).collect(),
            sought: status.sought.iter().map(sought_line).collect(),
            lost: LossLine::all(status).into_iter().filter(|loss| loss.open).collect(),
            stopped,
            refused: status.refused.iter().map(RefusedLine::of).collect(),
            plan: status.progress.as_ref().filter(|plan| plan.left > 0).map(ProgressView::of),
        }
    }

    /// Whether every node is up and every volume takes writes with three in-sync replicas.
    pub(crate) fn whole(&self) -> bool {
        self.protection == Protection::BothDcs.reported()
            && self.volumes.iter().all(VolumeView::whole)
            && self.nodes.iter().all(|node| node.state == NodeState::Up.name())
    }

    /// Whether both links carry what they should.
    pub(crate) fn linked(&self) -> bool {
        self.links.iter().all(LinkView::carries)
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
            &["NODE", "DC", "STATE", "PID", "OLDEST UNREAD"],
            self.nodes.iter().map(NodeView::row),
        );
        let voters = output::table(
            &["VOTER", "DC", "ROLE", "STAND", "REACHABLE", "LOG"],
            self.voters.iter().map(VoterView::row),
        );
        let links = output::table(&LinkView::HEAD, self.links.iter().map(LinkView::row));
        let volumes = self.volumes_text();
        let risks = self.risks();
        format!(
            "{verdict}: {}, {} short of a copy, protection {}, {} certified\n{risks}\n\
             {nodes}\n\n{voters}\n\n{links}\n\n{volumes}",
            output::counted(self.objects, "object"),
            self.objects_short_of_copies,
            self.protection,
            output::counted(self.certified, "delete")
        )
    }

    /// All volumes if they fit a screen, else those that want something.
    fn volumes_text(&self) -> String {
        let whole = self.volumes.iter().filter(|volume| volume.whole()).count();
        let told = |volume: &&VolumeView| self.volumes.len() <= VOLUMES_SHOWN || !volume.whole();
        let table = output::table(
            &["VOLUME", "TENANT", "EPOCH", "PRIMARY", "IN SYNC", "CATCHING UP", "PROTECTION"],
            self.volumes.iter().filter(told).take(VOLUMES_SHOWN).map(VolumeView::row),
        );
        match self.volumes.len() {
            0..=VOLUMES_SHOWN => table,
            all if all == whole => format!("{all} volumes, each with three copies in sync"),
            all => format!("{all} volumes, {} of them not whole; the first are\n\n{table}", all - whole),
        }
    }

    /// A line for what is stopped, for each volume that could lose something with one data centre, and for
    /// the plan that is carried out.
    fn risks(&self) -> String {
        let stopped = self.stopped.iter().take(STOPPED_SHOWN).map(StoppedLine::text);
        let stopped = unanswered::text(&self.unanswered).into_iter().chain(stopped);
        let stopped = refused::newest(&self.refused).map(RefusedLine::text).chain(stopped);
        let at_risk = stopped.chain(self.at_risk.iter().map(AtRiskLine::text));
        at_risk
            .chain(self.plan.iter().map(ProgressView::text))
            .chain(self.debts.iter().map(DebtLine::text))
            .chain(self.slow.iter().map(SlowLine::text))
            .chain(self.nodes.iter().filter_map(NodeView::load_text))
            .chain(self.sought.iter().map(SoughtLine::text))
            .chain(self.lost.iter().map(LossLine::text))
            .fold(String::new(), |text, line| text + &line + "\n")
    }
}

impl AtRiskLine {
    fn text(&self) -> String {
        let extent = match (self.objects, self.bytes) {
            (Some(objects), Some(bytes)) => format!("{objects} objects, {}", output::bytes(bytes)),
            _ => "an unknown number of objects".to_owned(),
        };
        let qualifier = if self.known == AT_MOST { "at most " } else { "" };
        let since = self.age_ms.map_or_else(String::new, |age| {
            format!(", the oldest {} old", quantity::duration_text(Duration::from_millis(age)))
        });
        format!(
            "at risk in volume {} of {}: {qualifier}{extent}, {} hidden, in one data centre alone{since}",
            self.volume, self.tenant, self.hidden
        )
    }
}

impl DebtLine {
    fn text(&self) -> String {
        let objects =
            self.objects.map_or_else(|| "objects".to_owned(), |objects| format!("{objects} objects"));
        let age = quantity::duration_text(Duration::from_millis(self.age_ms));
        let alarm = if self.overdue { "; that is OVERDUE, and repair goes on by force" } else { "" };
        let what = match self.waits_for.is_empty() {
            true => "a copy in the other data centre".to_owned(),
            false => format!(
                "their bytes, which nobody there has; {} may: start one of them",
                self.waits_for.join(" ")
            ),
        };
        format!(
            "debt in volume {} of {}: {objects} have waited {age} for {what}{alarm}",
            self.volume, self.tenant
        )
    }
}

impl VolumeView {
    fn whole(&self) -> bool {
        self.active && self.in_sync.len() >= COPIES
    }

    fn row(&self) -> Vec<String> {
        let primary = match (&self.primary, self.active) {
            (Some(node), true) if self.owing.is_some() => format!("{node} (owing)"),
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
            match (self.policy, self.protection) {
                ("strict", "SingleDc") => "SingleDc, strict: writes are refused".to_owned(),
                ("strict", protection) => format!("{protection}, strict"),
                (_, protection) => protection.to_owned(),
            },
        ]
    }
}

const COUNTED: &str = "counted";
const AT_MOST: &str = "at_most";
const UNKNOWN: &str = "unknown";

/// The primary's count if it answers, else the bound that the control plane committed.
fn at_risk_line(status: &ClusterStatus, volume: &VolumeConfig) -> Option<AtRiskLine> {
    let account = status.at_risk.iter().find(|account| account.volume == volume.volume);
    let may_write = volume.single_dc == SingleDcPolicy::Allow;
    let is_exposed = volume.protection != Protection::BothDcs && volume.activated && may_write;
    if account.is_none() && !is_exposed {
        return None;
    }
    let counted = status.statistics.iter().find(|s| s.volume == volume.volume).and_then(|s| s.at_risk);
    // What began before a restore is known to nobody.
    let begun = account.is_none_or(|account| account.exact);
    let account = account.filter(|_| begun);
    let counted = counted.filter(|_| begun && volume.activated && volume.primary.is_some());
    let (known, objects, bytes, last) = match (counted, account) {
        (Some(count), _) => (COUNTED, Some(count.objects), Some(count.bytes), Some(count.last)),
        (None, Some(bound)) => (AT_MOST, Some(bound.objects), Some(bound.bytes), Some(bound.last)),
        (None, None) => (UNKNOWN, None, None, None),
    };
    Some(AtRiskLine {
        volume: volume.volume.0,
        tenant: tenant_name(status, volume),
        known,
        objects,
        bytes,
        last_lsn: last.map(|lsn| lsn.0),
        hidden: account.map_or(0, |account| account.hidden),
        age_ms: account.map(|account| status.now.0.saturating_sub(account.opened.0)),
    })
}

fn debt_line(status: &ClusterStatus, debt: &DebtView) -> Option<DebtLine> {
    let volume = status.volumes.iter().find(|volume| volume.volume == debt.volume)?;
    let reported = status.statistics.iter().find(|statistics| statistics.volume == debt.volume);
    let age_ms = status.now.0.saturating_sub(debt.since.0);
    let bytes = reported.map_or(0, |statistics| statistics.bytes);
    Some(DebtLine {
        volume: debt.volume.0,
        tenant: tenant_name(status, volume),
        objects: reported.map(|statistics| statistics.debt),
        age_ms,
        overdue: Duration::from_millis(age_ms) > debt::deadline(bytes),
        waits_for: holders_away(status, volume),
    })
}

/// Nodes that held the volume and are not there, where its primary owes.
fn holders_away(status: &ClusterStatus, volume: &VolumeConfig) -> Vec<String> {
    let held = |node: &&NodeEntry| node.state != NodeState::Up && volume.ever_held.contains(&node.store);
    let away = status.nodes.iter().filter(|_| volume.owing().is_some()).filter(held);
    away.map(|node| node.node.to_string()).collect()
}

fn sought_line(sought: &SearchView) -> SoughtLine {
    let waits_for = sought.waits_for.iter().map(ToString::to_string).collect();
    let unknown_since_ms = sought.since.map(|since| since.0);
    SoughtLine { volume: sought.volume.0, waits_for, unknown_since_ms }
}

fn volume_view(status: &ClusterStatus, stopped: &[StoppedLine], volume: &VolumeConfig) -> VolumeView {
    let stopped_on = |node: Option<NodeId>| {
        let mut here = stopped.iter().filter(|line| line.volume == volume.volume.0);
        here.any(|line| node.is_some_and(|node| line.node == node.to_string()))
    };
    // A copy that takes part in nothing is none that counts.
    let members = |state: MemberState| -> Vec<String> {
        let members = volume.members.iter().filter(|member| member.state == state);
        let members = members.filter(|member| !stopped_on(Some(member.node)));
        members.map(|member| member.node.to_string()).collect()
    };
    VolumeView {
        id: volume.volume.0,
        tenant: tenant_name(status, volume),
        epoch: volume.epoch.0,
        primary: volume.primary.map(|node| node.to_string()),
        in_sync: members(MemberState::InSync),
        catching_up: members(MemberState::CatchingUp),
        owing: members(MemberState::Owing).pop(),
        protection: volume.protection.reported(),
        policy: Policy::name(volume.single_dc),
        active: volume.activated && volume.primary.is_some() && !stopped_on(volume.primary),
    }
}

/// Tells the state once, or again and again.
pub(crate) async fn run(arguments: &StatusArguments, admin: &Admin, format: Format) -> Verdict {
    loop {
        let answer = admin.status().await;
        if arguments.watch && format == Format::Text && std::io::stdout().is_terminal() {
            output::line("\x1b[H\x1b[2J");
        }
        match answer {
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

#[cfg(test)]
mod tests {
    use trefoil_protocol::config::{Duty, Member, NodeEntry, Stand, VoterEntry};
    use trefoil_protocol::deletion::Signers;
    use trefoil_protocol::ids::LinkId;
    use trefoil_protocol::ids::{
        ConfigIndex, Epoch, Incarnation, Lsn, PublicKey, StoreId, TenantId, VolumeId, VoterId,
    };
    use trefoil_protocol::message::admin::{AtRiskView, StoreView, VoterStatus};
    use trefoil_protocol::message::control::{
        ExposureCount, LinkReport, StopCause, StoppedVolume, VolumeStatistics,
    };
    use trefoil_protocol::time::Millis;

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
            single_dc: SingleDcPolicy::Allow,
            handover: None,
            replays: false,
            stale_reads: Default::default(),
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
                at_risk: None,
                debt: 0,
            }],
            certified: 0,
            links: Some(vec![LinkReport { healthy: 9, ..LinkReport::unknown(LinkId::One) }]),
            at_risk: vec![],
            debts: vec![],
            voters: vec![],
            link_policies: vec![],
            progress: None,
            more: false,
            slow: vec![],
            signers: Signers::default(),
            sought: vec![],
            stores: vec![],
            losses: vec![],
            refused: vec![],
        }
    }

    fn entry(node: &str, state: NodeState) -> NodeEntry {
        NodeEntry {
            node: node.parse().unwrap(),
            dc: "a".parse().unwrap(),
            rack: "r".parse().unwrap(),
            store: StoreId([1; 16]),
            store_key: PublicKey([1; 32]),
            incarnation: Incarnation(1),
            capacity: 1,
            addresses: Vec::new(),
            state,
            pid: 1,
            duty: Duty::Full,
        }
    }

    fn store(node: &str) -> StoreView {
        StoreView {
            node: node.parse().unwrap(),
            oldest_unread: None,
            damaged: 0,
            verifying: None,
            stopped: Vec::new(),
            load: None,
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

    /// P7: what is said to be at risk is never less than the truth, and not known is said.
    #[test]
    fn what_is_at_risk_is_counted_bounded_or_said_to_be_unknown() {
        let mut status = cluster();
        status.now = CpTime(9_000);
        status.volumes[0].protection = Protection::SingleDc;
        let line = |status: &ClusterStatus| StatusView::of(status).at_risk[0].clone();
        assert_eq!((line(&status).known, line(&status).objects), ("unknown", None));
        status.at_risk = vec![AtRiskView {
            volume: VolumeId(1),
            opened: CpTime(2_000),
            since: Lsn(5),
            last: Lsn(4_200),
            objects: 4_100,
            bytes: 1 << 31,
            hidden: 2,
            exact: true,
        }];
        assert_eq!((line(&status).known, line(&status).objects), ("at_most", Some(4_100)));
        assert_eq!((line(&status).age_ms, line(&status).hidden), (Some(7_000), 2));
        status.statistics[0].at_risk = Some(ExposureCount { objects: 3, bytes: 30, last: Lsn(8) });
        assert_eq!((line(&status).known, line(&status).objects), ("counted", Some(3)));
        assert!(
            StatusView::of(&status).text().contains("3 objects, 30 B, 2 hidden, in one data centre alone")
        );
        status.volumes[0].primary = None;
        assert_eq!(line(&status).known, "at_most", "the primary that counted is gone");
        status.at_risk[0].exact = false;
        assert_eq!(line(&status).known, "unknown", "what was noted before a restore is lost");
    }

    #[test]
    fn r039_a_voter_that_is_not_heard_is_told() {
        let mut status = cluster();
        let voter = |name: &str, dc: &str, witness: bool| {
            let name = name.parse().unwrap();
            let address = "127.0.0.1:7000".parse().unwrap();
            let entry = VoterEntry {
                voter: VoterId::of(name),
                name,
                dc: dc.parse().unwrap(),
                witness,
                control: address,
                tenants: address,
            };
            VoterStatus { entry, leads: dc == "a", reachable: true, matched: 7, stand: Stand::Voting }
        };
        status.voters = vec![voter("p-a1", "a", false), voter("p-b1", "b", false), voter("w1", "w", true)];
        let roles = |view: &StatusView| view.voters.iter().map(|voter| voter.role).collect::<Vec<_>>();
        let view = StatusView::of(&status);
        assert!(view.healthy);
        assert_eq!(roles(&view), ["leader", "follower", "witness"]);
        status.voters[2].reachable = false;
        let view = StatusView::of(&status);
        assert!(!view.healthy && view.whole());
        assert!(view.text().contains("w1"));
    }

    /// P8: a copy that is stopped is neither active nor a copy, and the record that stops it is named (R10).
    #[test]
    fn r010_what_is_stopped_is_never_called_healthy_and_its_record_is_named() {
        let stopped_on = |node: &str, cause: StopCause| {
            let mut status = cluster();
            let stopped = StoppedVolume { volume: VolumeId(1), epoch: Epoch(3), cause, lsn: Some(Lsn(17)) };
            status.nodes = vec![entry(node, NodeState::Up)];
            let said = StoreView { stopped: vec![stopped], ..store(node) };
            status.stores = vec![said];
            StatusView::of(&status)
        };
        let lost = stopped_on("a1", StopCause::Lost);
        assert!(!lost.healthy && !lost.volumes[0].active);
        assert!(lost.text().contains("on a1, epoch 3: record 17 is damaged on every store that answers"));
        let differs = stopped_on("b1", StopCause::Differs);
        assert!(!differs.healthy && differs.volumes[0].active);
        assert_eq!(differs.volumes[0].in_sync, ["a1", "a2"]);
    }

    #[test]
    fn a_suspect_store_is_said_to_verify_itself_and_how_far_it_is() {
        let mut status = cluster();
        status.nodes = vec![entry("a1", NodeState::Down)];
        status.stores = vec![StoreView { verifying: Some((3, 8)), ..store("a1") }];
        let view = StatusView::of(&status);
        assert_eq!((view.nodes[0].state, view.healthy), ("verifying", false));
        assert!(view.text().contains("verifying, 3 of 8 volumes read"));
        status.nodes = vec![entry("a1", NodeState::Up)];
        status.stores = vec![StoreView { oldest_unread: Some(Millis(65_000)), damaged: 2, ..store("a1") }];
        let view = StatusView::of(&status);
        assert!(view.text().contains("65s, 2 damaged"), "{}", view.text());
    }

    #[test]
    fn of_many_volumes_people_are_told_of_those_that_want_something() {
        let mut status = cluster();
        let of = |number: u64| VolumeConfig { volume: VolumeId(number), ..status.volumes[0].clone() };
        status.volumes = (1..=1000).map(of).collect();
        assert!(StatusView::of(&status).text().contains("1000 volumes, each with three copies in sync"));
        status.volumes[500].members.truncate(2);
        let text = StatusView::of(&status).text();
        assert!(text.contains("1000 volumes, 1 of them not whole") && text.contains("501"));
    }

    #[test]
    fn a_cut_link_is_told() {
        let mut status = cluster();
        status.links = Some(vec![LinkReport { silent: 9, ..LinkReport::unknown(LinkId::Two) }]);
        let view = StatusView::of(&status);
        assert_eq!(view.links[1].state, "cut");
        assert!(!view.healthy);
    }
}
