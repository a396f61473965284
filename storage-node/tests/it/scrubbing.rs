//! A running node reads everything it holds, again and again, and what has rotted comes back from the
//! other copies without anybody reading it.

use std::time::Duration;

use trefoil_storage_node::{Notice, Pace};

use crate::cluster::{Cluster, VOLUME, object};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const PERIOD: Duration = Duration::from_secs(20);
const PACE: Pace = Pace {
    keys_move_after: Duration::from_secs(2),
    keys_move_count: 1000,
    scrub_every: PERIOD,
    repair_floor: 8 << 20,
};

/// Flips a bit of these bytes in a file of a node.
fn spoil(cluster: &mut Cluster, name: &str, file: &str, bytes: &[u8]) {
    let disk = cluster.machine(name).disk.clone();
    let place = |(path, content): (String, Vec<u8>)| {
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        path.contains(file).then_some((path, at))
    };
    let (path, at) = disk.files().into_iter().find_map(place).expect("it is on the disk");
    disk.flip_bit(&path, at as u64 + 1, 3);
}

fn faults(cluster: &Cluster, name: &str) -> usize {
    let holding = cluster.core(name).volumes()[&VOLUME].holding();
    let report = holding.volume().scrub(holding.index()).expect("it can be read");
    // A stretch without a frame stays one until something is erased.
    let lasting =
        |fault: &&trefoil_engine::ScrubFault| matches!(fault, trefoil_engine::ScrubFault::Frame { .. });
    report.faults.len() - report.faults.iter().filter(lasting).count()
}

#[test]
fn r013_every_byte_is_read_within_the_period_and_what_rotted_is_mended_unasked() {
    let mut cluster = Cluster::healthy_at(&NODES, PACE);
    let (small, large) = (object(1, 500), object(2, 900_000));
    cluster.put("a1", "small", 1, &small).unwrap();
    cluster.put("a1", "large", 2, &large).unwrap();
    cluster.run(Duration::from_secs(10));
    spoil(&mut cluster, "a2", "segment-", &small[..64]);
    spoil(&mut cluster, "b1", "segment-", &large[300_000..300_064]);
    spoil(&mut cluster, "b1", "segment-", &large[700_000..700_064]);
    spoil(&mut cluster, "a1", "bag-", b"TRFK");
    spoil(&mut cluster, "a2", "/volume", b"TRFB");
    // The header of a leaf: nobody can tell from the frame what it was.
    let header = trefoil_protocol::ids::VersionId([2; 16]).0;
    spoil(&mut cluster, "a1", "segment-", &header);
    assert!(NODES.iter().all(|name| faults(&cluster, name) > 0));
    cluster.run(PERIOD * 2);
    for name in NODES {
        assert_eq!(faults(&cluster, name), 0, "{name}");
        let damaged = |notice: &Notice| matches!(notice, Notice::Damaged { .. });
        assert!(cluster.machine(name).notices.iter().any(damaged), "{name} says so");
        let health = cluster.core(name).scrubbed(cluster.now);
        assert!(health.oldest < PERIOD * 2 && health.faults > 0, "{name}: {health:?}");
        assert_eq!(cluster.get_version(name, "large", 2).bytes, large, "{name}");
    }
}

#[test]
fn a_scrub_takes_no_notice_of_what_is_erased_or_still_written() {
    let mut cluster = Cluster::healthy_at(&NODES, PACE);
    for round in 0..40 {
        cluster.put("a1", &format!("k{}", round % 3), round + 1, &object(round, 100_000)).unwrap();
        cluster.run(Duration::from_millis(500));
    }
    cluster.placement.ahead += 3_600_000;
    cluster.run(PERIOD * 3);
    for name in NODES {
        assert_eq!(cluster.machine(name).notices, [], "{name}");
        assert_eq!(faults(&cluster, name), 0, "{name}");
    }
}
