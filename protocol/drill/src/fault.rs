//! Faults are data: a plan is a list of (trigger, action) that can be written down, drawn from a
//! seed, replayed without it and made smaller.
//!
//! The grammar, one table per fault: `at = "3s"` (or `"+1s"`, after the fault before it) or
//! `when = "mark node=b1"` with an optional `delay`, and exactly one action: `cut`, `cut-one-way`,
//! `heal`, `model`, `break`, `part`, `crash`, `restart`, `pause`, `starve`, `disk`, `rot`, `garble`, `slow`, `repair`,
//! `wall`, `rate`, `image`, `roll-back`, `lose-disk`. Names of nodes are checked when the plan meets a cluster, not here.

mod grammar;

use serde::{Deserialize, Serialize};

pub use grammar::PlanError;
pub(crate) use grammar::{FaultTable, plan_of};

use crate::condition::{Direction, FaultKind, LinkModel, Persistence, SuspendedClock};
use crate::duration::Duration;

/// When a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At a moment of true time.
    At(Duration),
    /// So long after a node first reports a mark after the fault before this one struck.
    When {
        /// What the core calls the moment, e.g. `lease.granted`.
        mark: String,
        /// Which node must report it; any, if none is named.
        node: Option<String>,
        /// How long after.
        delay: Duration,
    },
}

/// How a process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrashKind {
    /// The machine loses power: what was not synced may be lost, the boot clock begins anew.
    #[default]
    Power,
    /// The process dies and the machine lives: the page cache survives.
    Process,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Links are cut in both directions.
    Cut(Vec<String>),
    /// One direction of a link is cut.
    CutOneWay(OneWay),
    /// Links come back; `all` for every one.
    Heal(Vec<String>),
    /// A link behaves differently from now on.
    Model(ModelChange),
    /// The connections between two nodes break, with all that is in flight on them.
    Break([String; 2]),
    /// Nothing passes between two nodes any more, over whatever link, until everything is healed.
    Part([String; 2]),
    /// Nodes crash.
    Crash(Crash),
    /// Nodes start again; `all` for every one that is down.
    Restart(Vec<String>),
    /// A node stands still for a time, its peers do not.
    Pause(Pause),
    /// A node gets the processor in pieces for a time.
    Starve(Starve),
    /// A disk fails in a given way.
    Disk(DiskChange),
    /// One bit of a file rots.
    Rot(Rot),
    /// One record of a log reads wrongly on some disks until they are repaired.
    Garble(Garble),
    /// A disk becomes slow.
    Slow(Slow),
    /// Disks fail no more; `all` for every one.
    Repair(Vec<String>),
    /// A wall clock jumps.
    Wall(WallJump),
    /// A boot clock changes its rate.
    Rate(RateChange),
    /// An image of a disk is taken, to roll back to.
    Image(String),
    /// A machine loses power, and its disk is put back to its image; without one, nothing happens.
    RollBack(String),
    /// A machine loses power, and an empty disk stands in the place of its own.
    LoseDisk(String),
}

impl Action {
    /// What kind of fault it is, for counts.
    #[must_use]
    pub fn kind(&self) -> String {
        let plain = match self {
            Self::Disk(change) => return format!("disk {}", change.kind.name()),
            Self::Crash(Crash { how: CrashKind::Process, .. }) => "process death",
            Self::Crash(_) => "power loss",
            Self::Cut(_) => "cut",
            Self::CutOneWay(_) => "one-way cut",
            Self::Heal(_) => "heal",
            Self::Model(_) => "link behaviour",
            Self::Break(_) => "broken connections",
            Self::Part(_) => "broken path",
            Self::Restart(_) => "restart",
            Self::Pause(_) => "pause",
            Self::Starve(_) => "starved process",
            Self::Rot(_) => "bit rot",
            Self::Garble(_) => "garbled record",
            Self::Slow(_) => "slow disk",
            Self::Repair(_) => "repair",
            Self::Wall(_) => "wall clock jump",
            Self::Rate(_) => "clock rate",
            Self::Image(_) => "disk image",
            Self::RollBack(_) => "disk rolled back",
            Self::LoseDisk(_) => "disk lost",
        };
        plain.to_owned()
    }

