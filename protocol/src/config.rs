//! What the control plane decides and every other process obeys: who holds a volume, under which
//! epoch, by which rule an acknowledgement counts, and which past intervals may hold acknowledged
//! writes. These types only describe; the decisions are `placement`'s.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use minicbor::{Decode, Encode};

use crate::ids::{
    ConfigIndex, DcId, Epoch, Incarnation, LinkId, NodeId, PublicKey, RackId, StoreId, TenantId, TenantName,
    VolumeId, VoterId,
};
use crate::time::Millis;

/// The rule that the acknowledgements of an epoch follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Protection {
    /// At least two durable copies, at least one in each data centre.
    #[n(0)]
    BothDcs,
    /// At least two durable copies, possibly in one data centre; declared and ledgered.
    #[n(1)]
    SingleDc,
    /// Acknowledges like [`Protection::BothDcs`] while the other data centre still catches up with
    /// what was acknowledged under [`Protection::SingleDc`]; reported as `SingleDc`.
    #[n(2)]
    Restoring,
}

impl Protection {
    /// Whether the durable copies in `dcs` (one entry per copy) satisfy this rule.
    pub fn satisfied_by(self, dcs: impl IntoIterator<Item = DcId>) -> bool {
        let dcs: Vec<DcId> = dcs.into_iter().collect();
        let distinct: BTreeSet<DcId> = dcs.iter().copied().collect();
        match self {
            Self::BothDcs | Self::Restoring => dcs.len() >= 2 && distinct.len() >= 2,
            Self::SingleDc => dcs.len() >= 2,
        }
    }

    /// What status and receipts call it.
    pub fn reported(self) -> &'static str {
        match self {
            Self::BothDcs => "BothDcs",
            Self::SingleDc | Self::Restoring => "SingleDc",
        }
    }
}

/// What a tenant wants while one data centre cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum SingleDcPolicy {
    /// Writes go on in the other one, declared and ledgered.
    #[default]
    #[n(0)]
    Allow,
    /// Writes are refused until both hold everything again; reads go on.
    #[n(1)]
    Refuse,
}

/// What a tenant wants of reads of exact versions from replicas that have lost the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum StaleReads {
    /// They are refused: no answer may be about a version that is deleted by now.
    #[default]
    #[n(0)]
    Refuse,
    /// They are answered, marked, where the client says that it takes such an answer.
    #[n(1)]
    Allow,
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum MemberState {
    /// Holds everything; no write is acknowledged without it.
    #[n(0)]
    InSync,
    /// Takes new writes and counts for their copies, but still lacks older payload.
    #[n(1)]
    CatchingUp,
    /// Leads, because no store that holds everything is there: it has every record, and no write is
    /// acknowledged without it, but it may lack payload of older objects.
    #[n(2)]
    Owing,
}

impl MemberState {
    /// Whether nothing is acknowledged without such a member, so that it has every record.
    pub fn is_required(self) -> bool {
        self != Self::CatchingUp
    }
}

/// One store's part in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// The node that runs the store.
    #[n(0)]
    pub node: NodeId,
    /// Its data centre.
    #[n(1)]
    pub dc: DcId,
    /// The store.
    #[n(2)]
    pub store: StoreId,
    /// How far it is.
    #[n(3)]
    pub state: MemberState,
}

/// A past configuration that may have acknowledged writes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Interval {
    /// Its epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// Its primary.
    #[n(1)]
    pub primary: NodeId,
    /// The stores without which it acknowledged nothing.
    #[n(2)]
    pub in_sync: Vec<StoreId>,
    /// Whether it was activated, that is, may have acknowledged anything.
    #[n(3)]
    pub activated: bool,
    /// The stores that took new writes while they caught up.
    #[n(4)]
    pub catching_up: Vec<StoreId>,
    /// Whether those of `in_sync` alone could acknowledge nothing, so that one of those that caught up has
    /// each acknowledged record.
    #[n(5)]
    pub leans: bool,
    /// The one of `in_sync` that led and lacked payload.
    #[n(6)]
    pub owing: Option<StoreId>,
}

