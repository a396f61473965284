//! A member that follows a primary: it takes the primary's records behind what it shares with them,
//! cuts only what differs, and acknowledges what is under a finished sync, payload included.
//!
//! It never cuts at or below its committed point, and it never acknowledges for anybody else.

use std::time::Duration;

use trefoil_engine::{Disk, StageError};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Hash, Lsn, NodeId};
use trefoil_protocol::message::peer::{LogPoint, PeerBody};
use trefoil_protocol::record::Record;
use trefoil_protocol::time::BootTime;

use super::holding::Holding;
use super::primary::is_due;
use crate::outbox::Context;

/// A primary that says nothing is asked for a word this often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Why records were not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The log here does not pass through the point the records stand behind.
    #[error("the log here does not reach or does not pass through record {0}")]
    Gap(Lsn),
    /// A committed record here differs from the primary's: one of two logs lost its history.
    #[error("record {lsn} is committed here as {here} and differs from the one sent")]
    CommittedDiffers {
        /// The record.
        lsn: Lsn,
        /// The chain hash here.
        here: Hash,
    },
    /// The records do not follow each other.
    #[error("the records sent are no log: {0}")]
    NoLog(&'static str),
    /// They could not be written.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Takes `records` over behind `previous`, cutting what differs from them, and answers up to where
/// the log here is now shared with the sender's. Used by members and by a primary that peers.
pub(super) fn follow<D: Disk>(
    holding: &mut Holding<D>,
    previous: LogPoint,
    records: Vec<Record>,
    now: BootTime,
) -> Result<Lsn, FollowError> {
    check_sequence(previous, &records)?;
    if !holding.passes(previous) {
        return match holding.point(previous.lsn) {
            Some(here) if previous.lsn <= holding.committed() => {
                Err(FollowError::CommittedDiffers { lsn: previous.lsn, here: here.hash })
            }
            _ => Err(FollowError::Gap(previous.lsn)),
        };
    }
    let shared = records.last().map_or(previous.lsn, Record::lsn);
    for record in records {
        take_over(holding, record, now)?;
    }
    Ok(shared)
}

/// Puts another store's copies in the place of damaged records; everything else stays as it is.
pub(super) fn mend<D: Disk>(
    holding: &mut Holding<D>,
    records: Vec<Record>,
    now: BootTime,
) -> Result<(), FollowError> {
    for record in records {
        let same = holding.point(record.lsn()).is_some_and(|here| here.hash == record.chain_hash());
        // Of several damaged records in a row, the one before may not be known by its hash.
        let fits = holding
            .point(record.lsn().previous())
            .is_some_and(|before| before.hash == record.position().previous);
        if same && fits && holding.log().faulty().contains_key(&record.lsn()) {
            holding.append(record, now)?;
        }
    }
    Ok(())
}

fn take_over<D: Disk>(holding: &mut Holding<D>, record: Record, now: BootTime) -> Result<(), FollowError> {
    let lsn = record.lsn();
    let damaged = holding.log().faulty().contains_key(&lsn);
    match holding.point(lsn) {
        Some(here) if here.hash == record.chain_hash() => {
            return if damaged { Ok(holding.append(record, now)?) } else { Ok(()) };
        }
        Some(here) if lsn <= holding.committed() => {
            return Err(FollowError::CommittedDiffers { lsn, here: here.hash });
        }
        Some(_) => holding.cut_after(lsn.previous())?,
        None => {}
    }
    Ok(holding.append(record, now)?)
}

fn check_sequence(previous: LogPoint, records: &[Record]) -> Result<(), FollowError> {
    let mut before = previous;
    for record in records {
        if record.lsn() != before.lsn.next() {
            return Err(FollowError::NoLog("positions do not follow each other"));
        }
        if record.position().previous != before.hash {
            return Err(FollowError::NoLog("hashes do not follow each other"));
        }
        if record.epoch() < before.epoch {
            return Err(FollowError::NoLog("epochs go back"));
        }
        before = LogPoint { epoch: record.epoch(), lsn: record.lsn(), hash: record.chain_hash() };
    }
    Ok(())
}

/// What a member owes its primary.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Up to where the log here is known to be the primary's.
    shared: Lsn,
    /// The committed point the primary told, if it was heard.
    told: Option<Lsn>,
    acknowledged: Option<Acknowledged>,
    /// The primary asked for a sign of life, or may not have heard the last answer.
    answer_due: bool,
    /// The primary peers and was not told yet where this store is.
    report_due: bool,
    /// When the primary was last asked for a word.
    asked_at: Option<BootTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acknowledged {
    durable: Lsn,
    committed: Lsn,
    missing: u32,
}

impl Member {
    /// A primary begins to peer: what was shared with an earlier run of it counts no more.
    pub fn begin_again(&mut self) {
        self.shared = Lsn::ZERO;
        self.acknowledged = None;
        self.report_due = true;
    }

    /// Records from the primary.
    pub fn append<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        previous: LogPoint,
        committed: Lsn,
        records: Vec<Record>,
        cx: &mut Context<'_, D>,
    ) -> Result<(), FollowError> {
        let heartbeat = records.is_empty();
        match follow(holding, previous, records, cx.now) {
            Ok(shared) => {
                self.shared = self.shared.max(shared);
                self.told = self.told.max(Some(committed));
                self.answer_due |= heartbeat || holding.log().durable_lsn() >= shared;
                Ok(())
            }
            Err(FollowError::Gap(_)) => {
                let gap = PeerBody::Gap { last: holding.last(), committed: holding.committed() };
                if holding.has_promised(config.epoch)
                    && let Some(primary) = config.primary
                {
                    cx.tell(config, primary, gap);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What the primary sent did not fit on the disk: it must hear so.
    pub fn had_no_room(&mut self) {
        self.answer_due = true;
    }

    /// A primary that has nothing new to say may not know that this process began anew, with a log that
    /// ends in doubt or that is not known to be committed to its end.
    fn ask_for_a_word<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        primary: NodeId,
        cx: &mut Context<'_, D>,
    ) {
        if self.shared == Lsn::ZERO && is_due(self.asked_at, ASK_EVERY, cx.now) {
            self.asked_at = Some(cx.now);
            let (last, committed) = (holding.last(), holding.committed());
            cx.tell(config, primary, PeerBody::Gap { last, committed });
        }
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        self.asked_at.filter(|_| self.shared == Lsn::ZERO).map(|at| at + ASK_EVERY)
    }

    /// Applies what is committed and durable, and tells the primary what is new.
    pub fn settle<D: Disk>(
        &mut self,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        let told = self.told.unwrap_or(Lsn::ZERO);
        let committed = told.min(self.shared).min(holding.log().durable_lsn());
        holding.commit(committed);
        let has_all = self.told.is_some_and(|told| told <= self.shared) && self.shared == holding.last().lsn;
        if !holding.is_verified() && has_all && holding.hole().is_none() {
            // Compared with the primary's log, and nothing that was acknowledged is missing: the end of this one is
            // no longer in doubt.
            if let Err(error) = holding.settle() {
                return cx.out.fail_store(error);
            }
        }
        let Some(primary) = config.primary.filter(|_| holding.has_promised(config.epoch)) else { return };
        if std::mem::take(&mut self.report_due) {
            cx.tell(config, primary, PeerBody::Report(holding.report()));
        }
        self.ask_for_a_word(holding, config, primary, cx);
        let durable = holding.acknowledgeable(told).min(self.shared);
        let missing = holding.missing_below(holding.committed().next());
        let state = Acknowledged { durable, committed: holding.committed(), missing };
        let nothing_shared = self.shared == Lsn::ZERO && !self.answer_due;
        if nothing_shared || (self.acknowledged == Some(state) && !self.answer_due) {
            return;
        }
        let Some(point) = holding.point(durable) else { return };
        self.acknowledged = Some(state);
        self.answer_due = false;
        let short_of_room = match holding.log().may_grow() {
            Ok(may_grow) => !may_grow,
            Err(error) => return cx.out.fail_store(error),
        };
        let (committed, missing_uploads) = (state.committed, missing);
        let acknowledged = PeerBody::DurableAck { durable: point, committed, missing_uploads, short_of_room };
        cx.tell(config, primary, acknowledged);
    }
}
