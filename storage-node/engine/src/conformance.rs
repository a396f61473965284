//! What every [`Disk`] must do, as checks that panic with the broken promise. The file disk, the
//! fault disk and the simulator's disk run the same list, so that what the simulator proves holds
//! for the disk that production uses.

use crate::disk::{Disk, DiskError, DiskFile};

/// Runs the whole list; each check gets a fresh, empty disk.
pub fn check_all<D: Disk>(mut fresh: impl FnMut() -> D) {
    reads_see_writes(&fresh());
    parts_are_written_in_order(&fresh());
    a_read_past_the_end_is_refused(&fresh());
    allocated_bytes_read_as_zero(&fresh());
    allocation_never_shrinks(&fresh());
    punched_bytes_read_as_zero(&fresh());
    what_was_written_is_there_without_a_cache(&fresh());
    clones_share_one_file(&fresh());
    many_files_are_synced_together(&fresh());
    names_are_listed_sorted(&fresh());
    renaming_replaces(&fresh());
    a_removed_name_is_gone(&fresh());
    missing_names_are_not_found(&fresh());
    no_path_leaves_the_root(&fresh());
}

fn reads_see_writes(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.write_at(3, &[b"abc"]).expect("writes");
    assert_eq!(read(&file, 0, 6), b"\0\0\0abc", "a gap reads as zero");
    file.sync_data().expect("syncs");
    let again = disk.open("file").expect("opens what was created");
    assert_eq!(read(&again, 3, 3), b"abc");
    let same = disk.create("file").expect("opens the existing file");
    assert_eq!(same.length(), Ok(6), "create keeps what is there");
}

fn parts_are_written_in_order(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    let parts: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; usize::from(n)]).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    file.write_at(5, &slices).expect("writes");
    assert_eq!(read(&file, 5, 190), parts.concat());
    file.write_at(0, &[]).expect("no parts are no work");
    assert_eq!(file.length(), Ok(195));
}

fn a_read_past_the_end_is_refused(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.write_at(0, &[b"abc"]).expect("writes");
    let refused = file.read_at(1, &mut [0; 3]);
    assert!(matches!(refused, Err(DiskError::ShortRead { .. })));
}

fn allocated_bytes_read_as_zero(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.allocate(10_000).expect("allocates");
    assert_eq!(file.length(), Ok(10_000));
    assert_eq!(read(&file, 0, 10_000), vec![0; 10_000]);
}

fn allocation_never_shrinks(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.write_at(0, &[b"abcdef"]).expect("writes");
    file.allocate(3).expect("nothing to do");
    assert_eq!(read(&file, 0, 6), b"abcdef");
}

fn punched_bytes_read_as_zero(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.write_at(0, &[&[7; 20_000]]).expect("writes");
    file.punch(100, 15_000).expect("punches");
    assert_eq!(read(&file, 0, 100), vec![7; 100]);
    assert_eq!(read(&file, 100, 15_000), vec![0; 15_000]);
    assert_eq!(read(&file, 15_100, 4_900), vec![7; 4_900]);
    assert_eq!(file.length(), Ok(20_000), "a hole keeps the length");
}

fn what_was_written_is_there_without_a_cache(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    file.write_at(0, &[b"synced"]).expect("writes");
    file.sync_data().expect("syncs");
    file.write_at(6, &[b", not synced"]).expect("writes");
    file.forget_cached().expect("forgets");
    assert_eq!(read(&file, 0, 18), b"synced, not synced");
}

fn clones_share_one_file(disk: &impl Disk) {
    let file = disk.create("file").expect("creates");
    let clone = file.clone();
    file.write_at(0, &[b"abc"]).expect("writes");
    assert_eq!(read(&clone, 0, 3), b"abc");
    clone.sync_data().expect("any clone syncs");
}

fn many_files_are_synced_together(disk: &impl Disk) {
    disk.create_directory("d").expect("creates");
    let create = |number: usize| {
        let file = disk.create(&format!("d/{number}")).expect("creates");
        file.write_at(0, &[b"abc"]).expect("writes");
        file
    };
    // Few and many take different ways.
    for count in [0, 1, 3, 100] {
        let files: Vec<_> = (0..count).map(create).collect();
        disk.sync_together(&files, &["d".to_owned(), String::new()]).expect("syncs");
    }
}

fn names_are_listed_sorted(disk: &impl Disk) {
    disk.create_directory("one/two").expect("creates parents");
    disk.create_directory("one/two").expect("twice is once");
    for name in ["one/b", "one/a", "one/two/c"] {
        disk.create(name).expect("creates");
    }
    assert_eq!(disk.list("one").expect("lists"), ["a", "b", "two"]);
    assert_eq!(disk.list("one/two").expect("lists"), ["c"]);
    let root = disk.list("").expect("the empty path is the root");
    assert!(root.contains(&"one".to_owned()));
    disk.sync_directory("one").expect("syncs names");
    disk.sync_directory("").expect("syncs the root's names");
}

fn renaming_replaces(disk: &impl Disk) {
    let new = disk.create("new").expect("creates");
    new.write_at(0, &[b"new"]).expect("writes");
    let old = disk.create("old").expect("creates");
    old.write_at(0, &[b"old!"]).expect("writes");
    disk.rename("new", "old").expect("renames");
    let file = disk.open("old").expect("opens");
    assert_eq!(file.length(), Ok(3));
    assert_eq!(read(&file, 0, 3), b"new");
    assert!(matches!(disk.open("new"), Err(DiskError::NotFound { .. })));
}

fn a_removed_name_is_gone(disk: &impl Disk) {
    disk.create("file").expect("creates");
    disk.remove("file").expect("removes");
    assert!(matches!(disk.open("file"), Err(DiskError::NotFound { .. })));
    let again = disk.create("file").expect("creates anew");
    assert_eq!(again.length(), Ok(0));
}

fn missing_names_are_not_found(disk: &impl Disk) {
    let not_found = |error: Option<DiskError>| matches!(error, Some(DiskError::NotFound { .. }));
    assert!(not_found(disk.open("missing").err()));
    assert!(not_found(disk.remove("missing").err()));
    assert!(not_found(disk.rename("missing", "to").err()));
    assert!(not_found(disk.list("missing").err()));
    assert!(not_found(disk.create("missing/file").err()));
}

fn no_path_leaves_the_root(disk: &impl Disk) {
    for path in ["..", "a/../b", "/etc/passwd", "a//b", "./a", "a/"] {
        let refused = disk.create(path).err();
        assert!(matches!(refused, Some(DiskError::BadPath { .. })), "{path:?} was accepted");
    }
}

fn read(file: &impl DiskFile, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xAA; length];
    file.read_at(offset, &mut bytes).expect("reads");
    bytes
}
