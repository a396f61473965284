//! Reads, writes and deletes of one object look as if each happened at one instant between its
//! invocation and its answer.
//!
//! Histories in which no value is written twice and every answer tells nothing but a read value
//! go to the zone checker (Gibbons and Korach 1997), which is all but linear. The rest, in which deletes write
//! "no object" again and again and undelete brings versions back, go to a search over frontiers:
//! after each answer the set of (value, operations in flight that already took effect) that the
//! history allows. Both are exact; tests hold them against an exhaustive search.

mod frontier;
mod zones;

use std::collections::BTreeMap;

use crate::checkers::Violation;
use crate::history::{History, ObjectId, Operation, Outcome, Value};

/// What could be said about one object's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some order explains every answer.
    Linearizable,
    /// No order does; this operation (by index) is where the last explanation died.
    Violated(usize),
    /// Too much was in flight at once to decide. Never a violation; counted, so that a workload
    /// that always ends here is seen.
    Undecided,
}

/// Judges one object's operations, which begin with no object.
#[must_use]
pub fn verdict(operations: &[Operation]) -> Verdict {
    if let Some(index) = refused_but_read(operations) {
        return Verdict::Violated(index);
    }
    match zones::verdict(operations) {
        Some(verdict) => verdict,
        None => frontier::verdict(operations),
    }
}

/// What was found in a whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// One violation per object at most.
    pub violations: Vec<Violation>,
    /// Objects that could not be decided.
    pub undecided: u64,
}

/// Judges every object.
#[must_use]
pub fn check(history: &History) -> Findings {
    let mut findings = Findings::default();
    for (object, operations) in history.objects() {
        match verdict(operations) {
            Verdict::Linearizable => {}
            Verdict::Violated(index) => {
                findings.violations.push(violation(object, operations, index));
            }
            Verdict::Undecided => findings.undecided += 1,
        }
    }
    findings
}

/// How many objects' histories both checkers decide, and on how many of those they agree.
#[must_use]
pub fn compare(history: &History) -> (usize, usize) {
    let mut decided = (0, 0);
    for (_, operations) in history.objects() {
        let (Some(by_zones), by_search) = (zones::verdict(operations), frontier::verdict(operations)) else {
            continue;
        };
        if by_search != Verdict::Undecided {
            let is_fine = |verdict| verdict == Verdict::Linearizable;
            decided.0 += 1;
            decided.1 += usize::from(is_fine(by_zones) == is_fine(by_search));
        }
    }
    decided
}

/// A read of a version whose every write was refused for certain.
fn refused_but_read(operations: &[Operation]) -> Option<usize> {
    let mut refused = BTreeMap::new();
    for operation in operations {
        if let Some(value @ Value::Version(_)) = operation.step.becomes {
            let all = refused.entry(value).or_insert(true);
            *all &= matches!(operation.outcome, Outcome::Refused(_));
        }
    }
    operations.iter().position(|read| {
        let answered = matches!(read.outcome, Outcome::Answered(_));
        answered && read.step.requires.is_some_and(|value| refused.get(&value) == Some(&true))
    })
}

fn violation(object: &ObjectId, operations: &[Operation], index: usize) -> Violation {
    let culprit = &operations[index];
    let at_ns = match culprit.outcome {
        Outcome::Answered(at) | Outcome::Refused(at) => at,
        Outcome::Unknown => culprit.invoked_at,
    };
    let sentence = match newest_write_before(operations, culprit) {
        Some(write) => {
            format!("{culprit}, although {write} came before it; no order explains both")
        }
        None => format!("{culprit}; no order of the operations explains this answer"),
    };
    Violation { checker: "linearizable", object: object.to_string(), at_ns, sentence }
}

/// The write answered last before an operation was invoked: what it should have seen, mostly.
fn newest_write_before<'a>(operations: &'a [Operation], culprit: &Operation) -> Option<&'a Operation> {
    operations
        .iter()
        .filter(|write| write.step.becomes.is_some() && write.answered_at() < culprit.invoked_at)
        .max_by_key(|write| write.answered_at())
}

/// The line of time without the operations that can never have happened.
fn effective(operations: &[Operation]) -> impl Iterator<Item = (usize, &Operation)> {
    let happened = |operation: &Operation| match operation.outcome {
        Outcome::Answered(_) => true,
        Outcome::Unknown => operation.step.becomes.is_some(),
        Outcome::Refused(_) => false,
    };
    operations.iter().enumerate().filter(move |(_, operation)| happened(operation))
}

#[cfg(test)]
mod tests;
