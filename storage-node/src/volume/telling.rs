//! A store that a volume went on without, back again: before anybody gives up what it has, it finds with
//! the primary where their logs part, compares what its own log says behind that place, and tells the
//! control plane which versions it has alone. It tells no name, and changes nothing.
//!
//! Each question is asked again when the control plane's next news says that there is something to tell;
//! a run that ends half way begins anew, and goes on where the control plane had heard it.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_engine::index::VersionState;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Lsn, VersionId};
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest};
use trefoil_protocol::message::loss::{
    COMPARE_POINTS_MAX, Compare, Compared, Difference, LOSS_PAGE_MAX, LostKind, LostVersion, Standing,
};
use trefoil_protocol::message::peer::{LogPoint, PeerBody};
use trefoil_protocol::record::{Record, RecordBody};
use trefoil_protocol::time::{BootTime, CpTime};

use super::holding::Holding;
use super::primary::is_due;
use crate::event::ControlTicket;
use crate::outbox::Context;

/// A question without an answer is asked again after this long.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A version that a record of this store touched.
#[derive(Clone, Copy, Debug)]
struct Touched {
    version: VersionId,
    lsn: Lsn,
    at: CpTime,
    /// Its sealed bytes, if the record put it.
    put: Option<u64>,
}

/// Records of this store's log that are compared at once.
#[derive(Clone, Debug)]
struct Page {
    up_to: Lsn,
    touched: Vec<Touched>,
    unreadable: u64,
}

/// How far it is.
#[derive(Clone, Debug)]
enum Stage {
    /// The logs are the same up to `low`, and not the same at `high`.
    Seeking { low: Lsn, high: Lsn },
    /// Asking the control plane how far it heard this store.
    Asking,
    /// Comparing a page.
    Comparing(Page),
    /// Telling what differs.
    Telling(Difference),
    /// Everything was heard.
    Over,
}

/// One store's telling of one volume, in one run and epoch.
#[derive(Clone, Debug)]
pub struct Telling {
    stage: Stage,
    /// The last record that is in both logs.
    shared: Lsn,
    /// Up to here the control plane has heard.
    heard: Lsn,
    /// Up to here is compared; nothing differs between the two.
    compared: Lsn,
    unreadable: u64,
    number: u64,
    asked_at: Option<BootTime>,
    ticket: Option<ControlTicket>,
}

impl Telling {
    /// Begins: nothing is known of the other log.
    pub fn begin<D: Disk>(holding: &Holding<D>) -> Self {
        let high = holding.last().lsn.next();
        Self {
            stage: Stage::Seeking { low: Lsn::ZERO, high },
            shared: Lsn::ZERO,
            heard: Lsn::ZERO,
            compared: Lsn::ZERO,
            unreadable: 0,
            number: 0,
            asked_at: None,
            ticket: None,
        }
    }

    /// Whether everything was heard.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Asks what has to be asked now, or again.
    pub fn settle<D: Disk>(&mut self, holding: &Holding<D>, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        if !is_due(self.asked_at, ASK_EVERY, cx.now) {
            return;
        }
        self.asked_at = Some(cx.now);
        match &self.stage {
            Stage::Seeking { low, high } => {
                let points = points(holding, *low, *high);
                self.compare(Compare { number: 0, points, versions: Vec::new() }, config, cx);
            }
            Stage::Comparing(page) => {
                let versions = page.touched.iter().map(|touched| touched.version).collect();
                self.compare(Compare { number: 0, points: Vec::new(), versions }, config, cx);
            }
            Stage::Asking => {
                let question = self.page(self.heard, Vec::new(), config, cx);
                self.tell(Difference { last: false, unreadable: 0, ..question }, config, cx);
            }
            Stage::Telling(page) => self.tell(page.clone(), config, cx),
            Stage::Over => {}
        }
    }

    fn compare<D: Disk>(&mut self, question: Compare, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let Some(primary) = config.primary else { return };
        self.number += 1;
        cx.tell(config, primary, PeerBody::Compare(Compare { number: self.number, ..question }));
    }

    fn tell<D: Disk>(&mut self, page: Difference, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        let request = ControlRequest::Differs(page);
        match self.ticket {
            Some(ticket) => cx.out.ask_again_for(config.volume, ticket, request),
            None => self.ticket = Some(cx.out.ask_for(config.volume, request)),
        }
    }

    fn page<D: Disk>(
        &self,
        up_to: Lsn,
        versions: Vec<LostVersion>,
        config: &VolumeConfig,
        cx: &Context<'_, D>,
    ) -> Difference {
        Difference {
            volume: config.volume,
            epoch: config.epoch,
            store: cx.identity.store,
            shared: self.shared,
            after: self.heard,
            up_to,
            versions,
            unreadable: self.unreadable,
            last: true,
        }
    }

