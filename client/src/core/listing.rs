//! One page of a listing: one answer of every volume, merged by key bytes. A volume that cannot answer
//! fails the page; there is no partial page (`listing_across_volumes`).

use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{ListEntry, TenantAnswer, TenantCall};
use trefoil_protocol::mutant;
use trefoil_protocol::time::BootTime;

use super::courier::{Courier, Whom};
use super::patience::Patience;
use super::question::QuestionFailure;
use super::route::RouteCache;
use super::{Effect, Event, Operation};
use crate::failure::Damage;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingKind {
    /// Live objects.
    Live,
    /// Deleted objects that can still be undeleted.
    Deleted,
}

/// One volume's part of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePage {
    /// Its lines, ordered by key bytes.
    pub entries: Vec<ListEntry>,
    /// Whether more follow behind the last one.
    pub more: bool,
}

/// A page over all volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedPage {
    /// Its lines, ordered by key bytes.
    pub entries: Vec<ListEntry>,
    /// Whether more follow behind the last one.
    pub more: bool,
}

/// Merges one page of each volume into the first `limit` lines of all of them.
///
/// A volume that has more stops speaking at its last line: beyond it, nothing of the others can be
/// given, because something of it might belong before.
pub fn merge(pages: Vec<VolumePage>, limit: usize) -> MergedPage {
    let bound = pages.iter().filter(|page| page.more).filter_map(|page| page.entries.last()).map(|e| &e.key);
    let bound: Option<ObjectKey> = bound.min().cloned();
    let mut entries: Vec<ListEntry> = pages.into_iter().flat_map(|page| page.entries).collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let given = match &bound {
        Some(bound) => entries.partition_point(|entry| entry.key <= *bound),
        None => entries.len(),
    };
    let kept = given.min(limit);
    let more = bound.is_some() || kept < entries.len();
    entries.truncate(kept);
    MergedPage { entries, more }
}

/// A page that is being asked for.
#[derive(Clone, Debug)]
pub struct Listing {
    kind: ListingKind,
    prefix: String,
    after: Option<ObjectKey>,
    limit: u32,
    patience: Patience,
    began: BootTime,
    seed: u64,
    /// Asks for the route while no volume is known.
    scout: Option<Courier>,
    /// One for each slot, in lane slot + 1.
    couriers: Vec<Courier>,
    pages: Vec<Option<VolumePage>>,
    is_over: bool,
}

impl Listing {
    /// A page of at most `limit` keys that begin with `prefix`, after `after`.
    pub fn new(
        kind: ListingKind,
        prefix: String,
        after: Option<ObjectKey>,
        limit: u32,
        patience: Patience,
        now: BootTime,
        seed: u64,
    ) -> Self {
        let scout = Courier::new(Whom::Informant, TenantCall::Route, patience, now, seed);
        Self {
            kind,
            prefix,
            after,
            limit,
            patience,
            began: now,
            seed,
            scout: Some(scout),
            couriers: Vec::new(),
            pages: Vec::new(),
            is_over: false,
        }
    }

    fn call(&self) -> TenantCall {
        let (prefix, after, limit) = (self.prefix.clone(), self.after.clone(), self.limit);
        match self.kind {
            ListingKind::Live => TenantCall::List { prefix, after, limit },
            ListingKind::Deleted => TenantCall::Deleted { prefix, after, limit },
        }
    }

