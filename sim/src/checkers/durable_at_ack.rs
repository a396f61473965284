//! At the instant of an acknowledgement its copies are durable where its protection says: at least
//! two, and under `BothDcs` at least one in each data centre. It looks into the disks, so that it
//! needs no crash to find an acknowledgement given too early.

use std::collections::BTreeSet;

use crate::checkers::Violation;
use crate::network::Site;

/// What the acknowledgement promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// At least two copies, at least one in each data centre.
    BothDcs,
    /// At least two copies, in one data centre; declared before the acknowledgement.
    SingleDc,
}

/// One replica's state at the instant of the acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The store's name.
    pub node: String,
    /// Where it stands.
    pub dc: Site,
    /// Whether a power loss now would leave record and payload readable on it.
    pub durable: bool,
}

/// An acknowledged mutation, seen from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// True time at which the client's answer left the primary.
    pub at_ns: u64,
    /// The object.
    pub object: String,
    /// What was promised.
    pub protection: Protection,
    /// Every replica of the object's volume.
    pub copies: Vec<Copy>,
}

/// Fires if the promise is not kept.
#[must_use]
pub fn check(seen: &Acknowledgement) -> Option<Violation> {
    let durable: Vec<&Copy> = seen.copies.iter().filter(|copy| copy.durable).collect();
    let nodes: BTreeSet<&str> = durable.iter().map(|copy| copy.node.as_str()).collect();
    let dcs: BTreeSet<Site> = durable.iter().map(|copy| copy.dc).collect();
    let dcs_needed = match seen.protection {
        Protection::BothDcs => 2,
        Protection::SingleDc => 1,
    };
    if nodes.len() >= 2 && dcs.len() >= dcs_needed {
        return None;
    }
    let sentence = format!(
        "acknowledged under {:?} while durable only on {nodes:?} in {} data centre(s)",
        seen.protection,
        dcs.len()
    );
    let object = seen.object.clone();
    Some(Violation { checker: "durable_at_ack", object, at_ns: seen.at_ns, sentence })
}

#[cfg(test)]
mod tests {
    use super::{Acknowledgement, Copy, Protection, check};
    use crate::network::Site;

    fn seen(protection: Protection, durable: [bool; 3]) -> Acknowledgement {
        let places = [("a1", Site::A), ("a2", Site::A), ("b1", Site::B)];
        let copies = places.into_iter().zip(durable);
        let copy = |((node, dc), durable): ((&str, Site), bool)| Copy { node: node.to_owned(), dc, durable };
        let copies = copies.map(copy).collect();
        Acknowledgement { at_ns: 7, object: "acme/k".to_owned(), protection, copies }
    }

    #[test]
    fn two_copies_in_both_data_centres_are_enough() {
        assert_eq!(check(&seen(Protection::BothDcs, [true, false, true])), None);
        assert_eq!(check(&seen(Protection::SingleDc, [true, true, false])), None);
    }

    #[test]
    fn it_fires_on_too_few_copies_and_on_one_data_centre() {
        let one = check(&seen(Protection::SingleDc, [true, false, false])).expect("one copy");
        assert_eq!((one.checker, one.at_ns), ("durable_at_ack", 7));
        assert!(check(&seen(Protection::BothDcs, [true, true, false])).is_some());
    }

    #[test]
    fn it_fires_when_one_store_is_counted_twice() {
        let mut twice = seen(Protection::SingleDc, [true, true, false]);
        twice.copies[1].node = "a1".to_owned();
        assert!(check(&twice).is_some());
    }
}
