//! The beginning of an epoch: the new primary fences every member at its epoch, hears where each one
//! is, takes the best log among them as its own, and only then reports that it is ready.
//!
//! It truncates nothing because something is missing here: it cuts only what differs from the best
//! log, and what no in-sync member could ever have acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_engine::{Disk, RecordReadError, StageError};
use trefoil_protocol::config::{Interval, VolumeConfig};
use trefoil_protocol::ids::{Incarnation, Lsn, NodeId, StoreId, UploadId};
use trefoil_protocol::message::control::ControlRequest;
use trefoil_protocol::message::peer::{LogPoint, PeerBody, StoreReport};
use trefoil_protocol::mutant;
use trefoil_protocol::record::Record;
use trefoil_protocol::time::BootTime;

use super::holding::Holding;
use super::member::{FollowError, follow};
use super::primary::{Primary, is_due};
use crate::outbox::Context;
use crate::yielding::Claim;

/// Whoever was not heard is asked again after this long, and each time after twice as long.
const ASK_AFTER: Duration = Duration::from_millis(200);
const ASK_EVERY_MAX: Duration = Duration::from_millis(800);
const FETCH_EVERY: Duration = Duration::from_millis(200);
const FETCH_SLOWLY_EVERY: Duration = Duration::from_secs(5);
const SILENT_AFTER: Duration = Duration::from_secs(3);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How far the peering is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something is still missing.
    Waiting,
    /// The log is chosen and here; the control plane is being told.
    Ready,
}

/// One peering, of one epoch.
#[derive(Clone, Debug)]
pub struct Peering {
    reports: BTreeMap<StoreId, (Incarnation, StoreReport)>,
    /// When others were asked first. Before that nobody is silent.
    began: Option<BootTime>,
    asked_at: Option<BootTime>,
    /// How long after `asked_at` the next look is due, whether anybody is to be asked then or not.
    ask_after: Duration,
    /// Stores that are there and had not heard of this epoch, with the time of their last word.
    not_yet: BTreeMap<StoreId, BootTime>,
    lagging_at: Option<BootTime>,
    fetched_at: Option<BootTime>,
    /// How often the best log is asked for more.
    fetch_every: Duration,
    /// Where the next fetch begins, if not at the end of the own log.
    fetch_after: Option<LogPoint>,
    ready_at: Option<BootTime>,
    preparing: Option<Primary>,
    /// A record was cut whose payload nobody has: nothing behind it was acknowledged either.
    is_cut: bool,
    /// Who said that it cannot give an upload's bytes.
    without: BTreeMap<UploadId, BTreeSet<StoreId>>,
}

impl Default for Peering {
    /// Begins.
    fn default() -> Self {
        Self {
            reports: BTreeMap::new(),
            began: None,
            asked_at: None,
            ask_after: ASK_AFTER,
            not_yet: BTreeMap::new(),
            lagging_at: None,
            fetched_at: None,
            fetch_every: FETCH_EVERY,
            fetch_after: None,
            ready_at: None,
            preparing: None,
            is_cut: false,
            without: BTreeMap::new(),
        }
    }
}

impl Peering {
    /// A member promised the epoch and says where it is.
    pub fn reported(&mut self, store: StoreId, incarnation: Incarnation, report: StoreReport) {
        let known = self.reports.get(&store).map_or(Incarnation::default(), |(run, _)| *run);
        if incarnation >= known {
            self.reports.insert(store, (incarnation, report));
        }
    }

    /// A store is there and was not told yet of this epoch: it is not silent, and will be asked again.
    pub fn not_yet(&mut self, store: StoreId, now: BootTime) {
        self.not_yet.insert(store, now);
        if let Some(preparing) = &mut self.preparing {
            preparing.not_yet(store, now);
        }
    }

    /// A member cannot give an upload's bytes.
    pub fn lacks(&mut self, store: StoreId, upload: UploadId) {
        self.without.entry(upload).or_default().insert(store);
    }

    /// Nobody has what is missing: asking often does not help.
    pub fn fetch_slowly(&mut self) {
        self.fetch_every = FETCH_SLOWLY_EVERY;
    }

