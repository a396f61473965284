//! Processes die and stand still under load; what was acknowledged is there afterwards.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Alone, Cluster};
use crate::ledger::Load;
use crate::outside::{NODES, PLACEMENT, is_whole};
use crate::program::Folder;
use crate::storing::read_tree;

/// The node that leads the most volumes of a tenant, by its status.
fn busiest(cluster: &Cluster, tenant: &str) -> String {
    let status = cluster.status().unwrap();
    let volumes = status["volumes"].as_array().unwrap().iter();
    let leads = |node: &str| {
        volumes.clone().filter(|volume| volume["tenant"] == tenant && volume["primary"] == node).count()
    };
    NODES.into_iter().max_by_key(|node| leads(node)).unwrap().to_owned()
}

#[test]
fn a_killed_node_costs_no_request_and_comes_back() {
    let mut cluster = Alone::start("node-kill");
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);
    let victim = busiest(&cluster, "acme");
    cluster.signal(&victim, Signal::KILL);
    let killed = Instant::now();
    cluster.block_on(load.goes_on(200));
    println!("{victim} killed; 200 more operations after {:?}", killed.elapsed());
    cluster.restart(&victim);
    cluster.wait_for("the killed node's return", is_whole);
    let ledger = cluster.block_on(load.stop());
    let (acknowledged, longest) = ledger.none_failed();
    println!("{acknowledged} operations acknowledged, the longest took {longest:?}");
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}

#[test]
fn a_node_that_stood_still_beyond_its_lease_serves_nothing_stale() {
    let cluster = Alone::start("node-stop");
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);
    let victim = busiest(&cluster, "acme");
    cluster.signal(&victim, Signal::STOP);
    // Longer than a lease and its wait-out, so that somebody else leads now.
    cluster.wait_for("another primary", |status| {
        let volumes = status["volumes"].as_array().unwrap().iter();
        volumes.filter(|v| v["tenant"] == "acme").all(|v| v["primary"] != *victim && v["active"] == true)
    });
    cluster.block_on(load.goes_on(100));
    cluster.signal(&victim, Signal::CONT);
    cluster.block_on(load.goes_on(100));
    cluster.wait_for("the continued node's return", is_whole);
    let ledger = cluster.block_on(load.stop());
    ledger.none_failed();
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}

#[test]
fn r011_after_every_process_was_killed_at_once_everything_acknowledged_is_there() {
    let mut cluster = Alone::start("all-kill");
    for round in 0..2 {
        let client = cluster.client("acme");
        let load = Load::at_work(&cluster, &client, 150);
        cluster.kill_everything();
        let ledger = load.abandon();
        let killed = Instant::now();
        cluster.start_again();
        println!("round {round}: whole {:?} after every process was killed", killed.elapsed());
        let client = cluster.client("acme");
        let count = cluster.block_on(ledger.nothing_is_lost(&client));
        println!("round {round}: {count} keys read back");
        cluster.wait_for("a whole cluster", is_whole);
    }
    cluster.nothing_panicked();
}

#[test]
fn a_killed_placement_process_comes_back_and_nobody_noticed() {
    let mut cluster = Alone::start("placement-kill");
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 50);
    cluster.signal(PLACEMENT, Signal::KILL);
    cluster.block_on(load.goes_on(100));
    cluster.restart(PLACEMENT);
    cluster.block_on(load.goes_on(100));
    cluster.wait_for("a whole cluster", is_whole);
    let ledger = cluster.block_on(load.stop());
    ledger.none_failed();
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}

#[test]
fn one_data_centre_is_lost_and_every_object_is_read_and_written() {
    let cluster = Alone::start("lose-a");
    let folder = Folder::new("lose-a-files");
    let put = |prefix| {
        cluster.tenant("acme", &["put", "-r", folder.path().to_str().unwrap(), prefix]).held();
    };
    for n in 0..30 {
        fs::write(folder.join(format!("{n}")), format!("content {n}")).unwrap();
    }
    put("before/");
    ["a1", "a2", "a3"].iter().for_each(|node| cluster.signal(node, Signal::KILL));
    put("during/");
    for prefix in ["before/", "during/"] {
        let out = Folder::new("lose-a-out");
        cluster.tenant("acme", &["get", "-r", prefix, "-o", out.path().to_str().unwrap()]).held();
        assert_eq!(read_tree(out.path()), read_tree(folder.path()), "{prefix}");
    }
    let status = cluster.wait_for("every object to be counted", |status| status["objects"] == 60);
    assert_eq!((&status["healthy"], &status["protection"]), (&false.into(), &"SingleDc".into()));
    cluster.nothing_panicked();
}

#[test]
fn r018_a_strict_tenant_is_told_to_try_later_while_a_data_centre_is_away() {
    let cluster = Alone::start("strict");
    cluster.found_as("initech", "7d", "strict");
    let file = cluster.path("in");
    fs::write(&file, b"kept in both").unwrap();
    let put = ["put", "k", file.to_str().unwrap()];
    cluster.tenant("initech", &put).held();
    for node in ["b1", "b2", "b3"] {
        cluster.signal(node, Signal::KILL);
    }
    let of = |status: &Value, tenant: &str, field: &str, wanted: &Value| {
        let volumes = status["volumes"].as_array().unwrap().iter().filter(|v| v["tenant"] == tenant);
        volumes.map(|volume| &volume[field]).all(|value| value == wanted)
    };
    let status = cluster.wait_for("every volume in one data centre", |status| {
        let active = |tenant| of(status, tenant, "active", &true.into());
        let single = |tenant| of(status, tenant, "protection", &"SingleDc".into());
        ["initech", "acme"].into_iter().all(|tenant| active(tenant) && single(tenant))
    });
    assert!(
        of(&status, "initech", "policy", &"strict".into())
            && of(&status, "acme", "policy", &"available".into())
    );
    cluster.plain("initech", &put).failed(5, "one data centre cannot be reached");
    cluster.plain("initech", &["rm", "k"]).failed(5, "one data centre cannot be reached");
    assert_eq!(cluster.plain("initech", &["get", "k"]).held().stdout, b"kept in both");
    // The other tenants go on, and what that puts at risk is shown.
    cluster.tenant("acme", &put).held();
    let counted = |line: &Value| line["known"] == "counted" && line["objects"] == 1;
    let status = cluster
        .wait_for("what is at risk", |status| status["at_risk"].as_array().unwrap().iter().any(counted));
    assert!(status["at_risk"].as_array().unwrap().iter().all(|line| line["tenant"] != "initech"), "{status}");
}
