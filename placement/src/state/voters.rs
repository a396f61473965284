//! Who keeps the control plane's log: the voters and learners, which copy of the log each of them has,
//! the keys that they sign with, and who kept it once. Members change one at a time.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::codec;
use trefoil_protocol::config::{Stand, VoterEntry};
use trefoil_protocol::deletion::{SignerTerm, Signers};
use trefoil_protocol::ids::{Hash, PublicKey, VoterId};
use trefoil_protocol::time::{CpTime, Millis};

use super::Rejection;
use crate::log::Membership;

/// The most members, learners included.
pub const VOTERS_MAX: usize = 9;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterRecord {
    /// Who and where it is.
    #[n(0)]
    pub entry: VoterEntry,
    /// Its copy of the log, once it has introduced itself.
    #[n(1)]
    pub log: Option<u64>,
    /// The key that it signs with; a witness has none.
    #[n(2)]
    pub key: Option<PublicKey>,
    /// Whether it votes.
    #[n(3)]
    pub stand: Stand,
    /// Since when it votes, but for pauses.
    #[n(4)]
    pub since: Option<CpTime>,
}

/// Who was a member once and is none any more. Its name is never given again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetiredVoter {
    /// Who and where it was.
    #[n(0)]
    pub entry: VoterEntry,
    /// The key that it signed with.
    #[n(1)]
    pub key: Option<PublicKey>,
    /// Since when it voted; never, if it only learned.
    #[n(2)]
    pub since: Option<CpTime>,
    /// Until when.
    #[n(3)]
    pub until: CpTime,
}

