//! The signed papers of a delete: the order that permits a purge, the receipts of the stores that
//! erased, and the certificate that proves it all offline.
//!
//! An order is a permission, not the point of no return: that is the `Purging` record. Nothing here
//! carries a name, metadata, a plaintext hash or a key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::ids::{
    DcId, Epoch, Hash, Lsn, NodeId, OrderId, PrincipalId, PublicKey, StoreId, TenantId, VersionId, VolumeId,
};
use crate::mutant;
use crate::sign::{Signatory, SignatureError, Signed64, Statement};
use crate::time::{CpTime, Millis};

/// The most versions of one purge: of an order, of a request for one, of its receipts and certificates.
pub const PURGE_ITEMS_MAX: usize = 256;
/// The most stores that one certificate may speak of.
pub const CERTIFIED_STORES_MAX: usize = 256;
/// The most signatures, and the most orders, of one certificate.
pub const SIGNATURES_MAX: usize = 16;

/// One version to be purged, bound to the tombstone that condemned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct PurgeItem {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// The record that hid it; an undelete and a new delete make another one.
    #[n(1)]
    pub tombstone: Lsn,
}

/// The hash that an order carries for its items: blake3 over the sorted items, so that the list can
/// live in the volume's log and the order stay small.
pub fn items_root(items: &[PurgeItem]) -> Hash {
    let sorted: BTreeSet<PurgeItem> = items.iter().copied().collect();
    let mut hasher = blake3::Hasher::new();
    for item in sorted {
        hasher.update(&item.version.0);
        hasher.update(&item.tombstone.0.to_le_bytes());
    }
    Hash(*hasher.finalize().as_bytes())
}

/// The control plane's permission to purge a batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PurgeOrder {
    /// Its number; an order is idempotent by it.
    #[n(0)]
    pub id: OrderId,
    /// The tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// The volume.
    #[n(2)]
    pub volume: VolumeId,
    /// The least epoch under which it is valid.
    #[n(3)]
    pub epoch: Epoch,
    /// How many items it covers.
    #[n(4)]
    pub count: u32,
    /// [`items_root`] of all items.
    #[n(5)]
    pub items: Hash,
    /// Control-plane time at which it was committed.
    #[n(6)]
    pub at: CpTime,
    /// The control plane's restore generation; an order from before a restore is void.
    #[n(7)]
    pub generation: u64,
    /// Which stores it permits to erase.
    #[n(8)]
    pub scope: PurgeScope,
}

impl Statement for PurgeOrder {
    const DOMAIN: &'static str = "purge-order";
}

/// Whom an order permits to erase. Two orders make a whole delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum PurgeScope {
    /// Every store but the retained one.
    #[n(0)]
    Others,
    /// The retained store, at the end of the first copy's retention.
    #[n(1)]
    FirstCopy,
}

/// A signed [`PurgeOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedPurgeOrder {
    /// The order.
    #[n(0)]
    pub order: PurgeOrder,
    /// The control plane's signatures.
    #[cbor(n(1), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub signatures: Vec<Signed64>,
}

impl SignedPurgeOrder {
    /// Signs an order.
    pub fn new(order: PurgeOrder, signatory: &Signatory) -> Self {
        let signatures = vec![signatory.sign(&order)];
        Self { order, signatures }
    }

    /// Checks that as many of the control plane's voters signed as must.
    pub fn verify(&self, signers: &Signers) -> Result<(), SignersError> {
        signers.check(&self.order, self.order.at, &self.signatures)
    }
}

/// How many voters of the control plane stand behind a paper, if so many hold keys.
pub const SIGNATURES_NEEDED: u32 = 2;

/// A voter's time of service as a signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct SignerTerm {
    /// Its key; none if it has not said yet which one it has.
    #[n(0)]
    pub key: Option<PublicKey>,
    /// The first moment, in control-plane time.
    #[n(1)]
    pub since: CpTime,
    /// The last moment, if it is over.
    #[n(2)]
    pub until: Option<CpTime>,
    /// The restore generation of the control plane in which it serves.
    #[n(3)]
    pub generation: u64,
}

impl SignerTerm {
    /// Of somebody who signs from the beginning until further notice.
    pub fn founding(key: PublicKey) -> Self {
        Self { key: Some(key), since: CpTime(0), until: None, generation: 0 }
    }

