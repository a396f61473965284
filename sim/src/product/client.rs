//! A client's process: the production core's operations and the production seal, driven by errands, as many at
//! once as it is given. It stands where the client library's shell stands: it knows which frames belong
//! to which exchange, seals before it sends and opens what it gets.

pub mod keys;
mod work;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trefoil_client::core::{
    Effect, Event, ExchangeId, Operation, Patience, RetryBudget, RouteCache, TokenTable,
};
use trefoil_client::failure::Peer;
use trefoil_protocol::ids::ClientInstance;
use trefoil_protocol::message::tenant::{DataPart, Refusal, TenantRequest, UploadPart};
use trefoil_protocol::time::BootTime;
use trefoil_protocol::tree::LEAF_LEN;
use trefoil_storage_node::VerifiedPrincipal;

use self::keys::Keys;
use self::work::{Work, Worked};
use super::message::{Frame, Message, StreamId};
use super::process::{Process, Spec, fill};
use super::roster;
use super::seen::{Command, Ending, Errand, SealedPut, Seen};
use super::streams::InOrder;
use crate::cluster::{Output, TimerId};
use crate::network::{Link, NodeIndex, Site};
use crate::random::Draws;
use crate::workload::Task;

const WAKE: TimerId = TimerId(0);

/// Leaves in one frame of an upload.
const LEAVES_PER_FRAME: usize = 2;

/// A stream that this client opened.
#[derive(Debug)]
struct Open {
    operation: u64,
    exchange: ExchangeId,
    to: NodeIndex,
    link: Link,
    incoming: InOrder,
}

/// The process.
pub struct Client {
    site: Site,
    draws: Draws,
    principal: Option<VerifiedPrincipal>,
    keys: Option<Keys>,
    routes: RouteCache,
    tokens: TokenTable,
    voters: Vec<NodeIndex>,
    patience: Patience,
    /// Which of the voters is asked for keys.
    custodian: usize,
    streams: BTreeMap<StreamId, Open>,
    next_stream: u64,
    /// Which of several links new streams take.
    way: usize,
    works: BTreeMap<u64, Work>,
    /// Errands that wait for keys.
    waiting: VecDeque<Box<Errand>>,
    timer: Option<BootTime>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Client({:?})", self.principal)
    }
}

/// The operation number under which a client learns its keys.
const LEARNING: u64 = u64::MAX;

impl Client {
    pub(super) fn new(site: Site, spec: &Spec, mut draws: Draws) -> Self {
        let mut instance = [0; 16];
        fill(&mut draws, &mut instance);
        Self {
            site,
            draws,
            principal: None,
            keys: None,
            // The first endpoint is placement's tenant listener, the others are nodes of this site.
            routes: RouteCache::new(4),
            tokens: TokenTable::new(ClientInstance(instance)),
            voters: spec.council.clone(),
            patience: Patience { deadline: spec.deadline, ..Patience::default() },
            custodian: 0,
            streams: BTreeMap::new(),
            next_stream: 0,
            way: 0,
            works: BTreeMap::new(),
            waiting: VecDeque::new(),
            timer: None,
        }
    }

    /// How often it asked, and asked again.
    #[must_use]
    pub fn retries(&self) -> &RetryBudget {
        self.routes.retries()
    }

    /// Its keys, for the oracle that tries them on other tenants' objects.
    #[must_use]
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    pub(super) fn command(&mut self, now: BootTime, command: Command, outputs: &mut Vec<Output<Process>>) {
        match command {
            Command::Become(tenant, principal) => {
                self.principal = Some(VerifiedPrincipal { tenant, principal });
                self.learn(now, outputs);
            }
            Command::Run(errand) => match self.works.contains_key(&LEARNING) {
                false => self.begin(now, *errand, outputs),
                true => self.waiting.push_back(errand),
            },
            Command::Admin(_) => {}
        }
        self.settle(now, outputs);
    }

    /// Asks for keys, or asks for them anew.
    fn learn(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        self.works.insert(LEARNING, Work::learn(self.patience, now, self.draws.next()));
        self.step(now, LEARNING, Event::Wakeup, outputs);
    }

    fn begin(&mut self, now: BootTime, errand: Errand, outputs: &mut Vec<Output<Process>>) {
        let Some(keys) = &mut self.keys else {
            let ending = Ending::Unknown("no keys yet".to_owned());
            outputs.push(Output::Observe(Seen::Invoked(errand.operation, None)));
            return outputs.push(Output::Observe(Seen::Ended(errand.operation, ending)));
        };
        if keys.is_spent() {
            self.waiting.push_back(Box::new(errand));
            return self.learn(now, outputs);
        }
        let operation = errand.operation;
        let changes = matches!(errand.task, Task::Put { .. } | Task::Delete | Task::Undelete);
        let token = if changes { self.tokens.begin() } else { None };
        if changes && token.is_none() {
            let ending = Ending::Refused("too many mutations are under way".to_owned());
            outputs.push(Output::Observe(Seen::Invoked(operation, None)));
            return outputs.push(Output::Observe(Seen::Ended(operation, ending)));
        }
        let token = || token.expect("whatever changes something has one");
        let dc = Some(roster::dc_of(self.site));
        let (work, sealed) = Work::of(self.patience, now, errand, dc, keys, token, &mut self.draws);
        outputs.push(Output::Observe(Seen::Invoked(operation, sealed.map(Box::<SealedPut>::new))));
        self.works.insert(operation, work);
        self.step(now, operation, Event::Wakeup, outputs);
    }

