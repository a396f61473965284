//! Several storage-node cores, a placement that decides what the test tells it to, and a network of
//! one millisecond, all in one thread and one order of events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::disk::fault::FaultDisk;
use trefoil_engine::{SegmentLayout, Store};
use trefoil_protocol::config::{Member, MemberState, VolumeConfig};
use trefoil_protocol::ids::{
    ClientInstance, DcId, Epoch, Hash, NameTag, NodeId, PrincipalId, StoreId, TenantId, Token, UploadId,
    VersionId, VolumeId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest};
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::message::tenant::{
    Precondition, PutRequest, Selector, TenantCall, TenantRequest, TenantResponse, TokenUse, UploadEnd,
    UploadPart, Want,
};
use trefoil_protocol::time::{BootTime, Millis};
use trefoil_protocol::tree::LEAF_LEN;
use trefoil_storage_node::{
    ControlTicket, ControlUnreachable, Effect, Event, Fatal, NodeCore, NodeSettings, Notice, Pace,
    ReadTicket, RequestId, Spent, VerifiedPrincipal,
};

use crate::placement::FakePlacement;

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const VOLUME: VolumeId = VolumeId(7);
pub(crate) const WHO: VerifiedPrincipal = VerifiedPrincipal { tenant: TENANT, principal: PrincipalId(11) };
/// For how long a client listens.
pub(crate) const PATIENCE: Millis = Millis(60_000);
const HOP: Duration = Duration::from_millis(1);

pub(crate) const LAYOUT: SegmentLayout = SegmentLayout {
    segment_bytes: 4 << 20,
    first_segment_bytes: 256 << 10,
    reserve_bytes: 64 << 10,
    reserve_segment_bytes: 64 << 10,
};

enum Delivery {
    Event(NodeId, u64, Event<FaultDisk>),
    Sync(NodeId, u64, VolumeId, trefoil_engine::SyncJob<FaultDisk>),
    Read(NodeId, u64, ReadTicket, trefoil_engine::ReadJob<FaultDisk>),
    Control(NodeId, u64, ControlTicket, ControlRequest),
    Erase(NodeId, u64, VolumeId, trefoil_engine::EraseJob<FaultDisk>),
    Create(NodeId, u64, VolumeId, trefoil_engine::CreateJob<FaultDisk>),
    Wipe(NodeId, u64, VolumeId, trefoil_engine::WipeJob<FaultDisk>),
    Rotate(NodeId, u64, VolumeId, trefoil_engine::RotationJob<FaultDisk>),
    Scrub(NodeId, u64, VolumeId, trefoil_engine::ScrubJob<FaultDisk>),
    Verify(NodeId, u64, VolumeId, trefoil_engine::VerifyJob<FaultDisk>),
    Probe(NodeId, u64, trefoil_engine::ProbeJob<FaultDisk>),
}

struct Scheduled(Reverse<(BootTime, u64)>, Delivery);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

pub(crate) struct Machine {
    pub(crate) disk: FaultDisk,
    pub(crate) core: Option<NodeCore<FaultDisk>>,
    /// Grows with every start: what was meant for an earlier run is lost.
    life: u64,
    dc: DcId,
    /// Keeps sync jobs from ending.
    pub(crate) syncs_held: bool,
    held: Vec<(VolumeId, trefoil_engine::SyncJob<FaultDisk>)>,
    /// How often an epoch waited for a flush that was under way.
    pub(crate) hurried: usize,
    held_probes: Vec<trefoil_engine::ProbeJob<FaultDisk>>,
    /// Keeps rotations of key bags from beginning on the disk.
    pub(crate) rotations_held: bool,
    rotations: Vec<(VolumeId, trefoil_engine::RotationJob<FaultDisk>)>,
    /// Keeps the machine from doing anything, as a stopped process.
    pub(crate) paused: bool,
    missed: Vec<Event<FaultDisk>>,
    pub(crate) fatal: Option<Fatal>,
    /// What operators were told, in order.
    pub(crate) notices: Vec<Notice>,
}

/// Everything that came back for a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) response: Option<TenantResponse>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: Vec<trefoil_protocol::message::tenant::DataPart>,
    pub(crate) ended: bool,
    pub(crate) aborted: bool,
}

