//! One data centre acknowledges alone: the control plane knows what that puts at risk, before it is.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::{MemberState, Protection, SingleDcPolicy};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::message::control::{AT_RISK_RECORDS, Visibility};
use trefoil_protocol::message::tenant::{Precondition, Refusal, TenantAnswer, TenantCall};

use crate::cluster::{Cluster, VOLUME, member, name, node, object, put_call};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

/// B is lost; a1 and a2 go on alone.
fn alone() -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "old", 1, &object(1, 100)).unwrap();
    cluster.put("a1", "other", 2, &object(2, 100)).unwrap();
    cluster.crash("b1", 1);
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster
}

fn change_of(cluster: &Cluster, version: u8) -> Option<Visibility> {
    cluster.placement.changes.get(&VersionId([version; 16])).copied()
}

#[test]
fn deletes_under_single_dc_reach_the_control_plane() {
    let mut cluster = alone();
    cluster.placement.is_deaf = true;
    let token = cluster.token();
    let delete = TenantCall::Delete { key: name("old"), precondition: Precondition::Any, token };
    let first = cluster.ask("a1", delete.clone(), Bytes::new());
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.heard(first).response, None, "not before the control plane has it");
    let retry = cluster.ask("a1", delete, Bytes::new());
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.heard(retry).response, None, "and a retry hears it no sooner");
    let outcome = cluster.ask("a1", TenantCall::Outcome { token: token.token }, Bytes::new());
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.heard(outcome).response, None, "nor whoever asks what became of it");
    assert_eq!(change_of(&cluster, 1), None);
    cluster.placement.is_deaf = false;
    for request in [first, retry] {
        assert!(matches!(cluster.wait(request).response, Some(Ok(TenantAnswer::Deleted { .. }))));
    }
    assert!(matches!(cluster.wait(outcome).response, Some(Ok(TenantAnswer::Applied(_)))));
    assert_eq!(change_of(&cluster, 1), Some(Visibility::Hidden));
    cluster.undelete("a1", "old").unwrap();
    assert_eq!(change_of(&cluster, 1), Some(Visibility::Live));
    // An overwrite hides too, and is known with the next delete of the key at the latest.
    cluster.put("a1", "other", 3, &object(3, 100)).unwrap();
    cluster.delete("a1", "other").unwrap();
    assert_eq!(change_of(&cluster, 2), Some(Visibility::Hidden));
    assert_eq!(change_of(&cluster, 3), Some(Visibility::Hidden));
}

#[test]
fn the_next_primary_answers_no_delete_that_the_control_plane_does_not_have() {
    let mut cluster = alone();
    cluster.placement.is_deaf = true;
    let token = cluster.token();
    let delete = TenantCall::Delete { key: name("old"), precondition: Precondition::Any, token };
    cluster.ask("a1", delete.clone(), Bytes::new());
    cluster.run(Duration::from_secs(2));
    cluster.change(|config| config.primary = Some(node("a2")));
    cluster.run(Duration::from_secs(5));
    let retry = cluster.ask("a2", delete, Bytes::new());
    cluster.run(Duration::from_secs(5));
    assert!(!matches!(cluster.heard(retry).response, Some(Ok(_))));
    cluster.placement.is_deaf = false;
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a2"))));
    assert_eq!(cluster.delete("a2", "old"), Err(Refusal::NotFound));
    assert!(cluster.run_until(MINUTE, |c| change_of(c, 1) == Some(Visibility::Hidden)));
}

#[test]
fn r018_a_strict_tenant_is_refused_writes_in_one_data_centre_and_reads_on() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.single_dc = SingleDcPolicy::Refuse);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.put("a1", "old", 1, &object(1, 100)).unwrap();
    cluster.run(Duration::from_secs(1));
    // A put that is under way when B is lost: it must not become a promise of A alone.
    cluster.crash("b1", 1);
    let token = cluster.token();
    let call = put_call("late", 2, &object(2, 100), token);
    let late = cluster.begin("a1", call.clone(), &object(2, 100));
    cluster.run(Duration::from_secs(1));
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert_eq!(cluster.wait(late).response, Some(Err(Refusal::Unavailable)));
    let retry = cluster.begin("a1", call, &object(2, 100));
    assert_eq!(cluster.wait(retry).response, Some(Err(Refusal::Unavailable)));
    let outcome = cluster.call("a1", TenantCall::Outcome { token: token.token }, Bytes::new());
    assert_eq!(outcome, Err(Refusal::Unavailable));
    assert_eq!(cluster.put("a1", "new", 3, &object(3, 100)), Err(Refusal::SingleDc));
    let streamed = cluster.put_call("large", 4, &object(4, 100_000));
    assert_eq!(cluster.call("a1", streamed, Bytes::new()), Err(Refusal::SingleDc));
    assert_eq!(cluster.delete("a1", "old"), Err(Refusal::SingleDc));
    assert_eq!(cluster.undelete("a1", "old"), Err(Refusal::SingleDc));
    assert_eq!(cluster.get("a1", "old").bytes, object(1, 100));
    // B is back, complete: what was under way is in both, and is answered.
    cluster.start("b1");
    cluster.change(|config| {
        config.members.push(member("b1", MemberState::InSync));
        config.protection = Protection::Restoring;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    let outcome = cluster.call("a1", TenantCall::Outcome { token: token.token }, Bytes::new());
    assert!(matches!(outcome, Ok(TenantAnswer::Applied(_))), "{outcome:?}");
    cluster.put("a1", "new", 3, &object(3, 100)).unwrap();
}

#[test]
fn no_more_is_acknowledged_than_the_control_plane_committed_a_bound_for() {
    let mut cluster = alone();
    cluster.placement.reserves = 150;
    cluster.run(Duration::from_secs(5));
    cluster.placement.is_deaf = true;
    let known = cluster.placement.noted[&VOLUME];
    cluster.put("a1", "fits", 10, &object(1, 100)).unwrap();
    let next = cluster.begin_put("a1", "does not", 11, &object(2, 100));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.heard(next).response, None, "200 bytes would be at risk where 150 are known");
    let replica = &cluster.core("a1").volumes()[&VOLUME];
    let counted = replica.primary().unwrap().at_risk(replica.holding()).unwrap();
    assert_eq!((counted.objects, counted.bytes), (known.objects + 1, known.bytes + 100));
    assert!(counted.last.0 <= known.up_to.0 + AT_RISK_RECORDS);
    cluster.placement.is_deaf = false;
    assert!(matches!(cluster.wait(next).response, Some(Ok(TenantAnswer::Stored(_)))));
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.placement.noted[&VOLUME].objects, known.objects + 2);
}
