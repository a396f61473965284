//! Nodes and stores: who runs which store in which run, who is there, and which stores are dead for
//! ever. A node id says where a process runs; only a store id says what it holds.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Duty, Member, MemberState, NodeEntry, NodeState};
use trefoil_protocol::deletion::StoreKeyStatement;
use trefoil_protocol::ids::{ConfigIndex, DcId, Incarnation, NodeId, PublicKey, StoreId};
use trefoil_protocol::message::control::Register;
use trefoil_protocol::message::holdings::GENERATION_STEP;
use trefoil_protocol::mutant;

use super::command::Rejection;
use super::search::first_of;

/// A node and when it last changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// The node as told to others.
    #[n(0)]
    pub entry: NodeEntry,
    /// The command that changed it last.
    #[n(1)]
    pub changed: ConfigIndex,
}

/// A store, kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreRecord {
    /// The only node that may run it.
    #[n(0)]
    pub node: NodeId,
    /// That node's data centre.
    #[n(1)]
    pub dc: DcId,
    /// The key it signs receipts with.
    #[n(2)]
    pub key: PublicKey,
    /// The number of its newest run.
    #[n(3)]
    pub incarnation: Incarnation,
    /// The newest run that is known to have reached its disk: it has renewed.
    #[n(4)]
    pub confirmed: Incarnation,
    /// Whether it is dead for ever.
    #[n(5)]
    pub fenced: bool,
    /// The restore generation in which it registered last.
    #[n(6)]
    pub generation: u64,
}

impl StoreRecord {
    /// What certificates say of the store's key.
    pub fn statement(&self, store: StoreId) -> StoreKeyStatement {
        StoreKeyStatement { store, node: self.node, dc: self.dc, key: self.key }
    }
}

/// All nodes and stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Topology {
    #[n(0)]
    nodes: BTreeMap<NodeId, NodeRecord>,
    #[n(1)]
    stores: BTreeMap<StoreId, StoreRecord>,
}

/// A registration that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) incarnation: Incarnation,
    /// Whether this is another run than the one known before.
    pub(super) new_run: bool,
}

