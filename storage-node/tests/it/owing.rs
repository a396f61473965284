//! A primary that has every record and lacks payload: what it answers, whom it asks, and when it does not lead at all.

use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantCall};

use crate::cluster::{Cluster, VOLUME, member, node, object, store_of};

const NODES: [&str; 5] = ["a1", "a2", "b1", "b2", "b3"];
const MINUTE: Duration = Duration::from_secs(60);

/// A is lost with two of the three copies, and B goes on with b1 alone; these catch up and get no older payload.
fn alone(behind: &[&str]) -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "old", 1, &object(1, 400_000)).unwrap();
    cluster.put("a1", "hidden", 2, &object(2, 400_000)).unwrap();
    cluster.delete("a1", "hidden").unwrap();
    cluster.put("a1", "small", 3, &object(3, 100)).unwrap();
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { fetched: true, .. }));
    cluster.crash("a1", 1);
    cluster.crash("a2", 2);
    b1_leads(&mut cluster, behind);
    cluster.put("b1", "mid", 4, &object(4, 400_000)).unwrap();
    // Whoever caught up hears that this is committed: a copy of it is not asked for before it leads.
    cluster.run(Duration::from_secs(1));
    cluster
}

fn b1_leads(cluster: &mut Cluster, behind: &[&str]) {
    cluster.change(|config| {
        config.members = vec![member("b1", MemberState::InSync)];
        config.members.extend(behind.iter().map(|name| member(name, MemberState::CatchingUp)));
        config.primary = Some(node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b1"))));
}

/// b2 is told to lead.
fn b2_owes(cluster: &mut Cluster) {
    cluster.change(|config| {
        config.members = vec![member("b2", MemberState::Owing), member("b3", MemberState::CatchingUp)];
        config.primary = Some(node("b2"));
    });
}

fn is_owed(cluster: &Cluster, answer: &Option<Result<TenantAnswer, Refusal>>) -> bool {
    let held = &cluster.placement.volumes[&VOLUME].ever_held;
    match answer {
        Some(Err(Refusal::Owed { stores })) => {
            stores.contains(&store_of(node("a1"))) && stores.iter().all(|store| held.contains(store))
        }
        _ => false,
    }
}

#[test]
fn replacement_counts_from_its_join_and_says_what_it_owes() {
    let mut cluster = alone(&["b2"]);
    cluster.crash("b1", 3);
    b2_owes(&mut cluster);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))));
    // Whose bytes are here is read and written as ever, and so is what is new.
    assert_eq!(cluster.get("b2", "small").bytes, object(3, 100));
    assert_eq!(cluster.get("b2", "mid").bytes, object(4, 400_000));
    assert_eq!(cluster.get("b2", "never").response, Some(Err(Refusal::NotFound)));
    let new = object(5, 300_000);
    let Ok(TenantAnswer::Stored(receipt)) = cluster.put("b2", "new", 5, &new) else { panic!() };
    assert_eq!(receipt.copies.len(), 2);
    cluster.put("b2", "small", 6, &object(6, 100)).unwrap();
    // What is owed is neither read, nor changed, nor said not to be there.
    let read = cluster.get("b2", "old").response;
    assert!(is_owed(&cluster, &read), "{read:?}");
    for answer in [
        cluster.put("b2", "old", 7, &object(7, 100)),
        cluster.put("b2", "old", 8, &object(8, 300_000)),
        cluster.delete("b2", "old"),
        cluster.undelete("b2", "hidden"),
    ] {
        assert!(is_owed(&cluster, &Some(answer.clone())), "{answer:?}");
    }
    let page = TenantCall::List { prefix: String::new(), after: None, limit: 10 };
    let Ok(TenantAnswer::Page { entries, .. }) = cluster.call("b2", page, Vec::new()) else { panic!() };
    let keys: Vec<String> =
        entries.iter().map(|entry| String::from_utf8_lossy(entry.key.as_bytes()).into_owned()).collect();
    assert_eq!(keys, ["mid", "new", "old", "small"]);
    // A store that is no member any more returns, and has it.
    cluster.lose = None;
    cluster.start("a1");
    let is_paid_up = |c: &Cluster| c.placement.volumes[&VOLUME].owing().is_none() && c.serving().is_some();
    assert!(cluster.run_until(MINUTE, is_paid_up));
    assert_eq!(cluster.get("b2", "old").bytes, object(1, 400_000));
    assert_eq!(cluster.get("b2", "new").bytes, new);
    assert!(matches!(cluster.undelete("b2", "hidden"), Ok(TenantAnswer::Undeleted { .. })));
    assert_eq!(cluster.get("b2", "hidden").bytes, object(2, 400_000));
    cluster.delete("b2", "old").unwrap();
}