pub(crate) struct Cluster {
    pub(crate) now: BootTime,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) placement: FakePlacement,
    queue: BinaryHeap<Scheduled>,
    order: u64,
    /// Pairs whose messages are lost, in this direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that do not reach placement.
    pub(crate) out_of_reach: BTreeSet<NodeId>,
    /// How long the reading of a suspect store's volume takes.
    pub(crate) verifying_takes: Duration,
    /// How long placement's answers take.
    pub(crate) answers_take: Duration,
    heard: BTreeMap<RequestId, Heard>,
    next_request: u64,
    /// For how long clients say that they listen.
    pub(crate) patience: Millis,
    next_token: u64,
    /// Every peer message that was sent, for tests that replay or count.
    pub(crate) sent: Vec<(NodeId, NodeId, PeerMessage, Bytes)>,
    /// Messages for which this says true are lost.
    pub(crate) lose: Option<fn(&PeerBody) -> bool>,
    /// The pace of those that start from now on.
    pub(crate) pace: Pace,
}

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().expect("a node name")
}

pub(crate) fn store_of(node: NodeId) -> StoreId {
    let mut id = [0; 16];
    id[..node.as_str().len()].copy_from_slice(node.as_str().as_bytes());
    StoreId(id)
}

pub(crate) fn member(name: &str, state: MemberState) -> Member {
    let node = node(name);
    Member { node, dc: dc_of(node), store: store_of(node), state }
}

fn dc_of(node: NodeId) -> DcId {
    node.as_str()[..1].parse().expect("a data centre")
}

