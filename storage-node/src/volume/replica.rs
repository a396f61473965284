//! One volume on this store: which role it has under the present configuration, and what its
//! protocols do after each event. It routes; it decides nothing itself.
//!
//! It answers nobody at an epoch whose promise is not durable, and listens to nobody of a lower one.

use std::sync::Arc;

use bytes::Bytes;
use trefoil_engine::{
    Disk, EraseError, EraseReport, ReadError, RecordReadError, Scrubbed, StageError, SyncError, SyncTicket,
};
use trefoil_protocol::config::{Member as Membership, VolumeConfig};
use trefoil_protocol::deletion::SignedEraseReceipt;
use trefoil_protocol::ids::{Epoch, Incarnation, Lsn, StoreId, UploadId, VolumeId};
use trefoil_protocol::message::control::{ControlAnswer, StopCause, StoppedVolume};
use trefoil_protocol::message::peer::{LogPoint, PeerBody};
use trefoil_protocol::message::tenant::Refusal;
use trefoil_protocol::mutant;
use trefoil_protocol::record::{Record, RecordBody};
use trefoil_protocol::time::{BootTime, CpTime};

use super::arrears::Arrears;
use super::backfill::Backfill;
use super::by_store::ByStore;
use super::erasing::Erasing;
use super::handover::Handover;
use super::holding::Holding;
use super::member::{FollowError, Member, mend};
use super::mending::Mending;
use super::mutations::Mutations;
use super::orphans::{Orphans, is_settled};
use super::peering::{Peering, Progress};
use super::primary::Primary;
use super::purge::Purges;
use super::reads::Reads;
use super::replaying::Replaying;
use super::rotation::{Rotation, wanted_at};
use super::telling::Telling;
use super::turns::Turns;
use super::uploads::Uploads;
use crate::effect::{Effect, Notice};
use crate::event::{ControlTicket, ReadTicket};
use crate::outbox::Context;
use crate::pace::Pace;
use crate::work_queue::Place;
use crate::yielding::Claim;

/// Why a volume is stopped on a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Nobody has a copy of a record that may have been acknowledged. It goes on when one turns up.
    #[error(
        "volume {volume} is stopped in epoch {epoch}: record {lsn} is damaged on every store that answers; \
         start a store that has it, or restore one"
    )]
    Lost {
        /// The volume.
        volume: VolumeId,
        /// The epoch that cannot begin, or go on, without it.
        epoch: Epoch,
        /// The record.
        lsn: Lsn,
    },
    /// Two stores know different committed records at one position: one of them lost its history.
    #[error("volume {volume} is stopped in epoch {epoch} on this store: {reason}")]
    Differs {
        /// The volume.
        volume: VolumeId,
        /// The epoch.
        epoch: Epoch,
        /// Which record.
        reason: FollowError,
    },
}

impl Stop {
    /// As the control plane is told.
    pub fn told(&self) -> StoppedVolume {
        match self {
            Self::Lost { volume, epoch, lsn } => {
                StoppedVolume { volume: *volume, epoch: *epoch, cause: StopCause::Lost, lsn: Some(*lsn) }
            }
            Self::Differs { volume, epoch, reason } => {
                let lsn = match reason {
                    FollowError::CommittedDiffers { lsn, .. } => Some(*lsn),
                    _ => None,
                };
                StoppedVolume { volume: *volume, epoch: *epoch, cause: StopCause::Differs, lsn }
            }
        }
    }
}

/// What this store does for the volume.
#[derive(Debug)]
pub(super) enum Role {
    /// No member under the present configuration.
    Absent,
    /// Follows the primary.
    Member(Member),
    /// Begins an epoch as its primary.
    Peering(Box<Peering>),
    /// Orders writes.
    Primary(Box<Primary>),
    /// Met something that must not be: it takes part in nothing until somebody has looked.
    Stopped(Box<Stop>),
}

impl Role {
    /// The primary's counts of its members, also while it prepares its epoch.
    pub(super) fn counting(&mut self) -> Option<&mut Primary> {
        match self {
            Self::Primary(primary) => Some(primary),
            Self::Peering(peering) => peering.preparing(),
            _ => None,
        }
    }
}

