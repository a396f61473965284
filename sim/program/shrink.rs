//! A failing run made smaller, and written down as a scenario.

use std::path::Path;
use std::process::ExitCode;

use trefoil_sim::product::scenario::Scenario;
use trefoil_sim::product::shrink as library;

use crate::Under;
use crate::print::{bar, verdict, write};

/// Shrinks the run of a seed.
pub(crate) fn shrink(seed: u64, under: &Under, out: &Path, runs: u64) -> Result<ExitCode, String> {
    let scenario = under.scenario(seed)?;
    let target = library::aim(seed, &scenario.setting).map_err(|error| format!("seed {seed}: {error}"))?;
    eprintln!("{} fires; looking for less that makes it fire", target.checker);
    let bar = bar(runs, "runs");
    let small = library::shrink(&target, &scenario.setting, runs, |step| {
        bar.set_position(step.runs);
        bar.set_message(format!("{} faults are left", step.faults));
    });
    bar.finish_and_clear();
    let small = small.map_err(|error| error.to_string())?;
    let name = format!("{} fires under seed {seed}", target.checker);
    write(out, &Scenario::record(&name, seed, &small, None).to_toml())?;
    let (before, after) = (scenario.setting.plan.faults.len(), small.plan.faults.len());
    println!("{}: {after} of {before} faults are left, and {} still fires", out.display(), target.checker);
    Ok(verdict(true))
}
