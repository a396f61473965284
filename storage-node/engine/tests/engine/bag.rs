//! The key bag: a dropped key is gone with the old bag key, and a rotation can crash anywhere.

use bytes::Bytes;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{BagEntry, EraseTarget, RecordFault, Store, Volume};
use zeroize::Zeroizing;

use crate::fixture::{LAYOUT, append_puts, fresh_disk, lsn, open, version, wrapped_key};

fn entry(number: u8) -> BagEntry {
    BagEntry { version: version(number), kek_version: 1, wrapped: Bytes::from(wrapped_key(number)) }
}

fn rotate(volume: &mut Volume<FaultDisk>, add: &[BagEntry], drop: &[u8], key: u8) -> bool {
    let drop: Vec<_> = drop.iter().map(|number| version(*number)).collect();
    let job = volume.rotation_job(add.to_vec(), drop, Zeroizing::new([key; 32]));
    job.run().is_ok_and(|rotated| volume.rotated(rotated))
}

fn numbers(volume: &Volume<FaultDisk>) -> Vec<u8> {
    volume.bag().entries().map(|entry| entry.version.0[0]).collect()
}

#[test]
fn keys_move_from_records_to_the_bag_and_are_zeroed_behind_them() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    let index = volume.log.rebuild_index(lsn(3)).expect("rebuilds");
    let keys = volume.keys_in_records(&index, 10).expect("reads");
    assert_eq!(keys.len(), 3);
    assert!(rotate(&mut volume, &keys, &[], 40));
    let moved: Vec<_> = keys.iter().map(|key| EraseTarget::WrappedKey(key.version)).collect();
    volume.log.erase_now(&moved).expect("erases");
    let store = Store::open(&disk, LAYOUT).expect("opens");
    for number in 1..4 {
        assert!(store.find_bytes(&wrapped_key(number)).expect("scans").is_empty());
    }
    assert!(volume.keys_in_records(&index, 10).expect("reads").is_empty());
    disk.crash(0);
    let (volume, report) = open(&disk);
    assert!(report.faulty.is_empty());
    let record = volume.log.record(lsn(2)).expect("reads");
    assert_eq!(record.wrapped(), None);
    assert!(record.erasable_bytes().is_some());
    assert_eq!(volume.bag().get(version(2)), Some(&entry(2)));
    assert_eq!(volume.bag().generation(), 1);
}

#[test]
fn a_key_that_left_its_record_does_not_come_back_with_a_copy() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    let copy = volume.log.record(lsn(2)).expect("reads");
    assert!(rotate(&mut volume, &[entry(2)], &[], 40));
    volume.log.erase_now(&[EraseTarget::WrappedKey(version(2))]).expect("erases");
    volume.log.cut_after(lsn(1)).expect("cuts");
    volume.append(&copy).expect("a peer sends it again, key and all");
    volume.log.sync_now().expect("syncs");
    let store = Store::open(&disk, LAYOUT).expect("opens");
    assert!(store.find_bytes(&wrapped_key(2)).expect("scans").is_empty());
    assert_eq!(volume.log.record(lsn(2)), Ok(copy.without_wrapped()));
}

#[test]
fn r064_after_a_rotation_no_earlier_bag_opens_with_any_key_on_the_store() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    assert!(rotate(&mut volume, &[entry(1), entry(2)], &[], 40));
    let stolen = bag_files(&disk);
    assert!(rotate(&mut volume, &[], &[1], 41));
    assert_eq!(numbers(&volume), [2]);
    let store = Store::open(&disk, LAYOUT).expect("opens");
    assert!(store.find_bytes(&[40; 32]).expect("scans").is_empty(), "the old bag key is nowhere");
    assert_eq!(store.find_bytes(&[41; 32]).expect("scans").len(), 2, "the new one in both slots");
    for (_, bytes) in &stolen {
        assert!(store.find_bytes(&bytes[24..56]).expect("scans").is_empty(), "nor is the old bag");
    }
    drop(volume);
    // A backup of the old bag, put back beside today's superblock, opens with nothing.
    for (path, bytes) in stolen {
        let name = path.replace("bag-1", "bag-2");
        let file = trefoil_engine::Disk::open(&disk, &name).expect("is there");
        trefoil_engine::DiskFile::write_at(&file, 0, &[&bytes]).expect("writes");
    }
    let (volume, _) = open(&disk);
    assert!(volume.is_bag_lost() && volume.bag().is_empty());
}

