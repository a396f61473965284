//! The commands of the control plane's log and what applying one results in. A command carries
//! decisions, never questions: whoever proposes has looked at clocks, liveness and randomness, so
//! that applying needs none of them.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Member, Protection, SingleDcPolicy, StaleReads};
use trefoil_protocol::deletion::{PurgeOrder, PurgeScope};
use trefoil_protocol::ids::{
    ConfigIndex, DcId, Epoch, Hash, Incarnation, Lsn, NodeId, OperatorId, PrincipalId, PublicKey, StoreId,
    TenantId, TenantName, VersionId, VolumeId, VoterId,
};
use trefoil_protocol::message::control::{Note, Noted, Register};
use trefoil_protocol::message::holdings::Holdings;
use trefoil_protocol::message::loss::Difference;
use trefoil_protocol::message::plan::Verb;
use trefoil_protocol::time::{CpTime, Millis};

use super::plans::PlanDraft;
use super::proposals::ProposalDraft;
use super::refusals::RefusalDraft;
use super::voters::VoterStep;

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Control-plane time goes on.
    #[n(0)]
    Tick(#[n(0)] Millis),
    /// A node opened a store.
    #[n(1)]
    Register(#[n(0)] Register),
    /// A node renews: it is there, and its incarnation is on its disk.
    #[n(2)]
    NodeUp(#[n(0)] NodeId, #[n(1)] Incarnation),
    /// A node is silent. Ignored if it has started anew meanwhile.
    #[n(3)]
    NodeDown(#[n(0)] NodeId, #[n(1)] Incarnation),
    /// A store is dead for ever.
    #[n(4)]
    FenceStore(#[n(0)] StoreId),
    /// A tenant with its keys and volumes.
    #[n(5)]
    CreateTenant(#[n(0)] NewTenant),
    /// A person or service of a tenant.
    #[n(6)]
    CreatePrincipal(#[n(0)] TenantId),
    /// A block of wrap nonces for one principal; with a fresh key in case the newest is used up.
    #[n(7)]
    ReserveNonces(#[n(0)] TenantId, #[n(1)] Option<WrappedKey>),
    /// The next configuration of a volume.
    #[n(8)]
    Reconfigure(#[n(0)] VolumeChange),
    /// The configuration of this epoch may acknowledge from now on; its primary knew this committed
    /// point.
    #[n(9)]
    Activate(#[n(0)] VolumeId, #[n(1)] Epoch, #[n(2)] Lsn),
    /// A store that is no member erased everything it held of a volume.
    #[n(10)]
    Retired(#[n(0)] VolumeId, #[n(1)] StoreId, #[n(2)] Epoch),
    /// A batch may be purged.
    #[n(11)]
    IssueOrder(#[n(0)] OrderDraft),
    /// Versions are gone everywhere.
    #[n(12)]
    Certify(#[n(0)] CertifyDraft),
    /// What one data centre alone acknowledged.
    #[n(13)]
    Note(#[n(0)] Note),
    /// A voter says which copy of the log it has, what it signs with, and which keys it shares.
    #[n(14)]
    IntroduceVoter(#[n(0)] VoterId, #[n(1)] u64, #[n(2)] Option<PublicKey>, #[n(3)] Option<Hash>),
    /// The primary of this epoch shall let what is under way end and give the volume to this in-sync
    /// store; or go on as before.
    #[n(15)]
    HandOver(#[n(0)] VolumeId, #[n(1)] Epoch, #[n(2)] Option<StoreId>),
    /// A plan, kept for somebody to apply.
    #[n(16)]
    EnterPlan(#[n(0)] PlanDraft),
    /// The plan of this number and verb is to be carried out.
    #[n(17)]
    ApplyPlan(#[n(0)] u64, #[n(1)] Verb),
    /// What is left of the plan under way is given up.
    #[n(18)]
    CancelPlan,
    /// Who keeps the log changes by one member.
    #[n(19)]
    ChangeVoter(#[n(0)] VoterStep),
    /// What another operator must approve.
    #[n(20)]
    Propose(#[n(0)] ProposalDraft),
    /// This operator approves the proposal of this number: it is done.
    #[n(21)]
    Approve(#[n(0)] u64, #[n(1)] OperatorId),
    /// After a restore a store says what it holds.
    #[n(22)]
    Holdings(#[n(0)] Holdings),
    /// The primary of this epoch has hidden and brought back what the lost stores had.
    #[n(23)]
    Replayed(#[n(0)] VolumeId, #[n(1)] Epoch),
    /// A store that a volume went on without tells what it has alone.
    #[n(24)]
    Differs(#[n(0)] Difference),
    /// An operator wanted to begin the log anew beside this one, and was refused.
    #[n(25)]
    NoteRefused(#[n(0)] RefusalDraft),
}

/// A tenant to be made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewTenant {
    /// The id it must get; the keys are bound to it.
    #[n(0)]
    pub tenant: TenantId,
    /// Its name.
    #[n(1)]
    pub name: TenantName,
    /// How long a delete can be undone.
    #[n(2)]
    pub window: Millis,
    /// How long the first copy stays after the others are erased.
    #[n(3)]
    pub first_copy_retention: Millis,
    /// Whether writes go on while one data centre cannot be reached.
    #[n(6)]
    pub single_dc: SingleDcPolicy,
    /// Whether exact versions can be read from replicas that have lost the control plane.
    #[n(7)]
    pub stale_reads: StaleReads,
    /// Its volumes, by slot.
    #[n(4)]
    pub volumes: Vec<NewVolume>,
    /// Its keys.
    #[n(5)]
    pub keys: Vec<WrappedKey>,
}

/// A volume to be made: empty, so every member is in sync. The first member is its primary.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewVolume {
    /// The data centre that shall hold two copies.
    #[n(0)]
    pub home: DcId,
    /// Its members.
    #[n(1)]
    pub members: Vec<Member>,
}

/// A key wrapped by the master key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WrappedKey {
    /// Its version; 0 hashes names.
    #[n(0)]
    pub version: u32,
    /// Nonce, ciphertext and tag.
    #[cbor(n(1), with = "trefoil_protocol::codec::bytes")]
    pub wrapped: Bytes,
}

/// The next configuration of a volume, valid only on top of the one it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeChange {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch it was made from.
    #[n(1)]
    pub from: Epoch,
    /// The primary; `None` takes the volume down.
    #[n(2)]
    pub primary: Option<NodeId>,
    /// All members.
    #[n(3)]
    pub members: Vec<Member>,
    /// The rule for acknowledgements.
    #[n(4)]
    pub protection: Protection,
}

/// A purge order to be numbered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrderDraft {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The least epoch under which it is valid.
    #[n(1)]
    pub epoch: Epoch,
    /// Which stores it permits to erase.
    #[n(2)]
    pub scope: PurgeScope,
    /// How many items.
    #[n(3)]
    pub count: u32,
    /// Their hash.
    #[n(4)]
    pub items: Hash,
    /// When the last of their windows ended.
    #[n(5)]
    pub due: CpTime,
    /// The control-plane time at which the windows were judged; every item due by then is in it.
    #[n(6)]
    pub judged: CpTime,
}

/// Versions to be entered into the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CertifyDraft {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Every store whose receipt was checked.
    #[n(1)]
    pub receipted: Vec<StoreId>,
    /// The versions with their tombstones.
    #[n(2)]
    pub versions: Vec<(VersionId, Lsn)>,
}

/// What applying a command resulted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or done before.
    Done,
    /// The store's run has this number.
    Registered(Incarnation),
    /// The tenant was made.
    Tenant(TenantId),
    /// The principal was made.
    Principal(TenantId, PrincipalId),
    /// A block of wrap nonces under key `version`.
    Nonces {
        /// The key's version.
        version: u32,
        /// The first four bytes of every nonce of the block.
        prefix: u32,
    },
    /// The order, new or from before.
    Order(PurgeOrder),
    /// When each version was certified first.
    Certified(Vec<CpTime>),
    /// Where the account of what is at risk ends now.
    Noted(Noted),
    /// An estranged store was heard up to here; whether that was everything.
    Heard(Lsn, bool),
    /// The plan has this number.
    Plan(u64),
    /// The proposal has this number.
    Proposal(u64),
    /// Nothing was done.
    Rejected(Rejection),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The state moved on between proposal and commit.
    #[error("the state has changed meanwhile")]
    Stale,
    /// No such node, store, tenant or volume.
    #[error("no such {0}")]
    Unknown(&'static str),
    /// The store is fenced for ever.
    #[error("the store is fenced for ever")]
    Fenced,
    /// The disk is older than what the store already acknowledged.
    #[error("the disk knows incarnation {got}, but {known} was in use: this is an old image of the store")]
    OldImage {
        /// What the disk says.
        got: Incarnation,
        /// What it must know at least.
        known: Incarnation,
    },
    /// The store knows another restored control plane.
    #[error(
        "the store knows a control plane of generation {0} that this one does not follow: restore once more, \
         with --generation {next}", next = .0 + 1
    )]
    OtherGeneration(u64),
    /// Something that never changes is different.
    #[error("the {0} differs from the registered one")]
    Differs(&'static str),
    /// The name is in use.
    #[error("the name is taken")]
    NameTaken,
    /// The command would break a volume.
    #[error("volume {0} would be left without {1}")]
    Breaks(VolumeId, &'static str),
    /// A list is as long as it may be.
    #[error("too many {0}")]
    TooMuch(&'static str),
    /// A window is not over.
    #[error("not yet")]
    NotYet,
    /// Something that the plan was made from is not so any more.
    #[error("a volume or node of the plan has changed since state {0}: make a new plan")]
    PlanOutdated(ConfigIndex),
    /// It is a plan of something else.
    #[error("plan {0} is a plan of something else")]
    OtherPlan(u64),
    /// One plan at a time.
    #[error("another plan is under way; wait for it or give it up with `trefoil plan cancel`")]
    PlanUnderWay,
    /// A node that holds volumes cannot go.
    #[error("node {0} may still hold volumes: drain it first, or fence its store if it is lost")]
    StillHolds(NodeId),
    /// Nobody with keys would be left to vote.
    #[error("no other voter holds keys")]
    LastKeeper,
    /// Who proposes something does not approve it.
    #[error("proposal {0} is yours: another operator must approve it")]
    OwnProposal(u64),
    /// Two operators were needed, and there were two.
    #[error("proposal {0} was approved by another operator before")]
    ApprovedBefore(u64),
    /// Too late.
    #[error("proposal {0} has expired: propose it anew")]
    ProposalExpired(u64),
    /// Nothing is lost while somebody leads.
    #[error("volume {0} is not down: there is no loss to accept")]
    NotDown(VolumeId),
    /// A store that holds everything is there.
    #[error("volume {0} has a complete store that is up: it comes up by itself")]
    NotLost(VolumeId),
    /// Nothing is discarded before it is known what it is.
    #[error(
        "store {0} is up and has not told yet what it has of volume {1} alone: `trefoil loss report` shows when"
    )]
    NotHeard(StoreId, VolumeId),
    /// The newest key has wrapped as much as it may.
    #[error("the newest key is used up")]
    KeyUsedUp,
}
