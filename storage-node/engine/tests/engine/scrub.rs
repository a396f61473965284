//! Every flipped bit is found or harmless, and repair takes nothing unverified.

use bytes::Bytes;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{BagEntry, Index, PayloadState, ReadError, RepairError, ScrubFault, Tail, Volume};
use trefoil_protocol::ids::Epoch;
use trefoil_protocol::record::Record;
use trefoil_protocol::tree::{LEAF_LEN, RangeProof};
use zeroize::Zeroizing;

use crate::fixture::{
    append_puts, delete, fresh_disk, leaf, lsn, object, open, put_of, stage_object, tree_of, upload, version,
    wrapped_key,
};

#[test]
fn a_whole_store_scrubs_clean_and_in_steps() {
    let (disk, volume, index) = store();
    let report = volume.scrub(&index).expect("scrubs");
    assert_eq!(report.faults, []);
    assert_eq!((report.records, report.leaves), (5, 3));
    let mut scrub = trefoil_engine::Scrub::default();
    let mut steps = 0;
    while scrub.step(&volume, &index, 1000).expect("scrubs").is_none() {
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    drop(disk);
}

/// Two small objects, a delete and a streamed object.
fn store() -> (FaultDisk, Volume<FaultDisk>, Index) {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 1..3);
    log.append(&delete(log, 1)).expect("appends");
    stage_object(log, 4);
    log.append(&put_of(log, 4, None)).expect("appends");
    append_puts(log, 5..6);
    let index = log.rebuild_index(lsn(5)).expect("rebuilds");
    (disk, volume, index)
}

/// A small store of every kind of frame and file: a put with small payload, a streamed leaf of a
/// few bytes, hard state, cut, erase notes, a bag.
fn small_store() -> (FaultDisk, Volume<FaultDisk>, Index, Record) {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    log.promise(Epoch(1), b"").expect("stages");
    append_puts(log, 1..2);
    let sealed = vec![0x5A; 300];
    let (hashes, _) = tree_of(&sealed);
    log.stage_payload(upload(9), 0, hashes[0], &sealed).expect("stages");
    let cut = put_of(log, 2, None);
    log.append(&cut).expect("appends");
    log.cut_after(lsn(1)).expect("cuts");
    log.begin_erase(&[trefoil_engine::EraseTarget::Upload(upload(77))]).expect("stages");
    log.sync_now().expect("syncs");
    let wrapped = Bytes::from(wrapped_key(1));
    let entry = BagEntry { version: version(1), kek_version: 1, wrapped };
    let job = volume.rotation_job(vec![entry], Vec::new(), Zeroizing::new([5; 32]));
    assert!(volume.rotated(job.run().expect("rotates")));
    let index = volume.log.rebuild_index(lsn(1)).expect("rebuilds");
    (disk, volume, index, cut)
}

#[test]
fn r007_every_flipped_bit_of_a_volume_is_found_or_harmless() {
    let (disk, volume, index, cut) = small_store();
    let expected = contents(&volume);
    let cut_at = |bytes: &[u8]| {
        let public = cut.public();
        let at = bytes.windows(public.len()).position(|window| window == public);
        at.map_or(0..0, |at| at as u64..(at + cut.lengths().total()) as u64)
    };
    let (mut found, mut harmless) = (0, 0);
    for (path, bytes) in disk.files().into_iter().filter(|(path, _)| path.starts_with("volumes/")) {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for bit in 0..used * 8 {
            let (offset, bit) = ((bit / 8) as u64, (bit % 8) as u8);
            disk.flip_bit(&path, offset, bit);
            let report = volume.scrub(&index).expect("scrubs");
            if report.faults.is_empty() {
                harmless += 1;
                let unused = bytes[offset as usize] == 0 || cut_at(&bytes).contains(&offset);
                assert!(unused, "only padding and what was cut may change unseen: {path}, byte {offset}");
                assert_eq!(contents(&volume), expected, "{path}, byte {offset}, bit {bit}");
            } else {
                found += 1;
            }
            disk.flip_bit(&path, offset, bit);
        }
    }
    assert_eq!(volume.scrub(&index).expect("scrubs").faults, []);
    assert!(found > 20_000 && harmless > 0, "{found} found, {harmless} harmless");
}

fn contents(volume: &Volume<FaultDisk>) -> (Vec<Record>, Vec<Bytes>, Option<BagEntry>) {
    let log = &volume.log;
    let records = (1..=log.last().0.0).filter_map(|n| log.record(lsn(n)).ok()).collect();
    let leaves = log.read_plan(upload(9), 300, 0..1).and_then(|job| job.run()).unwrap_or_default();
    (records, leaves, volume.bag().get(version(1)).cloned())
}

