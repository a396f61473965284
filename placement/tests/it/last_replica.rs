//! A volume shrinks to its last replica, which then fails too: who was there before it was alone still
//! holds everything that was acknowledged, because one replica alone acknowledges nothing.

use trefoil_protocol::ids::NodeId;

use crate::cluster::{Cluster, node};

/// Three members, of which one is lost after the other. The last two names are those that were left.
fn down_to_one() -> (Cluster, [NodeId; 3]) {
    let mut cluster = Cluster::with_volume();
    let members: Vec<NodeId> = cluster.config().members.iter().map(|member| member.node).collect();
    let idle: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| !members.contains(id)).collect();
    let stop = |cluster: &mut Cluster, id: NodeId| {
        cluster.stop(&[id.as_str()]);
        cluster.run(30_000);
    };
    idle.into_iter().for_each(|id| stop(&mut cluster, id));
    let last = node(&cluster.primary());
    let others: Vec<NodeId> = members.iter().copied().filter(|id| *id != last).collect();
    stop(&mut cluster, others[0]);
    assert!(cluster.config().activated && cluster.config().members.len() == 2, "two acknowledge");
    stop(&mut cluster, others[1]);
    (cluster, [others[0], others[1], last])
}

fn return_of(cluster: &mut Cluster, id: NodeId) {
    cluster.restart(id.as_str());
    cluster.nodes.get_mut(&id).unwrap().renews = true;
    cluster.run(30_000);
}

#[test]
fn r025_a_last_replica_makes_nobody_incomplete_who_has_everything() {
    let (mut cluster, [first, second, last]) = down_to_one();
    assert!(!cluster.config().activated, "alone it acknowledges nothing");
    // It fails, and may have lost its tail.
    cluster.stop(&[last.as_str()]);
    cluster.run(30_000);
    return_of(&mut cluster, first);
    assert_eq!(cluster.config().primary, None, "it missed what the last two acknowledged");
    return_of(&mut cluster, second);
    assert!(cluster.config().activated);
    assert_eq!(cluster.config().primary, Some(second), "it has everything");
}

#[test]
fn r025_a_last_replica_goes_on_when_somebody_comes_to_acknowledge_with() {
    let (mut cluster, [first, _, last]) = down_to_one();
    return_of(&mut cluster, first);
    let config = cluster.config();
    assert!(config.activated && config.members.len() >= 2);
    assert_eq!(config.primary, Some(last));
}
