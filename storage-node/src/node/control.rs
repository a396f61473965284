//! What a node hears from the control plane and tells it: leases, news of configurations, and how it is.

use trefoil_engine::Disk;
use trefoil_protocol::ids::{Incarnation, VolumeId};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, News, STOPPED_MAX, StoreCondition, VolumeStatistics,
};
use trefoil_protocol::message::holdings::GENERATION_STEP;
use trefoil_protocol::time::BootTime;

use super::NodeCore;
use crate::arrivals::{Arrivals, Next, TAKEN_AT_ONCE};
use crate::effect::{Effect, Fatal};
use crate::event::{ControlTicket, ControlUnreachable};
use crate::lease::Lease;
use crate::session::{Answered, Known, Told};
use crate::statement::{Stated, Statement};
use crate::statistics::Which;
use crate::view::View;
use crate::volume::replica::Replica;

impl<D: Disk> NodeCore<D> {
    pub(super) fn ask(&mut self, now: BootTime) {
        if let Some(statement) = &mut self.statement {
            return statement.ask(now, &mut self.out);
        }
        let (volumes, touched) = (&self.volumes, &mut self.touched);
        let led =
            |volume: VolumeId| (volume, volumes.get(&volume).and_then(|replica| statistics_of(replica)));
        let look = |which: Which| -> Vec<(VolumeId, Option<VolumeStatistics>)> {
            match which {
                Which::All => volumes.keys().copied().map(led).collect(),
                Which::Touched => std::mem::take(touched).into_iter().map(led).collect(),
            }
        };
        let known = Known {
            applied: self.view.index,
            partly: self.view.partly,
            heard_more: !self.arrivals.is_empty(),
        };
        let (stopped, scrubbing) = (&self.stopped, &self.scrubbing);
        let load = self.admission.report(self.out.late(), &self.yielding);
        let condition = || {
            let scrub = scrubbing.report(now);
            let stopped = stopped.iter().filter_map(|volume| volumes.get(volume)?.stopped());
            StoreCondition {
                oldest_unread: scrub.oldest.into(),
                damaged: scrub.faults,
                stopped: stopped.take(STOPPED_MAX).map(|stop| stop.told()).collect(),
                load,
            }
        };
        let told = Told {
            look,
            timings: || self.probing.report(self.identity.store, &self.work_rate, now),
            condition,
        };
        self.session.ask(&self.identity, known, told, now, &mut self.out);
    }

    pub(super) fn control(
        &mut self,
        ticket: ControlTicket,
        answer: Result<ControlAnswer, ControlUnreachable>,
        now: BootTime,
    ) {
        let failed = matches!(answer, Err(_) | Ok(ControlAnswer::Refused(_)));
        let answered = self.session.answered(ticket, failed, now);
        let asker = self.out.asker(ticket);
        if let Some(statement) = &mut self.statement {
            match statement.answered(ticket, &answer) {
                Stated::Nothing => {}
                Stated::Some => return,
                Stated::All => {
                    self.statement = None;
                    return self.session.registered(now);
                }
                Stated::Unknown => {
                    self.statement = None;
                    return self.session.unregistered(now);
                }
            }
        }
        if answered == Answered::Other && asker.is_none() {
            return; // Nobody waits for it any more: it may be of an earlier question, or of an earlier run.
        }
        if answer.is_ok() {
            self.out.answered(ticket);
        }
        match answer {
            // Whoever asked for a volume asks again under the same number.
            Err(ControlUnreachable) => {}
            Ok(ControlAnswer::Registered { incarnation, generation, .. }) => {
                self.registered(incarnation, generation, now);
            }
            Ok(ControlAnswer::Granted { sent, covers, news }) => {
                self.lease.granted(trefoil_protocol::mutant!(M04, sent, now), covers);
                self.hear(news);
            }
            Ok(ControlAnswer::News(news)) => self.hear(news),
            Ok(ControlAnswer::Refused(ControlRefusal::Unregistered)) => {
                self.session.unregistered(now);
            }
            Ok(ControlAnswer::Refused(ControlRefusal::Denied(reason))) if answered == Answered::Register => {
                self.out.push(Effect::Fatal(Fatal::Refused(reason)));
            }
            Ok(answer) => {
                if let Some(volume) = asker {
                    self.with_volume(volume, now, |replica, cx| replica.control(ticket, answer, cx));
                }
            }
        }
    }

