//! Random operations, crashes and reopenings against a model that is a list of records (R14). The
//! model knows what was synced; whatever a crash leaves must hold that, and nothing never written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{
    BagEntry, EraseTarget, Index, PayloadState, ScrubFault, ScrubReport, Store, Tail, Volume,
};
use trefoil_protocol::ids::{Epoch, Hash, Lsn};
use trefoil_protocol::record::{Record, RecordBody};
use zeroize::Zeroizing;

use crate::fixture::{
    LAYOUT, delete, fresh_disk, inline_payload, leaf, lsn, object, open, put, put_of, tree_of,
    try_stage_object, upload, version, wrapped_key,
};

#[derive(Clone, Debug)]
enum Operation {
    Put,
    PutStreamed,
    Delete { number: u8 },
    Sync,
    Cut { by: u64 },
    Promise,
    Commit,
    Erase { number: u8 },
    Rotate { number: u8 },
    Crash { seed: u64 },
    CrashDuring { steps: u64, seed: u64 },
    Reopen,
    Scrub,
    Rot { place: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let number = || 1..40u8;
    prop_oneof![
        8 => Just(Operation::Put),
        3 => Just(Operation::PutStreamed),
        2 => number().prop_map(|number| Operation::Delete { number }),
        6 => Just(Operation::Sync),
        2 => (0..4u64).prop_map(|by| Operation::Cut { by }),
        1 => Just(Operation::Promise),
        2 => Just(Operation::Commit),
        2 => number().prop_map(|number| Operation::Erase { number }),
        1 => number().prop_map(|number| Operation::Rotate { number }),
        3 => any::<u64>().prop_map(|seed| Operation::Crash { seed }),
        2 => (0..12u64, any::<u64>()).prop_map(|(steps, seed)| Operation::CrashDuring { steps, seed }),
        2 => Just(Operation::Reopen),
        1 => Just(Operation::Scrub),
        2 => any::<u64>().prop_map(|place| Operation::Rot { place }),
    ]
}

/// What the store must remember.
#[derive(Default)]
struct Model {
    /// The log as staged.
    log: Vec<Record>,
    /// How much of it every crash must leave.
    durable: usize,
    /// Every record ever staged at a position, by its chain hash.
    written: BTreeMap<Lsn, BTreeMap<Hash, Record>>,
    /// Objects whose record and payload were under one finished sync.
    whole: BTreeSet<u8>,
    /// Objects whose record and payload were staged since the last sync.
    staged: BTreeSet<u8>,
    erased: BTreeSet<u8>,
    epoch: u64,
    durable_epoch: u64,
    committed: u64,
    next: u8,
    /// Whether a frame was repaired by another.
    rotted: bool,
}

impl Model {
    /// A sync has finished: everything staged is durable.
    fn all_is_durable(&mut self) {
        self.durable = self.log.len();
        self.durable_epoch = self.epoch;
        self.whole.append(&mut self.staged);
    }
}

struct Run {
    disk: FaultDisk,
    volume: Option<Volume<FaultDisk>>,
    model: Model,
}

impl Run {
    fn new() -> Run {
        let disk = fresh_disk();
        let (volume, _) = open(&disk);
        Run { disk, volume: Some(volume), model: Model { next: 1, ..Model::default() } }
    }

    fn volume(&mut self) -> &mut Volume<FaultDisk> {
        self.volume.as_mut().expect("open between operations")
    }