/// A volume's configuration as committed at `changed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeConfig {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Its only tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// Its slot among the tenant's volumes; see [`crate::key::volume_slot`].
    #[n(2)]
    pub slot: u32,
    /// The fencing number of this configuration.
    #[n(3)]
    pub epoch: Epoch,
    /// The member that orders writes, in sync or owing. `None` while no eligible store is reachable.
    #[n(4)]
    pub primary: Option<NodeId>,
    /// Two to four members.
    #[n(5)]
    pub members: Vec<Member>,
    /// The rule for acknowledgements.
    #[n(6)]
    pub protection: Protection,
    /// Whether the primary may acknowledge: committed before the first acknowledgement.
    #[n(7)]
    pub activated: bool,
    /// Where in the control plane's log this configuration was decided or activated.
    #[n(8)]
    pub changed: ConfigIndex,
    /// The last activated interval and everything after it, oldest first, this one excluded.
    #[n(9)]
    pub intervals: Vec<Interval>,
    /// Every store that may hold bytes of this volume; left only by wipe proof or permanent fence.
    #[n(10)]
    pub ever_held: Vec<StoreId>,
    /// How long a delete can be undone.
    #[n(11)]
    pub window: Millis,
    /// How long the first copy stays after the others are erased.
    #[n(12)]
    pub first_copy_retention: Millis,
    /// Whether writes go on under [`Protection::SingleDc`].
    #[n(13)]
    pub single_dc: SingleDcPolicy,
    /// The in-sync member that is to be primary next: the present one shall let what is under way end and
    /// then [yield](crate::message::control::ControlRequest::Yield).
    #[n(14)]
    pub handover: Option<StoreId>,
    /// Deletes that only lost stores had in their logs are on the control plane's list: the primary serves
    /// nothing before [its own log](crate::message::control::ControlRequest::Replay) has them.
    #[n(15)]
    pub replays: bool,
    /// Whether a member whose lease has run out may answer reads of exact versions.
    #[n(16)]
    pub stale_reads: StaleReads,
}

impl VolumeConfig {
    /// The member on `node`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The member with `store`.
    pub fn member_of_store(&self, store: StoreId) -> Option<&Member> {
        self.members.iter().find(|member| member.store == store)
    }

    /// Whether its members, if all of them are there, can acknowledge anything.
    pub fn can_acknowledge(&self) -> bool {
        self.protection.satisfied_by(self.members.iter().map(|member| member.dc))
    }

    /// The members that hold everything.
    pub fn in_sync(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::InSync)
    }

    /// The members without which nothing is acknowledged, complete or not.
    pub fn required(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state.is_required())
    }

    /// The members that still catch up.
    pub fn catching_up(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::CatchingUp)
    }

    /// The member that leads although it lacks payload.
    pub fn owing(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.state == MemberState::Owing)
    }

    /// Whether the required members alone could acknowledge nothing.
    pub fn leans(&self) -> bool {
        !self.protection.satisfied_by(self.required().map(|member| member.dc))
    }

    /// What is remembered of it once another one follows; nothing of one without a primary, which acknowledged
    /// nothing and could not be activated.
    pub fn as_interval(&self) -> Option<Interval> {
        Some(Interval {
            epoch: self.epoch,
            primary: self.primary?,
            in_sync: self.required().map(|member| member.store).collect(),
            activated: self.activated,
            catching_up: self.catching_up().map(|member| member.store).collect(),
            leans: self.leans(),
            owing: self.owing().map(|member| member.store),
        })
    }

    /// The last configuration that may have acknowledged anything, this one included.
    pub fn last_activated(&self) -> Option<Interval> {
        match self.activated {
            true => self.as_interval(),
            false => self.intervals.iter().rev().find(|interval| interval.activated).cloned(),
        }
    }

    /// The primary's member entry.
    pub fn primary_member(&self) -> Option<&Member> {
        self.primary.and_then(|node| self.member(node))
    }
}

/// Whether a node is thought to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum NodeState {
    /// Renews its lease.
    #[n(0)]
    Up,
    /// Silent for longer than [`crate::time::lease::DOWN_AFTER`].
    #[n(1)]
    Down,
    /// Its store is fenced for ever.
    #[n(2)]
    Fenced,
}

impl NodeState {
    /// What status calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Fenced => "fenced",
        }
    }
}

/// What operators want of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Duty {
    /// It holds volumes like any other.
    #[default]
    #[n(0)]
    Full,
    /// It gives up what it holds and gets nothing new.
    #[n(1)]
    Leaving,
}

/// Where a node listens on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkAddress {
    /// The link.
    #[n(0)]
    pub link: LinkId,
    /// The address, for the node plane and the tenant plane alike.
    #[cbor(n(1), with = "socket_address")]
    pub address: SocketAddr,
}