    /// Records of the best log.
    pub fn log<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        previous: LogPoint,
        records: Vec<Record>,
        now: BootTime,
    ) -> Result<(), FollowError> {
        let (before, brings) = (self.fetch_after, !records.is_empty());
        self.fetch_after = match follow(holding, previous, records, now) {
            Ok(shared) => holding.point(shared),
            // The logs part behind the end of the committed one, which all members share.
            Err(FollowError::Gap(_)) => holding.point(holding.committed()),
            Err(error) => return Err(error),
        };
        if brings || self.fetch_after != before {
            self.fetched_at = None; // There may be more.
        }
        Ok(())
    }

    /// Does what can be done now.
    pub fn advance<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<Progress, StageError> {
        if !holding.has_promised(config.epoch) {
            return Ok(Progress::Waiting);
        }
        self.ask(is_in_doubt(holding), config, cx);
        let silent = self.silent(config, cx.identity.store);
        if !silent.is_empty() {
            self.report_silent(silent, config, cx);
            return Ok(Progress::Waiting);
        }
        if self.cut_damaged_end(holding, config, cx.identity.store)? {
            return Ok(Progress::Waiting);
        }
        if !self.has_best_log(holding, config, cx) || !self.is_certain(holding, config, cx.identity.store) {
            return Ok(Progress::Waiting);
        }
        if takeover(config, cx.identity.store).is_some_and(|last| !self.may_take_over(holding, &last, cx)) {
            return Ok(Progress::Waiting);
        }
        if config.owing().is_some() || !holding.is_verified() {
            // All of that counts, with its payload or without, and says which payload is nobody's any more.
            let counts = self.told_committed(holding).max(self.owed_up_to(holding, config));
            holding.commit(counts.min(holding.log().durable_lsn()));
        }
        if self.cut_unobtainable(holding, config, cx.identity.store)? || !self.is_whole(holding, config) {
            return Ok(Progress::Waiting);
        }
        holding.settle()?;
        if !self.prepare(holding, config, cx) {
            return Ok(Progress::Waiting);
        }
        if !config.activated && is_due(self.ready_at, REPORT_EVERY, cx.now) {
            self.ready_at = Some(cx.now);
            let (volume, epoch, committed) = (config.volume, config.epoch, holding.committed());
            cx.out.ask(ControlRequest::Ready { volume, epoch, committed });
        }
        Ok(Progress::Ready)
    }

    /// Brings every in-sync member up to the chosen log.
    fn prepare<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let (me, start) = (cx.identity.store, holding.last().lsn.next());
        let known = self.preparing.take().filter(|preparing| preparing.start() == start);
        let mut preparing = known.unwrap_or_else(|| Primary::new(config, me, start, cx.now));
        match preparing.replicate(holding, config, Claim::Patient, cx) {
            Ok(()) | Err(RecordReadError::Absent { .. }) => {}
            Err(RecordReadError::Faulty { lsn, fault }) => holding.record_is_damaged(lsn, fault),
            Err(RecordReadError::Disk(error)) => cx.out.fail_store(error),
        }
        preparing.report(holding, config, cx);
        let prepared = mutant!(M09, preparing.is_prepared(), true);
        self.preparing = Some(preparing);
        prepared
    }

    /// What is known of the members, while they are brought up to the chosen log.
    pub fn preparing(&mut self) -> Option<&mut Primary> {
        self.preparing.as_mut()
    }

    fn ask<D: Disk>(&mut self, in_doubt: bool, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        if !is_due(self.asked_at, self.ask_after, cx.now) {
            return;
        }
        self.ask_after =
            if self.asked_at.is_some() { (self.ask_after * 2).min(ASK_EVERY_MAX) } else { ASK_AFTER };
        self.asked_at = Some(cx.now);
        self.began.get_or_insert(cx.now);
        let unheard = |store: &StoreId| *store != cx.identity.store && !self.reports.contains_key(store);
        let members = config.members.iter().filter(|member| unheard(&member.store)).map(|m| m.node);
        let mut unheard: Vec<NodeId> = witnesses(config)
            .into_iter()
            .filter(|store| in_doubt && unheard(store))
            .filter_map(|store| cx.view.node_of_store(store).map(|node| node.node))
            .collect();
        unheard.extend(members);
        for node in unheard {
            cx.tell(config, node, PeerBody::Peer);
        }
    }

    fn silent(&self, config: &VolumeConfig, me: StoreId) -> Vec<StoreId> {
        let required = config.required().map(|member| member.store);
        let vouching = takeover(config, me).map(|last| last.catching_up).unwrap_or_default();
        let vouching = mutant!(R03, vouching, Vec::new());
        let stores: BTreeSet<StoreId> = required.chain(vouching).filter(|store| *store != me).collect();
        stores.into_iter().filter(|store| !self.reports.contains_key(store)).collect()
    }

    /// Whether a store that only caught up may lead. All that may have acknowledged with it were heard, so one of them
    /// has each acknowledged record of the last epoch; no log of theirs ends in doubt; and the best of them, which
    /// is here now, has that epoch's start: if nobody had it nothing was acknowledged in that epoch, and who
    /// caught up may not even know what was before.
    fn may_take_over<D: Disk>(&self, holding: &Holding<D>, last: &Interval, cx: &Context<'_, D>) -> bool {
        let is_sound = |store: &StoreId| match *store == cx.identity.store {
            true => holding.is_verified(),
            false => self.reports.get(store).is_some_and(|(_, report)| report.verified),
        };
        let all = last.leans && last.catching_up.iter().all(is_sound) && holding.last().epoch >= last.epoch;
        mutant!(R03, all, true)
    }

    fn report_silent<D: Disk>(
        &mut self,
        stores: Vec<StoreId>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let silent = |store: &StoreId| {
            let heard_at = self.not_yet.get(store).copied().or(self.began);
            heard_at.is_some_and(|at| cx.now.since(at) >= SILENT_AFTER)
        };
        let stores: Vec<StoreId> = stores.into_iter().filter(silent).collect();
        if !stores.is_empty() && is_due(self.lagging_at, REPORT_EVERY, cx.now) {
            self.lagging_at = Some(cx.now);
            let (volume, epoch) = (config.volume, config.epoch);
            cx.out.ask(ControlRequest::Lagging { volume, epoch, stores });
        }
    }

    /// Reports of the other in-sync members and of the witnesses.
    fn peers<'p>(
        &'p self,
        config: &'p VolumeConfig,
        me: StoreId,
    ) -> impl Iterator<Item = (StoreId, &'p StoreReport)> {
        let required = config.required().map(|member| member.store);
        let stores: BTreeSet<StoreId> = required.chain(witnesses(config)).filter(|s| *s != me).collect();
        stores.into_iter().filter_map(|store| Some((store, &self.reports.get(&store)?.1)))
    }

    /// Where missing payload may be fetched beside the in-sync members.
    pub fn witness_nodes<D: Disk>(&self, config: &VolumeConfig, cx: &Context<'_, D>) -> Vec<NodeId> {
        let heard = witnesses(config).into_iter().filter(|store| self.reports.contains_key(store));
        heard.filter_map(|store| cx.view.node_of_store(store).map(|node| node.node)).collect()
    }

    /// The best log is the one whose last record has the highest (epoch, lsn).
    fn has_best_log<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        let rank = |report: &StoreReport| (report.last.epoch, report.last.lsn);
        let best = self.peers(config, cx.identity.store).max_by_key(|(_, report)| rank(report));
        let Some((store, report)) = best.map(|(store, report)| (store, *report)) else {
            return holding.hole().is_none();
        };
        let own = holding.last();
        let ahead = rank(&report) > (own.epoch, own.lsn) && !holding.passes(report.last);
        let behind = ahead && !self.is_cut;
        let Some(after) = self.fetch_from(holding, behind) else {
            self.fetched_at = None;
            return true;
        };
        if is_due(self.fetched_at, self.fetch_every, cx.now) {
            self.fetched_at = Some(cx.now);
            if let Some(node) = cx.view.node_of_store(store).map(|node| node.node) {
                cx.tell(config, node, PeerBody::FetchLog { after });
            }
        }
        false
    }

    /// Where to fetch from: before the first damaged record, or at the end of a log that is behind.
    fn fetch_from<D: Disk>(&self, holding: &Holding<D>, behind: bool) -> Option<LogPoint> {
        match holding.hole() {
            Some(hole) => {
                let before = holding.point(hole.previous());
                // The best log may part from this one before the damage.
                self.fetch_after.filter(|after| after.lsn < hole.previous()).or(before)
            }
            None if behind => Some(self.fetch_after.unwrap_or(holding.last())),
            None => None,
        }
    }

    /// A log whose end is in doubt counts only after comparison with another such store's.
    fn is_certain<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig, me: StoreId) -> bool {
        holding.is_verified() || self.is_compared(config, me)
    }

    /// Whether what was heard from other stores tells all that was acknowledged.
    fn is_compared(&self, config: &VolumeConfig, me: StoreId) -> bool {
        let heard = |store: &StoreId| *store != me && self.reports.contains_key(store);
        let (in_sync, catching_up) = last_acknowledging(config);
        // Each other in-sync store has every acknowledged record. Without one, each record is on some
        // of those that caught up: all of them have to be heard.
        in_sync.iter().any(heard)
            || (in_sync.iter().all(|store| *store == me) && catching_up.iter().all(heard))
    }

    /// Cuts the log at a damaged record that no store which knows what was acknowledged has reached:
    /// its writing was broken off by a crash, and nobody was answered. Nobody could repair it either.
    fn cut_damaged_end<D: Disk>(
        &self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        me: StoreId,
    ) -> Result<bool, StageError> {
        let Some(hole) = holding.hole() else { return Ok(false) };
        let is_known = hole <= self.known_committed(holding, config)
            || self.peers(config, me).any(|(_, report)| report.last.lsn >= hole);
        if is_known || !self.is_compared(config, me) {
            return Ok(false);
        }
        holding.cut_after(hole.previous()).map(|()| true)
    }

    /// Cuts the log at a record whose payload no in-sync member has: none of them can have
    /// acknowledged it, so nobody was answered.
    fn cut_unobtainable<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        me: StoreId,
    ) -> Result<bool, StageError> {
        let known = self.known_committed(holding, config);
        let others: BTreeSet<StoreId> = self.peers(config, me).map(|(store, _)| store).collect();
        if others.is_empty() && is_in_doubt(holding) {
            return Ok(false);
        }
        let unobtainable = holding.unpaid().range(known.next()..).find(|(_, unpaid)| {
            others.iter().all(|s| self.without.get(&unpaid.upload).is_some_and(|w| w.contains(s)))
        });
        match unobtainable.map(|(lsn, _)| *lsn) {
            Some(lsn) => {
                self.is_cut = true;
                holding.cut_after(lsn.previous()).map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// Everything is under a finished sync, with the payload of all that may still have to be
    /// acknowledged.
    fn is_whole<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig) -> bool {
        let known = self.known_committed(holding, config);
        holding.log().durable_lsn() == holding.last().lsn
            && holding.unpaid().range(known.next()..).next().is_none()
    }

    /// Up to where somebody knows the chosen log to be committed.
    fn told_committed<D: Disk>(&self, holding: &Holding<D>) -> Lsn {
        let told = self.reports.values().map(|(_, report)| report.committed);
        told.fold(holding.known_committed(), Lsn::max)
    }

    /// Up to where the chosen log may be committed and is not cut. At a store that owes payload that is all that was
    /// chosen for an epoch that was activated since: records of earlier epochs are not cut for want of their bytes.
    fn known_committed<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig) -> Lsn {
        // This epoch's own activation says nothing of records that wait for it to begin.
        let before = config.intervals.iter().rev().find(|interval| interval.activated);
        let chosen = before.filter(|_| config.owing().is_some()).map(|last| holding.end_before(last.epoch));
        self.told_committed(holding).max(chosen.unwrap_or_default())
    }

    /// The last of those records whose payload is owed. What is behind it is here with its payload, and this epoch commits
    /// it like any other, when its payload is on two disks: somebody may wait for that answer.
    fn owed_up_to<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig) -> Lsn {
        let known = self.known_committed(holding, config);
        holding.unpaid().range(..=known).next_back().map_or(Lsn::ZERO, |(lsn, _)| *lsn)
    }

    /// When to look again.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig) -> Option<BootTime> {
        // Before that the end of a sync is waited for.
        let asked = self.asked_at.map(|at| at + self.ask_after);
        let fetched = self.fetched_at.map(|at| at + self.fetch_every);
        let preparing = self.preparing.as_ref().and_then(|p| p.next_wakeup(holding, config));
        fetched.into_iter().chain(asked).chain(preparing).min()
    }
}