    /// Whom it strikes.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        match self {
            Self::Cut(names) | Self::Heal(names) | Self::Restart(names) | Self::Repair(names) => {
                names.clone()
            }
            Self::CutOneWay(OneWay { link: name, .. })
            | Self::Model(ModelChange { link: name, .. })
            | Self::Pause(Pause { node: name, .. })
            | Self::Starve(Starve { node: name, .. })
            | Self::Disk(DiskChange { node: name, .. })
            | Self::Rot(Rot { node: name, .. })
            | Self::Slow(Slow { node: name, .. })
            | Self::Wall(WallJump { node: name, .. })
            | Self::Rate(RateChange { node: name, .. })
            | Self::Image(name)
            | Self::RollBack(name)
            | Self::LoseDisk(name) => vec![name.clone()],
            Self::Crash(crash) => crash.nodes.clone(),
            Self::Garble(garble) => garble.nodes.clone(),
            Self::Break(pair) | Self::Part(pair) => pair.to_vec(),
        }
    }

    /// What it does and to whom, in words.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{}: {}", self.kind(), self.targets().join(" "))
    }

    /// Whether it takes a fault away.
    #[must_use]
    pub fn is_healing(&self) -> bool {
        matches!(self, Self::Heal(_) | Self::Restart(_) | Self::Repair(_) | Self::Image(_))
    }
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneWay {
    /// The link's name.
    pub link: String,
    /// Which way is cut.
    pub direction: Direction,
}

/// A new behaviour of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelChange {
    /// The link's name.
    pub link: String,
    /// How it behaves from now on.
    pub to: LinkModel,
}

/// Nodes that crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// Their names.
    pub nodes: Vec<String>,
    /// How.
    #[serde(default)]
    pub how: CrashKind,
}

/// A node that stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Its name.
    pub node: String,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Duration,
    /// Whether its boot clock runs on meanwhile; out of contract if not.
    #[serde(default)]
    pub clock: SuspendedClock,
}

/// A node on an overloaded machine: again and again it stands still for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starve {
    /// Its name.
    pub node: String,
    /// For how long all in all.
    #[serde(rename = "for")]
    pub lasts: Duration,
    /// How long a stall lasts, in the mean.
    pub stall: Duration,
    /// How long it runs between two stalls, in the mean.
    pub run: Duration,
}

/// A way in which a disk fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskChange {
    /// The node whose disk it is.
    pub node: String,
    /// How it fails.
    pub kind: FaultKind,
    /// Which files.
    #[serde(default = "any_file")]
    pub file: String,
    /// Once or for good.
    #[serde(default = "once")]
    pub persistence: Persistence,
    /// How many matching operations succeed first.
    #[serde(default)]
    pub after: u32,
}

/// A bit that rots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rot {
    /// The node whose disk it is.
    pub node: String,
    /// Which files; one of them is drawn.
    #[serde(default = "any_file")]
    pub file: String,
}

/// A record that reads wrongly, in every frame of it that was written so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Garble {
    /// The nodes on whose disks.
    pub nodes: Vec<String>,
    /// The volume.
    pub volume: u64,
    /// The record's position.
    pub lsn: u64,
}

/// A disk that becomes slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// The node whose disk it is.
    pub node: String,
    /// How many times as long its syncs take.
    pub times: u64,
}

/// A wall clock that jumps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WallJump {
    /// The node.
    pub node: String,
    /// Seconds forward, or back if negative.
    pub seconds: i64,
}

/// A boot clock that changes its rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateChange {
    /// The node.
    pub node: String,
    /// Microseconds gained per second.
    pub ppm: i32,
}

fn any_file() -> String {
    "*".to_owned()
}

fn once() -> Persistence {
    Persistence::Once
}

/// A trigger with its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub trigger: Trigger,
    /// What.
    pub action: Action,
}

/// A list of faults. Those triggered by a mark wait for the one before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The faults, in order.
    pub faults: Vec<Fault>,
}

impl FaultPlan {
    /// Reads a plan.
    ///
    /// # Errors
    /// With the line, if the text is not a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        grammar::parse(text)
    }

    /// Writes the plan so that [`Self::parse`] reads the same one.
    #[must_use]
    pub fn to_toml(&self) -> String {
        grammar::write(self)
    }

    /// How many faults do damage.
    #[must_use]
    pub fn damaging(&self) -> usize {
        self.faults.iter().filter(|fault| !fault.action.is_healing()).count()
    }
}
