//! Tenants see nothing of each other, not even that something is there; and nobody hears of a write
//! before it is on every disk.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::codec;
use trefoil_protocol::ids::{PrincipalId, TenantId, Token, VersionId, VolumeId};
use trefoil_protocol::message::tenant::{
    Precondition, Refusal, Selector, TenantCall, TenantRequest, TokenUse, Want,
};
use trefoil_storage_node::{Event, RequestId, VerifiedPrincipal};

use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, PATIENCE, VOLUME, name, node, object, tag};

const NODES: [&str; 3] = ["a1", "a2", "b1"];

fn every_call(token: TokenUse, version: VersionId) -> Vec<TenantCall> {
    let key = || name("secret");
    vec![
        TenantCall::Get { key: key(), selector: Selector::Latest, want: Want::Whole },
        TenantCall::Get { key: key(), selector: Selector::Latest, want: Want::Head },
        TenantCall::Get { key: key(), selector: Selector::Version(version), want: Want::Whole },
        TenantCall::List { prefix: String::new(), after: None, limit: 10 },
        TenantCall::Deleted { prefix: String::new(), after: None, limit: 10 },
        TenantCall::Delete { key: key(), precondition: Precondition::Any, token },
        TenantCall::Undelete { key: key(), name_tag: tag("secret"), version: Some(version), token },
        TenantCall::PurgeStatus { name_tag: tag("secret"), after: None },
        TenantCall::Certificates { name_tag: tag("secret"), after: None },
        TenantCall::Outcome { token: Token { sequence: 2, ..token.token } },
    ]
}

#[test]
fn r071_r073_another_tenants_volume_answers_like_no_volume_byte_for_byte() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.put("a1", "secret", 1, &object(1, 100)).unwrap();
    let intruder = VerifiedPrincipal { tenant: TenantId(2), principal: PrincipalId(1) };
    let token = cluster.token();
    let mut request = 900;
    for call in every_call(token, VersionId([1; 16])) {
        let mut answers = Vec::new();
        // The volume of another tenant, and one that does not exist, at each node.
        for volume in [VOLUME, VolumeId(99)] {
            for to in NODES {
                request += 1;
                let body =
                    TenantRequest { volume, epoch: cluster.epoch(), call: call.clone(), within: PATIENCE };
                let id = RequestId(request);
                let event = Event::Request { request: id, principal: intruder, body, bulk: Bytes::new() };
                cluster.step(node(to), event);
                let heard = cluster.heard(id);
                let Some(Err(refusal)) = heard.response else { panic!("{call:?} at {to}") };
                answers.push((codec::to_vec(&refusal), heard.bytes, heard.parts.len()));
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{call:?}");
    }
    assert_eq!(cluster.get("a1", "secret").bytes, object(1, 100));
}

#[test]
fn r001_nothing_is_acknowledged_before_every_member_returned_from_its_sync() {
    for slow in NODES {
        for length in [100, 100_000] {
            let mut cluster = Cluster::healthy(&NODES);
            cluster.machine(slow).syncs_held = true;
            let bytes = object(1, length);
            let request = cluster.begin_put("a1", "k", 1, &bytes);
            cluster.run(Duration::from_secs(2));
            assert_eq!(cluster.heard(request).response, None, "{slow} {length}");
            assert!(cluster.get("a1", "k").bytes.is_empty(), "and nobody reads it");
            cluster.release_syncs(slow);
            assert!(matches!(cluster.wait(request).response, Some(Ok(_))), "{slow} {length}");
        }
    }
}

#[test]
fn r002_after_a_failed_sync_nothing_more_leaves_the_node() {
    let mut cluster = Cluster::healthy(&NODES);
    use trefoil_engine::disk::fault::{DiskOperation, Outcome, ScriptedFault};
    let fault = ScriptedFault { operation: DiskOperation::Sync, nth: 1, outcome: Outcome::Error };
    cluster.machine("a1").disk.inject(fault);
    let request = cluster.begin_put("a1", "k", 1, &object(1, 100));
    cluster.run(Duration::from_secs(5));
    assert!(cluster.machine("a1").fatal.is_some(), "the process ends");
    assert!(!matches!(cluster.heard(request).response, Some(Ok(_))));
    assert_eq!(cluster.machine("a1").disk.counts().syncs_after_failure, 0);
}

#[test]
fn a_storm_is_refused_above_the_room_of_its_volume_and_passes() {
    let mut cluster = Cluster::healthy(&NODES);
    let upload = cluster.put_call("large", 1, &object(1, 100_000));
    let begun: Vec<RequestId> = (0..300).map(|_| cluster.ask("a1", upload.clone(), Bytes::new())).collect();
    let busy = |cluster: &Cluster, request| {
        matches!(cluster.heard(request).response, Some(Err(Refusal::Busy { .. })))
    };
    let refused = begun.iter().filter(|request| busy(&cluster, **request)).count();
    assert_eq!(refused, 300 - 256);
    assert!(matches!(cluster.put("a1", "key", 2, &object(2, 10)), Err(Refusal::Busy { .. })));
    for request in begun {
        cluster.step(node("a1"), Event::Gone { request });
    }
    assert!(cluster.put("a1", "key", 2, &object(2, 10)).is_ok(), "what nobody waits for holds nobody up");
}

#[test]
fn r049_a_mutation_that_waited_longer_than_its_client_listens_is_never_begun() {
    let mut cluster = Cluster::healthy(&NODES);
    cluster.machine("a2").syncs_held = true;
    let first = cluster.begin_put("a1", "k", 1, &object(1, 100));
    cluster.patience = Millis(900);
    let late = cluster.begin_put("a1", "k", 2, &object(2, 100));
    cluster.patience = PATIENCE;
    let patient = cluster.begin_put("a1", "k", 3, &object(3, 100));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.heard(late).response, None, "its turn has not come");
    cluster.release_syncs("a2");
    assert!(matches!(cluster.wait(first).response, Some(Ok(_))));
    assert_eq!(cluster.wait(late).response, Some(Err(Refusal::Late)));
    assert!(matches!(cluster.wait(patient).response, Some(Ok(_))));
    assert_eq!(cluster.get("a1", "k").bytes, object(3, 100));
    cluster.patience = Millis(0);
    let none = cluster.begin_put("a1", "other", 4, &object(4, 10));
    assert_eq!(cluster.wait(none).response, Some(Err(Refusal::Late)));
}
