//! What one data centre alone holds: under `SingleDc` the primary tells the control plane what it
//! acknowledges, so that the loss of its data centre is never worse than what was committed before.
//!
//! Nothing is committed here beyond the bound that the control plane knows, and no delete or undelete
//! is answered before the control plane has it too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_engine::index::VersionState;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Lsn, VersionId};
use trefoil_protocol::message::control::{
    AT_RISK_BYTES, AT_RISK_RECORDS, ControlAnswer, ControlRequest, NOTE_CHANGES_MAX, Note, Noted, Visibility,
    VisibilityChange,
};
use trefoil_protocol::record::{Record, RecordBody};
use trefoil_protocol::time::BootTime;

use super::holding::Holding;
use super::primary::is_due;
use crate::event::ControlTicket;
use crate::outbox::Context;

/// How often the control plane is asked the same thing.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Without a reason to hurry, what happened is noted this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// A note that stands until it is answered.
#[derive(Clone, Debug)]
struct Question {
    ticket: ControlTicket,
    note: Note,
    at: BootTime,
}

/// One `SingleDc` epoch's account with the control plane.
#[derive(Clone, Debug, Default)]
pub struct Exposure {
    noted: Option<Noted>,
    question: Option<Question>,
    asked_at: Option<BootTime>,
    /// The sizes of objects put behind the noted point, up to `weighed`.
    puts: VecDeque<(Lsn, u64)>,
    weighed: Lsn,
    /// Somebody waits for more than is noted.
    pressed: bool,
    /// The last answer was a refusal: no hurry.
    refused: bool,
}

impl Exposure {
    /// Up to where the control plane knows everything.
    pub fn noted(&self) -> Lsn {
        self.noted.map_or(Lsn::ZERO, |noted| noted.up_to)
    }

    /// Up to where both data centres hold everything; zero before it is known.
    pub fn since(&self) -> Lsn {
        self.noted.map_or(Lsn::ZERO, |noted| noted.since)
    }

    /// Whether the control plane can keep no more deletes of this volume.
    pub fn is_full(&self) -> bool {
        self.noted.is_some_and(|noted| noted.full)
    }

    /// Objects and bytes that this data centre alone acknowledged; `None` before they are known.
    pub fn total(&self, committed: Lsn) -> Option<(u64, u64)> {
        let noted = self.noted?;
        let own = self.puts.iter().filter(|(lsn, _)| *lsn <= committed);
        Some(
            own.fold((noted.objects, noted.bytes), |(objects, bytes), (_, size)| (objects + 1, bytes + size)),
        )
    }

    /// An answer waits for a record that is not noted yet.
    pub fn press(&mut self) {
        self.pressed = true;
    }

    /// How far may be committed: not beyond the bound that the control plane committed.
    pub fn limit<D: Disk>(&mut self, holding: &Holding<D>, point: Lsn) -> Lsn {
        let Some(noted) = self.noted else { return Lsn::ZERO };
        let most = point.min(Lsn(noted.up_to.0 + AT_RISK_RECORDS));
        self.weigh(holding, most);
        let mut bytes = 0u64;
        let over = |(_, size): &&(Lsn, u64)| {
            bytes = bytes.saturating_add(*size);
            bytes > noted.reserved
        };
        let limit = match self.puts.iter().find(over) {
            Some((lsn, _)) => lsn.previous().min(most),
            None => most.min(self.weighed),
        };
        self.pressed |= limit < point;
        limit
    }

    fn weigh<D: Disk>(&mut self, holding: &Holding<D>, up_to: Lsn) {
        self.weighed = self.weighed.max(self.noted());
        while self.weighed < up_to {
            let lsn = self.weighed.next();
            let Ok(record) = holding.record(lsn) else { return };
            if let Some(size) = size_of(&record) {
                self.puts.push_back((lsn, size));
            }
            self.weighed = lsn;
        }
    }

    /// The control plane answered; `false` if it was asked by somebody else.
    pub fn answered(&mut self, ticket: ControlTicket, answer: &ControlAnswer) -> bool {
        if self.question.as_ref().is_none_or(|question| question.ticket != ticket) {
            return false;
        }
        self.question = None;
        self.refused = true;
        if let ControlAnswer::Noted(noted) = answer {
            self.refused = false;
            self.noted = Some(*noted);
            self.puts.retain(|(lsn, _)| *lsn > noted.up_to);
        }
        true
    }

