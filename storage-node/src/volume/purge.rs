//! The primary drives purges: it asks the control plane when windows are over, commits the point of
//! no return, has every store that ever held the volume erase, the retained one last, and commits the
//! certificate.
//!
//! All of it is read from the committed log, so the next primary goes on where this one stopped; what
//! is kept here only saves asking twice.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_engine::index::{ObjectVersion, Tombstone, VersionState};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::deletion::{
    PURGE_ITEMS_MAX, PurgeItem, PurgeScope, SignedCertificate, SignedEraseReceipt, SignedPurgeOrder,
    items_root,
};
use trefoil_protocol::ids::{Lsn, NodeId, OrderId, StoreId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest, PurgeClaim, PurgeEvidence};
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::mutant;
use trefoil_protocol::record::{Certified, OthersErased, Purging, RecordBody};
use trefoil_protocol::time::BootTime;

use super::batches::Batch;
use super::mutations::{Desk, Mutations};
use super::primary::is_due;
use crate::event::ControlTicket;
use crate::outbox::Context;

/// How often a store or the control plane is asked the same thing.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What the control plane was asked.
#[derive(Clone, Debug)]
enum Asked {
    /// An order for these items; of this purge, if it is for the first copy.
    Order { scope: PurgeScope, items: Vec<PurgeItem>, of: Option<OrderId> },
    /// Certificates for a purge.
    Certificates { of: OrderId },
}

impl Asked {
    /// The purge it is about; `None` is the one that has not begun.
    fn of(&self) -> Option<OrderId> {
        match self {
            Self::Order { of, .. } => *of,
            Self::Certificates { of } => Some(*of),
        }
    }
}

/// A question that stands until it is answered. It is asked again word for word under the same number,
/// so that an answer counts however long it took.
#[derive(Clone, Debug)]
struct Question {
    asked: Asked,
    request: ControlRequest,
    at: BootTime,
}

/// What is known of one purge beyond the log.
#[derive(Debug, Default)]
struct Drive {
    receipts: BTreeMap<(StoreId, VersionId), SignedEraseReceipt>,
    told: BTreeMap<StoreId, BootTime>,
    asked_at: Option<BootTime>,
    /// The last record of ours for this purge.
    record: Option<Lsn>,
    certificates: Vec<SignedCertificate>,
}

/// The purges of one volume at its primary.
#[derive(Debug, Default)]
pub struct Purges {
    questions: BTreeMap<ControlTicket, Question>,
    /// When the control plane was last asked for the next order.
    asked_at: Option<BootTime>,
    /// An order whose keys are locked by mutations under way.
    in_hand: Option<Box<(SignedPurgeOrder, Vec<PurgeItem>)>>,
    drives: BTreeMap<OrderId, Drive>,
    record: Option<Lsn>,
}

/// An erase that this very store is to do.
#[derive(Clone, Debug)]
pub struct OwnErase {
    /// The permission.
    pub order: SignedPurgeOrder,
    /// The items.
    pub items: Vec<PurgeItem>,
}

impl Purges {
    /// The control plane answered.
    pub fn answered(&mut self, ticket: ControlTicket, answer: ControlAnswer) {
        let Some(question) = self.questions.remove(&ticket) else { return };
        match (question.asked, answer) {
            (Asked::Order { scope, items, of }, ControlAnswer::Order(order)) => {
                let fits = order.order.scope == scope && order.order.items == items_root(&items);
                if fits && of.is_none() {
                    self.in_hand = Some(Box::new((order, items)));
                } else if fits {
                    // A first-copy order needs no lock: nothing can be undeleted any more.
                    self.in_hand.get_or_insert_with(|| Box::new((order, items)));
                }
            }
            (Asked::Certificates { of }, ControlAnswer::Certificates(certificates)) => {
                if let Some(drive) = self.drives.get_mut(&of) {
                    drive.certificates = certificates;
                }
            }
            _ => {}
        }
    }

