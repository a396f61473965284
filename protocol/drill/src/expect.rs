//! What must come of a drill, and whether it did: each expectation beside what was measured.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::course::{Course, End, Kind};
use crate::duration::{Duration, MILLISECOND, SECOND};
use crate::span::Span;

/// The longest that a planned change of a primary may keep writers waiting.
const PAUSE_MAX: u64 = 2 * SECOND;

/// The rule under which one data centre alone acknowledges.
const ALONE: &str = "SingleDc";

/// From when the recovery time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Since {
    /// From each fault.
    #[default]
    Fault,
    /// From each healing: the row of the table waits for an operator.
    Healing,
    /// From each healing until, of what begins in any five seconds, as much is answered as `goodput` says. For too much
    /// work: clients that wait a little are served.
    Relief,
}

/// What is lost with a data centre in the worst moment of a drill: the table's RPO. In the end nothing may be lost in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rpo {
    /// Nothing: nothing was acknowledged in one data centre alone.
    #[serde(rename = "0")]
    Zero,
    /// What was acknowledged in one data centre alone, and declared so before.
    #[serde(rename = "at-risk")]
    AtRisk,
    /// Nobody knows, and the control plane says so.
    #[serde(rename = "unknown")]
    Unknown,
}

impl Rpo {
    /// The word for it in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "0",
            Self::AtRisk => "at-risk",
            Self::Unknown => "unknown",
        }
    }
}

/// What must come of a drill, besides that nothing which was acknowledged is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// So long after each fault every client that it held up is served again, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto: Option<Duration>,
    /// From when that counts.
    #[serde(skip_serializing_if = "is_default")]
    pub rto_since: Since,
    /// What would be lost if the rest were lost too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Rpo>,
    /// What clients can do, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub during: Vec<Span>,
    /// At most so many operations end without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// No answered operation took longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_wait: Option<Duration>,
    /// At least so many primaries change by handover, each within two seconds, and no operation fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handovers: Option<u64>,
    /// At least so many operations are answered.
    pub answered: u64,
    /// Acknowledgements were given under these rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protections: Vec<String>,
    /// At least so many deletes are certified.
    pub certified: u64,
    /// So many simulated processes ended themselves at least.
    pub fatal: u64,
    /// So many simulated volumes stopped by name at least.
    pub stopped: u64,
    /// So often a suspect store joined again at least, in the simulator.
    pub joined_again: u64,
    /// So many simulated machines lost power at an operation of their disks at least.
    pub power_losses: u64,
    /// So many simulated stores were put out because they were slow at least.
    pub put_out: u64,
    /// So many lost versions are listed at least.
    pub listed: u64,
    /// So many times at least a simulated primary answered that its lease is over.
    pub lease_over: u64,
    /// So many simulated reads at least were answered with the mark that the version may be deleted by now.
    #[serde(skip_serializing_if = "is_default")]
    pub stale: u64,
    /// So many volumes at least were refused to go on without a data centre that lives, and operators are told
    /// that somebody tried.
    pub declared_in_vain: u64,
    /// No operation that was begun in a part of the time took long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swift: Option<Swift>,
    /// Of what began in a part of the time, so much is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Share>,
    /// And so much is not: there was too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turned_away: Option<Share>,
    /// Of the reads that began in a part of the time, so much is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_answered: Option<Share>,
    /// What the slowest hundredth of the changes took that began in parts of the time, beside what it took before the
    /// first fault: reported, whatever it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tails: Vec<Tail>,
    /// Clients sent at most so many retries for a hundred requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    /// At most so many jobs waited for one simulated disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_queue: Option<u64>,
    /// A simulated volume that has all that it needs is served after this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves_within: Option<Duration>,
}

/// A part of the time in which all is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swift {
    /// From here,
    pub from: Duration,
    /// to here,
    pub until: Duration,
    /// so long at most.
    pub within: Duration,
}

/// A part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// From here,
    pub from: Duration,
    /// to here.
    pub until: Duration,
}

