//! Purge orders and deletion certificates.

use trefoil_protocol::deletion::{
    EraseReceipt, PurgeItem, PurgeScope, SignedCertificate, SignedEraseReceipt, SignedPurgeOrder, SignerTerm,
    Signers, items_root,
};
use trefoil_protocol::ids::{Hash, Lsn, OrderId, PrincipalId, StoreId, TenantId, VersionId, VolumeId};
use trefoil_protocol::message::admin::AdminRequest;
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, PurgeClaim, PurgeEvidence,
};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::{CpTime, Millis};

use crate::cluster::{Cluster, RETENTION, WINDOW, node, signatory, store};

const VOLUME: VolumeId = VolumeId(1);

fn item(n: u8) -> PurgeItem {
    PurgeItem { version: VersionId([n; 16]), tombstone: Lsn(u64::from(n)) }
}

fn claim(n: u8, deleted_at: CpTime, window: Millis) -> PurgeClaim {
    PurgeClaim { item: item(n), deleted_at, window }
}

fn request(cluster: &mut Cluster, scope: PurgeScope, claims: Vec<PurgeClaim>) -> ControlAnswer {
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::RequestPurge { volume: VOLUME, epoch, scope, claims })
}

fn order(answer: ControlAnswer) -> SignedPurgeOrder {
    match answer {
        ControlAnswer::Order(order) => order,
        other => panic!("{other:?}"),
    }
}

fn trusted() -> Signers {
    Signers { terms: vec![SignerTerm::founding(Signatory::from_secret(&[2; 32]).public())] }
}

fn now(cluster: &Cluster) -> CpTime {
    cluster.state().clock.now()
}

fn denied(answer: &ControlAnswer) -> bool {
    matches!(answer, ControlAnswer::Refused(ControlRefusal::Denied(_)))
}

/// A version deleted at the beginning, both its orders issued, and what its certificate needs.
struct Purge {
    cluster: Cluster,
    deleted_at: CpTime,
    others: OrderId,
    first_copy: OrderId,
}

impl Purge {
    fn new() -> Self {
        let mut cluster = Cluster::with_volume();
        let deleted_at = now(&cluster);
        cluster.run(WINDOW.0 + 1_000);
        let others = order(request(&mut cluster, PurgeScope::Others, vec![claim(1, deleted_at, WINDOW)]));
        cluster.run(1_000);
        let erased_at = now(&cluster);
        cluster.run(RETENTION.0 + 1_000);
        let claims = vec![claim(1, erased_at, RETENTION)];
        let first_copy = order(request(&mut cluster, PurgeScope::FirstCopy, claims));
        Self { cluster, deleted_at, others: others.order.id, first_copy: first_copy.order.id }
    }

    fn receipt(&self, holder: StoreId, order: OrderId) -> EraseReceipt {
        EraseReceipt {
            order,
            tenant: TenantId(1),
            volume: VOLUME,
            version: item(1).version,
            tombstone: item(1).tombstone,
            store: holder,
            bytes: 100,
            at: now(&self.cluster),
            bag_generation: 2,
        }
    }

    fn signed(receipt: EraseReceipt) -> SignedEraseReceipt {
        let signature = signatory(receipt.store).sign(&receipt);
        SignedEraseReceipt { receipt, signature }
    }

    fn receipts(&self) -> Vec<SignedEraseReceipt> {
        let config = self.cluster.config();
        let retained = config.primary_member().unwrap().store;
        let order = |holder: StoreId| if holder == retained { self.first_copy } else { self.others };
        config.ever_held.iter().map(|holder| Self::signed(self.receipt(*holder, order(*holder)))).collect()
    }

    fn evidence(&self, receipts: Vec<SignedEraseReceipt>) -> PurgeEvidence {
        PurgeEvidence {
            version: item(1).version,
            tombstone: item(1).tombstone,
            root: Hash([8; 32]),
            sealed_length: 100,
            requested_by: PrincipalId(1),
            requested_at: self.deleted_at,
            window: WINDOW,
            orders: vec![self.others, self.first_copy],
            receipts,
        }
    }

