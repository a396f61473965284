//! Scenarios: a name, a setting, faults and what must come of them, in one TOML file. Every scenario
//! in `sim/scenarios` is a regression test; a found bug becomes one.
//!
//! ```
//! let text = r#"
//! name = "a backup loses power and comes back"
//! seeds = 2
//! horizon = "6s"
//! [work]
//! clients_per_tenant = 1
//! [expect]
//! longest_wait = "10s"
//! [[fault]]
//! at = "1s"
//! crash = { nodes = ["a2"] }
//! "#;
//! let scenario = trefoil_sim::product::scenario::Scenario::parse(text).unwrap();
//! assert_eq!(scenario.seeds().count(), 2);
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use trefoil_protocol::config::SingleDcPolicy;

use super::operator::{self, Errand};
use super::run::{Report, RunError, SERVES_WITHIN, Setting, run};
use crate::checkers::Violation;
use crate::faults::{Duration, FaultPlan, PlanError};
use crate::kernel::{MILLISECOND, SECOND};
use crate::workload::{Weights, WorkloadShape};

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not of the form.
    #[error(transparent)]
    Form(#[from] toml::de::Error),
    /// Its faults cannot be written down for the plan's reader.
    #[error(transparent)]
    Faults(#[from] toml::ser::Error),
    /// Its faults are no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its operator is asked for what nobody can do.
    #[error("{0}")]
    Operator(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    /// The hash of the run that was recorded, under its first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default)]
    first_seed: u64,
    #[serde(default = "one")]
    seeds: u64,
    #[serde(default = "twenty_seconds")]
    horizon: Duration,
    #[serde(default = "three_seconds")]
    window: Duration,
    /// Whether the tenants want every write in both data centres.
    #[serde(default)]
    strict: bool,
    #[serde(default = "one_volume")]
    volumes: u32,
    #[serde(default = "one_voter")]
    voters: usize,
    #[serde(default = "usual_rate")]
    rate_ppm_max: u32,
    #[serde(default = "half_a_minute")]
    serves_within: Duration,
    #[serde(default)]
    encodes: bool,
    #[serde(default)]
    work: Work,
    #[serde(default)]
    expect: Expect,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operator: Vec<Errand>,
    #[serde(default)]
    fault: Vec<toml::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Work {
    tenants: Vec<String>,
    clients_per_tenant: u32,
    keys: u64,
    shared_names: bool,
    think: Duration,
    put: u64,
    get: u64,
    head: u64,
    list: u64,
    delete: u64,
    undelete: u64,
}

impl Default for Work {
    fn default() -> Self {
        let shape = WorkloadShape::default();
        let Weights { put, get, head, list, delete, undelete } = shape.weights;
        Self {
            tenants: shape.tenants,
            clients_per_tenant: shape.clients_per_tenant,
            keys: shape.keys,
            shared_names: shape.shared_names,
            think: Duration(100 * MILLISECOND),
            put,
            get,
            head,
            list,
            delete,
            undelete,
        }
    }
}

/// The longest that a planned change of a primary may keep writers waiting.
const PAUSE_MAX_MS: u64 = 2_000;

/// What must come of a scenario, besides no violation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// No answered operation took longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_wait: Option<Duration>,
    /// At least so many operations were answered.
    pub answered: u64,
    /// At least so many deletes were certified.
    pub certified: u64,
    /// Acknowledgements were given under these rules.
    pub protections: Vec<String>,
    /// Nothing is acknowledged from the first of these times to the second.
    pub quiet: Option<[Duration; 2]>,
    /// At least so many primaries changed by handover, each within two seconds, and no operation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handovers: Option<u64>,
    /// So many processes ended themselves at least.
    pub fatal: usize,
    /// So many volumes stopped by name at least.
    pub stopped: u64,
    /// So often a suspect store joined again at least.
    pub joined_again: u64,
    /// So many machines lost power at an operation of their disks at least.
    pub power_losses: u64,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What happens, in a sentence.
    pub name: String,
    /// The setting.
    pub setting: Setting,
    /// What must come of it.
    pub expect: Expect,
    /// The hash of the run that it records, if it records one: under its first seed.
    pub hash: Option<String>,
    first_seed: u64,
    seeds: u64,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If the text is none.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let text: Text = toml::from_str(text)?;
        for word in text.operator.iter().flat_map(|errand| &errand.verbs) {
            operator::verb(word).map_err(ScenarioError::Operator)?;
        }
        let mut faults = toml::Table::new();
        faults.insert("fault".to_owned(), toml::Value::Array(text.fault));
        let plan = FaultPlan::parse(&toml::to_string(&faults)?)?;
        let Work { put, get, head, list, delete, undelete, .. } = text.work;
        let shape = WorkloadShape {
            tenants: text.work.tenants,
            clients_per_tenant: text.work.clients_per_tenant,
            keys: text.work.keys,
            shared_names: text.work.shared_names,
            think_mean: text.work.think.0,
            weights: Weights { put, get, head, list, delete, undelete },
            ..WorkloadShape::default()
        };
        let setting = Setting {
            shape,
            horizon: text.horizon.0,
            plan,
            window: text.window.0,
            single_dc: if text.strict { SingleDcPolicy::Refuse } else { SingleDcPolicy::Allow },
            volumes: text.volumes,
            voters: text.voters,
            encodes: text.encodes,
            rate_ppm_max: text.rate_ppm_max,
            recovery_max: 120 * SECOND,
            serves_within: text.serves_within.0,
            operator: text.operator,
            ends_at_first: false,
        };
        let (name, expect, hash) = (text.name, text.expect, text.hash);
        Ok(Self { name, setting, expect, hash, first_seed: text.first_seed, seeds: text.seeds })
    }

    /// A scenario of one seed in any setting, for example one that a seed drew.
    #[must_use]
    pub fn record(name: &str, seed: u64, setting: &Setting, hash: Option<String>) -> Self {
        let (name, setting, expect) = (name.to_owned(), setting.clone(), Expect::default());
        Self { name, setting, expect, hash, first_seed: seed, seeds: 1 }
    }

    /// Writes the scenario so that [`Self::parse`] reads the same one.
    ///
    /// # Panics
    /// Never: every scenario has a written form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Setting { shape, horizon, plan, window, volumes, voters, encodes, .. } = &self.setting;
        let Weights { put, get, head, list, delete, undelete } = shape.weights;
        let text = Text {
            name: self.name.clone(),
            hash: self.hash.clone(),
            first_seed: self.first_seed,
            seeds: self.seeds,
            horizon: Duration(*horizon),
            window: Duration(*window),
            strict: self.setting.single_dc == SingleDcPolicy::Refuse,
            volumes: *volumes,
            voters: *voters,
            rate_ppm_max: self.setting.rate_ppm_max,
            serves_within: Duration(self.setting.serves_within),
            encodes: *encodes,
            work: Work {
                tenants: shape.tenants.clone(),
                clients_per_tenant: shape.clients_per_tenant,
                keys: shape.keys,
                shared_names: shape.shared_names,
                think: Duration(shape.think_mean),
                put,
                get,
                head,
                list,
                delete,
                undelete,
            },
            expect: self.expect.clone(),
            operator: self.setting.operator.clone(),
            fault: Vec::new(),
        };
        let head = toml::to_string(&text).expect("a scenario has a written form");
        format!("{}{}", head.replace("fault = []\n", ""), plan.to_toml())
    }

    /// The seeds under which it runs.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.first_seed..self.first_seed + self.seeds
    }

    /// Runs one seed of it; what was expected and did not come is a violation too.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, seed: u64, trace: Option<&Path>) -> Result<Report, RunError> {
        let mut report = run(seed, &self.setting, trace)?;
        let missing = self.expect.missing(&report);
        let at_ns = report.sim_time;
        let object = self.name.clone();
        let violation =
            |sentence| Violation { checker: "expectation", object: object.clone(), at_ns, sentence };
        report.violations.extend(missing.into_iter().map(violation));
        Ok(report)
    }
}

