//! The operator of a drill: at given times it has a plan made, applies it, and looks how far it is,
//! asking again until it is answered, as one does at a terminal.

use serde::{Deserialize, Serialize};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::plan::{Progress, Verb, VoterVerb};

use crate::duration::{Duration, SECOND};

/// What the operator is to do, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errand {
    /// When for the first time, counted from the moment the clients begin.
    pub at: Duration,
    /// What, in turn: `failover a`, `failback a`, `drain a1`, `restore a1`, `rebalance`,
    /// `voter-add p-b2`, `voter-remove p-b2`, `voter-replace w1 w2`.
    pub verbs: Vec<String>,
    /// How long after one the next comes; not before the one is done.
    #[serde(default = "five_seconds")]
    pub every: Duration,
    /// How many times through the verbs.
    #[serde(default = "once")]
    pub times: u32,
}

fn five_seconds() -> Duration {
    Duration(5 * SECOND)
}

fn once() -> u32 {
    1
}

/// Reads what the operator is to do, or says what means nothing.
pub(crate) fn verb(text: &str) -> Result<Verb, String> {
    let unknown = || {
        format!(
            "{text:?} is nothing that an operator can do; write `failover DC`, `failback DC`, `drain NODE`, `restore NODE`, `rebalance`, `voter-add NAME`, `voter-remove NAME` or `voter-replace OLD NEW`"
        )
    };
    let mut words = text.split(' ');
    let (Some(verb), whom) = (words.next(), words.next()) else { return Err(unknown()) };
    let dc = || whom.and_then(|dc| dc.parse().ok()).ok_or_else(unknown);
    let node = || whom.and_then(|node| node.parse().ok()).ok_or_else(unknown);
    match verb {
        "failover" => Ok(Verb::Failover(dc()?)),
        "failback" => Ok(Verb::Failback(dc()?)),
        "drain" => Ok(Verb::DrainNode(node()?)),
        "restore" => Ok(Verb::RestoreNode(node()?)),
        "rebalance" => Ok(Verb::Rebalance),
        "voter-add" => Ok(Verb::Voters(VoterVerb::Add(node()?))),
        "voter-remove" => Ok(Verb::Voters(VoterVerb::Remove(node()?))),
        "voter-replace" => {
            let new = words.next().and_then(|node| node.parse().ok()).ok_or_else(unknown)?;
            Ok(Verb::Voters(VoterVerb::Replace { old: node()?, new }))
        }
        _ => Err(unknown()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Resting,
    Planning,
    Applying(u64),
    Watching,
}

/// The operator.
#[derive(Debug)]
pub struct Operator {
    agenda: Vec<(u64, String, Verb)>,
    /// What was begun since somebody looked.
    begun: Option<String>,
    next: usize,
    doing: Doing,
    /// How far the last plan was when it was looked at last.
    progress: Option<Progress>,
    /// Handovers of leaders before the present one, and of it.
    handovers: (u64, u64),
}

impl Operator {
    /// An operator whose times count from a moment.
    ///
    /// # Panics
    /// If the verbs of an errand were not checked.
    #[must_use]
    pub fn new(errands: &[Errand], began: u64) -> Self {
        let mut agenda = Vec::new();
        for errand in errands {
            let read = |text: &String| (text.clone(), verb(text).expect("a file's verbs are checked"));
            let all: Vec<(String, Verb)> = errand.verbs.iter().map(read).collect();
            let all = (0..errand.times).flat_map(|_| all.clone());
            let times = (0..).map(|count: u64| began + errand.at.0 + count * errand.every.0);
            agenda.extend(times.zip(all).map(|(at, (text, verb))| (at, text, verb)));
        }
        agenda.sort_by_key(|(at, _, _)| *at);
        Self { agenda, begun: None, next: 0, doing: Doing::Resting, progress: None, handovers: (0, 0) }
    }

    /// Whether everything was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next >= self.agenda.len() && self.doing == Doing::Resting
    }

    /// What is left to do, in words.
    #[must_use]
    pub fn left(&self) -> String {
        let next = self.agenda.get(self.next).map_or("nothing", |(_, said, _)| said.as_str());
        let (count, waiting) = (self.agenda.len().saturating_sub(self.next), self.progress.as_ref());
        let waiting = waiting.map_or_else(Vec::new, |progress| progress.waiting.clone());
        format!("{count} plans are left, the next is {next}; the last one waits for {waiting:?}")
    }

    /// Handovers seen, and the longest pause of one in milliseconds.
    #[must_use]
    pub fn measured(&self) -> (u64, u64) {
        let pause = self.progress.as_ref().map_or(0, |progress| progress.longest_pause.0);
        (self.handovers.0 + self.handovers.1, pause)
    }

    /// Hears what was answered and says what to ask now.
    pub fn turn(&mut self, now: u64, answers: Vec<AdminAnswer>) -> Option<AdminRequest> {
        answers.into_iter().for_each(|answer| self.hear(answer));
        if self.doing == Doing::Resting {
            let (at, text, _) = self.agenda.get(self.next)?;
            if now < *at {
                return None;
            }
            self.begun = Some(format!("operator: {text}"));
            self.next += 1;
            self.doing = Doing::Planning;
        }
        let verb = self.agenda[self.next - 1].2;
        Some(match self.doing {
            Doing::Resting | Doing::Planning => AdminRequest::Plan { verb },
            Doing::Applying(number) => AdminRequest::Apply { number, verb },
            Doing::Watching => AdminRequest::Progress,
        })
    }

    /// What was begun since this was asked last, in words.
    pub fn begun(&mut self) -> Option<String> {
        self.begun.take()
    }

    fn hear(&mut self, answer: AdminAnswer) {
        self.doing = match (self.doing, answer) {
            (Doing::Planning, AdminAnswer::Plan(plan)) => Doing::Applying(plan.number),
            (Doing::Applying(_), AdminAnswer::Done) => Doing::Watching,
            // It was outdated, or the leader went: the next plan is made from what is so now.
            (Doing::Applying(_), AdminAnswer::Refused(_)) => Doing::Planning,
            (Doing::Watching, AdminAnswer::Progress(Some(progress))) => {
                let (before, last) = self.handovers;
                let new_leader = progress.handovers < last;
                self.handovers = (before + if new_leader { last } else { 0 }, progress.handovers);
                let done = progress.left == 0;
                self.progress = Some(progress);
                if done { Doing::Resting } else { Doing::Watching }
            }
            (doing, _) => doing,
        };
    }
}
