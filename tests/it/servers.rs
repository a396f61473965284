//! Servers whose surroundings are wrong: each says what is wrong and where, and harms nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{Alone, shared};
use crate::outside::{NODES, is_whole};
use crate::program::{Run, run, run_until_it_ends};
use crate::storing::content;

/// Starts a node by a configuration that must not work.
fn start(configuration: &Path) -> Run {
    let arguments = ["storage-node", "--config", configuration.to_str().unwrap()];
    run_until_it_ends(&arguments, Duration::from_secs(20))
}

/// Replaces a part of a configuration.
fn edit(configuration: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(configuration).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(configuration, text.replace(from, to)).unwrap();
}

#[test]
fn a_node_names_what_is_wrong_with_its_files() {
    let mut cluster = Alone::start("wrong-files");
    let stored = cluster.path("in");
    fs::write(&stored, content(1, 100_000)).unwrap();
    cluster.tenant("acme", &["put", "k", stored.to_str().unwrap()]).held();
    cluster.signal("a1", Signal::KILL);
    cluster.signal("b1", Signal::KILL);
    cluster.wait_for("both to be missed", |status| {
        let down = status["nodes"].as_array().unwrap().iter().filter(|node| node["state"] != "up");
        down.count() == 2
    });
    let file = cluster.configuration("a1");
    let right = fs::read_to_string(&file).unwrap();
    let wrong = |from: &str, to: &str| {
        edit(&file, from, to);
        let run = start(&file);
        fs::write(&file, &right).unwrap();
        run
    };
    start(&cluster.path("nowhere/config.toml")).failed(2, "nowhere/config.toml");
    wrong("rack =", "rock =").failed(2, "rock");
    wrong("identity.pem", "absent.pem").failed(1, "absent.pem");
    wrong("../ca/ca.pem", "../ca/ca.key").failed(1, "ca.key");
    wrong("id = \"a1\"", "id = \"a2\"").failed(1, "belongs to node a1");
    // The folder of another node's store, and one that is not there.
    let foreign = format!("data = \"{}\"", cluster.data("b1").display());
    wrong("data = \"data\"", &foreign).failed(1, "belongs to node b1");
    wrong("data = \"data\"", "data = \"no/such/folder\"").failed(1, "no/such/folder");
    assert!(!cluster.path("a1/no").exists(), "nothing was made");
    // Nothing of that did harm.
    cluster.restart("a1");
    cluster.restart("b1");
    cluster.wait_for("both to come back", is_whole);
    let out = cluster.path("out");
    cluster.tenant("acme", &["get", "k", "-o", out.to_str().unwrap()]).held();
    assert!(fs::read(out).unwrap() == content(1, 100_000));
    cluster.nothing_panicked();
}

#[test]
fn r004_on_full_disks_puts_are_refused_and_reads_and_deletes_work() {
    let mut cluster = Alone::start("full");
    for node in NODES {
        edit(&cluster.configuration(node), "capacity = 274877906944", &format!("capacity = {}", 48 << 20));
        cluster.signal(node, Signal::KILL);
        cluster.restart(node);
    }
    cluster.wait_for("the cluster on small disks", is_whole);
    let file = cluster.path("in");
    fs::write(&file, content(7, 1 << 20)).unwrap();
    let put =
        |name: &str| cluster.tenant("acme", &["--deadline", "10s", "put", name, file.to_str().unwrap()]);
    let mut stored = Vec::new();
    let refused = (0..200).find_map(|number| {
        let name = format!("full/{number}");
        let run = put(&name);
        if run.code == 0 {
            stored.push(name);
            return None;
        }
        Some(run)
    });
    let refused = refused.expect("48 MiB are full at some time");
    println!("{} MiB stored, then: {} {}", stored.len(), refused.code, refused.stderr.trim());
    refused.failed(4, "full");
    assert!(stored.len() > 10, "{} stored", stored.len());
    // Reads, listings and deletes go on; nothing that was acknowledged is lost.
    let out = cluster.path("out");
    for name in &stored {
        cluster.tenant("acme", &["get", name, "-o", out.to_str().unwrap()]).held();
        assert!(fs::read(&out).unwrap() == content(7, 1 << 20), "{name}");
    }
    for name in &stored[..5] {
        cluster.tenant("acme", &["rm", name]).held();
    }
    cluster.tenant("acme", &["undelete", &stored[0]]).held();
    cluster.nothing_panicked();
    let status = cluster.status().unwrap();
    assert!(is_whole(&status), "no node ended, no copy was given up: {status}");
}

#[test]
fn a_server_is_not_started_twice_and_a_port_in_use_is_named() {
    let cluster = shared();
    start(&cluster.configuration("a1")).failed(1, "already runs");
    // The same ports under another folder.
    let other = cluster.path("other");
    fs::create_dir_all(other.join("data")).unwrap();
    for file in ["identity.pem", "config.toml"] {
        fs::copy(cluster.path("a1").join(file), other.join(file)).unwrap();
    }
    start(&other.join("config.toml")).failed(1, "cannot use UDP address 127.0.0.1:");
}

#[test]
fn a_stopped_nodes_store_can_be_inspected_scrubbed_and_searched() {
    let mut cluster = Alone::start("offline");
    let file = cluster.path("in");
    fs::write(&file, vec![7; 200_000]).unwrap();
    cluster.tenant("acme", &["put", "k", file.to_str().unwrap()]).held();
    let head = cluster.tenant("acme", &["head", "k"]).held().json();
    let holds = head["copies"].as_array().unwrap().iter().any(|copy| copy["node"] == "a1");
    let folder = cluster.path("a1");
    let offline =
        |verb, more: &[&str]| run(&[&["--json", "node", verb, folder.to_str().unwrap()], more].concat());
    offline("inspect", &[]).failed(1, "is in use by another process");
    cluster.stop();
    let inspected = offline("inspect", &[]).held().json();
    assert_eq!((&inspected["node"], &inspected["clean"]), (&"a1".into(), &true.into()));
    let scrubbed = offline("scrub", &[]).held().json();
    assert_eq!(scrubbed["faults"].as_array().unwrap().len(), 0);
    assert_eq!(holds, scrubbed["leaves"].as_u64().unwrap() >= 4);
    offline("rebuild-index", &[]).held();
    offline("find-bytes", &["--hex", &"07".repeat(64)]).failed(3, "");
    // What was opened offline is still a clean store: the cluster starts on it.
    cluster.start_again();
    assert_eq!(cluster.plain("acme", &["get", "k"]).held().stdout, vec![7; 200_000]);
}
