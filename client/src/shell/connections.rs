//! Connections to nodes, endpoints and the custodian: made when first needed, shared by every operation,
//! replaced when they go silent.
//!
//! Keys are asked of nobody but a placement server: a node must never be able to hand out keys.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::message::tenant::{TenantRequest, TenantResponse};
use trefoil_transport::{
    CloseReason, Closed, Connection, DialError, Endpoint, Identity, Limits, OwnCertificate, Plane,
    RecvStream, Role, SendStream, TrustStore, local_address_for,
};

use crate::core::{Failed, Peer};

/// How long one address may take to answer a handshake.
const DIAL_TIME_MAX: Duration = Duration::from_secs(2);

/// How long an endpoint is waited for before the next one is dialled beside it.
const STAGGER: Duration = Duration::from_millis(100);

/// The first frame of an answer, and the stream that the rest comes from.
pub(super) struct Reply {
    pub(super) response: TenantResponse,
    /// A small object's sealed bytes.
    pub(super) bulk: Bytes,
    pub(super) rest: RecvStream,
}

/// Every connection of one client.
pub(super) struct Connections {
    own: Arc<OwnCertificate>,
    trust: Arc<TrustStore>,
    endpoints: Vec<String>,
    sockets: Mutex<BTreeMap<SocketAddr, Endpoint>>,
    slots: Mutex<BTreeMap<Peer, Arc<Slot>>>,
}

/// Where somebody may listen.
#[derive(Clone, Copy)]
enum Place {
    /// An endpoint of the profile, by its number there.
    Endpoint(usize),
    /// Where the cluster said that a voter is.
    Address(SocketAddr),
}

/// The connection to one peer.
#[derive(Default)]
struct Slot {
    live: AsyncMutex<Option<Connection>>,
    /// Which of the peer's addresses to begin with: moves on when the peer went silent.
    turn: AtomicUsize,
}

impl Connections {
    pub(super) fn new(own: Arc<OwnCertificate>, trust: Arc<TrustStore>, endpoints: Vec<String>) -> Self {
        Self { own, trust, endpoints, sockets: Mutex::default(), slots: Mutex::default() }
    }

    pub(super) fn own_certificate(&self) -> &OwnCertificate {
        &self.own
    }

    /// Opens a stream to `peer`. A node has these `addresses`; the custodian had them when last heard of.
    pub(super) async fn open(
        &self,
        peer: Peer,
        addresses: &[SocketAddr],
    ) -> Result<(SendStream, RecvStream), Failed> {
        // A connection that died unseen, as by a restart of the peer, is replaced once.
        for _ in 0..2 {
            let connection = self.connection(peer, addresses).await?;
            match connection.open_bi().await {
                Ok(streams) => return Ok(streams),
                Err(Closed::Refused) => return Err(Failed::Denied),
                Err(closed) => tracing::debug!(%peer, %closed, "connection found closed"),
            }
        }
        Err(Failed::Unreachable)
    }

    /// What became of an exchange whose stream broke: a refusal of our certificate may arrive after the
    /// handshake seemed over, and then nothing was taken in.
    pub(super) fn explain(&self, peer: Peer, failed: Failed) -> Failed {
        let slot = self.slot(peer);
        let live = slot.live.try_lock();
        let closed = live.ok().and_then(|live| live.as_ref().and_then(Connection::close_reason));
        if closed == Some(Closed::Refused) { Failed::Denied } else { failed }
    }

    /// Makes no further use of the connection to `peer`: it was silent for too long.
    pub(super) fn suspect(&self, peer: Peer) {
        let slot = self.slot(peer);
        slot.turn.fetch_add(1, Ordering::Relaxed);
        // Whoever holds the lock is just replacing the connection.
        if let Ok(mut live) = slot.live.try_lock() {
            *live = None;
        }
    }

    /// Closes every connection.
    pub(super) fn close(&self) {
        for slot in lock(&self.slots).values() {
            if let Ok(mut live) = slot.live.try_lock()
                && let Some(connection) = live.take()
            {
                connection.close(CloseReason::Finished);
            }
        }
    }

