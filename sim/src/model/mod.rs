//! A model of epochs, leases and deletes, small enough that every order of events within its bounds
//! can be looked at. It shares no code with the cores: it is the protocol written a second time, so
//! that what both say is worth something. `docs/model.md` says what stands for what.

mod action;
mod control;
mod fault;
mod invariant;
mod landmark;
mod mutation;
mod node;
mod record;
mod search;
mod state;

use std::ops::ControlFlow;

pub use invariant::{INVARIANTS, Invariant};
pub use landmark::LANDMARKS;
pub use mutation::{Mutation, NoMutation};
pub use search::{Counterexample, Outcome, Progress};
pub use state::{Bounds, EPOCHS_MAX};

use action::Action;
use state::State;

/// How many objects there are.
pub const OBJECTS: usize = 2;

/// The name of a node.
fn node(node: usize) -> &'static str {
    ["A1", "A2", "B1", "B2"][node]
}

/// The name of an object.
fn object(object: usize) -> &'static str {
    ["x", "y"][object]
}

/// Bounds that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model has 3 or 4 stores, 1 to {EPOCHS_MAX} epochs, up to {OBJECTS} undeletes and up to 4 failures"
)]
pub struct OutOfBounds;

/// What is looked through by default: no one search with everything in it ends in a minute, so each part
/// has much of one thing and less of the others.
pub const PARTS: [(&str, Bounds); 3] = [
    ("failover", Bounds { failures: 2, epochs: 3, ..FEW }),
    ("purge", Bounds { failures: 1, stale: 0, epochs: 2, undeletes: 1, purges: 1, ..FEW }),
    ("return", Bounds { failures: 1, stale: 0, epochs: 5, ..FEW }),
];

const FEW: Bounds = Bounds {
    stores: 3,
    failures: 0,
    stale: 1,
    epochs: 1,
    deletes: 1,
    purges: 0,
    undeletes: 0,
    mutation: None,
};

/// Looks through every state within the bounds; `watch` is told how far it is and may end it.
///
/// # Errors
/// When there is no such model.
pub fn check(
    bounds: &Bounds,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Outcome, OutOfBounds> {
    let fits = (1..=EPOCHS_MAX).contains(&usize::from(bounds.epochs)) && bounds.undeletes <= OBJECTS;
    if !fits || bounds.failures > 4 || bounds.stale > 1 {
        return Err(OutOfBounds);
    }
    match bounds.stores {
        3 => Ok(search::search::<3>(bounds, watch)),
        4 => Ok(search::search::<4>(bounds, watch)),
        _ => Err(OutOfBounds),
    }
}

/// Every state that one step leads to.
fn successors<const N: usize>(state: &State<N>, bounds: &Bounds, found: &mut impl FnMut(Action, State<N>)) {
    let mut found = |action, mut next: State<N>| {
        next.tidy();
        found(action, next);
    };
    node::steps(state, bounds, &mut found);
    control::steps(state, bounds, &mut found);
    control::retire(state, &mut found);
    fault::steps(state, &mut found);
}