    fn covers(&self, at: CpTime) -> bool {
        self.since <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// Who signs, and signed, for the control plane: all who vote and may hold keys, and all who did. A
/// paper counts by those who served at its date, so it still does when they have left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Signers {
    /// The terms.
    #[n(0)]
    pub terms: Vec<SignerTerm>,
}

/// Why a paper does not count as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignersError {
    /// A signature is wrong, or nobody's who may sign.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Too few voters signed.
    #[error("signed by {got} of {needed} voters of the control plane")]
    TooFew {
        /// How many signed.
        got: usize,
        /// How many must.
        needed: u32,
    },
}

impl Signers {
    /// How many of those who sign now must sign a paper of this date: two, or the one that there is.
    pub fn needed_at(&self, at: CpTime) -> u32 {
        let newest = self.terms.iter().map(|term| term.generation).max();
        self.needed_of(newest.unwrap_or_default(), at)
    }

    /// How many of one generation must have signed a paper of this date.
    fn needed_of(&self, generation: u64, at: CpTime) -> u32 {
        let served = self.terms.iter().filter(|term| term.generation == generation && term.covers(at));
        mutant!(C04, (served.count() as u32).clamp(1, SIGNATURES_NEEDED), 1)
    }

    /// Whether this key may sign a paper of this date.
    pub fn may_sign(&self, key: &PublicKey, at: CpTime) -> bool {
        self.terms.iter().any(|term| term.key.as_ref() == Some(key) && term.covers(at))
    }

    /// Checks that enough different signers stand behind a paper of this date, and nobody else.
    pub fn check<S: Statement>(
        &self,
        paper: &S,
        at: CpTime,
        signatures: &[Signed64],
    ) -> Result<(), SignersError> {
        self.check_more(paper, at, signatures, 0)
    }

    /// As [`Self::check`]; the paper itself may ask for more signatures, never for fewer.
    fn check_more<S: Statement>(
        &self,
        paper: &S,
        at: CpTime,
        signatures: &[Signed64],
        wanted: u32,
    ) -> Result<(), SignersError> {
        let mut signed = BTreeSet::new();
        for signature in signatures {
            signature.verify(paper, |key| self.may_sign(key, at))?;
            signed.insert(signature.key);
        }
        // A control plane that began anew knows nothing of what the one before signed last: those of one
        // generation stand for each other, and for nobody else.
        let of = |generation: u64| {
            let serves = |key: &&PublicKey| {
                let mut terms = self.terms.iter().filter(|term| term.generation == generation);
                terms.any(|term| term.key.as_ref() == Some(key) && term.covers(at))
            };
            (signed.iter().filter(serves).count(), self.needed_of(generation, at).max(wanted))
        };
        let generations: BTreeSet<u64> = self.terms.iter().map(|term| term.generation).collect();
        let stands = generations.iter().map(|generation| of(*generation)).max_by_key(|(got, _)| *got);
        let (got, needed) = stands.unwrap_or((0, SIGNATURES_NEEDED));
        if got < needed as usize { Err(SignersError::TooFew { got, needed }) } else { Ok(()) }
    }

    /// Checks that somebody who signs, or signed, stands behind a statement of this date.
    pub fn check_one<S: Statement>(
        &self,
        paper: &S,
        at: CpTime,
        signature: &Signed64,
    ) -> Result<(), SignatureError> {
        signature.verify(paper, |key| self.may_sign(key, at))
    }
}

/// A store's statement that it no longer holds a version's bytes or key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EraseReceipt {
    /// The order it obeyed.
    #[n(0)]
    pub order: OrderId,
    /// The tenant.
    #[n(1)]
    pub tenant: TenantId,
    /// The volume.
    #[n(2)]
    pub volume: VolumeId,
    /// The version.
    #[n(3)]
    pub version: VersionId,
    /// The tombstone.
    #[n(4)]
    pub tombstone: Lsn,
    /// The store that erased.
    #[n(5)]
    pub store: StoreId,
    /// Bytes overwritten on it; 0 if it never held any.
    #[n(6)]
    pub bytes: u64,
    /// Control-plane time as the store knew it.
    #[n(7)]
    pub at: CpTime,
    /// Generation of the key bag from which the wrapped key is gone.
    #[n(8)]
    pub bag_generation: u64,
}

impl Statement for EraseReceipt {
    const DOMAIN: &'static str = "erase-receipt";
}

/// A signed [`EraseReceipt`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedEraseReceipt {
    /// The receipt.
    #[n(0)]
    pub receipt: EraseReceipt,
    /// The store's signature.
    #[n(1)]
    pub signature: Signed64,
}

