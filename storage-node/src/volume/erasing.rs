//! This store obeys a purge: it erases what a signed order and a committed record of its *own* log
//! both condemn, and signs a receipt when the erase is durable.
//!
//! It erases on nobody's word alone, and never because something is absent elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::erase::{EraseError, EraseReport};
use trefoil_engine::index::VersionState;
use trefoil_engine::{Disk, EraseTarget};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::deletion::{
    EraseReceipt, PurgeItem, PurgeScope, SignedEraseReceipt, SignedPurgeOrder, SignersError, items_root,
};
use trefoil_protocol::ids::{Lsn, OrderId, StoreId};
use trefoil_protocol::mutant;
use trefoil_protocol::time::BootTime;

use super::batches::Batch;
use super::holding::Holding;
use crate::effect::Effect;
use crate::outbox::Context;

/// An erase that left bytes which may belong to a damaged record is tried again after this long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Why an order is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// Not signed by the control plane, or changed since.
    #[error(transparent)]
    Signature(#[from] SignersError),
    /// For another tenant or volume, or of an epoch that this store does not know yet.
    #[error("the order is about another volume or epoch")]
    Foreign,
    /// From before the control plane was restored.
    #[error("the order is of generation {got}, now is {now}")]
    Generation {
        /// The order's.
        got: u64,
        /// The present one.
        now: u64,
    },
    /// No record of the log here begins a purge under this order (yet).
    #[error("no committed record here condemns anything under order {0}")]
    NotInLog(OrderId),
    /// It permits other stores to erase, not this one.
    #[error("the order does not permit this store to erase")]
    Scope,
    /// The items are not those that the order covers.
    #[error("the items are not those of the order")]
    Items,
}

/// The erases of one volume on this store.
#[derive(Debug, Default)]
pub struct Erasing {
    /// What was ordered and is not receipted yet.
    ordered: BTreeMap<PurgeItem, OrderId>,
    running: bool,
    /// After an erase that could not be complete, the next try.
    not_before: BootTime,
    refused: u64,
}

impl Erasing {
    /// How many orders were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// An order arrived: checks it and begins what it permits.
    pub fn order<D: Disk>(
        &mut self,
        order: &SignedPurgeOrder,
        items: &[PurgeItem],
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<(), OrderRefused> {
        let permitted = permit(order, items, holding, config, cx);
        let permitted = permitted.inspect_err(|_| self.refused += 1)?;
        let targets: Vec<EraseTarget> = permitted
            .iter()
            .map(|item| EraseTarget::Version(mutant!(M14, item.version, newest(item, holding))))
            .collect();
        if let Err(error) = holding.volume_mut().log.begin_erase(&targets) {
            cx.out.fail_store(error);
        }
        for item in permitted {
            holding.forget(item.version);
            self.ordered.insert(item, order.order.id);
        }
        Ok(())
    }

    /// An erase job ended.
    pub fn erased<D: Disk>(
        &mut self,
        result: &Result<EraseReport, EraseError>,
        holding: &mut Holding<D>,
        cx: &mut Context<'_, D>,
    ) {
        self.running = false;
        match result {
            // Bytes that may belong to a damaged record are left: no receipt while that is so.
            Ok(report) if report.unknown_bytes > 0 => self.not_before = cx.now + TRY_AGAIN_AFTER,
            Ok(report) => {
                if let Err(error) = holding.erased(report) {
                    cx.out.fail_store(error);
                }
            }
            Err(error) => cx.out.fail_store(error),
        }
    }

    /// When to look again.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>) -> Option<BootTime> {
        let waits = !self.running && holding.log().unfinished_erases().next().is_some();
        (waits && self.not_before > BootTime(0)).then_some(self.not_before)
    }

    /// Runs what has begun, and answers receipts for what is durably gone.
    pub fn settle<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Vec<SignedEraseReceipt> {
        if !self.running && cx.now >= self.not_before {
            match holding.log().erase_job() {
                Ok(Some(job)) => {
                    self.running = true;
                    cx.out.push(Effect::Erase { volume: config.volume, job });
                }
                Ok(None) => {}
                Err(error) => cx.out.fail_store(error),
            }
        }
        let gone = |item: &PurgeItem| holding.is_gone(item.version);
        let done: Vec<(PurgeItem, OrderId)> =
            self.ordered.iter().filter(|(item, _)| gone(item)).map(|(item, order)| (*item, *order)).collect();
        done.into_iter()
            .map(|(item, order)| {
                self.ordered.remove(&item);
                receipt(item, order, holding, config, cx)
            })
            .collect()
    }
}