    pub(super) fn wake(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        self.timer = None;
        let is_due = |work: &Work| work.next_wakeup().is_some_and(|at| at <= now);
        let due: Vec<u64> =
            self.works.iter().filter(|(_, work)| is_due(work)).map(|(number, _)| *number).collect();
        for operation in due {
            self.step(now, operation, Event::Wakeup, outputs);
        }
        self.settle(now, outputs);
    }

    pub(super) fn message(
        &mut self,
        now: BootTime,
        from: NodeIndex,
        message: Message,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let Message::Stream(stream, place, frame) = message else { return };
        let frames = match self.streams.get_mut(&stream) {
            Some(open) if open.to == from => open.incoming.take(place, frame),
            _ => return,
        };
        for frame in frames {
            let Some(open) = self.streams.get(&stream) else { break };
            let (operation, exchange) = (open.operation, open.exchange);
            match frame {
                Frame::Answer(response, bulk, last) => {
                    if last {
                        self.streams.remove(&stream);
                    }
                    if *response == Err(Refusal::Unavailable) {
                        self.turn_from(from);
                    }
                    self.step(now, operation, Event::Answered(exchange, response), outputs);
                    if last {
                        // A small object's bytes ride with its description.
                        let part = DataPart { first: 0, proof: None, last };
                        self.take_data(now, (operation, exchange), part, bulk, outputs);
                    }
                }
                Frame::Data(part, bulk) => {
                    if part.last {
                        self.streams.remove(&stream);
                    }
                    self.take_data(now, (operation, exchange), part, bulk, outputs);
                }
                Frame::Abort => {
                    self.streams.remove(&stream);
                    let worked = self.works.get_mut(&operation).and_then(|work| work.broken(exchange));
                    self.worked(now, operation, worked, outputs);
                    let failed = trefoil_client::core::Failed::Lost;
                    self.step(now, operation, Event::Failed(exchange, failed), outputs);
                }
                Frame::Ask(..) | Frame::Part(..) | Frame::Hangup => {}
            }
        }
        self.settle(now, outputs);
    }

    fn take_data(
        &mut self,
        now: BootTime,
        (operation, exchange): (u64, ExchangeId),
        part: DataPart,
        bulk: Bytes,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let keys = self.keys.as_ref();
        let work = self.works.get_mut(&operation);
        let worked = work.and_then(|work| work.data(now, exchange, part, bulk, keys));
        self.worked(now, operation, worked, outputs);
    }

