//! A read of one exact version by a caller that takes an answer which may be stale. It is asked for as
//! any other first; when nobody who may answer does, any member is asked that holds it, one after the
//! other, the nearest first, and one that has lost the control plane marks its answer.
//!
//! Nobody else ever asks so: who did not say that stale answers will do, hears none.

use std::time::Duration;

use trefoil_protocol::ids::{DcId, NodeId, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Refusal, Selector, TenantAnswer, TenantCall, Want};
use trefoil_protocol::time::BootTime;

use super::courier::{Courier, Repeat, Verdict, Whom, in_sync};
use super::patience::Patience;
use super::question::QuestionFailure;
use super::route::RouteCache;
use super::{Effect, Event, Operation};
use crate::failure::{Peer, Trouble};

/// For so long somebody with a lease is looked for.
const PROPERLY: Duration = Duration::from_secs(2);
/// So long one member is waited for: it may be gone, and others hold the version too.
const EACH: Duration = Duration::from_secs(1);

/// One read of an exact version that may be answered with a mark.
#[derive(Clone, Debug)]
pub struct Lenient {
    key: ObjectKey,
    version: VersionId,
    want: Want,
    dc: Option<DcId>,
    patience: Patience,
    deadline: BootTime,
    seed: u64,
    /// Who is out; `None` when it is over.
    courier: Option<Courier>,
    /// The member that is asked, unless it is asked for properly.
    asked: Option<NodeId>,
    /// Members that are to be asked after it.
    left: Vec<NodeId>,
    /// A member that says that it has no such version, or has deleted it.
    without: Option<NodeId>,
}

impl Lenient {
    /// Asks for `want` of a version, of members in `dc` before others. `seed` spreads the tries of many clients.
    pub fn new(
        key: ObjectKey,
        version: VersionId,
        want: Want,
        dc: Option<DcId>,
        patience: Patience,
        now: BootTime,
        seed: u64,
    ) -> Self {
        let deadline = now + patience.deadline;
        let (asked, left, without) = (None, Vec::new(), None);
        let mut read =
            Self { key, version, want, dc, patience, deadline, seed, courier: None, asked, left, without };
        read.courier = Some(read.properly(now));
        read
    }

    /// To whoever answers under a lease.
    fn properly(&self, now: BootTime) -> Courier {
        let whom = match self.dc {
            Some(dc) => Whom::NearestTo(dc, self.key.clone()),
            None => Whom::PrimaryOf(self.key.clone()),
        };
        self.courier(whom, Selector::Version(self.version), now)
            .with_deadline(self.deadline.min(now + PROPERLY))
    }

    /// To one member, once.
    fn to_member(&self, node: NodeId, now: BootTime) -> Courier {
        let whom = Whom::Holder(node, self.key.clone());
        self.courier(whom, Selector::StalePossible(self.version), now)
            .with_repeat(Repeat::Never)
            .with_deadline(self.deadline.min(now + EACH))
    }

    fn courier(&self, whom: Whom, selector: Selector, now: BootTime) -> Courier {
        let call = TenantCall::Get { key: self.key.clone(), selector, want: self.want.clone() };
        let courier = Courier::new(whom, call, self.patience, now, self.seed);
        match &self.courier {
            Some(before) => courier.after(before),
            None => courier,
        }
    }

    /// The courier came back with nothing: who is asked next, or why nobody is.
    fn go_on(&mut self, now: BootTime, routes: &RouteCache, trouble: Trouble) -> Result<(), Trouble> {
        if now >= self.deadline {
            return Err(trouble);
        }
        if self.asked.is_none() {
            self.left = self.members(routes);
        }
        let next = self.left.pop();
        // Somebody has no such version, and nobody has one.
        if let (None, Some(node)) = (next, self.without) {
            return Err(Trouble::Refused(Peer::Node(node), Refusal::Changed));
        }
        self.courier = Some(match next {
            Some(node) => self.to_member(node, now),
            None => self.properly(now),
        });
        self.asked = next;
        Ok(())
    }

    /// The members that hold everything, whom to ask first last.
    fn members(&self, routes: &RouteCache) -> Vec<NodeId> {
        let Some(config) = routes.volume_of(&self.key) else { return Vec::new() };
        let mut members: Vec<_> = in_sync(config).collect();
        members.sort_by_key(|member| Some(member.dc) == self.dc);
        members.into_iter().map(|member| member.node).collect()
    }
}

impl Operation for Lenient {
    type Output = Result<TenantAnswer, QuestionFailure>;

    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Self::Output>> {
        let mut effects = Vec::new();
        let mut event = event;
        loop {
            let Some(courier) = &mut self.courier else { return effects };
            let Some(verdict) = courier.step(now, routes, event, &mut effects) else { return effects };
            let trouble = match (verdict, self.asked) {
                (Verdict::GaveUp(trouble), _) => trouble,
                // One that is not the primary may not know the version yet: others are asked too.
                (Verdict::Refused(refusal), Some(node)) => {
                    self.without = Some(node);
                    Trouble::Refused(Peer::Node(node), refusal)
                }
                (verdict, _) => {
                    self.courier = None;
                    effects.push(Effect::Done(verdict.into()));
                    return effects;
                }
            };
            if let Err(trouble) = self.go_on(now, routes, trouble) {
                self.courier = None;
                effects.push(Effect::Done(Err(QuestionFailure::Unavailable(trouble))));
                return effects;
            }
            event = Event::Wakeup;
        }
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        self.courier.as_ref().and_then(Courier::next_wakeup)
    }
}
