//! Who may lead a volume next: a store that holds everything, and if none is there one that has every record and
//! lacks payload. Nobody leads who may have missed a record that was acknowledged.

use std::collections::BTreeSet;

use trefoil_protocol::config::{Member, MemberState};
use trefoil_protocol::ids::{NodeId, StoreId};
use trefoil_protocol::mutant;

use super::command::VolumeChange;
use super::volumes::{MEMBERS_MAX, VolumeRecord};

impl VolumeRecord {
    /// The stores that hold everything that was ever acknowledged: in sync when the last activated
    /// configuration was made. A volume that was never activated acknowledged nothing, so its
    /// present in-sync set will do.
    pub fn complete_stores(&self) -> BTreeSet<StoreId> {
        let owing = match self.config.last_activated() {
            Some(last) => last.owing,
            None => self.config.owing().map(|member| member.store),
        };
        let mut stores = self.knowing_stores();
        stores.retain(|store| Some(*store) != owing);
        stores
    }

    /// The stores that have every record that was ever acknowledged, its payload or not: nothing was
    /// acknowledged without them.
    pub fn knowing_stores(&self) -> BTreeSet<StoreId> {
        match self.config.last_activated() {
            Some(last) => last.in_sync.into_iter().collect(),
            None => self.config.required().map(|member| member.store).collect(),
        }
    }

    /// Stores of which one at least has each record that was ever acknowledged: those that caught up in the
    /// last activated configuration, if its knowing stores alone could acknowledge nothing.
    pub fn vouching_stores(&self) -> Option<BTreeSet<StoreId>> {
        let last = self.config.last_activated()?;
        let stores: BTreeSet<StoreId> = last.catching_up.into_iter().collect();
        (last.leans && !stores.is_empty()).then_some(stores)
    }

    /// Which of these members may lead although they lack payload: those that have every record, else each
    /// of those that have all records together, if none of them is missing.
    pub fn may_owe(&self, members: &[Member]) -> Vec<Member> {
        let of = |stores: &BTreeSet<StoreId>| -> Vec<Member> {
            members.iter().filter(|member| stores.contains(&member.store)).copied().collect()
        };
        let knowing = of(&self.knowing_stores());
        if !knowing.is_empty() {
            return knowing;
        }
        let Some(vouching) = self.vouching_stores() else { return Vec::new() };
        let there = of(&vouching);
        let all = mutant!(R03, there.len() == vouching.len(), true);
        if all { there } else { Vec::new() }
    }

    /// What a change would break, if anything.
    pub fn breakage(&self, change: &VolumeChange) -> Option<&'static str> {
        let members = &change.members;
        let stores: BTreeSet<StoreId> = members.iter().map(|member| member.store).collect();
        let nodes: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        if stores.len() != members.len() || nodes.len() != members.len() || members.len() > MEMBERS_MAX {
            return Some("a proper set of members");
        }
        let complete = mutant!(M07, self.complete_stores(), stores);
        let is_complete = |member: &Member| {
            let in_sync = mutant!(M07, member.state == MemberState::InSync, true);
            in_sync && complete.contains(&member.store)
        };
        let may_owe = self.may_owe(members);
        if may_owe.is_empty() && !members.iter().any(is_complete) {
            return Some("a complete in-sync store");
        }
        let leads = |member: &&Member| Some(member.node) == change.primary;
        let mut owing = members.iter().filter(|member| member.state == MemberState::Owing);
        if change.primary.is_some() && owing.any(|member| !leads(&member)) {
            return Some("no store that owes without leading");
        }
        // Whoever owes and leads says itself that it lacks nothing any more.
        let is_paid_up = |member: &Member| {
            self.config.activated && self.config.owing().is_some_and(|owing| owing.store == member.store)
        };
        let can_lead = |member: &Member| match member.state {
            MemberState::Owing => may_owe.contains(member),
            MemberState::InSync => is_complete(member) || is_paid_up(member),
            MemberState::CatchingUp => is_complete(member),
        };
        match change.primary {
            Some(_) if !members.iter().find(leads).is_some_and(can_lead) => {
                Some("a primary that holds everything")
            }
            _ => None,
        }
    }
}
