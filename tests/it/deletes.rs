//! Deletes seen from outside: hidden at once, back inside the window, gone after it. The ciphertext is
//! on three disks until then, and after the purge on none, in no file with a name or without; the
//! certificate says so to anybody, offline, and gives nothing away.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use trefoil_client::{Trust, verify_certificate};

use crate::cluster::{Alone, Cluster, shared};
use crate::outside::{NODES, PATIENCE};
use crate::program::{Run, run};
use crate::storing::{content, key};
use crate::traces::{Text, files, holds, pieces_of_file};

/// The nodes with a run of the text in any file.
fn nodes_with(cluster: &Cluster, text: &Text<'_>) -> BTreeSet<&'static str> {
    let has = |node: &&str| {
        let mut found = false;
        for path in files(&cluster.path(node), Some(cluster.pid(node))) {
            pieces_of_file(&path, |piece| found = found || !text.found_in(piece).is_empty());
        }
        found
    };
    NODES.into_iter().filter(has).collect()
}

/// Asks for the certificate until it is there.
fn certificate(cluster: &Cluster, name: &str, file: &str) -> Run {
    let began = Instant::now();
    loop {
        let run = cluster.tenant("initech", &["certificate", name, "-o", file]);
        if run.code == 0 {
            return run;
        }
        assert_eq!(run.code, 5, "the delete is under way: {run:?}");
        assert!(began.elapsed() < PATIENCE, "no certificate: {}", run.stderr);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn r066_r067_r068_nothing_is_left_and_the_certificate_proves_it_without_a_name() {
    let cluster = Alone::start("erasure");
    cluster.found("initech", "2s");
    let client = cluster.client("initech");
    let (inline, streamed) = ("secret-plans/inline.txt", "secret-plans/streamed.bin");
    let lengths = [(inline, 5_000), (streamed, 300_000)];
    let mut sealed = Vec::new();
    cluster.block_on(async {
        client.put(&key("neighbour"), content(9, 100_000)).await.unwrap();
        for (name, length) in lengths {
            client.put(&key(name), content(1, length)).await.unwrap();
            sealed.push(client.sealed(&key(name)).await.unwrap());
        }
    });
    let texts: Vec<Text<'_>> = sealed.iter().map(|sealed| Text::new(sealed)).collect();
    for text in &texts {
        assert_eq!(nodes_with(&cluster, text).len(), 3, "three copies are on disk");
    }
    for (name, _) in lengths {
        cluster.tenant("initech", &["rm", name]).held();
    }
    for text in &texts {
        assert_eq!(nodes_with(&cluster, text).len(), 3, "inside the window all copies are there");
    }
    for ((name, _), text) in lengths.iter().zip(&texts) {
        let file = cluster.path("certificate");
        let file = file.to_str().unwrap();
        certificate(&cluster, name, file).held();
        assert_eq!(nodes_with(&cluster, text), BTreeSet::new(), "{name}: a run of it is left");
        let trust = cluster.path("trust.toml");
        let verify = ["--json", "verify-certificate", file, "--trust", trust.to_str().unwrap()];
        assert_eq!(run(&verify).held().json()["valid"], true);
        let bytes = fs::read(file).unwrap();
        for secret in [name.as_bytes(), b"secret-plans", b"inline", b"streamed", b"initech"] {
            assert!(!holds(&bytes, secret), "the certificate holds {secret:?}");
        }
        let trust = Trust::load(&trust).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(verify_certificate(&changed, &trust).is_err(), "byte {at} changed");
        }
        fs::write(file, &bytes[1..]).unwrap();
        run(&verify).failed(1, "does not hold");
        cluster.tenant("initech", &["undelete", name]).failed(3, "is gone");
    }
    let neighbour = cluster.block_on(async { client.get(&key("neighbour")).await?.bytes().await });
    assert!(neighbour.unwrap() == content(9, 100_000), "what was not deleted is there");
    cluster.nothing_panicked();
}

/// R52, R53: hidden at once, back inside the window, gone after it.
#[test]
fn r053_a_delete_is_undone_inside_its_window_and_final_after_it() {
    let cluster = shared();
    cluster.found("hasty", "3s");
    let verb = |arguments: &[&str]| cluster.tenant("hasty", arguments);
    let out = cluster.path("of-hasty");
    let out = out.to_str().unwrap();
    let file = cluster.path("to-delete");
    fs::write(&file, content(9, 100_000)).unwrap();
    let version = verb(&["put", "k", file.to_str().unwrap()]).held().json()["version"].clone();
    assert_eq!(verb(&["rm", "k"]).held().json()["version"], version);
    verb(&["get", "k", "-o", out]).failed(3, "no such object");
    verb(&["head", "k"]).failed(3, "no such object");
    assert_eq!(cluster.plain("hasty", &["ls"]).held().text(), "");
    assert_eq!(cluster.plain("hasty", &["deleted"]).held().text(), "k\n");
    verb(&["certificate", "k", "-o", out]).failed(5, "DELETED");
    assert_eq!(verb(&["undelete", "k"]).held().json()["version"], version);
    assert!(cluster.plain("hasty", &["get", "k"]).held().stdout == content(9, 100_000));

    verb(&["undelete", "k"]).failed(4, "is live");
    for word in ["rm", "undelete", "certificate", "purge-status"] {
        verb(&[word, "never-was"]).failed(3, "no such object");
    }

    let began = Instant::now();
    verb(&["rm", "k"]).held();
    let state = || verb(&["purge-status", "k"]).held().json();
    assert_eq!(state()["state"], "DELETED");
    while state()["state"] != "ERASED" {
        assert!(began.elapsed() < PATIENCE, "{}", state());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() >= Duration::from_secs(3), "purged inside the window");
    assert_eq!(state()["copies_left"], 0);
    verb(&["undelete", "k"]).failed(3, "is gone");
    verb(&["get", "k", "-o", out]).failed(3, "no such object");
}
