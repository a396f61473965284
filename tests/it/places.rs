//! Places for clusters: how many are at work at once. A cluster is seven processes that mostly wait,
//! for leases, windows and each other, and two cores are enough for a few of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many there are.
const PLACES: usize = 3;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { free: PLACES, came: 0, served: 0 });
static CHANGED: Condvar = Condvar::new();

/// Whoever came first is served first, also who wants all places.
struct Queue {
    free: usize,
    came: u64,
    served: u64,
}

/// A place, or several, until it is dropped.
pub(crate) struct Place {
    count: usize,
}

impl Place {
    /// Waits for one.
    pub(crate) fn take() -> Self {
        Self::wait_for(1)
    }

    /// Waits for all, so that nobody else is at work: for a test that measures the machine itself.
    pub(crate) fn take_all() -> Self {
        Self::wait_for(PLACES)
    }

    fn wait_for(count: usize) -> Self {
        let mut queue = queue();
        let turn = queue.came;
        queue.came += 1;
        while queue.served != turn || queue.free < count {
            queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.served += 1;
        queue.free -= count;
        drop(queue);
        CHANGED.notify_all();
        Self { count }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        queue().free += self.count;
        CHANGED.notify_all();
    }
}

/// The queue, whose numbers are right also after a test has failed.
fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}
