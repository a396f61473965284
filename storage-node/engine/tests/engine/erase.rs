//! Erased bytes are nowhere on the store, whatever crashed on the way.

use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{
    EraseTarget, PayloadState, ReadError, RecordReadError, StageError, Store, Tail, Volume,
};
use trefoil_protocol::record::Record;

use crate::fixture::{
    LAYOUT, append_puts, fresh_disk, inline_payload, leaf, lsn, object, open, put, put_of, stage_object,
    tree_of, upload, version, wrapped_key,
};

/// Markers of 64 bytes from everything secret about the objects 1 (inline) and 4 (streamed).
fn markers() -> Vec<Vec<u8>> {
    let streamed = object(4);
    let mut markers = vec![inline_payload(1)[..64].to_vec(), wrapped_key(1), wrapped_key(4)];
    for at in [0, 64, 65_536, 100_000, 131_072, streamed.len() - 64] {
        markers.push(streamed[at..at + 64].to_vec());
    }
    markers.push(b"key-1".to_vec());
    markers.push(b"key-4".to_vec());
    markers
}

fn store_with_two_objects() -> (FaultDisk, Vec<Record>) {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 1..4);
    stage_object(log, 4);
    log.append(&put_of(log, 4, None)).expect("appends");
    append_puts(log, 5..7);
    let records = (1..=6).map(|n| log.record(lsn(n)).expect("reads")).collect();
    (disk, records)
}

fn targets() -> [EraseTarget; 2] {
    [EraseTarget::Version(version(1)), EraseTarget::Version(version(4))]
}

fn found(disk: &FaultDisk) -> usize {
    let store = Store::open(disk, LAYOUT).expect("opens");
    let places = markers().into_iter().map(|marker| store.find_bytes(&marker).expect("scans").len());
    places.sum()
}

#[test]
fn r066_no_byte_of_an_erased_version_is_on_the_store() {
    let (disk, records) = store_with_two_objects();
    let (mut volume, _) = open(&disk);
    assert!(found(&disk) >= markers().len(), "the scan finds what is there");
    let report = volume.log.erase_now(&targets()).expect("erases").expect("there is work");
    assert_eq!(report.unknown_bytes, 0);
    assert!(report.bytes() > object(4).len() as u64);
    assert_eq!(found(&disk), 0);
    check_erased(&volume, &records);
    drop(volume);
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert!(report.faulty.is_empty() && report.unfinished_erases.is_empty(), "{report:?}");
    assert_eq!(report.tail, Tail::Clean);
    check_erased(&volume, &records);
}

fn check_erased(volume: &Volume<FaultDisk>, records: &[Record]) {
    let log = &volume.log;
    assert_eq!(log.last().0, lsn(6));
    assert_eq!(log.durable_lsn(), lsn(6));
    for (record, n) in records.iter().zip(1..) {
        let here = log.record(lsn(n)).expect("every record is there");
        let expected = match n {
            1 | 4 => record.clone().without_erasable(),
            _ => record.clone(),
        };
        assert_eq!(here, expected, "zeroing breaks no chain");
    }
    assert!(log.is_erased(EraseTarget::Version(version(4))));
    let length = object(4).len() as u64;
    let refused = log.read_plan(upload(4), length, 0..1).err();
    assert_eq!(refused, Some(ReadError::Erased { upload: upload(4) }));
}

#[test]
fn r066_a_crash_at_any_step_of_an_erase_is_recognised_and_finished() {
    let (disk, records) = store_with_two_objects();
    let first = disk.counts().steps;
    let (mut volume, _) = open(&disk);
    volume.log.erase_now(&targets()).expect("erases");
    let steps = disk.counts().steps - first;
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        for seed in [0, 1 + step * 31, u64::MAX] {
            let (disk, _) = store_with_two_objects();
            let (mut volume, _) = open(&disk);
            disk.halt_at(disk.counts().steps + step);
            let finished = volume.log.erase_now(&targets()).is_ok();
            drop(volume);
            disk.crash(seed);
            let (mut volume, report) = open(&disk);
            let context = format!("step {step}, seed {seed}: {report:?}");
            assert!(report.faulty.is_empty(), "never a hole: {context}");
            let done = volume.log.is_erased(targets()[0]);
            assert!(done || !finished, "{context}");
            if report.unfinished_erases.is_empty() && !done {
                let whole = volume.log.record(lsn(1));
                assert_eq!(whole.as_ref(), Ok(&records[0]), "not begun: {context}");
            }
            volume.log.settle_tail().expect("the peers have nothing more");
            volume.log.erase_now(&targets()).expect("runs again");
            assert_eq!(found(&disk), 0, "{context}");
            check_erased(&volume, &records);
        }
    }
}

