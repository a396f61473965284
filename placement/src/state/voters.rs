//! Who keeps the control plane's log: the voters, which copy of the log each of them has, and the
//! keys that they sign with.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::deletion::Signers;
use trefoil_protocol::ids::{PublicKey, VoterId};

use super::Rejection;

/// A voter.
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
}

/// All voters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Voters {
    #[n(0)]
    records: BTreeMap<VoterId, VoterRecord>,
}

impl Voters {
    /// Those that found the cluster.
    pub fn founding(entries: &[VoterEntry]) -> Self {
        let record = |entry: &VoterEntry| (entry.voter, VoterRecord { entry: *entry, log: None, key: None });
        Self { records: entries.iter().map(record).collect() }
    }

    /// One of them.
    pub fn get(&self, voter: VoterId) -> Option<&VoterRecord> {
        self.records.get(&voter)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &VoterRecord> {
        self.records.values()
    }

    /// Those that may hold keys.
    pub fn keepers(&self) -> impl Iterator<Item = &VoterEntry> {
        self.records.values().map(|record| &record.entry).filter(|entry| !entry.witness)
    }

    /// The copy of the log that a voter introduced itself with.
    pub fn log_of(&self, voter: VoterId) -> Option<u64> {
        self.records.get(&voter).and_then(|record| record.log)
    }

    /// Whose signatures stand for the control plane.
    pub fn signers(&self) -> Signers {
        let keys = self.records.values().filter_map(|record| record.key).collect();
        Signers { keys, needed: 1 }
    }

    /// A voter says which copy of the log it has and what it signs with. Both never change.
    pub(super) fn introduce(
        &mut self,
        voter: VoterId,
        log: u64,
        key: Option<PublicKey>,
    ) -> Result<(), Rejection> {
        let record = self.records.get_mut(&voter).ok_or(Rejection::Unknown("voter"))?;
        if record.log.is_some_and(|known| known != log) {
            return Err(Rejection::Differs("voter's log"));
        }
        if record.entry.witness != key.is_none() || record.log.is_some() && record.key != key {
            return Err(Rejection::Differs("voter's key"));
        }
        (record.log, record.key) = (Some(log), key);
        Ok(())
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
        assert_eq!(voters.introduce(keeper.voter, 1, None), Err(Rejection::Differs("voter's key")));
        assert_eq!(voters.introduce(witness.voter, 1, key), Err(Rejection::Differs("voter's key")));
        voters.introduce(keeper.voter, 1, key).unwrap();
        voters.introduce(keeper.voter, 1, key).unwrap();
        voters.introduce(witness.voter, 2, None).unwrap();
        assert_eq!(voters.introduce(keeper.voter, 3, key), Err(Rejection::Differs("voter's log")));
        let other = Some(PublicKey([8; 32]));
        assert_eq!(voters.introduce(keeper.voter, 1, other), Err(Rejection::Differs("voter's key")));
        assert_eq!(voters.signers().keys, [PublicKey([7; 32])]);
    }
}
