//! The list of every type on the wire with its fields. It does not compile when one is missing, so a
//! new field or variant is drawn, round-tripped, frozen and looked up in docs/wire-format.md, or
//! nothing builds.

use std::fmt::Debug;

use minicbor::{Decode, Encode};
use trefoil_protocol::backup::*;
use trefoil_protocol::config::*;
use trefoil_protocol::deletion::*;
use trefoil_protocol::ids::*;
use trefoil_protocol::loss_list::*;
use trefoil_protocol::message::{
    admin::*, approval::*, control::*, holdings::*, load::*, loss::*, peer::*, plan::*, refused::*,
    tenant::*, traffic::*, voter::*,
};
use trefoil_protocol::record::*;
use trefoil_protocol::sign::Signed64;
use trefoil_protocol::time::{BootTime, CpTime, Millis};

use crate::draw::{Draw, Source, name, power_of_two};

/// A variant, or the one case of a struct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Field names in the order of their numbers; `value` for that of a tuple variant.
    pub(crate) fields: &'static [&'static str],
}

/// A type of which every case is known.
pub(crate) trait Shape: Sized + PartialEq + Debug + Encode<()> + for<'b> Decode<'b, ()> {
    const NAME: &'static str;
    const CASES: &'static [Case];

    /// A value of the case with this position.
    fn case(index: usize, source: Source) -> Self;
}

