//! What the simulated processes send each other: the production messages, typed, with the streams
//! that the transport would give them. In some runs every message goes through its encoding on
//! the way, so that what cannot be said on the wire is not said here either.

use bytes::Bytes;
use trefoil_protocol::codec;
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest};
use trefoil_protocol::message::peer::PeerMessage;
use trefoil_protocol::message::tenant::{DataPart, TenantRequest, TenantResponse, UploadPart};
use trefoil_protocol::message::voter::VoterMessage;
use trefoil_storage_node::VerifiedPrincipal;

use crate::trace::{Digest, Traced};

/// A client's stream, from its first frame to its last; numbered by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A message's place among all that a voter sent to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// The sender's run.
    pub run: u64,
    /// The message's number in it.
    pub number: u64,
}

/// A frame of a client's stream, or of the answer on it.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The request. The principal is what the client's certificate would prove.
    Ask(VerifiedPrincipal, Box<TenantRequest>, Bytes),
    /// A further frame of an upload.
    Part(UploadPart, Bytes),
    /// The client reset the stream; overtakes everything.
    Hangup,
    /// The answer; whether nothing follows.
    Answer(Box<TenantResponse>, Bytes, bool),
    /// Leaves behind the answer.
    Data(DataPart, Bytes),
    /// The server reset the stream.
    Abort,
}

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between storage nodes.
    Peer(Box<PeerMessage>, Bytes),
    /// Is this link alive? Numbered, so that an answer belongs to its probe.
    Probe(u64),
    /// It is.
    ProbeAnswer(u64),
    /// A storage node asks the control plane.
    Control(u64, Box<ControlRequest>),
    /// The control plane answers.
    ControlAnswer(u64, Box<ControlAnswer>),
    /// A voter speaks to another one; numbered within its run, because a lane keeps the order.
    Voter(Turn, Box<VoterMessage>),
    /// A frame of a stream, with its place, because messages overtake each other and frames do not.
    Stream(StreamId, u32, Frame),
}

impl Message {
    /// Its length on the wire, nearly.
    #[must_use]
    pub fn size(&self) -> u64 {
        let bulk = match self {
            Self::Peer(_, bulk) => bulk.len(),
            Self::Stream(_, _, frame) => frame.bulk().map_or(0, Bytes::len),
            Self::Voter(_, message) => codec::to_vec(&**message).len(),
            _ => 0,
        };
        200 + bulk as u64
    }

    /// The same message after it was encoded and decoded.
    ///
    /// # Panics
    /// If the production codec does not read what it wrote.
    #[must_use]
    pub fn through_the_codec(self) -> Self {
        match self {
            Self::Peer(message, bulk) => Self::Peer(again(&message), bulk),
            Self::Control(ticket, request) => Self::Control(ticket, again(&request)),
            Self::ControlAnswer(ticket, answer) => Self::ControlAnswer(ticket, again(&answer)),
            Self::Stream(stream, place, frame) => Self::Stream(stream, place, frame.through_the_codec()),
            Self::Voter(turn, message) => Self::Voter(turn, again(&message)),
            other => other,
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Peer(message, _) => codec::to_vec(&**message),
            Self::Probe(number) | Self::ProbeAnswer(number) => number.to_le_bytes().to_vec(),
            Self::Control(_, request) => codec::to_vec(&**request),
            Self::ControlAnswer(_, answer) => codec::to_vec(&**answer),
            Self::Stream(_, _, frame) => frame.body(),
            Self::Voter(_, message) => codec::to_vec(&**message),
        }
    }

    fn kind(&self) -> u64 {
        match self {
            Self::Peer(..) => 1,
            Self::Probe(_) => 2,
            Self::ProbeAnswer(_) => 3,
            Self::Control(ticket, _) => 4 | ticket << 8,
            Self::ControlAnswer(ticket, _) => 5 | ticket << 8,
            Self::Stream(stream, place, _) => 6 | stream.0 << 8 | u64::from(*place) << 40,
            Self::Voter(turn, _) => 7 | turn.number << 8 | turn.run << 40,
        }
    }
}

impl Frame {
    fn bulk(&self) -> Option<&Bytes> {
        match self {
            Self::Ask(_, _, bulk) | Self::Part(_, bulk) | Self::Answer(_, bulk, _) | Self::Data(_, bulk) => {
                Some(bulk)
            }
            Self::Hangup | Self::Abort => None,
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Ask(_, request, _) => codec::to_vec(&**request),
            Self::Part(part, _) => codec::to_vec(part),
            Self::Answer(response, _, _) => codec::to_vec(&**response),
            Self::Data(part, _) => codec::to_vec(part),
            Self::Hangup => vec![1],
            Self::Abort => vec![2],
        }
    }

    fn through_the_codec(self) -> Self {
        match self {
            Self::Ask(principal, request, bulk) => Self::Ask(principal, again(&request), bulk),
            Self::Part(part, bulk) => Self::Part(*again(&part), bulk),
            Self::Answer(response, bulk, last) => Self::Answer(again(&response), bulk, last),
            Self::Data(part, bulk) => Self::Data(*again(&part), bulk),
            other => other,
        }
    }
}

fn again<T>(value: &T) -> Box<T>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    let bytes = codec::to_vec(value);
    Box::new(codec::from_slice(&bytes).expect("the codec reads what it wrote"))
}

impl Traced for Message {
    fn digest(&self, digest: &mut Digest) {
        digest.word(self.kind());
        digest.bytes(&self.body());
        let bulk = match self {
            Self::Peer(_, bulk) => Some(bulk),
            Self::Stream(_, _, frame) => frame.bulk(),
            _ => None,
        };
        if let Some(bulk) = bulk {
            // The whole of a payload tells no more than its ends: it is sealed under fresh keys.
            digest.word(bulk.len() as u64);
            digest.bytes(&bulk[..bulk.len().min(32)]);
            digest.bytes(&bulk[bulk.len().saturating_sub(32)..]);
        }
    }
}
