//! The decision table as the scenarios hold it: what each of them expects of writes, reads, loss and time, and what was
//! measured.

use std::collections::BTreeMap;

use serde::Serialize;
use trefoil_drill::{DrillFile, Kind, Served, Since};

use super::run::{Report, RunError};
use super::scenario::Scenario;
use crate::side_by_side::side_by_side;

/// A scenario's columns of the decision table, as its file has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Columns {
    /// What becomes of changes, in order of time, without repetition.
    pub writes: Vec<String>,
    /// What becomes of reads.
    pub reads: Vec<String>,
    /// What would be lost if the rest were lost too.
    pub rpo: Option<String>,
    /// Within what time clients are served, and since when that counts.
    pub rto: Option<String>,
}

impl Columns {
    /// What a file says.
    #[must_use]
    pub fn of(file: &DrillFile) -> Self {
        let expect = &file.expect;
        let mut spans: Vec<_> = expect.during.iter().collect();
        spans.sort_by_key(|span| span.from);
        let words = |kind: Kind| {
            let mut words: Vec<String> = Vec::new();
            for word in spans.iter().filter_map(|span| span.of(kind)).map(|word: Served| word.to_string()) {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            words
        };
        let since = match expect.rto_since {
            Since::Fault => "",
            Since::Healing => " after the return",
            Since::Relief => " after the load",
        };
        Self {
            writes: words(Kind::Writes),
            reads: words(Kind::Reads),
            rpo: expect.rpo.map(|rpo| rpo.name().to_owned()),
            rto: expect.rto.map(|rto| format!("{rto}{since}")),
        }
    }
}

/// A scenario of a row, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The row.
    pub row: u8,
    /// What happens.
    pub what: String,
    /// What is expected.
    #[serde(flatten)]
    pub columns: Columns,
    /// The longest recovery of all seeds, in milliseconds; none if somebody was not served again, or nothing ran.
    pub rto_ms: Option<u64>,
    /// How many seeds ran.
    pub seeds: u64,
    /// What did not hold, and under which seed.
    pub failed: Vec<String>,
}

impl Line {
    /// Runs a scenario under so many of its seeds; none if it shows no row.
    ///
    /// # Errors
    /// As [`super::run::run`].
    pub fn run(scenario: &Scenario, seeds: u64) -> Result<Option<Self>, RunError> {
        let Some(row) = scenario.file.row else { return Ok(None) };
        let columns = Columns::of(&scenario.file);
        let (what, failed) = (scenario.file.name.clone(), Vec::new());
        let mut line = Self { row, what, columns, rto_ms: Some(0), seeds: 0, failed };
        let seeds = scenario.seeds().take(usize::try_from(seeds).unwrap_or(usize::MAX));
        let mut error = None;
        side_by_side(
            seeds,
            |seed| (seed, scenario.run(seed, None)),
            |(seed, ended)| match ended {
                Ok(report) => line.add(seed, scenario, &report),
                Err(reason) => error = Some(reason),
            },
        );
        error.map_or(Ok(Some(line)), Err)
    }

    fn add(&mut self, seed: u64, scenario: &Scenario, report: &Report) {
        self.seeds += 1;
        let measured = scenario.document(report).report.rto_ms;
        self.rto_ms = self.rto_ms.zip(measured).map(|(before, now)| before.max(now));
        let told = report.violations.iter().map(|violation| format!("seed {seed}: {violation}"));
        self.failed.extend(told);
    }

    /// The line as people read it.
    #[must_use]
    pub fn text(&self) -> String {
        let Columns { writes, reads, rpo, rto } = &self.columns;
        let measured = self.rto_ms.map_or_else(
            || "not all".to_owned(),
            |ms| format!("{}.{} s", ms.div_ceil(100) / 10, ms.div_ceil(100) % 10),
        );
        let (rpo, rto) = (rpo.as_deref().unwrap_or("-"), rto.as_deref().unwrap_or("-"));
        let held = if self.failed.is_empty() { "held" } else { "FAILED" };
        let (writes, reads) = (writes.join(", "), reads.join(", "));
        format!(
            "{:>3} {:<64.64} {writes:<14} {reads:<14} {rpo:<8} {measured:>8} {rto:<20} {held}",
            self.row, self.what
        )
    }
}

/// What stands above the lines.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:>3} {:<64} {:<14} {:<14} {:<8} {:>8} {:<20}",
        "row", "what happens", "writes", "reads", "RPO", "RTO", "target"
    )
}

/// What stands below them: how many rows and scenarios ran, and how many rows did not hold.
#[must_use]
pub fn sums(lines: &[Line]) -> String {
    let mut rows = BTreeMap::<u8, bool>::new();
    for line in lines {
        *rows.entry(line.row).or_insert(true) &= line.failed.is_empty();
    }
    let failed = rows.values().filter(|held| !**held).count();
    let seeds: u64 = lines.iter().map(|line| line.seeds).sum();
    format!("{} rows, {failed} of them failed; {} scenarios, {seeds} runs", rows.len(), lines.len())
}
