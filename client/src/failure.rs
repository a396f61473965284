//! How operations end without success. One closed list for reads, one for writes; each case is of one
//! [`FailureKind`], which is all that a script needs to know.
//!
//! Nothing here may carry plaintext, a key, or a name that the caller did not give.

use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::tree::TreeError;

use crate::seal::{
    BlockRefused, MetadataError, OpenError, RangePlanError, SealError, UnwrapError, WrapError,
};

/// What a failure means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Something on this side failed, such as reading the source.
    Local,
    /// No such object, or gone.
    NotFound,
    /// The cluster understood and refuses; the same request will be refused again.
    Refused,
    /// It cannot be done now; the same request may succeed later.
    Unavailable,
    /// Bytes that came back are not what they must be.
    Integrity,
}

/// The last thing that stood in the way of an operation that ran out of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No endpoint told where the tenant's volumes are.
    #[error("no endpoint told where the volumes are")]
    NoRoute,
    /// The volume has no primary at the moment.
    #[error("the volume has no primary at the moment")]
    NoPrimary,
    /// The node or endpoint could not be reached.
    #[error("{0} could not be reached")]
    Unreachable(Peer),
    /// Every peer refused this client's certificate.
    #[error("the certificate is refused; it may have expired or its principal been deactivated")]
    Denied,
    /// Nobody knows this client's tenant or principal.
    #[error("the cluster knows no such tenant or principal")]
    Stranger,
    /// The stream broke before its answer was complete.
    #[error("the connection to {0} was lost")]
    Lost(Peer),
    /// No answer, or no progress, for too long.
    #[error("{0} was silent for too long")]
    Silent(Peer),
    /// The node said that it cannot at the moment.
    #[error("{0}: {1}")]
    Refused(Peer, Refusal),
    /// More mutations are under way than the idempotency window holds.
    #[error("too many mutations are under way")]
    WindowFull,
}

/// Who is meant in a [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A storage node.
    Node(NodeId),
    /// An endpoint of the profile, by its place there.
    Endpoint(usize),
    /// Whoever of the control plane's voters gives out keys.
    Custodian,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Endpoint(place) => write!(f, "endpoint {} of the profile", place + 1),
            Self::Custodian => f.write_str("the custodian"),
        }
    }
}

/// What is wrong with bytes that came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The payload does not open.
    #[error(transparent)]
    Payload(#[from] OpenError),
    /// The metadata does not open.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The data key does not unwrap.
    #[error(transparent)]
    Key(#[from] UnwrapError),
    /// A range does not lead to the root.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The object has an impossible length.
    #[error(transparent)]
    Length(RangePlanError),
    /// The custodian gave keys that cannot be used.
    #[error(transparent)]
    Block(#[from] BlockRefused),
    /// An answer breaks a rule of the protocol.
    #[error("an answer breaks the protocol: {0}")]
    Answer(&'static str),
}

/// Why a read gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No such object.
    #[error("no such object")]
    NotFound,
    /// It is past the point of no return.
    #[error("the object is being purged or is gone")]
    Gone,
    /// The range does not lie in the object.
    #[error(transparent)]
    Range(RangePlanError),
    /// Refused for good.
    #[error(transparent)]
    Refused(Refusal),
    /// Not possible in the time given.
    #[error("{}", in_vain(.0))]
    Unavailable(Trouble),
    /// The object was replaced or deleted while its bytes were being read.
    #[error("the object changed while it was being read; read it again")]
    Changed,
    /// Damaged or forged bytes.
    #[error("integrity: {0}")]
    Integrity(#[from] Damage),
}

/// Who is refused is not told that the cluster is unavailable.
fn in_vain(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Denied | Trouble::Stranger => trouble.to_string(),
        _ => format!("unavailable: {trouble}"),
    }
}

impl ReadError {
    /// What it means for the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotFound | Self::Gone => FailureKind::NotFound,
            Self::Range(_) | Self::Refused(_) | Self::Unavailable(Trouble::Denied | Trouble::Stranger) => {
                FailureKind::Refused
            }
            Self::Unavailable(_) | Self::Changed => FailureKind::Unavailable,
            Self::Integrity(_) => FailureKind::Integrity,
        }
    }
}

/// Why a put, delete or undelete is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No such object.
    #[error("no such object")]
    NotFound,
    /// It is past the point of no return.
    #[error("the object is being purged or is gone")]
    Gone,
    /// Refused for good; nothing happened.
    #[error(transparent)]
    Refused(Refusal),
    /// It did not happen and will not: it may be tried again.
    #[error("not applied: {0}")]
    NotApplied(Trouble),
    /// Whether it happened could not be learned in time.
    #[error("it is not known whether this was applied: {0}")]
    Unknown(Trouble),
    /// The connection broke, the source cannot be read again, and spooling was forbidden. Nothing
    /// happened.
    #[error("the connection broke and the source cannot be read again")]
    Unrepeatable,
    /// The source could not be read.
    #[error("cannot read the source: {0}")]
    Source(std::io::Error),
    /// The spool could not be written or read.
    #[error("cannot spool: {0}")]
    Spool(std::io::Error),
    /// The object is too long to be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The metadata is too long.
    #[error(transparent)]
    Metadata(MetadataError),
    /// The data key could not be wrapped.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Damaged or forged bytes.
    #[error("integrity: {0}")]
    Integrity(#[from] Damage),
}

impl WriteError {
    /// What it means for the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotFound | Self::Gone => FailureKind::NotFound,
            Self::Refused(Refusal::SingleDc) => FailureKind::Unavailable,
            Self::Refused(_)
            | Self::Seal(_)
            | Self::Metadata(_)
            | Self::NotApplied(Trouble::Denied | Trouble::Stranger) => FailureKind::Refused,
            Self::NotApplied(_) | Self::Unknown(_) | Self::Unrepeatable | Self::Wrap(_) => {
                FailureKind::Unavailable
            }
            Self::Source(_) | Self::Spool(_) => FailureKind::Local,
            Self::Integrity(_) => FailureKind::Integrity,
        }
    }
}