    /// The primary answered.
    pub fn compared<D: Disk>(
        &mut self,
        answer: &Compared,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        if answer.number != self.number {
            return;
        }
        match &self.stage {
            Stage::Seeking { low, high } => {
                let asked = points(holding, *low, *high);
                let shared = answer.shared.max(*low);
                let next = asked.iter().map(|point| point.lsn).find(|lsn| *lsn > shared);
                let high = next.unwrap_or(*high).min(*high);
                self.stage = match points(holding, shared, high).is_empty() {
                    false => Stage::Seeking { low: shared, high },
                    true => {
                        (self.shared, self.heard, self.compared) = (shared, shared, shared);
                        Stage::Asking
                    }
                };
            }
            Stage::Comparing(page) if page.touched.len() == answer.standings.len() => {
                let page = page.clone();
                self.compared = page.up_to;
                self.unreadable += page.unreadable;
                let versions = self.differing(&page, &answer.standings, holding);
                self.go_on(versions, holding, config, cx);
            }
            _ => return,
        }
        self.hurry(holding, config, cx);
    }

    /// What differs is told; if nothing does, the next page is compared.
    fn go_on<D: Disk>(
        &mut self,
        versions: Vec<LostVersion>,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &Context<'_, D>,
    ) {
        let last = self.compared >= holding.last().lsn;
        self.stage = match versions.is_empty() && !last {
            true => Stage::Comparing(next_page(holding, self.compared)),
            false => Stage::Telling(Difference { last, ..self.page(self.compared, versions, config, cx) }),
        };
    }

