//! A drill from its first check to its signed report. Healing comes before everything else that may fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::task::JoinHandle;
use trefoil_client::Client;
use trefoil_drill::timeline::{Reign, Timeline};
use trefoil_drill::{Abort, Course, Document, DrillFile, End, Facts, Place, Report, Told, Verification};
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{DcId, StoreId};
use trefoil_protocol::message::admin::ClusterStatus;

use super::capacity::{self, Capacity};
use super::errands::Errands;
use super::field::Field;
use super::load::Load;
use super::playbook::{Playbook, Step};
use super::verify::Findings;
use super::{keep, preflight, tell, verify};
use crate::admin::connection::Admin;
use crate::admin::status::StatusView;
use crate::admin::wait;
use crate::failure::{Failure, Verdict};
use crate::local::hands::Deed;
use crate::process::Stop;

/// How often the conductor looks around.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often the control plane is asked for the state.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// A drill that is under way.
pub(super) struct Conductor<'f> {
    pub(super) field: Field,
    file: &'f DrillFile,
    id: String,
    operator: String,
    began: Instant,
    course: Course,
    /// What is broken now, in the file's names.
    pub(super) broken: Vec<Deed>,
    errands: Errands,
    pub(super) notes: Vec<String>,
    /// Who keeps the control plane's log.
    pub(super) voters: Vec<VoterEntry>,
    /// Where nodes are.
    pub(super) centres: BTreeSet<DcId>,
    /// Lost versions that were listed before.
    listed_before: u64,
}

/// What whoever runs a drill says beside its file.
pub(crate) struct Terms {
    /// Its name among reports ends so.
    pub(crate) stem: String,
    /// How long the healed cluster may take until every volume is whole.
    pub(crate) recovery: Duration,
    /// Operations a second that the cluster can do, if that is known.
    pub(crate) capacity: Option<u64>,
}

/// Conducts a drill.
pub(crate) async fn conduct(
    field: Field,
    file: DrillFile,
    text: String,
    playbook: Playbook,
    terms: Terms,
) -> Verdict<Document> {
    let mut stop = Stop::listen()?;
    let (now, operator, recovery) = (keep::now(), keep::who(&field.operator)?, terms.recovery);
    let measured = file.load.capacity.filter(|_| terms.capacity.is_none());
    let lasts = Duration::from_nanos(file.horizon.0)
        + recovery
        + measured.map_or(Duration::ZERO, |_| capacity::LASTS);
    let until = trefoil_drill::WallTime(now.0 + lasts.as_secs());
    let before = preflight::check(&field, &file, &playbook, now, until).await?;
    let id = format!("{}-{}", now.compact(), plain(&terms.stem));
    let first = field.tenants[0].1.clone();
    keep::begin(&first, &id, &operator, lasts).await?;
    let (file, playbook) = match fitted(&field, file, playbook, terms.capacity, &id, &mut stop).await {
        Ok(fitted) => fitted,
        Err(failure) => {
            keep::end(&first).await?;
            return Err(failure);
        }
    };
    let status = field.admin.status().await?;
    let errands = Errands::new(&file.operator, Admin::new(&field.operator)?);
    let mut conductor = Conductor {
        field,
        file: &file,
        id: id.clone(),
        operator: operator.clone(),
        began: Instant::now(),
        course: Course::default(),
        broken: Vec::new(),
        errands,
        notes: playbook.notes.clone(),
        voters: status.voters.iter().map(|voter| voter.entry).collect(),
        centres: status.nodes.iter().map(|entry| entry.dc).collect(),
        listed_before: listed_in(&status),
    };
    let report = conductor.run(&playbook, text, recovery, before.certified, &mut stop).await;
    let document = keep::sign(report, &conductor.field.operator)?;
    let kept = keep::keep(&first, &document).await;
    if let Err(failure) = kept.and(keep::end(&first).await) {
        crate::output::note(&format!("the report is not kept in the cluster: {failure}"));
    }
    Ok(document)
}

