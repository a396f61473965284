//! The plan of a new local cluster: six nodes in two data centres, one placement process at a third
//! site, and ports that are free and stay so.

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

/// Plans a cluster.
pub(super) fn new(window: Duration) -> Verdict<ClusterFile> {
    let mut ports = Ports::choose()?;
    let placement = PlacementPlan {
        id: "w1".to_owned(),
        dc: "w".to_owned(),
        listen: ports.next()?,
        tenant_listen: ports.next()?,
    };
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

/// Free UDP ports on the loopback address, one behind the other.
struct Ports {
    next: u16,
}

impl Ports {
    /// Begins somewhere, so that two clusters that are planned at once do not meet.
    fn choose() -> Verdict<Self> {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(Failure::failed)?;
        let span = PORTS.end - PORTS.start - 1000;
        Ok(Self { next: PORTS.start + u16::from_le_bytes(bytes) % span })
    }

    fn next(&mut self) -> Verdict<SocketAddr> {
        while self.next < PORTS.end {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.next += 1;
            if UdpSocket::bind(address).is_ok() {
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
        let plan = new(Duration::from_secs(5)).unwrap();
        let count = |dc| plan.nodes.iter().filter(|node| node.dc == dc).count();
        assert_eq!((count("a"), count("b"), plan.nodes.len()), (3, 3, 6));
        let nodes = plan.nodes.iter().flat_map(|node| node.links);
        let all: Vec<SocketAddr> =
            nodes.chain([plan.placement.listen, plan.placement.tenant_listen]).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        assert_eq!(plan.delete_window, "5s");
    }
}
