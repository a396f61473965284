//! A placement process: the production core with its production consensus over a log that keeps
//! in memory what a synced disk would keep.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use trefoil_placement::log_store::{LogBatch, LogStore, LogStoreError, MemoryLogStore, StoredLog};
use trefoil_placement::{Answer, Effect, Event, Placement, Request, RequestId};
use trefoil_protocol::ids::{OperatorId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::voter::VoterMessage;
use trefoil_protocol::time::BootTime;

use super::message::{Frame, Message, Turn};
use super::process::Process;
use super::roster;
use super::seen::Seen;
use super::streams::{Desk, Heard};
use crate::checkers::consensus::Standing;
use crate::cluster::{Output, TimerId};
use crate::network::{Link, NodeIndex};

const WAKE: TimerId = TimerId(0);

/// A log that outlives its process.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<MemoryLogStore>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, MemoryLogStore> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// The disk is gone.
    pub(super) fn lose(&self) {
        *self.lock() = MemoryLogStore::default();
    }

    /// The process is gone, and what it had not synced.
    pub(super) fn crash(&self) {
        self.lock().crash();
    }
}

impl LogStore for Shelf {
    fn load(&self) -> Result<Option<StoredLog>, LogStoreError> {
        self.lock().load()
    }

    fn write(&mut self, batch: LogBatch) -> Result<(), LogStoreError> {
        self.lock().write(batch)
    }

    fn sync(&mut self) -> Result<(), LogStoreError> {
        self.lock().sync()
    }
}

/// Who asked.
#[derive(Debug)]
enum Asker {
    Node(NodeIndex, Link, u64),
    Stream,
    Operator,
}

/// The process.
pub struct Control {
    core: Placement<Shelf>,
    me: NodeIndex,
    run: u64,
    sent: u64,
    /// The last message that came from each other voter: a lane keeps the order, so one that was
    /// overtaken is one that was lost.
    heard: BTreeMap<NodeIndex, Turn>,
    shown: Option<Standing>,
    desk: Desk,
    askers: BTreeMap<RequestId, Asker>,
    timer: Option<BootTime>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Control")
    }
}

impl Control {
    pub(super) fn new(core: Placement<Shelf>, me: NodeIndex, run: u64) -> Self {
        Self {
            core,
            me,
            run,
            sent: 0,
            heard: BTreeMap::new(),
            shown: None,
            desk: Desk::default(),
            askers: BTreeMap::new(),
            timer: None,
        }
    }

    /// The core, for the oracle.
    #[must_use]
    pub fn core(&self) -> &Placement<Shelf> {
        &self.core
    }

    pub(super) fn wake(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        self.timer = None;
        self.feed(now, Event::Wakeup, outputs);
    }

    pub(super) fn operator(
        &mut self,
        now: BootTime,
        request: AdminRequest,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let number = RequestId(self.desk.number());
        self.askers.insert(number, Asker::Operator);
        // Who approves is another one than who proposed.
        let name = if matches!(request, AdminRequest::Approve { .. }) { "op-2" } else { "op" };
        let operator: OperatorId = name.parse().expect("short words are operator ids");
        self.feed(now, Event::Request(number, Request::Admin(operator, request)), outputs);
    }

    pub(super) fn message(
        &mut self,
        now: BootTime,
        from: NodeIndex,
        link: Link,
        message: Message,
        outputs: &mut Vec<Output<Process>>,
    ) {
        match message {
            Message::Control(ticket, request) => {
                let Some(node) = roster::node_at(from) else { return };
                let number = RequestId(self.desk.number());
                self.askers.insert(number, Asker::Node(from, link, ticket));
                self.feed(now, Event::Request(number, Request::Control(node, *request)), outputs);
            }
            Message::Stream(stream, place, frame) => {
                for heard in self.desk.take(from, link, stream, place, frame) {
                    self.heard(now, heard, outputs);
                }
            }
            Message::Voter(turn, message) => {
                let Some(voter) = roster::voter_at(from) else { return };
                if self.heard.get(&from).is_none_or(|last| *last < turn) {
                    self.heard.insert(from, turn);
                    self.feed(now, Event::Voter(voter, message), outputs);
                }
            }
            _ => {}
        }
    }

