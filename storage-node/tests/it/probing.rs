//! Probes: each node measures its own store and those of its neighbours by work that takes the way of a
//! record, and tells the control plane what it found.

use std::time::Duration;

use trefoil_protocol::message::control::StoreTiming;
use trefoil_protocol::message::peer::PeerBody;

use crate::cluster::{Cluster, node, object, store_of};

const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];

fn told(cluster: &Cluster, by: &str, of: &str) -> Option<StoreTiming> {
    let timings = cluster.placement.timings.get(&node(by))?;
    timings.iter().find(|timing| timing.store == store_of(node(of))).copied()
}

fn is_probe(body: &PeerBody) -> bool {
    matches!(body, PeerBody::Probe { .. })
}

#[test]
fn r048_every_store_is_measured_from_both_data_centres_by_work_done_on_its_disk() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.run(Duration::from_secs(10));
    for of in NODES {
        let by: Vec<&str> = NODES.into_iter().filter(|by| told(&cluster, by, of).is_some()).collect();
        let near = by.iter().filter(|by| by[..1] == of[..1] && **by != of).count();
        assert_eq!((near, by.len() - near), (2, 3), "{of} by {by:?}: two near, two far, itself");
        // There and back are two hops, the flush is another; its own disk is one hop away.
        let took: Vec<u32> = by.iter().map(|by| told(&cluster, by, of).unwrap().probe_us.unwrap()).collect();
        assert!(took.iter().all(|took| (1_000..10_000).contains(took)), "{of}: {took:?}");
    }
}

#[test]
fn r048_a_store_whose_flushes_hang_is_told_slow_although_its_node_renews() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.run(Duration::from_secs(10));
    cluster.machine("a2").syncs_held = true;
    cluster.run(Duration::from_secs(8));
    for by in ["a1", "a3", "b2", "a2"] {
        let took = told(&cluster, by, "a2").unwrap().probe_us.unwrap();
        assert!(took >= 1_000_000, "{by} says {took} us");
    }
    assert!(told(&cluster, "a1", "a3").unwrap().probe_us.unwrap() < 10_000);
    cluster.release_syncs("a2");
    cluster.run(Duration::from_secs(12));
    assert!(told(&cluster, "a1", "a2").unwrap().probe_us.unwrap() < 10_000);
}

#[test]
fn a_primary_tells_how_long_its_members_take_to_acknowledge() {
    let mut cluster = Cluster::healthy(&NODES);
    for version in 1..=5 {
        let stored = cluster.put("a1", &format!("key{version}"), version, &object(version, 100));
        assert!(stored.is_ok(), "{stored:?}");
    }
    cluster.run(Duration::from_secs(2));
    let took = told(&cluster, "a1", "b1").unwrap().ack_us.unwrap();
    assert!((2_000..10_000).contains(&took), "{took} us");
    let of_another = told(&cluster, "a2", "b1").and_then(|timing| timing.ack_us);
    assert_eq!(of_another, None, "who leads nothing is acknowledged nothing");
}

#[test]
fn a_lost_probe_counts_with_its_age() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.run(Duration::from_secs(10));
    cluster.lose = Some(is_probe);
    cluster.run(Duration::from_secs(8));
    assert!(told(&cluster, "a1", "a2").unwrap().probe_us.unwrap() >= 1_000_000);
    assert!(told(&cluster, "a1", "a1").unwrap().probe_us.unwrap() < 10_000, "its own needs no message");
}
