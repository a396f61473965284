//! Several voters: leadership moves, a cut-off leader grants nothing, and nothing committed is lost.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_placement::custodian::{Keyring, MasterKey};
use trefoil_placement::log_store::MemoryLogStore;
use trefoil_placement::{Answer, Beginning, Effect, Event, Placement, Request, RequestId, Settings};
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::ids::{ConfigIndex, Incarnation, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, Renew, StoreCondition,
};
use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, at, entropy, node, settings, store, voter};

pub(crate) struct Voters {
    pub(crate) now: u64,
    pub(crate) entries: Vec<VoterEntry>,
    pub(crate) voters: BTreeMap<VoterId, Placement<MemoryLogStore>>,
    pub(crate) cut_off: BTreeSet<VoterId>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    last_request: u64,
    starts: usize,
    pub(crate) ended: Vec<VoterId>,
    /// Who has other keys than the rest.
    odd: Option<VoterId>,
}

impl Voters {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut voters = Self {
            now: 1_000,
            entries: names.iter().map(|name| voter(name)).collect(),
            voters: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            answers: BTreeMap::new(),
            last_request: 0,
            starts: 0,
            ended: Vec::new(),
            odd: None,
        };
        for entry in voters.entries.clone() {
            voters.start(entry, MemoryLogStore::default());
        }
        voters
    }

    pub(crate) fn start(&mut self, entry: VoterEntry, log: MemoryLogStore) {
        self.start_as(entry, log, Beginning::Found);
    }

    fn start_as(&mut self, entry: VoterEntry, log: MemoryLogStore, beginning: Beginning) {
        // Each start draws something else.
        self.starts += 1;
        let mut spread = entropy();
        for _ in 0..self.starts {
            spread.fill(&mut [0; 32]);
        }
        let keyring = (!entry.witness).then(|| {
            Keyring::new(
                MasterKey::from_secrets(&[if self.odd == Some(entry.voter) { 9 } else { 1 }; 32], &[3; 32]),
                blake3::hash(entry.name.as_str().as_bytes()).as_bytes(),
            )
        });
        let settings = Settings { beginning, ..settings(entry.name.as_str(), &self.entries) };
        let placement = Placement::open(settings, keyring, log, spread, at(self.now));
        self.voters.insert(entry.voter, placement.unwrap());
    }

    /// The process of a voter dies and comes back over what was durable.
    pub(crate) fn restart(&mut self, voter: VoterId) {
        let mut log = self.voters.remove(&voter).unwrap().into_store();
        log.crash();
        let entry = *self.entries.iter().find(|entry| entry.voter == voter).unwrap();
        self.start(entry, log);
    }

    pub(crate) fn step(&mut self, voter: VoterId, event: Event) {
        let Some(placement) = self.voters.get_mut(&voter) else { return };
        let effects = placement.step(at(self.now), event);
        for effect in effects {
            match effect {
                Effect::Answer(id, answer) => {
                    assert!(self.answers.insert(id, answer).is_none(), "{id:?} answered twice");
                }
                Effect::Send(to, bytes) => {
                    let runs = self.voters.contains_key(&to);
                    if runs && !self.cut_off.contains(&voter) && !self.cut_off.contains(&to) {
                        self.step(to, Event::Voter(voter, bytes));
                    }
                }
                Effect::Fatal(_) => self.ended.push(voter),
            }
        }
    }

    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now += 100;
            for voter in self.voters.keys().copied().collect::<Vec<_>>() {
                self.step(voter, Event::Wakeup);
            }
        }
    }

    pub(crate) fn leaders(&self) -> Vec<VoterId> {
        self.voters.iter().filter(|(_, placement)| placement.leads()).map(|(voter, _)| *voter).collect()
    }

    pub(crate) fn leader(&mut self) -> VoterId {
        for _ in 0..100 {
            let reachable: Vec<VoterId> =
                self.leaders().into_iter().filter(|voter| !self.cut_off.contains(voter)).collect();
            // A witness hands over as soon as somebody with keys can lead.
            if let [leader] = reachable[..]
                && !self.entries.iter().any(|entry| entry.voter == leader && entry.witness)
            {
                return leader;
            }
            self.run(100);
        }
        panic!("nobody leads");
    }

    pub(crate) fn send(&mut self, voter: VoterId, request: ControlRequest) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.step(voter, Event::Request(id, Request::Control(node("a1"), request)));
        id
    }

    pub(crate) fn register(&mut self, voter: VoterId) -> Option<Incarnation> {
        let id =
            self.send(voter, ControlRequest::Register(Cluster::register("a1", store("a1"), Incarnation(0))));
        match self.answers.get(&id) {
            Some(Answer::Control(ControlAnswer::Registered { incarnation, .. })) => Some(*incarnation),
            _ => None,
        }
    }

    /// A process that was no voter before asks to join.
    pub(crate) fn join(&mut self, entry: VoterEntry) {
        self.entries.push(entry);
        self.start_as(entry, MemoryLogStore::default(), Beginning::Join);
    }

    /// Asks the leader as an operator.
    pub(crate) fn operator(&mut self, request: AdminRequest) -> AdminAnswer {
        let leader = self.leader();
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.step(leader, Event::Request(id, Request::Admin("op".parse().unwrap(), request)));
        match self.answers.get(&id) {
            Some(Answer::Admin(answer)) => answer.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn renew(&self, incarnation: Incarnation) -> ControlRequest {
        ControlRequest::Renew(self.renewal(incarnation))
    }

    pub(crate) fn renewal(&self, incarnation: Incarnation) -> Renew {
        Renew {
            store: store("a1"),
            incarnation,
            applied: ConfigIndex(0),
            sent: at(self.now),
            volumes: Vec::new(),
            links: None,
            timings: Vec::new(),
            condition: StoreCondition::default(),
        }
    }

    fn granted(&self, id: RequestId) -> bool {
        matches!(self.answers.get(&id), Some(Answer::Control(ControlAnswer::Granted { .. })))
    }
}

#[test]
fn three_voters_have_one_leader_and_the_same_state() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let leader = voters.leader();
    let incarnation = voters.register(leader).unwrap();
    let renewal = voters.renew(incarnation);
    let renewed = voters.send(leader, renewal);
    assert!(voters.granted(renewed));
    voters.run(5_000);
    assert_eq!(voters.leaders(), [leader]);
    let states: BTreeSet<Vec<u8>> =
        voters.voters.values().map(|placement| placement.state().to_bytes()).collect();
    assert_eq!(states.len(), 1);
    let follower = *voters.voters.keys().find(|voter| **voter != leader).unwrap();
    let asked = voters.send(follower, ControlRequest::Watch { applied: ConfigIndex(0), partly: None });
    let leader = voters.entries.iter().find(|entry| entry.voter == leader).copied();
    let refused = Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader }));
    assert_eq!(voters.answers.get(&asked), Some(&refused), "a follower says who leads");
}

