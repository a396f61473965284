//! The control plane's plane: what storage nodes tell placement and what they are granted. Every
//! request is idempotent; nodes send again until they are answered.

use minicbor::{Decode, Encode};

use crate::config::{LinkAddress, NodeEntry, TenantEntry, VolumeConfig, VoterEntry};
use crate::deletion::{
    CERTIFIED_STORES_MAX, PURGE_ITEMS_MAX, PurgeItem, PurgeScope, SIGNATURES_MAX, SignedCertificate,
    SignedEraseReceipt, SignedPurgeOrder, Signers,
};
use crate::ids::{
    ConfigIndex, DcId, Epoch, Hash, Incarnation, LinkId, Lsn, NodeId, OrderId, PrincipalId, PublicKey,
    RackId, StoreId, VersionId, VolumeId,
};
use crate::message::REASON_MAX;
use crate::message::holdings::Holdings;
use crate::message::load::NodeLoad;
use crate::message::loss::Difference;
use crate::message::traffic::TrafficByClass;
use crate::time::{BootTime, CpTime, Millis};

/// A node introduces the store it opened. A known node id with another store that holds nothing is
/// a replaced disk; the old store stays in every `ever_held` set until it is fenced.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// The node; must be the certificate's.
    #[n(0)]
    pub node: NodeId,
    /// Its data centre.
    #[n(1)]
    pub dc: DcId,
    /// Its rack.
    #[n(2)]
    pub rack: RackId,
    /// The store it opened.
    #[n(3)]
    pub store: StoreId,
    /// The store's public signing key.
    #[n(4)]
    pub store_key: PublicKey,
    /// Bytes it may hold.
    #[n(5)]
    pub capacity: u64,
    /// Where it listens.
    #[cbor(n(6), decode_with = "crate::codec::list::<8, _, _>")]
    pub addresses: Vec<LinkAddress>,
    /// The incarnation its superblock last knew; 0 for a new store. A disk image older than the
    /// control plane's knowledge is refused.
    #[n(7)]
    pub last_incarnation: Incarnation,
    /// Its process id, for operators.
    #[n(8)]
    pub pid: u32,
}

/// A renewal of the node's lease; states what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Renew {
    /// The store.
    #[n(0)]
    pub store: StoreId,
    /// The run of the process.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The control-plane log position whose configurations the node has adopted.
    #[n(2)]
    pub applied: ConfigIndex,
    /// The node's boot clock when it sent this; returned as it is.
    #[n(3)]
    pub sent: BootTime,
    /// Statistics of the volumes this node is primary of, for `status`.
    #[n(4)]
    pub volumes: Vec<VolumeStatistics>,
    /// How this node finds the two links to the other data centre, for `status`.
    #[n(5)]
    pub links: Option<Vec<LinkReport>>,
    /// How long stores took lately to do their work, as this node measured it.
    #[cbor(n(6), decode_with = "crate::codec::list::<TIMINGS_MAX, _, _>")]
    pub timings: Vec<StoreTiming>,
    /// How the store is, for `status`.
    #[n(7)]
    pub condition: StoreCondition,
}

/// The most stores that one node tells the times of.
pub const TIMINGS_MAX: usize = 64;

/// How long a store takes for its work, seen from one node: medians of the last seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreTiming {
    /// The store; the node's own one too.
    #[n(0)]
    pub store: StoreId,
    /// Microseconds from a probe to its answer, without those at the disk.
    #[n(1)]
    pub probe_us: Option<u32>,
    /// Microseconds from a record to its acknowledgement, of volumes that the node leads.
    #[n(2)]
    pub ack_us: Option<u32>,
    /// Of the own store: microseconds that its disk takes for an operation or 64 KiB, once it begins.
    #[n(3)]
    pub flush_us: Option<u32>,
    /// Of the own store: it has more to do than it can, so that work waits; the other times say nothing of it.
    #[n(4)]
    pub crowded: bool,
}

