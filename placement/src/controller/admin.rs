//! What operators ask: answers out of the state, and the commands their wishes become. Nobody here
//! can ask for a key or an object.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trefoil_protocol::config::{Member, MemberState, SingleDcPolicy, StaleReads, TenantEntry, VolumeConfig};
use trefoil_protocol::ids::{DcId, Epoch, LinkId, NodeId, TenantName, VolumeId};
use trefoil_protocol::message::admin::{
    AdminAnswer, AdminRequest, AtRiskView, ClusterStatus, DebtView, STATUS_VOLUMES_MAX, SlowStore,
    VoterStatus,
};
use trefoil_protocol::message::control::{LinkReport, Renew, VolumeStatistics};
use trefoil_protocol::message::plan::{Progress, Verb};
use trefoil_protocol::time::Millis;

use crate::controller::recruit::{place, up_nodes};
use crate::controller::stores::Stores;
use crate::controller::{Turn, joint};
use crate::custodian::{NAME_KEY_VERSION, new_tenant_key};
use crate::state::{Command, NewTenant, NewVolume, State, Topology, VolumeRecord, VoterRecord, WrappedKey};

/// The most volumes of one tenant: what is told of them must fit one message.
pub(crate) const VOLUMES_MAX: u32 = 1024;

/// What an operator's request comes to.
pub(crate) enum Wish {
    /// An answer at once.
    Answer(AdminAnswer),
    /// A command; its outcome is the answer.
    Command(Command),
    /// A plan to be made.
    Plan(Verb),
}

fn refused(reason: impl Into<String>) -> Wish {
    Wish::Answer(AdminAnswer::Refused(reason.into()))
}

/// What nodes said of volumes and links since this leadership began; for operators only.
#[derive(Default)]
pub(crate) struct Reported {
    volumes: BTreeMap<VolumeId, (Epoch, VolumeStatistics)>,
    links: BTreeMap<NodeId, Vec<LinkReport>>,
    stores: Stores,
}

impl Reported {
    /// Notes what a renewal said. Of a volume only its primary is heard.
    pub(crate) fn note(&mut self, state: &State, node: NodeId, renew: &Renew) {
        for statistics in &renew.volumes {
            let record = state.volumes.get(statistics.volume);
            if let Some(record) = record.filter(|record| record.config.primary == Some(node)) {
                self.volumes.insert(statistics.volume, (record.config.epoch, *statistics));
            }
        }
        self.stores.note(node, &renew.condition);
        if let Some(links) = &renew.links {
            self.links.insert(node, links.clone());
        }
    }

    /// How stores are.
    pub(crate) fn stores(&mut self) -> &mut Stores {
        &mut self.stores
    }

    /// Objects and sealed bytes of a volume, as its primary said last.
    pub(crate) fn size(&self, volume: VolumeId) -> (u64, u64) {
        self.volumes.get(&volume).map_or((0, 0), |(_, told)| (told.objects, told.bytes))
    }

    /// What was said last of a volume. What is at risk changes with every write: only the present
    /// primary's count of it is one.
    fn of(&self, config: &VolumeConfig) -> Option<VolumeStatistics> {
        let (epoch, statistics) = self.volumes.get(&config.volume)?;
        let at_risk = statistics.at_risk.filter(|_| config.epoch == *epoch);
        Some(VolumeStatistics { at_risk, ..*statistics })
    }

    /// Each link, summed over the nodes that are up.
    fn links_of(&self, topology: &Topology) -> Vec<LinkReport> {
        let up: BTreeSet<NodeId> = up_nodes(topology).map(|entry| entry.node).collect();
        let mut sums: BTreeMap<LinkId, LinkReport> = BTreeMap::new();
        for report in self.links.iter().filter(|(node, _)| up.contains(node)).flat_map(|(_, links)| links) {
            sums.entry(report.link).or_insert(LinkReport::unknown(report.link)).add(report);
        }
        sums.into_values().collect()
    }
}

