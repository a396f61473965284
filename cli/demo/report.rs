//! What the demo tells: a line while a step runs, a line when it has ended, and the table at the
//! end. Progress goes to standard error, the summary to standard output.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::verdict::Judgement;
use crate::output::{self, Format};

/// What `demo --json` says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) steps: Vec<StepView>,
    pub(crate) acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) ok: bool,
    pub(crate) seconds: f64,
}

/// One step.
#[derive(Debug, Serialize)]
pub(crate) struct StepView {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) pause_ms: Option<u64>,
    pub(crate) detail: String,
    pub(crate) seconds: f64,
}

/// Tells the story as it happens.
pub(crate) struct Report {
    began: Instant,
    step: Instant,
    name: String,
    bar: ProgressBar,
    pub(crate) summary: Summary,
}

impl Report {
    /// Nothing told yet.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            step: now,
            name: String::new(),
            bar: ProgressBar::hidden(),
            summary: Summary::default(),
        }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, name: &str) {
        self.step = Instant::now();
        name.clone_into(&mut self.name);
        output::note(&format!("-- {name}"));
        let style = ProgressStyle::with_template("   {spinner} {msg} ({elapsed})").expect("a valid template");
        self.bar = ProgressBar::new_spinner().with_style(style);
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Says what the step is doing.
    pub(crate) fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// The bar of the current step, for others to write on.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// The step has ended.
    pub(crate) fn end(&mut self, judgement: &Judgement) {
        self.bar.finish_and_clear();
        let took = self.step.elapsed().as_secs_f64();
        let word = if judgement.ok { "ok" } else { "FAILED" };
        let pause =
            judgement.pause.map_or_else(String::new, |pause| format!(", longest wait {}", seconds(pause)));
        output::note(&format!("   {word} in {took:.1} s{pause}: {}", judgement.detail));
        self.summary.steps.push(StepView {
            name: self.name.clone(),
            ok: judgement.ok,
            pause_ms: judgement.pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            detail: judgement.detail.clone(),
            seconds: took,
        });
    }

    /// The story has ended, as far as it came.
    pub(crate) fn finish(mut self, complete: bool, format: Format) -> bool {
        self.bar.finish_and_clear();
        let all = self.summary.steps.iter().all(|step| step.ok);
        self.summary.ok = complete && all && self.summary.lost == 0;
        self.summary.seconds = self.began.elapsed().as_secs_f64();
        format.answer(&self.summary, in_words);
        self.summary.ok
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn in_words(summary: &Summary) -> String {
    let rows = summary.steps.iter().map(|step| {
        let pause = step.pause_ms.map(|pause| seconds(Duration::from_millis(pause)));
        let held = if step.ok { "held" } else { "FAILED" };
        vec![step.name.clone(), held.to_owned(), pause.unwrap_or_default(), format!("{:.1} s", step.seconds)]
    });
    let verdict = if summary.ok { "Every step held" } else { "NOT every step held" };
    format!(
        "\n{}\n\n{verdict}: {} objects acknowledged, {} lost, {:.0} s.\n\
         One placement process stood in for the third site. It was restarted; its loss for good is not part of this\n\
         show: `trefoil dev --voters 5` runs a control plane over both data centres and a third site.",
        output::table(&["STEP", "RESULT", "LONGEST WAIT", "TOOK"], rows),
        summary.acknowledged,
        summary.lost,
        summary.seconds
    )
}
