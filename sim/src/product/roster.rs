//! Who stands where: six storage nodes in two data centres, placement processes at the third site
//! and perhaps in the data centres, and clients in both data centres. Places in the cluster's list are fixed, so that every
//! process can tell a node's name from its place; nothing else may be known of another process.

use std::net::SocketAddr;

use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{DcId, NodeId, VoterId};

use crate::faults::Generator;
use crate::network::{NodeIndex, Site};

/// The storage nodes, in the cluster's order.
pub const STORAGE: [(&str, Site); 6] =
    [("a1", Site::A), ("a2", Site::A), ("a3", Site::A), ("b1", Site::B), ("b2", Site::B), ("b3", Site::B)];

/// The placement processes, in the cluster's order behind the storage nodes: a cluster has the first
/// one, three or five of them.
pub const VOTERS: [(&str, Site); 5] =
    [("w1", Site::W), ("p-a1", Site::A), ("p-b1", Site::B), ("p-a2", Site::A), ("p-b2", Site::B)];

/// Who votes in a cluster of so many. A single voter stands at the third site and holds the keys;
/// with others, the one there is a witness.
#[must_use]
pub fn voters(count: usize) -> Vec<VoterEntry> {
    let entry = |(place, (name, site)): (usize, &(&str, Site))| {
        let name = name.parse().expect("the names of the roster are node ids");
        // Nobody connects anywhere here: an address is a place in the cluster's list.
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(STORAGE.len() + place).unwrap_or(0)));
        VoterEntry {
            voter: VoterId::of(name),
            name,
            dc: dc_of(*site),
            witness: count > 1 && *site == Site::W,
            control: address,
            tenants: address,
        }
    };
    VOTERS.iter().take(count).enumerate().map(entry).collect()
}

/// Who stands at a voter's place.
#[must_use]
pub fn voter_entry(index: NodeIndex) -> Option<VoterEntry> {
    let place = usize::from(index.0).checked_sub(STORAGE.len())?;
    voters(VOTERS.len()).get(place).copied()
}

/// The place of a voter.
#[must_use]
pub fn place_of_voter(voter: VoterId) -> Option<NodeIndex> {
    let of = |name: &str| name.parse().is_ok_and(|name| VoterId::of(name) == voter);
    let place = VOTERS.iter().position(|(name, _)| of(name))?;
    Some(NodeIndex(u16::try_from(STORAGE.len() + place).expect("there are five")))
}

/// The voter at this place.
#[must_use]
pub fn voter_at(index: NodeIndex) -> Option<VoterId> {
    let place = usize::from(index.0).checked_sub(STORAGE.len())?;
    let (name, _) = VOTERS.get(place)?;
    Some(VoterId::of(name.parse().expect("the names of the roster are node ids")))
}

/// The places of so many voters.
pub fn voter_places(count: usize) -> impl Iterator<Item = NodeIndex> {
    (STORAGE.len()..STORAGE.len() + count).map(|place| NodeIndex(u16::try_from(place).expect("eleven")))
}

/// The place of the first client: behind the places of all voters, whether they are there or not.
pub const FIRST_CLIENT: NodeIndex = NodeIndex(11);

const _: () = assert!(FIRST_CLIENT.0 as usize == STORAGE.len() + VOTERS.len());

/// Where a client stands, counted from the first.
#[must_use]
pub fn site_of_client(client: u32) -> Site {
    if client.is_multiple_of(2) { Site::A } else { Site::B }
}

/// Where the process at this place stands, if it serves.
#[must_use]
pub fn site_at(index: NodeIndex) -> Option<Site> {
    STORAGE.iter().chain(&VOTERS).nth(usize::from(index.0)).map(|(_, site)| *site)
}

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

/// Knows whom drawn faults may strike in a cluster of so many voters.
#[must_use]
pub fn generator(voters: usize) -> Generator {
    let named = |list: &[(&str, Site)]| list.iter().map(|(name, site)| ((*name).to_owned(), *site)).collect();
    Generator { storage: named(&STORAGE), placement: named(&VOTERS[..voters]) }
}
