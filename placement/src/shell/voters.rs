//! What voters tell each other, over connections of their own on the control plane. Each voter dials
//! every other one and speaks on the connections that it dialled; it hears on those it accepted. Who
//! speaks is what the certificate proved.
//!
//! Anything may be lost: a full queue and a voter that is not reached lose what is said, and whoever
//! said it says it again. One stream carries the messages in their order; a snapshot goes on a stream
//! of its own, so that nothing waits behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{NodeId, VoterId};
use trefoil_protocol::message::voter::{RaftKind, VOTER_MESSAGE_MAX, VoterBody, VoterMessage, VoterPiece};
use trefoil_transport::{
    CloseReason, Connection, Endpoint, Identity, Limits, Plane, RecvStream, SendStream, Urgency,
    WriteFrameError,
};

use crate::shell::core_thread::CoreHandle;

/// Messages that may wait for one voter.
const QUEUE_MAX: usize = 256;

/// Bytes of a message in one frame.
const PIECE_BYTES: usize = 1 << 20;

/// How long a voter may take to answer a dial.
const DIAL_WITHIN: Duration = Duration::from_secs(1);

/// What waited for a connection for longer than this is not said any more.
const OLD_AFTER: Duration = Duration::from_millis(500);

/// How long until a voter that was not reached is dialled again.
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Streams one voter may speak on at once: its messages, and a snapshot.
const STREAMS_MAX: usize = 4;

/// A message and whom it is for.
pub(super) struct Said {
    pub(super) to: VoterEntry,
    pub(super) message: Box<VoterMessage>,
}

