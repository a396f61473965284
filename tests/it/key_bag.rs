//! Wrapped keys seen from outside: after their time no record on any disk holds one, what they open is
//! read after every node was killed, and a purged version's key is in no bag.

use std::fs;
use std::time::{Duration, Instant};

use crate::cluster::{Alone, Cluster};
use crate::outside::{NODES, PATIENCE};
use crate::program::run;
use crate::storing::{content, key};

/// Numbers of a node's volumes that `node inspect` adds up: objects, keys in records, keys in bags.
fn keys_of(cluster: &Cluster, node: &str) -> [u64; 3] {
    let data = cluster.data(node);
    let inspected = run(&["--json", "node", "inspect", data.to_str().unwrap()]).held().json();
    let volumes = inspected["volumes"].as_array().unwrap().clone();
    ["objects", "keys_in_records", "keys_in_bag"]
        .map(|number| volumes.iter().map(|volume| volume[number].as_u64().unwrap()).sum())
}

/// The sums over all nodes, which are killed for it: a store tells only when nobody has it open.
fn keys(cluster: &mut Cluster) -> [u64; 3] {
    cluster.kill_nodes();
    let keys = NODES.map(|node| keys_of(cluster, node));
    NODES.iter().for_each(|node| cluster.restart(node));
    [0, 1, 2].map(|at| keys.iter().map(|node| node[at]).sum())
}

/// Looks again and again until the keys are where they should be.
#[track_caller]
fn wait_for_keys(cluster: &mut Cluster, wanted: [u64; 3]) {
    let began = Instant::now();
    while keys(cluster) != wanted {
        assert!(began.elapsed() < PATIENCE, "keys are not where they should be: {:?}", keys(cluster));
        // Nodes have to come up, and then to find time.
        std::thread::sleep(Duration::from_secs(4));
    }
}

#[test]
fn r064_wrapped_keys_leave_their_records_in_time_and_open_what_is_read_after_a_crash() {
    let mut cluster = Alone::start("key-bag");
    cluster.found("initech", "1s");
    cluster.kill_nodes();
    for node in NODES {
        let path = cluster.configuration(node);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("keys_move_after = \"1s\"\n{text}")).unwrap();
        cluster.restart(node);
    }
    let client = cluster.client("initech");
    let sizes = |number: u64| if number == 20 { 300_000 } else { 5_000 };
    cluster.block_on(async {
        for number in 0..=20 {
            client.put(&key(format!("k{number}")), content(number, sizes(number))).await.unwrap();
        }
    });
    wait_for_keys(&mut cluster, [3 * 21, 0, 3 * 21]);
    let client = cluster.client("initech");
    cluster.block_on(async {
        for number in 0..=20 {
            let bytes = client.get(&key(format!("k{number}"))).await.unwrap().bytes().await.unwrap();
            assert!(bytes == content(number, sizes(number)), "k{number}");
        }
    });
    cluster.tenant("initech", &["rm", "k7"]).held();
    let began = Instant::now();
    while cluster.tenant("initech", &["purge-status", "k7"]).held().json()["state"] != "ERASED" {
        assert!(began.elapsed() < PATIENCE, "not purged");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(keys(&mut cluster), [3 * 20, 0, 3 * 20], "a purged key is in no bag");
    cluster.nothing_panicked();
}
