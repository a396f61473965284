//! What operators wanted against the rules and were refused: to go on without stores or voters that live, or
//! to approve alone. It is kept, so that whoever looks learns that somebody tried.

use minicbor::{Decode, Encode};

use crate::ids::{NodeId, OperatorId};
use crate::message::REASON_MAX;
use crate::message::approval::{JointAction, PROPOSAL_REASON_MAX};
use crate::time::CpTime;

/// The most voters that one attempt names.
pub const WITHOUT_MAX: usize = 64;

/// The most refused overrides in one [`crate::message::admin::ClusterStatus`].
pub const STATUS_REFUSED_MAX: usize = 32;

/// What somebody wanted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Override {
    /// To propose it.
    #[n(0)]
    Propose(#[n(0)] JointAction),
    /// To approve what was proposed.
    #[n(1)]
    Approve {
        /// The proposal's number.
        #[n(0)]
        number: u64,
        /// What was proposed, if there is such a proposal.
        #[n(1)]
        action: Option<JointAction>,
    },
    /// To begin the control plane's log anew.
    #[n(2)]
    Begin {
        /// The restore generation that it would have been.
        #[n(0)]
        begins: u64,
        /// The voters that would have been left out.
        #[cbor(n(1), decode_with = "crate::codec::list::<WITHOUT_MAX, _, _>")]
        without: Vec<NodeId>,
    },
}

/// An attempt that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RefusedOverride {
    /// When last.
    #[n(0)]
    pub at: CpTime,
    /// Who.
    #[n(1)]
    pub by: OperatorId,
    /// What.
    #[n(2)]
    pub what: Override,
    /// What for, in the operator's words.
    #[cbor(n(3), decode_with = "crate::codec::text::<PROPOSAL_REASON_MAX, _>")]
    pub reason: String,
    /// Why it was refused.
    #[cbor(n(4), decode_with = "crate::codec::text::<REASON_MAX, _>")]
    pub why: String,
    /// How often in a row.
    #[n(5)]
    pub times: u64,
}
