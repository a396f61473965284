//! The fibre between the two data centres: a UDP relay outside all nodes that can stop forwarding, forward late,
//! twice or not at all, and break the path between two nodes. Nodes reach peers of the other data centre through
//! it by their `detours`, and nobody tells them what becomes of a link.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use trefoil_drill::LinkModel;
use trefoil_protocol::ids::LinkId;

use super::weather::Weather;
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
    paths: Arc<Paths>,
    doors: Vec<Door>,
    tasks: JoinSet<()>,
}

/// Who is where, and between whom nothing passes.
struct Paths {
    nodes: BTreeMap<SocketAddr, String>,
    parted: Mutex<BTreeSet<BTreeSet<String>>>,
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
    /// How it behaves, if it is not well, and its weather towards each data centre.
    model: Mutex<Option<(LinkModel, BTreeMap<String, Weather>)>>,
    began: Instant,
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
            let (open, model, began) = (AtomicBool::new(true), Mutex::default(), Instant::now());
            Arc::new(Gate { open, forwarded, swallowed, model, began })
        };
        let gates: BTreeMap<_, _> = LinkId::ALL.into_iter().map(|link| (link, gate())).collect();
        let listen = |node: &NodePlan| node.links.map(|address| (address, node.id.clone()));
        let nodes = plan.nodes.iter().flat_map(listen).collect();
        let paths = Arc::new(Paths { nodes, parted: Mutex::default() });
        let mut relay = Self { gates, paths, doors: Vec::new(), tasks: JoinSet::new() };
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
        let (gate, paths) = (Arc::clone(&self.gates[&link]), Arc::clone(&self.paths));
        let end = End { node: node.id.clone(), dc: node.dc.clone(), target };
        self.tasks.spawn(forward(socket, end, gate, paths));
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

    /// Forwards again, and as it should.
    pub(crate) fn restore(&self, link: LinkId) {
        *self.gates[&link].model() = None;
        self.gates[&link].open.store(true, Ordering::SeqCst);
    }

    /// A link behaves like this from now on.
    pub(crate) fn behave(&self, link: LinkId, model: LinkModel) {
        *self.gates[&link].model() = Some((model, BTreeMap::new()));
    }

    /// Nothing passes between two nodes of different data centres any more, over whatever link.
    pub(crate) fn part(&self, pair: &[String; 2]) -> Result<(), String> {
        let dc = |name: &String| self.doors.iter().find(|door| door.node == *name).map(|door| &door.dc);
        match pair.each_ref().map(dc) {
            [Some(one), Some(other)] if one != other => {
                self.paths.parted().insert(pair.iter().cloned().collect());
                Ok(())
            }
            [Some(_), Some(_)] => {
                Err("they stand in one data centre: the relay is between the two".to_owned())
            }
            _ => Err("there is no such node".to_owned()),
        }
    }

    /// Something passes between them again.
    pub(crate) fn join(&self, pair: &[String; 2]) {
        self.paths.parted().remove(&pair.iter().cloned().collect());
    }

    /// Something passes between all.
    pub(crate) fn join_all(&self) {
        self.paths.parted().clear();
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

impl Paths {
    fn parted(&self) -> MutexGuard<'_, BTreeSet<BTreeSet<String>>> {
        self.parted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_parted(&self, node: &str, sender: SocketAddr) -> bool {
        let parted = self.parted();
        let Some(other) = self.nodes.get(&sender).filter(|_| !parted.is_empty()) else { return false };
        parted.iter().any(|pair| pair.contains(node) && pair.contains(other))
    }
}

impl Gate {
    fn model(&self) -> MutexGuard<'_, Option<(LinkModel, BTreeMap<String, Weather>)>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a datagram towards a data centre is to be delivered, each copy of it; `None` for at once.
    fn carry(&self, towards: &str, bytes: usize, parted: bool) -> Option<Vec<Instant>> {
        if parted || !self.open.load(Ordering::SeqCst) {
            self.swallowed.fetch_add(1, Ordering::Relaxed);
            return Some(Vec::new());
        }
        let mut model = self.model();
        let Some((model, lines)) = model.as_mut() else {
            self.forwarded.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let line = lines.entry(towards.to_owned()).or_insert_with(|| Weather::new(towards));
        let arrivals = line.carry(self.began.elapsed(), model, bytes);
        let count = if arrivals.is_empty() { &self.swallowed } else { &self.forwarded };
        count.fetch_add(1, Ordering::Relaxed);
        Some(arrivals.into_iter().map(|at| self.began + at).collect())
    }
}

/// Where a door leads.
struct End {
    node: String,
    dc: String,
    target: SocketAddr,
}

/// Delivers a datagram when its time has come. A lost one is what networks do.
async fn deliver(socket: &Arc<UdpSocket>, to: Option<SocketAddr>, bytes: &[u8], due: Option<Vec<Instant>>) {
    let Some(due) = due else { return drop(send(socket, to, bytes).await) };
    for at in due {
        let (socket, bytes) = (Arc::clone(socket), bytes.to_vec());
        tokio::spawn(async move {
            sleep_until(at).await;
            let _ = send(&socket, to, &bytes).await;
        });
    }
}

async fn send(socket: &UdpSocket, to: Option<SocketAddr>, bytes: &[u8]) -> io::Result<usize> {
    match to {
        Some(to) => socket.send_to(bytes, to).await,
        None => socket.send(bytes).await,
    }
}

async fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    Ok(socket)
}

/// Carries what arrives at `door` to its target, and the answers back. Each sender gets a socket of
/// its own, so that the target can tell senders apart.
async fn forward(door: Arc<UdpSocket>, end: End, gate: Arc<Gate>, paths: Arc<Paths>) {
    let end = Arc::new(end);
    let mut senders: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut ways_back = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is a peer's socket that has gone; the next datagram is another's.
        let Ok((length, sender)) = door.recv_from(&mut buffer).await else { continue };
        let due = gate.carry(&end.dc, length, paths.are_parted(&end.node, sender));
        if due.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let onward = match senders.get(&sender) {
            Some(socket) => Arc::clone(socket),
            None => {
                let Ok(socket) = connected(end.target).await else { continue };
                let socket = Arc::new(socket);
                let back = Back { from: Arc::clone(&socket), door: Arc::clone(&door), to: sender };
                ways_back.spawn(answer(back, Arc::clone(&end), Arc::clone(&gate), Arc::clone(&paths)));
                senders.insert(sender, Arc::clone(&socket));
                socket
            }
        };
        deliver(&onward, None, &buffer[..length], due).await;
    }
}

