//! Several voters: leadership moves, a cut-off leader grants nothing, and nothing committed is lost.

use std::collections::{BTreeMap, BTreeSet};

use trefoil_placement::log_store::MemoryLogStore;
use trefoil_placement::{Answer, Effect, Event, Placement, Request, RequestId, Settings, VoterId};
use trefoil_protocol::ids::{ConfigIndex, Incarnation};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest, Renew};

use crate::cluster::{Cluster, at, entropy, keyring, node, store};

struct Voters {
    now: u64,
    voters: BTreeMap<VoterId, Placement<MemoryLogStore>>,
    cut_off: BTreeSet<VoterId>,
    answers: BTreeMap<RequestId, Answer>,
    last_request: u64,
}

impl Voters {
    fn new(count: u64) -> Self {
        let mut voters = Self {
            now: 1_000,
            voters: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            answers: BTreeMap::new(),
            last_request: 0,
        };
        let all: Vec<VoterId> = (1..=count).map(VoterId).collect();
        for voter in &all {
            let settings = Settings {
                cluster: "test".into(),
                voter: *voter,
                voters: all.clone(),
                placement_keys: BTreeSet::new(),
            };
            // Each draws another election time-out.
            let mut spread = entropy();
            for _ in 0..voter.0 {
                spread.fill(&mut [0]);
            }
            let placement =
                Placement::open(settings, keyring(), MemoryLogStore::default(), spread, at(voters.now));
            voters.voters.insert(*voter, placement.unwrap());
        }
        voters
    }

    fn step(&mut self, voter: VoterId, event: Event) {
        let effects = self.voters.get_mut(&voter).unwrap().step(at(self.now), event);
        for effect in effects {
            match effect {
                Effect::Answer(id, answer) => {
                    assert!(self.answers.insert(id, answer).is_none(), "{id:?} answered twice");
                }
                Effect::Send(to, bytes) => {
                    if !self.cut_off.contains(&voter) && !self.cut_off.contains(&to) {
                        self.step(to, Event::Voter(voter, bytes));
                    }
                }
                Effect::Fatal(reason) => panic!("{reason}"),
            }
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now += 100;
            for voter in self.voters.keys().copied().collect::<Vec<_>>() {
                self.step(voter, Event::Wakeup);
            }
        }
    }

    fn leaders(&self) -> Vec<VoterId> {
        self.voters.iter().filter(|(_, placement)| placement.leads()).map(|(voter, _)| *voter).collect()
    }

    fn leader(&mut self) -> VoterId {
        for _ in 0..100 {
            let reachable: Vec<VoterId> =
                self.leaders().into_iter().filter(|voter| !self.cut_off.contains(voter)).collect();
            if let [leader] = reachable[..] {
                return leader;
            }
            self.run(100);
        }
        panic!("nobody leads");
    }

    fn send(&mut self, voter: VoterId, request: ControlRequest) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.step(voter, Event::Request(id, Request::Control(node("a1"), request)));
        id
    }

    fn register(&mut self, voter: VoterId) -> Option<Incarnation> {
        let id =
            self.send(voter, ControlRequest::Register(Cluster::register("a1", store("a1"), Incarnation(0))));
        match self.answers.get(&id) {
            Some(Answer::Control(ControlAnswer::Registered { incarnation, .. })) => Some(*incarnation),
            _ => None,
        }
    }

    fn renew(&self, incarnation: Incarnation) -> ControlRequest {
        ControlRequest::Renew(Renew {
            store: store("a1"),
            incarnation,
            applied: ConfigIndex(0),
            sent: at(self.now),
            volumes: Vec::new(),
            links: None,
        })
    }

    fn granted(&self, id: RequestId) -> bool {
        matches!(self.answers.get(&id), Some(Answer::Control(ControlAnswer::Granted { .. })))
    }
}

#[test]
fn three_voters_have_one_leader_and_the_same_state() {
    let mut voters = Voters::new(3);
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
    let refused = Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader));
    assert_eq!(voters.answers.get(&asked), Some(&refused));
}

#[test]
fn renewal_states_what_it_knows() {
    // A leader that is cut off from the others grants nothing, though it does not know it yet.
    let mut voters = Voters::new(3);
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
    let refused = Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader));
    assert_eq!(voters.answers.get(&in_vain), Some(&refused));
    let granted = voters.send(new, renewal);
    assert!(voters.granted(granted), "what was committed is known to the new leader");
}

#[test]
fn r036_a_voter_that_returns_disturbs_nobody() {
    let mut voters = Voters::new(3);
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
    let mut voters = Voters::new(3);
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
