//! Nothing is resumed and nothing arrives early.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::NamedGroup;
use rustls::client::Tls13ClientSessionValue;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue};
use rustls_pki_types::ServerName;
use trefoil_transport::{LEAF_LIFETIME, Plane};

use crate::cluster::{Cluster, RawClient, identity};

/// A session cache that counts the tickets it is given.
#[derive(Debug)]
struct CountsTickets {
    cache: ClientSessionMemoryCache,
    tickets: AtomicUsize,
}

impl ClientSessionStore for CountsTickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(name)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        self.cache.insert_tls13_ticket(name, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(name)
    }
}

#[tokio::test]
async fn r091_a_client_that_wants_tickets_gets_none_and_cannot_send_early() {
    let cluster = Cluster::new();
    let (server, address) = cluster.server("node/b1", &[Plane::Node]);
    let issued = cluster.authority.issue(&identity("node/a1"), LEAF_LIFETIME).expect("a leaf");
    let store =
        Arc::new(CountsTickets { cache: ClientSessionMemoryCache::new(8), tickets: AtomicUsize::new(0) });
    let wants = Arc::<CountsTickets>::clone(&store);
    let client = RawClient::new(
        &issued.certificate_pem,
        &issued.key_pem,
        &[Plane::Node.alpn()],
        Resumption::store(wants),
    );
    for _ in 0..2 {
        assert!(!could_send_early(&client), "without a ticket there is nothing to send early with");
        let connection = client.dial(address).await.expect("a full handshake");
        let (_other_end, _, _) = server.accept().await.expect("the other end");
        // Tickets would follow the handshake at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.close(0_u32.into(), b"");
    }
    assert!(!could_send_early(&client));
    assert_eq!(store.tickets.load(Ordering::Relaxed), 0);
}

/// Whether a next handshake of this client would have keys for early data.
fn could_send_early(client: &RawClient) -> bool {
    let name = "localhost".try_into().expect("a server name");
    let tls = Arc::clone(&client.tls);
    let next = rustls::quic::ClientConnection::new(tls, rustls::quic::Version::V1, name, Vec::new());
    next.expect("a client").zero_rtt_keys().is_some()
}
