//! Volumes: their configuration, and what must be remembered of former ones so that no two of them
//! ever serve at once and no copy is ever forgotten.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Member, MemberState, Protection, VolumeConfig};
use trefoil_protocol::ids::{ConfigIndex, DcId, Epoch, Lsn, NodeId, StoreId, VolumeId};
use trefoil_protocol::message::control::{Note, Noted};
use trefoil_protocol::time::CpTime;

use super::at_risk::AtRisk;
use super::by_change::ByChange;
use super::command::{NewTenant, NewVolume, Rejection, VolumeChange};
use super::left::Left;
use super::loss::Loss;
use super::parting::Parting;
use super::plans::{PlanStep, Wish};
use super::search::Sought;
use super::topology::Topology;

/// The most members a volume has for a while; three is the aim.
pub const MEMBERS_MAX: usize = 4;

/// So many of a volume's moves are remembered.
const MOVES_KEPT: usize = 16;

/// What a node could do under a former configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Serve versions.
    #[n(0)]
    Member,
    /// Acknowledge writes and answer "latest".
    #[n(1)]
    Primary,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeRecord {
    /// Its configuration.
    #[n(0)]
    pub config: VolumeConfig,
    /// The data centre that shall hold two copies.
    #[n(1)]
    pub home: DcId,
    /// The command that last changed anything nodes are told about it. Later than
    /// `config.changed` where a change needs no new grant.
    #[n(2)]
    pub told: ConfigIndex,
    /// The highest role each node had in the last activated configuration and since.
    #[n(3)]
    pub roles: BTreeMap<NodeId, Role>,
    /// The last epoch in which each store of `ever_held` was a member.
    #[n(4)]
    pub member_until: BTreeMap<StoreId, Epoch>,
    /// Stores that may hold bytes but are dead for ever.
    #[n(5)]
    pub fenced: BTreeSet<StoreId>,
    /// What one data centre alone acknowledged; kept until both hold everything.
    #[n(6)]
    pub at_risk: Option<AtRisk>,
    /// Since when a data centre of an activated configuration has no complete copy, if one has none.
    #[n(7)]
    pub debt_since: Option<CpTime>,
    /// When it was given a store that had never held it, lately.
    #[n(8)]
    pub moves: Vec<CpTime>,
    /// What an operator's plan still wants of it.
    #[n(9)]
    pub wish: Option<Wish>,
    /// Where it was at home before a failover took it from there.
    #[n(10)]
    pub home_before: Option<DcId>,
    /// What operators let it go on without, while somebody may still have it.
    #[n(11)]
    pub parting: Option<Parting>,
    /// What is known of it while a restored control plane seeks it.
    #[n(12)]
    pub sought: Option<Sought>,
    /// What is known of what it went on without, the last time last.
    #[n(13)]
    pub losses: Vec<Loss>,
    /// Stores that it went on without and that turned out to have nothing more.
    #[n(14)]
    pub reconciled: BTreeSet<StoreId>,
}

impl VolumeRecord {
    /// The nodes that may still serve under a former configuration, with a role that the present
    /// one does not give them.
    pub fn leavers(&self) -> impl Iterator<Item = NodeId> {
        self.roles.iter().filter(|(node, role)| !self.still_has(**node, **role)).map(|(node, _)| *node)
    }

    fn still_has(&self, node: NodeId, role: Role) -> bool {
        match role {
            Role::Primary => self.config.primary == Some(node),
            Role::Member => self.config.required().any(|member| member.node == node),
        }
    }

    fn note_roles(&mut self) {
        // A member that catches up serves nothing: nobody has to wait for it.
        for member in self.config.required() {
            let primary = self.config.primary == Some(member.node);
            let role = if primary { Role::Primary } else { Role::Member };
            let highest = self.roles.entry(member.node).or_insert(role);
            *highest = role.max(*highest);
        }
    }

    /// The present configuration becomes a past interval.
    fn push_interval(&mut self) {
        let Some(interval) = self.config.as_interval() else { return };
        if interval.activated {
            self.config.intervals.clear();
        }
        self.config.intervals.push(interval);
    }

    pub(super) fn reconfigure(
        &mut self,
        index: ConfigIndex,
        primary: Option<NodeId>,
        members: Vec<Member>,
        protection: Protection,
    ) {
        self.note_roles();
        self.push_interval();
        let config = &mut self.config;
        config.epoch = config.epoch.next();
        config.primary = primary;
        config.members = members;
        config.protection = protection;
        config.activated = false;
        config.handover = None;
        config.changed = index;
        self.told = index;
        self.note_holders();
        if self.wish.is_some_and(|wish| wish.is_fulfilled(self)) {
            self.wish = None;
        }
        if protection == Protection::BothDcs {
            // Left only with the proof that both data centres hold everything.
            self.at_risk = None;
        }
    }

