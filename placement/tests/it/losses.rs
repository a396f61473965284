//! What a volume went on without is told by the stores that come back, kept, and shown: nothing is given up
//! before it is known what it is, and what nobody can know is called unknown.

use trefoil_protocol::ids::{Lsn, NodeId, StoreId, VersionId, VolumeId};
use trefoil_protocol::loss_list::SignedLossList;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest};
use trefoil_protocol::message::loss::{Difference, LossView, LostKind, LostStoreState, LostVersion};
use trefoil_protocol::time::CpTime;

use crate::cluster::{Cluster, node};
use crate::takeover::{b_returns, take_over};

const VOLUME: VolumeId = VolumeId(1);

fn put(version: u8, lsn: u64, bytes: u64) -> LostVersion {
    let (version, lsn) = (VersionId([version; 16]), Lsn(lsn));
    LostVersion { version, lsn, kind: LostKind::Put, bytes, at: CpTime(lsn.0), committed: true }
}

/// B went on without A, which is back.
fn parted() -> (Cluster, StoreId, NodeId) {
    let (mut cluster, held) = b_returns(Vec::new());
    take_over(&mut cluster, &held);
    for name in ["a1", "a2", "a3"] {
        cluster.restart(name);
        cluster.nodes.get_mut(&node(name)).unwrap().renews = true;
    }
    cluster.run(10_000);
    let lost = *cluster.record().parting.as_ref().unwrap().estranged.keys().next().unwrap();
    let id = cluster.nodes.values().find(|node| node.store == lost).unwrap().id;
    (cluster, lost, id)
}

fn tells(cluster: &mut Cluster, store: StoreId, after: u64, versions: Vec<LostVersion>) -> ControlAnswer {
    let up_to = versions.last().map_or(Lsn(after), |lost| lost.lsn);
    let node = cluster.nodes.values().find(|node| node.store == store).unwrap().id;
    let page = Difference {
        volume: VOLUME,
        epoch: cluster.config().epoch,
        store,
        shared: Lsn(7),
        after: Lsn(after),
        up_to,
        last: !versions.is_empty(),
        versions,
        unreadable: 0,
    };
    cluster.ask(node, ControlRequest::Differs(page))
}

