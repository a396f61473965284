//! A read of one exact version that does not wait for a slow replica: after the time in which nineteen
//! of twenty reads are answered, another in-sync replica is asked the same, and who answers first is
//! heard. Any of them may answer, because version and root say what the bytes must be.
//!
//! Only such reads are hedged. "Latest" is the primary's to decide, and a mutation is asked once.

use std::collections::VecDeque;
use std::time::Duration;

use trefoil_protocol::ids::DcId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{TenantAnswer, TenantCall};
use trefoil_protocol::time::BootTime;

use super::courier::{Courier, Verdict, Whom};
use super::patience::Patience;
use super::question::QuestionFailure;
use super::route::RouteCache;
use super::{Effect, Event, Operation};

/// How many answers the pace is taken from.
const ANSWERS_KEPT: usize = 128;

/// Below this many answers nothing is known of the pace.
const ANSWERS_NEEDED: usize = 20;

/// After how long a read is hedged while nothing is known.
const HEDGE_FIRST: Duration = Duration::from_millis(250);

/// No read is hedged earlier: two answers that cross cost more than they save.
const HEDGE_MIN: Duration = Duration::from_millis(2);

/// At most one read in so many is hedged, or a cluster that is slow everywhere would be asked twice.
const READS_PER_HEDGE: u32 = 10;

/// Hedges that may be saved up.
const HEDGES_SAVED_MAX: u32 = 4;

/// How fast replicas answered lately, and how many hedges that allows.
#[derive(Clone, Debug)]
pub struct Pace {
    answers: VecDeque<Duration>,
    /// In shares of a hedge: a read saves one, a hedge costs [`READS_PER_HEDGE`].
    saved: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { answers: VecDeque::new(), saved: HEDGES_SAVED_MAX * READS_PER_HEDGE }
    }
}

impl Pace {
    /// A read was answered after this long.
    pub fn answered(&mut self, after: Duration) {
        if self.answers.len() == ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back(after);
        self.saved = (self.saved + 1).min(HEDGES_SAVED_MAX * READS_PER_HEDGE);
    }

    /// A read was hedged.
    pub fn hedged(&mut self) {
        self.saved = self.saved.saturating_sub(READS_PER_HEDGE);
    }

    /// How long to wait before a read is hedged; `None` when too many were.
    pub fn hedge_after(&self) -> Option<Duration> {
        if self.saved < READS_PER_HEDGE {
            return None;
        }
        if self.answers.len() < ANSWERS_NEEDED {
            return Some(HEDGE_FIRST);
        }
        let mut sorted: Vec<Duration> = self.answers.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() * 95 / 100].max(HEDGE_MIN))
    }
}

/// How a hedged read ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What was answered, or why nothing was.
    pub answer: Result<TenantAnswer, QuestionFailure>,
    /// How long that took.
    pub after: Duration,
    /// Whether a second replica was asked.
    pub hedged: bool,
}

/// One read of an exact version.
#[derive(Clone, Debug)]
pub struct Hedged {
    began: BootTime,
    /// Who is out: the first asked, and the second.
    out: [Option<Courier>; 2],
    /// Who is sent out as the second, and when.
    spare: Option<(BootTime, Courier)>,
    /// Why the one that came back brought nothing, while the other is still out.
    failure: Option<QuestionFailure>,
    hedged: bool,
}

impl Hedged {
    /// Asks `call` of a replica in `dc`, or of the primary where none is given; of another one when
    /// `hedge_after` has passed. `seed` spreads the tries of many clients.
    pub fn new(
        key: ObjectKey,
        dc: Option<DcId>,
        call: TenantCall,
        patience: Patience,
        hedge_after: Option<Duration>,
        now: BootTime,
        seed: u64,
    ) -> Self {
        let courier = |whom| Courier::new(whom, call.clone(), patience, now, seed);
        let first = match dc {
            Some(dc) => courier(Whom::NearestTo(dc, key.clone())),
            None => courier(Whom::PrimaryOf(key.clone())),
        };
        let spare = hedge_after.map(|wait| (now + wait, courier(Whom::AnotherOf(dc, key)).in_lane(1)));
        Self { began: now, out: [Some(first), None], spare, failure: None, hedged: false }
    }

    fn conclude(&mut self, now: BootTime, verdict: Verdict) -> Option<Heard> {
        // A refusal is the primary's word; without an answer the other one may still bring one.
        let is_word = matches!(verdict, Verdict::Answered(_) | Verdict::Refused(_));
        let answer: Result<TenantAnswer, QuestionFailure> = verdict.into();
        if let Err(failure) = &answer
            && !is_word
            && self.out.iter().any(Option::is_some)
        {
            self.failure = Some(failure.clone());
            return None;
        }
        let answer = answer.map_err(|failure| self.failure.take().unwrap_or(failure));
        Some(Heard { answer, after: now.since(self.began), hedged: self.hedged })
    }
}

impl Operation for Hedged {
    type Output = Heard;

    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Heard>> {
        if let Some((_, second)) = self.spare.take_if(|(at, _)| now >= *at) {
            self.out[1] = Some(second);
            self.hedged = true;
        }
        let mut effects = Vec::new();
        for lane in 0..self.out.len() {
            let concerns = event.exchange().is_none_or(|exchange| exchange.lane as usize == lane);
            let Some(courier) = self.out[lane].as_mut().filter(|_| concerns) else { continue };
            let Some(verdict) = courier.step(now, routes, event.clone(), &mut effects) else { continue };
            self.out[lane] = None;
            if let Some(heard) = self.conclude(now, verdict) {
                self.out = [None, None];
                self.spare = None;
                effects.push(Effect::Done(heard));
                break;
            }
        }
        effects
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        let spare = self.spare.as_ref().map(|(at, _)| *at);
        self.out.iter().flatten().filter_map(Courier::next_wakeup).chain(spare).min()
    }
}
