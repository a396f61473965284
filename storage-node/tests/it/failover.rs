//! Another primary: what was acknowledged stays, what was not is decided once, and the old one is
//! never believed again.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::Epoch;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantCall};

use crate::cluster::{Cluster, VOLUME, member, node, object, store_of};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

/// Makes `to` the primary of the remaining members.
fn fail_over(cluster: &mut Cluster, lost: &str, to: &str) {
    cluster.change(|config| {
        config.members.retain(|member| member.node != node(lost));
        config.primary = Some(node(to));
    });
    let to = node(to);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(to)), "{to} takes over");
}

#[test]
fn r052_puts_and_deletes_survive_the_loss_of_the_primary() {
    let mut cluster = Cluster::healthy(&NODES);
    let (small, large) = (object(1, 500), object(2, 700_000));
    cluster.put("a1", "small", 1, &small).unwrap();
    cluster.put("a1", "large", 2, &large).unwrap();
    cluster.put("a1", "gone", 3, &small).unwrap();
    cluster.delete("a1", "gone").unwrap();
    cluster.crash("a1", 1);
    fail_over(&mut cluster, "a1", "a2");
    assert_eq!(cluster.get("a2", "small").bytes, small);
    assert_eq!(cluster.get("a2", "large").bytes, large);
    assert_eq!(cluster.get("a2", "gone").response, Some(Err(Refusal::NotFound)));
    cluster.put("a2", "new", 4, &large).unwrap();
    assert_eq!(cluster.get("a2", "new").bytes, large);
}

#[test]
fn r015_a_higher_epoch_is_durable_before_it_is_answered_and_a_lower_one_refused_for_ever() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("b1").syncs_held = true;
    cluster.sent.clear();
    cluster.change(|config| config.primary = Some(node("a2")));
    cluster.run(Duration::from_secs(2));
    let reported = |c: &Cluster| {
        let from_b1 = c.sent.iter().filter(|(from, _, m, _)| *from == node("b1") && m.epoch == Epoch(2));
        from_b1.filter(|(_, _, m, _)| matches!(m.body, PeerBody::Report(_))).count()
    };
    assert_eq!(reported(&cluster), 0, "the promise is not durable, so nothing is said at epoch 2");
    cluster.release_syncs("b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert!(reported(&cluster) > 0);
    let old = cluster.sent.iter().find(|(_, to, m, _)| {
        *to == node("b1") && m.epoch == Epoch(2) && matches!(m.body, PeerBody::Append { .. })
    });
    let (_, _, mut message, bulk) = old.cloned().expect("records went to b1");
    message.epoch = Epoch(1);
    message.store = store_of(node("a1"));
    for restart in [false, true] {
        if restart {
            cluster.crash("b1", 3);
            cluster.start("b1");
            cluster.run(Duration::from_secs(2));
        }
        let before = cluster.core("b1").volumes()[&VOLUME].holding().last();
        cluster.sent.clear();
        let event = trefoil_storage_node::Event::Peer {
            from: node("a1"),
            message: message.clone(),
            bulk: bulk.clone(),
        };
        cluster.step(node("b1"), event);
        let fenced = |m: &PeerBody| matches!(m, PeerBody::Fenced { promised } if *promised == Epoch(2));
        let to_a1 = cluster.sent.iter().filter(|(_, to, _, _)| *to == node("a1"));
        assert_eq!(to_a1.filter(|(_, _, m, _)| fenced(&m.body)).count(), 1, "restarted: {restart}");
        assert_eq!(cluster.core("b1").volumes()[&VOLUME].holding().last(), before);
    }
}

#[test]
fn r019_r021_a_primary_without_a_lease_answers_that_and_never_data() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.out_of_reach.insert(node("a1"));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.get("a1", "k").bytes, object(1, 100), "the lease still runs");
    cluster.run(Duration::from_secs(2));
    let heard = cluster.get("a1", "k");
    assert_eq!(heard.response, Some(Err(Refusal::LeaseExpired)));
    assert!(heard.bytes.is_empty());
    assert_eq!(cluster.get_version("a1", "k", 1).response, Some(Err(Refusal::LeaseExpired)));
    let missing = cluster.delete("a1", "missing");
    assert_eq!(missing, Err(Refusal::LeaseExpired), "that it is missing is data too");
}

#[test]
fn r019_a_lease_runs_from_the_moment_the_renewal_was_sent_however_late_the_answer() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.answers_take = Duration::from_millis(1900);
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.get("a1", "k").bytes, object(1, 100));
    let renewals = cluster.placement.renewals;
    cluster.run_until(MINUTE, |c| c.placement.renewals > renewals);
    cluster.out_of_reach.insert(node("a1"));
    cluster.run(Duration::from_millis(6100));
    assert_eq!(cluster.get("a1", "k").response, Some(Err(Refusal::LeaseExpired)));
}