    /// Receipts arrived, from a peer or from this store.
    pub fn receipts<D: Disk>(
        &mut self,
        receipts: Vec<SignedEraseReceipt>,
        desk: &Desk<'_, D>,
        cx: &Context<'_, D>,
    ) {
        for signed in receipts {
            let receipt = &signed.receipt;
            let Some(batch) = desk.holding.batches().permitted_by(receipt.order) else { continue };
            let item = PurgeItem { version: receipt.version, tombstone: receipt.tombstone };
            let drive = self.drives.get(&batch.order.order.id);
            if drive.and_then(|drive| drive.receipts.get(&(receipt.store, receipt.version))) == Some(&signed)
            {
                continue;
            }
            let ours = (receipt.tenant, receipt.volume) == (desk.config.tenant, desk.config.volume);
            let key = cx.view.node_of_store(receipt.store).map(|node| node.store_key);
            let signed_by_store = signed.signature.verify(receipt, |by| Some(*by) == key).is_ok();
            let named = batch.order_for(receipt.store) == Some(receipt.order);
            if ours && signed_by_store && named && batch.items.contains(&item) {
                let drive = self.drives.entry(batch.order.order.id).or_default();
                drive.receipts.insert((receipt.store, receipt.version), signed);
            }
        }
    }

    /// Goes on with everything that can go on. Answers what this store itself is to erase.
    pub fn settle<D: Disk>(
        &mut self,
        mutations: &mut Mutations,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) -> Vec<OwnErase> {
        self.ask_again(desk.config, cx);
        self.ask_for_due(desk, cx);
        self.commit_order(mutations, desk, cx);
        let open: Vec<(OrderId, Batch)> = desk
            .holding
            .batches()
            .iter()
            .filter(|(_, batch)| is_open(batch, desk))
            .map(|(order, batch)| (order, batch.clone()))
            .collect();
        let is_open = |order: &OrderId| open.iter().any(|(other, _)| other == order);
        self.drives.retain(|order, _| is_open(order));
        self.questions.retain(|_, question| question.asked.of().is_none_or(|of| is_open(&of)));
        let held = &desk.config.ever_held;
        for drive in self.drives.values_mut() {
            // A store that left and comes back says anew what it holds.
            drive.receipts.retain(|(store, _), _| held.contains(store));
            drive.told.retain(|store, _| held.contains(store));
        }
        let mut own = Vec::new();
        for (order, batch) in open {
            self.drive(order, &batch, mutations, desk, &mut own, cx);
        }
        own
    }

    /// Repeats what was not answered.
    fn ask_again<D: Disk>(&mut self, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        for (ticket, question) in &mut self.questions {
            if is_due(Some(question.at), ASK_EVERY, cx.now) {
                question.at = cx.now;
                cx.out.ask_again_for(config.volume, *ticket, question.request.clone());
            }
        }
    }

    fn is_asked(&self, of: Option<OrderId>) -> bool {
        self.questions.values().any(|question| question.asked.of() == of)
    }

    fn ask<D: Disk>(
        &mut self,
        asked: Asked,
        request: ControlRequest,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let ticket = cx.out.ask_for(config.volume, request.clone());
        self.questions.insert(ticket, Question { asked, request, at: cx.now });
    }

    /// Asks for permission when windows are over.
    fn ask_for_due<D: Disk>(&mut self, desk: &Desk<'_, D>, cx: &mut Context<'_, D>) {
        let waiting =
            self.in_hand.is_some() || self.is_asked(None) || !is_due(self.asked_at, ASK_EVERY, cx.now);
        if waiting || self.record.is_some_and(|lsn| lsn > desk.holding.committed()) {
            return;
        }
        let due = desk.holding.index().due(cx.view.now, PURGE_ITEMS_MAX);
        if due.is_empty() {
            return;
        }
        self.asked_at = Some(cx.now);
        let claims: Vec<PurgeClaim> =
            due.iter().map(|(version, tombstone)| claim(*version, tombstone)).collect();
        self.ask_order(PurgeScope::Others, claims, None, desk.config, cx);
    }