/// A share of what began in a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// From here,
    pub from: Duration,
    /// to here,
    pub until: Duration,
    /// so many of a hundred at least.
    pub percent: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is known of a drill besides its course.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// For how long clients began work.
    pub horizon: u64,
    /// The rules under which something was acknowledged.
    pub protections: BTreeSet<String>,
    /// Deletes that were certified.
    pub certified: u64,
    /// When the simulator saw changes acknowledged by a node, whether a client heard of it or not.
    pub acknowledged: Vec<u64>,
    /// Primaries that changed by handover.
    pub handovers: u64,
    /// The longest time in milliseconds that one of them kept writers waiting, as placement measured it.
    pub longest_pause_ms: u64,
    /// Simulated volumes that stopped by name.
    pub stopped: u64,
    /// How often a suspect store joined again, in the simulator.
    pub joined_again: u64,
    /// Simulated processes that ended themselves.
    pub fatal: u64,
    /// Simulated machines that lost power at an operation of their disks.
    pub power_losses: u64,
    /// Stores that were put out because they were slow.
    pub put_out: u64,
    /// Lost versions that are listed.
    pub listed: u64,
    /// Volumes of which the control plane said that nobody knows what one data centre alone acknowledged.
    pub unknown: u64,
    /// How often a simulated primary answered that its lease is over.
    pub lease_over: u64,
    /// Simulated reads that were answered with the mark that the version may be deleted by now.
    pub stale: u64,
    /// Volumes that an operator wanted to go on without a data centre that lives, and that was refused.
    pub declared_in_vain: u64,
    /// Which simulated clients stand in which data centre.
    pub standing: BTreeMap<String, BTreeSet<u32>>,
    /// Requests of clients, each counted once, and retries.
    pub requests: u64,
    /// Of these, those that cost something.
    pub retries: u64,
    /// The most jobs that ever waited for one simulated disk.
    pub disk_queue: u64,
    /// Acknowledged changes that are not there.
    pub lost: u64,
}

/// An expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What was expected.
    pub what: String,
    /// How much of it.
    pub target: String,
    /// What was measured.
    pub measured: String,
    /// Whether that will do.
    pub held: bool,
}

impl Expect {
    /// Judges a course.
    #[must_use]
    pub fn judge(&self, course: &Course, facts: &Facts) -> Vec<Verdict> {
        let mut verdicts = vec![
            self.recovery(course, facts),
            at_most("RPO: acknowledged changes that are lost", facts.lost, 0),
        ];
        verdicts.extend(self.exposure(facts));
        let spans = self.during.iter();
        verdicts.extend(spans.flat_map(|span| span.judge(course, &facts.standing, &facts.acknowledged)));
        let failed = course.count(End::Failed);
        if let Some(least) = self.handovers {
            let pause = facts.longest_pause_ms * MILLISECOND;
            verdicts.push(at_least("primaries handed over", facts.handovers, least));
            verdicts.push(within("longest pause of a handover", pause, PAUSE_MAX));
            verdicts.push(at_most("operations without an answer", failed, 0));
        }
        verdicts.extend(self.failed.map(|most| at_most("operations without an answer", failed, most)));
        verdicts.extend(self.longest_wait.map(|most| {
            let wait = course.longest_wait();
            within("longest wait for an answer", wait, most.0)
        }));
        for (what, got, least) in [
            ("operations answered", course.count(End::Answered) + course.count(End::Refused), self.answered),
            ("deletes certified", facts.certified, self.certified),
            ("machines that lost power at their disks", facts.power_losses, self.power_losses),
            ("slow stores that were put out", facts.put_out, self.put_out),
            ("lost versions that are listed", facts.listed, self.listed),
            ("volumes that stopped by name", facts.stopped, self.stopped),
            ("suspect stores that joined again", facts.joined_again, self.joined_again),
            ("processes that ended themselves", facts.fatal, self.fatal),
            ("answers of primaries that their lease is over", facts.lease_over, self.lease_over),
            ("versions read that may be stale", facts.stale, self.stale),
            (
                "volumes whose data centre was declared dead in vain, and told so",
                facts.declared_in_vain,
                self.declared_in_vain,
            ),
        ] {
            verdicts.extend((least > 0).then(|| at_least(what, got, least)));
        }
        verdicts.extend(self.swift.map(|Swift { from, until, within: most }| {
            let what =
                format!("longest answer to what began from {} to {}", seconds(from.0), seconds(until.0));
            within(&what, course.longest_begun_within(from.0, until.0), most.0)
        }));
        verdicts.extend(self.tails.iter().map(|tail| tail.beside(course)));
        verdicts.extend(self.overload(course, facts));
        verdicts.extend(self.protections.iter().map(|rule| Verdict {
            what: format!("acknowledged under {rule}"),
            target: "some".to_owned(),
            measured: if facts.protections.contains(rule) { "some" } else { "nothing" }.to_owned(),
            held: facts.protections.contains(rule),
        }));
        verdicts
    }