#[test]
fn renewal_states_what_it_knows() {
    // A leader that is cut off from the others grants nothing, though it does not know it yet.
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let old = voters.leader();
    let incarnation = voters.register(old).unwrap();
    let renewal = voters.renew(incarnation);
    let renewed = voters.send(old, renewal.clone());
    assert!(voters.granted(renewed));
    voters.cut_off.insert(old);
    let in_vain = voters.send(old, renewal.clone());
    assert!(!voters.answers.contains_key(&in_vain));
    let new = voters.leader();
    assert_ne!(new, old);
    voters.run(3_000);
    assert!(!voters.voters[&old].leads(), "it steps down when no quorum answers");
    let refused = Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader: None }));
    assert_eq!(voters.answers.get(&in_vain), Some(&refused));
    let granted = voters.send(new, renewal);
    assert!(voters.granted(granted), "what was committed is known to the new leader");
}

#[test]
fn r036_a_voter_that_returns_disturbs_nobody() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let leader = voters.leader();
    let away = *voters.voters.keys().find(|voter| **voter != leader).unwrap();
    voters.cut_off.insert(away);
    voters.run(20_000);
    let incarnation = voters.register(leader);
    assert_eq!(incarnation, Some(Incarnation(1)));
    voters.cut_off.clear();
    for _ in 0..50 {
        voters.run(100);
        assert_eq!(voters.leaders(), [leader]);
    }
    let states: BTreeSet<Vec<u8>> =
        voters.voters.values().map(|placement| placement.state().to_bytes()).collect();
    assert_eq!(states.len(), 1);
}

#[test]
fn a_voter_that_missed_a_compacted_log_takes_a_snapshot() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let leader = voters.leader();
    voters.register(leader).unwrap();
    let away = *voters.voters.keys().find(|voter| **voter != leader).unwrap();
    voters.cut_off.insert(away);
    // Two ticks a second: more of them than the log keeps.
    voters.run(2_200_000);
    assert_eq!(voters.leader(), leader);
    voters.cut_off.clear();
    voters.run(5_000);
    assert!(voters.voters[&away].state().topology.node(node("a1")).is_some());
    let applied = |voter: VoterId| voters.voters[&voter].state().applied;
    assert_eq!(applied(away), applied(leader));
}

