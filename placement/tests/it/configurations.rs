//! Which configuration follows which: failover, replacement, one data centre alone and the way back.

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::{Epoch, Lsn, VolumeId};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest};

use crate::cluster::{Cluster, node, store};

const VOLUME: VolumeId = VolumeId(1);

#[test]
fn a_new_volume_has_two_copies_at_home_and_one_in_the_other_data_centre() {
    let cluster = Cluster::with_volume();
    let config = cluster.config();
    assert_eq!(config.epoch, Epoch(1));
    assert_eq!(config.members.len(), 3);
    assert_eq!(config.members.iter().filter(|m| m.dc.as_str() == "a").count(), 2);
    assert_eq!(config.ever_held.len(), 3);
    assert!(cluster.primary().starts_with('a'));
}

#[test]
fn r023_no_epoch_is_activated_before_its_primary_is_ready() {
    let mut cluster = Cluster::new();
    cluster.nodes.values_mut().for_each(|node| node.reports_ready = false);
    cluster.create_tenant("acme", 1);
    cluster.run(30_000);
    assert!(!cluster.config().activated);
    let (primary, epoch) = (cluster.config().primary.unwrap(), cluster.config().epoch);
    let elsewhere = node(&cluster.others()[0]);
    let stale = ControlAnswer::Refused(ControlRefusal::StaleEpoch(epoch));
    assert_eq!(
        cluster.ask(elsewhere, ControlRequest::Ready { volume: VOLUME, epoch, committed: Lsn(0) }),
        stale
    );
    assert_eq!(
        cluster.ask(primary, ControlRequest::Ready { volume: VOLUME, epoch: Epoch(0), committed: Lsn(0) }),
        stale
    );
    assert!(!cluster.config().activated);
    let before = cluster.config().changed;
    cluster.ask(primary, ControlRequest::Ready { volume: VOLUME, epoch, committed: Lsn(0) });
    assert!(cluster.config().activated);
    assert!(cluster.config().changed > before, "the mark has a place in the log of its own");
}

