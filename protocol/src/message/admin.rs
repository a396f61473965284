//! The admin plane: what operators ask placement. Every answer is complete in itself; nothing here
//! can reveal a key or an object's content.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::backup::SignedBackup;
use crate::config::{NodeEntry, SingleDcPolicy, StaleReads, Stand, TenantEntry, VolumeConfig, VoterEntry};
use crate::deletion::Signers;
use crate::ids::{Epoch, Lsn, NodeId, PrincipalId, StoreId, TenantId, TenantName, VersionId, VolumeId};
use crate::loss_list::SignedLossStatement;
use crate::message::REASON_MAX;
use crate::message::approval::{JointAction, PROPOSAL_REASON_MAX, ProposalView};
use crate::message::control::{LinkPolicy, LinkReport, StoppedVolume, VolumeStatistics};
use crate::message::load::NodeLoad;
use crate::message::loss::{LOSS_PAGE_MAX, LossView, LostVersion};
use crate::message::plan::{PlanView, Progress, Verb};
use crate::message::refused::{RefusedOverride, WITHOUT_MAX};
use crate::time::{CpTime, Millis};

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AdminRequest {
    /// The state of the cluster, with as many volumes as fit one answer.
    #[n(0)]
    Status {
        /// Volumes with higher numbers than this.
        #[n(0)]
        behind: VolumeId,
    },
    /// Creates a tenant with its key and volumes.
    #[n(1)]
    CreateTenant {
        /// Its name.
        #[n(0)]
        name: TenantName,
        /// How many volumes; a power of two up to 4096.
        #[n(1)]
        volumes: u32,
        /// How long a delete can be undone.
        #[n(2)]
        window: Millis,
        /// How long the first copy stays after the others are erased.
        #[n(3)]
        first_copy_retention: Millis,
        /// Whether writes go on while one data centre cannot be reached.
        #[n(4)]
        single_dc: SingleDcPolicy,
        /// Whether exact versions can be read from replicas that have lost the control plane.
        #[n(5)]
        stale_reads: StaleReads,
    },
    /// All tenants.
    #[n(2)]
    ListTenants,
    /// Registers a principal of a tenant; its certificate is issued where the CA key is.
    #[n(3)]
    CreatePrincipal {
        /// The tenant.
        #[n(0)]
        tenant: TenantName,
    },
    /// Declares a store dead for ever; it can never join again without a wipe.
    #[n(4)]
    FenceStore {
        /// The store.
        #[n(0)]
        store: StoreId,
    },
    /// What would have to be done; nothing is.
    #[n(5)]
    Plan {
        /// What is wanted.
        #[n(0)]
        verb: Verb,
    },
    /// Does what a plan says, if what it was made from is still so.
    #[n(6)]
    Apply {
        /// The plan's number.
        #[n(0)]
        number: u64,
        /// What it is thought to be a plan of.
        #[n(1)]
        verb: Verb,
    },
    /// Gives up what is left of the plan that was applied last; what is done stays done.
    #[n(7)]
    CancelPlan,
    /// How far the plan is that was applied last.
    #[n(8)]
    Progress,
    /// Proposes what another operator must approve.
    #[n(9)]
    Propose {
        /// What.
        #[n(0)]
        action: JointAction,
        /// Why.
        #[cbor(n(1), decode_with = "crate::codec::text::<PROPOSAL_REASON_MAX, _>")]
        reason: String,
    },
    /// Approves what another operator proposed; it is done at once.
    #[n(10)]
    Approve {
        /// The proposal's number.
        #[n(0)]
        number: u64,
    },
    /// What was proposed, and who approved it.
    #[n(11)]
    Proposals,
    /// A part of a backup of the control plane's state.
    #[n(12)]
    Backup {
        /// Where the part begins; 0 begins a backup of the state as it is now.
        #[n(0)]
        offset: u64,
    },
    /// What a volume went on without, signed; its versions are asked for one page after the other.
    #[n(13)]
    LossList {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The first epoch after the loss.
        #[n(1)]
        epoch: Epoch,
    },
    /// Versions that are known to be lost.
    #[n(14)]
    LostVersions {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The first epoch after the loss.
        #[n(1)]
        epoch: Epoch,
        /// With higher ids than this.
        #[n(2)]
        after: Option<VersionId>,
    },
    /// Tells that this operator wanted to begin the control plane's log anew beside this one, and was refused.
    #[n(15)]
    BeginRefused {
        /// The restore generation that it would have been.
        #[n(0)]
        begins: u64,
        /// The voters that would have been left out.
        #[cbor(n(1), decode_with = "crate::codec::list::<WITHOUT_MAX, _, _>")]
        without: Vec<NodeId>,
        /// What for, in the operator's words.
        #[cbor(n(2), decode_with = "crate::codec::text::<PROPOSAL_REASON_MAX, _>")]
        reason: String,
        /// Why it was refused.
        #[cbor(n(3), decode_with = "crate::codec::text::<REASON_MAX, _>")]
        why: String,
    },
    /// Overrides that were refused.
    #[n(16)]
    Refusals,
}

