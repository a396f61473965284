//! Who should keep the log: what operators want of the voters is carried out one member at a time, and
//! while a witness is away for long, voters are excused so that the leader's data centre keeps a majority
//! through the next loss. Decides, and changes nothing: every step is a command of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::config::{Stand, VoterEntry};
use trefoil_protocol::ids::{DcId, NodeId, VoterId};
use trefoil_protocol::message::plan::VoterVerb;
use trefoil_protocol::time::BootTime;

use crate::controller::Turn;
use crate::controller::outbox::Waiting;
use crate::log::PeerProgress;
use crate::state::{Command, State, VoterGoal, VoterRecord, VoterStep};

/// A process that waits to be added says so this often at least.
const CANDIDATE_FOR: Duration = Duration::from_secs(5);

/// A learner votes when it lacks fewer entries than this.
const BEHIND_MAX: u64 = 64;

/// Shorter silences are none: the log forgets now and then whom it heard, to hear whether it still does.
const BREAK: Duration = Duration::from_secs(3);

/// The fewest voters that excusing leaves: an entry must be on two disks.
const VOTERS_LEFT_MIN: usize = 3;

/// What a leader knows of the members beyond what is committed.
#[derive(Debug, Default)]
pub(crate) struct Council {
    /// Processes that wait to be added, and when they were heard last.
    candidates: BTreeMap<VoterId, (VoterEntry, BootTime)>,
    /// When each member was heard.
    heard: BTreeMap<VoterId, Heard>,
    under_way: bool,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Since when without a break.
    since: BootTime,
    /// When last.
    last: BootTime,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Step(VoterStep),
    /// Somebody else must lead first: the leader itself is to leave.
    HandOver,
}

impl Council {
    /// A process that is no member says who it is.
    pub(crate) fn offers(&mut self, entry: VoterEntry, now: BootTime) {
        self.candidates.insert(entry.voter, (entry, now));
    }

    /// The step under way is over, applied or not.
    pub(crate) fn is_free(&mut self) {
        self.under_way = false;
    }

    /// Looks who is heard, and proposes the next step.
    pub(crate) fn look(&mut self, turn: &mut Turn<'_>, away: Duration, back: Duration) {
        self.candidates.retain(|_, (_, at)| turn.now.since(*at) < CANDIDATE_FOR);
        let peers = (turn.peers)();
        self.listen(&peers, turn.now);
        if self.under_way {
            return;
        }
        let scene = Scene { council: self, state: turn.state, peers: &peers, me: turn.voter, now: turn.now };
        let next = scene.toward_goal().or_else(|| scene.toward_majority(away, back));
        match next {
            Some(Next::Step(step)) => {
                self.under_way = true;
                turn.out.propose(Command::ChangeVoter(step), Waiting::Council);
            }
            Some(Next::HandOver) => turn.out.hand_over = true,
            None => {}
        }
    }

    fn listen(&mut self, peers: &[PeerProgress], now: BootTime) {
        self.heard.retain(|voter, _| peers.iter().any(|peer| peer.voter == *voter));
        for peer in peers {
            // Nobody is called silent before it was listened to.
            let heard = self.heard.entry(peer.voter).or_insert(Heard { since: now, last: now });
            if peer.active {
                let broken = now.since(heard.last) >= BREAK;
                *heard = Heard { since: if broken { now } else { heard.since }, last: now };
            }
        }
    }

    /// Whether a member was heard a moment ago.
    fn is_heard(&self, voter: VoterId, now: BootTime) -> bool {
        self.heard.get(&voter).is_some_and(|heard| now.since(heard.last) < BREAK)
    }