/// What is known besides, and forgotten with the leadership.
pub(crate) struct Volatile {
    /// How far the plan is.
    pub(crate) progress: Option<Progress>,
    /// Stores that were put out because they were slow.
    pub(crate) slow: Vec<SlowStore>,
}

/// Weighs an operator's request.
pub(crate) fn weigh(
    turn: &mut Turn<'_>,
    reported: &Reported,
    volatile: Volatile,
    request: &AdminRequest,
) -> Wish {
    let state = turn.state;
    match request {
        AdminRequest::Status { behind } => {
            Wish::Answer(AdminAnswer::Status(Box::new(status(turn, reported, volatile, *behind))))
        }
        AdminRequest::ListTenants => {
            let tenants = state.tenants.all().map(|record| record.entry.clone());
            Wish::Answer(AdminAnswer::Tenants(tenants.collect()))
        }
        AdminRequest::CreateTenant {
            name,
            volumes,
            window,
            first_copy_retention,
            single_dc,
            stale_reads,
        } => {
            let wanted = Wanted {
                name: *name,
                volumes: *volumes,
                window: *window,
                retention: *first_copy_retention,
                single_dc: *single_dc,
                stale_reads: *stale_reads,
            };
            create_tenant(turn, &wanted)
        }
        AdminRequest::CreatePrincipal { tenant } => match state.tenants.named(*tenant) {
            Some(record) => Wish::Command(Command::CreatePrincipal(record.entry.tenant)),
            None => refused(format!("there is no tenant `{tenant}`")),
        },
        AdminRequest::FenceStore { store } => Wish::Command(Command::FenceStore(*store)),
        AdminRequest::Plan { verb } => Wish::Plan(*verb),
        AdminRequest::Apply { number, verb } => Wish::Command(Command::ApplyPlan(*number, *verb)),
        AdminRequest::CancelPlan => Wish::Command(Command::CancelPlan),
        AdminRequest::Progress => Wish::Answer(AdminAnswer::Progress(volatile.progress)),
        AdminRequest::Proposals => {
            Wish::Answer(AdminAnswer::Proposals(state.proposals.all(state.clock.now()).collect()))
        }
        AdminRequest::Refusals => {
            Wish::Answer(AdminAnswer::Refusals(state.refusals.all().cloned().collect()))
        }
        AdminRequest::LostVersions { volume, epoch, after } => {
            Wish::Answer(joint::lost_versions(state, *volume, *epoch, *after))
        }
        AdminRequest::Propose { .. }
        | AdminRequest::Approve { .. }
        | AdminRequest::LossList { .. }
        | AdminRequest::BeginRefused { .. }
        | AdminRequest::Backup { .. } => unreachable!("taken before"),
    }
}

fn status(turn: &Turn<'_>, reported: &Reported, volatile: Volatile, behind: VolumeId) -> ClusterStatus {
    let state = turn.state;
    let mut records: Vec<&VolumeRecord> = state.volumes.behind(behind).take(STATUS_VOLUMES_MAX + 1).collect();
    let more = records.len() > STATUS_VOLUMES_MAX;
    records.truncate(STATUS_VOLUMES_MAX);
    let configs = records.iter().map(|record| &record.config);
    ClusterStatus {
        now: state.clock.now(),
        nodes: state.topology.nodes().map(|record| record.entry.clone()).collect(),
        tenants: state.tenants.all().map(|record| record.entry.clone()).collect(),
        volumes: configs.clone().cloned().collect(),
        statistics: configs.filter_map(|config| reported.of(config)).collect(),
        certified: state.deletions.certified_count(),
        links: Some(reported.links_of(&state.topology)),
        at_risk: records.iter().copied().filter_map(at_risk_of).collect(),
        debts: records.iter().copied().filter_map(debt_of).collect(),
        voters: voters(turn),
        link_policies: state.links.policies().to_vec(),
        progress: volatile.progress,
        more,
        slow: volatile.slow,
        signers: state.voters.signers(),
        sought: state.sought().take(STATUS_VOLUMES_MAX).collect(),
        stores: reported.stores.all(turn.now),
        losses: records.iter().flat_map(|record| record.loss_views()).collect(),
        refused: state.refusals.news(state.clock.now()).cloned().collect(),
    }
}

