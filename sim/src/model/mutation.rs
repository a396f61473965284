//! Guards that can be taken out of the model, one at a time. The search must then find a way to a
//! broken invariant: a model that does not miss a guard says nothing about it.

use std::str::FromStr;

/// A guard that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A member takes records of an epoch below the one that it promised.
    DropFencing,
    /// A purge ends after a time, whoever of those that ever held the volume is away.
    GcByTime,
    /// Any two copies acknowledge, and the third stays in sync.
    AckAtTwo,
    /// Two copies in both data centres acknowledge, and the third stays in sync.
    AckWithoutMember,
    /// An epoch is activated while a former primary's lease goes on.
    ServeBeforeLeaseOver,
    /// A primary acknowledges in one data centre before the control plane committed that.
    SingleDcNotCommitted,
    /// A signed order is obeyed before its record is committed, so an undelete may follow.
    UndeleteAfterOrder,
    /// A store that is no member leaves `ever_held` with that.
    EverHeldTrimmed,
    /// An epoch is activated before its in-sync members have the chosen log.
    ActivateUnprepared,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::DropFencing,
        Self::GcByTime,
        Self::AckAtTwo,
        Self::AckWithoutMember,
        Self::ServeBeforeLeaseOver,
        Self::SingleDcNotCommitted,
        Self::UndeleteAfterOrder,
        Self::EverHeldTrimmed,
        Self::ActivateUnprepared,
    ];

    /// The part in which the shortest way to what it breaks lies.
    #[must_use]
    pub fn part(self) -> &'static str {
        match self {
            Self::GcByTime | Self::UndeleteAfterOrder | Self::EverHeldTrimmed => "purge",
            Self::ActivateUnprepared => "return",
            _ => "failover",
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DropFencing => "drop_fencing",
            Self::GcByTime => "gc_by_time",
            Self::AckAtTwo => "ack_at_two",
            Self::AckWithoutMember => "ack_without_member",
            Self::ServeBeforeLeaseOver => "serve_before_lease_over",
            Self::SingleDcNotCommitted => "single_dc_not_committed",
            Self::UndeleteAfterOrder => "undelete_after_order",
            Self::EverHeldTrimmed => "ever_held_trimmed",
            Self::ActivateUnprepared => "activate_unprepared",
        }
    }
}

/// There is no such guard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no mutant {0:?}; there are {names}", names = Mutation::ALL.map(Mutation::name).join(", "))]
pub struct NoMutation(String);

impl FromStr for Mutation {
    type Err = NoMutation;

    fn from_str(name: &str) -> Result<Self, NoMutation> {
        Self::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| NoMutation(name.to_owned()))
    }
}
