//! Row 16: no store that holds everything is there, and one that only caught up leads. It does so only where all are
//! reached that have every acknowledged record together, and makes way for a store that has everything.

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::{NodeId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::control::ControlRequest;

use crate::cluster::{Cluster, node};

const VOLUME: VolumeId = VolumeId(1);

/// A is lost and B goes on alone: who leads there, and who catches up.
fn alone() -> (Cluster, String, Vec<String>) {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run_until(30_000, |c| {
        let config = c.config();
        config.activated && config.members.len() == 3 && config.members.iter().all(|m| m.dc.as_str() == "b")
    });
    let primary = cluster.primary();
    let behind: Vec<String> = cluster.config().catching_up().map(|member| member.node.to_string()).collect();
    assert_eq!(behind.len(), 2);
    (cluster, primary, behind)
}

fn owing(cluster: &Cluster) -> Option<NodeId> {
    cluster.config().owing().map(|member| member.node)
}

#[test]
fn replacement_counts_from_its_join_and_leads_when_nobody_else_is_left() {
    let (mut cluster, first, behind) = alone();
    let account = cluster.record().at_risk.clone();
    cluster.stop(&[&first]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    let config = cluster.config();
    assert_eq!(config.primary, owing(&cluster));
    assert!(behind.contains(&cluster.primary()));
    assert_eq!((config.protection, config.in_sync().count()), (Protection::SingleDc, 0));
    assert!(cluster.record().debt_since.is_some());
    assert_eq!(cluster.record().at_risk, account, "the account goes on");
    // A store that has the bytes returns, and is a member that catches up.
    cluster.restart("a1");
    cluster.restart("a2");
    cluster.run_until(10_000, |c| c.config().members.iter().any(|m| m.dc.as_str() == "a"));
    assert_eq!(cluster.config().primary, owing(&cluster), "it leads on");
    // It is complete when it says so itself.
    let store = cluster.config().owing().unwrap().store;
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::Complete { volume: VOLUME, epoch, store });
    cluster.run_until(10_000, |c| owing(c).is_none() && c.config().activated);
    assert_eq!(cluster.record().complete_stores(), [store].into());
    for _ in 0..60 {
        cluster.complete_all();
        cluster.run(500);
    }
    let config = cluster.config();
    assert_eq!(config.in_sync().count(), 3, "{config:#?}");
    assert!(matches!(config.protection, Protection::Restoring | Protection::BothDcs), "{config:#?}");
}

#[test]
fn nobody_leads_while_one_is_missing_that_may_have_acknowledged() {
    let (mut cluster, first, behind) = alone();
    cluster.stop(&[&first, &behind[1]]);
    cluster.run(60_000);
    assert_eq!(cluster.config().primary, None);
    cluster.restart(&behind[1]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
}

#[test]
fn nobody_leads_who_caught_up_behind_two_that_acknowledged_alone() {
    let (mut cluster, first, behind) = alone();
    let config = cluster.config();
    let store = config.catching_up().next().unwrap().store;
    cluster.report(ControlRequest::Complete { volume: VOLUME, epoch: config.epoch, store });
    cluster.run_until(10_000, |c| c.in_sync().len() == 2 && c.config().activated);
    let second = behind.iter().find(|name| cluster.in_sync().contains(name)).unwrap().clone();
    let third = behind.iter().find(|name| **name != second).unwrap();
    cluster.stop(&[&first, &second]);
    cluster.run(60_000);
    assert!(cluster.nodes[&node(third)].renews);
    assert_eq!(cluster.config().primary, None);
    cluster.restart(&second);
    cluster.run_until(10_000, |c| c.config().activated);
    assert_eq!((cluster.primary(), owing(&cluster)), (second, None));
}

#[test]
fn whoever_caught_up_in_the_other_data_centre_leads_if_every_acknowledgement_needed_it() {
    let mut cluster = Cluster::with_volume();
    let remote = cluster.remote();
    cluster.stop(&[&remote]);
    cluster.run_until(15_000, |c| c.config().activated && c.config().catching_up().count() == 1);
    assert_eq!((cluster.in_sync().len(), cluster.protection()), (2, Protection::BothDcs));
    let next = cluster.config().catching_up().next().unwrap().node;
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    assert_eq!((cluster.config().primary, cluster.protection()), (Some(next), Protection::SingleDc));
}

#[test]
fn a_store_that_holds_everything_and_returns_in_time_leads_instead() {
    let (mut cluster, first, behind) = alone();
    for name in &behind {
        cluster.nodes.get_mut(&node(name)).unwrap().reports_ready = false;
    }
    cluster.stop(&[&first]);
    cluster.run_until(30_000, |c| owing(c).is_some());
    cluster.run(20_000);
    assert!(!cluster.config().activated, "its peering finds that it knows too little");
    cluster.restart(&first);
    cluster.run_until(10_000, |c| c.config().activated);
    assert_eq!((cluster.primary(), owing(&cluster)), (first, None));
}

#[test]
fn whoever_owes_and_dies_is_followed_by_the_next_and_comes_back_behind_it() {
    let (mut cluster, first, _) = alone();
    cluster.stop(&[&first]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    let second = cluster.primary();
    cluster.stop(&[&second]);
    cluster.run_until(30_000, |c| {
        owing(c).is_some_and(|n| n.to_string() != second) || c.config().primary.is_none()
    });
    // It acknowledged with one other, who has all of it and cannot acknowledge alone.
    cluster.restart(&second);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    let states: Vec<MemberState> = cluster.config().members.iter().map(|member| member.state).collect();
    assert_eq!(states.iter().filter(|state| **state == MemberState::Owing).count(), 1, "{states:?}");
}

#[test]
fn two_operators_let_a_volume_go_on_for_good_without_the_bytes_it_waits_for() {
    let (mut cluster, first, _) = alone();
    cluster.stop(&[&first]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    let (volume, epoch) = (VOLUME, cluster.config().epoch);
    let store = cluster.config().owing().unwrap().store;
    let action = JointAction::AcceptLoss { volume, epoch, store };
    let proposal =
        cluster.proposal("ann", AdminRequest::Propose { action, reason: "A burnt down".to_owned() });
    assert!(proposal.shown.iter().any(|line| line.contains("the bytes of older objects")), "{proposal:?}");
    let answer = cluster.operator("bob", AdminRequest::Approve { number: proposal.number });
    assert!(matches!(answer, AdminAnswer::Proposal(_)), "{answer:?}");
    assert_eq!(owing(&cluster), None);
    assert!(
        cluster.record().is_estranged(cluster.nodes[&node("a1")].store)
            || !cluster.record().config.ever_held.contains(&cluster.nodes[&node("a1")].store)
    );
}

#[test]
fn the_last_store_that_has_every_record_is_not_fenced() {
    let (mut cluster, first, _) = alone();
    cluster.stop(&[&first]);
    cluster.run_until(30_000, |c| owing(c).is_some() && c.config().activated);
    let store = cluster.config().owing().unwrap().store;
    let answer = cluster.admin(AdminRequest::FenceStore { store });
    assert!(matches!(answer, AdminAnswer::Refused(_)), "{answer:?}");
}
