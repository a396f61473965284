//! No tenant gets another tenant's bytes, and another tenant's object and no object answer alike.

use crate::checkers::Violation;

/// What a client got, with what the payload says of itself: simulated payloads name the tenant and
/// object that they were written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// True time of the answer.
    pub at_ns: u64,
    /// The tenant whose client asked.
    pub asked_by: String,
    /// The key that it asked for.
    pub key: String,
    /// The tenant for which the bytes were written.
    pub written_for: String,
    /// The key under which the bytes were written.
    pub written_under: String,
}

/// Fires if the bytes are somebody else's, or another object's.
#[must_use]
pub fn check(seen: &Answered) -> Option<Violation> {
    if seen.asked_by == seen.written_for && seen.key == seen.written_under {
        return None;
    }
    let object = format!("{}/{}", seen.written_for, seen.written_under);
    let sentence = format!("its bytes answered a read of {}/{}", seen.asked_by, seen.key);
    Some(Violation { checker: "isolation", object, at_ns: seen.at_ns, sentence })
}

/// Fires if a refusal tells whether a foreign object exists: both answers are given as the bytes
/// that the client got.
#[must_use]
pub fn check_refusals_alike(foreign: &[u8], missing: &[u8], object: &str, now: u64) -> Option<Violation> {
    (foreign != missing).then(|| Violation {
        checker: "isolation",
        object: object.to_owned(),
        at_ns: now,
        sentence: "a foreign object and a missing one are refused in different words".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Answered, check, check_refusals_alike};

    fn answered(written_for: &str, written_under: &str) -> Answered {
        Answered {
            at_ns: 5,
            asked_by: "acme".to_owned(),
            key: "k".to_owned(),
            written_for: written_for.to_owned(),
            written_under: written_under.to_owned(),
        }
    }

    #[test]
    fn it_fires_on_foreign_bytes_and_on_another_object() {
        assert_eq!(check(&answered("acme", "k")), None);
        let violation = check(&answered("globex", "k")).expect("foreign bytes");
        assert_eq!((violation.checker, violation.object.as_str()), ("isolation", "globex/k"));
        assert!(check(&answered("acme", "other")).is_some());
    }

    #[test]
    fn it_fires_when_a_refusal_tells_something() {
        assert_eq!(check_refusals_alike(b"no", b"no", "globex/k", 1), None);
        assert!(check_refusals_alike(b"forbidden", b"not found", "globex/k", 1).is_some());
    }
}