    /// Whether the operation came through; only a halted disk may refuse it.
    fn act(&mut self, operation: &Operation) -> bool {
        match operation {
            Operation::Put => {
                let number = self.model.next;
                let record = put(&self.volume().log, number);
                self.append(record)
            }
            Operation::PutStreamed => {
                let number = self.model.next;
                let record = put_of(&self.volume().log, number, None);
                let staged = try_stage_object(&mut self.volume().log, number) && self.append(record);
                self.model.staged.extend(Some(number).filter(|_| staged));
                staged
            }
            Operation::Delete { number } => {
                let record = delete(&self.volume().log, *number);
                self.append(record)
            }
            Operation::Sync => self.sync(),
            Operation::Cut { by } => self.cut(*by),
            Operation::Promise => {
                self.model.epoch += 1;
                let epoch = Epoch(self.model.epoch);
                self.volume().log.promise(epoch, b"").is_ok()
            }
            Operation::Commit => {
                self.model.committed = self.model.durable as u64;
                let committed = lsn(self.model.committed);
                self.volume().log.set_committed(committed);
                true
            }
            // Only what was put: a version erased beforehand takes no bytes.
            Operation::Erase { number } => *number >= self.model.next || self.erase(*number),
            Operation::Rotate { number } => self.rotate(*number),
            Operation::Scrub => self.scrub(),
            Operation::Rot { place } => self.rot(*place),
            Operation::Crash { .. } | Operation::CrashDuring { .. } | Operation::Reopen => true,
        }
    }

    fn append(&mut self, record: Record) -> bool {
        self.model.next = self.model.next.wrapping_add(1).max(1);
        let at = self.model.written.entry(record.lsn()).or_default();
        at.insert(record.chain_hash(), record.clone());
        let staged = self.volume().log.append(&record).is_ok();
        if staged {
            self.model.log.push(record);
        }
        staged
    }

    fn sync(&mut self) -> bool {
        if self.volume().log.sync_now().is_err() {
            return false;
        }
        self.model.all_is_durable();
        let durable = self.model.durable as u64;
        assert_eq!(self.volume().log.durable_lsn(), lsn(durable));
        true
    }

    fn cut(&mut self, by: u64) -> bool {
        let keep = (self.model.log.len() as u64).saturating_sub(by).max(self.model.committed);
        // A cut that is not synced may or may not have happened: less is certain from here on.
        self.model.durable = self.model.durable.min(keep as usize);
        let cut = self.volume().log.cut_after(lsn(keep)).is_ok();
        if cut {
            self.model.log.truncate(keep as usize);
        }
        cut
    }

    fn erase(&mut self, number: u8) -> bool {
        let target = EraseTarget::Version(version(number));
        let log = &mut self.volume().log;
        let erased = log.erase_now(&[target]);
        // Whatever happens: from the attempt on the version's bytes may be gone.
        self.model.erased.insert(number);
        if erased.is_ok() {
            self.model.all_is_durable();
            self.check_gone(number);
        }
        erased.is_ok()
    }

    fn check_gone(&mut self, number: u8) {
        assert!(self.volume().log.is_erased(EraseTarget::Version(version(number))));
        let store = Store::open(&self.disk, LAYOUT).expect("opens");
        let markers =
            [inline_payload(number)[..64].to_vec(), object(number)[..64].to_vec(), wrapped_key(number)];
        for marker in &markers[..2] {
            assert_eq!(store.find_bytes(marker), Ok(Vec::new()), "{number}");
        }
    }

    fn rotate(&mut self, number: u8) -> bool {
        let wrapped = Bytes::from(wrapped_key(number));
        let entry = BagEntry { version: version(number), kek_version: 1, wrapped };
        let volume = self.volume();
        let rotated = volume.rotation_job(vec![entry], Vec::new(), Zeroizing::new([number; 32])).run();
        rotated.is_ok_and(|rotated| volume.rotated(rotated))
    }

    fn scrub(&mut self) -> bool {
        let end = lsn(self.model.log.len() as u64);
        let volume = self.volume();
        let index = volume.log.rebuild_index(end).expect("reads");
        let report = volume.scrub(&index).expect("reads");
        assert_eq!(index.applied(), end);
        // A repaired copy leaves the rotten frame where it was.
        for fault in report.faults {
            let left = self.model.rotted && matches!(fault, ScrubFault::Frame { .. });
            assert!(left || !self.is_news(&fault), "{fault:?}");
        }
        true
    }

