//! Nobody waits for ever: while everything that a volume needs is well and nothing new goes wrong,
//! some node serves it before long. Whether it is well is seen from outside, never asked of a node.

use std::collections::BTreeMap;

use crate::checkers::Violation;
use crate::trace::Seconds;

/// Since when each volume could have been served and was not.
#[derive(Clone, Debug)]
pub struct Liveness {
    within: u64,
    calm_since: u64,
    waiting: BTreeMap<u64, u64>,
}

/// What is seen of a volume at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A node serves it, and what it has to commit goes on.
    Served,
    /// Nobody serves it, and something that it needs is missing.
    Excused,
    /// Nobody serves it, and everything is there.
    Waiting,
}

impl Liveness {
    /// Volumes must be served after this long.
    #[must_use]
    pub fn within(within: u64) -> Self {
        Self { within, calm_since: 0, waiting: BTreeMap::new() }
    }

    /// Something broke, or was mended: everybody may need time again.
    pub fn disturbed(&mut self, now: u64) {
        self.calm_since = now;
    }

    /// A look at a volume.
    pub fn look(&mut self, volume: u64, sight: Sight, now: u64) -> Option<Violation> {
        if sight != Sight::Waiting {
            self.waiting.remove(&volume);
            return None;
        }
        let since = (*self.waiting.entry(volume).or_insert(now)).max(self.calm_since);
        (now.saturating_sub(since) > self.within).then(|| Violation {
            checker: "serves_again",
            object: format!("volume {volume}"),
            at_ns: now,
            sentence: format!(
                "nobody has served it since {} s, and all that it needs is well",
                Seconds(since).to_string().trim_start()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Liveness, Sight};

    #[test]
    fn it_fires_when_a_volume_waits_too_long_with_all_that_it_needs() {
        let mut checker = Liveness::within(10);
        assert_eq!(checker.look(1, Sight::Waiting, 5), None);
        assert_eq!(checker.look(1, Sight::Waiting, 15), None);
        let violation = checker.look(1, Sight::Waiting, 16).expect("eleven are too many");
        assert_eq!((violation.checker, violation.object.as_str()), ("serves_again", "volume 1"));
    }

    #[test]
    fn service_an_excuse_and_a_new_disturbance_each_begin_the_wait_anew() {
        for sight in [Sight::Served, Sight::Excused] {
            let mut checker = Liveness::within(10);
            checker.look(1, Sight::Waiting, 0);
            checker.look(1, sight, 9);
            assert_eq!(checker.look(1, Sight::Waiting, 19), None, "{sight:?}");
        }
        let mut checker = Liveness::within(10);
        checker.look(1, Sight::Waiting, 0);
        checker.disturbed(9);
        assert_eq!(checker.look(1, Sight::Waiting, 19), None);
        assert!(checker.look(1, Sight::Waiting, 20).is_some());
    }
}
