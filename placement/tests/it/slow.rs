//! A store that renews its lease and does its work too slowly: who finds it slow, what becomes of it, and
//! when it is trusted again.

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest, SlowState, SlowStore};
use trefoil_protocol::message::control::{ControlRequest, StoreTiming};
use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, node, store};
use crate::hysteresis::move_once;

const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];
const VOLUME: VolumeId = VolumeId(1);
const FAST: u32 = 3_000;
const FAR: u32 = 30_000;
const SLOW: u32 = 400_000;

/// What a probe of a store took, and nothing else of it.
fn probed(of: &str, took: u32) -> StoreTiming {
    StoreTiming { store: store(of), probe_us: Some(took), ack_us: None, flush_us: None, crowded: false }
}

/// Every node measures every store; what `by` finds of `of` is `slow(by, of)` longer than it should be.
fn measure(cluster: &mut Cluster, slow: impl Fn(&str, &str) -> bool) {
    for by in NODES {
        let timing = |of: &&str| {
            let usual = if by[..1] == of[..1] { FAST } else { FAR };
            let took = usual + if slow(by, of) { SLOW } else { 0 };
            StoreTiming { store: cluster.nodes[&node(of)].store, ..probed(of, took) }
        };
        let timings = NODES.iter().map(timing).collect();
        cluster.timings.insert(node(by), timings);
    }
}

fn slow_stores(cluster: &mut Cluster) -> Vec<SlowStore> {
    match cluster.admin(AdminRequest::Status { behind: VolumeId(0) }) {
        AdminAnswer::Status(status) => status.slow,
        other => panic!("{other:?}"),
    }
}

fn state_of(cluster: &Cluster, name: &str) -> Option<MemberState> {
    cluster.config().member(node(name)).map(|member| member.state)
}

fn healthy() -> Cluster {
    let mut cluster = Cluster::with_volume();
    measure(&mut cluster, |_, _| false);
    cluster.run(30_000);
    assert_eq!((cluster.in_sync().len(), slow_stores(&mut cluster)), (3, Vec::new()));
    cluster
}

#[test]
fn r047_a_slow_backup_is_waited_for_no_more_and_keeps_what_it_has_until_another_one_is_complete() {
    let mut cluster = healthy();
    for slow in [cluster.neighbour(), cluster.remote()] {
        let (primary, epoch) = (cluster.primary(), cluster.config().epoch);
        measure(&mut cluster, |_, of| of == slow);
        let took = cluster.run_until(30_000, |c| c.config().epoch > epoch);
        assert!((10_000..15_000).contains(&took), "{slow} after {took} ms");
        assert_eq!(state_of(&cluster, &slow), Some(MemberState::CatchingUp));
        assert_eq!((cluster.config().members.len(), cluster.in_sync().len()), (4, 2));
        assert_eq!((cluster.primary(), cluster.protection()), (primary, Protection::BothDcs));
        cluster.run_until(5_000, |c| c.config().activated);
        // Both that catch up have everything: the slow one is not taken back for that.
        cluster.complete_all();
        cluster.run_until(10_000, |c| c.config().activated && c.config().members.len() == 3);
        assert_eq!(state_of(&cluster, &slow), None);
        let told = slow_stores(&mut cluster).into_iter().find(|told| told.node == node(&slow)).unwrap();
        assert_eq!((told.state, told.store), (SlowState::Slow, store(&slow)));
        assert!(told.took_us > SLOW && told.usual_us <= FAR, "{told:?}");
    }
}

#[test]
fn r047_a_slow_primary_hands_the_volume_over() {
    let mut cluster = healthy();
    let slow = cluster.primary();
    measure(&mut cluster, |_, of| of == slow);
    cluster.run_until(15_000, |c| c.config().handover.is_some());
    let (epoch, stopped_for) = (cluster.config().epoch, Millis(5));
    cluster.report(ControlRequest::Yield { volume: VOLUME, epoch, stopped_for });
    cluster.run_until(1_000, |c| c.primary() != slow);
    assert!(cluster.primary().starts_with('a'), "its neighbour takes over");
    cluster.run_until(3_000, |c| c.config().activated);
    cluster.run_until(3_000, |c| state_of(c, &slow) == Some(MemberState::CatchingUp));
}

#[test]
fn r047_a_primary_too_slow_to_hand_over_is_waited_out() {
    let mut cluster = healthy();
    let slow = cluster.primary();
    measure(&mut cluster, |_, of| of == slow);
    let took = cluster.run_until(30_000, |c| c.primary() != slow && c.config().activated);
    assert!(took < 30_000, "after {took} ms");
}