#[test]
fn a_lost_primary_is_followed_by_its_neighbour_and_replaced_at_home() {
    let mut cluster = Cluster::with_volume();
    let (lost, neighbour) = (cluster.primary(), cluster.neighbour());
    cluster.stop(&[&lost]);
    let took = cluster.run_until(12_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    assert!(took <= 8_500, "{took} ms");
    assert_eq!(cluster.primary(), neighbour);
    let config = cluster.config();
    assert_eq!(config.protection, Protection::BothDcs);
    assert!(config.member(node(&lost)).is_none());
    let replacement = config.members.iter().find(|m| m.state == MemberState::CatchingUp).unwrap();
    assert_eq!(replacement.dc.as_str(), "a");
    assert!(config.ever_held.contains(&store(&lost)), "it may still hold bytes");
    assert!(config.ever_held.contains(&replacement.store), "bytes may go there from now on");
}

#[test]
fn r028_a_member_that_catches_up_never_leads() {
    let mut cluster = Cluster::with_volume();
    let (first, second, remote) = (cluster.primary(), cluster.neighbour(), cluster.remote());
    cluster.stop(&[&first]);
    cluster.run_until(12_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    let recruit = cluster.config().members.iter().find(|m| m.state == MemberState::CatchingUp).unwrap().node;
    cluster.stop(&[&second, &remote]);
    cluster.run(20_000);
    assert_eq!(cluster.config().primary, None, "{recruit} does not hold everything");
    cluster.restart(&remote);
    cluster.run(10_000);
    assert_eq!(cluster.primary(), remote);
}

#[test]
fn r022_the_one_that_missed_an_activated_interval_leaves_the_volume_down() {
    // The sequence is [A, A', B], [A, A'], [], [B]: A and A' acknowledged alone, then B comes back without them.
    let mut cluster = Cluster::with_volume();
    let (first, neighbour, remote) = (cluster.primary(), cluster.neighbour(), cluster.remote());
    // Nobody else is there to be recruited.
    let present = [first.as_str(), neighbour.as_str(), remote.as_str()];
    let spare: Vec<&str> =
        ["a1", "a2", "a3", "b1", "b2", "b3"].into_iter().filter(|name| !present.contains(name)).collect();
    cluster.stop(&spare);
    cluster.run(4_000);
    cluster.stop(&[&remote]);
    cluster.run_until(15_000, |c| c.config().activated && c.in_sync().len() == 2);
    let alone = cluster.in_sync();
    cluster.stop(&[&first, &neighbour]);
    cluster.run_until(20_000, |c| c.config().primary.is_none());
    cluster.restart(&remote);
    cluster.run(30_000);
    let config = cluster.config();
    assert_eq!(config.primary, None);
    assert!(!config.activated);
    assert_eq!(cluster.in_sync(), alone);
    cluster.restart(&first);
    cluster.run(10_000);
    assert_eq!(cluster.primary(), first);
    assert!(cluster.config().activated);
}

#[test]
fn an_interval_that_was_never_activated_binds_nobody() {
    // As above, but A never got ready alone: B was in sync in the last activated interval.
    let mut cluster = Cluster::with_volume();
    let (first, neighbour, remote) = (cluster.primary(), cluster.neighbour(), cluster.remote());
    cluster.nodes.get_mut(&node(&first)).unwrap().reports_ready = false;
    cluster.stop(&[&remote]);
    cluster.run_until(10_000, |c| c.config().epoch > Epoch(1));
    assert!(!cluster.config().activated);
    assert_eq!(cluster.config().intervals.len(), 1);
    assert!(cluster.config().intervals[0].activated);
    cluster.stop(&[&first]);
    cluster.run_until(15_000, |c| c.config().activated);
    assert_eq!(cluster.primary(), neighbour);
    let intervals = cluster.config().intervals;
    assert_eq!(intervals.iter().map(|i| i.activated).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_cluster_that_starts_throws_out_nobody_who_starts_late() {
    let mut cluster = Cluster::with_volume();
    let names = ["a1", "a2", "a3", "b1", "b2", "b3"];
    cluster.stop(&names);
    cluster.run(10_000);
    assert_eq!(cluster.config().primary, None);
    let members = cluster.config().members;
    for name in names {
        cluster.restart(name);
        cluster.run(300);
    }
    cluster.run(5_000);
    assert_eq!(cluster.config().members, members);
    assert_eq!(cluster.protection(), Protection::BothDcs);
    assert!(cluster.config().activated);
}

#[test]
fn r016_a_lost_copy_of_the_other_data_centre_is_recruited_there() {
    let mut cluster = Cluster::with_volume();
    let remote = cluster.remote();
    cluster.stop(&[&remote]);
    cluster.run_until(15_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    assert_eq!(cluster.protection(), Protection::BothDcs);
    assert_ne!(cluster.remote(), remote);
    let dcs: Vec<_> = cluster.config().members.iter().map(|m| m.dc.to_string()).collect();
    assert_eq!(dcs.iter().filter(|dc| *dc == "b").count(), 1);
}

#[test]
fn r017_single_dc_is_committed_with_the_epoch_before_it_is_activated() {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(10_000, |c| c.config().epoch > Epoch(1));
    assert_eq!(cluster.protection(), Protection::SingleDc);
    assert!(!cluster.config().activated, "the lost store's grant is waited out first");
    assert_eq!(cluster.config().epoch, Epoch(2), "nobody of a dead data centre is tried");
    cluster.run_until(10_000, |c| c.config().activated);
    assert!(cluster.config().members.iter().all(|m| m.dc.as_str() == "a"));
    assert_eq!(cluster.config().members.len(), 3);
}

#[test]
fn r017_the_way_back_to_both_data_centres_takes_complete_copies_and_a_proof() {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(20_000, |c| c.config().activated && c.protection() == Protection::SingleDc);
    cluster.complete_all();
    cluster.run(2_000);
    for name in ["b1", "b2", "b3"] {
        cluster.restart(name);
    }
    cluster.run_until(10_000, |c| c.config().activated && c.config().members.len() == 4);
    assert_eq!(cluster.protection(), Protection::SingleDc, "a copy that catches up proves nothing");
    cluster.complete_all();
    cluster.run_until(15_000, |c| c.config().activated && c.protection() == Protection::Restoring);
    let restored = |epoch, persisted| ControlRequest::Restored {
        volume: VOLUME,
        epoch,
        last_single_dc: Lsn(9),
        persisted,
    };
    let epoch = cluster.config().epoch;
    let not_yet = ControlAnswer::Refused(ControlRefusal::NotYet);
    assert_eq!(cluster.report(restored(epoch, Lsn(8))), not_yet);
    cluster.run(5_000);
    assert_eq!(cluster.protection(), Protection::Restoring);
    cluster.report(restored(cluster.config().epoch, Lsn(9)));
    cluster.run_until(20_000, |c| {
        c.config().activated && c.protection() == Protection::BothDcs && c.config().members.len() == 3
    });
    let config = cluster.config();
    assert_eq!(config.members.iter().filter(|m| m.dc.as_str() == "a").count(), 2);
    assert!(config.members.iter().all(|m| m.state == MemberState::InSync));
}

#[test]
fn r015_every_change_of_configuration_raises_the_epoch() {
    let mut cluster = Cluster::with_volume();
    let mut seen = vec![cluster.config()];
    let names = ["a1", "b1", "a2", "b2"];
    for name in names {
        cluster.stop(&[name]);
        for _ in 0..60 {
            cluster.run(100);
            seen.push(cluster.config());
        }
        cluster.complete_all();
        cluster.restart(name);
        cluster.run(4_000);
        cluster.complete_all();
    }
    for pair in seen.windows(2) {
        let same = |f: fn(&trefoil_protocol::config::VolumeConfig) -> String| f(&pair[0]) == f(&pair[1]);
        if !same(|c| format!("{:?}{:?}{:?}", c.primary, c.members, c.protection)) {
            assert!(pair[1].epoch > pair[0].epoch);
        }
        assert!(pair[1].epoch >= pair[0].epoch);
        assert!(pair[1].in_sync().count() > 0);
        assert!(pair[1].primary_member().is_none_or(|m| m.state == MemberState::InSync));
    }
}

#[test]
fn a_member_that_lags_is_removed_by_decision_and_not_recruited_again_at_once() {
    let mut cluster = Cluster::with_volume();
    let remote = cluster.remote();
    let (epoch, stores) = (cluster.config().epoch, vec![store(&remote)]);
    cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch, stores });
    assert!(cluster.config().member(node(&remote)).is_none());
    cluster.run(3_000);
    assert!(cluster.config().activated, "it acknowledged its removal, nobody waits for its lease");
    for _ in 0..3 {
        cluster.complete_all();
        cluster.run(3_000);
        assert!(cluster.config().member(node(&remote)).is_none());
    }
}

#[test]
fn a_primary_that_reaches_nobody_is_moved_and_nobody_else_removed() {
    let mut cluster = Cluster::with_volume();
    let (first, neighbour) = (cluster.primary(), cluster.neighbour());
    let stores = cluster.others().iter().map(|name| store(name)).collect();
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch, stores });
    assert_eq!(cluster.primary(), neighbour);
    assert_eq!(cluster.config().members.len(), 3);
    assert!(cluster.config().member(node(&first)).is_some());
}

#[test]
fn a_primary_that_knows_a_better_one_hands_over() {
    let mut cluster = Cluster::with_volume();
    let (epoch, better) = (cluster.config().epoch, cluster.remote());
    cluster.report(ControlRequest::Unfit { volume: VOLUME, epoch, better: store(&better) });
    assert_eq!(cluster.primary(), better);
    let unknown = store("a9");
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::Unfit { volume: VOLUME, epoch, better: unknown });
    assert_eq!(cluster.primary(), better, "nobody is no better");
}

