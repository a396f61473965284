//! What came of a drill. The simulator and the program write the same form; every number was measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock_time::WallTime;
use crate::course::{Course, End, Kind, Mark, Second};
use crate::duration::MILLISECOND;
use crate::expect::{Facts, Verdict};
use crate::file::DrillFile;
use crate::timeline::{Moment, Timeline, VolumeLine};

/// More errors than this are counted and not kept.
const ERRORS_KEPT: usize = 200;

/// Where a drill ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Place {
    /// In the simulator.
    Simulated {
        /// Under which seed.
        seed: u64,
        /// The hash of everything that happened.
        trace_hash: String,
    },
    /// On a cluster.
    Live {
        /// Its name.
        cluster: String,
        /// Who ran it.
        operator: String,
        /// When the clients began.
        began: WallTime,
    },
}

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// Everything that was expected came.
    Held,
    /// Something did not.
    Failed,
    /// It was broken off.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// What was looked at when all was healed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Whether every volume had three in-sync copies in both data centres again.
    pub whole: bool,
    /// How long that took.
    pub whole_after_ms: u64,
    /// Objects of the load that were looked at.
    pub objects: u64,
    /// Copies of them that were read, each from its own node, and hashed.
    pub copies: u64,
    /// Acknowledged changes that are not there.
    pub lost: Vec<String>,
    /// Copies that are not what they must be, or fewer than three.
    pub damaged: Vec<String>,
    /// What could not be looked at.
    pub unreadable: Vec<String>,
    /// What else was found wrong.
    pub violations: Vec<String>,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { whole, lost, damaged, unreadable, violations, .. } = self;
        *whole && [lost, damaged, unreadable, violations].into_iter().all(Vec::is_empty)
    }
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Answered.
    pub answered: u64,
    /// Refused by rule.
    pub refused: u64,
    /// Without an answer.
    pub failed: u64,
}

/// What is told of a drill beside what follows from its course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name among reports.
    pub id: String,
    /// Where it ran.
    pub place: Place,
    /// The file's text.
    pub text: String,
    /// Why it was broken off, if it was.
    pub aborted: Option<String>,
    /// What was looked at in the end.
    pub verification: Verification,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The form of what follows.
    pub format: u32,
    /// Its name.
    pub id: String,
    /// What happened, in a sentence.
    pub name: String,
    /// The row of the decision table.
    pub row: Option<u8>,
    /// Where.
    pub place: Place,
    /// How it ended.
    pub outcome: Outcome,
    /// The longest recovery; none if not all recovered.
    pub rto_ms: Option<u64>,
    /// What it should be at most.
    pub rto_target_ms: Option<u64>,
    /// Acknowledged changes that are lost.
    pub rpo_lost: u64,
    /// Each expectation.
    pub verdicts: Vec<Verdict>,
    /// How operations ended.
    pub operations: Counts,
    /// How long everything took, from the clients' first operation to the last.
    pub lasted_ms: u64,
    /// What was done to the cluster.
    pub marks: Vec<Mark>,
    /// The clients' work, second by second.
    pub seconds: Vec<Second>,
    /// Each volume's configurations, and who served it.
    pub volumes: BTreeMap<u64, VolumeLine>,
    /// The first errors that clients saw.
    pub errors: Vec<Moment>,
    /// What was looked at in the end.
    pub verification: Verification,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The blake3 hash of the file.
    pub file_hash: String,
    /// The file.
    pub file: String,
}

impl Report {
    /// The form that is written now.
    pub const FORMAT: u32 = 1;

    /// Draws the sums.
    #[must_use]
    pub fn of(file: &DrillFile, course: &Course, timeline: Timeline, facts: &Facts, told: Told) -> Self {
        let verdicts = file.expect.judge(course, facts);
        let Told { id, place, text, aborted, verification, notes } = told;
        let held = verification.is_clean() && verdicts.iter().all(|verdict| verdict.held);
        let outcome = match aborted {
            Some(reason) => Outcome::Aborted { reason },
            None if held => Outcome::Held,
            None => Outcome::Failed,
        };
        let Timeline { volumes, mut errors, ends_ns, .. } = timeline;
        errors.truncate(ERRORS_KEPT);
        let last = course.samples.iter().map(|sample| sample.ended).max().unwrap_or_default();
        Self {
            format: Self::FORMAT,
            id,
            name: file.name.clone(),
            row: file.row,
            place,
            outcome,
            rto_ms: file.expect.rto_ms(course, facts),
            rto_target_ms: file.expect.rto.map(|most| most.0 / MILLISECOND),
            rpo_lost: facts.lost,
            verdicts,
            operations: Counts {
                answered: course.count(End::Answered),
                refused: course.count(End::Refused),
                failed: course.count(End::Failed),
            },
            lasted_ms: last.max(ends_ns) / MILLISECOND,
            marks: course.marks(),
            seconds: course.seconds(),
            volumes,
            errors,
            verification,
            notes,
            file_hash: blake3::hash(text.as_bytes()).to_string(),
            file: text,
        }
    }

