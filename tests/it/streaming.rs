//! Bytes flow through to all three disks while the client still sends.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use trefoil_client::Source;

use crate::cluster::{Alone, Cluster};
use crate::outside::{NODES, PATIENCE};
use crate::program::Folder;
use crate::storing::key;
use crate::traces::{files, holds};

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

#[test]
fn the_bytes_before_the_last_mebibyte_are_in_three_files_while_it_is_held_back() {
    let cluster = Alone::start("held-back");
    let client = cluster.client("acme");
    let (given, go_on) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let source = HeldBack { at: 0, given: Arc::clone(&given), go_on: Arc::clone(&go_on) };
    let putting = client.clone();
    let put = cluster.spawn(async move { putting.put(&key("held-back"), source).await });
    let began = Instant::now();
    while given.load(Ordering::SeqCst) < LENGTH - MIB {
        assert!(began.elapsed() < PATIENCE, "the source is not read");
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_until_disks_rest(&cluster);
    let pictures = Folder::new("held-back-pictures");
    for node in NODES {
        copy_tree(&cluster.data(node), &pictures.join(node));
    }
    assert!(!put.is_finished(), "acknowledged before the last byte was sent");
    go_on.notify_one();
    let stored = cluster.block_on(put).unwrap().unwrap();
    assert_eq!(stored.bytes, LENGTH);

    let sealed = cluster.block_on(client.sealed(&key("held-back"))).unwrap();
    for copy in &stored.receipt.copies {
        let files = files(&pictures.join(copy.node.as_str()), None);
        let files: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        for mebibyte in [0, 17, 40, 58] {
            let from = mebibyte * MIB as usize + 12_345;
            let found = files.iter().any(|file| holds(file, &sealed[from..from + 64]));
            assert!(found, "mebibyte {mebibyte} was not yet in a file of {}", copy.node);
        }
    }
    assert_eq!(stored.receipt.copies.len(), 3);
    cluster.nothing_panicked();
}

/// What was given out is on its way through two hops; it has arrived when no file changes any more.
fn wait_until_disks_rest(cluster: &Cluster) {
    let began = Instant::now();
    let changed = || {
        let files = NODES.into_iter().flat_map(|node| files(&cluster.data(node), None));
        files.filter_map(|file| fs::metadata(file).ok()?.modified().ok()).max().unwrap()
    };
    while changed().elapsed().unwrap_or_default() < Duration::from_millis(700) {
        assert!(began.elapsed() < PATIENCE, "the disks do not come to rest");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for file in files(from, None) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}
