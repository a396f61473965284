//! The node's talk with the control plane: it registers its store, renews its lease stating what it
//! has adopted, and watches for news. Every question is asked again until it is answered, and whichever
//! of them is answered counts: a slow answer to an earlier one is as good as a late one to the last.
//!
//! It takes nothing for granted that was not answered in this run.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::config::LinkAddress;
use trefoil_protocol::ids::{ConfigIndex, DcId, NodeId, RackId, VolumeId};
use trefoil_protocol::message::control::{
    ControlRequest, LinkReport, Register, Renew, StoreCondition, StoreTiming, VolumeStatistics,
};
use trefoil_protocol::time::{BootTime, lease};

use crate::event::ControlTicket;
use crate::outbox::{Identity, Outbox};
use crate::pace::Pace;
use crate::statistics::{self, Which};

/// A question without an answer is asked again after this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure, the next try.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// So many askings of one question may be without an answer.
const ASKED_MAX: usize = 8;

/// What a node is told about itself at its start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its name; the certificate's.
    pub node: NodeId,
    /// Its data centre.
    pub dc: DcId,
    /// Its rack.
    pub rack: RackId,
    /// Bytes it may hold.
    pub capacity: u64,
    /// Where it listens.
    pub addresses: Vec<LinkAddress>,
    /// Its process id, for operators.
    pub pid: u32,
    /// How soon and how fast it does what nobody waits for.
    pub pace: Pace,
}

/// One question that is asked until it is answered.
#[derive(Clone, Debug)]
struct Question {
    /// Asked and not answered, with the times of asking.
    asked: BTreeMap<ControlTicket, BootTime>,
    /// After this long without an answer it is asked again.
    patience: Duration,
    not_before: BootTime,
    /// There is something new to say.
    is_urgent: bool,
}

impl Question {
    fn with_patience(patience: Duration) -> Self {
        Self { asked: BTreeMap::new(), patience, not_before: BootTime::default(), is_urgent: false }
    }

    fn due_at(&self) -> BootTime {
        match (self.asked.values().max(), self.is_urgent) {
            // An older question may be waited for still when a later one was answered.
            (Some(last), false) => (*last + self.patience).max(self.not_before),
            (Some(last), true) => *last + RETRY_AFTER.min(self.patience),
            (None, false) => self.not_before,
            (None, true) => BootTime::default(),
        }
    }

    fn is_due(&self, now: BootTime) -> bool {
        now >= self.due_at()
    }

    fn ask(&mut self, ticket: ControlTicket, now: BootTime) {
        if self.asked.len() >= ASKED_MAX {
            // Nobody waits for the oldest any more: a lease from then would be over.
            self.asked.pop_first();
        }
        self.asked.insert(ticket, now);
        self.is_urgent = false;
    }

    fn answered(&mut self, ticket: ControlTicket, again_at: BootTime) -> bool {
        let mine = self.asked.remove(&ticket).is_some();
        if mine {
            self.not_before = again_at;
        }
        mine
    }

    /// What was asked before does not count any more.
    fn begin_again(&mut self, now: BootTime) {
        self.asked.clear();
        self.not_before = self.not_before.min(now);
    }
}

/// What the node knows of the configurations.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Everything up to here.
    pub applied: ConfigIndex,
    /// And of the changes of the next position, those of the volumes up to this one.
    pub partly: Option<VolumeId>,
    /// News are on their way in.
    pub heard_more: bool,
}

/// What a node tells with a renewal.
pub struct Told<L, T, C> {
    /// Says what it leads of the volumes that are looked at.
    pub look: L,
    /// How long stores take for their work.
    pub timings: T,
    /// How its own store is.
    pub condition: C,
}

/// Which of the session's questions was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The registration.
    Register,
    /// A renewal.
    Renew,
    /// The watch.
    Watch,
    /// None of them.
    Other,
}

/// The state of the talk.
#[derive(Debug)]
pub struct Session {
    settings: NodeSettings,
    registered: bool,
    register: Question,
    renew: Question,
    watch: Question,
    links: Option<Vec<LinkReport>>,
    told: statistics::Told,
}

impl Session {
    /// Begins: nothing was said yet.
    pub fn new(settings: NodeSettings) -> Self {
        Self {
            settings,
            registered: false,
            register: Question::with_patience(PATIENCE),
            // A lease is shorter than a few round trips at their worst: renewals do not wait for each
            // other's answers.
            renew: Question::with_patience(lease::RENEW_EVERY),
            watch: Question::with_patience(PATIENCE),
            links: None,
            told: statistics::Told::default(),
        }
    }

    /// How soon and how fast the node does what nobody waits for.
    pub fn pace(&self) -> &Pace {
        &self.settings.pace
    }

