//! Members that lack something: payload that came late, a replacement that catches up, a store that
//! comes back. Nothing merely absent is ever taken for deleted.

use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer};

use crate::cluster::{Cluster, VOLUME, member, node, object, store_of};

const NODES: [&str; 4] = ["a1", "a2", "b1", "b2"];
const MINUTE: Duration = Duration::from_secs(60);

fn replace(cluster: &mut Cluster, lost: &str, by: &str) {
    cluster.change(|config| {
        config.members.retain(|member| member.node != node(lost));
        config.members.push(member(by, MemberState::CatchingUp));
    });
}

fn is_whole(cluster: &Cluster) -> bool {
    cluster.placement.volumes[&VOLUME].in_sync().count() == 3 && cluster.serving().is_some()
}

#[test]
fn a_relay_acks_for_nobody() {
    let mut cluster = Cluster::healthy(&NODES);
    // Payload sent by streams is lost; what is asked for arrives.
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { fetched: false, .. }));
    let bytes = object(1, 900_000);
    let request = cluster.begin_put("a1", "k", 1, &bytes);
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.heard(request).response, None, "records without payload are no copies");
    let Some(Ok(TenantAnswer::Stored(receipt))) = cluster.wait(request).response else { panic!() };
    assert_eq!(receipt.copies.len(), 3);
    cluster.run(Duration::from_secs(1));
    for name in ["a1", "a2", "b1"] {
        assert_eq!(cluster.get_version(name, "k", 1).bytes, bytes, "{name}");
    }
}

#[test]
fn only_one_stream_crosses_to_the_other_data_centre_and_is_passed_on_there() {
    let mut cluster = Cluster::new(&NODES);
    let members = ["a1", "b1", "b2"].map(|name| member(name, MemberState::InSync));
    cluster.placement.create(VOLUME, crate::cluster::TENANT, members.to_vec());
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.sent.clear();
    let bytes = object(1, 900_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    let payload = |from: &str| {
        let sent = cluster
            .sent
            .iter()
            .filter(|(sender, _, m, _)| *sender == node(from) && matches!(m.body, PeerBody::Payload { .. }));
        sent.map(|(_, _, _, bulk)| bulk.len()).sum::<usize>()
    };
    assert_eq!(payload("a1"), bytes.len());
    assert_eq!(payload("b1") + payload("b2"), bytes.len());
}

#[test]
fn r028_replacement_counts_from_its_join_and_is_taken_in_when_it_holds_everything() {
    let mut cluster = Cluster::healthy(&NODES);
    let old = object(1, 2_000_000);
    cluster.put("a1", "old", 1, &old).unwrap();
    cluster.put("a1", "small", 2, &object(2, 200)).unwrap();
    cluster.delete("a1", "small").unwrap();
    cluster.crash("b1", 1);
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { fetched: true, .. }));
    replace(&mut cluster, "b1", "b2");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    let new = object(3, 300_000);
    let Ok(TenantAnswer::Stored(receipt)) = cluster.put("a1", "new", 3, &new) else { panic!() };
    let on_b2 = receipt.copies.iter().any(|copy| copy.node == node("b2"));
    assert!(on_b2, "it counts for new writes");
    assert_eq!(receipt.protection, Protection::BothDcs);
    cluster.run(Duration::from_secs(2));
    assert!(cluster.get("b2", "old").bytes.is_empty(), "it answers no latest");
    // Not by version either: a delete may be acknowledged before it is heard of here.
    for (key, version) in [("old", 1), ("new", 3)] {
        let heard = cluster.get_version("b2", key, version);
        assert!(matches!(heard.response, Some(Err(Refusal::NotPrimary { .. }))), "{key}");
    }
    let complete = |c: &Cluster| {
        c.placement.asked.iter().any(|(_, asked)| matches!(asked, ControlRequest::Complete { .. }))
    };
    assert!(!complete(&cluster), "it lacks old payload");
    cluster.lose = None;
    assert!(cluster.run_until(MINUTE, is_whole), "backfilled");
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.get_version("b2", "old", 1).bytes, old);
    cluster.crash("a1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("a1"));
        config.primary = Some(node("b2"));
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))));
    assert_eq!(cluster.get("b2", "old").bytes, old);
    assert_eq!(cluster.get("b2", "small").response, Some(Err(Refusal::NotFound)));
}

