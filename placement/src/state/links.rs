//! The cross connections as operators want them used.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{ConfigIndex, LinkId};

/// Which links shall be spared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Links {
    #[n(0)]
    drained: BTreeSet<LinkId>,
    #[n(1)]
    changed: ConfigIndex,
}

impl Links {
    /// The links that nothing shall go over as long as there is another one.
    pub fn drained(&self) -> impl Iterator<Item = LinkId> {
        self.drained.iter().copied()
    }

    /// The command that changed them last.
    pub fn changed(&self) -> ConfigIndex {
        self.changed
    }

    pub(super) fn drain(&mut self, index: ConfigIndex, link: LinkId) {
        self.drained.insert(link);
        self.changed = index;
    }

    pub(super) fn restore(&mut self, index: ConfigIndex, link: LinkId) {
        self.drained.remove(&link);
        self.changed = index;
    }
}
