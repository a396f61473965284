//! The second phase of a delete: from the end of the window to the certificate, on every store, under
//! the control plane's orders and nobody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::deletion::{PurgeScope, SignedPurgeOrder, SignerTerm, Signers};
use trefoil_protocol::ids::{NodeId, TenantId, VersionId};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::message::tenant::{PurgeStage, Refusal, TenantAnswer, TenantCall};
use trefoil_protocol::sign::Signatory;

use crate::cluster::{Cluster, VOLUME, member, name, node, object, store_of, tag};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);
const WINDOW_MS: u64 = 20_000;

/// Whether any 64-byte run of these bytes lies in any file of a node.
fn holds_bytes(cluster: &mut Cluster, name: &str, bytes: &[u8]) -> bool {
    let runs: BTreeSet<&[u8]> = bytes.chunks_exact(64).collect();
    let files = cluster.machine(name).disk.files();
    files.iter().any(|(_, file)| file.windows(64).any(|window| runs.contains(window)))
}

fn stage(cluster: &mut Cluster, to: &str, key: &str) -> Vec<PurgeStage> {
    let call = TenantCall::PurgeStatus { name_tag: tag(key), after: None };
    match cluster.call(to, call, Bytes::new()) {
        Ok(TenantAnswer::Purges(views)) => views.into_iter().map(|view| view.stage).collect(),
        other => panic!("{other:?}"),
    }
}

fn certified(cluster: &Cluster, name: &str, version: u8) -> bool {
    let Some(replica) = cluster.core(name).volumes().get(&VOLUME) else { return false };
    let object = replica.holding().index().version(VersionId([version; 16]));
    object.is_some_and(|object| matches!(object.state, trefoil_engine::index::VersionState::Certified { .. }))
}

#[test]
fn r066_r067_a_delete_ends_with_every_byte_gone_on_every_store_and_a_certificate() {
    let mut cluster = Cluster::healthy(&NODES);
    let (large, small) = (object(1, 300_000), object(2, 1000));
    cluster.put("a1", "large", 1, &large).unwrap();
    cluster.put("a1", "small", 2, &small).unwrap();
    cluster.put("a1", "stays", 3, &object(3, 1000)).unwrap();
    cluster.delete("a1", "large").unwrap();
    cluster.delete("a1", "small").unwrap();
    cluster.run(Duration::from_secs(5));
    assert_eq!(stage(&mut cluster, "a1", "large"), [PurgeStage::Deleted], "the window is open");
    for name in NODES {
        assert!(holds_bytes(&mut cluster, name, &large), "all copies stay in the window: {name}");
    }
    cluster.placement.ahead += WINDOW_MS;
    let all = |c: &Cluster| NODES.iter().all(|name| certified(c, name, 1) && certified(c, name, 2));
    assert!(cluster.run_until(MINUTE, all), "{:?}", stage(&mut cluster, "a1", "large"));
    for name in NODES {
        assert!(!holds_bytes(&mut cluster, name, &large), "{name}");
        assert!(!holds_bytes(&mut cluster, name, &small), "{name}");
        assert!(holds_bytes(&mut cluster, name, &object(3, 1000)), "{name}");
    }
    let call = TenantCall::Certificates { name_tag: tag("large"), after: None };
    let Ok(TenantAnswer::Certificates(certificates)) = cluster.call("a1", call, Bytes::new()) else {
        panic!()
    };
    let trust = Signers { terms: vec![SignerTerm::founding(cluster.placement.signatory.public())] };
    certificates[0].verify(&trust).unwrap();
    assert_eq!(certificates[0].certificate.receipts.len(), 3);
    assert_eq!(stage(&mut cluster, "a1", "large"), [PurgeStage::Certified]);
    assert_eq!(cluster.undelete("a1", "large"), Err(Refusal::Gone));
    assert_eq!(cluster.undelete("a1", "never"), Err(Refusal::NotFound));
    assert_eq!(cluster.undelete("a1", "stays"), Err(Refusal::PreconditionFailed));
    assert_eq!(cluster.get("a1", "large").response, Some(Err(Refusal::NotFound)));
}

