//! What the client believes about volumes, nodes and the control plane's voters: its last answers to
//! "where", newest first per volume. And how often this client may try again: all of its operations share both.
//!
//! A wrong belief costs a round trip, never correctness: nodes check the epoch of every request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use trefoil_protocol::config::{NodeEntry, TenantEntry, VolumeConfig, VoterEntry};
use trefoil_protocol::ids::{Epoch, NodeId, VolumeId};
use trefoil_protocol::key::{ObjectKey, volume_slot};
use trefoil_protocol::message::tenant::RouteView;
use trefoil_protocol::time::CpTime;

use super::retries::RetryBudget;
use crate::failure::{Damage, Peer};

/// The most volumes a tenant may have for this client to believe it.
const VOLUMES_MAX: u32 = 1 << 16;

/// The tenant's volumes by slot, and the nodes that hold them.
#[derive(Clone, Debug)]
pub struct RouteCache {
    endpoints: usize,
    tenant: Option<TenantEntry>,
    volumes: BTreeMap<u32, VolumeConfig>,
    nodes: BTreeMap<NodeId, NodeEntry>,
    nodes_at: CpTime,
    /// Voters with keys, of the newest view that named any.
    voters: Vec<VoterEntry>,
    voters_at: CpTime,
    generation: u64,
    /// Who told the route last.
    reliable: Option<Peer>,
    pub(super) retries: RetryBudget,
}

impl RouteCache {
    /// Nothing known but the number of endpoints in the profile.
    pub fn new(endpoints: usize) -> Self {
        Self {
            endpoints,
            tenant: None,
            volumes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            nodes_at: CpTime(0),
            voters: Vec::new(),
            voters_at: CpTime(0),
            generation: 0,
            reliable: None,
            retries: RetryBudget::default(),
        }
    }

    /// Takes a view over where it is newer than what is known. One without volumes is of a node that does
    /// not know them all.
    ///
    /// # Errors
    /// When the view contradicts itself.
    pub fn learn(&mut self, view: RouteView) -> Result<(), Damage> {
        check(&view)?;
        self.generation += u64::from(!view.volumes.is_empty());
        for told in view.volumes {
            let known = self.volumes.get(&told.slot);
            if known.is_none_or(|known| (told.epoch, told.changed) > (known.epoch, known.changed)) {
                self.volumes.insert(told.slot, told);
            }
        }
        if view.now >= self.nodes_at {
            self.nodes_at = view.now;
            self.nodes = view.nodes.into_iter().map(|node| (node.node, node)).collect();
        }
        // Whoever does not know them says that there are none.
        if view.now >= self.voters_at && !view.voters.is_empty() {
            self.voters_at = view.now;
            self.voters = view.voters;
        }
        self.tenant = Some(view.tenant);
        Ok(())
    }

    /// Takes over what a node said of a volume's primary; `true` if it was news.
    pub fn hint(&mut self, volume: VolumeId, epoch: Epoch, primary: Option<NodeId>) -> bool {
        let known = self.volumes.values_mut().find(|known| known.volume == volume);
        let Some(known) = known.filter(|known| epoch > known.epoch) else { return false };
        known.epoch = epoch;
        known.primary = primary;
        self.generation += 1;
        true
    }

    /// The tenant, once known.
    pub fn tenant(&self) -> Option<&TenantEntry> {
        self.tenant.as_ref()
    }

    /// The volume that a key falls into.
    pub fn volume_of(&self, key: &ObjectKey) -> Option<&VolumeConfig> {
        let count = self.tenant.as_ref()?.volume_count;
        self.slot(volume_slot(key, count))
    }

    /// The volume of a slot.
    pub fn slot(&self, slot: u32) -> Option<&VolumeConfig> {
        self.volumes.get(&slot)
    }

    /// How many slots there are; 0 while nothing is known.
    pub fn slots(&self) -> u32 {
        self.tenant.as_ref().map_or(0, |tenant| tenant.volume_count)
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&node)
    }

    /// Where the voters with keys listen to tenants, as last heard: voters may all have been replaced
    /// since the profile was written.
    pub fn custodians(&self) -> Vec<SocketAddr> {
        self.voters.iter().map(|voter| voter.tenants).collect()
    }

    /// Rises whenever something was learned about volumes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How often this client asked, and asked again.
    pub fn retries(&self) -> &RetryBudget {
        &self.retries
    }

    /// Whom to ask for a route first: who told it last, until that fails.
    pub(super) fn reliable(&self) -> Option<Peer> {
        self.reliable
    }

    pub(super) fn rely_on(&mut self, peer: Peer) {
        self.reliable = Some(peer);
    }

    pub(super) fn rely_no_more_on(&mut self, peer: Peer) {
        if self.reliable == Some(peer) {
            self.reliable = None;
        }
    }

    /// Whom to ask for a route at the n-th try: the profile's endpoints in turn, then known nodes,
    /// then whoever of the known voters answers.
    pub(super) fn informant(&self, n: usize) -> Peer {
        let place = n % self.informants();
        match place.checked_sub(self.endpoints) {
            None => Peer::Endpoint(place),
            Some(past) => self.nodes.keys().nth(past).map_or(Peer::Custodian, |node| Peer::Node(*node)),
        }
    }

    pub(super) fn informants(&self) -> usize {
        (self.endpoints + self.nodes.len() + usize::from(!self.voters.is_empty())).max(1)
    }
}

fn check(view: &RouteView) -> Result<(), Damage> {
    let count = view.tenant.volume_count;
    if !count.is_power_of_two() || count > VOLUMES_MAX {
        return Err(Damage::Answer("a tenant's volume count is a power of two up to 65536"));
    }
    let mut slots = view.volumes.iter().map(|volume| volume.slot);
    if !slots.clone().is_sorted_by(|a, b| a < b) || slots.any(|slot| slot >= count) {
        return Err(Damage::Answer("a route names each slot at most once, in order"));
    }
    Ok(())
}
