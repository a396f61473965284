//! Objects through the program and a running cluster: lengths, keys, ranges, trees, listings, and
//! both phases of a delete.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::local_cluster::{Folder, LocalCluster, trefoil};

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

#[test]
fn objects_of_awkward_lengths_and_their_ranges_come_back() {
    let cluster = LocalCluster::start("lengths", "7d");
    let folder = Folder::new("lengths-files");
    for length in [0_usize, 1, 16_000, 65_535, 65_536, 65_537, 3_000_000] {
        let (content, path, key) = (bytes(1, length), folder.join("in"), format!("length/{length}"));
        fs::write(&path, &content).unwrap();
        let put = cluster.acme(&["--json", "put", &key, path.to_str().unwrap()]).json();
        assert_eq!(put["bytes"], length);
        assert_eq!(put["protection"], "BothDcs");
        let centres: std::collections::BTreeSet<_> =
            put["copies"].as_array().unwrap().iter().map(|copy| copy["dc"].as_str().unwrap()).collect();
        assert_eq!(centres.len(), 2, "{put}");
        assert_eq!(cluster.acme(&["get", &key]).stdout, content);
        if length > 1 {
            let (first, last) = (length / 3, length - 1);
            let part = cluster.acme(&["get", &key, "--range", &format!("{first}-{last}")]).stdout;
            assert_eq!(part, content[first..=last]);
        }
    }
}

#[test]
fn standard_input_is_stored() {
    let cluster = LocalCluster::start("stdin", "7d");
    let content = bytes(2, 300_000);
    let mut put = trefoil();
    put.arg("--profile").arg(cluster.profile("acme")).args(["put", "piped", "-"]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut put.stdin.take().unwrap(), &content).unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(cluster.acme(&["get", "piped"]).stdout, content);
}

#[test]
fn keys_may_be_any_unicode_of_up_to_1024_bytes() {
    let cluster = LocalCluster::start("keys", "7d");
    let folder = Folder::new("keys-files");
    let file = folder.join("in");
    fs::write(&file, b"content").unwrap();
    let file = file.to_str().unwrap();
    let long = "ключ🗝é".repeat(100);
    let mut end = 1024;
    while !long.is_char_boundary(end) {
        end -= 1;
    }
    let keys = [&long[..end], "--looks-like-an-option", " ", "a\nb", "日本語/ファイル", "../up", "/"];
    for key in keys {
        cluster.acme(&["put", "--", key, file]);
        assert_eq!(cluster.acme(&["get", "--", key]).stdout, b"content", "{key:?}");
    }
    let mut listed: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    listed.sort();
    let ls = cluster.acme(&["ls", "-0"]).stdout;
    let got: Vec<Vec<u8>> =
        ls.split(|byte| *byte == 0).filter(|key| !key.is_empty()).map(<[u8]>::to_vec).collect();
    assert_eq!(got, listed);
    cluster.as_tenant("acme", &["put", &"k".repeat(1025), file]).failed_with(2);
    cluster.as_tenant("acme", &["get", "nobody-has-this"]).failed_with(3);
}