#[test]
fn removed_replica_serves_nothing() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100_000)).unwrap();
    cluster.run(Duration::from_secs(1));
    for other in ["a1", "a2"] {
        cluster.cut("b1", other);
    }
    cluster.out_of_reach.insert(node("b1"));
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.delete("a1", "k").unwrap();
    cluster.run(Duration::from_secs(7));
    let heard = cluster.get_version("b1", "k", 1);
    assert_eq!(heard.response, Some(Err(Refusal::LeaseExpired)));
}

#[test]
fn r021_a_stale_primary_that_wakes_up_serves_nothing_and_commits_nothing() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.pause("a1");
    cluster.run(Duration::from_secs(8));
    fail_over(&mut cluster, "a1", "a2");
    cluster.put("a2", "k", 2, &object(2, 100)).unwrap();
    let call = cluster.put_call("k", 3, &object(3, 100));
    let late = cluster.begin("a1", call, &object(3, 100));
    cluster.resume("a1");
    cluster.run(Duration::from_millis(1));
    assert_ne!(cluster.get("a1", "k").bytes, object(1, 100));
    cluster.run(Duration::from_secs(10));
    assert!(!matches!(cluster.heard(late).response, Some(Ok(_))));
    assert_eq!(cluster.get("a2", "k").bytes, object(2, 100));
}

#[test]
fn r024_a_tail_that_another_epoch_replaced_is_cut_by_epoch_and_position_not_by_a_watermark() {
    // KIP-101, first scenario: the new leader knows a lower committed point than is true.
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    // a2 and b1 never hear that it is committed, lose power, and lead.
    cluster.crash("a1", 1);
    cluster.crash("a2", 2);
    cluster.start("a2");
    fail_over(&mut cluster, "a1", "a2");
    assert_eq!(cluster.get("a2", "k").bytes, object(1, 100), "acknowledged, so it is there");

    // Second scenario: an unacknowledged tail at a1 and another history at the others.
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.cut("a1", "a2");
    cluster.cut("a1", "b1");
    for version in 2..5 {
        cluster.begin_put("a1", &format!("lost-{version}"), version, &object(version, 100));
    }
    cluster.run(Duration::from_millis(500));
    cluster.crash("a1", 7);
    fail_over(&mut cluster, "a1", "a2");
    for version in 6..10 {
        cluster.put("a2", &format!("kept-{version}"), version, &object(version, 100)).unwrap();
    }
    cluster.heal();
    cluster.start("a1");
    cluster.change(|config| config.members.push(member("a1", MemberState::CatchingUp)));
    let in_sync = |c: &Cluster| c.placement.volumes[&VOLUME].in_sync().count() == 3 && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, in_sync), "a1 comes back");
    cluster.run(Duration::from_secs(1));
    let last = cluster.core("a2").volumes()[&VOLUME].holding().last();
    assert_eq!(cluster.core("a1").volumes()[&VOLUME].holding().last(), last);
    for version in 2..5 {
        let key = format!("lost-{version}");
        assert_eq!(cluster.get("a2", &key).response, Some(Err(Refusal::NotFound)));
    }
}

#[test]
fn committed_point_is_a_lower_bound() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.put("a1", "last", 2, &object(2, 100)).unwrap();
    for name in NODES {
        cluster.crash(name, 5);
    }
    rot_the_last_record(&mut cluster, "a1");
    for name in NODES {
        cluster.start(name);
    }
    cluster.change(|_| {});
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))), "it fetches what it lost");
    assert_eq!(cluster.get("a1", "last").bytes, object(2, 100));
}

/// Flips a bit in the newest record that carries an object.
fn rot_the_last_record(cluster: &mut Cluster, name: &str) {
    let disk = cluster.machine(name).disk.clone();
    let needle = object(2, 100);
    for (path, bytes) in disk.files() {
        if let Some(at) = bytes.windows(100).position(|window| window == needle) {
            // The record's public part stands before its erasable part.
            disk.flip_bit(&path, at as u64 - 300, 0);
            return;
        }
    }
    panic!("the record is on the disk");
}

#[test]
fn r026_r025_a_doubtful_log_alone_does_not_lead() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "last", 2, &object(2, 100)).unwrap();
    for name in NODES {
        cluster.crash(name, 5);
    }
    rot_the_last_record(&mut cluster, "a1");
    cluster.start("a1");
    cluster.start("b1");
    cluster.cut("a1", "b1");
    cluster.change(|config| {
        config.members = vec![member("a1", MemberState::InSync), member("b1", MemberState::CatchingUp)];
    });
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.serving(), None, "the tail may have held what was acknowledged");
    cluster.heal();
    cluster.change(|config| {
        config.members = vec![member("a1", MemberState::InSync), member("b1", MemberState::InSync)];
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.get("a1", "last").bytes, object(2, 100));
}