impl Cluster {
    /// A volume on a1 (primary), a2 and b1; the other nodes hold nothing yet.
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::at_pace(names, Pace::default())
    }

    fn at_pace(names: &[&str], pace: Pace) -> Self {
        let mut cluster = Self {
            now: BootTime(1_000_000_000),
            machines: BTreeMap::new(),
            placement: FakePlacement::new(),
            queue: BinaryHeap::new(),
            order: 0,
            cut: BTreeSet::new(),
            out_of_reach: BTreeSet::new(),
            answers_take: HOP,
            verifying_takes: HOP,
            heard: BTreeMap::new(),
            next_request: 1,
            patience: PATIENCE,
            next_token: 1,
            sent: Vec::new(),
            lose: None,
            pace,
        };
        for name in names {
            let node = node(name);
            let disk = FaultDisk::new();
            let key = *blake3::hash(name.as_bytes()).as_bytes();
            Store::format(&disk, store_of(node), node, &key).expect("formats");
            let machine = Machine {
                disk,
                core: None,
                life: 0,
                dc: dc_of(node),
                syncs_held: false,
                held: Vec::new(),
                hurried: 0,
                held_probes: Vec::new(),
                rotations_held: false,
                rotations: Vec::new(),
                paused: false,
                missed: Vec::new(),
                fatal: None,
                notices: Vec::new(),
            };
            cluster.machines.insert(node, machine);
            cluster.start(name);
        }
        cluster
    }

    /// A healthy volume on a1 (primary), a2 and b1.
    pub(crate) fn healthy(names: &[&str]) -> Self {
        Self::healthy_at(names, Pace::default())
    }

    /// The same, of nodes with this pace.
    pub(crate) fn healthy_at(names: &[&str], pace: Pace) -> Self {
        let mut cluster = Self::at_pace(names, pace);
        let members = ["a1", "a2", "b1"].map(|name| member(name, MemberState::InSync));
        cluster.placement.create(VOLUME, TENANT, members.to_vec());
        cluster.run(Duration::from_secs(2));
        assert_eq!(cluster.serving(), Some(node("a1")), "the volume starts");
        cluster
    }

    pub(crate) fn start(&mut self, name: &str) {
        let node = node(name);
        let machine = self.machines.get_mut(&node).expect("a machine");
        machine.life += 1;
        machine.paused = false;
        machine.held.clear();
        machine.held_probes.clear();
        machine.rotations_held = false;
        machine.missed.clear();
        let settings = NodeSettings {
            node,
            dc: machine.dc,
            rack: "r".parse().expect("a rack"),
            capacity: 1 << 30,
            addresses: Vec::new(),
            pid: 1,
            pace: self.pace,
        };
        let entropy = *blake3::hash(format!("{name}{}", machine.life).as_bytes()).as_bytes();
        let core = NodeCore::open(&machine.disk, LAYOUT, settings, entropy, self.now).expect("starts");
        machine.core = Some(core);
        self.placement.forget_watch(node);
        self.step(node, Event::Wakeup);
    }

    /// Power loss: what no sync covered may be gone, in any part.
    pub(crate) fn crash(&mut self, name: &str, seed: u64) {
        let machine = self.machines.get_mut(&node(name)).expect("a machine");
        machine.core = None;
        machine.life += 1;
        machine.held.clear();
        machine.held_probes.clear();
        machine.rotations.clear();
        machine.disk.crash(seed);
    }

    /// A clean end of the process.
    pub(crate) fn stop(&mut self, name: &str) {
        let machine = self.machine(name);
        machine.life += 1;
        machine.held.clear();
        machine.held_probes.clear();
        let core = machine.core.take().expect("it runs");
        core.shut_down().expect("it ends cleanly");
    }

    pub(crate) fn pause(&mut self, name: &str) {
        self.machine(name).paused = true;
    }

    pub(crate) fn resume(&mut self, name: &str) {
        let node = node(name);
        let machine = self.machine(name);
        machine.paused = false;
        for event in std::mem::take(&mut machine.missed) {
            self.step(node, event);
        }
    }

    pub(crate) fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.get_mut(&node(name)).expect("a machine")
    }

    pub(crate) fn core(&self, name: &str) -> &NodeCore<FaultDisk> {
        self.machines[&node(name)].core.as_ref().expect("it runs")
    }

    pub(crate) fn release_syncs(&mut self, name: &str) {
        let node = node(name);
        let machine = self.machine(name);
        machine.syncs_held = false;
        let life = machine.life;
        for (volume, job) in std::mem::take(&mut machine.held) {
            self.schedule(HOP, Delivery::Sync(node, life, volume, job));
        }
        for job in std::mem::take(&mut self.machine(name).held_probes) {
            self.schedule(HOP, Delivery::Probe(node, life, job));
        }
    }

    pub(crate) fn release_rotations(&mut self, name: &str) {
        let node = node(name);
        let machine = self.machine(name);
        machine.rotations_held = false;
        let life = machine.life;
        for (volume, job) in std::mem::take(&mut machine.rotations) {
            self.schedule(HOP, Delivery::Rotate(node, life, volume, job));
        }
    }

    /// Loses every message between two nodes.
    pub(crate) fn cut(&mut self, a: &str, b: &str) {
        self.cut.insert((node(a), node(b)));
        self.cut.insert((node(b), node(a)));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.out_of_reach.clear();
    }

    /// Changes the configuration; every change has a new epoch.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut VolumeConfig)) {
        self.placement.change(VOLUME, change);
        self.tell_news();
    }

    /// Asks the primary to give the volume to `to`, or to go on as before.
    pub(crate) fn hand_over(&mut self, to: Option<&str>) {
        self.placement.hand_over(VOLUME, to.map(|name| store_of(node(name))));
        self.tell_news();
    }

    /// The node that serves the volume now, if any.
    pub(crate) fn serving(&self) -> Option<NodeId> {
        let epoch = self.placement.volumes[&VOLUME].epoch;
        let mut nodes = self.machines.iter().filter(|(_, machine)| {
            machine.core.as_ref().is_some_and(|core| {
                core.volumes().get(&VOLUME).is_some_and(|r| r.is_serving() && r.config().epoch == epoch)
            })
        });
        nodes.next().map(|(node, _)| *node)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.placement.volumes[&VOLUME].epoch
    }

    // ---- time ----

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until something is true; says whether it came true.
    pub(crate) fn run_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if done(self) {
                return true;
            }
            let Some(next) = self.next_time().filter(|at| *at <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(next);
            self.placement.clock = self.now;
            if self.queue.peek().is_some_and(|s| s.0.0.0 <= self.now) {
                let delivery = self.queue.pop().expect("peeked").1;
                self.deliver(delivery);
            } else {
                let due = self.machines.iter().find(|(_, m)| wakeup(m).is_some_and(|at| at <= self.now));
                if let Some(node) = due.map(|(node, _)| *node) {
                    self.step(node, Event::Wakeup);
                }
            }
        }
    }

    fn next_time(&self) -> Option<BootTime> {
        let wakeups = self.machines.values().filter_map(wakeup);
        let queued = self.queue.peek().map(|scheduled| scheduled.0.0.0);
        wakeups.chain(queued).min()
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.order += 1;
        self.queue.push(Scheduled(Reverse((self.now + after, self.order)), delivery));
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Event(node, life, event) => {
                if self.is_alive(node, life) {
                    self.step(node, event);
                }
            }
            Delivery::Sync(node, life, volume, job) => {
                if !self.is_alive(node, life) {
                    return;
                }
                let machine = self.machines.get_mut(&node).expect("a machine");
                if machine.syncs_held {
                    machine.held.push((volume, job));
                    return;
                }
                let ticket = job.ticket();
                let result = job.run();
                self.step(node, Event::Synced { volume, ticket, result, spent: Spent::default() });
            }
            Delivery::Read(node, life, ticket, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Read { ticket, result: job.run() });
                }
            }
            Delivery::Erase(node, life, volume, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Erased { volume, result: job.run() });
                }
            }
            Delivery::Probe(node, life, job) => {
                if !self.is_alive(node, life) {
                    return;
                }
                let machine = self.machines.get_mut(&node).expect("a machine");
                match machine.syncs_held {
                    true => machine.held_probes.push(job),
                    false => self.step(node, Event::Probed { result: job.run(), spent: Spent::default() }),
                }
            }
            Delivery::Create(node, life, volume, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Created { volume, result: job.run() });
                }
            }
            Delivery::Wipe(node, life, volume, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Wiped { volume, result: job.run() });
                }
            }
            Delivery::Scrub(node, life, volume, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Scrubbed { volume, result: job.run() });
                }
            }
            Delivery::Verify(node, life, volume, job) => {
                if self.is_alive(node, life) {
                    self.step(node, Event::Verified { volume, result: job.run() });
                }
            }
            Delivery::Rotate(node, life, volume, job) => {
                if !self.is_alive(node, life) {
                    return;
                }
                let machine = self.machines.get_mut(&node).expect("a machine");
                match machine.rotations_held {
                    true => machine.rotations.push((volume, job)),
                    false => self.step(node, Event::Rotated { volume, result: job.run() }),
                }
            }
            Delivery::Control(node, life, ticket, request) => {
                if !self.is_alive(node, life) {
                    return;
                }
                if self.out_of_reach.contains(&node) {
                    let event = Event::Control { ticket, answer: Err(ControlUnreachable) };
                    return self.schedule(HOP, Delivery::Event(node, life, event));
                }
                if let Some(answer) = self.placement.answer(node, ticket, request) {
                    let event = Event::Control { ticket, answer: Ok(answer) };
                    self.schedule(self.answers_take, Delivery::Event(node, life, event));
                }
                self.tell_news();
            }
        }
    }

    /// Answers the watches of everybody who does not know everything.
    fn tell_news(&mut self) {
        for (node, ticket, news) in self.placement.due_watches() {
            let life = self.machines[&node].life;
            let reached = !self.out_of_reach.contains(&node);
            let answer = if reached { Ok(ControlAnswer::News(news)) } else { Err(ControlUnreachable) };
            let event = Event::Control { ticket, answer };
            self.schedule(HOP, Delivery::Event(node, life, event));
        }
    }

    fn is_alive(&self, node: NodeId, life: u64) -> bool {
        let machine = &self.machines[&node];
        machine.core.is_some() && machine.life == life
    }

    pub(crate) fn step(&mut self, node: NodeId, event: Event<FaultDisk>) {
        let now = self.now;
        let machine = self.machines.get_mut(&node).expect("a machine");
        if machine.paused {
            machine.missed.push(event);
            return;
        }
        let Some(core) = &mut machine.core else { return };
        for effect in core.step(now, event) {
            self.effect(node, effect);
        }
    }

    fn effect(&mut self, from: NodeId, effect: Effect<FaultDisk>) {
        let life = self.machines[&from].life;
        match effect {
            Effect::SendPeer { to, message, bulk, .. } => {
                let bulk = Bytes::from(bulk.concat());
                self.sent.push((from, to, message.clone(), bulk.clone()));
                let lost = self.lose.is_some_and(|lose| lose(&message.body));
                if !self.cut.contains(&(from, to)) && !lost && self.machines.contains_key(&to) {
                    let to_life = self.machines[&to].life;
                    let event = Event::Peer { from, message, bulk };
                    self.schedule(HOP, Delivery::Event(to, to_life, event));
                }
            }
            Effect::Reply { request, response, bulk, last } => {
                let heard = self.heard.entry(request).or_default();
                assert!(heard.response.is_none(), "{request:?} is answered once");
                heard.response = Some(response);
                heard.bytes.extend_from_slice(&bulk);
                heard.ended = last;
            }
            Effect::Data { request, part, bulk } => {
                let heard = self.heard.entry(request).or_default();
                bulk.iter().for_each(|bytes| heard.bytes.extend_from_slice(bytes));
                heard.ended = part.last;
                heard.parts.push(part);
            }
            Effect::Abort { request } => self.heard.entry(request).or_default().aborted = true,
            Effect::Taken { .. } => {}
            Effect::Hurry { .. } => self.machines.get_mut(&from).expect("a machine").hurried += 1,
            Effect::Control { ticket, request } => {
                self.schedule(HOP, Delivery::Control(from, life, ticket, request));
            }
            Effect::Sync { volume, job, .. } => self.schedule(HOP, Delivery::Sync(from, life, volume, job)),
            Effect::Read { ticket, job } => self.schedule(HOP, Delivery::Read(from, life, ticket, job)),
            Effect::Erase { volume, job } => self.schedule(HOP, Delivery::Erase(from, life, volume, job)),
            Effect::Probe { job } => self.schedule(HOP, Delivery::Probe(from, life, job)),
            Effect::Create { volume, job } => self.schedule(HOP, Delivery::Create(from, life, volume, job)),
            Effect::Wipe { volume, job } => self.schedule(HOP, Delivery::Wipe(from, life, volume, job)),
            Effect::Rotate { volume, job } => self.schedule(HOP, Delivery::Rotate(from, life, volume, job)),
            Effect::Scrub { volume, job } => self.schedule(HOP, Delivery::Scrub(from, life, volume, job)),
            Effect::Verify { volume, job } => {
                self.schedule(self.verifying_takes, Delivery::Verify(from, life, volume, job));
            }
            Effect::Notice(notice) => {
                self.machines.get_mut(&from).expect("a machine").notices.push(notice);
            }
            Effect::Fatal(fatal) => {
                let machine = self.machines.get_mut(&from).expect("a machine");
                machine.fatal = Some(fatal);
                machine.core = None;
                machine.life += 1;
            }
        }
    }

    // ---- clients ----

    pub(crate) fn token(&mut self) -> TokenUse {
        self.next_token += 1;
        let token = Token { instance: ClientInstance([5; 16]), sequence: self.next_token };
        TokenUse { token, confirmed_below: 0 }
    }

    /// Asks a node, without waiting.
    pub(crate) fn ask(&mut self, to: &str, call: TenantCall, bulk: impl Into<Bytes>) -> RequestId {
        self.ask_as(WHO, to, call, bulk.into())
    }

    pub(crate) fn ask_as(
        &mut self,
        principal: VerifiedPrincipal,
        to: &str,
        call: TenantCall,
        bulk: Bytes,
    ) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let body = TenantRequest { volume: VOLUME, epoch: self.epoch(), call, within: self.patience };
        self.step(node(to), Event::Request { request, principal, body, bulk });
        request
    }

    pub(crate) fn heard(&self, request: RequestId) -> Heard {
        self.heard.get(&request).cloned().unwrap_or_default()
    }

    /// Waits for the end of a request's answer.
    pub(crate) fn wait(&mut self, request: RequestId) -> Heard {
        let ended = |cluster: &Self| {
            let heard = cluster.heard(request);
            heard.ended || heard.aborted
        };
        self.run_until(Duration::from_secs(60), ended);
        self.heard(request)
    }

    /// Asks and waits.
    pub(crate) fn call(&mut self, to: &str, call: TenantCall, bulk: impl Into<Bytes>) -> TenantResponse {
        let request = self.ask(to, call, bulk);
        self.wait(request).response.expect("answered within a minute")
    }

    pub(crate) fn put_call(&mut self, key: &str, version: u8, bytes: &[u8]) -> TenantCall {
        let token = self.token();
        put_call(key, version, bytes, token)
    }

    /// Stores an object by way of the node, small or large.
    pub(crate) fn put(&mut self, to: &str, key: &str, version: u8, bytes: &[u8]) -> TenantResponse {
        let request = self.begin_put(to, key, version, bytes);
        self.wait(request).response.expect("answered within a minute")
    }

    pub(crate) fn begin_put(&mut self, to: &str, key: &str, version: u8, bytes: &[u8]) -> RequestId {
        let call = self.put_call(key, version, bytes);
        self.begin(to, call, bytes)
    }

    /// Sends a put and, if it is streamed, all of its bytes.
    pub(crate) fn begin(&mut self, to: &str, call: TenantCall, bytes: &[u8]) -> RequestId {
        let TenantCall::Put(put) = &call else { panic!("a put") };
        if put.inline.is_some() {
            return self.ask(to, call, bytes.to_vec());
        }
        let request = self.ask(to, call, Bytes::new());
        self.stream(to, request, bytes);
        self.finish(to, request, bytes);
        request
    }

    /// Sends the leaves of a streamed put.
    pub(crate) fn stream(&mut self, to: &str, request: RequestId, bytes: &[u8]) {
        let part_length = 4 * LEAF_LEN as usize;
        for (index, part) in bytes.chunks(part_length).enumerate() {
            let first = u32::try_from(index * 4).expect("small");
            let part_event = UploadPart::Leaves { first };
            let bulk = Bytes::copy_from_slice(part);
            self.step(node(to), Event::Upload { request, part: part_event, bulk });
        }
    }

    pub(crate) fn finish(&mut self, to: &str, request: RequestId, bytes: &[u8]) {
        let part = UploadPart::End(end_of(bytes));
        self.step(node(to), Event::Upload { request, part, bulk: Bytes::new() });
    }

    pub(crate) fn delete(&mut self, to: &str, key: &str) -> TenantResponse {
        let token = self.token();
        let call = TenantCall::Delete { key: name(key), precondition: Precondition::Any, token };
        self.call(to, call, Bytes::new())
    }

    pub(crate) fn undelete(&mut self, to: &str, key: &str) -> TenantResponse {
        let token = self.token();
        let call = TenantCall::Undelete { key: name(key), name_tag: tag(key), version: None, token };
        self.call(to, call, Bytes::new())
    }

    /// Reads the latest version's bytes.
    pub(crate) fn get(&mut self, to: &str, key: &str) -> Heard {
        self.read(to, key, Selector::Latest)
    }

    pub(crate) fn get_version(&mut self, to: &str, key: &str, version: u8) -> Heard {
        self.read(to, key, Selector::Version(VersionId([version; 16])))
    }

    /// Reads a version, as somebody who takes it stale.
    pub(crate) fn get_stale(&mut self, to: &str, key: &str, version: u8) -> Heard {
        self.read(to, key, Selector::StalePossible(VersionId([version; 16])))
    }

    fn read(&mut self, to: &str, key: &str, selector: Selector) -> Heard {
        let call = TenantCall::Get { key: name(key), selector, want: Want::Whole };
        let request = self.ask(to, call, Bytes::new());
        self.wait(request)
    }
}