#[test]
fn r007_what_an_open_after_a_flip_serves_is_what_was_written() {
    let (disk, volume, _, cut) = small_store();
    let (records, leaves, entry) = contents(&volume);
    drop(volume);
    let names = |path: &str| path.contains("segment-");
    let (path, bytes) = disk.files().into_iter().find(|(path, _)| names(path)).expect("is there");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("is written");
    for offset in (0..used as u64).step_by(5) {
        disk.flip_bit(&path, offset, (offset % 8) as u8);
        let (volume, report) = open(&disk);
        let (here, here_leaves, here_entry) = contents(&volume);
        // A rotten cut brings back what it had cut; then the tail is undecided.
        let cut_back = |record: &Record| record.public() == cut.public() && report.tail != Tail::Clean;
        let known = |record: &Record| records.contains(record) || cut_back(record);
        assert!(here.iter().all(known), "offset {offset}: {report:?}");
        assert!(here_leaves.iter().all(|leaf| leaves.contains(leaf)), "offset {offset}");
        assert_eq!(here_entry, entry);
        drop(volume);
        disk.flip_bit(&path, offset, (offset % 8) as u8);
    }
}

#[test]
fn r006_a_damaged_leaf_is_never_served_and_is_repaired_from_a_verified_copy() {
    let (disk, mut volume, index) = store();
    let bytes = object(4);
    let length = bytes.len() as u64;
    rot_leaf(&disk, &bytes, 1);
    let read = volume.log.read_plan(upload(4), length, 0..3).expect("plans").run();
    assert_eq!(read, Err(ReadError::Damaged { upload: upload(4), index: 1 }));
    let report = volume.scrub(&index).expect("scrubs");
    assert_eq!(report.faults, [ScrubFault::Leaf { upload: upload(4), index: 1 }]);
    volume.log.take_faults(&report);
    let (_, root) = tree_of(&bytes);
    assert_eq!(volume.log.payload_complete(upload(4), length, &root), PayloadState::Missing);

    let object = index.version(version(4)).expect("is there");
    let mut corrupt = leaf(&bytes, 1).to_vec();
    corrupt[77] ^= 1;
    let refused = volume.log.repair_leaf(object, 1, &corrupt);
    assert!(matches!(refused, Err(RepairError::Unverified(_))), "r030: a corrupt source never spreads");
    volume.log.repair_leaf(object, 1, leaf(&bytes, 1)).expect("repairs");
    volume.log.sync_now().expect("syncs");
    let read = volume.log.read_plan(upload(4), length, 0..3).expect("plans").run();
    assert_eq!(read.expect("reads").concat(), bytes);
    assert_eq!(volume.scrub(&index).expect("scrubs").faults, []);
    drop(volume);
    disk.crash(0);
    let (volume, _) = open(&disk);
    assert_eq!(volume.log.payload_complete(upload(4), length, &root), PayloadState::Durable);
}

#[test]
fn r030_several_missing_leaves_are_repaired_with_a_proof() {
    let (disk, mut volume, index) = store();
    let bytes = object(4);
    rot_leaf(&disk, &bytes, 0);
    rot_leaf(&disk, &bytes, 1);
    let report = volume.scrub(&index).expect("scrubs");
    assert_eq!(report.faults.len(), 2);
    volume.log.take_faults(&report);
    let object = index.version(version(4)).expect("is there");
    let refused = volume.log.repair_leaf(object, 1, leaf(&bytes, 1));
    assert_eq!(refused, Err(RepairError::NeedsProof { index: 1 }));
    let (hashes, _) = tree_of(&bytes);
    let proof = RangeProof::build(&hashes, bytes.len() as u64, 0..2).expect("builds");
    let copy = Bytes::copy_from_slice(&bytes[..2 * LEAF_LEN as usize]);
    volume.log.repair_leaves(object, 0, &copy, &proof).expect("repairs");
    assert_eq!(volume.scrub(&index).expect("scrubs").faults, []);
}

/// Flips a bit in the middle of a leaf.
fn rot_leaf(disk: &FaultDisk, bytes: &[u8], index: u64) {
    let wanted = &leaf(bytes, index)[..64];
    for (path, file) in disk.files() {
        if let Some(at) = file.windows(64).position(|window| window == wanted) {
            disk.flip_bit(&path, at as u64 + 500, 2);
            return;
        }
    }
    panic!("the leaf was staged")
}
