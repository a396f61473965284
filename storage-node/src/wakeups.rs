//! When each volume wants to be looked at again, so that a node with thousands of quiet volumes
//! looks at none of them.
//!
//! It only remembers what a replica said after its last event; a replica that was not asked again
//! after it changed would sleep for ever, so every way to a replica ends with [`Wakeups::set`].

use std::collections::{BTreeMap, BTreeSet};

use trefoil_protocol::ids::VolumeId;

/// The wakeups of all volumes by one clock, soonest first.
#[derive(Debug)]
pub(crate) struct Wakeups<T> {
    soonest: BTreeSet<(T, VolumeId)>,
    of: BTreeMap<VolumeId, T>,
}

impl<T> Default for Wakeups<T> {
    fn default() -> Self {
        Self { soonest: BTreeSet::new(), of: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Wakeups<T> {
    /// The volume wants to be woken at `at`, or not at all; what it said before is void.
    pub(crate) fn set(&mut self, volume: VolumeId, at: Option<T>) {
        let before = match at {
            Some(at) => self.of.insert(volume, at),
            None => self.of.remove(&volume),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.soonest.remove(&(before, volume));
        }
        if let Some(at) = at {
            self.soonest.insert((at, volume));
        }
    }

    /// The soonest of all.
    pub(crate) fn next(&self) -> Option<T> {
        self.soonest.first().map(|(at, _)| *at)
    }

    /// The volumes whose time has come, in the order of their ids.
    pub(crate) fn due(&self, now: T) -> BTreeSet<VolumeId> {
        self.soonest.iter().take_while(|(at, _)| *at <= now).map(|(_, volume)| *volume).collect()
    }
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::time::BootTime;

    use super::*;

    const fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn the_last_word_of_a_volume_counts() {
        let mut wakeups = Wakeups::default();
        wakeups.set(VolumeId(1), Some(at(5)));
        wakeups.set(VolumeId(2), Some(at(3)));
        assert_eq!(wakeups.next(), Some(at(3)));
        wakeups.set(VolumeId(2), Some(at(9)));
        assert_eq!(wakeups.next(), Some(at(5)));
        assert_eq!(wakeups.due(at(4)), BTreeSet::new());
        assert_eq!(wakeups.due(at(9)), BTreeSet::from([VolumeId(1), VolumeId(2)]));
        wakeups.set(VolumeId(1), None);
        wakeups.set(VolumeId(2), None);
        assert_eq!(wakeups.next(), None);
    }
}
