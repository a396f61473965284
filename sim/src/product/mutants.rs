//! The kill matrix: each seeded bug is switched on by itself, and runs go on until the checker that
//! its row names has seen it. A bug that nobody sees is a hole in the simulator.
//!
//! The bugs stand in the cores, as the other side of the guard that they take away.

use std::path::Path;

use trefoil_drill::{Deed, Rescue};
use trefoil_protocol::mutant::{Mutant, select};

use super::run::{RunError, Setting, run};
use super::scenario::Scenario;
use crate::faults::FaultPlan;
use crate::kernel::{MILLISECOND, SECOND};
use crate::workload::Weights;

/// A seeded bug and what must be done to meet it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The bug.
    pub bug: Mutant,
    /// The checkers, any of which must see it.
    pub checkers: &'static [&'static str],
    /// What leads to it.
    pub way: Way,
    tune: fn(&mut Setting),
}

/// What leads to a seeded bug.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// What seeds draw; in every second run these faults and a small load.
    Plan(&'static str),
    /// A scenario's file, with its load and its faults.
    Scenario(&'static str),
}

impl Row {
    /// The bug's number.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:?}", self.bug)
    }
}

/// What became of a seeded bug.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict {
    /// Its number.
    pub id: String,
    /// Whether it was seen.
    pub killed: bool,
    /// How many seeds that took.
    pub seeds: u64,
    /// And how much time of the processor.
    pub cpu_seconds: f64,
    /// Who saw it.
    pub checker: Option<&'static str>,
}

/// Runs seeds with one bug switched on until it is seen, or `seeds_max` have passed. `trace` holds
/// the last run afterwards.
///
/// # Errors
/// As [`run`].
pub fn hunt(
    row: &Row,
    seeds_max: u64,
    trace: Option<&Path>,
    mut cpu_seconds: impl FnMut() -> f64,
) -> Result<Verdict, RunError> {
    let began = cpu_seconds();
    select(Some(row.bug));
    let mut verdict = Verdict { id: row.id(), killed: false, seeds: 0, cpu_seconds: 0.0, checker: None };
    while verdict.seeds < seeds_max && !verdict.killed {
        let seed = verdict.seeds;
        verdict.seeds += 1;
        let report = match run(seed, &setting_of(row, seed), trace) {
            Ok(report) => report,
            Err(error) => {
                select(None);
                return Err(error);
            }
        };
        let named = |checker: &&str| row.checkers.contains(checker);
        verdict.checker = report.violations.iter().map(|violation| violation.checker).find(named);
        verdict.killed = verdict.checker.is_some();
    }
    select(None);
    verdict.cpu_seconds = cpu_seconds() - began;
    Ok(verdict)
}

/// What a row's seed runs in.
fn setting_of(row: &Row, seed: u64) -> Setting {
    match row.way {
        Way::Plan(plan) => drawn(row, plan, seed),
        Way::Scenario(text) => {
            let mut setting = Scenario::parse(text).expect("the matrix names good scenarios").setting;
            setting.ends_at_first = true;
            (row.tune)(&mut setting);
            setting
        }
    }
}

/// Every second seed as a swarm draws it, the others as the row wants it.
fn drawn(row: &Row, plan: &str, seed: u64) -> Setting {
    let mut setting = Setting::drawn(seed);
    setting.ends_at_first = true;
    if seed.is_multiple_of(2) {
        setting.plan = FaultPlan::parse(plan).expect("the matrix holds good plans");
        setting.shape.think_mean = 30 * MILLISECOND;
        setting.shape.keys = setting.shape.keys.min(4);
        setting.shape.clients_per_tenant = 4;
        setting.horizon = 25 * SECOND;
        setting.window = SECOND;
        setting.volumes = 1;
        (row.tune)(&mut setting);
    }
    setting
}

/// A control plane that can lose one of its voters.
fn three_voters(setting: &mut Setting) {
    setting.voters = 3;
}

fn as_it_is(_: &mut Setting) {}