/// Placement's statement of which key a store signs with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoreKeyStatement {
    /// The store.
    #[n(0)]
    pub store: StoreId,
    /// The node that ran it when it registered.
    #[n(1)]
    pub node: NodeId,
    /// Its data centre.
    #[n(2)]
    pub dc: DcId,
    /// Its public key.
    #[n(3)]
    pub key: PublicKey,
}

/// Why a store's receipt is missing although the delete is complete.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PurgeException {
    /// The store.
    #[n(0)]
    pub store: StoreId,
    /// `fenced` or `wiped`.
    #[cbor(n(1), decode_with = "crate::codec::text::<64, _>")]
    pub reason: String,
}

/// The proof that a version is gone everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletionCertificate {
    /// The layout of this certificate; 1.
    #[n(0)]
    pub format: u32,
    /// The cluster.
    #[cbor(n(1), decode_with = "crate::codec::text::<64, _>")]
    pub cluster: String,
    /// The tenant.
    #[n(2)]
    pub tenant: TenantId,
    /// The volume.
    #[n(3)]
    pub volume: VolumeId,
    /// The version that is gone.
    #[n(4)]
    pub version: VersionId,
    /// blake3 of its ciphertext.
    #[n(5)]
    pub root: Hash,
    /// Its ciphertext length rounded up to a power of two.
    #[n(6)]
    pub size_class: u64,
    /// Who deleted it.
    #[n(7)]
    pub requested_by: PrincipalId,
    /// When, in control-plane time.
    #[n(8)]
    pub requested_at: CpTime,
    /// The window during which it could be undeleted.
    #[n(9)]
    pub window: Millis,
    /// The tombstone.
    #[n(10)]
    pub tombstone: Lsn,
    /// The orders obeyed.
    #[cbor(n(11), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub orders: Vec<OrderId>,
    /// One receipt for each store that ever held the volume, but for the exceptions.
    #[cbor(n(12), decode_with = "crate::codec::list::<CERTIFIED_STORES_MAX, _, _>")]
    pub receipts: Vec<SignedEraseReceipt>,
    /// The keys the receipts are signed with.
    #[cbor(n(13), decode_with = "crate::codec::list::<CERTIFIED_STORES_MAX, _, _>")]
    pub stores: Vec<StoreKeyStatement>,
    /// Stores without a receipt, and why.
    #[cbor(n(14), decode_with = "crate::codec::list::<CERTIFIED_STORES_MAX, _, _>")]
    pub exceptions: Vec<PurgeException>,
    /// When it was issued, in control-plane time.
    #[n(15)]
    pub issued_at: CpTime,
    /// The version of Trefoil that issued it.
    #[cbor(n(16), decode_with = "crate::codec::text::<64, _>")]
    pub software: String,
    /// How many control-plane voters stood behind it: 1 in a cluster with one voter.
    #[n(17)]
    pub signers: u32,
}

impl Statement for DeletionCertificate {
    const DOMAIN: &'static str = "deletion-certificate";
}

/// A signed [`DeletionCertificate`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedCertificate {
    /// The certificate.
    #[n(0)]
    pub certificate: DeletionCertificate,
    /// Signatures of the control plane's voters.
    #[cbor(n(1), decode_with = "crate::codec::list::<SIGNATURES_MAX, _, _>")]
    pub signatures: Vec<Signed64>,
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The bytes are no certificate.
    #[error("not a deletion certificate: {0}")]
    Malformed(String),
    /// A layout this version does not know.
    #[error("certificate format {0} is not known to this version")]
    Format(u32),
    /// A signature does not hold.
    #[error("{part}: {error}")]
    Signature {
        /// What is signed.
        part: String,
        /// What is wrong.
        error: SignatureError,
    },
    /// Fewer signatures than the certificate says stand behind it.
    #[error("{got} distinct signatures, {needed} needed")]
    Signers {
        /// Signatures found.
        got: usize,
        /// Signatures needed.
        needed: u32,
    },
    /// A receipt is about something else.
    #[error("the receipt of store {store} is about another {field}")]
    ForeignReceipt {
        /// The store.
        store: StoreId,
        /// The field that differs.
        field: &'static str,
    },
    /// A store neither gave a receipt nor is excepted, or gave two.
    #[error("store {0} has {1} receipts or exceptions, exactly one is needed")]
    Incomplete(StoreId, usize),
}

impl SignedCertificate {
    /// Signs a certificate.
    pub fn new(certificate: DeletionCertificate, signatory: &Signatory) -> Self {
        let signatures = vec![signatory.sign(&certificate)];
        Self { certificate, signatures }
    }

    /// The bytes a tenant keeps in a file.
    pub fn to_bytes(&self) -> Bytes {
        crate::codec::to_vec(self).into()
    }

