//! A store that cannot be believed: after a failed flush it is read from end to end before it takes
//! part again, and after any end that was not clean it is compared with its peers before it leads.

use std::time::Duration;

use trefoil_engine::disk::fault::{DiskOperation, Outcome, ScriptedFault};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_storage_node::Notice;

use crate::cluster::{Cluster, VOLUME, node, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);

fn fail_next_sync(cluster: &mut Cluster, name: &str) {
    let fault = ScriptedFault { operation: DiskOperation::Sync, nth: 1, outcome: Outcome::Error };
    cluster.machine(name).disk.inject(fault);
}

/// Flips a bit of these bytes where they lie on a disk.
fn spoil(cluster: &mut Cluster, name: &str, bytes: &[u8]) {
    let disk = cluster.machine(name).disk.clone();
    let place = |(path, file): (String, Vec<u8>)| {
        Some((path, file.windows(bytes.len()).position(|window| window == bytes)?))
    };
    let (path, at) = disk.files().into_iter().find_map(place).expect("it is on the disk");
    disk.flip_bit(&path, at as u64, 3);
}

#[test]
fn r003_a_store_whose_flush_failed_joins_again_when_all_of_it_was_read_and_is_mended() {
    let mut cluster = Cluster::healthy(&NODES);
    let (small, large) = (object(1, 500), object(2, 400_000));
    cluster.put("a1", "small", 1, &small).unwrap();
    cluster.put("a1", "large", 2, &large).unwrap();
    cluster.run(Duration::from_secs(1));
    fail_next_sync(&mut cluster, "b1");
    let request = cluster.begin_put("a1", "lost in a cache", 3, &small);
    cluster.run(Duration::from_secs(1));
    assert!(cluster.machine("b1").fatal.is_some());
    assert_eq!(cluster.heard(request).response, None, "not without both data centres");
    // Long ago, and never read since.
    spoil(&mut cluster, "b1", &large[200_000..200_064]);
    cluster.verifying_takes = Duration::from_secs(5);
    cluster.sent.clear();
    cluster.placement.asked.clear();
    cluster.machine("b1").fatal = None;
    cluster.start("b1");
    cluster.run(Duration::from_secs(4));
    let said = cluster.sent.iter().filter(|(from, _, _, _)| *from == node("b1")).count();
    let asked = cluster.placement.asked.iter().filter(|(from, _)| *from == node("b1"));
    let registered = asked.filter(|(_, asked)| matches!(asked, ControlRequest::Register(_))).count();
    assert_eq!((said, registered), (0, 0), "nothing is said before everything was read");
    assert_eq!(cluster.heard(request).response, None);
    assert!(cluster.run_until(MINUTE, |c| c.heard(request).ended), "it takes part again");
    cluster.run(Duration::from_secs(2));
    let notices = &cluster.machine("b1").notices;
    assert!(matches!(notices[..], [Notice::Verifying { volumes: 1, .. }, Notice::Verified { faults: 1 }]));
    for (key, version, bytes) in [("small", 1, &small), ("large", 2, &large), ("lost in a cache", 3, &small)]
    {
        assert_eq!(&cluster.get_version("b1", key, version).bytes, bytes, "{key}");
    }
    // What it acknowledged is on the device.
    cluster.crash("b1", 7);
    cluster.start("b1");
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.get_version("b1", "lost in a cache", 3).bytes, small);
}

#[test]
fn r003_a_crash_while_a_suspect_store_is_read_leaves_it_suspect() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 500)).unwrap();
    fail_next_sync(&mut cluster, "b1");
    let request = cluster.begin_put("a1", "k", 2, &object(2, 500));
    cluster.run(Duration::from_secs(1));
    cluster.verifying_takes = MINUTE;
    for _ in 0..3 {
        cluster.start("b1");
        cluster.run(Duration::from_secs(10));
        assert_eq!(cluster.heard(request).response, None);
    }
    assert!(cluster.run_until(2 * MINUTE, |c| c.heard(request).ended));
}

#[test]
fn r027_without_proof_of_a_clean_end_a_store_is_compared_with_its_peers_before_it_leads() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "k", 1, &object(1, 500)).unwrap();
    cluster.run(Duration::from_secs(1));
    let is_verified = |c: &Cluster| c.core("a1").volumes()[&VOLUME].holding().is_verified();
    cluster.stop("a1");
    cluster.start("a1");
    cluster.run(Duration::from_millis(100));
    assert!(is_verified(&cluster), "it ended cleanly and says so");
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    cluster.crash("a1", u64::MAX);
    cluster.cut("a1", "a2");
    cluster.cut("a1", "b1");
    cluster.start("a1");
    cluster.run(Duration::from_secs(20));
    assert!(!is_verified(&cluster), "all of it is there, and nobody knows");
    assert_eq!(cluster.serving(), None);
    cluster.heal();
    assert!(cluster.run_until(MINUTE, |c| c.serving() == Some(node("a1"))));
    assert!(is_verified(&cluster));
    assert_eq!(cluster.get("a1", "k").bytes, object(1, 500));
}
