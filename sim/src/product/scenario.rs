//! Scenarios: drills that the simulator runs. The file is the drills' own; every one in `sim/scenarios` is a
//! regression test, those of the decision table are drills for clusters too, and a found bug becomes one.
//!
//! ```
//! let text = r#"
//! name = "a backup loses power and comes back"
//! seeds = 2
//! horizon = "6s"
//! [load]
//! clients_per_tenant = 1
//! [expect]
//! rto = "10s"
//! [[fault]]
//! at = "1s"
//! crash = { nodes = ["a2"] }
//! "#;
//! let scenario = trefoil_sim::product::scenario::Scenario::parse(text).unwrap();
//! assert_eq!(scenario.seeds().count(), 2);
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use trefoil_drill::{
    Abort, Arrivals, Document, DrillFile, Expect, Facts, FileError, Load, Place, Report as DrillReport, Told,
    Topology, Verdict, Verification,
};
use trefoil_protocol::config::SingleDcPolicy;

use super::roster;
use super::run::{Report, RunError, SERVES_WITHIN, Setting, clients, run};
use crate::checkers::Violation;
use crate::faults::Duration;
use crate::kernel::{MILLISECOND, SECOND};
use crate::workload::{Weights, WorkloadShape};

/// The checker that says what was expected and did not come.
const EXPECTATION: &str = "expectation";

/// A drill in the simulator.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the file says.
    pub file: DrillFile,
    /// What that means here.
    pub setting: Setting,
    text: String,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let file = DrillFile::parse(text)?;
        Ok(Self { setting: setting_of(&file), file, text: text.to_owned() })
    }

    /// A scenario of one seed in any setting, for example one that a seed drew.
    #[must_use]
    pub fn record(name: &str, seed: u64, setting: &Setting, hash: Option<String>) -> Self {
        let file = file_of(name, seed, setting, hash);
        Self { setting: setting.clone(), text: file.to_toml(), file }
    }

    /// The scenario of this name that another one leads to, under one seed.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.file.to_toml()
    }

    /// The seeds under which it runs.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.file.seeds()
    }

    /// Runs one seed of it; what was expected and did not come is a violation too.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, seed: u64, trace: Option<&Path>) -> Result<Report, RunError> {
        let mut report = run(seed, &self.setting, trace)?;
        let verdicts = self.file.expect.judge(&report.course, &facts_of(&report, &self.setting));
        let at_ns = report.sim_time;
        let violation = |Verdict { what, target, measured, .. }: Verdict| Violation {
            checker: EXPECTATION,
            object: self.file.name.clone(),
            at_ns,
            sentence: format!("{what}: {measured}, expected {target}"),
        };
        report.violations.extend(verdicts.into_iter().filter(|verdict| !verdict.held).map(violation));
        Ok(report)
    }

    /// What came of a run, in the form that drills on clusters have.
    #[must_use]
    pub fn document(&self, report: &Report) -> Document {
        let found = report.violations.iter().filter(|violation| violation.checker != EXPECTATION);
        let verification = Verification {
            whole: report.whole_after.is_some(),
            whole_after_ms: report.whole_after.unwrap_or_default() / MILLISECOND,
            objects: report.read_back,
            violations: found.map(ToString::to_string).collect(),
            ..Verification::default()
        };
        let trace_hash = report.trace.hash.to_string();
        let told = Told {
            id: format!("seed-{}-{}", report.seed, &trace_hash[..8]),
            place: Place::Simulated { seed: report.seed, trace_hash },
            text: self.text.clone(),
            aborted: None,
            verification,
            notes: vec![
                "the simulator's checkers looked into every disk at every acknowledgement".to_owned(),
            ],
        };
        let facts = facts_of(report, &self.setting);
        let timeline = report.timeline.since(report.began_at);
        let report = DrillReport::of(&self.file, &report.course, timeline, &facts, told);
        Document { report, signature: None }
    }
}

fn facts_of(report: &Report, setting: &Setting) -> Facts {
    let lost = report.violations.iter().filter(|violation| violation.checker == "no_lost_write");
    Facts {
        horizon: setting.horizon,
        protections: report.protections.clone(),
        acknowledged: report.acknowledged.clone(),
        certified: report.certified,
        fatal: report.fatal.len() as u64,
        handovers: report.handovers,
        longest_pause_ms: report.longest_pause,
        stopped: report.stopped,
        joined_again: report.joined_again,
        power_losses: report.power_losses,
        put_out: report.put_out,
        listed: report.listed,
        unknown: report.unknown,
        lease_over: report.lease_over,
        stale: report.stale,
        declared_in_vain: report.declared_in_vain,
        standing: standing(setting),
        requests: report.requests,
        retries: report.retries,
        disk_queue: report.disk_queue,
        lost: lost.count() as u64,
    }
}

