//! The search over frontiers (just-in-time linearization, Lowe 2017), for registers to which a
//! value may be written more than once.
//!
//! Time goes from answer to answer. A frontier is a value and the set of operations in flight that
//! have already taken effect; at an answer every frontier is extended, with operations in flight,
//! until the answered one has taken effect, or it dies. Operations without an answer stay in
//! flight for ever; interchangeable ones are used oldest first, and those whose value nobody asks
//! for are left out, so that a crash-rich history stays cheap.

use std::collections::{BTreeMap, BTreeSet};

use super::{Verdict, effective};
use crate::history::{Operation, Outcome, Step, Value};

/// More explanations than this at one time are given up.
const FRONTIERS_MAX: usize = 20_000;

/// A value and, by slot, which operations in flight took effect.
type Frontier = (Value, u128);

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    index: usize,
    step: Step,
    answered: bool,
}

/// Something that happens on the line of time. At one instant invocations go before answers, so
/// that the two operations count as concurrent: the weaker claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Invoked,
    Answered,
}

/// A verdict; exact unless undecided.
pub(super) fn verdict(operations: &[Operation]) -> Verdict {
    let mut search = Search::default();
    for (_, moment, index) in line_of_time(operations) {
        let taken = match moment {
            Moment::Invoked => search.invoke(index, &operations[index]),
            Moment::Answered => search.answer(index),
        };
        match taken {
            Taken::Explained => {}
            Taken::Dead => return Verdict::Violated(index),
            Taken::TooMany => return Verdict::Undecided,
        }
    }
    Verdict::Linearizable
}

fn line_of_time(operations: &[Operation]) -> Vec<(u64, Moment, usize)> {
    let asked: BTreeSet<Value> =
        effective(operations).filter_map(|(_, operation)| operation.step.requires).collect();
    let matters = |operation: &Operation| {
        operation.outcome != Outcome::Unknown
            || operation.step.becomes.is_some_and(|value| asked.contains(&value))
    };
    let mut line = Vec::new();
    for (index, operation) in effective(operations).filter(|(_, operation)| matters(operation)) {
        line.push((operation.invoked_at, Moment::Invoked, index));
        if let Outcome::Answered(at) = operation.outcome {
            line.push((at, Moment::Answered, index));
        }
    }
    line.sort_unstable();
    line
}

enum Taken {
    Explained,
    Dead,
    TooMany,
}

struct Search {
    frontiers: BTreeSet<Frontier>,
    flights: BTreeMap<u32, Flight>,
}

impl Default for Search {
    fn default() -> Self {
        Self { frontiers: BTreeSet::from([(Value::Absent, 0)]), flights: BTreeMap::new() }
    }
}

impl Search {
    fn invoke(&mut self, index: usize, operation: &Operation) -> Taken {
        let Some(slot) = (0..u128::BITS).find(|slot| !self.flights.contains_key(slot)) else {
            return Taken::TooMany;
        };
        let answered = operation.outcome != Outcome::Unknown;
        self.flights.insert(slot, Flight { index, step: operation.step, answered });
        Taken::Explained
    }

    fn answer(&mut self, index: usize) -> Taken {
        let flown = self.flights.iter().find(|(_, flight)| flight.index == index);
        let slot = *flown.expect("an operation is invoked before it is answered").0;
        let mark = 1u128 << slot;
        let mut done = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<Frontier> = std::mem::take(&mut self.frontiers).into_iter().collect();
        while let Some(frontier) = open.pop() {
            if !seen.insert(frontier) {
                continue;
            }
            if seen.len() > FRONTIERS_MAX {
                return Taken::TooMany;
            }
            if frontier.1 & mark != 0 {
                done.insert((frontier.0, frontier.1 & !mark));
            } else {
                open.extend(self.extensions(frontier));
            }
        }
        self.flights.remove(&slot);
        self.frontiers = without_dominated(done, &self.flights);
        if self.frontiers.is_empty() { Taken::Dead } else { Taken::Explained }
    }

    /// The frontiers after one more operation in flight took effect.
    fn extensions(&self, (value, marks): Frontier) -> Vec<Frontier> {
        let mut used: BTreeSet<Step> = BTreeSet::new();
        let mut extended = Vec::new();
        for (slot, flight) in &self.flights {
            let taken = marks & (1 << slot) != 0;
            let fits = flight.step.requires.is_none_or(|required| required == value);
            if taken || !fits {
                continue;
            }
            // Of unanswered operations that do the same, any one stands for all.
            let useless = flight.step.becomes.is_none_or(|becomes| becomes == value);
            if !flight.answered && (useless || !used.insert(flight.step)) {
                continue;
            }
            extended.push((flight.step.becomes.unwrap_or(value), marks | 1 << slot));
        }
        extended
    }
}

/// A frontier that spent more unanswered operations than another, being otherwise the same, can
/// explain nothing that the other cannot.
fn without_dominated(frontiers: BTreeSet<Frontier>, flights: &BTreeMap<u32, Flight>) -> BTreeSet<Frontier> {
    let unanswered = |(slot, flight): (&u32, &Flight)| (!flight.answered).then_some(1u128 << slot);
    let spendable = flights.iter().filter_map(unanswered).fold(0, |mask, bit| mask | bit);
    if spendable == 0 || frontiers.len() > 512 {
        return frontiers;
    }
    let dominated = |(value, marks): &Frontier| {
        frontiers.iter().any(|(other, fewer)| {
            other == value
                && fewer != marks
                && fewer & !spendable == marks & !spendable
                && fewer & !marks == 0
        })
    };
    frontiers.iter().filter(|frontier| !dominated(frontier)).copied().collect()
}
