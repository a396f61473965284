//! What clients saw of a drill, operation by operation, and what it comes to: so much a second, and how
//! long each fault held somebody up.

use serde::{Deserialize, Serialize};

use crate::duration::{MILLISECOND, SECOND};

/// Who waits longer for an answer has been held up.
const HELD_UP: u64 = SECOND;

/// In so long a time enough must be answered.
const RELIEVED: u64 = 5 * SECOND;

/// What an operation does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It changes it: a put, a delete, an undelete.
    Writes,
    /// It does not.
    Reads,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Writes, Self::Reads];

    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Reads => "reads",
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With an answer; that there is no such object, or that there is nothing to undelete, is one.
    Answered,
    /// With the refusal that the tenant asked for while one data centre cannot be reached.
    Refused,
    /// Without an answer.
    Failed,
}

/// One operation. Times are nanoseconds since the clients began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which client.
    pub client: u32,
    /// What it was.
    pub kind: Kind,
    /// When it was begun.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// How.
    pub end: End,
}

impl Sample {
    fn is_held_up(&self) -> bool {
        self.end != End::Answered || self.ended - self.began > HELD_UP
    }
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Milliseconds since the clients began.
    pub at_ms: u64,
    /// What was done.
    pub what: String,
    /// Whether it took a fault away.
    pub heals: bool,
    /// How long after it the last client that it held up was served.
    pub pause_ms: Option<u64>,
    /// Whether all clients were served again.
    pub served_again: bool,
}

/// One second of the clients' work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Changes that were answered.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations without an answer.
    pub failed: u64,
    /// The middle one of the times that answers took, in microseconds.
    pub median_us: u64,
    /// The longest.
    pub longest_us: u64,
}

/// Everything that clients saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The operations, in any order.
    pub samples: Vec<Sample>,
    /// What was done, in order: nanoseconds since the clients began, what, and whether it heals.
    pub strikes: Vec<(u64, String, bool)>,
}

impl Course {
    /// The course, second by second.
    #[must_use]
    pub fn seconds(&self) -> Vec<Second> {
        let place = |sample: &Sample| usize::try_from(sample.ended / SECOND).unwrap_or(usize::MAX);
        let count = self.samples.iter().map(place).max().map_or(0, |last| last + 1);
        let mut seconds = vec![Second::default(); count];
        let mut took: Vec<Vec<u64>> = vec![Vec::new(); count];
        for sample in &self.samples {
            let second = &mut seconds[place(sample)];
            match (sample.end, sample.kind) {
                (End::Answered, Kind::Writes) => second.writes += 1,
                (End::Answered, Kind::Reads) => second.reads += 1,
                (End::Refused, _) => second.refused += 1,
                (End::Failed, _) => second.failed += 1,
            }
            took[place(sample)].push((sample.ended - sample.began) / 1_000);
        }
        for (second, mut took) in seconds.iter_mut().zip(took) {
            took.sort_unstable();
            second.median_us = took.get(took.len() / 2).copied().unwrap_or_default();
            second.longest_us = took.last().copied().unwrap_or_default();
        }
        seconds
    }

