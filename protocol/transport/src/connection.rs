//! One connection to a peer whose identity is proven, on one plane.
//!
//! Clones share the connection; when the last one and the last of its streams are dropped, it is
//! closed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ApplicationClose, ConnectionError, VarInt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits::{Limits, SMALL_FRAME_BYTES_MAX};
use crate::plane::Plane;
use crate::probe::answer_probes;
use crate::stream::{Frame, ReadFrameError, RecvStream, SendStream, WriteFrameError};
use crate::verify::PeerIdentity;

/// Why one end closes a connection or gives up a stream. The peer sees the number and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseReason {
    /// Nothing more to say.
    Finished = 0,
    /// The peer is not, or no longer, allowed here.
    Refused = 1,
    /// The peer sent something malformed.
    Malformed = 2,
    /// This process stops.
    Stopping = 3,
    /// Another connection took this one's place.
    Superseded = 4,
}

impl CloseReason {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This end closed it.
    #[error("closed by this end")]
    Here,
    /// The peer closed it with this number; [`CloseReason`] lists ours.
    #[error("closed by the peer with code {0}")]
    ByPeer(u64),
    /// The peer's handshake refused us.
    #[error("refused by the peer")]
    Refused,
    /// Nothing was heard for too long.
    #[error("silent for too long")]
    Silent,
    /// The peer forgot the connection, as after a restart.
    #[error("forgotten by the peer")]
    Forgotten,
    /// One end broke the rules of QUIC.
    #[error("broken protocol")]
    Broken,
}

/// A connection; cheap to clone.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    inner: quinn::Connection,
    plane: Plane,
    peer: PeerIdentity,
    /// Bytes of frames that may be put together at once.
    assembly: Semaphore,
}

/// Why a question got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No stream could be opened.
    #[error("the question could not be asked: {0}")]
    Open(#[from] Closed),
    /// The question was not taken.
    #[error("the question was not taken: {0}")]
    Question(#[from] WriteFrameError),
    /// The answer was not readable.
    #[error("the answer was not readable: {0}")]
    Answer(#[from] ReadFrameError),
    /// The peer ended the stream without an answer.
    #[error("the peer gave no answer")]
    Silence,
}

impl Connection {
    pub(crate) fn new(inner: quinn::Connection, plane: Plane, peer: PeerIdentity, limits: &Limits) -> Self {
        let assembly = Semaphore::new(limits.assembly_bytes as usize);
        Self { shared: Arc::new(Shared { inner, plane, peer, assembly }) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerIdentity {
        &self.shared.peer
    }

    /// What the connection is for.
    pub fn plane(&self) -> Plane {
        self.shared.plane
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.inner.remote_address()
    }

    /// Smoothed round-trip time as QUIC measures it.
    pub fn rtt(&self) -> Duration {
        self.shared.inner.rtt()
    }

    /// Packets `(sent, lost)` so far.
    pub fn packets(&self) -> (u64, u64) {
        let stats = self.shared.inner.stats();
        (stats.path.sent_packets, stats.path.lost_packets)
    }

    /// Bytes of UDP payload `(sent, received)` so far.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.shared.inner.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Opens a stream in one direction; waits while the peer's limit is reached.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open_uni(&self) -> Result<SendStream, Closed> {
        let send = self.shared.inner.open_uni().await?;
        Ok(SendStream::new(send, self.clone()))
    }

    /// Opens a stream in both directions; waits while the peer's limit is reached. The peer sees
    /// it with the first byte.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Closed> {
        let (send, recv) = self.shared.inner.open_bi().await?;
        Ok(self.pair(send, recv))
    }

    /// The next stream in one direction that the peer opens.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn accept_uni(&self) -> Result<RecvStream, Closed> {
        let recv = self.shared.inner.accept_uni().await?;
        Ok(RecvStream::new(recv, self.clone()))
    }

    /// The next stream in both directions that the peer opens.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Closed> {
        let (send, recv) = self.shared.inner.accept_bi().await?;
        Ok(self.pair(send, recv))
    }

    /// Asks one question on a stream of its own and waits for the one answer. Dropped, it abandons
    /// the question; it has no time-out of its own.
    ///
    /// # Errors
    /// When the question is too long, or the stream or connection ends before the answer.
    pub async fn ask(&self, body: Bytes, bulk: Bytes) -> Result<Frame, AskError> {
        let (mut send, mut recv) = self.open_bi().await?;
        send.write_frame(body, bulk).await?;
        send.finish()?;
        recv.read_frame().await?.ok_or(AskError::Silence)
    }

    /// Closes the connection at once; what is under way is lost.
    pub fn close(&self, reason: CloseReason) {
        self.shared.inner.close(reason.code(), b"");
    }

    /// Waits until the connection is gone and says how.
    pub async fn closed(&self) -> Closed {
        self.shared.inner.closed().await.into()
    }

    /// How the connection ended, if it has.
    pub fn close_reason(&self) -> Option<Closed> {
        self.shared.inner.close_reason().map(Closed::from)
    }

    /// Whether two handles are of one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Answers the probes of a peer that keeps links to us ([`crate::PeerLinks`]) until the connection
    /// is gone. A [`crate::Receiver`] does this for the connections it reads.
    pub async fn answer_probes(&self) {
        answer_probes(self).await;
    }

    /// Sends one small datagram, which may be lost; false when this connection carries none.
    pub(crate) fn send_datagram(&self, datagram: Bytes) -> bool {
        self.shared.inner.send_datagram(datagram).is_ok()
    }

    /// The next datagram; `None` when the connection is gone.
    pub(crate) async fn receive_datagram(&self) -> Option<Bytes> {
        self.shared.inner.read_datagram().await.ok()
    }

    /// Waits until a frame of `bytes` may be put together. Small frames never wait.
    pub(crate) async fn assembly_share(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        if bytes <= SMALL_FRAME_BYTES_MAX {
            return None;
        }
        let share = u32::try_from(bytes).expect("a frame's limits fit 32 bits");
        Some(self.shared.assembly.acquire_many(share).await.expect("never closed"))
    }

    fn pair(&self, send: quinn::SendStream, recv: quinn::RecvStream) -> (SendStream, RecvStream) {
        (SendStream::new(send, self.clone()), RecvStream::new(recv, self.clone()))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The endpoint keeps a handle of its own to close refused peers, so QUIC would not notice.
        self.inner.close(CloseReason::Finished.code(), b"");
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.shared;
        let remote = shared.inner.remote_address();
        write!(out, "Connection({} {:?} at {remote})", shared.plane, shared.peer)
    }
}

impl From<ConnectionError> for Closed {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::Here,
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
                Self::ByPeer(error_code.into_inner())
            }
            ConnectionError::ConnectionClosed(close) if is_alert(close.error_code.into()) => Self::Refused,
            ConnectionError::TransportError(error) if is_alert(error.code.into()) => Self::Refused,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Forgotten,
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted => Self::Broken,
        }
    }
}

/// QUIC carries TLS alerts as the codes 0x100 to 0x1ff.
fn is_alert(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}
