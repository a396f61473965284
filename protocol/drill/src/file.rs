//! The file of a drill: topology, load, faults, expectations, and when it must not run or go on. One TOML
//! grammar for the simulator and for clusters; what only one of them can do, the other refuses by name.
//!
//! ```
//! let text = r#"
//! name = "a backup dies and comes back"
//! row = 1
//! horizon = "20s"
//! [load]
//! clients_per_tenant = 1
//! [expect]
//! rto = "10s"
//! [[fault]]
//! at = "5s"
//! crash = { nodes = ["a2"] }
//! "#;
//! let file = trefoil_drill::DrillFile::parse(text).unwrap();
//! assert_eq!(file.row, Some(1));
//! ```

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::clock_time::Blackout;
use crate::duration::{Duration, MILLISECOND, SECOND};
use crate::expect::Expect;
use crate::fault::{FaultPlan, FaultTable, PlanError, Trigger, plan_of};
use crate::operator::{self, Errand};
use crate::rescue::Rescue;

/// The last row of the decision table.
const ROWS: u8 = 22;

/// Why a text is no drill.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not of the form; the message shows the line.
    #[error("{0}")]
    Form(String),
    /// Its faults are no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no such row.
    #[error("`row = {0}`: the decision table has rows 1 to {ROWS}; leave `row` out if none is meant")]
    Row(u8),
    /// A fault would strike when no client works any more.
    #[error("fault {number} strikes at {at}, the clients stop at {horizon}: raise `horizon`")]
    TooLate {
        /// Counted from one.
        number: usize,
        /// When it would strike.
        at: Duration,
        /// When the clients stop.
        horizon: Duration,
    },
    /// The operator is asked for what nobody can do.
    #[error("{0}")]
    Operator(String),
    /// It is expected of no time in which clients work.
    #[error(
        "`during` number {0} says nothing: `from` is before `until`, `until` is not behind `horizon`, `clients` is \
         \"a\", \"b\" or \"either\" if given, and `writes` or `reads` is \"yes\", \"some\", \"refused\" or \"none\""
    )]
    Span(usize),
    /// An open loop that never begins, or turns back.
    #[error(
        "`load.arrivals` begins at 0s and goes on in order, with at least one arrival a second: here is {0}"
    )]
    Arrivals(Duration),
    /// A capacity that no rate is meant for.
    #[error(
        "`load.capacity` is what the rates under `load.arrivals` are meant for: give some, and at least 1"
    )]
    Capacity,
    /// Nobody would notice anything.
    #[error("`load` does nothing: give at least one tenant, one client, one key, and one weight above 0")]
    Idle,
}

/// What a drill needs to stand on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Volumes of each tenant, at least.
    pub volumes: u32,
    /// Voters of the control plane, at least.
    pub voters: usize,
    /// Whether the tenants want every write in both data centres.
    pub strict: bool,
    /// The simulated tenants that take exact versions from replicas without a control plane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale_reads: Vec<String>,
    /// How long a delete can be undone. A cluster's tenants keep the window that they have.
    pub window: Duration,
    /// The most that a boot clock may be wrong, in the simulator.
    pub rate_ppm_max: u32,
    /// Whether the simulator sends messages through their encoding.
    pub encodes: bool,
    /// How much a simulated disk does in a second; 0 for as much as is wanted.
    pub disk_operations: u64,
    /// And how many bytes it writes or reads in a second.
    pub disk_bytes: u64,
    /// How much longer than elsewhere work takes on a slow store at least, in the simulator.
    pub slow_floor: Duration,
}

impl Default for Topology {
    fn default() -> Self {
        let window = Duration(3 * SECOND);
        Self {
            volumes: 1,
            voters: 1,
            strict: false,
            stale_reads: Vec::new(),
            window,
            rate_ppm_max: 200,
            encodes: false,
            disk_operations: 0,
            disk_bytes: 0,
            slow_floor: Duration(2 * MILLISECOND),
        }
    }
}

/// How many operations begin in a second, of all clients together, whatever becomes of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrivals {
    /// From here on.
    pub from: Duration,
    /// So many.
    pub per_second: u64,
}

/// What clients do, each in a closed loop: draw an operation, wait for its answer, think. With `arrivals`, in an
/// open one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Clients of each.
    pub clients_per_tenant: u32,
    /// Keys that they work on; on a cluster, of each client.
    pub keys: u64,
    /// Whether the simulated tenants use the same keys.
    pub shared_names: bool,
    /// The mean time between an answer and the next operation.
    pub think: Duration,
    /// How long an operation may go on without progress before its client gives up.
    pub deadline: Duration,
    /// How often puts are drawn, in proportion.
    pub put: u64,
    /// Reads of the latest version.
    pub get: u64,
    /// Reads of metadata.
    pub head: u64,
    /// Listings.
    pub list: u64,
    /// Deletes.
    pub delete: u64,
    /// Undeletes.
    pub undelete: u64,
    /// Reads of the version that was stored last, by simulated clients that take what may be stale.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
    /// How many operations begin in a second: an open loop, in which `think` means nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arrivals: Vec<Arrivals>,
    /// What the rates of `arrivals` are meant for: so many operations of this mix in a second are all that can be
    /// done. On a cluster this is measured, and the rates follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            tenants: vec!["acme".to_owned(), "globex".to_owned()],
            clients_per_tenant: 2,
            keys: 6,
            shared_names: true,
            think: Duration(100 * MILLISECOND),
            deadline: Duration(60 * SECOND),
            put: 30,
            get: 35,
            head: 8,
            list: 5,
            delete: 14,
            undelete: 8,
            version: 0,
            arrivals: Vec::new(),
            capacity: None,
        }
    }
}

