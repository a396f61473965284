//! One UDP socket: dials peers, and listens on the planes it was given.
//!
//! A listener runs handshakes beside each other, each within its time, and hands over only peers
//! whose identity is proven and fits the plane. Garbage, floods and slow handshakes cost memory up
//! to [`Limits::unauthenticated_memory_bytes_max`] and no accepted connection its place.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{EndpointConfig, Incoming, NoneTokenStore, ServerConfig, ValidationTokenConfig};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::admission::{Admission, agreed};
use crate::connection::{CloseReason, Closed, Connection};
use crate::identity::Identity;
use crate::limits::{LOOPBACK_PAYLOAD_BYTES_MAX, Limits, PathKind};
use crate::own_certificate::OwnCertificate;
use crate::plane::Plane;
use crate::socket::QuietRuntime;
use crate::tls::{client_tls, quic_client, quic_server, server_tls};
use crate::trust::TrustStore;
use crate::verify::{PeerIdentity, RemoteEnd, refuse};

/// QUIC wants a name of the server; ours are in the certificate's URI, so this one means nothing
/// and is not sent.
const SERVER_NAME: &str = "trefoil";

/// Accepted connections that wait for [`Endpoint::accept`].
const ACCEPTED_WAITING_MAX: usize = 64;

/// A connection that a listener accepted, what it is for, and the proof of who opened it.
pub type Accepted = (Connection, Plane, PeerIdentity);

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot use UDP address {address}: {source}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// Why a connection could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// This endpoint is closed, or its socket cannot reach such an address.
    #[error("{remote} cannot be dialled from this socket")]
    Impossible {
        /// The address that was dialled.
        remote: SocketAddr,
    },
    /// The handshake took too long: nobody there, or the link is cut.
    #[error("no answer from {remote} in time")]
    NoAnswer {
        /// The address that was dialled.
        remote: SocketAddr,
    },
    /// The peer is not who it must be, or did not believe that we are who we say.
    #[error("handshake with {remote} was refused")]
    Refused {
        /// The address that was dialled.
        remote: SocketAddr,
    },
    /// The connection ended during the handshake.
    #[error("handshake with {remote} failed: {closed}")]
    Lost {
        /// The address that was dialled.
        remote: SocketAddr,
        /// How it ended.
        closed: Closed,
    },
}

/// A UDP socket that dials and perhaps listens; cheap to clone. With its last clone it stops listening;
/// connections that stand live on.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    /// `None` for an endpoint that only dials.
    listener: Option<Arc<Listener>>,
}

struct Shared {
    inner: quinn::Endpoint,
    own: Arc<OwnCertificate>,
    path: PathKind,
    gate: Gate,
}

/// What every handshake passes, whoever began it.
#[derive(Clone)]
struct Gate {
    trust: Arc<TrustStore>,
    limits: Limits,
    live: Live,
}

struct Listener {
    accepted: AsyncMutex<mpsc::Receiver<Accepted>>,
    task: AbortHandle,
}

/// Every connection that stands, so that a refused peer's can be closed.
#[derive(Clone, Default)]
struct Live {
    connections: Arc<Mutex<BTreeMap<u64, (quinn::Connection, Identity)>>>,
    next: Arc<AtomicU64>,
}

impl Endpoint {
    /// A socket that only dials. Bind it to a loopback address to reach loopback peers at full
    /// speed, else to the address of the link it stands for.
    ///
    /// # Errors
    /// When the address cannot be used. Must be called within a tokio runtime.
    pub fn client(
        local: SocketAddr,
        own: Arc<OwnCertificate>,
        trust: Arc<TrustStore>,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let shared = Shared::bind(local, own, trust, limits, None)?;
        Ok(Self { shared: Arc::new(shared), listener: None })
    }

    /// A socket that dials and listens on `planes`.
    ///
    /// # Errors
    /// When the address cannot be used. Must be called within a tokio runtime.
    pub fn server(
        local: SocketAddr,
        own: Arc<OwnCertificate>,
        trust: Arc<TrustStore>,
        planes: &[Plane],
        limits: Limits,
    ) -> Result<Self, BindError> {
        let shared = Arc::new(Shared::bind(local, own, trust, limits, Some(planes))?);
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let task = tokio::spawn(listen(
            shared.inner.clone(),
            Handshakes { gate: shared.gate.clone(), accepted: sender },
        ))
        .abort_handle();
        let listener = Listener { accepted: AsyncMutex::new(accepted), task };
        Ok(Self { shared, listener: Some(Arc::new(listener)) })
    }