#[test]
fn keys_of_a_lost_bag_come_back_in_their_records() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    let copies: Vec<_> = (1..4).map(|n| volume.log.record(lsn(n)).expect("reads")).collect();
    assert!(rotate(&mut volume, &[entry(1), entry(2), entry(3)], &[], 40));
    let moved = [1, 2, 3].map(|number| EraseTarget::WrappedKey(version(number)));
    volume.log.erase_now(&moved).expect("erases");
    drop(volume);
    let (path, _) = bag_files(&disk).remove(0);
    disk.flip_bit(&path, 60, 3);
    let (mut volume, report) = open(&disk);
    assert!(report.faulty.is_empty() && volume.is_bag_lost());
    for copy in &copies[..2] {
        volume.log.record_is_damaged(copy.lsn(), RecordFault::WrappedKey);
        volume.append(copy).expect("a peer's copy");
        assert_eq!(volume.log.record(copy.lsn()).as_ref(), Ok(copy));
    }
    volume.log.sync_now().expect("syncs");
    drop(volume);
    disk.crash(0);
    let (mut volume, report) = open(&disk);
    assert!(report.faulty.is_empty(), "what came back rides in a later frame: {:?}", report.faulty);
    assert_eq!(volume.log.record(lsn(1)).as_ref(), Ok(&copies[0]));
    assert!(volume.log.is_key_moved(version(3)) && !volume.log.is_key_moved(version(1)));
    // It moves once more, and nothing of the lost bag stays.
    assert!(rotate(&mut volume, &[entry(1), entry(2)], &[], 41));
    volume.log.erase_now(&moved).expect("erases");
    let store = Store::open(&disk, LAYOUT).expect("opens");
    for number in 1..4 {
        assert!(store.find_bytes(&wrapped_key(number)).expect("scans").is_empty());
    }
    assert_eq!(bag_files(&disk).len(), 1);
    assert!(!volume.is_bag_lost());
    drop(volume);
    let (volume, report) = open(&disk);
    assert!(report.faulty.is_empty() && numbers(&volume) == [1, 2]);
}

#[test]
fn a_full_disk_delays_a_rotation_and_still_drops_keys() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..3);
    assert!(rotate(&mut volume, &[entry(1), entry(2)], &[], 40));
    disk.set_room(Some(1000));
    assert!(!rotate(&mut volume, &[entry(3)], &[], 41), "the reserve is not for new keys");
    assert_eq!(numbers(&volume), [1, 2]);
    assert!(rotate(&mut volume, &[entry(3)], &[1], 42), "it is for dropping old ones");
    assert_eq!(numbers(&volume), [2]);
    disk.set_room(Some(0));
    assert!(!rotate(&mut volume, &[], &[2], 43));
    assert_eq!(bag_files(&disk).len(), 1);
    disk.set_room(None);
    assert!(rotate(&mut volume, &[entry(3)], &[2], 44));
    volume.close().expect("closes");
    let (volume, report) = open(&disk);
    assert!(report.clean && numbers(&volume) == [3]);
}

#[test]
fn a_volume_that_is_closed_during_a_rotation_keeps_one_whole_pair() {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    assert!(rotate(&mut volume, &[entry(1)], &[], 40));
    let job = volume.rotation_job(vec![entry(2)], Vec::new(), Zeroizing::new([41; 32]));
    let rotated = job.run().expect("rotates");
    volume.close().expect("closes");
    drop(rotated);
    let (volume, report) = open(&disk);
    assert!(!report.clean, "nobody wrote a proof over the new bag's key");
    assert_eq!(numbers(&volume), [1, 2]);
}

#[test]
fn a_rotation_can_crash_at_any_step() {
    let prepared = || {
        let disk = fresh_disk();
        let (mut volume, _) = open(&disk);
        assert!(rotate(&mut volume, &[entry(1), entry(2)], &[], 40));
        (disk, volume)
    };
    let (disk, mut volume) = prepared();
    let first = disk.counts().steps;
    assert!(rotate(&mut volume, &[entry(3)], &[1], 41));
    let steps = disk.counts().steps - first;
    let (mut before, mut after) = (0, 0);
    for step in 0..=steps {
        for seed in [0, 7 + step * 13, u64::MAX] {
            let (disk, mut volume) = prepared();
            disk.halt_at(disk.counts().steps + step);
            let finished = rotate(&mut volume, &[entry(3)], &[1], 41);
            drop(volume);
            disk.crash(seed);
            let (mut volume, _) = open(&disk);
            let here = numbers(&volume);
            match here.as_slice() {
                [1, 2] => before += 1,
                [2, 3] => after += 1,
                other => panic!("step {step}, seed {seed}: {other:?}"),
            }
            assert!(!finished || here == [2, 3]);
            assert_eq!(bag_files(&disk).len(), 1, "the open finishes what was left");
            let store = Store::open(&disk, LAYOUT).expect("opens");
            if here == [2, 3] {
                assert!(store.find_bytes(&[40; 32]).expect("scans").is_empty(), "step {step}, seed {seed}");
            }
            assert!(rotate(&mut volume, &[], &[2], 42), "and the next rotation works");
        }
    }
    assert!(before > 0 && after > 0);
}

fn bag_files(disk: &FaultDisk) -> Vec<(String, Vec<u8>)> {
    let files = disk.files().into_iter();
    files.filter(|(path, _)| path.contains("/bag-")).collect()
}
