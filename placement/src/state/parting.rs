//! A volume whose complete stores were all lost and that two operators let go on without them. What it
//! went on without is never forgotten here: the stores that may have it are *estranged*, and none of them
//! is a member again, or wiped, before it has told what only it has.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Member, MemberState, NodeState, Protection};
use trefoil_protocol::ids::{ConfigIndex, Epoch, Lsn, StoreId, VolumeId};
use trefoil_protocol::message::control::{NOTE_CHANGES_MAX, VisibilityChange};
use trefoil_protocol::mutant;
use trefoil_protocol::time::CpTime;

use super::at_risk::AtRisk;
use super::command::Rejection;
use super::loss::Loss;
use super::topology::Topology;
use super::volumes::{MEMBERS_MAX, VolumeRecord, Volumes};

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
    /// Stores that may have more, each unless it promised no later epoch than this.
    #[n(3)]
    pub estranged: BTreeMap<StoreId, Epoch>,
    /// A store of which nobody had heard has nothing more if it promised no later epoch than this.
    #[n(4)]
    pub known: Epoch,
    /// What the lost stores hid and brought back, in that order, as long as the volume has to replay it.
    #[n(5)]
    pub replay: Vec<VisibilityChange>,
    /// Stores that were estranged and give up what they have of it: then they may hold it anew.
    #[n(6)]
    pub discarded: BTreeSet<StoreId>,
}