    fn note_move(&mut self, members: &[Member], now: CpTime) {
        let asked_for = |member: &&Member| self.wish.is_some_and(|wish| wish.join == Some(member.node));
        let mut new = members.iter().filter(|member| !self.member_until.contains_key(&member.store));
        if new.any(|member| !asked_for(&member)) {
            if self.moves.len() >= MOVES_KEPT {
                self.moves.remove(0);
            }
            self.moves.push(now);
        }
    }

    /// How many times since then it was given a store that had never held it.
    pub fn moves_since(&self, since: CpTime) -> usize {
        self.moves.iter().filter(|at| **at >= since).count()
    }

    /// Whether old objects wait for a copy in some member's data centre.
    fn owes(&self) -> bool {
        let complete: BTreeSet<DcId> = self.config.in_sync().map(|member| member.dc).collect();
        self.config.members.iter().any(|member| !complete.contains(&member.dc))
    }

    /// Every member may get bytes from now on.
    pub(super) fn note_holders(&mut self) {
        for member in &self.config.members {
            self.member_until.insert(member.store, self.config.epoch);
        }
        self.config.ever_held = self.member_until.keys().copied().collect();
    }

    fn forget_holder(&mut self, index: ConfigIndex, store: StoreId) {
        self.member_until.remove(&store);
        if let Some(parting) = &mut self.parting {
            parting.discarded.remove(&store);
            parting.estranged.remove(&store);
        }
        self.config.ever_held = self.member_until.keys().copied().collect();
        self.told = index;
    }

    fn except_fenced(&mut self, index: ConfigIndex, topology: &Topology) {
        let config = &self.config;
        let gone = |store: &StoreId| topology.is_fenced(*store) && config.member_of_store(*store).is_none();
        let gone: Vec<StoreId> = config.ever_held.iter().copied().filter(gone).collect();
        for store in gone {
            self.forget_holder(index, store);
            self.fenced.insert(store);
        }
    }
}

/// All volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Volumes {
    /// Numbers only grow: a tree is left half empty by that, so its nodes hold no whole records.
    #[n(0)]
    volumes: BTreeMap<VolumeId, Box<VolumeRecord>>,
    #[n(1)]
    last: VolumeId,
    /// In the order of the last change that nodes are told.
    #[n(2)]
    told: ByChange,
    /// Volumes of which a store may hold bytes that is no member any more.
    #[n(3)]
    left: Left,
    /// Volumes that a plan still wants something of.
    #[n(4)]
    wished: BTreeSet<VolumeId>,
    /// How many lost versions are listed, of all volumes.
    #[n(5)]
    pub(super) listed: u64,
}

impl Volumes {
    /// All volumes.
    pub fn all(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.volumes.values().map(Box::as_ref)
    }

    /// The volumes with higher numbers than this, by number.
    pub fn behind(&self, volume: VolumeId) -> impl Iterator<Item = &VolumeRecord> {
        let bounds = (std::ops::Bound::Excluded(volume), std::ops::Bound::Unbounded);
        self.volumes.range(bounds).map(|(_, record)| record.as_ref())
    }

    /// The volumes of which something changed behind `since`, and that nodes must be told, oldest
    /// changes first.
    pub fn told_after(&self, since: ConfigIndex) -> impl Iterator<Item = &VolumeRecord> {
        self.told.after(since).map(|volume| self.volumes[&volume].as_ref())
    }

    /// The volumes of which this store may hold bytes and is no member any more.
    pub fn left_by(&self, store: StoreId) -> impl Iterator<Item = &VolumeRecord> {
        self.left.by(store).filter_map(|volume| self.get(volume))
    }

    /// The volumes that a plan still wants something of.
    pub fn wished(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.wished.iter().filter_map(|volume| self.get(*volume))
    }

    /// What a plan wants of a volume from now on.
    pub(super) fn wish(&mut self, plan: u64, step: &PlanStep, is_failover: bool) {
        let record = self.volumes.get_mut(&step.volume).expect("the plan was checked");
        let home_was = (record.home, record.home_before);
        if let Some(home) = step.home.filter(|home| *home != record.home) {
            record.home_before = is_failover.then_some(record.home);
            record.home = home;
        }
        let wish = Wish { plan, lead: step.lead, leave: step.leave, join: step.join, home_was };
        record.wish = (!wish.is_fulfilled(record)).then_some(wish);
        self.note(step.volume);
    }