    /// What would be lost with the data centre that is left.
    fn exposure(&self, facts: &Facts) -> Option<Verdict> {
        let alone = facts.protections.contains(ALONE);
        let word = |given| if given { "some" } else { "none" }.to_owned();
        let what = "RPO: acknowledgements that one data centre alone gave".to_owned();
        Some(match self.rpo? {
            Rpo::Zero => Verdict { what, target: word(false), measured: word(alone), held: !alone },
            Rpo::AtRisk => Verdict { what, target: word(true), measured: word(alone), held: alone },
            Rpo::Unknown => {
                at_least("RPO: volumes of which is said that what is lost is unknown", facts.unknown, 1)
            }
        })
    }

    /// What becomes of too much work.
    fn overload(&self, course: &Course, facts: &Facts) -> Vec<Verdict> {
        let share = |what: &str, of: Share, kinds: &[Kind], counted: &dyn Fn((u64, u64)) -> u64| {
            let (from, until) = (seconds(of.from.0), seconds(of.until.0));
            let begun = course.begun_of(kinds, of.from.0, of.until.0);
            let what = format!("{what} that began from {from} to {until}");
            at_least(&what, (counted(begun) * 100).checked_div(begun.0).unwrap_or(0), of.percent)
        };
        let both = &Kind::ALL;
        let goodput =
            self.goodput.map(|of| share("answered of a hundred", of, both, &|(_, answered)| answered));
        let away = self.turned_away;
        let away =
            away.map(|of| share("turned away of a hundred", of, both, &|(all, answered)| all - answered));
        let reads = self.reads_answered;
        let reads = reads
            .map(|of| share("answered of a hundred reads", of, &[Kind::Reads], &|(_, answered)| answered));
        let retries = self.retries.map(|most| {
            let got = (facts.retries * 100).div_ceil(facts.requests.max(1));
            at_most("retries for a hundred requests", got, most)
        });
        let queue =
            self.disk_queue.map(|most| at_most("jobs that waited for one disk", facts.disk_queue, most));
        goodput.into_iter().chain(away).chain(reads).chain(retries).chain(queue).collect()
    }

    /// The longest recovery, and whether everybody recovered.
    #[must_use]
    pub fn rto_ms(&self, course: &Course, facts: &Facts) -> Option<u64> {
        let marks = course.marks();
        match self.rto_since {
            Since::Fault if marks.iter().all(|mark| mark.served_again) => {
                let faults = marks.iter().filter(|mark| !mark.heals);
                Some(faults.filter_map(|mark| mark.pause_ms).max().unwrap_or_default())
            }
            Since::Fault => None,
            Since::Relief => {
                let percent = self.goodput.map_or(100, |goodput| goodput.percent);
                course.longest_relief(percent, facts.horizon).map(|time| time.div_ceil(MILLISECOND))
            }
            Since::Healing => {
                let served = marks.iter().all(|mark| mark.served_again);
                served.then(|| course.longest_return(facts.horizon).div_ceil(MILLISECOND))
            }
        }
    }

