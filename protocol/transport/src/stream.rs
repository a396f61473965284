//! Streams of frames: `header ‖ body ‖ bulk`, the header as in [`trefoil_protocol::frame`].
//!
//! Sending copies nothing: a bulk may own a permit that frees memory only when the peer has
//! acknowledged it. Receiving copies once, into one buffer that body and bulk share. A frame that
//! is not as it must be ends the stream with an error; nothing a peer sends may panic.

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, WriteError};
use trefoil_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameHeaderError};

use crate::connection::{CloseReason, Connection};

/// One message: an encoded body, and payload that goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The encoded message.
    pub body: Bytes,
    /// Payload, empty for most messages.
    pub bulk: Bytes,
}

impl Frame {
    /// A message without payload.
    pub fn of_body(body: Bytes) -> Self {
        Self { body, bulk: Bytes::new() }
    }
}

/// Payload to be sent: one run of bytes, or several that follow each other; none is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// One run, perhaps empty.
    One(Bytes),
    /// Several, one behind the other.
    Several(Vec<Bytes>),
}

impl Bulk {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Several(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Bulk {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl From<Vec<Bytes>> for Bulk {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::Several(parts)
    }
}

/// Why a frame could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFrameError {
    /// The header is not one.
    #[error(transparent)]
    Header(#[from] FrameHeaderError),
    /// The stream ended inside a frame.
    #[error("frame {part}: the stream ended after {got} bytes, expected {expected}")]
    Truncated {
        /// Which part was being read.
        part: FramePart,
        /// Bytes of this part that arrived.
        got: usize,
        /// Bytes of this part that were announced.
        expected: usize,
    },
    /// The peer abandoned the stream.
    #[error("the peer abandoned the stream with code {code}")]
    Abandoned {
        /// The code it gave.
        code: u64,
    },
    /// The connection is gone.
    #[error("the connection is gone")]
    ConnectionLost,
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePart {
    /// The sixteen bytes that open it.
    Header,
    /// Body and bulk, which travel as one.
    Content,
}

impl std::fmt::Display for FramePart {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            FramePart::Header => "header",
            FramePart::Content => "content",
        })
    }
}

/// Why a frame could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFrameError {
    /// A part is longer than a frame may carry; nothing was written.
    #[error(transparent)]
    TooLong(#[from] FrameHeaderError),
    /// The peer does not want the rest of this stream.
    #[error("the peer stopped the stream with code {code}")]
    Stopped {
        /// The code it gave.
        code: u64,
    },
    /// This end has already finished or abandoned the stream.
    #[error("the stream is already finished")]
    Finished,
    /// The connection is gone.
    #[error("the connection is gone")]
    ConnectionLost,
}

/// How urgent a stream is against the others of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Payload.
    Bulk,
    /// Everything else.
    Message,
}

/// The sending half of a stream. Dropped before [`SendStream::finish`], it is abandoned, so that half
/// a frame is never taken for an end.
pub struct SendStream {
    inner: quinn::SendStream,
    finished: bool,
    // Keeps the connection open while this end still sends.
    _connection: Connection,
}

/// The receiving half of a stream. It keeps the connection open while this end still receives.
pub struct RecvStream {
    inner: quinn::RecvStream,
    connection: Connection,
}

impl SendStream {
    pub(crate) fn new(inner: quinn::SendStream, connection: Connection) -> Self {
        Self { inner, finished: false, _connection: connection }
    }

    /// Writes one frame. Returns when QUIC has taken it, which is before the peer has it.
    ///
    /// Cancelled half-way, it leaves part of a frame on the stream: drop the stream then.
    ///
    /// # Errors
    /// When a part is too long, or the peer, the stream or the connection takes no more.
    pub async fn write_frame(&mut self, body: Bytes, bulk: impl Into<Bulk>) -> Result<(), WriteFrameError> {
        let bulk = bulk.into();
        let header = Bytes::copy_from_slice(&FrameHeader::new(body.len(), bulk.len())?.encode());
        match bulk {
            Bulk::One(bulk) => self.inner.write_all_chunks(&mut [header, body, bulk]).await?,
            Bulk::Several(parts) => {
                let mut chunks = Vec::with_capacity(parts.len() + 2);
                chunks.extend([header, body]);
                chunks.extend(parts);
                self.inner.write_all_chunks(&mut chunks).await?;
            }
        }
        Ok(())
    }

