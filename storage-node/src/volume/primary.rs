//! The primary of an epoch: it sends its log to every member, counts what is durable where, and
//! moves the committed point when every in-sync member has a record and the epoch's rule holds.
//!
//! It never commits anything below its own `EpochStart` by itself, never counts a copy that was not
//! acknowledged by the store that holds it, and never removes a member on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::config::{Member, MemberState, Protection, SingleDcPolicy, VolumeConfig};
use trefoil_protocol::ids::{DcId, Incarnation, Lsn, StoreId};
use trefoil_protocol::message::control::{ControlRequest, ExposureCount};
use trefoil_protocol::message::peer::{LogPoint, PeerBody, encode_records};
use trefoil_protocol::message::tenant::Copy;
use trefoil_protocol::mutant;
use trefoil_protocol::record::Record;
use trefoil_protocol::time::BootTime;

use super::by_store::ByStore;
use super::exposure::Exposure;
use super::holding::Holding;
use crate::effect::Lane;
use crate::outbox::Context;
use crate::yielding::{self, Claim, Work};

/// Records that may be on their way to one member.
const WINDOW_RECORDS: u64 = 256;
/// Bytes of records in one message.
const MESSAGE_BYTES: usize = 1 << 20;
/// An unanswered record is sent again after this long without progress.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// News of the committed point waits this long for a record to ride on.
const COMMIT_NEWS_AFTER: Duration = Duration::from_millis(5);
/// How often an idle member is told what it has not confirmed.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(200);

/// How often a member that had no room for more is asked whether it has.
const ROOM_ASKED_EVERY: Duration = Duration::from_secs(1);
/// A member that makes no progress for this long is reported.
const LAGGING_AFTER: Duration = Duration::from_secs(3);
/// How often the control plane is told the same thing.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The same gap is not answered twice within this time.
const GAP_QUIET: Duration = Duration::from_millis(100);

/// How far one other member is.
#[derive(Clone, Debug)]
struct Follower {
    member: Member,
    /// The run of its process that is spoken with.
    incarnation: Incarnation,
    /// The next record to send.
    next: Lsn,
    /// Sending goes on from here when an answer is missing; at least what is durable there.
    base: Lsn,
    /// The last record ever sent.
    sent: Lsn,
    /// Durable there, by its own word.
    durable: Lsn,
    /// Whether it said so in this epoch.
    heard: bool,
    /// Applied there, by its own word.
    committed: Lsn,
    missing: Option<u32>,
    /// The committed point it was last told, and when.
    told: Lsn,
    told_at: BootTime,
    /// When it last made progress, or began to have something to do.
    progress_at: BootTime,
    /// When it last said that it is there and its disk gets on.
    there_at: BootTime,
    /// When records were last sent again for lack of progress.
    resent_at: BootTime,
    gap: Option<(LogPoint, BootTime)>,
    /// The record whose acknowledgement is timed, and when it was sent.
    timed: Option<(Lsn, BootTime)>,
    /// When old records for it were put off, because clients had work.
    put_off_at: Option<BootTime>,
    /// Its disk has no room for more, by its own word.
    short_of_room: bool,
}

/// The primary's state of one epoch.
#[derive(Clone, Debug)]
pub struct Primary {
    followers: ByStore<Follower>,
    start: Lsn,
    committed_at: BootTime,
    reported_at: Option<BootTime>,
    said_complete: BTreeMap<StoreId, BootTime>,
    restored_at: Option<BootTime>,
    /// Under `SingleDc`: what the control plane knows of it.
    exposure: Option<Exposure>,
}

