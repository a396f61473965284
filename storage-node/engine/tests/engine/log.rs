//! Appending, staging payload and syncing.

use trefoil_engine::disk::fault::{DiskOperation, FaultDisk, FaultDiskFile, Outcome, ScriptedFault};
use trefoil_engine::{Disk, DiskFile, PayloadState, ReadError, StageError, Store, SyncError};
use trefoil_protocol::ids::{Epoch, Lsn};
use trefoil_protocol::record::Record;

use crate::fixture::{
    LAYOUT, append_puts, delete, fresh_disk, leaf, lsn, object, open, prepare, put, put_of, stage_object,
    tree_of, upload,
};

#[test]
fn a_record_reads_back_as_it_was_appended() {
    let disk = fresh_disk();
    let (mut volume, report) = open(&disk);
    assert!(report.clean);
    let record = put(&volume.log, 1);
    volume.log.append(&record).expect("appends");
    assert_eq!(volume.log.record(lsn(1)), Ok(record.clone()));
    assert_eq!(volume.log.last(), (lsn(1), record.chain_hash()));
}

#[test]
fn r001_nothing_counts_as_durable_before_its_sync_has_returned() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    log.append(&put(log, 1)).expect("appends");
    assert_eq!(log.durable_lsn(), Lsn::ZERO);
    let job = log.sync_job().expect("something is staged");
    log.append(&put(log, 2)).expect("appends while a sync is under way");
    assert!(log.sync_job().is_none(), "one sync at a time");
    let ticket = job.ticket();
    let outcome = on_another_thread(job).run();
    assert_eq!(log.durable_lsn(), Lsn::ZERO, "the outcome was not heard yet");
    log.synced(ticket, &outcome);
    assert_eq!(log.durable_lsn(), lsn(1), "the second came after the job was made");
    log.sync_now().expect("syncs");
    assert_eq!(log.durable_lsn(), lsn(2));
    disk.crash(0);
    let (volume, _) = open(&disk);
    assert_eq!(volume.log.durable_lsn(), lsn(2), "new segments have durable names");
}

#[test]
fn r001_one_sync_per_file_and_batch() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 0..1);
    let before = disk.counts().syncs;
    append_puts(&mut volume.log, 1..9);
    assert_eq!(disk.counts().syncs - before, 1);
}

#[test]
fn r002_a_failed_sync_poisons_the_store_and_is_never_repeated() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 0..1);
    log.append(&put(log, 1)).expect("appends");
    disk.inject(ScriptedFault { operation: DiskOperation::Sync, nth: 1, outcome: Outcome::Error });
    let refused = log.sync_now();
    assert!(matches!(refused, Err(SyncError::Failed(_))));
    assert_eq!(log.durable_lsn(), lsn(1), "nothing of it is acknowledged");
    let next = put(log, 2);
    assert_eq!(log.append(&next), Err(StageError::Poisoned));
    assert_eq!(log.promise(Epoch(9), b""), Err(StageError::Poisoned));
    volume.close().expect_err("no clean end");
    assert_eq!(disk.counts().syncs_after_failure, 0);

    let store = Store::open(&disk, LAYOUT).expect("a suspect store can be read");
    let reason = store.suspicion().expect("reads").expect("is suspect");
    assert!(reason.contains("fdatasync"), "{reason}");
    let (mut volume, report) = store.open_volume(crate::fixture::OWNER).expect("its volumes can be read");
    assert!(!report.clean);
    let next = put(&volume.log, 3);
    assert_eq!(volume.log.append(&next), Err(StageError::Poisoned));
    assert_eq!(disk.counts().syncs_after_failure, 0);
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 1..3);
    let third = put(log, 3);
    let mut gap = *third.position();
    gap.lsn = lsn(4);
    let gap = Record::new(gap, third.body().clone(), None, None);
    assert!(matches!(log.append(&gap), Err(StageError::Gap { .. })));
    let mut other = *third.position();
    other.previous.0[0] ^= 1;
    let other = Record::new(other, third.body().clone(), None, None);
    assert!(matches!(log.append(&other), Err(StageError::Chain { .. })));
    let mut foreign = *third.position();
    foreign.volume.0 += 1;
    let foreign = Record::new(foreign, third.body().clone(), None, None);
    assert!(matches!(log.append(&foreign), Err(StageError::Foreign { .. })));
    let again = log.record(lsn(2)).expect("reads");
    log.append(&again).expect("the same record again is no news");
    assert_eq!(log.last().0, lsn(2));
}

#[test]
fn a_cut_is_durable_and_what_is_committed_is_never_cut() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 1..6);
    log.set_committed(lsn(2));
    assert!(matches!(log.cut_after(lsn(1)), Err(StageError::Committed { .. })));
    log.cut_after(lsn(3)).expect("cuts");
    assert_eq!((log.last().0, log.durable_lsn()), (lsn(3), lsn(3)));
    let other = put(log, 77);
    log.append(&other).expect("another record takes the place");
    assert_eq!(log.durable_lsn(), lsn(3));
    log.sync_now().expect("syncs");
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert_eq!(volume.log.last(), (lsn(4), other.chain_hash()));
    assert_eq!(volume.log.committed(), lsn(2), "the committed point travels in headers");
    assert!(report.faulty.is_empty());
}

