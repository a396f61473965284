//! The program `trefoil-sim`: the command line of the simulator. It only parses, calls the library
//! and prints. The answer goes to stdout, progress to stderr.

mod database;
mod model;
mod page;
mod print;
mod replay;
mod report;
mod rows;
mod run;
mod seed_id;
mod shrink;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use trefoil_sim::faults::{Budget, Duration};
use trefoil_sim::product::run::{Profile, Setting};
use trefoil_sim::product::scenario::Scenario;

use crate::print::{read, usage_error};

/// Deterministic simulation of a whole Trefoil cluster.
#[derive(Parser)]
#[command(name = "trefoil-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What a seed runs in.
#[derive(Args, Clone, Debug)]
struct Under {
    /// A scenario file, instead of what the seed draws.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// How much a seed draws: drawn, healthy, light or stress.
    #[arg(long, default_value = "drawn", conflicts_with = "scenario")]
    profile: Profile,
}

impl Under {
    fn scenario(&self, seed: u64) -> Result<Scenario, String> {
        match &self.scenario {
            None => {
                let setting = Setting::of_profile(self.profile, seed);
                Ok(Scenario::record(self.profile.name(), seed, &setting, None))
            }
            Some(file) => {
                Scenario::parse(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))
            }
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed: what it draws, or a scenario under it.
    Run {
        /// The seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        under: Under,
        /// Write every event to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Write the run down, for `replay` and `shrink`.
        #[arg(long)]
        record: Option<PathBuf>,
        /// Write the report of a drill here, and a page beside it.
        #[arg(long, value_name = "FILE.json")]
        report: Option<PathBuf>,
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
        /// How much a seed draws: drawn, healthy, light or stress.
        #[arg(long, default_value = "drawn")]
        profile: Profile,
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
    /// Run a printed seed id or a recorded run again, and say whether it is the same run.
    Replay {
        /// `commit:profile:seed:features`, or a file that `run --record` or `shrink` wrote.
        what: String,
        /// The hash that the run had; without it and without a recorded one, two runs are compared.
        #[arg(long)]
        hash: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a failing run smaller, and write it as a scenario.
    Shrink {
        /// The seed.
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        under: Under,
        /// Where the scenario goes.
        #[arg(long)]
        out: PathBuf,
        /// The most runs that are tried.
        #[arg(long, default_value_t = 400)]
        runs: u64,
    },
    /// Run seeds for a time, and keep a database of them.
    Soak {
        /// For how long.
        #[arg(long)]
        minutes: u64,
        /// Where the database and the failing runs go.
        #[arg(long)]
        out: PathBuf,
    },
    /// Say what a soak did, or show one run.
    Report {
        /// The folder of a soak.
        #[arg(required_unless_present = "seed")]
        soak: Option<PathBuf>,
        /// The run to show on the page; of a soak, the first that failed or else the last.
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        under: Under,
        /// Write a page here that needs nothing else.
        #[arg(long)]
        html: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at every state of the protocol's model within bounds, or take its guards away.
    Model {
        #[command(flatten)]
        asked: model::Asked,
    },
    /// Run the decision table: what every scenario of a row expects, and the measured recovery beside its target.
    Rows {
        /// The folder of the scenarios.
        #[arg(long, default_value = "sim/scenarios")]
        scenarios: PathBuf,
        /// Only this row.
        #[arg(long)]
        row: Option<u8>,
        /// Under so many seeds of each scenario, at most.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
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
    /// Read a scenario or a fault plan and print it in its plain form, or say what is wrong with it.
    Check {
        /// The file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { seed, under, trace, record, report, timeline, json } => {
            let shown = run::Shown { timeline, json, report };
            run::one(seed, &under, trace.as_deref(), record.as_deref(), &shown)
        }
        Command::Swarm { seeds, from, profile, json } => run::swarm(from, seeds, profile, json),
        Command::Mutants { only, seeds, trace, json } => run::mutants(&only, seeds, trace.as_deref(), json),
        Command::Replay { what, hash, json } => replay::replay(&what, hash, json),
        Command::Shrink { seed, under, out, runs } => shrink::shrink(seed, &under, &out, runs),
        Command::Soak { minutes, out } => soak::soak(minutes, &out),
        Command::Report { soak, seed, under, html, json } => {
            report::report(soak.as_deref(), seed, &under, html.as_deref(), json)
        }
        Command::Rows { scenarios, row, seeds, json } => rows::rows(&scenarios, row, seeds, json),
        Command::Plan { seed, faults, horizon } => Ok(run::plan(seed, faults, horizon)),
        Command::Model { asked } => model::model(&asked),
        Command::Check { file } => run::check(&file),
    };
    done.unwrap_or_else(|message| usage_error(&message))
}