#[test]
fn a_store_that_is_not_needed_any_more_is_retired_and_only_then_forgotten() {
    let mut cluster = Cluster::with_volume();
    let lost = cluster.neighbour();
    cluster.stop(&[&lost]);
    cluster.run_until(15_000, |c| c.config().epoch > Epoch(1) && c.config().activated);
    cluster.restart(&lost);
    cluster.run(1_000);
    assert!(cluster.nodes[&node(&lost)].retire.is_empty(), "two complete copies are not enough");
    cluster.complete_all();
    cluster.run(2_000);
    assert!(cluster.nodes[&node(&lost)].retire.contains(&VOLUME));
    let retired = |epoch| ControlRequest::Retired { volume: VOLUME, store: store(&lost), epoch };
    cluster.ask(node(&lost), retired(Epoch(1)));
    assert!(cluster.config().ever_held.contains(&store(&lost)), "that wipe is older than its last role");
    let stranger = node(&cluster.remote());
    assert!(matches!(cluster.ask(stranger, retired(Epoch(9))), ControlAnswer::Refused(_)));
    cluster.ask(node(&lost), retired(cluster.config().epoch));
    assert!(!cluster.config().ever_held.contains(&store(&lost)));
    let (epoch, changed) = (cluster.config().epoch, cluster.config().changed);
    cluster.run(1_000);
    assert_eq!((cluster.config().epoch, cluster.config().changed), (epoch, changed), "no lease lapses");
    let told = &cluster.nodes[&node(&cluster.primary())].configs[&VOLUME];
    assert!(!told.ever_held.contains(&store(&lost)), "but everybody is told");
}

#[test]
fn r017_both_links_cut_leave_the_primarys_side_alone_within_half_a_minute() {
    // The control plane hears everybody; the data centres do not hear each other.
    let mut cluster = Cluster::with_volume();
    let start = cluster.now;
    while !(cluster.config().activated && cluster.protection() == Protection::SingleDc) {
        assert!(cluster.now - start <= 30_000, "{:#?}", cluster.config());
        // A member is silent for three seconds before its primary says so.
        cluster.run(3_000);
        let config = cluster.config();
        let far = config.members.iter().filter(|member| member.dc.as_str() == "b");
        let stores = far.map(|member| member.store).collect();
        cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch: config.epoch, stores });
        cluster.run(1_000);
        cluster.complete_all();
    }
    assert!(cluster.config().members.iter().all(|member| member.dc.as_str() == "a"));
}
