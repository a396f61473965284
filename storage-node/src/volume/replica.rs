//! One volume on this store: which role it has under the present configuration, and which protocol a
//! message or request belongs to. It routes; it decides nothing itself.
//!
//! It answers nobody at an epoch whose promise is not durable, and listens to nobody of a lower one.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_engine::{
    Disk, EraseError, EraseReport, ReadError, RecordReadError, StageError, SyncError, SyncTicket,
};
use trefoil_protocol::config::{Member as Membership, MemberState, VolumeConfig};
use trefoil_protocol::deletion::SignedEraseReceipt;
use trefoil_protocol::ids::{Hash, Incarnation, NodeId, StoreId, Token};
use trefoil_protocol::message::control::ControlAnswer;
use trefoil_protocol::message::peer::{LogPoint, PeerBody, PeerMessage, decode_records, encode_records};
use trefoil_protocol::message::tenant::{Refusal, Selector, TenantCall, UploadEnd, UploadPart, Want};
use trefoil_protocol::record::{INLINE_MAX, Record, RecordBody, WRAPPED_MAX};
use trefoil_protocol::time::BootTime;

use super::backfill::{Backfill, Wanted};
use super::erasing::Erasing;
use super::holding::Holding;
use super::member::{FollowError, Member};
use super::mutations::{self, Desk, Intent, Mutation, Mutations, request_hash};
use super::peering::{Peering, Progress, witnesses};
use super::primary::Primary;
use super::purge::Purges;
use super::reads::{self, Counter, Reads};
use super::uploads::{Arrived, SentLeaves, Uploads, check_metadata, take_sent};
use crate::authorise::TenantScope;
use crate::effect::Lane;
use crate::event::{ControlTicket, ReadTicket, RequestId};
use crate::mutant::mutant;
use crate::outbox::Context;

/// Bytes of records handed to a new primary in one message.
const LOG_BYTES: usize = 1 << 20;

/// What this store does for the volume.
#[derive(Debug)]
enum Role {
    /// No member under the present configuration.
    Absent,
    /// Follows the primary.
    Member(Member),
    /// Begins an epoch as its primary.
    Peering(Peering),
    /// Orders writes.
    Primary(Primary),
    /// Met something that must not be: it takes part in nothing until somebody has looked.
    Stopped(String),
}

/// One volume on this store.
#[derive(Debug)]
pub struct Replica<D: Disk> {
    config: VolumeConfig,
    holding: Holding<D>,
    role: Role,
    mutations: Mutations,
    uploads: Uploads,
    reads: Reads,
    backfill: Backfill,
    purges: Purges,
    erasing: Erasing,
    /// The latest run of each store that spoke: what an earlier run said is void.
    runs: BTreeMap<StoreId, Incarnation>,
    /// A primary in doubt asked where this store is, which is no member.
    testimony_due: bool,
}

