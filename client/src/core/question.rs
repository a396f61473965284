//! A call that changes nothing: asked until it is answered, refused for good, or out of time.

use trefoil_protocol::message::tenant::{Refusal, TenantAnswer, TenantCall};
use trefoil_protocol::time::BootTime;

use super::courier::{Courier, Verdict, Whom};
use super::patience::Patience;
use super::route::RouteCache;
use super::{Effect, Event, Operation};
use crate::failure::{Damage, ReadError, Trouble};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionFailure {
    /// Refused for good.
    #[error(transparent)]
    Refused(Refusal),
    /// Out of time.
    #[error("unavailable: {0}")]
    Unavailable(Trouble),
    /// An answer breaks the protocol.
    #[error(transparent)]
    Broken(Damage),
}

impl From<QuestionFailure> for ReadError {
    fn from(failure: QuestionFailure) -> Self {
        match failure {
            QuestionFailure::Refused(Refusal::NotFound) => Self::NotFound,
            QuestionFailure::Refused(Refusal::Gone) => Self::Gone,
            QuestionFailure::Refused(Refusal::Changed) => Self::Changed,
            QuestionFailure::Refused(refusal) => Self::Refused(refusal),
            QuestionFailure::Unavailable(trouble) => Self::Unavailable(trouble),
            QuestionFailure::Broken(damage) => Self::Integrity(damage),
        }
    }
}

/// A read-only call.
#[derive(Clone, Debug)]
pub struct Question(Courier);

impl Question {
    /// Asks `call` of `whom`. `seed` is any number that differs between clients: it spreads their tries.
    pub fn new(whom: Whom, call: TenantCall, patience: Patience, now: BootTime, seed: u64) -> Self {
        Self(Courier::new(whom, call, patience, now, seed))
    }
}

impl Operation for Question {
    type Output = Result<TenantAnswer, QuestionFailure>;

    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Self::Output>> {
        let mut effects = Vec::new();
        if let Some(verdict) = self.0.step(now, routes, event, &mut effects) {
            effects.push(Effect::Done(verdict.into()));
        }
        effects
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        self.0.next_wakeup()
    }
}

impl From<Verdict> for Result<TenantAnswer, QuestionFailure> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Answered(answer) => Ok(answer),
            Verdict::Refused(refusal) => Err(QuestionFailure::Refused(refusal)),
            Verdict::GaveUp(trouble) => Err(QuestionFailure::Unavailable(trouble)),
            Verdict::Broken(damage) => Err(QuestionFailure::Broken(damage)),
        }
    }
}
