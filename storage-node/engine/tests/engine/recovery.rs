//! Opening a log after crashes and damage: nothing is removed, everything is said.

use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{PayloadState, RecordFault, RecordReadError, Tail};

use crate::fixture::{
    append_puts, fresh_disk, lsn, object, open, put, put_of, stage_object, tree_of, upload,
};

#[test]
fn a_clean_end_is_proven_and_the_log_goes_on_where_it_ended() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    volume.close().expect("closes");
    disk.crash(0);
    let (mut volume, report) = open(&disk);
    assert!(report.clean);
    assert_eq!(report.tail, Tail::Clean);
    assert_eq!(volume.log.durable_lsn(), lsn(3));
    append_puts(&mut volume.log, 4..6);
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert!(!report.clean, "the proof is gone once the log is open");
    assert_eq!(report.tail, Tail::Clean);
    assert_eq!(volume.log.durable_lsn(), lsn(5));
}

#[test]
fn an_unclean_end_can_be_followed_by_a_clean_one_without_a_write() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert!(!report.clean);
    volume.close().expect("closes");
    let (volume, report) = open(&disk);
    assert!(report.clean);
    assert_eq!(volume.log.durable_lsn(), lsn(3));
}

#[test]
fn r011_a_crash_at_any_step_of_appending_loses_nothing_that_was_synced() {
    let scenario = |disk: &FaultDisk| {
        let (mut volume, _) = open(disk);
        let mut synced = 0;
        let mut one = || -> Option<()> {
            for number in 1..8 {
                let record = match number % 3 {
                    0 => put_of(&volume.log, number, Some(vec![number; 15_000])),
                    _ => put(&volume.log, number),
                };
                volume.log.append(&record).ok()?;
                if number % 2 == 0 {
                    volume.log.sync_now().ok()?;
                    synced = u64::from(number);
                }
            }
            Some(())
        };
        one();
        synced
    };
    let disk = fresh_disk();
    let first = disk.counts().steps;
    scenario(&disk);
    let steps = disk.counts().steps - first;
    let mut states = 0;
    for step in 2..=steps {
        for seed in [0, u64::MAX].into_iter().chain((0..40).map(|n| step * 1000 + n * 77)) {
            let disk = fresh_disk();
            disk.halt_at(disk.counts().steps + step);
            let synced = scenario(&disk);
            disk.crash(seed);
            let (volume, report) = open(&disk);
            states += 1;
            assert!(volume.log.durable_lsn() >= lsn(synced), "step {step}, seed {seed}: {report:?}");
            for n in 1..=volume.log.last().0.0 {
                let whole = volume.log.record(lsn(n)).is_ok();
                assert!(whole || report.faulty.contains_key(&lsn(n)), "whole, or said not to be");
            }
        }
    }
    assert!(states > 300, "{states}");
}

#[test]
fn r008_a_rotten_last_record_is_undecided_and_nothing_is_truncated() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    let record = volume.log.record(lsn(3)).expect("reads");
    drop(volume);
    disk.crash(0);
    let (path, at) = find(&disk, record.public());
    for offset in [at - 192, at + 20] {
        disk.flip_bit(&path, offset, 0);
        let before = disk.files();
        let (volume, report) = open(&disk);
        assert_eq!(report.tail, Tail::Undecided { from_lsn: lsn(3) });
        assert!(volume.log.durable_lsn() <= lsn(2));
        for (path, bytes) in before.iter().filter(|(path, _)| path.contains("segment-")) {
            let after = disk.files();
            let (_, after) = after.iter().find(|(name, _)| name == path).expect("is there");
            assert_eq!(bytes, after, "recovery alone changes no byte of a segment");
        }
        drop(volume);
        disk.crash(0);
        disk.flip_bit(&path, offset, 0);
    }
}

