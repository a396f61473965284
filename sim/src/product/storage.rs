//! A storage node's process: the production core on a simulated disk, with a shell that is as thin
//! as the real one. It numbers requests, keeps streams in order, gives the core's disk work to the
//! kernel, and tells the core when the control plane is silent. It decides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Lsn, VolumeId};
use trefoil_protocol::leader::{ANSWER_WITHIN, LeaderSearch, SUSPECT_AFTER};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, News};
use trefoil_protocol::message::peer::{LogPoint, PeerBody, PeerMessage};
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantResponse};
use trefoil_protocol::time::BootTime;
use trefoil_storage_node::{ControlTicket, ControlUnreachable, Effect, Event, NodeCore, RequestId, Spent};

use super::links::Links;
use super::message::{Frame, Message};
use super::process::{Done, Job, Process};
use super::roster;
use super::seen::Seen;
use super::streams::{Desk, Heard};
use crate::cluster::{Output, TimerId};
use crate::disk::SimDisk;
use crate::network::{Link, NodeIndex};

const WAKE: TimerId = TimerId(0);

/// A question to the control plane without an answer yet.
struct Asked {
    voter: SocketAddr,
    /// When the next questions go to another voter, unless they do already.
    suspect_at: Option<BootTime>,
    until: BootTime,
}

/// The process.
pub struct Storage {
    core: NodeCore<SimDisk>,
    me: NodeIndex,
    links: Links,
    desk: Desk,
    volumes: BTreeMap<RequestId, VolumeId>,
    configs: BTreeMap<VolumeId, VolumeConfig>,
    leader: LeaderSearch,
    /// Which voter answered last, and when.
    heard: Option<(SocketAddr, BootTime)>,
    /// Control requests without an answer, whom they asked, and when they are given up.
    asked: BTreeMap<u64, Asked>,
    /// Which of several links questions to the control plane take.
    way: usize,
    timer: Option<BootTime>,
    /// When the last lease that was given was asked for.
    leased_at: BootTime,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Storage({})", self.me.0)
    }
}

impl Storage {
    pub(super) fn new(core: NodeCore<SimDisk>, me: NodeIndex, voters: usize, now: BootTime) -> Self {
        let addresses = roster::voters(voters).iter().map(|entry| entry.control).collect();
        Self {
            core,
            me,
            links: Links::of(me, now),
            desk: Desk::default(),
            volumes: BTreeMap::new(),
            configs: BTreeMap::new(),
            leader: LeaderSearch::new(addresses),
            heard: None,
            asked: BTreeMap::new(),
            way: 0,
            timer: None,
            leased_at: BootTime::default(),
        }
    }

    /// The core, for the oracle.
    #[must_use]
    pub fn core(&self) -> &NodeCore<SimDisk> {
        &self.core
    }

    pub(super) fn started(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        self.feed(now, Event::Wakeup, outputs);
        self.settle(now, outputs);
    }

    pub(super) fn timer(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        self.timer = None;
        self.links.probe(now, outputs);
        if self.suspects(now) {
            self.feed(now, Event::ControlSilent, outputs);
        }
        let over = |(_, asked): &(&u64, &Asked)| asked.until <= now;
        let silent: Vec<u64> = self.asked.iter().filter(over).map(|(ticket, _)| *ticket).collect();
        for ticket in silent {
            self.asked.remove(&ticket);
            let answer = Err(ControlUnreachable);
            self.feed(now, Event::Control { ticket: ControlTicket(ticket), answer }, outputs);
        }
        self.feed(now, Event::Wakeup, outputs);
        self.settle(now, outputs);
    }

    /// Whether the voter that is asked has become silent; then another one is asked from now on.
    fn suspects(&mut self, now: BootTime) -> bool {
        let before = self.leader.current();
        for asked in self.asked.values_mut() {
            if asked.suspect_at.take_if(|at| *at <= now).is_none() {
                continue;
            }
            match self.heard.filter(|(voter, at)| *voter == asked.voter && *at + SUSPECT_AFTER > now) {
                // Whoever answers other questions lives, and is busy with this one.
                Some((_, at)) => asked.suspect_at = Some(at + SUSPECT_AFTER),
                None => {
                    self.leader.silent(asked.voter);
                    self.way += 1;
                }
            }
        }
        self.leader.current() != before
    }