impl Expect {
    fn missing(&self, report: &Report) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(most) = self.longest_wait.filter(|most| report.longest_wait > most.0) {
            let (took, most) = (report.longest_wait / MILLISECOND, most.0 / MILLISECOND);
            missing.push(format!("an operation took {took} ms, at most {most} ms were expected"));
        }
        for (what, got, least) in [
            ("operations were answered", report.answered, self.answered),
            ("deletes were certified", report.certified, self.certified),
            ("machines lost power at their disks", report.power_losses, self.power_losses),
            ("volumes stopped by name", report.stopped, self.stopped),
            ("suspect stores joined again", report.joined_again, self.joined_again),
            ("processes ended themselves", report.fatal.len() as u64, self.fatal as u64),
        ] {
            if got < least {
                missing.push(format!("{got} {what}, at least {least} were expected"));
            }
        }
        if let Some(least) = self.handovers {
            let Report { handovers, longest_pause, failed, .. } = report;
            if *handovers < least || *longest_pause > PAUSE_MAX_MS || *failed > 0 {
                missing.push(format!(
                    "{handovers} handovers of at least {least}, the longest of {longest_pause} ms, and {failed} \
                     operations that failed"
                ));
            }
        }
        if let Some([from, to]) = self.quiet {
            let within = report.acknowledged.iter().filter(|at| (from.0..to.0).contains(at)).count();
            if within > 0 {
                missing
                    .push(format!("{within} mutations were acknowledged while nobody could know they hold"));
            }
        }
        for protection in &self.protections {
            if !report.protections.contains(protection) {
                missing.push(format!("nothing was acknowledged under {protection}"));
            }
        }
        missing
    }
}

fn one() -> u64 {
    1
}

fn one_volume() -> u32 {
    1
}

fn one_voter() -> usize {
    1
}

fn usual_rate() -> u32 {
    200
}

fn half_a_minute() -> Duration {
    Duration(SERVES_WITHIN)
}

fn twenty_seconds() -> Duration {
    Duration(20 * SECOND)
}

fn three_seconds() -> Duration {
    Duration(3 * SECOND)
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
            assert_eq!(again.hash.as_deref(), Some("ab"));
        }
    }

    #[test]
    fn what_is_no_scenario_is_refused_with_its_place() {
        for (text, reason) in [
            ("", "missing field `name`"),
            ("name = \"x\"\nsedes = 3", "unknown field `sedes`"),
            ("name = \"x\"\nhorizon = \"soon\"", "not a length of time"),
            ("name = \"x\"\n[[fault]]\nat = \"1s\"\ncutt = \"x1\"", "cutt"),
        ] {
            let error = Scenario::parse(text).expect_err("a bad scenario").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