/// The way back to one sender.
struct Back {
    from: Arc<UdpSocket>,
    door: Arc<UdpSocket>,
    to: SocketAddr,
}

async fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind().await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn answer(way: Back, end: Arc<End>, gate: Arc<Gate>, paths: Arc<Paths>) {
    let Back { from, door, to } = way;
    // Away from the target's data centre.
    let towards = format!("away from {}", end.dc);
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        match from.recv(&mut buffer).await {
            Ok(length) => {
                let due = gate.carry(&towards, length, paths.are_parted(&end.node, to));
                deliver(&door, Some(to), &buffer[..length], due).await;
            }
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
        let late = LinkModel { delay_min: 50_000_000, late_per_million: 0, ..LinkModel::inside() };
        relay.behave(LinkId::One, late);
        let sent = Instant::now();
        near.send_to(b"late", via).await.unwrap();
        let (length, _) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"late");
        assert!(sent.elapsed() >= Duration::from_millis(50));
        relay.restore(LinkId::One);
        near.send_to(b"again", via).await.unwrap();
        let (length, _) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"again");
    }

    #[tokio::test]
    async fn nothing_passes_between_two_nodes_that_are_parted_and_others_notice_nothing() {
        let mut plan = plan();
        let sockets = [0, 1].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let [a1, a2] = sockets.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            UdpSocket::from_std(socket).unwrap()
        });
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        plan.nodes[0].links[0] = a1.local_addr().unwrap();
        plan.nodes[1].links[0] = a2.local_addr().unwrap();
        plan.nodes[5].links[0] = far.local_addr().unwrap();
        let relay = Relay::open(&plan).await.unwrap();
        let via =
            |node| relay.detours(node).into_iter().find(|way| way.node == "b3" && way.link == 1).unwrap().via;
        let pair = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
        assert!(relay.part(&pair("a1", "a2")).is_err() && relay.part(&pair("a1", "x")).is_err());
        relay.part(&pair("a1", "b3")).unwrap();
        let mut buffer = [0; 16];
        a1.send_to(b"parted", via("a1")).await.unwrap();
        a2.send_to(b"passes", via("a2")).await.unwrap();
        let (length, _) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"passes");
        relay.join(&pair("b3", "a1"));
        a1.send_to(b"joined", via("a1")).await.unwrap();
        let (length, _) = far.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"joined");
    }

    fn plan() -> ClusterFile {
        let folder = std::env::temp_dir().join(format!("trefoil-relay-{}", std::process::id()));
        let (_, plan) = crate::local::LocalCluster::plan(&folder, None, None).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        plan
    }
}
