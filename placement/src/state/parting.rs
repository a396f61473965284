//! A volume whose complete stores were all lost and that two operators let go on without them. What it
//! went on without is never forgotten here: the stores that may have it are *estranged*, and none of them
//! is a member again, or wiped, before it has told what only it has.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Member, MemberState, NodeState, Protection};
use trefoil_protocol::ids::{ConfigIndex, Epoch, Lsn, StoreId, VolumeId};
use trefoil_protocol::time::CpTime;

use super::at_risk::AtRisk;
use super::command::Rejection;
use super::topology::Topology;
use super::volumes::{VolumeRecord, Volumes};

/// A volume went on without some of its stores.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Parting {
    /// The proposal by which operators wanted it.
    #[n(0)]
    pub proposal: u64,
    /// The first epoch after it.
    #[n(1)]
    pub epoch: Epoch,
    /// Both sides have everything up to here; `None` if nobody knows.
    #[n(2)]
    pub since: Option<Lsn>,
    /// Stores that may have more.
    #[n(3)]
    pub estranged: BTreeSet<StoreId>,
    /// A store that promised no later epoch than this has nothing more.
    #[n(4)]
    pub known: Epoch,
}

impl VolumeRecord {
    /// Whether the store may hold something that the volume went on without.
    pub fn is_estranged(&self, store: StoreId) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.estranged.contains(&store))
    }

    fn check_loss(&self, epoch: Epoch, store: StoreId, topology: &Topology) -> Result<(), Rejection> {
        let volume = self.config.volume;
        if self.config.epoch != epoch {
            return Err(Rejection::Stale);
        }
        if self.config.primary.is_some() {
            return Err(Rejection::NotDown(volume));
        }
        if let Some(sought) = &self.sought {
            let holds = sought.is_held_by(store) && is_there(store, topology);
            return if holds { Ok(()) } else { Err(Rejection::Unknown("such store there")) };
        }
        if self.complete_stores().into_iter().any(|complete| is_there(complete, topology)) {
            return Err(Rejection::NotLost(volume));
        }
        if self.at_risk.as_ref().is_some_and(|account| !account.is_unchanged()) {
            return Err(Rejection::Breaks(volume, "the deletes that only its lost stores have"));
        }
        let holds = self.config.ever_held.contains(&store) && !self.is_estranged(store);
        if holds && is_there(store, topology) { Ok(()) } else { Err(Rejection::Unknown("such store there")) }
    }

    /// Goes on with what these stores have together.
    fn go_on_with(
        &mut self,
        index: ConfigIndex,
        proposal: u64,
        store: StoreId,
        topology: &Topology,
        now: CpTime,
    ) {
        let all = self.config.ever_held.iter().copied().collect();
        self.is_found(index, now, &all);
        let others = self.config.members.iter().map(|member| member.store).filter(|other| *other != store);
        let there = others.filter(|other| is_there(*other, topology));
        let entries = [store].into_iter().chain(there).filter_map(|store| topology.runner(store));
        let members: Vec<Member> =
            entries.map(|entry| Topology::member(entry, MemberState::InSync)).collect();
        let primary = members[0].node;
        let stays = |store: &StoreId| members.iter().any(|member| member.store == *store);
        let estranged = self.config.ever_held.iter().copied().filter(|store| !stays(store)).collect();
        let since = self.at_risk.take().filter(AtRisk::is_exact).map(|account| account.since());
        self.reconfigure(index, Some(primary), members, Protection::SingleDc);
        // What the lost stores acknowledged counts no more: nobody waits for them.
        self.config.intervals.clear();
        self.parting =
            Some(Parting { proposal, epoch: self.config.epoch, since, estranged, known: Epoch(0) });
    }
}

fn is_there(store: StoreId, topology: &Topology) -> bool {
    let runner = topology.runner(store);
    runner.is_some_and(|entry| entry.state == NodeState::Up && !topology.is_unconfirmed(entry))
        && !topology.is_fenced(store)
}

impl Volumes {
    /// Whether the volume may go on with `store` and without what only its lost stores have.
    pub(super) fn check_loss(
        &self,
        volume: VolumeId,
        epoch: Epoch,
        store: StoreId,
        topology: &Topology,
    ) -> Result<(), Rejection> {
        let record = self.get(volume).ok_or(Rejection::Unknown("volume"))?;
        record.check_loss(epoch, store, topology)
    }

    /// Does it; it was checked.
    pub(super) fn accept_loss(
        &mut self,
        index: ConfigIndex,
        proposal: u64,
        volume: VolumeId,
        store: StoreId,
        topology: &Topology,
        now: CpTime,
    ) {
        self.alter(volume, |record| record.go_on_with(index, proposal, store, topology, now));
    }
}
