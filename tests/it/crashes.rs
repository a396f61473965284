//! Processes die and stand still under load; what was acknowledged is there afterwards.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Cluster, NODES, is_whole};
use crate::ledger::Load;

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
    let mut cluster = Cluster::start("node-kill", "7d");
    let client = cluster.client("acme");
    let load = cluster.block_on(async {
        let load = Load::start(&client);
        load.goes_on(100).await;
        load
    });
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
    let cluster = Cluster::start("node-stop", "7d");
    let client = cluster.client("acme");
    let load = cluster.block_on(async {
        let load = Load::start(&client);
        load.goes_on(100).await;
        load
    });
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
    let mut cluster = Cluster::start("all-kill", "7d");
    for round in 0..2 {
        let client = cluster.client("acme");
        let load = cluster.block_on(async {
            let load = Load::start(&client);
            load.goes_on(150).await;
            load
        });
        cluster.kill_everything();
        let ledger = load.abandon();
        let killed = Instant::now();
        cluster.start_again("7d");
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
    let mut cluster = Cluster::start("placement-kill", "7d");
    let client = cluster.client("acme");
    let load = cluster.block_on(async {
        let load = Load::start(&client);
        load.goes_on(50).await;
        load
    });
    cluster.signal(crate::cluster::PLACEMENT, Signal::KILL);
    std::thread::sleep(Duration::from_secs(2));
    cluster.restart(crate::cluster::PLACEMENT);
    cluster.block_on(load.goes_on(100));
    cluster.wait_for("a whole cluster", is_whole);
    let ledger = cluster.block_on(load.stop());
    ledger.none_failed();
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}