/// What a connection to a voter may use. One that is silent is soon dialled anew: a voter that comes
/// back is waited for.
pub(super) fn limits() -> Limits {
    Limits {
        stream_window_bytes: 4 << 20,
        connection_window_bytes: 8 << 20,
        send_window_bytes: 8 << 20,
        assembly_bytes: 8 << 20,
        streams_max: STREAMS_MAX as u32,
        connections_max: 64,
        idle_time_max: Duration::from_secs(2),
        keep_alive_interval: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// Speaks to every voter that there is something to say to, for as long as `said` is open.
pub(super) async fn speak(endpoint: Endpoint, mut said: mpsc::Receiver<Said>) {
    let mut queues: BTreeMap<VoterId, (SocketAddr, mpsc::Sender<Box<VoterMessage>>)> = BTreeMap::new();
    let mut voices = JoinSet::new();
    while let Some(Said { to, message }) = said.recv().await {
        let moved = queues.get(&to.voter).is_none_or(|(address, _)| *address != to.control);
        if moved {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            voices.spawn(Voice { endpoint: endpoint.clone(), to }.speak(queue));
            queues.insert(to.voter, (to.control, sender));
        }
        let (_, queue) = &queues[&to.voter];
        // What does not fit is lost; see above.
        let _ = queue.try_send(message);
    }
}

/// The one who speaks to one voter.
struct Voice {
    endpoint: Endpoint,
    to: VoterEntry,
}

impl Voice {
    async fn speak(self, mut queue: mpsc::Receiver<Box<VoterMessage>>) {
        while let Some(message) = queue.recv().await {
            let dialled = Instant::now();
            let connection = self.dial().await;
            // What waited while nobody answered is old, and may be meant for a voter that is none any more.
            let first = (dialled.elapsed() < OLD_AFTER).then_some(message);
            if first.is_none() {
                while queue.try_recv().is_ok() {}
            }
            match connection {
                Some(connection) => {
                    self.say(&connection, first, &mut queue).await;
                    connection.close(CloseReason::Finished);
                }
                None => sleep(DIAL_AGAIN_AFTER).await,
            }
        }
    }

    async fn dial(&self) -> Option<Connection> {
        let expected = Some(Identity::Placement(self.to.name));
        let dialled = timeout(DIAL_WITHIN, self.endpoint.connect(self.to.control, Plane::Control, expected));
        let failure = match dialled.await {
            Ok(Ok(connection)) => {
                tracing::info!(voter = %self.to.name, remote = %self.to.control, "voter reached");
                return Some(connection);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!(voter = %self.to.name, remote = %self.to.control, failure, "voter not reached");
        None
    }

    /// Says what there is to say, until the connection fails or is old.
    async fn say(
        &self,
        connection: &Connection,
        mut first: Option<Box<VoterMessage>>,
        queue: &mut mpsc::Receiver<Box<VoterMessage>>,
    ) {
        let dialled = Instant::now();
        let Ok(mut stream) = connection.open_uni().await else { return };
        let mut snapshot: Option<JoinHandle<()>> = None;
        loop {
            let message = match first.take() {
                Some(first) => first,
                None => tokio::select! {
                    next = queue.recv() => match next {
                        Some(next) => next,
                        None => return,
                    },
                    closed = connection.closed() => {
                        tracing::info!(voter = %self.to.name, %closed, "voter lost");
                        return;
                    }
                },
            };
            if is_snapshot(&message) {
                // One at a time: the log asks for it again.
                if snapshot.as_ref().is_none_or(JoinHandle::is_finished) {
                    snapshot = Some(tokio::spawn(send_snapshot(connection.clone(), message)));
                }
            } else if let Err(error) = send(&mut stream, &message).await {
                tracing::info!(voter = %self.to.name, %error, "voter lost");
                return;
            }
            if dialled.elapsed() >= self.endpoint.limits().connection_age_max {
                return;
            }
        }
    }
}

fn is_snapshot(message: &VoterMessage) -> bool {
    matches!(&message.body, VoterBody::Raft(said) if said.kind == RaftKind::Snapshot)
}

async fn send_snapshot(connection: Connection, message: Box<VoterMessage>) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    stream.set_urgency(Urgency::Bulk);
    if send(&mut stream, &message).await.is_ok() {
        // A stream that cannot be finished belongs to a connection that is gone.
        let _ = stream.finish();
    }
}

async fn send(stream: &mut SendStream, message: &VoterMessage) -> Result<(), WriteFrameError> {
    let mut rest = Bytes::from(codec::to_vec(message));
    loop {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        let last = rest.is_empty();
        stream.write_frame(codec::to_vec(&VoterPiece { last }).into(), piece).await?;
        if last {
            return Ok(());
        }
    }
}

/// Hears one voter until its connection ends, or says what no voter says.
pub(super) async fn hear(connection: &Connection, name: NodeId, core: &CoreHandle) {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    // One long message is put together at a time.
    let long = Arc::new(Semaphore::new(1));
    let mut streams = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok(stream) = connection.accept_uni().await else { return };
        let (connection, core, long) = (connection.clone(), core.clone(), Arc::clone(&long));
        streams.spawn(async move {
            let _place = place;
            if hear_stream(stream, VoterId::of(name), &core, &long).await.is_err() {
                tracing::warn!(voter = %name, "a malformed message: the connection is closed");
                connection.close(CloseReason::Malformed);
            }
        });
        while streams.try_join_next().is_some() {}
    }
}

/// Somebody says what no voter says.
struct Malformed;

impl From<minicbor::decode::Error> for Malformed {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

/// Hears one stream to its end.
async fn hear_stream(
    mut stream: RecvStream,
    from: VoterId,
    core: &CoreHandle,
    long: &Semaphore,
) -> Result<(), Malformed> {
    while let Ok(Some(frame)) = stream.read_frame().await {
        let piece: VoterPiece = codec::from_slice(&frame.body)?;
        let whole = match piece.last {
            true => frame.bulk,
            false => {
                let _turn = long.acquire().await.expect("the semaphore is never closed");
                let Some(whole) = gather(&mut stream, frame.bulk).await? else { return Ok(()) };
                whole
            }
        };
        core.hear(from, codec::from_slice(&whole)?);
    }
    Ok(())
}

/// The whole message that begins with `first`; `None` if it breaks off, as when its sender dies.
async fn gather(stream: &mut RecvStream, first: Bytes) -> Result<Option<Bytes>, Malformed> {
    let mut whole = BytesMut::from(first.as_ref());
    while let Ok(Some(frame)) = stream.read_frame().await {
        let piece: VoterPiece = codec::from_slice(&frame.body)?;
        if whole.len() + frame.bulk.len() > VOTER_MESSAGE_MAX {
            return Err(Malformed);
        }
        whole.extend_from_slice(&frame.bulk);
        if piece.last {
            return Ok(Some(whole.freeze()));
        }
    }
    Ok(None)
}
