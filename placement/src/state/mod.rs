//! The replicated state of the control plane: a pure function of the commands in its log. Applying
//! reads no clock, draws no number and iterates nothing unordered, so that the same commands give
//! the same bytes on every voter.

mod at_risk;
mod by_change;
mod clock;
mod command;
mod deletions;
mod left;
mod links;
mod loss;
mod parting;
mod plans;
mod proposals;
mod refusals;
mod search;
mod succession;
mod tenants;
mod topology;
mod volumes;
mod voters;

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::config::{NodeState, VoterEntry};
use trefoil_protocol::ids::ConfigIndex;
use trefoil_protocol::message::control::Register;
use trefoil_protocol::mutant;

pub use at_risk::AtRisk;
pub use clock::{ClusterClock, TICK_EVERY, TICK_MAX};
pub use command::{
    CertifyDraft, Command, NewTenant, NewVolume, OrderDraft, Outcome, Rejection, VolumeChange, WrappedKey,
};
pub use deletions::{Deletions, LedgerEntry};
pub use links::Links;
pub use loss::Loss;
pub use parting::Parting;
pub use plans::{AppliedPlan, Lead, PlanDraft, PlanStep, Plans, Wish};
pub use proposals::{PROPOSAL_LASTS, ProposalDraft, Proposals};
pub use refusals::{REFUSAL_IS_NEWS_FOR, RefusalDraft, Refusals};
pub use search::{Search, Sought, first_of};
pub use tenants::{NONCE_BLOCK, NONCE_BLOCKS_MAX, TenantRecord, Tenants};
pub use topology::{NodeRecord, StoreRecord, Topology};
pub use volumes::{MEMBERS_MAX, Role, VolumeRecord, Volumes};
pub use voters::{RetiredVoter, VOTERS_MAX, VoterGoal, VoterRecord, VoterStep, Voters};

/// Everything the control plane has decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// The cluster's name.
    #[n(0)]
    pub cluster: String,
    /// The last command applied.
    #[n(1)]
    pub applied: ConfigIndex,
    /// Raised when the control plane is restored from a backup; older orders are void.
    #[n(2)]
    pub generation: u64,
    /// The clock.
    #[n(3)]
    pub clock: ClusterClock,
    /// Nodes and stores.
    #[n(4)]
    pub topology: Topology,
    /// Tenants.
    #[n(5)]
    pub tenants: Tenants,
    /// Volumes.
    #[n(6)]
    pub volumes: Volumes,
    /// The deletion ledger.
    #[n(7)]
    pub deletions: Deletions,
    /// Who keeps the log.
    #[n(8)]
    pub voters: Voters,
    /// The cross connections as operators want them used.
    #[n(9)]
    pub links: Links,
    /// What operators want done.
    #[n(10)]
    pub plans: Plans,
    /// What takes two operators.
    #[n(11)]
    pub proposals: Proposals,
    /// Who has spoken since a restore.
    #[n(12)]
    pub search: Search,
    /// What operators wanted against the rules.
    #[n(13)]
    pub refusals: Refusals,
}

impl State {
    /// The state of a cluster that was just made.
    pub fn new(cluster: &str, voters: &[VoterEntry]) -> Self {
        Self {
            cluster: cluster.to_owned(),
            applied: ConfigIndex(0),
            generation: 1,
            clock: ClusterClock::default(),
            topology: Topology::default(),
            tenants: Tenants::default(),
            volumes: Volumes::default(),
            deletions: Deletions::default(),
            voters: Voters::founding(voters),
            links: Links::default(),
            plans: Plans::default(),
            proposals: Proposals::default(),
            search: Search::default(),
            refusals: Refusals::default(),
        }
    }

