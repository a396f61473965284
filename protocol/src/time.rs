//! Two kinds of time that must never be mixed: a node's own boot clock, on which leases and retries
//! run, and the control plane's time, on which delete windows run.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use minicbor::{Decode, Encode};

/// A reading of one node's boot-time clock (`CLOCK_BOOTTIME`), in nanoseconds. Readings of
/// different nodes, or of one node before and after a reboot, are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BootTime(#[n(0)] pub u64);

impl BootTime {
    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<BootTime> for BootTime {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// The control plane's clock, in milliseconds since the cluster was made. It advances by ticks in
/// the control plane's log and never goes back; outages lengthen windows, never shorten them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CpTime(#[n(0)] pub u64);

impl Add<Duration> for CpTime {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl CpTime {
    /// So long before; zero if there was no such time.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for CpTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// A length of time in whole milliseconds, as it is written in messages and policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub u64);

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The numbers of the lease, related to each other so that no constant can drift alone.
pub mod lease {
    use std::time::Duration;

    /// L: how long a grant lasts on the grantee's boot clock, counted from the moment it *sent* the
    /// renewal.
    pub const LENGTH: Duration = Duration::from_secs(6);
    /// G: how long the granter waits on its own boot clock, from the moment it answered, before it
    /// treats a grant as over: L(1+rho) + delta.
    pub const WAIT_OUT: Duration = Duration::from_secs(7);
    /// rho: the drift between two healthy boot clocks, in parts per million.
    pub const DRIFT_PPM: u64 = 200;
    /// How often a node renews when nothing else makes it.
    pub const RENEW_EVERY: Duration = Duration::from_millis(1000);
    /// A node that was silent for this long is treated as down (its lease still runs).
    pub const DOWN_AFTER: Duration = Duration::from_secs(3);

    const _: () = {
        let drift = LENGTH.as_nanos() * DRIFT_PPM as u128 / 1_000_000;
        assert!(WAIT_OUT.as_nanos() > LENGTH.as_nanos() + drift);
        assert!(RENEW_EVERY.as_nanos() * 3 <= LENGTH.as_nanos());
        assert!(DOWN_AFTER.as_nanos() > RENEW_EVERY.as_nanos() * 2);
    };
}
