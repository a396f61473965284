//! What of a tenant lies where on a node: in the folder of its own volume and in no other file, as long as the
//! object is there, and nowhere once it is purged, its name included.

use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::index::VersionState;
use trefoil_protocol::config::MemberState;
use trefoil_protocol::ids::{PrincipalId, TenantId, VersionId, VolumeId};
use trefoil_protocol::message::tenant::{Precondition, TenantCall, TenantRequest, TenantResponse};
use trefoil_storage_node::{Event, RequestId, VerifiedPrincipal};

use crate::cluster::{Cluster, PATIENCE, VOLUME, member, name, node, object, put_call};

const NODES: [&str; 3] = ["a1", "a2", "b1"];
const MINUTE: Duration = Duration::from_secs(60);
const WINDOW_MS: u64 = 20_000;
const OTHER_TENANT: TenantId = TenantId(2);
const OTHER_VOLUME: VolumeId = VolumeId(8);
/// A name that both tenants give an object of theirs; long enough to occur nowhere by chance.
const SHARED_NAME: &str = "minutes of the board, first quarter, draft for signature";
const KEPT_NAME: &str = "minutes of the board, second quarter, draft for signature";

/// Two tenants with a volume each, on the same three stores.
fn two_tenants() -> Cluster {
    let mut cluster = Cluster::healthy(&NODES);
    let members = NODES.map(|name| member(name, MemberState::InSync));
    cluster.placement.create(OTHER_VOLUME, OTHER_TENANT, members.to_vec());
    let serves = |c: &Cluster| {
        let other = c.core("a1").volumes().get(&OTHER_VOLUME);
        other.is_some_and(|replica| replica.is_serving())
    };
    assert!(cluster.run_until(MINUTE, serves));
    cluster
}

/// What the other tenant asks, small enough to need no stream.
fn as_other_tenant(cluster: &mut Cluster, call: TenantCall, bulk: Vec<u8>) -> TenantResponse {
    let request = RequestId(1_000_000 + cluster.now.0);
    let principal = VerifiedPrincipal { tenant: OTHER_TENANT, principal: PrincipalId(1) };
    let epoch = cluster.core("a1").volumes()[&OTHER_VOLUME].config().epoch;
    let body = TenantRequest { volume: OTHER_VOLUME, epoch, call, within: PATIENCE };
    cluster.step(node("a1"), Event::Request { request, principal, body, bulk: Bytes::from(bulk) });
    cluster.wait(request).response.expect("answered within a minute")
}

/// The folders of a node that have a file with these bytes in it; the store's own files count as one.
fn folders_with(cluster: &mut Cluster, at: &str, bytes: &[u8]) -> Vec<String> {
    let files = cluster.machine(at).disk.files().into_iter();
    let holds = |file: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
    let with = files.filter(|(_, file)| holds(file));
    let folder = |path: &str| path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned());
    let mut folders: Vec<String> = with.map(|(path, _)| folder(&path)).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn is_certified(cluster: &Cluster, at: &str, volume: VolumeId, version: u8) -> bool {
    let object = cluster.core(at).volumes()[&volume].holding().index().version(VersionId([version; 16]));
    object.is_some_and(|object| matches!(object.state, VersionState::Certified { .. }))
}

#[test]
fn what_is_segregated() {
    let mut cluster = two_tenants();
    let (small, large, kept) = (object(1, 1000), object(2, 300_000), object(3, 1000));
    cluster.put("a1", SHARED_NAME, 1, &small).unwrap();
    cluster.put("a1", KEPT_NAME, 3, &kept).unwrap();
    cluster.put("a1", "large", 2, &large).unwrap();
    let others = object(4, 1000);
    let token = cluster.token();
    let call = put_call(SHARED_NAME, 4, &others, token);
    as_other_tenant(&mut cluster, call, others.clone()).unwrap();
    cluster.run(Duration::from_secs(2));

    let mut homes = Vec::new();
    for at in NODES {
        let [own, other] = [&kept, &others].map(|bytes| folders_with(&mut cluster, at, &bytes[..64]));
        assert!(own.len() == 1 && other.len() == 1 && own != other, "{at}: {own:?} {other:?}");
        for bytes in [&small[..64], &large[..64], &large[200_000..200_064], KEPT_NAME.as_bytes(), &[3; 40]] {
            assert_eq!(folders_with(&mut cluster, at, bytes), own, "{at}");
        }
        let both = [own.clone(), other.clone()].concat();
        let with_name = folders_with(&mut cluster, at, SHARED_NAME.as_bytes());
        assert!(
            with_name.len() == 2 && with_name.iter().all(|folder| both.contains(folder)),
            "{with_name:?}"
        );
        homes.push((at, own, other));
    }

    // One tenant deletes its object of that name; the other one's is no concern of it.
    cluster.delete("a1", SHARED_NAME).unwrap();
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| NODES.iter().all(|at| is_certified(c, at, VOLUME, 1))));
    for (at, own, other) in homes {
        assert_eq!(folders_with(&mut cluster, at, SHARED_NAME.as_bytes()), other, "the name is gone: {at}");
        assert_eq!(folders_with(&mut cluster, at, &small[..64]), [""; 0], "{at}");
        assert_eq!(folders_with(&mut cluster, at, KEPT_NAME.as_bytes()), own, "{at}");
        assert_eq!(folders_with(&mut cluster, at, &others[..64]), other, "{at}");
    }

    // And the last trace of the other one goes with its own delete.
    let token = cluster.token();
    let call = TenantCall::Delete { key: name(SHARED_NAME), precondition: Precondition::Any, token };
    as_other_tenant(&mut cluster, call, Vec::new()).unwrap();
    cluster.placement.ahead += WINDOW_MS;
    assert!(cluster.run_until(MINUTE, |c| NODES.iter().all(|at| is_certified(c, at, OTHER_VOLUME, 4))));
    for at in NODES {
        assert_eq!(folders_with(&mut cluster, at, SHARED_NAME.as_bytes()), [""; 0], "{at}");
    }
}