/// One change of the members. It travels in the log as such, so that Raft changes with the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum VoterStep {
    /// A learner joins.
    #[n(0)]
    Join(#[n(0)] VoterEntry),
    /// A learner votes from now on.
    #[n(1)]
    Promote(#[n(0)] VoterId),
    /// A voter votes no more until it is promoted again; it keeps its key and the log.
    #[n(2)]
    Excuse(#[n(0)] VoterId),
    /// A member leaves for ever.
    #[n(3)]
    Leave(#[n(0)] VoterId),
}

impl VoterStep {
    /// What it is to the log.
    pub fn membership(&self) -> Membership {
        match self {
            Self::Join(entry) => Membership::Learn(entry.voter),
            Self::Promote(voter) => Membership::Vote(*voter),
            Self::Excuse(voter) => Membership::Learn(*voter),
            Self::Leave(voter) => Membership::Leave(*voter),
        }
    }
}

/// What an operator's plan wants of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoterGoal {
    /// The plan.
    #[n(0)]
    pub plan: u64,
    /// Who shall join and vote.
    #[n(1)]
    pub join: Option<VoterEntry>,
    /// Who shall leave when that is done.
    #[n(2)]
    pub leave: Option<VoterId>,
}

/// All members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Voters {
    #[n(0)]
    records: BTreeMap<VoterId, VoterRecord>,
    #[n(1)]
    retired: BTreeMap<VoterId, RetiredVoter>,
    #[n(2)]
    goal: Option<VoterGoal>,
    #[n(3)]
    founding: Hash,
    #[n(4)]
    shared: Option<Hash>,
    /// Who signed before the log began anew.
    #[n(5)]
    former: Vec<SignerTerm>,
    /// Which restore generation these members are of; 0 stands for the first.
    #[n(6)]
    generation: u64,
}

impl Voters {
    /// Those that found the cluster.
    pub fn founding(entries: &[VoterEntry]) -> Self {
        let since = Some(CpTime::default());
        let record = |entry: &VoterEntry| {
            (entry.voter, VoterRecord { entry: *entry, log: None, key: None, stand: Stand::Voting, since })
        };
        let founding = Hash(*blake3::hash(&codec::to_vec(&entries.to_vec())).as_bytes());
        Self { records: entries.iter().map(record).collect(), founding, ..Self::default() }
    }

    /// Those whom a process that joins knows; who founded the cluster it does not.
    pub fn known(entries: &[VoterEntry]) -> Self {
        Self { founding: Hash::ZERO, ..Self::founding(entries) }
    }

    /// Names the list of voters that founded the cluster.
    pub fn founded_by(&self) -> Hash {
        self.founding
    }

    /// Names the keys that all voters with keys share, once one of them has told.
    pub fn shared(&self) -> Option<Hash> {
        self.shared
    }

    /// After a restore these keep the log, and who is not among them keeps it no more. What was signed
    /// before stays signed.
    pub(super) fn found_anew(&mut self, entries: &[VoterEntry], until: CpTime, generation: u64) {
        let former = self.signers().terms;
        let founds = |voter: &VoterId| entries.iter().any(|entry| entry.voter == *voter);
        let mut retired = std::mem::take(&mut self.retired);
        for (voter, VoterRecord { entry, key, .. }) in std::mem::take(&mut self.records) {
            retired.insert(voter, RetiredVoter { entry, key, since: None, until });
        }
        retired.retain(|voter, _| !founds(voter));
        // Their terms are among the former ones.
        retired.values_mut().for_each(|voter| voter.since = None);
        // It is the cluster that the same voters founded: those who were left out must hear that they were.
        let founding = self.founding;
        *self = Self { former, generation, retired, founding, ..Self::founding(entries) };
    }

    /// A member.
    pub fn get(&self, voter: VoterId) -> Option<&VoterRecord> {
        self.records.get(&voter)
    }

    /// All members.
    pub fn all(&self) -> impl Iterator<Item = &VoterRecord> {
        self.records.values()
    }

    /// Those that vote.
    pub fn voting(&self) -> impl Iterator<Item = &VoterRecord> {
        self.records.values().filter(|record| record.stand == Stand::Voting)
    }

    /// Those that vote and may hold keys.
    pub fn keepers(&self) -> impl Iterator<Item = &VoterEntry> {
        self.voting().map(|record| &record.entry).filter(|entry| !entry.witness)
    }

    /// Those that vote, or will again: who may be asked to lead.
    pub fn leaders(&self) -> impl Iterator<Item = &VoterEntry> {
        let may_lead = |record: &&VoterRecord| record.stand != Stand::Learning;
        self.records.values().filter(may_lead).map(|record| &record.entry)
    }

    /// What an operator wants of the members and is not done yet.
    pub fn goal(&self) -> Option<&VoterGoal> {
        self.goal.as_ref()
    }

    /// An operator wants this, or nothing more.
    pub(super) fn aim(&mut self, goal: Option<VoterGoal>) {
        self.goal = goal;
        self.drop_goal_when_reached();
    }

    fn drop_goal_when_reached(&mut self) {
        let votes = |entry: VoterEntry| self.get(entry.voter).is_some_and(|r| r.stand == Stand::Voting);
        let reached = |goal: &mut VoterGoal| {
            goal.join.is_none_or(votes) && goal.leave.is_none_or(|voter| self.get(voter).is_none())
        };
        let mut goal = self.goal;
        goal.take_if(reached);
        self.goal = goal;
    }

    /// Who is no member any more.
    pub fn retired(&self) -> impl Iterator<Item = &RetiredVoter> {
        self.retired.values()
    }

    /// Whether this one was a member once and never will be again.
    pub fn is_retired(&self, voter: VoterId) -> bool {
        self.retired.contains_key(&voter)
    }

    /// Where a member, present or former, is found.
    pub fn entry(&self, voter: VoterId) -> Option<&VoterEntry> {
        let present = self.records.get(&voter).map(|record| &record.entry);
        present.or_else(|| self.retired.get(&voter).map(|retired| &retired.entry))
    }

    /// The copy of the log that a voter introduced itself with.
    pub fn log_of(&self, voter: VoterId) -> Option<u64> {
        self.records.get(&voter).and_then(|record| record.log)
    }

    /// Whose signatures stand for the control plane.
    pub fn signers(&self) -> Signers {
        let generation = self.generation;
        let term = |key, since, until| SignerTerm { key, since, until, generation };
        let present = self.records.values().filter(|record| !record.entry.witness);
        let present = present.filter_map(|record| Some(term(record.key, record.since?, None)));
        let retired = self.retired.values().filter(|retired| !retired.entry.witness);
        let retired = retired.filter_map(|voter| Some(term(voter.key, voter.since?, Some(voter.until))));
        Signers { terms: present.chain(retired).chain(self.former.iter().copied()).collect() }
    }

    /// Those that sign, besides `me`.
    pub fn countersigners(&self, me: VoterId) -> impl Iterator<Item = VoterId> {
        let signs = |record: &&VoterRecord| record.key.is_some() && record.since.is_some();
        self.records.values().filter(signs).map(|r| r.entry.voter).filter(move |voter| *voter != me)
    }

    /// A voter says which copy of the log it has and what it signs with. Both never change.
    pub(super) fn introduce(
        &mut self,
        voter: VoterId,
        log: u64,
        key: Option<PublicKey>,
        shared: Option<Hash>,
    ) -> Result<(), Rejection> {
        if shared.is_some() && self.shared.is_some_and(|known| Some(known) != shared) {
            return Err(Rejection::Differs("voters' master key"));
        }
        let record = self.records.get_mut(&voter).ok_or(Rejection::Unknown("voter"))?;
        if record.log.is_some_and(|known| known != log) {
            return Err(Rejection::Differs("voter's log"));
        }
        if record.entry.witness != key.is_none() || record.log.is_some() && record.key != key {
            return Err(Rejection::Differs("voter's key"));
        }
        (record.log, record.key) = (Some(log), key);
        self.shared = self.shared.or(shared);
        Ok(())
    }

    /// Changes one member. What is rejected here is no change for the log either.
    pub(super) fn change(&mut self, step: &VoterStep, now: CpTime) -> Result<(), Rejection> {
        self.take_step(step, now)?;
        self.drop_goal_when_reached();
        Ok(())
    }

    fn take_step(&mut self, step: &VoterStep, now: CpTime) -> Result<(), Rejection> {
        match step {
            VoterStep::Join(entry) => self.join(entry),
            VoterStep::Promote(voter) => self.promote(*voter, now),
            VoterStep::Excuse(voter) => {
                self.check_dispensable(*voter)?;
                let record = self.record(*voter)?;
                if record.stand != Stand::Voting {
                    return Err(Rejection::Stale);
                }
                record.stand = Stand::Excused;
                Ok(())
            }
            VoterStep::Leave(voter) => self.leave(*voter, now),
        }
    }

    fn record(&mut self, voter: VoterId) -> Result<&mut VoterRecord, Rejection> {
        self.records.get_mut(&voter).ok_or(Rejection::Unknown("voter"))
    }

    fn join(&mut self, entry: &VoterEntry) -> Result<(), Rejection> {
        if self.entry(entry.voter).is_some() || entry.voter != VoterId::of(entry.name) {
            return Err(Rejection::NameTaken);
        }
        if self.records.len() >= VOTERS_MAX {
            return Err(Rejection::TooMuch("voters"));
        }
        let record = VoterRecord { entry: *entry, log: None, key: None, stand: Stand::Learning, since: None };
        self.records.insert(entry.voter, record);
        Ok(())
    }

    /// Whoever votes has introduced itself: its log is the one it will be believed by.
    fn promote(&mut self, voter: VoterId, now: CpTime) -> Result<(), Rejection> {
        let record = self.record(voter)?;
        if record.stand == Stand::Voting || record.log.is_none() {
            return Err(Rejection::Stale);
        }
        record.stand = Stand::Voting;
        // What was signed in this very moment was signed before.
        record.since = record.since.or(Some(now + Millis(1).into()));
        Ok(())
    }

    fn leave(&mut self, voter: VoterId, now: CpTime) -> Result<(), Rejection> {
        self.check_dispensable(voter)?;
        let record = self.records.remove(&voter).ok_or(Rejection::Unknown("voter"))?;
        let VoterRecord { entry, key, since, .. } = record;
        self.retired.insert(voter, RetiredVoter { entry, key, since, until: now });
        Ok(())
    }

    /// Somebody with keys must be left to vote.
    fn check_dispensable(&self, voter: VoterId) -> Result<(), Rejection> {
        match self.keepers().any(|entry| entry.voter != voter) {
            true => Ok(()),
            false => Err(Rejection::LastKeeper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, witness: bool) -> VoterEntry {
        let name = name.parse().unwrap();
        let address = "127.0.0.1:7000".parse().unwrap();
        let dc = "a".parse().unwrap();
        VoterEntry { voter: VoterId::of(name), name, dc, witness, control: address, tenants: address }
    }

    #[test]
    fn r046_a_voter_keeps_its_log_and_key_and_a_witness_has_none() {
        let (keeper, witness) = (entry("p-a1", false), entry("w1", true));
        let mut voters = Voters::founding(&[keeper, witness]);
        let key = Some(PublicKey([7; 32]));
        assert_eq!(voters.introduce(keeper.voter, 1, None, None), Err(Rejection::Differs("voter's key")));
        assert_eq!(voters.introduce(witness.voter, 1, key, None), Err(Rejection::Differs("voter's key")));
        voters.introduce(keeper.voter, 1, key, None).unwrap();
        voters.introduce(keeper.voter, 1, key, None).unwrap();
        voters.introduce(witness.voter, 2, None, None).unwrap();
        assert_eq!(voters.introduce(keeper.voter, 3, key, None), Err(Rejection::Differs("voter's log")));
        let other = Some(PublicKey([8; 32]));
        assert_eq!(voters.introduce(keeper.voter, 1, other, None), Err(Rejection::Differs("voter's key")));
        assert_eq!(
            voters.signers().terms,
            [SignerTerm::founding(PublicKey([7; 32]))],
            "a witness signs nothing"
        );
    }

    #[test]
    fn r031_a_member_learns_before_it_votes_and_a_name_is_given_once() {
        let (keeper, witness, next) = (entry("p-a1", false), entry("w1", true), entry("w2", true));
        let mut voters = Voters::founding(&[keeper, witness]);
        let now = CpTime(9);
        voters.change(&VoterStep::Join(next), now).unwrap();
        let promote = VoterStep::Promote(next.voter);
        assert_eq!(voters.change(&promote, now), Err(Rejection::Stale), "nobody knows its log yet");
        voters.introduce(next.voter, 5, None, None).unwrap();
        assert_eq!(voters.voting().count(), 2);
        voters.change(&promote, now).unwrap();
        assert_eq!(voters.voting().count(), 3);
        voters.change(&VoterStep::Leave(witness.voter), now).unwrap();
        assert!(voters.get(witness.voter).is_none() && voters.is_retired(witness.voter));
        assert_eq!(voters.change(&VoterStep::Join(witness), now), Err(Rejection::NameTaken));
        for step in [VoterStep::Leave(keeper.voter), VoterStep::Excuse(keeper.voter)] {
            assert_eq!(voters.change(&step, now), Err(Rejection::LastKeeper));
        }
    }

    #[test]
    fn a_retired_voters_key_is_remembered() {
        let [one, two] = [entry("p-a1", false), entry("p-b1", false)];
        let mut voters = Voters::founding(&[one, two]);
        let keys = [7, 8].map(|byte| PublicKey([byte; 32]));
        voters.introduce(one.voter, 1, Some(keys[0]), None).unwrap();
        voters.introduce(two.voter, 2, Some(keys[1]), None).unwrap();
        voters.change(&VoterStep::Leave(one.voter), CpTime(4)).unwrap();
        let signers = voters.signers();
        assert!(keys.iter().all(|key| signers.may_sign(key, CpTime(4))));
        assert!(!signers.may_sign(&keys[0], CpTime(5)), "its time is over");
        assert_eq!((signers.needed_at(CpTime(4)), signers.needed_at(CpTime(5))), (2, 1));
        assert_eq!(voters.retired().next().map(|retired| retired.until), Some(CpTime(4)));
    }
}
