//! The connections to other nodes: an address book fed by the control plane's news, links kept per
//! peer, and an inbox for what peers say. Which link carries a message is the transport's choice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until, timeout};
use trefoil_protocol::codec;
use trefoil_protocol::config::{NodeEntry, NodeState};
use trefoil_protocol::ids::{DcId, LinkId, NodeId, UploadId, VersionId};
use trefoil_protocol::message::control::{LinkPolicy, LinkReport, News};
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_protocol::message::traffic::Class;
use trefoil_protocol::pacing::{self, Pacing};
use trefoil_protocol::time::BootTime;
use trefoil_transport::{
    Bulk, CloseReason, Connection, Frame, Identity, Lane as Queue, PeerIdentity, PeerLinks, PeerPath, Plane,
    Receiver,
};

use super::{Detour, Event, LinkEndpoint, Settings};
use crate::effect::Lane;

/// Frames that peers may have sent before the core looked at them.
const INBOX_FRAMES: usize = 256;

/// Payload that may wait for all peers together before clients' uploads are held up.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Repair that may wait for all peers together; what comes then is dropped, and asked for again.
const REPAIR_BYTES_MAX: usize = 16 << 20;

/// Ordered lanes that the payload of all uploads to one peer shares: enough that a large upload does not
/// hold up every small one, and no stream has to be opened for an upload.
const PAYLOAD_LANES: usize = 4;

/// Payload that somebody catches up on has a lane of its own behind those: it may be held up, and holds up
/// nothing.
const LANES: usize = PAYLOAD_LANES + 1;

/// How long one message of payload may wait for room in its lane.
const PAYLOAD_TIME_MAX: Duration = Duration::from_secs(1);

/// A message with payload, before a lane has taken it.
struct Waiting {
    not_before: Instant,
    class: Class,
    body: Bytes,
    bulk: Bulk,
}

/// Everyone this node may speak to.
pub(super) struct Peers {
    own: NodeId,
    dc: DcId,
    endpoints: Vec<LinkEndpoint>,
    detours: Vec<Detour>,
    /// What repair to other data centres may take of each link.
    limits: RefCell<BTreeMap<LinkId, Pacing>>,
    /// Where the clock of the limits begins.
    origin: Instant,
    known: RefCell<BTreeMap<NodeId, Peer>>,
    connections: UnboundedSender<Connection>,
    inbox: Mutex<mpsc::Receiver<Event>>,
    backlog: Rc<Backlog>,
    /// What waits of repair, which holds up nobody's uploads.
    repairs: Rc<Backlog>,
}

struct Peer {
    dc: DcId,
    up: bool,
    addresses: Vec<(LinkId, SocketAddr)>,
    links: Rc<PeerLinks>,
    /// Payload waits, in order, for room in its lane; the tasks behind these do the waiting.
    payload: [UnboundedSender<Waiting>; LANES],
}

impl Peer {
    /// Puts payload behind what waits in a lane.
    fn queue(&self, lane: usize, payload: Waiting) {
        self.payload[lane].send(payload).expect("its task ends with the peer's entry");
    }
}

/// Payload that waits for peers to take it, in bytes, over all of them: clients' uploads are read
/// only while it is small, so a slow peer slows its clients and never fills this node's memory.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: Cell<usize>,
    less: Notify,
}

impl Backlog {
    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.less.notify_waiters();
    }

    fn has_room(&self, bytes: usize, max: usize) -> bool {
        self.bytes.get() + bytes <= max
    }

    /// Waits until an upload may go on.
    pub(super) async fn room(&self) {
        while self.bytes.get() >= BACKLOG_BYTES_MAX {
            self.less.notified().await;
        }
    }
}

impl Peers {
    /// Nobody is known yet.
    pub(super) fn new(settings: &Settings, endpoints: &[LinkEndpoint]) -> Self {
        let (events, inbox) = mpsc::channel(INBOX_FRAMES);
        let (connections, accepted) = mpsc::unbounded_channel();
        tokio::task::spawn_local(receive(accepted, events));
        Self {
            own: settings.node,
            dc: settings.dc,
            endpoints: endpoints.to_vec(),
            detours: settings.detours.clone(),
            limits: RefCell::default(),
            origin: Instant::now(),
            known: RefCell::default(),
            connections,
            inbox: Mutex::new(inbox),
            backlog: Rc::default(),
            repairs: Rc::default(),
        }
    }

    /// The payload that waits for peers.
    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Listens to an accepted connection of the node plane.
    pub(super) fn receive(&self, connection: Connection) {
        if self.connections.send(connection).is_err() {
            tracing::error!("the peers' inbox is gone");
        }
    }

