//! Situations that the search must have been in: a model that never gets anywhere breaks nothing.

use super::record::step;
use super::state::{Protection, State};

/// Their names.
pub const LANDMARKS: [&str; 9] = [
    "a suspended primary goes on beside its successor",
    "two nodes think that they lead",
    "SingleDc is in force",
    "BothDcs is in force again",
    "the other data centre leads",
    "a log parts from a committed one",
    "an undeleted object is live",
    "an order lost to an undelete",
    "a deletion is certified",
];

/// Whether a state is at a landmark.
#[must_use]
pub(crate) fn passed<const N: usize>(state: &State<N>, landmark: usize) -> bool {
    let control = &state.control;
    let config = control.config();
    let successor = |n: usize| control.activated && usize::from(config.primary) != n;
    let mut leading = (0..N).filter(|n| state.nodes[*n].role == super::state::Role::Active);
    match landmark {
        0 => leading.any(|n| state.nodes[n].runs() && state.stale == 0 && successor(n)),
        1 => leading.count() > 1,
        2 => control.activated && config.protection == Protection::SingleDc,
        3 => control.activated && config.protection == Protection::BothDcs && control.epoch > 3,
        4 => control.activated && config.primary >= 2,
        5 => (0..N).any(|n| {
            let mine = &state.nodes[n];
            let other =
                |o: &super::state::Node| o.applied().shared(mine.log) < mine.log.len().min(o.applied().len());
            state.nodes.iter().any(other)
        }),
        6 => state.acknowledged.contains(&7),
        7 => state.acknowledged.iter().zip(control.orders).any(|(steps, order)| *steps == 7 && order == 3),
        _ => state.acknowledged.iter().any(|steps| steps & step::CERTIFIED != 0),
    }
}
