//! Which nodes a volume should live on. Rendezvous hashing weighted by capacity, so that the same
//! nodes give the same answer and a node that comes or goes moves little. Integers only: the ranks
//! are the same on every machine.

use std::collections::BTreeSet;

use trefoil_protocol::config::{Duty, Member, NodeEntry, NodeState};
use trefoil_protocol::ids::{DcId, NodeId, StoreId, TenantId, VolumeId};

use crate::state::{Topology, VolumeRecord};

/// How many members a volume shall have.
pub(crate) const COPIES: usize = 3;

/// Fewer members satisfy no rule: such a volume acknowledges nothing.
pub(crate) const COPIES_LEAST: usize = 2;

/// How many copies each data centre shall hold, as far as there are nodes up.
pub(crate) fn shape(topology: &Topology, home: DcId, members: &[Member]) -> Vec<(DcId, usize)> {
    let up: BTreeSet<DcId> = up_nodes(topology).map(|entry| entry.dc).collect();
    let used = up.iter().find(|dc| **dc != home && members.iter().any(|member| member.dc == **dc));
    let other = used.or_else(|| up.iter().find(|dc| **dc != home)).copied();
    match (up.contains(&home), other) {
        (true, Some(other)) => vec![(home, 2), (other, 1)],
        (true, None) => vec![(home, COPIES)],
        (false, Some(other)) => vec![(other, COPIES)],
        (false, None) => Vec::new(),
    }
}

/// Nodes that are up in a run that has renewed.
pub(crate) fn up_nodes(topology: &Topology) -> impl Iterator<Item = &NodeEntry> {
    let entries = topology.nodes().map(|record| &record.entry);
    entries.filter(|entry| entry.state == NodeState::Up && !topology.is_unconfirmed(entry))
}

/// The data centre that lacks copies most, one without any first.
pub(crate) fn neediest(shape: &[(DcId, usize)], members: &[Member]) -> Option<DcId> {
    let held = |dc: DcId| members.iter().filter(|member| member.dc == dc).count();
    let lacking = shape.iter().filter(|(dc, target)| held(*dc) < *target);
    lacking.max_by_key(|(dc, target)| (held(*dc) == 0, target - held(*dc))).map(|(dc, _)| *dc)
}

/// Why nobody is recruited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecruit {
    /// Nobody is there.
    Nobody,
    /// Somebody may be there; it shows within a second.
    NotSure,
}

/// What must be known of a node before something new is built on it.
pub(crate) struct Fitness<'a> {
    /// Heard lately.
    pub(crate) fresh: &'a dyn Fn(NodeId) -> bool,
    /// Reported as unreachable from this volume's primary a while ago.
    pub(crate) shunned: &'a dyn Fn(StoreId) -> bool,
    /// Never held the volume, which was moved often enough lately.
    pub(crate) too_often: &'a dyn Fn(StoreId) -> bool,
    /// There for so long that it may be relied on again.
    pub(crate) steady: &'a dyn Fn(NodeId) -> bool,
    /// Put out for being slow, and not well for long enough since.
    pub(crate) unfit: &'a dyn Fn(StoreId) -> bool,
    /// Slow now, for the volume's primary at least.
    pub(crate) slow: &'a dyn Fn(StoreId) -> bool,
}

impl Fitness<'_> {
    /// For what operators asked for, or what every write would wait for: it is no move too many.
    pub(crate) fn at_will(&self) -> Fitness<'_> {
        Fitness { too_often: &|_| false, ..*self }
    }

    /// For a volume that acknowledges nothing as it is: no caution may keep it from a store that might
    /// answer after all.
    pub(crate) fn in_need(&self) -> Fitness<'_> {
        Fitness { shunned: &|_| false, unfit: &|_| false, ..*self }
    }
}

/// The best node in `dc` that is not a member yet: in another rack, with data from before, by rank.
pub(crate) fn recruit<'a>(
    topology: &'a Topology,
    record: &VolumeRecord,
    members: &[Member],
    dc: DcId,
    fitness: &Fitness<'_>,
) -> Result<&'a NodeEntry, NoRecruit> {
    let urgent = members.len() < COPIES_LEAST || members.iter().all(|member| member.dc == members[0].dc);
    let candidates: Vec<&NodeEntry> = up_nodes(topology)
        .filter(|entry| entry.duty == Duty::Full)
        .filter(|entry| entry.dc == dc && members.iter().all(|member| member.node != entry.node))
        .filter(|entry| !(fitness.shunned)(entry.store) && !(fitness.unfit)(entry.store))
        .filter(|entry| record.may_hold(entry.store))
        .filter(|entry| urgent || !(fitness.too_often)(entry.store))
        .collect();
    let fresh = candidates.iter().filter(|entry| (fitness.fresh)(entry.node));
    let rank = |entry: &&&NodeEntry| {
        let rack_used = members.iter().any(|member| {
            member.dc == dc && topology.node(member.node).is_some_and(|other| other.rack == entry.rack)
        });
        let holds_data = record.config.ever_held.contains(&entry.store);
        let score = rendezvous(record.config.tenant, record.config.volume, entry);
        (rack_used, !holds_data, score, entry.node)
    };
    match fresh.min_by_key(rank) {
        Some(entry) => Ok(entry),
        None if candidates.is_empty() => Err(NoRecruit::Nobody),
        None => Err(NoRecruit::NotSure),
    }
}

