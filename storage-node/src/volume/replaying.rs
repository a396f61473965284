//! A primary that goes on without stores which acknowledged alone: before it serves, it hides and brings
//! back what the control plane knows was hidden and brought back there.
//!
//! It asks page by page and writes a record for each version that stands otherwise here. Whoever begins
//! anew, after a crash or in a later epoch, finds what was committed standing right and writes the rest.

use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_engine::index::VersionState;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{ClientInstance, Hash, Lsn, PrincipalId, Token};
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest, Visibility, VisibilityChange};
use trefoil_protocol::record::{Cause, Delete, RecordBody, Undelete};
use trefoil_protocol::time::{BootTime, lease};

use super::mutations::{Desk, Mutations};
use super::primary::is_due;
use crate::event::ControlTicket;
use crate::outbox::Context;

/// A question without an answer is asked again after this long.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Whom replayed records name: nobody of the tenant, because the list does not say who it was.
const NOBODY: PrincipalId = PrincipalId(0);

/// Where the replay of one epoch stands.
#[derive(Clone, Debug, Default)]
pub struct Replaying {
    /// So many changes were taken over; the last of their records stands here.
    taken: u32,
    last: Lsn,
    /// The rest of the page that was answered.
    page: std::collections::VecDeque<VisibilityChange>,
    /// There is nothing behind that page.
    is_last: bool,
    question: Option<(ControlTicket, BootTime)>,
}

impl Replaying {
    /// The control plane answered; `false` if it was asked by somebody else.
    pub fn answered(&mut self, ticket: ControlTicket, answer: &ControlAnswer) -> bool {
        if self.question.is_none_or(|(asked, _)| asked != ticket) {
            return false;
        }
        match answer {
            ControlAnswer::Replay { from, changes, last } if *from == self.taken => {
                (self.page, self.is_last) = (changes.iter().copied().collect(), *last);
                self.question = None;
            }
            // The configuration says so next. A refusal is asked again when its time has come.
            _ => {}
        }
        true
    }

    /// Goes on with what can be done now.
    pub fn settle<D: Disk>(
        &mut self,
        mutations: &mut Mutations,
        desk: &mut Desk<'_, D>,
        cx: &mut Context<'_, D>,
    ) {
        // What the last page changed is known before the next one is compared with it.
        if desk.holding.committed() < self.last.max(desk.primary.start()) {
            return;
        }
        while let Some(change) = self.page.front().copied() {
            if let Some(body) = self.record_for(change, desk, cx) {
                // A full disk takes it later.
                let Some(lsn) = mutations.append_own(body, Vec::new(), desk, cx) else { return };
                self.last = lsn;
            }
            self.page.pop_front();
            self.taken += 1;
        }
        if desk.holding.committed() >= self.last && !desk.primary.owes_note(self.last) {
            self.ask(desk.config, cx);
        }
    }

    /// Asks for the next page, or says that there is none.
    fn ask<D: Disk>(&mut self, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let (volume, epoch) = (config.volume, config.epoch);
        let request = match self.is_last {
            true => ControlRequest::Replayed { volume, epoch },
            false => ControlRequest::Replay { volume, epoch, from: self.taken },
        };
        match &mut self.question {
            None => self.question = Some((cx.out.ask_for(volume, request), cx.now)),
            Some((ticket, at)) if is_due(Some(*at), ASK_EVERY, cx.now) => {
                *at = cx.now;
                cx.out.ask_again_for(volume, *ticket, request);
            }
            Some(_) => {}
        }
    }

    /// The record that makes a version stand as it should, if it is here and stands otherwise.
    fn record_for<D: Disk>(
        &self,
        change: VisibilityChange,
        desk: &Desk<'_, D>,
        cx: &Context<'_, D>,
    ) -> Option<RecordBody> {
        let version = change.version;
        match (change.visibility, desk.holding.index().version(version)?.state) {
            (Visibility::Hidden, VersionState::Live) => {
                let (window, cause) = (desk.config.window, self.cause(desk.config, cx));
                Some(RecordBody::Delete(Delete { version, window, cause }))
            }
            (Visibility::Live, VersionState::Deleted(tombstone)) => {
                let (tombstone, cause) = (tombstone.lsn, self.cause(desk.config, cx));
                Some(RecordBody::Undelete(Undelete { version, tombstone, cause }))
            }
            _ => None,
        }
    }

    /// In one epoch the same place of the list has the same token: it takes effect once.
    fn cause<D: Disk>(&self, config: &VolumeConfig, cx: &Context<'_, D>) -> Cause {
        let (volume, epoch) = (config.volume.0.to_be_bytes(), config.epoch.0.to_be_bytes());
        let instance = blake3::hash(&[&b"replayed"[..], &volume, &epoch].concat());
        let instance = ClientInstance(*instance.as_bytes().first_chunk().expect("16 of 32 bytes"));
        let sequence = u64::from(self.taken) + 1;
        let token = Token { instance, sequence };
        let at = cx.view.now + lease::LENGTH;
        Cause { token, confirmed_below: sequence, request: Hash::ZERO, principal: NOBODY, at }
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        self.question.map(|(_, at)| at + ASK_EVERY)
    }
}
