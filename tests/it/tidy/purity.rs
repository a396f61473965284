//! Decisions are pure: outside shells no clock, randomness, thread, socket, file or unordered map.
//! Clippy holds part of this per call; these rules also see names that clippy does not know, and
//! forbid a second implementation of a core.

use super::sources::{Source, files, none};

/// Folders of code that decides. What lies in a `shell` below them is not part of it.
const PURE: &[&str] = &[
    "protocol/src/",
    "protocol/drill/src/",
    "storage-node/src/",
    "storage-node/engine/src/",
    "placement/src/",
    "client/src/",
    "sim/src/",
];

/// What decisions never name.
const BARRED: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "thread::spawn",
    "thread::sleep",
    "HashMap",
    "HashSet",
    "tokio::",
    "getrandom::",
    "rand::",
    "UdpSocket",
    "TcpStream",
    "std::fs",
    "std::env",
    "std::process",
    "println!",
];

/// Doors in the wall, each with its reason.
const DOORS: &[(&str, &str, &str)] = &[
    ("client/src/entropy.rs", "getrandom::", "the one source of randomness that production hands in"),
    ("sim/src/trace.rs", "std::fs", "a trace can be written down as it grows"),
];

#[test]
fn decisions_name_no_clock_randomness_thread_socket_or_file() {
    let mut findings = Vec::new();
    for file in files(".rs").iter().filter(|file| is_pure(file)) {
        for (number, line) in file.code_lines() {
            for word in BARRED.iter().filter(|word| line.contains(**word) && !has_door(&file.path, word)) {
                findings.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    none("a core is given time, randomness and results as events", findings);
}

fn is_pure(file: &Source) -> bool {
    let test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    let shell = file.path.contains("/shell/") || file.path.ends_with("/shell.rs");
    PURE.iter().any(|folder| file.path.starts_with(folder)) && !shell && !test
}

fn has_door(path: &str, word: &str) -> bool {
    DOORS.iter().any(|(door, allowed, _)| *door == path && (allowed.is_empty() || *allowed == word))
}

#[test]
fn every_door_is_used() {
    let files = files(".rs");
    let unused = DOORS.iter().filter(|(path, word, _)| {
        !files.iter().any(|file| file.path == *path && (word.is_empty() || file.text.contains(word)))
    });
    none(
        "a door that nobody uses is a hole",
        unused.map(|(path, word, _)| format!("{path} {word}")).collect(),
    );
}

/// The state machines, and the one folder that each is defined in.
const CORES: &[(&str, &str)] = &[
    ("NodeCore", "storage-node/src/"),
    ("Replica", "storage-node/src/"),
    ("Store", "storage-node/engine/src/"),
    ("Index", "storage-node/engine/src/"),
    ("KeyBag", "storage-node/engine/src/"),
    ("Placement", "placement/src/"),
    ("Controller", "placement/src/"),
    ("Courier", "client/src/"),
    ("Sealer", "client/src/"),
    ("Opener", "client/src/"),
];

/// The simulator's word is worth nothing about code that it does not run.
#[test]
fn every_core_is_written_once_and_the_simulator_runs_it() {
    let files = files(".rs");
    let mut findings = Vec::new();
    for (core, home) in CORES {
        let places: Vec<&str> =
            files.iter().filter(|file| defines(file, core)).map(|file| file.path.as_str()).collect();
        if !matches!(places.as_slice(), [one] if one.starts_with(home)) {
            findings.push(format!("{core} is defined in {places:?}, its home is {home}"));
        }
    }
    let simulator: Vec<&Source> = files.iter().filter(|file| file.path.starts_with("sim/src/")).collect();
    for used in ["trefoil_storage_node::", "trefoil_engine::", "trefoil_placement::", "trefoil_client::"] {
        if !simulator.iter().any(|file| file.code_lines().any(|(_, line)| line.contains(used))) {
            findings.push(format!("the simulator does not use {used}"));
        }
    }
    none("one implementation of each decision", findings);
}

fn defines(file: &Source, name: &str) -> bool {
    file.code_lines().any(|(_, line)| {
        let rest = line.trim_start().strip_prefix("pub").map_or(line, |rest| rest);
        let rest = rest.trim_start_matches("(crate)").trim_start_matches("(super)").trim_start();
        let rest = rest.strip_prefix("struct ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

/// No code asks QUIC for data before the handshake is done.
#[test]
fn r091_no_source_asks_for_early_data() {
    let word = concat!("into_", "0rtt");
    let asking = files(".rs").into_iter().filter(|file| file.text.contains(word));
    none("early data can be replayed", asking.map(|file| file.path).collect());
}
