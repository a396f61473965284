//! Reads of payload on their way to the disk: as many as keep it busy are with the disk threads, the others
//! wait here in their order. Whoever does not listen any more when its turn comes costs the disk nothing.

use std::collections::{BTreeMap, VecDeque};

use trefoil_engine::{Disk, ReadJob};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::time::BootTime;

use crate::event::ReadTicket;

/// Reads that the disk threads have at once.
const UNDER_WAY_MAX: usize = 64;

/// The reads of a node.
#[derive(Debug)]
pub(crate) struct ReadQueue<D: Disk> {
    next: u64,
    under_way: BTreeMap<ReadTicket, VolumeId>,
    waiting: VecDeque<Waiting<D>>,
}

#[derive(Debug)]
struct Waiting<D: Disk> {
    ticket: ReadTicket,
    volume: VolumeId,
    job: ReadJob<D>,
    until: BootTime,
}

/// What becomes of the read whose turn it is.
#[derive(Debug)]
pub(crate) enum Turn<D: Disk> {
    /// It is done.
    Begin(ReadTicket, ReadJob<D>),
    /// It is not: nobody listens. The volume that asked is told.
    Late(ReadTicket, VolumeId),
}

impl<D: Disk> Default for ReadQueue<D> {
    fn default() -> Self {
        Self { next: 1, under_way: BTreeMap::new(), waiting: VecDeque::new() }
    }
}

impl<D: Disk> ReadQueue<D> {
    /// A volume wants to read; somebody listens until then.
    pub(crate) fn add(&mut self, volume: VolumeId, job: ReadJob<D>, until: BootTime) -> ReadTicket {
        let ticket = ReadTicket(self.next);
        self.next += 1;
        self.waiting.push_back(Waiting { ticket, volume, job, until });
        ticket
    }

    /// A read ended: who wanted it, once.
    pub(crate) fn ended(&mut self, ticket: ReadTicket) -> Option<VolumeId> {
        self.under_way.remove(&ticket)
    }

    /// The next one, if there is room for it.
    pub(crate) fn turn(&mut self, now: BootTime) -> Option<Turn<D>> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        let Waiting { ticket, volume, job, until } = self.waiting.pop_front()?;
        if now > until {
            return Some(Turn::Late(ticket, volume));
        }
        self.under_way.insert(ticket, volume);
        Some(Turn::Begin(ticket, job))
    }
}
