//! The deletion ledger: which purges were permitted and which versions are proven gone. It holds no
//! names, only versions, tombstones and hashes of ciphertext lists.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::deletion::{PurgeOrder, PurgeScope};
use trefoil_protocol::ids::{Hash, Lsn, OrderId, TenantId, VersionId, VolumeId};
use trefoil_protocol::time::CpTime;

use super::command::{CertifyDraft, OrderDraft, Outcome};
use super::search::first_of;

/// A version that is gone everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LedgerEntry {
    /// The tombstone that condemned it.
    #[n(0)]
    pub tombstone: Lsn,
    /// When it was certified first.
    #[n(1)]
    pub issued_at: CpTime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct VolumeLedger {
    #[n(0)]
    orders: BTreeMap<OrderId, PurgeOrder>,
    #[n(1)]
    by_items: BTreeMap<(PurgeScope, Hash), OrderId>,
    #[n(2)]
    certified: BTreeMap<VersionId, LedgerEntry>,
}

/// Orders and certified versions by volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Deletions {
    #[n(0)]
    volumes: BTreeMap<VolumeId, VolumeLedger>,
    #[n(1)]
    last_order: OrderId,
    #[n(2)]
    certified: u64,
    /// Orders from before a restore that are in a volume's log.
    #[n(3)]
    recognised: BTreeSet<OrderId>,
    /// The restore generation.
    #[n(4)]
    generation: u64,
}

impl Deletions {
    /// An order of `volume`.
    pub fn order(&self, volume: VolumeId, order: OrderId) -> Option<&PurgeOrder> {
        self.volumes.get(&volume)?.orders.get(&order)
    }

    /// The order for exactly these items, if one was issued.
    pub fn order_for(&self, volume: VolumeId, scope: PurgeScope, items: Hash) -> Option<&PurgeOrder> {
        let ledger = self.volumes.get(&volume)?;
        let order = ledger.orders.get(ledger.by_items.get(&(scope, items))?);
        order.filter(|order| self.holds(order))
    }

    /// Whether an order is one to be obeyed: of this generation, or from before a restore and in a
    /// volume's log since.
    pub fn holds(&self, order: &PurgeOrder) -> bool {
        order.generation >= self.generation || self.recognised.contains(&order.id)
    }

    /// After a restore: orders that nobody has in a log are void, and no number is given twice.
    pub(super) fn begin_generation(&mut self, generation: u64) {
        self.generation = generation;
        self.last_order = self.last_order.max(OrderId(first_of(generation)));
    }

    /// An order from before the restore that is in a volume's log: what it began goes on.
    pub(super) fn recognise(&mut self, order: &PurgeOrder) {
        if order.generation < self.generation {
            let ledger = self.volumes.entry(order.volume).or_default();
            ledger.by_items.insert((order.scope, order.items), order.id);
            ledger.orders.insert(order.id, order.clone());
            self.recognised.insert(order.id);
        }
    }

    /// The earliest time of an order of `scope` for `volume`. Orders stand by their numbers; after a restore the
    /// times of earlier ones may be later ones.
    pub fn first_order(&self, volume: VolumeId, scope: PurgeScope) -> Option<CpTime> {
        let ledger = self.volumes.get(&volume)?;
        ledger.orders.values().filter(|order| order.scope == scope).map(|order| order.at).min()
    }

    /// What the ledger says of a version.
    pub fn certified(&self, volume: VolumeId, version: VersionId) -> Option<&LedgerEntry> {
        self.volumes.get(&volume)?.certified.get(&version)
    }

    /// How many versions are proven gone.
    pub fn certified_count(&self) -> u64 {
        self.certified
    }

    pub(super) fn issue(&mut self, tenant: TenantId, generation: u64, draft: &OrderDraft) -> Outcome {
        let ledger = self.volumes.entry(draft.volume).or_default();
        let known = ledger.by_items.get(&(draft.scope, draft.items)).map(|id| &ledger.orders[id]);
        let holds =
            |order: &&PurgeOrder| order.generation >= self.generation || self.recognised.contains(&order.id);
        if let Some(known) = known.filter(holds) {
            return Outcome::Order(known.clone());
        }
        self.last_order = OrderId(self.last_order.0 + 1);
        let order = PurgeOrder {
            id: self.last_order,
            tenant,
            volume: draft.volume,
            epoch: draft.epoch,
            count: draft.count,
            items: draft.items,
            at: draft.judged,
            generation,
            scope: draft.scope,
        };
        ledger.by_items.insert((draft.scope, draft.items), order.id);
        ledger.orders.insert(order.id, order.clone());
        Outcome::Order(order)
    }

    pub(super) fn certify(&mut self, now: CpTime, draft: &CertifyDraft) -> Outcome {
        let ledger = self.volumes.entry(draft.volume).or_default();
        let mut times = Vec::with_capacity(draft.versions.len());
        for (version, tombstone) in &draft.versions {
            let entry = ledger.certified.entry(*version).or_insert_with(|| {
                self.certified += 1;
                LedgerEntry { tombstone: *tombstone, issued_at: now }
            });
            times.push(entry.issued_at);
        }
        Outcome::Certified(times)
    }
}
