//! Reads of exact versions from replicas that have lost the control plane: with the tenant's and the client's
//! consent, marked, and never of what this store knows to be deleted.

use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection, StaleReads};
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantResponse};

use crate::cluster::{Cluster, Heard, node, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

/// What was answered: marked or not.
fn mark(response: &Option<TenantResponse>) -> Option<bool> {
    match response {
        Some(Ok(TenantAnswer::Object(view))) => Some(view.stale_possible),
        _ => None,
    }
}

fn refused(heard: &Heard) -> Option<&Refusal> {
    heard.response.as_ref().and_then(|response| response.as_ref().err())
}

/// Objects that ride in their record and streamed ones; the control plane is out of reach of everybody.
fn cut_off(policy: StaleReads) -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.stale_reads = policy);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.put("a1", "small", 1, &object(1, 100)).unwrap();
    cluster.put("a1", "large", 2, &object(2, 200_000)).unwrap();
    cluster.run(Duration::from_secs(2));
    cluster.out_of_reach.extend(NODES.map(node));
    cluster
}

#[test]
fn r040_without_a_lease_a_version_is_given_marked_where_tenant_and_client_allow_it() {
    let mut cluster = cut_off(StaleReads::Allow);
    for name in NODES {
        assert_eq!(
            mark(&cluster.get_stale(name, "small", 1).response),
            Some(false),
            "{name}: the lease runs"
        );
    }
    cluster.run(Duration::from_secs(7));
    for name in NODES {
        for (key, version, bytes) in [("small", 1, object(1, 100)), ("large", 2, object(2, 200_000))] {
            let heard = cluster.get_stale(name, key, version);
            assert_eq!((mark(&heard.response), heard.bytes), (Some(true), bytes), "{name}");
            let strict = cluster.get_version(name, key, version);
            assert_eq!(refused(&strict), Some(&Refusal::LeaseExpired), "{name}: nobody hears it unasked");
        }
        assert_eq!(refused(&cluster.get_stale(name, "small", 9)), Some(&Refusal::Changed), "{name}");
    }
    assert_eq!(
        refused(&cluster.get("a1", "small")),
        Some(&Refusal::LeaseExpired),
        "\"latest\" is no version"
    );
    cluster.out_of_reach.clear();
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.run(Duration::from_secs(2));
    for name in NODES {
        assert_eq!(mark(&cluster.get_stale(name, "small", 1).response), Some(false), "{name}");
    }
}

#[test]
fn r040_a_tenant_that_allows_none_gets_none() {
    let mut cluster = cut_off(StaleReads::Refuse);
    cluster.run(Duration::from_secs(7));
    for name in NODES {
        assert_eq!(refused(&cluster.get_stale(name, "small", 1)), Some(&Refusal::LeaseExpired), "{name}");
    }
}

#[test]
fn r040_a_version_whose_delete_is_on_the_store_is_not_given() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.stale_reads = StaleReads::Allow);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.run(Duration::from_secs(2));
    // The members have the delete, and nobody ever tells them that it is committed.
    cluster.delete("a1", "k").unwrap();
    cluster.cut("a1", "a2");
    cluster.cut("a1", "b1");
    cluster.out_of_reach.extend(NODES.map(node));
    cluster.run(Duration::from_secs(7));
    for name in NODES {
        assert_eq!(refused(&cluster.get_stale(name, "k", 1)), Some(&Refusal::Changed), "{name}");
    }
}

/// What is given up: a replica that was removed behind its back may give what is deleted by now, and says so.
#[test]
fn r040_a_replica_that_was_removed_unheard_marks_what_it_gives() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.change(|config| config.stale_reads = StaleReads::Allow);
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.put("a1", "k", 1, &object(1, 100)).unwrap();
    cluster.run(Duration::from_secs(1));
    cluster.cut("b1", "a1");
    cluster.cut("b1", "a2");
    cluster.out_of_reach.insert(node("b1"));
    cluster.change(|config| {
        config.members.retain(|member| member.node != node("b1"));
        config.protection = Protection::SingleDc;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.delete("a1", "k").unwrap();
    cluster.run(Duration::from_secs(7));
    assert_eq!(mark(&cluster.get_stale("b1", "k", 1).response), Some(true));
    // As soon as it hears that it was removed it gives nothing.
    cluster.heal();
    cluster.out_of_reach.clear();
    cluster.run(Duration::from_secs(2));
    cluster.out_of_reach.insert(node("b1"));
    cluster.run(Duration::from_secs(7));
    assert!(matches!(refused(&cluster.get_stale("b1", "k", 1)), Some(Refusal::NotPrimary { .. })));
}

#[test]
fn r040_a_member_that_catches_up_and_a_process_that_was_just_started_give_nothing() {
    let mut cluster = cut_off(StaleReads::Allow);
    cluster.out_of_reach.clear();
    cluster.placement.takes_in = false;
    cluster.change(|config| {
        let member = config.members.iter_mut().find(|member| member.node == node("b1")).expect("a member");
        member.state = MemberState::CatchingUp;
    });
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.run(Duration::from_secs(2));
    cluster.out_of_reach.extend(NODES.map(node));
    cluster.run(Duration::from_secs(7));
    assert!(matches!(refused(&cluster.get_stale("b1", "small", 1)), Some(Refusal::NotPrimary { .. })));
    assert_eq!(mark(&cluster.get_stale("a2", "small", 1).response), Some(true));
    cluster.crash("a2", 3);
    cluster.start("a2");
    cluster.run(Duration::from_secs(7));
    assert!(refused(&cluster.get_stale("a2", "small", 1)).is_some(), "it was told nothing in this run");
}
