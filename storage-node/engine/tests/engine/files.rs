//! The same engine on real files: what it promised on the fault disk holds on a file system.

use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::{EraseTarget, PayloadState, Tail};

use crate::disks::Scratch;
use crate::fixture::{
    append_puts, inline_payload, lsn, object, open, prepare, put_of, stage_object, tree_of, upload, version,
};

#[test]
fn a_store_of_files_survives_its_process() {
    let scratch = Scratch::new();
    let disk = FileDisk::open(&scratch.0, None).expect("opens");
    prepare(&disk);
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..20);
    stage_object(&mut volume.log, 40);
    volume.log.append(&put_of(&volume.log, 40, None)).expect("appends");
    volume.log.sync_now().expect("syncs");
    let records = volume.log.records(lsn(1), usize::MAX).expect("reads");
    drop((volume, disk));

    let disk = FileDisk::open(&scratch.0, None).expect("opens again");
    let (volume, report) = open(&disk);
    assert!(!report.clean);
    assert_eq!(report.tail, Tail::Clean);
    assert_eq!(volume.log.records(lsn(1), usize::MAX), Ok(records));
    let bytes = object(40);
    let length = bytes.len() as u64;
    let (_, root) = tree_of(&bytes);
    assert_eq!(volume.log.payload_complete(upload(40), length, &root), PayloadState::Durable);
    let job = volume.log.read_plan(upload(40), length, 0..3).expect("plans");
    assert_eq!(job.run().expect("reads").concat(), bytes);
    volume.close().expect("closes");
    let (volume, report) = open(&disk);
    assert!(report.clean);
    let index = volume.log.rebuild_index(lsn(20)).expect("rebuilds");
    assert_eq!(volume.scrub(&index).expect("scrubs").faults, []);
}

#[test]
fn r066_erased_bytes_are_in_no_file() {
    let scratch = Scratch::new();
    let disk = FileDisk::open(&scratch.0, None).expect("opens");
    prepare(&disk);
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..3);
    stage_object(&mut volume.log, 40);
    volume.log.append(&put_of(&volume.log, 40, None)).expect("appends");
    volume.log.sync_now().expect("syncs");
    let markers = [inline_payload(1)[..64].to_vec(), object(40)[70_000..70_064].to_vec()];
    assert!(markers.iter().all(|marker| is_below(&scratch.0, marker)));
    let targets = [EraseTarget::Version(version(1)), EraseTarget::Version(version(40))];
    volume.log.erase_now(&targets).expect("erases");
    assert!(!markers.iter().any(|marker| is_below(&scratch.0, marker)));
    assert!(is_below(&scratch.0, &inline_payload(2)[..64]), "others stay");
}

fn is_below(directory: &std::path::Path, marker: &[u8]) -> bool {
    std::fs::read_dir(directory).expect("lists").any(|entry| {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => is_below(&path, marker),
            false => std::fs::read(&path).expect("reads").windows(marker.len()).any(|bytes| bytes == marker),
        }
    })
}
