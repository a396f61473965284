//! What operators want of the cluster as a whole, and what a plan of it says: what would move, what it
//! risks, how long it takes, how to undo it. A plan has a number and is applied as it is or not at all.

use minicbor::{Decode, Encode};

use crate::ids::{ConfigIndex, DcId, LinkId, NodeId, VolumeId};
use crate::time::Millis;

/// What can be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verb {
    /// Every primary leaves a data centre, and every volume has two copies in the other one.
    #[n(0)]
    Failover(#[n(0)] DcId),
    /// Volumes that were at home in a data centre return to it.
    #[n(1)]
    Failback(#[n(0)] DcId),
    /// A node gives up everything that it holds, and gets nothing new.
    #[n(2)]
    DrainNode(#[n(0)] NodeId),
    /// A node takes volumes again.
    #[n(3)]
    RestoreNode(#[n(0)] NodeId),
    /// A node that holds nothing is forgotten.
    #[n(4)]
    RemoveNode(#[n(0)] NodeId),
    /// Nothing goes over a link as long as there is another one.
    #[n(5)]
    DrainLink(#[n(0)] LinkId),
    /// A link is used again.
    #[n(6)]
    RestoreLink(#[n(0)] LinkId),
    /// Repair takes so many bytes a second of a link, or as many as there are.
    #[n(9)]
    LimitRepair {
        /// The link.
        #[n(0)]
        link: LinkId,
        /// In either direction.
        #[n(1)]
        per_second: Option<u64>,
    },
    /// Volumes move to where they would be placed today, as few as possible.
    #[n(7)]
    Rebalance,
    /// Who keeps the control plane's log changes.
    #[n(8)]
    Voters(#[n(0)] VoterVerb),
}

/// What can be done about the control plane's voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum VoterVerb {
    /// A process that waits to join becomes a learner, and votes when it has the whole log.
    #[n(0)]
    Add(#[n(0)] NodeId),
    /// A voter leaves for ever.
    #[n(1)]
    Remove(#[n(0)] NodeId),
    /// Another one takes a voter's place before that leaves.
    #[n(2)]
    Replace {
        /// Who leaves.
        #[n(0)]
        old: NodeId,
        /// Who joins.
        #[n(1)]
        new: NodeId,
    },
}

/// What a plan does to one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepView {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The data centre that gets two copies.
    #[n(1)]
    pub home: Option<DcId>,
    /// The next primary.
    #[n(2)]
    pub lead: Option<NodeId>,
    /// The node that gives its copy up.
    #[n(3)]
    pub leave: Option<NodeId>,
    /// The node that gets a copy.
    #[n(4)]
    pub join: Option<NodeId>,
    /// Objects that are copied.
    #[n(5)]
    pub objects: u64,
    /// Their sealed bytes.
    #[n(6)]
    pub bytes: u64,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PlanView {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// The state that it was made from.
    #[n(1)]
    pub made_from: ConfigIndex,
    /// What was asked for.
    #[n(2)]
    pub verb: Verb,
    /// What happens to which volume.
    #[n(3)]
    pub steps: Vec<StepView>,
    /// What is less safe or less available meanwhile.
    #[n(4)]
    pub risks: Vec<String>,
    /// What it cannot do, and why.
    #[n(5)]
    pub cannot: Vec<String>,
    /// How long it takes, by what was measured; `None` if nothing was yet.
    #[n(6)]
    pub expected: Option<Millis>,
    /// How it is undone.
    #[n(7)]
    pub undo: String,
}

/// How far the plan is that was applied last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// What was asked for.
    #[n(1)]
    pub verb: Verb,
    /// How many volumes it concerns.
    #[n(2)]
    pub volumes: u32,
    /// How many of them are not yet as they shall be.
    #[n(3)]
    pub left: u32,
    /// How many primaries changed by handover under this leader of the control plane.
    #[n(4)]
    pub handovers: u64,
    /// The longest time that one of them kept writers waiting.
    #[n(5)]
    pub longest_pause: Millis,
    /// What is still waited for, in words.
    #[n(6)]
    pub waiting: Vec<String>,
}
