//! The network as a source of decisions: when, how often and whether a message arrives.
//!
//! Nodes stand at sites: data centres `a` and `b` and the witness site `w`. Two cross links join
//! the data centres, one link each joins a data centre and the witness, and each site has an
//! inside. The model has QUIC's semantics at message level: a lost packet is a late message, a
//! message may overtake another, and when a connection breaks everything in flight on it is gone.
//! It carries no payload: the caller keeps the message and asks again when it arrives.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
pub use trefoil_drill::{Direction, LinkModel};

use crate::kernel::{MILLISECOND, SECOND};
use crate::random::{Draws, Stream};

/// A place where nodes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// The first data centre.
    A,
    /// The second data centre.
    B,
    /// The witness site.
    W,
}

/// A node or client of the simulated cluster, by its place in the cluster's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIndex(pub u16);

/// A way from one site to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Inside one site.
    Inside(Site),
    /// The first link between the data centres.
    CrossOne,
    /// The second link between the data centres.
    CrossTwo,
    /// Between a data centre and the witness site.
    Witness(Site),
}

impl Link {
    /// The links that join two sites, in a fixed order.
    #[must_use]
    pub fn between(one: Site, other: Site) -> &'static [Link] {
        match (one, other) {
            (Site::A, Site::A) => &[Link::Inside(Site::A)],
            (Site::B, Site::B) => &[Link::Inside(Site::B)],
            (Site::W, Site::W) => &[Link::Inside(Site::W)],
            (Site::A, Site::B) | (Site::B, Site::A) => &[Link::CrossOne, Link::CrossTwo],
            (Site::A, Site::W) | (Site::W, Site::A) => &[Link::Witness(Site::A)],
            (Site::B, Site::W) | (Site::W, Site::B) => &[Link::Witness(Site::B)],
        }
    }

    /// The link of this name: `x1`, `x2`, `wa`, `wb`, `ia`, `ib`, `iw`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL_LINKS.into_iter().find(|link| link.name() == name)
    }

    /// The name in fault plans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossOne => "x1",
            Self::CrossTwo => "x2",
            Self::Witness(Site::B) => "wb",
            Self::Witness(_) => "wa",
            Self::Inside(Site::A) => "ia",
            Self::Inside(Site::B) => "ib",
            Self::Inside(Site::W) => "iw",
        }
    }

    fn number(self) -> u64 {
        (0..).zip(ALL_LINKS).find(|(_, link)| *link == self).map_or(u64::MAX, |(number, _)| number)
    }
}

/// Every link of the topology.
pub const ALL_LINKS: [Link; 7] = [
    Link::CrossOne,
    Link::CrossTwo,
    Link::Witness(Site::A),
    Link::Witness(Site::B),
    Link::Inside(Site::A),
    Link::Inside(Site::B),
    Link::Inside(Site::W),
];

/// A message on its way; the caller keeps its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passage {
    /// Who sent it.
    pub from: NodeIndex,
    /// Who is to get it.
    pub to: NodeIndex,
    /// Over which link.
    pub link: Link,
    /// When it was sent (true time).
    pub sent_at: u64,
    connection: u64,
}

/// When a copy of a message reaches the far end, unless something happens on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// True time.
    pub at: u64,
    /// What to show to [`Network::arrive`] then.
    pub passage: Passage,
}

/// What becomes of a message when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is there.
    Delivered,
    /// The link is down; the sender's QUIC retransmits, ask again then.
    Later(u64),
    /// Its connection broke.
    Lost,
}

/// The state of every link and connection.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    sites: Vec<Site>,
    models: BTreeMap<Link, LinkModel>,
    cut: BTreeSet<(Link, Direction)>,
    cut_pairs: BTreeSet<(NodeIndex, NodeIndex)>,
    connections: BTreeMap<(NodeIndex, NodeIndex, Link), u64>,
    draws: BTreeMap<(NodeIndex, NodeIndex, Link), Draws>,
    idle_timeout: u64,
}

impl Network {
    /// A healthy network; node *n* stands at `sites[n]`.
    #[must_use]
    pub fn new(seed: u64, sites: Vec<Site>) -> Self {
        let model = |link: Link| match link {
            Link::Inside(_) => LinkModel::inside(),
            _ => LinkModel::between_sites(),
        };
        Self {
            seed,
            sites,
            models: ALL_LINKS.into_iter().map(|link| (link, model(link))).collect(),
            cut: BTreeSet::new(),
            cut_pairs: BTreeSet::new(),
            connections: BTreeMap::new(),
            draws: BTreeMap::new(),
            idle_timeout: 5 * SECOND,
        }
    }

