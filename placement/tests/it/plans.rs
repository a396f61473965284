//! Operators' plans: what they say, that they are applied as they are or not at all, and what comes of
//! them at the nodes.

use std::collections::BTreeMap;

use trefoil_protocol::config::{MemberState, NodeState, VolumeConfig};
use trefoil_protocol::ids::{Incarnation, LinkId, NodeId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, LinkPolicy};
use trefoil_protocol::message::plan::{PlanView, Verb};
use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, node, store};

fn with_volumes(count: u32) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create_tenant("acme", count);
    cluster.run(2_000);
    cluster
}

fn plan(cluster: &mut Cluster, verb: Verb) -> PlanView {
    match cluster.admin(AdminRequest::Plan { verb }) {
        AdminAnswer::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn apply(cluster: &mut Cluster, verb: Verb) -> PlanView {
    let plan = plan(cluster, verb);
    assert_eq!(cluster.admin(AdminRequest::Apply { number: plan.number, verb }), AdminAnswer::Done);
    plan
}

fn refused(answer: AdminAnswer) -> String {
    match answer {
        AdminAnswer::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn configs(cluster: &Cluster) -> Vec<VolumeConfig> {
    cluster.state().volumes.all().map(|record| record.config.clone()).collect()
}

/// Time passes while primaries that are asked to yield do so and whoever catches up is complete.
fn work(cluster: &mut Cluster, millis: u64) {
    for _ in 0..millis / 100 {
        cluster.run(100);
        for config in configs(cluster).into_iter().filter(|config| config.activated) {
            let (volume, epoch) = (config.volume, config.epoch);
            let primary = config.primary.unwrap();
            if config.handover.is_some() {
                let stopped_for = Millis(5);
                cluster.ask(primary, ControlRequest::Yield { volume, epoch, stopped_for });
                continue;
            }
            let behind = config.members.iter().filter(|member| member.state == MemberState::CatchingUp);
            for store in behind.map(|member| member.store).collect::<Vec<_>>() {
                cluster.ask(primary, ControlRequest::Complete { volume, epoch, store });
            }
        }
    }
}

fn left(cluster: &mut Cluster) -> u32 {
    match cluster.admin(AdminRequest::Progress) {
        AdminAnswer::Progress(Some(progress)) => progress.left,
        other => panic!("{other:?}"),
    }
}

fn led_in(cluster: &Cluster, dc: &str) -> usize {
    let led = |config: &VolumeConfig| config.primary_member().unwrap().dc.as_str() == dc;
    configs(cluster).iter().filter(|config| led(config)).count()
}

fn held_by(cluster: &Cluster, name: &str) -> usize {
    configs(cluster).iter().filter(|config| config.member(node(name)).is_some()).count()
}

#[test]
fn row_18_a_data_centre_is_left_and_returned_to_without_a_lease_waited_out() {
    let mut cluster = with_volumes(8);
    assert_eq!((led_in(&cluster, "a"), led_in(&cluster, "b")), (4, 4));
    let before = configs(&cluster);
    apply(&mut cluster, Verb::Failover("a".parse().unwrap()));
    work(&mut cluster, 12_000);
    assert_eq!(left(&mut cluster), 0);
    assert_eq!(led_in(&cluster, "b"), 8);
    for config in configs(&cluster) {
        let in_b = config.members.iter().filter(|member| member.dc.as_str() == "b").count();
        assert_eq!((config.members.len(), in_b, config.activated), (3, 2, true));
    }
    let AdminAnswer::Progress(Some(progress)) = cluster.admin(AdminRequest::Progress) else { panic!() };
    assert_eq!(progress.handovers, 4);
    assert!(progress.longest_pause < Millis(2_000), "nobody's lease was waited out: {progress:?}");
    apply(&mut cluster, Verb::Failback("a".parse().unwrap()));
    work(&mut cluster, 12_000);
    assert_eq!((left(&mut cluster), led_in(&cluster, "a")), (0, 4));
    for (then, now) in before.iter().zip(configs(&cluster)) {
        let in_a = |config: &VolumeConfig| config.members.iter().filter(|m| m.dc.as_str() == "a").count();
        assert_eq!(in_a(then), in_a(&now), "volume {}", now.volume);
        assert!(now.epoch > then.epoch || then.primary == now.primary);
    }
}

#[test]
fn row_18_a_handover_can_be_called_off_until_the_configuration_commits() {
    let mut cluster = with_volumes(1);
    let before = cluster.config();
    apply(&mut cluster, Verb::Failover("a".parse().unwrap()));
    cluster.run(200);
    assert!(cluster.config().handover.is_some());
    assert_eq!(cluster.admin(AdminRequest::CancelPlan), AdminAnswer::Done);
    cluster.run(200);
    let after = cluster.config();
    assert_eq!((after.handover, after.epoch, after.primary), (None, before.epoch, before.primary));
    let (volume, epoch) = (after.volume, after.epoch);
    let late = ControlRequest::Yield { volume, epoch, stopped_for: Millis(1) };
    assert_eq!(cluster.report(late), ControlAnswer::Refused(ControlRefusal::NotYet));
    cluster.run(2_000);
    assert_eq!(cluster.config().epoch, before.epoch);
}

#[test]
fn a_handover_that_nobody_yields_to_is_called_off_and_tried_again() {
    let mut cluster = with_volumes(1);
    let before = cluster.config();
    apply(&mut cluster, Verb::Failover("a".parse().unwrap()));
    cluster.run_until(1_000, |c| c.config().handover.is_some());
    cluster.run_until(40_000, |c| c.config().handover.is_none());
    assert_eq!((cluster.config().epoch, cluster.config().primary), (before.epoch, before.primary));
    cluster.run_until(15_000, |c| c.config().handover.is_some());
}

#[test]
fn a_primary_that_dies_while_it_hands_over_is_followed_as_ever() {
    let mut cluster = with_volumes(1);
    apply(&mut cluster, Verb::Failover("a".parse().unwrap()));
    cluster.run_until(1_000, |c| c.config().handover.is_some());
    let first = cluster.primary();
    cluster.stop(&[&first]);
    cluster.run_until(20_000, |c| c.config().activated && c.primary() != first);
    assert_eq!(cluster.config().handover, None);
    work(&mut cluster, 10_000);
    assert!(cluster.primary().starts_with('b'));
}

#[test]
fn a_plan_is_applied_as_it_is_or_not_at_all() {
    let mut cluster = with_volumes(2);
    let failover = plan(&mut cluster, Verb::Failover("a".parse().unwrap()));
    assert!(failover.steps.iter().any(|step| step.lead.is_some()));
    assert_eq!(failover.undo, "trefoil dc failback a");
    assert!(configs(&cluster).iter().all(|config| config.handover.is_none()), "a plan changes nothing");
    let lost = failover.steps[0].join.unwrap().to_string();
    cluster.stop(&[&lost]);
    cluster.run(8_000);
    let (number, verb) = (failover.number, failover.verb);
    assert!(refused(cluster.admin(AdminRequest::Apply { number, verb })).contains("make a new plan"));
    let other = AdminRequest::Apply { number, verb: Verb::Rebalance };
    assert!(refused(cluster.admin(other)).contains("a plan of something else"));
    let unknown = AdminRequest::Apply { number: 99, verb };
    assert!(refused(cluster.admin(unknown)).contains("no such plan"));
    cluster.run(2_000);
    assert!(cluster.state().volumes.wished().next().is_none());
}

#[test]
fn one_plan_at_a_time() {
    let mut cluster = with_volumes(2);
    let later = plan(&mut cluster, Verb::DrainNode(node("a1")));
    apply(&mut cluster, Verb::Failover("b".parse().unwrap()));
    let (number, verb) = (later.number, later.verb);
    assert!(
        refused(cluster.admin(AdminRequest::Apply { number, verb })).contains("another plan is under way")
    );
}

#[test]
fn r035_a_drained_node_gives_up_everything_and_then_can_be_removed() {
    let mut cluster = with_volumes(8);
    let held = held_by(&cluster, "a1");
    assert!(held > 0);
    let drain = apply(&mut cluster, Verb::DrainNode(node("a1")));
    assert_eq!(drain.steps.len(), held, "nothing else moves");
    work(&mut cluster, 20_000);
    let still_there = u32::try_from(held).unwrap();
    assert_eq!(
        (held_by(&cluster, "a1"), left(&mut cluster)),
        (0, still_there),
        "its bytes are not erased yet"
    );
    let remove = AdminRequest::Plan { verb: Verb::RemoveNode(node("a1")) };
    assert!(refused(cluster.admin(remove.clone())).contains("may still hold"));
    let retire: Vec<VolumeId> = cluster.nodes[&node("a1")].retire.iter().copied().collect();
    assert_eq!(retire.len(), held);
    for volume in retire {
        let epoch = cluster.state().volumes.get(volume).unwrap().config.epoch;
        cluster.ask(node("a1"), ControlRequest::Retired { volume, store: store("a1"), epoch });
    }
    assert_eq!(left(&mut cluster), 0);
    apply(&mut cluster, Verb::RemoveNode(node("a1")));
    assert!(cluster.state().topology.node(node("a1")).is_none());
    let again = Cluster::register("a1", store("a1"), Incarnation(9));
    let again = cluster.ask(node("a1"), ControlRequest::Register(again));
    assert!(matches!(again, ControlAnswer::Refused(ControlRefusal::Denied(_))), "{again:?}");
}

#[test]
fn a_drained_node_gets_nothing_new_until_it_is_restored() {
    let mut cluster = with_volumes(4);
    apply(&mut cluster, Verb::DrainNode(node("a1")));
    work(&mut cluster, 15_000);
    cluster.stop(&["a2"]);
    work(&mut cluster, 15_000);
    assert_eq!(held_by(&cluster, "a1"), 0);
    apply(&mut cluster, Verb::RestoreNode(node("a1")));
    work(&mut cluster, 8_000);
    assert!(held_by(&cluster, "a1") > 0, "a2 is lost, and a1 takes its place");
}

/// What every node and every operator is told of link 1.
fn told_of_link_one(cluster: &mut Cluster) -> LinkPolicy {
    let AdminAnswer::Status(status) = cluster.admin(AdminRequest::Status { behind: VolumeId(0) }) else {
        panic!()
    };
    let ControlAnswer::Granted { news, .. } = cluster.renew(node("b2")) else { panic!() };
    assert_eq!(news.links, status.link_policies);
    *news.links.iter().find(|policy| policy.link == LinkId::One).unwrap()
}

#[test]
fn a_link_that_is_drained_is_told_to_every_node() {
    let mut cluster = with_volumes(1);
    apply(&mut cluster, Verb::DrainLink(LinkId::One));
    assert!(told_of_link_one(&mut cluster).drained);
    let both = plan(&mut cluster, Verb::DrainLink(LinkId::Two));
    assert!(both.cannot[0].contains("both stay in use"), "{both:?}");
    apply(&mut cluster, Verb::RestoreLink(LinkId::One));
    assert!(!told_of_link_one(&mut cluster).drained);
}

#[test]
fn a_limit_of_repair_is_told_to_every_node_and_undone() {
    let mut cluster = with_volumes(1);
    let limit = |per_second| Verb::LimitRepair { link: LinkId::One, per_second };
    assert_eq!(apply(&mut cluster, limit(Some(50 << 20))).undo, "trefoil link limit 1 none");
    assert_eq!(told_of_link_one(&mut cluster).repair_limit, Some(50 << 20));
    let too_little = AdminRequest::Plan { verb: limit(Some(1000)) };
    assert!(refused(cluster.admin(too_little)).contains("at least 1048576"));
    assert_eq!(apply(&mut cluster, limit(None)).undo, "trefoil link limit 1 52428800");
    assert_eq!(told_of_link_one(&mut cluster).repair_limit, None);
}

#[test]
fn a_failover_from_a_dead_data_centre_says_what_it_can_and_cannot_do() {
    let mut cluster = with_volumes(2);
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run(25_000);
    let failover = plan(&mut cluster, Verb::Failover("a".parse().unwrap()));
    assert!(failover.risks[0].contains("no node of `a` answers"), "{failover:?}");
    assert!(failover.risks[1].contains("nothing acknowledged is lost"), "{failover:?}");
    assert!(failover.steps.iter().all(|step| step.home == Some("b".parse().unwrap())));
    assert_eq!(
        cluster.admin(AdminRequest::Apply { number: failover.number, verb: failover.verb }),
        AdminAnswer::Done
    );
    let failback = AdminRequest::Plan { verb: Verb::Failback("a".parse().unwrap()) };
    assert!(refused(cluster.admin(failback)).contains("no node of `a` is there"));
}

fn copies(cluster: &Cluster) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for record in cluster.state().topology.nodes().filter(|r| r.entry.state == NodeState::Up) {
        counts.insert(record.entry.node, held_by(cluster, record.entry.node.as_str()));
    }
    counts
}

#[test]
fn a_cluster_grows_to_eight_nodes_and_shrinks_again_with_the_least_movement() {
    let mut cluster = with_volumes(16);
    apply(&mut cluster, Verb::Rebalance);
    work(&mut cluster, 60_000);
    cluster.start("a4", store("a4"), Incarnation(0));
    cluster.start("b4", store("b4"), Incarnation(0));
    cluster.run(1_000);
    let grow = apply(&mut cluster, Verb::Rebalance);
    // Each of the new nodes gets a quarter of the 24 copies of its data centre, and nothing else moves.
    assert_eq!(grow.steps.len(), 12, "{grow:#?}");
    assert!(grow.steps.iter().all(|step| step.join.unwrap().as_str().ends_with('4')));
    work(&mut cluster, 90_000);
    assert_eq!(left(&mut cluster), 0);
    assert!(copies(&cluster).values().all(|count| *count == 6), "{:?}", copies(&cluster));
    assert!(plan(&mut cluster, Verb::Rebalance).steps.is_empty());
    for name in ["a4", "b4"] {
        let shrink = apply(&mut cluster, Verb::DrainNode(node(name)));
        assert_eq!(shrink.steps.len(), 6);
        work(&mut cluster, 60_000);
        assert_eq!(
            (held_by(&cluster, name), left(&mut cluster)),
            (0, 6),
            "all have moved, none is erased yet"
        );
    }
    assert!(configs(&cluster).iter().all(|config| config.members.len() == 3 && config.activated));
}

#[test]
fn row_18_a_plan_ends_although_whoever_was_to_stay_dies() {
    let mut cluster = with_volumes(1);
    let primary = configs(&cluster)[0].primary.unwrap();
    let home = configs(&cluster)[0].member(primary).unwrap().dc;
    let in_b = |cluster: &Cluster| -> Vec<NodeId> {
        let members = configs(cluster)[0].members.clone();
        members.iter().filter(|member| member.dc != home).map(|member| member.node).collect()
    };
    apply(&mut cluster, Verb::Failover(home));
    work(&mut cluster, 12_000);
    assert_eq!((left(&mut cluster), in_b(&cluster).len()), (0, 2));
    apply(&mut cluster, Verb::Failback(home));
    let leaves = cluster.state().volumes.all().find_map(|record| record.wish?.leave).unwrap();
    let stays = configs(&cluster)[0].members.iter().find(|m| m.dc != home && m.store != leaves).unwrap().node;
    cluster.stop(&[&stays.to_string()]);
    work(&mut cluster, 30_000);
    assert_eq!(left(&mut cluster), 0);
    let config = &configs(&cluster)[0];
    assert_eq!((config.members.len(), config.activated, in_b(&cluster).len()), (3, true, 1));
    assert_eq!((config.member_of_store(leaves), config.primary_member().unwrap().dc), (None, home));
}