    /// The state's bytes, for a snapshot.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::to_vec(self)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        codec::from_slice(bytes)
    }

    /// Notes that the log is applied up to `index`.
    pub fn pass(&mut self, index: ConfigIndex) {
        let in_order = mutant!(C02, index > self.applied, true);
        assert!(in_order, "the log is applied in order, each entry once");
        self.applied = index;
    }

    /// Applies the command at `index`.
    pub fn apply(&mut self, index: ConfigIndex, command: &Command) -> Outcome {
        self.pass(index);
        self.decide(index, command).unwrap_or_else(Outcome::Rejected)
    }

    fn decide(&mut self, index: ConfigIndex, command: &Command) -> Result<Outcome, Rejection> {
        match command {
            Command::Tick(advance) => self.clock.advance(*advance),
            Command::Register(asked) => return self.register(index, asked),
            Command::NodeUp(node, run) => self.topology.set_state(index, *node, *run, NodeState::Up)?,
            Command::NodeDown(node, run) => self.topology.set_state(index, *node, *run, NodeState::Down)?,
            Command::FenceStore(store) => {
                if let Some(volume) = self.volumes.last_complete_in(*store, &self.topology) {
                    return Err(Rejection::Breaks(volume, "a complete in-sync store"));
                }
                self.topology.fence(index, *store)?;
                self.volumes.except_fenced(index, &self.topology);
            }
            Command::CreateTenant(new) => return self.create_tenant(index, new),
            Command::CreatePrincipal(tenant) => return self.tenants.create_principal(*tenant),
            Command::ReserveNonces(tenant, fresh) => {
                return self.tenants.reserve_nonces(*tenant, fresh.as_ref());
            }
            Command::Reconfigure(change) => {
                self.volumes.change(index, change, &self.topology, self.clock.now())?
            }
            Command::Activate(volume, epoch, committed) => {
                self.volumes.activate(index, *volume, *epoch, *committed, self.clock.now())?;
            }
            Command::Retired(volume, store, epoch) => self.volumes.retired(index, *volume, *store, *epoch)?,
            Command::Note(note) => return self.volumes.enter_note(note).map(Outcome::Noted),
            Command::IssueOrder(draft) => return self.issue_order(draft),
            Command::Certify(draft) => return self.certify(draft),
            Command::HandOver(volume, epoch, to) => self.volumes.hand_over(index, *volume, *epoch, *to)?,
            Command::EnterPlan(draft) => return Ok(self.enter_plan(draft)),
            Command::ApplyPlan(number, verb) => return self.apply_plan(index, *number, *verb),
            Command::CancelPlan => {
                self.volumes.forget_wishes();
                self.voters.aim(None);
            }
            Command::ChangeVoter(step) => self.voters.change(step, self.clock.now())?,
            Command::IntroduceVoter(voter, log, key, shared) => {
                self.voters.introduce(*voter, *log, *key, *shared)?;
            }
            Command::Propose(draft) => return self.propose(draft),
            Command::Holdings(said) => self.hear_holdings(index, said)?,
            Command::Replayed(volume, epoch) => self.volumes.replayed(index, *volume, *epoch)?,
            Command::Differs(page) => return self.volumes.hear_difference(page),
            Command::Approve(number, by) => return self.approve(index, *number, *by),
            Command::NoteRefused(draft) => self.refused(draft),
        }
        Ok(Outcome::Done)
    }

    fn register(&mut self, index: ConfigIndex, asked: &Register) -> Result<Outcome, Rejection> {
        let registration = self.topology.register(index, asked, self.generation)?;
        if registration.new_run {
            self.volumes.restarted(index, asked.node, asked.store);
        }
        Ok(Outcome::Registered(registration.incarnation))
    }

    fn create_tenant(&mut self, index: ConfigIndex, new: &NewTenant) -> Result<Outcome, Rejection> {
        self.tenants.check(new)?;
        new.volumes.iter().try_for_each(|volume| self.volumes.check_new(volume))?;
        self.tenants.create(index, new);
        for (slot, volume) in (0..).zip(&new.volumes) {
            self.volumes.create(index, new, slot, volume);
        }
        Ok(Outcome::Tenant(new.tenant))
    }

    fn issue_order(&mut self, draft: &OrderDraft) -> Result<Outcome, Rejection> {
        let volume = self.volumes.get(draft.volume).ok_or(Rejection::Unknown("volume"))?;
        if draft.judged > self.clock.now() || draft.due > draft.judged {
            return Err(Rejection::NotYet);
        }
        Ok(self.deletions.issue(volume.config.tenant, self.generation, draft))
    }

    fn certify(&mut self, draft: &CertifyDraft) -> Result<Outcome, Rejection> {
        let volume = self.volumes.get(draft.volume).ok_or(Rejection::Unknown("volume"))?;
        // A store that may hold bytes since the receipts were checked has not given one.
        if volume.config.ever_held.iter().any(|store| !draft.receipted.contains(store)) {
            return Err(Rejection::Stale);
        }
        let differs = |(version, tombstone): &(_, _)| {
            self.deletions.certified(draft.volume, *version).is_some_and(|e| e.tombstone != *tombstone)
        };
        if draft.versions.iter().any(differs) {
            return Err(Rejection::Differs("tombstone"));
        }
        Ok(self.deletions.certify(self.clock.now(), draft))
    }
}