impl<D: Disk> Replica<D> {
    /// A volume as it was opened, before its configuration is known to be current.
    pub fn new(config: VolumeConfig, holding: Holding<D>) -> Self {
        Self {
            config,
            holding,
            role: Role::Absent,
            mutations: Mutations::default(),
            uploads: Uploads::default(),
            reads: Reads::default(),
            backfill: Backfill::default(),
            purges: Purges::default(),
            erasing: Erasing::default(),
            runs: BTreeMap::new(),
            testimony_due: false,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &VolumeConfig {
        &self.config
    }

    /// What this store holds of the volume.
    pub fn holding(&self) -> &Holding<D> {
        &self.holding
    }

    /// Why the volume is stopped on this store, if it is.
    pub fn stopped(&self) -> Option<&str> {
        match &self.role {
            Role::Stopped(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether this store is the volume's primary and serves.
    pub fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.is_serving(&self.holding))
    }

    /// How many members hold everything, if this store is the primary.
    pub fn whole_copies(&self) -> Option<usize> {
        match &self.role {
            Role::Primary(primary) => Some(primary.whole_copies()),
            _ => None,
        }
    }

    fn me(&self, cx: &Context<'_, D>) -> Option<Membership> {
        self.config.member_of_store(cx.identity.store).copied()
    }

    /// Takes a configuration over and changes roles accordingly.
    pub fn configure(&mut self, config: VolumeConfig, cx: &mut Context<'_, D>) {
        let new_epoch = config.epoch > self.config.epoch || matches!(self.role, Role::Absent);
        self.config = config;
        if matches!(self.role, Role::Stopped(_)) {
            return self.refuse_everybody(cx);
        }
        if new_epoch {
            self.change_role(cx);
        }
        self.settle(cx);
    }

    fn change_role(&mut self, cx: &mut Context<'_, D>) {
        let Some(me) = self.me(cx) else {
            self.role = Role::Absent;
            return self.refuse_everybody(cx);
        };
        if let Err(error) = self.holding.promise(self.config.epoch) {
            return cx.out.fail_store(error);
        }
        let may_lead = mutant!(M07, me.state == MemberState::InSync, true);
        if self.config.primary == Some(cx.identity.node) && may_lead {
            self.role = Role::Peering(Peering::new(cx.now));
        } else {
            self.role = Role::Member(Member::default());
            self.refuse_everybody(cx);
        }
    }

    fn refuse_everybody(&mut self, cx: &mut Context<'_, D>) {
        let refusal = self.not_primary();
        self.mutations.abandon(&refusal, cx);
        self.uploads.abandon(&refusal, cx);
        self.purges = Purges::default();
    }

    fn not_primary(&self) -> Refusal {
        Refusal::NotPrimary { epoch: self.config.epoch, primary: self.config.primary }
    }

    fn stop(&mut self, reason: impl ToString, cx: &mut Context<'_, D>) {
        self.role = Role::Stopped(reason.to_string());
        self.refuse_everybody(cx);
    }

    // ---- messages of other nodes ----

    /// A message about this volume from a node's verified connection.
    pub fn peer(&mut self, from: NodeId, message: PeerMessage, bulk: Bytes, cx: &mut Context<'_, D>) {
        if message.tenant != self.config.tenant || !self.is_current_run(from, &message, cx) {
            return;
        }
        let promised = mutant!(M06, self.holding.promised(), trefoil_protocol::ids::Epoch(0));
        if message.epoch < promised {
            if self.holding.has_promised(promised) {
                cx.tell(&self.config, from, PeerBody::Fenced { promised });
            }
            return;
        }
        if message.epoch > self.config.epoch {
            return cx.out.want_news();
        }
        let is_member = self.config.member_of_store(message.store).is_some_and(|m| m.node == from);
        match &self.role {
            Role::Stopped(_) => return,
            Role::Absent if is_member && self.is_led_by(from) => self.testify(from, message.body, cx),
            Role::Absent => return,
            Role::Peering(_) if is_member || self.is_witness(&message, from, cx) => {
                self.route(from, message, bulk, cx);
            }
            _ if is_member => self.route(from, message, bulk, cx),
            _ => return,
        }
        self.settle(cx);
    }

    /// What an earlier run of a process said says nothing about the present one.
    fn is_current_run(&mut self, from: NodeId, message: &PeerMessage, cx: &Context<'_, D>) -> bool {
        let known = cx.view.nodes.get(&from).filter(|node| node.store == message.store);
        let run = self.runs.entry(message.store).or_default();
        *run = (*run).max(known.map_or(Incarnation::default(), |node| node.incarnation));
        let current = message.incarnation >= *run;
        *run = (*run).max(message.incarnation);
        current
    }

    fn route(&mut self, from: NodeId, message: PeerMessage, bulk: Bytes, cx: &mut Context<'_, D>) {
        let (store, run) = (message.store, message.incarnation);
        match message.body {
            PeerBody::Append { previous, committed, count } if self.is_led_by(from) => {
                self.append(previous, committed, count, bulk, cx);
            }
            PeerBody::Peer if self.is_led_by(from) => {
                if let Role::Member(member) = &mut self.role {
                    member.begin_again();
                }
            }
            PeerBody::FetchLog { after } => self.serve_log(from, after, cx),
            PeerBody::Payload { upload, first, leaves, relay_to, .. } => {
                self.backfill.arrived(upload, first, leaves.len());
                let sent = SentLeaves { upload, first, hashes: leaves, bulk, relay_to };
                take_sent(sent, &mut self.holding, &self.config, cx);
            }
            PeerBody::FetchPayload { upload, first, count } => {
                let wanted = Wanted { upload, first, count };
                self.backfill.serve(from, wanted, &self.holding, &self.config, cx);
            }
            PeerBody::NoPayload { upload } => {
                self.backfill.refused();
                if let Role::Peering(peering) = &mut self.role {
                    peering.lacks(store, upload);
                }
            }
            PeerBody::Erase { order, items, .. } if self.is_led_by(from) => {
                // A refused order is counted; nobody is owed an answer.
                let _ = self.erasing.order(&order, &items, &mut self.holding, &self.config, cx);
            }
            PeerBody::Erased { receipts } => self.take_receipts(receipts, cx),
            PeerBody::Fenced { .. } => cx.out.want_news(),
            body => self.route_to_primary(store, run, body, bulk, cx),
        }
    }

    /// Bodies that only a primary, old or new, listens to.
    fn route_to_primary(
        &mut self,
        store: StoreId,
        run: Incarnation,
        body: PeerBody,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) {
        match (&mut self.role, body) {
            (Role::Primary(primary), PeerBody::DurableAck { durable, committed, missing_uploads }) => {
                primary.met(store, run);
                primary.acknowledged(&self.holding, store, durable, committed, missing_uploads, cx.now);
            }
            (Role::Primary(primary), PeerBody::Gap { last, committed }) => {
                primary.met(store, run);
                primary.gap(&self.holding, store, last, committed, cx.now);
            }
            (Role::Peering(peering), PeerBody::Report(report)) => peering.reported(store, run, report),
            (Role::Peering(peering), PeerBody::Log { previous, count, .. }) => {
                let Ok(records) = decode_records(bulk, count) else { return };
                let before = self.holding.last();
                let outcome = peering.log(&mut self.holding, previous, records, cx.now);
                if !self.holding.passes(before) {
                    self.mutations.cut(self.holding.committed(), cx);
                }
                self.followed(outcome, cx);
            }
            _ => {}
        }
    }

    fn append(
        &mut self,
        previous: LogPoint,
        committed: trefoil_protocol::ids::Lsn,
        count: u32,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) {
        let Role::Member(member) = &mut self.role else { return };
        let Ok(records) = decode_records(bulk, count) else { return };
        let outcome = member.append(&mut self.holding, &self.config, previous, committed, records, cx);
        self.followed(outcome, cx);
    }

    fn followed(&mut self, outcome: Result<(), FollowError>, cx: &mut Context<'_, D>) {
        match outcome {
            Ok(()) | Err(FollowError::NoLog(_) | FollowError::Gap(_)) => {}
            Err(error @ FollowError::CommittedDiffers { .. }) => self.stop(error, cx),
            Err(FollowError::Stage(StageError::Disk(trefoil_engine::DiskError::Full { .. }))) => {}
            Err(FollowError::Stage(error)) => cx.out.fail_store(error),
        }
    }

    fn is_witness(&self, message: &PeerMessage, from: NodeId, cx: &Context<'_, D>) -> bool {
        let runs_it = cx.view.node_of_store(message.store).is_some_and(|node| node.node == from);
        runs_it && witnesses(&self.config).contains(&message.store)
    }

    /// No member any more, but what this store holds may settle what was acknowledged last.
    fn testify(&mut self, primary: NodeId, body: PeerBody, cx: &mut Context<'_, D>) {
        match body {
            PeerBody::Peer => {
                if let Err(error) = self.holding.promise(self.config.epoch) {
                    return cx.out.fail_store(error);
                }
                self.testimony_due = true;
            }
            PeerBody::FetchLog { after } if self.holding.has_promised(self.config.epoch) => {
                self.serve_log(primary, after, cx);
            }
            PeerBody::FetchPayload { upload, first, count } => {
                let wanted = Wanted { upload, first, count };
                self.backfill.serve(primary, wanted, &self.holding, &self.config, cx);
            }
            _ => {}
        }
    }

    fn is_led_by(&self, node: NodeId) -> bool {
        mutant!(M06, self.config.primary == Some(node), true)
    }

    /// A new primary wants the records behind a point of its log.
    fn serve_log(&mut self, to: NodeId, after: LogPoint, cx: &mut Context<'_, D>) {
        let mut records: Vec<Record> = Vec::new();
        let previous = if self.holding.passes(after) { after } else { self.holding.last() };
        let (mut lsn, mut bytes) = (previous.lsn.next(), 0);
        while lsn <= self.holding.log().durable_lsn() && bytes < LOG_BYTES {
            let Ok(record) = self.holding.record(lsn) else { break };
            bytes += record.lengths().total();
            records.push(record);
            lsn = lsn.next();
        }
        let last = lsn > self.holding.log().durable_lsn();
        let count = u32::try_from(records.len()).expect("a message is small");
        let bulk = if records.is_empty() { Vec::new() } else { vec![encode_records(&records)] };
        cx.send(&self.config, to, Lane::Log, PeerBody::Log { previous, count, last }, bulk);
    }

    // ---- requests of clients ----

    /// A client's request about this volume.
    pub fn request(
        &mut self,
        request: RequestId,
        scope: TenantScope,
        call: TenantCall,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) {
        assert!(scope.volume() == self.config.volume, "a proof for another volume");
        if let Err(refusal) = self.call(request, scope, call, bulk, cx) {
            cx.out.refuse(request, refusal);
        }
        self.settle(cx);
    }

    fn call(
        &mut self,
        request: RequestId,
        scope: TenantScope,
        call: TenantCall,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        if let TenantCall::Get { key, selector: Selector::Version(version), want } = &call
            && !self.is_serving()
        {
            let me = self.me(cx).ok_or_else(|| self.not_primary())?;
            let counter = Counter { holding: &self.holding, config: &self.config, primary: None, me };
            return self.reads.exact(request, key, *version, want, &counter, cx);
        }
        self.check_serving()?;
        match call {
            TenantCall::Put(_) | TenantCall::Delete { .. } | TenantCall::Undelete { .. } => {
                self.mutate(request, scope, call, bulk, cx)
            }
            TenantCall::Outcome { token } => {
                let (mutations, mut desk) = self.desk(cx).ok_or(Refusal::Unavailable)?;
                mutations.outcome(request, token, &mut desk, cx);
                Ok(())
            }
            TenantCall::Get { key, selector, want } => self.get(request, &key, selector, &want, cx),
            call => self.look_up(request, &call, cx),
        }
    }

    /// Only a primary whose epoch has begun answers anything but exact versions.
    fn check_serving(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Primary(primary) if primary.is_serving(&self.holding) => Ok(()),
            Role::Primary(_) | Role::Peering(_) => Err(Refusal::LeaseExpired),
            Role::Stopped(_) => Err(Refusal::Unavailable),
            Role::Member(_) | Role::Absent => Err(self.not_primary()),
        }
    }

    /// The mutations with the desk they are evaluated at, if this store is the primary.
    fn desk(&mut self, cx: &Context<'_, D>) -> Option<(&mut Mutations, Desk<'_, D>)> {
        let me = self.me(cx)?;
        let Role::Primary(primary) = &self.role else { return None };
        let desk = Desk { holding: &mut self.holding, config: &self.config, primary, me };
        Some((&mut self.mutations, desk))
    }

    fn mutate(
        &mut self,
        request: RequestId,
        scope: TenantScope,
        call: TenantCall,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let (principal, hash) = (scope.principal(), request_hash(&call));
        let (token, intent) = match call {
            TenantCall::Put(put) => {
                if put.wrapped_key.len() > WRAPPED_MAX {
                    return Err(Refusal::Invalid("the wrapped key is too long".into()));
                }
                let Some(end) = put.inline.clone() else {
                    if self.answers_at_once(request, put.token.token, &hash, cx) {
                        return Ok(());
                    }
                    self.uploads.begin(request, principal, Box::new(put), hash);
                    return Ok(());
                };
                check_inline(&end, &bulk)?;
                (put.token, Intent::Put { request: Box::new(put), end, inline: Some(bulk) })
            }
            TenantCall::Delete { key, precondition, token } => (token, Intent::Delete { key, precondition }),
            TenantCall::Undelete { key, version, token } => (token, Intent::Undelete { key, version }),
            _ => return Err(Refusal::Invalid("no mutation".into())),
        };
        let mutation = Mutation { request, principal, token, hash, intent };
        let (mutations, mut desk) = self.desk(cx).ok_or(Refusal::Unavailable)?;
        mutations.accept(mutation, &mut desk, cx);
        Ok(())
    }

    /// A retry of a streamed put that was decided needs no bytes.
    fn answers_at_once(
        &mut self,
        request: RequestId,
        token: Token,
        hash: &Hash,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let Some((_, desk)) = self.desk(cx) else { return false };
        let Some(response) = mutations::decided(&token, hash, &desk) else { return false };
        cx.out.respond(request, response);
        true
    }

    fn get(
        &mut self,
        request: RequestId,
        key: &trefoil_protocol::key::ObjectKey,
        selector: Selector,
        want: &Want,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let me = self.me(cx).ok_or(Refusal::Unavailable)?;
        let Role::Primary(primary) = &self.role else { return Err(Refusal::Unavailable) };
        let counter = Counter { holding: &self.holding, config: &self.config, primary: Some(primary), me };
        match selector {
            Selector::Latest => self.reads.latest(request, key, want, &counter, cx),
            Selector::Version(version) => self.reads.exact(request, key, version, want, &counter, cx),
        }
    }

    fn look_up(
        &mut self,
        request: RequestId,
        call: &TenantCall,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let me = self.me(cx).ok_or(Refusal::Unavailable)?;
        let Role::Primary(primary) = &self.role else { return Err(Refusal::Unavailable) };
        let counter = Counter { holding: &self.holding, config: &self.config, primary: Some(primary), me };
        let answer = match call {
            TenantCall::List { prefix, after, limit } => {
                reads::list(&counter, prefix, after.as_ref(), *limit)
            }
            TenantCall::Deleted { prefix, after, limit } => {
                reads::list_deleted(&counter, prefix, after.as_ref(), *limit)
            }
            TenantCall::PurgeStatus { name_tag, after } => {
                let copies_left = |object: &_| self.purges.copies_left(object, &self.config);
                reads::purge_status(&counter, *name_tag, *after, copies_left)
            }
            TenantCall::Certificates { name_tag, after } => reads::certificates(&counter, *name_tag, *after)?,
            _ => return Err(Refusal::Invalid("no such call at a storage node".into())),
        };
        if !cx.leased(&self.config) {
            return Err(Refusal::LeaseExpired);
        }
        cx.out.answer(request, answer);
        Ok(())
    }

    /// Whether a request is at work here.
    pub fn has_request(&self, request: RequestId) -> bool {
        self.uploads.has(request) || self.reads.has(request)
    }

    /// A further frame of a streamed put.
    pub fn upload(&mut self, request: RequestId, part: UploadPart, bulk: Bytes, cx: &mut Context<'_, D>) {
        let arrived = self.uploads.part(request, part, bulk, &mut self.holding, &self.config, cx);
        let accepted = match arrived {
            Ok(Arrived::More) => Ok(()),
            Ok(Arrived::Whole(mutation)) => self.check_serving().map(|()| {
                if let Some((mutations, mut desk)) = self.desk(cx) {
                    mutations.accept(*mutation, &mut desk, cx);
                }
            }),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = accepted {
            cx.out.refuse(request, refusal);
        }
        self.settle(cx);
    }

    /// The client went away. What is under way goes on.
    pub fn gone(&mut self, request: RequestId) {
        self.uploads.end(request);
        self.reads.end(request);
    }

    // ---- disk and clock ----

    /// A sync ended.
    pub fn synced(&mut self, ticket: SyncTicket, result: &Result<(), SyncError>, cx: &mut Context<'_, D>) {
        self.holding.synced(ticket, result);
        match result {
            Ok(()) => self.settle(cx),
            Err(error) => cx.out.fail_store(error),
        }
    }

    /// A read ended.
    pub fn read(
        &mut self,
        ticket: ReadTicket,
        result: Result<Vec<Bytes>, ReadError>,
        cx: &mut Context<'_, D>,
    ) {
        if !self.backfill.read(ticket, &result, &self.holding, &self.config, cx) {
            self.reads.read(ticket, result, &mut self.holding, &self.config, cx);
        }
        self.settle(cx);
    }

    /// Lets every protocol do what can be done now, until nothing changes.
    pub fn settle(&mut self, cx: &mut Context<'_, D>) {
        if matches!(self.role, Role::Absent | Role::Stopped(_)) {
            if let Some(primary) = self.config.primary
                && self.testimony_due
                && self.holding.has_promised(self.config.epoch)
            {
                self.testimony_due = false;
                cx.tell(&self.config, primary, PeerBody::Report(self.holding.report()));
            }
            return self.sync(cx);
        }
        self.settle_erasing(cx);
        let others = match &self.role {
            Role::Peering(peering) => peering.witness_nodes(&self.config, cx),
            _ => Vec::new(),
        };
        self.backfill.fetch(&self.holding, &self.config, others, cx);
        match &mut self.role {
            Role::Member(member) => member.settle(&mut self.holding, &self.config, cx),
            Role::Peering(_) => self.settle_peering(cx),
            Role::Primary(_) => self.settle_primary(cx),
            Role::Absent | Role::Stopped(_) => {}
        }
        self.sync(cx);
    }

    /// Receipts of this store go to the primary, which may be this very node.
    fn settle_erasing(&mut self, cx: &mut Context<'_, D>) {
        let receipts = self.erasing.settle(&self.holding, &self.config, cx);
        if receipts.is_empty() {
            return;
        }
        if matches!(self.role, Role::Primary(_)) {
            self.take_receipts(receipts, cx);
        } else if let Some(primary) = self.config.primary {
            cx.tell(&self.config, primary, PeerBody::Erased { receipts });
        }
    }

    fn take_receipts(&mut self, receipts: Vec<SignedEraseReceipt>, cx: &mut Context<'_, D>) {
        let mut purges = std::mem::take(&mut self.purges);
        if let Some((_, desk)) = self.desk(cx) {
            purges.receipts(receipts, &desk, cx);
        }
        self.purges = purges;
    }

    /// An erase job ended.
    pub fn erased(&mut self, result: &Result<EraseReport, EraseError>, cx: &mut Context<'_, D>) {
        self.erasing.erased(result, &mut self.holding, cx);
        self.settle(cx);
    }

    /// The control plane's clock was heard: windows may be over.
    pub fn clock_heard(&mut self, cx: &mut Context<'_, D>) {
        if self.is_serving() && !self.holding.index().due(cx.view.now, 1).is_empty() {
            self.settle(cx);
        }
    }

    fn sync(&mut self, cx: &mut Context<'_, D>) {
        if let Some(job) = self.holding.sync_job() {
            cx.out.push(crate::effect::Effect::Sync { volume: self.config.volume, job });
        }
    }

    fn settle_peering(&mut self, cx: &mut Context<'_, D>) {
        let Role::Peering(peering) = &mut self.role else { return };
        let before = self.holding.last();
        let progress = peering.advance(&mut self.holding, &self.config, cx);
        if !self.holding.passes(before) {
            self.mutations.cut(self.holding.last().lsn, cx);
        }
        match progress {
            Ok(Progress::Ready) if self.config.activated => self.begin_epoch(cx),
            Ok(_) => {}
            Err(error) => cx.out.fail_store(error),
        }
    }

    /// The epoch is activated and the log is chosen: everything in it gets this epoch's commit.
    fn begin_epoch(&mut self, cx: &mut Context<'_, D>) {
        let Some(me) = self.me(cx) else { return };
        let start = self.holding.last().lsn.next();
        self.role = Role::Primary(Primary::new(&self.config, me.store, start, cx.now));
        let body = RecordBody::EpochStart { primary: me.node, protection: self.config.protection };
        if let Some((mutations, mut desk)) = self.desk(cx) {
            mutations.append_own(body, Vec::new(), &mut desk, cx);
        }
        self.settle_primary(cx);
    }

    fn settle_primary(&mut self, cx: &mut Context<'_, D>) {
        let Some(me) = self.me(cx) else { return };
        loop {
            let Role::Primary(primary) = &mut self.role else { return };
            let records = primary.commit(&mut self.holding, &self.config, &me, cx.now);
            if records.is_empty() {
                break;
            }
            if let Some((mutations, mut desk)) = self.desk(cx) {
                mutations.committed(&records, &mut desk, cx);
            }
        }
        self.drive_purges(cx);
        let Role::Primary(primary) = &mut self.role else { return };
        match primary.replicate(&self.holding, &self.config, cx) {
            Ok(()) | Err(RecordReadError::Absent { .. } | RecordReadError::Faulty { .. }) => {}
            Err(RecordReadError::Disk(error)) => return cx.out.fail_store(error),
        }
        primary.report(&self.holding, &self.config, cx);
    }

    /// The control plane answered something that this volume asked.
    pub fn control(&mut self, ticket: ControlTicket, answer: ControlAnswer, cx: &mut Context<'_, D>) {
        self.purges.answered(ticket, answer);
        self.settle(cx);
    }

    /// What this store holds, given back.
    pub fn into_holding(self) -> Holding<D> {
        self.holding
    }

    fn drive_purges(&mut self, cx: &mut Context<'_, D>) {
        if !self.is_serving() {
            return;
        }
        let mut purges = std::mem::take(&mut self.purges);
        let own = match self.desk(cx) {
            Some((mutations, mut desk)) => purges.settle(mutations, &mut desk, cx),
            None => Vec::new(),
        };
        self.purges = purges;
        for erase in own {
            let (order, items) = (&erase.order, &erase.items);
            if self.erasing.order(order, items, &mut self.holding, &self.config, cx).is_ok() {
                self.settle_erasing(cx);
            }
        }
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let role = match &self.role {
            Role::Absent | Role::Stopped(_) => return None,
            Role::Member(_) => None,
            Role::Peering(peering) => peering.next_wakeup(),
            Role::Primary(primary) => primary.next_wakeup(&self.holding, &self.config),
        };
        let purges = self.purges.next_wakeup().filter(|_| self.is_serving());
        let erasing = self.erasing.next_wakeup(&self.holding);
        role.into_iter().chain(erasing).chain(self.backfill.next_wakeup(&self.holding)).chain(purges).min()
    }
}

fn check_inline(end: &UploadEnd, bulk: &Bytes) -> Result<(), Refusal> {
    if end.sealed_length > INLINE_MAX {
        return Err(Refusal::Invalid("a large object is streamed".into()));
    }
    check_metadata(end)?;
    let matches = bulk.len() as u64 == end.sealed_length && *blake3::hash(bulk).as_bytes() == end.root.0;
    if matches { Ok(()) } else { Err(Refusal::Corrupt) }
}
