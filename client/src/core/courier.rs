//! The courier: brings one call to whoever must answer it, however often the volume moves meanwhile.
//!
//! It sends the identical call every time; only the volume's epoch follows what is known. It gives up
//! at its deadline and never decides what an unanswered mutation means: that is [`super::Mutation`]'s.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::{Member, MemberState, VolumeConfig};
use trefoil_protocol::ids::{DcId, Epoch, NodeId, VolumeId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::leader::SUSPECT_AFTER;
use trefoil_protocol::message::tenant::{
    Refusal, RouteView, TenantAnswer, TenantCall, TenantRequest, TenantResponse,
};
use trefoil_protocol::time::BootTime;

use super::patience::{Doubling, Jitter, Patience};
use super::route::RouteCache;
use super::{Effect, Event, ExchangeId, Failed};
use crate::failure::{Damage, Peer, Trouble};

/// How often a hint may send a call on at once before it must rest.
const HOPS_MAX: u32 = 3;

/// How often the route is looked at again before a peer that did not answer is asked again.
const LOOKS_MAX: u32 = 4;

/// Who must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The primary of the key's volume.
    PrimaryOf(ObjectKey),
    /// The primary of the volume in this slot.
    PrimaryOfSlot(u32),
    /// An in-sync replica of the key's volume in this data centre if there is one; from the first
    /// trouble on, the primary.
    NearestTo(DcId, ObjectKey),
    /// An in-sync replica that is not the one that [`Whom::NearestTo`] this data centre, or without one
    /// [`Whom::PrimaryOf`], would name; from the first trouble on, the primary.
    AnotherOf(Option<DcId>, ObjectKey),
    /// This very node, about a copy of the key's that it holds.
    Holder(NodeId, ObjectKey),
    /// Any endpoint or node.
    Informant,
    /// The custodian.
    Custodian,
}

/// Whether a call may be sent more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Until the deadline: its bytes are at hand.
    UntilDeadline,
    /// Once: behind it streams a payload that cannot be sent again.
    Never,
}

/// How a courier came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Answered(TenantAnswer),
    /// Refused for good.
    Refused(Refusal),
    /// Out of time, or out of tries.
    GaveUp(Trouble),
    Broken(Damage),
}

#[derive(Clone, Debug)]
enum Stage {
    Ready,
    Routing {
        exchange: ExchangeId,
        to: Peer,
        until: BootTime,
    },
    /// `arrived_before`: what [`Courier::may_have_arrived`] was before this ask; `deadline_before`, what the
    /// deadline was.
    Asking {
        exchange: ExchangeId,
        to: Peer,
        volume: VolumeId,
        until: BootTime,
        arrived_before: bool,
        deadline_before: BootTime,
    },
    Resting {
        until: BootTime,
    },
    Over,
}

/// What an ask is to the client's budget of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextAsk {
    /// A request.
    First,
    /// A retry, for which there is a budget.
    Retry,
    /// Neither: the volume is followed to where it is, and nothing was begun before.
    Free,
}

/// One call on its way.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    whom: Whom,
    call: TenantCall,
    bulk: Bytes,
    repeat: Repeat,
    patience: Patience,
    deadline: BootTime,
    stage: Stage,
    next: ExchangeId,
    rest: Doubling,
    silence: Doubling,
    jitter: Jitter,
    /// The generation of the route that the last ask used: a newer one need not be refreshed.
    asked_with: Option<u64>,
    informant: usize,
    hops: u32,
    /// A peer that did not answer, and how often to look for its successor before asking it again: a
    /// dead node costs a time-out, a look at the route a round trip.
    shunned: Option<(Peer, u32)>,
    may_have_arrived: bool,
    /// What the next ask is to the client's budget of retries.
    next_ask: NextAsk,
    /// Whether an ask was given up unanswered: it may arrive, and be executed, at any later time.
    has_stray: bool,
    /// Peers in a row that refused this client's certificate.
    denials: usize,
    trouble: Trouble,
}