/// The drill with the rates that this cluster is to be offered.
async fn fitted(
    field: &Field,
    file: DrillFile,
    playbook: Playbook,
    known: Option<u64>,
    id: &str,
    stop: &mut Stop,
) -> Verdict<(DrillFile, Playbook)> {
    let Some(meant) = file.load.capacity else { return Ok((file, playbook)) };
    let (per_second, note) = match known {
        Some(known) => (known, format!("the cluster was said to do {known} operations a second")),
        None => {
            crate::output::note("measuring how much the cluster can do");
            let (clients, prefix) = (field.clients(), format!("drill/capacity/{id}"));
            let Capacity { per_second, clients } = tokio::select! {
                () = stop.asked() => return Err(Failure::failed("somebody interrupted it before anything was broken")),
                found = capacity::measure(&file, &clients, &prefix) => found?,
            };
            (
                per_second,
                format!("{clients} clients in closed loops had {per_second} answers a second before"),
            )
        }
    };
    let note = format!("{note}: what is offered is in proportion to that instead of {meant}");
    crate::output::note(&note);
    let file = DrillFile { load: file.load.meant_for(per_second), ..file };
    let mut playbook = Playbook::of(&file)?;
    playbook.notes.push(note);
    Ok((file, playbook))
}

/// Letters that any key and any name of a file may have.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

