//! The TLS side of a connection: version 1.3 only, both ends authenticated, nothing resumed.
//!
//! Nothing here may install a process-wide provider: the library names its own.

use std::sync::{Arc, LazyLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;

use crate::identity::Identity;
use crate::own_certificate::OwnCertificate;
use crate::plane::Plane;
use crate::trust::TrustStore;
use crate::verify::{ClientVerifier, ServerVerifier};

/// The cryptography every handshake uses.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}

/// What a listener on `planes` says and demands.
pub(crate) fn server_tls(
    own: &Arc<OwnCertificate>,
    trust: &Arc<TrustStore>,
    planes: &[Plane],
) -> rustls::ServerConfig {
    let verifier = ClientVerifier { trust: Arc::clone(trust) };
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider knows TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::<OwnCertificate>::clone(own));
    tls.alpn_protocols = planes.iter().map(|plane| plane.alpn().to_vec()).collect();
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    tls.send_half_rtt_data = false;
    tls
}

/// What a client on `plane` says and demands.
pub(crate) fn client_tls(
    own: &Arc<OwnCertificate>,
    trust: &Arc<TrustStore>,
    plane: Plane,
    expected: Option<Identity>,
) -> rustls::ClientConfig {
    let verifier = ServerVerifier { trust: Arc::clone(trust), plane, expected };
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::<OwnCertificate>::clone(own));
    tls.alpn_protocols = vec![plane.alpn().to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    tls.enable_sni = false;
    tls
}

/// The same for QUIC.
pub(crate) fn quic_server(tls: rustls::ServerConfig) -> QuicServerConfig {
    QuicServerConfig::try_from(tls).expect("the provider knows QUIC's initial cipher suite")
}

/// The same for QUIC.
pub(crate) fn quic_client(tls: rustls::ClientConfig) -> QuicClientConfig {
    QuicClientConfig::try_from(tls).expect("the provider knows QUIC's initial cipher suite")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, LEAF_LIFETIME};
    use rustls::version::TLS12;
    use std::io;

    fn parts() -> (Arc<OwnCertificate>, Arc<TrustStore>) {
        let cluster = "demo".parse().expect("a cluster name");
        let authority = Authority::create(&cluster).expect("a root");
        let identity = Identity::node("a1").expect("a name");
        let issued = authority.issue(&identity, LEAF_LIFETIME).expect("a leaf");
        (
            OwnCertificate::from_pem(&issued.certificate_pem, &issued.key_pem).expect("a pair"),
            TrustStore::new(cluster, &[authority.certificate().clone()]).expect("a root"),
        )
    }

    /// Runs a handshake in memory until one side fails or both are done.
    fn handshake(client: rustls::ClientConfig, server: rustls::ServerConfig) -> Result<(), rustls::Error> {
        let name = "peer".try_into().expect("a server name");
        let mut client = rustls::ClientConnection::new(Arc::new(client), name)?;
        let mut server = rustls::ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory takes all");
            server.read_tls(&mut io::Cursor::new(wire)).expect("memory gives all");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("memory takes all");
            client.read_tls(&mut io::Cursor::new(wire)).expect("memory gives all");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn r090_tls_1_2_is_refused_by_both_ends() {
        let (own, trust) = parts();
        let ours = client_tls(&own, &trust, Plane::Node, None);
        let old_client = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS12])
            .expect("the provider knows TLS 1.2")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier {
                trust: Arc::clone(&trust),
                plane: Plane::Node,
                expected: None,
            }))
            .with_no_client_auth();
        let old_server = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS12])
            .expect("the provider knows TLS 1.2")
            .with_no_client_auth()
            .with_cert_resolver(Arc::<OwnCertificate>::clone(&own));
        let new_server = || server_tls(&own, &trust, &[Plane::Node]);
        for result in [handshake(old_client, new_server()), handshake(ours.clone(), old_server)] {
            let error = result.expect_err("versions do not meet").to_string();
            assert!(error.contains("incompatible"), "{error}");
        }
        handshake(ours, new_server()).expect("two of ours meet");
    }

    #[test]
    fn r091_neither_end_can_resume_or_send_early() {
        let (own, trust) = parts();
        let server = server_tls(&own, &trust, &Plane::ALL);
        assert_eq!(server.send_tls13_tickets, 0);
        assert_eq!(server.max_early_data_size, 0);
        assert!(!server.ticketer.enabled());
        assert!(!server.session_storage.can_cache());
        assert!(!client_tls(&own, &trust, Plane::Node, None).enable_early_data);
    }
}