    /// One bit of a segment rots. What belongs to the log is found and repaired from the model's
    /// copies, as from a peer's; the rest is put back.
    fn rot(&mut self, place: u64) -> bool {
        let segments = self.disk.files().into_iter().filter(|(path, _)| path.contains("segment-"));
        let segments: Vec<(String, Vec<u8>)> = segments.collect();
        let Some((path, bytes)) = segments.get(place as usize % segments.len().max(1)) else {
            return true;
        };
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let (offset, bit) = (place / 8 % used, (place % 8) as u8);
        self.disk.flip_bit(path, offset, bit);
        let report = self.full_scrub();
        let repairable =
            |fault: &ScrubFault| matches!(fault, ScrubFault::Record { .. } | ScrubFault::Leaf { .. });
        let rotten: Vec<ScrubFault> = report.faults.into_iter().filter(|fault| self.is_news(fault)).collect();
        if !rotten.iter().any(repairable) {
            self.disk.flip_bit(path, offset, bit);
            return true;
        }
        self.model.rotted = true;
        self.repair(&rotten) && self.sync()
    }

    fn repair(&mut self, faults: &[ScrubFault]) -> bool {
        let copies = self.model.log.clone();
        let report = ScrubReport { faults: faults.to_vec(), ..ScrubReport::default() };
        let log = &mut self.volume().log;
        log.take_faults(&report);
        let repaired =
            faults.iter().filter(|fault| matches!(fault, ScrubFault::Record { .. })).all(|fault| {
                let ScrubFault::Record { lsn, .. } = fault else { return true };
                assert!(log.durable_lsn() < *lsn, "a damaged record is not durable");
                log.append(&copies[lsn.0 as usize - 1]).is_ok()
            });
        if !repaired {
            return false;
        }
        let end = lsn(copies.len() as u64);
        let index = log.rebuild_index(end).expect("reads");
        for fault in faults {
            if let ScrubFault::Leaf { upload, index: at } = fault {
                let bytes = object(upload.version.0[0]);
                let object = index.version(upload.version).expect("was put");
                if log.repair_leaf(object, *at, leaf(&bytes, *at)).is_err() {
                    return false;
                }
            }
        }
        let left = self.full_scrub().faults;
        for fault in left {
            let elsewhere = matches!(fault, ScrubFault::Frame { .. });
            assert!(elsewhere || !self.is_news(&fault), "repaired: {fault:?}");
        }
        true
    }

    fn full_scrub(&mut self) -> ScrubReport {
        let end = lsn(self.model.log.len() as u64);
        let volume = self.volume();
        let index = volume.log.rebuild_index(end).expect("reads");
        volume.scrub(&index).expect("reads")
    }

    /// A record whose payload no sync covered may have survived a crash without it.
    fn is_news(&self, fault: &ScrubFault) -> bool {
        !matches!(fault, ScrubFault::Leaf { upload, .. } if !self.model.whole.contains(&upload.version.0[0]))
    }

    fn reopen(&mut self) {
        let clean = self.volume.take().map(|volume| volume.close().is_ok());
        if clean == Some(true) {
            self.model.all_is_durable();
        }
        let (volume, report) = open(&self.disk);
        assert_eq!(Some(report.clean), clean);
        self.volume = Some(volume);
        self.check_log();
    }

    fn crash(&mut self, seed: u64) {
        self.volume = None;
        self.model.staged.clear();
        self.disk.crash(seed);
        let (mut volume, report) = open(&self.disk);
        assert!(volume.log.durable_epoch() >= Epoch(self.model.durable_epoch));
        assert!(volume.log.committed() <= lsn(self.model.committed));
        let first_fault = report.faulty.keys().next().copied();
        if let Some(first) = first_fault {
            assert!(first.0 as usize > self.model.durable, "{report:?}");
            assert!(matches!(report.tail, Tail::Undecided { from_lsn } if from_lsn <= first));
            // The peers say: that record was never acknowledged.
            volume.log.cut_after(first.previous()).expect("cuts");
        }
        volume.log.settle_tail().expect("settles");
        volume.log.sync_now().expect("syncs");
        self.adopt(&volume);
        let unfinished: Vec<EraseTarget> = volume.log.unfinished_erases().collect();
        volume.log.erase_now(&unfinished).expect("erases");
        self.volume = Some(volume);
        self.check_log();
    }