    /// Lets the work go on, however far it goes at once.
    fn step(&mut self, now: BootTime, operation: u64, event: Event, outputs: &mut Vec<Output<Process>>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Some(work) = self.works.get_mut(&operation) else { return };
            let (asks, worked) = work.step(now, &mut self.routes, event);
            for ask in asks {
                match ask {
                    work::Ask::Forget(exchange) => self.forget(operation, exchange, outputs),
                    work::Ask::Send(exchange, to, request, bulk) => {
                        if self.send((operation, exchange), to, request, bulk, outputs) {
                            events.push(Event::Ended(exchange));
                        }
                    }
                }
            }
            self.worked(now, operation, worked, outputs);
        }
    }

    fn worked(
        &mut self,
        now: BootTime,
        operation: u64,
        worked: Option<Worked>,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let (Some(worked), Some(work)) = (worked, self.works.get_mut(&operation)) else { return };
        if let Some(token) = work.take_token() {
            self.tokens.end(token);
        }
        match worked {
            Worked::Keys(view) => match Keys::take(self.keys.take(), self.principal, &view) {
                Ok(keys) => {
                    let first = self.waiting.is_empty();
                    self.keys = Some(keys);
                    self.works.remove(&operation);
                    if first {
                        outputs.push(Output::Observe(Seen::Prepared));
                    }
                }
                Err(reason) => panic!("the custodian gave unusable keys: {reason}"),
            },
            // Whatever stood in the way, without keys a client can do nothing but ask again.
            Worked::Ended(_) if operation == LEARNING => return self.learn(now, outputs),
            Worked::Ended(ending) => {
                self.works.remove(&operation);
                outputs.push(Output::Observe(Seen::Ended(operation, ending)));
            }
        }
        let its = |_: &StreamId, open: &mut Open| open.operation == operation;
        for (stream, open) in self.streams.extract_if(.., its) {
            hang_up(open.link, stream, open.to, outputs);
        }
        while !self.works.contains_key(&LEARNING)
            && let Some(errand) = self.waiting.pop_front()
        {
            self.begin(now, *errand, outputs);
        }
    }

    fn forget(&mut self, operation: u64, exchange: ExchangeId, outputs: &mut Vec<Output<Process>>) {
        let is_it = |open: &Open| open.operation == operation && open.exchange == exchange;
        let found = self.streams.iter().find(|(_, open)| is_it(open)).map(|(id, _)| *id);
        if let Some(stream) = found
            && let Some(open) = self.streams.remove(&stream)
        {
            self.way += 1;
            self.turn_from(open.to);
            hang_up(open.link, stream, open.to, outputs);
        }
    }

    /// A voter was silent, or does not lead: the next question goes to another.
    fn turn_from(&mut self, peer: NodeIndex) {
        if roster::voter_at(peer).is_some() {
            self.custodian += 1;
        }
    }

    /// Opens a stream; `true` if an upload went out behind the request.
    fn send(
        &mut self,
        (operation, exchange): (u64, ExchangeId),
        to: Peer,
        request: Box<TenantRequest>,
        bulk: Bytes,
        outputs: &mut Vec<Output<Process>>,
    ) -> bool {
        let to = self.place_of(to);
        let principal = self.principal.expect("a client works after it learned who it is");
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let upload = self.works.get(&operation).and_then(|work| work.upload_behind(&request));
        let link = link_of(self.site, self.way, to);
        self.streams.insert(stream, Open { operation, exchange, to, link, incoming: InOrder::default() });
        let mut frames = vec![Frame::Ask(principal, request, bulk)];
        if let Some((sealed, end)) = upload {
            let step = LEAVES_PER_FRAME * LEAF_LEN as usize;
            for at in (0..sealed.len()).step_by(step) {
                let leaves = sealed.slice(at..sealed.len().min(at + step));
                let first = u32::try_from(at / LEAF_LEN as usize).expect("simulated objects are small");
                frames.push(Frame::Part(UploadPart::Leaves { first }, leaves));
            }
            frames.push(Frame::Part(UploadPart::End(end), Bytes::new()));
        }
        let streamed = frames.len() > 1;
        for (place, frame) in (0..).zip(frames) {
            let message = Message::Stream(stream, place, frame);
            outputs.push(Output::Send { to, link, size: message.size(), message });
        }
        streamed
    }

    fn place_of(&self, peer: Peer) -> NodeIndex {
        let own = |number: usize| {
            let here = (0..).map(NodeIndex).zip(roster::STORAGE).filter(|(_, (_, site))| *site == self.site);
            here.map(|(index, _)| index).nth(number % 3).expect("three nodes stand at each data centre")
        };
        match peer {
            Peer::Custodian | Peer::Endpoint(0) => self.voters[self.custodian % self.voters.len()],
            Peer::Endpoint(number) => own(number),
            Peer::Node(node) => roster::place_of(node).expect("a route names nodes of the roster"),
        }
    }

    fn settle(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        let due = self.works.values().filter_map(Work::next_wakeup).min();
        match due {
            Some(due) if self.timer != Some(due) => {
                self.timer = Some(due);
                outputs.push(Output::SetTimer { timer: WAKE, at_boot: due.0.max(now.0 + 1) });
            }
            None if self.timer.take().is_some() => outputs.push(Output::CancelTimer(WAKE)),
            _ => {}
        }
    }
}

/// A client has one connection to a node and dials again, the other way, when it was silent.
fn link_of(here: Site, way: usize, to: NodeIndex) -> Link {
    let there = roster::site_at(to).expect("clients ask nodes and voters only");
    let links = Link::between(here, there);
    links[way % links.len()]
}

fn hang_up(link: Link, stream: StreamId, to: NodeIndex, outputs: &mut Vec<Output<Process>>) {
    let message = Message::Stream(stream, u32::MAX, Frame::Hangup);
    outputs.push(Output::Send { to, link, size: message.size(), message });
}

/// What an operation asks of its client, apart from its end.
fn asks_of<O: Operation>(
    operation: &mut O,
    now: BootTime,
    routes: &mut RouteCache,
    event: Event,
) -> (Vec<work::Ask>, Option<O::Output>) {
    let mut asks = Vec::new();
    let mut output = None;
    for effect in operation.step(now, routes, event) {
        match effect {
            Effect::Ask { exchange, to, request, bulk } => {
                asks.push(work::Ask::Send(exchange, to, request, bulk));
            }
            Effect::Forget(exchange) => asks.push(work::Ask::Forget(exchange)),
            Effect::Done(done) => output = Some(done),
        }
    }
    (asks, output)
}