fn wakeup(machine: &Machine) -> Option<BootTime> {
    machine.core.as_ref().filter(|_| !machine.paused)?.next_wakeup()
}

pub(crate) fn name(key: &str) -> ObjectKey {
    ObjectKey::new(key.to_owned()).expect("a key")
}

pub(crate) fn tag(key: &str) -> NameTag {
    NameTag(blake3::hash(key.as_bytes()).as_bytes()[..16].try_into().expect("16 bytes"))
}

pub(crate) fn end_of(bytes: &[u8]) -> UploadEnd {
    UploadEnd {
        root: Hash(*blake3::hash(bytes).as_bytes()),
        sealed_length: bytes.len() as u64,
        metadata: Bytes::from_static(b"sealed metadata"),
    }
}

pub(crate) fn put_call(key: &str, version: u8, bytes: &[u8], token: TokenUse) -> TenantCall {
    let inline = (bytes.len() as u64 <= trefoil_protocol::record::INLINE_MAX).then(|| end_of(bytes));
    TenantCall::Put(PutRequest {
        key: name(key),
        name_tag: tag(key),
        upload: UploadId { version: VersionId([version; 16]), attempt: 0 },
        precondition: Precondition::Any,
        kek_version: 1,
        wrapped_key: Bytes::from(vec![version; 40]),
        inline,
        token,
    })
}

/// Bytes that no other seed gives.
pub(crate) fn object(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
