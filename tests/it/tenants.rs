//! Two tenants of one cluster, and those who are nobody.

use std::fs;
use std::time::{Duration, Instant};

use trefoil_protocol::ids::{PrincipalId, TenantId};
use trefoil_transport::{Authority, Identity};

use crate::cluster::shared;
use crate::program::{Folder, run};

/// R71, R73: what another tenant has answers like what nobody has, for every verb.
#[test]
fn r073_another_tenants_object_and_no_object_answer_alike() {
    let cluster = shared();
    let folder = Folder::new("foreign-verbs");
    let file = folder.join("in");
    fs::write(&file, b"of acme").unwrap();
    cluster.tenant("acme", &["put", "foreign-verbs", file.to_str().unwrap()]).held();
    cluster.found("stranger", "7d");
    for verb in ["get", "head", "rm", "undelete", "purge-status", "certificate"] {
        let foreign = cluster.plain("stranger", &[verb, "foreign-verbs"]);
        foreign.failed(3, "no such object");
        assert_eq!(foreign.stderr, cluster.plain("stranger", &[verb, "nobody-has-this"]).stderr, "{verb}");
    }
    assert_eq!(cluster.plain("stranger", &["ls"]).held().text(), "");
    assert_eq!(cluster.plain("acme", &["get", "foreign-verbs"]).held().stdout, b"of acme");
}

#[test]
fn a_profile_speaks_in_its_own_role_and_with_a_certificate_that_is_believed() {
    let cluster = shared();
    let admin = cluster.path("admin.toml");
    cluster.plain("acme", &["status"]).failed(2, "operator");
    run(&["--profile", admin.to_str().unwrap(), "ls"]).failed(2, "tenant");
    // A certificate of another authority with the same names.
    let other = Folder::new("other-authority");
    let stranger = Authority::create(&"dev".parse().unwrap()).unwrap();
    let operator = Identity::operator("admin").unwrap();
    let issued = stranger.issue(&operator, Duration::from_secs(3600)).unwrap();
    fs::write(other.join("admin.pem"), issued.certificate_pem + &issued.key_pem).unwrap();
    fs::create_dir_all(other.join("ca")).unwrap();
    fs::copy(cluster.path("ca/ca.pem"), other.join("ca/ca.pem")).unwrap();
    fs::copy(admin, other.join("admin.toml")).unwrap();
    run(&["--profile", other.join("admin.toml").to_str().unwrap(), "status"])
        .failed(4, "does not accept this certificate");
}

#[test]
fn a_certificate_for_a_tenant_or_principal_that_does_not_exist_is_refused_at_once() {
    let cluster = shared();
    let authority = Authority::load(&cluster.path("ca"), &"dev".parse().unwrap()).unwrap();
    let acme = fs::read_to_string(cluster.profile("acme")).unwrap();
    for (name, tenant, principal) in [("nobody", 99, 1), ("nobody-of-acme", 1, 99)] {
        let identity = Identity::Principal { tenant: TenantId(tenant), principal: PrincipalId(principal) };
        let issued = authority.issue(&identity, Duration::from_secs(3600)).unwrap();
        let pem = cluster.profile(name).with_extension("pem");
        fs::write(pem, issued.certificate_pem + &issued.key_pem).unwrap();
        let named = acme.replace("acme.pem", &format!("{name}.pem"));
        fs::write(cluster.profile(name), named.replace("tenant = \"acme\"\n", "")).unwrap();
        let began = Instant::now();
        cluster.plain(name, &["ls"]).failed(4, "no such tenant or principal");
        assert!(began.elapsed() < Duration::from_secs(20), "the deadline is a minute");
    }
}

#[test]
fn an_operator_makes_a_tenant_whose_principal_stores_objects() {
    let cluster = shared();
    cluster.found("initech", "1d");
    let tenants = cluster.operator(&["tenant", "list"]).held().json();
    let made = tenants.as_array().unwrap().iter().find(|tenant| tenant["name"] == "initech");
    assert!(made.is_some(), "{tenants}");
    let file = cluster.path("of-initech");
    fs::write(&file, b"of initech").unwrap();
    cluster.tenant("initech", &["put", "k", file.to_str().unwrap()]).held();
    assert_eq!(cluster.plain("initech", &["get", "k"]).held().stdout, b"of initech");
    cluster.operator(&["tenant", "create", "initech"]).failed(4, "initech");
}
