//! Tenants, their principals and their keys.

use std::collections::BTreeSet;

use trefoil_placement::{Answer, Request};
use trefoil_protocol::ids::{Epoch, PrincipalId, TenantId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::tenant::{
    KeysView, Refusal, RouteView, TenantAnswer, TenantCall, TenantRequest, TenantResponse,
};
use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, RETENTION, WINDOW};

fn principal(cluster: &mut Cluster, tenant: &str) -> (TenantId, PrincipalId) {
    match cluster.admin(AdminRequest::CreatePrincipal { tenant: tenant.parse().unwrap() }) {
        AdminAnswer::Principal { tenant, principal } => (tenant, principal),
        other => panic!("{other:?}"),
    }
}

fn call(cluster: &mut Cluster, who: (TenantId, PrincipalId), call: TenantCall) -> TenantResponse {
    let request = TenantRequest { volume: VolumeId(0), epoch: Epoch(0), call, within: Millis(60_000) };
    let id = cluster.send(Request::Tenant(who.0, who.1, request));
    match cluster.answer(id) {
        Some(Answer::Tenant(response)) => response.clone(),
        other => panic!("{other:?}"),
    }
}

fn keys(cluster: &mut Cluster, who: (TenantId, PrincipalId)) -> KeysView {
    match call(cluster, who, TenantCall::Keys) {
        Ok(TenantAnswer::Keys(view)) => view,
        other => panic!("{other:?}"),
    }
}

fn route(cluster: &mut Cluster, who: (TenantId, PrincipalId)) -> RouteView {
    match call(cluster, who, TenantCall::Route) {
        Ok(TenantAnswer::Route(view)) => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tenant_is_made_once_and_found_again() {
    let mut cluster = Cluster::new();
    let first = cluster.create_tenant("acme", 4);
    assert_eq!(cluster.create_tenant("acme", 4), first);
    let other_settings = AdminRequest::CreateTenant {
        name: "acme".parse().unwrap(),
        volumes: 4,
        window: Millis(1),
        first_copy_retention: RETENTION,
        single_dc: trefoil_protocol::config::SingleDcPolicy::Allow,
        stale_reads: Default::default(),
    };
    assert!(matches!(cluster.admin(other_settings), AdminAnswer::Refused(_)));
    assert_ne!(cluster.create_tenant("globex", 2), first);
    let AdminAnswer::Tenants(tenants) = cluster.admin(AdminRequest::ListTenants) else { panic!() };
    assert_eq!(tenants.len(), 2);
}

#[test]
fn volumes_alternate_their_home_and_belong_to_one_tenant() {
    let mut cluster = Cluster::new();
    let (acme, globex) = (cluster.create_tenant("acme", 8), cluster.create_tenant("globex", 8));
    let homes: Vec<String> =
        cluster.state().volumes.all().take(4).map(|record| record.home.to_string()).collect();
    assert_eq!(homes, ["a", "b", "a", "b"]);
    for record in cluster.state().volumes.all() {
        assert!([acme, globex].contains(&record.config.tenant));
        let nodes: BTreeSet<_> = record.config.members.iter().map(|m| m.node).collect();
        assert_eq!(nodes.len(), 3);
        let home = record.config.members.iter().filter(|m| m.dc == record.home).count();
        assert_eq!(home, 2);
        assert_eq!(record.config.window, WINDOW);
    }
}

#[test]
fn no_tenant_is_made_while_one_data_centre_is_missing() {
    let mut cluster = Cluster::new();
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run(5_000);
    for volumes in [1, 3, 0, 2_048] {
        let request = AdminRequest::CreateTenant {
            name: "acme".parse().unwrap(),
            volumes,
            window: WINDOW,
            first_copy_retention: RETENTION,
            single_dc: trefoil_protocol::config::SingleDcPolicy::Allow,
            stale_reads: Default::default(),
        };
        assert!(matches!(cluster.admin(request), AdminAnswer::Refused(_)));
    }
}

#[test]
fn a_tenants_keys_go_to_its_principals_only() {
    let mut cluster = Cluster::new();
    cluster.create_tenant("acme", 1);
    cluster.create_tenant("globex", 1);
    let acme = principal(&mut cluster, "acme");
    let globex = principal(&mut cluster, "globex");
    let (ours, theirs) = (keys(&mut cluster, acme), keys(&mut cluster, globex));
    assert_eq!(ours.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [0, 1]);
    let distinct: BTreeSet<[u8; 32]> = ours.keys.iter().chain(&theirs.keys).map(|grant| grant.key).collect();
    assert_eq!(distinct.len(), 4);
    // Another tenant's principal, one that does not exist, a tenant that does not exist: all alike.
    for who in [(acme.0, globex.1), (acme.0, PrincipalId(99)), (TenantId(99), acme.1)] {
        for asked in [TenantCall::Keys, TenantCall::Route] {
            assert_eq!(call(&mut cluster, who, asked), Err(Refusal::Stranger));
        }
    }
}

#[test]
fn keys_survive_a_restart_and_are_nowhere_in_the_log() {
    let mut cluster = Cluster::new();
    cluster.create_tenant("acme", 1);
    let acme = principal(&mut cluster, "acme");
    let before = keys(&mut cluster, acme);
    cluster.restart_placement();
    let after = keys(&mut cluster, acme);
    assert_eq!(before.keys, after.keys);
    let state = cluster.state().to_bytes();
    for grant in &before.keys {
        assert!(!state.windows(32).any(|window| window == grant.key));
    }
}

#[test]
fn r082_no_block_of_nonces_is_given_twice_not_even_over_a_restart() {
    let mut cluster = Cluster::new();
    cluster.create_tenant("acme", 1);
    let acme = principal(&mut cluster, "acme");
    let mut blocks = BTreeSet::new();
    for round in 0..4 {
        for _ in 0..3 {
            let view = keys(&mut cluster, acme);
            assert!(blocks.insert(view.nonce_prefix), "round {round}");
            assert!(view.nonce_count <= 1 << 30);
        }
        cluster.restart_placement();
    }
}

#[test]
fn a_route_shows_the_tenants_own_volumes_and_their_nodes() {
    let mut cluster = Cluster::new();
    cluster.create_tenant("acme", 2);
    cluster.create_tenant("globex", 2);
    let acme = principal(&mut cluster, "acme");
    let view = route(&mut cluster, acme);
    assert_eq!(view.volumes.iter().map(|c| c.slot).collect::<Vec<_>>(), [0, 1]);
    assert!(view.volumes.iter().all(|config| config.tenant == acme.0));
    let holders: BTreeSet<_> = view.volumes.iter().flat_map(|c| c.members.iter().map(|m| m.node)).collect();
    assert_eq!(view.nodes.iter().map(|entry| entry.node).collect::<BTreeSet<_>>(), holders);
    let objects = TenantCall::Outcome {
        token: trefoil_protocol::ids::Token {
            instance: trefoil_protocol::ids::ClientInstance([0; 16]),
            sequence: 1,
        },
    };
    assert!(matches!(call(&mut cluster, acme, objects), Err(Refusal::Invalid(_))));
}
