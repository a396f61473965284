//! How sure the control plane wants to be before it changes something that works: settings of a cell,
//! the same for all of its voters.

use std::time::Duration;

/// When a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caution {
    /// Stores of a data centre that was lost must have been there for so long, without a doubt, before
    /// a volume relies on both data centres again.
    pub restore_after: Duration,
    /// How many times in an hour a volume may be given a store that never held it, as long as it has
    /// two copies in both data centres without.
    pub moves_per_hour: usize,
    /// A store is slow that takes more than so many times what others take,
    pub slow_times: u32,
    /// and longer than they by this at least,
    pub slow_floor: Duration,
    /// for so long.
    pub slow_for: Duration,
    /// A store that was put out for that must be well for so long before it gets a role again.
    pub probation: Duration,
    /// How long the witness must be away before voters are excused for its absence.
    pub excuse_after: Duration,
}

impl Default for Caution {
    fn default() -> Self {
        Self {
            restore_after: Duration::from_secs(60),
            moves_per_hour: 3,
            excuse_after: Duration::from_secs(600),
            slow_times: 5,
            slow_floor: Duration::from_millis(50),
            slow_for: Duration::from_secs(10),
            probation: Duration::from_secs(300),
        }
    }
}