#[test]
fn a_copy_that_owes_begins_again_where_it_was() {
    let mut cluster = alone(&["b2"]);
    cluster.crash("b1", 3);
    b2_owes(&mut cluster);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))));
    cluster.put("b2", "new", 5, &object(5, 300_000)).unwrap();
    for (seed, stop) in [(5, Cluster::stop as fn(&mut Cluster, &str)), (6, |c, name| c.crash(name, 6))] {
        stop(&mut cluster, "b3");
        stop(&mut cluster, "b2");
        cluster.start("b2");
        cluster.change(|_| {});
        cluster.run(Duration::from_secs(5));
        cluster.start("b3");
        assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))), "{seed}");
        let read = cluster.get("b2", "old").response;
        assert!(is_owed(&cluster, &read), "nothing is cut for want of its bytes: {read:?}");
        assert_eq!(cluster.get("b2", "new").bytes, object(5, 300_000));
    }
}

#[test]
fn who_caught_up_does_not_lead_before_all_are_heard_that_may_have_acknowledged() {
    let mut cluster = alone(&["b2", "b3"]);
    cluster.cut("b1", "b2");
    cluster.put("b1", "late", 5, &object(5, 100)).unwrap();
    cluster.crash("b1", 3);
    cluster.cut("b2", "b3");
    b2_owes(&mut cluster);
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.serving(), None);
    cluster.heal();
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))));
    assert_eq!(cluster.get("b2", "late").bytes, object(5, 100));
}

#[test]
fn who_caught_up_and_never_heard_of_the_last_epoch_does_not_lead() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "old", 1, &object(1, 100)).unwrap();
    cluster.crash("a1", 1);
    cluster.crash("a2", 2);
    cluster.cut("b1", "b2");
    cluster.change(|config| {
        config.members = vec![member("b1", MemberState::InSync), member("b2", MemberState::CatchingUp)];
        config.primary = Some(node("b1"));
        config.protection = Protection::SingleDc;
    });
    cluster.run(Duration::from_secs(5));
    assert!(cluster.placement.volumes[&VOLUME].activated);
    cluster.crash("b1", 3);
    cluster.heal();
    b2_owes(&mut cluster);
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.serving(), None, "it knows nothing of what was acknowledged before");
}

#[test]
fn who_caught_up_and_whose_log_ends_in_doubt_does_not_lead() {
    let mut cluster = alone(&["b2"]);
    cluster.crash("b1", 3);
    cluster.crash("b2", 4);
    cluster.start("b2");
    b2_owes(&mut cluster);
    cluster.run(Duration::from_secs(30));
    assert_eq!(cluster.serving(), None);
}

#[test]
fn r001_what_waits_while_another_epoch_begins_is_answered_with_its_bytes_on_two_disks() {
    let mut cluster = alone(&["b2"]);
    cluster.crash("b1", 3);
    b2_owes(&mut cluster);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("b2"))));
    // The record of a new object comes to the other store, and its bytes do not.
    cluster.lose = Some(|body| matches!(body, PeerBody::Payload { .. }));
    let bytes = object(5, 300_000);
    let put = cluster.begin_put("b2", "new", 5, &bytes);
    cluster.run(Duration::from_secs(1));
    for epochs in 1..=2 {
        cluster.change(|_| {});
        cluster.run(Duration::from_secs(10));
        assert!(cluster.placement.volumes[&VOLUME].activated);
        assert_eq!(cluster.heard(put).response, None, "its bytes are on one disk, {epochs} epochs later");
    }
    cluster.lose = None;
    assert!(matches!(cluster.wait(put).response, Some(Ok(TenantAnswer::Stored(_)))));
    assert_eq!(cluster.get("b2", "new").bytes, bytes);
}
