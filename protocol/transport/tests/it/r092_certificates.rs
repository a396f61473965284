//! Whatever is wrong with a certificate, the one who shows it learns only that it was refused.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::client::Resumption;
use trefoil_transport::{Closed, DialError, Endpoint, LEAF_LIFETIME, Limits, OwnCertificate, Plane};

use crate::cluster::{Cluster, LooseAuthority, RawClient, identity, loopback, verdict};

const HOUR: Duration = Duration::from_secs(3600);

fn uris(names: &[&str]) -> Vec<SanType> {
    names.iter().map(|name| SanType::URI((*name).try_into().expect("ASCII"))).collect()
}

/// A certificate that is as it must be.
fn sound() -> CertificateParams {
    let mut fields = CertificateParams::default();
    fields.not_before = (SystemTime::now() - HOUR).into();
    fields.not_after = (SystemTime::now() + HOUR).into();
    fields.subject_alt_names = uris(&["spiffe://demo/node/a1"]);
    fields.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    fields.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    fields
}

type Flaw = (&'static str, fn(&mut CertificateParams));

/// Every way of being unsound; what each leaves alone stays sound.
const FLAWS: [Flaw; 15] = [
    ("no URI name", |fields| fields.subject_alt_names.clear()),
    ("a DNS name only", |fields| {
        fields.subject_alt_names = vec![SanType::DnsName("a1.demo".try_into().expect("ASCII"))];
    }),
    ("two URI names", |fields| {
        fields.subject_alt_names = uris(&["spiffe://demo/node/a1", "spiffe://demo/node/a2"]);
    }),
    ("one URI name twice", |fields| {
        fields.subject_alt_names = uris(&["spiffe://demo/node/a1", "spiffe://demo/node/a1"]);
    }),
    ("another trust domain", |fields| fields.subject_alt_names = uris(&["spiffe://other/node/a1"])),
    ("no such role", |fields| fields.subject_alt_names = uris(&["spiffe://demo/root/a1"])),
    ("another spelling", |fields| fields.subject_alt_names = uris(&["spiffe://demo/node/a1/"])),
    ("a role that has no place here", |fields| {
        fields.subject_alt_names = uris(&["spiffe://demo/operator/ada"]);
    }),
    ("an authority", |fields| fields.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ("no key usage", |fields| fields.key_usages.clear()),
    ("no digital signature", |fields| fields.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
    ("expired", |fields| fields.not_after = (SystemTime::now() - HOUR / 2).into()),
    ("not yet valid", |fields| fields.not_before = (SystemTime::now() + HOUR / 2).into()),
    ("another purpose", |fields| {
        fields.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    }),
    ("no purpose", |fields| fields.extended_key_usages.clear()),
];

fn raw_client(authority: &LooseAuthority, fields: &CertificateParams) -> RawClient {
    let (certificate, key) = authority.sign(fields);
    RawClient::new(&certificate, &key, &[Plane::Node.alpn()], Resumption::disabled())
}

fn own(authority: &LooseAuthority, fields: &CertificateParams) -> std::sync::Arc<OwnCertificate> {
    let (certificate, key) = authority.sign(fields);
    OwnCertificate::from_pem(&certificate, &key).expect("a pair")
}

#[tokio::test]
async fn r092_every_flaw_is_refused_with_the_same_code_and_the_same_words() {
    let authority = LooseAuthority::new();
    let server = Endpoint::server(
        loopback(),
        own(&authority, &sound()),
        authority.trust(),
        &[Plane::Node],
        Limits::default(),
    )
    .expect("a socket");
    let address = server.local_address().expect("bound");
    let healthy = raw_client(&authority, &sound()).dial(address).await.expect("a sound certificate");
    let _other_end = server.accept().await.expect("the other end");

    let stranger = raw_client(&LooseAuthority::new(), &sound()).refusal(address).await;
    for (flaw, spoil) in FLAWS {
        let mut fields = sound();
        spoil(&mut fields);
        let seen = raw_client(&authority, &fields).refusal(address).await;
        assert_eq!(seen, stranger, "{flaw}");
    }
    // Alert 49, access_denied.
    assert!(stranger.contains("crypto(31)"), "{stranger}");
    assert!(healthy.close_reason().is_none());
}

#[tokio::test]
async fn r092_a_client_refuses_a_server_with_any_flaw() {
    let authority = LooseAuthority::new();
    let client =
        Endpoint::client(loopback(), own(&authority, &sound()), authority.trust(), Limits::default())
            .expect("a socket");
    for (flaw, spoil) in FLAWS {
        let mut fields = sound();
        spoil(&mut fields);
        let server = Endpoint::server(
            loopback(),
            own(&authority, &fields),
            authority.trust(),
            &[Plane::Node],
            Limits::default(),
        )
        .expect("a socket");
        let remote = server.local_address().expect("bound");
        let error = client.connect(remote, Plane::Node, None).await.expect_err(flaw);
        assert_eq!(error, DialError::Refused { remote }, "{flaw}");
    }
}

#[tokio::test]
async fn r093_a_certificate_is_replaced_without_closing_anything() {
    let cluster = Cluster::new();
    let certificate = cluster.own("node/b1");
    let server = Endpoint::server(
        loopback(),
        std::sync::Arc::clone(&certificate),
        cluster.trust(),
        &[Plane::Node],
        Limits::default(),
    )
    .expect("a socket");
    let address = server.local_address().expect("bound");
    let client = cluster.client("node/a1");
    let before = client.connect(address, Plane::Node, None).await.expect("a connection");
    let renewed = cluster.authority.issue(&identity("node/b1"), LEAF_LIFETIME).expect("a leaf");
    certificate.replace(&renewed.certificate_pem, &renewed.key_pem).expect("a pair");
    let after = client.connect(address, Plane::Node, None).await.expect("a connection");
    assert_ne!(before.peer().serial(), after.peer().serial());
    assert!(before.close_reason().is_none());
    assert!(certificate.replace(&renewed.certificate_pem, "no key").is_err());
    assert!(client.connect(address, Plane::Node, None).await.is_ok(), "the old pair stays");
}

#[tokio::test]
async fn r093_roots_overlap_while_they_are_replaced() {
    let (old, new) = (Cluster::new(), Cluster::new());
    let trust = old.trust();
    let (old_root, new_root) = (old.authority.certificate_pem(), new.authority.certificate_pem());
    let server =
        Endpoint::server(loopback(), old.own("node/b1"), trust.clone(), &[Plane::Node], Limits::default())
            .expect("a socket");
    let address = server.local_address().expect("bound");
    let both = format!("{old_root}{new_root}");
    let client = |cluster: &Cluster| {
        let trust = old.trust();
        trust.replace_roots_pem(&both).expect("two roots");
        Endpoint::client(loopback(), cluster.own("node/a1"), trust, Limits::default()).expect("a socket")
    };
    let (from_old, from_new) = (client(&old), client(&new));
    let dial = |from: Endpoint| async move {
        let connection = from.connect(address, Plane::Node, None).await.expect("our half");
        verdict(&connection).await
    };
    assert_eq!(dial(from_new.clone()).await, Some(Closed::Refused));
    trust.replace_roots_pem(&both).expect("two roots");
    assert_eq!(dial(from_new.clone()).await, None);
    assert_eq!(dial(from_old.clone()).await, None);
    trust.replace_roots_pem(new_root).expect("one root");
    assert_eq!(dial(from_new).await, None);
    assert_eq!(dial(from_old).await, Some(Closed::Refused));
}

#[tokio::test]
async fn r094_a_refused_identity_loses_its_connections_and_gets_no_new_ones() {
    let cluster = Cluster::new();
    let trust = cluster.trust();
    let own = cluster.own("node/b1");
    let server = Endpoint::server(loopback(), own, trust.clone(), &[Plane::Node], Limits::default())
        .expect("a socket");
    let address = server.local_address().expect("bound");
    let (bad, good) = (cluster.client("node/a1"), cluster.client("node/a2"));
    let cut = bad.connect(address, Plane::Node, None).await.expect("a connection");
    let kept = good.connect(address, Plane::Node, None).await.expect("a connection");
    let _ends = (server.accept().await.expect("one"), server.accept().await.expect("two"));

    trust.refuse_exactly(BTreeSet::from([identity("node/a1")]));
    assert_eq!(server.close_refused(), 1);
    assert_eq!(cut.closed().await, Closed::ByPeer(1));
    let again = bad.connect(address, Plane::Node, None).await.expect("our half");
    assert_eq!(verdict(&again).await, Some(Closed::Refused));
    assert!(kept.close_reason().is_none());
}

#[test]
fn a_saved_authority_signs_for_the_same_root() {
    let directory = std::env::temp_dir().join(format!("trefoil-authority-{}", std::process::id()));
    let cluster = crate::cluster::cluster_name();
    let made = trefoil_transport::Authority::load_or_create(&directory, &cluster).expect("made");
    let loaded = trefoil_transport::Authority::load_or_create(&directory, &cluster).expect("loaded");
    assert_eq!(made.certificate(), loaded.certificate());
    assert!(made.save(&directory).is_err(), "an authority is never overwritten");
    let other = "other".parse().expect("a cluster name");
    assert!(trefoil_transport::Authority::load(&directory, &other).is_err());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(directory.join("ca.key")).expect("saved").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (made, loaded) = (Cluster { authority: made }, Cluster { authority: loaded });
        let (server, address) = made.server("node/b1", &[Plane::Node]);
        let client = loaded.client("node/a1");
        let _connection = client.connect(address, Plane::Node, None).await.expect("one root");
        assert!(server.accept().await.is_some());
    });
    std::fs::remove_dir_all(&directory).expect("removable");
}
