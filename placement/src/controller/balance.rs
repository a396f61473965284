//! Evens out what nodes hold: within each data centre every node shall have its share of the copies,
//! by capacity. Only what a node has too much of moves, and of that the volumes that rendezvous hashing
//! would rather see where they go.

use std::collections::BTreeMap;

use trefoil_protocol::config::{MemberState, NodeEntry};
use trefoil_protocol::ids::{DcId, NodeId, VolumeId};

use crate::controller::recruit::{rendezvous, up_nodes};
use crate::state::{State, VolumeRecord};

/// The moves, each of one volume, from a node to a node of the same data centre; of a volume at most one.
pub(crate) fn balance(state: &State) -> Vec<(VolumeId, NodeId, NodeId)> {
    let mut by_dc: BTreeMap<DcId, Vec<&NodeEntry>> = BTreeMap::new();
    for entry in up_nodes(&state.topology).filter(|entry| entry.is_at_work()) {
        by_dc.entry(entry.dc).or_default().push(entry);
    }
    let mut moves: Vec<(VolumeId, NodeId, NodeId)> = Vec::new();
    for nodes in by_dc.values() {
        even_out(state, nodes, &mut moves);
    }
    moves.sort_unstable();
    moves
}

fn even_out(state: &State, nodes: &[&NodeEntry], moves: &mut Vec<(VolumeId, NodeId, NodeId)>) {
    let holds = |record: &&VolumeRecord, node: NodeId| record.config.member(node).is_some();
    let count = |node: NodeId| state.volumes.all().filter(|record| holds(record, node)).count() as u64;
    let mut held: BTreeMap<NodeId, u64> = nodes.iter().map(|entry| (entry.node, count(entry.node))).collect();
    let total: u64 = held.values().sum();
    let capacity: u64 = nodes.iter().map(|entry| mebibytes(entry)).sum();
    let share = |entry: &NodeEntry| {
        let exact = u128::from(total) * u128::from(mebibytes(entry));
        (u64::try_from(exact / u128::from(capacity)).unwrap_or(u64::MAX), exact % u128::from(capacity) > 0)
    };
    loop {
        // From whoever is furthest above the share, rounded up, to whoever is furthest below it, rounded
        // down; or, if only one of the two is out of bounds, from or to the one nearest to the other bound.
        let above = |entry: &NodeEntry| {
            held[&entry.node] as i128 - i128::from(share(entry).0) - i128::from(share(entry).1)
        };
        let below = |entry: &NodeEntry| i128::from(share(entry).0) - held[&entry.node] as i128;
        let Some(from) = nodes.iter().max_by_key(|entry| (above(entry), entry.node)) else { return };
        let Some(to) = nodes.iter().max_by_key(|entry| (below(entry), entry.node)) else { return };
        if from.node == to.node || (above(from) <= 0 && below(to) <= 0) || above(from) < 0 || below(to) < 0 {
            return;
        }
        let Some(volume) = pick(state, moves, from, to) else { return };
        moves.push((volume, from.node, to.node));
        *held.get_mut(&from.node).expect("it is one of them") -= 1;
        *held.get_mut(&to.node).expect("it is one of them") += 1;
    }
}

/// The volume on `from` that would rather be on `to`.
fn pick(
    state: &State,
    moves: &[(VolumeId, NodeId, NodeId)],
    from: &NodeEntry,
    to: &NodeEntry,
) -> Option<VolumeId> {
    let can_move = |record: &&VolumeRecord| {
        let config = &record.config;
        let settled = config.activated && config.members.iter().all(|m| m.state == MemberState::InSync);
        settled
            && config.member(from.node).is_some()
            && config.member(to.node).is_none()
            && moves.iter().all(|(volume, ..)| *volume != config.volume)
    };
    let apart = |record: &VolumeRecord| {
        let others = record.config.members.iter().filter(|m| m.node != from.node && m.dc == to.dc);
        let racks = others.filter_map(|member| state.topology.node(member.node)).map(|entry| entry.rack);
        !racks.into_iter().any(|rack| rack == to.rack)
    };
    let rank = |record: &&VolumeRecord| {
        let (tenant, volume) = (record.config.tenant, record.config.volume);
        (!apart(record), rendezvous(tenant, volume, to), volume)
    };
    state.volumes.all().filter(can_move).min_by_key(rank).map(|record| record.config.volume)
}

fn mebibytes(entry: &NodeEntry) -> u64 {
    (entry.capacity >> 20).max(1)
}
