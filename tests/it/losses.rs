//! Row 16 and its return, as real processes see it: one data centre acknowledges alone and is lost, two
//! operators let the other one go on, and when the lost stores come back, what only they have is told before
//! it is given up.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use trefoil_client::ReadError;

use crate::cluster::{Alone, Cluster};
use crate::outside::is_whole;
use crate::program::{Run, run};
use crate::storing::{content, key};

const A: [&str; 3] = ["a1", "a2", "a3"];
const B: [&str; 3] = ["b1", "b2", "b3"];

fn lose(cluster: &mut Cluster, nodes: [&str; 3]) {
    for node in nodes {
        cluster.signal(node, Signal::KILL);
        cluster.wait_for_end(node);
    }
}

fn of<'v>(status: &'v Value, list: &str) -> &'v Vec<Value> {
    status[list].as_array().unwrap()
}

/// Proposed by one operator and approved by another one; what the first one saw.
fn decide(cluster: &Cluster, arguments: &[&str]) -> Run {
    let proposed = cluster.operator(arguments).held();
    let number = proposed.json()["number"].to_string();
    cluster.second(&["approve", &number]).held();
    proposed
}

#[test]
fn r109_row_16_what_a_lost_data_centre_has_alone_is_told_when_it_returns_and_then_given_up() {
    let mut cluster = Alone::start("losses");
    let client = cluster.client("acme");
    let put = |name: &str, seed| cluster.block_on(client.put(&key(name), content(seed, 5_000))).unwrap();
    put("kept", 1);
    put("hidden", 2);
    lose(&mut cluster, B);
    cluster.wait_for("A to go on alone", |status| {
        of(status, "volumes")
            .iter()
            .all(|volume| volume["protection"] == "SingleDc" && volume["active"] == true)
    });
    let client = cluster.client("acme");
    for number in 0..20 {
        cluster.block_on(client.put(&key(format!("lost-{number}")), content(number, 5_000))).unwrap();
    }
    cluster.block_on(client.delete(&key("hidden"))).unwrap();
    lose(&mut cluster, A);
    for node in B {
        cluster.restart(node);
    }
    let down = cluster.wait_for("B to be there and lead nothing", |status| {
        let back = |node: &Value| !B.contains(&node["id"].as_str().unwrap()) || node["state"] == "up";
        of(status, "nodes").iter().all(back)
            && of(status, "volumes").iter().all(|volume| volume["primary"].is_null())
    });
    // Each volume goes on with a node of B that held it.
    for volume in of(&down, "volumes").iter().map(|volume| volume["id"].to_string()) {
        let accept = |node: &str| {
            cluster.operator(&["loss", "accept", &volume, "--node", node, "--reason", "A burnt"])
        };
        let proposed = B.iter().map(|node| accept(node)).find(|run| run.code == 0).expect("B held it");
        cluster.second(&["approve", &proposed.json()["number"].to_string()]).held();
    }
    let apart = cluster
        .wait_for("B to go on", |status| of(status, "volumes").iter().all(|volume| volume["active"] == true));
    assert!(
        of(&apart, "lost").iter().all(|loss| loss["known"] == "at_most" && loss["open"] == true),
        "{apart}"
    );
    let client = cluster.client("acme");
    assert!(matches!(cluster.block_on(client.get(&key("lost-0"))), Err(ReadError::NotFound)));
    assert!(matches!(cluster.block_on(client.get(&key("hidden"))), Err(ReadError::NotFound)));
    cluster.block_on(client.get(&key("kept"))).unwrap();

    for node in A {
        cluster.restart(node);
    }
    cluster.wait_for("A to tell", |status| {
        let told = |store: &Value| store["told"] == true;
        of(status, "lost").iter().all(|loss| of(loss, "stores").iter().all(told))
    });
    let report = cluster.operator(&["loss", "report"]).held().json();
    let acme = of(&report, "tenants").iter().find(|sum| sum["tenant"] == "acme").unwrap().clone();
    assert_eq!((&acme["put"], &acme["unknown"]), (&20.into(), &0.into()), "{report}");
    assert!(acme["bytes"].as_u64().unwrap() >= 20 * 5_000 && acme["oldest_ms"].is_u64(), "{acme}");
    assert!(!report.to_string().contains("lost-"), "no name is told");
    let trust = cluster.path("trust.toml");
    let trust = trust.to_str().unwrap();
    let file = cluster.path("lost.list");
    for loss in of(&report, "losses").iter().filter(|loss| loss["listed"]["put"] != 0) {
        let list = ["loss", "list", &loss["volume"].to_string(), "-o", file.to_str().unwrap()];
        let list = cluster.operator(&list).held().json();
        assert_eq!(list["operators"], serde_json::json!(["admin", "admin-2"]));
        let put = of(&list, "versions").iter().filter(|version| version["what"] == "put").count();
        assert_eq!(loss["listed"]["put"], put, "{list}");
        let verify = ["verify-certificate", file.to_str().unwrap(), "--trust", trust];
        run(&verify).held();
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        run(&verify).failed(1, "does not hold");
    }
    for loss in of(&report, "losses") {
        let volume = loss["volume"].to_string();
        for store in of(loss, "stores") {
            let node = store["node"].as_str().unwrap();
            let seen = decide(&cluster, &["loss", "discard", &volume, "--node", node, "--reason", "agreed"]);
            let shown = seen.json()["shown"].to_string();
            let told = format!("{} put", store["totals"]["put"]);
            assert!(shown.contains(&told) || shown.contains("nothing alone"), "{shown}");
        }
    }
    let whole = cluster.wait_for("every volume", is_whole);
    assert_eq!(of(&whole, "lost"), &Vec::<Value>::new());
    let kept = cluster.operator(&["loss", "report"]).held().json();
    let again = of(&kept, "tenants").iter().find(|sum| sum["tenant"] == "acme").unwrap();
    assert_eq!(again["put"], 20, "the list outlives what it tells of");
    cluster.nothing_panicked();
}