#[test]
fn a_slow_store_stays_where_nobody_can_take_its_place() {
    let mut cluster = healthy();
    let remote = cluster.remote();
    let others: Vec<&str> = ["b1", "b2", "b3"].into_iter().filter(|name| *name != remote).collect();
    cluster.stop(&others);
    cluster.run(10_000);
    let epoch = cluster.config().epoch;
    measure(&mut cluster, |_, of| of == remote);
    cluster.run(60_000);
    assert_eq!((cluster.config().epoch, cluster.in_sync().len()), (epoch, 3));
    assert_eq!(slow_stores(&mut cluster).len(), 1, "and status says so");
}

#[test]
fn r047_a_slow_store_whose_renewals_are_late_is_not_waited_for_any_longer() {
    let mut cluster = healthy();
    let slow = cluster.neighbour();
    measure(&mut cluster, |_, of| of == slow);
    for _ in 0..3 {
        cluster.run(1_500);
        cluster.nodes.get_mut(&node(&slow)).unwrap().renews = false;
        cluster.run(2_000);
        cluster.nodes.get_mut(&node(&slow)).unwrap().renews = true;
    }
    cluster.run_until(3_000, |c| state_of(c, &slow) == Some(MemberState::CatchingUp));
}

/// As often as an hour allows, the neighbour's disk is replaced.
fn moved_often() -> Cluster {
    let mut cluster = Cluster::with_volume();
    (1..=3).for_each(|round| move_once(&mut cluster, round));
    measure(&mut cluster, |_, _| false);
    cluster.run(5_000);
    cluster
}

#[test]
fn r047_r051_a_slow_backup_of_a_volume_that_moved_often_goes_and_nobody_takes_its_place() {
    let mut cluster = moved_often();
    let (slow, primary) = (cluster.neighbour(), cluster.primary());
    measure(&mut cluster, |_, of| of == slow);
    let took = cluster.run_until(30_000, |c| state_of(c, &slow) == Some(MemberState::CatchingUp));
    assert!((10_000..15_000).contains(&took), "after {took} ms");
    assert_eq!((cluster.config().members.len(), cluster.in_sync().len()), (3, 2), "it is no move");
    cluster.run_until(5_000, |c| c.config().activated);
    assert_eq!((cluster.primary(), cluster.protection()), (primary, Protection::BothDcs));
    cluster.complete_all();
    cluster.run(60_000);
    assert_eq!(cluster.in_sync().len(), 2, "it is not taken back for that it has everything");
    cluster.run_until(3_600_000, |c| c.config().members.len() == 4);
}

#[test]
fn r047_the_only_copy_of_a_data_centre_is_replaced_however_often_its_volume_moved() {
    let mut cluster = moved_often();
    let slow = cluster.remote();
    measure(&mut cluster, |_, of| of == slow);
    let took = cluster.run_until(30_000, |c| state_of(c, &slow) == Some(MemberState::CatchingUp));
    assert!((10_000..15_000).contains(&took), "after {took} ms");
    assert_eq!((cluster.config().members.len(), cluster.protection()), (4, Protection::BothDcs));
}

#[test]
fn a_slow_store_goes_where_nobody_takes_its_place_and_another_one_is_there() {
    let mut cluster = healthy();
    let slow = cluster.neighbour();
    let spare = ["a1", "a2", "a3"].into_iter().find(|name| state_of(&cluster, name).is_none()).unwrap();
    cluster.stop(&[spare]);
    cluster.run(10_000);
    measure(&mut cluster, |_, of| of == slow);
    cluster
        .run_until(15_000, |c| c.config().activated && state_of(c, &slow) == Some(MemberState::CatchingUp));
    assert_eq!((cluster.config().members.len(), cluster.protection()), (3, Protection::BothDcs));
}

#[test]
fn one_who_finds_all_others_slow_is_slow_itself() {
    let mut cluster = healthy();
    let slow = cluster.primary();
    measure(&mut cluster, |by, of| (by == slow) != (of == slow));
    cluster.run_until(15_000, |c| c.config().handover.is_some());
    let told: Vec<_> = slow_stores(&mut cluster).into_iter().map(|told| told.node).collect();
    assert_eq!(told, [node(&slow)]);
}

#[test]
fn a_way_that_only_the_primary_finds_slow_moves_that_primarys_volume() {
    let mut cluster = healthy();
    let (primary, remote) = (cluster.primary(), cluster.remote());
    measure(&mut cluster, |by, of| by == primary && of == remote);
    let took = cluster.run_until(30_000, |c| state_of(c, &remote) == Some(MemberState::CatchingUp));
    assert!(took >= 15_000, "after {took} ms");
    assert_eq!((cluster.primary(), slow_stores(&mut cluster)), (primary, Vec::new()));
}