impl VolumeRecord {
    /// Whether the store may hold something that the volume went on without.
    pub fn is_estranged(&self, store: StoreId) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.estranged.contains_key(&store))
    }

    /// Whether the store's part of the volume has the history that the volume goes on with.
    pub fn may_hold(&self, store: StoreId) -> bool {
        !self.is_estranged(store) && !self.is_discarded(store)
    }

    /// Whether operators decided that nobody needs what only this store has.
    pub fn is_discarded(&self, store: StoreId) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.discarded.contains(&store))
    }

    fn check_discard(&self, store: StoreId, topology: &Topology) -> Result<(), Rejection> {
        if !self.is_estranged(store) || self.is_sought() {
            return Err(Rejection::Unknown("estranged store there"));
        }
        // Of one that is not there nobody can say what it has.
        let is_silent = self.must_tell(store) && is_there(store, topology);
        if is_silent { Err(Rejection::NotHeard(store, self.config.volume)) } else { Ok(()) }
    }

    fn discard(&mut self, index: ConfigIndex, store: StoreId) {
        let Some(parting) = &mut self.parting else { return };
        parting.estranged.remove(&store);
        parting.discarded.insert(store);
        self.told = index;
    }

    fn check_loss(&self, epoch: Epoch, store: StoreId, topology: &Topology) -> Result<(), Rejection> {
        let volume = self.config.volume;
        if self.config.epoch != epoch {
            return Err(Rejection::Stale);
        }
        let owes = self.config.primary_member().is_some_and(|member| member.state == MemberState::Owing);
        if self.config.primary.is_some() && !owes {
            return Err(Rejection::NotDown(volume));
        }
        if let Some(sought) = &self.sought {
            let holds = sought.is_held_by(store) && is_there(store, topology);
            return if holds { Ok(()) } else { Err(Rejection::Unknown("such store there")) };
        }
        let best = if owes { self.complete_stores() } else { self.knowing_stores() };
        if best.into_iter().any(|best| is_there(best, topology)) {
            return Err(Rejection::NotLost(volume));
        }
        let holds = self.config.ever_held.contains(&store) && self.may_hold(store);
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
        let there: Vec<StoreId> = self.holders_there(store, topology).collect();
        let entries = there.iter().take(MEMBERS_MAX).filter_map(|store| topology.runner(*store));
        let members: Vec<Member> =
            entries.map(|entry| Topology::member(entry, MemberState::InSync)).collect();
        let primary = members[0].node;
        let lost = self.config.ever_held.iter().filter(|store| !there.contains(store));
        let estranged = lost.map(|store| (*store, Epoch::default())).collect();
        let discarded = self.parting.iter().flat_map(|parting| parting.discarded.clone()).collect();
        let account = self.at_risk.take();
        let replay = self.to_replay(account.as_ref());
        let debt_since = self.debt_since;
        let exact = account.as_ref().filter(|account| account.is_exact());
        let since = exact.map(AtRisk::since);
        let bound = exact.map(|account| account.view(self.config.volume));
        let bound = bound.map(|view| (view.objects, view.bytes));
        let unknown_since = match (&account, since) {
            (_, Some(_)) => None,
            (Some(account), None) => Some(account.opened()),
            (None, None) => Some(debt_since.unwrap_or(now)),
        };
        self.reconfigure(index, Some(primary), members, Protection::SingleDc);
        // What the lost stores acknowledged counts no more: nobody waits for them.
        self.config.intervals.clear();
        self.config.replays = mutant!(R16, !replay.is_empty(), false);
        let epoch = self.config.epoch;
        let parting = Parting { proposal, epoch, since, estranged, known: Epoch(0), replay, discarded };
        self.reconciled.retain(|store| !parting.estranged.contains_key(store));
        self.note_loss(Loss::of(&parting, now, unknown_since, bound));
        self.parting = Some(parting);
    }

    /// Who is there and held the volume: `store` first, then the members, then all others.
    fn holders_there(&self, store: StoreId, topology: &Topology) -> impl Iterator<Item = StoreId> {
        let others = self.config.ever_held.iter().copied().filter(move |other| *other != store);
        let (members, former): (Vec<StoreId>, Vec<StoreId>) =
            others.partition(|other| self.config.member_of_store(*other).is_some());
        let others = members.into_iter().chain(former);
        [store].into_iter().chain(others.filter(|other| self.may_hold(*other) && is_there(*other, topology)))
    }

    /// What must be hidden and brought back before anything is served: the account's list, behind what
    /// is left of an earlier one.
    fn to_replay(&self, account: Option<&AtRisk>) -> Vec<VisibilityChange> {
        let left = self.parting.iter().flat_map(|parting| parting.replay.iter().copied());
        let changes = account.map_or_else(Vec::new, AtRisk::changes);
        let newer: BTreeSet<_> = changes.iter().map(|change| change.version).collect();
        left.filter(|change| !newer.contains(&change.version)).chain(changes.iter().copied()).collect()
    }

    /// A part of what must be replayed, and whether it is the last one.
    pub fn replay(&self, from: u32) -> (Vec<VisibilityChange>, bool) {
        let all = self.parting.as_ref().map_or(&[][..], |parting| &parting.replay);
        let rest = all.get(from as usize..).unwrap_or_default();
        let part = &rest[..rest.len().min(NOTE_CHANGES_MAX)];
        (part.to_vec(), part.len() == rest.len())
    }

    fn has_replayed(&mut self, index: ConfigIndex) {
        if let Some(parting) = self.parting.as_mut().filter(|_| self.config.replays) {
            parting.replay.clear();
            (self.config.replays, self.told) = (false, index);
        }
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

    /// Whether operators may decide that nobody needs what only this store has.
    pub(super) fn check_discard(
        &self,
        volume: VolumeId,
        store: StoreId,
        topology: &Topology,
    ) -> Result<(), Rejection> {
        self.get(volume).ok_or(Rejection::Unknown("volume"))?.check_discard(store, topology)
    }

    /// They decided so; it was checked.
    pub(super) fn discard(&mut self, index: ConfigIndex, volume: VolumeId, store: StoreId) {
        self.alter(volume, |record| record.discard(index, store));
    }

    /// The primary of this epoch has replayed everything: the volume serves from now on.
    pub(super) fn replayed(
        &mut self,
        index: ConfigIndex,
        volume: VolumeId,
        epoch: Epoch,
    ) -> Result<(), Rejection> {
        let record = self.get(volume).ok_or(Rejection::Unknown("volume"))?;
        if record.config.epoch != epoch {
            return Err(Rejection::Stale);
        }
        self.alter(volume, |record| record.has_replayed(index));
        Ok(())
    }
}
