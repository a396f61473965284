//! One run: a cluster is set up, worked with while its faults strike, healed, and must then be
//! whole again, with everything in it that was acknowledged and nothing that was certified as gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use trefoil_drill::{Course, Deed, Errand, Operator, Rescue};
use trefoil_protocol::config::{SingleDcPolicy, StaleReads};
use trefoil_protocol::ids::{TenantName, VolumeId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest, ClusterStatus};
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::time::Millis;

use super::control::Shelf;
use super::losses;
use super::oracle::{Oracle, newest_state};
use super::process::{Process, Role, Spec, client_at};
use super::rescue::Rescuer;
use super::roster;
use super::seen::Command;
use super::timeline::Timeline;
use crate::checkers::Violation;
use crate::cluster::Cluster;
use crate::disk::DiskModel;
use crate::faults::{Action, Budget, Crash, CrashKind, Fault, FaultPlan, Trigger};
use crate::kernel::{MILLISECOND, SECOND};
use crate::network::NodeIndex;
use crate::random::{Draws, Stream};
use crate::trace::{Trace, TraceSummary};
use crate::workload::WorkloadShape;

/// The cluster looks at its clock this often while it waits for something.
const SLICE: u64 = 250 * MILLISECOND;

/// A volume that has all that it needs is served after this long.
pub const SERVES_WITHIN: u64 = 30 * SECOND;

/// How long the setting-up of a healthy cluster may take.
const SETUP_MAX: u64 = 30 * SECOND;

/// What a run is made of, besides its seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The clients' work.
    pub shape: WorkloadShape,
    /// For how long they begin new work.
    pub horizon: u64,
    /// The faults; their times count from the moment the clients begin.
    pub plan: FaultPlan,
    /// How long a delete can be undone.
    pub window: u64,
    /// What the tenants want while one data centre cannot be reached.
    pub single_dc: SingleDcPolicy,
    /// Volumes of each tenant.
    pub volumes: u32,
    /// Voters of the control plane: 1, 3 or 5.
    pub voters: usize,
    /// Whether messages go through their encoding.
    pub encodes: bool,
    /// The most that a boot clock may be wrong.
    pub rate_ppm_max: u32,
    /// How long the healed cluster may take until it is whole, with every delete certified.
    pub recovery_max: u64,
    /// How long a volume may go without service while all that it needs is well.
    pub serves_within: u64,
    /// What a storage node's disk does in a second: operations and bytes, 0 for as much as is wanted.
    pub disk_speed: (u64, u64),
    /// How much longer than elsewhere work takes on a slow store, at least.
    pub slow_floor: u64,
    /// What an operator does meanwhile.
    pub operator: Vec<Errand>,
    /// What becomes of the control plane's logs, and when.
    pub rescues: Vec<Rescue>,
    /// Whether the run ends at its first violation.
    pub ends_at_first: bool,
}

impl Setting {
    /// What a seed draws.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut draws = Draws::new(seed, Stream::Workload, u64::MAX - 1);
        let budget = Budget { faults: 8, horizon: 20 * SECOND, ..Budget::default() };
        let mut council = Draws::new(seed, Stream::Workload, u64::MAX - 2);
        let voters = *council.pick(&[1, 1, 3, 3, 3, 5]).expect("there are six");
        Self {
            shape: WorkloadShape {
                think_mean: 40 * MILLISECOND + draws.exponential(120 * MILLISECOND),
                ..WorkloadShape::drawn(seed)
            },
            horizon: budget.horizon,
            plan: roster::generator(voters).draw(seed, &budget),
            window: draws.between(1, 6) * SECOND,
            single_dc: SingleDcPolicy::Allow,
            volumes: if draws.chance(500_000) { 1 } else { 2 },
            voters,
            encodes: draws.chance(50_000),
            rate_ppm_max: budget.rate_ppm_max,
            recovery_max: 120 * SECOND,
            serves_within: SERVES_WITHIN,
            disk_speed: (0, 0),
            slow_floor: 2 * MILLISECOND,
            operator: Vec::new(),
            rescues: Vec::new(),
            ends_at_first: false,
        }
    }

    /// What a seed draws under a profile.
    #[must_use]
    pub fn of_profile(profile: Profile, seed: u64) -> Self {
        let faults = |faults, horizon| {
            let drawn = Self::drawn(seed);
            let budget = Budget { faults, horizon: horizon * SECOND, ..Budget::default() };
            let plan = roster::generator(drawn.voters).draw(seed, &budget);
            Self { horizon: budget.horizon, plan, ..drawn }
        };
        match profile {
            Profile::Drawn => Self::drawn(seed),
            Profile::Healthy => Self::healthy(seed),
            Profile::Light => faults(2, 12),
            Profile::Stress => faults(24, 60),
        }
    }

    /// The same without faults.
    #[must_use]
    pub fn healthy(seed: u64) -> Self {
        Self { plan: FaultPlan::default(), ..Self::drawn(seed) }
    }
}

