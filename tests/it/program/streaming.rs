//! Bytes flow through to all three disks while the client still sends.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use trefoil_client::{Client, Profile, Source};
use trefoil_protocol::key::ObjectKey;

use super::bytes_in::holds;
use super::local_cluster::{Folder, LocalCluster};

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 64 * MIB;

/// 64 MiB, of which the last one is held back until it is asked for.
struct HeldBack {
    at: u64,
    given: Arc<AtomicU64>,
    go_on: Arc<Notify>,
}

impl Source for HeldBack {
    async fn next(&mut self) -> io::Result<Bytes> {
        if self.at == LENGTH {
            return Ok(Bytes::new());
        }
        if self.at == LENGTH - MIB {
            self.go_on.notified().await;
        }
        let mut piece = vec![0; MIB as usize];
        blake3::Hasher::new().update(&self.at.to_le_bytes()).finalize_xof().fill(&mut piece);
        self.at += MIB;
        self.given.store(self.at, Ordering::SeqCst);
        Ok(piece.into())
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    async fn rewind(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_before_the_last_mebibyte_are_in_three_files_while_it_is_held_back() {
    let cluster = LocalCluster::start("held-back", "7d");
    let client = Client::connect(Profile::load(cluster.profile("acme")).unwrap()).await.unwrap();
    let key = ObjectKey::new("held-back").unwrap();
    let (given, go_on) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let source = HeldBack { at: 0, given: Arc::clone(&given), go_on: Arc::clone(&go_on) };
    let put = tokio::spawn({
        let (client, key) = (client.clone(), key.clone());
        async move { client.put(&key, source).await }
    });
    while given.load(Ordering::SeqCst) < LENGTH - MIB {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What lies between the client and the disks: windows of two hops, and what is not yet cut into
    // leaves.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pictures = Folder::new("held-back-pictures");
    for node in ["a1", "a2", "a3", "b1", "b2", "b3"] {
        copy_tree(&cluster.file(&format!("{node}/data")), &pictures.join(node));
    }
    assert!(!put.is_finished(), "acknowledged before the last byte was sent");
    go_on.notify_one();
    let stored = put.await.unwrap().unwrap();
    assert_eq!(stored.bytes, LENGTH);

    let sealed = client.sealed(&key).await.unwrap();
    let began = Instant::now();
    for copy in &stored.receipt.copies {
        let files = read_tree(&pictures.join(copy.node.as_str()));
        for mebibyte in [0, 17, 40, 58] {
            let from = mebibyte * MIB as usize + 12_345;
            let sought = &sealed[from..from + 64];
            let found = files.iter().any(|file| holds(file, sought));
            assert!(found, "mebibyte {mebibyte} was not yet in a file of {}", copy.node);
        }
    }
    assert_eq!(stored.receipt.copies.len(), 3);
    assert!(began.elapsed() < Duration::from_secs(120));
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn read_tree(folder: &Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(read_tree(&path));
        } else {
            files.push(fs::read(path).unwrap());
        }
    }
    files
}
