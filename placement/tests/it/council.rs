//! Who votes in the control plane: operators add, remove and replace voters, a voter that lost its log
//! gets a way back, and while the witness is away the leader's data centre has a majority.

use std::collections::BTreeSet;

use trefoil_placement::Event;
use trefoil_placement::log_store::MemoryLogStore;
use trefoil_protocol::config::{Stand, VoterEntry};
use trefoil_protocol::ids::VoterId;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::plan::{Verb, VoterVerb};
use trefoil_protocol::message::voter::{VoterBody, VoterMessage};

use crate::cluster::{EXCUSE_AFTER, node, voter};
use crate::voters::Voters;

const FIVE: [&str; 5] = ["p-a1", "p-a2", "p-b1", "p-b2", "w1"];

fn verb(wanted: VoterVerb) -> Verb {
    Verb::Voters(wanted)
}

fn id(name: &str) -> VoterId {
    VoterId::of(node(name))
}

impl Voters {
    fn plan(&mut self, wanted: VoterVerb) -> Result<u64, String> {
        match self.operator(AdminRequest::Plan { verb: verb(wanted) }) {
            AdminAnswer::Plan(plan) => Ok(plan.number),
            AdminAnswer::Refused(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// Makes and applies a plan and waits until it is carried out.
    fn carry_out(&mut self, wanted: VoterVerb) {
        let number = self.plan(wanted).unwrap();
        let apply = AdminRequest::Apply { number, verb: verb(wanted) };
        assert_eq!(self.operator(apply), AdminAnswer::Done);
        for _ in 0..100 {
            self.run(200);
            if self.progress_left() == 0 {
                return;
            }
        }
        panic!("{wanted:?} is not carried out: {:?}", self.operator(AdminRequest::Progress));
    }

    fn progress_left(&mut self) -> u32 {
        match self.operator(AdminRequest::Progress) {
            AdminAnswer::Progress(Some(progress)) => progress.left,
            other => panic!("{other:?}"),
        }
    }

    fn stands(&mut self) -> Vec<(String, Stand)> {
        let leader = self.leader();
        let state = self.voters[&leader].state();
        state.voters.all().map(|record| (record.entry.name.to_string(), record.stand)).collect()
    }

    fn voting(&mut self) -> BTreeSet<String> {
        let stands = self.stands().into_iter();
        stands.filter(|(_, stand)| *stand == Stand::Voting).map(|(name, _)| name).collect()
    }

    fn lose(&mut self, name: &str) {
        self.voters.remove(&id(name));
    }

    fn entry(&self, name: &str) -> VoterEntry {
        *self.entries.iter().find(|entry| entry.name == node(name)).unwrap()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn r031_r039_a_lost_witness_is_replaced_by_a_learner_that_then_votes() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    voters.leader();
    voters.run(2_000);
    voters.lose("w1");
    let replace = VoterVerb::Replace { old: node("w1"), new: node("w2") };
    assert!(voters.plan(replace).unwrap_err().contains("asks to join"), "nobody is there yet");
    voters.join(voter("w2"));
    voters.run(2_000);
    voters.carry_out(replace);
    assert_eq!(voters.voting(), names(&["p-a1", "p-b1", "w2"]));
    // The new witness is one: with it, either of the others can be lost.
    let lost = voters.leader();
    let before = voters.voters[&lost].state().applied;
    voters.voters.remove(&lost);
    let leader = voters.leader();
    assert!(voters.voters[&leader].state().applied > before);
}

#[test]
fn a_single_voter_grows_to_three_and_its_leader_can_leave() {
    let mut voters = Voters::new(&["p-a1"]);
    voters.leader();
    for name in ["p-b1", "p-b2"] {
        voters.join(voter(name));
        voters.run(2_000);
        voters.carry_out(VoterVerb::Add(node(name)));
    }
    assert_eq!(voters.voting(), names(&["p-a1", "p-b1", "p-b2"]));
    voters.join(voter("p-a2"));
    voters.run(2_000);
    let leader = voters.leader();
    assert_eq!(leader, id("p-a1"));
    voters.carry_out(VoterVerb::Replace { old: node("p-a1"), new: node("p-a2") });
    voters.run(2_000);
    assert_eq!(voters.voting(), names(&["p-a2", "p-b1", "p-b2"]));
    assert_eq!(voters.ended, [id("p-a1")], "whoever was removed hears of it and ends");
    let states: BTreeSet<Vec<u8>> = voters
        .voters
        .iter()
        .filter(|(voter, _)| **voter != id("p-a1"))
        .map(|(_, placement)| placement.state().to_bytes())
        .collect();
    assert_eq!(states.len(), 1);
}

#[test]
fn a_voter_that_left_or_never_was_one_retires_nobody() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    voters.leader();
    voters.join(voter("w2"));
    voters.run(2_000);
    voters.carry_out(VoterVerb::Replace { old: node("w1"), new: node("w2") });
    voters.run(2_000);
    assert_eq!(voters.ended, [id("w1")]);
    let retires = |from: &str, to: &str, voters: &mut Voters| {
        let founding = voters.voters[&id(to)].state().voters.founded_by();
        let body = VoterBody::Retired;
        let message = VoterMessage { to: id(to), log: 1, to_log: None, body, founding };
        voters.step(id(to), Event::Voter(id(from), Box::new(message)));
    };
    retires("w1", "p-a1", &mut voters);
    retires("p-x9", "p-a1", &mut voters);
    assert_eq!(voters.ended, [id("w1")], "neither is a voter of p-a1's log");
    retires("p-b1", "p-a1", &mut voters);
    assert_eq!(voters.ended, [id("w1"), id("p-a1")]);
}

#[test]
fn r046_a_voter_that_lost_its_log_comes_back_under_another_name_and_never_under_its_own() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    voters.leader();
    voters.run(3_000);
    let (lost, founders) = (voters.entry("p-b1"), voters.entries.clone());
    voters.lose("p-b1");
    voters.start(lost, MemoryLogStore::default());
    voters.run(3_000);
    assert_eq!(voters.ended, [lost.voter]);
    voters.lose("p-b1");
    voters.join(voter("p-b2"));
    voters.run(2_000);
    voters.carry_out(VoterVerb::Replace { old: node("p-b1"), new: node("p-b2") });
    assert_eq!(voters.voting(), names(&["p-a1", "p-b2", "w1"]));
    let signers = voters.stands().len();
    assert_eq!(signers, 3);
    // The old name asks again, with an empty log.
    voters.ended.clear();
    voters.join(lost);
    voters.run(3_000);
    assert_eq!(voters.ended, [lost.voter], "a name is given once");
    // So it is told when its process is started as ever, over the empty disk.
    voters.ended.clear();
    voters.lose("p-b1");
    voters.entries = founders;
    voters.start(lost, MemoryLogStore::default());
    voters.run(3_000);
    assert_eq!(voters.ended, [lost.voter]);
    assert!(voters.plan(VoterVerb::Add(node("p-b1"))).unwrap_err().contains("given once"));
}

#[test]
fn no_plan_leaves_the_voters_without_a_majority_or_without_keys() {
    let mut voters = Voters::new(&["p-a1", "w1", "w2"]);
    voters.leader();
    voters.run(2_000);
    assert!(voters.plan(VoterVerb::Remove(node("p-a1"))).unwrap_err().contains("keys"));
    assert!(voters.plan(VoterVerb::Remove(node("p-b9"))).unwrap_err().contains("no voter"));
    voters.lose("w1");
    voters.run(6_000);
    assert!(voters.plan(VoterVerb::Remove(node("w2"))).unwrap_err().contains("majority"));
    voters.carry_out(VoterVerb::Remove(node("w1")));
    assert_eq!(voters.voting(), names(&["p-a1", "w2"]));
}

#[test]
fn a_learner_that_nobody_waits_for_is_given_up() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    voters.leader();
    voters.join(voter("p-a2"));
    voters.run(1_000);
    let add = VoterVerb::Add(node("p-a2"));
    let number = voters.plan(add).unwrap();
    voters.lose("p-a2");
    assert_eq!(voters.operator(AdminRequest::Apply { number, verb: verb(add) }), AdminAnswer::Done);
    voters.run(10_000);
    assert_eq!(voters.progress_left(), 1, "a learner that is not heard is not promoted");
    assert_eq!(voters.voting().len(), 3);
    assert_eq!(voters.operator(AdminRequest::CancelPlan), AdminAnswer::Done);
    voters.carry_out(VoterVerb::Remove(node("p-a2")));
    assert_eq!(voters.stands().len(), 3);
}

#[test]
fn while_the_witness_is_away_the_leaders_data_centre_outvotes_the_other_one() {
    let mut voters = Voters::new(&FIVE);
    voters.leader();
    voters.run(2_000);
    voters.cut_off.insert(id("w1"));
    voters.run(EXCUSE_AFTER * 1_000 - 5_000);
    assert_eq!(voters.voting().len(), 5, "not yet");
    voters.run(10_000);
    let leader = voters.leader();
    let home = voters.voters[&leader].state().voters.get(leader).unwrap().entry.dc;
    let voting = voters.voting();
    let at_home: Vec<&String> = voting.iter().filter(|name| voter(name).dc == home).collect();
    assert_eq!((voting.len(), at_home.len()), (3, 2), "{voting:?}");
    // The other data centre is lost: the control plane goes on.
    let other: Vec<VoterId> = FIVE
        .iter()
        .filter(|name| ![home, voter("w1").dc].contains(&voter(name).dc))
        .map(|name| id(name))
        .collect();
    voters.cut_off.extend(other.iter().copied());
    let applied = voters.voters[&leader].state().applied;
    voters.run(10_000);
    let leads = voters.leader();
    assert!(voters.voters[&leads].state().applied > applied);
    // It comes back, and so does the witness: everybody votes again.
    voters.cut_off.clear();
    voters.run(30_000);
    assert_eq!(voters.voting().len(), 5, "{:?}", voters.stands());
    voters.run(2 * EXCUSE_AFTER * 1_000);
    assert_eq!(voters.voting().len(), 5, "nobody is excused while everybody is heard");
}

#[test]
fn three_voters_are_never_excused() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    voters.leader();
    voters.cut_off.insert(id("w1"));
    voters.run(3 * EXCUSE_AFTER * 1_000);
    assert_eq!(voters.voting().len(), 3, "an entry must be on two disks");
}
