//! The written form of a fault plan.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    Action, Crash, DiskChange, Fault, FaultPlan, Garble, ModelChange, OneWay, Pause, RateChange, Rot, Slow,
    Starve, Trigger, WallJump,
};
use crate::duration::{Duration, NoDuration};

/// Why a text is not a fault plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not TOML of the right shape; the message names the line.
    #[error("{0}")]
    Toml(String),
    /// A fault that cannot be understood.
    #[error("fault {number}, line {line}: {reason}")]
    Fault {
        /// Counted from one.
        number: usize,
        /// Where its table begins.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanTable {
    #[serde(default, rename = "fault")]
    faults: Vec<Spanned<FaultTable>>,
}

/// One fault as it is written: every action is a key of its own, so that a misspelt one is an
/// error with its line.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FaultTable {
    at: Option<String>,
    when: Option<String>,
    delay: Option<Duration>,
    cut: Option<Names>,
    cut_one_way: Option<OneWay>,
    heal: Option<Names>,
    model: Option<ModelChange>,
    r#break: Option<[String; 2]>,
    part: Option<[String; 2]>,
    crash: Option<Crash>,
    restart: Option<Names>,
    pause: Option<Pause>,
    starve: Option<Starve>,
    disk: Option<DiskChange>,
    rot: Option<Rot>,
    garble: Option<Garble>,
    slow: Option<Slow>,
    repair: Option<Names>,
    wall: Option<WallJump>,
    rate: Option<RateChange>,
    image: Option<String>,
    roll_back: Option<String>,
    lose_disk: Option<String>,
}

/// One name or a list of them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        match names {
            Names::One(name) => vec![name],
            Names::Many(names) => names,
        }
    }
}

pub(super) fn parse(text: &str) -> Result<FaultPlan, PlanError> {
    let table: PlanTable = toml::from_str(text).map_err(|error| PlanError::Toml(error.to_string()))?;
    plan_of(table.faults, text)
}

/// What the tables of a text mean.
pub(crate) fn plan_of(tables: Vec<Spanned<FaultTable>>, text: &str) -> Result<FaultPlan, PlanError> {
    let mut last = Duration(0);
    let mut faults = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let before = text.get(..table.span().start).unwrap_or_default();
        let (number, line) = (index + 1, before.matches('\n').count() + 1);
        let table = table.into_inner();
        let wrong = |reason: String| PlanError::Fault { number, line, reason };
        let trigger = table.trigger(last).map_err(wrong)?;
        if let Trigger::At(at) = &trigger {
            last = *at;
        }
        faults.push(Fault { trigger, action: table.action().map_err(wrong)? });
    }
    Ok(FaultPlan { faults })
}

pub(super) fn write(plan: &FaultPlan) -> String {
    let faults = plan.faults.iter().map(|fault| Spanned::new(0..0, FaultTable::of(fault))).collect();
    toml::to_string(&PlanTable { faults }).expect("every plan has a written form")
}

impl FaultTable {
    fn trigger(&self, last: Duration) -> Result<Trigger, String> {
        match (&self.at, &self.when) {
            (Some(at), None) => at_time(at, last).map(Trigger::At),
            (None, Some(when)) => Ok(self.at_mark(when)),
            _ => Err("needs exactly one of `at` and `when`".to_owned()),
        }
    }

    fn at_mark(&self, when: &str) -> Trigger {
        let (mark, node) = match when.split_once(" node=") {
            Some((mark, node)) => (mark, Some(node.to_owned())),
            None => (when, None),
        };
        Trigger::When { mark: mark.to_owned(), node, delay: self.delay.unwrap_or_default() }
    }

