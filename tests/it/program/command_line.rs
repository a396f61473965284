//! What the program says without a cluster: versions, wrong usage, and certificates that are none.

use std::fs;

use super::local_cluster::{Folder, Ran, trefoil};

fn run(arguments: &[&str]) -> Ran {
    Ran::new(arguments, trefoil().args(arguments).output().expect("the program runs"))
}

#[test]
fn no_seeded_bug_is_compiled_in() {
    let version = run(&["--version", "--json"]).succeeded().json();
    assert_eq!(version["mutants"], false);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_usage_ends_with_2() {
    run(&["frobnicate"]).failed_with(2);
    run(&["put", "key"]).failed_with(2);
    assert!(run(&["ls"]).failed_with(2).stderr.contains("TREFOIL_PROFILE"));
    assert!(run(&["--profile", "/nowhere/p.toml", "ls"]).failed_with(2).stderr.contains("/nowhere/p.toml"));
    run(&["node", "inspect", "/nowhere"]).failed_with(2);
    run(&["storage-node", "--config", "/nowhere/config.toml"]).failed_with(2);
}

#[test]
fn a_misspelt_key_of_a_configuration_is_named_with_its_line() {
    let folder = Folder::new("misspelt");
    let path = folder.join("config.toml");
    fs::write(&path, "cluster = \"dev\"\nid = \"a1\"\ndatacentre = \"a\"\n").unwrap();
    let ran = run(&["storage-node", "--config", path.to_str().unwrap()]).failed_with(2);
    assert!(ran.stderr.contains("line 3") && ran.stderr.contains("datacentre"), "{}", ran.stderr);
}

#[test]
fn what_is_no_certificate_is_not_valid() {
    let folder = Folder::new("no-certificate");
    let (file, trust) = (folder.join("file"), folder.join("trust.toml"));
    fs::write(&file, b"not a certificate").unwrap();
    fs::write(&trust, format!("cluster = \"dev\"\nplacement_keys = [\"{}\"]\n", "07".repeat(32))).unwrap();
    let arguments =
        ["--json", "verify-certificate", file.to_str().unwrap(), "--trust", trust.to_str().unwrap()];
    let ran = run(&arguments).failed_with(1);
    assert_eq!(ran.json()["valid"], false);
    assert!(ran.json()["reason"].as_str().unwrap().contains("not a deletion certificate"));
}
