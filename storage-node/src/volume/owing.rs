//! A primary that owes: it has every record of the volume and lacks payload of older objects. Who may have what it
//! lacks, what it refuses meanwhile, and that it says so when it lacks nothing any more.

use trefoil_engine::Disk;
use trefoil_engine::index::ObjectVersion;
use trefoil_protocol::config::{Member, MemberState, NodeState, VolumeConfig};
use trefoil_protocol::ids::{Lsn, NodeId, StoreId};
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::record::Record;

use super::holding::Holding;
use super::replica::{Replica, Role};
use crate::outbox::Context;

/// Why an object can be neither read nor changed at a member, if it cannot: its bytes are owed.
pub(super) fn owed<D: Disk>(
    object: Option<&ObjectVersion>,
    me: &Member,
    holding: &Holding<D>,
    config: &VolumeConfig,
) -> Option<Refusal> {
    let is_lacking = |object: &ObjectVersion| !object.inline && holding.lacks(object);
    let owes = me.state == MemberState::Owing && object.is_some_and(is_lacking);
    owes.then(|| Refusal::Owed { stores: others(config, me.store).collect() })
}

/// Stores that may have what `me` lacks.
fn others(config: &VolumeConfig, me: StoreId) -> impl Iterator<Item = StoreId> {
    config.ever_held.iter().copied().filter(move |store| *store != me)
}

/// Nodes that run a store which held the volume and is no member any more.
fn former_holders<D: Disk>(config: &VolumeConfig, cx: &Context<'_, D>) -> Vec<NodeId> {
    let former = config.ever_held.iter().filter(|store| config.member_of_store(**store).is_none());
    let entries = former.filter_map(|store| cx.view.node_of_store(*store));
    entries.filter(|entry| entry.state == NodeState::Up).map(|entry| entry.node).collect()
}

impl<D: Disk> Replica<D> {
    /// Whether this store leads, or is to lead, and may lack payload.
    pub(super) fn owes(&self) -> bool {
        matches!(self.role, Role::Peering(_) | Role::Primary(_)) && self.config.owing().is_some()
    }

    /// How many objects wait for their bytes here.
    pub(crate) fn owed_objects(&self) -> u64 {
        match self.owes() {
            true => u64::from(self.holding.missing_below(self.holding.committed().next())),
            false => 0,
        }
    }

    /// While this epoch began, records behind `before` turned out to be committed: whoever waits for one of them is answered
    /// once it has begun.
    pub(super) fn note_found(&mut self, before: Lsn) {
        let found = (before.next().0..=self.holding.committed().0).map(Lsn);
        let awaited = found.filter(|lsn| self.mutations.is_pending(*lsn));
        let records: Vec<Record> = awaited.filter_map(|lsn| self.holding.record(lsn).ok()).collect();
        self.found_committed.extend(records);
    }

    /// Who is asked for payload beside the members that have all of it.
    pub(super) fn sources(&self, cx: &Context<'_, D>) -> Vec<NodeId> {
        match &self.role {
            Role::Peering(peering) => peering.witness_nodes(&self.config, cx),
            Role::Primary(_) if self.owes() => former_holders(&self.config, cx),
            _ => Vec::new(),
        }
    }
}