    /// Where a node stands.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn site(&self, node: NodeIndex) -> Site {
        self.sites[usize::from(node.0)]
    }

    /// Adds a node and says its index.
    pub fn add_node(&mut self, site: Site) -> NodeIndex {
        self.sites.push(site);
        NodeIndex(u16::try_from(self.sites.len() - 1).expect("far fewer than 65 536 nodes"))
    }

    /// How the link behaves while it is up.
    ///
    /// # Panics
    /// Never: every link has a model.
    #[must_use]
    pub fn model(&self, link: Link) -> &LinkModel {
        self.models.get(&link).expect("every link has a model")
    }

    /// As [`Self::model`], to be changed.
    pub fn model_mut(&mut self, link: Link) -> &mut LinkModel {
        self.models.entry(link).or_default()
    }

    /// Decides about one message: no delivery (lost), one, or two (duplicated). A `link` that does
    /// not join the two nodes' sites is replaced by the first that does.
    pub fn send(&mut self, now: u64, from: NodeIndex, to: NodeIndex, link: Link, size: u64) -> Vec<Delivery> {
        let link = self.joining(from, to, link);
        let connection = self.connections.get(&pair(from, to, link)).copied().unwrap_or(0);
        let passage = Passage { from, to, link, sent_at: now, connection };
        let model = &self.models[&link];
        let draws = self
            .draws
            .entry((from, to, link))
            .or_insert_with(|| Draws::new(self.seed, Stream::Link, direction_entity(from, to, link)));
        let fate = Fate::drawn(model, draws);
        let wire = (size * SECOND).checked_div(model.bytes_per_second).unwrap_or(0);
        let deliver = |delay: u64| Delivery { at: now + wire + delay, passage };
        match fate {
            Fate::Lost => Vec::new(),
            Fate::Once(delay) => vec![deliver(delay)],
            Fate::Twice(first, second) => vec![deliver(first), deliver(second)],
        }
    }

    /// Decides what becomes of a message whose time has come.
    #[must_use]
    pub fn arrive(&self, now: u64, passage: &Passage) -> Arrival {
        let key = pair(passage.from, passage.to, passage.link);
        if self.connections.get(&key).copied().unwrap_or(0) != passage.connection {
            return Arrival::Lost;
        }
        if self.passes(passage.from, passage.to, passage.link) {
            return Arrival::Delivered;
        }
        let waited = now.saturating_sub(passage.sent_at);
        if waited >= self.idle_timeout {
            return Arrival::Lost;
        }
        // QUIC's probe time-out doubles; the time that was waited already is its last value.
        Arrival::Later(now + waited.clamp(MILLISECOND, SECOND))
    }

    /// Whether a packet sent now from one node would reach the other over this link.
    #[must_use]
    pub fn passes(&self, from: NodeIndex, to: NodeIndex, link: Link) -> bool {
        let direction = match self.site(from) <= self.site(to) {
            true => Direction::Forth,
            false => Direction::Back,
        };
        !self.cut.contains(&(link, direction)) && !self.cut_pairs.contains(&(from, to))
    }

    /// Cuts a link in both directions.
    pub fn cut(&mut self, link: Link) {
        self.cut_one_way(link, Direction::Forth);
        self.cut_one_way(link, Direction::Back);
    }

    /// Cuts one direction of a link.
    pub fn cut_one_way(&mut self, link: Link, direction: Direction) {
        self.cut.insert((link, direction));
    }

    /// Cuts the way from one node to another on every link, for graphs that no link cut gives.
    pub fn cut_pair(&mut self, from: NodeIndex, to: NodeIndex) {
        self.cut_pairs.insert((from, to));
    }

    /// Brings a link back.
    pub fn heal(&mut self, link: Link) {
        self.cut.remove(&(link, Direction::Forth));
        self.cut.remove(&(link, Direction::Back));
    }

    /// Brings every link and pair back.
    pub fn heal_all(&mut self) {
        self.cut.clear();
        self.cut_pairs.clear();
    }

    /// Breaks the connections between two nodes: everything in flight between them is lost.
    pub fn break_connections(&mut self, one: NodeIndex, other: NodeIndex) {
        for link in Link::between(self.site(one), self.site(other)) {
            *self.connections.entry(pair(one, other, *link)).or_default() += 1;
        }
    }

    /// A node's process died: all its connections broke.
    pub fn break_all_connections(&mut self, node: NodeIndex) {
        let count = u16::try_from(self.sites.len()).expect("far fewer than 65 536 nodes");
        for other in (0..count).map(NodeIndex).filter(|other| *other != node) {
            self.break_connections(node, other);
        }
    }

    fn joining(&self, from: NodeIndex, to: NodeIndex, wanted: Link) -> Link {
        let joining = Link::between(self.site(from), self.site(to));
        if joining.contains(&wanted) { wanted } else { joining[0] }
    }
}