    fn scout<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        event: Event,
        effects: &mut Vec<Effect<T>>,
    ) -> Result<(), QuestionFailure> {
        if routes.slots() == 0
            && let Some(scout) = &mut self.scout
            && let Some(verdict) = scout.step(now, routes, event, effects)
        {
            match Result::from(verdict)? {
                TenantAnswer::Route(view) => routes.learn(view).map_err(QuestionFailure::Broken)?,
                _ => return Err(QuestionFailure::Broken(Damage::Answer("a route was asked for"))),
            }
        }
        if routes.slots() > 0 && self.scout.take().is_some() {
            self.send_couriers(now, routes, effects)?;
        }
        Ok(())
    }

    fn send_couriers<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        effects: &mut Vec<Effect<T>>,
    ) -> Result<(), QuestionFailure> {
        let deadline = self.began + self.patience.deadline;
        for slot in 0..routes.slots() {
            let seed = self.seed.wrapping_add(u64::from(slot));
            let courier = Courier::new(Whom::PrimaryOfSlot(slot), self.call(), self.patience, now, seed);
            self.couriers.push(courier.in_lane(slot + 1).with_deadline(deadline));
            self.pages.push(None);
        }
        for slot in 0..self.couriers.len() {
            self.advance(slot, now, routes, Event::Wakeup, effects)?;
        }
        Ok(())
    }

    fn advance<T>(
        &mut self,
        slot: usize,
        now: BootTime,
        routes: &mut RouteCache,
        event: Event,
        effects: &mut Vec<Effect<T>>,
    ) -> Result<(), QuestionFailure> {
        if let Some(verdict) = self.couriers[slot].step(now, routes, event, effects) {
            let page = match Result::from(verdict)? {
                TenantAnswer::Page { entries, more } => VolumePage { entries, more },
                _ => return Err(QuestionFailure::Broken(Damage::Answer("a page was asked for"))),
            };
            self.check(&page).map_err(QuestionFailure::Broken)?;
            self.pages[slot] = Some(page);
        }
        Ok(())
    }

    fn check(&self, page: &VolumePage) -> Result<(), Damage> {
        if page.more && page.entries.is_empty() {
            return Err(Damage::Answer("a page with more behind it has a line"));
        }
        if page.entries.len() > self.limit as usize {
            return Err(Damage::Answer("a page has at most as many lines as were asked for"));
        }
        let mut before = self.after.as_ref();
        for entry in &page.entries {
            if before.is_some_and(|before| entry.key <= *before) {
                return Err(Damage::Answer("a page is ordered by key bytes, after the key given"));
            }
            if !entry.key.as_str().starts_with(&self.prefix) {
                return Err(Damage::Answer("a page has only keys with the prefix"));
            }
            before = Some(&entry.key);
        }
        Ok(())
    }

    /// Hands the event to the couriers it concerns.
    fn dispatch<T>(
        &mut self,
        now: BootTime,
        routes: &mut RouteCache,
        event: Event,
        effects: &mut Vec<Effect<T>>,
    ) -> Result<(), QuestionFailure> {
        let lane = match &event {
            Event::Wakeup => None,
            Event::Progress(exchange)
            | Event::Ended(exchange)
            | Event::Answered(exchange, _)
            | Event::Failed(exchange, _) => Some(exchange.lane),
        };
        if self.scout.is_some() {
            return self.scout(now, routes, event, effects);
        }
        match lane {
            None => (0..self.couriers.len())
                .try_for_each(|slot| self.advance(slot, now, routes, Event::Wakeup, effects)),
            Some(lane) if (1..=self.couriers.len()).contains(&(lane as usize)) => {
                self.advance(lane as usize - 1, now, routes, event, effects)
            }
            Some(_) => Ok(()),
        }
    }

    fn is_complete(&self) -> bool {
        let every = self.pages.iter().all(Option::is_some);
        self.scout.is_none() && mutant!(R22, every, self.pages.iter().any(Option::is_some))
    }
}

impl Operation for Listing {
    type Output = Result<MergedPage, QuestionFailure>;

    fn step(&mut self, now: BootTime, routes: &mut RouteCache, event: Event) -> Vec<Effect<Self::Output>> {
        let mut effects = Vec::new();
        if self.is_over {
            return effects;
        }
        let output = match self.dispatch(now, routes, event, &mut effects) {
            Err(failure) => Some(Err(failure)),
            Ok(()) if self.is_complete() => {
                let pages = self.pages.drain(..).flatten().collect();
                Some(Ok(merge(pages, self.limit as usize)))
            }
            Ok(()) => None,
        };
        if let Some(output) = output {
            self.is_over = true;
            effects.push(Effect::Done(output));
        }
        effects
    }

    fn next_wakeup(&self) -> Option<BootTime> {
        if self.is_over {
            return None;
        }
        let scouts = self.scout.iter().filter_map(Courier::next_wakeup);
        self.couriers.iter().filter_map(Courier::next_wakeup).chain(scouts).min()
    }
}