impl Primary {
    /// Begins with the members of an epoch whose start stands at `start`, or will once the epoch is
    /// activated.
    pub fn new(config: &VolumeConfig, me: StoreId, start: Lsn, now: BootTime) -> Self {
        let others = config.members.iter().filter(|member| member.store != me);
        let follower = |member: &Member| Follower {
            member: *member,
            incarnation: Incarnation::default(),
            next: start,
            base: start.previous(),
            sent: Lsn::ZERO,
            durable: Lsn::ZERO,
            heard: false,
            committed: Lsn::ZERO,
            missing: None,
            told: Lsn::ZERO,
            told_at: BootTime(now.0.saturating_sub(HEARTBEAT_EVERY.as_nanos() as u64)),
            progress_at: now,
            there_at: now,
            resent_at: now,
            gap: None,
            timed: None,
            put_off_at: None,
            short_of_room: false,
        };
        Self {
            followers: others.map(|member| (member.store, follower(member))).collect(),
            start,
            committed_at: now,
            reported_at: None,
            said_complete: BTreeMap::new(),
            restored_at: None,
            exposure: (config.protection == Protection::SingleDc).then(Exposure::default),
        }
    }

    /// The account with the control plane of what this data centre alone holds, under `SingleDc`.
    pub fn exposure(&mut self) -> Option<&mut Exposure> {
        self.exposure.as_mut()
    }

    /// Whether the answer to a delete or undelete at `lsn` must wait: the control plane does not have it.
    pub fn owes_note(&self, lsn: Lsn) -> bool {
        self.exposure.as_ref().is_some_and(|exposure| lsn > exposure.noted())
    }

    /// Whether the tenant wants no write in one data centre alone, and this epoch would give one.
    pub fn refuses_writes(&self, config: &VolumeConfig) -> bool {
        config.single_dc == SingleDcPolicy::Refuse && self.exposure.is_some()
    }

    /// A member said whether its disk has room for more.
    pub fn heard_of_room(&mut self, store: StoreId, short_of_room: bool) {
        if let Some(follower) = self.followers.get_mut(&store) {
            follower.short_of_room = short_of_room;
        }
    }

    /// Whether a member that every write waits for has no room for more.
    pub fn is_short_of_room(&self) -> bool {
        self.followers.values().any(|follower| follower.is_in_sync() && follower.short_of_room)
    }

    /// Whether a record is certainly in both data centres, which only this one acknowledges now.
    pub fn is_in_both(&self, lsn: Lsn) -> bool {
        self.exposure.as_ref().is_none_or(|exposure| lsn <= exposure.since())
    }

    /// Whether nothing more may be hidden, because the control plane can keep no more of it.
    pub fn may_hide_no_more(&self) -> bool {
        self.exposure.as_ref().is_some_and(Exposure::is_full)
    }

    /// What this data centre alone acknowledged, under `SingleDc` and once it is known.
    pub fn at_risk<D: Disk>(&self, holding: &Holding<D>) -> Option<ExposureCount> {
        let last = holding.committed();
        let (objects, bytes) = self.exposure.as_ref()?.total(last)?;
        Some(ExposureCount { objects, bytes, last })
    }

    /// Objects that other members still lack in a data centre without a complete one.
    pub fn debt(&self, config: &VolumeConfig) -> u64 {
        let covered: BTreeSet<DcId> = config.in_sync().map(|member| member.dc).collect();
        let owing = self.followers.values().filter(|f| !covered.contains(&f.member.dc));
        owing.filter_map(|f| f.missing).max().map_or(0, u64::from)
    }

    /// Where the epoch's own start stands, or is to stand.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Whether every in-sync member has the whole log up to the epoch's start, payload included: what
    /// was acknowledged before one of them came in sync may not be on it yet.
    pub fn is_prepared(&self) -> bool {
        let mut in_sync = self.followers.values().filter(|f| f.is_in_sync());
        in_sync.all(|follower| follower.durable.next() >= self.start)
    }

    /// Whether the epoch's own start is committed: only now is everything before it known.
    pub fn is_serving<D: Disk>(&self, holding: &Holding<D>) -> bool {
        mutant!(M09, holding.committed() >= self.start, true)
    }