    pub(super) fn done(
        &mut self,
        now: BootTime,
        done: Done,
        spent: Spent,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let event = match done {
            Done::Synced(volume, ticket, result, bytes) => {
                Event::Synced { volume, ticket, result, spent: Spent { bytes, ..spent } }
            }
            Done::Read(ticket, result) => Event::Read { ticket, result },
            Done::Erased(volume, result) => Event::Erased { volume, result },
            Done::Rotated(volume, result) => Event::Rotated { volume, result },
            Done::Created(volume, result) => Event::Created { volume, result },
            Done::Wiped(volume, result) => Event::Wiped { volume, result },
            Done::Scrubbed(volume, result) => Event::Scrubbed { volume, result },
            Done::Verified(volume, result) => Event::Verified { volume, result },
            Done::Probed(result, bytes) => Event::Probed { result, spent: Spent { bytes, ..spent } },
        };
        self.feed(now, event, outputs);
        self.settle(now, outputs);
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
            Message::Peer(message, bulk) => {
                let from = roster::node_at(from).expect("only storage nodes send peer messages");
                let (volume, epoch) = (message.volume, message.epoch);
                let before = self.log_of(volume);
                self.feed(now, Event::Peer { from, message: *message, bulk }, outputs);
                if before.is_some() && before != self.log_of(volume) {
                    let store = self.core.store().state().store;
                    outputs.push(Output::Observe(Seen::Obeyed(volume, store, epoch)));
                }
            }
            Message::Probe(number) => {
                let message = Message::ProbeAnswer(number);
                outputs.push(Output::Send { to: from, link, size: message.size(), message });
                return;
            }
            Message::ProbeAnswer(number) => return self.links.answered(number, now),
            Message::ControlAnswer(ticket, answer) => {
                // Too late an answer was given up already.
                if let Some(Asked { voter, .. }) = self.asked.remove(&ticket) {
                    self.leader.answered(voter);
                    self.heard = Some((voter, now));
                    self.remember(&answer);
                    if let ControlAnswer::Granted { news, .. } | ControlAnswer::News(news) = &*answer {
                        self.leader.learn(news.voters.iter().map(|voter| voter.control));
                    }
                    if let ControlAnswer::Refused(ControlRefusal::NotLeader { leader }) = &*answer {
                        self.leader.refused(voter, leader.map(|leader| leader.control));
                    }
                    let ticket = ControlTicket(ticket);
                    self.feed(now, Event::Control { ticket, answer: Ok(*answer) }, outputs);
                }
            }
            Message::Stream(stream, place, frame) => {
                for heard in self.desk.take(from, link, stream, place, frame) {
                    self.heard(now, heard, outputs);
                }
            }
            Message::Control(..) | Message::Voter(..) => {}
        }
        self.settle(now, outputs);
    }

    /// How far this node's log of a volume goes, and how far it is committed.
    fn log_of(&self, volume: VolumeId) -> Option<(LogPoint, Lsn)> {
        let holding = self.core.volumes().get(&volume)?.holding();
        Some((holding.last(), holding.committed()))
    }

    fn heard(&mut self, now: BootTime, heard: Heard, outputs: &mut Vec<Output<Process>>) {
        let event = match heard {
            Heard::Frame(number, Frame::Ask(principal, body, bulk)) => {
                self.volumes.insert(RequestId(number), body.volume);
                Event::Request { request: RequestId(number), principal, body: *body, bulk }
            }
            Heard::Frame(number, Frame::Part(part, bulk)) => {
                Event::Upload { request: RequestId(number), part, bulk }
            }
            Heard::Frame(..) => return,
            Heard::Gone(number) => {
                self.volumes.remove(&RequestId(number));
                Event::Gone { request: RequestId(number) }
            }
        };
        self.feed(now, event, outputs);
    }

    fn feed(&mut self, now: BootTime, event: Event<SimDisk>, outputs: &mut Vec<Output<Process>>) {
        for effect in self.core.step(now, event) {
            self.carry_out(now, effect, outputs);
        }
    }

    fn carry_out(&mut self, now: BootTime, effect: Effect<SimDisk>, outputs: &mut Vec<Output<Process>>) {
        match effect {
            Effect::SendPeer { to, message, bulk, .. } => self.send_peer(now, to, message, bulk, outputs),
            Effect::Reply { request, response, bulk, last } => {
                self.observe_answer(now, request, &response, outputs);
                self.desk.send(request.0, Frame::Answer(Box::new(response), bulk, last), last, outputs);
                if last {
                    self.volumes.remove(&request);
                }
            }
            Effect::Data { request, part, bulk } => {
                let last = part.last;
                self.desk.send(request.0, Frame::Data(part, joined(bulk)), last, outputs);
            }
            Effect::Abort { request } => self.desk.send(request.0, Frame::Abort, true, outputs),
            // Simulated uploads are shorter than the window: nobody waits for room.
            Effect::Taken { .. } => {}
            Effect::Control { ticket, request } => {
                outputs.extend(mark_of_request(&request).map(Output::Mark));
                let Some(voter) = self.leader.current() else { return };
                let suspect_at = Some(now + SUSPECT_AFTER);
                self.asked.insert(ticket.0, Asked { voter, suspect_at, until: now + ANSWER_WITHIN });
                let message = Message::Control(ticket.0, Box::new(request));
                let (to, link) = self.way_to(voter);
                outputs.push(Output::Send { to, link, size: message.size(), message });
            }
            Effect::Sync { volume, job, place } => outputs.push(Output::Work(Job::Sync(volume, job, place))),
            Effect::Hurry { volume } => outputs.push(Output::Hurry(volume)),
            Effect::Read { ticket, job } => outputs.push(Output::Work(Job::Read(ticket, job))),
            Effect::Erase { volume, job } => outputs.push(Output::Work(Job::Erase(volume, job))),
            Effect::Rotate { volume, job } => {
                outputs.push(Output::Mark("bag.rotates"));
                outputs.push(Output::Work(Job::Rotate(volume, Box::new(job))));
            }
            Effect::Create { volume, job } => outputs.push(Output::Work(Job::Create(volume, job))),
            Effect::Wipe { volume, job } => outputs.push(Output::Work(Job::Wipe(volume, job))),
            Effect::Scrub { volume, job } => outputs.push(Output::Work(Job::Scrub(volume, job))),
            Effect::Verify { volume, job } => outputs.push(Output::Work(Job::Verify(volume, job))),
            Effect::Probe { job } => outputs.push(Output::Work(Job::Probe(job))),
            Effect::Notice(notice) => outputs.push(Output::Observe(Seen::Noticed(notice))),
            Effect::Fatal(reason) => {
                outputs.push(Output::Observe(Seen::Fatal(reason.to_string())));
                outputs.push(Output::Exit);
            }
        }
    }

    /// The place behind a voter's address, and a link there.
    fn way_to(&self, voter: SocketAddr) -> (NodeIndex, Link) {
        let to = NodeIndex(voter.port());
        let site = |place| roster::site_at(place).expect("nodes and voters stand somewhere");
        let links = Link::between(site(self.me), site(to));
        (to, links[self.way % links.len()])
    }

    fn send_peer(
        &mut self,
        now: BootTime,
        to: trefoil_protocol::ids::NodeId,
        message: PeerMessage,
        bulk: Vec<Bytes>,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let Some(to) = roster::place_of(to) else { return };
        let bulk = joined(bulk);
        outputs.push(Output::Observe(Seen::Sent(Box::new(message.clone()), bulk.clone())));
        outputs.extend(mark_of_message(&message).map(Output::Mark));
        let message = Message::Peer(Box::new(message), bulk);
        let link = self.links.choose(to, now);
        outputs.push(Output::Send { to, link, size: message.size(), message });
    }

    fn observe_answer(
        &self,
        now: BootTime,
        request: RequestId,
        response: &TenantResponse,
        outputs: &mut Vec<Output<Process>>,
    ) {
        let answer = match response {
            Ok(answer) => answer,
            Err(Refusal::LeaseExpired) => return outputs.push(Output::Observe(Seen::LeaseOver)),
            Err(_) => return,
        };
        let config = self.volumes.get(&request).and_then(|volume| self.configs.get(volume));
        if let (TenantAnswer::Object(view), Some(config)) = (answer, config) {
            let (config, since) = (Box::new(config.clone()), now.since(self.leased_at));
            let seen = Seen::Gave(config, view.upload.version, view.stale_possible, since);
            outputs.push(Output::Observe(seen));
        }
        let (mark, answer) = match answer {
            TenantAnswer::Applied(answer) => (mark_of_answer(answer), answer.as_ref()),
            answer => (mark_of_answer(answer), answer),
        };
        let Some(mark) = mark else { return };
        outputs.push(Output::Mark(mark));
        if let Some(config) = config {
            let seen = Seen::Acknowledged(Box::new(config.clone()), Box::new(answer.clone()));
            outputs.push(Output::Observe(seen));
        }
    }

    /// The oracle needs to know by which rule an acknowledgement counts.
    fn remember(&mut self, answer: &ControlAnswer) {
        if let ControlAnswer::Granted { sent, .. } = answer {
            self.leased_at = self.leased_at.max(*sent);
        }
        let (ControlAnswer::Granted { news, .. } | ControlAnswer::News(news)) = answer else { return };
        let News { volumes, .. } = news;
        for config in volumes {
            let known = self.configs.get(&config.volume);
            if known.is_none_or(|known| (known.epoch, known.changed) < (config.epoch, config.changed)) {
                self.configs.insert(config.volume, config.clone());
            }
        }
    }

    /// Sets the timer for whatever comes next.
    fn settle(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        let silence = self.asked.values().map(|asked| asked.suspect_at.unwrap_or(asked.until)).min();
        let due = [Some(self.links.due()), self.core.next_wakeup(), silence].into_iter().flatten().min();
        let Some(due) = due else { return };
        if self.timer != Some(due) {
            self.timer = Some(due);
            // A core that wants to be woken in the past is woken at once, and time goes on.
            let at_boot = due.0.max(now.0 + 1);
            outputs.push(Output::SetTimer { timer: WAKE, at_boot });
        }
    }
}

