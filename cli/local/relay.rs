//! The fibre between the two data centres: a UDP relay outside all nodes that can stop forwarding.
//! Nodes reach peers of the other data centre through it by their `detours`, and nobody tells them
//! when a link is cut.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use trefoil_protocol::ids::LinkId;

use crate::config::cluster::{ClusterFile, NodePlan};
use crate::config::server::DetourTable;
use crate::failure::{Failure, Verdict};

/// The largest datagram there is.
const DATAGRAM_MAX: usize = 65_535;

/// What the system may keep for a socket of the relay, so that the relay is no bottleneck.
const SOCKET_BYTES: usize = 4 << 20;

/// Both links of a cluster.
pub(crate) struct Relay {
    gates: BTreeMap<LinkId, Arc<Gate>>,
    doors: Vec<Door>,
    tasks: JoinSet<()>,
}

/// Where one node of the other data centre is reached on one link.
struct Door {
    node: String,
    dc: String,
    link: LinkId,
    address: SocketAddr,
}

/// One link: open or cut, and how many datagrams it carried and swallowed.
struct Gate {
    open: AtomicBool,
    forwarded: AtomicU64,
    swallowed: AtomicU64,
}

/// What a link did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Datagrams that went through.
    pub(crate) forwarded: u64,
    /// Datagrams that the cut swallowed.
    pub(crate) swallowed: u64,
}

impl Relay {
    /// Opens a door to every node on both links. Must be called within a runtime.
    pub(crate) async fn open(plan: &ClusterFile) -> Verdict<Self> {
        let gate = || {
            let (forwarded, swallowed) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Gate { open: AtomicBool::new(true), forwarded, swallowed })
        };
        let gates: BTreeMap<_, _> = LinkId::ALL.into_iter().map(|link| (link, gate())).collect();
        let mut relay = Self { gates, doors: Vec::new(), tasks: JoinSet::new() };
        for node in &plan.nodes {
            for (link, target) in LinkId::ALL.into_iter().zip(node.links) {
                relay.add_door(node, link, target).await.map_err(Failure::failed)?;
            }
        }
        Ok(relay)
    }

    async fn add_door(&mut self, node: &NodePlan, link: LinkId, target: SocketAddr) -> io::Result<()> {
        let socket = Arc::new(bind().await?);
        let address = socket.local_addr()?;
        self.doors.push(Door { node: node.id.clone(), dc: node.dc.clone(), link, address });
        self.tasks.spawn(forward(socket, target, Arc::clone(&self.gates[&link])));
        Ok(())
    }

    /// The ways of `node` to every peer in another data centre.
    pub(crate) fn detours(&self, node: &str) -> Vec<DetourTable> {
        let own = self.doors.iter().find(|door| door.node == node).map(|door| door.dc.as_str());
        let far = self.doors.iter().filter(|door| Some(door.dc.as_str()) != own);
        far.map(|door| DetourTable { node: door.node.clone(), link: door.link.number(), via: door.address })
            .collect()
    }

    /// Swallows everything on a link from now on.
    pub(crate) fn cut(&self, link: LinkId) {
        self.gates[&link].open.store(false, Ordering::SeqCst);
    }

    /// Forwards again.
    pub(crate) fn restore(&self, link: LinkId) {
        self.gates[&link].open.store(true, Ordering::SeqCst);
    }

    /// What a link did so far.
    pub(crate) fn traffic(&self, link: LinkId) -> Traffic {
        let gate = &self.gates[&link];
        Traffic {
            forwarded: gate.forwarded.load(Ordering::SeqCst),
            swallowed: gate.swallowed.load(Ordering::SeqCst),
        }
    }
}

impl Gate {
    /// Whether this datagram goes through.
    fn passes(&self) -> bool {
        let open = self.open.load(Ordering::SeqCst);
        let count = if open { &self.forwarded } else { &self.swallowed };
        count.fetch_add(1, Ordering::Relaxed);
        open
    }
}

async fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    Ok(socket)
}

/// Carries what arrives at `door` to `target`, and the answers back. Each sender gets a socket of
/// its own, so that the target can tell senders apart.
async fn forward(door: Arc<UdpSocket>, target: SocketAddr, gate: Arc<Gate>) {
    let mut senders: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut ways_back = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is a peer's socket that has gone; the next datagram is another's.
        let Ok((length, sender)) = door.recv_from(&mut buffer).await else { continue };
        if !gate.passes() {
            continue;
        }
        let onward = match senders.get(&sender) {
            Some(socket) => Arc::clone(socket),
            None => {
                let Ok(socket) = connected(target).await else { continue };
                let socket = Arc::new(socket);
                ways_back.spawn(answer(Arc::clone(&socket), Arc::clone(&door), sender, Arc::clone(&gate)));
                senders.insert(sender, Arc::clone(&socket));
                socket
            }
        };
        // A lost datagram is what networks do.
        let _ = onward.send(&buffer[..length]).await;
    }
}

async fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind().await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn answer(from: Arc<UdpSocket>, door: Arc<UdpSocket>, to: SocketAddr, gate: Arc<Gate>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        match from.recv(&mut buffer).await {
            Ok(length) if gate.passes() => drop(door.send_to(&buffer[..length], to).await),
            Ok(_) => {}
            // The target's process is gone: its port refuses until it is back.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_link_carries_both_ways_until_it_is_cut() {
        let mut plan = plan();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        plan.nodes[5].links[0] = far.local_addr().unwrap();
        let relay = Relay::open(&plan).await.unwrap();
        let detours = relay.detours("a1");
        assert_eq!(detours.len(), 6, "three peers on two links");
        let via = detours.iter().find(|detour| detour.node == "b3" && detour.link == 1).unwrap().via;

        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 16];
        near.send_to(b"there", via).await.unwrap();
        let (length, back) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"there");
        far.send_to(b"back", back).await.unwrap();
        let (length, _) = near.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"back");

        relay.cut(LinkId::One);
        near.send_to(b"lost", via).await.unwrap();
        assert!(timeout(Duration::from_millis(100), far.recv_from(&mut buffer)).await.is_err());
        assert_eq!(relay.traffic(LinkId::One), Traffic { forwarded: 2, swallowed: 1 });
        relay.restore(LinkId::One);
        near.send_to(b"again", via).await.unwrap();
        let (length, _) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"again");
    }

    fn plan() -> ClusterFile {
        let folder = std::env::temp_dir().join(format!("trefoil-relay-{}", std::process::id()));
        let (_, plan) = crate::local::LocalCluster::plan(&folder, None, None).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        plan
    }
}