    fn ask_order<D: Disk>(
        &mut self,
        scope: PurgeScope,
        claims: Vec<PurgeClaim>,
        of: Option<OrderId>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let items = claims.iter().map(|claim| claim.item).collect();
        let (volume, epoch) = (config.volume, config.epoch);
        let request = ControlRequest::RequestPurge { volume, epoch, scope, claims };
        self.ask(Asked::Order { scope, items, of }, request, config, cx);
    }

    /// The point of no return, if every tombstone of the order still stands and no mutation of any of
    /// its keys is under way. An order that lost to an undelete is void.
    fn commit_order<D: Disk>(
        &mut self,
        mutations: &mut Mutations,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        let Some((order, items)) = self.in_hand.as_deref() else { return };
        // The record is the point of no return: no store would obey what too few voters signed.
        let is_signed = order.verify(&cx.view.signers).is_ok();
        let is_void = order.order.generation < cx.view.generation;
        let stands =
            is_signed && !is_void && items.iter().all(|item| still_stands(*item, order.order.scope, desk));
        if !stands {
            self.in_hand = None;
            return;
        }
        let keys: Vec<ObjectKey> =
            items.iter().filter_map(|item| desk.holding.index().version(item.version)?.key.clone()).collect();
        if !mutations.are_free(&keys) {
            return;
        }
        let Some((order, items)) = self.in_hand.take().map(|in_hand| *in_hand) else { return };
        let retained = self.retained_for(&order, &items, desk);
        let body = RecordBody::Purging(Purging { order, items, retained });
        self.record = mutations.append_own(body, keys, desk, cx);
    }

    /// The store that erases last: the one that the purge named when it began. If that one is lost
    /// for ever, the delete ends early, and this store stands in for it.
    fn retained_for<D: Disk>(
        &self,
        order: &SignedPurgeOrder,
        items: &[PurgeItem],
        desk: &Desk<'_, D>,
    ) -> StoreId {
        let named = match order.order.scope {
            PurgeScope::Others => None,
            PurgeScope::FirstCopy => items.first().and_then(|item| batch_of(*item, desk)),
        };
        let named = named.map(|batch| batch.retained).filter(|store| desk.config.ever_held.contains(store));
        named.unwrap_or(desk.me.store)
    }

    fn drive<D: Disk>(
        &mut self,
        order: OrderId,
        batch: &Batch,
        mutations: &mut Mutations,
        desk: &mut Desk<'_, D>,
        own: &mut Vec<OwnErase>,
        cx: &mut Context<'_, D>,
    ) {
        let drive = self.drives.entry(order).or_default();
        if drive.record.is_some_and(|lsn| mutations.is_pending(lsn)) {
            return;
        }
        let stores = desk.config.ever_held.clone();
        let kept = mutant!(R18, batch.retained, desk.me.store);
        let others: Vec<StoreId> = stores.iter().copied().filter(|store| *store != kept).collect();
        for store in &others {
            drive.tell(*store, (batch.record, &batch.order), batch, desk.config, own, cx);
        }
        let others_done = others.iter().all(|store| drive.has_all(*store, batch));
        if batch.others_erased.is_none() {
            if others_done {
                let versions = batch.items.iter().map(|item| item.version).collect();
                // A primary that heard little since its start must not date this before its order.
                let body = OthersErased { order, versions, at: cx.view.now.max(batch.order.order.at) };
                drive.record = mutations.append_own(RecordBody::OthersErased(body), Vec::new(), desk, cx);
            }
            return;
        }
        if self.first_copy(order, batch, desk, own, cx) && others_done {
            self.certify(order, batch, mutations, desk, cx);
        }
    }