    fn slot(&self, peer: Peer) -> Arc<Slot> {
        Arc::clone(lock(&self.slots).entry(peer).or_default())
    }

    async fn connection(&self, peer: Peer, addresses: &[SocketAddr]) -> Result<Connection, Failed> {
        let slot = self.slot(peer);
        let mut live = slot.live.lock().await;
        if let Some(connection) = live.as_ref().filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        let turn = slot.turn.load(Ordering::Relaxed);
        let dialled = match peer {
            Peer::Node(node) => self.dial_any(addresses, turn, Some(Identity::Node(node)), None).await,
            Peer::Endpoint(place) => {
                // Until this one answers another one serves, but does not take its place: what a node
                // cannot tell, the endpoint that it stands in for may know.
                let places = self.endpoints_from(place);
                let (found, connection) = self.dial_first(places.collect(), None).await?;
                let Place::Endpoint(found) = found else { return Ok(connection) };
                if found != place {
                    self.keep(Peer::Endpoint(found), &connection);
                    return Ok(connection);
                }
                Ok(connection)
            }
            Peer::Custodian => {
                // Voters of the profile may have been replaced, and those that were heard of may be gone.
                let heard = (0..addresses.len()).map(|n| addresses[(turn + n) % addresses.len()]);
                let places = heard.map(Place::Address).chain(self.endpoints_from(turn)).collect();
                self.dial_first(places, Some(Role::Placement)).await.map(|(_, connection)| connection)
            }
        };
        *live = dialled.as_ref().ok().cloned();
        dialled
    }

    /// Remembers a connection to `peer` that was made by the way.
    fn keep(&self, peer: Peer, connection: &Connection) {
        let slot = self.slot(peer);
        // Whoever holds the lock is making one itself.
        if let Ok(mut live) = slot.live.try_lock() {
            live.get_or_insert_with(|| connection.clone());
        }
    }

    /// The endpoints of the profile, beginning with one of them.
    fn endpoints_from(&self, first: usize) -> impl Iterator<Item = Place> {
        let count = self.endpoints.len();
        (0..count).map(move |n| Place::Endpoint((first + n) % count))
    }

    /// Dials one place after the other, each a little after the one before, and takes whoever of that
    /// role answers first: any of them may be dead.
    async fn dial_first(
        &self,
        places: Vec<Place>,
        role: Option<Role>,
    ) -> Result<(Place, Connection), Failed> {
        let dial = async |(n, place): (u32, Place)| {
            sleep(STAGGER * n).await;
            let dialled = match place {
                Place::Endpoint(number) => self.dial_endpoint(number, role).await,
                Place::Address(address) => self.dial_any(&[address], 0, None, role).await,
            };
            dialled.map(|connection| (place, connection))
        };
        let mut dials: Vec<_> = (0..).zip(places).map(|place| Box::pin(dial(place))).collect();
        let mut failed = Failed::Unreachable;
        poll_fn(|context| {
            let mut place = 0;
            while let Some(dial) = dials.get_mut(place) {
                match dial.as_mut().poll(context) {
                    Poll::Ready(Ok(found)) => return Poll::Ready(Ok(found)),
                    Poll::Ready(Err(why)) => {
                        drop(dials.swap_remove(place));
                        failed = if why == Failed::Denied { why } else { failed };
                    }
                    Poll::Pending => place += 1,
                }
            }
            if dials.is_empty() { Poll::Ready(Err(failed)) } else { Poll::Pending }
        })
        .await
    }

    async fn dial_endpoint(&self, place: usize, role: Option<Role>) -> Result<Connection, Failed> {
        let name = self.endpoints.get(place).ok_or(Failed::Unreachable)?;
        let addresses: Vec<SocketAddr> = match timeout(DIAL_TIME_MAX, tokio::net::lookup_host(name)).await {
            Ok(Ok(addresses)) => addresses.collect(),
            _ => {
                tracing::debug!(endpoint = %name, "not resolved");
                return Err(Failed::Unreachable);
            }
        };
        self.dial_any(&addresses, 0, None, role).await
    }