/// Deletes of many keys, each undone after about as long as its window lasts.
fn late_undeletes(setting: &mut Setting) {
    setting.shape.keys = 300;
    setting.shape.think_mean = 80 * MILLISECOND;
    setting.shape.weights =
        Weights { put: 25, get: 4, head: 1, list: 0, delete: 35, undelete: 40, version: 0 };
}

/// To the end, so that everything is read back.
fn to_the_end(setting: &mut Setting) {
    setting.ends_at_first = false;
}

/// Writes and reads of one key, all the time.
fn one_key(setting: &mut Setting) {
    setting.shape.keys = 1;
    setting.shape.think_mean = 10 * MILLISECOND;
    setting.shape.clients_per_tenant = 6;
    setting.shape.weights =
        Weights { put: 50, get: 0, head: 50, list: 0, delete: 0, undelete: 0, version: 0 };
}

/// Puts and deletes of one key: a delete that is done again hides what was put meanwhile.
fn one_key_put_and_deleted(setting: &mut Setting) {
    setting.shape.keys = 1;
    setting.shape.weights =
        Weights { put: 50, get: 0, head: 10, list: 0, delete: 40, undelete: 0, version: 0 };
}

fn puts(setting: &mut Setting) {
    setting.shape.weights =
        Weights { put: 80, get: 10, head: 0, list: 0, delete: 10, undelete: 0, version: 0 };
}

/// Clients that soon ask what became of their calls.
fn impatient(setting: &mut Setting) {
    puts(setting);
    setting.shape.deadline = 4 * SECOND;
}

/// Deletes that A acknowledges alone; B takes over without it.
fn taken_over(setting: &mut Setting) {
    setting.shape.weights =
        Weights { put: 30, get: 30, head: 0, list: 0, delete: 40, undelete: 0, version: 0 };
    setting.horizon = 40 * SECOND;
    setting.window = 30 * SECOND;
    let rescue = |at, deed| Rescue { at: crate::faults::Duration(at * SECOND), deed };
    setting.rescues = vec![rescue(24, Deed::AcceptLoss)];
}

fn listings(setting: &mut Setting) {
    setting.volumes = 4;
    setting.shape.weights =
        Weights { put: 40, get: 0, head: 0, list: 50, delete: 10, undelete: 0, version: 0 };
}

/// Every row.
#[must_use]
pub fn matrix() -> Vec<Row> {
    let row = |bug, checkers, plan| Row { bug, checkers, way: Way::Plan(plan), tune: as_it_is };
    let told = |bug, checkers, file| Row { bug, checkers, way: Way::Scenario(file), tune: as_it_is };
    vec![
        Row { tune: three_voters, ..row(Mutant::C01, &["consensus"], VOTERS_DIE) },
        Row { tune: three_voters, ..row(Mutant::C02, &["consensus"], VOTERS_DIE) },
        Row { tune: three_voters, ..row(Mutant::C03, &["consensus"], VOTERS_DIE) },
        Row { tune: three_voters, ..row(Mutant::C04, &["erase_is_legal"], VOTERS_DIE) },
        row(Mutant::M01, &["durable_at_ack"], SLOW_DISKS),
        row(Mutant::M02, &["durable_at_ack"], CROSS_CUT),
        row(Mutant::M03, &["single_primary", "linearizable"], PRIMARIES_CUT_OFF),
        row(Mutant::M04, &["single_primary", "linearizable"], SLOW_GRANTS),
        row(Mutant::M05, &["single_primary"], PRIMARIES_CUT_OFF),
        row(Mutant::M06, &["epochs", "one_history"], PLACEMENT_CUT_OFF),
        Row { tune: to_the_end, ..row(Mutant::M07, &["no_lost_write"], SECOND_LOSS_DURING_RETURN) },
        row(Mutant::M08, &["durable_at_ack"], VERY_SLOW_DISKS),
        Row { tune: one_key, ..row(Mutant::M09, &["linearizable"], PRIMARIES_DIE_ON_SLOW_DISKS) },
        row(Mutant::M11, &["no_resurrection"], ""),
        Row {
            tune: late_undeletes,
            ..row(Mutant::M13, &["erase_is_legal", "no_lost_write"], SLOW_PERMISSIONS)
        },
        row(Mutant::M14, &["no_lost_write", "linearizable", "integrity", "durable_at_ack"], ""),
        row(Mutant::M16, &["isolation"], ""),
        row(Mutant::M22, &["durable_at_ack"], SYNCS_FAIL),
        Row {
            tune: one_key_put_and_deleted,
            ..row(Mutant::M25, &["idempotency", "linearizable"], ANSWERS_LOST)
        },
        told(Mutant::R03, &["one_history", "no_lost_write", "linearizable"], HEARD_FIRST),
        told(Mutant::R11, &["no_resurrection"], UNREADABLE_DELETES),
        Row { tune: impatient, ..row(Mutant::R14, &["idempotency", "linearizable"], CALLS_ARE_LATE) },
        Row { tune: taken_over, ..row(Mutant::R16, &["no_resurrection"], A_ALONE_AND_LOST) },
        row(Mutant::R18, &["erase_is_legal"], PRIMARIES_DIE_WHILE_OTHERS_ERASE),
        Row { tune: puts, ..row(Mutant::R21, &["durable_at_ack"], RELAYS_BREAK) },
        Row { tune: listings, ..row(Mutant::R22, &["linearizable"], PRIMARIES_CUT_OFF) },
    ]
}