    /// What an operator's verb comes to, with what it risks.
    pub(crate) fn draw(&self, state: &State, now: BootTime, verb: VoterVerb) -> Result<DrawnGoal, String> {
        let (join, leave) = match verb {
            VoterVerb::Add(name) => (Some(self.candidate(state, name)?), None),
            VoterVerb::Remove(name) => (None, Some(member(state, name)?)),
            VoterVerb::Replace { old, new } => (Some(self.candidate(state, new)?), Some(member(state, old)?)),
        };
        let leaves = leave.map(|record| record.entry);
        let is_left = |record: &&VoterRecord| Some(record.entry.voter) != leaves.map(|entry| entry.voter);
        let left: Vec<&VoterRecord> = state.voters.voting().filter(is_left).collect();
        let comes_with_keys = join.is_some_and(|entry| !entry.witness);
        if !comes_with_keys && left.iter().all(|record| record.entry.witness) {
            return Err("no voter with keys would be left".to_owned());
        }
        let heard = left.iter().filter(|record| self.is_heard(record.entry.voter, now)).count();
        let (count, joins) = (left.len() + usize::from(join.is_some()), usize::from(join.is_some()));
        if 2 * (heard + joins) <= count {
            return Err(format!("of {count} voters only {} would be heard: no majority", heard + joins));
        }
        let goal = VoterGoal { plan: 0, join, leave: leaves.map(|entry| entry.voter) };
        Ok(DrawnGoal { goal, risks: risks(count, leave, join), undo: undo(verb) })
    }

    fn candidate(&self, state: &State, name: NodeId) -> Result<VoterEntry, String> {
        let voter = VoterId::of(name);
        if state.voters.is_retired(voter) {
            return Err(format!("`{name}` was a voter once: a name is given once, take another one"));
        }
        match state.voters.get(voter) {
            Some(record) if record.stand == Stand::Learning => return Ok(record.entry),
            Some(_) => return Err(format!("`{name}` is a voter already")),
            None => {}
        }
        let known = self.candidates.get(&voter).map(|(entry, _)| *entry);
        known.ok_or_else(|| {
            format!(
                "no process `{name}` asks to join: start it with `join = true` and these voters in its list"
            )
        })
    }
}

/// A goal before it is applied.
pub(crate) struct DrawnGoal {
    pub(crate) goal: VoterGoal,
    pub(crate) risks: Vec<String>,
    pub(crate) undo: String,
}

fn member(state: &State, name: NodeId) -> Result<&VoterRecord, String> {
    state.voters.get(VoterId::of(name)).ok_or_else(|| format!("there is no voter `{name}`"))
}

fn risks(count: usize, leaves: Option<&VoterRecord>, joins: Option<VoterEntry>) -> Vec<String> {
    let mut risks = Vec::new();
    if count.is_multiple_of(2) {
        risks.push(format!("{count} voters bear no more losses than {}: add or remove one more", count - 1));
    }
    if count < VOTERS_LEFT_MIN {
        risks.push(format!("with {count} voters the loss of one stops the control plane"));
    }
    if let Some(record) = leaves {
        let name = record.entry.name;
        risks.push(format!(
            "`{name}` can never vote again under this name; papers that it signed still count"
        ));
    }
    if joins.is_some() {
        risks.push("it votes only when it has the whole log; until then nothing waits for it".to_owned());
    }
    risks
}

fn undo(verb: VoterVerb) -> String {
    match verb {
        VoterVerb::Add(name) => format!("trefoil voter remove {name}"),
        VoterVerb::Remove(name) => {
            format!("start a new process under another name than {name} and add that: trefoil voter add NAME")
        }
        VoterVerb::Replace { new, .. } => {
            format!("start a new process under a third name: trefoil voter replace {new} NAME")
        }
    }
}

/// What is looked at.
struct Scene<'a> {
    council: &'a Council,
    state: &'a State,
    peers: &'a [PeerProgress],
    me: VoterId,
    now: BootTime,
}

