//! A store's persisted epoch of a volume never goes back, restarts included, and an epoch has one
//! primary for ever.

use std::collections::BTreeMap;

use crate::checkers::Violation;

/// What was seen of every volume's epochs.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    persisted: BTreeMap<(u64, String), u64>,
    primaries: BTreeMap<(u64, u64), String>,
}

impl Epochs {
    /// A store answers or acts under this epoch. A store that lost its disk has a new id.
    pub fn observed(&mut self, volume: u64, store: &str, epoch: u64, now: u64) -> Option<Violation> {
        let highest = self.persisted.entry((volume, store.to_owned())).or_insert(epoch);
        let before = *highest;
        *highest = before.max(epoch);
        let sentence = || format!("{store} went back from epoch {before} to {epoch}");
        (epoch < before).then(|| violation(volume, sentence(), now))
    }

    /// A store changed its log at the word of a message of this epoch: never of one below what it
    /// answers under.
    #[must_use]
    pub fn obeyed(&self, volume: u64, store: &str, epoch: u64, now: u64) -> Option<Violation> {
        let highest = *self.persisted.get(&(volume, store.to_owned()))?;
        let sentence = || format!("{store} is at epoch {highest} and obeyed epoch {epoch}");
        (epoch < highest).then(|| violation(volume, sentence(), now))
    }

    /// A node acts as primary of an epoch.
    pub fn leads(&mut self, volume: u64, epoch: u64, node: &str, now: u64) -> Option<Violation> {
        let first = self.primaries.entry((volume, epoch)).or_insert_with(|| node.to_owned());
        let sentence = || format!("epoch {epoch} has two primaries, {first} and {node}");
        (first != node).then(|| violation(volume, sentence(), now))
    }
}

fn violation(volume: u64, sentence: String, now: u64) -> Violation {
    Violation { checker: "epochs", object: format!("volume {volume}"), at_ns: now, sentence }
}

#[cfg(test)]
mod tests {
    use super::Epochs;

    #[test]
    fn it_fires_when_a_store_forgets_its_fence() {
        let mut checker = Epochs::default();
        assert_eq!(checker.observed(1, "a1", 4, 1), None);
        assert_eq!(checker.observed(1, "b1", 3, 2), None);
        assert!(checker.observed(1, "a1", 3, 3).is_some());
        assert!(checker.observed(1, "a1", 3, 4).is_some(), "it stays wrong");
        assert_eq!(checker.observed(1, "a1", 5, 5), None);
    }

    #[test]
    fn it_fires_when_a_store_obeys_an_epoch_that_it_has_left() {
        let mut checker = Epochs::default();
        assert_eq!(checker.observed(1, "a1", 4, 1), None);
        assert_eq!(checker.obeyed(1, "a1", 4, 2), None);
        assert!(checker.obeyed(1, "a1", 3, 3).is_some());
    }

    #[test]
    fn it_fires_when_an_epoch_has_two_primaries() {
        let mut checker = Epochs::default();
        assert_eq!(checker.leads(1, 4, "a1", 1), None);
        assert_eq!(checker.leads(1, 5, "b1", 2), None);
        assert!(checker.leads(1, 4, "b1", 3).is_some());
    }
}
