//! Since when each node has been there without a doubt. A data centre that comes and goes would drag
//! the volumes in and out of their epochs: it is relied on again only when its stores have answered
//! for a while.
//!
//! Answering means both: renewals to the control plane, without a gap, and acknowledgements to the
//! primaries, none of whom complained.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::NodeId;
use trefoil_protocol::time::BootTime;

/// What this leader observed; a new one begins anew.
#[derive(Debug, Default)]
pub(crate) struct Steadiness {
    since: BTreeMap<NodeId, BootTime>,
}

impl Steadiness {
    /// Takes a look: these nodes are there now, and nobody else.
    pub(crate) fn look(&mut self, there: impl Iterator<Item = NodeId>, now: BootTime) {
        let before = std::mem::take(&mut self.since);
        self.since = there.map(|node| (node, before.get(&node).copied().unwrap_or(now))).collect();
    }

    /// A primary does not hear the node.
    pub(crate) fn doubt(&mut self, node: NodeId) {
        self.since.remove(&node);
    }

    /// Whether the node has been there for `long`.
    pub(crate) fn is_steady(&self, node: NodeId, long: Duration, now: BootTime) -> bool {
        self.since.get(&node).is_some_and(|since| now.since(*since) >= long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_gap_or_a_complaint_begins_the_count_anew() {
        let node: NodeId = "b1".parse().unwrap();
        let (mut steadiness, minute) = (Steadiness::default(), Duration::from_secs(60));
        steadiness.look([node].into_iter(), at(0));
        steadiness.look([node].into_iter(), at(59));
        assert!(!steadiness.is_steady(node, minute, at(59)));
        assert!(steadiness.is_steady(node, minute, at(60)));
        steadiness.look([].into_iter(), at(61));
        steadiness.look([node].into_iter(), at(62));
        assert!(!steadiness.is_steady(node, minute, at(121)));
        assert!(steadiness.is_steady(node, minute, at(122)));
        steadiness.doubt(node);
        steadiness.look([node].into_iter(), at(130));
        assert!(!steadiness.is_steady(node, minute, at(189)));
    }
}
