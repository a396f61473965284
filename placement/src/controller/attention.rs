//! Which volumes a leader looks at: those that something happened to, those that are not at rest, and
//! all of them when a node came, went or was fenced. A cell has many volumes and most of them are quiet.
//!
//! It only saves work: every volume is looked at again after [`ALL_EVERY`] whatever was noted.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection, VolumeConfig};
use trefoil_protocol::ids::{ConfigIndex, VolumeId};
use trefoil_protocol::time::BootTime;

use crate::controller::recruit::COPIES;
use crate::state::State;

/// How often every volume is looked at, noted or not.
const ALL_EVERY: Duration = Duration::from_secs(5);

/// What deserves a look.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    noted: BTreeSet<VolumeId>,
    all: Option<Everything>,
}

/// The last look at everything.
#[derive(Debug)]
struct Everything {
    at: BootTime,
    /// The last change of a node that it took into account.
    nodes: ConfigIndex,
}

impl Attention {
    /// Something happened to this volume.
    pub(crate) fn note(&mut self, volume: VolumeId) {
        self.noted.insert(volume);
    }

    /// Something happened that may concern any volume.
    pub(crate) fn note_all(&mut self) {
        self.all = None;
    }

    /// The volumes to look at now, in the order of their ids. They are no longer noted.
    pub(crate) fn take(&mut self, state: &State, now: BootTime) -> BTreeSet<VolumeId> {
        let nodes = state.topology.nodes().map(|record| record.changed).max().unwrap_or_default();
        if self.all.as_ref().is_some_and(|all| all.nodes == nodes && now < all.at + ALL_EVERY) {
            return std::mem::take(&mut self.noted);
        }
        self.noted.clear();
        self.all = Some(Everything { at: now, nodes });
        state.volumes.all().map(|record| record.config.volume).collect()
    }
}

/// Whether nothing is left to do for a volume while nobody says anything new about it.
pub(crate) fn is_at_rest(config: &VolumeConfig) -> bool {
    config.activated
        && config.primary.is_some()
        && config.protection == Protection::BothDcs
        && config.members.len() == COPIES
        && config.members.iter().all(|member| member.state == MemberState::InSync)
}