#[test]
fn r032_a_retry_after_a_failover_gets_the_first_answer_and_makes_no_second_version() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 100);
    let call = cluster.put_call("k", 1, &bytes);
    let first = cluster.call("a1", call.clone(), bytes.clone()).unwrap();
    cluster.put("a1", "k", 2, &object(2, 100)).unwrap();
    cluster.crash("a1", 1);
    fail_over(&mut cluster, "a1", "a2");
    let again = cluster.call("a2", call.clone(), bytes.clone()).unwrap();
    let (TenantAnswer::Stored(first), TenantAnswer::Stored(again)) = (first, again) else { panic!() };
    assert_eq!((first.version, first.lsn, first.epoch), (again.version, again.lsn, again.epoch));
    assert_eq!(cluster.get("a2", "k").bytes, object(2, 100), "the newer version stays");
    let TenantCall::Put(put) = call else { panic!() };
    let other = TenantCall::Put(trefoil_protocol::message::tenant::PutRequest { kek_version: 9, ..put });
    assert_eq!(cluster.call("a2", other, bytes), Err(Refusal::TokenMismatch));
}

#[test]
fn not_applied_is_sealed() {
    let mut cluster = Cluster::healthy(&NODES);
    let bytes = object(1, 300_000);
    let call = cluster.put_call("k", 1, &bytes);
    let TenantCall::Put(put) = &call else { panic!() };
    let token = put.token.token;
    let hanging = cluster.ask("a1", call.clone(), Bytes::new());
    cluster.stream("a1", hanging, &bytes);
    cluster.run(Duration::from_secs(1));
    let outcome = cluster.call("a1", TenantCall::Outcome { token }, Bytes::new());
    assert_eq!(outcome, Ok(TenantAnswer::NotApplied));
    cluster.finish("a1", hanging, &bytes);
    assert_eq!(cluster.wait(hanging).response, Some(Err(Refusal::Expired)));
    cluster.crash("a1", 1);
    fail_over(&mut cluster, "a1", "a2");
    let retry = cluster.begin("a2", call, &bytes);
    assert_eq!(cluster.wait(retry).response, Some(Err(Refusal::Expired)));
    assert_eq!(cluster.get("a2", "k").response, Some(Err(Refusal::NotFound)));
}

#[test]
fn a_mutation_under_way_at_a_failover_is_applied_once_or_never() {
    for seed in 0..8 {
        let mut cluster = Cluster::healthy(&NODES);
        let bytes = object(1, 200_000);
        let call = cluster.put_call("k", 1, &bytes);
        let TenantCall::Put(put) = &call else { panic!() };
        let token = put.token.token;
        cluster.begin("a1", call.clone(), &bytes);
        cluster.run(Duration::from_millis(seed));
        cluster.crash("a1", seed);
        fail_over(&mut cluster, "a1", "a2");
        let outcome = cluster.call("a2", TenantCall::Outcome { token }, Bytes::new()).unwrap();
        let heard = cluster.get("a2", "k");
        match outcome {
            TenantAnswer::Applied(_) => assert_eq!(heard.bytes, bytes, "seed {seed}"),
            TenantAnswer::NotApplied => {
                assert_eq!(heard.response, Some(Err(Refusal::NotFound)), "seed {seed}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_is_acknowledged_before_the_epoch_is_activated() {
    let mut cluster = Cluster::new(&NODES);
    cluster.placement.activates = false;
    let members = NODES.map(|name| member(name, MemberState::InSync));
    cluster.placement.create(VOLUME, crate::cluster::TENANT, members.to_vec());
    cluster.run(Duration::from_secs(5));
    let ready = cluster.placement.asked.iter().filter(|(_, r)| matches!(r, ControlRequest::Ready { .. }));
    assert!(ready.count() > 1, "it says so until it is heard");
    let put = cluster.put("a1", "k", 1, &object(1, 10));
    assert_eq!(put, Err(Refusal::LeaseExpired));
}

#[test]
fn a_silent_member_is_reported_and_a_write_waits_for_it() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.crash("b1", 1);
    let request = cluster.begin_put("a1", "k", 1, &object(1, 100));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.heard(request).response, None, "no acknowledgement without an in-sync member");
    let lagging = cluster.placement.asked.iter().any(|(_, asked)| {
        matches!(asked, ControlRequest::Lagging { stores, .. } if *stores == [store_of(node("b1"))])
    });
    assert!(lagging);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    let heard = cluster.wait(request);
    let Some(Ok(TenantAnswer::Stored(receipt))) = heard.response else { panic!("{heard:?}") };
    assert_eq!(receipt.protection, Protection::SingleDc);
}

#[test]
fn a_primary_whose_own_promise_takes_long_takes_nobody_for_silent() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("a1").syncs_held = true;
    let _ = cluster.begin_put("a1", "k", 1, &object(1, 100));
    let before = cluster.machine("a1").hurried;
    cluster.change(|_| {});
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.machine("a1").hurried, before + 1, "the promise waits for the flush of the put");
    assert_eq!(cluster.serving(), None);
    cluster.release_syncs("a1");
    assert!(cluster.run_until(Duration::from_secs(1), |c| c.serving() == Some(node("a1"))));
    let complains = |asked: &ControlRequest| matches!(asked, ControlRequest::Lagging { .. });
    assert!(!cluster.placement.asked.iter().any(|(_, asked)| complains(asked)), "nobody was asked before");
}

