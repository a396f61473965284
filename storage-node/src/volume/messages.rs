//! Messages between the stores of one volume: which of them are listened to at all, and which
//! protocol hears each. It decides nothing but whom to believe: the right tenant, the current run of
//! the sender's process, this very epoch, a store that has a say.

use super::backfill::Wanted;
use super::member::FollowError;
use super::peering::witnesses;
use super::replica::{Replica, Role};
use super::telling::compare;
use super::uploads::{SentLeaves, take_sent};
use crate::effect::Lane;
use crate::outbox::Context;
use bytes::Bytes;
use trefoil_engine::{Disk, RecordReadError, StageError};
use trefoil_protocol::ids::{Incarnation, NodeId, StoreId};
use trefoil_protocol::message::peer::{LogPoint, PeerBody, PeerMessage, decode_records, encode_records};
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::mutant;
use trefoil_protocol::record::Record;

/// Bytes of records handed to a new primary in one message.
const LOG_BYTES: usize = 1 << 20;

impl<D: Disk> Replica<D> {
    /// A message about this volume from a node's verified connection.
    pub fn peer(&mut self, from: NodeId, message: PeerMessage, bulk: Bytes, cx: &mut Context<'_, D>) {
        if message.tenant != self.config.tenant || !self.is_current_run(from, &message, cx) {
            return;
        }
        let promised = mutant!(M06, self.holding.promised(), trefoil_protocol::ids::Epoch(0));
        if message.epoch < promised {
            if self.holding.has_promised(promised) && !matches!(message.body, PeerBody::NotYet) {
                cx.tell(&self.config, from, PeerBody::Fenced { promised });
            }
            return;
        }
        if mutant!(M06, message.epoch > self.config.epoch, false) {
            return cx.not_told(from, &message);
        }
        if !self.holding.has_promised(self.config.epoch) {
            cx.not_yet(from, &message);
        }
        let member = self.config.member_of_store(message.store);
        let is_member = mutant!(M06, member.is_some_and(|member| member.node == from), true);
        match &self.role {
            Role::Stopped(_) => return,
            Role::Peering(_) | Role::Primary(_) if !is_member && self.is_copy(&message, from, cx) => {
                self.copied(from, message, bulk, cx);
            }
            Role::Primary(_) if self.is_estranged_question(&message, from, cx) => {
                if let PeerBody::Compare(question) = &message.body {
                    let answer = PeerBody::Compared(compare(&self.holding, question));
                    cx.tell(&self.config, from, answer);
                }
                return;
            }
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
        let run = self.runs.get_or_insert(message.store, Incarnation::default());
        *run = (*run).max(known.map_or(Incarnation::default(), |node| node.incarnation));
        let current = message.incarnation >= *run;
        *run = (*run).max(message.incarnation);
        current
    }

    /// Whether a store that held the volume, and is no member any more, sends copies of records, or of payload
    /// to a primary that lacks some.
    fn is_copy(&self, message: &PeerMessage, from: NodeId, cx: &Context<'_, D>) -> bool {
        let runs_it = cx.view.node_of_store(message.store).is_some_and(|node| node.node == from);
        let held = self.config.ever_held.contains(&message.store);
        let is_wanted = match message.body {
            PeerBody::Log { .. } => true,
            PeerBody::Payload { .. } | PeerBody::NoPayload { .. } => self.owes(),
            _ => false,
        };
        is_wanted && runs_it && held && !self.is_witness(message, from, cx)
    }

    /// Whether a store that the volume went on without asks what is here, and this primary may say.
    fn is_estranged_question(&self, message: &PeerMessage, from: NodeId, cx: &Context<'_, D>) -> bool {
        let runs_it = cx.view.node_of_store(message.store).is_some_and(|node| node.node == from);
        let held = self.config.ever_held.contains(&message.store);
        matches!(message.body, PeerBody::Compare(_)) && runs_it && held && self.is_serving()
    }

    fn copied(&mut self, from: NodeId, message: PeerMessage, bulk: Bytes, cx: &mut Context<'_, D>) {
        let PeerBody::Log { previous, count, .. } = message.body else {
            return self.route(from, message, bulk, cx);
        };
        if let Ok(records) = decode_records(bulk, count) {
            self.mended(message.store, previous, records, cx);
        }
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
                self.backfill.arrived(upload, first, leaves.len(), cx.now);
                let sent = SentLeaves { upload, first, hashes: leaves, bulk, relay_to };
                if take_sent(sent, &mut self.holding, &self.config, cx) == Err(Refusal::Full) {
                    self.had_no_room();
                }
            }
            PeerBody::FetchPayload { upload, first, count } => {
                let wanted = Wanted { upload, first, count };
                self.backfill.serve(from, wanted, self.claim(cx.now), &self.holding, &self.config, cx);
            }
            PeerBody::NoPayload { upload } => {
                self.backfill.refused(from);
                if let Role::Peering(peering) = &mut self.role {
                    peering.lacks(store, upload);
                }
            }
            PeerBody::Erase { order, items, .. } if self.is_led_by(from) => {
                // A refused order is counted; nobody is owed an answer.
                let _ = self.erasing.order(&order, &items, &mut self.holding, &self.config, cx);
            }
            PeerBody::Erased { receipts } => self.take_receipts(receipts, cx),
            PeerBody::Orphans { uploads } => self.void(uploads, cx),
            PeerBody::Bag(word) => self.bag_said(store, run, word),
            PeerBody::BagTurn { number } if self.is_led_by(from) => self.bag_turn(number, cx),
            PeerBody::Fenced { .. } => cx.out.want_news(),
            body => self.route_to_primary(store, run, body, bulk, cx),
        }
    }

    /// Bodies that mostly a primary, old or new, listens to.
    fn route_to_primary(
        &mut self,
        store: StoreId,
        run: Incarnation,
        body: PeerBody,
        bulk: Bytes,
        cx: &mut Context<'_, D>,
    ) {
        match (&mut self.role, body) {
            (role, PeerBody::DurableAck { durable, committed, missing_uploads, short_of_room }) => {
                let Some(primary) = role.counting() else { return };
                primary.met(store, run);
                primary.heard_of_room(store, short_of_room);
                let (holding, now) = (&self.holding, cx.now);
                let took = primary.acknowledged(holding, store, durable, committed, missing_uploads, now);
                if let Some(took) = took {
                    cx.out.acknowledged(store, took);
                }
            }
            (role, PeerBody::Gap { last, committed }) => {
                let Some(primary) = role.counting() else { return };
                primary.met(store, run);
                primary.gap(&self.holding, store, last, committed, cx.now);
            }
            (Role::Peering(peering), PeerBody::NotYet) => peering.not_yet(store, cx.now),
            (Role::Primary(primary), PeerBody::NotYet) => primary.not_yet(store, cx.now),
            (Role::Peering(peering), PeerBody::Report(report)) => peering.reported(store, run, report),
            (Role::Peering(peering), PeerBody::Log { previous, count, .. }) => {
                let Ok(records) = decode_records(bulk, count) else { return };
                self.mending.answered(store, previous, &records);
                let before = self.holding.last();
                let outcome = peering.log(&mut self.holding, previous, records, cx.now);
                if !self.holding.passes(before) {
                    self.mutations.cut(self.holding.committed(), cx);
                }
                self.followed(outcome, cx);
            }
            (Role::Primary(_) | Role::Member(_), PeerBody::Log { previous, count, .. }) => {
                let Ok(records) = decode_records(bulk, count) else { return };
                self.mended(store, previous, records, cx);
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
        let is_here = |record: &Record| self.holding.point(record.lsn()).is_some();
        if let Some(last) = records.last().filter(|last| is_here(last)).map(Record::lsn) {
            // That it is sent again says that the primary waits for long.
            let staged = last > self.holding.log().durable_lsn();
            let unpaid = last > self.holding.acknowledgeable(committed);
            if staged || unpaid && self.backfill.gets_on(cx.now) {
                cx.get_on(&self.config);
            }
        }
        let outcome = member.append(&mut self.holding, &self.config, previous, committed, records, cx);
        self.followed(outcome, cx);
    }

    pub(super) fn followed(&mut self, outcome: Result<(), FollowError>, cx: &mut Context<'_, D>) {
        match outcome {
            Ok(()) | Err(FollowError::NoLog(_) | FollowError::Gap(_)) => {}
            Err(error @ FollowError::CommittedDiffers { .. }) => self.stop(error, cx),
            Err(FollowError::Stage(StageError::Disk(trefoil_engine::DiskError::Full { .. }))) => {
                self.had_no_room();
            }
            Err(FollowError::Stage(error)) => cx.out.fail_store(error),
        }
    }

    fn had_no_room(&mut self) {
        if let Role::Member(member) = &mut self.role {
            member.had_no_room();
        }
    }

    fn is_witness(&self, message: &PeerMessage, from: NodeId, cx: &Context<'_, D>) -> bool {
        let runs_it = cx.view.node_of_store(message.store).is_some_and(|node| node.node == from);
        runs_it && witnesses(&self.config).contains(&message.store)
    }

    /// No member any more, but what this store holds may settle what was acknowledged last.
    fn testify(&mut self, primary: NodeId, body: PeerBody, cx: &mut Context<'_, D>) {
        match body {
            PeerBody::Compared(answer) => {
                if let Some(telling) = &mut self.telling {
                    telling.compared(&answer, &self.holding, &self.config, cx);
                }
            }
            PeerBody::Peer => {
                if let Err(error) = self.promise(cx) {
                    return cx.out.fail_store(error);
                }
                self.testimony_due = true;
            }
            PeerBody::FetchLog { after } if self.holding.has_promised(self.config.epoch) => {
                self.serve_log(primary, after, cx);
            }
            PeerBody::FetchPayload { upload, first, count } => {
                let wanted = Wanted { upload, first, count };
                self.backfill.serve(primary, wanted, self.claim(cx.now), &self.holding, &self.config, cx);
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
            let record = match self.holding.record_to_send(lsn) {
                Ok(record) => record,
                Err(RecordReadError::Faulty { lsn, fault }) => {
                    self.holding.record_is_damaged(lsn, fault);
                    break;
                }
                Err(RecordReadError::Absent { .. }) => break,
                Err(RecordReadError::Disk(error)) => return cx.out.fail_store(error),
            };
            bytes += record.lengths().total();
            records.push(record);
            lsn = lsn.next();
        }
        let last = lsn > self.holding.log().durable_lsn();
        let count = u32::try_from(records.len()).expect("a message is small");
        let bulk = if records.is_empty() { Vec::new() } else { vec![encode_records(&records)] };
        cx.send(&self.config, to, Lane::Log, PeerBody::Log { previous, count, last }, bulk);
    }
}