    /// A member says what is durable there; answers how long it took, if that was timed.
    pub fn acknowledged<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        store: StoreId,
        durable: LogPoint,
        committed: Lsn,
        missing: u32,
        now: BootTime,
    ) -> Option<Duration> {
        let follower = self.followers.get_mut(&store)?;
        follower.note_missing(committed, missing);
        if !holding.passes(durable) {
            // Its log parts from this one above its committed point: go back to there.
            follower.go_to(follower.next.min(committed.next()));
            return None;
        }
        follower.heard = true;
        follower.committed = follower.committed.max(committed);
        if durable.lsn > follower.durable {
            follower.durable = durable.lsn;
            follower.progress_at = now;
            follower.gap = None;
        }
        follower.base = follower.base.max(follower.durable);
        follower.next = follower.next.max(follower.base.next());
        let timed = follower.timed.take_if(|(lsn, _)| *lsn <= durable.lsn);
        // One that lacks objects has more to do than others.
        let is_whole = follower.is_in_sync() || follower.missing == Some(0);
        timed.map(|(_, sent)| now.since(sent)).filter(|_| is_whole)
    }

    /// A member's process speaks; a new run of it may have less than the old one said.
    pub fn met(&mut self, store: StoreId, incarnation: Incarnation) {
        if let Some(follower) = self.followers.get_mut(&store)
            && follower.incarnation < incarnation
        {
            if follower.incarnation != Incarnation::default() {
                follower.durable = Lsn::ZERO;
                follower.committed = Lsn::ZERO;
                follower.missing = None;
            }
            follower.incarnation = incarnation;
        }
    }

    /// A store is there and was not told yet of this epoch, or its disk gets on with what came before: it
    /// does not lag.
    pub fn not_yet(&mut self, store: StoreId, now: BootTime) {
        if let Some(follower) = self.followers.get_mut(&store) {
            follower.there_at = now;
        }
    }

    /// A member says that records did not fit behind its log.
    pub fn gap<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        store: StoreId,
        last: LogPoint,
        committed: Lsn,
        now: BootTime,
    ) {
        let Some(follower) = self.followers.get_mut(&store) else { return };
        if follower.gap.is_some_and(|(point, at)| point == last && now.since(at) < GAP_QUIET) {
            return;
        }
        let again = follower.gap.is_some_and(|(point, _)| point == last);
        follower.gap = Some((last, now));
        let next = if holding.passes(last) {
            last.lsn.next()
        } else if again && follower.next <= committed.next() {
            Lsn(follower.next.0.div_ceil(2).max(1))
        } else {
            committed.next().min(holding.last().lsn.next())
        };
        follower.go_to(next);
        follower.resent_at = now;
    }

    /// Whether an in-sync member has everything up to here.
    pub fn has_all(&self, store: StoreId, lsn: Lsn) -> bool {
        let follower = self.followers.get(&store);
        follower.is_some_and(|f| f.is_in_sync() && f.durable >= lsn)
    }

    /// Moves the committed point as far as the rule allows; answers the newly committed records.
    pub fn commit<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        me: &Member,
        now: BootTime,
    ) -> Vec<Record> {
        let own = holding.acknowledgeable(holding.committed());
        let point = mutant!(M02, self.committable(own, config.protection, me), self.best_second(own));
        let point = match &mut self.exposure {
            Some(exposure) => exposure.limit(holding, point),
            None => point,
        };
        if point < self.start || point <= holding.committed() {
            return Vec::new();
        }
        if holding.committed() < self.start && self.followers.values().any(Follower::owes_payload) {
            return Vec::new();
        }
        self.committed_at = now;
        holding.commit(point)
    }

    /// The highest record that every in-sync member has and whose copies satisfy the rule.
    fn committable(&self, own: Lsn, rule: Protection, me: &Member) -> Lsn {
        let counts =
            |f: &&Follower| mutant!(M08, f.is_in_sync(), f.is_in_sync() && f.resent_at <= f.progress_at);
        let in_sync = self.followers.values().filter(counts);
        let everyone = in_sync.map(|f| f.durable).fold(own, Lsn::min);
        let mut candidates: Vec<Lsn> = self.followers.values().map(|f| f.durable.min(everyone)).collect();
        candidates.push(everyone);
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let satisfied = |lsn: &Lsn| {
            let others = self.followers.values().filter(|f| f.durable >= *lsn).map(|f| f.member.dc);
            rule.satisfied_by(others.chain([me.dc]))
        };
        candidates.into_iter().find(satisfied).unwrap_or(Lsn::ZERO)
    }

    #[cfg(feature = "mutants")]
    fn best_second(&self, own: Lsn) -> Lsn {
        self.followers.values().map(|follower| follower.durable.min(own)).max().unwrap_or(Lsn::ZERO)
    }

    /// The durable copies of a record, by the word of the stores that hold it.
    pub fn copies(&self, lsn: Lsn, me: &Member) -> Vec<Copy> {
        // A store that catches up vouches for payload only from this epoch's start on.
        let holds = |f: &&Follower| f.durable >= lsn && (f.is_in_sync() || lsn >= self.start);
        let others = self.followers.values().filter(holds).map(|f| f.member);
        let copy = |member: Member| Copy { node: member.node, dc: member.dc, store: member.store };
        [*me].into_iter().chain(others).map(copy).collect()
    }

    /// How many members hold every committed object, this one included.
    pub fn whole_copies(&self, config: &VolumeConfig) -> usize {
        let own = usize::from(config.owing().is_none());
        own + self.followers.values().filter(|f| f.is_in_sync()).count()
    }

    /// Sends what is to be sent: records, what must be sent again, news of the committed point.
    pub fn replicate<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        claim: Claim,
        cx: &mut Context<'_, D>,
    ) -> Result<(), trefoil_engine::RecordReadError> {
        let last = holding.last().lsn;
        let complete = |dc: DcId| config.in_sync().any(|member| member.dc == dc);
        for follower in self.followers.values_mut() {
            // Nothing is acknowledged without it, so clients wait for whatever it is sent.
            let is_waited_for = config.protection != Protection::SingleDc && !complete(follower.member.dc);
            follower.rewind_if_stuck(last, cx.now);
            follower.put_off_at = None;
            while follower.next <= last && follower.next.0 <= follower.base.0 + WINDOW_RECORDS {
                if follower.is_far_behind(last)
                    && !is_waited_for
                    && !cx.yielding.take(Work::one(MESSAGE_BYTES as u64), claim, cx.now)
                {
                    follower.put_off(cx.now);
                    break;
                }
                let records = batch(holding, follower.next)?;
                follower.send(holding, config, &records, cx);
            }
            if follower.is_due_for_news(holding.committed(), self.committed_at, cx.now) {
                follower.send(holding, config, &[], cx);
            }
        }
        Ok(())
    }

    /// Tells the control plane about members: who lags, who is complete, whether both data centres
    /// hold everything again.
    pub fn report<D: Disk>(&mut self, holding: &Holding<D>, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let (volume, epoch, last) = (config.volume, config.epoch, holding.last().lsn);
        let begun = holding.committed() >= self.start;
        let lags = |f: &Follower| f.is_lagging(last, cx.now) || !begun && f.is_behind_with_payload(cx.now);
        let stores: Vec<StoreId> = self.followers.iter().filter(|(_, f)| lags(f)).map(|(s, _)| *s).collect();
        if !stores.is_empty() && is_due(self.reported_at, REPORT_EVERY, cx.now) {
            self.reported_at = Some(cx.now);
            cx.out.ask(ControlRequest::Lagging { volume, epoch, stores });
        }
        if !self.is_serving(holding) {
            return;
        }
        let complete = self.followers.iter().filter(|(_, f)| f.is_complete(holding.committed()));
        let own = paid_up(holding, config);
        for store in complete.map(|(store, _)| *store).chain(own).collect::<Vec<_>>() {
            if is_due(self.said_complete.get(&store).copied(), REPORT_EVERY, cx.now) {
                self.said_complete.insert(store, cx.now);
                cx.out.ask(ControlRequest::Complete { volume, epoch, store });
            }
        }
        if config.protection == Protection::Restoring && is_due(self.restored_at, REPORT_EVERY, cx.now) {
            self.say_restored(config, cx);
        }
    }

    fn say_restored<D: Disk>(&mut self, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let home = config.member(cx.identity.node).map(|member| member.dc);
        let other = self.followers.values().filter(|f| Some(f.member.dc) != home);
        let in_sync = other.filter(|f| f.is_in_sync());
        let Some(persisted) = in_sync.map(|f| f.durable).max().filter(|lsn| *lsn >= self.start) else {
            return;
        };
        self.restored_at = Some(cx.now);
        let (volume, epoch) = (config.volume, config.epoch);
        let last_single_dc = self.start.previous();
        cx.out.ask(ControlRequest::Restored { volume, epoch, last_single_dc, persisted });
    }

    /// When to look again.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig) -> Option<BootTime> {
        let last = holding.last().lsn;
        let followers = self.followers.values();
        let mut soonest =
            followers.filter_map(|f| f.next_wakeup(last, holding.committed(), self.committed_at)).min();
        let complete = self.followers.iter().filter(|(_, f)| f.is_complete(holding.committed()));
        let own = paid_up(holding, config);
        for store in complete.map(|(store, _)| *store).chain(own) {
            let due = self.said_complete.get(&store).map_or(self.committed_at, |at| *at + REPORT_EVERY);
            soonest = Some(soonest.map_or(due, |at| at.min(due)));
        }
        if let Some(due) = self.exposure.as_ref().and_then(|e| e.next_wakeup(holding.committed())) {
            soonest = Some(soonest.map_or(due, |at| at.min(due)));
        }
        if config.protection == Protection::Restoring {
            let due = self.restored_at.map_or(self.committed_at, |at| at) + REPORT_EVERY;
            soonest = Some(soonest.map_or(due, |at| at.min(due)));
        }
        soonest
    }
}