    /// The control plane gave this run a number. One that was restored must hear first what is held here;
    /// what an earlier one said counts no more.
    pub(super) fn registered(&mut self, incarnation: Incarnation, generation: u64, now: BootTime) {
        // Whoever was restored later counts; one of before is asked again elsewhere.
        if self.identity.incarnation.0 / GENERATION_STEP > generation {
            return self.session.unregistered(now);
        }
        if let Err(error) = self.store.begin(incarnation) {
            return self.out.fail_store(error);
        }
        self.identity.incarnation = incarnation;
        if self.view.generation != 0 && self.view.generation != generation {
            self.forget_the_control_plane(now);
        }
        self.view.generation = generation;
        if generation <= 1 {
            return self.session.registered(now);
        }
        let open = self.volumes.iter().map(|(volume, replica)| (*volume, replica.holding()));
        let unconfigured = self.unconfigured.iter().map(|(volume, holding)| (*volume, holding));
        self.statement = Some(Statement::of(&self.identity, open.chain(unconfigured)));
    }

    /// Another control plane decides from now on: nothing is answered under what the one before said.
    pub(super) fn forget_the_control_plane(&mut self, now: BootTime) {
        for volume in self.volumes.keys().copied().collect::<Vec<_>>() {
            self.with_volume(volume, now, Replica::stand_down);
        }
        self.view = View::default();
        self.arrivals = Arrivals::default();
        self.lease = Lease::none();
    }

    pub(super) fn hear(&mut self, news: News) {
        self.view.meet(&news);
        self.arrivals.push(news);
    }

    /// Takes some of the news in: from here on this node acts by the new configurations.
    pub(super) fn take_in(&mut self, now: BootTime) {
        let mut taken = 0;
        while taken < TAKEN_AT_ONCE {
            match self.arrivals.next() {
                None => return,
                Some(Next::Volume(config, told_at)) => {
                    if let Some(config) = self.view.adopt(config, told_at) {
                        taken += 1;
                        self.configure(config, now);
                    }
                }
                Some(Next::All(news)) => self.is_up_to(&news, now),
            }
        }
    }

    /// All of these news is in; from here on this node says so.
    pub(super) fn is_up_to(&mut self, news: &News, now: BootTime) {
        let before = self.view.index;
        self.view.is_up_to(news);
        if self.view.index > before {
            self.session.renew_soon();
        }
        if news.index == self.view.index && news.partly.is_none() {
            self.retire(&news.retire, now);
            for volume in &news.tell {
                self.with_volume(*volume, now, Replica::tell_apart);
            }
        }
        for volume in self.due.due(self.view.now) {
            self.with_volume(volume, now, |replica, cx| replica.settle(cx));
        }
    }
}

fn statistics_of<D: Disk>(replica: &Replica<D>) -> Option<VolumeStatistics> {
    let copies = replica.whole_copies()?;
    let primary = replica.primary()?;
    let live = replica.holding().index().statistics().live;
    let short_of_copies = if copies < 3 { live.versions } else { 0 };
    let volume = replica.config().volume;
    Some(VolumeStatistics {
        volume,
        objects: live.versions,
        short_of_copies,
        bytes: live.bytes,
        at_risk: primary.at_risk(replica.holding()).filter(|_| !primary.refuses_writes(replica.config())),
        debt: primary.debt(replica.config()).max(replica.owed_objects()),
    })
}
