//! Drills on a real cluster: what they break heals, what they report was measured, and whoever doctors a report is found.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::{Alone, Cluster};
use crate::outside::is_whole;
use crate::program::{Run, run};

const NODE: &str = r#"
name = "a node is killed and comes back"
row = 1
horizon = "22s"
[topology]
volumes = 2
[load]
think = "50ms"
[expect]
rto = "15s"
rpo = "0"
during = [{ from = "18s", until = "20s", writes = "yes", reads = "yes" }]
failed = 0
[[fault]]
at = "3s"
crash = { nodes = ["a2"], how = "process" }
[[fault]]
at = "20s"
restart = "a2"
"#;

const DURING: &str = r#"during = [{ from = "18s", until = "20s", writes = "yes", reads = "yes" }]"#;

const KILL: &str = r#"crash = { nodes = ["a2"], how = "process" }"#;

const ALWAYS: &str = r#"
[[blackout]]
from = "00:00"
until = "00:00"
reason = "never"
"#;

const LINK: &str = r#"
name = "a link is cut and comes back"
row = 7
horizon = "12s"
[load]
think = "50ms"
[expect]
rto = "5s"
during = [{ from = "0s", until = "12s", writes = "yes", reads = "yes" }]
declared_in_vain = 2
[[fault]]
at = "3s"
cut = "x1"
[[rescue]]
at = "6s"
do = "declare-dead"
"#;

/// No drill begins on a cluster that is not well, and just after its start not every pair of nodes has been heard over
/// both links.
#[track_caller]
fn wait_until_healthy(cluster: &Cluster) {
    cluster.wait_for("a healthy cluster", |status| status["healthy"] == true);
}

fn drill(cluster: &Cluster, name: &str, text: &str) -> (PathBuf, Run) {
    wait_until_healthy(cluster);
    let file = cluster.path(format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    let (data, out) = (cluster.path(""), cluster.path(format!("{name}-reports")));
    fs::create_dir_all(&out).unwrap();
    let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    let done = run(&["--json", "drill", "run", file, "--data", data, "--out", out.to_str().unwrap()]);
    (out, done)
}

fn verify(cluster: &Cluster, report: &str) -> Run {
    cluster.operator(&["drill", "verify", report])
}

/// The one file of a folder that ends so.
fn only(folder: &PathBuf, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.extension().is_some_and(|known| known == ending));
    let one = found.next().unwrap();
    assert_eq!(found.next(), None);
    one
}

#[track_caller]
fn nothing_is_wrong(report: &Value) {
    assert_eq!(report["outcome"]["word"], "held", "{report}");
    assert_eq!(report["rpo_lost"], 0);
    let verification = &report["verification"];
    assert_eq!(verification["whole"], true);
    let (objects, copies) =
        (verification["objects"].as_u64().unwrap(), verification["copies"].as_u64().unwrap());
    assert!(objects > 10 && copies > 10 && copies % 3 == 0, "{objects} objects, {copies} copies");
}

#[test]
fn drills_break_heal_measure_and_sign() {
    let cluster = Alone::start_relayed("drills");

    let (out, done) = drill(&cluster, "node", NODE);
    let document = done.held().json();
    let report = &document["report"];
    nothing_is_wrong(report);
    let marks = report["marks"].as_array().unwrap();
    assert_eq!(marks.len(), 2, "a kill and a start: {marks:?}");
    let pause = marks[0]["pause_ms"].as_u64().unwrap();
    assert!((1_000..=15_000).contains(&pause), "the lease of the dead node was waited out: {pause} ms");
    assert_eq!(report["rto_ms"].as_u64(), Some(pause));
    let page = fs::read_to_string(only(&out, "html")).unwrap();
    assert!(page.contains("process death: a2") && page.contains("Signed by operator/admin."));

    let file = only(&out, "json");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("PRIVATE"), "a report shows no key");
    assert_eq!(verify(&cluster, file.to_str().unwrap()).held().json()["signer"], "operator/admin");
    let doctored = cluster.path("doctored.json");
    fs::write(&doctored, text.replace("\"rpo_lost\": 0", "\"rpo_lost\": 1")).unwrap();
    assert_eq!(verify(&cluster, doctored.to_str().unwrap()).code, 6, "not what was signed");

    // Nobody heals this one but the drill itself: its file says nothing of it.
    let (_, done) = drill(&cluster, "link", LINK);
    let document = done.held().json();
    nothing_is_wrong(&document["report"]);
    let marks = document["report"]["marks"].as_array().unwrap();
    assert_eq!(marks[1]["what"], "an operator declares the wrong data centre dead");
    assert_eq!((&marks[2]["what"], &marks[2]["heals"]), (&"all is healed".into(), &true.into()));
    cluster.wait_for("both links to carry", |status| {
        is_whole(status) && status["links"].as_array().unwrap().iter().all(|link| link["state"] == "up")
    });

    let listed = cluster.plain("acme", &["drill", "list"]).held();
    assert_eq!(listed.text().lines().count(), 2, "{}", listed.text());
    let id = file.file_stem().unwrap().to_str().unwrap();
    let fetched = cluster.tenant("acme", &["drill", "report", id]).held().json();
    assert_eq!(fetched["report"]["id"], id);
    cluster.nothing_panicked();
}