    /// The next accepted connection; `None` when the endpoint is closed or only dials.
    pub async fn accept(&self) -> Option<Accepted> {
        self.listener.as_ref()?.accepted.lock().await.recv().await
    }

    /// Dials `remote` on `plane`. Whoever answers must be allowed to serve the plane and, if
    /// `expected` is given, be exactly that identity.
    ///
    /// # Errors
    /// When nobody answers in time, or either side does not believe the other.
    ///
    /// A refusal by the peer may arrive after this returned, since the last word of a handshake is
    /// the server's: the connection then closes as [`Closed::Refused`] before it carries anything.
    pub async fn connect(
        &self,
        remote: SocketAddr,
        plane: Plane,
        expected: Option<Identity>,
    ) -> Result<Connection, DialError> {
        let handshake = self.shared.dial(remote, plane, expected)?;
        let inner = timeout(self.shared.gate.limits.handshake_time_max, handshake)
            .await
            .map_err(|_| DialError::NoAnswer { remote })?
            .map_err(|error| match Closed::from(error) {
                Closed::Refused => DialError::Refused { remote },
                Closed::Silent => DialError::NoAnswer { remote },
                closed => DialError::Lost { remote, closed },
            })?;
        self.shared.gate.prove(inner, RemoteEnd::Server).ok_or(DialError::Refused { remote })
    }

    /// The address this socket is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.shared.inner.local_addr()
    }

    /// What this endpoint may use.
    pub fn limits(&self) -> &Limits {
        &self.shared.gate.limits
    }

    /// How many connections stand, both ways.
    pub fn connection_count(&self) -> usize {
        self.shared.inner.open_connections()
    }

    /// Closes every connection whose peer the trust store refuses now; returns how many.
    pub fn close_refused(&self) -> usize {
        self.shared.gate.live.close_where(|peer| self.shared.gate.trust.refuses(peer))
    }

    /// Closes all connections, stops listening, and waits until peers were told.
    pub async fn close(&self) {
        self.shared.inner.close(CloseReason::Stopping.code(), b"");
        self.shared.inner.wait_idle().await;
    }
}

impl Shared {
    fn bind(
        local: SocketAddr,
        own: Arc<OwnCertificate>,
        trust: Arc<TrustStore>,
        limits: Limits,
        planes: Option<&[Plane]>,
    ) -> Result<Self, BindError> {
        let path = PathKind::of(local.ip());
        let server = planes.map(|planes| server_config(&own, &trust, &limits, path, planes));
        let inner = bind_socket(local, &limits)
            .and_then(|socket| {
                let runtime = Arc::new(QuietRuntime);
                quinn::Endpoint::new(endpoint_config(), server, socket, runtime)
            })
            .map_err(|source| BindError { address: local, source })?;
        Ok(Self { inner, own, path, gate: Gate { trust, limits, live: Live::default() } })
    }

    fn dial(
        &self,
        remote: SocketAddr,
        plane: Plane,
        expected: Option<Identity>,
    ) -> Result<quinn::Connecting, DialError> {
        let tls = quic_client(client_tls(&self.own, &self.gate.trust, plane, expected));
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.gate.limits.transport(self.path)).token_store(Arc::new(NoneTokenStore));
        self.inner.connect_with(config, remote, SERVER_NAME).map_err(|_| DialError::Impossible { remote })
    }
}

/// The unspecified address of the same family as `remote`, or its loopback: where to bind a client
/// that dials it.
pub fn local_address_for(remote: SocketAddr) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(v6) if v6.ip().is_loopback() => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn bind_socket(local: SocketAddr, limits: &Limits) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let bytes = limits.socket_buffer_bytes as usize;
    // The kernel grants as much of these as the system's limits allow.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, bytes)?;
    Ok(socket)
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // Whatever this socket is bound to, a peer on this machine may begin with large datagrams.
    config.max_udp_payload_size(LOOPBACK_PAYLOAD_BYTES_MAX).expect("the size is above QUIC's smallest");
    config
}

fn server_config(
    own: &Arc<OwnCertificate>,
    trust: &Arc<TrustStore>,
    limits: &Limits,
    path: PathKind,
    planes: &[Plane],
) -> ServerConfig {
    let admission =
        Admission { tls: Arc::new(quic_server(server_tls(own, trust, planes))), trust: Arc::clone(trust) };
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    let mut config = ServerConfig::with_crypto(Arc::new(admission));
    config
        .transport_config(limits.transport(path))
        .validation_token_config(tokens)
        .max_incoming(limits.incoming_max as usize)
        .incoming_buffer_size(u64::from(limits.incoming_bytes))
        .incoming_buffer_size_total(u64::from(limits.incoming_bytes_total))
        // A peer whose address changes makes a new connection, which is logged as one.
        .migration(false);
    config
}