/// How much goes wrong in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Up to eight faults in twenty seconds.
    #[default]
    Drawn,
    /// None at all.
    Healthy,
    /// Up to two in twelve seconds.
    Light,
    /// Up to twenty-four in a minute.
    Stress,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Drawn, Self::Healthy, Self::Light, Self::Stress];

    /// Its name in seed ids and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::Healthy => "healthy",
            Self::Light => "light",
            Self::Stress => "stress",
        }
    }
}

/// What is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no profile; there are drawn, healthy, light and stress")]
pub struct NoProfile(String);

impl std::str::FromStr for Profile {
    type Err = NoProfile;

    fn from_str(name: &str) -> Result<Self, NoProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| NoProfile(name.to_owned()))
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The trace.
    pub trace: TraceSummary,
    /// Virtual time.
    pub sim_time: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// How many of them were answered.
    pub answered: u64,
    /// Faults that did damage.
    pub faults: usize,
    /// The longest time that an answered operation took.
    pub longest_wait: u64,
    /// Deletes that were certified.
    pub certified: u64,
    /// Objects whose history was too tangled to judge.
    pub undecided: u64,
    /// When mutations were acknowledged, counted from the moment the clients began.
    pub acknowledged: Vec<u64>,
    /// The rules under which something was acknowledged.
    pub protections: BTreeSet<String>,
    /// Why processes ended themselves.
    pub fatal: Vec<String>,
    /// How many volumes stopped by name.
    pub stopped: u64,
    /// How often a suspect store joined again.
    pub joined_again: u64,
    /// How many stores were put out because they were slow.
    pub put_out: u64,
    /// How many lost versions the control plane lists.
    pub listed: u64,
    /// Volumes of which the control plane said that nobody knows what one data centre alone acknowledged.
    pub unknown: u64,
    /// How often a primary answered that its lease is over.
    pub lease_over: u64,
    /// Reads that were answered with the mark that the version may be deleted by now.
    pub stale: u64,
    /// Volumes whose data centre lives and was declared dead, and that was refused.
    pub declared_in_vain: u64,
    /// Requests of the clients, each counted once.
    pub requests: u64,
    /// Retries of theirs that cost something.
    pub retries: u64,
    /// The most jobs that ever waited for one disk.
    pub disk_queue: u64,
    /// How many faults of each kind struck.
    pub faults_by_kind: BTreeMap<String, u64>,
    /// What happened when.
    pub timeline: Timeline,
    /// Every operation of the clients, and what struck meanwhile; times count from [`Self::began_at`].
    pub course: Course,
    /// When the clients began.
    pub began_at: u64,
    /// How long after the healing everything was whole, if it was.
    pub whole_after: Option<u64>,
    /// Objects that were read back in the end.
    pub read_back: u64,
    /// How many machines lost power at an operation of their disks.
    pub power_losses: u64,
    /// Primaries that changed by handover.
    pub handovers: u64,
    /// The longest time in milliseconds that one of them kept writers waiting, as placement measured it.
    pub longest_pause: u64,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Why a run could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The trace file cannot be made.
    #[error("cannot write the trace: {0}")]
    Trace(#[from] std::io::Error),
    /// The plan does not fit this cluster.
    #[error(transparent)]
    Plan(#[from] crate::cluster::UnknownName),
}

/// Runs one seed in one setting.
///
/// # Errors
/// If the plan names what the cluster does not have, or the trace cannot be written.
pub fn run(seed: u64, setting: &Setting, trace: Option<&Path>) -> Result<Report, RunError> {
    let trace = trace.map_or_else(|| Ok(Trace::silent()), Trace::written_to)?;
    Stage::new(seed, setting, trace).play()
}

struct Stage<'s> {
    seed: u64,
    setting: &'s Setting,
    cluster: Cluster<Process>,
    oracle: Oracle,
    rescuer: Rescuer,
    declared_in_vain: u64,
    whole_after: Option<u64>,
}

