//! What must be true at every moment. Said of what clients were told, never in terms of the rules
//! that are to bring it about.

use super::node::gives;
use super::record::{is_readable, step};
use super::state::{Broken, State, each, has};
use super::{OBJECTS, node, object};

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
}

/// All of them.
pub const INVARIANTS: [Invariant; 8] = [
    Invariant { name: "acked_is_kept", says: "what was acknowledged is there for whoever rightfully leads" },
    Invariant { name: "deleted_stays_deleted", says: "no read returns what was acknowledged as deleted" },
    Invariant {
        name: "latest_is_not_stale",
        says: "\"latest\" is the last acknowledged state, whoever answers",
    },
    Invariant { name: "one_primary", says: "at most one node would answer \"latest\"" },
    Invariant { name: "one_history", says: "committed histories agree, and nothing committed is cut" },
    Invariant {
        name: "copies_at_ack",
        says: "an acknowledgement has two copies, in both data centres unless SingleDc was committed",
    },
    Invariant {
        name: "undelete_or_purge",
        says: "of an undelete and a purge one wins, and bytes go with it",
    },
    Invariant {
        name: "certificate_is_true",
        says: "what is certified as gone is on no store that may ever be a member, then and afterwards",
    },
];

/// The first invariant that a state breaks, with a sentence.
#[must_use]
pub(crate) fn broken<const N: usize>(state: &State<N>) -> Option<(usize, String)> {
    in_step(state).or_else(|| of_answers(state)).or_else(|| of_bytes(state))
}

fn in_step<const N: usize>(state: &State<N>) -> Option<(usize, String)> {
    let (index, sentence) = match state.broken? {
        Broken::History => (4, "this parts from what was committed before"),
        Broken::Copies => (5, "that is acknowledged with too few copies"),
        Broken::BothWon => (6, "an undelete and a purge of one tombstone are both committed"),
    };
    Some((index, sentence.to_owned()))
}

fn of_answers<const N: usize>(state: &State<N>) -> Option<(usize, String)> {
    let answering = (0..N).filter(|n| state.nodes[*n].answers());
    let rightful = usize::from(state.control.config().primary);
    let mut first = None;
    for n in answering {
        for (of, acknowledged) in state.acknowledged.into_iter().enumerate() {
            let (told, true_now) = (state.nodes[n].applied().steps(of), acknowledged);
            if is_readable(told) != is_readable(true_now) {
                let index = match (n == rightful, is_readable(true_now)) {
                    (true, true) => 0,
                    (true, false) => 1,
                    (false, _) => 2,
                };
                let (is, was) = (answer(told), answer(true_now));
                let sentence = format!(
                    "{} would answer that {} {is}, and it was acknowledged that it {was}",
                    node(n),
                    object(of)
                );
                return Some((index, sentence));
            }
        }
        if let Some(other) = first {
            return Some((3, format!("{} and {} would both answer \"latest\"", node(other), node(n))));
        }
        first = Some(n);
    }
    None
}

fn answer(steps: u8) -> &'static str {
    match steps {
        0 => "is not there",
        _ if is_readable(steps) => "is there",
        _ => "is deleted",
    }
}

fn of_bytes<const N: usize>(state: &State<N>) -> Option<(usize, String)> {
    for of in 0..OBJECTS {
        let acknowledged = state.acknowledged[of];
        let name = object(of);
        let is_deleted = acknowledged != 0 && !is_readable(acknowledged);
        if let Some(n) = (0..N).filter(|_| is_deleted).find(|n| gives(state, *n, of)) {
            return Some((1, format!("{} would give {name} to who asks for its version", node(n))));
        }
        if is_readable(acknowledged) {
            let erased = |n: &usize| has(state.control.receipts[of], *n) && !has(state.nodes[*n].holds, of);
            if let Some(n) = each(state.control.complete).filter(|n| *n < N).find(erased) {
                return Some((6, format!("{name} is live, and {} has erased it", node(n))));
            }
        }
        if acknowledged & step::CERTIFIED != 0 {
            let may_return = |n: &usize| !has(state.control.fenced, *n);
            if let Some(n) = (0..N).filter(may_return).find(|n| has(state.nodes[*n].holds, of)) {
                return Some((7, format!("{name} is certified as gone, and {} holds it", node(n))));
            }
        }
    }
    None
}