#[test]
fn cut_tails_and_resent_records_are_erased_too() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    let log = &mut volume.log;
    append_puts(log, 2..4);
    log.append(&put(log, 1)).expect("appends");
    log.sync_now().expect("syncs");
    log.cut_after(lsn(2)).expect("cuts");
    append_puts(log, 5..6);
    log.append(&put(log, 1)).expect("the same object again");
    log.sync_now().expect("syncs");
    drop(volume);
    disk.crash(0);
    let (mut volume, _) = open(&disk);
    let store = Store::open(&disk, LAYOUT).expect("opens");
    let places = |marker: &[u8]| store.find_bytes(marker).expect("scans").len();
    assert_eq!(places(&inline_payload(1)), 2, "the cut frame is still on the disk");
    volume.log.erase_now(&[EraseTarget::Version(version(1))]).expect("erases");
    assert_eq!(places(&inline_payload(1)), 0);
    assert_eq!(places(&inline_payload(5)), 1);
}

#[test]
fn a_rotten_frame_of_unknown_content_is_erased_once_the_log_is_whole() {
    let (disk, records) = store_with_two_objects();
    let file = disk.files().into_iter().find_map(|(path, bytes)| {
        let at = bytes.windows(64).position(|window| window == &leaf(&object(4), 1)[..64])?;
        Some((path, at as u64))
    });
    let (path, at) = file.expect("was staged");
    disk.flip_bit(&path, at - 190, 1);
    let (mut volume, report) = open(&disk);
    assert_eq!(report.bad_ranges.len(), 1);
    let length = object(4).len() as u64;
    let (_, root) = tree_of(&object(4));
    assert_eq!(volume.log.payload_complete(upload(4), length, &root), PayloadState::Missing);
    volume.log.settle_tail().expect("stages");
    volume.log.erase_now(&targets()).expect("erases");
    assert_eq!(found(&disk), 0, "nobody knows whose bytes they were; they are gone");
    check_erased(&volume, &records);
}

#[test]
fn an_erased_version_takes_no_bytes_back() {
    let (disk, records) = store_with_two_objects();
    let (mut volume, _) = open(&disk);
    volume.log.erase_now(&targets()).expect("erases");
    let bytes = object(4);
    let (hashes, _) = tree_of(&bytes);
    let refused = volume.log.stage_payload(upload(4), 0, hashes[0], leaf(&bytes, 0));
    assert_eq!(refused, Err(StageError::Erased { upload: upload(4) }));
    volume.log.cut_after(lsn(0)).expect("cuts");
    for record in &records {
        volume.log.append(record).expect("a peer sends the log again");
    }
    assert_eq!(found(&disk), 0, "without what is erased here");
    let reads: Result<Vec<Record>, RecordReadError> = (1..=6).map(|n| volume.log.record(lsn(n))).collect();
    assert_eq!(reads.expect("reads").len(), 6);
}

#[test]
fn a_void_upload_is_erased_without_touching_its_version() {
    let (disk, _) = store_with_two_objects();
    let (mut volume, _) = open(&disk);
    volume.log.erase_now(&[EraseTarget::Upload(upload(4))]).expect("erases");
    let store = Store::open(&disk, LAYOUT).expect("opens");
    assert!(store.find_bytes(&object(4)[..64]).expect("scans").is_empty());
    let record = volume.log.record(lsn(4)).expect("reads");
    assert!(record.erasable_bytes().is_some());
}
