//! Leases as their granter sees them: when each node was last heard and last granted, and which
//! configurations it said it had adopted. All on this leader's boot clock; nothing here survives a
//! change of leader, which instead assumes the worst.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::{ConfigIndex, NodeId};
use trefoil_protocol::time::{BootTime, lease};

/// A node that was silent for this long is not yet down, but nothing new is built on it.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(2);

const _: () = {
    assert!(SUSPECT_AFTER.as_nanos() > lease::RENEW_EVERY.as_nanos());
    assert!(SUSPECT_AFTER.as_nanos() < lease::DOWN_AFTER.as_nanos());
};

#[derive(Clone, Copy, Debug)]
struct Standing {
    heard: BootTime,
    granted: Option<BootTime>,
    acknowledged: ConfigIndex,
}

/// What this leader knows of the nodes' leases.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    began: BootTime,
    nodes: BTreeMap<NodeId, Standing>,
}

impl Grants {
    /// What a new leader, or a restarted single voter, must assume: every node has just renewed, has
    /// just been granted, and knows nothing.
    pub(crate) fn assume_all(nodes: impl Iterator<Item = NodeId>, now: BootTime) -> Self {
        let standing = Standing { heard: now, granted: Some(now), acknowledged: ConfigIndex(0) };
        Self { began: now, nodes: nodes.map(|node| (node, standing)).collect() }
    }

    /// A new run of the node: it has adopted nothing yet, but a grant of its former run may go on.
    pub(crate) fn registered(&mut self, node: NodeId, now: BootTime) {
        let granted = self.nodes.get(&node).and_then(|standing| standing.granted);
        self.nodes.insert(node, Standing { heard: now, granted, acknowledged: ConfigIndex(0) });
    }

    /// The node said that it has adopted everything up to `applied`.
    pub(crate) fn heard(&mut self, node: NodeId, applied: ConfigIndex, now: BootTime) {
        let standing =
            self.nodes.entry(node).or_insert(Standing { heard: now, granted: None, acknowledged: applied });
        standing.heard = now;
        // Renewals may arrive out of order; what was adopted once stays adopted in this run.
        standing.acknowledged = standing.acknowledged.max(applied);
    }

    /// The node is being told that its lease goes on.
    pub(crate) fn granted(&mut self, node: NodeId, now: BootTime) {
        let standing = self.nodes.get_mut(&node).expect("a grant answers a renewal that was heard");
        standing.granted = Some(now);
    }

    /// Whether the node can serve nothing any more that a change at `index` took from it: it
    /// acknowledged the change, or its last grant was waited out.
    pub(crate) fn released(&self, node: NodeId, index: ConfigIndex, now: BootTime) -> bool {
        match self.nodes.get(&node) {
            Some(standing) => {
                standing.acknowledged >= index
                    || standing.granted.is_none_or(|granted| now >= granted + lease::WAIT_OUT)
            }
            // Somebody before may have known it, and granted it a lease at the last moment.
            None => now >= self.began + lease::WAIT_OUT,
        }
    }

    /// How long the node has been silent.
    pub(crate) fn silence(&self, node: NodeId, now: BootTime) -> Duration {
        self.nodes.get(&node).map_or(Duration::MAX, |standing| now.since(standing.heard))
    }

    /// Whether the node was heard lately enough to build on it.
    pub(crate) fn is_fresh(&self, node: NodeId, now: BootTime) -> bool {
        self.silence(node, now) < SUSPECT_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(millis * 1_000_000)
    }

    #[test]
    fn r019_a_grant_is_waited_out_unless_the_change_was_acknowledged() {
        let node: NodeId = "a1".parse().unwrap();
        let mut grants = Grants::default();
        grants.heard(node, ConfigIndex(5), at(0));
        assert!(grants.released(node, ConfigIndex(9), at(0)), "never granted");
        grants.granted(node, at(100));
        assert!(!grants.released(node, ConfigIndex(9), at(7_099)));
        assert!(grants.released(node, ConfigIndex(9), at(7_100)));
        assert!(grants.released(node, ConfigIndex(5), at(100)));
        grants.heard(node, ConfigIndex(9), at(200));
        grants.heard(node, ConfigIndex(4), at(201));
        assert!(grants.released(node, ConfigIndex(9), at(201)), "an older renewal takes nothing back");
    }

    #[test]
    fn r019_a_new_run_has_acknowledged_nothing_and_its_former_grant_goes_on() {
        let node: NodeId = "a1".parse().unwrap();
        let mut grants = Grants::assume_all([node].into_iter(), at(0));
        grants.heard(node, ConfigIndex(9), at(1));
        grants.registered(node, at(2));
        assert!(!grants.released(node, ConfigIndex(9), at(6_999)));
        assert!(grants.released(node, ConfigIndex(9), at(7_000)));
    }
}