#[test]
fn a_restarted_primary_peers_again_under_the_same_epoch() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.crash("a1", 4);
    cluster.start("a1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.get("a1", "k").bytes, object(1, 100));
    cluster.put("a1", "k", 2, &object(2, 100)).unwrap();
    cluster.crash("a2", 4);
    cluster.start("a2");
    cluster.put("a1", "k", 3, &object(3, 100)).unwrap();
}

#[test]
fn r008_a_damaged_record_in_the_middle_of_a_members_log_is_healed_from_the_primary() {
    for victim in ["a1", "b1"] {
        let mut cluster = Cluster::healthy(&NODES);
        cluster.put("a1", "last", 2, &object(2, 100)).unwrap();
        for version in 3..8 {
            cluster.put("a1", &format!("k{version}"), version, &object(version, 100)).unwrap();
        }
        cluster.run(Duration::from_secs(1));
        cluster.crash(victim, 1);
        rot_the_last_record(&mut cluster, victim);
        cluster.start(victim);
        cluster.change(|_| {});
        assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))), "{victim}");
        cluster.put("a1", "after", 9, &object(9, 100)).unwrap();
        cluster.run(Duration::from_secs(3));
        let holding = cluster.core(victim).volumes()[&VOLUME].holding();
        assert_eq!(holding.hole(), None, "{victim}");
        assert!(holding.is_verified(), "{victim}");
        assert_eq!(cluster.get_version(victim, "last", 2).bytes, object(2, 100), "{victim}");
    }
}

#[test]
fn a_record_that_a_crash_broke_off_on_the_primary_alone_holds_nothing_up() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    for member in ["a2", "b1"] {
        cluster.cut("a1", member);
    }
    let unanswered = cluster.begin_put("a1", "last", 2, &object(2, 100));
    cluster.begin_put("a1", "other", 3, &object(3, 100));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.heard(unanswered).response, None);
    for name in NODES {
        cluster.crash(name, 5);
    }
    cluster.heal();
    rot_the_last_record(&mut cluster, "a1");
    for name in NODES {
        cluster.start(name);
    }
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.get("a1", "k").bytes, object(1, 100));
    assert_eq!(cluster.get("a1", "last").response, Some(Err(Refusal::NotFound)));
    cluster.put("a1", "last", 4, &object(4, 100)).unwrap();
}

/// What was acknowledged is on the members before they hear that it is committed. A primary whose epoch is activated and
/// has not begun has a lease, and has not applied all of that.
#[test]
fn a_primary_whose_epoch_has_not_begun_denies_no_version() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.lose = Some(|body| matches!(body, PeerBody::Append { count: 0, .. }));
    cluster.put("a1", "k", 1, &object(1, 500)).unwrap();
    cluster.crash("a1", 1);
    cluster.lose = None;
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("a1"));
        config.primary = Some(node("a2"));
    });
    let activated = |c: &Cluster| {
        let config = c.core("a2").volumes()[&VOLUME].config();
        config.epoch == c.epoch() && config.activated
    };
    assert!(cluster.run_until(MINUTE, activated));
    cluster.machine("b1").syncs_held = true;
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.serving(), None, "the start of the epoch is on one disk only");
    let heard = cluster.get_version("a2", "k", 1);
    assert_eq!(heard.response, Some(Err(Refusal::LeaseExpired)), "not that there is no such version");
    cluster.release_syncs("b1");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert_eq!(cluster.get_version("a2", "k", 1).bytes, object(1, 500));
}

#[test]
fn a_member_denies_a_version_only_to_those_who_know_its_primary() {
    let mut cluster = Cluster::healthy(&NODES);
    assert_eq!(cluster.get_version("b1", "k", 9).response, Some(Err(Refusal::Changed)));
    // The client has heard of an epoch that this member has not: whoever leads that one knows more.
    cluster.placement.change(VOLUME, |_| {});
    let heard = cluster.get_version("b1", "k", 9);
    let here = Refusal::NotPrimary { epoch: Epoch(1), primary: Some(node("a1")) };
    assert_eq!(heard.response, Some(Err(here)));
}
