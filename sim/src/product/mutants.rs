//! The kill matrix: each seeded bug is switched on by itself, and runs go on until the checker that
//! its row names has seen it. A bug that nobody sees is a hole in the simulator.
//!
//! The bugs stand in the cores, as the other side of the guard that they take away.

use super::run::{RunError, Setting, run};
use crate::faults::FaultPlan;
use crate::kernel::{MILLISECOND, SECOND};

/// A seeded bug and what must be done to meet it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub id: &'static str,
    /// The checkers, any of which must see it.
    pub checkers: &'static [&'static str],
    /// Faults that lead to it, besides what seeds draw; laid down in every second run.
    pub plan: &'static str,
    select: fn(bool),
}

/// What became of a seeded bug.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Verdict {
    /// Its number.
    pub id: &'static str,
    /// Whether it was seen.
    pub killed: bool,
    /// How many seeds that took.
    pub seeds: u64,
    /// And how much time of the processor.
    pub cpu_seconds: f64,
    /// Who saw it.
    pub checker: Option<&'static str>,
}

/// Runs seeds with one bug switched on until it is seen, or `seeds_max` have passed.
///
/// # Errors
/// As [`run`].
pub fn hunt(row: &Row, seeds_max: u64, mut cpu_seconds: impl FnMut() -> f64) -> Result<Verdict, RunError> {
    let began = cpu_seconds();
    (row.select)(true);
    let mut verdict = Verdict { id: row.id, killed: false, seeds: 0, cpu_seconds: 0.0, checker: None };
    while verdict.seeds < seeds_max && !verdict.killed {
        let seed = verdict.seeds;
        verdict.seeds += 1;
        let report = match run(seed, &setting_of(row, seed), None) {
            Ok(report) => report,
            Err(error) => {
                (row.select)(false);
                return Err(error);
            }
        };
        let named = |checker: &&str| row.checkers.contains(checker);
        verdict.checker = report.violations.iter().map(|violation| violation.checker).find(named);
        verdict.killed = verdict.checker.is_some();
    }
    (row.select)(false);
    verdict.cpu_seconds = cpu_seconds() - began;
    Ok(verdict)
}

fn setting_of(row: &Row, seed: u64) -> Setting {
    let mut setting = Setting::drawn(seed);
    setting.ends_at_first = true;
    if seed.is_multiple_of(2) && !row.plan.is_empty() {
        setting.plan = FaultPlan::parse(row.plan).expect("the matrix holds good plans");
        setting.shape.think_mean = 40 * MILLISECOND;
        setting.shape.keys = setting.shape.keys.min(4);
        setting.horizon = 25 * SECOND;
        setting.window = 2 * SECOND;
        setting.volumes = 1;
    }
    setting
}

/// Every row.
#[must_use]
pub fn matrix() -> Vec<Row> {
    use trefoil_storage_node::mutant::Mutant as Node;
    macro_rules! node {
        ($id:ident, $checkers:expr, $plan:expr) => {
            Row {
                id: stringify!($id),
                checkers: $checkers,
                plan: $plan,
                select: |on| trefoil_storage_node::mutant::select(on.then_some(Node::$id)),
            }
        };
    }
    vec![
        node!(M01, &["durable_at_ack"], SLOW_DISKS),
        node!(M02, &["durable_at_ack"], CROSS_CUT),
        node!(M03, &["single_primary", "linearizable"], PRIMARIES_CUT_OFF),
        node!(M06, &["epochs", "one_history"], PRIMARIES_CUT_OFF),
        node!(M07, &["no_lost_write"], BACKUP_AWAY),
        node!(M09, &["linearizable"], PRIMARIES_DIE),
        node!(M11, &["no_resurrection"], BACKUP_AWAY),
        node!(M13, &["erase_is_legal", "no_lost_write"], ""),
        node!(M25, &["idempotency", "linearizable"], PRIMARIES_DIE),
    ]
}

const SLOW_DISKS: &str = r#"
[[fault]]
at = "1s"
slow = { node = "b1", times = 200 }
[[fault]]
at = "1s"
slow = { node = "b2", times = 200 }
[[fault]]
at = "1s"
slow = { node = "b3", times = 200 }
"#;

const CROSS_CUT: &str = r#"
[[fault]]
at = "2s"
cut = ["x1", "x2"]
[[fault]]
at = "12s"
heal = "all"
"#;

const PRIMARIES_CUT_OFF: &str = r#"
[[fault]]
at = "2s"
cut = ["wa"]
[[fault]]
at = "3s"
cut = ["x1", "x2"]
[[fault]]
at = "20s"
heal = "all"
"#;

const PRIMARIES_DIE: &str = r#"
[[fault]]
when = "appended node=a1"
delay = "2s"
crash = { nodes = ["a1"] }
[[fault]]
at = "6s"
crash = { nodes = ["a2", "b1"] }
[[fault]]
at = "8s"
restart = "all"
[[fault]]
at = "12s"
crash = { nodes = ["a1", "a3", "b2"] }
[[fault]]
at = "16s"
restart = "all"
"#;

const BACKUP_AWAY: &str = r#"
[[fault]]
at = "2s"
crash = { nodes = ["a1", "b1"] }
[[fault]]
at = "12s"
crash = { nodes = ["a2", "b2"] }
[[fault]]
at = "13s"
restart = ["a1", "b1"]
[[fault]]
at = "20s"
restart = "all"
"#;
