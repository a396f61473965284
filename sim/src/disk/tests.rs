//! What a simulated disk keeps and what it loses.

use trefoil_engine::{Disk, DiskError, DiskFile};

use super::{DiskFault, DiskModel, FaultKind, PAGE, Region, SECTOR, SimDisk, SimFile};

fn disk(entity: u64) -> SimDisk {
    SimDisk::new(1, entity, DiskModel { write_back_per_million: 0, ..DiskModel::default() })
}

fn durable_file(disk: &SimDisk, path: &str) -> SimFile {
    let file = disk.create(path).expect("created");
    disk.sync_directory(super::parent_of(path)).expect("name synced");
    file
}

fn bytes_of(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).expect("still there");
    let length = usize::try_from(file.length().expect("known")).expect("small");
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).expect("readable");
    bytes
}

#[test]
fn it_does_what_every_disk_must_do() {
    trefoil_engine::conformance::check_all(|| disk(0));
}

#[test]
fn synced_bytes_and_names_survive_a_crash() {
    let disk = disk(0);
    disk.create_directory("v1").expect("made");
    disk.sync_directory("").expect("synced");
    let file = durable_file(&disk, "v1/seg1");
    file.write_at(100, &[b"kept", b"whole"]).expect("written");
    assert!(!disk.is_durable("v1/seg1", 100, 9));
    file.sync_data().expect("synced");
    assert!(disk.is_durable("v1/seg1", 100, 9));
    let after = disk.crash();
    assert_eq!(&bytes_of(&after, "v1/seg1")[100..], b"keptwhole");
}

#[test]
fn unsynced_sectors_are_lost_or_kept_one_by_one() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for entity in 0..200 {
        let disk = disk(entity);
        let file = durable_file(&disk, "seg1");
        file.allocate(2 * SECTOR).expect("room");
        file.sync_data().expect("synced");
        file.write_at(0, &[&[7; 1024]]).expect("written");
        let after = bytes_of(&disk.crash(), "seg1");
        let survived = [after[..512] == [7; 512], after[512..] == [7; 512]];
        assert!(after.chunks(512).all(|sector| sector == [0; 512] || sector == [7; 512]));
        match survived {
            [true, true] => kept += 1,
            [false, false] => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 60, "{kept} kept, {lost} lost, {torn} torn");
}

#[test]
fn an_unsynced_name_may_be_lost_and_a_rename_is_atomic() {
    let mut outcomes = [0; 2];
    for entity in 0..100 {
        let disk = disk(entity);
        for (path, byte) in [("old", b"1"), ("new", b"2")] {
            let file = durable_file(&disk, path);
            file.write_at(0, &[byte]).expect("written");
            file.sync_data().expect("synced");
        }
        disk.rename("new", "old").expect("renamed");
        let after = disk.crash();
        let replaced = bytes_of(&after, "old") == b"2";
        assert_eq!(after.open("new").is_err(), replaced, "both names move together");
        outcomes[usize::from(replaced)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

#[test]
fn a_ghost_of_the_dead_process_writes_nothing() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    let after = disk.crash();
    assert!(matches!(file.write_at(0, &[b"x"]), Err(DiskError::Io { .. })));
    assert!(disk.open("seg1").is_err());
    assert_eq!(after.open("seg1").expect("there").length(), Ok(0));
}

#[test]
fn a_failed_sync_drops_the_pages_and_a_later_one_does_not_bring_them_back() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    file.allocate(4096).expect("room");
    file.sync_data().expect("synced");
    file.write_at(0, &[&[7; 4096]]).expect("written");
    disk.arm(DiskFault::once(FaultKind::SyncError, "seg*"));
    assert!(file.sync_data().is_err());
    assert_eq!(file.sync_data(), Ok(()), "the kernel calls dropped pages clean");
    assert!(!disk.is_durable("seg1", 0, 4096));
    assert_eq!(bytes_of(&disk, "seg1"), [7; 4096], "the cache still shows them");
    assert_eq!(bytes_of(&disk.crash(), "seg1"), [0; 4096]);
}

#[test]
fn a_full_disk_refuses_growth_and_takes_back_what_is_punched() {
    let disk = SimDisk::new(1, 0, DiskModel { capacity: 4 * PAGE, ..DiskModel::default() });
    let file = durable_file(&disk, "seg1");
    file.allocate(3 * PAGE).expect("room");
    assert_eq!(disk.free_bytes(), Ok(PAGE));
    let refused = file.write_at(3 * PAGE, &[&[1; 2 * PAGE as usize]]);
    assert!(matches!(refused, Err(DiskError::Full { .. })));
    file.write_at(0, &[&[1; 3 * PAGE as usize]]).expect("inside the reservation");
    file.punch(0, 2 * PAGE).expect("punched");
    assert_eq!(disk.free_bytes(), Ok(3 * PAGE));
    file.write_at(0, &[b"again"]).expect("written");
    assert_eq!(disk.free_bytes(), Ok(2 * PAGE));
    disk.remove("seg1").expect("removed");
    assert_eq!(disk.free_bytes(), Ok(4 * PAGE));
}

#[test]
fn the_raw_scan_sees_what_is_durable_across_pages_and_in_freed_blocks() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    let secret = [0xabu8; 64];
    file.write_at(PAGE - 10, &[&secret]).expect("written");
    assert!(disk.find_durable(&secret).is_empty());
    file.sync_data().expect("synced");
    let here = (Region::File("seg1".to_owned()), PAGE - 10);
    assert_eq!(disk.find_durable(&secret), std::slice::from_ref(&here));
    file.punch(0, 2 * PAGE).expect("punched");
    assert_eq!(disk.find_durable(&secret), [here], "an un-synced punch erases nothing");
    file.sync_data().expect("synced");
    assert!(disk.find_durable(&secret).is_empty());

    file.write_at(0, &[&secret]).expect("written");
    file.sync_data().expect("synced");
    disk.remove("seg1").expect("removed");
    disk.sync_directory("").expect("synced");
    assert!(matches!(disk.find_durable(&secret)[..], [(Region::Freed(_), 0)]));
    let after = disk.crash();
    assert!(matches!(after.find_durable(&secret)[..], [(Region::Freed(_), 0)]));
    assert_eq!(after.used_bytes(), 0);
}

