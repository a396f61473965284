//! Volumes in the order of their last change: what happened behind a position is found without a look
//! at the many volumes to which nothing happened.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{ConfigIndex, VolumeId};

/// The order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct ByChange {
    #[n(0)]
    order: BTreeSet<(ConfigIndex, VolumeId)>,
    #[n(1)]
    last: BTreeMap<VolumeId, ConfigIndex>,
}

impl ByChange {
    /// The last change of a volume was at `index`.
    pub(super) fn note(&mut self, volume: VolumeId, index: ConfigIndex) {
        if let Some(before) = self.last.insert(volume, index) {
            self.order.remove(&(before, volume));
        }
        self.order.insert((index, volume));
    }

    /// The volumes that changed behind `since`, oldest changes first.
    pub(super) fn after(&self, since: ConfigIndex) -> impl Iterator<Item = VolumeId> {
        self.order.range((since.next(), VolumeId(0))..).map(|(_, volume)| *volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_stands_where_it_changed_last() {
        let mut order = ByChange::default();
        for (volume, index) in [(1, 5), (2, 5), (3, 6), (1, 7)] {
            order.note(VolumeId(volume), ConfigIndex(index));
        }
        let after = |index| order.after(ConfigIndex(index)).map(|volume| volume.0).collect::<Vec<_>>();
        assert_eq!((after(0), after(5), after(6), after(7)), (vec![2, 3, 1], vec![3, 1], vec![1], vec![]));
    }
}