    fn certify(&mut self, evidence: PurgeEvidence) -> ControlAnswer {
        let epoch = self.cluster.config().epoch;
        self.cluster.report(ControlRequest::Certify { volume: VOLUME, epoch, evidence: vec![evidence] })
    }
}

fn certificate(answer: ControlAnswer) -> SignedCertificate {
    match answer {
        ControlAnswer::Certificates(mut all) if all.len() == 1 => all.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r055_an_order_is_signed_once_the_window_is_over_and_not_before() {
    let mut cluster = Cluster::with_volume();
    let deleted_at = now(&cluster);
    let claims = vec![claim(1, deleted_at, WINDOW)];
    let not_yet = ControlAnswer::Refused(ControlRefusal::NotYet);
    assert_eq!(request(&mut cluster, PurgeScope::Others, claims.clone()), not_yet);
    cluster.run(WINDOW.0 - 1_000);
    assert_eq!(request(&mut cluster, PurgeScope::Others, claims.clone()), not_yet);
    cluster.run(2_000);
    let signed = order(request(&mut cluster, PurgeScope::Others, claims));
    signed.verify(&trusted()).unwrap();
    let order = &signed.order;
    assert_eq!((order.tenant, order.volume, order.count), (TenantId(1), VOLUME, 1));
    assert_eq!(order.epoch, cluster.config().epoch);
    assert_eq!(order.items, items_root(&[item(1)]));
    assert!(order.at >= deleted_at + WINDOW.into());
}

#[test]
fn r055_the_same_items_get_the_same_order_also_after_a_restart() {
    let mut cluster = Cluster::with_volume();
    let deleted_at = now(&cluster);
    cluster.run(WINDOW.0 + 1_000);
    let claims = vec![claim(1, deleted_at, WINDOW), claim(2, deleted_at, WINDOW)];
    let first = order(request(&mut cluster, PurgeScope::Others, claims.clone()));
    cluster.restart_placement();
    cluster.run(2_000);
    let turned: Vec<PurgeClaim> = claims.iter().rev().copied().collect();
    assert_eq!(order(request(&mut cluster, PurgeScope::Others, turned)), first);
    let other = order(request(&mut cluster, PurgeScope::Others, claims[..1].to_vec()));
    assert_ne!(other.order.id, first.order.id);
}

#[test]
fn an_order_covers_exactly_the_claims_that_are_due() {
    let mut cluster = Cluster::with_volume();
    let deleted_at = now(&cluster);
    cluster.run(WINDOW.0 + 1_000);
    let claims = vec![claim(1, deleted_at, WINDOW), claim(2, now(&cluster), WINDOW)];
    let signed = order(request(&mut cluster, PurgeScope::Others, claims.clone()));
    let due: Vec<PurgeItem> = claims
        .iter()
        .filter(|claim| claim.deleted_at + claim.window.into() <= signed.order.at)
        .map(|claim| claim.item)
        .collect();
    assert_eq!(due, [item(1)]);
    assert_eq!((signed.order.items, signed.order.count), (items_root(&due), 1));
}

#[test]
fn a_claim_cannot_shorten_the_tenants_window() {
    let mut cluster = Cluster::with_volume();
    let deleted_at = now(&cluster);
    cluster.run(WINDOW.0 + 1_000);
    let short = vec![claim(1, deleted_at, Millis(WINDOW.0 - 1))];
    assert!(denied(&request(&mut cluster, PurgeScope::Others, short)));
    assert!(denied(&request(&mut cluster, PurgeScope::Others, Vec::new())));
}

#[test]
fn only_the_primary_of_the_epoch_is_given_an_order() {
    let mut cluster = Cluster::with_volume();
    let claims = vec![claim(1, now(&cluster), WINDOW)];
    let epoch = cluster.config().epoch;
    let asker = node(&cluster.neighbour());
    let asked = ControlRequest::RequestPurge { volume: VOLUME, epoch, scope: PurgeScope::Others, claims };
    let stale = ControlAnswer::Refused(ControlRefusal::StaleEpoch(epoch));
    assert_eq!(cluster.ask(asker, asked), stale);
}

#[test]
fn the_first_copy_goes_last_and_after_its_retention() {
    let mut cluster = Cluster::with_volume();
    let deleted_at = now(&cluster);
    cluster.run(WINDOW.0 + 1_000);
    let first = vec![claim(1, deleted_at, RETENTION)];
    assert!(denied(&request(&mut cluster, PurgeScope::FirstCopy, first.clone())), "no order for the others");
    order(request(&mut cluster, PurgeScope::Others, vec![claim(1, deleted_at, WINDOW)]));
    assert!(denied(&request(&mut cluster, PurgeScope::FirstCopy, first)), "erased before it was ordered");
    let erased_at = now(&cluster);
    let claims = vec![claim(1, erased_at, RETENTION)];
    let not_yet = ControlAnswer::Refused(ControlRefusal::NotYet);
    assert_eq!(request(&mut cluster, PurgeScope::FirstCopy, claims.clone()), not_yet);
    cluster.run(RETENTION.0 + 1_000);
    assert_eq!(
        order(request(&mut cluster, PurgeScope::FirstCopy, claims)).order.scope,
        PurgeScope::FirstCopy
    );
}

#[test]
fn r067_a_certificate_has_a_receipt_of_every_store_and_verifies_offline() {
    let mut purge = Purge::new();
    let evidence = purge.evidence(purge.receipts());
    let signed = certificate(purge.certify(evidence.clone()));
    signed.verify(&trusted()).unwrap();
    assert_eq!(signed.certificate.receipts.len(), 3);
    assert_eq!(signed.certificate.size_class, 128);
    assert_eq!(purge.cluster.state().deletions.certified_count(), 1);
    let issued_at = signed.certificate.issued_at;
    purge.cluster.restart_placement();
    purge.cluster.run(2_000);
    let again = certificate(purge.certify(evidence));
    assert_eq!(again.certificate.issued_at, issued_at, "certified once, whatever is repeated");
    assert_eq!(purge.cluster.state().deletions.certified_count(), 1);
}

#[test]
fn r067_a_missing_receipt_means_not_yet() {
    let mut purge = Purge::new();
    for missing in 0..3 {
        let mut receipts = purge.receipts();
        receipts.remove(missing);
        let evidence = purge.evidence(receipts);
        assert_eq!(purge.certify(evidence), ControlAnswer::Refused(ControlRefusal::NotYet));
    }
    assert_eq!(purge.cluster.state().deletions.certified_count(), 0);
}

#[test]
fn r067_a_store_that_joined_meanwhile_must_give_its_receipt_too() {
    let mut purge = Purge::new();
    let receipts = purge.receipts();
    let lost = purge.cluster.remote();
    purge.cluster.stop(&[&lost]);
    purge.cluster.run_until(15_000, |c| c.config().ever_held.len() == 4 && c.config().activated);
    let evidence = purge.evidence(receipts);
    assert_eq!(purge.certify(evidence), ControlAnswer::Refused(ControlRefusal::NotYet));
    let evidence = purge.evidence(purge.receipts());
    assert_eq!(certificate(purge.certify(evidence)).certificate.receipts.len(), 4);
}

#[test]
fn r067_forged_foreign_and_doubled_receipts_are_refused() {
    let mut purge = Purge::new();
    let good = purge.receipts();
    let spoil = |change: &dyn Fn(&mut Vec<SignedEraseReceipt>)| {
        let mut receipts = good.clone();
        change(&mut receipts);
        receipts
    };
    let resigned = |receipt: EraseReceipt| Purge::signed(receipt);
    let forged = [
        // Signed by somebody else.
        spoil(&|r| r[0].signature = signatory(store("a9")).sign(&r[0].receipt)),
        // Changed after it was signed.
        spoil(&|r| r[0].receipt.bytes += 1),
        // About another version, tombstone, volume, tenant, or under another order.
        spoil(&|r| r[0] = resigned(EraseReceipt { version: item(2).version, ..r[0].receipt.clone() })),
        spoil(&|r| r[0] = resigned(EraseReceipt { tombstone: Lsn(99), ..r[0].receipt.clone() })),
        spoil(&|r| r[0] = resigned(EraseReceipt { volume: VolumeId(9), ..r[0].receipt.clone() })),
        spoil(&|r| r[0] = resigned(EraseReceipt { tenant: TenantId(9), ..r[0].receipt.clone() })),
        spoil(&|r| r[0] = resigned(EraseReceipt { order: OrderId(99), ..r[0].receipt.clone() })),
        // Of a store that never held the volume; of one store twice.
        spoil(&|r| r[0] = resigned(EraseReceipt { store: store("a9"), ..r[0].receipt.clone() })),
        spoil(&|r| r.push(r[0].clone())),
        // Everybody, or nobody, erased as the first copy.
        spoil(&|r| {
            let order = purge.first_copy;
            r.iter_mut().for_each(|s| *s = resigned(EraseReceipt { order, ..s.receipt.clone() }));
        }),
        spoil(&|r| {
            let order = purge.others;
            r.iter_mut().for_each(|s| *s = resigned(EraseReceipt { order, ..s.receipt.clone() }));
        }),
    ];
    for (case, receipts) in forged.into_iter().enumerate() {
        let evidence = purge.evidence(receipts);
        let answer = purge.certify(evidence);
        assert!(denied(&answer), "case {case}: {answer:?}");
    }
    let mut unordered = purge.evidence(good.clone());
    unordered.orders.push(OrderId(99));
    assert!(denied(&purge.certify(unordered)), "an order that was never issued");
    let mut hurried = purge.evidence(good);
    hurried.requested_at = now(&purge.cluster);
    assert!(denied(&purge.certify(hurried)), "a window that the orders did not wait for");
    assert_eq!(purge.cluster.state().deletions.certified_count(), 0);
}

#[test]
fn r058_a_fenced_store_is_excepted_by_name() {
    let mut purge = Purge::new();
    let lost = purge.cluster.remote();
    purge.cluster.stop(&[&lost]);
    purge.cluster.run_until(15_000, |c| c.config().member(node(&lost)).is_none() && c.config().activated);
    purge.cluster.admin(AdminRequest::FenceStore { store: store(&lost) });
    let evidence = purge.evidence(purge.receipts());
    let signed = certificate(purge.certify(evidence));
    signed.verify(&trusted()).unwrap();
    let exceptions = &signed.certificate.exceptions;
    assert_eq!(exceptions.len(), 1);
    assert_eq!((exceptions[0].store, exceptions[0].reason.as_str()), (store(&lost), "fenced"));
}

#[test]
fn r068_a_certificate_holds_no_name() {
    // Nothing that reaches the control plane can carry one: what a node sends for a certificate has
    // no field for it, so a planted name has nowhere to go.
    let name = b"customers/jane-doe/passport.pdf";
    let mut purge = Purge::new();
    let evidence = purge.evidence(purge.receipts());
    let bytes = certificate(purge.certify(evidence)).to_bytes();
    let state = purge.cluster.state().to_bytes();
    for haystack in [bytes.as_ref(), state.as_slice()] {
        assert!(!haystack.windows(name.len()).any(|window| window == name));
        assert!(!haystack.windows(8).any(|window| name.windows(8).any(|part| part == window)));
    }
}

#[test]
fn a_tombstone_is_certified_under_one_position_only() {
    let mut purge = Purge::new();
    let evidence = purge.evidence(purge.receipts());
    certificate(purge.certify(evidence));
    let mut other = purge.evidence(Vec::new());
    other.tombstone = Lsn(50);
    other.receipts = purge
        .receipts()
        .into_iter()
        .map(|signed| Purge::signed(EraseReceipt { tombstone: Lsn(50), ..signed.receipt }))
        .collect();
    assert!(denied(&purge.certify(other)));
}