#[test]
fn errors_rot_lies_and_misdirection_strike_where_they_are_aimed() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    file.write_at(0, &[&[1; 3 * PAGE as usize]]).expect("written");
    file.sync_data().expect("synced");

    disk.arm(DiskFault::sticky(FaultKind::ReadError, "seg*"));
    assert!((0..3).all(|_| file.read_at(0, &mut [0]).is_err()));
    disk.repair();

    let (path, offset) = disk.rot("seg*").expect("there are bytes to rot");
    let rotten = bytes_of(&disk, &path);
    let wrong: Vec<usize> = (0..rotten.len()).filter(|at| rotten[*at] != 1).collect();
    assert_eq!(wrong, [usize::try_from(offset).expect("small")]);

    disk.arm(DiskFault::once(FaultKind::Misdirect, "seg*"));
    file.write_at(0, &[&[9; 512]]).expect("it says so");
    file.sync_data().expect("synced");
    assert!(!disk.is_durable("seg1", 0, 512));
    assert_eq!(bytes_of(&disk, "seg1")[PAGE as usize..][..512], [9; 512]);

    disk.arm(DiskFault::once(FaultKind::SyncLies, "seg*"));
    file.write_at(2 * PAGE, &[&[5; 512]]).expect("written");
    assert_eq!(file.sync_data(), Ok(()));
    assert!(!disk.is_durable("seg1", 2 * PAGE, 512));
}

#[test]
fn a_snapshot_is_a_disk_of_its_own() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    file.write_at(0, &[b"before"]).expect("written");
    let image = disk.snapshot();
    file.write_at(0, &[b"after!"]).expect("written");
    assert_eq!(bytes_of(&image, "seg1"), b"before");
    assert_eq!(bytes_of(&disk, "seg1"), b"after!");
}

#[test]
fn the_system_may_write_back_on_its_own_but_nobody_may_count_on_it() {
    let disk = SimDisk::new(1, 0, DiskModel { write_back_per_million: 1_000_000, ..DiskModel::default() });
    let file = durable_file(&disk, "seg1");
    file.write_at(0, &[&[3; 512]]).expect("written");
    assert!(!disk.is_durable("seg1", 0, 512));
    assert!(!disk.find_durable(&[3; 64]).is_empty());
}

#[test]
fn many_needles_are_found_wherever_they_begin() {
    let disk = disk(0);
    let file = durable_file(&disk, "seg1");
    let needles: Vec<Vec<u8>> =
        (0..40_u8).map(|number| blake3::hash(&[number]).as_bytes()[..23].to_vec()).collect();
    for (number, needle) in (0..).zip(&needles) {
        // Each at another alignment, every fourth one across the end of a page.
        file.write_at(number * (PAGE - 21) + number % 16, &[needle]).expect("written");
    }
    file.sync_data().expect("synced");
    let other = [&needles[1][..22], &[needles[1][22] ^ 1]].concat();
    let sought: Vec<&[u8]> = needles.iter().map(Vec::as_slice).chain([&other[..]]).collect();
    let found = disk.find_any_durable(&sought);
    let numbers: Vec<usize> = found.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    for (number, region, at) in found {
        assert_eq!(disk.find_durable(&needles[number]), [(region, at)], "needle {number}");
    }
}
