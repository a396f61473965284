//! Seeds, one after the other, for a time. What fails is kept as a run that can be replayed.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use trefoil_sim::product::run::{Profile, Setting};
use trefoil_sim::product::scenario::Scenario;
use trefoil_sim::product::swarm::run_seed;

use crate::database::{Database, Row};
use crate::print::{bar, cpu_seconds, verdict, write};
use crate::seed_id::{SeedId, commit};

/// Mostly what the tests draw, now and then much more or much less.
const PROFILES: [Profile; 5] =
    [Profile::Drawn, Profile::Drawn, Profile::Stress, Profile::Drawn, Profile::Light];

/// Runs seeds behind those that the folder knows already.
#[expect(clippy::disallowed_methods, reason = "a soak lasts for so many minutes of the real clock")]
pub(crate) fn soak(minutes: u64, out: &Path) -> Result<ExitCode, String> {
    let database = Database::of(out);
    let mut seed = database.rows()?.iter().map(|row| row.seed + 1).max().unwrap_or(0);
    let (began, lasts, commit) = (Instant::now(), Duration::from_secs(minutes * 60), commit());
    let bar = bar(lasts.as_secs(), "seconds");
    let (mut runs, mut bad) = (0u64, 0u64);
    while began.elapsed() < lasts {
        let profile = PROFILES[usize::try_from(seed % PROFILES.len() as u64).expect("below five")];
        let (setting, before) = (Setting::of_profile(profile, seed), cpu_seconds());
        let report = run_seed(seed, &setting).map_err(|error| error.to_string())?;
        let id = SeedId::here(profile, seed, &commit);
        let row = Row::of(&id, &report, cpu_seconds() - before);
        database.append(&row)?;
        runs += 1;
        if !row.is_clean() {
            bad += 1;
            let scenario = Scenario::record(profile.name(), seed, &setting, Some(row.hash.clone()));
            write(&out.join(format!("seed-{seed}.toml")), &scenario.to_toml())?;
            bar.suspend(|| println!("{id}: {}", row.checkers.join(", ")));
        }
        seed += 1;
        bar.set_position(began.elapsed().as_secs().min(lasts.as_secs()));
        bar.set_message(format!("{runs} seeds, {bad} with violations"));
    }
    bar.finish_and_clear();
    println!(
        "{runs} seeds in {minutes} minutes, {bad} with violations; `trefoil-sim report {}`",
        out.display()
    );
    Ok(verdict(bad == 0))
}
