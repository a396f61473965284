//! What the program says without a cluster: versions, wrong usage, and certificates that are none.

use std::fs;

use crate::program::{Folder, run};

#[test]
fn no_seeded_bug_is_compiled_in() {
    let version = run(&["--version", "--json"]).held().json();
    assert_eq!(version["mutants"], false);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_usage_ends_with_2() {
    run(&["frobnicate"]).failed(2, "frobnicate");
    run(&["put", "key"]).failed(2, "<FILE|PREFIX>");
    run(&["ls"]).failed(2, "TREFOIL_PROFILE");
    run(&["--profile", "/nowhere/p.toml", "ls"]).failed(2, "/nowhere/p.toml");
    run(&["node", "inspect", "/nowhere"]).failed(2, "/nowhere");
    run(&["storage-node", "--config", "/nowhere/config.toml"]).failed(2, "/nowhere/config.toml");
}

#[test]
fn a_misspelt_key_of_a_configuration_is_named_with_its_line() {
    let folder = Folder::new("misspelt");
    let path = folder.join("config.toml");
    fs::write(&path, "cluster = \"dev\"\nid = \"a1\"\ndatacentre = \"a\"\n").unwrap();
    let ran = run(&["storage-node", "--config", path.to_str().unwrap()]);
    ran.failed(2, "line 3");
    ran.failed(2, "datacentre");
}

#[test]
fn what_is_no_certificate_is_not_valid() {
    let folder = Folder::new("no-certificate");
    let (file, trust) = (folder.join("file"), folder.join("trust.toml"));
    fs::write(&file, b"not a certificate").unwrap();
    fs::write(&trust, format!("cluster = \"dev\"\n[[signers]]\nkey = \"{}\"\n", "07".repeat(32))).unwrap();
    let arguments =
        ["--json", "verify-certificate", file.to_str().unwrap(), "--trust", trust.to_str().unwrap()];
    let ran = run(&arguments);
    ran.failed(1, "does not hold");
    assert_eq!(ran.json()["valid"], false);
    assert!(ran.json()["reason"].as_str().unwrap().contains("not a deletion certificate"));
}