/// What was drawn for a message.
enum Fate {
    Lost,
    Once(u64),
    Twice(u64, u64),
}

impl Fate {
    /// Takes the same number of draws whatever comes out, so that a change of the model moves as
    /// little as it can.
    fn drawn(model: &LinkModel, draws: &mut Draws) -> Self {
        let lost = draws.chance(model.lost_per_million);
        let twice = draws.chance(model.twice_per_million);
        let first = delay(model, draws);
        if lost {
            Self::Lost
        } else if twice {
            Self::Twice(first, first + draws.exponential(10 * model.delay_mean + MILLISECOND))
        } else {
            Self::Once(first)
        }
    }
}

fn delay(model: &LinkModel, draws: &mut Draws) -> u64 {
    let spike = draws.chance(model.spike_per_million);
    let late = draws.chance(model.late_per_million);
    let mut delay = model.delay_min + draws.exponential(model.delay_mean);
    if spike {
        delay += draws.exponential(model.spike_mean);
    }
    if late {
        // One probe time-out: about three round trips and never below a few milliseconds.
        delay += 6 * model.delay_min + 5 * MILLISECOND;
    }
    delay
}

/// A connection belongs to both ends.
fn pair(one: NodeIndex, other: NodeIndex, link: Link) -> (NodeIndex, NodeIndex, Link) {
    (one.min(other), one.max(other), link)
}

fn direction_entity(from: NodeIndex, to: NodeIndex, link: Link) -> u64 {
    u64::from(from.0) << 32 | u64::from(to.0) << 16 | link.number()
}

#[cfg(test)]
mod tests {
    use super::{ALL_LINKS, Arrival, Direction, Link, Network, NodeIndex, Site};
    use crate::kernel::SECOND;

    const A1: NodeIndex = NodeIndex(0);
    const B1: NodeIndex = NodeIndex(1);
    const W1: NodeIndex = NodeIndex(2);

    fn network() -> Network {
        Network::new(1, vec![Site::A, Site::B, Site::W])
    }

    #[test]
    fn every_link_has_one_name() {
        for link in ALL_LINKS {
            assert_eq!(Link::named(link.name()), Some(link));
        }
        assert_eq!(Link::named("x3"), None);
    }

    #[test]
    fn messages_arrive_after_the_least_delay_and_may_overtake() {
        let mut network = network();
        let times: Vec<u64> =
            (0..100).map(|now| network.send(now, A1, B1, Link::CrossOne, 100)[0].at).collect();
        assert!(times.iter().all(|at| *at >= 2_000_000));
        assert!(times.windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn a_cut_link_holds_messages_back_and_the_other_link_goes_on() {
        let mut network = network();
        let sent = network.send(0, A1, B1, Link::CrossOne, 1)[0];
        network.cut(Link::CrossOne);
        assert!(matches!(network.arrive(sent.at, &sent.passage), Arrival::Later(at) if at > sent.at));
        let other = network.send(0, A1, B1, Link::CrossTwo, 1)[0];
        assert_eq!(network.arrive(other.at, &other.passage), Arrival::Delivered);
        assert_eq!(network.arrive(9 * SECOND, &sent.passage), Arrival::Lost);
        network.heal(Link::CrossOne);
        assert_eq!(network.arrive(SECOND, &sent.passage), Arrival::Delivered);
    }

    #[test]
    fn a_one_way_cut_leaves_the_other_way() {
        let mut network = network();
        network.cut_one_way(Link::Witness(Site::A), Direction::Forth);
        assert!(!network.passes(A1, W1, Link::Witness(Site::A)));
        assert!(network.passes(W1, A1, Link::Witness(Site::A)));
    }

    #[test]
    fn a_broken_connection_loses_what_is_in_flight_and_nothing_later() {
        let mut network = network();
        let before = network.send(0, A1, B1, Link::CrossOne, 1)[0];
        network.break_all_connections(B1);
        let after = network.send(0, A1, B1, Link::CrossOne, 1)[0];
        assert_eq!(network.arrive(before.at, &before.passage), Arrival::Lost);
        assert_eq!(network.arrive(after.at, &after.passage), Arrival::Delivered);
    }

    #[test]
    fn loss_and_duplication_follow_the_model() {
        let mut network = network();
        network.model_mut(Link::CrossOne).lost_per_million = 300_000;
        network.model_mut(Link::CrossOne).twice_per_million = 300_000;
        let mut counts = [0u32; 3];
        for now in 0..2_000 {
            counts[network.send(now, A1, B1, Link::CrossOne, 1).len()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
    }
}
