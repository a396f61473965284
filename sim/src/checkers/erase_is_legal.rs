//! No store erases a version unless its delete is committed, its window is over in the control
//! plane's time, nothing holds it, and the log says PURGING; an undelete that came first wins.

use std::collections::BTreeMap;

use crate::checkers::Violation;
use crate::history::VersionTag;

/// How far the deletion of a version went, by committed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Deleted { window_ends: u64 },
    Purging,
}

#[derive(Clone, Debug)]
struct Fate {
    object: String,
    state: State,
    holds: u32,
    /// The store that keeps the first copy, until a record says that all others have erased.
    keeper: Option<String>,
}

/// What the committed logs say of each version.
#[derive(Clone, Debug, Default)]
pub struct EraseIsLegal {
    fates: BTreeMap<VersionTag, Fate>,
}

impl EraseIsLegal {
    /// A put is committed.
    pub fn put(&mut self, version: VersionTag, object: &str) {
        let fate = Fate { object: object.to_owned(), state: State::Live, holds: 0, keeper: None };
        self.fates.entry(version).or_insert(fate);
    }

    /// A delete, or an overwrite, of a version is committed; its window ends at this control-plane
    /// time.
    pub fn deleted(&mut self, version: VersionTag, window_ends: u64) {
        self.change(version, |fate| fate.state = State::Deleted { window_ends });
    }

    /// An undelete is committed. After PURGING there is none.
    pub fn undeleted(&mut self, version: VersionTag, now: u64) -> Option<Violation> {
        let fate = self.fates.get_mut(&version)?;
        if fate.state == State::Purging {
            return Some(fate.violation("it was undeleted after the point of no return", now));
        }
        fate.state = State::Live;
        None
    }

    /// Whatever hid the version is lost: operators let its volume go on without it.
    pub fn is_back(&mut self, version: VersionTag) {
        self.change(version, |fate| fate.state = State::Live);
    }

    /// A hold on a version is acknowledged, or released.
    pub fn holds(&mut self, version: VersionTag, count: u32) {
        self.change(version, |fate| fate.holds = count);
    }

    /// A PURGING record is committed, at this control-plane time, which names the store that erases last.
    pub fn purging(
        &mut self,
        version: VersionTag,
        keeper: &str,
        control_time: u64,
        now: u64,
    ) -> Option<Violation> {
        let fate = self.fates.get_mut(&version)?;
        if fate.state != State::Purging {
            fate.keeper = Some(keeper.to_owned());
        }
        let reason = match fate.state {
            _ if fate.holds > 0 => Some("it is purged under a hold"),
            State::Live => Some("it is purged and nobody deleted it"),
            State::Deleted { window_ends } if control_time < window_ends => {
                Some("it is purged before its window is over")
            }
            State::Deleted { .. } | State::Purging => None,
        };
        fate.state = State::Purging;
        reason.map(|reason| fate.violation(reason, now))
    }

    /// A record is committed that says that every other store has erased.
    pub fn others_erased(&mut self, version: VersionTag) {
        self.change(version, |fate| fate.keeper = None);
    }

    /// A store zeroes bytes of a version.
    #[must_use]
    pub fn erased(&self, version: VersionTag, store: &str, now: u64) -> Option<Violation> {
        let fate = self.fates.get(&version)?;
        let reason = match &fate.keeper {
            _ if fate.state != State::Purging => "without a PURGING record",
            Some(keeper) if keeper == store => "before the others, and was named to keep the first copy",
            _ => return None,
        };
        Some(fate.violation(&format!("{store} erased it {reason}"), now))
    }

    fn change(&mut self, version: VersionTag, change: impl FnOnce(&mut Fate)) {
        if let Some(fate) = self.fates.get_mut(&version) {
            change(fate);
        }
    }
}

impl Fate {
    fn violation(&self, sentence: &str, now: u64) -> Violation {
        let object = self.object.clone();
        Violation { checker: "erase_is_legal", object, at_ns: now, sentence: sentence.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::EraseIsLegal;
    use crate::history::VersionTag;

    const V: VersionTag = VersionTag(1);

    fn live() -> EraseIsLegal {
        let mut checker = EraseIsLegal::default();
        checker.put(V, "acme/k");
        checker
    }

    #[test]
    fn the_whole_way_is_legal() {
        let mut checker = live();
        checker.deleted(V, 100);
        assert_eq!(checker.purging(V, "a1", 100, 1), None);
        assert_eq!(checker.erased(V, "b1", 2), None);
    }

    #[test]
    fn it_fires_on_an_erase_without_a_committed_purge() {
        let mut checker = live();
        checker.deleted(V, 100);
        assert!(checker.erased(V, "b1", 2).is_some());
    }

    #[test]
    fn it_fires_on_a_purge_that_is_early_held_or_of_a_live_object() {
        let mut early = live();
        early.deleted(V, 100);
        assert!(early.purging(V, "a1", 99, 1).is_some());
        let mut held = live();
        held.deleted(V, 100);
        held.holds(V, 1);
        assert!(held.purging(V, "a1", 200, 1).is_some());
        let mut undeleted = live();
        undeleted.deleted(V, 100);
        assert_eq!(undeleted.undeleted(V, 1), None);
        assert!(undeleted.purging(V, "a1", 200, 2).is_some());
    }

    #[test]
    fn it_fires_on_an_undelete_after_the_point_of_no_return() {
        let mut checker = live();
        checker.deleted(V, 100);
        assert_eq!(checker.purging(V, "a1", 100, 1), None);
        assert!(checker.undeleted(V, 2).is_some());
    }

    #[test]
    fn it_fires_when_the_keeper_of_the_first_copy_is_not_the_last() {
        let mut checker = live();
        checker.deleted(V, 100);
        assert_eq!(checker.purging(V, "a1", 100, 1), None);
        assert!(checker.erased(V, "a1", 2).is_some());
        checker.others_erased(V);
        assert_eq!(checker.erased(V, "a1", 3), None);
    }
}
