//! Those who should not be here: certificates that are not believed, another tenant, and bytes that
//! are no messages. They get a clear refusal or none, learn nothing, and hurt nobody.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use trefoil_client::Profile;
use trefoil_protocol::codec;
use trefoil_protocol::ids::{Epoch, PrincipalId, TenantId, VolumeId};
use trefoil_protocol::message::tenant::{Selector, TenantCall, TenantRequest, Want};
use trefoil_transport::{Authority, Connection, Endpoint, Identity, Limits, Plane};

use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, shared};
use crate::outside::{NODES, is_whole};
use crate::program::run;
use crate::storing::{content, key};

/// A profile like acme's with another certificate.
fn impostor(cluster: &Cluster, name: &str, certificate: &str) -> String {
    let path = cluster.path(format!("tenants/{name}.toml"));
    let pem = cluster.path(format!("tenants/{name}.pem"));
    fs::write(pem, certificate).unwrap();
    let text =
        fs::read_to_string(cluster.profile("acme")).unwrap().replace("acme.pem", &format!("{name}.pem"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_certificate_that_is_not_believed_is_told_so_at_once() {
    let cluster = shared();
    let dev = "dev".parse().unwrap();
    let ours = Authority::load(&cluster.path("ca"), &dev).unwrap();
    let acme = Identity::Principal { tenant: TenantId(1), principal: PrincipalId(1) };
    let hour = Duration::from_secs(3600);
    let issue = |authority: &Authority, identity: &Identity, lifetime| {
        let issued = authority.issue(identity, lifetime).unwrap();
        issued.certificate_pem + &issued.key_pem
    };
    let issued = SystemTime::now();
    let expired = issue(&ours, &acme, Duration::ZERO);
    let strangers = Authority::create(&dev).unwrap();
    // Certificates tell time in whole seconds.
    while SystemTime::now() <= issued + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let impostors = [
        ("stranger", issue(&strangers, &acme, hour)),
        ("expired", expired),
        ("a-node", issue(&ours, &Identity::node("a1").unwrap(), hour)),
        ("an-operator", issue(&ours, &Identity::operator("admin").unwrap(), hour)),
    ];
    for (name, certificate) in impostors {
        let profile = impostor(&cluster, name, &certificate);
        let began = Instant::now();
        let ran = run(&["--profile", &profile, "--deadline", "20s", "ls"]);
        println!("{name}: {} {:?} after {:?}", ran.code, ran.stderr.trim(), began.elapsed());
        ran.failed(4, "refused");
        assert!(began.elapsed() < Duration::from_secs(10), "{name} is not left waiting");
    }
    let garbage =
        impostor(&cluster, "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    run(&["--profile", &garbage, "ls"]).failed(4, "expected one PEM key");
    cluster.tenant("acme", &["ls"]).held();
    cluster.nothing_panicked();
}

/// A connection as a tenant, to ask what the client library would not ask.
async fn dial(profile: Profile, address: SocketAddr) -> (Connection, Endpoint) {
    let (own, trust) = (profile.own_certificate().unwrap(), profile.trust_store().unwrap());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap(), own, trust, Limits::default()).unwrap();
    (endpoint.connect(address, Plane::Tenant, None).await.unwrap(), endpoint)
}

async fn ask(connection: &Connection, volume: VolumeId, name: &str) -> (Bytes, Bytes) {
    let call = TenantCall::Get { key: key(name), selector: Selector::Latest, want: Want::Whole };
    let request = TenantRequest { volume, epoch: Epoch(1), call, within: Millis(60_000) };
    let answer = connection.ask(codec::to_vec(&request).into(), Bytes::new()).await.unwrap();
    (answer.body, answer.bulk)
}

#[test]
fn r071_r073_a_foreign_volume_answers_in_the_same_bytes_as_none() {
    let cluster = shared();
    let client = cluster.client("acme");
    let keys: Vec<String> = (0..32).map(|number| format!("of-acme/{number}")).collect();
    cluster.block_on(async {
        for name in &keys {
            client.put(&key(name), content(1, 2000)).await.unwrap();
        }
    });
    let status = cluster.status().unwrap();
    let volumes = status["volumes"].as_array().unwrap();
    let acmes: Vec<u64> =
        volumes.iter().filter(|v| v["tenant"] == "acme").map(|v| v["id"].as_u64().unwrap()).collect();
    let globex = || Profile::load(cluster.profile("globex")).unwrap();
    cluster.block_on(async {
        let mut connections = Vec::new();
        for node in NODES {
            let (connection, endpoint) = dial(globex(), cluster.address(node)).await;
            let none = ask(&connection, VolumeId(9999), "of-acme/0").await;
            for volume in &acmes {
                for name in &keys[..8] {
                    let foreign = ask(&connection, VolumeId(*volume), name).await;
                    assert_eq!(foreign, none, "{node}, volume {volume}, {name}");
                }
            }
            connections.push((connection, endpoint));
        }
        let mut times = [Vec::new(), Vec::new()];
        for number in 0..10_000 {
            let connection = &connections[number % NODES.len()].0;
            let turn = number / NODES.len() % 2;
            let volume = [acmes[number % acmes.len()], 9999][turn];
            let began = Instant::now();
            ask(connection, VolumeId(volume), &keys[number % keys.len()]).await;
            times[turn].push(began.elapsed().as_secs_f64());
        }
        // Figures to look at, never a verdict: the machine is shared.
        let [foreign, none] = times.map(|times| Moments::of(&times));
        println!(
            "r073: a foreign volume answers in {:.1} us, none in {:.1} us; Welch's t over 10 000 samples is {:.2}",
            foreign.mean * 1e6,
            none.mean * 1e6,
            foreign.welch(none)
        );
    });
    cluster.nothing_panicked();
}

/// The mean of times, and how far it may be off: the variance of the mean.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(times: &[f64]) -> Self {
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { mean, variance: variance / count }
    }

    /// Welch's t: beyond 4.5 the two differ.
    fn welch(self, other: Self) -> f64 {
        (self.mean - other.mean) / (self.variance + other.variance).sqrt()
    }
}

/// Believes every server: an intruder does not care.
#[derive(Debug)]
struct BelievesAll(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only TLS 1.3 is offered")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A QUIC connection with a believed certificate and none of our framing.
async fn raw(profile: &Profile, address: SocketAddr) -> (quinn::Connection, quinn::Endpoint) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll(provider)))
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(profile.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(profile.key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![Plane::Tenant.alpn().to_vec()];
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    (endpoint.connect_with(config, address, "localhost").unwrap().await.unwrap(), endpoint)
}

/// What a stream may carry that is no frame, or no message.
fn hostile_streams() -> Vec<(String, Vec<u8>)> {
    let frame = |version: u16, body: u32, bulk: u32, rest: &[u8]| {
        let mut bytes = b"TRF1".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body.to_le_bytes());
        bytes.extend(bulk.to_le_bytes());
        bytes.extend(rest);
        bytes
    };
    let request = TenantRequest {
        volume: VolumeId(0),
        epoch: Epoch(0),
        call: TenantCall::Route,
        within: Millis(60_000),
    };
    let request = codec::to_vec(&request);
    let length = u32::try_from(request.len()).unwrap();
    let good = frame(1, length, 0, &request);
    let mut all: Vec<(String, Vec<u8>)> =
        (0..good.len()).map(|end| (format!("cut at {end}"), good[..end].to_vec())).collect();
    all.push(("unknown version".into(), frame(2, length, 0, &request)));
    all.push(("version 0".into(), frame(0, length, 0, &request)));
    all.push(("too long a body".into(), frame(1, u32::MAX, 0, &request)));
    all.push(("too long a bulk".into(), frame(1, length, u32::MAX, &request)));
    all.push(("a promise of much".into(), frame(1, 1 << 20, 4 << 20, &request)));
    all.push(("no message".into(), frame(1, 64, 0, &content(5, 64))));
    all.push(("deep nesting".into(), frame(1, 4096, 0, &[0x81; 4096])));
    all.push(("endless list".into(), frame(1, 9, 0, &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255])));
    all.extend((0..100).map(|seed| (format!("random {seed}"), content(seed, 1 + seed as usize * 23))));
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x80;
        all.push((format!("flipped at {at}"), flipped));
    }
    all
}