#[test]
fn an_answer_that_takes_longer_than_its_question_is_repeated_still_counts() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 1000)).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.answers_take = Duration::from_millis(1900);
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a1", 1)), "{:?}", stage(&mut cluster, "a1", "k"));
}

#[test]
fn first_copy_is_a_name_not_a_role() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.first_copy_retention = trefoil_protocol::time::Millis(30_000));
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    let bytes = object(1, 100_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    let others_erased = |c: &Cluster| {
        let object = c.core("a1").volumes()[&VOLUME].holding().index().version(VersionId([1; 16]));
        object.is_some_and(|object| {
            matches!(object.state, trefoil_engine::index::VersionState::OthersErased { .. })
        })
    };
    assert!(cluster.run_until(MINUTE, others_erased));
    assert!(holds_bytes(&mut cluster, "a1", &bytes), "the first copy stays for its retention");
    assert!(!holds_bytes(&mut cluster, "a2", &bytes) && !holds_bytes(&mut cluster, "b1", &bytes));
    // Another primary: the retained store is still a1, by name.
    cluster.change(|config| config.primary = Some(node("a2")));
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    cluster.run(Duration::from_secs(10));
    assert!(holds_bytes(&mut cluster, "a1", &bytes));
    cluster.placement.ahead += 40_000;
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a2", 1)));
    assert!(!holds_bytes(&mut cluster, "a1", &bytes));
}

#[test]
fn purge_orders_survive_failover() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 100_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.delete("a1", "k").unwrap();
    // b1 never hears an erase from a1.
    cluster.lose = Some(|body| matches!(body, PeerBody::Erase { .. }));
    cluster.placement.ahead += WINDOW_MS;
    cluster.run(Duration::from_secs(10));
    assert_eq!(stage(&mut cluster, "a1", "k"), [PurgeStage::Purging]);
    cluster.lose = None;
    cluster.change(|config| config.primary = Some(node("a2")));
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a2", 1)), "the next primary goes on");
    for name in NODES {
        assert!(!holds_bytes(&mut cluster, name, &bytes), "{name}");
    }
}

#[test]
fn r053_purge_has_one_commit_point() {
    for undelete_at in 0..40 {
        let mut cluster = Cluster::healthy(&NODES);
        let bytes = object(1, 50_000);
        cluster.put("a1", "k", 1, &bytes).unwrap();
        cluster.delete("a1", "k").unwrap();
        cluster.placement.ahead += WINDOW_MS;
        // The clock is heard with the next renewal; the undelete comes at every point around it.
        cluster.run_until(MINUTE, |c| {
            c.placement.asked.iter().any(|(_, asked)| matches!(asked, ControlRequest::RequestPurge { .. }))
        });
        let token = cluster.token();
        let call = TenantCall::Undelete {
            key: name("k"),
            name_tag: tag("k"),
            version: Some(VersionId([1; 16])),
            token,
        };
        cluster.run(Duration::from_micros(200 * undelete_at));
        let undeleted = cluster.call("a1", call, Bytes::new());
        cluster.run(Duration::from_secs(20));
        match undeleted {
            Ok(TenantAnswer::Undeleted { .. }) => {
                assert_eq!(cluster.get("a1", "k").bytes, bytes, "{undelete_at}: it is back, whole");
                for name in NODES {
                    assert!(holds_bytes(&mut cluster, name, &bytes), "{undelete_at} {name}");
                }
            }
            Err(Refusal::Gone) => {
                assert!(certified(&cluster, "a1", 1), "{undelete_at}: it is gone");
            }
            other => panic!("{undelete_at}: {other:?}"),
        }
    }
}

#[test]
fn r053_undelete_within_the_window_restores_identical_bytes_and_a_new_delete_has_a_new_tombstone() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 50_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.undelete("a1", "k").unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.undelete("a1", "k").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    cluster.run(Duration::from_secs(10));
    let heard = cluster.get("a1", "k");
    assert_eq!(heard.bytes, bytes, "no window runs for what is live");
    let Some(Ok(TenantAnswer::Object(view))) = heard.response else { panic!() };
    assert_eq!(view.metadata, Bytes::from_static(b"sealed metadata"));
    assert_eq!(view.wrapped_key, Bytes::from(vec![1; 40]));
}