    fn heard(&mut self, now: BootTime, heard: Heard, outputs: &mut Vec<Output<Process>>) {
        let event = match heard {
            Heard::Frame(number, Frame::Ask(principal, request, _)) => {
                self.askers.insert(RequestId(number), Asker::Stream);
                let request = Request::Tenant(principal.tenant, principal.principal, *request);
                Event::Request(RequestId(number), request)
            }
            Heard::Frame(..) => return,
            Heard::Gone(number) => match self.askers.remove(&RequestId(number)) {
                Some(_) => Event::Gone(RequestId(number)),
                None => return,
            },
        };
        self.feed(now, event, outputs);
    }

    fn feed(&mut self, now: BootTime, event: Event, outputs: &mut Vec<Output<Process>>) {
        for effect in self.core.step(now, event) {
            match effect {
                Effect::Answer(number, answer) => self.answer(number, answer, outputs),
                Effect::Send(to, message) => self.tell(to, message, outputs),
                Effect::Fatal(reason) => {
                    outputs.push(Output::Observe(Seen::Fatal(reason)));
                    outputs.push(Output::Exit);
                }
            }
        }
        self.show(outputs);
        let Some(due) = self.core.next_wakeup() else { return };
        if self.timer != Some(due) {
            self.timer = Some(due);
            outputs.push(Output::SetTimer { timer: WAKE, at_boot: due.0.max(now.0 + 1) });
        }
    }

    /// Says something to another voter, over every line to its site: what comes twice counts once.
    fn tell(&mut self, to: VoterId, message: Box<VoterMessage>, outputs: &mut Vec<Output<Process>>) {
        let Some(to) = roster::place_of_voter(to) else { return };
        self.sent += 1;
        let message = Message::Voter(Turn { run: self.run, number: self.sent }, message);
        let site = |place| roster::site_at(place).expect("voters stand somewhere");
        for link in Link::between(site(self.me), site(to)) {
            let message = message.clone();
            outputs.push(Output::Send { to, link: *link, size: message.size(), message });
        }
    }

    /// Shows the oracle where this voter stands, if that changed.
    fn show(&mut self, outputs: &mut Vec<Output<Process>>) {
        // Whoever waits to join has no state of the log yet.
        if self.core.state().voters.get(self.core.voter()).is_none() {
            return;
        }
        let (applied, leads_in) = (self.core.state().applied.0, self.core.leads_in());
        if self.shown.as_ref().is_some_and(|shown| (shown.applied, shown.leads_in) == (applied, leads_in)) {
            return;
        }
        let state = *blake3::hash(&self.core.state().to_bytes()).as_bytes();
        let standing = Standing { applied, state, leads_in };
        outputs.push(Output::Observe(Seen::Voter(Box::new(standing.clone()))));
        let began = self.shown.as_ref().is_none_or(|shown| shown.leads_in != leads_in);
        outputs.extend((leads_in.is_some() && began).then_some(Output::Mark("leads")));
        self.shown = Some(standing);
    }

    fn answer(&mut self, number: RequestId, answer: Answer, outputs: &mut Vec<Output<Process>>) {
        match (self.askers.remove(&number), answer) {
            (Some(Asker::Node(to, link, ticket)), Answer::Control(answer)) => {
                let message = Message::ControlAnswer(ticket, Box::new(answer));
                outputs.push(Output::Send { to, link, size: message.size(), message });
            }
            (Some(Asker::Stream), Answer::Tenant(response)) => {
                let frame = Frame::Answer(Box::new(response), bytes::Bytes::new(), true);
                self.desk.send(number.0, frame, true, outputs);
            }
            // The operator asks all voters; one of them answers.
            (Some(Asker::Operator), Answer::Admin(AdminAnswer::NotLeader { .. })) => {}
            (Some(Asker::Operator), Answer::Admin(answer)) => {
                outputs.push(Output::Observe(Seen::Admin(Box::new(answer))));
            }
            (None, _) => {}
            (Some(asker), answer) => panic!("{asker:?} was answered on another plane: {answer:?}"),
        }
    }
}
