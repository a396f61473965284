//! The program `trefoil-sim`: the command line of the simulator. It only parses, calls the library
//! and prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trefoil_sim::faults::{Budget, Duration, FaultPlan, Generator};
use trefoil_sim::network::Site;

/// Deterministic simulation of a whole Trefoil cluster.
#[derive(Parser)]
#[command(name = "trefoil-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
        Command::Plan { seed, faults, horizon } => {
            let budget = Budget { faults, horizon: horizon.0, ..Budget::default() };
            print!("{}", full_cluster().draw(seed, &budget).to_toml());
            ExitCode::SUCCESS
        }
        Command::Check { file } => check(&file),
    }
}

/// Six storage nodes in two data centres and placement at the witness site, as `trefoil dev` has.
fn full_cluster() -> Generator {
    let node = |name: &str, site| (name.to_owned(), site);
    let storage = |dc: char, site| [1, 2, 3].map(|number| node(&format!("{dc}{number}"), site));
    Generator {
        storage: [storage('a', Site::A), storage('b', Site::B)].concat(),
        placement: vec![node("w1", Site::W)],
    }
}

fn check(file: &Path) -> ExitCode {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return usage_error(&format!("{}: {error}", file.display())),
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
