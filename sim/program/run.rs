//! Runs: one seed, many seeds, seeded bugs; and the plans that seeds draw.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use trefoil_sim::faults::{Budget, Duration, FaultPlan};
use trefoil_sim::kernel::SECOND;
use trefoil_sim::product::roster;
use trefoil_sim::product::run::{Profile, Setting};
use trefoil_sim::product::scenario::Scenario;
use trefoil_sim::product::swarm::run_seed;
use trefoil_sim::side_by_side::side_by_side;

use crate::Under;
use crate::print::{self, as_json, bar, cpu_seconds, read, verdict};
use crate::seed_id::{SeedId, commit};

/// What is printed of one run.
pub(crate) struct Shown {
    pub(crate) timeline: bool,
    pub(crate) json: bool,
    /// Where the report goes that drills have, as JSON and as a page.
    pub(crate) report: Option<PathBuf>,
}

/// Runs one seed.
pub(crate) fn one(
    seed: u64,
    under: &Under,
    trace: Option<&Path>,
    record: Option<&Path>,
    shown: &Shown,
) -> Result<ExitCode, String> {
    let scenario = under.scenario(seed)?;
    let report = scenario.run(seed, trace).map_err(|error| error.to_string())?;
    match shown.json {
        true => println!("{}", as_json(&report)),
        false => print::report(&report),
    }
    if shown.timeline {
        eprint!("{}", report.timeline.to_text());
    }
    if let Some(file) = &shown.report {
        let document = scenario.document(&report);
        print::write(file, &document.to_json())?;
        print::write(&file.with_extension("html"), &trefoil_drill::page(&document.report, None))?;
        print::drill(&document.report);
    }
    if let Some(file) = record {
        let hash = Some(report.trace.hash.to_string());
        print::write(file, &Scenario::record(&scenario.file.name, seed, &scenario.setting, hash).to_toml())?;
    }
    Ok(verdict(report.is_clean()))
}

/// Runs many seeds.
pub(crate) fn swarm(from: u64, seeds: u64, profile: Profile, json: bool) -> Result<ExitCode, String> {
    let (mut bad, mut events, mut sim_time, mut operations, mut undecided) = (0u64, 0, 0, 0, 0);
    let (began, commit, bar) = (cpu_seconds(), commit(), bar(seeds, "seeds"));
    let mut error = None;
    let run = |seed| (seed, run_seed(seed, &Setting::of_profile(profile, seed)));
    side_by_side(from..from.saturating_add(seeds), run, |(seed, ended)| {
        let report = match ended {
            Ok(report) => report,
            Err(reason) => return error = Some(reason.to_string()),
        };
        events += report.trace.events;
        sim_time += report.sim_time;
        operations += report.operations;
        undecided += report.undecided;
        if !report.is_clean() {
            bad += 1;
            bar.suspend(|| {
                match json {
                    true => println!("{}", as_json(&report)),
                    false => print::report(&report),
                }
                eprintln!("again: trefoil-sim replay {}", SeedId::here(profile, seed, &commit));
            });
            bar.set_message(format!("{bad} with violations"));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    if let Some(error) = error {
        return Err(error);
    }
    let (cpu, sim_seconds) = (cpu_seconds() - began, sim_time / SECOND);
    if json {
        let whole = serde_json::json!({
            "seeds": seeds, "violating": bad, "events": events, "sim_seconds": sim_seconds,
            "operations": operations, "undecided": undecided, "cpu_seconds": cpu,
        });
        println!("{whole}");
    } else {
        println!(
            "{seeds} seeds, {bad} with violations; {events} events, {operations} operations, \
             {sim_seconds} simulated seconds in {cpu:.1} CPU-seconds; {undecided} objects undecided"
        );
    }
    Ok(verdict(bad == 0))
}

/// Switches seeded bugs on.
#[cfg(feature = "mutants")]
pub(crate) fn mutants(
    only: &[String],
    seeds: u64,
    trace: Option<&Path>,
    json: bool,
) -> Result<ExitCode, String> {
    use trefoil_sim::product::mutants;
    let matrix = mutants::matrix();
    if let Some(unknown) = only.iter().find(|id| !matrix.iter().any(|row| row.id() == **id)) {
        return Err(format!("there is no seeded bug {unknown}"));
    }
    let mut verdicts = Vec::new();
    for row in matrix.iter().filter(|row| only.is_empty() || only.iter().any(|id| *id == row.id())) {
        let found = match mutants::hunt(row, seeds, trace, cpu_seconds) {
            Ok(found) => found,
            Err(error) => return Err(error.to_string()),
        };
        let by = found.checker.unwrap_or("nobody");
        eprintln!(
            "{}: {} after {} seeds, {:.1} CPU-seconds, by {by}",
            found.id,
            if found.killed { "killed" } else { "SURVIVED" },
            found.seeds,
            found.cpu_seconds
        );
        verdicts.push(found);
    }
    if json {
        println!("{}", serde_json::json!(verdicts));
    } else {
        println!("{:4} {:8} {:>5} {:>11}  checker", "id", "killed", "seeds", "CPU-seconds");
        for found in &verdicts {
            let by = found.checker.unwrap_or("-");
            println!(
                "{:4} {:8} {:>5} {:>11.1}  {by}",
                found.id, found.killed, found.seeds, found.cpu_seconds
            );
        }
    }
    Ok(verdict(verdicts.iter().all(|found| found.killed)))
}

/// Switches seeded bugs on, in a program that has them.
#[cfg(not(feature = "mutants"))]
pub(crate) fn mutants(_: &[String], _: u64, _: Option<&Path>, _: bool) -> Result<ExitCode, String> {
    Err("built without seeded bugs; use `cargo run -p trefoil-sim --features mutants`".to_owned())
}

/// Prints what a seed draws.
pub(crate) fn plan(seed: u64, faults: u64, horizon: Duration) -> ExitCode {
    let budget = Budget { faults, horizon: horizon.0, ..Budget::default() };
    print!("{}", roster::generator(roster::VOTERS.len()).draw(seed, &budget).to_toml());
    ExitCode::SUCCESS
}

/// Reads a scenario or a plan and prints it.
pub(crate) fn check(file: &Path) -> Result<ExitCode, String> {
    let text = read(file)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let plain = match table.contains_key("name") {
        true => Scenario::parse(&text).map(|scenario| scenario.to_toml()).map_err(|error| error.to_string()),
        false => FaultPlan::parse(&text).map(|plan| plan.to_toml()).map_err(|error| error.to_string()),
    };
    print!("{}", plain.map_err(|error| format!("{}: {error}", file.display()))?);
    Ok(ExitCode::SUCCESS)
}