impl<'s> Stage<'s> {
    fn new(seed: u64, setting: &'s Setting, trace: Trace) -> Self {
        let mut cluster = Cluster::new(seed, trace, setting.rate_ppm_max);
        let council = council(setting);
        let spec = |role| Spec {
            role,
            encodes: setting.encodes,
            voters: setting.voters,
            deadline: Duration::from_nanos(setting.shape.deadline),
            slow_floor: Duration::from_nanos(setting.slow_floor),
            repair_floor: (setting.disk_speed.1 > 0).then_some(setting.disk_speed.1 / 5),
            council: council.clone(),
        };
        for (name, site) in roster::STORAGE {
            let (operations_per_second, bytes_per_second) = setting.disk_speed;
            let model = DiskModel { operations_per_second, bytes_per_second, ..DiskModel::default() };
            cluster.add_node(name, site, spec(Role::Storage), model);
        }
        let mut shelves = Vec::new();
        let secret = *blake3::hash(&seed.to_le_bytes()).as_bytes();
        for (place, (name, site)) in roster::voter_places(roster::VOTERS.len()).zip(roster::VOTERS) {
            let votes = council.contains(&place);
            let shelf = Shelf::default();
            shelves.extend(votes.then(|| shelf.clone()));
            let role = if votes { Role::Placement(shelf, secret) } else { Role::Nothing };
            cluster.add_node(name, site, spec(role), DiskModel::default());
        }
        let oracle = Oracle::new(seed, setting.shape.clone(), setting.serves_within);
        for client in 0..clients(setting) {
            let site = roster::site_of_client(client);
            let name = format!("c{client}");
            cluster.add_node(&name, site, spec(Role::Client(site)), DiskModel::default());
        }
        let rescuer = Rescuer::new(seed, shelves);
        Self { seed, setting, cluster, oracle, rescuer, declared_in_vain: 0, whole_after: None }
    }

    fn play(mut self) -> Result<Report, RunError> {
        self.cluster.start_all(&mut self.oracle);
        if !self.set_up() {
            let sentence = self.what_is_missing();
            return Ok(self.report_with("a healthy cluster did not start", sentence));
        }
        let began = self.cluster.now();
        self.cluster.load(&shifted(&self.setting.plan, began))?;
        let ends_at = began + self.setting.horizon;
        for (at, node, command) in self.oracle.begin(began, ends_at) {
            self.cluster.command(at, node, command);
        }
        let mut operator = Operator::new(&self.setting.operator, began);
        self.oracle.take_answers();
        let mut rescues = self.setting.rescues.iter().peekable();
        let mut rates = self.setting.shape.arrivals.windows(2).peekable();
        while self.cluster.now() < ends_at && self.goes_on() {
            if let Some(rescue) = rescues.next_if(|rescue| began + rescue.at.0 <= self.cluster.now()) {
                self.rescue(rescue.deed);
            }
            if let Some(rate) = rates.next_if(|rate| began + rate[1].0 <= self.cluster.now()) {
                let (before, now) = (rate[0].1, rate[1].1);
                let what = format!("{now} operations a second instead of {before}");
                self.oracle.note_strike(self.cluster.now(), what, now < before);
            }
            if let Some(request) = operator.turn(self.cluster.now(), self.oracle.take_answers()) {
                self.operator(request);
            }
            if let Some(begun) = operator.begun() {
                self.oracle.note_strike(self.cluster.now(), begun, false);
            }
            self.cluster.run_until((self.cluster.now() + SLICE).min(ends_at), &mut self.oracle);
            self.oracle.look_at_liveness(&self.cluster.view());
        }
        if self.goes_on() {
            self.heal();
            self.recover();
        }
        if !operator.is_done() {
            self.not_live("the operator's plans were not carried out", operator.left());
        }
        let (handovers, longest_pause) = operator.measured();
        Ok(Report { handovers, longest_pause, ..self.report() })
    }