fn at_risk_of(record: &VolumeRecord) -> Option<AtRiskView> {
    // Who refuses writes in one data centre has nothing there that anybody was promised.
    let allowed = record.config.single_dc == SingleDcPolicy::Allow;
    record.at_risk.as_ref().filter(|_| allowed).map(|account| account.view(record.config.volume))
}

fn debt_of(record: &VolumeRecord) -> Option<DebtView> {
    record.debt_since.map(|since| DebtView { volume: record.config.volume, since })
}

fn voters(turn: &Turn<'_>) -> Vec<VoterStatus> {
    let peers = (turn.peers)();
    let status = |record: &VoterRecord| {
        let peer = peers.iter().find(|peer| peer.voter == record.entry.voter);
        VoterStatus {
            entry: record.entry,
            leads: record.entry.voter == turn.voter,
            reachable: peer.is_some_and(|peer| peer.active),
            matched: peer.map_or(0, |peer| peer.matched),
            stand: record.stand,
        }
    };
    turn.state.voters.all().map(status).collect()
}

struct Wanted {
    name: TenantName,
    volumes: u32,
    window: Millis,
    retention: Millis,
    single_dc: SingleDcPolicy,
    stale_reads: StaleReads,
}

impl Wanted {
    fn is(&self, entry: &TenantEntry) -> bool {
        (self.volumes, self.window, self.retention, self.single_dc, self.stale_reads)
            == (
                entry.volume_count,
                entry.window,
                entry.first_copy_retention,
                entry.single_dc,
                entry.stale_reads,
            )
    }
}

fn create_tenant(turn: &mut Turn<'_>, wanted: &Wanted) -> Wish {
    let state = turn.state;
    // The witness leads for a moment only and cannot make keys.
    let Some(keyring) = turn.keyring else {
        return Wish::Answer(AdminAnswer::NotLeader { leader: None });
    };
    if let Some(known) = state.tenants.named(wanted.name) {
        return match wanted.is(&known.entry) {
            true => Wish::Answer(AdminAnswer::Tenant(known.entry.clone())),
            false => refused(format!("tenant `{}` exists with other settings", wanted.name)),
        };
    }
    if !wanted.volumes.is_power_of_two() || wanted.volumes > VOLUMES_MAX {
        return refused(format!("volumes must be a power of two up to {VOLUMES_MAX}"));
    }
    let mut dcs: Vec<DcId> = up_nodes(&state.topology).map(|entry| entry.dc).collect();
    dcs.sort_unstable();
    dcs.dedup();
    if dcs.len() < 2 {
        return refused("nodes of two data centres must be up before a tenant can be made");
    }
    let tenant = state.tenants.next_id();
    let first = state.volumes.next_id();
    let volumes = (0..wanted.volumes).map(|slot| {
        let volume = VolumeId(first.0 + u64::from(slot));
        let home = dcs[slot as usize % dcs.len()];
        let nodes = place(&state.topology, tenant, volume, home);
        let members: Vec<Member> =
            nodes.iter().map(|entry| Topology::member(entry, MemberState::InSync)).collect();
        NewVolume { home, members }
    });
    let volumes = volumes.collect();
    let keys = [NAME_KEY_VERSION, NAME_KEY_VERSION + 1].map(|version| {
        let key = new_tenant_key(turn.entropy);
        let wrapped: Bytes = keyring.master.wrap(tenant, version, &key, turn.entropy);
        WrappedKey { version, wrapped }
    });
    Wish::Command(Command::CreateTenant(NewTenant {
        tenant,
        name: wanted.name,
        window: wanted.window,
        first_copy_retention: wanted.retention,
        single_dc: wanted.single_dc,
        stale_reads: wanted.stale_reads,
        volumes,
        keys: keys.to_vec(),
    }))
}
