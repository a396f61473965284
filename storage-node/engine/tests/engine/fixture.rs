//! What the engine's tests share: a store with one volume on a fault disk, and records to put in it.

use bytes::Bytes;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{Disk, Owner, RecoveryReport, SegmentLayout, Store, Volume, VolumeLog, VolumeSecrets};
use trefoil_protocol::ids::{
    ClientInstance, Epoch, Hash, Lsn, NameTag, PrincipalId, StoreId, TenantId, Token, UploadId, VersionId,
    VolumeId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::record::{Cause, Delete, Erasable, Put, Record, RecordBody, RecordPosition};
use trefoil_protocol::time::{CpTime, Millis};
use trefoil_protocol::tree::{LEAF_LEN, LeafPlace, leaf_count, leaf_hash, root_from_leaves};
use zeroize::Zeroizing;

pub(crate) const OWNER: Owner = Owner { tenant: TenantId(1), volume: VolumeId(2) };

pub(crate) const LAYOUT: SegmentLayout = SegmentLayout {
    segment_bytes: 512 << 10,
    first_segment_bytes: 32 << 10,
    reserve_bytes: 64 << 10,
    reserve_segment_bytes: 16 << 10,
};

/// A formatted store with one empty volume.
pub(crate) fn fresh_disk() -> FaultDisk {
    let disk = FaultDisk::new();
    prepare(&disk);
    disk
}

pub(crate) fn prepare<D: Disk>(disk: &D) {
    let node = "a1".parse().expect("a node name");
    Store::format(disk, StoreId([9; 16]), node, &[7; 32]).expect("formats");
    let secrets = VolumeSecrets { seal: *b"0123456789abcdef", bag_key: Zeroizing::new([3; 32]) };
    let store = Store::open(disk, LAYOUT).expect("opens");
    store.create_volume(OWNER, &secrets).expect("creates");
}

pub(crate) fn open<D: Disk>(disk: &D) -> (Volume<D>, RecoveryReport) {
    let store = Store::open(disk, LAYOUT).expect("the store opens");
    store.open_volume(OWNER).expect("the volume opens")
}

/// A small object and the record that puts it.
pub(crate) fn put<D: Disk>(log: &VolumeLog<D>, number: u8) -> Record {
    put_of(log, number, Some(inline_payload(number)))
}

pub(crate) fn inline_payload(number: u8) -> Vec<u8> {
    (0..200u8).map(|byte| byte ^ number).collect()
}

pub(crate) fn put_of<D: Disk>(log: &VolumeLog<D>, number: u8, inline: Option<Vec<u8>>) -> Record {
    let sealed = inline.clone().unwrap_or_else(|| object(number));
    let body = RecordBody::Put(Put {
        upload: upload(number),
        root: Hash(*blake3::hash(&sealed).as_bytes()),
        sealed_length: sealed.len() as u64,
        name_tag: NameTag([number; 16]),
        kek_version: 1,
        replaces: None,
        window: Millis(5_000),
        cause: cause(number),
    });
    let erasable = Erasable {
        salt: [number; 16],
        key: ObjectKey::new(format!("key-{number}")).expect("a key"),
        metadata: Bytes::from(vec![number; 33]),
        payload: inline.map(Bytes::from),
    };
    let wrapped = Bytes::from(wrapped_key(number));
    Record::new(next(log), body, Some(wrapped), Some(&erasable))
}

pub(crate) fn wrapped_key(number: u8) -> Vec<u8> {
    let mut seed = blake3::Hasher::new();
    seed.update(&[number]);
    let mut key = vec![0; 60];
    seed.finalize_xof().fill(&mut key);
    key
}

pub(crate) fn delete<D: Disk>(log: &VolumeLog<D>, number: u8) -> Record {
    let body =
        RecordBody::Delete(Delete { version: version(number), window: Millis(5_000), cause: cause(number) });
    Record::new(next(log), body, None, None)
}

pub(crate) fn cause(number: u8) -> Cause {
    Cause {
        token: Token { instance: ClientInstance([1; 16]), sequence: u64::from(number) },
        confirmed_below: 0,
        request: Hash([number; 32]),
        principal: PrincipalId(7),
        at: CpTime(1000),
    }
}

pub(crate) fn next<D: Disk>(log: &VolumeLog<D>) -> RecordPosition {
    let (last, previous) = log.last();
    RecordPosition { tenant: OWNER.tenant, volume: OWNER.volume, epoch: Epoch(1), lsn: last.next(), previous }
}

pub(crate) fn version(number: u8) -> VersionId {
    VersionId([number; 16])
}

pub(crate) fn upload(number: u8) -> UploadId {
    UploadId { version: version(number), attempt: 0 }
}

/// The sealed bytes of a streamed object of two whole leaves and a bit.
pub(crate) fn object(number: u8) -> Vec<u8> {
    let mut bytes = vec![0; 2 * LEAF_LEN as usize + 1000];
    let mut seed = blake3::Hasher::new();
    seed.update(&[number; 7]);
    seed.finalize_xof().fill(&mut bytes);
    bytes
}

/// Leaf hashes and root of sealed bytes.
pub(crate) fn tree_of(bytes: &[u8]) -> (Vec<[u8; 32]>, Hash) {
    let length = bytes.len() as u64;
    let place = LeafPlace::in_object(length);
    let leaves: Vec<[u8; 32]> =
        (0..leaf_count(length)).map(|index| leaf_hash(index, leaf(bytes, index), place)).collect();
    let root = root_from_leaves(&leaves, length).expect("as many leaves as the length has");
    (leaves, Hash(root))
}

pub(crate) fn leaf(bytes: &[u8], index: u64) -> &[u8] {
    let from = (index * LEAF_LEN) as usize;
    &bytes[from..bytes.len().min(from + LEAF_LEN as usize)]
}

pub(crate) fn stage_object<D: Disk>(log: &mut VolumeLog<D>, number: u8) {
    assert!(try_stage_object(log, number), "stages");
}

/// Whether all leaves were staged.
pub(crate) fn try_stage_object<D: Disk>(log: &mut VolumeLog<D>, number: u8) -> bool {
    let bytes = object(number);
    let leaves = tree_of(&bytes).0.into_iter().zip(0..);
    let mut staged =
        leaves.map(|(hash, index)| log.stage_payload(upload(number), index, hash, leaf(&bytes, index)));
    staged.all(|staged| staged.is_ok())
}

/// Appends and syncs puts with these numbers.
pub(crate) fn append_puts<D: Disk>(log: &mut VolumeLog<D>, numbers: std::ops::Range<u8>) {
    for number in numbers {
        log.append(&put(log, number)).expect("appends");
    }
    log.sync_now().expect("syncs");
}

pub(crate) fn lsn(number: u64) -> Lsn {
    Lsn(number)
}