impl Courier {
    pub(super) fn new(whom: Whom, call: TenantCall, patience: Patience, now: BootTime, seed: u64) -> Self {
        // Another voter is at hand, and does nothing that takes long.
        let silence_first = match whom {
            Whom::Custodian => patience.silence_first.min(SUSPECT_AFTER),
            _ => patience.silence_first,
        };
        Self {
            whom,
            call,
            bulk: Bytes::new(),
            repeat: Repeat::UntilDeadline,
            patience,
            deadline: now + patience.deadline,
            stage: Stage::Ready,
            next: ExchangeId { lane: 0, number: 0 },
            rest: Doubling::new(patience.rest_first, patience.rest_max),
            silence: Doubling::new(silence_first, patience.silence_max),
            jitter: Jitter::new(seed),
            asked_with: None,
            informant: usize::try_from(seed % 1024).expect("below 1024"),
            hops: 0,
            shunned: None,
            may_have_arrived: false,
            next_ask: NextAsk::First,
            has_stray: false,
            denials: 0,
            trouble: Trouble::NoRoute,
        }
    }

    pub(super) fn with_bulk(self, bulk: Bytes) -> Self {
        Self { bulk, ..self }
    }

    pub(super) fn with_repeat(self, repeat: Repeat) -> Self {
        Self { repeat, ..self }
    }

    pub(super) fn in_lane(self, lane: u32) -> Self {
        Self { next: ExchangeId { lane, number: 0 }, ..self }
    }

    /// Numbers exchanges on from where `other` stopped.
    pub(super) fn after(self, other: &Self) -> Self {
        Self { next: other.next, ..self }
    }

    pub(super) fn with_deadline(self, deadline: BootTime) -> Self {
        Self { deadline, ..self }
    }

    /// It was sent before, by another courier.
    pub(super) fn sent_before(self) -> Self {
        Self { next_ask: NextAsk::Retry, ..self }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// Whether the call may have reached somebody who executes it.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    /// Whether an earlier ask may still arrive.
    pub(super) fn has_stray(&self) -> bool {
        self.has_stray
    }

    /// What last stood in the way.
    pub(super) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    pub(super) fn next_wakeup(&self) -> Option<BootTime> {
        let until = match &self.stage {
            Stage::Over => return None,
            Stage::Ready => BootTime(0),
            Stage::Routing { until, .. } | Stage::Asking { until, .. } | Stage::Resting { until } => *until,
        };
        Some(until.min(self.deadline))
    }

    /// Takes an event and says what came of it, if the courier is back.
    pub(super) fn step<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        event: Event,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        let verdict = match event {
            Event::Wakeup => self.wake(now, routes, effects),
            Event::Progress(exchange) => self.progress(now, exchange),
            Event::Ended(exchange) => self.ended(now, exchange),
            Event::Answered(exchange, response) if self.is_current(exchange) => {
                self.answered(now, routes, *response, effects)
            }
            Event::Failed(exchange, failed) if self.is_current(exchange) => {
                self.failed(now, routes, failed, effects)
            }
            Event::Answered(..) | Event::Failed(..) => None,
        };
        if verdict.is_some() {
            self.stage = Stage::Over;
        }
        verdict
    }

    fn is_current(&self, exchange: ExchangeId) -> bool {
        match &self.stage {
            Stage::Routing { exchange: current, .. } | Stage::Asking { exchange: current, .. } => {
                *current == exchange
            }
            Stage::Ready | Stage::Resting { .. } | Stage::Over => false,
        }
    }

