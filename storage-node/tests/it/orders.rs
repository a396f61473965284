//! The fake placement's papers: purge orders for windows that are over, and certificates for
//! complete evidence.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::config::{NodeEntry, VolumeConfig};
use trefoil_protocol::deletion::{
    DeletionCertificate, PurgeItem, PurgeOrder, PurgeScope, SignedCertificate, SignedPurgeOrder,
    StoreKeyStatement, items_root,
};
use trefoil_protocol::ids::{Hash, NodeId, OrderId, StoreId};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, PurgeClaim, PurgeEvidence};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::CpTime;

#[derive(Default)]
pub(crate) struct Orders {
    given: BTreeMap<(Hash, PurgeScope), SignedPurgeOrder>,
    /// Refuses every order: the test holds purges back.
    pub(crate) held: bool,
}

impl Orders {
    pub(crate) fn order(
        &mut self,
        config: &VolumeConfig,
        scope: PurgeScope,
        claims: &[PurgeClaim],
        now: CpTime,
        signatory: &Signatory,
    ) -> ControlAnswer {
        let over = |claim: &&PurgeClaim| now >= claim.deleted_at + claim.window.into();
        if self.held || claims.iter().filter(over).count() != claims.len() {
            return ControlAnswer::Refused(ControlRefusal::NotYet);
        }
        let items: Vec<PurgeItem> = claims.iter().map(|claim| claim.item).collect();
        let root = items_root(&items);
        let id = OrderId(self.given.len() as u64 + 1);
        let order = PurgeOrder {
            id,
            tenant: config.tenant,
            volume: config.volume,
            epoch: config.epoch,
            count: u32::try_from(items.len()).expect("small"),
            items: root,
            at: now,
            generation: 1,
            scope,
        };
        let given = self.given.entry((root, scope));
        ControlAnswer::Order(given.or_insert_with(|| SignedPurgeOrder::new(order, signatory)).clone())
    }

    pub(crate) fn certify(
        &mut self,
        config: &VolumeConfig,
        nodes: &BTreeMap<NodeId, NodeEntry>,
        evidence: &[PurgeEvidence],
        signatory: &Signatory,
    ) -> ControlAnswer {
        let mut certificates = Vec::new();
        for item in evidence {
            let from: BTreeSet<StoreId> = item.receipts.iter().map(|r| r.receipt.store).collect();
            let wanted: BTreeSet<StoreId> = config.ever_held.iter().copied().collect();
            if from != wanted {
                return ControlAnswer::Refused(ControlRefusal::NotYet);
            }
            let statement = |node: &NodeEntry| StoreKeyStatement {
                store: node.store,
                node: node.node,
                dc: node.dc,
                key: node.store_key,
            };
            let certificate = DeletionCertificate {
                format: 1,
                cluster: "test".into(),
                tenant: config.tenant,
                volume: config.volume,
                version: item.version,
                root: item.root,
                size_class: item.sealed_length.next_power_of_two(),
                requested_by: item.requested_by,
                requested_at: item.requested_at,
                window: item.window,
                tombstone: item.tombstone,
                orders: item.orders.clone(),
                receipts: item.receipts.clone(),
                stores: nodes.values().filter(|n| wanted.contains(&n.store)).map(statement).collect(),
                exceptions: Vec::new(),
                issued_at: CpTime(0),
                software: "test".into(),
                signers: 1,
            };
            certificates.push(SignedCertificate::new(certificate, signatory));
        }
        ControlAnswer::Certificates(certificates)
    }
}