    fn action(self) -> Result<Action, String> {
        let actions = [
            self.cut.map(|names| Action::Cut(names.into())),
            self.cut_one_way.map(Action::CutOneWay),
            self.heal.map(|names| Action::Heal(names.into())),
            self.model.map(Action::Model),
            self.r#break.map(Action::Break),
            self.part.map(Action::Part),
            self.crash.map(Action::Crash),
            self.restart.map(|names| Action::Restart(names.into())),
            self.pause.map(Action::Pause),
            self.starve.map(Action::Starve),
            self.disk.map(Action::Disk),
            self.rot.map(Action::Rot),
            self.garble.map(Action::Garble),
            self.slow.map(Action::Slow),
            self.repair.map(|names| Action::Repair(names.into())),
            self.wall.map(Action::Wall),
            self.rate.map(Action::Rate),
            self.image.map(Action::Image),
            self.roll_back.map(Action::RollBack),
            self.lose_disk.map(Action::LoseDisk),
        ];
        let mut given = actions.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(action), None) => Ok(action),
            (None, _) => Err("does nothing; give it an action".to_owned()),
            (Some(_), Some(_)) => Err("does two things; write two faults".to_owned()),
        }
    }

    fn of(fault: &Fault) -> Self {
        let mut table = Self::default();
        match &fault.trigger {
            Trigger::At(at) => table.at = Some(at.to_string()),
            Trigger::When { mark, node, delay } => {
                let node = node.as_ref().map_or(String::new(), |node| format!(" node={node}"));
                table.when = Some(format!("{mark}{node}"));
                table.delay = (*delay != Duration(0)).then_some(*delay);
            }
        }
        table.set_action(fault.action.clone());
        table
    }

    fn set_action(&mut self, action: Action) {
        match action {
            Action::Cut(names) => self.cut = Some(Names::Many(names)),
            Action::CutOneWay(one_way) => self.cut_one_way = Some(one_way),
            Action::Heal(names) => self.heal = Some(Names::Many(names)),
            Action::Model(change) => self.model = Some(change),
            Action::Break(pair) => self.r#break = Some(pair),
            Action::Part(pair) => self.part = Some(pair),
            Action::Crash(crash) => self.crash = Some(crash),
            Action::Restart(names) => self.restart = Some(Names::Many(names)),
            Action::Pause(pause) => self.pause = Some(pause),
            Action::Starve(starve) => self.starve = Some(starve),
            Action::Disk(change) => self.disk = Some(change),
            Action::Rot(rot) => self.rot = Some(rot),
            Action::Garble(garble) => self.garble = Some(garble),
            Action::Slow(slow) => self.slow = Some(slow),
            Action::Repair(names) => self.repair = Some(Names::Many(names)),
            Action::Wall(jump) => self.wall = Some(jump),
            Action::Rate(change) => self.rate = Some(change),
            Action::Image(node) => self.image = Some(node),
            Action::RollBack(node) => self.roll_back = Some(node),
            Action::LoseDisk(node) => self.lose_disk = Some(node),
        }
    }
}

fn at_time(at: &str, last: Duration) -> Result<Duration, String> {
    let (base, length) = match at.strip_prefix('+') {
        Some(length) => (last.0, length),
        None => (0, at),
    };
    let length: Duration = length.parse().map_err(|error: NoDuration| error.to_string())?;
    Ok(Duration(base.saturating_add(length.0)))
}

#[cfg(test)]
mod tests {
    use super::super::{Action, FaultPlan, PlanError, Trigger};
    use crate::duration::Duration;

    const PLAN: &str = r#"
[[fault]]
at = "3s"
cut = ["x1", "x2"]
[[fault]]
when = "lease.granted node=b1"
delay = "5ms"
pause = { node = "a1", for = "12s" }
[[fault]]
at = "+1s"
disk = { node = "b2", kind = "misdirect", file = "seg*" }
[[fault]]
at = "40s"
heal = "all"
"#;

    #[test]
    fn a_plan_says_what_it_means() {
        let plan = FaultPlan::parse(PLAN).expect("a good plan");
        let triggers: Vec<&Trigger> = plan.faults.iter().map(|fault| &fault.trigger).collect();
        assert_eq!(*triggers[2], Trigger::At(Duration(4_000_000_000)));
        let when = Trigger::When {
            mark: "lease.granted".to_owned(),
            node: Some("b1".to_owned()),
            delay: Duration(5_000_000),
        };
        assert_eq!(*triggers[1], when);
        assert_eq!(plan.faults[3].action, Action::Heal(vec!["all".to_owned()]));
        assert_eq!(plan.damaging(), 3);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let plan = FaultPlan::parse(PLAN).expect("a good plan");
        assert_eq!(FaultPlan::parse(&plan.to_toml()), Ok(plan));
        assert_eq!(FaultPlan::parse(""), Ok(FaultPlan::default()));
    }

    #[test]
    fn a_wrong_plan_is_refused_with_its_place() {
        let line = FaultPlan::parse("[[fault]]\nat = \"1s\"\ncutt = \"x1\"\n");
        assert!(matches!(line, Err(PlanError::Toml(message)) if message.contains("line 3")));
        for (text, reason) in [
            ("[[fault]]\ncut = \"x1\"", "exactly one"),
            ("[[fault]]\nat = \"1s\"", "does nothing"),
            ("[[fault]]\nat = \"1s\"\ncut = \"x1\"\nheal = \"x1\"", "two things"),
            ("[[fault]]\nat = \"soon\"\ncut = \"x1\"", "length of time"),
        ] {
            let error = FaultPlan::parse(text).expect_err("a bad plan").to_string();
            assert!(error.starts_with("fault 1, line 1:") && error.contains(reason), "{error}");
        }
    }
}
