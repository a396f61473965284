//! The production engine on the simulator's disk: through power losses that tear whatever was not
//! synced, every synced record is there and reads as it was written.

use bytes::Bytes;
use trefoil_engine::{Owner, SegmentLayout, Store, Tail, Volume, VolumeLog, VolumeSecrets};
use trefoil_protocol::ids::{
    ClientInstance, Epoch, Hash, Lsn, NameTag, PrincipalId, StoreId, TenantId, Token, UploadId, VersionId,
    VolumeId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::record::{Cause, Erasable, Put, Record, RecordBody, RecordPosition};
use trefoil_protocol::time::{CpTime, Millis};
use trefoil_sim::disk::{DiskModel, SimDisk};
use trefoil_sim::random::{Draws, Stream};
use zeroize::Zeroizing;

const OWNER: Owner = Owner { tenant: TenantId(1), volume: VolumeId(2) };

/// Small segments, so that a run goes through many of them.
const LAYOUT: SegmentLayout = SegmentLayout {
    segment_bytes: 512 << 10,
    first_segment_bytes: 32 << 10,
    reserve_bytes: 64 << 10,
    reserve_segment_bytes: 16 << 10,
};

fn fresh_disk(entity: u64) -> SimDisk {
    let disk = SimDisk::new(11, entity, DiskModel::default());
    let node = "a1".parse().expect("a node name");
    Store::format(&disk, StoreId([9; 16]), node, &[7; 32]).expect("formats");
    let secrets = VolumeSecrets { seal: *b"0123456789abcdef", bag_key: Zeroizing::new([3; 32]) };
    let store = Store::open(&disk, LAYOUT).expect("opens");
    store.create_volume(OWNER, &secrets).expect("creates");
    disk
}

fn open(disk: &SimDisk) -> (Volume<SimDisk>, Tail) {
    let store = Store::open(disk, LAYOUT).expect("the store opens");
    let (volume, report) = store.open_volume(OWNER).expect("the volume opens");
    (volume, report.tail)
}

fn put(log: &VolumeLog<SimDisk>, number: u64, length: u64) -> Record {
    let byte = number.to_le_bytes()[0];
    let payload = vec![byte; usize::try_from(length).expect("small")];
    let (last, previous) = log.last();
    let (tenant, volume) = (OWNER.tenant, OWNER.volume);
    let position = RecordPosition { tenant, volume, epoch: Epoch(1), lsn: last.next(), previous };
    let body = RecordBody::Put(Put {
        upload: UploadId { version: VersionId(u128::from(number).to_le_bytes()), attempt: 0 },
        root: Hash(*blake3::hash(&payload).as_bytes()),
        sealed_length: length,
        name_tag: NameTag([byte; 16]),
        kek_version: 1,
        replaces: None,
        window: Millis(5_000),
        cause: Cause {
            token: Token { instance: ClientInstance([1; 16]), sequence: number },
            confirmed_below: 0,
            request: Hash([byte; 32]),
            principal: PrincipalId(7),
            at: CpTime(1_000),
        },
    });
    let erasable = Erasable {
        salt: [byte; 16],
        key: ObjectKey::new(format!("key-{number}")).expect("a key"),
        metadata: Bytes::from(vec![byte; 33]),
        payload: Some(Bytes::from(payload)),
    };
    Record::new(position, body, Some(Bytes::from(vec![byte; 60])), Some(&erasable))
}

/// Appends for a while, now and then synced; says what was synced in the end.
fn write_for_a_while(log: &mut VolumeLog<SimDisk>, draws: &mut Draws, written: &mut Vec<Record>) -> usize {
    let mut synced = written.len();
    for _ in 0..draws.between(1, 30) {
        let record = put(log, written.len() as u64 + 1, draws.below(9_000));
        log.append(&record).expect("there is room and nobody fenced it");
        written.push(record);
        if draws.chance(300_000) {
            log.sync_now().expect("this disk does not fail");
            synced = written.len();
        }
    }
    synced
}

#[test]
fn every_synced_record_survives_a_power_loss() {
    let (mut checked, mut torn) = (0, 0);
    for entity in 0..60 {
        let mut draws = Draws::new(11, Stream::Workload, entity);
        let mut disk = fresh_disk(entity);
        let mut written = Vec::new();
        for _ in 0..4 {
            let (mut volume, _) = open(&disk);
            let synced = write_for_a_while(&mut volume.log, &mut draws, &mut written);
            drop(volume);
            disk = disk.crash();
            let (volume, tail) = open(&disk);
            let log = &volume.log;
            assert!(log.durable_lsn() >= Lsn(synced as u64), "disk {entity}: {synced} synced, {tail:?}");
            for (record, lsn) in written[..synced].iter().zip(1..) {
                let read = log.record(Lsn(lsn)).expect("a synced record reads");
                assert_eq!(read.public(), record.public(), "disk {entity}, record {lsn}");
                checked += 1;
            }
            if tail != Tail::Clean {
                // What is torn stays until peers have answered; that is another test's story.
                torn += 1;
                break;
            }
            let last = usize::try_from(log.last().0.0).expect("small");
            written.truncate(last);
            disk = disk.kill_process();
        }
    }
    assert!(checked > 1_000 && torn > 10, "{checked} records checked, {torn} torn tails");
}