    /// Reads what [`Self::to_bytes`] wrote; no check of any signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CertificateError> {
        crate::codec::from_slice(bytes).map_err(|error| CertificateError::Malformed(error.to_string()))
    }

    /// Checks everything that can be checked offline: every signature, every receipt's subject,
    /// and that each store named has exactly one receipt or exception.
    pub fn verify(&self, signers: &Signers) -> Result<(), CertificateError> {
        let certificate = &self.certificate;
        if certificate.format != 1 {
            return Err(CertificateError::Format(certificate.format));
        }
        let checked =
            signers.check_more(certificate, certificate.issued_at, &self.signatures, certificate.signers);
        checked.map_err(|error| match error {
            SignersError::Signature(error) => {
                CertificateError::Signature { part: "certificate".into(), error }
            }
            SignersError::TooFew { got, needed } => CertificateError::Signers { got, needed },
        })?;
        certificate.verify_receipts()
    }
}

impl DeletionCertificate {
    fn verify_receipts(&self) -> Result<(), CertificateError> {
        let keys: BTreeMap<StoreId, PublicKey> = self.stores.iter().map(|s| (s.store, s.key)).collect();
        let mut seen: BTreeMap<StoreId, usize> = keys.keys().map(|store| (*store, 0)).collect();
        for signed in &self.receipts {
            let receipt = &signed.receipt;
            self.verify_subject(receipt)?;
            signed.signature.verify(receipt, |key| keys.get(&receipt.store) == Some(key)).map_err(
                |error| CertificateError::Signature {
                    part: format!("receipt of store {}", receipt.store),
                    error,
                },
            )?;
            *seen.entry(receipt.store).or_default() += 1;
        }
        for exception in &self.exceptions {
            *seen.entry(exception.store).or_default() += 1;
        }
        match seen.into_iter().find(|(_, count)| *count != 1) {
            Some((store, count)) => Err(CertificateError::Incomplete(store, count)),
            None => Ok(()),
        }
    }