    /// The next thing a peer said.
    pub(super) async fn next(&self) -> Event {
        self.inbox.lock().await.recv().await.expect("the inbox's task lives as long as the node")
    }

    /// Takes over what the control plane says about nodes and links: opens links to new peers, opens
    /// them anew where addresses changed, and uses links as operators want.
    pub(super) fn learn(&self, news: &News) {
        for node in news.nodes.iter().filter(|node| node.node != self.own) {
            let addresses = self.addresses_of(node);
            let mut known = self.known.borrow_mut();
            let peer = known.entry(node.node).or_insert_with(|| self.open(node, addresses.clone()));
            if peer.addresses != addresses {
                *peer = self.open(node, addresses);
            }
            peer.up = node.state == NodeState::Up;
        }
        for policy in &news.links {
            self.heed(policy);
        }
    }

    /// Does as operators want a link to be used. A limit holds for a data centre: each of its nodes has a share.
    fn heed(&self, policy: &LinkPolicy) {
        let LinkPolicy { link, drained, repair_limit } = *policy;
        let known = self.known.borrow();
        for peer in known.values() {
            match (peer.links.health(link).drained, drained) {
                (false, true) => peer.links.drain(link),
                (true, false) => peer.links.restore(link),
                (false, false) | (true, true) => {}
            }
        }
        let near = 1 + known.values().filter(|peer| peer.up && peer.dc == self.dc).count();
        let share = repair_limit.map(|limit| pacing::share(limit, near));
        self.limits.borrow_mut().entry(link).or_default().limit(share);
    }

    /// Sends a message, or drops it if the peer is not known or its queue overflows: the core sends
    /// again what matters.
    pub(super) fn send(&self, to: NodeId, lane: Lane, message: &PeerMessage, bulk: Vec<Bytes>) {
        let known = self.known.borrow();
        let Some(peer) = known.get(&to) else { return };
        let body = Bytes::from(codec::to_vec(message));
        let bulk = Bulk::from(bulk);
        let class = class_of(lane, &message.body);
        match (lane, &message.body) {
            (Lane::Background, PeerBody::Payload { .. }) => {
                let Some(not_before) = self.repair_turn(peer, bulk.len()) else { return };
                self.repairs.add(bulk.len());
                peer.queue(PAYLOAD_LANES, Waiting { not_before, class, body, bulk });
            }
            (Lane::Payload, PeerBody::Payload { upload, .. }) => {
                self.backlog.add(bulk.len());
                let not_before = Instant::now();
                peer.queue(payload_lane(upload), Waiting { not_before, class, body, bulk });
            }
            _ => {
                if let Err(error) = peer.links.try_send(Queue::Control, class, body, bulk) {
                    tracing::warn!(peer = %to, %error, "message not sent");
                }
            }
        }
    }

    /// When so many bytes of repair may go to a peer, if soon enough: what is dropped is asked for again.
    fn repair_turn(&self, peer: &Peer, bytes: usize) -> Option<Instant> {
        if !self.repairs.has_room(bytes, REPAIR_BYTES_MAX) {
            return None;
        }
        let now = Instant::now();
        if peer.dc == self.dc {
            return Some(now);
        }
        let (link, mut limits) = (peer.links.link()?, self.limits.borrow_mut());
        let on_their_clock = BootTime::default() + now.duration_since(self.origin);
        let pause = limits.entry(link).or_default().turn(bytes as u64, on_their_clock)?;
        Some(now + pause)
    }

    /// For each link, how many peers of other data centres answer over it.
    pub(super) fn reports(&self) -> Vec<LinkReport> {
        let known = self.known.borrow();
        let report = |link| {
            let far = known.values().filter(|peer| peer.up && peer.dc != self.dc);
            let mut sum = LinkReport::unknown(link);
            far.for_each(|peer| sum.add(&report_of(&peer.links, link)));
            sum
        };
        LinkId::ALL.into_iter().map(report).collect()
    }

    /// Both links to the other data centre; one inside a data centre.
    fn addresses_of(&self, node: &NodeEntry) -> Vec<(LinkId, SocketAddr)> {
        let mut addresses: Vec<_> = node.addresses.iter().map(|at| (at.link, at.address)).collect();
        if node.dc == self.dc {
            addresses.truncate(1);
        }
        for (link, address) in &mut addresses {
            let detour = self.detours.iter().find(|d| d.node == node.node && d.link == *link);
            if let Some(detour) = detour {
                *address = detour.via;
            }
        }
        addresses
    }

