//! A part of the time of a drill, and what clients can do in it: the columns of the decision table for writes and reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::course::{Course, End, Kind, Sample};
use crate::duration::Duration;
use crate::expect::Verdict;

/// The clients of one data centre, whichever it is.
const EITHER: &str = "either";

/// What becomes of the operations of a kind in a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Served {
    /// Some begin, each of them is answered, and none waits all of this time.
    Yes,
    /// Some are answered.
    Some,
    /// Some are refused with the reason that their tenant asked for, and none is answered.
    Refused,
    /// Some are asked for, and none is answered.
    None,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::Some => "some",
            Self::Refused => "refused",
            Self::None => "none",
        })
    }
}

/// A part of the time, and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// From here,
    pub from: Duration,
    /// to here.
    pub until: Duration,
    /// Only of the clients that stand in this data centre, in the simulator; `either` for those of one of the two,
    /// whichever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
    /// What becomes of changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Served>,
    /// What becomes of reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Served>,
}

/// What the operations of a span came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    began: usize,
    unanswered: usize,
    answered: usize,
    refused: usize,
    waited: usize,
}

impl Span {
    /// Whether there is anything in it to look at before the clients stop.
    pub(crate) fn says_something(&self, horizon: Duration) -> bool {
        self.from < self.until
            && self.until <= horizon
            && (self.writes.is_some() || self.reads.is_some())
            && self.clients.as_deref().is_none_or(|dc| dc == EITHER || ["a", "b"].contains(&dc))
    }