/// Whether something at the end or in the middle of this log may be lost.
fn is_in_doubt<D: Disk>(holding: &Holding<D>) -> bool {
    !holding.is_verified() || holding.hole().is_some()
}

/// Stores that are no in-sync members and still know what was acknowledged last: those that were in
/// sync, or took part while they caught up, under the last epoch that may have acknowledged anything.
pub(super) fn witnesses(config: &VolumeConfig) -> Vec<StoreId> {
    let is_in_sync =
        |store: StoreId| config.member_of_store(store).is_some_and(|member| member.state.is_required());
    let (in_sync, catching_up) = last_acknowledging(config);
    in_sync.into_iter().chain(catching_up).filter(|store| !is_in_sync(*store)).collect()
}

/// The in-sync and the catching-up stores of the last epoch that may have acknowledged anything.
fn last_acknowledging(config: &VolumeConfig) -> (Vec<StoreId>, Vec<StoreId>) {
    config.last_activated().map_or_else(Default::default, |last| (last.in_sync, last.catching_up))
}

/// The last epoch that may have acknowledged anything, if this store has not all records of it by right: it
/// caught up in it, and is to lead now.
fn takeover(config: &VolumeConfig, me: StoreId) -> Option<Interval> {
    config.last_activated().filter(|last| config.owing().is_some() && !last.in_sync.contains(&me))
}