/// Something to do with every shape.
pub(crate) trait Visit {
    fn visit<T: Shape + Draw>(&mut self, page: &'static str);
}

macro_rules! drawn {
    ($source:expr) => {
        Draw::draw($source)
    };
    ($source:expr, $draw:path) => {
        $draw($source)
    };
}

macro_rules! wrapped {
    ($draw:path: $($name:ident)*) => { $(
        impl Draw for $name {
            fn draw(source: Source) -> Self {
                $draw(source)
            }
        }
    )* };
    ($($name:ident)*) => { $(
        impl Draw for $name {
            fn draw(source: Source) -> Self {
                Self(Draw::draw(source))
            }
        }
    )* };
}

macro_rules! structs {
    ($($name:ident { $($field:ident $(= $draw:path)?),+ $(,)? })*) => { $(
        impl Draw for $name {
            fn draw(source: Source) -> Self {
                Self { $($field: drawn!(source.field(stringify!($field)) $(, $draw)?)),+ }
            }
        }

        impl Shape for $name {
            const NAME: &'static str = stringify!($name);
            const CASES: &'static [Case] =
                &[Case { name: stringify!($name), fields: &[$(stringify!($field)),+] }];

            fn case(_: usize, source: Source) -> Self {
                Self::draw(source)
            }
        }
    )* };
}

macro_rules! variant {
    ($name:ident, $variant:ident, $source:ident) => { { let _ = $source; $name::$variant } };
    ($name:ident, $variant:ident, $source:ident, ($value:ident)) => {
        $name::$variant(Draw::draw($source.field(stringify!($variant))))
    };
    ($name:ident, $variant:ident, $source:ident, { $($field:ident),+ }) => {
        $name::$variant { $($field: Draw::draw($source.field(stringify!($field)))),+ }
    };
}

macro_rules! fields {
    () => { &[] };
    (($value:ident)) => { &[stringify!($value)] };
    ({ $($field:ident),+ }) => { &[$(stringify!($field)),+] };
}

macro_rules! enums {
    ($($name:ident { $($variant:ident $(($value:ident))? $({ $($field:ident),+ })?),+ $(,)? })*) => { $(
        impl Draw for $name {
            fn draw(source: Source) -> Self {
                Self::case(source.below(Self::CASES.len() as u64) as usize, source)
            }
        }

        impl Shape for $name {
            const NAME: &'static str = stringify!($name);
            const CASES: &'static [Case] =
                &[$(Case { name: stringify!($variant), fields: fields!($(($value))? $({ $($field),+ })?) }),+];

            fn case(index: usize, source: Source) -> Self {
                // Does not compile while a variant is missing in the list.
                let named = |value: &Self| match value { $($name::$variant { .. } => stringify!($variant)),+ };
                let makers: &[fn(Source) -> Self] =
                    &[$(|source| variant!($name, $variant, source $(, ($value))? $(, { $($field),+ })?)),+];
                let value = makers[index](source);
                assert_eq!(named(&value), Self::CASES[index].name);
                value
            }
        }
    )* };
}

wrapped! { name: NodeId DcId RackId TenantName OperatorId }
wrapped! {
    TenantId PrincipalId VolumeId VoterId Epoch Lsn ConfigIndex Incarnation OrderId StoreId VersionId ClientInstance
    Hash NameTag PublicKey BootTime CpTime Millis
}

structs! {
    // Parts of messages and records.
    UploadId { version, attempt }
    Token { instance, sequence }
    Member { node, dc, store, state }
    Interval { epoch, primary, in_sync, activated, catching_up, leans, owing }
    VolumeConfig {
        volume, tenant, slot, epoch, primary, members, protection, activated, changed, intervals, ever_held,
        window, first_copy_retention, single_dc, handover, replays, stale_reads,
    }
    LinkAddress { link, address }
    VoterEntry { voter, name, dc, witness, control, tenants }
    NodeEntry { node, dc, rack, store, store_key, incarnation, capacity, addresses, state, pid, duty }
    TenantEntry { tenant, name, volume_count = power_of_two, window, first_copy_retention, single_dc, stale_reads }
    // Signed papers.
    Signed64 { key, signature }
    PurgeItem { version, tombstone }
    PurgeOrder { id, tenant, volume, epoch, count, items, at, generation, scope }
    SignedPurgeOrder { order, signatures }
    SignerTerm { key, since, until, generation }
    Signers { terms }
    EraseReceipt { order, tenant, volume, version, tombstone, store, bytes, at, bag_generation }
    SignedEraseReceipt { receipt, signature }
    StoreKeyStatement { store, node, dc, key }
    PurgeException { store, reason }
    DeletionCertificate {
        format, cluster, tenant, volume, version, root, size_class, requested_by, requested_at, window,
        tombstone, orders, receipts, stores, exceptions, issued_at, software, signers,
    }
    SignedCertificate { certificate, signatures }
    LossStatement {
        cluster, tenant, volume, epoch, accepted_at, operators, unknown_since, account, stores, count, versions,
        unlisted, at,
    }
    SignedLossStatement { statement, signatures }
    SignedLossList { statement, signatures, versions }
    // Records.
    Cause { token, confirmed_below, request, principal, at }
    Put { upload, root, sealed_length, name_tag, kek_version, replaces, window, cause }
    Delete { version, window, cause }
    Undelete { version, tombstone, cause }
    Purging { order, items, retained }
    OthersErased { order, versions, at }
    Certified { version, certificate }
    Erasable { salt, key, metadata, payload }
    // The tenant plane.
    TokenUse { token, confirmed_below }
    PutRequest { key, name_tag, upload, precondition, kek_version, wrapped_key, inline, token }
    UploadEnd { root, sealed_length, metadata }
    TenantRequest { volume, epoch, call, within }
    Copy { node, dc, store }
    PutReceipt { version, lsn, epoch, root, protection, copies }
    ObjectView {
        key, upload, root, sealed_length, kek_version, wrapped_key, metadata, lsn, epoch, protection, copies,
        created, stale_possible,
    }
    ListEntry { key, version, sealed_length, root, created, window_ends }
    PurgeView { version, stage, window_ends, copies_left }
    RouteView { tenant, volumes, nodes, now, principal, voters }
    TenantKeyGrant { version, key }
    KeysView { keys, nonce_prefix, nonce_count }
    DataPart { first, proof, last }
    // The node plane.
    PeerMessage { tenant, volume, epoch, store, incarnation, body }
    BagWord { number, turn }
    LogPoint { epoch, lsn, hash }
    StoreReport { last, committed, complete, verified, doubtful_from }
    Compare { number, points, versions }
    Compared { number, shared, standings }
    // The control plane.
    Register { node, dc, rack, store, store_key, capacity, addresses, last_incarnation, pid }
    Renew { store, incarnation, applied, sent, volumes, links, timings, condition }
    StoreTiming { store, probe_us, ack_us, flush_us, crowded }
    LinkReport { link, healthy, silent, slow, rtt_us, packets, lost, traffic }
    LinkPolicy { link, drained, repair_limit }
    Traffic { frames, bytes }
    TrafficByClass { clients, repair, control }
    StoreCondition { oldest_unread, damaged, stopped, load }
    NodeLoad { under_way, room, refused, late, repaired, forced, put_off }
    StoppedVolume { volume, epoch, cause, lsn }
    StoreView { node, oldest_unread, damaged, verifying, stopped, load }
    VolumeStatistics { volume, objects, short_of_copies, bytes, at_risk, debt }
    ExposureCount { objects, bytes, last }
    VisibilityChange { version, lsn, visibility }
    Note { volume, epoch, after, up_to, objects, bytes, changes, reserve }
    Noted { up_to, objects, bytes, reserved, full, since }
    PurgeEvidence {
        version, tombstone, root, sealed_length, requested_by, requested_at, window, orders, receipts,
    }
    PurgeClaim { item, deleted_at, window }
    News { index, now, volumes, nodes, tenants, retire, partly, signers, links, voters, tell }
    Holdings { store, incarnation, volumes, last }
    VolumeHolding { volume, tenant, promised, adopted, written, orders }
    LostVersion { version, lsn, kind, bytes, at, committed }
    Difference { volume, epoch, store, shared, after, up_to, versions, unreadable, last }
    // The admin plane.
    LossTotals { puts, deletes, undeletes, bytes, oldest, unsure }
    LostStoreView { store, state, heard, totals, unreadable }
    LossView { volume, tenant, epoch, proposal, at, unknown_since, account, stores, listed, unlisted, open }
    SearchView { volume, tenant, waits_for, since }
    BackupStatement { cluster, generation, index, at, length, hash }
    SignedBackup { statement, signature }
    AtRiskView { volume, opened, since, last, objects, bytes, hidden, exact }
    DebtView { volume, since }
    ClusterStatus { now, nodes, tenants, volumes, statistics, certified, links, at_risk, debts, voters, link_policies, progress, more, slow, signers, sought, stores, losses, refused }
    SlowStore { node, store, state, since, took_us, usual_us }
    StepView { volume, home, lead, leave, join, objects, bytes }
    PlanView { number, made_from, verb, steps, risks, cannot, expected, undo }
    Progress { number, verb, volumes, left, handovers, longest_pause, waiting }
    VoterStatus { entry, leads, reachable, matched, stand }
    ProposalView { number, action, by, at, expires, reason, shown, state }
    RefusedOverride { at, by, what, reason, why, times }
    // Between voters.
    VoterPiece { last }
    VoterMessage { to, log, to_log, body, founding }
    RaftMessage {
        kind, term, log_term, index, entries, commit, commit_term, snapshot, request_snapshot, reject, reject_hint,
        context, priority,
    }
    LogEntry { index, term, kind, data }
    LogSnapshot { index, term, voters, learners, data }
}

enums! {
    LinkId { One, Two }
    Protection { BothDcs, SingleDc, Restoring }
    SingleDcPolicy { Allow, Refuse }
    StaleReads { Refuse, Allow }
    MemberState { InSync, CatchingUp, Owing }
    NodeState { Up, Down, Fenced }
    Duty { Full, Leaving }
    Stand { Voting, Learning, Excused }
    BagTurn { Wanted, Taken, Over }
    PurgeScope { Others, FirstCopy }
    RecordBody {
        EpochStart { primary, protection }, Put(value), Delete(value), Undelete(value), Purging(value), OthersErased(value),
        Certified(value), Void { token }, UploadVoid { upload },
    }
    Precondition { Any, Absent, Version(value) }
    UploadPart { Leaves { first }, End(value) }
    Selector { Latest, Version(value), StalePossible(value) }
    Want { Head, Whole, Leaves(value) }
    TenantCall {
        Put(value), Get { key, selector, want }, List { prefix, after, limit }, Deleted { prefix, after, limit },
        Delete { key, precondition, token }, Undelete { key, name_tag, version, token },
        PurgeStatus { name_tag, after }, Certificates { name_tag, after }, Outcome { token }, Route, Keys, KeysToRead,
    }
    PurgeStage { Live, Deleted, Purging, OthersErased, Certified }
    TenantAnswer {
        Stored(value), Object(value), Page { entries, more }, Deleted { version, tombstone, window_ends },
        Undeleted { version, lsn }, Purges(value), Certificates(value), Applied(value), NotApplied, Route(value), Keys(value),
    }
    Refusal {
        NotFound, NotPrimary { epoch, primary }, LeaseExpired, Unavailable, Busy { retry_after }, PreconditionFailed, Gone,
        Expired, TokenMismatch, Full, Changed, Invalid(value), Corrupt, Stranger, SingleDc, Late,
        Owed { stores },
    }
    PeerBody {
        Append { previous, committed, count }, DurableAck { durable, committed, missing_uploads, short_of_room },
        Gap { last, committed }, Fenced { promised },
        Payload { upload, first, leaves, relay_to, fetched }, FetchPayload { upload, first, count },
        NoPayload { upload }, Peer, Report(value), FetchLog { after }, Log { previous, count, last },
        Erase { order, items, purging }, Erased { receipts }, Orphans { uploads },
        Bag(value), BagTurn { number }, Probe { number }, Probed { number, hash, disk_us }, NotYet, Compare(value), Compared(value),
    }
    ControlRequest {
        Register(value), Renew(value), Watch { applied, partly }, Ready { volume, epoch, committed }, Lagging { volume, epoch, stores },
        Complete { volume, epoch, store }, Unfit { volume, epoch, better },
        Restored { volume, epoch, last_single_dc, persisted }, RequestPurge { volume, epoch, scope, claims },
        Certify { volume, epoch, evidence }, Retired { volume, store, epoch }, Note(value), Yield { volume, epoch, stopped_for },
        Holdings(value),
        Verifying { read, held }, Replay { volume, epoch, from }, Replayed { volume, epoch }, Differs(value),
    }
    ControlAnswer {
        Registered { incarnation, cluster, generation }, Granted { sent, covers, news },
        News(value), Done, Order(value), Certificates(value), Refused(value), Noted(value),
        Replay { from, changes, last }, Heard { up_to, all },
    }
    Standing { Unknown, Live, Hidden(value), Gone }
    LostKind { Put, Delete, Undelete }
    LostStoreState { Estranged, Reconciled, Discarded, Fenced }
    StopCause { Lost, Differs }
    Visibility { Hidden, Live }
    ControlRefusal { NotLeader { leader }, Unregistered, StaleEpoch(value), NotYet, Denied(value) }
    AdminRequest {
        Status { behind }, CreateTenant { name, volumes, window, first_copy_retention, single_dc, stale_reads }, ListTenants,
        CreatePrincipal { tenant }, FenceStore { store }, Plan { verb }, Apply { number, verb }, CancelPlan, Progress,
        Propose { action, reason }, Approve { number }, Proposals, Backup { offset },
        LossList { volume, epoch }, LostVersions { volume, epoch, after },
        BeginRefused { begins, without, reason, why }, Refusals,
    }
    AdminAnswer {
        Status(value), Tenant(value), Tenants(value), Principal { tenant, principal }, Done, Refused(value),
        NotLeader { leader }, Plan(value), Progress(value),
        Proposal(value), Proposals(value), Backup { head, offset, part },
        LossList(value), LostVersions { versions, more }, Refusals(value),
    }
    Override { Propose(value), Approve { number, action }, Begin { begins, without } }
    JointAction { AcceptLoss { volume, epoch, store }, Discard { volume, store } }
    ProposalState { Open, Approved { by, at }, Expired }
    Verb {
        Failover(value), Failback(value), DrainNode(value), RestoreNode(value), RemoveNode(value), DrainLink(value),
        RestoreLink(value), LimitRepair { link, per_second }, Rebalance, Voters(value),
    }
    SlowState { Slow, Probation }
    VoterVerb { Add(value), Remove(value), Replace { old, new } }
    VoterBody { Raft(value), Introduce { key, shared }, Retired, Offer(value), AskSign { number, applied, papers }, Signed { number, signatures } }
    Papers { Order(value), Certificates(value), Loss(value) }
    RaftKind { Append, Appended, AskVote, Vote, Snapshot, Heartbeat, Heard, HandOver, AskPreVote, PreVote }
    EntryKind { Command, Membership }
}

macro_rules! every {
    ($($page:literal: $($name:ident)+;)+) => {
        /// Visits every shape; `page` names the golden file it is in.
        pub(crate) fn every(visit: &mut impl Visit) {
            $($(visit.visit::<$name>($page);)+)+
        }
    };
}

every! {
    "parts": UploadId Token LinkId Protection SingleDcPolicy StaleReads MemberState Member Interval VolumeConfig LinkAddress NodeState Duty
        Stand VoterEntry NodeEntry TenantEntry;
    "papers": Signed64 PurgeItem PurgeScope PurgeOrder SignedPurgeOrder SignerTerm Signers EraseReceipt SignedEraseReceipt
        StoreKeyStatement PurgeException DeletionCertificate SignedCertificate BackupStatement SignedBackup LossStatement SignedLossStatement SignedLossList;
    "record": RecordBody Cause Put Delete Undelete Purging OthersErased Certified Erasable;
    "tenant": TenantRequest TenantCall Precondition TokenUse PutRequest UploadEnd UploadPart Selector Want
        TenantAnswer Copy PutReceipt ObjectView ListEntry PurgeStage PurgeView RouteView TenantKeyGrant
        KeysView DataPart Refusal;
    "peer": PeerMessage PeerBody BagWord BagTurn LogPoint StoreReport Compare Compared Standing;
    "control": ControlRequest Register Renew StoreTiming StoreCondition NodeLoad StoppedVolume StopCause LinkPolicy LinkReport Traffic TrafficByClass VolumeStatistics ExposureCount Visibility VisibilityChange
        Note Noted PurgeEvidence PurgeClaim
        ControlAnswer News ControlRefusal Holdings VolumeHolding Difference LostVersion LostKind;
    "admin": AdminRequest AdminAnswer Verb VoterVerb PlanView StepView Progress AtRiskView DebtView SlowState SlowStore ClusterStatus StoreView VoterStatus
        JointAction ProposalState ProposalView Override RefusedOverride SearchView LossView LostStoreView LostStoreState LossTotals;
    "voter": VoterPiece VoterMessage VoterBody Papers RaftMessage RaftKind LogEntry EntryKind LogSnapshot;
}