#[test]
fn a_tree_of_files_comes_back_byte_for_byte_and_is_listed_in_pages() {
    let cluster = LocalCluster::start("tree", "7d");
    let folder = Folder::new("tree-files");
    let root = folder.join("in");
    for n in 0..600_u64 {
        let path = root.join(format!("{}/{}/file {n}", n % 7, n % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes(n, usize::try_from(n * 37 % 40_000).unwrap())).unwrap();
    }
    std::os::unix::fs::symlink("file 0", root.join("link")).unwrap();
    let put = cluster.acme(&["--json", "put", "-r", root.to_str().unwrap(), "tree/"]);
    assert!(put.stderr.contains("1 symbolic link"), "{}", put.stderr);
    assert_eq!(put.json()["objects"], 600);
    let out = folder.join("out");
    cluster.acme(&["get", "-r", "tree/", "-o", out.to_str().unwrap()]);
    assert_eq!(same_files(&root, &out), 600);

    let all = cluster.acme(&["ls"]).text();
    assert_eq!(all.lines().count(), 600);
    let mut paged = String::new();
    let mut after = String::new();
    loop {
        let page = cluster.acme(&[
            "--json",
            "ls",
            "--limit",
            "250",
            "--after",
            if after.is_empty() { "\u{1}" } else { &after },
        ]);
        let lines: Vec<serde_json::Value> =
            page.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (next, lines) = lines.split_last().unwrap();
        for line in lines {
            paged += line["key"].as_str().unwrap();
            paged.push('\n');
        }
        match next["next"].as_str() {
            Some(key) => key.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(paged, all);
}

fn same_files(left: &Path, right: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(left).unwrap() {
        let entry = entry.unwrap();
        let other = right.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            count += same_files(&entry.path(), &other);
        } else if entry.file_type().unwrap().is_file() {
            assert!(fs::read(entry.path()).unwrap() == fs::read(&other).unwrap(), "{}", other.display());
            count += 1;
        }
    }
    count
}

/// R52, R53, R67: hidden at once, back inside the window, gone after it, and proven.
#[test]
fn r053_a_delete_is_undone_inside_its_window_and_final_after_it() {
    let cluster = LocalCluster::start("delete", "3s");
    let folder = Folder::new("delete-files");
    let (file, certificate) = (folder.join("in"), folder.join("certificate"));
    fs::write(&file, bytes(9, 100_000)).unwrap();
    let version = cluster.acme(&["--json", "put", "k", file.to_str().unwrap()]).json()["version"].clone();
    let hidden = cluster.acme(&["--json", "rm", "k"]).json();
    assert_eq!(hidden["version"], version);
    cluster.as_tenant("acme", &["get", "k"]).failed_with(3);
    cluster.as_tenant("acme", &["head", "k"]).failed_with(3);
    assert_eq!(cluster.acme(&["ls"]).text(), "");
    assert_eq!(cluster.acme(&["deleted"]).text(), "k\n");
    cluster.as_tenant("acme", &["certificate", "k", "-o", certificate.to_str().unwrap()]).failed_with(5);
    assert_eq!(cluster.acme(&["--json", "undelete", "k"]).json()["version"], version);
    assert_eq!(cluster.acme(&["get", "k"]).stdout, fs::read(&file).unwrap());
    let twice = cluster.as_tenant("acme", &["undelete", "k"]).failed_with(4);
    assert!(twice.stderr.contains("is live"), "{}", twice.stderr);
    for (verb, code) in [("rm", 3), ("undelete", 3), ("certificate", 3), ("purge-status", 3)] {
        let never = cluster.as_tenant("acme", &[verb, "never-was"]).failed_with(code);
        assert!(!never.stderr.contains("gone"), "{verb}: {}", never.stderr);
    }

    cluster.acme(&["rm", "k"]);
    let state = || cluster.acme(&["--json", "purge-status", "k"]).json();
    assert_eq!(state()["state"], "DELETED");
    let began = Instant::now();
    while state()["state"] != "ERASED" {
        assert!(began.elapsed() < Duration::from_secs(90), "{}", state());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(began.elapsed() >= Duration::from_secs(3), "purged inside the window");
    assert_eq!(state()["copies_left"], 0);
    let gone = cluster.as_tenant("acme", &["undelete", "k"]).failed_with(3);
    assert!(gone.stderr.contains("is gone"), "{}", gone.stderr);
    cluster.as_tenant("acme", &["get", "k"]).failed_with(3);
    cluster.acme(&["certificate", "k", "-o", certificate.to_str().unwrap()]);
    let trust = cluster.file("trust.toml");
    let verify = |path: &Path| {
        let mut verify = trefoil();
        verify.arg("verify-certificate").arg(path).arg("--trust").arg(&trust);
        verify.output().unwrap().status.success()
    };
    assert!(verify(&certificate));
    let mut changed = fs::read(&certificate).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(folder.join("changed"), changed).unwrap();
    assert!(!verify(&folder.join("changed")));
}
