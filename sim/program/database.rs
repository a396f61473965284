//! The seeds of a soak, one JSON object a line, appended as they are run.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trefoil_sim::kernel::SECOND;
use trefoil_sim::product::run::Report;

use crate::print::{read, verdict_of};
use crate::seed_id::SeedId;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) commit: String,
    pub(crate) profile: String,
    pub(crate) seed: u64,
    pub(crate) features: String,
    pub(crate) verdict: String,
    pub(crate) hash: String,
    pub(crate) cpu_seconds: f64,
    pub(crate) sim_seconds: u64,
    pub(crate) events: u64,
    pub(crate) operations: u64,
    pub(crate) certified: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    /// The checkers that fired.
    pub(crate) checkers: Vec<String>,
}

impl Row {
    pub(crate) fn of(id: &SeedId, report: &Report, cpu_seconds: f64) -> Self {
        let mut checkers: Vec<String> =
            report.violations.iter().map(|violation| violation.checker.to_owned()).collect();
        checkers.sort();
        checkers.dedup();
        Self {
            commit: id.commit.clone(),
            profile: id.profile.name().to_owned(),
            seed: id.seed,
            features: id.features.clone(),
            verdict: verdict_of(report).to_owned(),
            hash: report.trace.hash.to_string(),
            cpu_seconds,
            sim_seconds: report.sim_time / SECOND,
            events: report.trace.events,
            operations: report.operations,
            certified: report.certified,
            faults: report.faults_by_kind.clone(),
            checkers,
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.verdict == "clean"
    }
}

/// The database of a folder.
pub(crate) struct Database {
    file: PathBuf,
}

impl Database {
    pub(crate) fn of(folder: &Path) -> Self {
        Self { file: folder.join("seeds.jsonl") }
    }

    /// What was run so far; nothing if nothing was.
    pub(crate) fn rows(&self) -> Result<Vec<Row>, String> {
        if !self.file.exists() {
            return Ok(Vec::new());
        }
        let text = read(&self.file)?;
        let row = |(number, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| format!("{}, line {}: {error}", self.file.display(), number + 1))
        };
        text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(row).collect()
    }

    pub(crate) fn append(&self, row: &Row) -> Result<(), String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", self.file.display());
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).map_err(wrong)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file).map_err(wrong)?;
        let line = serde_json::to_string(row).expect("a row has plain fields");
        writeln!(file, "{line}").map_err(wrong)
    }
}
