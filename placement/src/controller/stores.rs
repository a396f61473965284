//! How stores are, in their own words since this leadership began: what their scrub found, what is stopped
//! on them, how far a suspect one has read itself. For operators only; nothing is decided by it.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::NodeId;
use trefoil_protocol::message::admin::StoreView;
use trefoil_protocol::message::control::StoreCondition;
use trefoil_protocol::time::BootTime;

/// Who said nothing more for this long is not at it any more.
const VERIFYING_FOR: Duration = Duration::from_secs(5);

/// What each node said last.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    conditions: BTreeMap<NodeId, StoreCondition>,
    verifying: BTreeMap<NodeId, (u32, u32, BootTime)>,
}

impl Stores {
    /// A node that serves said how its store is.
    pub(crate) fn note(&mut self, node: NodeId, condition: &StoreCondition) {
        self.verifying.remove(&node);
        self.conditions.insert(node, condition.clone());
    }

    /// A node whose store is suspect has read so many volumes of so many.
    pub(crate) fn verifying(&mut self, node: NodeId, read: u32, held: u32, now: BootTime) {
        self.conditions.remove(&node);
        self.verifying.insert(node, (read, held, now));
    }

    /// All of them.
    pub(crate) fn all(&self, now: BootTime) -> Vec<StoreView> {
        let serving = self.conditions.iter().map(|(node, condition)| StoreView {
            node: *node,
            oldest_unread: Some(condition.oldest_unread),
            damaged: condition.damaged,
            verifying: None,
            stopped: condition.stopped.clone(),
            load: Some(condition.load),
        });
        let lately = |(_, (.., at)): &(&NodeId, &(u32, u32, BootTime))| now.since(*at) < VERIFYING_FOR;
        let verifying = self.verifying.iter().filter(lately).map(|(node, (read, held, _))| StoreView {
            node: *node,
            oldest_unread: None,
            damaged: 0,
            verifying: Some((*read, *held)),
            stopped: Vec::new(),
            load: None,
        });
        serving.chain(verifying).collect()
    }
}