impl Follower {
    fn is_in_sync(&self) -> bool {
        self.member.state == MemberState::InSync
    }

    /// A word on what it lacks counts for the committed point that it was said at. Acknowledgements
    /// overtake each other: an older one knows of fewer records and must not make the store whole.
    fn note_missing(&mut self, committed: Lsn, missing: u32) {
        match self.missing {
            Some(known) if committed == self.committed => self.missing = Some(known.min(missing)),
            Some(_) if committed < self.committed => {}
            _ => self.missing = Some(missing),
        }
    }

    fn send<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        records: &[Record],
        cx: &mut Context<'_, D>,
    ) {
        let Some(previous) = holding.point(self.next.previous()) else { return };
        let committed = holding.committed();
        let count = u32::try_from(records.len()).expect("a batch is small");
        let bulk = if records.is_empty() { Vec::new() } else { vec![encode_records(records)] };
        let body = PeerBody::Append { previous, committed, count };
        cx.send(config, self.member.node, Lane::Log, body, bulk);
        if self.sent <= self.durable && !records.is_empty() {
            self.progress_at = cx.now;
        }
        self.next = Lsn(self.next.0 + u64::from(count));
        if self.timed.is_none() && self.sent < self.next.previous() {
            self.timed = Some((self.next.previous(), cx.now));
        }
        self.sent = self.sent.max(self.next.previous());
        self.told = committed;
        self.told_at = cx.now;
    }

    fn go_to(&mut self, next: Lsn) {
        self.next = next.max(self.durable.next());
        self.base = self.next.previous();
    }

    fn rewind_if_stuck(&mut self, last: Lsn, now: BootTime) {
        let waiting = self.durable < last && (self.heard || self.next > self.base.next());
        let quiet = self.progress_at.max(self.resent_at);
        if waiting && now.since(quiet) >= RESEND_AFTER {
            // What it has not said to be durable it may have lost, wherever that stands.
            self.base = if self.heard { self.durable } else { self.base };
            self.next = self.base.next();
            self.resent_at = now;
        }
    }

    fn is_due_for_news(&self, committed: Lsn, committed_at: BootTime, now: BootTime) -> bool {
        self.news_due(committed, committed_at).is_some_and(|due| now >= due)
    }

    fn news_due(&self, committed: Lsn, committed_at: BootTime) -> Option<BootTime> {
        if !self.heard {
            Some(self.told_at + HEARTBEAT_EVERY)
        } else if self.told < committed {
            Some(committed_at + COMMIT_NEWS_AFTER)
        } else if self.committed < committed {
            Some(self.told_at + HEARTBEAT_EVERY)
        } else {
            // Room may come back without a word.
            self.short_of_room.then(|| self.told_at + ROOM_ASKED_EVERY)
        }
    }

    fn is_lagging(&self, last: Lsn, now: BootTime) -> bool {
        self.durable < last && self.is_silent(now)
    }

    fn is_silent(&self, now: BootTime) -> bool {
        now.since(self.progress_at.max(self.there_at)) >= LAGGING_AFTER
    }

    /// Whether it was called complete before the payload of the last records of that epoch reached it:
    /// an epoch in which it is in sync begins when it has that too.
    fn owes_payload(&self) -> bool {
        self.is_in_sync() && self.missing.is_some_and(|missing| missing > 0)
    }

    fn is_behind_with_payload(&self, now: BootTime) -> bool {
        self.owes_payload() && self.is_silent(now)
    }

    /// Whether what it is sent next is so old that nobody waits for it.
    fn is_far_behind(&self, last: Lsn) -> bool {
        self.member.state == MemberState::CatchingUp && self.next.0 + WINDOW_RECORDS < last.0
    }

    /// It makes no progress because it is sent nothing: that is not its fault.
    fn put_off(&mut self, now: BootTime) {
        self.put_off_at = Some(now);
        if self.next == self.durable.next() {
            self.progress_at = now;
        }
    }

    fn is_complete(&self, committed: Lsn) -> bool {
        self.member.state == MemberState::CatchingUp && self.missing == Some(0) && self.committed >= committed
    }

    fn next_wakeup(&self, last: Lsn, committed: Lsn, committed_at: BootTime) -> Option<BootTime> {
        let resend = (self.durable < last).then(|| self.progress_at.max(self.resent_at) + RESEND_AFTER);
        let again = self.put_off_at.map(|at| at + yielding::AGAIN_AFTER);
        resend.into_iter().chain(again).chain(self.news_due(committed, committed_at)).min()
    }
}

/// This store, if it led although it lacked payload and lacks none any more.
fn paid_up<D: Disk>(holding: &Holding<D>, config: &VolumeConfig) -> Option<StoreId> {
    let whole = holding.missing_below(holding.committed().next()) == 0 && holding.hole().is_none();
    config.owing().filter(|_| whole).map(|member| member.store)
}

fn batch<D: Disk>(holding: &Holding<D>, first: Lsn) -> Result<Vec<Record>, trefoil_engine::RecordReadError> {
    let (mut records, mut bytes, mut lsn) = (Vec::new(), 0, first);
    while lsn <= holding.last().lsn && bytes < MESSAGE_BYTES && (records.len() as u64) < WINDOW_RECORDS {
        let record = holding.record_to_send(lsn)?;
        bytes += record.lengths().total();
        records.push(record);
        lsn = lsn.next();
    }
    Ok(records)
}

/// Whether something done last at `last` is due again.
pub(super) fn is_due(last: Option<BootTime>, every: Duration, now: BootTime) -> bool {
    last.is_none_or(|last| now.since(last) >= every)
}
