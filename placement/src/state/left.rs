//! Which stores may hold bytes of volumes that they are no members of any more. Most volumes of a large
//! cell have none, and a store is told of its own only.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::{StoreId, VolumeId};

/// The stores and the volumes that they left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Left {
    #[n(0)]
    by_store: BTreeSet<(StoreId, VolumeId)>,
    #[n(1)]
    of: BTreeMap<VolumeId, Vec<StoreId>>,
}

impl Left {
    /// These stores have left the volume, and no others.
    pub(super) fn note(&mut self, volume: VolumeId, stores: Vec<StoreId>) {
        let before = match stores.is_empty() {
            true => self.of.remove(&volume),
            false => self.of.insert(volume, stores.clone()),
        };
        for store in before.into_iter().flatten() {
            self.by_store.remove(&(store, volume));
        }
        self.by_store.extend(stores.into_iter().map(|store| (store, volume)));
    }

    /// The volumes that this store left.
    pub(super) fn by(&self, store: StoreId) -> impl Iterator<Item = VolumeId> {
        let volumes = self.by_store.range((store, VolumeId(0))..=(store, VolumeId(u64::MAX)));
        volumes.map(|(_, volume)| *volume)
    }

    /// The volumes that any store left.
    pub(super) fn volumes(&self) -> impl Iterator<Item = VolumeId> {
        self.of.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_by_what_it_left_until_it_has_left_nothing() {
        let mut left = Left::default();
        let (one, two) = (StoreId([1; 16]), StoreId([2; 16]));
        left.note(VolumeId(1), vec![one, two]);
        left.note(VolumeId(2), vec![one]);
        left.note(VolumeId(1), vec![two]);
        assert!(left.by(one).eq([VolumeId(2)]));
        assert!(left.by(two).eq([VolumeId(1)]));
        left.note(VolumeId(1), vec![]);
        assert!(left.volumes().eq([VolumeId(2)]));
    }
}
