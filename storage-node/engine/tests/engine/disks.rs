//! The file disk and the fault disk keep the promises of the disk trait, and the fault disk fails
//! the way its script says.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use trefoil_engine::disk::fault::{DiskOperation, FaultDisk, Outcome, ScriptedFault};
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{Disk, DiskError, DiskFile, conformance};

/// A directory of its own, removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trefoil-disks-{}-{number}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_file_disk_conforms() {
    let mut scratches = Vec::new();
    conformance::check_all(|| {
        let scratch = Scratch::new();
        let disk = FileDisk::open(&scratch.0, None).expect("opens");
        scratches.push(scratch);
        disk
    });
}

#[test]
fn the_fault_disk_conforms() {
    conformance::check_all(FaultDisk::new);
}

#[test]
fn a_second_open_of_the_same_root_is_refused() {
    let scratch = Scratch::new();
    let first = FileDisk::open(&scratch.0, None).expect("opens");
    let second = FileDisk::open(&scratch.0, None);
    assert!(matches!(second, Err(DiskError::Locked { .. })));
    drop(first);
    FileDisk::open(&scratch.0, None).expect("opens once the first is gone");
}

#[test]
fn r004_a_configured_capacity_refuses_allocation_and_counts_holes_as_free() {
    let scratch = Scratch::new();
    let disk = FileDisk::open(&scratch.0, Some(1 << 20)).expect("opens");
    let file = disk.create("file").expect("creates");
    file.allocate(768 << 10).expect("fits");
    let other = disk.create("other").expect("creates");
    let refused = other.allocate(512 << 10);
    assert!(matches!(refused, Err(DiskError::Full { .. })));
    file.punch(0, 512 << 10).expect("punches");
    other.allocate(512 << 10).expect("fits into what was given back");
    drop((disk, file, other));
    let again = FileDisk::open(&scratch.0, Some(1 << 20)).expect("opens");
    let free = again.free_bytes().expect("measures");
    assert!(free <= 256 << 10, "what is on disk counts: {free} free");
}

#[test]
fn an_unsynced_write_is_lost_and_a_synced_one_stays() {
    let disk = FaultDisk::new();
    let file = disk.create("file").expect("creates");
    disk.sync_directory("").expect("syncs");
    file.write_at(0, &[b"synced"]).expect("writes");
    file.sync_data().expect("syncs");
    file.write_at(6, &[b"lost"]).expect("writes");
    disk.crash(0);
    assert!(file.length().is_err(), "a handle does not outlive the crash");
    assert_eq!(disk.files(), [("file".to_owned(), b"synced".to_vec())]);
}

#[test]
fn a_name_without_directory_sync_may_be_lost() {
    let disk = FaultDisk::new();
    let file = disk.create("file").expect("creates");
    file.write_at(0, &[b"bytes"]).expect("writes");
    file.sync_data().expect("syncs");
    disk.crash(0);
    assert_eq!(disk.files(), []);
}

#[test]
fn a_failed_sync_loses_what_reads_still_show() {
    let disk = FaultDisk::new();
    let file = disk.create("file").expect("creates");
    disk.sync_directory("").expect("syncs");
    file.write_at(0, &[b"bytes"]).expect("writes");
    disk.inject(ScriptedFault { operation: DiskOperation::Sync, nth: 1, outcome: Outcome::Error });
    assert!(file.sync_data().is_err());
    assert_eq!(file.length(), Ok(5), "the page cache shows it");
    assert_eq!(file.sync_data(), Ok(()), "a retry pretends");
    assert_eq!(disk.counts().syncs_after_failure, 1);
    disk.crash(u64::MAX);
    assert_eq!(disk.files(), [("file".to_owned(), Vec::new())]);
}

#[test]
fn a_torn_write_leaves_its_first_bytes() {
    let disk = FaultDisk::new();
    let file = disk.create("file").expect("creates");
    disk.inject(ScriptedFault {
        operation: DiskOperation::Write,
        nth: 2,
        outcome: Outcome::Torn { bytes: 2 },
    });
    file.write_at(0, &[b"abcd"]).expect("the first write is whole");
    assert!(file.write_at(4, &[b"efgh"]).is_err());
    assert_eq!(disk.files(), [("file".to_owned(), b"abcdef".to_vec())]);
}
