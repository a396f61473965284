//! What this node states of its store to a control plane that was restored, before it asks anything else:
//! part by part, each again until it is heard.

use std::collections::VecDeque;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest};
use trefoil_protocol::message::holdings::{HOLDINGS_MAX, Holdings, OPEN_ORDERS_MAX, VolumeHolding};
use trefoil_protocol::record::RecordBody;
use trefoil_protocol::time::BootTime;

use crate::event::{ControlTicket, ControlUnreachable};
use crate::outbox::{Identity, Outbox};
use crate::volume::holding::Holding;

/// A part without an answer is said again after this long.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How far the statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stated {
    /// The answer was to something else.
    Nothing,
    /// There is more to say.
    Some,
    /// Everything was heard.
    All,
    /// The control plane does not know this run.
    Unknown,
}

/// What is still to be said.
#[derive(Debug)]
pub(crate) struct Statement {
    parts: VecDeque<Holdings>,
    asked: Option<(ControlTicket, BootTime)>,
}

impl Statement {
    /// Of these volumes, in the order of their numbers.
    pub(crate) fn of<'h, D: Disk + 'h>(
        identity: &Identity,
        held: impl Iterator<Item = (VolumeId, &'h Holding<D>)>,
    ) -> Self {
        let volumes: Vec<VolumeHolding> = held.map(|(volume, holding)| holding_of(volume, holding)).collect();
        let (store, incarnation) = (identity.store, identity.incarnation);
        let part = |volumes: &[VolumeHolding]| Holdings {
            store,
            incarnation,
            volumes: volumes.to_vec(),
            last: false,
        };
        let mut parts: VecDeque<Holdings> = volumes.chunks(HOLDINGS_MAX).map(part).collect();
        if parts.is_empty() {
            parts.push_back(part(&[]));
        }
        if let Some(last) = parts.back_mut() {
            last.last = true;
        }
        Self { parts, asked: None }
    }

    /// Says what is due.
    pub(crate) fn ask<D: Disk>(&mut self, now: BootTime, out: &mut Outbox<D>) {
        if now < self.next_wakeup() {
            return;
        }
        if let Some(part) = self.parts.front() {
            self.asked = Some((out.ask(ControlRequest::Holdings(part.clone())), now));
        }
    }

    /// When to look again.
    pub(crate) fn next_wakeup(&self) -> BootTime {
        self.asked.map_or(BootTime::default(), |(_, at)| at + SAY_AGAIN_AFTER)
    }

    /// An answer came, perhaps to this.
    pub(crate) fn answered(
        &mut self,
        ticket: ControlTicket,
        answer: &Result<ControlAnswer, ControlUnreachable>,
    ) -> Stated {
        if self.asked.is_none_or(|(asked, _)| asked != ticket) {
            return Stated::Nothing;
        }
        match answer {
            Ok(ControlAnswer::Done) => {
                self.asked = None;
                self.parts.pop_front();
                if self.parts.is_empty() { Stated::All } else { Stated::Some }
            }
            Ok(ControlAnswer::Refused(ControlRefusal::Unregistered)) => Stated::Unknown,
            // Said again, where somebody may lead by then.
            _ => Stated::Some,
        }
    }
}

fn holding_of<D: Disk>(volume: VolumeId, holding: &Holding<D>) -> VolumeHolding {
    let begun = holding.batches().iter().flat_map(|(_, batch)| {
        let first = batch.first_copy.as_ref().map(|(_, order)| order);
        [Some(&batch.order), first].into_iter().flatten().cloned()
    });
    // What is in the log and not known to be committed may be committed yet.
    let beginning = holding.tail().filter_map(|record| match record.body() {
        RecordBody::Purging(purging) => Some(purging.order.clone()),
        _ => None,
    });
    VolumeHolding {
        volume,
        tenant: holding.log().identity().tenant,
        promised: holding.promised(),
        adopted: holding.adopted(),
        written: holding.last().epoch,
        orders: begun.chain(beginning).take(OPEN_ORDERS_MAX).collect(),
    }
}
