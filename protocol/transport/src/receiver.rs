//! The receiving side of links: takes the frames of many connections' streams, and answers probes.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::{CloseReason, Connection};
use crate::probe::answer_probes;
use crate::stream::{Frame, ReadFrameError, RecvStream};
use crate::verify::PeerIdentity;

/// One inbox for the frames of many connections. Dropped, it stops reading them all.
///
/// When the inbox is full, streams are not read, and QUIC holds their senders back, all lanes of the
/// connection together. So whoever reads the inbox must not wait for sending to the same peers.
/// Streams in both directions are left to others.
pub struct Receiver {
    inbox: mpsc::Receiver<(PeerIdentity, Frame)>,
    deliver: mpsc::Sender<(PeerIdentity, Frame)>,
    connections: Mutex<JoinSet<()>>,
}

impl Receiver {
    /// An inbox that holds up to `frames_max` frames.
    pub fn new(frames_max: usize) -> Self {
        let (deliver, inbox) = mpsc::channel(frames_max);
        Self { inbox, deliver, connections: Mutex::default() }
    }

    /// Reads `connection`'s streams from now on, until it ends. Must be called within a tokio
    /// runtime.
    pub fn add(&self, connection: Connection) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(connection, self.deliver.clone()));
    }

    /// The next frame and who sent it. Waits for ever while nobody sends.
    pub async fn next(&mut self) -> (PeerIdentity, Frame) {
        self.inbox.recv().await.expect("this receiver keeps a sender of its own inbox")
    }
}

async fn serve(connection: Connection, deliver: mpsc::Sender<(PeerIdentity, Frame)>) {
    tokio::select! {
        () = answer_probes(&connection) => {}
        () = read_streams(&connection, deliver) => {}
    }
}

async fn read_streams(connection: &Connection, deliver: mpsc::Sender<(PeerIdentity, Frame)>) {
    // Dropped with this future, which stops the streams' tasks.
    let mut streams = JoinSet::new();
    while let Ok(stream) = connection.accept_uni().await {
        while streams.try_join_next().is_some() {}
        streams.spawn(read(stream, connection.clone(), deliver.clone()));
    }
}

/// Reads one stream's frames in order.
async fn read(mut stream: RecvStream, connection: Connection, deliver: mpsc::Sender<(PeerIdentity, Frame)>) {
    loop {
        match stream.read_frame().await {
            Ok(Some(frame)) => {
                if deliver.send((connection.peer().clone(), frame)).await.is_err() {
                    return;
                }
            }
            // The lane ended, moved to the other link, or went with its connection.
            Ok(None) | Err(ReadFrameError::Abandoned { .. } | ReadFrameError::ConnectionLost) => return,
            Err(error @ (ReadFrameError::Header(_) | ReadFrameError::Truncated { .. })) => {
                tracing::warn!(peer = %connection.peer().identity(), %error, "malformed frame");
                connection.close(CloseReason::Malformed);
                return;
            }
        }
    }
}