    /// Nothing more is wanted of any volume.
    pub(super) fn forget_wishes(&mut self) {
        for volume in std::mem::take(&mut self.wished) {
            let record = self.volumes.get_mut(&volume).expect("only volumes are noted");
            if let Some(wish) = record.wish.take() {
                (record.home, record.home_before) = wish.home_was;
            }
        }
    }

    /// The primary shall give the volume to a member, or go on as before.
    pub(super) fn hand_over(
        &mut self,
        index: ConfigIndex,
        volume: VolumeId,
        epoch: Epoch,
        to: Option<StoreId>,
    ) -> Result<(), Rejection> {
        let record = self.volumes.get_mut(&volume).ok_or(Rejection::Unknown("volume"))?;
        let config = &mut record.config;
        let can_lead =
            |member: &Member| member.state == MemberState::InSync && Some(member.node) != config.primary;
        let fits = to.is_none_or(|store| config.member_of_store(store).is_some_and(can_lead));
        if config.epoch != epoch || !config.activated || !fits {
            return Err(Rejection::Stale);
        }
        config.handover = to;
        record.told = index;
        self.note(volume);
        Ok(())
    }

    /// The numbers of all volumes.
    pub(super) fn numbers(&self) -> Vec<VolumeId> {
        self.volumes.keys().copied().collect()
    }

    /// No volume gets a number up to here any more.
    pub(super) fn skip_numbers(&mut self, number: u64) {
        self.last = self.last.max(VolumeId(number));
    }

    /// Changes a volume that is there.
    pub(super) fn alter(&mut self, volume: VolumeId, change: impl FnOnce(&mut VolumeRecord)) {
        change(self.volumes.get_mut(&volume).expect("it was looked at before"));
        self.note(volume);
    }

    /// Keeps what is known of all volumes together true after one of them changed.
    fn note(&mut self, volume: VolumeId) {
        let record = &self.volumes[&volume];
        self.told.note(volume, record.told);
        match record.wish {
            Some(_) => self.wished.insert(volume),
            None => self.wished.remove(&volume),
        };
        let config = &record.config;
        let left = config.ever_held.iter().filter(|store| config.member_of_store(**store).is_none());
        let left = left.copied().collect();
        self.left.note(volume, left);
    }

    /// A volume.
    pub fn get(&self, volume: VolumeId) -> Option<&VolumeRecord> {
        self.volumes.get(&volume).map(Box::as_ref)
    }

    /// The id the next volume gets.
    pub fn next_id(&self) -> VolumeId {
        VolumeId(self.last.0 + 1)
    }

