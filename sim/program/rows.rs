//! The decision table, row by row: what each scenario expects, and the recovery that was measured beside its target.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use trefoil_sim::product::rows::{Line, heading, sums};
use trefoil_sim::product::scenario::Scenario;

use crate::print::{bar, read, verdict};

/// Runs the scenarios of a folder that show a row, or of one row alone.
pub(crate) fn rows(folder: &Path, row: Option<u8>, seeds: u64, json: bool) -> Result<ExitCode, String> {
    let mut scenarios = Vec::new();
    for file in files(folder)? {
        let parsed = Scenario::parse(&read(&file)?);
        let scenario = parsed.map_err(|error| format!("{}: {error}", file.display()))?;
        if scenario.file.row.is_some_and(|shown| row.is_none_or(|row| row == shown)) {
            scenarios.push(scenario);
        }
    }
    if scenarios.is_empty() {
        return Err(format!(
            "no scenario in {} shows such a row; --scenarios names the folder",
            folder.display()
        ));
    }
    scenarios.sort_by_key(|scenario| scenario.file.row);
    let bar = bar(scenarios.len() as u64, "scenarios");
    let mut lines = Vec::new();
    if !json {
        println!("{}", heading());
    }
    for scenario in &scenarios {
        let line = Line::run(scenario, seeds).map_err(|error| error.to_string())?;
        let Some(line) = line else { continue };
        bar.inc(1);
        if !json {
            bar.suspend(|| {
                println!("{}", line.text());
                line.failed.iter().for_each(|failed| println!("      {failed}"));
            });
        }
        lines.push(line);
    }
    bar.finish_and_clear();
    if json {
        println!("{}", serde_json::json!({ "rows": lines }));
    } else {
        println!("{}", sums(&lines));
    }
    Ok(verdict(lines.iter().all(|line| line.failed.is_empty())))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        files.push(entry.map_err(told)?.path());
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    Ok(files)
}