#[test]
fn a_store_that_was_slow_gets_nothing_before_it_was_well_for_a_while() {
    let mut cluster = healthy();
    let slow = cluster.neighbour();
    let spare = ["a1", "a2", "a3"].into_iter().find(|name| state_of(&cluster, name).is_none()).unwrap();
    measure(&mut cluster, |_, of| of == slow);
    cluster.run_until(15_000, |c| state_of(c, &slow) == Some(MemberState::CatchingUp));
    cluster.complete_all();
    cluster.run_until(5_000, |c| c.config().activated && state_of(c, &slow).is_none());
    measure(&mut cluster, |_, _| false);
    cluster.run(2_000);
    assert_eq!(slow_stores(&mut cluster)[0].state, SlowState::Probation);
    cluster.stop(&[spare]);
    cluster.run(280_000);
    assert_eq!(state_of(&cluster, &slow), None);
    cluster.run_until(40_000, |c| state_of(c, &slow).is_some());
    assert_eq!(slow_stores(&mut cluster), Vec::new());
}

#[test]
fn slowness_that_passes_moves_nothing() {
    let mut cluster = healthy();
    let (slow, epoch) = (cluster.neighbour(), cluster.config().epoch);
    for _ in 0..10 {
        measure(&mut cluster, |_, of| of == slow);
        cluster.run(8_000);
        measure(&mut cluster, |_, _| false);
        cluster.run(2_000);
    }
    assert_eq!(cluster.config().epoch, epoch);
}

#[test]
fn a_distance_that_all_share_is_not_slowness() {
    let mut cluster = healthy();
    let epoch = cluster.config().epoch;
    measure(&mut cluster, |by, of| by[..1] != of[..1]);
    cluster.run(60_000);
    assert_eq!((cluster.config().epoch, slow_stores(&mut cluster)), (epoch, Vec::new()));
}

#[test]
fn r049_where_all_have_much_to_do_the_one_with_most_is_not_slow() {
    let mut cluster = healthy();
    let (most, epoch) = (cluster.neighbour(), cluster.config().epoch);
    for by in NODES {
        let timing = |of: &&str| {
            let took = if *of == most { 3 * SLOW } else { 100_000 };
            probed(of, took)
        };
        cluster.timings.insert(node(by), NODES.iter().map(timing).collect());
    }
    cluster.run(60_000);
    assert_eq!((cluster.config().epoch, slow_stores(&mut cluster)), (epoch, Vec::new()));
    // When the others have less to do and it still takes long, it is slow.
    measure(&mut cluster, |_, of| of == most);
    cluster.run(15_000);
    assert_eq!(slow_stores(&mut cluster).len(), 1);
}

/// Every node says how long its own disk takes for a piece of work; everybody finds `crowded` slow, which has
/// more to do than it can.
fn crowd(cluster: &mut Cluster, crowded: &str, disk: impl Fn(&str) -> u32) {
    measure(cluster, |_, of| of == crowded);
    for by in NODES {
        let timings = cluster.timings.get_mut(&node(by)).expect("it measured");
        let own = timings.iter_mut().find(|timing| timing.store == store(by)).expect("itself, too");
        (own.flush_us, own.crowded) = (Some(disk(by)), by == crowded);
    }
}

#[test]
fn r049_a_store_that_has_too_much_to_do_is_judged_by_its_disk_alone() {
    let mut cluster = healthy();
    let (most, epoch) = (cluster.neighbour(), cluster.config().epoch);
    crowd(&mut cluster, &most, |by| if by == most { 4 * FAST } else { FAST });
    cluster.run(60_000);
    assert_eq!((cluster.config().epoch, slow_stores(&mut cluster)), (epoch, Vec::new()));
    crowd(&mut cluster, &most, |by| if by == most { SLOW } else { FAST });
    cluster.run(15_000);
    assert_eq!(slow_stores(&mut cluster).len(), 1, "a slow disk is slow, whatever it has to do");
}

#[test]
fn r047_a_slow_disk_needs_no_second_witness() {
    let mut cluster = healthy();
    let slow = cluster.neighbour();
    measure(&mut cluster, |_, _| false);
    for by in NODES {
        let timings = cluster.timings.get_mut(&node(by)).expect("it measured");
        let own = timings.iter_mut().find(|timing| timing.store == store(by)).expect("itself, too");
        own.flush_us = Some(if by == slow { SLOW } else { FAST });
    }
    cluster.run(15_000);
    assert_eq!(slow_stores(&mut cluster).len(), 1);
}

#[test]
fn a_data_centre_without_a_member_gets_one_although_there_are_three_elsewhere() {
    let mut cluster = healthy();
    let (slow, remote) = (cluster.neighbour(), cluster.remote());
    measure(&mut cluster, |_, of| of == slow);
    cluster.run_until(30_000, |c| c.config().members.len() == 4);
    cluster.run_until(5_000, |c| c.config().activated);
    let (epoch, stores) = (cluster.config().epoch, vec![store(&remote)]);
    cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch, stores });
    assert!(cluster.config().epoch > epoch && cluster.config().member(node(&remote)).is_none());
    let config = cluster.config();
    let there = config.members.iter().filter(|member| member.node.as_str()[..1] == remote[..1]);
    assert_eq!((there.count(), cluster.protection()), (1, Protection::BothDcs));
}
