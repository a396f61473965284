//! The plan of a new local cluster: six nodes in two data centres, one placement process at a third
//! site or three or five of them at all three, and ports that are free and stay so.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::config::cluster::{ClusterFile, NodePlan, PlacementPlan};
use crate::failure::{Failure, Verdict};
use crate::quantity;

/// Nodes of each data centre.
const NODES_EACH: usize = 3;

/// Ports are taken from here: below what Linux gives to sockets that do not ask for one, so that no
/// client sits on a stopped node's port.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// How many processes keep the control plane's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Voters {
    /// `w1`, with keys.
    #[value(name = "1")]
    One,
    /// One in each data centre, and the witness `w1`.
    #[value(name = "3")]
    Three,
    /// Two in each data centre, and the witness `w1`.
    #[value(name = "5")]
    Five,
}

impl Voters {
    /// Names and sites; whoever is at the third site beside others is the witness.
    fn places(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::One => &[("w1", "w")],
            Self::Three => &[("p-a1", "a"), ("p-b1", "b"), ("w1", "w")],
            Self::Five => &[("p-a1", "a"), ("p-a2", "a"), ("p-b1", "b"), ("p-b2", "b"), ("w1", "w")],
        }
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        self.places().len()
    }
}

/// Who a placement process shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Its site.
    pub(crate) dc: &'a str,
    /// Whether it only keeps the log.
    pub(crate) witness: bool,
}

/// Plans a cluster.
pub(super) fn new(window: Duration, voters: Voters) -> Verdict<ClusterFile> {
    let mut ports = Ports::choose(Vec::new())?;
    let mut placement = Vec::new();
    for (id, dc) in voters.places() {
        placement.push(PlacementPlan {
            id: (*id).to_owned(),
            dc: (*dc).to_owned(),
            listen: ports.next()?,
            tenant_listen: ports.next()?,
            witness: voters != Voters::One && *dc == "w",
            join: false,
        });
    }
    let mut nodes = Vec::new();
    for dc in ["a", "b"] {
        for number in 1..=NODES_EACH {
            nodes.push(NodePlan {
                id: format!("{dc}{number}"),
                dc: dc.to_owned(),
                rack: format!("{dc}-{number}"),
                links: [ports.next()?, ports.next()?],
            });
        }
    }
    let delete_window = quantity::duration_text(window);
    Ok(ClusterFile { cluster: "dev".to_owned(), delete_window, placement, nodes, tenants: Vec::new() })
}

/// Plans one more node, on ports that no server of the plan has, running or not.
pub(super) fn another(plan: &ClusterFile, id: &str, dc: &str, rack: Option<&str>) -> Verdict<NodePlan> {
    if plan.nodes.iter().any(|node| node.id == id) || plan.is_placement(id) {
        return Err(Failure::refused(format!("there is a server {id} already")));
    }
    let centres: BTreeSet<&str> = plan.nodes.iter().map(|node| node.dc.as_str()).collect();
    if !centres.contains(dc) {
        let known = centres.into_iter().collect::<Vec<_>>().join(" and ");
        return Err(Failure::usage(format!("there is no data centre {dc}; there are {known}")));
    }
    let mut ports = Ports::beside(plan)?;
    Ok(NodePlan {
        id: id.to_owned(),
        dc: dc.to_owned(),
        rack: rack.map_or_else(|| format!("{dc}-{id}"), str::to_owned),
        links: [ports.next()?, ports.next()?],
    })
}

/// Plans one more placement process, likewise.
pub(super) fn another_voter(plan: &ClusterFile, seat: Seat<'_>) -> Verdict<PlacementPlan> {
    let Seat { id, dc, witness } = seat;
    if plan.nodes.iter().any(|node| node.id == id) || plan.is_placement(id) {
        return Err(Failure::refused(format!("there is a server {id} already")));
    }
    let mut ports = Ports::beside(plan)?;
    let (listen, tenant_listen) = (ports.next()?, ports.next()?);
    Ok(PlacementPlan { id: id.to_owned(), dc: dc.to_owned(), listen, tenant_listen, witness, join: true })
}

/// Free UDP ports on the loopback address, one behind the other.
struct Ports {
    next: u16,
    taken: Vec<u16>,
}

impl Ports {
    /// Begins somewhere, so that two clusters that are planned at once do not meet.
    fn choose(taken: Vec<u16>) -> Verdict<Self> {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(Failure::failed)?;
        let span = PORTS.end - PORTS.start - 1000;
        Ok(Self { next: PORTS.start + u16::from_le_bytes(bytes) % span, taken })
    }

    /// Ports that no server of a plan has.
    fn beside(plan: &ClusterFile) -> Verdict<Self> {
        let nodes = plan.nodes.iter().flat_map(|node| node.links);
        let voters = plan.placement.iter().flat_map(|voter| [voter.listen, voter.tenant_listen]);
        Self::choose(nodes.chain(voters).map(|address| address.port()).collect())
    }

    fn next(&mut self) -> Verdict<SocketAddr> {
        while self.next < PORTS.end {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.next += 1;
            if !self.taken.contains(&address.port()) && UdpSocket::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(Failure::failed("no free UDP ports on 127.0.0.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_three_nodes_in_each_data_centre_and_no_port_twice() {
        let plan = new(Duration::from_secs(5), Voters::Five).unwrap();
        let count = |dc| plan.nodes.iter().filter(|node| node.dc == dc).count();
        assert_eq!((count("a"), count("b"), plan.nodes.len()), (3, 3, 6));
        let nodes = plan.nodes.iter().flat_map(|node| node.links);
        let voters = plan.placement.iter().flat_map(|voter| [voter.listen, voter.tenant_listen]);
        let all: Vec<SocketAddr> = nodes.chain(voters).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        assert_eq!(plan.delete_window, "5s");
        assert_eq!((plan.placement.len(), plan.keepers().count()), (5, 4));
        let alone = new(Duration::from_secs(5), Voters::One).unwrap();
        assert_eq!((alone.placement.len(), alone.keepers().count()), (1, 1), "one alone holds the keys");
    }

    #[test]
    fn another_node_has_a_name_and_ports_of_its_own() {
        let plan = new(Duration::from_secs(5), Voters::One).unwrap();
        let node = another(&plan, "a4", "a", None).unwrap();
        let links = plan.nodes.iter().flat_map(|node| node.links);
        assert!(links.into_iter().all(|known| !node.links.contains(&known)));
        assert_eq!(node.rack, "a-a4");
        for (id, dc) in [("a1", "a"), ("w1", "a"), ("c1", "c")] {
            assert!(another(&plan, id, dc, None).is_err(), "{id} in {dc}");
        }
    }
}