    /// What people do to the control plane's logs.
    fn rescue(&mut self, deed: Deed) {
        self.decide(deed);
        if deed == Deed::Survive {
            self.oracle.may_all_part(&self.cluster.view());
        }
        let runs = |entry: &crate::cluster::Node<Process>| {
            entry.program().is_some_and(|program| program.placement().is_some())
        };
        let alive: Vec<String> = self
            .cluster
            .view()
            .nodes
            .iter()
            .filter(|node| runs(node))
            .map(|node| node.name().to_owned())
            .collect();
        let orders = self.rescuer.orders(deed, &alive);
        if !orders.stop.is_empty() {
            let crash = Crash { nodes: orders.stop, how: CrashKind::Process };
            self.cluster.act(Action::Crash(crash), &mut self.oracle);
        }
        self.rescuer.act(deed, &alive);
        if !orders.start.is_empty() {
            self.cluster.act(Action::Restart(orders.start), &mut self.oracle);
        }
        self.oracle.note_strike(self.cluster.now(), deed.words().to_owned(), deed.is_healing());
    }

    /// What two operators decide of the volumes: one proposes it, another one approves.
    fn decide(&mut self, deed: Deed) {
        let wanted = newest_state(&self.cluster.view()).map(|state| losses::wanted(deed, state));
        for action in wanted.unwrap_or_default() {
            let reason = deed.words().to_owned();
            if deed == Deed::DeclareDead {
                self.must_be_refused_and_told(action, reason);
                continue;
            }
            if let JointAction::AcceptLoss { volume, .. } = action {
                self.oracle.will_part(&self.cluster.view(), volume);
            }
            let proposed = self.ask_operator(AdminRequest::Propose { action, reason });
            if let Some(AdminAnswer::Proposal(proposal)) = proposed {
                self.ask_operator(AdminRequest::Approve { number: proposal.number });
            }
        }
    }

    /// What an operator wants and nobody may do: whoever asks for the state afterwards learns of it.
    fn must_be_refused_and_told(&mut self, action: JointAction, reason: String) {
        self.oracle.take_answers();
        for request in
            [AdminRequest::Propose { action, reason }, AdminRequest::Status { behind: VolumeId(0) }]
        {
            self.operator(request);
            self.pass(SLICE);
        }
        let answers = self.oracle.take_answers();
        let refused = answers.iter().any(|answer| matches!(answer, AdminAnswer::Refused(_)));
        if refused && self.oracle.status().is_some_and(|status| losses::tells_of(status, action)) {
            self.declared_in_vain += 1;
        } else {
            let at_ns = self.cluster.now();
            let sentence = format!("the wrong data centre was declared dead, and heard was {answers:?}");
            let object = "cluster".to_owned();
            self.oracle.find([Violation { checker: "expectation", object, at_ns, sentence }]);
        }
    }

    fn goes_on(&self) -> bool {
        !self.setting.ends_at_first || self.oracle.violations().is_empty()
    }