fn joined(mut bulk: Vec<Bytes>) -> Bytes {
    match bulk.len() {
        0 => Bytes::new(),
        1 => bulk.swap_remove(0),
        _ => {
            let mut all = BytesMut::new();
            bulk.iter().for_each(|part| all.extend_from_slice(part));
            all.freeze()
        }
    }
}

fn mark_of_answer(answer: &TenantAnswer) -> Option<&'static str> {
    match answer {
        TenantAnswer::Stored(_) => Some("stored"),
        TenantAnswer::Deleted { .. } => Some("deleted"),
        TenantAnswer::Undeleted { .. } => Some("undeleted"),
        _ => None,
    }
}

fn mark_of_message(message: &PeerMessage) -> Option<&'static str> {
    match &message.body {
        PeerBody::Append { count, .. } if *count > 0 => Some("appended"),
        PeerBody::Payload { fetched: true, .. } => Some("payload.backfilled"),
        PeerBody::Payload { .. } => Some("payload.sent"),
        PeerBody::Peer => Some("peering"),
        PeerBody::Erase { .. } => Some("erase.ordered"),
        PeerBody::Erased { .. } => Some("erased"),
        _ => None,
    }
}

fn mark_of_request(request: &ControlRequest) -> Option<&'static str> {
    match request {
        ControlRequest::Ready { .. } => Some("ready"),
        ControlRequest::Replay { .. } => Some("replay"),
        ControlRequest::Replayed { .. } => Some("replayed"),
        ControlRequest::Lagging { .. } => Some("lagging"),
        ControlRequest::Complete { .. } => Some("complete"),
        ControlRequest::Restored { .. } => Some("restored"),
        ControlRequest::RequestPurge { .. } => Some("purge.requested"),
        ControlRequest::Certify { .. } => Some("certify"),
        ControlRequest::Retired { .. } => Some("retired"),
        _ => None,
    }
}

/// Runs disk work, as a disk thread would.
pub(super) fn run(job: Job) -> Done {
    match job {
        Job::Sync(volume, job, _) => {
            let (ticket, bytes) = (job.ticket(), job.bytes());
            Done::Synced(volume, ticket, job.run(), bytes)
        }
        Job::Read(ticket, job) => Done::Read(ticket, job.run()),
        Job::Erase(volume, job) => Done::Erased(volume, job.run()),
        Job::Rotate(volume, job) => Done::Rotated(volume, job.run()),
        Job::Create(volume, job) => Done::Created(volume, job.run()),
        Job::Wipe(volume, job) => Done::Wiped(volume, job.run()),
        Job::Scrub(volume, job) => Done::Scrubbed(volume, job.run()),
        Job::Verify(volume, job) => Done::Verified(volume, job.run()),
        Job::Probe(job) => {
            let bytes = job.bytes();
            Done::Probed(job.run(), bytes)
        }
    }
}
