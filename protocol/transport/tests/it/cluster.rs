//! A cluster of one authority for tests: certificates, endpoints, and a raw QUIC client that may
//! misbehave where ours cannot.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use trefoil_transport::{
    Authority, Closed, ClusterName, Connection, Endpoint, Identity, LEAF_LIFETIME, Limits, OwnCertificate,
    Plane, TrustStore,
};

/// Longer than anything in these tests takes, shorter than a hung run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn cluster_name() -> ClusterName {
    "demo".parse().expect("a cluster name")
}

pub(crate) fn identity(path: &str) -> Identity {
    path.parse().expect("an identity path")
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// One authority, and everything issued by it.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create(&cluster_name()).expect("a root") }
    }

    pub(crate) fn trust(&self) -> Arc<TrustStore> {
        TrustStore::new(cluster_name(), &[self.authority.certificate().clone()]).expect("a root")
    }

    pub(crate) fn own(&self, path: &str) -> Arc<OwnCertificate> {
        let issued = self.authority.issue(&identity(path), LEAF_LIFETIME).expect("a leaf");
        OwnCertificate::from_pem(&issued.certificate_pem, &issued.key_pem).expect("a pair")
    }

    pub(crate) fn client(&self, path: &str) -> Endpoint {
        Endpoint::client(loopback(), self.own(path), self.trust(), Limits::default()).expect("a socket")
    }

    pub(crate) fn server(&self, path: &str, planes: &[Plane]) -> (Endpoint, SocketAddr) {
        self.limited_server(path, planes, Limits::default())
    }

    pub(crate) fn limited_server(
        &self,
        path: &str,
        planes: &[Plane],
        limits: Limits,
    ) -> (Endpoint, SocketAddr) {
        let server =
            Endpoint::server(loopback(), self.own(path), self.trust(), planes, limits).expect("a socket");
        let address = server.local_address().expect("a bound socket");
        (server, address)
    }

    /// A connection and its other end, `node/a1` to `node/b1`.
    pub(crate) async fn pair(&self) -> (Connection, Connection, Endpoint, Endpoint) {
        let (server, address) = self.server("node/b1", &[Plane::Node]);
        let client = self.client("node/a1");
        let here = client.connect(address, Plane::Node, None).await.expect("a connection");
        let (there, _, _) = server.accept().await.expect("the other end");
        (here, there, client, server)
    }
}

/// Waits for the listener's verdict on a connection that may look open already.
pub(crate) async fn verdict(connection: &Connection) -> Option<Closed> {
    // A refused handshake closes the connection; an accepted one lets a stream through, which the
    // server in these tests never answers.
    tokio::time::timeout(Duration::from_millis(500), connection.closed()).await.ok()
}

/// An authority that signs whatever a test asks for.
pub(crate) struct LooseAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl LooseAuthority {
    pub(crate) fn new() -> Self {
        let mut root = CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(root, key).expect("a root") }
    }

    pub(crate) fn trust(&self) -> Arc<TrustStore> {
        TrustStore::new(cluster_name(), &[self.issuer.der().clone()]).expect("a root")
    }

    /// A certificate with these fields, as PEM, and its key.
    pub(crate) fn sign(&self, fields: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let certificate = fields.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A QUIC client without our checks and habits: it believes every server, and asks to resume.
pub(crate) struct RawClient {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) config: quinn::ClientConfig,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl RawClient {
    pub(crate) fn new(certificate_pem: &str, key_pem: &str, protocols: &[&[u8]], resume: Resumption) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate_pem.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let believer = Arc::new(BelievesAll(Arc::clone(&provider)));
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(believer)
            .with_client_auth_cert(chain, key)
            .expect("a pair");
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        tls.resumption = resume;
        tls.enable_early_data = true;
        let tls = Arc::new(tls);
        let quic = QuicClientConfig::try_from(Arc::clone(&tls)).expect("QUIC");
        let config = quinn::ClientConfig::new(Arc::new(quic));
        Self { endpoint: quinn::Endpoint::client(loopback()).expect("a socket"), config, tls }
    }

    pub(crate) fn dial(&self, address: SocketAddr) -> quinn::Connecting {
        self.endpoint.connect_with(self.config.clone(), address, "localhost").expect("a dialable address")
    }

    /// The close that this client sees, as text: code and reason.
    pub(crate) async fn refusal(&self, address: SocketAddr) -> String {
        let seen = match self.dial(address).await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        match seen {
            quinn::ConnectionError::ConnectionClosed(close) => {
                format!("{:?} {:?} {:?}", close.error_code, close.frame_type, close.reason)
            }
            other => panic!("expected a refusal by the peer, got {other}"),
        }
    }
}

#[derive(Debug)]
struct BelievesAll(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
