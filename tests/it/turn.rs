//! One cluster at a time: seven processes each, on machines with two cores, or lease times measure
//! the machine.

use std::sync::{Mutex, MutexGuard, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other cluster of these tests runs. Held until the value is dropped.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    // A test that failed leaves the lock poisoned and nothing else.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}
