//! The signed list of what a volume went on without: which versions are known to be lost, and, where nobody
//! can know, since when. It holds no name, and is checked without a cluster.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::deletion::{SIGNATURES_MAX, Signers, SignersError};
use crate::ids::{Epoch, Hash, OperatorId, TenantId, VolumeId};
use crate::message::loss::{LOSS_STORES_MAX, LostStoreView, LostVersion};
use crate::sign::{Signed64, Statement};
use crate::time::CpTime;

/// The most versions that are listed of one volume's loss; what does not fit is counted.
pub const LISTED_MAX: usize = 1 << 16;

/// What is signed of a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LossStatement {
    /// The cluster.
    #[cbor(n(0), decode_with = "crate::codec::text::<64, _>")]
    pub cluster: String,
    /// The tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// The volume.
    #[n(2)]
    pub volume: VolumeId,
    /// The first epoch after the loss.
    #[n(3)]
    pub epoch: Epoch,
    /// When the volume went on.
    #[n(4)]
    pub accepted_at: CpTime,
    /// Who proposed and who approved it; nobody where a control plane was restored, which has papers of its
    /// own, or where the proposal is not kept any more.
    #[cbor(n(5), decode_with = "crate::codec::list::<8, _, _>")]
    pub operators: Vec<OperatorId>,
    /// Nobody knows what was acknowledged and lost since then.
    #[n(6)]
    pub unknown_since: Option<CpTime>,
    /// At most so many objects and bytes, by the account that was kept.
    #[n(7)]
    pub account: Option<(u64, u64)>,
    /// The stores that may have more, with what each has told.
    #[cbor(n(8), decode_with = "crate::codec::list::<LOSS_STORES_MAX, _, _>")]
    pub stores: Vec<LostStoreView>,
    /// How many versions are listed.
    #[n(9)]
    pub count: u64,
    /// blake3 of their list.
    #[n(10)]
    pub versions: Hash,
    /// So many more were told and found no room.
    #[n(11)]
    pub unlisted: u64,
    /// When this was said.
    #[n(12)]
    pub at: CpTime,
}

impl Statement for LossStatement {
    const DOMAIN: &'static str = "loss-list";
}

/// A signed [`LossStatement`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedLossStatement {
    /// What it says.
    #[n(0)]
    pub statement: LossStatement,
    /// The control plane's signatures.
    #[cbor(n(1), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub signatures: Vec<Signed64>,
}

/// A list as it is kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedLossList {
    /// What it says.
    #[n(0)]
    pub statement: LossStatement,
    /// The control plane's signatures.
    #[cbor(n(1), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub signatures: Vec<Signed64>,
    /// The versions, by their ids.
    #[cbor(n(2), decode_with = "crate::codec::list::<LISTED_MAX, _, _>")]
    pub versions: Vec<LostVersion>,
}

/// Why a list is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossListError {
    /// The bytes are no list.
    #[error("not a list of lost versions: {0}")]
    Malformed(String),
    /// It is not the list that was signed.
    #[error("the versions are not those that were signed")]
    Versions,
    /// Too few signatures, or wrong ones.
    #[error(transparent)]
    Signers(#[from] SignersError),
}

/// The hash of versions that stands in their statement.
pub fn hash_of(versions: &[LostVersion]) -> Hash {
    Hash(*blake3::hash(&codec::to_vec(&versions)).as_bytes())
}

impl SignedLossList {
    /// The bytes that are kept in a file.
    pub fn to_bytes(&self) -> Bytes {
        codec::to_vec(self).into()
    }

    /// Reads what [`Self::to_bytes`] wrote; no check of any signature.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LossListError> {
        codec::from_slice(bytes).map_err(|error| LossListError::Malformed(error.to_string()))
    }

    /// Whether these are the versions that were signed.
    pub fn is_whole(&self) -> bool {
        self.statement.count == self.versions.len() as u64
            && self.statement.versions == hash_of(&self.versions)
    }

    /// Checks the versions and that as many of the control plane's voters signed as must.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, signers: &Signers) -> Result<(), LossListError> {
        signers.check(&self.statement, self.statement.at, &self.signatures)?;
        if self.is_whole() { Ok(()) } else { Err(LossListError::Versions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deletion::SignerTerm;
    use crate::ids::{Lsn, VersionId};
    use crate::message::loss::LostKind;
    use crate::sign::Signatory;

    #[test]
    fn a_list_verifies_offline_and_no_changed_byte_does() {
        let signatory = Signatory::from_secret(&[1; 32]);
        let lost = |version| LostVersion {
            version: VersionId([version; 16]),
            lsn: Lsn(9),
            kind: LostKind::Put,
            bytes: 100,
            at: CpTime(5),
            committed: true,
        };
        let versions = vec![lost(1), lost(2)];
        let statement = LossStatement {
            cluster: "dev".into(),
            tenant: TenantId(1),
            volume: VolumeId(2),
            epoch: Epoch(3),
            accepted_at: CpTime(40),
            operators: vec!["ann".parse().unwrap(), "bob".parse().unwrap()],
            unknown_since: None,
            account: Some((5, 500)),
            stores: Vec::new(),
            count: 2,
            versions: hash_of(&versions),
            unlisted: 0,
            at: CpTime(60),
        };
        let signatures = vec![signatory.sign(&statement)];
        let signers = Signers { terms: vec![SignerTerm::founding(signatory.public())] };
        let list = SignedLossList { statement, signatures, versions };
        list.verify(&signers).unwrap();
        let bytes = list.to_bytes();
        for position in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[position] ^= 1;
            let read = SignedLossList::from_bytes(&changed);
            assert!(read.is_err() || read.unwrap().verify(&signers).is_err(), "byte {position}");
        }
        let shorter = SignedLossList { versions: list.versions[..1].to_vec(), ..list };
        assert_eq!(shorter.verify(&signers), Err(LossListError::Versions));
    }
}