    /// Tells the control plane what it must know.
    pub fn settle<D: Disk>(&mut self, holding: &Holding<D>, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let volume = config.volume;
        if let Some(question) = &mut self.question {
            if is_due(Some(question.at), ASK_EVERY, cx.now) {
                question.at = cx.now;
                let request = ControlRequest::Note(question.note.clone());
                cx.out.ask_again_for(volume, question.ticket, request);
            }
            return;
        }
        let Some(note) = self.next_note(holding, config, cx.now) else { return };
        self.asked_at = Some(cx.now);
        self.pressed = false;
        let ticket = cx.out.ask_for(volume, ControlRequest::Note(note.clone()));
        self.question = Some(Question { ticket, note, at: cx.now });
    }

    fn next_note<D: Disk>(&self, holding: &Holding<D>, config: &VolumeConfig, now: BootTime) -> Option<Note> {
        let (volume, epoch) = (config.volume, config.epoch);
        let Some(noted) = self.noted else {
            // The first one asks where the control plane's knowledge ends.
            return is_due(self.asked_at, ASK_EVERY, now).then(|| Note::question(volume, epoch));
        };
        let next_put = self.puts.iter().find(|(lsn, _)| *lsn > holding.committed()).map(|(_, size)| *size);
        let reserve = next_put.unwrap_or_default().max(AT_RISK_BYTES);
        let behind = holding.committed() > noted.up_to || reserve > noted.reserved;
        let hurries = self.pressed && !self.refused;
        if !behind || !(hurries || is_due(self.asked_at, NOTE_EVERY, now)) {
            return None;
        }
        let mut note =
            Note { after: noted.up_to, up_to: noted.up_to, reserve, ..Note::question(volume, epoch) };
        let mut touched: BTreeMap<VersionId, VisibilityChange> = BTreeMap::new();
        while note.up_to < holding.committed() && note.up_to.0 < noted.up_to.0 + NOTE_CHANGES_MAX as u64 {
            let lsn = note.up_to.next();
            let Ok(record) = holding.record(lsn) else { break };
            if let Some(size) = size_of(&record) {
                note.objects += 1;
                note.bytes += size;
            }
            if let Some(version) = touched_by(&record)
                && let Some(change) = standing(holding, version, lsn)
            {
                touched.insert(version, change);
            }
            note.up_to = lsn;
        }
        note.changes = touched.into_values().collect();
        (note.up_to > note.after || reserve > noted.reserved).then_some(note)
    }

    /// When to look again.
    pub fn next_wakeup(&self, committed: Lsn) -> Option<BootTime> {
        if let Some(question) = &self.question {
            return Some(question.at + ASK_EVERY);
        }
        let behind = self.noted.is_none_or(|noted| committed > noted.up_to);
        self.asked_at.filter(|_| behind).map(|at| at + NOTE_EVERY)
    }
}

fn size_of(record: &Record) -> Option<u64> {
    match record.body() {
        RecordBody::Put(put) => Some(put.sealed_length),
        _ => None,
    }
}

/// The version that a record hides or brings back.
fn touched_by(record: &Record) -> Option<VersionId> {
    match record.body() {
        RecordBody::Put(put) => put.replaces,
        RecordBody::Delete(delete) => Some(delete.version),
        RecordBody::Undelete(undelete) => Some(undelete.version),
        _ => None,
    }
}

/// How a version that the record at `lsn` touched stands now. What a record says it does, it may not
/// have done; the committed state tells.
fn standing<D: Disk>(holding: &Holding<D>, version: VersionId, lsn: Lsn) -> Option<VisibilityChange> {
    let (lsn, visibility) = match holding.index().version(version)?.state {
        VersionState::Live => (lsn, Visibility::Live),
        VersionState::Deleted(tombstone)
        | VersionState::Purging { tombstone, .. }
        | VersionState::OthersErased { tombstone, .. } => (tombstone.lsn, Visibility::Hidden),
        VersionState::Certified { lsn } => (lsn, Visibility::Hidden),
    };
    Some(VisibilityChange { version, lsn, visibility })
}