    // ---- setting up ----

    fn set_up(&mut self) -> bool {
        self.wait_for(SETUP_MAX, |stage| stage.nodes_up() == roster::STORAGE.len())
            && self.create_tenants()
            && self.wait_for(SETUP_MAX, |stage| stage.oracle.prepared() == clients(stage.setting) as usize)
            && self.wait_for(SETUP_MAX, Self::is_whole)
    }

    fn create_tenants(&mut self) -> bool {
        let tenants = self.setting.shape.tenants.clone();
        for (number, name) in (0..).zip(tenants) {
            let tenant: TenantName = name.parse().expect("a workload's tenants have proper names");
            let window = Millis(self.setting.window / MILLISECOND);
            let create = AdminRequest::CreateTenant {
                name: tenant,
                volumes: self.setting.volumes,
                window,
                first_copy_retention: Millis(0),
                single_dc: self.setting.single_dc,
                stale_reads: match self.setting.shape.stale_reads.contains(&name) {
                    true => StaleReads::Allow,
                    false => StaleReads::Refuse,
                },
            };
            let Some(AdminAnswer::Tenant(entry)) = self.ask_operator(create) else { return false };
            self.oracle.names(entry.tenant, &name);
            for client in 0..self.setting.shape.clients_per_tenant {
                let request = AdminRequest::CreatePrincipal { tenant };
                let Some(AdminAnswer::Principal { tenant, principal }) = self.ask_operator(request) else {
                    return false;
                };
                let node = client_at(number * self.setting.shape.clients_per_tenant + client);
                let now = self.cluster.now();
                self.cluster.command(now, node, Command::Become(tenant, principal));
            }
        }
        true
    }

    /// Asks placement as an operator does: again, until it is done.
    fn ask_operator(&mut self, request: AdminRequest) -> Option<AdminAnswer> {
        for _ in 0..20 {
            self.oracle.take_answers();
            self.operator(request.clone());
            self.pass(SLICE);
            let answer = self.oracle.take_answers().pop();
            if let Some(answer) = answer.filter(|answer| !matches!(answer, AdminAnswer::Refused(_))) {
                return Some(answer);
            }
        }
        None
    }

    fn operator(&mut self, request: AdminRequest) {
        let now = self.cluster.now();
        for voter in council(self.setting) {
            self.cluster.command(now, voter, Command::Admin(request.clone()));
        }
    }

    fn pass(&mut self, time: u64) {
        self.cluster.run_until(self.cluster.now() + time, &mut self.oracle);
        self.oracle.look_at_liveness(&self.cluster.view());
    }

    fn wait_for(&mut self, most: u64, reached: impl Fn(&Self) -> bool) -> bool {
        let until = self.cluster.now() + most;
        while self.cluster.now() < until && self.goes_on() {
            self.operator(AdminRequest::Status { behind: VolumeId(0) });
            self.pass(SLICE);
            if reached(self) {
                return true;
            }
        }
        false
    }

    fn nodes_up(&self) -> usize {
        let up = trefoil_protocol::config::NodeState::Up;
        let count = |status: &ClusterStatus| status.nodes.iter().filter(|node| node.state == up).count();
        self.oracle.status().map_or(0, count)
    }

    // ---- the end ----

    /// Takes every fault away.
    fn heal(&mut self) {
        let all = || vec!["all".to_owned()];
        for action in [Action::Heal(all()), Action::Repair(all()), Action::Restart(all())] {
            self.cluster.act(action, &mut self.oracle);
        }
    }

    /// What an operator does about stores that the control plane refuses for ever: fences them, so that
    /// nobody waits for them.
    fn fence_the_refused(&mut self) {
        self.wait_for(SLICE, |_| true);
        let refused: Vec<trefoil_protocol::ids::StoreId> =
            self.oracle.status().map_or_else(Vec::new, |status| {
                let refused =
                    |node: &&trefoil_protocol::config::NodeEntry| self.oracle.is_refused(node.node.as_str());
                status.nodes.iter().filter(refused).map(|node| node.store).collect()
            });
        self.fence(refused);
    }

