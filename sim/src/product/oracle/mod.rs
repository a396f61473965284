//! The one who sees everything: makes the clients' work, records what they saw, follows the logs,
//! looks into the disks at every acknowledgement, and asks the checkers.
//!
//! It changes nothing but through commands to clients and to the operator's desk. What it concludes
//! rests on what went over the wire, on durable bytes and on what clients were told, never on a
//! node's own index; only whether a node would serve is asked of the node.

mod clients;
mod health;
mod log;
mod losses;
mod parting;
mod records;
mod stale;
mod stores;

use std::collections::{BTreeMap, BTreeSet};

use trefoil_drill::Course;
use trefoil_protocol::ids::{Lsn, StoreId, TenantId, VersionId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, ClusterStatus};
use trefoil_storage_node::Notice;
use trefoil_storage_node::volume::replica::Stop;

use self::clients::Under;
use self::health::Health;
pub(in crate::product) use self::health::newest_state;
use self::log::VolumeLog;
use self::parting::Parting;
use super::process::Process;
use super::seen::Seen;
use super::timeline::{Moment, Timeline};
use crate::checkers::Violation;
use crate::checkers::consensus::Consensus;
use crate::checkers::epochs::Epochs;
use crate::checkers::erase_is_legal::EraseIsLegal;
use crate::checkers::idempotency::Idempotency;
use crate::checkers::liveness::Liveness;
use crate::checkers::no_resurrection::NoResurrection;
use crate::checkers::single_primary::SinglePrimary;
use crate::cluster::{Agenda, Driver, View};
use crate::faults::Action;
use crate::history::{History, ObjectId, VersionTag};
use crate::network::NodeIndex;
use crate::workload::{Workload, WorkloadShape};

/// What the healing of everything is called among the strikes.
const HEALED: &str = "all is healed";

/// A version, as the client that made it knows it.
#[derive(Clone, Debug)]
struct Made {
    object: ObjectId,
    sealed: bytes::Bytes,
    wrapped: bytes::Bytes,
    upload: trefoil_protocol::ids::UploadId,
}

/// The oracle of a run.
#[derive(Debug)]
pub struct Oracle {
    shape: WorkloadShape,
    workload: Workload,
    /// When the clients began.
    began_at: u64,
    /// No client begins anything after this.
    ends_at: u64,
    under_way: BTreeMap<u64, Under>,
    /// What is still to be read back at the end, by client.
    to_read: BTreeMap<NodeIndex, Vec<ObjectId>>,
    reading_back: bool,
    next_reading: u64,
    read_back: BTreeMap<ObjectId, crate::history::Value>,
    history: History,
    made: BTreeMap<VersionId, Made>,
    payloads: BTreeMap<[u8; 32], ObjectId>,
    last_deleted: BTreeMap<ObjectId, VersionId>,
    /// Versions that somebody ever began to undelete: a delete of them says little.
    undeleting: BTreeSet<VersionId>,
    tenants: BTreeMap<TenantId, String>,
    prepared: BTreeSet<NodeIndex>,
    answers: Vec<AdminAnswer>,
    status: Option<Box<ClusterStatus>>,
    logs: BTreeMap<VolumeId, VolumeLog>,
    /// Volumes that go on without what their lost stores have, and do not serve yet.
    parting: BTreeMap<VolumeId, Parting>,
    /// Versions that were committed and are nowhere in the history that their volume went on with.
    lost_puts: BTreeMap<VolumeId, BTreeSet<VersionId>>,
    /// How many lost versions the control plane lists.
    listed: BTreeMap<VolumeId, u64>,
    erase: EraseIsLegal,
    /// Deleted versions that are not certified yet.
    condemned: BTreeSet<VersionId>,
    past_return: BTreeSet<VersionId>,
    certified: u64,
    resurrection: NoResurrection,
    idempotency: Idempotency,
    epochs: Epochs,
    serving: SinglePrimary,
    liveness: Liveness,
    health: Health,
    /// How far each served volume was committed at the last look.
    progress: BTreeMap<VolumeId, Lsn>,
    timeline: Timeline,
    course: Course,
    faults: BTreeMap<String, u64>,
    consensus: Consensus,
    protections: BTreeSet<String>,
    acknowledged_at: Vec<u64>,
    fatal: Vec<String>,
    /// Volumes that stopped by name.
    stopped: BTreeSet<VolumeId>,
    /// How often a suspect store joined again.
    joined_again: u64,
    /// Stores that were put out because they were slow.
    put_out: BTreeSet<StoreId>,
    /// Volumes of which the control plane says that nobody knows what one data centre alone acknowledged.
    unknown: BTreeSet<VolumeId>,
    lease_over: u64,
    /// What put each version: the hash of its plaintext.
    plains: BTreeMap<VersionId, [u8; 32]>,
    last_stored: BTreeMap<ObjectId, VersionId>,
    /// The committed record that hides each version that is hidden.
    deletes: BTreeMap<VersionId, (VolumeId, Lsn)>,
    stale: u64,
    answered: u64,
    longest_wait: u64,
    violations: Vec<Violation>,
}