    /// The control plane answered; `false` if it was asked by somebody else.
    pub fn answered<D: Disk>(
        &mut self,
        ticket: ControlTicket,
        answer: &ControlAnswer,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> bool {
        if self.ticket != Some(ticket) {
            return false;
        }
        self.ticket = None;
        let ControlAnswer::Heard { up_to, all } = answer else { return true };
        (self.heard, self.compared, self.unreadable) = (*up_to, *up_to, 0);
        match all {
            true => self.stage = Stage::Over,
            // The volume went on without this store once more.
            false if *up_to < self.shared => *self = Self::begin(holding),
            false if *up_to >= holding.last().lsn => self.go_on(Vec::new(), holding, config, cx),
            false => self.stage = Stage::Comparing(next_page(holding, *up_to)),
        }
        self.hurry(holding, config, cx);
        true
    }

    fn hurry<D: Disk>(&mut self, holding: &Holding<D>, config: &VolumeConfig, cx: &mut Context<'_, D>) {
        self.asked_at = None;
        self.settle(holding, config, cx);
    }

    /// What this store has otherwise than the primary.
    fn differing<D: Disk>(
        &self,
        page: &Page,
        standings: &[Standing],
        holding: &Holding<D>,
    ) -> Vec<LostVersion> {
        let tail = standing_in_tail(holding);
        let mut found = BTreeMap::new();
        for (touched, there) in page.touched.iter().zip(standings) {
            let Touched { version, lsn, at, put } = *touched;
            let here = tail.get(&version).copied().or_else(|| standing_of(holding, version));
            let Some(kind) = here.and_then(|here| kind_of(here, *there, self.shared)) else { continue };
            let bytes = if *there == Standing::Unknown { put.unwrap_or_default() } else { 0 };
            let committed = lsn <= holding.known_committed();
            let lost = LostVersion { version, lsn, kind, bytes, at, committed };
            let known = found.entry(version).or_insert(lost);
            *known = LostVersion { bytes: known.bytes.max(bytes), ..lost };
        }
        found.into_values().collect()
    }
}

/// What the volume lacks of a version that stands so here and so there.
fn kind_of(here: Standing, there: Standing, shared: Lsn) -> Option<LostKind> {
    match (here, there) {
        (Standing::Live, Standing::Unknown) => Some(LostKind::Put),
        (Standing::Hidden(_), Standing::Unknown | Standing::Live) => Some(LostKind::Delete),
        (Standing::Gone, Standing::Live) => Some(LostKind::Delete),
        // What was hidden later, by whoever went on, was not brought back here.
        (Standing::Live, Standing::Hidden(tombstone)) if tombstone <= shared => Some(LostKind::Undelete),
        _ => None,
    }
}

/// How a version stands in the committed part of a log, if it is known there.
pub fn standing_of<D: Disk>(holding: &Holding<D>, version: VersionId) -> Option<Standing> {
    Some(match holding.index().version(version)?.state {
        VersionState::Live => Standing::Live,
        VersionState::Deleted(tombstone) => Standing::Hidden(tombstone.lsn),
        _ => Standing::Gone,
    })
}

/// What the part of the log says that is not known to be committed.
fn standing_in_tail<D: Disk>(holding: &Holding<D>) -> BTreeMap<VersionId, Standing> {
    let mut standing = BTreeMap::new();
    for record in holding.tail() {
        let lsn = record.lsn();
        match record.body() {
            RecordBody::Put(put) => {
                standing.extend(put.replaces.map(|replaced| (replaced, Standing::Hidden(lsn))));
                standing.insert(put.upload.version, Standing::Live);
            }
            RecordBody::Delete(delete) => {
                standing.insert(delete.version, Standing::Hidden(lsn));
            }
            RecordBody::Undelete(undelete) => {
                standing.insert(undelete.version, Standing::Live);
            }
            RecordBody::Purging(purging) => {
                standing.extend(purging.items.iter().map(|item| (item.version, Standing::Gone)));
            }
            _ => {}
        }
    }
    standing
}

/// Places of this log between the two, evenly; none if there is nothing between them.
fn points<D: Disk>(holding: &Holding<D>, low: Lsn, high: Lsn) -> Vec<LogPoint> {
    let between = high.0.saturating_sub(low.0 + 1);
    let step = between.div_ceil(COMPARE_POINTS_MAX as u64).max(1);
    // The last one before `high` first: most often the logs are the same for long.
    let places = (0..COMPARE_POINTS_MAX as u64).map_while(|n| high.0.checked_sub(1 + n * step));
    let places = places.take_while(|place| *place > low.0);
    let mut points: Vec<LogPoint> = places.filter_map(|place| holding.point(Lsn(place))).collect();
    points.reverse();
    points
}

/// The records behind `after`, as many as one question holds.
fn next_page<D: Disk>(holding: &Holding<D>, after: Lsn) -> Page {
    let mut page = Page { up_to: after, touched: Vec::new(), unreadable: 0 };
    let last = holding.last().lsn;
    // A put touches two versions.
    while page.up_to < last
        && page.touched.len() + 2 <= LOSS_PAGE_MAX
        && page.up_to.0 < after.0 + LOSS_PAGE_MAX as u64
    {
        let lsn = page.up_to.next();
        match holding.record(lsn) {
            Ok(record) => page.touched.extend(touched_by(&record)),
            Err(_) => page.unreadable += 1,
        }
        page.up_to = lsn;
    }
    page
}

fn touched_by(record: &Record) -> Vec<Touched> {
    let (lsn, body) = (record.lsn(), record.body());
    let Some(at) = body.cause().map(|cause| cause.at) else { return Vec::new() };
    let touched = |version, put| Touched { version, lsn, at, put };
    match body {
        RecordBody::Put(put) => {
            let replaced = put.replaces.map(|replaced| touched(replaced, None));
            replaced.into_iter().chain([touched(put.upload.version, Some(put.sealed_length))]).collect()
        }
        RecordBody::Delete(delete) => vec![touched(delete.version, None)],
        RecordBody::Undelete(undelete) => vec![touched(undelete.version, None)],
        _ => Vec::new(),
    }
}

/// The primary says what it has.
pub fn compare<D: Disk>(holding: &Holding<D>, question: &Compare) -> Compared {
    let shared = question.points.iter().filter(|point| holding.passes(**point)).map(|point| point.lsn);
    let standing = |version: &VersionId| standing_of(holding, *version).unwrap_or(Standing::Unknown);
    Compared {
        number: question.number,
        shared: shared.max().unwrap_or_default(),
        standings: question.versions.iter().map(standing).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hidden_later_by_whoever_went_on_is_no_loss() {
        let hidden = |lsn| Standing::Hidden(Lsn(lsn));
        assert_eq!(kind_of(Standing::Live, hidden(7), Lsn(9)), Some(LostKind::Undelete));
        assert_eq!(kind_of(Standing::Live, hidden(10), Lsn(9)), None);
        assert_eq!(kind_of(Standing::Live, Standing::Unknown, Lsn(9)), Some(LostKind::Put));
        assert_eq!(kind_of(hidden(12), Standing::Unknown, Lsn(9)), Some(LostKind::Delete));
        assert_eq!(kind_of(hidden(12), Standing::Live, Lsn(9)), Some(LostKind::Delete));
        assert_eq!(kind_of(hidden(12), hidden(14), Lsn(9)), None, "it was replayed");
        assert_eq!(kind_of(Standing::Gone, Standing::Unknown, Lsn(9)), None, "nothing of it is left here");
    }
}