#[test]
fn hostile_datagrams_and_frames_hurt_nobody() {
    let cluster = shared();
    let client = cluster.client("acme");
    cluster.block_on(client.put(&key("before"), content(1, 200_000))).unwrap();
    let pids: Vec<_> = NODES.map(|node| cluster.pid(node)).into();
    let targets = [cluster.address("a1"), cluster.address("b2"), cluster.custodian()];

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..3000_u64 {
        let mut datagram = content(seed, 1 + seed as usize * 7 % 1472);
        // A third looks like the beginning of a connection, a third like a part of one.
        datagram[0] = [0xc0, 0x40, datagram[0]][seed as usize % 3];
        if seed % 6 == 0 && datagram.len() > 5 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        // A full buffer at the target is as good as a sent datagram.
        let _ = socket.send_to(&datagram, targets[seed as usize % targets.len()]);
    }
    let profile = Profile::load(cluster.profile("globex")).unwrap();
    cluster.block_on(async {
        for address in targets {
            let (mut connection, mut endpoint) = raw(&profile, address).await;
            for (name, bytes) in hostile_streams() {
                if connection.close_reason().is_some() {
                    (connection, endpoint) = raw(&profile, address).await;
                }
                let Ok((mut send, mut recv)) = connection.open_bi().await else { continue };
                let sent = send.write_all(&bytes).await.is_ok() && send.finish().is_ok();
                // Refused, dropped or answered, but not left open for ever.
                let heard = tokio::time::timeout(Duration::from_secs(10), recv.read_to_end(1 << 20)).await;
                assert!(heard.is_ok(), "{name}, sent: {sent}: no end");
            }
            drop(endpoint);
        }
    });
    cluster.block_on(async {
        client.put(&key("after"), content(2, 200_000)).await.unwrap();
        for (name, seed) in [("before", 1), ("after", 2)] {
            assert!(client.get(&key(name)).await.unwrap().bytes().await.unwrap() == content(seed, 200_000));
        }
    });
    assert_eq!(NODES.map(|node| cluster.pid(node)).to_vec(), pids);
    cluster.wait_for("a whole cluster", is_whole);
    cluster.nothing_panicked();
}

