//! Imports point down: which crate may name which, read from the manifests.

use std::collections::{BTreeMap, BTreeSet};

use toml::Table;

use super::sources::{files, none, root};

/// Each crate, and the crates of the workspace that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("trefoil-protocol", &[]),
    ("trefoil-transport", &["trefoil-protocol"]),
    ("trefoil-drill", &["trefoil-protocol"]),
    ("trefoil-engine", &["trefoil-protocol"]),
    ("trefoil-placement", &["trefoil-protocol", "trefoil-transport"]),
    ("trefoil-storage-node", &["trefoil-protocol", "trefoil-transport", "trefoil-engine"]),
    ("trefoil-client", &["trefoil-protocol", "trefoil-transport"]),
    (
        "trefoil-sim",
        &[
            "trefoil-drill",
            "trefoil-protocol",
            "trefoil-engine",
            "trefoil-placement",
            "trefoil-storage-node",
            "trefoil-client",
        ],
    ),
    (
        "trefoil",
        &[
            "trefoil-drill",
            "trefoil-protocol",
            "trefoil-transport",
            "trefoil-engine",
            "trefoil-placement",
            "trefoil-storage-node",
            "trefoil-client",
        ],
    ),
];

/// What a crate must not even be able to name.
const WALLS: &[(&str, &[&str], &str)] = &[
    (
        "trefoil-protocol",
        &["tokio", "quinn", "rustix", "getrandom"],
        "the ground has no clock, socket or file",
    ),
    ("trefoil-drill", &["tokio", "rustix", "getrandom"], "words have no clock, socket or file"),
    ("trefoil-engine", &["tokio", "quinn", "getrandom", "aes-gcm"], "the disk knows no network"),
    ("trefoil-storage-node", &["aes-gcm", "quinn", "hkdf", "trefoil-placement"], "a node cannot decrypt"),
    ("trefoil-placement", &["quinn", "trefoil-engine"], "only transport knows QUIC"),
    ("trefoil-client", &["quinn", "trefoil-engine", "trefoil-placement"], "only transport knows QUIC"),
    (
        "trefoil-sim",
        &["quinn", "trefoil-transport", "tokio", "getrandom"],
        "the simulator invents all of these",
    ),
    ("trefoil", &["quinn", "aes-gcm", "trefoil-sim"], "the program uses what libraries offer"),
];

#[test]
fn imports_point_down() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut findings = Vec::new();
    for (package, dependencies) in manifests() {
        let known =
            allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} has no place in ARROWS"));
        for dependency in dependencies.iter().filter(|name| name.starts_with("trefoil")) {
            if !known.contains(&dependency.as_str()) {
                findings.push(format!("{package} -> {dependency}"));
            }
        }
    }
    none("a new arrow is a design decision", findings);
}

#[test]
fn walls_are_kept_by_what_a_crate_cannot_name() {
    let manifests = manifests();
    let mut findings = Vec::new();
    for (package, barred, reason) in WALLS {
        let dependencies = &manifests[*package];
        for name in barred.iter().filter(|name| dependencies.contains(**name)) {
            findings.push(format!("{package} -> {name}: {reason}"));
        }
    }
    none("walls", findings);
}

#[test]
fn no_dependency_edge_turns_the_mutants_on() {
    let mut findings = Vec::new();
    for (path, manifest) in tables() {
        for (name, value) in dependency_tables(&manifest) {
            let features = value.get("features").and_then(|f| f.as_array()).into_iter().flatten();
            if features.filter_map(|f| f.as_str()).any(|feature| feature == "mutants") {
                findings.push(format!("{path}: {name}"));
            }
        }
        for (feature, turned_on) in manifest.get("features").and_then(|f| f.as_table()).into_iter().flatten()
        {
            let turned_on = turned_on.as_array().into_iter().flatten().filter_map(|on| on.as_str());
            let forwards = path == "sim/Cargo.toml" && feature == "mutants";
            findings.extend(
                turned_on
                    .filter(|on| on.ends_with("mutants") && !forwards)
                    .map(|on| format!("{path}: {feature} -> {on}")),
            );
        }
    }
    none("mutants are for the simulator's own build", findings);
}

/// R100: versions below these have known holes.
#[test]
fn r100_network_and_cryptography_crates_are_at_or_above_their_floors() {
    let floors = [
        ("quinn-proto", [0, 11, 15]),
        ("rustls", [0, 23, 46]),
        ("rustls-webpki", [0, 103, 16]),
        ("aes-gcm", [0, 11, 1]),
        ("aes", [0, 9, 4]),
        ("bytes", [1, 11, 1]),
    ];
    let lock: Table = std::fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let field = |package: &toml::Value, name: &str| package[name].as_str().unwrap().to_owned();
    for (name, floor) in floors {
        let version = packages.iter().find(|p| field(p, "name") == name).map(|p| field(p, "version"));
        let version = version.unwrap_or_else(|| panic!("{name} is gone"));
        let numbers: Vec<u32> = version.split('.').filter_map(|n| n.parse().ok()).collect();
        assert!(numbers.as_slice() >= floor.as_slice(), "{name} {version} is below {floor:?}");
    }
    for barred in ["bincode", "rustls-pemfile", "openssl-sys"] {
        assert!(!packages.iter().any(|p| field(p, "name") == barred), "{barred} came in");
    }
}

/// Each package with the names of everything it depends on outside of tests.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let packages = tables().into_iter().filter_map(|(_, manifest)| {
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        let dependencies = manifest.get("dependencies")?.as_table()?.keys().cloned().collect();
        Some((name, dependencies))
    });
    packages.collect()
}

fn tables() -> Vec<(String, Table)> {
    let manifests = files("Cargo.toml").into_iter();
    manifests.map(|file| (file.path.clone(), file.text.parse().expect("a manifest"))).collect()
}

fn dependency_tables(manifest: &Table) -> Vec<(String, toml::Value)> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let workspace = manifest.get("workspace").and_then(|w| w.get("dependencies"));
    let own = sections.iter().filter_map(|section| manifest.get(*section));
    let tables = own.chain(workspace).filter_map(|value| value.as_table());
    tables.flat_map(|table| table.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}