    /// Whether the store is registered in this run.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// The store is registered: renew and watch from now on.
    pub fn registered(&mut self, now: BootTime) {
        self.registered = true;
        self.register.begin_again(now);
    }

    /// The control plane does not know this run: register again.
    pub fn unregistered(&mut self, now: BootTime) {
        self.told.forget();
        self.registered = false;
        self.renew.begin_again(now);
        self.watch.begin_again(now);
    }

    /// Something was adopted that the control plane should know at once.
    pub fn renew_soon(&mut self) {
        self.renew.is_urgent = true;
    }

    /// What is asked goes to another voter from now on: what was asked and not answered is asked at
    /// once, and a late answer still counts.
    pub fn ask_again(&mut self) {
        for question in [&mut self.register, &mut self.renew, &mut self.watch] {
            question.is_urgent |= !question.asked.is_empty();
        }
    }

    /// How the links look now; told with the next renewal.
    pub fn links(&mut self, links: Vec<LinkReport>) {
        self.links = Some(links);
    }

    /// An answer came, or word that none will come.
    pub fn answered(&mut self, ticket: ControlTicket, failed: bool, now: BootTime) -> Answered {
        let retry = now + RETRY_AFTER;
        if self.register.answered(ticket, retry) {
            return Answered::Register;
        }
        let renew_at = if failed { retry } else { now + lease::RENEW_EVERY };
        if self.renew.answered(ticket, renew_at) {
            if failed {
                self.told.forget();
            }
            return Answered::Renew;
        }
        if self.watch.answered(ticket, if failed { retry } else { now }) {
            return Answered::Watch;
        }
        Answered::Other
    }

    /// Asks what is due.
    pub fn ask<D: Disk>(
        &mut self,
        identity: &Identity,
        known: Known,
        tells: Told<
            impl FnOnce(Which) -> Vec<(VolumeId, Option<VolumeStatistics>)>,
            impl FnOnce() -> Vec<StoreTiming>,
            impl FnOnce() -> StoreCondition,
        >,
        now: BootTime,
        out: &mut Outbox<D>,
    ) {
        if !self.registered {
            if self.register.is_due(now) {
                let request = ControlRequest::Register(self.registration(identity));
                self.register.ask(out.ask(request), now);
            }
            return;
        }
        if self.renew.is_due(now) {
            if !self.renew.asked.is_empty() {
                self.told.forget(); // They may arrive in any order, or not at all.
            }
            let renew = Renew {
                store: identity.store,
                incarnation: identity.incarnation,
                applied: known.applied,
                sent: now,
                volumes: self.told.news(tells.look, now),
                links: self.links.clone(),
                timings: (tells.timings)(),
                condition: (tells.condition)(),
            };
            self.renew.ask(out.ask(ControlRequest::Renew(renew)), now);
        }
        // Who has heard more than it knows yet would only hear it again.
        if self.watch.is_due(now) && !known.heard_more {
            let Known { applied, partly, .. } = known;
            self.watch.ask(out.ask(ControlRequest::Watch { applied, partly }), now);
        }
    }

    fn registration(&self, identity: &Identity) -> Register {
        Register {
            node: self.settings.node,
            dc: self.settings.dc,
            rack: self.settings.rack,
            store: identity.store,
            store_key: identity.signatory.public(),
            capacity: self.settings.capacity,
            addresses: self.settings.addresses.clone(),
            last_incarnation: identity.incarnation,
            pid: self.settings.pid,
        }
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> BootTime {
        if self.registered { self.renew.due_at().min(self.watch.due_at()) } else { self.register.due_at() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> NodeSettings {
        NodeSettings {
            node: "a1".parse().unwrap(),
            dc: "a".parse().unwrap(),
            rack: "r".parse().unwrap(),
            capacity: 1,
            addresses: Vec::new(),
            pid: 1,
            pace: Pace::default(),
        }
    }

    #[test]
    fn when_the_voter_that_was_asked_falls_silent_its_questions_are_asked_at_once() {
        let at = |millis| BootTime::default() + Duration::from_millis(millis);
        let mut session = Session::new(settings());
        session.registered(at(0));
        session.renew.ask(ControlTicket(1), at(0));
        session.ask_again();
        assert!(session.renew.is_due(at(200)) && !session.watch.is_urgent, "the watch was not under way");
    }

    #[test]
    fn an_answer_satisfies_although_an_older_question_is_open() {
        let at = |millis| BootTime::default() + Duration::from_millis(millis);
        let mut renew = Question::with_patience(lease::RENEW_EVERY);
        renew.ask(ControlTicket(1), at(0));
        renew.ask(ControlTicket(2), at(5_000));
        assert!(renew.answered(ControlTicket(2), at(6_000)));
        assert!(!renew.is_due(at(5_999)), "the voter asked first may never answer");
        assert!(renew.is_due(at(6_000)));
    }
}