/// What a listener's handshakes share.
#[derive(Clone)]
struct Handshakes {
    gate: Gate,
    accepted: mpsc::Sender<Accepted>,
}

async fn listen(endpoint: quinn::Endpoint, handshakes: Handshakes) {
    let limits = &handshakes.gate.limits;
    let room = Arc::new(Semaphore::new(limits.handshakes_max as usize));
    while let Some(incoming) = endpoint.accept().await {
        let under_way = limits.handshakes_max as usize - room.available_permits();
        let unproven = !incoming.remote_address_validated();
        if unproven && under_way >= limits.unvalidated_max as usize {
            // One that cannot be asked again is refused by being dropped.
            let _ = incoming.retry();
            continue;
        }
        if endpoint.open_connections() >= limits.connections_max as usize {
            incoming.refuse();
            continue;
        }
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(handshakes.clone().run(incoming, permit))),
            Err(_) => incoming.refuse(),
        }
    }
}

impl Handshakes {
    /// One handshake. The permit goes back when the connection is handed over, so that a listener
    /// that is not asked for its connections stops making more.
    async fn run(self, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let remote = incoming.remote_address();
        let inner = match timeout(self.gate.limits.handshake_time_max, incoming).await {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => {
                let closed = Closed::from(error);
                tracing::warn!(%remote, %closed, "handshake failed");
                return;
            }
            Err(_) => {
                tracing::warn!(%remote, "handshake took too long");
                return;
            }
        };
        if let Some(connection) = self.gate.prove(inner, RemoteEnd::Client) {
            let (plane, peer) = (connection.plane(), connection.peer().clone());
            // Without a receiver the endpoint is gone, and the connection with it.
            let _ = self.accepted.send((connection, plane, peer)).await;
        }
        drop(permit);
    }
}

impl Gate {
    /// The age at which this end closes a connection. Who dialled replaces it much earlier, with
    /// nothing under way; a listener must not depend on that.
    fn age_max(&self, remote: RemoteEnd) -> Duration {
        match remote {
            RemoteEnd::Client => self.limits.connection_age_max * 2,
            RemoteEnd::Server => Duration::MAX,
        }
    }

    /// Turns a completed handshake into a connection with a proven peer, and records its beginning
    /// and its end. `None` when the peer does not fit, which the handshake has already said.
    fn prove(&self, inner: quinn::Connection, remote: RemoteEnd) -> Option<Connection> {
        let proof =
            agreed(inner.handshake_data(), inner.peer_identity()).and_then(|(plane, certificates)| {
                Ok((plane, PeerIdentity::mint(&certificates, &self.trust, plane, remote)?))
            });
        match proof {
            Ok((plane, peer)) => {
                self.live.watch(inner.clone(), plane, &peer, self.age_max(remote));
                // Refused since the certificate was examined: whoever closes the refused peers'
                // connections either saw this one among them, or it ends here.
                if self.trust.refuses(&peer.identity()) {
                    inner.close(CloseReason::Refused.code(), b"");
                    return None;
                }
                Some(Connection::new(inner, plane, peer, &self.limits))
            }
            Err(reason) => {
                let _ = refuse(&reason);
                inner.close(CloseReason::Refused.code(), b"");
                None
            }
        }
    }
}

impl Live {
    fn watch(&self, inner: quinn::Connection, plane: Plane, peer: &PeerIdentity, age_max: Duration) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let identity = peer.identity();
        let serial = peer.serial_hex();
        let remote = inner.remote_address();
        tracing::info!(%identity, %serial, %plane, %remote, "connected");
        self.lock().insert(number, (inner.clone(), identity));
        let live = self.clone();
        tokio::spawn(async move {
            if timeout(age_max, inner.closed()).await.is_err() {
                inner.close(CloseReason::Superseded.code(), b"");
            }
            let closed = Closed::from(inner.closed().await);
            live.lock().remove(&number);
            let stats = inner.stats();
            let (sent, received) = (stats.udp_tx.bytes, stats.udp_rx.bytes);
            tracing::info!(
                %identity, %serial, %plane, %remote, %closed, sent, received, "disconnected"
            );
        });
    }

    fn close_where(&self, matches: impl Fn(&Identity) -> bool) -> usize {
        let connections = self.lock();
        let refused = connections.values().filter(|(_, peer)| matches(peer));
        refused.map(|(inner, _)| inner.close(CloseReason::Refused.code(), b"")).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (quinn::Connection, Identity)>> {
        // Single insertions and removals: no panic can leave the map half changed.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
