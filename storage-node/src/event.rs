//! What happens to a storage node: everything the core ever learns arrives as one of these, so that
//! the shell and the simulator drive the very same code. An event carries facts, never a decision.

use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::{
    BagError, Disk, EraseError, EraseReport, ProbeError, ReadError, Rotated, ScanError, ScrubReport,
    Scrubbed, StoreError, SyncError, SyncTicket, VerifyError, WipeError,
};
use trefoil_protocol::ids::{Hash, NodeId, PrincipalId, TenantId, VolumeId};
use trefoil_protocol::message::control::{ControlAnswer, LinkReport};
use trefoil_protocol::message::peer::PeerMessage;
use trefoil_protocol::message::tenant::{TenantRequest, UploadPart};

/// A client's request, from its first frame to its last answer. The shell numbers them and uses no
/// number twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request of this node to the control plane; its answer comes back under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlTicket(pub u64);

/// A read of payload from this node's disk; its outcome comes back under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadTicket(pub u64);

/// Who speaks on a tenant connection, as its verified certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedPrincipal {
    /// The tenant.
    pub tenant: TenantId,
    /// The person or service.
    pub principal: PrincipalId,
}

/// A request to the control plane that got no answer: no connection, or it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlUnreachable;

/// What a flush cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How long it waited until a thread took it up.
    pub waited: Duration,
    /// How long that thread was at it: its share, if it was done together with others.
    pub took: Duration,
    /// Bytes that it made durable.
    pub bytes: u64,
}

/// Something happened.
#[derive(Debug)]
pub enum Event<D: Disk> {
    /// The time that `NodeCore::next_wakeup` named has come (or just: look at the clock).
    Wakeup,
    /// A message from another node, on whatever link.
    Peer {
        /// The node its certificate names.
        from: NodeId,
        /// The message.
        message: PeerMessage,
        /// The bytes behind it.
        bulk: Bytes,
    },
    /// The first frame of a client's request.
    Request {
        /// Its number.
        request: RequestId,
        /// Who asks.
        principal: VerifiedPrincipal,
        /// What is asked.
        body: TenantRequest,
        /// The bytes behind it: a small sealed object.
        bulk: Bytes,
    },
    /// A further frame of a streamed put. The shell keeps at most
    /// [`crate::UPLOAD_WINDOW`] bytes beyond what [`crate::Effect::Taken`] gave back under way.
    Upload {
        /// The request that it belongs to.
        request: RequestId,
        /// What it is.
        part: UploadPart,
        /// The leaves.
        bulk: Bytes,
    },
    /// The client hung up, or its stream broke. What was acknowledged stays; nobody is answered.
    Gone {
        /// The request.
        request: RequestId,
    },
    /// The control plane answered, or cannot be reached.
    Control {
        /// The request's number.
        ticket: ControlTicket,
        /// The answer.
        answer: Result<ControlAnswer, ControlUnreachable>,
    },
    /// The voter that was asked says nothing: from now on another one is.
    ControlSilent,
    /// A sync job ended. Only this makes anything durable in the core's eyes.
    Synced {
        /// The volume whose log was synced.
        volume: VolumeId,
        /// The job's ticket.
        ticket: SyncTicket,
        /// How it ended; an error is the end of this node's run.
        result: Result<(), SyncError>,
        /// What that cost.
        spent: Spent,
    },
    /// An erase job ended.
    Erased {
        /// The volume.
        volume: VolumeId,
        /// What it did.
        result: Result<EraseReport, EraseError>,
    },
    /// A rotation of the key bag ended.
    Rotated {
        /// The volume.
        volume: VolumeId,
        /// The new bag.
        result: Result<Rotated<D>, BagError>,
    },
    /// A volume was created, or could not be.
    Created {
        /// The volume.
        volume: VolumeId,
        /// How it ended.
        result: Result<(), StoreError>,
    },
    /// A wipe job ended.
    Wiped {
        /// The volume that this store held.
        volume: VolumeId,
        /// How it ended.
        result: Result<(), WipeError>,
    },
    /// A volume of a suspect store was read from end to end, or cannot be.
    Verified {
        /// The volume.
        volume: VolumeId,
        /// What was found.
        result: Result<ScrubReport, VerifyError>,
    },
    /// A stretch of a volume was read.
    Scrubbed {
        /// The volume.
        volume: VolumeId,
        /// What it held.
        result: Result<Scrubbed, ScanError>,
    },
    /// Probes of the store are done.
    Probed {
        /// What was read back.
        result: Result<Vec<Hash>, ProbeError>,
        /// What that cost.
        spent: Spent,
    },
    /// How the links to the other data centres look now; only told on, for status.
    Links(Vec<LinkReport>),
    /// A read job ended.
    Read {
        /// Its number.
        ticket: ReadTicket,
        /// The leaves, verified, in order.
        result: Result<Vec<Bytes>, ReadError>,
    },
}
