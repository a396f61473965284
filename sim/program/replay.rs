//! The same run again: is it the same?

use std::path::Path;
use std::process::ExitCode;

use trefoil_sim::product::run::Setting;
use trefoil_sim::product::scenario::Scenario;

use crate::print::{self, as_json, read, verdict};
use crate::seed_id::{SeedId, commit};

/// Runs again what `what` names. Without a hash to compare with it runs twice.
pub(crate) fn replay(what: &str, hash: Option<String>, json: bool) -> Result<ExitCode, String> {
    let scenario = named(what)?;
    let seed = scenario.seeds().next().ok_or_else(|| format!("{what} has no seed"))?;
    let run = || scenario.run(seed, None).map_err(|error| error.to_string());
    let expected = match hash.or_else(|| scenario.file.hash.clone()) {
        Some(hash) => hash,
        None => {
            eprintln!("no hash is known of it: it runs twice");
            run()?.trace.hash.to_string()
        }
    };
    let report = run()?;
    let same = report.trace.hash.to_string() == expected;
    if json {
        let mut answer = as_json(&report);
        answer["same"] = same.into();
        answer["expected_hash"] = expected.into();
        println!("{answer}");
    } else {
        print::report(&report);
        match same {
            true => println!("the same run: {expected}"),
            false => println!("ANOTHER RUN: {} instead of {expected}", report.trace.hash),
        }
    }
    Ok(verdict(same))
}

/// A seed id, or a file.
fn named(what: &str) -> Result<Scenario, String> {
    let file = Path::new(what);
    if file.exists() {
        return Scenario::parse(&read(file)?).map_err(|error| format!("{what}: {error}"));
    }
    let id: SeedId = what.parse().map_err(|error| format!("{what}: no such file, and {error}"))?;
    if let Some(reason) = id.foreign(&commit()) {
        eprintln!("warning: {reason}; it may go another way");
    }
    let setting = Setting::of_profile(id.profile, id.seed);
    Ok(Scenario::record(id.profile.name(), id.seed, &setting, None))
}
