//! Who keeps the log changes by one member at a time, under the log alone: a learner finds the log by a
//! snapshot that has it in it, votes when it is told to, and what a majority of the present members has
//! is committed, whoever restarts.

use std::collections::BTreeMap;

use trefoil_placement::log::{Committed, ControlLog, Founding, Membership};
use trefoil_placement::log_store::MemoryLogStore;
use trefoil_placement::raft_log::RaftLog;
use trefoil_protocol::ids::VoterId;
use trefoil_protocol::message::voter::RaftMessage;

const A: VoterId = VoterId(1);
const B: VoterId = VoterId(2);
const C: VoterId = VoterId(3);

/// A state of nothing but what was committed; a change of members is its first byte and its member.
#[derive(Default)]
struct Members {
    logs: BTreeMap<VoterId, RaftLog<MemoryLogStore>>,
    applied: BTreeMap<VoterId, Vec<Vec<u8>>>,
}

fn words(change: Membership) -> Vec<u8> {
    match change {
        Membership::Learn(voter) => vec![b'l', voter.0 as u8],
        Membership::Vote(voter) => vec![b'v', voter.0 as u8],
        Membership::Leave(voter) => vec![b'x', voter.0 as u8],
    }
}

fn membership(data: &[u8]) -> Option<Membership> {
    let member = VoterId(u64::from(*data.get(1)?));
    match data[0] {
        b'l' => Some(Membership::Learn(member)),
        b'v' => Some(Membership::Vote(member)),
        b'x' => Some(Membership::Leave(member)),
        _ => None,
    }
}

impl Members {
    fn open(&mut self, voter: VoterId, founders: &[VoterId], store: MemoryLogStore) {
        let founding = || Founding { voters: founders.to_vec(), state: Vec::new() };
        let seed = voter.0 as u8;
        let mut entropy = |bytes: &mut [u8]| bytes.fill(seed);
        let (log, snapshot) = RaftLog::open(voter, store, founding, &mut entropy).unwrap();
        self.applied.insert(voter, parse(&snapshot.data));
        self.logs.insert(voter, log);
    }

    fn restart(&mut self, voter: VoterId) {
        let mut store = self.logs.remove(&voter).unwrap().into_store();
        store.crash();
        self.open(voter, &[], store);
    }

    /// Drives one log until it has nothing to say, and gives back what it said.
    fn drive(&mut self, voter: VoterId) -> Vec<(VoterId, RaftMessage)> {
        let mut said = Vec::new();
        loop {
            let log = self.logs.get_mut(&voter).unwrap();
            let progress = log.advance().unwrap();
            said.extend(progress.messages);
            let applied = self.applied.get_mut(&voter).unwrap();
            if let Some(state) = progress.restored {
                *applied = parse(&state);
            }
            for Committed { index, data } in progress.committed {
                applied.extend((!data.is_empty()).then(|| data.to_vec()));
                if let Some(change) = membership(&data) {
                    log.change_members(change).unwrap();
                    log.compact(index, applied.join(&b' ')).unwrap();
                }
            }
            if !progress.changes_members {
                return said;
            }
        }
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for voter in self.logs.keys().copied().collect::<Vec<_>>() {
                self.logs.get_mut(&voter).unwrap().tick();
                self.exchange(voter);
            }
        }
    }

    fn exchange(&mut self, voter: VoterId) {
        for (to, message) in self.drive(voter) {
            if let Some(log) = self.logs.get_mut(&to) {
                log.receive(voter, message);
                self.exchange(to);
            }
        }
    }

    fn leader(&mut self) -> VoterId {
        for _ in 0..100 {
            if let Some((voter, _)) = self.logs.iter().find(|(_, log)| log.leads().is_some()) {
                return *voter;
            }
            self.run(1);
        }
        panic!("nobody leads");
    }

    fn change(&mut self, change: Membership) {
        let leader = self.leader();
        self.logs.get_mut(&leader).unwrap().propose_membership(change, words(change)).unwrap();
        self.run(30);
        assert!(self.applied[&leader].contains(&words(change)));
    }

    fn commit(&mut self, command: &[u8]) -> VoterId {
        let leader = self.leader();
        self.logs.get_mut(&leader).unwrap().propose(command.to_vec()).unwrap();
        self.run(5);
        leader
    }
}

fn parse(state: &[u8]) -> Vec<Vec<u8>> {
    state.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
}

#[test]
fn r031_a_learner_follows_then_votes_and_whoever_leaves_is_not_asked() {
    let mut members = Members::default();
    members.open(A, &[A], MemoryLogStore::default());
    members.commit(b"one");
    members.open(B, &[], MemoryLogStore::default());
    members.change(Membership::Learn(B));
    assert_eq!(members.applied[&B], members.applied[&A], "a snapshot brought what was there before");
    // A learner's silence keeps nothing from being committed, a voter's does.
    let log = members.logs.remove(&B).unwrap();
    members.commit(b"two");
    assert_eq!(members.applied[&A].last().unwrap(), b"two");
    members.logs.insert(B, log);
    members.run(20);
    members.change(Membership::Vote(B));
    let log = members.logs.remove(&B).unwrap();
    members.commit(b"three");
    assert_ne!(members.applied[&A].last().unwrap(), b"three", "two voters must both have it");
    members.logs.insert(B, log);
    members.run(60);
    members.open(C, &[], MemoryLogStore::default());
    members.change(Membership::Learn(C));
    members.change(Membership::Vote(C));
    let leader = members.leader();
    let leaves = if leader == A { B } else { A };
    members.change(Membership::Leave(leaves));
    members.logs.remove(&leaves);
    members.commit(b"four");
    assert_eq!(members.applied[&leader].last().unwrap(), b"four");
}

#[test]
fn one_change_at_a_time() {
    let mut members = Members::default();
    members.open(A, &[A], MemoryLogStore::default());
    members.leader();
    let log = members.logs.get_mut(&A).unwrap();
    log.propose_membership(Membership::Learn(B), words(Membership::Learn(B))).unwrap();
    assert!(log.propose_membership(Membership::Learn(C), words(Membership::Learn(C))).is_err());
    members.run(1);
    members.change(Membership::Learn(C));
}

#[test]
fn a_voter_that_restarts_counts_the_members_of_its_last_word() {
    let mut members = Members::default();
    members.open(A, &[A], MemoryLogStore::default());
    members.open(B, &[], MemoryLogStore::default());
    members.change(Membership::Learn(B));
    members.change(Membership::Vote(B));
    let before = members.applied[&A].clone();
    members.restart(A);
    let log = members.logs.remove(&B).unwrap();
    // It was alone once; if it believed that it is, it would lead at once.
    members.run(100);
    assert!(members.logs[&A].leads().is_none());
    members.logs.insert(B, log);
    members.commit(b"after");
    assert!(members.applied[&A].starts_with(&before));
    assert_eq!(members.applied[&A].last().unwrap(), b"after");
}
