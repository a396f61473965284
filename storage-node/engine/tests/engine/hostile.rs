//! Whatever bytes a disk hands out, opening and reading answer with an error or with what was
//! written; nothing panics and nothing made up is served.

use proptest::prelude::*;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{Disk, DiskFile, Store};
use trefoil_protocol::record::Record;

use crate::fixture::{
    LAYOUT, OWNER, append_puts, fresh_disk, leaf, lsn, object, open, put_of, stage_object, upload,
};

fn store() -> (FaultDisk, Vec<Record>) {
    let disk = fresh_disk();
    let (mut volume, _) = open(&disk);
    append_puts(&mut volume.log, 1..4);
    stage_object(&mut volume.log, 4);
    volume.log.append(&put_of(&volume.log, 4, None)).expect("appends");
    append_puts(&mut volume.log, 5..7);
    let records = volume.log.records(lsn(1), usize::MAX).expect("reads");
    volume.close().expect("closes");
    (disk, records)
}

fn check(disk: &FaultDisk, records: &[Record]) {
    let Ok(store) = Store::open(disk, LAYOUT) else {
        return;
    };
    let Ok((volume, _)) = store.open_volume(OWNER) else {
        return;
    };
    let log = &volume.log;
    for n in 1..=log.last().0.0 {
        if let Ok(record) = log.record(lsn(n)) {
            assert_eq!(Some(&record), records.get(n as usize - 1));
        }
    }
    let bytes = object(4);
    for index in 0..3 {
        let read = log.read_plan(upload(4), bytes.len() as u64, index..index + 1).and_then(|job| job.run());
        assert!(read.is_err() || read.is_ok_and(|read| read.concat() == leaf(&bytes, index)));
    }
    if let Ok(index) = log.rebuild_index(log.last().0) {
        let _ = volume.scrub(&index);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r007_overwritten_stretches_never_lead_to_made_up_bytes(
        stretches in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..300)),
            1..5,
        ),
    ) {
        let (disk, records) = store();
        let files = disk.files();
        for (file, at, garbage) in stretches {
            let (path, bytes) = file.get(&files);
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let file = disk.open(path).expect("is there");
            file.write_at(at.index(used) as u64, &[&garbage]).expect("writes");
        }
        check(&disk, &records);
    }

    #[test]
    fn r005_frames_copied_to_other_places_are_not_believed(
        moves in prop::collection::vec((0..600u64, 0..600u64, 1..40u64), 1..6),
    ) {
        let (disk, records) = store();
        let segments = disk.files().into_iter().filter(|(path, _)| path.contains("segment-"));
        for ((from, to, length), (path, bytes)) in moves.into_iter().zip(segments.cycle()) {
            let start = (from * 64) as usize % bytes.len();
            let end = (start + length as usize * 64).min(bytes.len());
            let to = to * 64 % bytes.len() as u64;
            let file = disk.open(&path).expect("is there");
            file.write_at(to, &[&bytes[start..end]]).expect("writes");
        }
        check(&disk, &records);
    }
}
