//! What this node tells of its volumes with each renewal: what differs from what it told before, and
//! everything now and then, so that a cluster of many quiet volumes says little.
//!
//! It is for operators' eyes only: nothing is decided from it.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::control::VolumeStatistics;
use trefoil_protocol::time::BootTime;

/// How often everything is told, for a control plane that forgot.
const ALL_EVERY: Duration = Duration::from_secs(10);

/// Which volumes are looked at for what there is to tell of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of the node.
    All,
    /// Those that something happened to since the last look.
    Touched,
}

/// What was told since everything was told last.
#[derive(Debug, Default)]
pub(crate) struct Told {
    volumes: BTreeMap<VolumeId, VolumeStatistics>,
    all_at: Option<BootTime>,
}

impl Told {
    /// What was told may not have been heard: tell everything next time.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What to tell now of the volumes that this node leads. `look` says what it leads of those that are
    /// asked for.
    pub(crate) fn news(
        &mut self,
        look: impl FnOnce(Which) -> Vec<(VolumeId, Option<VolumeStatistics>)>,
        now: BootTime,
    ) -> Vec<VolumeStatistics> {
        let which = if self.all_at.is_none_or(|at| now >= at + ALL_EVERY) {
            *self = Self { volumes: BTreeMap::new(), all_at: Some(now) };
            Which::All
        } else {
            Which::Touched
        };
        let looked_at = look(which).into_iter();
        looked_at.filter_map(|(volume, statistics)| self.differs(volume, statistics)).collect()
    }

    /// What is new of a volume. One that another node led meanwhile is told again.
    fn differs(
        &mut self,
        volume: VolumeId,
        statistics: Option<VolumeStatistics>,
    ) -> Option<VolumeStatistics> {
        let before = match statistics {
            Some(statistics) => self.volumes.insert(volume, statistics),
            None => self.volumes.remove(&volume),
        };
        statistics.filter(|statistics| before.as_ref() != Some(statistics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(objects: u64) -> VolumeStatistics {
        VolumeStatistics {
            volume: VolumeId(1),
            objects,
            short_of_copies: 0,
            bytes: 0,
            at_risk: None,
            debt: 0,
        }
    }

    fn news(told: &mut Told, objects: u64, second: u64) -> usize {
        told.news(|_| vec![(VolumeId(1), Some(of(objects)))], BootTime(second * 1_000_000_000)).len()
    }

    #[test]
    fn only_what_changed_is_told_until_all_is_due_or_was_not_heard() {
        let mut told = Told::default();
        let said = [news(&mut told, 1, 0), news(&mut told, 1, 1), news(&mut told, 2, 2)];
        assert_eq!(said, [1, 0, 1]);
        told.forget();
        let said = [news(&mut told, 2, 3), news(&mut told, 2, 12), news(&mut told, 2, 13)];
        assert_eq!(said, [1, 0, 1]);
    }

    #[test]
    fn a_volume_that_somebody_else_led_meanwhile_is_told_again() {
        let mut told = Told::default();
        assert_eq!(news(&mut told, 1, 0), 1);
        assert!(told.news(|_| vec![(VolumeId(1), None)], BootTime(1)).is_empty());
        assert_eq!(news(&mut told, 1, 2), 1);
    }
}
