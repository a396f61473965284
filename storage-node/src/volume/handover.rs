//! A planned handover, at the primary that is to give the volume up: it lets the uploads that are
//! under way end, takes nothing new, and says so when everything is committed and the one that is to
//! follow has all of it. What decides is the next configuration, as ever: until that is adopted,
//! nothing here is final. Whoever cannot switch soon works on, and tries again as long as it is wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::StoreId;
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::tenant::{Refusal, TenantCall};
use trefoil_protocol::time::{BootTime, Millis};

use super::primary::is_due;
use super::replica::{Replica, Role};
use crate::event::RequestId;
use crate::outbox::Context;

/// So long the uploads that are open at first may go on before they are broken off and sent again.
const UPLOADS_MAX: Duration = Duration::from_secs(30);
/// So long nothing new is taken, at most; then the volume works on as if nobody had asked.
const STOP_MAX: Duration = Duration::from_millis(1_500);
/// After this long it stops again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often the control plane is told the same thing.
const SAY_EVERY: Duration = Duration::from_millis(300);

/// A handover under way.
#[derive(Clone, Debug)]
pub(super) struct Handover {
    to: StoreId,
    /// Not before this time.
    begins: BootTime,
    /// Uploads that were open when it began, and are still; none before it begins.
    awaited: Option<BTreeSet<RequestId>>,
    stopped_at: Option<BootTime>,
    said_at: Option<BootTime>,
}

impl Handover {
    fn new(to: StoreId, begins: BootTime) -> Self {
        Self { to, begins, awaited: None, stopped_at: None, said_at: None }
    }

    fn is_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        let next = match (&self.awaited, self.stopped_at, self.said_at) {
            (None, ..) => self.begins,
            (Some(_), None, _) => self.begins + UPLOADS_MAX,
            (Some(_), Some(stopped), None) => stopped + STOP_MAX,
            (Some(_), Some(stopped), Some(said)) => (said + SAY_EVERY).min(stopped + STOP_MAX),
        };
        Some(next)
    }
}

impl<D: Disk> Replica<D> {
    /// What the configuration says of a handover, at the primary that it concerns, as soon as that serves: it may hear
    /// of it before its epoch has begun.
    pub(super) fn follow_handover(&mut self, now: BootTime) {
        let wanted = self.config.handover.filter(|_| self.is_serving());
        if self.handover.as_ref().map(|handover| handover.to) != wanted {
            self.handover = wanted.map(|to| Box::new(Handover::new(to, now)));
        }
    }

    /// While the volume is handed over nothing is begun here: the client asks again in a moment.
    pub(super) fn check_handover(&self, call: &TenantCall) -> Result<(), Refusal> {
        let begins = matches!(
            call,
            TenantCall::Put(_)
                | TenantCall::Delete { .. }
                | TenantCall::Undelete { .. }
                | TenantCall::Outcome { .. }
        );
        match &self.handover {
            Some(handover) if begins && handover.is_stopped() => Err(Refusal::LeaseExpired),
            _ => Ok(()),
        }
    }

    /// Goes on with the handover as far as it can.
    pub(super) fn settle_handover(&mut self, cx: &mut Context<'_, D>) {
        let Role::Primary(primary) = &self.role else { return };
        let last = self.holding.last().lsn;
        let Some(handover) = self.handover.as_mut().filter(|handover| cx.now >= handover.begins) else {
            return;
        };
        let caught_up = primary.has_all(handover.to, last) && self.holding.committed() == last;
        let is_idle = self.uploads.open().next().is_none() && self.mutations.is_idle();
        let awaited = handover.awaited.get_or_insert_with(|| self.uploads.open().collect());
        awaited.retain(|request| self.uploads.has(*request));
        let waited = cx.now.since(handover.begins) >= UPLOADS_MAX;
        if handover.stopped_at.is_none() && (awaited.is_empty() || waited) {
            handover.stopped_at = Some(cx.now);
        }
        let Some(stopped) = handover.stopped_at else { return };
        let stopped_for = cx.now.since(stopped);
        if stopped_for >= STOP_MAX {
            **handover = Handover::new(handover.to, cx.now + AGAIN_AFTER);
            return;
        }
        // Uploads that were longer than the wait are sent again, to the next primary.
        if (is_idle || waited) && caught_up && is_due(handover.said_at, SAY_EVERY, cx.now) {
            handover.said_at = Some(cx.now);
            let VolumeConfig { volume, epoch, .. } = *self.config;
            cx.out.ask(ControlRequest::Yield { volume, epoch, stopped_for: Millis::from(stopped_for) });
        }
    }

    /// When to look at the handover again.
    pub(super) fn handover_wakeup(&self) -> Option<BootTime> {
        self.handover.as_ref().filter(|_| self.is_serving()).and_then(|handover| handover.next_wakeup())
    }
}
