//! After a restore: what was decided since the backup is known to the stores alone, so every store says
//! what it holds before it hears anything, and a volume stays down until those have spoken that must have
//! known of any later configuration.
//!
//! A configuration acknowledges nothing before its primary and all its in-sync members promised its
//! epoch, and its primary held everything that was acknowledged before. So when all stores that could
//! have led after the newest configuration known have spoken, and none of them promised more, there was
//! none.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use trefoil_protocol::config::{Interval, Protection, VolumeConfig, VoterEntry};
use trefoil_protocol::ids::{ConfigIndex, DcId, Epoch, StoreId, TenantId, VolumeId};
use trefoil_protocol::message::admin::SearchView;
use trefoil_protocol::message::holdings::{GENERATION_STEP, Holdings, VolumeHolding};
use trefoil_protocol::time::CpTime;

use super::State;
use super::at_risk::AtRisk;
use super::command::Rejection;
use super::loss::Loss;
use super::parting::Parting;
use super::topology::StoreRecord;
use super::volumes::{VolumeRecord, Volumes};

/// Where the numbers of a generation begin; the first one begins at nothing.
pub fn first_of(generation: u64) -> u64 {
    match generation {
        0 | 1 => 0,
        later => later.saturating_mul(GENERATION_STEP),
    }
}

/// Who has said what it holds since the restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Search {
    #[n(0)]
    spoken: BTreeSet<StoreId>,
    /// Volumes that the backup does not know.
    #[n(1)]
    strange: BTreeMap<VolumeId, BTreeSet<StoreId>>,
    /// Data centres whose stores nobody waits for.
    #[n(2)]
    given_up: BTreeSet<DcId>,
}

/// What is known of a volume that is sought.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sought {
    /// The newest configuration heard of.
    #[n(0)]
    newest: VolumeConfig,
    /// The highest epoch that anybody promised.
    #[n(1)]
    promised: Epoch,
    /// The highest epoch that is in anybody's log.
    #[n(2)]
    written: Epoch,
    /// Who holds any of it.
    #[n(3)]
    holders: BTreeSet<StoreId>,
    /// The control plane's time when it was restored: nothing later is known.
    #[n(4)]
    since: CpTime,
}

impl Sought {
    /// Begins with what the backup knew.
    fn of(config: &VolumeConfig, since: CpTime) -> Self {
        let (promised, written, holders) = (config.epoch, Epoch::default(), BTreeSet::new());
        Self { newest: config.clone(), promised, written, holders, since }
    }

    fn hear(&mut self, store: StoreId, said: &VolumeHolding) {
        self.holders.insert(store);
        self.promised = self.promised.max(said.promised);
        self.written = self.written.max(said.written);
        let ours = |config: &&VolumeConfig| {
            (config.volume, config.tenant) == (self.newest.volume, self.newest.tenant)
        };
        if let Some(adopted) = said.adopted.as_ref().filter(ours)
            && adopted.epoch > self.newest.epoch
        {
            self.newest = adopted.clone();
        }
    }

    /// Whether the newest configuration may have acknowledged anything: its primary wrote its start.
    fn was_activated(&self) -> bool {
        self.newest.activated || self.written >= self.newest.epoch
    }

    /// Whether this store said that it holds some of it.
    pub(super) fn is_held_by(&self, store: StoreId) -> bool {
        self.holders.contains(&store)
    }

    /// Who could have led after the newest configuration.
    fn must_speak(&self) -> BTreeSet<StoreId> {
        let last = self.newest.intervals.iter().rev().find(|interval| interval.activated).cloned();
        let both = last.into_iter().chain(self.newest.as_interval());
        // Where those in sync could acknowledge nothing alone, somebody else may have gone on without them.
        let of = |interval: Interval| {
            let others = interval.leans.then_some(interval.catching_up);
            interval.in_sync.into_iter().chain(others.into_iter().flatten())
        };
        both.flat_map(of).chain(self.newest.required().map(|member| member.store)).collect()
    }
}

impl VolumeRecord {
    /// Whether a restored control plane has not found it yet.
    pub fn is_sought(&self) -> bool {
        self.sought.is_some()
    }

    fn is_lost_sight_of(&mut self, index: ConfigIndex, now: CpTime) {
        self.sought = Some(Sought::of(&self.config, now));
        let config = &mut self.config;
        (config.primary, config.activated, config.handover, config.changed) = (None, false, None, index);
        (self.told, self.wish) = (index, None);
    }

