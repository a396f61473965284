//! A cluster grows and shrinks while clients work on it: nodes are added, take their share and nothing more,
//! and are taken out again.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Alone, Cluster};
use crate::ledger::Load;
use crate::outside::is_whole;

/// A volume and a node that holds it.
type Place = (u64, String);

fn places(status: &Value) -> BTreeSet<Place> {
    let volumes = status["volumes"].as_array().unwrap().iter();
    let of = |volume: &Value| {
        let id = volume["id"].as_u64().unwrap();
        let nodes = volume["in_sync"].as_array().unwrap().clone();
        nodes.into_iter().map(move |node| (id, node.as_str().unwrap().to_owned()))
    };
    volumes.flat_map(of).collect()
}

fn in_centre(places: &BTreeSet<Place>, dc: &str) -> usize {
    places.iter().filter(|(_, node)| node.starts_with(dc)).count()
}

fn on(places: &BTreeSet<Place>, node: &str) -> usize {
    places.iter().filter(|(_, holder)| holder == node).count()
}

/// Runs a verb that moves volumes to its end, and says what had come to a new place then.
fn moved(cluster: &Cluster, verb: &[&str]) -> usize {
    let before = places(&cluster.status().unwrap());
    let answer = cluster.operator(verb).json();
    assert_eq!(answer["left"], 0, "{answer}");
    let after = places(&cluster.wait_for("a whole cluster", is_whole));
    after.difference(&before).count()
}

#[test]
fn a_cluster_grows_to_eight_nodes_and_shrinks_to_six_under_load() {
    let mut cluster = Alone::start("growth");
    cluster.operator(&["tenant", "create", "wide", "--volumes", "32"]).held();
    let before = places(&cluster.wait_for("a whole cluster", is_whole));
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);

    let folder = cluster.folder().path().to_str().unwrap().to_owned();
    for (node, dc) in [("a4", "a"), ("b4", "b")] {
        let add = ["node", "add", node, "--dc", dc, "--data", &folder];
        cluster.operator(&add).held();
        cluster.operator(&add).failed(4, "there is a server");
        cluster.restart(node);
    }
    cluster.wait_for("eight nodes", |status| {
        status["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "up").count() == 8
    });
    let grown = moved(&cluster, &["rebalance", "--yes"]);
    let share = |dc| in_centre(&before, dc) / 4;
    let ideal = share("a") + share("b");
    println!("growing moved {grown} copies; {ideal} are the share of two nodes of eight");
    assert!(grown * 10 <= ideal * 12, "{grown} copies were moved, {ideal} would do");
    let status = cluster.status().unwrap();
    for (node, dc) in [("a4", "a"), ("b4", "b")] {
        assert!(on(&places(&status), node) >= share(dc), "{status}");
    }
    cluster.block_on(load.goes_on(100));

    for node in ["a4", "b4"] {
        let held = on(&places(&cluster.status().unwrap()), node);
        let shrunk = moved(&cluster, &["node", "drain", node, "--yes"]);
        println!("draining {node} moved {shrunk} copies; it held {held}");
        assert!(shrunk * 10 <= held * 12, "{shrunk} copies were moved, {held} would do");
        cluster.operator(&["node", "remove", node, "--yes"]).held();
        cluster.signal(node, Signal::KILL);
    }
    let nodes = cluster.operator(&["node", "list"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 6, "{nodes}");
    let after = places(&cluster.wait_for("a whole cluster", is_whole));
    assert_eq!(after.len(), before.len());
    cluster.block_on(load.goes_on(100));
    let ledger = cluster.block_on(load.stop());
    let (acknowledged, longest) = ledger.none_failed();
    println!("{acknowledged} operations acknowledged, the longest took {longest:?}");
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}
