//! Operators move what works, under load, and nobody notices: planned failover and failback of a data
//! centre, draining a node, draining a link.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Alone, Cluster};
use crate::ledger::Load;
use crate::outside::is_whole;
use crate::program::Run;

/// The longest that a planned change of a primary may keep writers waiting.
const PAUSE_MAX_MS: u64 = 2_000;

fn done(run: Run) -> Value {
    let answer = run.json();
    assert_eq!(answer["left"], 0, "{answer}");
    answer
}

fn led_in(status: &Value, dc: &str) -> usize {
    let volumes = status["volumes"].as_array().unwrap().iter();
    volumes.filter(|volume| volume["primary"].as_str().is_some_and(|node| node.starts_with(dc))).count()
}

fn cycle(cluster: &Cluster, times: usize) -> Duration {
    let client = cluster.client("acme");
    let load = Load::at_work(cluster, &client, 100);
    for round in 0..times {
        let away = done(cluster.operator(&["dc", "failover", "a", "--yes"]));
        let status = cluster.wait_for("no primary in a", |status| led_in(status, "a") == 0);
        assert!(led_in(&status, "b") > 0);
        let back = done(cluster.operator(&["dc", "failback", "a", "--yes"]));
        cluster.wait_for("primaries in both", |status| led_in(status, "a") > 0 && led_in(status, "b") > 0);
        let pause = |answer: &Value| answer["longest_pause_ms"].as_u64().unwrap();
        println!("round {round}: {} handovers, the longest pause {} ms", back["handovers"], pause(&back));
        assert!(pause(&away).max(pause(&back)) <= PAUSE_MAX_MS);
    }
    cluster.block_on(load.goes_on(100));
    let ledger = cluster.block_on(load.stop());
    let (acknowledged, longest) = ledger.none_failed();
    println!("{acknowledged} operations acknowledged, the longest took {longest:?}");
    cluster.block_on(ledger.nothing_is_lost(&client));
    longest
}

#[test]
fn row_18_three_failovers_and_failbacks_under_load_cost_no_request() {
    let cluster = Alone::start("handover");
    cycle(&cluster, 3);
    cluster.wait_for("a whole cluster", is_whole);
    cluster.nothing_panicked();
}

#[test]
#[ignore = "takes ten minutes and 30 GB; run it by name"]
fn r044_fifty_failovers_and_failbacks_under_load() {
    let cluster = Alone::start("handover-fifty");
    cycle(&cluster, 50);
    cluster.wait_for("a whole cluster", is_whole);
    cluster.nothing_panicked();
}

#[test]
fn operators_verbs_answer_while_a_data_centre_is_dead() {
    let mut cluster = Alone::start("dead");
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);
    for node in ["a1", "a2", "a3"] {
        cluster.signal(node, Signal::KILL);
    }
    let all = |status: &Value| status["volumes"].as_array().unwrap().len();
    cluster.wait_for("B to lead alone", |status| led_in(status, "b") == all(status));
    cluster.block_on(load.goes_on(100));

    let plan = cluster.operator(&["dc", "failover", "a", "--plan"]).json();
    assert!(!plan["risks"].as_array().unwrap().is_empty(), "{plan}");
    cluster.operator(&["dc", "failover", "a", "--yes", "--no-wait"]).held();
    cluster.operator(&["plan", "progress"]).held();
    cluster.operator(&["plan", "cancel"]).held();
    for verb in [&["link", "drain", "1", "--yes"][..], &["link", "restore", "1", "--yes"]] {
        done(cluster.operator(verb));
    }
    for verb in
        [&["rebalance"][..], &["node", "drain", "b1"], &["node", "drain", "a1"], &["dc", "failover", "b"]]
    {
        let plan = cluster.operator(&[verb, &["--plan"]].concat()).json();
        assert!(plan["number"].is_number(), "{plan}");
    }
    let nodes = cluster.operator(&["node", "list"]).json();
    let down = nodes.as_array().unwrap().iter().filter(|node| node["state"] != "up").count();
    assert_eq!(down, 3, "{nodes}");

    for node in ["a1", "a2", "a3"] {
        cluster.restart(node);
    }
    cluster.wait_for("a whole cluster", is_whole);
    done(cluster.operator(&["dc", "failback", "a", "--yes"]));
    cluster.wait_for("primaries in both", |status| led_in(status, "a") > 0 && led_in(status, "b") > 0);
    cluster.block_on(load.goes_on(100));
    let ledger = cluster.block_on(load.stop());
    ledger.none_failed();
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}

#[test]
fn a_plan_is_shown_first_and_a_node_is_drained_by_its_number_under_load() {
    let cluster = Alone::start("drain");
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);
    let plan = cluster.operator(&["node", "drain", "a1", "--plan"]).json();
    assert!(!plan["steps"].as_array().unwrap().is_empty(), "{plan}");
    assert_eq!(plan["undo"], "trefoil node restore a1");
    assert!(plan["steps"].as_array().unwrap().iter().all(|step| step["leave"] == "a1"), "{plan}");
    let number = plan["number"].to_string();
    cluster.operator(&["node", "drain", "a2", "--apply", &number]).failed(4, "plan of something else");
    done(cluster.operator(&["node", "drain", "a1", "--apply", &number]));
    let holds = |status: &Value| {
        let volumes = status["volumes"].as_array().unwrap().iter();
        volumes.filter(|v| v["in_sync"].as_array().unwrap().iter().any(|node| node == "a1")).count()
    };
    let status = cluster.status().unwrap();
    assert_eq!(holds(&status), 0, "{status}");
    cluster.block_on(load.goes_on(100));
    let nodes = cluster.operator(&["node", "list"]).json();
    assert!(nodes.as_array().unwrap().iter().any(|node| node["id"] == "a1" && node["draining"] == true));
    done(cluster.operator(&["node", "restore", "a1", "--yes"]));
    done(cluster.operator(&["rebalance", "--yes"]));
    cluster.wait_for("a share for a1", |status| holds(status) > 0);
    let ledger = cluster.block_on(load.stop());
    ledger.none_failed();
    cluster.block_on(ledger.nothing_is_lost(&client));
    cluster.nothing_panicked();
}