    /// The search is over: from here on it is a volume that is down, and comes up by the rules.
    pub(super) fn is_found(&mut self, index: ConfigIndex, now: CpTime, spoken: &BTreeSet<StoreId>) {
        let Some(sought) = self.sought.take() else { return };
        let mut estranged = sought.must_speak();
        if estranged.is_subset(spoken) {
            estranged.clear();
        } else {
            // Whoever was given up may have had a later configuration, of any store that is silent.
            estranged.extend(sought.newest.ever_held.iter().chain(&self.config.ever_held));
            estranged.retain(|store| !spoken.contains(store));
        }
        let last_epoch = sought.newest.epoch;
        let activated = sought.was_activated();
        let promised = sought.promised.max(sought.newest.epoch);
        for store in sought.newest.ever_held.iter().chain(&sought.holders) {
            self.member_until.entry(*store).or_insert(sought.newest.epoch);
        }
        let known = &self.config;
        self.config = VolumeConfig {
            activated,
            handover: None,
            window: known.window,
            first_copy_retention: known.first_copy_retention,
            single_dc: known.single_dc,
            stale_reads: known.stale_reads,
            replays: self.parting.as_ref().is_some_and(|parting| !parting.replay.is_empty()),
            ..sought.newest
        };
        // What was noted since the backup is not known here any more.
        let alone = self.config.protection != Protection::BothDcs;
        let since = sought.since;
        self.at_risk = alone.then(|| AtRisk::unknown(since));
        let (members, protection) = (self.config.members.clone(), self.config.protection);
        self.reconfigure(index, None, members, protection);
        self.config.epoch = Epoch(promised.0 + GENERATION_STEP);
        self.note_holders();
        self.part_from(estranged, last_epoch, now, since);
    }
}

impl VolumeRecord {
    /// A store speaks after the volume was found, and holds some of it: it is purged like all others.
    fn is_held_too(&mut self, index: ConfigIndex, store: StoreId, promised: Epoch) {
        if self.member_until.contains_key(&store) {
            return;
        }
        if let Some(parting) = self.parting.as_mut().filter(|parting| promised > parting.known) {
            parting.estranged.insert(store, parting.known);
        }
        self.member_until.insert(store, Epoch::default());
        self.config.ever_held = self.member_until.keys().copied().collect();
        self.told = index;
    }

    /// Goes on without stores that were given up, if anybody else has everything that is known.
    fn part_from(&mut self, estranged: BTreeSet<StoreId>, known: Epoch, now: CpTime, unknown_since: CpTime) {
        if estranged.is_empty() || self.knowing_stores().is_subset(&estranged) {
            return;
        }
        let config = &mut self.config;
        config.members.retain(|member| !estranged.contains(&member.store));
        for interval in &mut config.intervals {
            interval.in_sync.retain(|store| !estranged.contains(store));
            interval.catching_up.retain(|store| !estranged.contains(store));
        }
        let (proposal, epoch, since) = (0, config.epoch, None);
        let before = self.parting.take();
        let mut estranged: BTreeMap<StoreId, Epoch> =
            estranged.into_iter().map(|store| (store, known)).collect();
        estranged.extend(before.iter().flat_map(|parting| parting.estranged.clone()));
        let (replay, discarded) =
            before.map(|parting| (parting.replay, parting.discarded)).unwrap_or_default();
        let parting = Parting { proposal, epoch, since, estranged, known, replay, discarded };
        self.note_loss(Loss::of(&parting, now, Some(unknown_since), None));
        self.parting = Some(parting);
    }
}

impl Volumes {
    /// A store that was given up knows no later configuration than those who stayed: it is estranged no
    /// more.
    fn reconcile(&mut self, index: ConfigIndex, store: StoreId, said: &VolumeHolding) {
        let knows_no_more = |record: &VolumeRecord| {
            let known = record.parting.as_ref().and_then(|parting| parting.estranged.get(&store));
            known.is_some_and(|known| said.promised <= *known)
        };
        if self.get(said.volume).is_some_and(knows_no_more) {
            self.alter(said.volume, |record| {
                if let Some(parting) = &mut record.parting {
                    parting.estranged.remove(&store);
                    record.reconciled.insert(store);
                    record.told = index;
                }
            });
        }
    }

