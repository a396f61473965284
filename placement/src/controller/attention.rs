//! Which volumes a leader looks at: those that something happened to, at once; those that are not at
//! rest, in turn, since time alone may let them go on; and all of them when a node came, went or was
//! fenced. A cell has many volumes, most of them are quiet, and when many are not, the leader must
//! still come to its leases in between.
//!
//! It only saves work: every volume is looked at again after [`ALL_EVERY`] whatever was noted.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::{ConfigIndex, VolumeId};
use trefoil_protocol::time::BootTime;

use crate::controller::recruit::COPIES;
use crate::state::{State, VolumeRecord};

/// How often every volume is looked at, noted or not.
const ALL_EVERY: Duration = Duration::from_secs(5);

/// So many volumes that are not at rest have their turn at one time.
const IN_TURN: usize = 256;

/// What deserves a look.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    noted: BTreeSet<VolumeId>,
    restless: BTreeSet<VolumeId>,
    /// The last of the restless that had its turn.
    turn: VolumeId,
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

    /// This volume was looked at, and is not at rest: it will have its turn.
    pub(crate) fn is_restless(&mut self, volume: VolumeId) {
        self.restless.insert(volume);
    }

    /// The volumes that something happened to, or all if something happened that may concern any,
    /// in the order of their ids. They are no longer noted.
    pub(crate) fn noted(&mut self, state: &State, now: BootTime) -> BTreeSet<VolumeId> {
        let nodes = state.topology.nodes().map(|record| record.changed).max().unwrap_or_default();
        if self.all.as_ref().is_some_and(|all| all.nodes == nodes && now < all.at + ALL_EVERY) {
            return std::mem::take(&mut self.noted);
        }
        self.noted.clear();
        self.restless.clear();
        self.all = Some(Everything { at: now, nodes });
        state.volumes.all().map(|record| record.config.volume).collect()
    }

    /// The restless whose turn it is. They are no longer restless.
    pub(crate) fn in_turn(&mut self) -> Vec<VolumeId> {
        let behind = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
        let before = self.restless.range(..=self.turn);
        let due: Vec<VolumeId> = self.restless.range(behind).chain(before).take(IN_TURN).copied().collect();
        for volume in &due {
            self.restless.remove(volume);
            self.turn = *volume;
        }
        due
    }
}

/// Whether nothing is left to do for a volume while nobody says anything new about it.
pub(crate) fn is_at_rest(record: &VolumeRecord) -> bool {
    let config = &record.config;
    let nothing_wanted = record.wish.is_none() && config.handover.is_none();
    nothing_wanted
        && config.activated
        && config.primary.is_some()
        && config.protection == Protection::BothDcs
        && config.members.len() == COPIES
        && config.members.iter().all(|member| member.state == MemberState::InSync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_restless_volumes_each_has_its_turn() {
        let mut attention = Attention::default();
        let mut seen = Vec::new();
        for _ in 0..5 {
            (1..=600).for_each(|volume| attention.is_restless(VolumeId(volume)));
            seen.extend(attention.in_turn());
        }
        assert_eq!(seen.len(), 5 * IN_TURN);
        let expected = (0..5 * IN_TURN as u64).map(|n| VolumeId(n % 600 + 1));
        assert!(seen.into_iter().eq(expected));
    }
}
