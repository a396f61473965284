//! Two tenants of one cluster, and those who are nobody.

use std::fs;

use super::local_cluster::{Folder, LocalCluster};

/// R71, R73: what another tenant has answers like what nobody has, for every verb.
#[test]
fn r073_another_tenants_object_and_no_object_answer_alike() {
    let cluster = LocalCluster::start("tenants", "7d");
    let folder = Folder::new("tenants-files");
    let file = folder.join("in");
    fs::write(&file, b"of acme").unwrap();
    cluster.acme(&["put", "k", file.to_str().unwrap()]);
    for verb in ["get", "head", "rm", "undelete", "purge-status"] {
        let foreign = cluster.as_tenant("globex", &[verb, "k"]).failed_with(3);
        let absent = cluster.as_tenant("globex", &[verb, "nobody-has-this"]).failed_with(3);
        assert_eq!(foreign.stderr, absent.stderr, "{verb}");
    }
    assert_eq!(cluster.as_tenant("globex", &["ls"]).succeeded().text(), "");
    assert_eq!(cluster.acme(&["get", "k"]).stdout, b"of acme");
}

#[test]
fn a_profile_speaks_in_its_own_role_and_with_a_certificate_that_is_believed() {
    let cluster = LocalCluster::start("roles", "7d");
    cluster.as_tenant("acme", &["status"]).failed_with(2);
    cluster.as_tenant("admin", &["ls"]).failed_with(2);
    // A certificate of another authority with the same names.
    let other = Folder::new("roles-other");
    let stranger = trefoil_transport::Authority::create(&"dev".parse().unwrap()).unwrap();
    let operator = trefoil_transport::Identity::operator("admin").unwrap();
    let issued = stranger.issue(&operator, std::time::Duration::from_secs(3600)).unwrap();
    fs::write(other.join("admin.pem"), issued.certificate_pem + &issued.key_pem).unwrap();
    fs::create_dir_all(other.join("ca")).unwrap();
    fs::copy(cluster.file("ca/ca.pem"), other.join("ca/ca.pem")).unwrap();
    fs::copy(cluster.file("admin.toml"), other.join("admin.toml")).unwrap();
    let profile = other.join("admin.toml");
    let refused =
        super::local_cluster::trefoil().arg("--profile").arg(profile).arg("status").output().unwrap();
    assert!(matches!(refused.status.code(), Some(4 | 5)), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn a_certificate_for_a_tenant_or_principal_that_does_not_exist_is_refused_at_once() {
    let cluster = LocalCluster::start("strangers", "7d");
    let authority = trefoil_transport::Authority::load(&cluster.file("ca"), &"dev".parse().unwrap()).unwrap();
    let acme = fs::read_to_string(cluster.profile("acme")).unwrap();
    for (name, tenant, principal) in [("nobody", 99, 1), ("nobody-of-acme", 1, 99)] {
        let identity = trefoil_transport::Identity::Principal {
            tenant: trefoil_protocol::ids::TenantId(tenant),
            principal: trefoil_protocol::ids::PrincipalId(principal),
        };
        let issued = authority.issue(&identity, std::time::Duration::from_secs(3600)).unwrap();
        let pem = cluster.profile(name).with_extension("pem");
        fs::write(pem, issued.certificate_pem + &issued.key_pem).unwrap();
        let named = acme.replace("acme.pem", &format!("{name}.pem"));
        fs::write(cluster.profile(name), named.replace("tenant = \"acme\"\n", "")).unwrap();
        let began = std::time::Instant::now();
        let refused = cluster.as_tenant(name, &["ls"]).failed_with(4);
        assert!(refused.stderr.contains("no such tenant or principal"), "{}", refused.stderr);
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "the deadline is a minute");
    }
}

#[test]
fn an_operator_makes_a_tenant_whose_principal_stores_objects() {
    let cluster = LocalCluster::start("new-tenant", "7d");
    let made = cluster.as_tenant(
        "admin",
        &["--json", "tenant", "create", "initech", "--delete-window", "1d", "--volumes", "2"],
    );
    assert_eq!(made.succeeded().json()["volumes"], 2);
    let listed = cluster.as_tenant("admin", &["--json", "tenant", "list"]).succeeded().json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let acme = fs::read_to_string(cluster.profile("acme")).unwrap();
    let endpoint = acme.split('"').find(|part| part.starts_with("127.0.0.1:")).unwrap();
    let profile = cluster.file("initech.toml");
    let issue = ["principal", "issue", "initech", "-o", profile.to_str().unwrap(), "--endpoint", endpoint];
    cluster.as_tenant("admin", &issue).succeeded();
    fs::copy(&profile, cluster.profile("initech")).unwrap();
    fs::copy(cluster.file("initech.pem"), cluster.file("tenants/initech.pem")).unwrap();
    let file = cluster.file("in");
    fs::write(&file, b"of initech").unwrap();
    cluster.as_tenant("initech", &["put", "k", file.to_str().unwrap()]).succeeded();
    assert_eq!(cluster.as_tenant("initech", &["get", "k"]).succeeded().stdout, b"of initech");
}