    fn lose_sight(&mut self, index: ConfigIndex, generation: u64, now: CpTime) {
        for volume in self.numbers() {
            self.alter(volume, |record| record.is_lost_sight_of(index, now));
        }
        self.forget_wishes();
        self.skip_numbers(first_of(generation));
    }
}

impl State {
    /// The state from which a restored control plane begins: nothing that was numbered since the backup
    /// is numbered again, and nothing is believed of nodes and volumes until their stores have spoken.
    #[must_use]
    pub fn restored(mut self, voters: &[VoterEntry], generation: u64, given_up: &[DcId]) -> Self {
        let index = ConfigIndex(first_of(generation));
        self.generation = generation;
        self.applied = index;
        self.topology.lose_sight(index, generation);
        self.tenants.begin_generation(index, generation);
        self.volumes.lose_sight(index, generation, self.clock.now());
        self.deletions.begin_generation(generation);
        self.voters.found_anew(voters, self.clock.now(), generation);
        self.search = Search { given_up: given_up.iter().copied().collect(), ..Search::default() };
        self
    }

    /// Whether the store must say what it holds before it hears anything.
    pub fn must_speak(&self, store: StoreId) -> bool {
        self.generation > 1 && !self.search.spoken.contains(&store)
    }

    /// Whether nobody waits for the store: it has spoken, or is given up.
    fn is_settled(&self, store: StoreId) -> bool {
        let is_given_up = |known: &StoreRecord| self.search.given_up.contains(&known.dc);
        self.search.spoken.contains(&store) || self.topology.store(store).is_some_and(is_given_up)
    }

    /// Whether a store that is known and not fenced has not said yet what it holds: until then nobody can
    /// say of a version that it is gone everywhere.
    pub fn awaits_a_store(&self) -> bool {
        self.generation > 1 && self.topology.unfenced().any(|store| self.must_speak(store))
    }

    /// Which volumes are sought, and who must speak first.
    pub fn sought(&self) -> impl Iterator<Item = SearchView> {
        let known = self.volumes.all().filter_map(|record| {
            let sought = record.sought.as_ref()?;
            let waits_for = sought.must_speak().into_iter().filter(|store| !self.is_settled(*store));
            Some(SearchView {
                volume: record.config.volume,
                tenant: Some(record.config.tenant),
                waits_for: waits_for.collect(),
                since: Some(sought.since),
            })
        });
        let strange = self.search.strange.keys();
        known.chain(strange.map(|volume| SearchView {
            volume: *volume,
            tenant: None,
            waits_for: Vec::new(),
            since: None,
        }))
    }

    /// A store says what it holds.
    pub(super) fn hear_holdings(&mut self, index: ConfigIndex, said: &Holdings) -> Result<(), Rejection> {
        if self.topology.store(said.store).is_none_or(|known| known.incarnation != said.incarnation) {
            return Err(Rejection::Stale);
        }
        let signers = self.voters.signers();
        for holding in &said.volumes {
            self.volumes.reconcile(index, said.store, holding);
            if !self.volumes.hear(index, said.store, holding) {
                self.search.strange.entry(holding.volume).or_default().insert(said.store);
                continue;
            }
            let genuine = holding.orders.iter().filter(|order| order.verify(&signers).is_ok());
            genuine.for_each(|order| self.deletions.recognise(&order.order));
        }
        if said.last && self.search.spoken.insert(said.store) {
            self.find(index);
        }
        Ok(())
    }

    fn find(&mut self, index: ConfigIndex) {
        let now = self.clock.now();
        let heard = |record: &VolumeRecord| {
            let sought = record.sought.as_ref();
            sought.is_some_and(|sought| sought.must_speak().iter().all(|store| self.is_settled(*store)))
        };
        let found: Vec<VolumeId> =
            self.volumes.all().filter(|record| heard(record)).map(|record| record.config.volume).collect();
        for volume in found {
            self.volumes.alter(volume, |record| record.is_found(index, now, &self.search.spoken));
        }
    }
}

impl Volumes {
    /// A store says what it holds of a volume; `false` if there is no such volume.
    fn hear(&mut self, index: ConfigIndex, store: StoreId, said: &VolumeHolding) -> bool {
        let tenant: Option<TenantId> = self.get(said.volume).map(|record| record.config.tenant);
        if tenant != Some(said.tenant) {
            return false;
        }
        self.alter(said.volume, |record| match &mut record.sought {
            Some(sought) => sought.hear(store, said),
            None => record.is_held_too(index, store, said.promised),
        });
        true
    }
}
