//! What a drill tells: a bar while it runs, the table at its end, and the exit code.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use trefoil_drill::{Deed, Document, DrillFile, Outcome, Place, Report, SECOND};

use super::playbook::Playbook;
use crate::failure::{Failure, Verdict};
use crate::output;

/// A bar over the seconds of a drill.
pub(crate) fn drill_bar(file: &DrillFile) -> ProgressBar {
    styled(ProgressBar::new(file.horizon.0 / SECOND), "{bar:30} {pos}/{len} s {msg}")
}

/// A bar over the objects that are looked at.
pub(crate) fn verify_bar() -> ProgressBar {
    styled(ProgressBar::new(0), "{bar:30} {pos}/{len} objects looked at {eta}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.with_style(ProgressStyle::with_template(template).expect("our templates are valid"))
}

/// The end of a drill, for people.
pub(crate) fn table(document: &Document) -> String {
    let report = &document.report;
    let rows = report.verdicts.iter().map(|verdict| {
        let held = if verdict.held { "held" } else { "FAILED" };
        vec![verdict.what.clone(), verdict.target.clone(), verdict.measured.clone(), held.to_owned()]
    });
    let verification = &report.verification;
    let wrong =
        [&verification.lost, &verification.damaged, &verification.unreadable, &verification.violations];
    let wrong: Vec<&str> = wrong.into_iter().flatten().map(String::as_str).collect();
    let whole = if verification.whole { "every volume is whole" } else { "NOT every volume is whole" };
    let row = report.row.map_or_else(String::new, |row| format!(" (row {row})"));
    let mut text = format!(
        "{}{row}: {}\n\n{}\n\n{whole}, {} objects and {} copies of them were looked at",
        report.name,
        report.outcome_text(),
        output::table(&["EXPECTATION", "TARGET", "MEASURED", "RESULT"], rows),
        verification.objects,
        verification.copies
    );
    for line in wrong {
        text += &format!("\n  {line}");
    }
    text
}

/// The exit code that a report asks for.
pub(crate) fn verdict(report: &Report) -> Verdict {
    match &report.outcome {
        Outcome::Held => Ok(()),
        Outcome::Failed => Err(Failure::failed("not everything that was expected came")),
        Outcome::Aborted { reason } => Err(Failure::failed(format!("broken off and healed: {reason}"))),
    }
}

/// A report in a list.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    id: String,
    name: String,
    row: Option<u8>,
    outcome: String,
    rto_ms: Option<u64>,
    rto_target_ms: Option<u64>,
    lost: u64,
    operator: Option<String>,
}

impl Line {
    /// What a list says of a report.
    pub(crate) fn of(report: &Report) -> Self {
        let operator = match &report.place {
            Place::Live { operator, .. } => Some(operator.clone()),
            Place::Simulated { .. } => None,
        };
        Self {
            id: report.id.clone(),
            name: report.name.clone(),
            row: report.row,
            outcome: report.outcome_text(),
            rto_ms: report.rto_ms,
            rto_target_ms: report.rto_target_ms,
            lost: report.rpo_lost,
            operator,
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let seconds = |ms: Option<u64>| {
            let tenths = |ms: u64| format!("{}.{} s", ms.div_ceil(100) / 10, ms.div_ceil(100) % 10);
            ms.map_or_else(|| "-".to_owned(), tenths)
        };
        let (rto, target) = (seconds(self.rto_ms), seconds(self.rto_target_ms));
        format!("{}  {}  RTO {rto} of {target}, {} lost  {}", self.id, self.outcome, self.lost, self.name)
    }
}

/// What `drill verify` says.
#[derive(Debug, Serialize)]
pub(crate) struct Valid {
    pub(crate) valid: bool,
    pub(crate) signer: String,
}

/// What `drill check` says.
#[derive(Debug, Serialize)]
pub(crate) struct Steps {
    name: String,
    seconds: u64,
    steps: Vec<StepLine>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepLine {
    at_ms: u128,
    what: String,
    deeds: Vec<String>,
}

/// What operators do, as the verb that does it.
fn verb(rescue: Deed) -> String {
    let verb = match rescue {
        Deed::Backup => "trefoil backup",
        Deed::Lose => "kill and lose every voter",
        Deed::Restore => "trefoil restore, with a second operator, on every voter",
        Deed::Survive => "kill every other voter; trefoil restore --survivor, with a second operator",
        Deed::AcceptLoss => "trefoil loss accept, with a second operator",
        Deed::Discard => "trefoil loss discard, with a second operator",
        Deed::DeclareDead => "trefoil loss accept, which must be refused",
    };
    verb.to_owned()
}

/// Rates are offered as they stand where a cluster can do so much.
fn in_proportion(capacity: u64) -> String {
    format!(
        "operations a second are those for a cluster that can do {capacity}: `drill run` measures how many this one \
         can do and offers in proportion"
    )
}

impl Steps {
    /// What a drill would do.
    pub(crate) fn of(file: &DrillFile, playbook: &Playbook) -> Self {
        let line = |step: &super::playbook::Step| StepLine {
            at_ms: step.at.as_millis(),
            what: step.what.clone(),
            deeds: step.deeds.iter().map(ToString::to_string).chain(step.rescue.map(verb)).collect(),
        };
        Self {
            name: file.name.clone(),
            seconds: file.horizon.0 / SECOND,
            steps: playbook.steps.iter().map(line).collect(),
            notes: playbook.notes.iter().cloned().chain(file.load.capacity.map(in_proportion)).collect(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let rows = self.steps.iter().map(|step| {
            let at = format!("{}.{} s", step.at_ms / 1_000, step.at_ms % 1_000 / 100);
            vec![at, step.what.clone(), step.deeds.join(", ")]
        });
        let table = output::table(&["AT", "WHAT", "DEEDS"], rows);
        let notes: String = self.notes.iter().map(|note| format!("\n{note}")).collect();
        format!("{}, {} s of load\n\n{table}{notes}", self.name, self.seconds)
    }
}