/// A healthy cluster in which a purge is under way, and the messages with orders that were sent.
fn with_an_order() -> (Cluster, Vec<(NodeId, PeerMessage)>) {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 50_000)).unwrap();
    cluster.put("a1", "live", 2, &object(2, 50_000)).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.lose = Some(|body| matches!(body, PeerBody::Erase { .. }));
    cluster.placement.ahead += WINDOW_MS;
    cluster.run(Duration::from_secs(5));
    let erase = |body: &PeerBody| matches!(body, PeerBody::Erase { .. });
    let orders = cluster.sent.iter().filter(|(_, _, message, _)| erase(&message.body));
    let orders = orders.map(|(_, to, message, _)| (*to, message.clone())).collect();
    (cluster, orders)
}

#[test]
fn r055_a_forged_replayed_or_other_tenants_order_is_refused() {
    let (mut cluster, orders) = with_an_order();
    let (to, genuine) = orders.first().cloned().expect("an order was sent");
    let PeerBody::Erase { order, items, purging } = genuine.body.clone() else { panic!() };
    let placement = Signatory::from_secret(&[42; 32]);
    let stranger = Signatory::from_secret(&[66; 32]);
    let live =
        cluster.core("a1").volumes()[&VOLUME].holding().index().version(VersionId([2; 16])).unwrap().lsn;
    let mut forged: Vec<(&str, PeerBody)> = Vec::new();
    let paper = order.order.clone();
    let erase = |order, items| PeerBody::Erase { order, items, purging };
    forged.push((
        "signed by a stranger",
        erase(SignedPurgeOrder::new(paper.clone(), &stranger), items.clone()),
    ));
    let mut changed = order.clone();
    changed.order.count += 1;
    forged.push(("changed after signing", erase(changed, items.clone())));
    let mut of_tenant = paper.clone();
    of_tenant.tenant = TenantId(2);
    forged.push(("of another tenant", erase(SignedPurgeOrder::new(of_tenant, &placement), items.clone())));
    let mut of_generation = paper.clone();
    of_generation.generation = 0;
    forged.push(("before a restore", erase(SignedPurgeOrder::new(of_generation, &placement), items.clone())));
    let mut of_scope = paper.clone();
    of_scope.scope = PurgeScope::FirstCopy;
    forged.push(("for the first copy", erase(SignedPurgeOrder::new(of_scope, &placement), items.clone())));
    let other = vec![trefoil_protocol::deletion::PurgeItem { version: VersionId([2; 16]), tombstone: live }];
    forged.push(("for a live object", erase(order.clone(), other)));
    for (what, body) in forged {
        let message = PeerMessage { body, ..genuine.clone() };
        let event = trefoil_storage_node::Event::Peer { from: node("a1"), message, bulk: Bytes::new() };
        cluster.sent.clear();
        cluster.step(to, event);
        cluster.run(Duration::from_millis(20));
        let obeyed = cluster
            .sent
            .iter()
            .any(|(from, _, m, _)| *from == to && matches!(m.body, PeerBody::Erased { .. }));
        assert!(!obeyed, "{what}");
        for version in [1, 2] {
            assert!(holds_bytes(&mut cluster, to.as_str(), &object(version, 50_000)), "{what}");
        }
    }
}

#[test]
fn r055_an_order_alone_erases_nothing_before_its_record_is_committed_in_the_stores_own_log() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 50_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.run(Duration::from_secs(1));
    // b1 hears of nothing that follows, but is handed the very order.
    let (_, orders) = with_an_order();
    let (_, message) = orders.into_iter().find(|(to, _)| *to == node("b1")).expect("an order for b1");
    let run = cluster.core("a1").view().nodes[&node("a1")].incarnation;
    let message = PeerMessage { incarnation: run, ..message };
    let event = trefoil_storage_node::Event::Peer { from: node("a1"), message, bulk: Bytes::new() };
    cluster.step(node("b1"), event);
    cluster.run(Duration::from_secs(2));
    assert!(holds_bytes(&mut cluster, "b1", &bytes));
    assert!(matches!(cluster.undelete("a1", "k"), Ok(TenantAnswer::Undeleted { .. })));
    assert_eq!(cluster.get("a1", "k").bytes, bytes);
}

