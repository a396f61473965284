//! The cross connections as operators want them used.

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{ConfigIndex, LinkId};
use trefoil_protocol::message::control::LinkPolicy;

/// What is wanted of each link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Links {
    #[n(0)]
    policies: Vec<LinkPolicy>,
    #[n(1)]
    changed: ConfigIndex,
}

impl Default for Links {
    fn default() -> Self {
        let unchanged = |link| LinkPolicy { link, drained: false, repair_limit: None };
        Self { policies: LinkId::ALL.map(unchanged).to_vec(), changed: ConfigIndex::default() }
    }
}

impl Links {
    /// What is wanted of each of them.
    pub fn policies(&self) -> &[LinkPolicy] {
        &self.policies
    }

    /// What is wanted of one of them.
    pub fn policy(&self, link: LinkId) -> LinkPolicy {
        *self.policies.iter().find(|policy| policy.link == link).expect("there is one of every link")
    }

    /// The command that changed them last.
    pub fn changed(&self) -> ConfigIndex {
        self.changed
    }

    pub(super) fn change(&mut self, index: ConfigIndex, link: LinkId, change: impl FnOnce(&mut LinkPolicy)) {
        let policy = self.policies.iter_mut().find(|policy| policy.link == link);
        change(policy.expect("there is one of every link"));
        self.changed = index;
    }
}