    /// What is expected of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<Served> {
        match kind {
            Kind::Writes => self.writes,
            Kind::Reads => self.reads,
        }
    }

    /// Judges the course. `standing` says which clients stand in which data centre; where nobody knows, nothing is said of
    /// them. `given` is when nodes let acknowledgements of changes go, whether a client heard of it or not.
    pub(crate) fn judge(
        &self,
        course: &Course,
        standing: &BTreeMap<String, BTreeSet<u32>>,
        given: &[u64],
    ) -> Vec<Verdict> {
        let Some(dc) = self.clients.as_deref() else { return self.judge_those(course, None, given) };
        let mut tried = standing.iter().filter(|(name, _)| dc == EITHER || *name == dc);
        let judged = |those: (&String, &BTreeSet<u32>)| self.judge_those(course, Some(those), given);
        let Some(mut verdicts) = tried.next().map(judged) else { return Vec::new() };
        for those in tried {
            if !verdicts.iter().all(|verdict| verdict.held) {
                verdicts = judged(those);
            }
        }
        verdicts
    }

    /// Judges what becomes of all clients, or of some.
    fn judge_those(
        &self,
        course: &Course,
        those: Option<(&String, &BTreeSet<u32>)>,
        given: &[u64],
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for kind in Kind::ALL {
            let Some(wanted) = self.of(kind) else { continue };
            let mut tally = self.tally(course, kind, those.map(|(_, clients)| clients));
            if kind == Kind::Writes && those.is_none() {
                let given = given.iter().filter(|at| (self.from.0..self.until.0).contains(at));
                tally.answered = tally.answered.max(given.count());
            }
            verdicts.push(self.verdict(kind, wanted, tally, those.map(|(dc, _)| dc)));
        }
        verdicts
    }

    fn tally(&self, course: &Course, kind: Kind, clients: Option<&BTreeSet<u32>>) -> Tally {
        let (from, until) = (self.from.0, self.until.0);
        let meant = |sample: &&Sample| {
            sample.kind == kind
                && sample.began < until
                && sample.ended >= from
                && clients.is_none_or(|clients| clients.contains(&sample.client))
        };
        let mut tally = Tally::default();
        for sample in course.samples.iter().filter(meant) {
            let begins = sample.began >= from;
            tally.began += usize::from(begins);
            tally.unanswered += usize::from(begins && sample.end != End::Answered);
            tally.waited += usize::from(sample.began <= from && sample.ended >= until);
            if sample.ended < until {
                tally.answered += usize::from(sample.end == End::Answered);
                tally.refused += usize::from(sample.end == End::Refused);
            }
        }
        tally
    }

    fn verdict(&self, kind: Kind, wanted: Served, tally: Tally, dc: Option<&String>) -> Verdict {
        let Tally { began, unanswered, answered, refused, waited } = tally;
        let asked = began + waited + answered + refused;
        let place = dc.map_or_else(String::new, |dc| format!(" for the clients in {dc}"));
        Verdict {
            what: format!("{} from {} to {}{place}", kind.name(), self.from, self.until),
            target: wanted.to_string(),
            measured: match wanted {
                Served::Yes => {
                    format!("{began} begun, {unanswered} of them not answered, {waited} waited all the time")
                }
                Served::Some => format!("{answered} answered"),
                Served::Refused => format!("{refused} refused, {answered} answered"),
                Served::None => format!("{answered} answered of {asked}"),
            },
            held: match wanted {
                Served::Yes => began > 0 && unanswered == 0 && waited == 0,
                Served::Some => answered > 0,
                Served::Refused => refused > 0 && answered == 0,
                Served::None => asked > 0 && answered == 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Served, Span};
    use crate::course::{Course, End, Kind, Sample};
    use crate::duration::{Duration, SECOND};

    fn span(from: u64, until: u64, writes: Served) -> Span {
        let (from, until) = (Duration(from * SECOND), Duration(until * SECOND));
        Span { from, until, clients: None, writes: Some(writes), reads: None }
    }

    /// Client 0 is answered until 5 s, waits until 12 s, and is answered again; client 1 is refused from 14 s on.
    fn course() -> Course {
        let sample = |client, began, ended, end| Sample {
            client,
            kind: Kind::Writes,
            began: began * SECOND,
            ended: ended * SECOND,
            end,
        };
        let samples = vec![
            sample(0, 1, 2, End::Answered),
            sample(0, 4, 12, End::Answered),
            sample(0, 13, 13, End::Answered),
            sample(1, 14, 15, End::Refused),
            sample(1, 18, 19, End::Failed),
        ];
        Course { samples, strikes: Vec::new() }
    }

    fn held(span: &Span, given: &[u64]) -> bool {
        let standing = BTreeMap::from([("a".to_owned(), BTreeSet::from([0]))]);
        let [verdict] = &span.judge(&course(), &standing, given)[..] else { panic!("one kind is asked for") };
        verdict.held
    }

    #[test]
    fn each_word_holds_where_it_is_true_and_nowhere_else() {
        for (from, until, holds) in [
            (1, 3, [true, true, false, false]),
            // One waits all the time.
            (6, 11, [false, false, false, true]),
            (10, 14, [true, true, false, false]),
            (14, 17, [false, false, true, true]),
            (17, 20, [false, false, false, true]),
            // Nobody asked.
            (21, 24, [false, false, false, false]),
        ] {
            for (word, holds) in
                [Served::Yes, Served::Some, Served::Refused, Served::None].into_iter().zip(holds)
            {
                assert_eq!(held(&span(from, until, word), &[]), holds, "{word} from {from} to {until}");
            }
        }
    }

    #[test]
    fn what_a_node_acknowledged_unheard_is_acknowledged() {
        assert!(held(&span(6, 11, Served::None), &[5 * SECOND, 11 * SECOND]));
        assert!(!held(&span(6, 11, Served::None), &[6 * SECOND]));
    }

    #[test]
    fn clients_are_told_apart_by_where_they_stand_if_that_is_known() {
        let of_a = Span { clients: Some("a".to_owned()), ..span(13, 17, Served::Yes) };
        assert!(held(&of_a, &[]), "the others' refusals count for nothing");
        assert!(!held(&span(13, 17, Served::Yes), &[]));
        assert_eq!(of_a.judge(&course(), &BTreeMap::new(), &[]), [], "on a cluster nobody knows");

        let standing =
            BTreeMap::from([0, 1].map(|client| (["a", "b"][client as usize].to_owned(), [client].into())));
        let either = |from, until, word| {
            let span = Span { clients: Some("either".to_owned()), ..span(from, until, word) };
            let [verdict] = &span.judge(&course(), &standing, &[])[..] else {
                panic!("one kind is asked for")
            };
            (verdict.held, verdict.what.ends_with("in b"))
        };
        assert_eq!(either(13, 17, Served::Yes), (true, false));
        assert_eq!(either(13, 17, Served::Refused), (true, true));
        assert!(!either(6, 11, Served::Yes).0);
    }
}