    /// What was done, and how long each of it held clients up.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let mut ends: Vec<Option<u64>> = vec![None; self.strikes.len()];
        for sample in self.samples.iter().filter(|sample| sample.is_held_up()) {
            if let Some(cause) = self.cause(sample) {
                ends[cause] = ends[cause].max(Some(sample.ended));
            }
        }
        let of = |((at, what, heals), end): (&(u64, String, bool), Option<u64>)| Mark {
            at_ms: at / MILLISECOND,
            what: what.clone(),
            heals: *heals,
            pause_ms: end.map(|end| end.saturating_sub(*at).div_ceil(MILLISECOND)),
            served_again: end.is_none_or(|end| self.served_after(end)),
        };
        self.strikes.iter().zip(ends).map(of).collect()
    }

    /// What held an operation up: what was done last before it, unless it would have been over by the
    /// time of the next that was done.
    fn cause(&self, sample: &Sample) -> Option<usize> {
        let before = self.strikes.iter().rposition(|(at, _, _)| *at <= sample.began);
        let next = before.map_or(0, |place| place + 1);
        let in_its_time =
            |(at, _, _): &&(u64, String, bool)| *at <= (sample.began + HELD_UP).min(sample.ended);
        self.strikes.get(next).filter(in_its_time).map(|_| next).or(before)
    }

    /// Whether every client that still began something afterwards had an answer.
    fn served_after(&self, moment: u64) -> bool {
        let failed = |sample: &&Sample| sample.ended == moment && sample.end != End::Answered;
        let waiting = self.samples.iter().filter(failed).map(|sample| sample.client);
        let answered = |sample: &Sample, client: u32| {
            sample.client == client && sample.ended > moment && sample.end == End::Answered
        };
        waiting.into_iter().all(|client| self.samples.iter().any(|sample| answered(sample, client)))
    }

    /// The longest time from a healing to the end of an operation that was held up and that it ended: before
    /// anything else was done. What is healed when the clients have stopped counts for nothing.
    #[must_use]
    pub fn longest_return(&self, horizon: u64) -> u64 {
        let healings = (0..).zip(&self.strikes).filter(|(_, (at, _, heals))| *heals && *at < horizon);
        let returned = healings.flat_map(|(place, (at, _, _)): (usize, _)| {
            let next = self.strikes.get(place + 1).map(|(next, _, _)| *next);
            let until = next.filter(|next| *next < horizon).unwrap_or(u64::MAX);
            let over = self.samples.iter().filter(|sample| sample.is_held_up());
            over.filter(move |sample| (*at..until).contains(&sample.ended))
                .map(move |sample| sample.ended - at)
        });
        returned.max().unwrap_or_default()
    }

    /// How many operations of a kind were answered between two moments.
    #[must_use]
    pub fn answered_within(&self, kind: Kind, from: u64, until: u64) -> usize {
        let within = |sample: &&Sample| {
            sample.kind == kind && sample.end == End::Answered && (from..until).contains(&sample.ended)
        };
        self.samples.iter().filter(within).count()
    }

    /// How many operations ended like this.
    #[must_use]
    pub fn count(&self, end: End) -> u64 {
        self.samples.iter().filter(|sample| sample.end == end).count() as u64
    }

    /// The longest time that an answer took.
    #[must_use]
    pub fn longest_wait(&self) -> u64 {
        let answered = self.samples.iter().filter(|sample| sample.end != End::Failed);
        answered.map(|sample| sample.ended - sample.began).max().unwrap_or_default()
    }

    /// How many operations began in a part of the time, and how many of them were answered.
    #[must_use]
    pub fn begun_within(&self, from: u64, until: u64) -> (u64, u64) {
        self.begun_of(&Kind::ALL, from, until)
    }

    /// [`Self::begun_within`] of operations of some kinds.
    #[must_use]
    pub fn begun_of(&self, kinds: &[Kind], from: u64, until: u64) -> (u64, u64) {
        let began = |sample: &&Sample| kinds.contains(&sample.kind) && (from..until).contains(&sample.began);
        let begun = self.samples.iter().filter(began);
        let answered = begun.clone().filter(|sample| sample.end == End::Answered);
        (begun.count() as u64, answered.count() as u64)
    }

    /// The longest time from a healing until what began in any five seconds was answered to so many of a hundred; none if
    /// it was not.
    #[must_use]
    pub fn longest_relief(&self, percent: u64, horizon: u64) -> Option<u64> {
        let enough = |from: u64| {
            let (began, answered) = self.begun_within(from, from + RELIEVED);
            answered * 100 >= began * percent
        };
        let mut longest = 0;
        for (place, (at, _, heals)) in self.strikes.iter().enumerate() {
            if !heals || *at >= horizon {
                continue;
            }
            let next = self.strikes.get(place + 1).map_or(horizon, |(next, _, _)| *next).min(horizon);
            let last = next.checked_sub(RELIEVED).filter(|last| last >= at)?;
            let mut moments = (0..).map(|second| last - second * SECOND).take_while(|moment| moment >= at);
            let good = moments.by_ref().take_while(|moment| enough(*moment)).last()?;
            longest = longest.max(good - at);
        }
        Some(longest)
    }

    /// What all but the slowest hundredth of the operations of a kind took at most that began from one time to another,
    /// in microseconds; none if there are none.
    #[must_use]
    pub fn slowest_hundredth(&self, kind: Kind, from: u64, until: u64) -> Option<u64> {
        let meant = |sample: &&Sample| sample.kind == kind && (from..until).contains(&sample.began);
        let mut took: Vec<u64> =
            self.samples.iter().filter(meant).map(|sample| (sample.ended - sample.began) / 1_000).collect();
        took.sort_unstable();
        let place = took.len().checked_sub(1)? * 99 / 100;
        took.get(place).copied()
    }

    /// The longest time that an operation took which was begun from one time to another.
    #[must_use]
    pub fn longest_begun_within(&self, from: u64, until: u64) -> u64 {
        let begun = self.samples.iter().filter(|sample| (from..until).contains(&sample.began));
        begun.map(|sample| sample.ended - sample.began).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Course, End, Kind, Sample};
    use crate::duration::SECOND;

    fn sample(client: u32, began: u64, ended: u64, end: End) -> Sample {
        let tenth = SECOND / 10;
        Sample { client, kind: Kind::Writes, began: began * tenth, ended: ended * tenth, end }
    }

    fn course(samples: Vec<Sample>) -> Course {
        let strikes =
            vec![(3 * SECOND, "a crash".to_owned(), false), (20 * SECOND, "a start".to_owned(), true)];
        Course { samples, strikes }
    }

    #[test]
    fn a_fault_lasts_until_the_last_client_is_served() {
        let under_way = sample(0, 29, 95, End::Answered);
        let later = sample(1, 50, 110, End::Answered);
        let quick = sample(2, 195, 199, End::Answered);
        let marks = course(vec![under_way, later, quick]).marks();
        assert_eq!((marks[0].pause_ms, marks[0].served_again), (Some(8_000), true));
        assert_eq!(marks[1].pause_ms, None, "nobody was held up");
    }

    #[test]
    fn what_waits_since_a_fault_is_not_held_up_by_its_healing() {
        let course = course(vec![sample(0, 50, 230, End::Answered), sample(1, 198, 215, End::Answered)]);
        let marks = course.marks();
        assert_eq!(marks[0].pause_ms, Some(20_000), "since the crash");
        assert_eq!(marks[1].pause_ms, Some(1_500), "it would have been over before");
        assert_eq!(course.longest_return(30 * SECOND), 3 * SECOND);
        assert_eq!(course.longest_return(20 * SECOND), 0, "the clients had stopped");
    }

    #[test]
    fn relief_comes_when_enough_is_answered_and_not_before() {
        let until = |bad: u64| {
            let end = |began| if (200..bad).contains(&began) { End::Failed } else { End::Answered };
            course((0..400).map(|began| sample(0, began, began + 1, end(began))).collect())
        };
        assert_eq!(until(200).longest_relief(100, 40 * SECOND), Some(0));
        assert_eq!(until(275).longest_relief(100, 40 * SECOND), Some(8 * SECOND));
        assert_eq!(until(275).longest_relief(50, 40 * SECOND), Some(5 * SECOND));
        assert_eq!(until(400).longest_relief(95, 40 * SECOND), None);
        assert_eq!(until(200).longest_relief(100, 24 * SECOND), None, "there is no time to look at");
    }

    #[test]
    fn whoever_gets_no_answer_any_more_is_not_served_again() {
        let lost = vec![sample(0, 40, 90, End::Failed), sample(1, 91, 92, End::Answered)];
        assert!(!course(lost.clone()).marks()[0].served_again);
        let again = [lost, vec![sample(0, 91, 93, End::Answered)]].concat();
        assert!(course(again).marks()[0].served_again);
    }

    #[test]
    fn seconds_count_what_ended_in_them() {
        let samples = vec![
            sample(0, 1, 3, End::Answered),
            sample(0, 4, 12, End::Refused),
            sample(1, 0, 19, End::Failed),
            Sample { kind: Kind::Reads, ..sample(1, 10, 11, End::Answered) },
        ];
        let course = course(samples);
        let seconds = course.seconds();
        assert_eq!((seconds.len(), seconds[0].writes, seconds[0].reads), (2, 1, 0));
        assert_eq!((seconds[1].reads, seconds[1].refused, seconds[1].failed), (1, 1, 1));
        assert_eq!((seconds[1].median_us, seconds[1].longest_us), (800_000, 1_900_000));
        assert_eq!(course.answered_within(Kind::Reads, SECOND, 2 * SECOND), 1);
        assert_eq!((course.count(End::Failed), course.longest_wait()), (1, 8 * SECOND / 10));
        assert_eq!(
            course.longest_begun_within(0, 100 * SECOND),
            course.samples.iter().map(|s| s.ended - s.began).max().unwrap()
        );
        assert_eq!(course.longest_begun_within(90 * SECOND, 100 * SECOND), 0);
    }

    #[test]
    fn the_slowest_hundredth_is_of_one_kind_and_one_time() {
        let mut samples: Vec<Sample> = (0..200).map(|n| sample(0, 10, 11 + n, End::Answered)).collect();
        samples.push(Sample { kind: Kind::Reads, ..sample(0, 10, 900, End::Answered) });
        samples.push(sample(0, 50, 900, End::Answered));
        let course = course(samples);
        let slowest = |from, until| course.slowest_hundredth(Kind::Writes, from * SECOND, until * SECOND);
        assert_eq!(slowest(0, 5), Some(19_800_000), "two of two hundred took longer");
        assert_eq!(slowest(6, 9), None);
    }
}
