//! At no instant of true time would two nodes serve the same volume. A node that would serve and
//! is asked by nobody counts: the danger is there before somebody meets it.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkers::Violation;

/// Who would serve each volume now.
#[derive(Clone, Debug, Default)]
pub struct SinglePrimary {
    serving: BTreeMap<u64, BTreeSet<String>>,
}

impl SinglePrimary {
    /// From now on this node would serve "latest" of this volume.
    pub fn begins(&mut self, volume: u64, node: &str, now: u64) -> Option<Violation> {
        let serving = self.serving.entry(volume).or_default();
        serving.insert(node.to_owned());
        (serving.len() > 1).then(|| Violation {
            checker: "single_primary",
            object: format!("volume {volume}"),
            at_ns: now,
            sentence: format!("{serving:?} would all serve it"),
        })
    }

    /// From now on this node would not serve this volume: its lease ended, it heard of a higher
    /// epoch, or it died. A paused node still would: it goes on where it was.
    pub fn ends(&mut self, volume: u64, node: &str) {
        if let Some(serving) = self.serving.get_mut(&volume) {
            serving.remove(node);
        }
    }

    /// The node's process died.
    pub fn dies(&mut self, node: &str) {
        for serving in self.serving.values_mut() {
            serving.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SinglePrimary;

    #[test]
    fn it_fires_when_a_second_node_begins_too_early() {
        let mut checker = SinglePrimary::default();
        assert_eq!(checker.begins(1, "a1", 5), None);
        assert_eq!(checker.begins(2, "b1", 5), None);
        let violation = checker.begins(1, "b1", 9).expect("two of them");
        assert_eq!((violation.object.as_str(), violation.at_ns), ("volume 1", 9));
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let mut checker = SinglePrimary::default();
        assert_eq!(checker.begins(1, "a1", 5), None);
        assert_eq!(checker.begins(1, "a1", 6), None);
        checker.ends(1, "a1");
        assert_eq!(checker.begins(1, "b1", 7), None);
        checker.dies("b1");
        assert_eq!(checker.begins(1, "a1", 8), None);
    }
}