#[test]
fn r057_r058_a_store_that_was_away_is_waited_for_and_the_object_never_comes_back() {
    let mut cluster = Cluster::healthy(&["a1", "a2", "b1", "b2"]);
    let bytes = object(1, 200_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.crash("b1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.members.push(member("b2", MemberState::CatchingUp));
    });
    let whole = |c: &Cluster| c.placement.volumes[&VOLUME].in_sync().count() == 3 && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, whole));
    cluster.delete("a1", "k").unwrap();
    cluster.placement.ahead += 100 * WINDOW_MS;
    cluster.run(Duration::from_secs(60));
    assert!(!certified(&cluster, "a1", 1), "b1 may still hold it");
    for name in ["a2", "b2"] {
        assert!(!holds_bytes(&mut cluster, name, &bytes), "{name}");
    }
    cluster.start("b1");
    cluster.change(|config| config.members.push(member("b1", MemberState::CatchingUp)));
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a1", 1)), "it came back and erased");
    assert!(!holds_bytes(&mut cluster, "b1", &bytes));
    for name in ["a1", "a2", "b1", "b2"] {
        assert!(cluster.get_version(name, "k", 1).bytes.is_empty());
    }
}

#[test]
fn r059_a_store_that_is_retired_is_wiped_and_only_then_leaves_the_ones_that_held_it() {
    let mut cluster = Cluster::healthy(&["a1", "a2", "b1", "b2"]);
    let bytes = object(1, 200_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.members.push(member("b2", MemberState::CatchingUp));
    });
    let whole = |c: &Cluster| c.placement.volumes[&VOLUME].in_sync().count() == 3 && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, whole));
    assert!(holds_bytes(&mut cluster, "b1", &bytes), "not a member any more, and still it deletes nothing");
    cluster.delete("a1", "k").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    cluster.run(Duration::from_secs(10));
    assert!(!certified(&cluster, "a1", 1));
    cluster.placement.retire.entry(node("b1")).or_default().insert(VOLUME);
    let gone = |c: &Cluster| !c.placement.volumes[&VOLUME].ever_held.contains(&store_of(node("b1")));
    assert!(cluster.run_until(MINUTE, gone));
    assert!(!holds_bytes(&mut cluster, "b1", &bytes));
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a1", 1)), "now nobody is waited for");
    cluster.crash("b1", 9);
    cluster.start("b1");
    cluster.run(Duration::from_secs(2));
    assert!(!cluster.core("b1").volumes().contains_key(&VOLUME));
}

#[test]
fn zeroing_breaks_no_chain() {
    let mut cluster = Cluster::healthy(&NODES);
    for version in 1..6 {
        cluster.put("a1", &format!("k{version}"), version, &object(version, 50_000)).unwrap();
    }
    cluster.delete("a1", "k2").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| NODES.iter().all(|name| certified(c, name, 2))));
    for (index, name) in NODES.into_iter().enumerate() {
        cluster.crash(name, index as u64);
    }
    for name in NODES {
        cluster.start(name);
    }
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.get("a1", "k2").response, Some(Err(Refusal::NotFound)));
    for version in [1, 3, 4, 5] {
        assert_eq!(cluster.get("a1", &format!("k{version}")).bytes, object(version, 50_000));
    }
    assert!(cluster.core("a2").volumes()[&VOLUME].holding().hole().is_none());
    // A replacement gets the log with its erased parts, and no byte of what was purged.
    cluster.run(Duration::from_secs(1));
    assert_eq!(stage(&mut cluster, "a1", "k2"), [PurgeStage::Certified]);
}