#[test]
fn an_epoch_is_answered_only_once_its_promise_is_durable() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    log.promise(Epoch(5), b"member").expect("promises");
    assert_eq!((log.epoch(), log.durable_epoch()), (Epoch(5), Epoch(0)));
    log.sync_now().expect("syncs");
    assert_eq!(log.durable_epoch(), Epoch(5));
    assert!(matches!(log.promise(Epoch(4), b""), Err(StageError::Fenced { .. })));
    disk.crash(0);
    let (volume, _) = open(&disk);
    assert_eq!(volume.log.durable_epoch(), Epoch(5));
    assert_eq!(volume.log.membership(), b"member");
}

#[test]
fn payload_is_durable_only_after_its_own_sync() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    let bytes = object(4);
    let (hashes, root) = tree_of(&bytes);
    let length = bytes.len() as u64;
    let state = |log: &trefoil_engine::VolumeLog<FaultDisk>| log.payload_complete(upload(4), length, &root);
    assert_eq!(state(log), PayloadState::Missing);
    for index in [2, 0] {
        log.stage_payload(upload(4), index, hashes[index as usize], leaf(&bytes, index))
            .expect("leaves may come in any order");
    }
    assert_eq!(log.missing_leaves(upload(4), length), [1]);
    log.stage_payload(upload(4), 1, hashes[1], leaf(&bytes, 1)).expect("stages");
    assert_eq!(state(log), PayloadState::Staged);
    log.sync_now().expect("syncs");
    assert_eq!(state(log), PayloadState::Durable);
    assert_eq!(
        log.payload_complete(upload(4), length, &trefoil_protocol::ids::Hash([1; 32])),
        PayloadState::WrongRoot
    );
    let job = log.read_plan(upload(4), length, 0..3).expect("plans");
    assert_eq!(on_another_thread(job).run().expect("reads").concat(), bytes);
}

/// Compiles for what may move to a disk thread.
fn on_another_thread<T: Send + 'static>(job: T) -> T {
    job
}

#[test]
fn a_leaf_sent_twice_is_stored_once_and_other_bytes_are_refused() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    stage_object(log, 4);
    let writes = disk.counts().writes;
    stage_object(log, 4);
    assert_eq!(disk.counts().writes, writes);
    let refused = log.stage_payload(upload(4), 0, [1; 32], b"other");
    assert!(matches!(refused, Err(StageError::Conflict { .. })));
    let too_long = vec![0; 65_537];
    let refused = log.stage_payload(upload(4), 9, [1; 32], &too_long);
    assert!(matches!(refused, Err(StageError::LeafLength { .. })));
}

#[test]
fn r005_a_leaf_overwritten_by_one_of_another_place_is_refused() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    stage_object(log, 4);
    // A misdirected write: a whole, valid frame lands where another one stood.
    let bytes = object(4);
    let length = bytes.len() as u64;
    let (file, place) = frame_of(&disk, leaf(&bytes, 0));
    let (other_file, other_place) = frame_of(&disk, leaf(&bytes, 1));
    let mut frame = vec![0; 192 + 65_536];
    other_file.read_at(other_place, &mut frame).expect("reads");
    file.write_at(place, &[&frame]).expect("writes");
    let read = log.read_plan(upload(4), length, 0..1).expect("plans").run();
    assert!(matches!(read, Err(ReadError::Damaged { index: 0, .. })));
    let read = log.read_plan(upload(4), length, 1..2).expect("plans").run();
    assert!(read.is_ok());
}

/// The file in which the frame with this body stands, and where it begins.
fn frame_of(disk: &FaultDisk, body: &[u8]) -> (FaultDiskFile, u64) {
    for (path, bytes) in disk.files() {
        if let Some(at) = bytes.windows(64).position(|window| window == &body[..64]) {
            return (disk.open(&path).expect("opens"), at as u64 - 192);
        }
    }
    panic!("the leaf was staged")
}

#[test]
fn r004_on_a_full_disk_deletes_still_work_and_no_sync_meets_the_limit() {
    let disk = FaultDisk::with_capacity(400 << 10);
    prepare(&disk);
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 1..2);
    let mut number = 2;
    let refused = loop {
        let big = put_of(log, number, Some(vec![number; 16_000]));
        match log.append(&big) {
            Ok(_) => number += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StageError::Disk(trefoil_engine::DiskError::Full { .. })));
    for _ in 0..40 {
        log.append(&delete(log, 1)).expect("a delete fits into the reserve");
    }
    log.sync_now().expect("a sync never meets the limit");
    let read = log.record(lsn(1)).expect("reads work");
    assert_eq!(read.erasable().expect("decodes").expect("is there").key.as_str(), "key-1");
}