    /// Stores that volumes remember and that no node runs any more: their disks are lost, or the control
    /// plane refuses them for ever.
    fn ownerless(&self) -> Vec<trefoil_protocol::ids::StoreId> {
        let Some(status) = self.oracle.status() else { return Vec::new() };
        let held = status.volumes.iter().flat_map(|volume| volume.ever_held.iter().copied());
        let held: BTreeSet<trefoil_protocol::ids::StoreId> = held.collect();
        let up = trefoil_protocol::config::NodeState::Up;
        let is_refused = |node: &str| self.oracle.is_refused(node);
        let runners = status.nodes.iter().filter(|node| node.state == up || !is_refused(node.node.as_str()));
        held.into_iter().filter(|store| !runners.clone().any(|node| node.store == *store)).collect()
    }

    fn fence(&mut self, stores: Vec<trefoil_protocol::ids::StoreId>) {
        for store in stores {
            self.ask_operator(AdminRequest::FenceStore { store });
        }
    }

    fn recover(&mut self) {
        self.fence_the_refused();
        self.wait_for(self.setting.recovery_max, Self::is_whole);
        // Clients that asked during the last fault are as patient as their deadline allows.
        let until = self.cluster.now() + self.setting.recovery_max;
        let mut done = false;
        while !done && self.cluster.now() < until && self.goes_on() {
            self.wait_for(until - self.cluster.now(), |stage| {
                stage.is_done() || stage.is_whole() && !stage.ownerless().is_empty()
            });
            done = self.is_done();
            // A node whose disk was replaced may come back with the new one only now.
            self.fence(self.ownerless());
        }
        if !self.goes_on() {
            return;
        }
        let healed_at = self.oracle.began_at() + self.setting.horizon;
        self.whole_after = done.then(|| self.cluster.now().saturating_sub(healed_at));
        if !done {
            let sentence = self.what_is_missing();
            self.not_live("the healed cluster did not become whole", sentence);
        }
        for (at, node, command) in self.oracle.read_everything_back(self.cluster.now()) {
            self.cluster.command(at, node, command);
        }
        if !self.wait_for(self.setting.recovery_max, |stage| stage.oracle.has_read_back()) {
            let sentence = self.what_is_missing();
            self.not_live("not everything could be read back", sentence);
        }
    }

    fn is_done(&self) -> bool {
        self.oracle.is_idle() && self.is_whole() && self.oracle.condemned() == 0
    }

    /// Three in-sync copies of every volume under an activated epoch that keeps both data centres.
    fn is_whole(&self) -> bool {
        let expected = self.setting.volumes as usize * self.setting.shape.tenants.len();
        self.oracle.status().is_some_and(|status| {
            status.volumes.len() == expected
                && status.volumes.iter().all(|volume| {
                    let protection = trefoil_protocol::config::Protection::BothDcs;
                    volume.activated
                        && volume.primary.is_some()
                        && volume.in_sync().count() >= 3
                        && volume.protection == protection
                })
        })
    }

    fn what_is_missing(&self) -> String {
        let volumes = self.oracle.status().map_or_else(Vec::new, |status| {
            let short = |volume: &trefoil_protocol::config::VolumeConfig| {
                let members: Vec<String> = volume
                    .members
                    .iter()
                    .map(|member| format!("{} {:?}", member.node, member.state))
                    .collect();
                format!(
                    "volume {} at epoch {}{}, primary {:?}, {}, {:?}",
                    volume.volume,
                    volume.epoch,
                    if volume.activated { "" } else { " (not activated)" },
                    volume.primary,
                    members.join(" "),
                    volume.protection
                )
            };
            status.volumes.iter().map(short).collect()
        });
        let (condemned, idle) = (self.oracle.condemned(), self.oracle.is_idle());
        format!(
            "{} nodes up; {}; {condemned} deletes not certified; clients {}; fatal: {:?}",
            self.nodes_up(),
            volumes.join("; "),
            if idle { "idle" } else { "waiting" },
            self.oracle.fatal()
        )
    }