/// Which clients stand in which data centre.
fn standing(setting: &Setting) -> BTreeMap<String, BTreeSet<u32>> {
    let mut standing = BTreeMap::<String, BTreeSet<u32>>::new();
    for client in 0..clients(setting) {
        let dc = roster::dc_of(roster::site_of_client(client));
        standing.entry(dc.to_string()).or_default().insert(client);
    }
    standing
}

fn setting_of(file: &DrillFile) -> Setting {
    let Load { put, get, head, list, delete, undelete, version, .. } = file.load;
    let topology = file.topology.clone();
    let Topology {
        volumes,
        voters,
        strict,
        stale_reads,
        window,
        rate_ppm_max,
        encodes,
        disk_operations,
        disk_bytes,
        slow_floor,
    } = topology;
    Setting {
        shape: WorkloadShape {
            tenants: file.load.tenants.clone(),
            clients_per_tenant: file.load.clients_per_tenant,
            keys: file.load.keys,
            shared_names: file.load.shared_names,
            think_mean: file.load.think.0,
            arrivals: file.load.arrivals.iter().map(|now| (now.from.0, now.per_second)).collect(),
            deadline: file.load.deadline.0,
            weights: Weights { put, get, head, list, delete, undelete, version },
            stale_reads,
            ..WorkloadShape::default()
        },
        horizon: file.horizon.0,
        plan: file.plan.clone(),
        window: window.0,
        single_dc: if strict { SingleDcPolicy::Refuse } else { SingleDcPolicy::Allow },
        volumes,
        voters,
        encodes,
        rate_ppm_max,
        // An open loop leaves much to be read back.
        recovery_max: if file.load.arrivals.is_empty() { 120 * SECOND } else { 300 * SECOND },
        serves_within: file.expect.serves_within.map_or(SERVES_WITHIN, |within| within.0),
        disk_speed: (disk_operations, disk_bytes),
        slow_floor: slow_floor.0,
        operator: file.operator.clone(),
        rescues: file.rescues.clone(),
        ends_at_first: false,
    }
}

fn file_of(name: &str, seed: u64, setting: &Setting, hash: Option<String>) -> DrillFile {
    let Setting { shape, horizon, plan, window, volumes, voters, encodes, .. } = setting;
    let Weights { put, get, head, list, delete, undelete, version } = shape.weights;
    let arrivals = shape.arrivals.iter();
    let arrivals =
        arrivals.map(|(from, per_second)| Arrivals { from: Duration(*from), per_second: *per_second });
    DrillFile {
        name: name.to_owned(),
        row: None,
        hash,
        first_seed: seed,
        seeds: 1,
        horizon: Duration(*horizon),
        topology: Topology {
            volumes: *volumes,
            voters: *voters,
            strict: setting.single_dc == SingleDcPolicy::Refuse,
            stale_reads: shape.stale_reads.clone(),
            window: Duration(*window),
            rate_ppm_max: setting.rate_ppm_max,
            encodes: *encodes,
            disk_operations: setting.disk_speed.0,
            disk_bytes: setting.disk_speed.1,
            slow_floor: Duration(setting.slow_floor),
        },
        load: Load {
            tenants: shape.tenants.clone(),
            clients_per_tenant: shape.clients_per_tenant,
            keys: shape.keys,
            shared_names: shape.shared_names,
            think: Duration(shape.think_mean),
            deadline: Duration(shape.deadline),
            put,
            get,
            head,
            list,
            delete,
            undelete,
            version,
            arrivals: arrivals.collect(),
            capacity: None,
        },
        expect: Expect { serves_within: Some(Duration(setting.serves_within)), ..Expect::default() },
        abort: Abort::default(),
        blackouts: Vec::new(),
        operator: setting.operator.clone(),
        rescues: setting.rescues.clone(),
        plan: plan.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::Scenario;
    use crate::product::run::Setting;

    #[test]
    fn what_a_seed_draws_is_written_and_read_again() {
        for seed in 0..40 {
            let scenario = Scenario::record("drawn", seed, &Setting::drawn(seed), Some("ab".to_owned()));
            let again = Scenario::parse(&scenario.to_toml()).expect("what was written can be read");
            assert_eq!(again.setting, scenario.setting, "{}", scenario.to_toml());
            assert_eq!(again.seeds().collect::<Vec<_>>(), [seed]);
            assert_eq!(again.file.hash.as_deref(), Some("ab"));
        }
    }
}
