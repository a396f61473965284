//! Reads of payload on their way to the disk: as many as keep it busy are with the disk threads, the others
//! wait here in their order. Whoever does not listen any more when its turn comes costs the disk nothing.
//!
//! What a write waits for goes first. What nobody waits for is read one piece at a time, beside all others: a
//! queue of it in front of the disk would hold up the flushes of every volume here.

use std::collections::{BTreeMap, VecDeque};

use trefoil_engine::{Disk, ReadJob};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::time::BootTime;

use crate::event::ReadTicket;

/// Reads that the disk threads have at once.
const UNDER_WAY_MAX: usize = 8;

/// Who waits for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A member without which something is not acknowledged.
    Member,
    /// A client.
    Client,
    /// Nobody.
    Nobody,
}

/// The reads of a node.
#[derive(Debug)]
pub(crate) struct ReadQueue<D: Disk> {
    next: u64,
    under_way: BTreeMap<ReadTicket, VolumeId>,
    /// The one for nobody.
    idle: Option<ReadTicket>,
    waiting_members: VecDeque<Waiting<D>>,
    waiting: VecDeque<Waiting<D>>,
    waiting_idle: VecDeque<Waiting<D>>,
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
        Self {
            next: 1,
            under_way: BTreeMap::new(),
            idle: None,
            waiting_members: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_idle: VecDeque::new(),
        }
    }
}

impl<D: Disk> ReadQueue<D> {
    /// A volume wants to read; its reader listens until then.
    pub(crate) fn add(
        &mut self,
        volume: VolumeId,
        job: ReadJob<D>,
        reader: Reader,
        until: BootTime,
    ) -> ReadTicket {
        let ticket = ReadTicket(self.next);
        self.next += 1;
        let waiting = Waiting { ticket, volume, job, until };
        match reader {
            Reader::Member => self.waiting_members.push_back(waiting),
            Reader::Client => self.waiting.push_back(waiting),
            Reader::Nobody => self.waiting_idle.push_back(waiting),
        }
        ticket
    }

    /// A read ended: who wanted it, once.
    pub(crate) fn ended(&mut self, ticket: ReadTicket) -> Option<VolumeId> {
        self.idle.take_if(|idle| *idle == ticket);
        self.under_way.remove(&ticket)
    }

    /// The next one, if there is room for it.
    pub(crate) fn turn(&mut self, now: BootTime) -> Option<Turn<D>> {
        let others = self.under_way.len() - usize::from(self.idle.is_some());
        if others < UNDER_WAY_MAX
            && let Some(waiting) = self.waiting_members.pop_front().or_else(|| self.waiting.pop_front())
        {
            return Some(self.begin(waiting, now));
        }
        if self.idle.is_some() {
            return None;
        }
        let waiting = self.waiting_idle.pop_front()?;
        let ticket = waiting.ticket;
        let turn = self.begin(waiting, now);
        self.idle = matches!(turn, Turn::Begin(..)).then_some(ticket);
        Some(turn)
    }

    fn begin(&mut self, waiting: Waiting<D>, now: BootTime) -> Turn<D> {
        let Waiting { ticket, volume, job, until } = waiting;
        if now > until {
            return Turn::Late(ticket, volume);
        }
        self.under_way.insert(ticket, volume);
        Turn::Begin(ticket, job)
    }
}
