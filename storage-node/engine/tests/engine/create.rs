//! Many volumes that begin together: all of them are there after a crash, or those that are not can be
//! begun again; and what a new run writes is proven by nothing that an earlier one said.

use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{CreateJob, Owner, Store, SyncJob, Volume, VolumeSecrets};
use trefoil_protocol::ids::{Epoch, StoreId, TenantId, VolumeId};
use zeroize::Zeroizing;

use crate::fixture::LAYOUT;

const VOLUMES: u64 = 5;

fn formatted() -> FaultDisk {
    let disk = FaultDisk::new();
    let node = "a1".parse().expect("a node name");
    Store::format(&disk, StoreId([9; 16]), node, &[7; 32]).expect("formats");
    disk
}

fn owner(number: u64) -> Owner {
    Owner { tenant: TenantId(1), volume: VolumeId(number) }
}

fn jobs(store: &Store<FaultDisk>) -> Vec<CreateJob<FaultDisk>> {
    let secrets = VolumeSecrets { seal: *b"0123456789abcdef", bag_key: Zeroizing::new([3; 32]) };
    (1..=VOLUMES).map(|number| store.create_job(owner(number), &secrets)).collect()
}

fn open_all(store: &Store<FaultDisk>) -> Vec<Volume<FaultDisk>> {
    (1..=VOLUMES).map(|number| store.open_volume(owner(number)).expect("opens").0).collect()
}

#[test]
fn r001_volumes_created_together_are_there_after_a_crash_at_any_step() {
    let steps = {
        let disk = formatted();
        let store = Store::open(&disk, LAYOUT).expect("opens");
        let before = disk.counts().steps;
        assert!(CreateJob::run_all(jobs(&store)).iter().all(Result::is_ok));
        disk.counts().steps - before
    };
    for step in 0..=steps {
        let disk = formatted();
        let store = Store::open(&disk, LAYOUT).expect("opens");
        disk.halt_at(disk.counts().steps + step);
        let created = CreateJob::run_all(jobs(&store)).into_iter().filter(Result::is_ok).count();
        disk.crash(step.wrapping_mul(0x1234_5679));
        let store = Store::open(&disk, LAYOUT).expect("opens after the crash");
        let here = store.volumes().expect("lists").len();
        assert!(here >= created, "step {step}: {created} were reported, {here} are there");
        assert!(CreateJob::run_all(jobs(&store)).iter().all(Result::is_ok), "step {step}");
        open_all(&store);
    }
}

#[test]
fn r001_promises_synced_together_are_all_durable() {
    let disk = formatted();
    let store = Store::open(&disk, LAYOUT).expect("opens");
    assert!(CreateJob::run_all(jobs(&store)).iter().all(Result::is_ok));
    let mut volumes = open_all(&store);
    let synced: Vec<SyncJob<FaultDisk>> = volumes
        .iter_mut()
        .map(|volume| {
            volume.log.promise(Epoch(7), b"").expect("stages");
            volume.log.sync_job().expect("something is staged")
        })
        .collect();
    let tickets: Vec<_> = synced.iter().map(SyncJob::ticket).collect();
    let outcome = SyncJob::run_all(synced);
    for (volume, ticket) in volumes.iter_mut().zip(tickets) {
        volume.log.synced(ticket, &outcome);
        assert_eq!(volume.log.durable_epoch(), Epoch(7));
    }
    drop(volumes);
    disk.crash(3);
    let store = Store::open(&disk, LAYOUT).expect("opens");
    for number in 1..=VOLUMES {
        let (volume, report) = store.open_volume(owner(number)).expect("opens");
        assert_eq!(volume.log.epoch(), Epoch(7));
        assert!(!report.clean, "the proof of an empty log is gone with the first sync");
    }
}

#[test]
fn volumes_closed_together_are_each_proven_clean() {
    let disk = formatted();
    let store = Store::open(&disk, LAYOUT).expect("opens");
    assert!(CreateJob::run_all(jobs(&store)).iter().all(Result::is_ok));
    let mut volumes = open_all(&store);
    volumes[0].log.promise(Epoch(2), b"").expect("stages");
    Volume::close_all(volumes).expect("closes");
    disk.crash(5);
    for _ in 0..3 {
        let store = Store::open(&disk, LAYOUT).expect("opens");
        for number in 1..=VOLUMES {
            let (volume, report) = store.open_volume(owner(number)).expect("opens");
            assert!(report.clean, "volume {number}");
            volume.close().expect("closes again, with nothing written in between");
        }
    }
}