    fn recovery(&self, course: &Course, facts: &Facts) -> Verdict {
        let what = match self.rto_since {
            Since::Fault => "RTO: the longest time from a fault until all are served",
            Since::Healing => "RTO: the longest time from a healing until all are served",
            Since::Relief => "RTO: the longest time until what is asked for is answered again",
        };
        let measured = self.rto_ms(course, facts).map(|ms| ms * MILLISECOND);
        let target = self.rto.map(|most| most.0);
        Verdict {
            what: what.to_owned(),
            target: target.map_or_else(|| "any".to_owned(), |most| format!("at most {}", seconds(most))),
            measured: measured.map_or_else(|| "not all are served".to_owned(), seconds),
            held: match (measured, target) {
                (Some(measured), Some(most)) => measured <= most,
                (None, Some(_)) => false,
                (_, None) => true,
            },
        }
    }
}

impl Tail {
    /// What it is, beside what it was before the first fault.
    fn beside(self, course: &Course) -> Verdict {
        let first = course.strikes.iter().map(|(at, ..)| *at).min().unwrap_or_default();
        let [before, then] = [(0, first), (self.from.0, self.until.0)]
            .map(|(from, until)| course.slowest_hundredth(Kind::Writes, from, until));
        let ms = |micros: u64| format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100);
        let measured = before.zip(then).map(|(before, then)| {
            let tenths = then * 10 / before.max(1);
            format!("{}, before {}: {}.{} times as long", ms(then), ms(before), tenths / 10, tenths % 10)
        });
        Verdict {
            what: format!(
                "p99 of changes that began from {} to {}, and before the first fault",
                seconds(self.from.0),
                seconds(self.until.0)
            ),
            target: "any".to_owned(),
            held: measured.is_some(),
            measured: measured.unwrap_or_else(|| "none began".to_owned()),
        }
    }
}

fn at_most(what: &str, got: u64, most: u64) -> Verdict {
    let target = if most == 0 { "none".to_owned() } else { format!("at most {most}") };
    Verdict { what: what.to_owned(), target, measured: got.to_string(), held: got <= most }
}

fn at_least(what: &str, got: u64, least: u64) -> Verdict {
    let (what, target) = (what.to_owned(), format!("at least {least}"));
    Verdict { what, target, measured: got.to_string(), held: got >= least }
}

fn within(what: &str, got: u64, most: u64) -> Verdict {
    let (what, target) = (what.to_owned(), format!("at most {}", seconds(most)));
    Verdict { what, target, measured: seconds(got), held: got <= most }
}