    async fn dial_any(
        &self,
        addresses: &[SocketAddr],
        turn: usize,
        expected: Option<Identity>,
        role: Option<Role>,
    ) -> Result<Connection, Failed> {
        let mut failed = Failed::Unreachable;
        for place in 0..addresses.len() {
            let address = addresses[(place + turn) % addresses.len()];
            match self.dial(address, expected).await {
                Ok(connection) if role.is_none_or(|role| connection.peer().identity().role() == role) => {
                    return Ok(connection);
                }
                Err(Failed::Denied) => failed = Failed::Denied,
                Ok(_) | Err(_) => {}
            }
        }
        Err(failed)
    }

    async fn dial(&self, address: SocketAddr, expected: Option<Identity>) -> Result<Connection, Failed> {
        let socket = self.socket(local_address_for(address)).ok_or(Failed::Unreachable)?;
        match timeout(DIAL_TIME_MAX, socket.connect(address, Plane::Tenant, expected)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "not connected");
                let is_denied = matches!(error, DialError::Refused { .. });
                Err(if is_denied { Failed::Denied } else { Failed::Unreachable })
            }
            Err(_) => {
                tracing::debug!(%address, "no answer to the handshake");
                Err(Failed::Unreachable)
            }
        }
    }

    fn socket(&self, local: SocketAddr) -> Option<Endpoint> {
        let mut sockets = lock(&self.sockets);
        if let Some(socket) = sockets.get(&local) {
            return Some(socket.clone());
        }
        let made = Endpoint::client(local, Arc::clone(&self.own), Arc::clone(&self.trust), Limits::default());
        match made {
            Ok(socket) => {
                sockets.insert(local, socket.clone());
                Some(socket)
            }
            Err(error) => {
                tracing::warn!(%error, "no socket");
                None
            }
        }
    }
}

/// Sends one request whole.
pub(super) async fn send_request(
    send: &mut SendStream,
    request: &TenantRequest,
    bulk: Bytes,
) -> Result<(), Failed> {
    send.write_frame(codec::to_vec(request).into(), bulk).await.map_err(|_| Failed::Lost)
}

/// Waits for the first frame of the answer.
pub(super) async fn read_reply(mut recv: RecvStream) -> Result<Reply, Failed> {
    let frame = recv.read_frame().await.ok().flatten().ok_or(Failed::Lost)?;
    match codec::from_slice(&frame.body) {
        Ok(response) => Ok(Reply { response, bulk: frame.bulk, rest: recv }),
        Err(error) => {
            tracing::warn!(%error, "an answer that cannot be read");
            Err(Failed::Lost)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Maps of handles: every change is one insertion or removal, so no panic leaves them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use trefoil_transport::{Authority, LEAF_LIFETIME};

    use super::*;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn who_answers_for_a_slow_endpoint_does_not_take_its_place() {
        let cluster = "test".parse().unwrap();
        let authority = Authority::create(&cluster).unwrap();
        let trust = || TrustStore::from_pem(cluster.clone(), authority.certificate_pem()).unwrap();
        let own = |path: &str| {
            let issued = authority.issue(&path.parse().unwrap(), LEAF_LIFETIME).unwrap();
            OwnCertificate::from_pem(&issued.certificate_pem, &issued.key_pem).unwrap()
        };
        let planes = &[Plane::Tenant];
        let server =
            Endpoint::server(loopback(), own("node/a1"), trust(), planes, Limits::default()).unwrap();
        let mute = UdpSocket::bind(loopback()).unwrap();
        let endpoints =
            vec![mute.local_addr().unwrap().to_string(), server.local_address().unwrap().to_string()];
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        let connections = Connections::new(own("tenant/1/principal/1"), trust(), endpoints);
        assert!(connections.open(Peer::Endpoint(0), &[]).await.is_ok(), "another one serves meanwhile");
        let kept = |place| connections.slot(Peer::Endpoint(place)).live.try_lock().unwrap().is_some();
        assert_eq!((kept(0), kept(1)), (false, true));
    }
}