fn loss(cluster: &mut Cluster) -> LossView {
    match cluster.admin(AdminRequest::Status { behind: VolumeId(0) }) {
        AdminAnswer::Status(status) => status.losses[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_discarded_before_it_is_known_what_it_is() {
    let (mut cluster, lost, id) = parted();
    assert!(cluster.nodes[&id].tell.contains(&VOLUME), "it is asked");
    let action = JointAction::Discard { volume: VOLUME, store: lost };
    let early = AdminRequest::Propose { action, reason: "too early".to_owned() };
    match cluster.operator("ann", early) {
        AdminAnswer::Refused(reason) => assert!(reason.contains("has not told yet"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(tells(&mut cluster, lost, 7, vec![]), ControlAnswer::Heard { up_to: Lsn(7), all: false });
    let page = vec![put(1, 8, 100), put(2, 9, 50)];
    let all = ControlAnswer::Heard { up_to: Lsn(9), all: true };
    assert_eq!(tells(&mut cluster, lost, 7, page.clone()), all);
    assert_eq!(tells(&mut cluster, lost, 7, page), all, "told again, it counts once");
    cluster.run(3_000);
    assert!(!cluster.nodes[&id].tell.contains(&VOLUME), "it is not asked again");
    let view = loss(&mut cluster);
    let told = view.stores.iter().find(|told| told.store == lost).unwrap();
    assert_eq!((told.totals.puts, told.totals.bytes, told.heard), (2, 150, true));
    let reason = "they agreed".to_owned();
    let open = cluster.proposal("ann", AdminRequest::Propose { action, reason });
    assert!(open.shown.iter().any(|line| line.contains("2 put with 150 bytes")), "{:?}", open.shown);
    cluster.proposal("bob", AdminRequest::Approve { number: open.number });
    let view = loss(&mut cluster);
    let told = view.stores.iter().find(|told| told.store == lost).unwrap();
    assert_eq!((told.state, told.totals.puts), (LostStoreState::Discarded, 2), "what it told is kept");
    cluster.restart_placement();
    cluster.run(10_000);
    assert_eq!(loss(&mut cluster).listed.puts, 2);
}

#[test]
fn what_a_store_that_is_not_there_has_is_called_unknown_when_it_is_discarded() {
    let (mut cluster, lost, id) = parted();
    cluster.stop(&[id.as_str()]);
    cluster.run(20_000);
    let action = JointAction::Discard { volume: VOLUME, store: lost };
    let reason = "it is scrap".to_owned();
    let open = cluster.proposal("ann", AdminRequest::Propose { action, reason });
    assert!(open.shown.iter().any(|line| line.contains("no report could be made")), "{:?}", open.shown);
    // It returns before the second operator has decided: then it is heard first.
    cluster.restart(id.as_str());
    cluster.nodes.get_mut(&id).unwrap().renews = true;
    cluster.run(3_000);
    match cluster.operator("bob", AdminRequest::Approve { number: open.number }) {
        AdminAnswer::Refused(reason) => assert!(reason.contains("has not told yet"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_stores_that_have_the_same_alone_are_listed_once() {
    let (mut cluster, ..) = parted();
    let stores: Vec<StoreId> = cluster.record().parting.as_ref().unwrap().estranged.keys().copied().collect();
    assert!(stores.len() >= 2, "{stores:?}");
    for store in &stores {
        let shared = vec![put(1, 8, 100), put(2, 9, 50)];
        tells(&mut cluster, *store, 7, vec![]);
        tells(&mut cluster, *store, 7, shared);
    }
    let view = loss(&mut cluster);
    assert!(view.stores.iter().all(|told| told.totals.puts == 2));
    assert_eq!((view.listed.puts, view.listed.bytes, view.unlisted), (2, 150, 0));
    assert_eq!((view.account.is_some(), view.unknown_since), (true, None), "the account was exact");
}

#[test]
fn nobody_tells_for_another_store_or_of_a_volume_that_did_not_part_from_it() {
    let (mut cluster, lost, _) = parted();
    let other = cluster.config().primary.unwrap();
    let page = |store| Difference {
        volume: VOLUME,
        epoch: cluster.config().epoch,
        store,
        shared: Lsn(0),
        after: Lsn(0),
        up_to: Lsn(9),
        versions: vec![put(1, 9, 1)],
        unreadable: 0,
        last: true,
    };
    let (of_another, of_a_member) = (page(lost), page(cluster.nodes[&other].store));
    for page in [of_another, of_a_member] {
        let answer = cluster.ask(other, ControlRequest::Differs(page));
        assert!(matches!(answer, ControlAnswer::Refused(ControlRefusal::Denied(_))), "{answer:?}");
    }
    assert_eq!(loss(&mut cluster).listed.puts, 0);
}

#[test]
fn the_signed_list_says_who_wanted_it_what_is_lost_and_what_is_unknown() {
    let (mut cluster, lost, _) = parted();
    let epoch = loss(&mut cluster).epoch;
    tells(&mut cluster, lost, 7, vec![]);
    tells(&mut cluster, lost, 7, vec![put(1, 8, 100), put(2, 9, 50)]);
    let signed = match cluster.admin(AdminRequest::LossList { volume: VOLUME, epoch }) {
        AdminAnswer::LossList(signed) => signed,
        other => panic!("{other:?}"),
    };
    let versions = match cluster.admin(AdminRequest::LostVersions { volume: VOLUME, epoch, after: None }) {
        AdminAnswer::LostVersions { versions, more: false } => versions,
        other => panic!("{other:?}"),
    };
    let list = SignedLossList { statement: signed.statement, signatures: signed.signatures, versions };
    let signers = cluster.state().voters.signers();
    list.verify(&signers).unwrap();
    let statement = &list.statement;
    let names: Vec<&str> = statement.operators.iter().map(|operator| operator.as_str()).collect();
    assert_eq!((names, statement.count), (vec!["ann", "bob"], 2));
    assert!(statement.stores.iter().any(|store| store.store == lost && store.heard));
    let refused = cluster.admin(AdminRequest::LossList { volume: VOLUME, epoch: epoch.next() });
    assert!(matches!(refused, AdminAnswer::Refused(_)), "{refused:?}");
}