const HEARD_FIRST: &str = include_str!("../../scenarios/everybody_who_caught_up_is_heard_first.toml");

const UNREADABLE_DELETES: &str =
    include_str!("../../scenarios/a_delete_that_cannot_be_read_hides_its_version.toml");

const A_ALONE_AND_LOST: &str = r#"
[[fault]]
at = "3s"
crash = { nodes = ["b1", "b2", "b3"] }
[[fault]]
at = "14s"
crash = { nodes = ["a1", "a2", "a3"] }
[[fault]]
at = "15s"
restart = ["b1", "b2", "b3"]
"#;

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

const VERY_SLOW_DISKS: &str = r#"
[[fault]]
at = "1s"
slow = { node = "b1", times = 5000 }
[[fault]]
at = "1s"
slow = { node = "b2", times = 5000 }
[[fault]]
at = "1s"
slow = { node = "b3", times = 5000 }
"#;

/// A's grants are long on their way; then A's renewals are lost, and A serves whom it reaches.
const SLOW_GRANTS: &str = r#"
[[fault]]
at = "1s"
model = { link = "wa", to = { delay_min = 1400000000, delay_mean = 1000 } }
[[fault]]
at = "8s"
cut = ["x1", "x2"]
[[fault]]
at = "8s"
cut-one-way = { link = "wa", direction = "forth" }
"#;

const SYNCS_FAIL: &str = r#"
[[fault]]
at = "3s"
disk = { node = "b1", kind = "sync-error", after = 2 }
[[fault]]
at = "6s"
disk = { node = "a2", kind = "sync-error", after = 2 }
"#;

/// Voters lose power, one after the other and all at once.
const VOTERS_DIE: &str = r#"
[[fault]]
at = "3s"
crash = { nodes = ["p-a1"] }
[[fault]]
at = "5s"
restart = ["p-a1"]
[[fault]]
at = "8s"
crash = { nodes = ["p-b1"] }
[[fault]]
at = "10s"
restart = ["p-b1"]
[[fault]]
at = "14s"
crash = { nodes = ["w1", "p-a1", "p-b1"] }
[[fault]]
at = "15s"
restart = "all"
[[fault]]
at = "19s"
crash = { nodes = ["w1", "p-a1"] }
[[fault]]
at = "20s"
restart = "all"
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
cut = ["wa", "x1", "x2"]
[[fault]]
at = "16s"
heal = "all"
[[fault]]
at = "18s"
cut = ["wb", "x1", "x2"]
"#;