impl Oracle {
    /// The oracle of a seed. Healthy volumes must be served within `serves_within`.
    #[must_use]
    pub fn new(seed: u64, shape: WorkloadShape, serves_within: u64) -> Self {
        Self {
            workload: Workload::new(seed, shape.clone()),
            shape,
            began_at: 0,
            ends_at: 0,
            under_way: BTreeMap::new(),
            to_read: BTreeMap::new(),
            reading_back: false,
            next_reading: 1 << 60,
            read_back: BTreeMap::new(),
            history: History::default(),
            made: BTreeMap::new(),
            payloads: BTreeMap::new(),
            last_deleted: BTreeMap::new(),
            undeleting: BTreeSet::new(),
            tenants: BTreeMap::new(),
            prepared: BTreeSet::new(),
            answers: Vec::new(),
            status: None,
            logs: BTreeMap::new(),
            parting: BTreeMap::new(),
            lost_puts: BTreeMap::new(),
            listed: BTreeMap::new(),
            erase: EraseIsLegal::default(),
            condemned: BTreeSet::new(),
            past_return: BTreeSet::new(),
            certified: 0,
            resurrection: NoResurrection::default(),
            idempotency: Idempotency::default(),
            epochs: Epochs::default(),
            serving: SinglePrimary::default(),
            liveness: Liveness::within(serves_within),
            health: Health::default(),
            progress: BTreeMap::new(),
            timeline: Timeline::default(),
            course: Course::default(),
            faults: BTreeMap::new(),
            consensus: Consensus::default(),
            protections: BTreeSet::new(),
            acknowledged_at: Vec::new(),
            fatal: Vec::new(),
            stopped: BTreeSet::new(),
            joined_again: 0,
            put_out: BTreeSet::new(),
            unknown: BTreeSet::new(),
            lease_over: 0,
            plains: BTreeMap::new(),
            last_stored: BTreeMap::new(),
            deletes: BTreeMap::new(),
            stale: 0,
            answered: 0,
            longest_wait: 0,
            violations: Vec::new(),
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What clients saw.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Operations that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// The longest time that an answered operation took.
    #[must_use]
    pub fn longest_wait(&self) -> u64 {
        self.longest_wait
    }

    /// Deletes that were certified.
    #[must_use]
    pub fn certified(&self) -> u64 {
        self.certified
    }

    /// Deleted versions that are still on their way to a certificate.
    #[must_use]
    pub fn condemned(&self) -> usize {
        self.condemned.len()
    }

    /// When mutations were acknowledged, counted from the moment the clients began.
    #[must_use]
    pub fn acknowledged_at(&self) -> &[u64] {
        &self.acknowledged_at
    }

    /// The rules under which something was acknowledged.
    #[must_use]
    pub fn protections(&self) -> &BTreeSet<String> {
        &self.protections
    }

    /// Notes what struck. What is done when the clients have stopped heals everything, in several steps.
    pub(super) fn note_strike(&mut self, now: u64, what: String, heals: bool) {
        let (strikes, since) = (&mut self.course.strikes, now.saturating_sub(self.began_at));
        if now < self.ends_at {
            strikes.push((since, what, heals));
        } else if !strikes.iter().any(|(_, what, _)| what == HEALED) {
            strikes.push((since, HEALED.to_owned(), true));
        }
    }

    /// What clients saw, and what struck; times count from [`Self::began_at`].
    #[must_use]
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// When the clients began.
    #[must_use]
    pub fn began_at(&self) -> u64 {
        self.began_at
    }

    /// How many objects were read back in the end.
    #[must_use]
    pub fn read_back(&self) -> u64 {
        self.read_back.len() as u64
    }

    /// What happened when.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// How many faults struck, by kind.
    #[must_use]
    pub fn faults(&self) -> &BTreeMap<String, u64> {
        &self.faults
    }

    /// Why processes ended themselves.
    #[must_use]
    pub fn fatal(&self) -> &[String] {
        &self.fatal
    }

    /// How many volumes stopped by name.
    #[must_use]
    pub fn stopped(&self) -> u64 {
        self.stopped.len() as u64
    }

    /// How often a suspect store joined again.
    #[must_use]
    pub fn joined_again(&self) -> u64 {
        self.joined_again
    }

    /// How many stores were put out because they were slow.
    #[must_use]
    pub fn put_out(&self) -> u64 {
        self.put_out.len() as u64
    }

    /// How many volumes there were of which the control plane said that nobody knows what one data centre alone acknowledged.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.len() as u64
    }

    /// How often a primary answered that its lease is over.
    #[must_use]
    pub fn lease_over(&self) -> u64 {
        self.lease_over
    }

    /// How many reads were answered with the mark that the version may be deleted by now.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// Whether this node ended itself because the control plane refuses its store for ever.
    #[must_use]
    pub fn is_refused(&self, node: &str) -> bool {
        let ends = |reason: &str| reason.contains("refused by the control plane");
        let said = |reason: &String| reason.starts_with(&format!("{node}: ")) && ends(reason);
        self.fatal.iter().any(said)
    }

    /// What placement last said of the cluster.
    #[must_use]
    pub fn status(&self) -> Option<&ClusterStatus> {
        self.status.as_deref()
    }

    /// Operators' answers other than a status since the last call.
    pub(super) fn take_answers(&mut self) -> Vec<AdminAnswer> {
        std::mem::take(&mut self.answers)
    }

    /// A tenant has this number.
    pub(super) fn names(&mut self, tenant: TenantId, name: &str) {
        self.tenants.insert(tenant, name.to_owned());
    }

    /// How many clients have their keys.
    pub(super) fn prepared(&self) -> usize {
        self.prepared.len()
    }

    /// Adds what a later look found.
    pub(super) fn find(&mut self, found: impl IntoIterator<Item = Violation>) {
        self.violations.extend(found);
    }

    fn object_of(&self, version: VersionId) -> String {
        self.made.get(&version).map_or_else(|| format!("version {version}"), |made| made.object.to_string())
    }
}

fn tag(version: VersionId) -> VersionTag {
    VersionTag(u128::from_be_bytes(version.0))
}

impl Driver<Process> for Oracle {
    fn observe(
        &mut self,
        view: &View<'_, Process>,
        node: NodeIndex,
        seen: Seen,
        agenda: &mut Agenda<Process>,
    ) {
        match seen {
            Seen::Prepared => {
                self.prepared.insert(node);
            }
            Seen::Invoked(operation, sealed) => {
                self.invoked(view, operation, sealed.map(|sealed| *sealed));
                self.arrived(view.now, operation, agenda);
            }
            Seen::Ended(operation, ending) => self.ended(view, node, operation, ending, agenda),
            Seen::Acknowledged(config, answer) => self.acknowledged(view, &config, &answer),
            Seen::LeaseOver => self.lease_over += 1,
            Seen::Gave(config, version, marked, leased_for) => {
                self.gave(view, node, &config, (version, marked), leased_for);
            }
            Seen::Sent(message, bulk) => self.sent(view, node, &message, &bulk),
            Seen::Obeyed(volume, store, epoch) => {
                let stale = self.epochs.obeyed(volume.0, &store.to_string(), epoch.0, view.now);
                self.once(stale);
            }
            Seen::Noticed(Notice::Stopped(Stop::Lost { volume, .. } | Stop::Differs { volume, .. })) => {
                self.stopped.insert(volume);
            }
            Seen::Noticed(Notice::Verified { .. }) => self.joined_again += 1,
            Seen::Noticed(Notice::Verifying { .. } | Notice::Damaged { .. }) => {}
            Seen::Fatal(reason) => {
                self.fatal.push(format!("{}: {reason}", view.nodes[usize::from(node.0)].name()))
            }
            Seen::Voter(standing) => {
                let voter = view.nodes[usize::from(node.0)].name();
                self.violations.extend(self.consensus.stands(voter, &standing, view.now));
            }
            Seen::Admin(answer) => match *answer {
                AdminAnswer::Status(status) => self.status = Some(status),
                answer => self.answers.push(answer),
            },
        }
    }

    fn struck(&mut self, now: u64, action: &Action) {
        let kind = action.kind();
        let what = action.words();
        self.timeline.faults.push(Moment { at_ns: now, what: what.clone() });
        self.note_strike(now, what, action.is_healing());
        if !action.is_healing() {
            *self.faults.entry(kind).or_default() += 1;
        }
    }

    fn stepped(&mut self, view: &View<'_, Process>, node: NodeIndex) {
        self.who_serves(view, node);
        self.look_at_partings(view, node);
    }
}
