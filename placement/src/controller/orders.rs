//! What may be purged and what is proven gone. An order is a permission that re-checks every window
//! on the control plane's own clock; a certificate needs a receipt, signed with the registered key,
//! of every store that may hold bytes of the volume.

use std::collections::BTreeMap;

use trefoil_protocol::deletion::{
    DeletionCertificate, PURGE_ITEMS_MAX, PurgeException, PurgeItem, PurgeScope, SignedEraseReceipt,
    items_root,
};
use trefoil_protocol::ids::{Epoch, StoreId, VolumeId};
use trefoil_protocol::message::control::{ControlRefusal, PurgeClaim, PurgeEvidence};
use trefoil_protocol::mutant;
use trefoil_protocol::time::CpTime;

use crate::state::{CertifyDraft, OrderDraft, State, StoreRecord, VolumeRecord};

fn denied<T>(reason: impl Into<String>) -> Result<T, ControlRefusal> {
    Err(ControlRefusal::Denied(reason.into()))
}

fn check_size(size: usize) -> Result<(), ControlRefusal> {
    if (1..=PURGE_ITEMS_MAX).contains(&size) {
        Ok(())
    } else {
        denied(format!("a batch has 1 to {PURGE_ITEMS_MAX} versions"))
    }
}

/// When a claim's window is over.
fn due(claim: &PurgeClaim) -> CpTime {
    claim.deleted_at + claim.window.into()
}

/// The order that `claims` deserve now: over those whose windows are over, exactly.
pub(crate) fn draft_order(
    state: &State,
    record: &VolumeRecord,
    scope: PurgeScope,
    claims: &[PurgeClaim],
) -> Result<OrderDraft, ControlRefusal> {
    check_size(claims.len())?;
    let config = &record.config;
    let window = match scope {
        PurgeScope::Others => config.window,
        PurgeScope::FirstCopy => config.first_copy_retention,
    };
    if claims.iter().any(|claim| claim.window < window) {
        return denied("a claimed window is shorter than the tenant's");
    }
    if scope == PurgeScope::FirstCopy {
        let first = state.deletions.first_order(config.volume, PurgeScope::Others);
        if first.is_none_or(|at| claims.iter().any(|claim| claim.deleted_at < at)) {
            return denied("the first copy goes last: the others were not ordered to be erased before");
        }
    }
    let now = state.clock.now();
    let items: Vec<PurgeItem> = claims.iter().filter(|c| due(c) <= now).map(|c| c.item).collect();
    let last_due = claims.iter().map(due).filter(|due| *due <= now).max();
    let Some(due) = last_due else { return Err(ControlRefusal::NotYet) };
    Ok(OrderDraft {
        volume: config.volume,
        epoch: config.epoch,
        scope,
        count: u32::try_from(items.len()).expect("below the batch's limit"),
        items: items_root(&items),
        due,
        judged: now,
    })
}

/// What may be entered into the ledger on this evidence.
pub(crate) fn draft_certificates(
    state: &State,
    record: &VolumeRecord,
    evidence: &[PurgeEvidence],
) -> Result<CertifyDraft, ControlRefusal> {
    check_size(evidence.len())?;
    if state.awaits_a_store() {
        return Err(ControlRefusal::NotYet);
    }
    for version in evidence {
        Proof { state, record, evidence: version }.check()?;
    }
    Ok(CertifyDraft {
        volume: record.config.volume,
        receipted: record.config.ever_held.clone(),
        versions: evidence.iter().map(|e| (e.version, e.tombstone)).collect(),
    })
}

/// One version's evidence under examination.
struct Proof<'a> {
    state: &'a State,
    record: &'a VolumeRecord,
    evidence: &'a PurgeEvidence,
}