/// A data centre no longer reaches placement and still reaches the other one.
const PLACEMENT_CUT_OFF: &str = r#"
[[fault]]
at = "2s"
cut = ["wa"]
[[fault]]
at = "14s"
heal = "all"
[[fault]]
at = "16s"
cut = ["wb"]
"#;

/// B is away while A takes writes alone; A is lost as soon as B is let in again.
const SECOND_LOSS_DURING_RETURN: &str = r#"
[[fault]]
at = "1s"
crash = { nodes = ["b1", "b2", "b3"] }
[[fault]]
at = "14s"
restart = ["b1", "b2", "b3"]
[[fault]]
when = "peering"
crash = { nodes = ["a1", "a2", "a3"] }
[[fault]]
at = "24s"
restart = "all"
"#;

const PRIMARIES_DIE_ON_SLOW_DISKS: &str = r#"
[[fault]]
at = "100ms"
slow = { node = "a1", times = 1500 }
[[fault]]
at = "100ms"
slow = { node = "a2", times = 1500 }
[[fault]]
at = "100ms"
slow = { node = "a3", times = 1500 }
[[fault]]
at = "100ms"
slow = { node = "b1", times = 1500 }
[[fault]]
at = "100ms"
slow = { node = "b2", times = 1500 }
[[fault]]
at = "100ms"
slow = { node = "b3", times = 1500 }
[[fault]]
when = "stored"
delay = "1ms"
crash = { nodes = ["a1", "a2", "a3"] }
[[fault]]
at = "10s"
restart = "all"
[[fault]]
when = "stored"
delay = "1ms"
crash = { nodes = ["b1", "b2", "b3"] }
[[fault]]
at = "22s"
restart = "all"
"#;

/// Between the request for a permission and the permission lie seconds: time to undelete.
const SLOW_PERMISSIONS: &str = r#"
[[fault]]
at = "1s"
model = { link = "wa", to = { delay_min = 350000000, delay_mean = 1000 } }
[[fault]]
at = "1s"
model = { link = "wb", to = { delay_min = 350000000, delay_mean = 1000 } }
"#;

/// A delete is committed, and the primary dies before its client hears so.
const ANSWERS_LOST: &str = r#"
[[fault]]
when = "deleted"
crash = { nodes = ["a1", "a2", "a3"], how = "process" }
[[fault]]
at = "4s"
restart = "all"
[[fault]]
at = "13s"
restart = "all"
[[fault]]
when = "deleted"
crash = { nodes = ["b1", "b2", "b3"], how = "process" }
[[fault]]
at = "18s"
restart = "all"
"#;

/// Order obeyed by some, the primary gone: another one drives it on.
const PRIMARIES_DIE_WHILE_OTHERS_ERASE: &str = r#"
[[fault]]
when = "erased"
crash = { nodes = ["a1", "a2"] }
[[fault]]
at = "12s"
restart = "all"
[[fault]]
when = "erased"
crash = { nodes = ["b1", "b2"] }
[[fault]]
at = "22s"
restart = "all"
"#;

/// What one node passes on to its neighbour is lost again and again.
const RELAYS_BREAK: &str = r#"
[[fault]]
at = "1s"
model = { link = "ib", to = { delay_min = 50000, delay_mean = 50000, lost_per_million = 100000 } }
[[fault]]
at = "1s"
model = { link = "ia", to = { delay_min = 50000, delay_mean = 50000, lost_per_million = 100000 } }
"#;

/// One message in five is seconds on its way.
const CALLS_ARE_LATE: &str = r#"
[[fault]]
at = "1s"
model = { link = "ia", to = { delay_min = 50000, spike_per_million = 200000, spike_mean = 9000000000 } }
[[fault]]
at = "1s"
model = { link = "x1", to = { delay_min = 2000000, spike_per_million = 200000, spike_mean = 9000000000 } }
"#;