    /// Whether everything that was expected came.
    #[must_use]
    pub fn held(&self) -> bool {
        self.outcome == Outcome::Held
    }

    /// The outcome as people read it.
    #[must_use]
    pub fn outcome_text(&self) -> String {
        match &self.outcome {
            Outcome::Held => "held".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Aborted { reason } => format!("ABORTED: {reason}"),
        }
    }

    /// How many changes and reads were answered.
    #[must_use]
    pub fn answered(&self, kind: Kind) -> u64 {
        let of = |second: &Second| match kind {
            Kind::Writes => second.writes,
            Kind::Reads => second.reads,
        };
        self.seconds.iter().map(of).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Outcome, Place, Report, Told, Verification};
    use crate::course::{Course, End, Kind, Sample};
    use crate::duration::SECOND;
    use crate::expect::Facts;
    use crate::file::DrillFile;
    use crate::timeline::{Moment, Reign, Timeline};

    const FILE: &str = "name = \"a <node> dies\"\nrow = 3\n[expect]\nrto = \"15s\"\n";

    /// A node dies at 5 s, clients wait until 12 s, it returns at 18 s.
    pub(crate) fn a_report() -> Report {
        told_of(FILE, Verification { whole: true, objects: 3, copies: 9, ..Verification::default() }, None)
    }

    fn told_of(text: &str, verification: Verification, aborted: Option<String>) -> Report {
        let file = DrillFile::parse(text).expect("a good drill");
        let samples = (0..200).map(|n| {
            let began = n * SECOND / 10;
            let ended = if (50..120).contains(&n) { 12 * SECOND + n } else { began + SECOND / 50 };
            let kind = if n % 2 == 0 { Kind::Writes } else { Kind::Reads };
            Sample { client: 0, kind, began, ended, end: End::Answered }
        });
        let strikes = vec![
            (5 * SECOND, "process death of a1".to_owned(), false),
            (18 * SECOND, "restart of a1".to_owned(), true),
        ];
        let course = Course { samples: samples.collect(), strikes };
        let mut timeline = Timeline::default();
        for (second, epoch, by) in
            [(0, 1, Some("a1")), (5, 1, None), (11, 2, Some("a2")), (20, 2, Some("a2"))]
        {
            let reign = Reign {
                at_ns: second * SECOND,
                epoch,
                activated: true,
                primary: by.map(str::to_owned),
                members: vec!["a1".to_owned()],
                protection: "BothDcs".to_owned(),
            };
            timeline.look(1, reign, by);
        }
        timeline.errors.push(Moment { at_ns: 6 * SECOND, what: "c0 <refused>".to_owned() });
        let told = Told {
            id: "here".to_owned(),
            place: Place::Simulated { seed: 3, trace_hash: "00ff".to_owned() },
            text: text.to_owned(),
            aborted,
            verification,
            notes: vec!["a note".to_owned()],
        };
        Report::of(&file, &course, timeline, &Facts { horizon: 20 * SECOND, ..Facts::default() }, told)
    }

    #[test]
    fn a_report_says_what_was_measured_beside_what_was_expected() {
        let report = a_report();
        assert_eq!((report.rto_ms, report.rto_target_ms), (Some(7_001), Some(15_000)));
        assert!(report.held(), "{:?}", report.verdicts);
        assert_eq!(report.operations.answered, 200);
        assert_eq!(report.answered(Kind::Writes), 100);
        assert_eq!(report.file, FILE);
    }

    #[test]
    fn whatever_is_wrong_in_the_end_fails_a_drill() {
        let whole = Verification { whole: true, ..Verification::default() };
        for wrong in [
            Verification::default(),
            Verification { lost: vec!["k".to_owned()], ..whole.clone() },
            Verification { damaged: vec!["k at a1".to_owned()], ..whole.clone() },
            Verification { unreadable: vec!["k".to_owned()], ..whole.clone() },
            Verification { violations: vec!["k".to_owned()], ..whole.clone() },
        ] {
            assert_eq!(told_of(FILE, wrong, None).outcome, Outcome::Failed);
        }
        let slow = FILE.replace("15s", "5s");
        assert_eq!(told_of(&slow, whole.clone(), None).outcome, Outcome::Failed);
        let aborted = told_of(FILE, whole, Some("too many errors".to_owned()));
        assert_eq!(aborted.outcome_text(), "ABORTED: too many errors");
    }
}