#[test]
fn what_a_write_waits_for_is_fetched_before_all_that_is_old() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "old", 1, &object(1, 9_000_000)).unwrap();
    cluster.crash("b1", 1);
    let _ = cluster.begin_put("a1", "new", 2, &object(2, 300_000));
    cluster.run(Duration::from_millis(100));
    cluster.sent.clear();
    replace(&mut cluster, "b1", "b2");
    assert!(cluster.run_until(MINUTE, is_whole));
    let asked_for = |message: &PeerMessage| match message.body {
        PeerBody::FetchPayload { upload, .. } => Some(upload.version),
        _ => None,
    };
    let mut versions: Vec<_> = cluster.sent.iter().filter_map(|(_, _, m, _)| asked_for(m)).collect();
    versions.dedup();
    assert_eq!(versions, [2, 1].map(|version| VersionId([version; 16])), "the record of 2 is not committed");
}

#[test]
fn a_catching_up_store_does_not_lead_even_if_it_is_told_to() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| {
        config.members.push(member("b2", MemberState::CatchingUp));
        config.primary = Some(node("b2"));
    });
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.serving(), None);
}

#[test]
fn r029_a_store_that_comes_back_deletes_nothing_that_its_source_merely_lacks() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 400_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.put("a1", "gone", 2, &bytes).unwrap();
    cluster.crash("b1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.delete("a1", "gone").unwrap();
    cluster.start("b1");
    cluster.run(Duration::from_secs(5));
    let uploads = cluster.core("b1").volumes()[&VOLUME].holding().log().uploads().count();
    assert_eq!(uploads, 2, "what it holds stays, whatever nobody tells it");
    cluster.change(|config| {
        config.members.push(member("b1", MemberState::CatchingUp));
        config.protection = Protection::BothDcs;
    });
    assert!(cluster.run_until(MINUTE, is_whole));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.get_version("b1", "k", 1).bytes, bytes);
    assert_eq!(cluster.get_version("b1", "gone", 2).response, Some(Err(Refusal::Changed)));
    assert!(matches!(cluster.undelete("a1", "gone"), Ok(TenantAnswer::Undeleted { .. })));
    assert_eq!(cluster.get("a1", "gone").bytes, bytes);
}

#[test]
fn r006_r008_r030_a_rotten_leaf_is_never_returned_and_is_repaired_from_a_verified_copy() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 400_000);
    cluster.put("a1", "k", 1, &bytes).unwrap();
    cluster.run(Duration::from_secs(1));
    let disk = cluster.machine("a1").disk.clone();
    let needle = &bytes[200_000..200_064];
    let (path, at) = disk
        .files()
        .into_iter()
        .find_map(|(path, file)| Some((path, file.windows(64).position(|window| window == needle)?)))
        .expect("the leaf is on the disk");
    disk.flip_bit(&path, at as u64, 3);
    let heard = cluster.get("a1", "k");
    assert!(heard.aborted && bytes.starts_with(&heard.bytes), "no wrong byte leaves");
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.get("a1", "k").bytes, bytes, "repaired");
    for name in ["a2", "b1"] {
        assert_eq!(cluster.get_version(name, "k", 1).bytes, bytes, "{name} is as it was");
    }
}

#[test]
fn payload_that_no_member_has_was_never_acknowledged_and_blocks_nothing() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { .. }));
    let bytes = object(1, 400_000);
    let request = cluster.begin_put("a1", "k", 1, &bytes);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.heard(request).response, None);
    cluster.crash("a1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("a1"));
        config.primary = Some(node("a2"));
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert_eq!(cluster.get("a2", "k").response, Some(Err(Refusal::NotFound)));
    cluster.lose = None;
    cluster.put("a2", "k", 2, &bytes).unwrap();
    assert_eq!(cluster.get("a2", "k").bytes, bytes);
}

