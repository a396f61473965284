//! What works is not changed in a hurry: a data centre that came back is relied on again only after
//! a while without a doubt, and a volume is not carried from store to store all the time.

use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::{Incarnation, StoreId, VolumeId};
use trefoil_protocol::message::control::ControlRequest;

use crate::cluster::{Cluster, RESTORE_AFTER, store};

const VOLUME: VolumeId = VolumeId(1);
const A_WHILE: u64 = RESTORE_AFTER * 1_000;

/// B was lost, is back, and just holds everything again.
fn back() -> Cluster {
    let mut cluster = Cluster::with_volume();
    let lost = cluster.remote();
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(20_000, |c| c.config().activated && c.protection() == Protection::SingleDc);
    cluster.complete_all();
    cluster.run(2_000);
    cluster.restart(&lost);
    cluster.run_until(1_000, |c| c.config().members.len() == 4);
    cluster.complete_all();
    cluster.run_until(3_000, |c| c.config().activated && c.in_sync().contains(&lost));
    cluster
}

#[test]
fn leaving_single_dc_takes_a_while_without_a_doubt() {
    let mut cluster = back();
    let took = cluster.run_until(2 * A_WHILE, |c| c.protection() == Protection::Restoring);
    assert!(took + 5_000 >= A_WHILE && took <= A_WHILE, "after {took} ms");
}

#[test]
fn a_complaint_of_the_primary_begins_the_while_anew() {
    let mut cluster = back();
    cluster.run(1_000);
    let (epoch, stores) = (cluster.config().epoch, vec![store(&cluster.remote())]);
    cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch, stores });
    let doubted = cluster.now;
    for _ in 0..A_WHILE / 500 - 1 {
        cluster.run(500);
        cluster.complete_all();
        assert_eq!(cluster.protection(), Protection::SingleDc, "{} ms later", cluster.now - doubted);
    }
}

#[test]
fn a_gap_in_the_renewals_begins_the_while_anew() {
    let mut cluster = back();
    let remote = cluster.remote();
    cluster.run(500);
    cluster.stop(&[&remote]);
    cluster.run(2_100);
    cluster.nodes.get_mut(&remote.parse().unwrap()).unwrap().renews = true;
    cluster.run(A_WHILE - 1_000);
    assert_eq!(cluster.protection(), Protection::SingleDc);
    cluster.run_until(2_000, |c| c.protection() == Protection::Restoring);
}

/// The neighbour of the primary is lost and comes back with an empty disk; whoever took its place is
/// complete.
pub(crate) fn move_once(cluster: &mut Cluster, round: u8) {
    let lost = cluster.neighbour();
    cluster.stop(&[&lost]);
    cluster.run_until(15_000, |c| c.config().activated && !c.others().contains(&lost));
    cluster.complete_all();
    cluster.run(500);
    let mut disk = store(&lost);
    disk.0[15] = round;
    cluster.start(&lost, disk, Incarnation(0));
    cluster.run(500);
}

#[test]
fn r051_a_volume_moves_three_times_an_hour_unless_it_needs_to() {
    let mut cluster = Cluster::with_volume();
    for round in 1..=3 {
        move_once(&mut cluster, round);
        assert_eq!(cluster.config().members.len(), 3, "round {round}");
    }
    let lost = cluster.neighbour();
    cluster.stop(&[&lost]);
    cluster.run(60_000);
    assert_eq!((cluster.config().members.len(), cluster.config().activated), (2, true));
    assert_eq!(cluster.protection(), Protection::BothDcs);
    // Without a store in B nothing is acknowledged: that is no time to wait.
    let remote = cluster.remote();
    cluster.stop(&[&remote]);
    cluster.run_until(15_000, |c| c.config().activated && c.remote() != remote);
    assert_eq!(cluster.protection(), Protection::BothDcs);
    cluster.complete_all();
    cluster.run(3_000_000);
    assert_eq!(cluster.config().members.len(), 2);
    cluster.run_until(700_000, |c| c.config().members.len() == 3);
}

#[test]
fn r051_a_store_that_held_the_volume_before_is_no_move() {
    let mut cluster = Cluster::with_volume();
    for round in 1..=3 {
        move_once(&mut cluster, round);
    }
    let lost = cluster.neighbour();
    let held: StoreId = cluster.nodes[&lost.parse().unwrap()].store;
    cluster.stop(&[&lost]);
    cluster.run_until(15_000, |c| c.config().activated && c.config().members.len() == 2);
    cluster.restart(&lost);
    cluster.run_until(2_000, |c| c.config().member_of_store(held).is_some());
}
