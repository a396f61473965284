//! Records for the benches, numbered, as a primary would make them.

use bytes::Bytes;
use trefoil_protocol::ids::{
    ClientInstance, Epoch, Hash, Lsn, NameTag, PrincipalId, TenantId, Token, UploadId, VersionId, VolumeId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::record::{Cause, Erasable, Put, Record, RecordBody, RecordPosition};
use trefoil_protocol::time::{CpTime, Millis};

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const VOLUME: VolumeId = VolumeId(2);

pub(crate) fn key(number: u64) -> ObjectKey {
    ObjectKey::new(format!("some/folder/object-{number:08}")).expect("a key")
}

/// The put of a small object behind `previous`.
pub(crate) fn put(number: u64, last: Lsn, previous: Hash, payload: &Bytes) -> Record {
    let mut version = [0; 16];
    version[..8].copy_from_slice(&number.to_le_bytes());
    let cause = Cause {
        token: Token { instance: ClientInstance([1; 16]), sequence: number + 1 },
        confirmed_below: number,
        request: Hash([3; 32]),
        principal: PrincipalId(1),
        at: CpTime(1000),
    };
    let body = RecordBody::Put(Put {
        upload: UploadId { version: VersionId(version), attempt: 0 },
        root: Hash(*blake3::hash(payload).as_bytes()),
        sealed_length: payload.len() as u64,
        name_tag: NameTag(version),
        kek_version: 1,
        replaces: None,
        window: Millis(5000),
        cause,
    });
    let erasable = Erasable {
        salt: [4; 16],
        key: key(number),
        metadata: Bytes::from_static(&[5; 200]),
        payload: Some(payload.clone()),
    };
    let position =
        RecordPosition { tenant: TENANT, volume: VOLUME, epoch: Epoch(1), lsn: last.next(), previous };
    Record::new(position, body, Some(Bytes::from_static(&[6; 64])), Some(&erasable))
}