impl Conductor<'_> {
    async fn run(
        &mut self,
        playbook: &Playbook,
        text: String,
        recovery: Duration,
        certified_before: u64,
        stop: &mut Stop,
    ) -> Report {
        let bar = tell::drill_bar(self.file);
        let clients = self.field.clients();
        let asked_before = asked(&clients);
        let wall = keep::now();
        self.began = Instant::now();
        let load = Load::start(self.file, &clients, &format!("drill/load/{}", self.id), self.began);
        let watch = Watch::start(&self.field.operator, self.began);
        let aborted = self.strike(&playbook.steps, &load, stop, &bar).await;
        self.heal().await;
        bar.set_message("healed; the last operations end");
        let (books, seen) = load.end().await;
        let asked = asked(&clients);
        bar.set_message("waiting until every volume is whole");
        let healed = Instant::now();
        let mut found = self.until_whole(recovery).await;
        found.whole_after_ms = millis(healed.elapsed());
        let (mut timeline, put_out) = watch.end();
        bar.finish_and_clear();
        let bar = tell::verify_bar();
        let listed = self.field.rescuer.listed(&self.field.admin).await;
        let listed = listed.unwrap_or_else(|failure| {
            self.notes.push(format!("what volumes went on without could not be read: {failure}"));
            BTreeSet::new()
        });
        let mut findings = Findings { found, listed, excused: BTreeSet::new() };
        seen.wrong.into_iter().for_each(|wrong| findings.take(Some(wrong)));
        verify::verify(&clients, books.clone(), &bar, &mut findings).await;
        let Findings { found, excused, .. } = findings;
        if !excused.is_empty() {
            let count = excused.len();
            self.notes.push(format!(
                "{count} acknowledged changes are not there, and each is on the signed list of what volumes went on \
                 without: `trefoil loss list`"
            ));
        }
        bar.finish_and_clear();
        verify::clear(&clients, &books).await;
        timeline.errors = seen.errors;
        let course = Course { samples: seen.samples, ..std::mem::take(&mut self.course) };
        let status = self.field.admin.status().await;
        let (handovers, longest_pause_ms) = self.errands.measured();
        let facts = Facts {
            horizon: self.file.horizon.0,
            protections: seen.protections,
            certified: status.as_ref().map_or(0, |status| status.certified.saturating_sub(certified_before)),
            listed: status.map_or(0, |status| listed_in(&status).saturating_sub(self.listed_before)),
            declared_in_vain: self.field.rescuer.declared_in_vain(),
            lost: found.lost.len() as u64,
            handovers,
            longest_pause_ms,
            put_out,
            requests: asked.0 - asked_before.0,
            retries: asked.1 - asked_before.1,
            ..Facts::default()
        };
        let cluster = self.field.operator.cluster.as_str().to_owned();
        let place = Place::Live { cluster, operator: self.operator.clone(), began: wall };
        let (id, notes) = (self.id.clone(), std::mem::take(&mut self.notes));
        let told = Told { id, place, text, aborted, verification: found, notes };
        Report::of(self.file, &course, timeline, &facts, told)
    }

    /// Does what is to be done until the horizon. Says why it stopped before, if it did.
    async fn strike(
        &mut self,
        steps: &[Step],
        load: &Load,
        stop: &mut Stop,
        bar: &ProgressBar,
    ) -> Option<String> {
        let horizon = Duration::from_nanos(self.file.horizon.0);
        let mut waiting = steps.iter().peekable();
        while self.began.elapsed() < horizon {
            while let Some(step) = waiting.next_if(|step| step.at <= self.began.elapsed()) {
                bar.println(format!("{:6.1} s  {}", self.began.elapsed().as_secs_f64(), step.what));
                if let Err(failure) = self.take(step).await {
                    return Some(failure.message);
                }
            }
            if let Some(begun) = self.errands.go_on(self.now()).await {
                bar.println(format!("{:6.1} s  {begun}", self.began.elapsed().as_secs_f64()));
                self.course.strikes.push((self.now(), begun, false));
            }
            let (answered, failed, silent) = self.so_far(load);
            bar.set_position(self.began.elapsed().as_secs());
            bar.set_message(format!("{answered} answered, {failed} without an answer"));
            if let Some(reason) = over(&self.file.abort, failed, silent) {
                return Some(reason);
            }
            tokio::select! {
                () = stop.asked() => return Some("somebody interrupted it".to_owned()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let undone = || "the operator's plans were not carried out before the horizon".to_owned();
        (!self.errands.is_done()).then(undone)
    }

    /// Nanoseconds since the clients began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn take(&mut self, step: &Step) -> Verdict {
        let at = self.now();
        self.course.strikes.push((at, step.what.clone(), step.heals));
        for deed in &step.deeds {
            self.act(deed).await?;
        }
        match step.rescue {
            Some(rescue) => self.rescue(rescue).await,
            None => Ok(()),
        }
    }

    /// Does something, and remembers how it is undone.
    pub(super) async fn act(&mut self, deed: &Deed) -> Verdict {
        self.note_broken(deed);
        self.field.act(deed).await
    }

    /// Remembers what has to be healed.
    fn note_broken(&mut self, deed: &Deed) {
        match undoing(deed) {
            Some(undo) => self.broken.push(undo),
            None => self.broken.retain(|undo| undo != deed),
        }
    }

    /// Undoes what was done, the last first. What cannot be undone is told: it is the operator's now.
    async fn heal(&mut self) {
        if self.broken.is_empty() {
            return;
        }
        let at = self.now();
        self.course.strikes.push((at, "all is healed".to_owned(), true));
        while let Some(undo) = self.broken.pop() {
            if let Err(failure) = self.field.act(&undo).await {
                let note = format!("NOT HEALED, do it by hand: {failure}");
                crate::output::note(&note);
                self.notes.push(note);
            }
        }
    }

    /// How many operations were answered and not, and for how long none was.
    fn so_far(&self, load: &Load) -> (u64, u64, Duration) {
        let seen = load.seen();
        let answered = || seen.samples.iter().filter(|sample| sample.end != End::Failed);
        let last = answered().map(|sample| sample.ended).max().unwrap_or_default();
        let count = answered().count() as u64;
        let silent = self.began.elapsed().saturating_sub(Duration::from_nanos(last));
        (count, seen.samples.len() as u64 - count, silent)
    }

    async fn until_whole(&self, recovery: Duration) -> Verification {
        // A node that is up again is probed over the links a little later.
        let whole = |view: &StatusView| view.whole() && view.linked() && view.objects_short_of_copies == 0;
        let waited = wait::until(&self.field.admin, recovery, "every volume to be whole", whole).await;
        let mut found = Verification { whole: waited.is_ok(), ..Verification::default() };
        found.unreadable.extend(waited.err().map(|failure| failure.message));
        found
    }
}

/// What takes a deed back; nothing if the deed itself does.
fn undoing(deed: &Deed) -> Option<Deed> {
    match deed {
        Deed::Kill(name) => Some(Deed::Start(name.clone())),
        Deed::Pause(name) => Some(Deed::Continue(name.clone())),
        Deed::Starve { node, .. } => Some(Deed::Continue(node.clone())),
        Deed::Cut(link) | Deed::Model(link, _) => Some(Deed::Restore(*link)),
        Deed::Part(pair) => Some(Deed::Join(pair.clone())),
        Deed::Lose(name) => Some(Deed::Regain(name.clone())),
        Deed::Start(_) | Deed::Continue(_) | Deed::Restore(_) | Deed::Join(_) | Deed::Regain(_) => None,
    }
}

/// Requests that clients sent so far, each counted once, and retries.
fn asked(clients: &[Client]) -> (u64, u64) {
    let each = clients.iter().map(Client::retries);
    each.fold((0, 0), |sum, client| (sum.0 + client.requests(), sum.1 + client.retries()))
}

/// Why a drill is broken off now.
fn over(abort: &Abort, failed: u64, silent: Duration) -> Option<String> {
    if let Some(most) = abort.errors.filter(|most| failed > *most) {
        return Some(format!("{failed} operations had no answer, `errors` allows {most}"));
    }
    let most = abort.outage.filter(|most| silent > Duration::from_nanos(most.0))?;
    Some(format!("no client had an answer for {} s, `outage` allows {most}", silent.as_secs()))
}

/// Versions that volumes went on without, as stores told.
fn listed_in(status: &ClusterStatus) -> u64 {
    status.losses.iter().map(|loss| loss.listed.versions()).sum()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the control plane told so far.
#[derive(Default)]
struct Watched {
    timeline: Timeline,
    /// Stores that were put out because they are slow.
    put_out: BTreeSet<StoreId>,
}

/// Asks the control plane again and again what the volumes are like. It has a connection of its own: where it waits,
/// nothing else does.
struct Watch {
    seen: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(operator: &trefoil_client::Profile, began: Instant) -> Self {
        let seen = Arc::<Mutex<Watched>>::default();
        let (shared, admin) = (Arc::clone(&seen), Admin::new(operator));
        let task = tokio::spawn(async move {
            let Ok(admin) = admin else { return };
            loop {
                if let Ok(status) = admin.status().await {
                    look(
                        &mut shared.lock().unwrap_or_else(PoisonError::into_inner),
                        &status,
                        began.elapsed(),
                    );
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        });
        Self { seen, task }
    }

    /// What it saw, and how many stores were put out.
    fn end(self) -> (Timeline, u64) {
        self.task.abort();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        (seen.timeline, seen.put_out.len() as u64)
    }
}

fn look(seen: &mut Watched, status: &ClusterStatus, since: Duration) {
    seen.put_out.extend(status.slow.iter().map(|slow| slow.store));
    let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    for volume in &status.volumes {
        seen.timeline.look(volume.volume.0, Reign::of(volume, at), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_break_a_drill_off() {
        let abort =
            Abort { errors: Some(2), outage: Some(trefoil_drill::Duration(5 * trefoil_drill::SECOND)) };
        let seconds = Duration::from_secs;
        assert_eq!(over(&abort, 2, seconds(5)), None);
        assert!(over(&abort, 3, seconds(0)).is_some_and(|reason| reason.contains("`errors` allows 2")));
        assert!(over(&abort, 0, seconds(6)).is_some_and(|reason| reason.contains("`outage` allows 5s")));
        let never = Abort { errors: None, outage: None };
        assert_eq!(over(&never, u64::MAX, seconds(1_000_000)), None);
    }

    #[test]
    fn names_of_reports_are_plain() {
        assert_eq!(plain("row 01/../\u{e9}.x"), "row_01______x");
        assert!(undoing(&Deed::Start("a1".to_owned())).is_none());
    }
}
