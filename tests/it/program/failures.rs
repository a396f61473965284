//! What a cluster keeps when its processes die, and what the program says when things are wrong.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::local_cluster::{Folder, LocalCluster, Ran, SERVERS, trefoil};

#[test]
fn everything_acknowledged_survives_the_death_of_all_processes_at_once() {
    let mut cluster = LocalCluster::start("kill-all", "7d");
    let folder = Folder::new("kill-all-files");
    for n in 0..40_usize {
        fs::write(folder.join(&n.to_string()), vec![n as u8; n * 2500]).unwrap();
    }
    cluster.acme(&["put", "-r", folder.path().to_str().unwrap(), "k/"]);
    let servers: Vec<_> = SERVERS.iter().map(|server| cluster.pid(server)).collect();
    cluster.kill_dev();
    std::thread::sleep(Duration::from_millis(500));
    for server in servers {
        assert!(!runs(server), "a server outlived dev");
    }
    cluster.run(&[]);
    let out = Folder::new("kill-all-out");
    cluster.acme(&["get", "-r", "k/", "-o", out.path().to_str().unwrap()]);
    for n in 0..40_usize {
        assert!(fs::read(out.join(&n.to_string())).unwrap() == vec![n as u8; n * 2500], "{n}");
    }
}

/// Whether a process still runs; one that has ended may wait for whoever adopted it.
fn runs(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    state.is_ok_and(|state| !state.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[test]
fn one_data_centre_is_lost_and_every_object_is_read_and_written() {
    let cluster = LocalCluster::start("lose-a", "7d");
    let folder = Folder::new("lose-a-files");
    for n in 0..30 {
        fs::write(folder.join(&format!("{n}")), format!("content {n}")).unwrap();
    }
    cluster.acme(&["put", "-r", folder.path().to_str().unwrap(), "before/"]);
    cluster.kill(&["a1", "a2", "a3"]);
    cluster.acme(&["put", "-r", folder.path().to_str().unwrap(), "during/"]);
    for prefix in ["before/", "during/"] {
        let out = Folder::new("lose-a-out");
        cluster.acme(&["get", "-r", prefix, "-o", out.path().to_str().unwrap()]);
        for n in 0..30 {
            assert_eq!(fs::read_to_string(out.join(&format!("{n}"))).unwrap(), format!("content {n}"));
        }
    }
    let status = cluster.as_tenant("admin", &["--json", "status"]).succeeded().json();
    assert_eq!(status["healthy"], false);
    assert_eq!(status["protection"], "SingleDc");
}

#[test]
fn a_killed_node_is_started_again_by_hand_and_catches_up() {
    let cluster = LocalCluster::start("by-hand", "7d");
    let folder = Folder::new("by-hand-files");
    for n in 0..20 {
        fs::write(folder.join(&format!("{n}")), format!("content {n}")).unwrap();
    }
    let put = |prefix: &str| cluster.acme(&["put", "-r", folder.path().to_str().unwrap(), prefix]);
    put("before/");
    cluster.kill(&["b2"]);
    put("meanwhile/");
    let mut node = trefoil();
    node.arg("storage-node").arg("--config").arg(cluster.file("b2/config.toml"));
    let mut node = node.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let status = || cluster.as_tenant("admin", &["--json", "status"]).succeeded().json();
    while status()["healthy"] != true {
        assert!(began.elapsed() < Duration::from_secs(120), "{}", status());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(status()["objects"], 40);
    node.kill().unwrap();
    node.wait().unwrap();
}

#[test]
fn a_server_is_not_started_twice_and_a_port_in_use_is_named() {
    let cluster = LocalCluster::start("twice", "7d");
    let start = |configuration: &std::path::Path| {
        let mut server = trefoil();
        server.arg("storage-node").arg("--config").arg(configuration).stdin(Stdio::null());
        Ran::new(&["storage-node"], server.output().unwrap())
    };
    let own = cluster.file("a1/config.toml");
    assert!(start(&own).failed_with(1).stderr.contains("already runs"));
    // The same ports under another folder.
    let other = cluster.file("other");
    fs::create_dir_all(other.join("data")).unwrap();
    fs::copy(cluster.file("a1/identity.pem"), other.join("identity.pem")).unwrap();
    fs::copy(&own, other.join("config.toml")).unwrap();
    let port = start(&other.join("config.toml")).failed_with(1);
    assert!(port.stderr.contains("cannot use UDP address 127.0.0.1:"), "{}", port.stderr);
}

#[test]
fn a_stopped_nodes_store_can_be_inspected_scrubbed_and_searched() {
    let mut cluster = LocalCluster::start("offline", "7d");
    let folder = Folder::new("offline-files");
    fs::write(folder.join("in"), vec![7; 200_000]).unwrap();
    cluster.acme(&["put", "k", folder.join("in").to_str().unwrap()]);
    let offline = |verb: &str, more: &[&str]| {
        let mut node = trefoil();
        node.args(["--json", "node", verb]).arg(cluster.file("a1")).args(more);
        Ran::new(&[verb], node.output().unwrap())
    };
    offline("inspect", &[]).failed_with(1);
    let copies = cluster.acme(&["--json", "head", "k"]).json();
    let holds = copies["copies"].as_array().unwrap().iter().any(|copy| copy["node"] == "a1");
    cluster.stop();
    let offline = |verb: &str, more: &[&str]| {
        let mut node = trefoil();
        node.args(["--json", "node", verb]).arg(cluster.file("a1")).args(more);
        Ran::new(&[verb], node.output().unwrap())
    };
    let inspected = offline("inspect", &[]).succeeded().json();
    assert_eq!((inspected["node"].as_str(), inspected["clean"].as_bool()), (Some("a1"), Some(true)));
    let scrubbed = offline("scrub", &[]).succeeded().json();
    assert_eq!(scrubbed["faults"].as_array().unwrap().len(), 0);
    assert_eq!(holds, scrubbed["leaves"].as_u64().unwrap() >= 4);
    offline("rebuild-index", &[]).succeeded();
    offline("find-bytes", &["--hex", &"07".repeat(64)]).failed_with(3);
    // What was opened offline is still a clean store: the cluster starts on it.
    cluster.run(&[]);
    assert_eq!(cluster.acme(&["get", "k"]).stdout, vec![7; 200_000]);
}