/// How a store is, in its own words, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoreCondition {
    /// How long ago the byte that has waited longest for the scrub was read, as far as this run knows.
    #[n(0)]
    pub oldest_unread: Millis,
    /// How many damaged records the scrub found in this run.
    #[n(1)]
    pub damaged: u64,
    /// Volumes that are stopped on this store; no more than [`STOPPED_MAX`] of them are told.
    #[cbor(n(2), decode_with = "crate::codec::list::<STOPPED_MAX, _, _>")]
    pub stopped: Vec<StoppedVolume>,
    /// How much the node has to do.
    #[n(3)]
    pub load: NodeLoad,
}

/// The most stopped volumes that a store tells of.
pub const STOPPED_MAX: usize = 256;

/// A volume that is stopped on a store until somebody has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoppedVolume {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch that it stopped in.
    #[n(1)]
    pub epoch: Epoch,
    /// Why.
    #[n(2)]
    pub cause: StopCause,
    /// The record that it is about, if it is about one.
    #[n(3)]
    pub lsn: Option<Lsn>,
}

/// Why a volume is stopped on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StopCause {
    /// Every store that answers has the record damaged.
    #[n(0)]
    Lost,
    /// A committed record here differs from the primary's.
    #[n(1)]
    Differs,
}

/// How a link looks from one node, or, added up, from all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkReport {
    /// The link.
    #[n(0)]
    pub link: LinkId,
    /// Peers in other data centres that answer probes over it.
    #[n(1)]
    pub healthy: u32,
    /// Peers that are up and do not answer over it.
    #[n(2)]
    pub silent: u32,
    /// Peers for whom it is spared, because probes take far longer on it than on the other one.
    #[n(3)]
    pub slow: u32,
    /// The longest round trip of a probe, smoothed, in microseconds.
    #[n(4)]
    pub rtt_us: u32,
    /// Packets that the present connections over it sent,
    #[n(5)]
    pub packets: u64,
    /// and how many of them were lost.
    #[n(6)]
    pub lost: u64,
    /// What was sent over it in this run.
    #[n(7)]
    pub traffic: TrafficByClass,
}

/// What operators want of a link between the data centres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkPolicy {
    /// The link.
    #[n(0)]
    pub link: LinkId,
    /// Nothing goes over it as long as there is another one.
    #[n(1)]
    pub drained: bool,
    /// Bytes a second that repair may take of it in either direction; as many as there are if not said.
    #[n(2)]
    pub repair_limit: Option<u64>,
}

impl LinkReport {
    /// Nothing is known of a link.
    pub fn unknown(link: LinkId) -> Self {
        let traffic = TrafficByClass::default();
        Self { link, healthy: 0, silent: 0, slow: 0, rtt_us: 0, packets: 0, lost: 0, traffic }
    }

    /// Takes in what another node, or another peer's link, reports of the same link.
    pub fn add(&mut self, other: &Self) {
        self.healthy = self.healthy.saturating_add(other.healthy);
        self.silent = self.silent.saturating_add(other.silent);
        self.slow = self.slow.saturating_add(other.slow);
        self.rtt_us = self.rtt_us.max(other.rtt_us);
        self.packets = self.packets.saturating_add(other.packets);
        self.lost = self.lost.saturating_add(other.lost);
        self.traffic += other.traffic;
    }
}

/// What a primary knows of its volume, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeStatistics {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Live objects.
    #[n(1)]
    pub objects: u64,
    /// Objects with fewer than three copies at the moment.
    #[n(2)]
    pub short_of_copies: u64,
    /// Sealed bytes of live objects.
    #[n(3)]
    pub bytes: u64,
    /// Under `SingleDc`: what this data centre alone acknowledged.
    #[n(4)]
    pub at_risk: Option<ExposureCount>,
    /// Objects that a member which catches up still lacks, where its data centre has no complete one.
    #[n(5)]
    pub debt: u64,
}