impl Topology {
    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&node).map(|record| &record.entry)
    }

    /// A store.
    pub fn store(&self, store: StoreId) -> Option<&StoreRecord> {
        self.stores.get(&store)
    }

    /// All stores that were not declared dead.
    pub fn unfenced(&self) -> impl Iterator<Item = StoreId> {
        self.stores.iter().filter(|(_, record)| !record.fenced).map(|(store, _)| *store)
    }

    /// The node that runs `store` now, if any does.
    pub fn runner(&self, store: StoreId) -> Option<&NodeEntry> {
        self.node(self.store(store)?.node).filter(|entry| entry.store == store)
    }

    /// Whether the store was declared dead for ever.
    pub fn is_fenced(&self, store: StoreId) -> bool {
        self.store(store).is_some_and(|record| record.fenced)
    }

    /// Whether `member`'s node is up and still runs the very store that the member is.
    pub fn is_live(&self, member: &Member) -> bool {
        self.node(member.node)
            .is_some_and(|entry| entry.store == member.store && entry.state == NodeState::Up)
    }

    /// Whether the node's first renewal of this run is still to come.
    pub fn is_unconfirmed(&self, entry: &NodeEntry) -> bool {
        self.store(entry.store).is_none_or(|record| record.confirmed != entry.incarnation)
    }

    /// A node as a member of a volume.
    pub fn member(entry: &NodeEntry, state: MemberState) -> Member {
        Member { node: entry.node, dc: entry.dc, store: entry.store, state }
    }

    pub(super) fn register(
        &mut self,
        index: ConfigIndex,
        asked: &Register,
        generation: u64,
    ) -> Result<Registration, Rejection> {
        self.check_registration(asked)?;
        self.check_generation(asked, generation)?;
        let first = first_of(generation);
        let record = self.stores.entry(asked.store).or_insert_with(|| StoreRecord {
            node: asked.node,
            dc: asked.dc,
            key: asked.store_key,
            incarnation: Incarnation(0),
            confirmed: Incarnation(0),
            fenced: false,
            generation,
        });
        record.generation = generation;
        // Until a run has renewed, its number may not have reached the disk: the same question gets
        // the same answer.
        let repeated = record.incarnation > record.confirmed && asked.last_incarnation < record.incarnation;
        if !repeated {
            let last = record.incarnation.max(asked.last_incarnation).0;
            record.incarnation = Incarnation(last.max(first) + 1);
        }
        let incarnation = record.incarnation;
        self.enter_node(index, asked, incarnation);
        Ok(Registration { incarnation, new_run: !repeated })
    }

    fn check_registration(&self, asked: &Register) -> Result<(), Rejection> {
        if self.node(asked.node).is_some_and(|entry| entry.dc != asked.dc) {
            return Err(Rejection::Differs("node's data centre"));
        }
        let Some(record) = self.store(asked.store) else { return Ok(()) };
        if record.fenced {
            return Err(Rejection::Fenced);
        }
        if record.node != asked.node {
            return Err(Rejection::Differs("store's node"));
        }
        if record.key != asked.store_key {
            return Err(Rejection::Differs("store's key"));
        }
        if mutant!(M24, asked.last_incarnation < record.confirmed, false) {
            return Err(Rejection::OldImage { got: asked.last_incarnation, known: record.confirmed });
        }
        Ok(())
    }

    /// A store that knows a later restore than this one, or another one of the same number, is no store
    /// of this control plane: its volumes went on elsewhere.
    fn check_generation(&self, asked: &Register, generation: u64) -> Result<(), Rejection> {
        let known = self.store(asked.store).is_some_and(|record| record.generation == generation);
        let heard = asked.last_incarnation.0 / GENERATION_STEP;
        let elsewhere = heard > generation || (generation > 1 && heard == generation && !known);
        if elsewhere { Err(Rejection::OtherGeneration(heard)) } else { Ok(()) }
    }

    /// After a restore every node registers anew, under a number that nobody has had.
    pub(super) fn lose_sight(&mut self, index: ConfigIndex, generation: u64) {
        for record in self.nodes.values_mut() {
            (record.changed, record.entry.incarnation) = (index, Incarnation(0));
            if record.entry.state == NodeState::Up {
                record.entry.state = NodeState::Down;
            }
        }
        for record in self.stores.values_mut() {
            record.incarnation = record.incarnation.max(Incarnation(first_of(generation)));
        }
    }

    fn enter_node(&mut self, index: ConfigIndex, asked: &Register, incarnation: Incarnation) {
        let known = self.nodes.get(&asked.node).map(|record| &record.entry);
        // A quick restart over the same store is no absence; another store is another thing.
        let stays_up = known.is_some_and(|e| e.store == asked.store && e.state == NodeState::Up);
        let entry = NodeEntry {
            node: asked.node,
            dc: asked.dc,
            rack: asked.rack,
            store: asked.store,
            store_key: asked.store_key,
            incarnation,
            capacity: asked.capacity,
            addresses: asked.addresses.clone(),
            state: if stays_up { NodeState::Up } else { NodeState::Down },
            pid: asked.pid,
            duty: known.map_or(Duty::Full, |entry| entry.duty),
        };
        self.nodes.insert(asked.node, NodeRecord { entry, changed: index });
    }

    pub(super) fn set_state(
        &mut self,
        index: ConfigIndex,
        node: NodeId,
        incarnation: Incarnation,
        state: NodeState,
    ) -> Result<(), Rejection> {
        let record = self.nodes.get_mut(&node).ok_or(Rejection::Unknown("node"))?;
        if record.entry.incarnation != incarnation || record.entry.state == NodeState::Fenced {
            return Err(Rejection::Stale);
        }
        if record.entry.state != state {
            record.entry.state = state;
            record.changed = index;
        }
        if state == NodeState::Up {
            let store =
                self.stores.get_mut(&record.entry.store).expect("a node's store is registered with it");
            store.confirmed = incarnation;
        }
        Ok(())
    }

    /// Every store that the node runs or ran and that is not fenced.
    pub(super) fn stores_of(&self, node: NodeId) -> Vec<StoreId> {
        let own = self.stores.iter().filter(|(_, record)| record.node == node && !record.fenced);
        own.map(|(store, _)| *store).collect()
    }

    pub(super) fn set_duty(&mut self, index: ConfigIndex, node: NodeId, duty: Duty) -> Result<(), Rejection> {
        let record = self.nodes.get_mut(&node).ok_or(Rejection::Unknown("node"))?;
        record.entry.duty = duty;
        record.changed = index;
        Ok(())
    }

    /// Forgets a node that holds nothing. Its stores are dead for ever: none may come back.
    pub(super) fn remove(&mut self, node: NodeId) -> Result<(), Rejection> {
        self.nodes.remove(&node).ok_or(Rejection::Unknown("node"))?;
        for record in self.stores.values_mut().filter(|record| record.node == node) {
            record.fenced = true;
        }
        Ok(())
    }

    pub(super) fn fence(&mut self, index: ConfigIndex, store: StoreId) -> Result<(), Rejection> {
        let record = self.stores.get_mut(&store).ok_or(Rejection::Unknown("store"))?;
        record.fenced = true;
        // A node that was removed left its stores behind.
        let node = self.nodes.get_mut(&record.node);
        if let Some(node) = node.filter(|n| n.entry.store == store && n.entry.state != NodeState::Fenced) {
            node.entry.state = NodeState::Fenced;
            node.changed = index;
        }
        Ok(())
    }
}
