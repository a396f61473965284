//! The node's boot-time clock: leases and retries run on it, and it goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use trefoil_protocol::time::BootTime;

/// `CLOCK_BOOTTIME` now: it goes on while the machine sleeps, as a lease must.
pub(super) fn now() -> BootTime {
    let reading = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(reading.tv_sec).expect("the boot clock is not negative");
    let nanos = u32::try_from(reading.tv_nsec).expect("below a second");
    BootTime::default() + Duration::new(seconds, nanos)
}
