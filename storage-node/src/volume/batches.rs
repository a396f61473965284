//! The purges of a volume by their orders: which record began each one, which papers permit it, when
//! the others were done. A function of the committed log, beside the engine's index, which knows
//! versions but not papers.

use std::collections::BTreeMap;

use trefoil_protocol::deletion::{PurgeItem, PurgeScope, SignedPurgeOrder};
use trefoil_protocol::ids::{Lsn, OrderId, StoreId, VersionId};
use trefoil_protocol::record::{Record, RecordBody};
use trefoil_protocol::time::CpTime;

/// One purge, from its point of no return on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The `Purging` record.
    pub record: Lsn,
    /// The permission for the others.
    pub order: SignedPurgeOrder,
    /// Exactly the order's items.
    pub items: Vec<PurgeItem>,
    /// The store that erases last, as the latest record names it.
    pub retained: StoreId,
    /// When all others were done.
    pub others_erased: Option<CpTime>,
    /// The permission for the retained store, and the record that holds it.
    pub first_copy: Option<(Lsn, SignedPurgeOrder)>,
    certified: usize,
}

impl Batch {
    /// The order that a store's receipts must name.
    pub fn order_for(&self, store: StoreId) -> Option<OrderId> {
        match &self.first_copy {
            _ if store != self.retained => Some(self.order.order.id),
            Some((_, order)) => Some(order.order.id),
            None => None,
        }
    }
}

/// The purges of a volume that are not over, by the order for the others.
#[derive(Clone, Debug, Default)]
pub struct Batches(BTreeMap<OrderId, Batch>);

impl Batches {
    /// Takes in a committed record.
    pub fn apply(&mut self, record: &Record) {
        match record.body() {
            RecordBody::Purging(purging) => match purging.order.order.scope {
                PurgeScope::Others => {
                    let batch = Batch {
                        record: record.lsn(),
                        order: purging.order.clone(),
                        items: purging.items.clone(),
                        retained: purging.retained,
                        others_erased: None,
                        first_copy: None,
                        certified: 0,
                    };
                    self.0.entry(purging.order.order.id).or_insert(batch);
                }
                PurgeScope::FirstCopy => {
                    let same = |batch: &&mut Batch| batch.items == purging.items;
                    if let Some(batch) = self.0.values_mut().find(same) {
                        // The store that was to erase last may be lost for ever: then the record
                        // names another one.
                        batch.retained = purging.retained;
                        batch.first_copy = Some((record.lsn(), purging.order.clone()));
                    }
                }
            },
            RecordBody::OthersErased(others) => {
                if let Some(batch) = self.0.get_mut(&others.order) {
                    batch.others_erased = Some(others.at);
                }
            }
            RecordBody::Certified(certified) => self.certify(certified.version),
            _ => {}
        }
    }

    /// A purge whose items are all certified is over.
    fn certify(&mut self, version: VersionId) {
        let of = |batch: &Batch| batch.items.iter().any(|item| item.version == version);
        let Some(order) = self.0.iter().find(|(_, batch)| of(batch)).map(|(order, _)| *order) else { return };
        if let Some(batch) = self.0.get_mut(&order) {
            batch.certified += 1;
            if batch.certified >= batch.items.len() {
                self.0.remove(&order);
            }
        }
    }

    /// The purge that this order for the others began.
    pub fn of_order(&self, order: OrderId) -> Option<&Batch> {
        self.0.get(&order)
    }

    /// The purge that this order permits, for the others or for the first copy.
    pub fn permitted_by(&self, order: OrderId) -> Option<&Batch> {
        let first = |batch: &&Batch| batch.first_copy.as_ref().is_some_and(|(_, o)| o.order.id == order);
        self.0.get(&order).or_else(|| self.0.values().find(first))
    }

    /// All of them, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (OrderId, &Batch)> {
        self.0.iter().map(|(order, batch)| (*order, batch))
    }
}