    fn not_live(&mut self, what: &str, detail: String) {
        let at_ns = self.cluster.now();
        let sentence = format!("{what}: {detail}");
        self.oracle.find([Violation { checker: "liveness", object: "cluster".to_owned(), at_ns, sentence }]);
    }

    fn report_with(mut self, what: &str, detail: String) -> Report {
        self.not_live(what, detail);
        self.report()
    }

    /// How often clients asked, and asked again.
    fn asked(&self) -> (u64, u64) {
        let clients = self.cluster.nodes().iter().filter_map(|node| node.program()?.client());
        let retries = clients.map(|client| client.retries());
        retries.fold((0, 0), |sum, client| (sum.0 + client.requests(), sum.1 + client.retries()))
    }

    fn report(mut self) -> Report {
        let undecided = self.oracle.conclude(&self.cluster.view());
        let sim_time = self.cluster.now();
        let power_losses = self.cluster.power_losses();
        let (requests, retries) = self.asked();
        let disk_queue = self.cluster.nodes().iter().map(|node| node.longest_queue() as u64).max();
        let disk_queue = disk_queue.unwrap_or_default();
        Report {
            seed: self.seed,
            trace: self.cluster.finish(),
            sim_time,
            operations: self.oracle.history().operations(),
            answered: self.oracle.answered(),
            faults: self.setting.plan.damaging(),
            longest_wait: self.oracle.longest_wait(),
            certified: self.oracle.certified(),
            undecided,
            acknowledged: self.oracle.acknowledged_at().to_vec(),
            protections: self.oracle.protections().clone(),
            fatal: self.oracle.fatal().to_vec(),
            stopped: self.oracle.stopped(),
            joined_again: self.oracle.joined_again(),
            put_out: self.oracle.put_out(),
            listed: self.oracle.lost_and_listed(),
            unknown: self.oracle.unknown(),
            lease_over: self.oracle.lease_over(),
            stale: self.oracle.stale(),
            declared_in_vain: self.declared_in_vain,
            requests,
            retries,
            disk_queue,
            faults_by_kind: self.oracle.faults().clone(),
            timeline: self.oracle.timeline().clone(),
            course: self.oracle.course().clone(),
            began_at: self.oracle.began_at(),
            whole_after: self.whole_after,
            read_back: self.oracle.read_back(),
            power_losses,
            handovers: 0,
            longest_pause: 0,
            violations: self.oracle.violations().to_vec(),
        }
    }
}

/// The places of the voters that found the cluster, and of those that an operator adds.
fn council(setting: &Setting) -> Vec<NodeIndex> {
    let named = |verb: &String| {
        let name = verb.strip_prefix("voter-").and_then(|rest| rest.rsplit(' ').next())?.parse().ok()?;
        roster::place_of_voter(VoterId::of(name))
    };
    let added = setting.operator.iter().flat_map(|errand| errand.verbs.iter().filter_map(named));
    roster::voter_places(setting.voters).chain(added).collect::<BTreeSet<_>>().into_iter().collect()
}

/// How many clients there are.
pub(super) fn clients(setting: &Setting) -> u32 {
    let tenants = u32::try_from(setting.shape.tenants.len()).expect("few tenants");
    tenants * setting.shape.clients_per_tenant
}

/// The plan, later by `by`.
fn shifted(plan: &FaultPlan, by: u64) -> FaultPlan {
    let shift = |fault: &Fault| {
        let trigger = match &fault.trigger {
            Trigger::At(at) => Trigger::At(crate::faults::Duration(at.0 + by)),
            when @ Trigger::When { .. } => when.clone(),
        };
        Fault { trigger, action: fault.action.clone() }
    };
    FaultPlan { faults: plan.faults.iter().map(shift).collect() }
}
