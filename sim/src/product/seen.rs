//! What processes report to the oracle. No process ever sees any of it.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Epoch, PrincipalId, StoreId, TenantId, Token, UploadId, VersionId, VolumeId};
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::peer::PeerMessage;
use trefoil_protocol::message::tenant::TenantAnswer;
use trefoil_storage_node::Notice;

use crate::checkers::consensus::Standing;
use crate::history::ObjectId;
use crate::trace::{Digest, Traced};
use crate::workload::Task;

/// What a client is told to do.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Names it within the run.
    pub operation: u64,
    /// On which object.
    pub object: ObjectId,
    /// What.
    pub task: Task,
    /// The bytes of a put.
    pub payload: Bytes,
    /// The version of an undelete, or of a read of one.
    pub version: Option<VersionId>,
}

/// What the driver asks of a process.
#[derive(Clone, Debug)]
pub enum Command {
    /// To placement: an operator's request.
    Admin(trefoil_protocol::message::admin::AdminRequest),
    /// To a client: this is who you are; learn your keys.
    Become(TenantId, PrincipalId),
    /// To a client: do this.
    Run(Box<Errand>),
}

impl Traced for Command {
    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Admin(request) => digest.bytes(&trefoil_protocol::codec::to_vec(request)),
            Self::Become(tenant, principal) => {
                digest.word(tenant.0);
                digest.word(principal.0);
            }
            Self::Run(errand) => {
                digest.word(errand.operation);
                digest.bytes(errand.object.key.as_bytes());
            }
        }
    }
}

/// How an errand ended, as its client heard it.
#[derive(Clone, Debug)]
pub enum Ending {
    /// A put is acknowledged.
    Stored,
    /// A read found this version, and these bytes if it asked for them and they came.
    Found(VersionId, Option<Bytes>),
    /// A read of a version found it, perhaps deleted by now.
    FoundStale(VersionId, Option<Bytes>),
    /// A read or delete was told that there is no object.
    NotFound,
    /// A listing: every key with its version.
    Listed(Vec<(String, VersionId)>),
    /// A delete hid this version.
    Deleted(VersionId),
    /// An undelete brought this version back.
    Undeleted(VersionId),
    /// A mutation was refused for good, or sealed as never to happen.
    Refused(String),
    /// A mutation is sealed as never to happen.
    NotApplied(Token),
    /// Nobody knows, or a read got no answer.
    Unknown(String),
    /// An answer that could not be right: damaged bytes, a broken protocol.
    Damaged(String),
}

/// A put, as it left its client.
#[derive(Clone, Debug)]
pub struct SealedPut {
    /// Its version and attempt.
    pub upload: UploadId,
    /// The sealed bytes.
    pub sealed: Bytes,
    /// What opens it: the wrapped data key.
    pub wrapped: Bytes,
}

/// Something reported.
#[derive(Debug)]
pub enum Seen {
    /// A client has its keys.
    Prepared,
    /// A client begins an errand.
    Invoked(u64, Option<Box<SealedPut>>),
    /// An errand is over.
    Ended(u64, Ending),
    /// A storage node lets this answer go to a client, under this configuration.
    Acknowledged(Box<VolumeConfig>, Box<TenantAnswer>),
    /// A storage node describes or gives this version, marked as possibly stale or not, so long after it asked for the
    /// last lease that it was given.
    Gave(Box<VolumeConfig>, VersionId, bool, Duration),
    /// A storage node tells a client that its lease is over.
    LeaseOver,
    /// A storage node sends this to another one.
    Sent(Box<PeerMessage>, Bytes),
    /// A storage node's log grew, shrank or was committed further by this message, of this epoch.
    Obeyed(VolumeId, StoreId, Epoch),
    /// A storage node tells its operator something.
    Noticed(Notice),
    /// A process cannot go on.
    Fatal(String),
    /// A voter of the control plane stands so after a step.
    Voter(Box<Standing>),
    /// Placement answered an operator.
    Admin(Box<AdminAnswer>),
}
