//! With what right a replica answers a read of an exact version: under its lease, or, where the tenant and
//! the client both want that, without one, and then the answer is marked.
//!
//! A replica without a lease knows what it knew: it may have been removed, and the version deleted by
//! the others, who waited its lease out. So such an answer is none of "live"; that its bytes are those
//! of the version, and that no delete of it is on this store, holds as ever. A run of this process that
//! never had a lease answers nothing: it was not told where it stands.

use trefoil_engine::Disk;
use trefoil_protocol::config::StaleReads;
use trefoil_protocol::message::tenant::{Refusal, Selector};
use trefoil_protocol::mutant;

use super::reads::Counter;
use crate::outbox::Context;

/// Why a version may be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// The node's lease covers the volume: no delete of the version was acknowledged.
    Lease,
    /// The lease has run out, and tenant and client take what may be stale.
    Consent,
}

impl Right {
    /// Looked at after the state was read and before the answer leaves.
    pub(super) fn to_answer<D: Disk>(
        selector: Selector,
        counter: &Counter<'_, D>,
        cx: &Context<'_, D>,
    ) -> Result<Self, Refusal> {
        let Counter { config, holding, .. } = counter;
        // What cannot be read here may be the version's delete. Others are asked, and nothing is denied.
        if mutant!(R11, !holding.sees_every_delete(), false) {
            return Err(Refusal::Unavailable);
        }
        if cx.leased(config) {
            return Ok(Self::Lease);
        }
        let is_wanted = matches!(selector, Selector::StalePossible(_));
        let is_allowed = config.stale_reads == StaleReads::Allow;
        // Whoever has a lease that does not cover the volume will soon have one that does, or lose its place.
        match is_wanted && is_allowed && cx.lease.has_run_out(cx.now) {
            true => Ok(Self::Consent),
            false => Err(Refusal::LeaseExpired),
        }
    }

    /// Whether the answer is marked.
    pub(super) fn is_stale_possible(self) -> bool {
        self == Self::Consent
    }
}
