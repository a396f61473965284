//! The two links between the data centres as operators see and limit them.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Alone;
use crate::storing::key;

/// In bytes a second.
const LIMIT: u64 = 4 << 20;

/// What each of a data centre's three nodes may send beyond its share: a message.
const AHEAD: u64 = 3 << 20;

/// Whether every volume has three copies again, none of them on the lost node.
fn is_mended(status: &Value) -> bool {
    status["volumes"].as_array().unwrap().iter().all(|volume| {
        let members = volume["in_sync"].as_array().unwrap();
        members.len() == 3 && members.iter().all(|node| node != "b1")
    })
}

/// What was sent over each link, of one kind.
fn sent(status: &Value, kind: &str) -> Vec<u64> {
    let links = status["links"].as_array().unwrap().iter();
    links.map(|link| link[kind]["bytes"].as_u64().unwrap()).collect()
}

#[test]
fn repair_keeps_to_the_limit_of_its_link_and_is_counted_as_repair() {
    let cluster = Alone::start("links");
    let client = cluster.client("acme");
    let payload = vec![7; 1 << 20];
    cluster.block_on(async {
        for number in 0..64 {
            client.put(&key(format!("object {number}")), payload.clone()).await.unwrap();
        }
    });
    let plan = cluster.operator(&["link", "limit", "1", "4MiB", "--plan"]).json();
    assert_eq!(plan["undo"], "trefoil link limit 1 none", "{plan}");
    cluster.operator(&["link", "limit", "1", "1000", "--yes"]).failed(4, "at least 1048576");
    for link in ["1", "2"] {
        cluster.operator(&["link", "limit", link, "4MiB", "--yes"]).held();
    }
    let limits = |status: &Value, wanted: &Value| {
        status["links"].as_array().unwrap().iter().all(|link| link["repair_limit"] == *wanted)
    };
    cluster.wait_for("the limits", |status| limits(status, &Value::from(LIMIT)));

    // Nodes say it now and then.
    let status = cluster
        .wait_for("what clients brought", |status| sent(status, "clients").iter().sum::<u64>() >= 64 << 20);
    let before = sent(&status, "repair");
    let began = Instant::now();
    cluster.signal("b1", Signal::KILL);
    let status = cluster.wait_for("copies instead of those on b1", is_mended);
    let lasted = began.elapsed().as_secs() + 1;
    let after = sent(&status, "repair");
    println!("repair sent {before:?} before and {after:?} after {lasted} s");
    for (before, after) in before.iter().zip(&after) {
        // Both directions are counted, each has the limit.
        assert!(after - before <= 2 * (LIMIT * lasted + AHEAD), "{before} {after}");
    }
    assert!(after.iter().sum::<u64>() >= before.iter().sum::<u64>() + (4 << 20), "{status}");
    for link in status["links"].as_array().unwrap() {
        assert!(link["rtt_us"].as_u64().unwrap() > 0 && link["packets"].as_u64().unwrap() > 0, "{link}");
        assert!(link["control"]["frames"].as_u64().unwrap() > 0, "{link}");
    }

    for link in ["1", "2"] {
        cluster.operator(&["link", "limit", link, "none", "--yes"]).held();
    }
    cluster.wait_for("no limits", |status| limits(status, &Value::Null));
    cluster.nothing_panicked();
}