    fn wake<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        if matches!(self.stage, Stage::Over) {
            return None;
        }
        if now >= self.deadline {
            return self.out_of_time(effects);
        }
        match self.stage.clone() {
            Stage::Ready => self.proceed(now, routes, effects),
            Stage::Resting { until } if now >= until => self.proceed(now, routes, effects),
            Stage::Routing { exchange, until, .. } if now >= until => {
                effects.push(Effect::Forget(exchange));
                self.route_failed(now, routes, effects)
            }
            Stage::Asking { exchange, to, until, .. } if now >= until => {
                effects.push(Effect::Forget(exchange));
                self.silence.grow();
                self.has_stray |= self.may_have_arrived;
                self.troubled(now, Trouble::Silent(to))
            }
            _ => None,
        }
    }

    fn out_of_time<T>(&mut self, effects: &mut Vec<Effect<T>>) -> Option<Verdict> {
        if let Stage::Routing { exchange, .. } = self.stage {
            effects.push(Effect::Forget(exchange));
        }
        if let Stage::Asking { exchange, to, .. } = self.stage {
            effects.push(Effect::Forget(exchange));
            self.trouble = Trouble::Silent(to);
        }
        Some(Verdict::GaveUp(self.trouble.clone()))
    }

    fn progress(&mut self, now: BootTime, exchange: ExchangeId) -> Option<Verdict> {
        if let Stage::Asking { exchange: current, until, .. } = &mut self.stage
            && *current == exchange
        {
            *until = now + self.silence.current();
            self.deadline = self.deadline.max(now + self.patience.deadline);
        }
        None
    }

    fn ended(&mut self, now: BootTime, exchange: ExchangeId) -> Option<Verdict> {
        if self.is_current(exchange) {
            self.may_have_arrived = true;
        }
        self.progress(now, exchange)
    }

    /// Asks whoever must answer, or first where that is.
    fn proceed<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        let is_stale = self.asked_with == Some(routes.generation());
        let target = match &self.whom {
            Whom::Informant => {
                let to = routes.informant(self.informant);
                self.informant += 1;
                Some((to, VolumeId(0), Epoch(0)))
            }
            _ if is_stale => None,
            Whom::Custodian => Some((Peer::Custodian, VolumeId(0), Epoch(0))),
            _ => self.holder(routes).map(|(node, volume, epoch)| (Peer::Node(node), volume, epoch)),
        };
        match target {
            Some((to, volume, epoch)) => match self.pay(now, routes) {
                Ok(()) => self.ask(now, routes, to, volume, epoch, effects),
                Err(until) => self.stage = Stage::Resting { until },
            },
            None => self.ask_route(now, routes, effects),
        }
        None
    }

    /// Counts the next ask; a retry may have to wait.
    fn pay(&mut self, now: BootTime, routes: &mut RouteCache) -> Result<(), BootTime> {
        match self.next_ask {
            NextAsk::First => routes.retries.requested(),
            NextAsk::Retry => routes.retries.take(now)?,
            NextAsk::Free => {}
        }
        self.next_ask = NextAsk::Free;
        Ok(())
    }

    fn holder(&self, routes: &RouteCache) -> Option<(NodeId, VolumeId, Epoch)> {
        let config = match &self.whom {
            Whom::PrimaryOf(key)
            | Whom::NearestTo(_, key)
            | Whom::AnotherOf(_, key)
            | Whom::Holder(_, key) => routes.volume_of(key),
            Whom::PrimaryOfSlot(slot) => routes.slot(*slot),
            Whom::Informant | Whom::Custodian => None,
        }?;
        let near = |dc| in_sync(config).find(|member| member.dc == dc).map(|member| member.node);
        let node = match &self.whom {
            Whom::NearestTo(dc, _) => near(*dc).or(config.primary),
            Whom::AnotherOf(dc, _) => {
                let first = dc.and_then(near).or(config.primary);
                let others = || in_sync(config).filter(|member| Some(member.node) != first);
                let nearest = others().find(|member| Some(member.dc) == *dc).or(others().next());
                nearest.map(|member| member.node).or(config.primary)
            }
            Whom::Holder(node, _) => Some(*node),
            _ => config.primary,
        }?;
        Some((node, config.volume, config.epoch))
    }

    fn ask<T>(
        &mut self,
        now: BootTime,
        routes: &RouteCache,
        to: Peer,
        volume: VolumeId,
        epoch: Epoch,
        effects: &mut Vec<Effect<T>>,
    ) {
        self.asked_with = Some(routes.generation());
        let arrived_before = self.may_have_arrived;
        self.may_have_arrived |= !self.is_streamed();
        let exchange = self.take_exchange();
        let until = now + self.silence.current();
        let deadline_before = self.deadline;
        self.stage = Stage::Asking { exchange, to, volume, until, arrived_before, deadline_before };
        let within = self.silence.current().min(self.deadline.since(now)).into();
        let request = Box::new(TenantRequest { volume, epoch, call: self.call.clone(), within });
        effects.push(Effect::Ask { exchange, to, request, bulk: self.bulk.clone() });
    }

    /// A streamed upload takes effect only with its last frame.
    fn is_streamed(&self) -> bool {
        matches!(&self.call, TenantCall::Put(put) if put.inline.is_none())
    }

    fn ask_route<T>(&mut self, now: BootTime, routes: &RouteCache, effects: &mut Vec<Effect<T>>) {
        let to = routes.reliable().unwrap_or_else(|| routes.informant(self.informant));
        self.informant += 1;
        let exchange = self.take_exchange();
        let patience = self.patience.silence_first / 2;
        self.stage = Stage::Routing { exchange, to, until: now + patience };
        let (volume, epoch, within) = (VolumeId(0), Epoch(0), patience.into());
        let request = Box::new(TenantRequest { volume, epoch, call: TenantCall::Route, within });
        effects.push(Effect::Ask { exchange, to, request, bulk: Bytes::new() });
    }

    fn take_exchange(&mut self) -> ExchangeId {
        let exchange = self.next;
        self.next.number += 1;
        exchange
    }

    fn answered<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        response: TenantResponse,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        self.denials = 0;
        if response == Err(Refusal::Stranger) {
            return Some(Verdict::GaveUp(Trouble::Stranger));
        }
        if let Stage::Routing { .. } = self.stage {
            return match response {
                Ok(TenantAnswer::Route(view)) => self.routed(now, routes, view, effects),
                _ => self.route_failed(now, routes, effects),
            };
        }
        match response {
            Ok(TenantAnswer::Route(view)) if view.volumes.is_empty() => {
                self.told_no_volumes(now, routes, view, effects)
            }
            Ok(answer) => Some(Verdict::Answered(answer)),
            Err(refusal) => self.refused(now, routes, refusal, effects),
        }
    }

    /// Whoever was asked for the route knows at least who votes: they are asked next, since they know all
    /// volumes.
    fn told_no_volumes<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        view: RouteView,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        if let Err(damage) = routes.learn(view) {
            return Some(Verdict::Broken(damage));
        }
        if self.hops == 0 && !routes.custodians().is_empty() {
            self.informant = routes.informants() - 1;
        }
        self.next_informant(now, routes, Trouble::NoRoute, effects)
    }

    /// Who cannot tell the route is no reason to wait: the next one is asked at once, until all were
    /// asked in vain.
    fn next_informant<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        trouble: Trouble,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        self.hops += 1;
        if (self.hops as usize) < routes.informants() {
            self.trouble = trouble;
            return self.proceed(now, routes, effects);
        }
        self.troubled(now, trouble)
    }

    fn routed<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        view: RouteView,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        let before = self.holder(routes);
        let knows_volumes = !view.volumes.is_empty();
        if let Err(damage) = routes.learn(view) {
            return Some(Verdict::Broken(damage));
        }
        if self.whom == Whom::Custodian {
            // Who votes is what it wanted to know.
            self.asked_with = None;
            return self.proceed(now, routes, effects);
        }
        if !knows_volumes {
            return self.route_failed(now, routes, effects);
        }
        if let Stage::Routing { to, .. } = self.stage {
            // Who tells what was just tried in vain may be cut off from the news: ask others too.
            let told_nothing_new = self.asked_with.is_some() && before == self.holder(routes);
            if told_nothing_new { routes.rely_no_more_on(to) } else { routes.rely_on(to) }
        }
        match (self.holder(routes), &mut self.shunned) {
            (None, _) => self.troubled(now, Trouble::NoPrimary),
            (Some((node, ..)), Some((peer, looks))) if Peer::Node(node) == *peer && *looks > 0 => {
                *looks -= 1;
                self.asked_with = Some(routes.generation());
                self.rest(now);
                None
            }
            (Some(_), _) => self.proceed(now, routes, effects),
        }
    }

    /// Asks the next informant at once; rests when all were asked in vain. The voters that are known
    /// may give out keys again before anybody can tell a route.
    fn route_failed<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        if let Stage::Routing { to, .. } = self.stage {
            routes.rely_no_more_on(to);
        }
        self.hops += 1;
        if (self.hops as usize) < routes.informants() {
            self.ask_route(now, routes, effects);
            return None;
        }
        if self.whom == Whom::Custodian {
            self.asked_with = None;
        }
        self.rest(now);
        None
    }

    fn refused<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        refusal: Refusal,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        let Stage::Asking { to, volume, arrived_before, deadline_before, .. } = self.stage else {
            unreachable!("only a current ask is refused");
        };
        // Bytes that were sent in vain are no progress.
        self.deadline = deadline_before;
        if refusal.sheds() {
            self.may_have_arrived = arrived_before;
            return self.shed(now, to, refusal);
        }
        if self.whom == Whom::Informant {
            return self.next_informant(now, routes, Trouble::Refused(to, refusal), effects);
        }
        if matches!(self.whom, Whom::NearestTo(..) | Whom::AnotherOf(..)) {
            // A replica may lag behind what the primary told; its "no" means nothing yet.
            return self.troubled(now, Trouble::Refused(to, refusal));
        }
        let is_final = match self.whom {
            Whom::PrimaryOf(_) | Whom::PrimaryOfSlot(_) => {
                !refusal.retryable() || refusal == Refusal::Changed
            }
            Whom::Holder(..) => refusal == Refusal::Changed,
            _ => false,
        };
        if is_final {
            return Some(Verdict::Refused(refusal));
        }
        let is_news = match &refusal {
            Refusal::NotPrimary { epoch, primary } => routes.hint(volume, *epoch, *primary),
            _ => false,
        };
        if is_news && self.repeat == Repeat::UntilDeadline && self.hops < HOPS_MAX {
            self.hops += 1;
            self.trouble = Trouble::Refused(to, refusal);
            return self.proceed(now, routes, effects);
        }
        self.troubled(now, Trouble::Refused(to, refusal))
    }

    /// Nothing was begun, because there is too much to do. Who said so is still whom to ask, later.
    fn shed(&mut self, now: BootTime, to: Peer, refusal: Refusal) -> Option<Verdict> {
        let wait = match refusal {
            Refusal::Busy { retry_after } => retry_after.into(),
            _ => Duration::ZERO,
        };
        let verdict = self.troubled(now, Trouble::Refused(to, refusal));
        if let Stage::Resting { until } = &mut self.stage {
            // All who were refused at once were told the same time.
            *until = (*until).max(now + wait + self.jitter.spread(wait));
            self.asked_with = None;
        }
        verdict
    }

    fn failed<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        failed: Failed,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        if failed == Failed::Denied {
            return self.denied(now, routes, effects);
        }
        match self.stage {
            Stage::Asking { to, arrived_before, .. } if failed == Failed::Unreachable => {
                self.may_have_arrived = arrived_before;
                self.troubled(now, Trouble::Unreachable(to))
            }
            Stage::Asking { to, .. } => {
                self.has_stray |= self.may_have_arrived;
                self.troubled(now, Trouble::Lost(to))
            }
            _ => self.route_failed(now, routes, effects),
        }
    }

    /// One peer may be behind with the list of who is refused; when as many as there are refuse in a
    /// row, asking on is of no use.
    fn denied<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        effects: &mut Vec<Effect<T>>,
    ) -> Option<Verdict> {
        self.trouble = Trouble::Denied;
        self.denials += 1;
        if self.denials >= routes.informants() {
            return Some(Verdict::GaveUp(Trouble::Denied));
        }
        match self.stage {
            Stage::Asking { arrived_before, .. } => {
                self.may_have_arrived = arrived_before;
                self.troubled(now, Trouble::Denied)
            }
            _ => self.route_failed(now, routes, effects),
        }
    }

    fn troubled(&mut self, now: BootTime, trouble: Trouble) -> Option<Verdict> {
        let is_shed = matches!(&trouble, Trouble::Refused(_, refusal) if refusal.sheds());
        if is_shed || matches!(trouble, Trouble::Silent(_) | Trouble::Lost(_)) {
            self.next_ask = NextAsk::Retry;
        }
        if let Trouble::Unreachable(peer) | Trouble::Silent(peer) = trouble {
            self.shunned = Some((peer, LOOKS_MAX));
        }
        self.trouble = trouble;
        if let Whom::NearestTo(_, key) | Whom::AnotherOf(_, key) = &self.whom {
            self.whom = Whom::PrimaryOf(key.clone());
            self.asked_with = None;
        }
        if self.repeat == Repeat::Never && self.asked_with.is_some() {
            return Some(Verdict::GaveUp(self.trouble.clone()));
        }
        self.rest(now);
        None
    }

    fn rest(&mut self, now: BootTime) {
        self.hops = 0;
        self.stage = Stage::Resting { until: now + self.jitter.spread(self.rest.current()) };
        self.rest.grow();
    }
}

pub(super) fn in_sync(config: &VolumeConfig) -> impl Iterator<Item = &Member> {
    config.members.iter().filter(|member| member.state == MemberState::InSync)
}
