//! The engine on real files: what a group of small puts and a leaf of a large one cost, and how long
//! a store takes to open after a crash.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{Owner, SegmentLayout, Store, Volume, VolumeSecrets};
use trefoil_protocol::ids::{StoreId, UploadId, VersionId};
use zeroize::Zeroizing;

use crate::records::{self, TENANT, VOLUME};
use crate::scratch::Scratch;

const OWNER: Owner = Owner { tenant: TENANT, volume: VOLUME };
/// Records that share one flush.
const GROUP: u64 = 32;
/// Records of a log that is recovered.
const RECOVERED: u64 = 2000;

fn format(disk: &FileDisk) {
    Store::format(disk, StoreId([9; 16]), "a1".parse().expect("a name"), &[7; 32]).expect("formats");
    let secrets = VolumeSecrets { seal: [2; 16], bag_key: Zeroizing::new([3; 32]) };
    open_store(disk).create_volume(OWNER, &secrets).expect("creates");
}

fn open_store(disk: &FileDisk) -> Store<FileDisk> {
    Store::open(disk, SegmentLayout::default()).expect("opens")
}

fn open(disk: &FileDisk) -> Volume<FileDisk> {
    open_store(disk).open_volume(OWNER).expect("opens").0
}

fn append(volume: &mut Volume<FileDisk>, count: u64, payload: &Bytes) {
    for _ in 0..count {
        let (last, previous) = volume.log.last();
        let record = records::put(last.0, last, previous, payload);
        volume.log.append(&record).expect("appends");
    }
}

pub(crate) fn append_and_sync(c: &mut Criterion) {
    let scratch = Scratch::new("append");
    let disk = FileDisk::open(&scratch.0, None).expect("opens");
    format(&disk);
    let mut volume = open(&disk);
    let mut group = c.benchmark_group("segment");
    group.sample_size(20);
    let payload = Bytes::from(vec![1; 4096]);
    group.throughput(Throughput::Elements(GROUP));
    group.bench_function("append a group of 4 KiB puts, one flush", |b| {
        b.iter(|| {
            append(&mut volume, GROUP, &payload);
            volume.log.sync_now().expect("syncs");
        });
    });
    let leaf = vec![7; 64 << 10];
    let hash = trefoil_protocol::tree::leaf_hash(0, &leaf, trefoil_protocol::tree::LeafPlace::Among);
    group.throughput(Throughput::Bytes(16 * leaf.len() as u64));
    let mut number = 0u64;
    group.bench_function("stage sixteen leaves of 64 KiB, one flush", |b| {
        b.iter(|| {
            number += 1;
            let mut version = [8; 16];
            version[..8].copy_from_slice(&number.to_le_bytes());
            let upload = UploadId { version: VersionId(version), attempt: 0 };
            for index in 0..16 {
                volume.log.stage_payload(upload, index, hash, &leaf).expect("stages");
            }
            volume.log.sync_now().expect("syncs");
        });
    });
    group.finish();
}

pub(crate) fn recovery(c: &mut Criterion) {
    let scratch = Scratch::new("recovery");
    let disk = FileDisk::open(&scratch.0, None).expect("opens");
    format(&disk);
    let mut volume = open(&disk);
    append(&mut volume, RECOVERED, &Bytes::from(vec![1; 1024]));
    let (last, _) = volume.log.last();
    volume.log.sync_now().expect("syncs");
    drop(volume);
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Elements(RECOVERED));
    group.bench_function("open a log of 2000 puts and rebuild its index", |b| {
        let rebuild = || open(&disk).log.rebuild_index(last).expect("rebuilds");
        b.iter_batched(|| (), |()| black_box(rebuild()), BatchSize::PerIteration);
    });
    group.finish();
}
