//! The zone checker for a register to which no value is written twice.
//!
//! The zone of a value runs between the first answer and the last invocation of the operations
//! that wrote or read it. Where the first answer comes first, the value must have been current all
//! through the zone (forward); otherwise one instant inside is enough (backward). The history is
//! linearizable when and only when no two forward zones overlap and no backward zone lies inside
//! a forward one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Verdict, effective};
use crate::history::{Operation, Outcome, Value};

/// Times in a zone are one higher than true ones: instant zero is before everything, where the
/// initial state was written.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first_answer: u64,
    last_invocation: u64,
    /// The operation with the last invocation: the one to blame.
    last: usize,
    written_at: Option<u64>,
}

impl Zone {
    fn of(index: usize, operation: &Operation) -> Self {
        Self {
            first_answer: operation.answered_at().saturating_add(1),
            last_invocation: operation.invoked_at.saturating_add(1),
            last: index,
            written_at: operation.step.becomes.map(|_| operation.invoked_at),
        }
    }

    fn with(self, other: Self) -> Self {
        let later = if other.last_invocation >= self.last_invocation { other } else { self };
        Self {
            first_answer: self.first_answer.min(other.first_answer),
            last_invocation: later.last_invocation,
            last: later.last,
            written_at: self.written_at.or(other.written_at),
        }
    }

    fn is_forward(&self) -> bool {
        self.first_answer < self.last_invocation
    }
}

/// A verdict, or nothing if the history is not of the kind this checker decides.
pub(super) fn verdict(operations: &[Operation]) -> Option<Verdict> {
    let zones = zones_of(operations)?;
    // A value that was read and never written has no order at all.
    let phantom = zones.values().find(|zone| zone.written_at.is_none());
    let early = || effective(operations).find(|(_, operation)| is_read_before_write(operation, &zones));
    let index = phantom
        .map(|zone| zone.last)
        .or_else(|| early().map(|(index, _)| index))
        .or_else(|| conflict(&zones));
    Some(index.map_or(Verdict::Linearizable, Verdict::Violated))
}

fn zones_of(operations: &[Operation]) -> Option<BTreeMap<Value, Zone>> {
    // The initial state is a write of "no object" before everything, if anybody read it.
    let initial = Zone { first_answer: 0, last_invocation: 0, last: 0, written_at: Some(0) };
    let mut zones = BTreeMap::from([(Value::Absent, initial)]);
    let read: BTreeSet<Value> =
        effective(operations).filter_map(|(_, operation)| operation.step.requires).collect();
    for (index, operation) in effective(operations) {
        let value = match (operation.step.requires, operation.step.becomes) {
            (Some(value), None) | (None, Some(value)) => value,
            (None, None) => continue,
            (Some(_), Some(_)) => return None,
        };
        if operation.step.becomes.is_some() {
            if operation.outcome == Outcome::Unknown && value != Value::Absent && !read.contains(&value) {
                // It may have happened at the end of time, where nobody looked.
                continue;
            }
            if zones.get(&value).is_some_and(|zone| zone.written_at.is_some()) {
                return None;
            }
        }
        let zone = Zone::of(index, operation);
        zones.entry(value).and_modify(|before| *before = before.with(zone)).or_insert(zone);
    }
    Some(zones)
}

fn is_read_before_write(operation: &Operation, zones: &BTreeMap<Value, Zone>) -> bool {
    let written = operation.step.requires.and_then(|value| zones.get(&value)?.written_at);
    written.is_some_and(|written| operation.answered_at() < written)
}

/// An operation to blame for two values that must both have been current at one time.
fn conflict(zones: &BTreeMap<Value, Zone>) -> Option<usize> {
    let mut forward: Vec<&Zone> = zones.values().filter(|zone| zone.is_forward()).collect();
    forward.sort_by_key(|zone| zone.first_answer);
    let overlap = forward.windows(2).find(|pair| pair[1].first_answer < pair[0].last_invocation);
    if let Some(pair) = overlap {
        let later = if pair[0].last_invocation > pair[1].last_invocation { pair[0] } else { pair[1] };
        return Some(later.last);
    }
    zones
        .values()
        .filter(|zone| !zone.is_forward())
        .find_map(|backward| holder_of(backward, &forward))
        .map(|holder| holder.last)
}

/// The forward zone that a backward one lies in: its value was current all through, and yet
/// another one was for an instant. Forward zones are sorted and do not overlap, so only the last
/// that begins before can be it.
fn holder_of<'a>(backward: &Zone, forward: &[&'a Zone]) -> Option<&'a Zone> {
    let begun = forward.partition_point(|zone| zone.first_answer < backward.last_invocation);
    let before = forward.get(begun.checked_sub(1)?)?;
    (backward.first_answer < before.last_invocation).then_some(before)
}