    /// The retained store's turn; says whether it is done.
    fn first_copy<D: Disk>(
        &mut self,
        of: OrderId,
        batch: &Batch,
        desk: &Desk<'_, D>,
        own: &mut Vec<OwnErase>,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let is_lost = !desk.config.ever_held.contains(&batch.retained);
        let is_free = self.in_hand.is_none() && !self.is_asked(Some(of));
        let drive = self.drives.entry(of).or_default();
        if let Some((record, order)) = batch.first_copy.as_ref().filter(|_| !is_lost) {
            drive.tell(batch.retained, (*record, order), batch, desk.config, own, cx);
            return drive.has_all(batch.retained, batch);
        }
        let (Some(at), retention) = (batch.others_erased, desk.config.first_copy_retention) else {
            return false;
        };
        let over = is_lost || cx.view.now >= at + retention.into();
        if over && is_free && is_due(drive.asked_at, ASK_EVERY, cx.now) {
            drive.asked_at = Some(cx.now);
            let claim = |item: &PurgeItem| PurgeClaim { item: *item, deleted_at: at, window: retention };
            let claims = batch.items.iter().map(claim).collect();
            self.ask_order(PurgeScope::FirstCopy, claims, Some(of), desk.config, cx);
        }
        false
    }

    fn certify<D: Disk>(
        &mut self,
        of: OrderId,
        batch: &Batch,
        mutations: &mut Mutations,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        let is_asked = self.is_asked(Some(of));
        let drive = self.drives.entry(of).or_default();
        let certificates = std::mem::take(&mut drive.certificates);
        if !certificates.is_empty() {
            for certificate in certificates {
                let version = certificate.certificate.version;
                let body = RecordBody::Certified(Certified { version, certificate });
                drive.record = mutations.append_own(body, Vec::new(), desk, cx);
            }
        } else if !is_asked && is_due(drive.asked_at, ASK_EVERY, cx.now) {
            drive.asked_at = Some(cx.now);
            let evidence = batch.items.iter().filter_map(|item| drive.evidence(*item, batch, desk)).collect();
            let (volume, epoch) = (desk.config.volume, desk.config.epoch);
            let request = ControlRequest::Certify { volume, epoch, evidence };
            self.ask(Asked::Certificates { of }, request, desk.config, cx);
        }
    }

    /// How many copies of a version still hold its bytes, as far as this primary knows.
    pub fn copies_left(&self, object: &ObjectVersion, config: &VolumeConfig) -> u32 {
        let left = match object.state {
            VersionState::Live | VersionState::Deleted(_) => config.members.len(),
            VersionState::Certified { .. } => 0,
            VersionState::Purging { order, .. } | VersionState::OthersErased { order, .. } => {
                let receipted = self.drives.get(&order).map_or(0, |drive| {
                    drive.receipts.keys().filter(|(_, version)| *version == object.version()).count()
                });
                let floor = usize::from(matches!(object.state, VersionState::Purging { .. }));
                config.ever_held.len().saturating_sub(receipted).max(floor)
            }
        };
        u32::try_from(left).expect("a handful of stores")
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let told = self.drives.values().flat_map(|drive| drive.told.values().copied());
        let asked = self.drives.values().filter_map(|drive| drive.asked_at);
        let all = told.chain(asked).chain(self.questions.values().map(|question| question.at));
        all.max().map(|at| at + ASK_EVERY)
    }
}

impl Drive {
    fn has_all(&self, store: StoreId, batch: &Batch) -> bool {
        batch.items.iter().all(|item| self.has(store, item.version, batch))
    }

    fn has(&self, store: StoreId, version: VersionId, batch: &Batch) -> bool {
        let receipt = self.receipts.get(&(store, version));
        receipt.is_some_and(|signed| batch.order_for(store) == Some(signed.receipt.order))
    }