fn receipt<D: Disk>(
    item: PurgeItem,
    order: OrderId,
    holding: &Holding<D>,
    config: &VolumeConfig,
    cx: &Context<'_, D>,
) -> SignedEraseReceipt {
    let object = holding.index().version(item.version);
    let receipt = EraseReceipt {
        order,
        tenant: config.tenant,
        volume: config.volume,
        version: item.version,
        tombstone: item.tombstone,
        store: cx.identity.store,
        bytes: object.map_or(0, |object| object.sealed_length),
        at: cx.view.now,
        bag_generation: holding.bag_generation(),
    };
    let signature = cx.identity.signatory.sign(&receipt);
    SignedEraseReceipt { receipt, signature }
}

/// What the bug erases: whatever was put last under the key.
#[cfg(feature = "mutants")]
fn newest<D: Disk>(item: &PurgeItem, holding: &Holding<D>) -> trefoil_protocol::ids::VersionId {
    let named = holding.index().version(item.version);
    let last = named.and_then(|object| holding.index().by_tag(object.name_tag).last());
    last.map_or(item.version, |object| object.version())
}

/// Which of the items this store may erase: all of them, or the order is refused.
fn permit<D: Disk>(
    order: &SignedPurgeOrder,
    items: &[PurgeItem],
    holding: &Holding<D>,
    config: &VolumeConfig,
    cx: &Context<'_, D>,
) -> Result<Vec<PurgeItem>, OrderRefused> {
    let paper = &order.order;
    order.verify(&cx.view.signers)?;
    if (paper.tenant, paper.volume) != (config.tenant, config.volume) || paper.epoch > config.epoch {
        return Err(OrderRefused::Foreign);
    }
    let now = cx.view.generation;
    let batch = holding.batches().permitted_by(paper.id);
    // What the log has begun goes on, also under the very order from before a restore that it has.
    let first_copy = batch.and_then(|batch| batch.first_copy.as_ref()).map(|(_, order)| order);
    let mut begun = batch.map(|batch| &batch.order).into_iter().chain(first_copy);
    if paper.generation < now && !begun.any(|known| known.order == *paper) {
        return Err(OrderRefused::Generation { got: paper.generation, now });
    }
    let batch = batch.ok_or(OrderRefused::NotInLog(paper.id))?;
    if items_root(&batch.items) != paper.items || !items.iter().all(|item| batch.items.contains(item)) {
        return Err(OrderRefused::Items);
    }
    if !is_for(paper.scope, batch, cx.identity.store) {
        return Err(OrderRefused::Scope);
    }
    let condemned = |item: &PurgeItem| is_condemned(*item, paper.scope, holding);
    if !mutant!(M13, items.iter().all(condemned), true) {
        return Err(OrderRefused::Items);
    }
    Ok(items.to_vec())
}

fn is_for(scope: PurgeScope, batch: &Batch, me: StoreId) -> bool {
    match scope {
        PurgeScope::Others => mutant!(R18, batch.retained != me, true),
        PurgeScope::FirstCopy => batch.retained == me && batch.others_erased.is_some(),
    }
}

/// Whether the committed log here condemns exactly this version by exactly this tombstone.
fn is_condemned<D: Disk>(item: PurgeItem, scope: PurgeScope, holding: &Holding<D>) -> bool {
    let state = holding.index().version(item.version).map(|object| object.state);
    let by = |tombstone: Lsn| tombstone == item.tombstone;
    match (scope, state) {
        (_, Some(VersionState::Certified { .. })) => true,
        (PurgeScope::Others, Some(VersionState::Purging { tombstone, .. }))
        | (_, Some(VersionState::OthersErased { tombstone, .. })) => by(tombstone.lsn),
        _ => false,
    }
}