    fn open(&self, node: &NodeEntry, addresses: Vec<(LinkId, SocketAddr)>) -> Peer {
        let path = |(link, remote): &(LinkId, SocketAddr)| {
            let (_, local) = self.endpoints.iter().find(|(own, _)| own == link).or(self.endpoints.first())?;
            Some(PeerPath { link: *link, local: local.clone(), remote: *remote })
        };
        let paths = addresses.iter().filter_map(path).collect();
        let links = Rc::new(PeerLinks::open(Identity::Node(node.node), Plane::Node, paths));
        let payload = std::array::from_fn(|lane| {
            let (payload, waiting) = mpsc::unbounded_channel();
            let backlog = Rc::clone(if lane == PAYLOAD_LANES { &self.repairs } else { &self.backlog });
            tokio::task::spawn_local(send_payload(Rc::clone(&links), queue_of(lane), waiting, backlog));
            payload
        });
        Peer { dc: node.dc, up: true, addresses, links, payload }
    }
}

/// How the link to one peer is.
fn report_of(links: &PeerLinks, link: LinkId) -> LinkReport {
    let (health, (packets, lost)) = (links.health(link), links.packets(link));
    let rtt = health.rtt.map_or(0, |rtt| rtt.as_micros());
    LinkReport {
        healthy: u32::from(health.up),
        silent: u32::from(!health.up),
        slow: u32::from(health.up && health.slow),
        rtt_us: u32::try_from(rtt).unwrap_or(u32::MAX),
        packets,
        lost,
        traffic: links.traffic(link),
        ..LinkReport::unknown(link)
    }
}

/// What a message is for.
fn class_of(lane: Lane, body: &PeerBody) -> Class {
    match lane {
        Lane::Background => Class::Repair,
        Lane::Payload => Class::Clients,
        Lane::Log if body.is_for_clients() => Class::Clients,
        Lane::Log => Class::Control,
    }
}

/// An upload stays on one lane, so that its leaves arrive in order.
fn payload_lane(upload: &UploadId) -> usize {
    usize::from(upload.version.0[0]) % PAYLOAD_LANES
}

fn queue_of(lane: usize) -> Queue {
    let number = u8::try_from(lane).expect("few lanes");
    Queue::Upload(UploadId { version: VersionId([number; 16]), attempt: 0 })
}

/// Sends payload as the lanes take it. What a peer does not take in time, or while none of its links
/// answers, is dropped: a member asks again for what it lacks, and nobody else may wait for it.
async fn send_payload(
    links: Rc<PeerLinks>,
    queue: Queue,
    mut waiting: UnboundedReceiver<Waiting>,
    backlog: Rc<Backlog>,
) {
    while let Some(Waiting { not_before, class, body, bulk }) = waiting.recv().await {
        // A timer has milliseconds: what may go at once must not wait for one.
        if Instant::now() < not_before {
            sleep_until(not_before).await;
        }
        let bytes = bulk.len();
        if LinkId::ALL.into_iter().any(|link| links.health(link).up) {
            match timeout(PAYLOAD_TIME_MAX, links.send(queue, class, body, bulk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(peer = %links.peer(), %error, "payload not sent"),
                Err(_) if class == Class::Repair => {
                    tracing::debug!(peer = %links.peer(), "repair not taken in time");
                }
                Err(_) => tracing::warn!(peer = %links.peer(), "payload not taken in time"),
            }
        }
        backlog.remove(bytes);
    }
}

/// Turns what peers send into events. A frame that is no message ends nothing but is logged: the
/// transport has closed connections whose frames are malformed.
async fn receive(mut accepted: UnboundedReceiver<Connection>, events: mpsc::Sender<Event>) {
    let mut receiver = Receiver::new(INBOX_FRAMES);
    loop {
        let (peer, frame) = tokio::select! {
            connection = accepted.recv() => match connection {
                Some(connection) => {
                    receiver.add(connection);
                    continue;
                }
                None => return,
            },
            said = receiver.next() => said,
        };
        let Some(event) = event_of(&peer, frame) else { continue };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn event_of(peer: &PeerIdentity, frame: Frame) -> Option<Event> {
    let Identity::Node(from) = peer.identity() else {
        tracing::error!(peer = %peer.identity(), reason = ?CloseReason::Malformed, "not a node");
        return None;
    };
    match codec::from_slice::<PeerMessage>(&frame.body) {
        Ok(message) => Some(Event::Peer { from, message, bulk: frame.bulk }),
        Err(error) => {
            tracing::warn!(peer = %from, %error, "a peer's message cannot be read");
            None
        }
    }
}