const OPERATOR: &str = r#"
name = "an operator fails a data centre over and back under load"
horizon = "16s"
[load]
think = "50ms"
[expect]
during = [{ from = "0s", until = "16s", writes = "yes", reads = "yes" }]
failed = 0
handovers = 2
[[operator]]
at = "2s"
every = "3s"
verbs = ["failover a", "failback a"]
"#;

/// What an operator would give to `ssh`, for a cluster in a folder of this machine. Nobody is the parent of the
/// server that it starts, so that it ends by itself after a while.
fn hands_script(cluster: &Cluster) -> PathBuf {
    let path = cluster.path("hands.sh");
    let data = cluster.path("");
    let program = env!("CARGO_BIN_EXE_trefoil");
    let text = format!(
        "cd {}\ncase $1 in\n\
         kill) kill -9 $(cat $2/pid);;\n\
         start) env -u TREFOIL_PARENT setsid timeout -s KILL 240 {program} storage-node --config $2/config.toml </dev/null >/dev/null 2>>$2/log &\n;;\n\
         pause) kill -STOP $(cat $2/pid);;\n\
         continue) kill -CONT $(cat $2/pid);;\n\
         esac\n",
        data.display()
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_operators_plans_and_an_operators_own_hands_are_drilled_with_on_a_live_cluster() {
    let cluster = Alone::start("drills-hands");
    let (_, done) = drill(&cluster, "operator", OPERATOR);
    let document = done.held().json();
    nothing_is_wrong(&document["report"]);
    let marks = document["report"]["marks"].as_array().unwrap();
    let done: Vec<&str> = marks.iter().map(|mark| mark["what"].as_str().unwrap()).collect();
    assert_eq!(done, ["operator: failover a", "operator: failback a"]);

    let script = hands_script(&cluster);
    let hand = |word: &str| format!("{word} = \"sh {} {word} {{node}}\"\n", script.display());
    let hands: String = ["kill", "start", "pause", "continue"].map(hand).concat();
    let far = format!(
        "operator = \"admin.toml\"\n[tenants]\nacme = \"tenants/acme.toml\"\n\
         globex = \"tenants/globex.toml\"\n[names]\nremote = \"a2\"\n[hands]\n{hands}"
    );
    let (file, at) = (cluster.path("remote.toml"), cluster.path("cluster-of-drills.toml"));
    // The hands are what is new here: the node returns before anybody takes its place.
    let soon = NODE.replace("22s", "10s").replace(DURING, "").replace("at = \"20s\"", "at = \"6s\"");
    fs::write(&file, soon.replace("a2", "remote")).unwrap();
    fs::write(&at, far).unwrap();
    let (file, at, out) = (file.to_str().unwrap(), at.to_str().unwrap(), cluster.path("remote-reports"));
    fs::create_dir_all(&out).unwrap();
    let arguments = ["--json", "drill", "run", file, "--cluster", at, "--out", out.to_str().unwrap()];
    wait_until_healthy(&cluster);
    let document = run(&arguments).held().json();
    nothing_is_wrong(&document["report"]);
    assert_eq!(document["report"]["marks"][0]["what"], "process death: remote");
    // Nobody else knows the process that the script has started.
    cluster.signal("a2", rustix::process::Signal::KILL);
    cluster.nothing_panicked();
}

#[test]
fn whoever_interrupts_a_drill_finds_the_cluster_healed_and_a_signed_report() {
    let cluster = Alone::start("drills-interrupted");
    let file = cluster.path("long.toml");
    fs::write(&file, NODE.replace("22s", "90s").replace("20s", "80s")).unwrap();
    let out = cluster.path("reports");
    fs::create_dir_all(&out).unwrap();
    let (file, data) = (file.to_str().unwrap().to_owned(), cluster.path(""));
    let mut command = crate::program::trefoil(&[
        "--json",
        "drill",
        "run",
        &file,
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    let drill = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    wait_until_healthy(&cluster);
    let drill = drill.spawn().unwrap();
    cluster.wait_for("the drill's fault", |status| !is_whole(status));
    let pid = rustix::process::Pid::from_child(&drill);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = drill.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("broken off and healed: somebody interrupted it"), "{said}");
    let document: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let report = &document["report"];
    assert_eq!((&report["outcome"]["word"], &report["rpo_lost"]), (&"aborted".into(), &0.into()));
    assert_eq!(
        (&report["marks"][1]["what"], &report["verification"]["whole"]),
        (&"all is healed".into(), &true.into())
    );
    assert_eq!(verify(&cluster, only(&out, "json").to_str().unwrap()).code, 0);
    assert!(is_whole(&cluster.status().unwrap()));
    cluster.nothing_panicked();
}

/// A node that gets the processor in pieces; its disk and its links are well.
const STARVED: &str = r#"
name = "a node stands still again and again, is put out, and is let back in"
row = 13
horizon = "55s"
[topology]
volumes = 4
[load]
think = "50ms"
[expect]
rto = "30s"
rpo = "0"
during = [{ from = "0s", until = "55s", writes = "yes", reads = "yes" }]
failed = 0
put_out = 1
[[fault]]
at = "10s"
starve = { node = "a2", for = "30s", stall = "600ms", run = "20ms" }
"#;

/// The mean of the longest answers of some seconds, in milliseconds.
fn longest_ms(report: &Value, from: usize, until: usize) -> f64 {
    let seconds = &report["seconds"].as_array().unwrap()[from..until];
    let longest = seconds.iter().map(|second| second["longest_us"].as_f64().unwrap() / 1_000.0);
    longest.sum::<f64>() / (until - from) as f64
}

#[test]
fn r047_row_13_a_node_that_stands_still_again_and_again_leaves_the_write_path_and_comes_back() {
    let cluster = Alone::start("drills-starved");
    let (_, done) = drill(&cluster, "starved", STARVED);
    let document = done.held().json();
    let report = &document["report"];
    nothing_is_wrong(report);
    let (before, during, after) =
        (longest_ms(report, 2, 9), longest_ms(report, 10, 30), longest_ms(report, 32, 39));
    println!(
        "row 13: the longest answers of a second take {before:.0} ms before, {during:.0} ms while the node is found \
         out, {after:.0} ms while it still stands still and is out: {:.1} times as long; target 30 s",
        after / before
    );
    cluster.wait_for("the end of the probation", |status| {
        is_whole(status) && status["slow"].as_array().is_none_or(Vec::is_empty)
    });
    cluster.nothing_panicked();
}

#[test]
fn a_drill_that_cannot_be_run_says_why_and_breaks_nothing() {
    let cluster = Alone::start("no-drills");
    for (name, text, code, reason) in [
        ("typo", NODE.replace("crash", "crush"), 2, "line 16"),
        ("early", format!("{NODE}{ALWAYS}"), 4, "(never)"),
        ("nobody", NODE.replace("\"a2\"", "\"a9\""), 4, "a9, which is none of a1"),
        ("voters", NODE.replace("volumes = 2", "voters = 5"), 4, "needs 5 voters"),
        ("strict", NODE.replace("volumes = 2", "strict = true"), 4, "for tenants that are strict"),
        ("disk", NODE.replace(KILL, "lose-disk = \"a2\""), 4, "`trefoil-sim` runs it"),
        ("link", LINK.to_owned(), 4, "--relay"),
        ("lost", format!("{NODE}[[rescue]]\nat = \"1s\"\ndo = \"lose\"\n"), 4, "restores nothing"),
    ] {
        let (out, done) = drill(&cluster, name, &text);
        assert_eq!(done.code, code, "{name}: {}", done.stderr);
        assert!(done.stderr.contains(reason), "{name}: {}", done.stderr);
        assert_eq!(fs::read_dir(out).unwrap().count(), 0, "{name} left a report");
    }
    // No client has an answer while a lease is waited out: the drill ends early, and heals.
    let impatient = format!("{NODE}[abort]\noutage = \"1s\"\n");
    let (_, done) = drill(&cluster, "impatient", &impatient);
    assert_eq!(done.code, 1, "{}", done.stderr);
    let report = &done.json()["report"];
    assert_eq!(report["outcome"]["word"], "aborted", "{report}");
    assert_eq!(report["marks"][1]["what"], "all is healed");
    assert_eq!(report["verification"]["lost"], Value::Array(vec![]));
    assert!(is_whole(&cluster.status().unwrap()));
    cluster.nothing_panicked();
}