/// The nodes of a new volume: two in `home`, one elsewhere, the best ranked in each.
pub(crate) fn place(topology: &Topology, tenant: TenantId, volume: VolumeId, home: DcId) -> Vec<NodeEntry> {
    let mut chosen: Vec<NodeEntry> = Vec::new();
    for (dc, count) in shape(topology, home, &[]) {
        let in_dc = up_nodes(topology).filter(|entry| entry.dc == dc && entry.duty == Duty::Full);
        let mut ranked: Vec<&NodeEntry> = in_dc.collect();
        ranked.sort_by_key(|entry| (rendezvous(tenant, volume, entry), entry.node));
        for _ in 0..count {
            let racks: BTreeSet<_> = chosen.iter().filter(|e| e.dc == dc).map(|e| e.rack).collect();
            let free = |entry: &&&NodeEntry| chosen.iter().all(|other| other.node != entry.node);
            let apart = ranked.iter().filter(free).find(|entry| !racks.contains(&entry.rack));
            let next = apart.or_else(|| ranked.iter().find(free)).map(|entry| (*entry).clone());
            chosen.extend(next);
        }
    }
    chosen
}

/// The lower, the better: -log2(hash) / capacity, in fixed point.
pub(crate) fn rendezvous(tenant: TenantId, volume: VolumeId, entry: &NodeEntry) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"trefoil/v1/rendezvous");
    hasher.update(&tenant.0.to_le_bytes());
    hasher.update(&volume.0.to_le_bytes());
    hasher.update(entry.node.as_str().as_bytes());
    let first = hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes");
    let mebibytes = (entry.capacity >> 20).max(1);
    negative_log2(u64::from_le_bytes(first)) / mebibytes
}

/// -log2(value / 2^64) with 58 bits behind the point.
fn negative_log2(value: u64) -> u64 {
    let value = value.max(1);
    let mut mantissa = u128::from(value) << value.leading_zeros();
    let mut log = u64::from(63 - value.leading_zeros());
    for _ in 0..58 {
        mantissa = (mantissa * mantissa) >> 63;
        let carry = mantissa >> 64;
        mantissa >>= carry;
        log = (log << 1) | u64::try_from(carry).expect("one bit");
    }
    (64u128 << 58).saturating_sub(u128::from(log)).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_protocol::ids::{Incarnation, PublicKey};

    fn node(name: &str, capacity: u64) -> NodeEntry {
        NodeEntry {
            node: name.parse().unwrap(),
            dc: "a".parse().unwrap(),
            rack: "r".parse().unwrap(),
            store: StoreId([1; 16]),
            store_key: PublicKey([1; 32]),
            incarnation: Incarnation(1),
            capacity,
            addresses: Vec::new(),
            state: NodeState::Up,
            pid: 1,
            duty: Duty::Full,
        }
    }

    #[test]
    fn the_logarithm_is_right_where_it_is_known() {
        assert_eq!(negative_log2(1 << 63), 1 << 58);
        assert_eq!(negative_log2(1 << 62), 2 << 58);
        assert!(negative_log2(u64::MAX) < 1 << 10);
        assert!(negative_log2(3 << 62) < negative_log2(1 << 63));
    }

    #[test]
    fn a_node_twice_as_large_wins_twice_as_often() {
        let nodes = [node("a1", 1 << 30), node("a2", 2 << 30), node("a3", 1 << 30)];
        let mut wins = [0; 3];
        for volume in 0..2000 {
            let score = |i: &usize| rendezvous(TenantId(1), VolumeId(volume), &nodes[*i]);
            wins[(0..3).min_by_key(score).unwrap()] += 1;
        }
        assert!((900..1100).contains(&wins[1]), "{wins:?}");
        assert!((400..600).contains(&wins[0]), "{wins:?}");
    }
}