    /// Says that nothing follows. What was written still arrives.
    ///
    /// # Errors
    /// When the stream is already finished.
    pub fn finish(&mut self) -> Result<(), WriteFrameError> {
        self.finished = true;
        self.inner.finish().map_err(|_| WriteFrameError::Finished)
    }

    /// Waits until the peer has everything (`Ok`), after [`SendStream::finish`].
    ///
    /// # Errors
    /// When the peer stopped the stream or the connection is gone.
    pub async fn delivered(&mut self) -> Result<(), WriteFrameError> {
        match self.inner.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(WriteFrameError::Stopped { code: code.into_inner() }),
            Err(_) => Err(WriteFrameError::ConnectionLost),
        }
    }

    /// Sets how urgent this stream is.
    pub fn set_urgency(&mut self, urgency: Urgency) {
        // A finished stream has no urgency left to set.
        let _ = self.inner.set_priority(urgency as i32);
    }

    /// Abandons the stream: what the peer has not read yet is lost.
    pub fn abandon(&mut self, reason: CloseReason) {
        // A finished stream has nothing left to abandon.
        let _ = self.inner.reset(reason.code());
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.finished {
            self.abandon(CloseReason::Finished);
        }
    }
}

impl RecvStream {
    pub(crate) fn new(inner: quinn::RecvStream, connection: Connection) -> Self {
        Self { inner, connection }
    }

    /// Reads one frame; `None` when the peer finished the stream between two frames.
    ///
    /// Not safe to cancel: a cancelled read may have taken part of a frame.
    ///
    /// # Errors
    /// When the frame is malformed or cut short, or the stream or connection is gone. The stream
    /// is of no use afterwards.
    pub async fn read_frame(&mut self) -> Result<Option<Frame>, ReadFrameError> {
        let Some(header) = self.read_header().await? else {
            return Ok(None);
        };
        let length = header.body_bytes() + header.bulk_bytes();
        let _share = self.connection.assembly_share(length).await;
        // Reserving is cheap: pages that nothing is written to are not committed, so a peer that
        // announces much and sends little costs little.
        let mut content = BytesMut::with_capacity(length);
        while content.len() < length {
            match self.inner.read_chunk(length - content.len(), true).await? {
                Some(chunk) => content.extend_from_slice(&chunk.bytes),
                None => return Err(truncated(FramePart::Content, content.len(), length)),
            }
        }
        let mut content = content.freeze();
        let body = content.split_to(header.body_bytes());
        Ok(Some(Frame { body, bulk: content }))
    }

    /// Tells the peer that the rest of the stream is not wanted.
    pub fn stop(&mut self, reason: CloseReason) {
        // A stream that already ended has nothing left to stop.
        let _ = self.inner.stop(reason.code());
    }

    async fn read_header(&mut self) -> Result<Option<FrameHeader>, ReadFrameError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut got = 0;
        while got < FRAME_HEADER_BYTES {
            match self.inner.read(&mut bytes[got..]).await? {
                Some(count) => got += count,
                None if got == 0 => return Ok(None),
                None => return Err(truncated(FramePart::Header, got, FRAME_HEADER_BYTES)),
            }
        }
        Ok(Some(FrameHeader::decode(bytes)?))
    }
}

fn truncated(part: FramePart, got: usize, expected: usize) -> ReadFrameError {
    ReadFrameError::Truncated { part, got, expected }
}

impl From<ReadError> for ReadFrameError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Abandoned { code: code.into_inner() },
            // Only ordered reads are made here, none before the handshake, and none after an
            // error: what remains means that there is no connection to read from.
            ReadError::ConnectionLost(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::ConnectionLost,
        }
    }
}

impl From<WriteError> for WriteFrameError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped { code: code.into_inner() },
            WriteError::ClosedStream => Self::Finished,
            WriteError::ConnectionLost(_) | WriteError::ZeroRttRejected => Self::ConnectionLost,
        }
    }
}