    /// What is on the disk holds everything durable and nothing that was never written.
    fn adopt(&mut self, volume: &Volume<FaultDisk>) {
        let log = &volume.log;
        let mut here = Vec::new();
        for n in 1..=log.last().0.0 {
            let chain = log.hash_at(lsn(n)).expect("no holes are left");
            let written = self.model.written.get(&lsn(n)).and_then(|records| records.get(&chain));
            here.push(written.expect("nothing is here that was never written").clone());
        }
        let durable = self.model.durable;
        assert!(here.len() >= durable, "{} records here, {durable} were durable", here.len());
        assert_eq!(here[..durable], self.model.log[..durable]);
        self.model.log = here;
        self.model.durable = self.model.log.len();
        self.model.epoch = log.epoch().0;
        self.model.durable_epoch = self.model.epoch;
        self.model.committed = self.model.committed.min(log.committed().0);
    }

    fn check_log(&mut self) {
        let (log, model) = (&self.volume.as_ref().expect("is open").log, &self.model);
        assert_eq!(log.last().0, lsn(model.log.len() as u64));
        let mut index = Index::default();
        for expected in &model.log {
            let record = log.record(expected.lsn()).expect("reads");
            assert_eq!(record.public(), expected.public());
            index.apply(&record);
            let RecordBody::Put(put) = expected.body() else {
                continue;
            };
            let number = put.upload.version.0[0];
            let gone = log.unfinished_erases().count() > 0 || model.erased.contains(&number);
            if gone {
                continue;
            }
            assert_eq!(&record, expected);
            let streamed = put.sealed_length > 1000;
            if streamed && model.whole.contains(&number) {
                let (_, root) = tree_of(&object(number));
                let state = log.payload_complete(upload(number), put.sealed_length, &root);
                assert_eq!(state, PayloadState::Durable, "payload of {number} at {}", expected.lsn());
            }
        }
        let held = index.statistics().live.versions + index.statistics().deleted.versions;
        assert!(held as usize <= model.log.len());
    }
}

fn run(operations: &[Operation]) {
    let mut run = Run::new();
    let mut halt: Option<u64> = None;
    for operation in operations {
        match operation {
            Operation::Crash { seed } => run.crash(*seed),
            Operation::CrashDuring { steps, seed } => {
                run.disk.halt_at(run.disk.counts().steps + steps);
                halt = Some(*seed);
            }
            Operation::Reopen if halt.is_none() => run.reopen(),
            // Damage and crash at once leave holes that only peers could fill.
            Operation::Rot { .. } if halt.is_some() => {}
            other => {
                let done = run.act(other);
                if let Some(seed) = halt.filter(|_| !done) {
                    halt = None;
                    run.crash(seed);
                } else {
                    assert!(done, "{other:?} fails without a cause");
                }
            }
        }
    }
    run.crash(halt.unwrap_or(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r014_the_store_agrees_with_a_list_of_records(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        run(&operations);
    }
}

/// Found by the test above: the public part of a record rotted, a copy repaired it, and after a restart
/// nobody knew whose payload stood in the old frame.
#[test]
fn r066_what_stands_in_the_frame_of_a_rotten_record_is_erased_too() {
    let rot = Operation::Rot { place: 10_540_457_800_037_175_016 };
    run(&[Operation::Put, Operation::Put, rot, Operation::Reopen, Operation::Erase { number: 2 }]);
}
