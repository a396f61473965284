//! What a storage node holds, in its files and in its memory: never a tenant's plaintext.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use trefoil_client::{Client, Profile};
use trefoil_protocol::key::ObjectKey;

use super::bytes_in::holds;
use super::local_cluster::LocalCluster;

const NODES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];

/// A text that stands nowhere by accident, repeated through an object of this many bytes.
fn planted(length: usize) -> (Vec<u8>, Vec<u8>) {
    let marker = blake3::hash(b"planted").to_hex().as_bytes().to_vec();
    (marker.iter().copied().cycle().take(length).collect(), marker)
}

#[tokio::test(flavor = "multi_thread")]
async fn r076_no_file_and_no_memory_of_a_node_holds_plaintext() {
    let cluster = LocalCluster::start("memory", "7d");
    let client = Client::connect(Profile::load(cluster.profile("acme")).unwrap()).await.unwrap();
    let (mut holders, mut sealed) = (Vec::new(), Vec::new());
    let mut marker = Vec::new();
    for (name, length) in [("small", 2000), ("large", 1_000_000)] {
        let key = ObjectKey::new(name).unwrap();
        let (content, planted) = planted(length);
        marker = planted;
        let stored = client.put(&key, content.clone()).await.unwrap();
        assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), content);
        holders = stored.receipt.copies.iter().map(|copy| copy.node.to_string()).collect();
        sealed = client.sealed(&key).await.unwrap()[5000.min(length)..][..64].to_vec();
    }
    for node in NODES {
        let files = files_hold(&cluster.file(node), &marker);
        let memory = memory_holds(cluster.pid(node).as_raw_nonzero().get(), &marker);
        assert!(!files && !memory, "{node}: plaintext in files: {files}, in memory: {memory}");
    }
    // The same look finds ciphertext where it must be: it is not blind.
    for node in &holders {
        assert!(files_hold(&cluster.file(node), &sealed), "{node} does not hold the ciphertext");
    }
    let own = std::process::id().cast_signed();
    assert!(memory_holds(own, &marker), "the client's own memory holds the plaintext");
}

fn files_hold(folder: &Path, sought: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { files_hold(&path, sought) } else { holds(&fs::read(path).unwrap(), sought) }
    })
}

/// Looks at every readable and writable page of a process.
fn memory_holds(pid: i32, sought: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let range = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        rest.starts_with("rw").then_some(range)
    });
    let mut found = false;
    for (from, to) in ranges.collect::<Vec<_>>() {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap().min(64 << 20)];
        // Pages may go away while they are looked at.
        let length = memory.read_at(&mut bytes, from).unwrap_or(0);
        found |= holds(&bytes[..length], sought);
        // The look itself leaves no copy behind that a second look would find.
        bytes.fill(0);
    }
    found
}
