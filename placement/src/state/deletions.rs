//! The deletion ledger: which purges were permitted and which versions are proven gone. It holds no
//! names, only versions, tombstones and hashes of ciphertext lists.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::deletion::{PurgeOrder, PurgeScope};
use trefoil_protocol::ids::{Hash, Lsn, OrderId, TenantId, VersionId, VolumeId};
use trefoil_protocol::time::CpTime;

use super::command::{CertifyDraft, OrderDraft, Outcome};

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
}

impl Deletions {
    /// An order of `volume`.
    pub fn order(&self, volume: VolumeId, order: OrderId) -> Option<&PurgeOrder> {
        self.volumes.get(&volume)?.orders.get(&order)
    }

    /// The order for exactly these items, if one was issued.
    pub fn order_for(&self, volume: VolumeId, scope: PurgeScope, items: Hash) -> Option<&PurgeOrder> {
        let ledger = self.volumes.get(&volume)?;
        ledger.orders.get(ledger.by_items.get(&(scope, items))?)
    }

    /// The time of the first order of `scope` for `volume`.
    pub fn first_order(&self, volume: VolumeId, scope: PurgeScope) -> Option<CpTime> {
        let ledger = self.volumes.get(&volume)?;
        ledger.orders.values().find(|order| order.scope == scope).map(|order| order.at)
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
        if let Some(known) = ledger.by_items.get(&(draft.scope, draft.items)) {
            return Outcome::Order(ledger.orders[known].clone());
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