#[test]
fn restored_is_said_when_the_other_data_centre_holds_what_was_acknowledged_alone() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.crash("b1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.put("a1", "alone", 1, &object(1, 100_000)).unwrap();
    let alone = cluster.core("a1").volumes()[&VOLUME].holding().committed();
    cluster.start("b1");
    cluster.change(|config| config.members.push(member("b1", MemberState::CatchingUp)));
    assert!(cluster.run_until(MINUTE, is_whole));
    cluster.change(|config| config.protection = Protection::Restoring);
    cluster.run(Duration::from_secs(5));
    let restored = cluster.placement.asked.iter().find_map(|(_, asked)| match asked {
        ControlRequest::Restored { last_single_dc, persisted, .. } => Some((*last_single_dc, *persisted)),
        _ => None,
    });
    let (last_single_dc, persisted) = restored.expect("said");
    assert!(last_single_dc >= alone && persisted > last_single_dc);
    assert_eq!(store_of(node("b1")), member("b1", MemberState::InSync).store);
}

#[test]
fn payload_before_order_has_an_owner() {
    let mut cluster = Cluster::healthy(&NODES);
    let (bytes, kept) = (object(1, 400_000), object(2, 400_000));
    let call = cluster.put_call("k", 1, &bytes);
    let broken = cluster.ask("a1", call.clone(), bytes::Bytes::new());
    cluster.stream("a1", broken, &bytes);
    cluster.step(node("a1"), trefoil_storage_node::Event::Gone { request: broken });
    cluster.put("a1", "kept", 2, &kept).unwrap();
    cluster.run(Duration::from_secs(300));
    let held = |cluster: &mut Cluster, name: &str, bytes: &[u8]| {
        let files = cluster.machine(name).disk.files();
        files.iter().any(|(_, file)| file.windows(64).any(|window| window == &bytes[..64]))
    };
    for name in ["a1", "a2", "b1"] {
        assert!(held(&mut cluster, name, &bytes), "a retry may still claim it: {name}");
    }
    cluster.change(|config| config.primary = Some(node("a2")));
    cluster.run(Duration::from_secs(900));
    for name in ["a1", "a2", "b1"] {
        assert!(!held(&mut cluster, name, &bytes), "{name}");
        assert_eq!(cluster.get_version(name, "kept", 2).bytes, kept, "{name}");
    }
    let late = cluster.begin("a2", call, &bytes);
    assert_eq!(cluster.wait(late).response, Some(Err(Refusal::Expired)), "nobody ever will");
}

#[test]
fn r022_a_member_that_comes_in_sync_holds_everything_before_its_epoch_is_activated() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100_000)).unwrap();
    cluster.change(|config| config.members.push(member("b2", MemberState::CatchingUp)));
    cluster.placement.takes_in = false;
    let complete = |c: &Cluster| {
        c.placement.asked.iter().any(|(_, asked)| matches!(asked, ControlRequest::Complete { .. }))
    };
    assert!(cluster.run_until(MINUTE, complete));
    // After it was reported complete, it hears of nothing more until it is in sync.
    cluster.cut("a1", "b2");
    cluster.delete("a1", "k").unwrap();
    cluster.put("a1", "new", 2, &object(2, 100_000)).unwrap();
    let before = cluster.core("b2").volumes()[&VOLUME].holding().last().lsn;
    cluster.change(|config| config.members.iter_mut().for_each(|m| m.state = MemberState::InSync));
    cluster.run(Duration::from_secs(2));
    assert!(!cluster.placement.volumes[&VOLUME].activated);
    cluster.heal();
    assert!(cluster.run_until(MINUTE, |c| c.placement.volumes[&VOLUME].activated));
    assert!(cluster.core("b2").volumes()[&VOLUME].holding().last().lsn > before);
    cluster.run(Duration::from_millis(1));
    assert!(cluster.get_version("b2", "k", 1).bytes.is_empty());
}