    pub(super) fn check_new(&self, new: &NewVolume) -> Result<(), Rejection> {
        let stores: BTreeSet<StoreId> = new.members.iter().map(|member| member.store).collect();
        let nodes: BTreeSet<NodeId> = new.members.iter().map(|member| member.node).collect();
        let whole = new.members.iter().all(|member| member.state == MemberState::InSync);
        if new.members.len() < 2 || stores.len() != new.members.len() || nodes.len() != stores.len() || !whole
        {
            return Err(Rejection::Breaks(self.next_id(), "a proper set of members"));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, index: ConfigIndex, tenant: &NewTenant, slot: u32, new: &NewVolume) {
        self.last = self.next_id();
        let config = VolumeConfig {
            volume: self.last,
            tenant: tenant.tenant,
            slot,
            epoch: Epoch(1),
            primary: Some(new.members[0].node),
            members: new.members.clone(),
            protection: Protection::BothDcs,
            activated: false,
            changed: index,
            intervals: Vec::new(),
            ever_held: Vec::new(),
            window: tenant.window,
            first_copy_retention: tenant.first_copy_retention,
            single_dc: tenant.single_dc,
            handover: None,
            replays: false,
            stale_reads: tenant.stale_reads,
        };
        let mut record = VolumeRecord {
            config,
            home: new.home,
            told: index,
            roles: BTreeMap::new(),
            member_until: BTreeMap::new(),
            fenced: BTreeSet::new(),
            at_risk: None,
            debt_since: None,
            moves: Vec::new(),
            wish: None,
            home_before: None,
            parting: None,
            sought: None,
            losses: Vec::new(),
            reconciled: BTreeSet::new(),
        };
        record.note_holders();
        self.volumes.insert(self.last, Box::new(record));
        self.note(self.last);
    }

    /// A new run of `node` over `store` has forgotten what its former run had promised to nobody
    /// but itself; where it is primary it starts over under a new epoch.
    pub(super) fn restarted(&mut self, index: ConfigIndex, node: NodeId, store: StoreId) {
        let led = |record: &&mut Box<VolumeRecord>| {
            record.config.primary_member().is_some_and(|m| m.node == node && m.store == store)
        };
        let mut changed = Vec::new();
        for record in self.volumes.values_mut().filter(led) {
            let config = &record.config;
            let (members, protection) = (config.members.clone(), config.protection);
            record.reconfigure(index, Some(node), members, protection);
            changed.push(record.config.volume);
        }
        changed.into_iter().for_each(|volume| self.note(volume));
    }

    pub(super) fn change(
        &mut self,
        index: ConfigIndex,
        change: &VolumeChange,
        topology: &Topology,
        now: CpTime,
    ) -> Result<(), Rejection> {
        let record = self.volumes.get_mut(&change.volume).ok_or(Rejection::Unknown("volume"))?;
        if record.config.epoch != change.from || record.is_sought() {
            return Err(Rejection::Stale);
        }
        // The proposer asserts the same; a command that got into the log all the same is refused
        // alike by every voter.
        if let Some(missing) = record.breakage(change) {
            return Err(Rejection::Breaks(change.volume, missing));
        }
        record.note_move(&change.members, now);
        record.reconfigure(index, change.primary, change.members.clone(), change.protection);
        record.except_fenced(index, topology);
        self.note(change.volume);
        Ok(())
    }

    pub(super) fn activate(
        &mut self,
        index: ConfigIndex,
        volume: VolumeId,
        epoch: Epoch,
        committed: Lsn,
        now: CpTime,
    ) -> Result<(), Rejection> {
        let record = self.volumes.get_mut(&volume).ok_or(Rejection::Unknown("volume"))?;
        if record.config.epoch != epoch || record.config.primary.is_none() {
            return Err(Rejection::Stale);
        }
        if record.config.activated {
            return Ok(());
        }
        record.config.activated = true;
        record.config.changed = index;
        record.told = index;
        record.roles.clear();
        record.note_roles();
        if record.config.protection == Protection::SingleDc {
            // Before this nothing was acknowledged in one data centre alone.
            record.at_risk.get_or_insert_with(|| AtRisk::open(committed, now)).go_on(committed);
        }
        let owes = record.owes();
        record.debt_since = owes.then(|| record.debt_since.unwrap_or(now));
        self.note(volume);
        Ok(())
    }

    pub(super) fn enter_note(&mut self, note: &Note) -> Result<Noted, Rejection> {
        let record = self.volumes.get_mut(&note.volume).ok_or(Rejection::Unknown("volume"))?;
        let current = record.config.epoch == note.epoch && record.config.activated;
        let account = record.at_risk.as_mut().filter(|_| current);
        account.ok_or(Rejection::Stale)?.note(note)
    }

    pub(super) fn retired(
        &mut self,
        index: ConfigIndex,
        volume: VolumeId,
        store: StoreId,
        epoch: Epoch,
    ) -> Result<(), Rejection> {
        let record = self.volumes.get_mut(&volume).ok_or(Rejection::Unknown("volume"))?;
        let Some(member_until) = record.member_until.get(&store) else { return Ok(()) };
        // A report from before its last membership says nothing about what it holds now.
        if record.config.member_of_store(store).is_some() || epoch <= *member_until {
            return Err(Rejection::Stale);
        }
        record.forget_holder(index, store);
        self.note(volume);
        Ok(())
    }

    /// The volume that would lose its last complete store with `store`, if any would.
    pub fn last_complete_in(&self, store: StoreId, topology: &Topology) -> Option<VolumeId> {
        let lost = |record: &&VolumeRecord| {
            // Where none holds everything, one that has every record is what is left.
            let complete = Some(record.complete_stores()).filter(|complete| !complete.is_empty());
            let best = complete.unwrap_or_else(|| record.knowing_stores());
            let other = |member: &&Member| {
                member.store != store
                    && best.contains(&member.store)
                    && topology.runner(member.store).is_some()
                    && !topology.is_fenced(member.store)
            };
            best.contains(&store) && record.config.required().find(other).is_none()
        };
        self.all().find(lost).map(|record| record.config.volume)
    }

    /// Fenced stores that are no members any more hold nobody up; certificates name them.
    pub(super) fn except_fenced(&mut self, index: ConfigIndex, topology: &Topology) {
        for volume in self.left.volumes().collect::<Vec<_>>() {
            self.volumes.get_mut(&volume).expect("only volumes are noted").except_fenced(index, topology);
            self.note(volume);
        }
    }
}
