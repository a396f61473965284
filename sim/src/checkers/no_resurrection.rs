//! What was certified as gone stays gone: no read or listing shows it, no disk holds a run of its
//! ciphertext or its wrapped key, neither in a file nor in blocks that were given back.

use std::collections::BTreeMap;

use crate::checkers::Violation;
use crate::disk::{Region, SimDisk};
use crate::history::VersionTag;

/// The length of a run of ciphertext that proves that bytes survived.
pub const RUN_BYTES: usize = 64;
/// The least length of anything that is looked for: a shorter run may occur by chance.
const RUN_BYTES_MIN: usize = 32;

/// A version that must be gone.
#[derive(Clone, Debug)]
struct Purged {
    object: String,
    at_ns: u64,
    runs: Vec<Vec<u8>>,
}

/// Remembers what was certified as gone.
#[derive(Clone, Debug, Default)]
pub struct NoResurrection {
    purged: BTreeMap<VersionTag, Purged>,
    /// Acknowledged deletes that nobody began to undo: when each was acknowledged, of which object.
    deleted: BTreeMap<VersionTag, (u64, String)>,
}

impl NoResurrection {
    /// The deletion certificate of a version was issued. `runs` are pieces of its ciphertext, and its
    /// wrapped key.
    pub fn certified(&mut self, version: VersionTag, object: &str, runs: Vec<Vec<u8>>, now: u64) {
        assert!(runs.iter().all(|run| run.len() >= RUN_BYTES_MIN), "a shorter run may occur by chance");
        let purged = Purged { object: object.to_owned(), at_ns: now, runs };
        self.purged.entry(version).or_insert(purged);
    }

    /// A delete of a version was acknowledged.
    pub fn deleted(&mut self, version: VersionTag, object: &str, now: u64) {
        self.deleted.insert(version, (now, object.to_owned()));
    }

    /// Somebody begins to undelete the version: from now on it may be seen.
    pub fn undeleting(&mut self, version: VersionTag) {
        self.deleted.remove(&version);
    }

    /// Somebody saw the version, in an operation that he began at `invoked_at`.
    #[must_use]
    pub fn seen(&self, version: VersionTag, by: &str, invoked_at: u64, now: u64) -> Option<Violation> {
        if let Some((_, object)) = self.deleted.get(&version).filter(|(at, _)| invoked_at > *at) {
            let sentence = format!("{by} saw it after its delete was acknowledged");
            let object = object.clone();
            return Some(Violation { checker: "no_resurrection", object, at_ns: now, sentence });
        }
        let purged = self.purged.get(&version)?;
        (invoked_at > purged.at_ns).then(|| purged.violation(format!("{by} saw it again"), now))
    }

    /// Looks for one version in every durable byte of a store.
    #[must_use]
    pub fn scan_for(&self, version: VersionTag, node: &str, disk: &SimDisk, now: u64) -> Option<Violation> {
        let purged = self.purged.get(&version)?;
        let one = Self { purged: BTreeMap::from([(version, purged.clone())]), ..Self::default() };
        one.scan(node, disk, now).pop()
    }

    /// Looks at every durable byte of a store.
    #[must_use]
    pub fn scan(&self, node: &str, disk: &SimDisk, now: u64) -> Vec<Violation> {
        let runs = |purged: &'_ Purged| purged.runs.len();
        let owners: Vec<&Purged> =
            self.purged.values().flat_map(|purged| std::iter::repeat_n(purged, runs(purged))).collect();
        let needles: Vec<&[u8]> =
            self.purged.values().flat_map(|purged| purged.runs.iter().map(Vec::as_slice)).collect();
        let mut violations: Vec<Violation> = Vec::new();
        for (number, region, offset) in disk.find_any_durable(&needles) {
            let purged = owners[number];
            if violations.iter().any(|before| before.object == purged.object) {
                continue;
            }
            let place = match region {
                Region::File(path) => format!("in {path}"),
                Region::Freed(path) => format!("in freed blocks of {path}"),
            };
            let sentence = format!("its ciphertext or key lies on {node} {place} at byte {offset}");
            violations.push(purged.violation(sentence, now));
        }
        violations
    }
}

impl Purged {
    fn violation(&self, sentence: String, now: u64) -> Violation {
        let object = self.object.clone();
        Violation { checker: "no_resurrection", object, at_ns: now, sentence }
    }
}

#[cfg(test)]
mod tests {
    use trefoil_engine::{Disk, DiskFile};

    use super::NoResurrection;
    use crate::disk::{DiskModel, SimDisk};
    use crate::history::VersionTag;

    fn certified() -> NoResurrection {
        let mut checker = NoResurrection::default();
        checker.certified(VersionTag(1), "acme/k", vec![vec![0xcd; 64]], 10);
        checker
    }

    #[test]
    fn it_fires_on_a_read_that_began_after_the_certificate_only() {
        assert!(certified().seen(VersionTag(1), "client 1", 9, 12).is_none());
        assert!(certified().seen(VersionTag(2), "client 1", 11, 12).is_none());
        let violation = certified().seen(VersionTag(1), "client 1", 11, 12).expect("it is back");
        assert_eq!((violation.object.as_str(), violation.at_ns), ("acme/k", 12));
    }

    #[test]
    fn it_fires_on_durable_bytes_and_not_on_erased_ones() {
        let disk = SimDisk::new(1, 1, DiskModel::default());
        let file = disk.create("seg1").expect("created");
        disk.sync_directory("").expect("synced");
        file.write_at(5_000, &[&[0xcd; 64]]).expect("written");
        file.sync_data().expect("synced");
        let found = certified().scan("b1", &disk, 20);
        assert!(found[0].sentence.contains("on b1 in seg1 at byte 5000"), "{found:?}");
        file.punch(0, 8_192).expect("punched");
        file.sync_data().expect("synced");
        assert!(certified().scan("b1", &disk, 20).is_empty());
    }
}