/// One volume on this store.
#[derive(Debug)]
pub struct Replica<D: Disk> {
    pub(super) config: Arc<VolumeConfig>,
    pub(super) holding: Holding<D>,
    pub(super) role: Role,
    pub(super) mutations: Mutations,
    pub(super) uploads: Uploads,
    pub(super) reads: Reads,
    pub(super) backfill: Backfill,
    arrears: Arrears,
    pub(super) purges: Purges,
    pub(super) erasing: Erasing,
    pub(super) orphans: Orphans,
    pub(super) rotation: Rotation,
    pub(super) turns: Turns,
    pub(super) replaying: Replaying,
    /// The control plane wants another primary, and this is how far it is.
    pub(super) handover: Option<Box<Handover>>,
    /// The latest run of each store that spoke: what an earlier run said is void.
    pub(super) runs: ByStore<Incarnation>,
    /// A primary in doubt asked where this store is, which is no member.
    pub(super) testimony_due: bool,
    pub(super) mending: Mending,
    /// Records that somebody here waits for and that were found to be committed while an epoch began: answered when it
    /// has begun.
    pub(super) found_committed: Vec<Record>,
    /// The volume went on without this store, which tells what it has alone.
    pub(super) telling: Option<Box<Telling>>,
}

impl<D: Disk> Replica<D> {
    /// A volume as it was opened, before its configuration is known to be current.
    pub fn new(config: Arc<VolumeConfig>, holding: Holding<D>) -> Self {
        Self {
            config,
            holding,
            role: Role::Absent,
            mutations: Mutations::default(),
            uploads: Uploads::default(),
            reads: Reads::default(),
            backfill: Backfill::default(),
            arrears: Arrears::default(),
            purges: Purges::default(),
            erasing: Erasing::default(),
            orphans: Orphans::default(),
            rotation: Rotation::default(),
            turns: Turns::default(),
            replaying: Replaying::default(),
            handover: None,
            runs: ByStore::default(),
            testimony_due: false,
            mending: Mending::default(),
            found_committed: Vec::new(),
            telling: None,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &VolumeConfig {
        &self.config
    }

    /// What this store holds of the volume.
    pub fn holding(&self) -> &Holding<D> {
        &self.holding
    }

    /// Whether the volume is stopped on this store.
    pub fn is_stopped(&self) -> bool {
        match &self.role {
            Role::Stopped(_) => true,
            Role::Peering(_) => self.mending.lost().is_some(),
            _ => false,
        }
    }

    /// Why the volume is stopped on this store, if it is.
    pub fn stopped(&self) -> Option<Stop> {
        let (volume, epoch) = (self.config.volume, self.config.epoch);
        match &self.role {
            Role::Stopped(stop) => Some(Stop::clone(stop)),
            Role::Peering(_) => self.mending.lost().map(|lsn| Stop::Lost { volume, epoch, lsn }),
            _ => None,
        }
    }

    /// Whether this store is the volume's primary and serves: its epoch has begun, and nothing is left
    /// to be replayed.
    pub fn is_serving(&self) -> bool {
        let begun = matches!(&self.role, Role::Primary(primary) if primary.is_serving(&self.holding));
        begun && !self.config.replays
    }

    /// The epoch's state, if this store is the primary and the epoch has begun.
    pub fn primary(&self) -> Option<&Primary> {
        match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// How many members hold everything, if this store is the primary.
    pub fn whole_copies(&self) -> Option<usize> {
        match &self.role {
            Role::Primary(primary) => Some(primary.whole_copies(&self.config)),
            _ => None,
        }
    }

    pub(super) fn me(&self, cx: &Context<'_, D>) -> Option<Membership> {
        self.config.member_of_store(cx.identity.store).copied()
    }

    /// Takes a configuration over and changes roles accordingly.
    pub fn configure(&mut self, config: Arc<VolumeConfig>, cx: &mut Context<'_, D>) {
        let new_epoch = config.epoch > self.config.epoch || matches!(self.role, Role::Absent);
        self.config = config;
        if matches!(self.role, Role::Stopped(_)) {
            return self.refuse_everybody(cx);
        }
        if new_epoch {
            self.change_role(cx);
        }
        self.arrears.follow(&self.config, cx.now);
        self.settle(cx);
    }

    fn change_role(&mut self, cx: &mut Context<'_, D>) {
        self.turns = Turns::default();
        self.mending = Mending::default();
        self.found_committed.clear();
        self.handover = None;
        let Some(me) = self.me(cx) else {
            self.role = Role::Absent;
            return self.refuse_everybody(cx);
        };
        if let Err(error) = self.promise(cx) {
            return cx.out.fail_store(error);
        }
        let may_lead = mutant!(M07, me.state.is_required(), true);
        if self.config.primary == Some(cx.identity.node) && may_lead {
            self.role = Role::Peering(Box::default());
        } else {
            self.role = Role::Member(Member::default());
            self.refuse_everybody(cx);
        }
    }

    /// Stages the promise of the present epoch. It is flushed once the flush under way has ended.
    pub(super) fn promise(&mut self, cx: &mut Context<'_, D>) -> Result<(), StageError> {
        if self.config.epoch > self.holding.promised() && !self.holding.log().is_at_rest() {
            cx.out.push(Effect::Hurry { volume: self.config.volume });
        }
        self.holding.promise(&self.config)
    }

    /// The control plane whose configuration this is counts no more.
    pub fn stand_down(&mut self, cx: &mut Context<'_, D>) {
        self.handover = None;
        if !matches!(self.role, Role::Stopped(_)) {
            self.role = Role::Absent;
        }
        self.refuse_everybody(cx);
    }

    fn refuse_everybody(&mut self, cx: &mut Context<'_, D>) {
        self.refuse_everybody_with(&self.not_primary(), cx);
    }

    fn refuse_everybody_with(&mut self, refusal: &Refusal, cx: &mut Context<'_, D>) {
        self.mutations.abandon(refusal, cx);
        self.uploads.abandon(refusal, cx);
        self.purges = Purges::default();
    }

    pub(super) fn not_primary(&self) -> Refusal {
        Refusal::NotPrimary { epoch: self.config.epoch, primary: self.config.primary }
    }

    /// Two committed histories differ: takes part in nothing any more.
    pub(super) fn stop(&mut self, reason: FollowError, cx: &mut Context<'_, D>) {
        let stop = Stop::Differs { volume: self.config.volume, epoch: self.config.epoch, reason };
        cx.out.push(Effect::Notice(Notice::Stopped(stop.clone())));
        self.role = Role::Stopped(Box::new(stop));
        self.refuse_everybody(cx);
    }

    /// A sync ended.
    pub fn synced(&mut self, ticket: SyncTicket, result: &Result<(), SyncError>, cx: &mut Context<'_, D>) {
        self.holding.synced(ticket, result);
        match result {
            Ok(()) => self.settle(cx),
            Err(error) => cx.out.fail_store(error),
        }
    }

    /// A read ended.
    pub fn read(
        &mut self,
        ticket: ReadTicket,
        result: Result<Vec<Bytes>, ReadError>,
        cx: &mut Context<'_, D>,
    ) {
        if !self.backfill.read(ticket, &result, &self.holding, &self.config, cx) {
            self.reads.read(ticket, result, &mut self.holding, &self.config, cx);
        }
        self.settle(cx);
    }

    /// The turn of a read came when nobody listened any more.
    pub(crate) fn read_late(&mut self, ticket: ReadTicket, cx: &mut Context<'_, D>) {
        if !self.backfill.read_late(ticket) {
            self.reads.read_late(ticket, cx);
        }
    }

    /// With what right this volume's backfill has a part of the disk.
    pub(super) fn claim(&self, now: BootTime) -> Claim {
        self.arrears.claim(self.holding.index().statistics().live.bytes, now)
    }

    /// Lets every protocol do what can be done now, until nothing changes.
    pub fn settle(&mut self, cx: &mut Context<'_, D>) {
        if matches!(self.role, Role::Absent | Role::Stopped(_)) {
            if let Some(primary) = self.config.primary
                && self.testimony_due
                && self.holding.has_promised(self.config.epoch)
            {
                self.testimony_due = false;
                cx.tell(&self.config, primary, PeerBody::Report(self.holding.report()));
            }
            return self.sync(cx);
        }
        self.settle_orphans(cx);
        self.settle_rotation(cx);
        self.settle_erasing(cx);
        let others = self.sources(cx);
        self.backfill.fetch(&self.holding, &self.config, others, self.claim(cx.now), cx);
        if self.may_mend() {
            self.mend(cx);
        }
        match &mut self.role {
            Role::Member(member) => member.settle(&mut self.holding, &self.config, cx),
            Role::Peering(_) => self.settle_peering(cx),
            Role::Primary(_) => self.settle_primary(cx),
            Role::Absent | Role::Stopped(_) => {}
        }
        self.sync(cx);
    }

    fn settle_orphans(&mut self, cx: &mut Context<'_, D>) {
        let uploads = self.orphans.look(&mut self.holding, cx);
        match &self.role {
            Role::Member(_) => Orphans::tell(uploads, &self.config, cx),
            Role::Primary(_) => self.void(uploads, cx),
            _ => {}
        }
    }

    /// Commits that no record will ever refer to these uploads, unless one does or one is arriving.
    pub(super) fn void(&mut self, uploads: Vec<UploadId>, cx: &mut Context<'_, D>) {
        if !self.is_serving() {
            return;
        }
        for upload in uploads {
            if is_settled(&self.holding, upload) || self.uploads.is_arriving(upload) {
                continue;
            }
            if let Some((mutations, mut desk)) = self.desk(cx) {
                mutations.append_own(RecordBody::UploadVoid { upload }, Vec::new(), &mut desk, cx);
            }
        }
    }

    /// Receipts of this store go to the primary, which may be this very node.
    fn settle_erasing(&mut self, cx: &mut Context<'_, D>) {
        let receipts = self.erasing.settle(&self.holding, &self.config, cx);
        if receipts.is_empty() {
            return;
        }
        if matches!(self.role, Role::Primary(_)) {
            self.take_receipts(receipts, cx);
        } else if let Some(primary) = self.config.primary {
            cx.tell(&self.config, primary, PeerBody::Erased { receipts });
        }
    }

    pub(super) fn take_receipts(&mut self, receipts: Vec<SignedEraseReceipt>, cx: &mut Context<'_, D>) {
        let mut purges = std::mem::take(&mut self.purges);
        if let Some((_, desk)) = self.desk(cx) {
            purges.receipts(receipts, &desk, cx);
        }
        self.purges = purges;
    }

    /// An erase job ended.
    pub fn erased(&mut self, result: &Result<EraseReport, EraseError>, cx: &mut Context<'_, D>) {
        self.erasing.erased(result, &mut self.holding, cx);
        self.settle(cx);
    }

    /// When, by the control plane's time, time alone makes something due: at the primary a window that is
    /// over, at any store wrapped keys that have ridden long enough.
    pub fn due_at(&self, pace: &Pace) -> Option<CpTime> {
        let purge = self.holding.index().first_due().filter(|_| self.is_serving() && !self.owes());
        purge.into_iter().chain(wanted_at(&self.holding, pace)).min()
    }

    fn sync(&mut self, cx: &mut Context<'_, D>) {
        if let Some(job) = self.holding.sync_job() {
            let place = if self.is_epoch_waiting(cx) { Place::First } else { Place::Behind };
            cx.out.push(Effect::Sync { volume: self.config.volume, job, place });
        }
    }

    /// Whether the epoch cannot begin before what is staged here is durable.
    fn is_epoch_waiting(&self, cx: &Context<'_, D>) -> bool {
        if !self.holding.has_promised(self.config.epoch) {
            return true;
        }
        let begun = self.holding.point(self.holding.committed()).map(|point| point.epoch);
        let is_needed = |me: Membership| {
            me.state.is_required() || !self.config.required().any(|member| member.dc == me.dc)
        };
        begun < Some(self.config.epoch) && self.me(cx).is_some_and(is_needed)
    }

    fn settle_peering(&mut self, cx: &mut Context<'_, D>) {
        let Role::Peering(peering) = &mut self.role else { return };
        let (before, committed) = (self.holding.last(), self.holding.committed());
        let progress = peering.advance(&mut self.holding, &self.config, cx);
        self.note_found(committed);
        if !self.holding.passes(before) {
            self.mutations.cut(self.holding.last().lsn, cx);
        }
        match progress {
            Ok(Progress::Ready) if self.config.activated => self.begin_epoch(cx),
            Ok(_) => {}
            Err(error) => cx.out.fail_store(error),
        }
    }

    /// The epoch is activated and the log is chosen: everything in it gets this epoch's commit.
    fn begin_epoch(&mut self, cx: &mut Context<'_, D>) {
        let Some(me) = self.me(cx) else { return };
        let Role::Peering(peering) = &mut self.role else { return };
        let Some(prepared) = peering.preparing().cloned() else { return };
        assert!(
            prepared.start() == self.holding.last().lsn.next(),
            "the members were brought up to this log"
        );
        let peering = std::mem::replace(&mut self.role, Role::Primary(Box::new(prepared)));
        self.replaying = Replaying::default();
        let body = RecordBody::EpochStart { primary: me.node, protection: self.config.protection };
        let appended = match self.desk(cx) {
            Some((mutations, mut desk)) => mutations.append_own(body, Vec::new(), &mut desk, cx),
            None => None,
        };
        if appended.is_none() {
            // A full disk takes no record now; the epoch begins when there is room again.
            self.role = peering;
            return;
        }
        self.settle_primary(cx);
    }

    fn settle_primary(&mut self, cx: &mut Context<'_, D>) {
        let Some(me) = self.me(cx) else { return };
        loop {
            let Role::Primary(primary) = &mut self.role else { return };
            let records = primary.commit(&mut self.holding, &self.config, &me, cx.now);
            if records.is_empty() {
                break;
            }
            let found = std::mem::take(&mut self.found_committed);
            let records: Vec<Record> = found.into_iter().chain(records).collect();
            if let Some((mutations, mut desk)) = self.desk(cx) {
                mutations.committed(&records, &mut desk, cx);
            }
        }
        self.replay(cx);
        self.drive_purges(cx);
        self.settle_exposure(cx);
        self.follow_handover(cx.now);
        self.settle_handover(cx);
        let claim = self.claim(cx.now);
        let Role::Primary(primary) = &mut self.role else { return };
        let replicated = primary.replicate(&self.holding, &self.config, claim, cx);
        primary.report(&self.holding, &self.config, cx);
        match replicated {
            Ok(()) | Err(RecordReadError::Absent { .. }) => {}
            Err(RecordReadError::Faulty { lsn, fault }) => {
                self.holding.record_is_damaged(lsn, fault);
                self.mend(cx);
            }
            Err(RecordReadError::Disk(error)) => cx.out.fail_store(error),
        }
    }

    /// Hides and brings back what stores did that were given up.
    fn replay(&mut self, cx: &mut Context<'_, D>) {
        if !self.config.replays {
            return;
        }
        let mut replaying = std::mem::take(&mut self.replaying);
        if let Some((mutations, mut desk)) = self.desk(cx) {
            replaying.settle(mutations, &mut desk, cx);
        }
        self.replaying = replaying;
    }

    /// Tells the control plane what only this data centre holds, and answers what waited for that.
    fn settle_exposure(&mut self, cx: &mut Context<'_, D>) {
        let Role::Primary(primary) = &mut self.role else { return };
        self.mutations.release(primary, &self.holding, cx);
        let Some(exposure) = primary.exposure() else { return };
        if self.mutations.holds_answers() {
            exposure.press();
        }
        exposure.settle(&self.holding, &self.config, cx);
    }

    /// Whether others may be asked for copies of what is damaged here.
    fn may_mend(&self) -> bool {
        let takes_part = matches!(self.role, Role::Member(_) | Role::Peering(_) | Role::Primary(_));
        takes_part && self.holding.has_promised(self.config.epoch)
    }

    /// A record is damaged here: somebody has a good copy, or the volume stops.
    fn mend(&mut self, cx: &mut Context<'_, D>) {
        let lost = self.mending.ask(&self.holding, &self.config, cx);
        if lost.is_some() && self.config.primary == Some(cx.identity.node) {
            self.stop_for_want_of_a_record(cx);
        }
    }

    /// Nobody has a record that may have been acknowledged: no epoch goes on without it. The epoch
    /// begins again when a copy turns up.
    fn stop_for_want_of_a_record(&mut self, cx: &mut Context<'_, D>) {
        if matches!(self.role, Role::Primary(_)) {
            self.role = Role::Peering(Box::default());
            self.refuse_everybody_with(&Refusal::Unavailable, cx);
        }
        let stopped = self.stopped();
        if let (Role::Peering(peering), Some(stop)) = (&mut self.role, stopped) {
            peering.fetch_slowly();
            cx.out.push(Effect::Notice(Notice::Stopped(stop)));
        }
    }

    /// Copies of damaged records arrived, or word that there are none.
    pub(super) fn mended(
        &mut self,
        store: StoreId,
        after: LogPoint,
        records: Vec<Record>,
        cx: &mut Context<'_, D>,
    ) {
        self.mending.answered(store, after, &records);
        let outcome = mend(&mut self.holding, records, cx.now);
        self.followed(outcome, cx);
    }

    /// A stretch of the log was read; how much damage was found.
    pub fn scrubbed(&mut self, scrubbed: &Scrubbed, cx: &mut Context<'_, D>) -> u64 {
        let found = self.holding.scrubbed(scrubbed, cx.now);
        let faults = found.unwrap_or_else(|error| {
            cx.out.fail_store(error);
            0
        });
        if faults > 0 {
            let volume = self.config.volume;
            cx.out.push(Effect::Notice(Notice::Damaged { volume, faults }));
            self.settle(cx);
        }
        faults as u64
    }

    /// The volume went on without this store: it tells what it has alone, or goes on telling.
    pub fn tell_apart(&mut self, cx: &mut Context<'_, D>) {
        if matches!(self.role, Role::Absent) {
            let before = self.telling.take().filter(|telling| !telling.is_over());
            let telling =
                self.telling.insert(before.unwrap_or_else(|| Box::new(Telling::begin(&self.holding))));
            telling.settle(&self.holding, &self.config, cx);
        }
    }

    /// The control plane answered something that this volume asked.
    pub fn control(&mut self, ticket: ControlTicket, answer: ControlAnswer, cx: &mut Context<'_, D>) {
        if let Some(telling) = &mut self.telling
            && telling.answered(ticket, &answer, &self.holding, &self.config, cx)
        {
            return;
        }
        let of_exposure = match &mut self.role {
            Role::Primary(primary) => {
                primary.exposure().is_some_and(|exposure| exposure.answered(ticket, &answer))
            }
            _ => false,
        };
        if !of_exposure && !self.replaying.answered(ticket, &answer) {
            self.purges.answered(ticket, answer);
        }
        self.settle(cx);
    }

    /// What this store holds, given back.
    pub fn into_holding(self) -> Holding<D> {
        self.holding
    }

    fn drive_purges(&mut self, cx: &mut Context<'_, D>) {
        // What is not here yet may be the copy that is to be kept.
        if !self.is_serving() || self.owes() {
            return;
        }
        let mut purges = std::mem::take(&mut self.purges);
        let own = match self.desk(cx) {
            Some((mutations, mut desk)) => purges.settle(mutations, &mut desk, cx),
            None => Vec::new(),
        };
        self.purges = purges;
        for erase in own {
            let (order, items) = (&erase.order, &erase.items);
            if self.erasing.order(order, items, &mut self.holding, &self.config, cx).is_ok() {
                self.settle_erasing(cx);
            }
        }
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let role = match &self.role {
            Role::Absent | Role::Stopped(_) => return None,
            Role::Member(member) => member.next_wakeup(),
            Role::Peering(peering) => peering.next_wakeup(&self.holding, &self.config),
            Role::Primary(primary) => primary.next_wakeup(&self.holding, &self.config),
        };
        let purges = self.purges.next_wakeup().filter(|_| self.is_serving() && !self.owes());
        let erasing = self.erasing.next_wakeup(&self.holding);
        let orphans = self.orphans.next_wakeup(&self.holding);
        let turns = self.turns.next_wakeup();
        let leads = matches!(self.role, Role::Primary(_));
        let replaying = self.replaying.next_wakeup().filter(|_| leads && self.config.replays);
        role.into_iter()
            .chain(erasing)
            .chain(orphans)
            .chain(self.rotation.next_wakeup(&self.holding))
            .chain(turns)
            .chain(replaying)
            .chain(self.mending.next_wakeup().filter(|_| self.may_mend()))
            .chain(self.backfill.next_wakeup(&self.holding))
            .chain(purges)
            .chain(self.handover_wakeup())
            .min()
    }
}
