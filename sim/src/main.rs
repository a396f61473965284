//! The program `trefoil-sim`: the command line of the simulator. It only parses, calls the library
//! and prints. The answer goes to stdout, progress to stderr.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trefoil_sim::faults::{Budget, Duration, FaultPlan};
use trefoil_sim::kernel::SECOND;
use trefoil_sim::product::roster;
use trefoil_sim::product::run::{Report, Setting, run};
use trefoil_sim::product::scenario::Scenario;
use trefoil_sim::product::swarm;

/// Deterministic simulation of a whole Trefoil cluster.
#[derive(Parser)]
#[command(name = "trefoil-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed: what it draws, or a scenario under it.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// A scenario file.
        #[arg(long)]
        scenario: Option<PathBuf>,
        /// Write every event to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Print what happened when.
        #[arg(long)]
        timeline: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run many seeds.
    Swarm {
        /// How many.
        #[arg(long)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Print JSON, one line per seed that is not clean and one of the whole.
        #[arg(long)]
        json: bool,
    },
    /// Switch seeded bugs on, one at a time, until their checkers see them.
    Mutants {
        /// Only these, e.g. `M01,M02`.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// A bug that so many seeds do not show has survived.
        #[arg(long, default_value_t = 60)]
        seeds: u64,
        /// Write every event of the last run to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the fault plan that a seed draws, in the form that scenario files have.
    Plan {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// The most faults that do damage.
        #[arg(long, default_value_t = Budget::default().faults)]
        faults: u64,
        /// When everything is healed, e.g. `60s`.
        #[arg(long, default_value = "60s")]
        horizon: Duration,
    },
    /// Read a fault plan and print it in its plain form, or say what is wrong with it.
    Check {
        /// The plan.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seed, scenario, trace, timeline, json } => {
            run_one(seed, scenario.as_deref(), trace.as_deref(), timeline, json)
        }
        Command::Swarm { seeds, from, json } => run_swarm(from, seeds, json),
        Command::Mutants { only, seeds, trace, json } => run_mutants(&only, seeds, trace.as_deref(), json),
        Command::Plan { seed, faults, horizon } => {
            let budget = Budget { faults, horizon: horizon.0, ..Budget::default() };
            print!("{}", roster::generator().draw(seed, &budget).to_toml());
            ExitCode::SUCCESS
        }
        Command::Check { file } => check(&file),
    }
}

fn run_one(seed: u64, scenario: Option<&Path>, trace: Option<&Path>, timeline: bool, json: bool) -> ExitCode {
    let report = match scenario {
        None => run(seed, &Setting::drawn(seed), trace),
        Some(file) => match read(file)
            .and_then(|text| Scenario::parse(&text).map_err(|error| format!("{}: {error}", file.display())))
        {
            Ok(scenario) => scenario.run(seed, trace),
            Err(message) => return usage_error(&message),
        },
    };
    match report {
        Ok(report) => {
            if json {
                println!("{}", as_json(&report));
            } else {
                print_report(&report);
            }
            if timeline {
                eprint!("{}", report.timeline.to_text());
            }
            verdict(report.is_clean())
        }
        Err(error) => usage_error(&error.to_string()),
    }
}

fn run_swarm(from: u64, seeds: u64, json: bool) -> ExitCode {
    let (mut bad, mut events, mut sim_time, mut operations, mut undecided) = (0u64, 0, 0, 0, 0);
    let began = cpu_seconds();
    for seed in from..from.saturating_add(seeds) {
        let report = match swarm::run_seed(seed, &Setting::drawn(seed)) {
            Ok(report) => report,
            Err(error) => return usage_error(&error.to_string()),
        };
        events += report.trace.events;
        sim_time += report.sim_time;
        operations += report.operations;
        undecided += report.undecided;
        if !report.is_clean() {
            bad += 1;
            if json {
                println!("{}", as_json(&report));
            } else {
                print_report(&report);
            }
            eprintln!("replay: trefoil-sim run --seed {seed} --trace seed-{seed}.txt");
        }
        let done = seed - from + 1;
        if done.is_multiple_of(10) || done == seeds {
            eprintln!("{done} of {seeds} seeds, {bad} with violations");
        }
    }
    let cpu = cpu_seconds() - began;
    let sim_seconds = sim_time / SECOND;
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
    verdict(bad == 0)
}

#[cfg(feature = "mutants")]
fn run_mutants(only: &[String], seeds: u64, trace: Option<&Path>, json: bool) -> ExitCode {
    use trefoil_sim::product::mutants;
    let matrix = mutants::matrix();
    if let Some(unknown) = only.iter().find(|id| !matrix.iter().any(|row| row.id() == **id)) {
        return usage_error(&format!("there is no seeded bug {unknown}"));
    }
    let mut verdicts = Vec::new();
    for row in matrix.iter().filter(|row| only.is_empty() || only.iter().any(|id| *id == row.id())) {
        let found = match mutants::hunt(row, seeds, trace, cpu_seconds) {
            Ok(found) => found,
            Err(error) => return usage_error(&error.to_string()),
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
    verdict(verdicts.iter().all(|found| found.killed))
}

#[cfg(not(feature = "mutants"))]
fn run_mutants(_only: &[String], _seeds: u64, _trace: Option<&Path>, _json: bool) -> ExitCode {
    usage_error("built without seeded bugs; use `cargo run -p trefoil-sim --features mutants`")
}

fn print_report(report: &Report) {
    println!(
        "seed {}: {}, trace {}, {} events, {} simulated seconds, {} operations ({} answered, the \
         longest after {} ms), {} faults, {} certified",
        report.seed,
        if report.is_clean() { "clean" } else { "VIOLATED" },
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

fn as_json(report: &Report) -> serde_json::Value {
    let violation = |violation: &trefoil_sim::checkers::Violation| {
        serde_json::json!({
            "checker": violation.checker, "object": violation.object, "at_ns": violation.at_ns,
            "sentence": violation.sentence,
        })
    };
    serde_json::json!({
        "seed": report.seed,
        "verdict": if report.is_clean() { "clean" } else { "violated" },
        "trace_hash": report.trace.hash.to_string(),
        "events": report.trace.events,
        "sim_seconds": report.sim_time / SECOND,
        "operations": report.operations,
        "answered": report.answered,
        "longest_wait_ms": report.longest_wait / 1_000_000,
        "certified": report.certified,
        "undecided": report.undecided,
        "faults": report.faults,
        "violations": report.violations.iter().map(violation).collect::<Vec<_>>(),
    })
}

/// Time of the processor that this process took, from the system's own account of it.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // The kernel counts in hundredths here on every Linux that Rust supports.
    std::time::Duration::from_millis(ticks * 10).as_secs_f64()
}

fn verdict(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn check(file: &Path) -> ExitCode {
    let text = match read(file) {
        Ok(text) => text,
        Err(message) => return usage_error(&message),
    };
    match FaultPlan::parse(&text) {
        Ok(plan) => {
            print!("{}", plan.to_toml());
            ExitCode::SUCCESS
        }
        Err(error) => usage_error(&format!("{}: {error}", file.display())),
    }
}

fn usage_error(message: &str) -> ExitCode {
    eprintln!("trefoil-sim: {message}");
    ExitCode::from(2)
}
