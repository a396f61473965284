//! What a soak did: hours, seeds, faults by kind, operations; and one run as a picture. All numbers
//! come from the runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use trefoil_drill::Document;
use trefoil_sim::product::run::{Profile, Report, Setting};
use trefoil_sim::product::scenario::Scenario;

use crate::Under;
use crate::database::{Database, Row};
use crate::page::page;
use crate::print::{as_json, verdict, write};

/// Sums over all runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) violating: u64,
    pub(crate) simulated_hours: f64,
    pub(crate) events: u64,
    pub(crate) operations_checked: u64,
    pub(crate) certified: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) faults_by_kind: BTreeMap<String, u64>,
    pub(crate) checkers: BTreeMap<String, u64>,
    pub(crate) commits: BTreeMap<String, u64>,
}

impl Totals {
    fn of(rows: &[Row]) -> Self {
        let mut totals = Self::default();
        for row in rows {
            totals.seeds += 1;
            totals.violating += u64::from(!row.is_clean());
            #[expect(clippy::cast_precision_loss, reason = "hours need no more than 53 bits of seconds")]
            let hours = row.sim_seconds as f64 / 3_600.0;
            totals.simulated_hours += hours;
            totals.events += row.events;
            totals.operations_checked += row.operations;
            totals.certified += row.certified;
            totals.cpu_seconds += row.cpu_seconds;
            *totals.commits.entry(row.commit.clone()).or_default() += 1;
            for (kind, count) in &row.faults {
                *totals.faults_by_kind.entry(kind.clone()).or_default() += count;
            }
            for checker in &row.checkers {
                *totals.checkers.entry(checker.clone()).or_default() += 1;
            }
        }
        totals
    }

    fn print(&self) {
        println!(
            "{} seeds, {} with violations; {:.2} hours simulated in {:.1} CPU-seconds",
            self.seeds, self.violating, self.simulated_hours, self.cpu_seconds
        );
        println!(
            "{} events, {} operations checked, {} deletes certified",
            self.events, self.operations_checked, self.certified
        );
        for (title, counts) in
            [("faults", &self.faults_by_kind), ("checkers that fired, in seeds", &self.checkers)]
        {
            if !counts.is_empty() {
                println!("{title}:");
            }
            for (name, count) in counts {
                println!("  {count:>8} {name}");
            }
        }
    }
}

/// A run, and what it came to as a drill.
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) document: Document,
}

impl Run {
    /// Runs a scenario under a seed.
    pub(crate) fn of(seed: u64, scenario: &Scenario) -> Result<Self, String> {
        let report = scenario.run(seed, None).map_err(|error| error.to_string())?;
        let document = scenario.document(&report);
        Ok(Self { report, document })
    }
}

/// Reports on a soak, or on one run.
pub(crate) fn report(
    soak: Option<&Path>,
    seed: Option<u64>,
    under: &Under,
    html: Option<&Path>,
    json: bool,
) -> Result<ExitCode, String> {
    let rows = soak.map_or(Ok(Vec::new()), |folder| Database::of(folder).rows())?;
    if rows.is_empty() && seed.is_none() {
        return Err("there are no runs in that folder; `trefoil-sim soak` makes some".to_owned());
    }
    let shown = match (seed, html) {
        (Some(seed), _) => Some(Run::of(seed, &under.scenario(seed)?)?),
        (None, Some(_)) => most_telling(&rows).map(again).transpose()?,
        (None, None) => None,
    };
    let rows = match (soak, &shown) {
        (None, Some(run)) => vec![row_of(&run.report)],
        _ => rows,
    };
    let totals = Totals::of(&rows);
    if let Some(file) = html {
        write(file, &page(&totals, shown.as_ref()))?;
        eprintln!("wrote {}", file.display());
    }
    if json {
        let run = shown.as_ref().map(|shown| {
            let mut run = as_json(&shown.report);
            run["timeline"] = serde_json::json!(shown.report.timeline);
            run["drill"] = serde_json::json!(shown.document);
            run
        });
        println!("{}", serde_json::json!({ "totals": totals, "run": run }));
    } else {
        totals.print();
    }
    Ok(verdict(totals.violating == 0))
}

/// The first run that failed, or else the last one.
fn most_telling(rows: &[Row]) -> Option<&Row> {
    rows.iter().find(|row| !row.is_clean()).or(rows.last())
}

fn again(row: &Row) -> Result<Run, String> {
    let profile: Profile =
        row.profile.parse().map_err(|error: trefoil_sim::product::run::NoProfile| error.to_string())?;
    let setting = Setting::of_profile(profile, row.seed);
    Run::of(row.seed, &Scenario::record(profile.name(), row.seed, &setting, None))
}

fn row_of(report: &Report) -> Row {
    let id = crate::seed_id::SeedId::here(Profile::Drawn, report.seed, &crate::seed_id::commit());
    Row::of(&id, report, 0.0)
}
