//! What one operator alone may not do: one proposes it and says why, another one approves it, and the
//! control plane keeps both names with what both were shown.

use minicbor::{Decode, Encode};

use crate::ids::{Epoch, OperatorId, StoreId, VolumeId};
use crate::time::CpTime;

/// The longest reason that an operator may give, in bytes.
pub const PROPOSAL_REASON_MAX: usize = 1024;

/// What two operators must want before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JointAction {
    /// A volume whose complete stores are all gone goes on with another store and without what only
    /// they have.
    #[n(0)]
    AcceptLoss {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The epoch that it is down in.
        #[n(1)]
        epoch: Epoch,
        /// The store that it goes on with.
        #[n(2)]
        store: StoreId,
    },
    /// A store that a volume went on without gives up all that it has of the volume.
    #[n(1)]
    Discard {
        /// The volume.
        #[n(0)]
        volume: VolumeId,
        /// The store.
        #[n(1)]
        store: StoreId,
    },
}

/// How a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ProposalState {
    /// It waits for another operator.
    #[n(0)]
    Open,
    /// It was approved, and done with the approval.
    #[n(1)]
    Approved {
        /// By whom.
        #[n(0)]
        by: OperatorId,
        /// When.
        #[n(1)]
        at: CpTime,
    },
    /// Nobody approved it in time.
    #[n(2)]
    Expired,
}

/// A proposal as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProposalView {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// What is to be done.
    #[n(1)]
    pub action: JointAction,
    /// Who proposed it.
    #[n(2)]
    pub by: OperatorId,
    /// When.
    #[n(3)]
    pub at: CpTime,
    /// Until when it can be approved.
    #[n(4)]
    pub expires: CpTime,
    /// Why, in the proposer's words.
    #[cbor(n(5), decode_with = "crate::codec::text::<PROPOSAL_REASON_MAX, _>")]
    pub reason: String,
    /// What it does and costs, as both were shown.
    #[n(6)]
    pub shown: Vec<String>,
    /// How it stands.
    #[n(7)]
    pub state: ProposalState,
}
