//! A call that changes something, at most once: the same bytes under the same token at every try, and
//! when time is over, the question what became of it.
//!
//! `NotApplied` and `Refused` are said only when nothing is left on its way that could still take effect,
//! or after the primary sealed the token as never to happen: a late original finds it sealed.

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantCall, TokenUse};
use trefoil_protocol::time::BootTime;

use super::courier::{Courier, Repeat, Verdict, Whom};
use super::patience::Patience;
use super::route::RouteCache;
use super::{Effect, Event, Operation};
use crate::failure::{Damage, Trouble, WriteError};

/// Why a mutation is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MutationFailure {
    /// Refused for good; nothing happened.
    #[error(transparent)]
    Refused(Refusal),
    /// It did not happen and never will.
    #[error("not applied: {0}")]
    NotApplied(Trouble),
    /// Whether it happened could not be learned in time.
    #[error("it is not known whether this was applied: {0}")]
    Unknown(Trouble),
    /// An answer breaks the protocol.
    #[error(transparent)]
    Broken(Damage),
}

impl From<MutationFailure> for WriteError {
    fn from(failure: MutationFailure) -> Self {
        match failure {
            MutationFailure::Refused(Refusal::NotFound) => Self::NotFound,
            MutationFailure::Refused(Refusal::Gone) => Self::Gone,
            MutationFailure::Refused(refusal) => Self::Refused(refusal),
            MutationFailure::NotApplied(trouble) => Self::NotApplied(trouble),
            MutationFailure::Unknown(trouble) => Self::Unknown(trouble),
            MutationFailure::Broken(damage) => Self::Integrity(damage),
        }
    }
}

#[derive(Clone, Debug)]
enum Phase {
    Doing,
    /// This is what will be said if it turns out that nothing happened.
    Asking(MutationFailure),
}

/// One put, delete or undelete.
#[derive(Clone, Debug)]
pub struct Mutation {
    key: ObjectKey,
    token: TokenUse,
    patience: Patience,
    phase: Phase,
    courier: Courier,
    seed: u64,
}

impl Mutation {
    /// Does `call` to `key`, with `bulk` behind it. `seed` spreads the tries of many clients.
    ///
    /// # Panics
    /// When the call carries no token.
    pub fn new(
        key: ObjectKey,
        call: TenantCall,
        bulk: Bytes,
        patience: Patience,
        now: BootTime,
        seed: u64,
    ) -> Self {
        let token = token_of(&call).expect("a mutation carries a token");
        let courier = Courier::new(Whom::PrimaryOf(key.clone()), call, patience, now, seed).with_bulk(bulk);
        Self { key, token, patience, phase: Phase::Doing, courier, seed }
    }

    /// The same, but sent once only: the payload that streams behind it cannot be sent again.
    #[must_use]
    pub fn once(self) -> Self {
        Self { courier: self.courier.with_repeat(Repeat::Never), ..self }
    }

    /// The same, for what was sent before under another token.
    #[must_use]
    pub fn sent_before(self) -> Self {
        Self { courier: self.courier.sent_before(), ..self }
    }

    /// The token, to be ended in its table once this is over.
    pub fn token(&self) -> TokenUse {
        self.token
    }

    /// When the cluster said to come back with what it did not begin.
    pub fn comes_back_after(failure: &MutationFailure) -> Duration {
        match failure {
            MutationFailure::NotApplied(Trouble::Refused(_, Refusal::Busy { retry_after })) => {
                (*retry_after).into()
            }
            _ => Duration::ZERO,
        }
    }

    fn conclude(&mut self, now: BootTime, verdict: Verdict) -> Option<<Self as Operation>::Output> {
        match (self.phase.clone(), verdict) {
            (_, Verdict::Broken(damage)) => Some(Err(MutationFailure::Broken(damage))),
            (Phase::Doing, Verdict::Answered(answer)) => Some(Ok(answer)),
            (Phase::Doing, Verdict::Refused(refusal)) => {
                // The primary refused this ask; one that was lost before may yet come and be executed.
                self.unless(self.courier.has_stray(), now, MutationFailure::Refused(refusal))
            }
            (Phase::Doing, Verdict::GaveUp(trouble)) => {
                self.unless(self.courier.may_have_arrived(), now, MutationFailure::NotApplied(trouble))
            }
            (Phase::Asking(_), Verdict::Answered(TenantAnswer::Applied(answer))) => Some(Ok(*answer)),
            (Phase::Asking(failure), Verdict::Answered(TenantAnswer::NotApplied)) => Some(Err(failure)),
            (Phase::Asking(_), Verdict::Answered(_)) => {
                Some(Err(MutationFailure::Broken(Damage::Answer("an outcome is applied or not applied"))))
            }
            (
                Phase::Asking(MutationFailure::NotApplied(trouble)),
                Verdict::Refused(_) | Verdict::GaveUp(_),
            ) => Some(Err(MutationFailure::Unknown(trouble))),
            (Phase::Asking(_), Verdict::Refused(_) | Verdict::GaveUp(_)) => {
                Some(Err(MutationFailure::Unknown(self.courier.trouble().clone())))
            }
        }
    }

    /// Says `failure`, unless the mutation may have taken effect or may still: then asks first.
    fn unless(
        &mut self,
        is_open: bool,
        now: BootTime,
        failure: MutationFailure,
    ) -> Option<<Self as Operation>::Output> {
        if !is_open {
            return Some(Err(failure));
        }
        self.ask_outcome(now, failure);
        None
    }

    fn ask_outcome(&mut self, now: BootTime, failure: MutationFailure) {
        let call = TenantCall::Outcome { token: self.token.token };
        let deadline = self.courier.deadline().max(now + self.patience.outcome);
        self.phase = Phase::Asking(failure);
        self.courier = Courier::new(Whom::PrimaryOf(self.key.clone()), call, self.patience, now, self.seed)
            .with_deadline(deadline)
            .after(&self.courier);
    }
}

impl Operation for Mutation {
    type Output = Result<TenantAnswer, MutationFailure>;

    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Self::Output>> {
        let mut effects = Vec::new();
        let mut event = event;
        while let Some(verdict) = self.courier.step(now, routes, event, &mut effects) {
            if let Some(output) = self.conclude(now, verdict) {
                effects.push(Effect::Done(output));
                break;
            }
            event = Event::Wakeup;
        }
        effects
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        self.courier.next_wakeup()
    }
}

fn token_of(call: &TenantCall) -> Option<TokenUse> {
    match call {
        TenantCall::Put(put) => Some(put.token),
        TenantCall::Delete { token, .. } | TenantCall::Undelete { token, .. } => Some(*token),
        _ => None,
    }
}