#[test]
fn r038_the_witness_leads_until_somebody_with_keys_can() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let (a, b, w) = (voters.entries[0].voter, voters.entries[1].voter, voters.entries[2].voter);
    for (with_newest, lost) in [(a, b), (b, a)] {
        // `lost` misses what the two others commit, and whoever holds keys of them is lost then.
        voters.leader();
        voters.cut_off.insert(lost);
        let leader = voters.leader();
        let applied = voters.voters[&leader].state().applied;
        voters.run(3_000);
        assert!(voters.voters[&w].state().applied > applied);
        let committed = voters.voters[&w].state().applied;
        voters.cut_off.clear();
        voters.cut_off.insert(with_newest);
        let mut waited = 0;
        while !voters.voters[&lost].leads() {
            voters.run(100);
            waited += 100;
            assert!(waited <= 10_000, "the witness keeps the leadership");
        }
        assert!(voters.voters[&lost].state().applied > committed, "nothing committed is lost");
        voters.cut_off.clear();
        voters.run(5_000);
    }
}

#[test]
fn r037_a_witness_makes_no_keys_and_gives_none() {
    let mut voters = Voters::new(&["p-a1", "w1", "w2"]);
    let [keeper, w1, w2] = [0, 1, 2].map(|place: usize| voters.entries[place].voter);
    voters.leader();
    voters.run(2_000);
    voters.cut_off.insert(keeper);
    voters.run(5_000);
    let leader = voters.leaders().into_iter().find(|leader| [w1, w2].contains(leader)).unwrap();
    let id = RequestId(1_000_000);
    let create = AdminRequest::CreateTenant {
        name: "acme".parse().unwrap(),
        volumes: 1,
        window: Millis(1_000),
        first_copy_retention: Millis(0),
        single_dc: trefoil_protocol::config::SingleDcPolicy::Allow,
        stale_reads: Default::default(),
    };
    voters.step(leader, Event::Request(id, Request::Admin("op".parse().unwrap(), create)));
    assert!(matches!(voters.answers.get(&id), Some(Answer::Admin(AdminAnswer::NotLeader { .. }))));
    voters.run(2_000);
    let state = voters.voters[&leader].state();
    assert_eq!(state.voters.signers().terms.len(), 1, "witnesses sign nothing");
}

#[test]
fn r046_a_voter_that_lost_its_log_ends_instead_of_voting() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let leader = voters.leader();
    voters.run(3_000);
    let lost = *voters.entries.iter().map(|entry| &entry.voter).find(|voter| **voter != leader).unwrap();
    let entry = *voters.entries.iter().find(|entry| entry.voter == lost).unwrap();
    voters.voters.remove(&lost);
    voters.start(entry, MemoryLogStore::default());
    voters.run(5_000);
    assert_eq!(voters.ended, [lost]);
    assert_eq!(voters.leaders(), [leader]);
}

#[test]
fn a_promise_outlives_a_crash() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    for _ in 0..10 {
        let leader = voters.leader();
        let applied = voters.voters[&leader].state().applied;
        for voter in voters.voters.keys().copied().collect::<Vec<_>>() {
            voters.restart(voter);
        }
        let leader = voters.leader();
        assert!(voters.voters[&leader].state().applied > applied, "nothing committed is lost");
        voters.run(1_000);
    }
}

#[test]
fn a_voter_with_other_keys_ends_and_says_so() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let leader = voters.leader();
    voters.run(2_000);
    let other = *voters.entries.iter().find(|entry| entry.voter != leader && !entry.witness).unwrap();
    voters.odd = Some(other.voter);
    voters.restart(other.voter);
    voters.run(2_000);
    assert_eq!(voters.ended, [other.voter]);
    assert_eq!(voters.leaders(), [leader]);
}

#[test]
fn a_voter_that_was_given_another_list_of_voters_ends_and_the_others_go_on() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let wrong = voters.entries[1].voter;
    voters.voters.remove(&wrong);
    let right = std::mem::replace(&mut voters.entries, ["p-a1", "p-b1", "p-b2"].map(voter).to_vec());
    voters.start(right[1], MemoryLogStore::default());
    voters.entries = right;
    let leader = voters.leader();
    voters.run(3_000);
    assert_eq!(voters.ended, [wrong], "most others have another list than this one");
    assert_eq!(voters.leaders(), [leader]);
}