#[test]
fn backfill_and_purge_do_not_cross() {
    let mut cluster = Cluster::healthy(&["a1", "a2", "b1", "b2"]);
    let bytes = object(1, 2_000_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.put("a1", "stays", 2, &object(2, 2_000_000)).unwrap();
    cluster.delete("a1", "k").unwrap();
    cluster.crash("b1", 1);
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { fetched: true, .. }));
    cluster.sent.clear();
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.members.push(member("b2", MemberState::CatchingUp));
        config.ever_held.retain(|store| *store != store_of(node("b1")));
        config.protection = Protection::BothDcs;
    });
    cluster.run(Duration::from_secs(3));
    // Chunks of v1 are in flight to b2 while v1 is purged.
    let late: Vec<_> = cluster
        .sent
        .iter()
        .filter(|(_, to, m, _)| {
            *to == node("b2")
                && matches!(m.body, PeerBody::Payload { upload, .. } if upload.version == VersionId([1; 16]))
        })
        .cloned()
        .collect();
    assert!(!late.is_empty());
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a1", 1) && certified(c, "b2", 1)));
    cluster.sent.clear();
    for (from, to, message, bulk) in late {
        let message = PeerMessage { epoch: cluster.epoch(), ..message };
        cluster.step(to, trefoil_storage_node::Event::Peer { from, message, bulk });
    }
    cluster.lose = None;
    let whole = |c: &Cluster| c.placement.volumes[&VOLUME].in_sync().count() == 3 && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, whole), "what is purged is not missing");
    for name in ["a1", "a2", "b2"] {
        assert!(!holds_bytes(&mut cluster, name, &bytes), "{name}");
    }
    let of_v1 = cluster.sent.iter().any(|(_, _, m, _)| {
        matches!(m.body, PeerBody::Payload { upload, .. } if upload.version == VersionId([1; 16]))
    });
    assert!(!of_v1, "nothing of a purged version is handed out");
}

#[test]
fn r063_an_overwritten_version_has_the_same_window_and_the_same_end() {
    let mut cluster = Cluster::healthy(&NODES);
    let (old, new) = (object(1, 50_000), object(2, 50_000));
    cluster.put("a1", "k", 1, &old).unwrap();
    cluster.put("a1", "k", 2, &new).unwrap();
    cluster.run(Duration::from_secs(2));
    assert!(holds_bytes(&mut cluster, "a2", &old));
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| certified(c, "a1", 1)));
    assert!(!holds_bytes(&mut cluster, "a2", &old));
    assert_eq!(cluster.get("a1", "k").bytes, new);
}

#[test]
fn r057_a_store_that_joins_during_a_purge_gets_the_log_without_what_is_being_erased() {
    let mut cluster = Cluster::healthy(&["a1", "a2", "b1", "b2"]);
    cluster.change(|config| config.first_copy_retention = trefoil_protocol::time::Millis(60_000));
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    let (small, large) = (object(1, 10_000), object(2, 100_000));
    cluster.put("a1", "small", 1, &small).unwrap();
    cluster.put("a1", "large", 2, &large).unwrap();
    cluster.delete("a1", "small").unwrap();
    cluster.delete("a1", "large").unwrap();
    cluster.placement.ahead += WINDOW_MS;
    cluster.run(Duration::from_secs(5));
    assert_eq!(stage(&mut cluster, "a1", "small"), [PurgeStage::OthersErased]);
    assert!(holds_bytes(&mut cluster, "a1", &small), "the first copy is kept");
    cluster.change(|config| config.members.push(member("b2", MemberState::CatchingUp)));
    let whole = |c: &Cluster| c.placement.volumes[&VOLUME].in_sync().count() == 4 && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, whole));
    for bytes in [&small, &large] {
        assert!(!holds_bytes(&mut cluster, "b2", bytes));
    }
    cluster.crash("b2", 1);
    cluster.start("b2");
    cluster.placement.ahead += 70_000;
    assert!(cluster.run_until(MINUTE, |c| certified(c, "b2", 1) && certified(c, "b2", 2)));
}