impl Scene<'_> {
    /// What an operator wants.
    fn toward_goal(&self) -> Option<Next> {
        let goal = self.state.voters.goal()?;
        if let Some(entry) = goal.join {
            match self.state.voters.get(entry.voter) {
                None => return Some(Next::Step(VoterStep::Join(entry))),
                Some(record) if record.stand == Stand::Learning => return self.promotion(record),
                Some(_) => {}
            }
        }
        let leaves = self.state.voters.get(goal.leave?)?;
        let voter = leaves.entry.voter;
        if voter == self.me {
            return Some(Next::HandOver);
        }
        let step = Next::Step(VoterStep::Leave(voter));
        (leaves.stand != Stand::Voting || self.is_majority_without(voter)).then_some(step)
    }

    /// A witness that has been away for long is excused, and then others until the leader's data centre
    /// has a majority of those who vote; they vote again when the witness is back, or another one is.
    fn toward_majority(&self, away: Duration, back: Duration) -> Option<Next> {
        let home = self.state.voters.get(self.me).filter(|record| !record.entry.witness)?.entry.dc;
        let voting: Vec<&VoterRecord> = self.state.voters.voting().collect();
        let at_home = voting.iter().filter(|record| record.entry.dc == home).count();
        let is_away = |record: &&&VoterRecord| self.has_been(record, Wanted::Silent, away);
        let gone = voting.iter().filter(|record| record.entry.witness).find(is_away);
        if let Some(witness) =
            gone.filter(|_| voting.len() > VOTERS_LEFT_MIN && 2 * at_home >= VOTERS_LEFT_MIN)
        {
            return self.excuse(witness);
        }
        let excused = || self.state.voters.all().filter(|record| record.stand == Stand::Excused);
        let witness = excused().find(|record| record.entry.witness);
        if let Some(witness) = witness {
            if self.has_been(witness, Wanted::Heard, back) {
                return self.promotion(witness);
            }
            let is_enough = 2 * at_home > voting.len() || voting.len() <= VOTERS_LEFT_MIN || at_home < 2;
            let other = (!is_enough).then(|| self.dispensable(&voting, home)).flatten()?;
            return self.excuse(other);
        }
        let mut others = excused().filter(|record| self.has_been(record, Wanted::Heard, back));
        others.find_map(|record| self.promotion(record))
    }

    /// Of the voters elsewhere, first one that is not heard.
    fn dispensable<'r>(&self, voting: &[&'r VoterRecord], home: DcId) -> Option<&'r VoterRecord> {
        let elsewhere = voting.iter().filter(|record| record.entry.dc != home);
        elsewhere.min_by_key(|record| (self.is_heard(record.entry.voter), record.entry.voter)).copied()
    }

    fn excuse(&self, record: &VoterRecord) -> Option<Next> {
        let voter = record.entry.voter;
        self.is_majority_without(voter).then_some(Next::Step(VoterStep::Excuse(voter)))
    }

    fn promotion(&self, record: &VoterRecord) -> Option<Next> {
        let voter = record.entry.voter;
        let most = self.peers.iter().map(|peer| peer.matched).max()?;
        let peer = self.peers.iter().find(|peer| peer.voter == voter)?;
        let is_whole = record.log.is_some() && self.is_heard(voter) && peer.matched + BEHIND_MAX > most;
        is_whole.then_some(Next::Step(VoterStep::Promote(voter)))
    }

    fn is_heard(&self, voter: VoterId) -> bool {
        self.council.is_heard(voter, self.now)
    }

    /// Whether a majority of those who would vote without this one is heard now.
    fn is_majority_without(&self, voter: VoterId) -> bool {
        let left = || self.state.voters.voting().filter(|record| record.entry.voter != voter);
        let heard = left().filter(|record| self.is_heard(record.entry.voter)).count();
        2 * heard > left().count()
    }

    fn has_been(&self, record: &VoterRecord, wanted: Wanted, long: Duration) -> bool {
        let heard = self.council.heard.get(&record.entry.voter);
        heard.is_some_and(|heard| match wanted {
            Wanted::Silent => self.now.since(heard.last) >= long,
            Wanted::Heard => self.is_heard(record.entry.voter) && self.now.since(heard.since) >= long,
        })
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Heard,
    Silent,
}

/// What stands between the voters and what is wanted of them.
pub(crate) fn waits_for(state: &State, goal: &VoterGoal) -> String {
    if let Some(entry) = goal.join {
        match state.voters.get(entry.voter) {
            None => return format!("{} is about to join as a learner", entry.name),
            Some(record) if record.log.is_none() => return format!("{} waits for the state", entry.name),
            Some(record) if record.stand == Stand::Learning => {
                return format!("{} catches up with the log", entry.name);
            }
            Some(_) => {}
        }
    }
    let leaves = goal.leave.and_then(|voter| state.voters.entry(voter));
    leaves.map_or_else(String::new, |entry| format!("{} is about to leave", entry.name))
}