impl Load {
    fn does_something(&self) -> bool {
        let weights =
            self.put + self.get + self.head + self.list + self.delete + self.undelete + self.version;
        !self.tenants.is_empty() && self.clients_per_tenant > 0 && self.keys > 0 && weights > 0
    }

    /// The same load for what can do so many operations a second.
    #[must_use]
    pub fn meant_for(&self, per_second: u64) -> Self {
        let meant = self.capacity.unwrap_or(per_second);
        let in_proportion = |rate: &Arrivals| {
            let share = u128::from(rate.per_second) * u128::from(per_second) / u128::from(meant.max(1));
            Arrivals { per_second: u64::try_from(share).unwrap_or(u64::MAX).max(1), ..*rate }
        };
        let arrivals = self.arrivals.iter().map(in_proportion).collect();
        Self { arrivals, capacity: self.capacity.map(|_| per_second), ..self.clone() }
    }
}

/// When a drill on a cluster is broken off, healed and judged as aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Abort {
    /// More operations than this failed.
    pub errors: Option<u64>,
    /// No operation of any client was answered for longer than this.
    pub outage: Option<Duration>,
}

impl Default for Abort {
    fn default() -> Self {
        Self { errors: None, outage: Some(Duration(120 * SECOND)) }
    }
}

/// A drill as its file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillFile {
    /// What happens, in a sentence.
    pub name: String,
    /// The row of the decision table that it shows.
    pub row: Option<u8>,
    /// The hash of the simulated run that it records, under its first seed.
    pub hash: Option<String>,
    /// The first seed under which the simulator runs it.
    pub first_seed: u64,
    /// Under how many seeds.
    pub seeds: u64,
    /// For how long clients begin new work; everything is healed then.
    pub horizon: Duration,
    /// What it stands on.
    pub topology: Topology,
    /// What clients do.
    pub load: Load,
    /// What must come of it.
    pub expect: Expect,
    /// When it is broken off.
    pub abort: Abort,
    /// When it must not run.
    pub blackouts: Vec<Blackout>,
    /// What an operator does, and when.
    pub operator: Vec<Errand>,
    /// What becomes of the control plane's logs, and when.
    pub rescues: Vec<Rescue>,
    /// What breaks, and when.
    pub plan: FaultPlan,
}

/// The text's tables.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    row: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default)]
    first_seed: u64,
    #[serde(default = "one")]
    seeds: u64,
    #[serde(default = "twenty_seconds")]
    horizon: Duration,
    #[serde(default)]
    topology: Topology,
    #[serde(default)]
    load: Load,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    abort: Abort,
    #[serde(default, rename = "blackout", skip_serializing_if = "Vec::is_empty")]
    blackouts: Vec<Blackout>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operator: Vec<Errand>,
    #[serde(default, rename = "rescue", skip_serializing_if = "Vec::is_empty")]
    rescues: Vec<Rescue>,
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Spanned<FaultTable>>,
}

fn is_zero(weight: &u64) -> bool {
    *weight == 0
}

fn one() -> u64 {
    1
}

fn twenty_seconds() -> Duration {
    Duration(20 * SECOND)
}