#[test]
fn r008_a_rotten_record_below_the_end_is_a_hole_and_is_repaired_from_a_copy() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..3);
    append_puts(&mut volume.log, 3..6);
    let copy = volume.log.record(lsn(2)).expect("reads");
    drop(volume);
    disk.crash(0);
    let (path, at) = find(&disk, copy.public());
    disk.flip_bit(&path, at - 100, 3);
    let (mut volume, report) = open(&disk);
    let log = &mut volume.log;
    assert_eq!(report.tail, Tail::Clean);
    assert_eq!(log.faulty().get(&lsn(2)), Some(&RecordFault::Record));
    assert_eq!(log.last().0, lsn(5), "the log does not get shorter");
    assert_eq!(log.durable_lsn(), lsn(1));
    assert!(matches!(log.record(lsn(2)), Err(RecordReadError::Faulty { .. })));
    log.append(&copy).expect("the copy fits the chain");
    assert_eq!(log.durable_lsn(), lsn(1), "not before its sync");
    log.sync_now().expect("syncs");
    assert_eq!(log.durable_lsn(), lsn(5));
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert!(report.faulty.is_empty(), "{:?}", report.faulty);
    assert_eq!(volume.log.record(lsn(2)), Ok(copy));
}

#[test]
fn a_torn_batch_is_undecided_until_peers_have_answered() {
    for seed in 1..200 {
        let disk = fresh_disk();
        let (mut volume, _) = open(&disk);
        append_puts(&mut volume.log, 1..4);
        for number in 4..8 {
            volume.log.append(&put(&volume.log, number)).expect("appends");
        }
        let whole: Vec<_> = (1..8).map(|n| volume.log.record(lsn(n)).expect("reads")).collect();
        drop(volume);
        disk.crash(seed * 7919);
        let (volume, report) = open(&disk);
        let last = volume.log.last().0;
        assert!(last >= lsn(3), "seed {seed}: what was synced is here");
        for n in 1..=last.0 {
            match volume.log.record(lsn(n)) {
                Ok(record) => assert_eq!(record, whole[n as usize - 1], "seed {seed}"),
                Err(error) => assert!(n > 3 && report.faulty.contains_key(&lsn(n)), "seed {seed}: {error}"),
            }
        }
        if let Some(first) = report.faulty.keys().next() {
            assert!(
                matches!(report.tail, Tail::Undecided { from_lsn } if from_lsn <= *first),
                "seed {seed}: {report:?}"
            );
        }
    }
}

#[test]
fn an_undecided_tail_stays_undecided_until_it_is_settled() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    let record = volume.log.record(lsn(3)).expect("reads");
    drop(volume);
    disk.crash(0);
    let (path, at) = find(&disk, record.public());
    disk.flip_bit(&path, at - 192, 0);
    for turn in 0..3 {
        let (mut volume, report) = open(&disk);
        assert_eq!(report.tail, Tail::Undecided { from_lsn: lsn(3) });
        volume.log.promise(volume.log.epoch(), &[turn]).expect("stages");
        volume.log.sync_now().expect("syncs");
        disk.crash(0);
    }
    let (mut volume, _) = open(&disk);
    volume.log.settle_tail().expect("stages");
    volume.log.sync_now().expect("syncs");
    disk.crash(0);
    let (mut volume, report) = open(&disk);
    assert_eq!(report.tail, Tail::Clean);
    append_puts(&mut volume.log, 9..11);
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert_eq!((report.tail, volume.log.last().0), (Tail::Clean, lsn(4)));
}

#[test]
fn a_torn_leaf_does_not_count_now_or_later() {
    let bytes = object(4);
    let (_, root) = tree_of(&bytes);
    let length = bytes.len() as u64;
    let mut torn = 0;
    for seed in 1..60 {
        let disk = fresh_disk();
        let (mut volume, _) = open(&disk);
        append_puts(&mut volume.log, 1..2);
        stage_object(&mut volume.log, 4);
        drop(volume);
        disk.crash(seed * 104_729);
        let state = |disk: &FaultDisk| {
            let (volume, report) = open(disk);
            let state = volume.log.payload_complete(upload(4), length, &root);
            if state == PayloadState::Durable {
                let job = volume.log.read_plan(upload(4), length, 0..3).expect("plans");
                assert_eq!(job.run().expect("reads").concat(), bytes, "seed {seed}");
            }
            (state, report.torn_leaves.len())
        };
        let first = state(&disk);
        torn += first.1;
        disk.crash(0);
        assert_eq!(state(&disk).0, first.0, "seed {seed}: the second open agrees");
    }
    assert!(torn > 0, "some seed tears a leaf");
}

/// Path and offset of these bytes.
fn find(disk: &FaultDisk, wanted: &[u8]) -> (String, u64) {
    for (path, bytes) in disk.files() {
        let found = bytes.windows(wanted.len()).position(|window| window == wanted);
        if let Some(at) = found {
            return (path, at as u64);
        }
    }
    panic!("the bytes are nowhere")
}
