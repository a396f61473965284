//! What a storage node wants done. The shell does it and reports back with an
//! [`Event`](crate::Event); an effect is never a question whose answer the core waits for in place.
//!
//! Order matters only per destination: effects to one peer or one request are sent in the order in
//! which they are given.

use bytes::Bytes;
use trefoil_engine::{
    CreateJob, Disk, EraseJob, ProbeJob, ReadJob, RotationJob, ScrubJob, SyncJob, VerifyJob, WipeJob,
};
use trefoil_protocol::ids::{NodeId, VolumeId};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::PeerMessage;
use trefoil_protocol::message::tenant::{DataPart, TenantResponse};

use crate::event::{ControlTicket, ReadTicket, RequestId};
use crate::volume::replica::Stop;
use crate::work_queue::Place;

/// Which queue a message to a peer takes; a later lane never holds up an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and awaited: records, acknowledgements, peering.
    Log,
    /// Payload of uploads under way.
    Payload,
    /// Payload that somebody catches up on; the first to wait.
    Background,
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A sync or write failed: nothing that this store says can be believed any more. Exit code 4.
    #[error("the store is suspect: {0}")]
    Store(String),
    /// The control plane refuses this store for ever, e.g. because its disk image is older than
    /// what it acknowledged.
    #[error("refused by the control plane: {0}")]
    Refused(String),
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A volume is stopped.
    #[error(transparent)]
    Stopped(Stop),
    /// A scrub found damage, which is mended from peers.
    #[error("volume {volume}: a scrub found {faults} damaged places")]
    Damaged {
        /// The volume.
        volume: VolumeId,
        /// How many places.
        faults: usize,
    },
    /// The store is suspect and is read from end to end before it joins again.
    #[error("the store is suspect ({reason}): all of its {volumes} volumes are read before it joins again")]
    Verifying {
        /// Why it is suspect.
        reason: String,
        /// How many volumes there are to be read.
        volumes: usize,
    },
    /// The store was read from end to end and joins again.
    #[error("the store was read from end to end and joins again; {faults} faults are mended from peers")]
    Verified {
        /// How much was found damaged.
        faults: usize,
    },
}

impl<D: Disk> Effect<D> {
    /// The client's request whose answer this is, or the first bytes that were asked for.
    pub(crate) fn answers(&self) -> Option<RequestId> {
        match self {
            Self::Reply { request, last: true, .. } | Self::Data { request, .. } => Some(*request),
            _ => None,
        }
    }

    /// How many bytes that were read this gives a client.
    pub(crate) fn given(&self) -> Option<u64> {
        match self {
            Self::Data { bulk, .. } => Some(bulk.iter().map(|part| part.len() as u64).sum()),
            _ => None,
        }
    }

    /// The client's request that nothing more is said to after this.
    pub(crate) fn ends(&self) -> Option<RequestId> {
        match self {
            Self::Reply { request, last: true, .. } | Self::Abort { request } => Some(*request),
            Self::Data { request, part, .. } if part.last => Some(*request),
            _ => None,
        }
    }

    /// Whether the disk threads are to make something durable that others wait for.
    pub(crate) fn is_flush(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::Create { .. })
    }

    /// Why the store cannot be believed any more, if this says so.
    pub(crate) fn store_failure(&self) -> Option<&str> {
        match self {
            Self::Fatal(Fatal::Store(reason)) => Some(reason),
            _ => None,
        }
    }
}

/// Something to be done.
#[derive(Debug)]
pub enum Effect<D: Disk> {
    /// Send a message to another node, by any link; it may be lost.
    SendPeer {
        /// To whom.
        to: NodeId,
        /// In which queue.
        lane: Lane,
        /// What.
        message: PeerMessage,
        /// The bytes behind it, one after the other.
        bulk: Vec<Bytes>,
    },
    /// Answer a client. Unless [`Effect::Data`] follows (`last` is false), this ends the request.
    Reply {
        /// The request.
        request: RequestId,
        /// The answer.
        response: TenantResponse,
        /// The bytes behind it: a small sealed object that was asked for whole.
        bulk: Bytes,
        /// Whether nothing follows.
        last: bool,
    },
    /// A frame behind an answer; `part.last` says whether it ends the request.
    Data {
        /// The request.
        request: RequestId,
        /// Which leaves.
        part: DataPart,
        /// The leaves.
        bulk: Vec<Bytes>,
    },
    /// An answer that began cannot be finished: reset the request's stream.
    Abort {
        /// The request.
        request: RequestId,
    },
    /// So many bytes of an upload were taken over; the client may send as many more.
    Taken {
        /// The upload's request.
        request: RequestId,
        /// The bytes.
        bytes: u64,
    },
    /// Ask the control plane; every request is answered by one [`crate::Event::Control`].
    Control {
        /// Its number.
        ticket: ControlTicket,
        /// What.
        request: ControlRequest,
    },
    /// Run a sync on a disk thread and report [`crate::Event::Synced`]. At most one per volume is
    /// under way.
    Sync {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: SyncJob<D>,
        /// When its turn comes.
        place: Place,
    },
    /// An epoch waits for the sync of this volume that is under way: if it still waits for its turn, it goes in
    /// front.
    Hurry {
        /// The volume.
        volume: VolumeId,
    },
    /// Run a read on a disk thread and report [`crate::Event::Read`].
    Read {
        /// Its number.
        ticket: ReadTicket,
        /// The job.
        job: ReadJob<D>,
    },
    /// Run an erase on a disk thread and report [`crate::Event::Erased`]. At most one per volume is
    /// under way; it may run beside a sync.
    Erase {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: EraseJob<D>,
    },
    /// Rotate a volume's key bag on a disk thread, behind the erases that were asked for before, and
    /// report [`crate::Event::Rotated`]. At most one per volume is under way.
    Rotate {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: RotationJob<D>,
    },
    /// Create an empty volume, on a disk thread, in front of the syncs, and report [`crate::Event::Created`].
    Create {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: CreateJob<D>,
    },
    /// Wipe all that this store holds of a volume, on a disk thread, and report
    /// [`crate::Event::Wiped`].
    Wipe {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: WipeJob<D>,
    },
    /// Read everything of a volume of a suspect store, on a disk thread, and report
    /// [`crate::Event::Verified`].
    Verify {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: VerifyJob<D>,
    },
    /// Read a stretch of a volume and check it, on a disk thread, behind everything that somebody waits
    /// for, and report [`crate::Event::Scrubbed`]. At most one of a node is under way.
    Scrub {
        /// The volume.
        volume: VolumeId,
        /// The job.
        job: ScrubJob<D>,
    },
    /// Probe the store, on a disk thread, in front of the syncs that wait, and report
    /// [`crate::Event::Probed`]. At most one of a node is under way.
    Probe {
        /// The job.
        job: ProbeJob<D>,
    },
    /// Tell the operator, in this node's log.
    Notice(Notice),
    /// End the process; nothing more is sent.
    Fatal(Fatal),
}
