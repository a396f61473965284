//! Which store may run where, in which run, and what a wiped, old or fenced one may never do.

use trefoil_protocol::config::NodeState;
use trefoil_protocol::ids::{Epoch, Incarnation, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, Register};

use crate::cluster::{Cluster, node, store};

fn register(cluster: &mut Cluster, asked: Register) -> ControlAnswer {
    cluster.ask(asked.node, ControlRequest::Register(asked))
}

fn incarnation(answer: &ControlAnswer) -> u64 {
    match answer {
        ControlAnswer::Registered { incarnation, .. } => incarnation.0,
        other => panic!("{other:?}"),
    }
}

fn is_denied(answer: &ControlAnswer) -> bool {
    matches!(answer, ControlAnswer::Refused(ControlRefusal::Denied(_)))
}

#[test]
fn every_run_gets_a_number_of_its_own_and_a_repeated_question_the_same_answer() {
    let mut cluster = Cluster::empty();
    let ask = |last| Cluster::register("a1", store("a1"), Incarnation(last));
    assert_eq!(incarnation(&register(&mut cluster, ask(0))), 1);
    assert_eq!(incarnation(&register(&mut cluster, ask(0))), 1, "the answer was lost");
    assert_eq!(incarnation(&register(&mut cluster, ask(1))), 2, "it had reached the disk");
    cluster.start("a1", store("a1"), Incarnation(2));
    assert_eq!(cluster.nodes[&node("a1")].incarnation, Incarnation(3));
    assert_eq!(incarnation(&register(&mut cluster, ask(3))), 4);
}

#[test]
fn r026_an_old_image_of_a_store_is_refused() {
    let mut cluster = Cluster::new();
    let answer = register(&mut cluster, Cluster::register("a1", store("a1"), Incarnation(0)));
    assert!(is_denied(&answer), "{answer:?}");
    cluster.restart("a1");
}

#[test]
fn a_node_is_up_only_after_it_has_renewed() {
    let mut cluster = Cluster::empty();
    register(&mut cluster, Cluster::register("a1", store("a1"), Incarnation(0)));
    assert_eq!(cluster.state().topology.node(node("a1")).unwrap().state, NodeState::Down);
    let watch = ControlRequest::Watch { applied: trefoil_protocol::ids::ConfigIndex(0), partly: None };
    let refused = ControlAnswer::Refused(ControlRefusal::NotYet);
    assert_eq!(cluster.ask(node("a1"), watch), refused);
    cluster.start("a1", store("a1"), Incarnation(0));
    assert_eq!(cluster.state().topology.node(node("a1")).unwrap().state, NodeState::Up);
}

#[test]
fn the_certificate_says_who_registers() {
    let mut cluster = Cluster::new();
    let asked = Cluster::register("a1", store("a1"), Incarnation(1));
    let answer = cluster.ask(node("b1"), ControlRequest::Register(asked));
    assert!(is_denied(&answer));
}

#[test]
fn a_store_belongs_to_one_node_one_key_and_one_data_centre() {
    let mut cluster = Cluster::new();
    assert!(is_denied(&register(&mut cluster, Cluster::register("a2", store("a1"), Incarnation(1)))));
    let mut other_key = Cluster::register("a1", store("a1"), Incarnation(1));
    other_key.store_key = trefoil_protocol::ids::PublicKey([9; 32]);
    assert!(is_denied(&register(&mut cluster, other_key)));
    let mut moved = Cluster::register("a1", store("a1"), Incarnation(1));
    moved.dc = "b".parse().unwrap();
    assert!(is_denied(&register(&mut cluster, moved)));
}

#[test]
fn a_restarted_primary_starts_over_under_a_new_epoch() {
    let mut cluster = Cluster::with_volume();
    let primary = cluster.primary();
    let members = cluster.config().members;
    cluster.nodes.get_mut(&node(&primary)).unwrap().reports_ready = false;
    let known = &cluster.nodes[&node(&primary)];
    let asked = Cluster::register(&primary, known.store, known.incarnation);
    register(&mut cluster, asked);
    let config = cluster.config();
    assert_eq!((config.epoch, config.activated), (Epoch(2), false));
    assert_eq!((config.primary, config.members), (Some(node(&primary)), members));
    let neighbour = cluster.neighbour();
    cluster.restart(&neighbour);
    assert_eq!(cluster.config().epoch, Epoch(2), "a member that only follows keeps its epoch");
}

#[test]
fn r026_a_wiped_store_is_another_store_and_never_counts_as_holding_data() {
    let mut cluster = Cluster::with_volume();
    let (first, neighbour) = (cluster.primary(), cluster.neighbour());
    let remote = cluster.remote();
    cluster.start(&first, store("new1"), Incarnation(0));
    cluster.run_until(15_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    assert_eq!(cluster.primary(), neighbour);
    let config = cluster.config();
    assert!(config.ever_held.contains(&store(&first)), "the old store is not forgotten");
    assert!(config.member_of_store(store(&first)).is_none());
    cluster.start(&neighbour, store("new2"), Incarnation(0));
    cluster.start(&remote, store("new3"), Incarnation(0));
    cluster.run(30_000);
    assert_eq!(cluster.config().primary, None, "no empty store leads");
}

#[test]
fn r026_no_wiped_majority_outvotes_the_one_that_holds_data() {
    let mut cluster = Cluster::with_volume();
    let (first, neighbour, remote) = (cluster.primary(), cluster.neighbour(), cluster.remote());
    cluster.start(&first, store("new1"), Incarnation(0));
    cluster.start(&neighbour, store("new2"), Incarnation(0));
    cluster.run_until(20_000, |c| c.config().activated && c.config().epoch > Epoch(1));
    assert_eq!(cluster.primary(), remote);
    assert_eq!(cluster.in_sync(), [remote]);
}

#[test]
fn r059_a_fenced_store_never_joins_again() {
    let mut cluster = Cluster::with_volume();
    let lost = cluster.neighbour();
    let fence = AdminRequest::FenceStore { store: store(&lost) };
    assert_eq!(cluster.admin(fence.clone()), AdminAnswer::Done);
    assert_eq!(cluster.admin(fence), AdminAnswer::Done, "and fencing is idempotent");
    cluster.run(1_000);
    let config = cluster.config();
    assert!(config.member_of_store(store(&lost)).is_none());
    assert!(!config.ever_held.contains(&store(&lost)), "nobody waits for it any more");
    assert!(cluster.record().fenced.contains(&store(&lost)), "but certificates name it");
    let last = cluster.nodes[&node(&lost)].incarnation;
    let asked = Cluster::register(&lost, store(&lost), last);
    assert!(is_denied(&register(&mut cluster, asked)));
    assert!(is_denied(&cluster.renew(node(&lost))));
    cluster.start(&lost, store("fresh"), Incarnation(0));
    assert_eq!(cluster.state().topology.node(node(&lost)).unwrap().state, NodeState::Up);
}

#[test]
fn the_last_complete_store_cannot_be_fenced() {
    let mut cluster = Cluster::with_volume();
    let (first, neighbour, remote) = (cluster.primary(), cluster.neighbour(), cluster.remote());
    cluster.stop(&[&neighbour, &remote]);
    cluster.run_until(20_000, |c| c.in_sync() == [first.clone()] && c.config().activated);
    let answer = cluster.admin(AdminRequest::FenceStore { store: store(&first) });
    assert!(matches!(answer, AdminAnswer::Refused(_)), "{answer:?}");
    let volume = cluster.state().volumes.get(VolumeId(1)).unwrap();
    assert_eq!(volume.config.primary, Some(node(&first)));
}