impl Proof<'_> {
    fn check(&self) -> Result<(), ControlRefusal> {
        self.check_orders()?;
        let mut scopes: BTreeMap<StoreId, PurgeScope> = BTreeMap::new();
        for signed in &self.evidence.receipts {
            let scope = self.check_receipt(signed)?;
            if scopes.insert(signed.receipt.store, scope).is_some() {
                return denied(format!("two receipts of store {}", signed.receipt.store));
            }
        }
        let missing = |store: &StoreId| !scopes.contains_key(store);
        let missing = |store: &StoreId| mutant!(M15, missing(store), missing(store) && self.is_up(*store));
        if self.record.config.ever_held.iter().any(missing) {
            return Err(ControlRefusal::NotYet);
        }
        let first_copies = scopes.values().filter(|scope| **scope == PurgeScope::FirstCopy).count();
        // The retained store may have been lost for ever; then nobody erased a first copy.
        match first_copies {
            1 => Ok(()),
            0 if !self.record.fenced.is_empty() => Ok(()),
            count => denied(format!("{count} stores erased as the first copy, one is needed")),
        }
    }

    fn check_orders(&self) -> Result<(), ControlRefusal> {
        let window_ends = self.evidence.requested_at + self.evidence.window.into();
        for id in &self.evidence.orders {
            let Some(order) = self.state.deletions.order(self.record.config.volume, *id) else {
                return denied(format!("order {id} was never issued for this volume"));
            };
            if !self.state.deletions.holds(order) {
                return denied(format!("order {id} is void: it is from before a restore"));
            }
            if order.at < window_ends {
                return denied(format!("order {id} is older than the end of the window"));
            }
        }
        Ok(())
    }

    /// Checks one receipt and says under which kind of order it was given.
    fn check_receipt(&self, signed: &SignedEraseReceipt) -> Result<PurgeScope, ControlRefusal> {
        let (receipt, config) = (&signed.receipt, &self.record.config);
        let store = receipt.store;
        let Some(registered) = self.holder(store) else {
            return denied(format!("store {store} never held this volume"));
        };
        if let Err(error) = signed.signature.verify(receipt, |key| *key == registered.key) {
            return denied(format!("receipt of store {store}: {error}"));
        }
        let subject = (receipt.tenant, receipt.volume, receipt.version, receipt.tombstone);
        if subject != (config.tenant, config.volume, self.evidence.version, self.evidence.tombstone) {
            return denied(format!("the receipt of store {store} is about something else"));
        }
        if !self.evidence.orders.contains(&receipt.order) {
            return denied(format!("the receipt of store {store} names another order"));
        }
        let order = self.state.deletions.order(config.volume, receipt.order);
        Ok(order.expect("all orders of the evidence are known").scope)
    }

    #[cfg(feature = "mutants")]
    fn is_up(&self, store: StoreId) -> bool {
        let runner = self.state.topology.runner(store);
        runner.is_some_and(|entry| entry.state == trefoil_protocol::config::NodeState::Up)
    }

    fn holder(&self, store: StoreId) -> Option<&StoreRecord> {
        let held = self.record.config.ever_held.contains(&store);
        self.state.topology.store(store).filter(|_| held)
    }
}

/// The certificate of a version in the ledger, before anybody signs it.
pub(crate) fn certificate(
    state: &State,
    volume: VolumeId,
    evidence: PurgeEvidence,
    issued_at: CpTime,
) -> DeletionCertificate {
    let record = state.volumes.get(volume).expect("the ledger has entries of known volumes only");
    let holders = record.config.ever_held.iter().chain(&record.fenced);
    let statement = |store: &StoreId| state.topology.store(*store).map(|known| known.statement(*store));
    let exception = |store: &StoreId| PurgeException { store: *store, reason: "fenced".to_owned() };
    DeletionCertificate {
        format: 1,
        cluster: state.cluster.clone(),
        tenant: record.config.tenant,
        volume,
        version: evidence.version,
        root: evidence.root,
        size_class: evidence.sealed_length.max(1).checked_next_power_of_two().unwrap_or(u64::MAX),
        requested_by: evidence.requested_by,
        requested_at: evidence.requested_at,
        window: evidence.window,
        tombstone: evidence.tombstone,
        orders: evidence.orders,
        stores: holders.filter_map(statement).collect(),
        receipts: evidence.receipts,
        exceptions: record.fenced.iter().map(exception).collect(),
        issued_at,
        software: concat!("trefoil ", env!("CARGO_PKG_VERSION")).to_owned(),
        signers: state.voters.signers().needed_at(issued_at),
    }
}

/// Whether `epoch` is the volume's.
pub(crate) fn check_epoch(record: &VolumeRecord, epoch: Epoch) -> Result<(), ControlRefusal> {
    if record.config.epoch == epoch { Ok(()) } else { Err(ControlRefusal::StaleEpoch(record.config.epoch)) }
}