impl DrillFile {
    /// Reads a drill.
    ///
    /// # Errors
    /// With the line and what to do, if the text is none.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let read: Text = toml::from_str(text).map_err(|error| FileError::Form(error.to_string()))?;
        let plan = plan_of(read.faults, text)?;
        let Text { name, row, hash, first_seed, seeds, horizon, topology, load, expect, abort, .. } = read;
        let (blackouts, operator, rescues) = (read.blackouts, read.operator, read.rescues);
        let file = Self {
            name,
            row,
            hash,
            first_seed,
            seeds,
            horizon,
            topology,
            load,
            expect,
            abort,
            blackouts,
            operator,
            rescues,
            plan,
        };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), FileError> {
        if let Some(row) = self.row.filter(|row| *row == 0 || *row > ROWS) {
            return Err(FileError::Row(row));
        }
        if !self.load.does_something() {
            return Err(FileError::Idle);
        }
        if let Some(place) = self.expect.during.iter().position(|span| !span.says_something(self.horizon)) {
            return Err(FileError::Span(place + 1));
        }
        let mut behind = None;
        for arrivals in &self.load.arrivals {
            let follows = behind.map_or(arrivals.from.0 == 0, |before| arrivals.from > before);
            if !follows || arrivals.per_second == 0 {
                return Err(FileError::Arrivals(arrivals.from));
            }
            behind = Some(arrivals.from);
        }
        if self.load.capacity == Some(0) || self.load.capacity.is_some() && behind.is_none() {
            return Err(FileError::Capacity);
        }
        for text in self.operator.iter().flat_map(|errand| &errand.verbs) {
            operator::verb(text).map_err(FileError::Operator)?;
        }
        for (index, fault) in self.plan.faults.iter().enumerate() {
            if let Trigger::At(at) = fault.trigger
                && at > self.horizon
            {
                return Err(FileError::TooLate { number: index + 1, at, horizon: self.horizon });
            }
        }
        Ok(())
    }

    /// Writes the drill so that [`Self::parse`] reads the same one.
    ///
    /// # Panics
    /// Never: every drill has a written form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let text = Text {
            name: self.name.clone(),
            row: self.row,
            hash: self.hash.clone(),
            first_seed: self.first_seed,
            seeds: self.seeds,
            horizon: self.horizon,
            topology: self.topology.clone(),
            load: self.load.clone(),
            expect: self.expect.clone(),
            abort: self.abort.clone(),
            blackouts: self.blackouts.clone(),
            operator: self.operator.clone(),
            rescues: self.rescues.clone(),
            faults: Vec::new(),
        };
        let head = toml::to_string(&text).expect("a drill has a written form");
        format!("{head}{}", self.plan.to_toml())
    }

    /// The seeds under which the simulator runs it.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.first_seed..self.first_seed.saturating_add(self.seeds)
    }
}

#[cfg(test)]
mod tests {
    use super::{DrillFile, FileError};
    use crate::duration::{Duration, SECOND};

    const WHOLE: &str = r#"
name = "one link is cut"
row = 7
horizon = "12s"
[topology]
volumes = 2
strict = true
[load]
tenants = ["acme"]
think = "20ms"
[expect]
rto = "3s"
rpo = "0"
during = [{ from = "7s", until = "12s", writes = "yes", reads = "some" }]
[abort]
errors = 10
[[blackout]]
days = "mon-fri"
from = "08:00"
until = "18:00"
[[fault]]
at = "3s"
cut = "x1"
[[fault]]
at = "+4s"
heal = "all"
"#;

    #[test]
    fn what_is_written_is_read_again() {
        let file = DrillFile::parse(WHOLE).expect("a good drill");
        assert_eq!((file.row, file.horizon, file.plan.faults.len()), (Some(7), Duration(12 * SECOND), 2));
        assert_eq!(DrillFile::parse(&file.to_toml()), Ok(file.clone()), "{}", file.to_toml());
        assert_eq!(file.seeds().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_is_no_drill_is_refused_with_its_place_and_what_to_do() {
        for (text, reasons) in [
            ("", ["missing field `name`", ""]),
            ("name = \"x\"\nsedes = 3", ["line 2", "unknown field `sedes`"]),
            ("name = \"x\"\nhorizon = \"soon\"", ["line 2", "write a whole number and one of"]),
            ("name = \"x\"\nrow = 23", ["row = 23", "1 to 22"]),
            ("name = \"x\"\n[load]\nkeys = 0", ["does nothing", "at least one tenant"]),
            ("name = \"x\"\n[[load.arrivals]]\nfrom = \"3s\"\nper_second = 5", ["3s", "begins at 0s"]),
            ("name = \"x\"\n[load]\ncapacity = 5", ["`load.capacity`", "load.arrivals"]),
            (
                "name = \"x\"\n[[operator]]\nat = \"1s\"\nverbs = [\"fly a\"]",
                ["\"fly a\"", "write `failover DC`"],
            ),
            ("name = \"x\"\n[load]\nclient = 3", ["line 3", "unknown field `client`"]),
            ("name = \"x\"\n[expect]\nrpo = \"1\"", ["line 3", "`at-risk`"]),
            (
                "name = \"x\"\n[expect]\nduring = [{ from = \"3s\", until = \"21s\", reads = \"yes\" }]",
                ["`during` number 1", "behind `horizon`"],
            ),
            (
                "name = \"x\"\n[expect]\nduring = [{ from = \"3s\", until = \"5s\" }]",
                ["`during` number 1", "`writes` or `reads`"],
            ),
            ("name = \"x\"\n[[fault]]\nat = \"1s\"\ncutt = \"x1\"", ["line 4", "cutt"]),
            ("name = \"x\"\n\n[[fault]]\nat = \"1s\"", ["fault 1, line 3", "give it an action"]),
            ("name = \"x\"\n[[fault]]\nat = \"30s\"\ncut = \"x1\"", ["30s", "raise `horizon`"]),
            ("name = \"x\"\n[[blackout]]\nfrom = \"8\"\nuntil = \"18:00\"", ["line 3", "08:30"]),
        ] {
            let error = DrillFile::parse(text).expect_err("no drill").to_string();
            assert!(reasons.iter().all(|reason| error.contains(reason)), "{text}: {error}");
        }
        assert!(matches!(DrillFile::parse("name = 3"), Err(FileError::Form(_))));
    }
}
