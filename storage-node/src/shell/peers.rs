//! The connections to other nodes: an address book fed by the control plane's news, links kept per
//! peer, and an inbox for what peers say. Which link carries a message is the transport's choice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use trefoil_protocol::codec;
use trefoil_protocol::config::{NodeEntry, NodeState};
use trefoil_protocol::ids::{DcId, LinkId, NodeId};
use trefoil_protocol::message::control::LinkReport;
use trefoil_protocol::message::peer::{PeerBody, PeerMessage};
use trefoil_transport::{
    CloseReason, Connection, Frame, Identity, Lane as Queue, PeerIdentity, PeerLinks, PeerPath, Plane,
    Receiver,
};

use super::bulk::joined;
use super::{Detour, LinkEndpoint, Settings};
use crate::effect::Lane;
use crate::event::Event;

/// Frames that peers may have sent before the core looked at them.
const INBOX_FRAMES: usize = 256;

/// Everyone this node may speak to.
pub(super) struct Peers {
    own: NodeId,
    dc: DcId,
    endpoints: Vec<LinkEndpoint>,
    detours: Vec<Detour>,
    known: RefCell<BTreeMap<NodeId, Peer>>,
    connections: UnboundedSender<Connection>,
    inbox: Mutex<mpsc::Receiver<Event>>,
}

struct Peer {
    dc: DcId,
    up: bool,
    addresses: Vec<(LinkId, SocketAddr)>,
    links: Rc<PeerLinks>,
    /// Payload waits, in order, for room in its lane; the task behind this does the waiting.
    payload: UnboundedSender<(Queue, Bytes, Bytes)>,
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
            known: RefCell::default(),
            connections,
            inbox: Mutex::new(inbox),
        }
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

    /// Takes over what the control plane says about nodes: opens links to new peers, and opens them
    /// anew where addresses changed.
    pub(super) fn learn(&self, nodes: &[NodeEntry]) {
        for node in nodes.iter().filter(|node| node.node != self.own) {
            let addresses = self.addresses_of(node);
            let mut known = self.known.borrow_mut();
            let peer = known.entry(node.node).or_insert_with(|| self.open(node, addresses.clone()));
            if peer.addresses != addresses {
                *peer = self.open(node, addresses);
            }
            peer.up = node.state == NodeState::Up;
        }
    }

    /// Sends a message, or drops it if the peer is not known or its queue overflows: the core sends
    /// again what matters.
    pub(super) fn send(&self, to: NodeId, lane: Lane, message: &PeerMessage, bulk: Vec<Bytes>) {
        let known = self.known.borrow();
        let Some(peer) = known.get(&to) else { return };
        let body = Bytes::from(codec::to_vec(message));
        let bulk = joined(bulk);
        match (lane, &message.body) {
            (Lane::Payload | Lane::Background, PeerBody::Payload { upload, .. }) => {
                // The task ends only with the peer's entry.
                let _ = peer.payload.send((Queue::Upload(*upload), body, bulk));
            }
            _ => {
                if let Err(error) = peer.links.try_send(Queue::Control, body, bulk) {
                    tracing::warn!(peer = %to, %error, "message not sent");
                }
            }
        }
    }

    /// For each link, how many peers of other data centres answer over it.
    pub(super) fn reports(&self) -> Vec<LinkReport> {
        let known = self.known.borrow();
        let report = |link| {
            let far = known.values().filter(|peer| peer.up && peer.dc != self.dc);
            let (healthy, silent): (Vec<_>, Vec<_>) = far.partition(|peer| peer.links.health(link).up);
            LinkReport { link, healthy: count(healthy.len()), silent: count(silent.len()) }
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
        let (payload, waiting) = mpsc::unbounded_channel();
        tokio::task::spawn_local(send_payload(Rc::clone(&links), waiting));
        Peer { dc: node.dc, up: true, addresses, links, payload }
    }
}

fn count(peers: usize) -> u32 {
    u32::try_from(peers).unwrap_or(u32::MAX)
}

async fn send_payload(links: Rc<PeerLinks>, mut waiting: UnboundedReceiver<(Queue, Bytes, Bytes)>) {
    while let Some((queue, body, bulk)) = waiting.recv().await {
        if let Err(error) = links.send(queue, body, bulk).await {
            tracing::warn!(peer = %links.peer(), %error, "payload not sent");
        }
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