/// Nanoseconds as people read them.
fn seconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds.div_ceil(SECOND / 10);
    format!("{}.{} s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{Expect, Facts, Rpo, Share, Since, Tail};
    use crate::course::{Course, End, Kind, Sample};
    use crate::duration::{Duration, SECOND};
    use crate::span::{Served, Span};

    fn sample(kind: Kind, began: u64, ended: u64, end: End) -> Sample {
        Sample { client: 0, kind, began: began * SECOND, ended: ended * SECOND, end }
    }

    fn course() -> Course {
        let samples = vec![
            sample(Kind::Writes, 4, 12, End::Answered),
            sample(Kind::Reads, 13, 13, End::Answered),
            sample(Kind::Writes, 14, 24, End::Answered),
        ];
        let strikes = vec![(5 * SECOND, "a crash".into(), false), (20 * SECOND, "a start".into(), true)];
        Course { samples, strikes }
    }

    fn held(expect: &Expect, facts: &Facts) -> Vec<(bool, String)> {
        let verdicts = expect.judge(&course(), facts);
        verdicts.into_iter().map(|verdict| (verdict.held, verdict.measured)).collect()
    }

    #[test]
    fn recovery_is_measured_from_the_fault_or_from_the_healing() {
        let rto = |since, seconds: u64| Expect {
            rto: Some(Duration(seconds * SECOND)),
            rto_since: since,
            ..Expect::default()
        };
        let facts = Facts { horizon: 30 * SECOND, ..Facts::default() };
        assert_eq!(held(&rto(Since::Fault, 19), &facts)[0], (true, "19.0 s".to_owned()));
        assert_eq!(held(&rto(Since::Fault, 18), &facts)[0], (false, "19.0 s".to_owned()));
        assert_eq!(held(&rto(Since::Healing, 4), &facts)[0], (true, "4.0 s".to_owned()));
        assert_eq!(held(&rto(Since::Healing, 3), &facts)[0], (false, "4.0 s".to_owned()));
    }

    #[test]
    fn what_is_at_risk_is_declared_and_what_is_unknown_is_said() {
        let rpo = |rpo| Expect { rpo: Some(rpo), ..Expect::default() };
        let facts = |protections: &[&str], unknown| Facts {
            protections: protections.iter().map(|&rule| rule.to_owned()).collect(),
            unknown,
            ..Facts::default()
        };
        for (rule, unknown, holds) in [
            ("BothDcs", 0, [true, false, false]),
            ("SingleDc", 0, [false, true, false]),
            ("SingleDc", 2, [false, true, true]),
        ] {
            for (word, holds) in [Rpo::Zero, Rpo::AtRisk, Rpo::Unknown].into_iter().zip(holds) {
                assert_eq!(held(&rpo(word), &facts(&[rule], unknown))[2].0, holds, "{word:?} under {rule}");
            }
        }
    }

    #[test]
    fn r049_goodput_retries_and_queues_are_judged() {
        let (from, until) = (Duration(0), Duration(20 * SECOND));
        let share = |percent| Some(Share { from, until, percent });
        let facts = Facts { requests: 100, retries: 10, disk_queue: 7, ..Facts::default() };
        let good =
            Expect { goodput: share(100), retries: Some(10), disk_queue: Some(7), ..Expect::default() };
        assert!(held(&good, &facts)[2..].iter().all(|(held, _)| *held));
        assert!(
            !held(&Expect { turned_away: share(1), ..Expect::default() }, &facts)[2].0,
            "all was answered"
        );
        let mut lost = course();
        lost.samples[1].end = End::Failed;
        let judged =
            |percent| Expect { turned_away: share(percent), ..Expect::default() }.judge(&lost, &facts);
        assert_eq!((judged(33)[2].held, judged(34)[2].held), (true, false), "one of three had no answer");
        let one =
            |course: &Course| Expect { reads_answered: share(1), ..Expect::default() }.judge(course, &facts);
        assert_eq!(
            (one(&course())[2].held, one(&lost)[2].held),
            (true, false),
            "the only read had no answer"
        );
        let bad = Expect { goodput: share(101), retries: Some(9), disk_queue: Some(6), ..Expect::default() };
        assert!(held(&bad, &facts)[2..].iter().all(|(held, _)| !held));
    }

    #[test]
    fn r047_the_slowest_hundredth_stands_beside_what_it_was_before_the_first_fault() {
        let tail = |from, until| Tail { from: Duration(from * SECOND), until: Duration(until * SECOND) };
        let expect = Expect { tails: vec![tail(14, 20), tail(20, 30)], ..Expect::default() };
        let measured = held(&expect, &Facts::default()).split_off(2);
        assert_eq!(measured[0], (true, "10000.0 ms, before 8000.0 ms: 1.2 times as long".to_owned()));
        assert_eq!(measured[1], (false, "none began".to_owned()));
    }

    #[test]
    fn spans_loss_and_counts_are_judged() {
        let none = |from: u64, until: u64| {
            let (from, until) = (Duration(from * SECOND), Duration(until * SECOND));
            vec![Span { from, until, clients: None, writes: Some(Served::None), reads: None }]
        };
        let expect = Expect { during: none(13, 24), answered: 4, ..Expect::default() };
        let facts = Facts { lost: 1, ..Facts::default() };
        let measured: Vec<bool> = held(&expect, &facts).into_iter().map(|(held, _)| held).collect();
        assert_eq!(measured, [true, false, true, false]);
        let expect = Expect { during: none(13, 25), ..Expect::default() };
        assert!(!held(&expect, &facts)[2].0);
    }
}
