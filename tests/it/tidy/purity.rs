//! Decisions are pure: outside shells no clock, randomness, thread, socket, file or unordered map.
//! Clippy holds part of this per call; these rules also see names that clippy does not know, and
//! forbid a second implementation of a core.

use std::collections::BTreeMap;

use super::sources::{Source, files, none};

/// Folders of code that decides. What lies in a `shell` below them is not part of it.
const PURE: &[&str] = &[
    "protocol/src/",
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

#[test]
fn the_simulator_and_the_program_define_no_core_a_second_time() {
    let cores = ["storage-node/", "placement/src/", "client/src/", "protocol/src/"];
    let files = files(".rs");
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for file in files.iter().filter(|file| cores.iter().any(|core| file.path.starts_with(core))) {
        first.extend(public_types(file).map(|name| (name, file.path.as_str())));
    }
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("sim/") || file.path.starts_with("cli/")) {
        for name in public_types(file).filter(|name| !PLAIN_WORDS.contains(name)) {
            if let Some(path) = first.get(name) {
                findings.push(format!("{}: {name} is {path}'s", file.path));
            }
        }
    }
    none("the simulator runs the production code", findings);
}

/// Words that every part has its own of, and that name no state machine.
const PLAIN_WORDS: &[&str] = &["Event", "Effect", "Settings", "Outcome"];

fn public_types(file: &Source) -> impl Iterator<Item = &str> {
    file.code_lines().filter_map(|(_, line)| {
        let kinds = ["pub struct ", "pub enum ", "pub trait "];
        let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

/// No code asks QUIC for data before the handshake is done.
#[test]
fn r091_no_source_asks_for_early_data() {
    let word = concat!("into_", "0rtt");
    let asking = files(".rs").into_iter().filter(|file| file.text.contains(word));
    none("early data can be replayed", asking.map(|file| file.path).collect());
}