/// One version's evidence for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PurgeEvidence {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// Its tombstone.
    #[n(1)]
    pub tombstone: Lsn,
    /// blake3 of its ciphertext.
    #[n(2)]
    pub root: Hash,
    /// Its ciphertext length.
    #[n(3)]
    pub sealed_length: u64,
    /// Who deleted it.
    #[n(4)]
    pub requested_by: PrincipalId,
    /// When.
    #[n(5)]
    pub requested_at: CpTime,
    /// Its window.
    #[n(6)]
    pub window: Millis,
    /// The orders obeyed.
    #[cbor(n(7), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub orders: Vec<OrderId>,
    /// The receipts.
    #[cbor(n(8), decode_with = "crate::codec::list::<CERTIFIED_STORES_MAX, _, _>")]
    pub receipts: Vec<SignedEraseReceipt>,
}

/// One item of a purge request, with what the control plane must re-check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PurgeClaim {
    /// The version and its tombstone.
    #[n(0)]
    pub item: PurgeItem,
    /// When it was deleted, in control-plane time.
    #[n(1)]
    pub deleted_at: CpTime,
    /// The window it was given.
    #[n(2)]
    pub window: Millis,
}

/// How many records of a volume one data centre alone may commit beyond what the control plane knows.
pub const AT_RISK_RECORDS: u64 = 4096;
/// How many sealed bytes it may put beyond that, unless more are reserved.
pub const AT_RISK_BYTES: u64 = 1 << 30;
/// The most records, and so the most versions, of one [`Note`].
pub const NOTE_CHANGES_MAX: usize = 1024;

/// Whether a version can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Visibility {
    /// Deleted or replaced.
    #[n(0)]
    Hidden,
    /// Brought back.
    #[n(1)]
    Live,
}

/// A version that was hidden or brought back while one data centre alone acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VisibilityChange {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// The record that did it; the tombstone, if it is hidden.
    #[n(1)]
    pub lsn: Lsn,
    /// How it stands now.
    #[n(2)]
    pub visibility: Visibility,
}

/// What the primary of a `SingleDc` epoch has committed behind what the control plane knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The epoch.
    #[n(1)]
    pub epoch: Epoch,
    /// The last record that the control plane knows; another one changes nothing, but is answered.
    #[n(2)]
    pub after: Lsn,
    /// The last record that this tells of.
    #[n(3)]
    pub up_to: Lsn,
    /// Objects put in between.
    #[n(4)]
    pub objects: u64,
    /// Their sealed bytes.
    #[n(5)]
    pub bytes: u64,
    /// Versions hidden or brought back in between, as they stand now.
    #[cbor(n(6), decode_with = "crate::codec::list::<NOTE_CHANGES_MAX, _, _>")]
    pub changes: Vec<VisibilityChange>,
    /// How many bytes more are to be acknowledged before the next note.
    #[n(7)]
    pub reserve: u64,
}

impl Note {
    /// One that tells nothing and asks where the control plane's knowledge ends.
    pub fn question(volume: VolumeId, epoch: Epoch) -> Self {
        let (after, up_to, changes) = (Lsn::ZERO, Lsn::ZERO, Vec::new());
        Self { volume, epoch, after, up_to, objects: 0, bytes: 0, changes, reserve: AT_RISK_BYTES }
    }
}

/// Where the control plane's knowledge of a volume under `SingleDc` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Noted {
    /// The last record that it knows.
    #[n(0)]
    pub up_to: Lsn,
    /// Objects put in one data centre alone, up to there.
    #[n(1)]
    pub objects: u64,
    /// Their sealed bytes.
    #[n(2)]
    pub bytes: u64,
    /// How many bytes more may be acknowledged before the next note.
    #[n(3)]
    pub reserved: u64,
    /// The list of hidden versions is full: nothing more may be hidden.
    #[n(4)]
    pub full: bool,
    /// Both data centres hold everything up to here.
    #[n(5)]
    pub since: Lsn,
}

/// What one data centre alone acknowledged of a volume, as its primary counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExposureCount {
    /// Objects.
    #[n(0)]
    pub objects: u64,
    /// Sealed bytes.
    #[n(1)]
    pub bytes: u64,
    /// The last record.
    #[n(2)]
    pub last: Lsn,
}

