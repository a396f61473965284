//! The boot-time clock: it counts while the machine sleeps and nobody can set it.

use rustix::time::{ClockId, clock_gettime};
use trefoil_protocol::time::BootTime;

/// The time now.
pub(super) fn boot_time() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the boot clock starts at zero");
    let nanos = u64::try_from(now.tv_nsec).expect("a clock's nanoseconds are not negative");
    BootTime(seconds * 1_000_000_000 + nanos)
}