    /// Tells a store to erase what it has not receipted. A store that is no member any more has no
    /// record to obey: it is retired instead, and this waits for that.
    fn tell<D: Disk>(
        &mut self,
        store: StoreId,
        (purging, order): (Lsn, &SignedPurgeOrder),
        batch: &Batch,
        config: &VolumeConfig,
        own: &mut Vec<OwnErase>,
        cx: &mut Context<'_, D>,
    ) {
        let lacking = |item: &&PurgeItem| !self.has(store, item.version, batch);
        let items: Vec<PurgeItem> = batch.items.iter().filter(lacking).copied().collect();
        if items.is_empty() || !is_due(self.told.get(&store).copied(), ASK_EVERY, cx.now) {
            return;
        }
        self.told.insert(store, cx.now);
        if store == cx.identity.store {
            own.push(OwnErase { order: order.clone(), items });
        } else if let Some(node) = member_node(config, store) {
            cx.tell(config, node, PeerBody::Erase { order: order.clone(), items, purging });
        }
    }

    fn evidence<D: Disk>(&self, item: PurgeItem, batch: &Batch, desk: &Desk<'_, D>) -> Option<PurgeEvidence> {
        let object = desk.holding.index().version(item.version)?;
        let VersionState::OthersErased { tombstone, .. } = object.state else { return None };
        let first = batch.first_copy.as_ref().map(|(_, order)| order.order.id);
        let receipts = self.receipts.iter().filter(|((store, version), _)| {
            self.has(*store, *version, batch)
                && *version == item.version
                && desk.config.ever_held.contains(store)
        });
        Some(PurgeEvidence {
            version: item.version,
            tombstone: item.tombstone,
            root: object.root,
            sealed_length: object.sealed_length,
            requested_by: tombstone.by,
            requested_at: tombstone.since,
            window: tombstone.window,
            orders: [batch.order.order.id].into_iter().chain(first).collect(),
            receipts: receipts.map(|(_, receipt)| receipt.clone()).collect(),
        })
    }
}

fn claim(version: VersionId, tombstone: &Tombstone) -> PurgeClaim {
    PurgeClaim {
        item: PurgeItem { version, tombstone: tombstone.lsn },
        deleted_at: tombstone.since,
        window: tombstone.window,
    }
}

fn member_node(config: &VolumeConfig, store: StoreId) -> Option<NodeId> {
    config.member_of_store(store).map(|member| member.node)
}

fn is_open<D: Disk>(batch: &Batch, desk: &Desk<'_, D>) -> bool {
    let state = |item: &PurgeItem| desk.holding.index().version(item.version).map(|object| object.state);
    let open = |item: &PurgeItem| {
        let state = state(item);
        let under_way =
            matches!(state, Some(VersionState::Purging { .. } | VersionState::OthersErased { .. }));
        mutant!(M13, under_way, under_way || state == Some(VersionState::Live))
    };
    batch.items.iter().any(open)
}

fn still_stands<D: Disk>(item: PurgeItem, scope: PurgeScope, desk: &Desk<'_, D>) -> bool {
    let state = desk.holding.index().version(item.version).map(|object| object.state);
    match (scope, state) {
        (PurgeScope::Others, Some(VersionState::Deleted(tombstone))) => {
            mutant!(M13, tombstone.lsn == item.tombstone, true)
        }
        (PurgeScope::Others, Some(VersionState::Live)) => mutant!(M13, false, true),
        (PurgeScope::FirstCopy, Some(VersionState::OthersErased { tombstone, first_copy_order, .. })) => {
            let is_lost = batch_of(item, desk).is_some_and(|b| !desk.config.ever_held.contains(&b.retained));
            tombstone.lsn == item.tombstone && (first_copy_order.is_none() || is_lost)
        }
        _ => false,
    }
}

fn batch_of<'d, D: Disk>(item: PurgeItem, desk: &'d Desk<'_, D>) -> Option<&'d Batch> {
    match desk.holding.index().version(item.version)?.state {
        VersionState::Purging { order, .. } | VersionState::OthersErased { order, .. } => {
            desk.holding.batches().of_order(order)
        }
        _ => None,
    }
}
