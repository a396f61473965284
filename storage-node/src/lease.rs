//! The node's lease: the right to answer "latest", counted on this node's boot clock from the moment
//! the renewal was *sent*, so that a slow answer can only shorten it.
//!
//! It never looks at a wall clock and never extends itself.

use std::time::Duration;

use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::ConfigIndex;
use trefoil_protocol::mutant;
use trefoil_protocol::time::{BootTime, lease};

/// What was granted last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease {
    grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    sent: BootTime,
    covers: ConfigIndex,
}

impl Lease {
    /// No lease: the state of every process that starts.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes a grant for a renewal sent at `sent` that covers configurations up to `covers`. Grants
    /// may arrive in any order; an older one changes nothing.
    pub fn granted(&mut self, sent: BootTime, covers: ConfigIndex) {
        if self.grant.is_none_or(|grant| (grant.covers, grant.sent) < (covers, sent)) {
            self.grant = Some(Grant { sent, covers });
        }
    }

    /// Whether this node may answer for a volume with this configuration now.
    pub fn covers(&self, config: &VolumeConfig, now: BootTime) -> bool {
        let Some(grant) = self.grant else { return false };
        config.activated && grant.covers >= config.changed && mutant!(M03, now < end(grant), true)
    }

    /// Whether this run had a lease, and has none any more.
    pub fn has_run_out(&self, now: BootTime) -> bool {
        self.ends().is_some_and(|end| now >= end)
    }

    /// When the lease ends, if there is one.
    pub fn ends(&self) -> Option<BootTime> {
        self.grant.map(end)
    }
}

/// The granter waits L(1+rho); this clock may be slow by rho against the granter's, so it stops at
/// L(1-rho).
fn end(grant: Grant) -> BootTime {
    grant.sent + (lease::LENGTH - drift())
}

fn drift() -> Duration {
    let nanos = lease::LENGTH.as_nanos() * u128::from(lease::DRIFT_PPM) / 1_000_000;
    Duration::from_nanos(u64::try_from(nanos).expect("a fraction of six seconds"))
}
