//! Who stands where: six storage nodes in two data centres, one placement process at the witness
//! site, and clients in both data centres. Places in the cluster's list are fixed, so that every
//! process can tell a node's name from its place; nothing else may be known of another process.

use trefoil_protocol::ids::{DcId, NodeId};

use crate::faults::Generator;
use crate::network::{NodeIndex, Site};

/// The storage nodes, in the cluster's order.
pub const STORAGE: [(&str, Site); 6] =
    [("a1", Site::A), ("a2", Site::A), ("a3", Site::A), ("b1", Site::B), ("b2", Site::B), ("b3", Site::B)];

/// The placement process stands behind the storage nodes.
pub const PLACEMENT: NodeIndex = NodeIndex(6);

/// Its name.
pub const PLACEMENT_NAME: &str = "w1";

/// The place of the first client.
pub const FIRST_CLIENT: NodeIndex = NodeIndex(7);

/// The storage node at this place.
#[must_use]
pub fn node_at(index: NodeIndex) -> Option<NodeId> {
    let (name, _) = STORAGE.get(usize::from(index.0))?;
    Some(name.parse().expect("the names of the roster are node ids"))
}

/// The place of a storage node.
#[must_use]
pub fn place_of(node: NodeId) -> Option<NodeIndex> {
    let place = STORAGE.iter().position(|(name, _)| *name == node.as_str())?;
    Some(NodeIndex(u16::try_from(place).expect("there are six")))
}

/// The site of a storage node.
#[must_use]
pub fn site_of(node: NodeId) -> Option<Site> {
    place_of(node).map(|place| STORAGE[usize::from(place.0)].1)
}

/// What a data centre is called in messages.
///
/// # Panics
/// Never: the names are data centre ids.
#[must_use]
pub fn dc_of(site: Site) -> DcId {
    let name = match site {
        Site::A => "a",
        Site::B => "b",
        Site::W => "w",
    };
    name.parse().expect("a letter is a data centre id")
}

/// Where a data centre of that name is.
#[must_use]
pub fn site_named(dc: DcId) -> Site {
    [Site::A, Site::B].into_iter().find(|site| dc_of(*site) == dc).unwrap_or(Site::W)
}

/// Knows whom drawn faults may strike.
#[must_use]
pub fn generator() -> Generator {
    Generator {
        storage: STORAGE.iter().map(|(name, site)| ((*name).to_owned(), *site)).collect(),
        placement: vec![(PLACEMENT_NAME.to_owned(), Site::W)],
    }
}