/// What a node asks the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ControlRequest {
    /// See [`Register`].
    #[n(0)]
    Register(#[n(0)] Register),
    /// See [`Renew`]; answered with [`ControlAnswer::Granted`].
    #[n(1)]
    Renew(#[n(0)] Renew),
    /// Answer as soon as the log is past `applied`, or after a second.
    #[n(2)]
    Watch {
        /// What the node has.
        #[n(0)]
        applied: ConfigIndex,
        /// What it has beyond: [`News::partly`].
        #[n(1)]
        partly: Option<VolumeId>,
    },
    /// A primary has fenced its members at its epoch and chosen the log to go on with.
    #[n(3)]
    Ready {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The committed point that it knows: should this epoch be the first under `SingleDc`, both
        /// data centres hold everything up to here.
        #[n(2)]
        committed: Lsn,
    },
    /// A primary cannot get acknowledgements from members.
    #[n(4)]
    Lagging {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The silent or slow stores.
        #[cbor(n(2), decode_with = "crate::codec::list::<CERTIFIED_STORES_MAX, _, _>")]
        stores: Vec<StoreId>,
    },
    /// A member that was catching up holds everything, verified.
    #[n(5)]
    Complete {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The store.
        #[n(2)]
        store: StoreId,
    },
    /// The primary's own log is not the best one reachable and it cannot repair it.
    #[n(6)]
    Unfit {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The store that should lead instead.
        #[n(2)]
        better: StoreId,
    },
    /// The primary of a `Restoring` epoch: everything acknowledged under `SingleDc` is durable in
    /// both data centres, history included.
    #[n(7)]
    Restored {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The last position acknowledged under `SingleDc`.
        #[n(2)]
        last_single_dc: Lsn,
        /// What the other data centre has persisted; not before the former.
        #[n(3)]
        persisted: Lsn,
    },
    /// Windows are over; may these be purged?
    #[n(8)]
    RequestPurge {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// Others, or the first copy.
        #[n(2)]
        scope: PurgeScope,
        /// What is to be purged.
        #[cbor(n(3), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
        claims: Vec<PurgeClaim>,
    },
    /// Everything is erased; certify it.
    #[n(9)]
    Certify {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// The evidence, one entry per version.
        #[cbor(n(2), decode_with = "crate::codec::list::<PURGE_ITEMS_MAX, _, _>")]
        evidence: Vec<PurgeEvidence>,
    },
    /// A store that is no member any more has erased everything it held of a volume.
    #[n(10)]
    Retired {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The store.
        #[n(1)]
        store: StoreId,
        /// The epoch of the newest configuration the node had when it erased: a report from before
        /// the store was recruited again says nothing about what it holds now.
        #[n(2)]
        epoch: Epoch,
    },
    /// See [`Note`]; answered with [`ControlAnswer::Noted`] when it is committed.
    #[n(11)]
    Note(#[n(0)] Note),
    /// The primary of a volume that is handed over takes nothing new, and the member that is to follow
    /// has everything.
    #[n(12)]
    Yield {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// Since when nothing new was taken.
        #[n(2)]
        stopped_for: Millis,
    },
    /// See [`Holdings`]: said after each registration with a control plane that was restored, before
    /// anything else.
    #[n(13)]
    Holdings(#[n(0)] Holdings),
    /// A suspect store reads all that it holds before it registers. It says how far it is.
    #[n(14)]
    Verifying {
        /// Volumes read.
        #[n(0)]
        read: u32,
        /// Volumes that it holds.
        #[n(1)]
        held: u32,
    },
    /// The primary of a volume that [replays](VolumeConfig::replays): which versions did the lost stores
    /// hide or bring back? Answered with [`ControlAnswer::Replay`].
    #[n(15)]
    Replay {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
        /// So many changes are known already.
        #[n(2)]
        from: u32,
    },
    /// All of them are committed, and noted where they must be.
    #[n(16)]
    Replayed {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch.
        #[n(1)]
        epoch: Epoch,
    },
    /// See [`Difference`]; answered with [`ControlAnswer::Heard`] when it is committed.
    #[n(17)]
    Differs(#[n(0)] Difference),
}

/// What the control plane answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ControlAnswer {
    /// The store's run has this number.
    #[n(0)]
    Registered {
        /// The run.
        #[n(0)]
        incarnation: Incarnation,
        /// The cluster's name.
        #[cbor(n(1), decode_with = "crate::codec::text::<64, _>")]
        cluster: String,
        /// The restore generation; older orders are void.
        #[n(2)]
        generation: u64,
    },
    /// The lease goes on. It covers the volumes whose configuration has not changed since `applied`.
    #[n(1)]
    Granted {
        /// As in the request.
        #[n(0)]
        sent: BootTime,
        /// As in the request: the configurations the grant covers are those changed at or before it.
        #[n(1)]
        covers: ConfigIndex,
        /// What is new since then.
        #[n(2)]
        news: News,
    },
    /// What is new.
    #[n(2)]
    News(#[n(0)] News),
    /// Heard and, where needed, committed.
    #[n(3)]
    Done,
    /// The permission.
    #[n(4)]
    Order(#[n(0)] SignedPurgeOrder),
    /// The proofs, one per version asked for.
    #[n(5)]
    Certificates(#[n(0)] Vec<SignedCertificate>),
    /// Not done, and why.
    #[n(6)]
    Refused(#[n(0)] ControlRefusal),
    /// Committed, or where it must begin.
    #[n(7)]
    Noted(#[n(0)] Noted),
    /// Changes of visibility, in the order in which they were made.
    #[n(8)]
    Replay {
        /// As in the request.
        #[n(0)]
        from: u32,
        /// The changes from there on.
        #[cbor(n(1), decode_with = "crate::codec::list::<NOTE_CHANGES_MAX, _, _>")]
        changes: Vec<VisibilityChange>,
        /// Whether these are the last ones.
        #[n(2)]
        last: bool,
    },
    /// What an estranged store said is committed.
    #[n(9)]
    Heard {
        /// Up to here: it goes on behind it.
        #[n(0)]
        up_to: Lsn,
        /// Whether that was everything.
        #[n(1)]
        all: bool,
    },
}

/// Changes behind a control-plane log position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct News {
    /// Everything up to here is in this or an earlier answer.
    #[n(0)]
    pub index: ConfigIndex,
    /// Control-plane time.
    #[n(1)]
    pub now: CpTime,
    /// Configurations of volumes this node holds or held, changed since.
    #[n(2)]
    pub volumes: Vec<VolumeConfig>,
    /// Nodes, changed since.
    #[n(3)]
    pub nodes: Vec<NodeEntry>,
    /// Tenants, changed since.
    #[n(4)]
    pub tenants: Vec<TenantEntry>,
    /// Volumes of which this node holds bytes but shall not any more: erase everything and report.
    #[n(5)]
    pub retire: Vec<VolumeId>,
    /// There is more, and what was told goes beyond `index`: of the changes of the next position,
    /// those of the volumes up to this one.
    #[n(6)]
    pub partly: Option<VolumeId>,
    /// Who signs orders and certificates.
    #[n(7)]
    pub signers: Signers,
    /// What operators want of the links.
    #[n(8)]
    pub links: Vec<LinkPolicy>,
    /// Who keeps the control plane's log and may lead it; none if it is not told.
    #[n(9)]
    pub voters: Vec<VoterEntry>,
    /// Volumes that went on without this node's store, which has not told yet what it has alone.
    #[n(10)]
    pub tell: Vec<VolumeId>,
}

/// Why the control plane did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum ControlRefusal {
    /// Another voter leads, or none does.
    #[n(0)]
    #[error("this control-plane process does not lead")]
    NotLeader {
        /// Who does, as far as this one knows.
        #[n(0)]
        leader: Option<VoterEntry>,
    },
    /// The store is not registered in this run; register again.
    #[n(1)]
    #[error("the store must register first")]
    Unregistered,
    /// The volume's epoch is another one by now.
    #[n(2)]
    #[error("the volume is at epoch {0}")]
    StaleEpoch(#[n(0)] Epoch),
    /// Not yet: windows are not over, or a wait is not waited out.
    #[n(3)]
    #[error("not yet")]
    NotYet,
    /// The store may not do this.
    #[n(4)]
    #[error("refused: {0}")]
    Denied(#[cbor(n(0), decode_with = "crate::codec::text::<REASON_MAX, _>")] String),
}