/// Another implementation of QUIC and TLS asks for a session to resume, and sends early data under a
/// ticket that it made up. It is Python's aioquic, which not every machine has:
/// `TREFOIL_PYTHON=... cargo test --test it r091_an_independent -- --nocapture` names an interpreter that
/// can import it.
#[test]
fn r091_an_independent_client_is_given_no_ticket_and_its_early_data_is_refused() {
    let python = std::env::var("TREFOIL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let can = Command::new(&python).args(["-c", "import aioquic"]).output();
    if !can.as_ref().is_ok_and(|output| output.status.success()) {
        println!("not run: {python} cannot import aioquic (pip install aioquic, TREFOIL_PYTHON=...)");
        return;
    }
    let cluster = shared();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/independent.py");
    let identity = cluster.path("tenants/acme.pem");
    for address in [cluster.address("a1"), cluster.custodian()] {
        let mut client = Command::new(&python);
        client.arg(&script).arg(address.ip().to_string()).arg(address.port().to_string());
        let output = client.arg("trefoil-tenant/1").arg(&identity).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        let expected =
            "first: tickets=0 early=False resumed=False\nforged: tickets=0 early=False resumed=False";
        assert_eq!(said.trim(), expected, "no NewSessionTicket, no early data: {complained}");
    }
    cluster.nothing_panicked();
}
