//! How runs are printed, and what went wrong with the command line itself.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use trefoil_sim::checkers::Violation;
use trefoil_sim::kernel::SECOND;
use trefoil_sim::product::run::Report;

/// A bar on stderr; invisible where stderr is no terminal.
pub(crate) fn bar(length: u64, unit: &str) -> ProgressBar {
    let form = format!("{{bar:30}} {{pos}}/{{len}} {unit} {{elapsed}} {{msg}}");
    let style = ProgressStyle::with_template(&form).expect("the template is a constant but for a word");
    ProgressBar::new(length).with_style(style)
}

/// Prints a run for people.
pub(crate) fn report(report: &Report) {
    println!(
        "seed {}: {}, trace {}, {} events, {} simulated seconds, {} operations ({} answered, the \
         longest after {} ms), {} faults, {} certified",
        report.seed,
        verdict_of(report),
        report.trace.hash,
        report.trace.events,
        report.sim_time / SECOND,
        report.operations,
        report.answered,
        report.longest_wait / 1_000_000,
        report.faults,
        report.certified,
    );
    for violation in &report.violations {
        println!(
            "  {} on {} at {}.{:09} s: {}",
            violation.checker,
            violation.object,
            violation.at_ns / SECOND,
            violation.at_ns % SECOND,
            violation.sentence
        );
    }
}

/// Prints what was expected of a drill and what was measured, beside the answer.
pub(crate) fn drill(report: &trefoil_drill::Report) {
    for trefoil_drill::Verdict { what, target, measured, held } in &report.verdicts {
        eprintln!("  {} {what}: {measured} ({target})", if *held { "held  " } else { "FAILED" });
    }
}

/// `clean` or `violated`.
pub(crate) fn verdict_of(report: &Report) -> &'static str {
    if report.is_clean() { "clean" } else { "violated" }
}

/// A run for programs.
pub(crate) fn as_json(report: &Report) -> serde_json::Value {
    let violation = |violation: &Violation| {
        serde_json::json!({
            "checker": violation.checker, "object": violation.object, "at_ns": violation.at_ns,
            "sentence": violation.sentence,
        })
    };
    serde_json::json!({
        "seed": report.seed,
        "verdict": verdict_of(report),
        "trace_hash": report.trace.hash.to_string(),
        "events": report.trace.events,
        "sim_seconds": report.sim_time / SECOND,
        "operations": report.operations,
        "answered": report.answered,
        "longest_wait_ms": report.longest_wait / 1_000_000,
        "certified": report.certified,
        "undecided": report.undecided,
        "faults": report.faults,
        "faults_by_kind": report.faults_by_kind,
        "violations": report.violations.iter().map(violation).collect::<Vec<_>>(),
    })
}

/// Time of the processor that this process took, from the system's own account of it.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // The kernel counts in hundredths here on every Linux that Rust supports.
    Duration::from_millis(ticks * 10).as_secs_f64()
}

/// 0 if everything held, else 1.
pub(crate) fn verdict(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The text of a file, or why there is none.
pub(crate) fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Writes a file, or says why not.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Says what is wrong with the question.
pub(crate) fn usage_error(message: &str) -> ExitCode {
    eprintln!("trefoil-sim: {message}");
    ExitCode::from(2)
}