    fn verify_subject(&self, receipt: &EraseReceipt) -> Result<(), CertificateError> {
        let foreign = |field| Err(CertificateError::ForeignReceipt { store: receipt.store, field });
        if receipt.tenant != self.tenant {
            return foreign("tenant");
        }
        if receipt.volume != self.volume {
            return foreign("volume");
        }
        if receipt.version != self.version {
            return foreign("version");
        }
        if receipt.tombstone != self.tombstone {
            return foreign("tombstone");
        }
        if !self.orders.contains(&receipt.order) {
            return foreign("order");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (SignedCertificate, Signers) {
        let placement = Signatory::from_secret(&[1; 32]);
        let mut stores = Vec::new();
        let mut receipts = Vec::new();
        for n in 2..5u8 {
            let signatory = Signatory::from_secret(&[n; 32]);
            let store = StoreId([n; 16]);
            stores.push(StoreKeyStatement {
                store,
                node: format!("a{n}").parse().unwrap(),
                dc: "a".parse().unwrap(),
                key: signatory.public(),
            });
            let receipt = EraseReceipt {
                order: OrderId(u64::from(n == 4) + 1),
                tenant: TenantId(1),
                volume: VolumeId(2),
                version: VersionId([3; 16]),
                tombstone: Lsn(9),
                store,
                bytes: 100,
                at: CpTime(50),
                bag_generation: 4,
            };
            let signature = signatory.sign(&receipt);
            receipts.push(SignedEraseReceipt { receipt, signature });
        }
        let certificate = DeletionCertificate {
            format: 1,
            cluster: "dev".into(),
            tenant: TenantId(1),
            volume: VolumeId(2),
            version: VersionId([3; 16]),
            root: Hash([8; 32]),
            size_class: 128,
            requested_by: PrincipalId(5),
            requested_at: CpTime(10),
            window: Millis(20),
            tombstone: Lsn(9),
            orders: vec![OrderId(1), OrderId(2)],
            receipts,
            stores,
            exceptions: vec![],
            issued_at: CpTime(60),
            software: "0.1.0".into(),
            signers: 1,
        };
        let signers = Signers { terms: vec![SignerTerm::founding(placement.public())] };
        (SignedCertificate::new(certificate, &placement), signers)
    }

    #[test]
    fn r067_any_changed_byte_of_a_certificate_is_refused() {
        let (signed, trust) = certificate();
        let bytes = signed.to_bytes();
        SignedCertificate::from_bytes(&bytes).unwrap().verify(&trust).unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[position] ^= 1;
            let verdict = SignedCertificate::from_bytes(&changed).and_then(|c| c.verify(&trust));
            assert!(verdict.is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_missing_or_foreign_receipt_is_refused_even_when_the_certificate_is_signed() {
        let placement = Signatory::from_secret(&[1; 32]);
        let (signed, trust) = certificate();
        let mut missing = signed.certificate.clone();
        missing.receipts.pop();
        let mut foreign = signed.certificate.clone();
        foreign.receipts[0].receipt.version = VersionId([4; 16]);
        for doctored in [missing, foreign] {
            assert!(SignedCertificate::new(doctored, &placement).verify(&trust).is_err());
        }
        assert!(signed.verify(&Signers::default()).is_err());
    }

    #[test]
    fn two_sign_and_the_witness_never() {
        // One voter that is not to be trusted cannot sign for two, nor say that one is enough.
        let [one, two] = [1, 9].map(|n| Signatory::from_secret(&[n; 32]));
        let (mut signed, _) = certificate();
        let founding = |signatory: &Signatory| SignerTerm::founding(signatory.public());
        let both = Signers { terms: vec![founding(&one), founding(&two)] };
        let too_few = CertificateError::Signers { got: 1, needed: 2 };
        assert_eq!(signed.verify(&both), Err(too_few.clone()));
        signed.signatures.push(one.sign(&signed.certificate));
        assert_eq!(signed.verify(&both), Err(too_few));
        signed.signatures[1] = two.sign(&signed.certificate);
        signed.verify(&both).unwrap();
        signed.certificate.signers = 2;
        let signed = SignedCertificate::new(signed.certificate, &one);
        let one_is_enough = Signers { terms: vec![founding(&one)] };
        assert_eq!(signed.verify(&one_is_enough), Err(CertificateError::Signers { got: 1, needed: 2 }));
    }

    fn order(at: u64) -> PurgeOrder {
        PurgeOrder {
            id: OrderId(1),
            tenant: TenantId(1),
            volume: VolumeId(2),
            epoch: Epoch(3),
            count: 1,
            items: Hash([4; 32]),
            at: CpTime(at),
            generation: 1,
            scope: PurgeScope::Others,
        }
    }

    #[test]
    fn a_paper_counts_by_who_served_at_its_date() {
        let [one, two, three] = [1, 2, 3].map(|n| Signatory::from_secret(&[n; 32]));
        let term = |signatory: &Signatory, since, until: Option<u64>| SignerTerm {
            key: Some(signatory.public()),
            since: CpTime(since),
            until: until.map(CpTime),
            generation: 0,
        };
        // One alone until 100, then two; the first leaves at 200 when a third has come.
        let terms = vec![term(&one, 0, Some(200)), term(&two, 101, None), term(&three, 150, None)];
        let signers = Signers { terms };
        let holds = |at, by: &[&Signatory]| {
            let order = order(at);
            let signatures: Vec<Signed64> = by.iter().map(|signatory| signatory.sign(&order)).collect();
            signers.check(&order, order.at, &signatures).is_ok()
        };
        assert!(holds(100, &[&one]), "there was one");
        assert!(!holds(101, &[&one]) && holds(101, &[&one, &two]));
        assert!(holds(200, &[&one, &three]), "what was signed in time still counts");
        assert!(!holds(201, &[&one, &two]), "and nothing after");
        assert!(!holds(100, &[&two]), "nor before");
        assert_eq!(signers.needed_at(CpTime(300)), 2);
    }

    #[test]
    fn a_paper_is_signed_by_one_generation() {
        let [one, two, three] = [1, 2, 3].map(|n| Signatory::from_secret(&[n; 32]));
        let again =
            |signatory: &Signatory| SignerTerm { generation: 2, ..SignerTerm::founding(signatory.public()) };
        let founding = |signatory: &Signatory| SignerTerm::founding(signatory.public());
        // Two signed; then the log began anew with one of them, or with a stranger to them.
        for survivor in [&one, &three] {
            let signers = Signers { terms: vec![founding(&one), founding(&two), again(survivor)] };
            let order = order(9);
            let by = |who: &[&Signatory]| {
                let signatures: Vec<Signed64> = who.iter().map(|signatory| signatory.sign(&order)).collect();
                signers.check(&order, order.at, &signatures).is_ok()
            };
            assert!(by(&[&one, &two]), "signed before");
            assert!(by(&[survivor]), "it alone signs now");
            assert!(!by(&[&two]), "half of what was needed before");
            assert_eq!(signers.needed_at(CpTime(9)), 1);
        }
    }
}