/// What placement answers.
#[allow(clippy::large_enum_variant, reason = "an answer is made, sent once and gone")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AdminAnswer {
    /// The state.
    #[n(0)]
    Status(#[n(0)] Box<ClusterStatus>),
    /// The tenant was made (or existed with the same settings).
    #[n(1)]
    Tenant(#[n(0)] TenantEntry),
    /// All tenants.
    #[n(2)]
    Tenants(#[n(0)] Vec<TenantEntry>),
    /// The principal's number.
    #[n(3)]
    Principal {
        /// The tenant.
        #[n(0)]
        tenant: TenantId,
        /// The principal.
        #[n(1)]
        principal: PrincipalId,
    },
    /// Done.
    #[n(4)]
    Done,
    /// Not done, and why.
    #[n(5)]
    Refused(#[cbor(n(0), decode_with = "crate::codec::text::<REASON_MAX, _>")] String),
    /// Another voter leads, or none does: ask there.
    #[n(6)]
    NotLeader {
        /// Who does, as far as this one knows.
        #[n(0)]
        leader: Option<VoterEntry>,
    },
    /// The plan.
    #[n(7)]
    Plan(#[n(0)] PlanView),
    /// How far it is; `None` if no plan was ever applied.
    #[n(8)]
    Progress(#[n(0)] Option<Progress>),
    /// The proposal as it stands now.
    #[n(9)]
    Proposal(#[n(0)] ProposalView),
    /// All proposals that are kept, the oldest first.
    #[n(10)]
    Proposals(#[n(0)] Vec<ProposalView>),
    /// A part of a backup.
    #[n(11)]
    Backup {
        /// The same for every part of one backup.
        #[n(0)]
        head: SignedBackup,
        /// Where the part begins.
        #[n(1)]
        offset: u64,
        /// The part; the last one ends where the state does.
        #[cbor(n(2), with = "crate::codec::bytes")]
        part: Bytes,
    },
    /// What a volume went on without, but for the versions.
    #[n(12)]
    LossList(#[n(0)] SignedLossStatement),
    /// A page of them.
    #[n(13)]
    LostVersions {
        /// The versions, by their ids.
        #[cbor(n(0), decode_with = "crate::codec::list::<LOSS_PAGE_MAX, _, _>")]
        versions: Vec<LostVersion>,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
    /// All refused overrides that are kept, the oldest first.
    #[n(14)]
    Refusals(#[n(0)] Vec<RefusedOverride>),
}

/// The most bytes of a backup in one answer.
pub const BACKUP_PART_MAX: usize = 512 * 1024;

/// A voter of the control plane, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterStatus {
    /// The voter.
    #[n(0)]
    pub entry: VoterEntry,
    /// Whether it leads.
    #[n(1)]
    pub leads: bool,
    /// Whether the leader heard from it lately.
    #[n(2)]
    pub reachable: bool,
    /// Log entries that it is known to have.
    #[n(3)]
    pub matched: u64,
    /// Whether it votes.
    #[n(4)]
    pub stand: Stand,
}

/// The bound of what one data centre alone may have acknowledged of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AtRiskView {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Since when.
    #[n(1)]
    pub opened: CpTime,
    /// Both data centres hold everything up to here.
    #[n(2)]
    pub since: Lsn,
    /// No record behind this one was acknowledged.
    #[n(3)]
    pub last: Lsn,
    /// At most so many objects.
    #[n(4)]
    pub objects: u64,
    /// At most so many sealed bytes.
    #[n(5)]
    pub bytes: u64,
    /// Versions that were hidden meanwhile, all of them listed in the control plane.
    #[n(6)]
    pub hidden: u64,
    /// Whether this is all: after a restore, what was noted before it may be missing here.
    #[n(7)]
    pub exact: bool,
}

/// A volume that a restored control plane has not found yet.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SearchView {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Its tenant, if it is one that the backup knew.
    #[n(1)]
    pub tenant: Option<TenantId>,
    /// Stores that must say what they hold first.
    #[n(2)]
    pub waits_for: Vec<StoreId>,
    /// Until then nobody knows what was acknowledged since this moment; of a strange volume nobody ever does.
    #[n(3)]
    pub since: Option<CpTime>,
}

/// Since when a volume has old objects without a copy in one data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DebtView {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Since when.
    #[n(1)]
    pub since: CpTime,
}

/// How a store stands that was put out because it was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SlowState {
    /// It is slow.
    #[n(0)]
    Slow,
    /// It is well again, and has not been for long enough.
    #[n(1)]
    Probation,
}

/// A store that was found to be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlowStore {
    /// The node that runs it.
    #[n(0)]
    pub node: NodeId,
    /// The store.
    #[n(1)]
    pub store: StoreId,
    /// How it stands.
    #[n(2)]
    pub state: SlowState,
    /// For how long it has stood so.
    #[n(3)]
    pub since: Millis,
    /// The longest that a small piece of work took lately, by the median of whoever measured it; in
    /// microseconds.
    #[n(4)]
    pub took_us: u32,
    /// What it takes elsewhere.
    #[n(5)]
    pub usual_us: u32,
}

/// The cluster as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterStatus {
    /// Control-plane time.
    #[n(0)]
    pub now: CpTime,
    /// Nodes.
    #[n(1)]
    pub nodes: Vec<NodeEntry>,
    /// Tenants.
    #[n(2)]
    pub tenants: Vec<TenantEntry>,
    /// Volumes, by number.
    #[n(3)]
    pub volumes: Vec<VolumeConfig>,
    /// What each volume's primary last reported; volumes without an entry have not been heard of
    /// since the control plane started.
    #[n(4)]
    pub statistics: Vec<VolumeStatistics>,
    /// Deletes that were certified.
    #[n(5)]
    pub certified: u64,
    /// The links, summed over what nodes that are up reported last.
    #[n(6)]
    pub links: Option<Vec<LinkReport>>,
    /// What is at risk, by volume.
    #[n(7)]
    pub at_risk: Vec<AtRiskView>,
    /// Where old objects wait for a copy in one data centre.
    #[n(8)]
    pub debts: Vec<DebtView>,
    /// The control plane's voters.
    #[n(9)]
    pub voters: Vec<VoterStatus>,
    /// What operators want of the links.
    #[n(10)]
    pub link_policies: Vec<LinkPolicy>,
    /// How far the plan is that was applied last.
    #[n(11)]
    pub progress: Option<Progress>,
    /// There are volumes with higher numbers; what is told by volume is told of these here only.
    #[n(12)]
    pub more: bool,
    /// Stores that were put out because they were slow.
    #[n(13)]
    pub slow: Vec<SlowStore>,
    /// Who signs, and signed, orders and certificates.
    #[n(14)]
    pub signers: Signers,
    /// Volumes that are down because a restored control plane has not found them yet.
    #[n(15)]
    pub sought: Vec<SearchView>,
    /// How stores are, by their own word.
    #[n(16)]
    pub stores: Vec<StoreView>,
    /// What volumes went on without.
    #[n(17)]
    pub losses: Vec<LossView>,
    /// Overrides that were refused lately, the newest last.
    #[n(18)]
    pub refused: Vec<RefusedOverride>,
}

/// How a node's store is, as it said last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreView {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// How long ago the byte that has waited longest for the scrub was read, as far as the node's run knows.
    #[n(1)]
    pub oldest_unread: Option<Millis>,
    /// How many damaged records the scrub found in the node's run.
    #[n(2)]
    pub damaged: u64,
    /// A suspect store that reads everything has read so many volumes of so many.
    #[n(3)]
    pub verifying: Option<(u32, u32)>,
    /// Volumes that are stopped on it.
    #[n(4)]
    pub stopped: Vec<StoppedVolume>,
    /// How much the node has to do, once it serves.
    #[n(5)]
    pub load: Option<NodeLoad>,
}

/// The most volumes in one [`ClusterStatus`].
pub const STATUS_VOLUMES_MAX: usize = 1024;

impl ClusterStatus {
    /// Goes on with the next page, which was asked for behind the last volume of this one. What
    /// changed in between is told as it is then.
    pub fn extend(&mut self, page: Self) {
        let before = std::mem::replace(self, page);
        self.volumes.splice(..0, before.volumes);
        self.statistics.splice(..0, before.statistics);
        self.at_risk.splice(..0, before.at_risk);
        self.debts.splice(..0, before.debts);
        self.losses.splice(..0, before.losses);
    }
}
