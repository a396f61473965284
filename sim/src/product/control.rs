//! The placement process: the production core with its production consensus over a log that keeps
//! in memory what a synced disk would keep.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use trefoil_placement::log_store::{LogBatch, LogStore, LogStoreError, MemoryLogStore, StoredLog};
use trefoil_placement::{Answer, Effect, Event, Placement, Request, RequestId};
use trefoil_protocol::ids::OperatorId;
use trefoil_protocol::message::admin::AdminRequest;
use trefoil_protocol::time::BootTime;

use super::message::{Frame, Message};
use super::process::Process;
use super::roster;
use super::seen::Seen;
use super::streams::{Desk, Heard};
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
    pub(super) fn new(core: Placement<Shelf>) -> Self {
        Self { core, desk: Desk::default(), askers: BTreeMap::new(), timer: None }
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
        let operator: OperatorId = "op".parse().expect("two letters are an operator id");
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
                // One voter has nobody to send to.
                Effect::Send(..) => {}
                Effect::Fatal(reason) => {
                    outputs.push(Output::Observe(Seen::Fatal(reason)));
                    outputs.push(Output::Exit);
                }
            }
        }
        let Some(due) = self.core.next_wakeup() else { return };
        if self.timer != Some(due) {
            self.timer = Some(due);
            outputs.push(Output::SetTimer { timer: WAKE, at_boot: due.0.max(now.0 + 1) });
        }
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
            (Some(Asker::Operator), Answer::Admin(answer)) => {
                outputs.push(Output::Observe(Seen::Admin(Box::new(answer))));
            }
            (None, _) => {}
            (Some(asker), answer) => panic!("{asker:?} was answered on another plane: {answer:?}"),
        }
    }
}
