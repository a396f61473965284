//! A node gives a version without a mark under a live lease only. One that is marked goes to a tenant that allows it,
//! and never from a store that holds its delete durably; its bytes are those of the version.

use std::time::Duration;

use crate::checkers::Violation;

/// The longest that a lease lasts from when it was asked for.
const LEASE: Duration = Duration::from_secs(6);

/// A version that left a node, seen from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// True time at which it left.
    pub at_ns: u64,
    /// The object.
    pub object: String,
    /// The node.
    pub node: String,
    /// Whether it is marked as possibly stale.
    pub marked: bool,
    /// How long ago, by the node's clock, the last lease was asked for that it was given.
    pub leased_for: Duration,
    /// Whether the tenant allows stale reads.
    pub allowed: bool,
    /// Whether the store holds a committed delete of the version durably.
    pub deleted_here: bool,
}

/// Fires if it should not have been given, or not so.
#[must_use]
pub fn check(given: &Given) -> Option<Violation> {
    let what = match given {
        Given { marked: false, leased_for, .. } if *leased_for > LEASE => "unmarked, without a lease",
        Given { marked: true, allowed: false, .. } => "marked, to a tenant that allows no stale reads",
        Given { marked: true, deleted_here: true, .. } => "marked, although its delete is on the store",
        _ => return None,
    };
    Some(violation(&given.object, given.at_ns, format!("{} gave it {what}", given.node)))
}

/// Fires if a client was given other bytes than were written as this version.
#[must_use]
pub fn check_bytes(object: &str, written: Option<[u8; 32]>, given: &[u8], at_ns: u64) -> Option<Violation> {
    let is_it = written == Some(*blake3::hash(given).as_bytes());
    (!is_it).then(|| violation(object, at_ns, "the bytes are not those of the version".to_owned()))
}

fn violation(object: &str, at_ns: u64, sentence: String) -> Violation {
    Violation { checker: "stale_versions", object: object.to_owned(), at_ns, sentence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(marked: bool, seconds: u64) -> Given {
        let leased_for = Duration::from_secs(seconds);
        let (object, node) = ("acme/k".to_owned(), "a1".to_owned());
        Given { at_ns: 7, object, node, marked, leased_for, allowed: true, deleted_here: false }
    }

    #[test]
    fn under_a_lease_without_a_mark_and_then_with_one() {
        assert_eq!(check(&given(false, 5)), None);
        assert_eq!(check(&given(true, 9)), None);
    }

    #[test]
    fn it_fires_without_a_mark_without_consent_and_on_a_delete() {
        assert!(check(&given(false, 7)).is_some());
        assert!(check(&Given { allowed: false, ..given(true, 9) }).is_some());
        assert!(check(&Given { deleted_here: true, ..given(true, 9) }).is_some());
        assert_eq!(check_bytes("k", Some(*blake3::hash(b"x").as_bytes()), b"x", 1), None);
        assert!(check_bytes("k", Some(*blake3::hash(b"x").as_bytes()), b"y", 1).is_some());
        assert!(check_bytes("k", None, b"x", 1).is_some());
    }
}