/// A voter of the control plane's log: a placement process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterEntry {
    /// The voter.
    #[n(0)]
    pub voter: VoterId,
    /// Its name, as in its certificate.
    #[n(1)]
    pub name: NodeId,
    /// Where it stands.
    #[n(2)]
    pub dc: DcId,
    /// Whether it only keeps the log: it holds no key and signs nothing.
    #[n(3)]
    pub witness: bool,
    /// Where nodes, operators and other voters find it.
    #[cbor(n(4), with = "socket_address")]
    pub control: SocketAddr,
    /// Where tenants find its custodian.
    #[cbor(n(5), with = "socket_address")]
    pub tenants: SocketAddr,
}

/// What a member of the control plane may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Stand {
    /// It votes.
    #[n(0)]
    Voting,
    /// It follows the log and has never voted.
    #[n(1)]
    Learning,
    /// It follows the log and votes again when the one returns for whose absence it was excused.
    #[n(2)]
    Excused,
}

impl Stand {
    /// What status calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Voting => "voting",
            Self::Learning => "learning",
            Self::Excused => "excused",
        }
    }
}

/// A storage node as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeEntry {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its data centre.
    #[n(1)]
    pub dc: DcId,
    /// Its rack.
    #[n(2)]
    pub rack: RackId,
    /// The store it runs.
    #[n(3)]
    pub store: StoreId,
    /// The store's public signing key.
    #[n(4)]
    pub store_key: PublicKey,
    /// The current run of its process.
    #[n(5)]
    pub incarnation: Incarnation,
    /// Bytes it may hold.
    #[n(6)]
    pub capacity: u64,
    /// Where it listens, by link.
    #[n(7)]
    pub addresses: Vec<LinkAddress>,
    /// Whether it is thought to be there.
    #[n(8)]
    pub state: NodeState,
    /// Its process id, as it reported it; for operators only.
    #[n(9)]
    pub pid: u32,
    /// What it shall hold.
    #[n(10)]
    pub duty: Duty,
}

impl NodeEntry {
    /// Whether volumes may be given to it.
    pub fn is_at_work(&self) -> bool {
        self.state == NodeState::Up && self.duty == Duty::Full
    }
}

/// A tenant as nodes and clients know it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TenantEntry {
    /// The tenant.
    #[n(0)]
    pub tenant: TenantId,
    /// Its name.
    #[n(1)]
    pub name: TenantName,
    /// How many volumes it has; a power of two.
    #[cbor(n(2), decode_with = "power_of_two")]
    pub volume_count: u32,
    /// How long a delete can be undone.
    #[n(3)]
    pub window: Millis,
    /// How long the first copy stays after the others are erased.
    #[n(4)]
    pub first_copy_retention: Millis,
    /// Whether writes go on while one data centre cannot be reached.
    #[n(5)]
    pub single_dc: SingleDcPolicy,
    /// Whether exact versions can be read from replicas that have lost the control plane.
    #[n(6)]
    pub stale_reads: StaleReads,
}

/// A volume count that [`crate::key::volume_slot`] can work with, or an error.
fn power_of_two<C>(d: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<u32, minicbor::decode::Error> {
    let at = d.position();
    let count = d.u32()?;
    if !count.is_power_of_two() {
        let text = format!("a tenant with {count} volumes, expected a power of two");
        return Err(minicbor::decode::Error::message(text).at(at));
    }
    Ok(count)
}

mod socket_address {
    use std::net::SocketAddr;

    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(super) fn encode<C, W: Write>(
        value: &SocketAddr,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.str(&value.to_string())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<SocketAddr, DecodeError> {
        d.str()?.parse().map_err(|_| DecodeError::message("invalid socket address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r016_an_acknowledgement_needs_two_copies_and_both_data_centres() {
        let (a, b): (DcId, DcId) = ("a".parse().unwrap(), "b".parse().unwrap());
        for rule in [Protection::BothDcs, Protection::Restoring] {
            assert!(rule.satisfied_by([a, b]));
            assert!(!rule.satisfied_by([a, a]));
            assert!(!rule.satisfied_by([b]));
        }
        assert!(Protection::SingleDc.satisfied_by([a, a]));
        assert!(!Protection::SingleDc.satisfied_by([a]));
    }
}
