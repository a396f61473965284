//! Deletion certificates and lists of lost versions, checked without a cluster: the bytes, and the public keys that must stand
//! behind them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trefoil_protocol::deletion::{CertificateError, SignedCertificate, SignerTerm, Signers};
use trefoil_protocol::ids::InvalidId;
use trefoil_protocol::loss_list::{LossListError, SignedLossList};
use trefoil_protocol::time::CpTime;

/// The public keys of the control plane: what a certificate is checked against.
///
/// ```
/// # use trefoil_client::Trust;
/// # use trefoil_protocol::ids::PublicKey;
/// # use trefoil_protocol::deletion::SignerTerm;
/// let trust = Trust { cluster: "dev".into(), signers: vec![SignerTerm::founding(PublicKey([7; 32]))] };
/// assert_eq!(Trust::parse(&trust.to_toml(), "trust.toml".as_ref()).unwrap(), trust);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The cluster whose certificates these keys sign.
    pub cluster: String,
    /// Who signs, and signed, with which key and when. Two of those who served at a certificate's date
    /// must have signed it, or the one there was.
    pub signers: Vec<SignerTerm>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    cluster: String,
    signers: Vec<SignerTable>,
}

/// A signer's time of service, in milliseconds of the control plane's clock.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SignerTable {
    key: String,
    #[serde(default)]
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(default)]
    generation: u64,
}

impl SignerTable {
    fn of(term: &SignerTerm) -> Option<Self> {
        let key = term.key?.to_string();
        Some(Self {
            key,
            since_ms: term.since.0,
            until_ms: term.until.map(|until| until.0),
            generation: term.generation,
        })
    }

    fn term(&self) -> Result<SignerTerm, InvalidId> {
        let (since, until) = (CpTime(self.since_ms), self.until_ms.map(CpTime));
        Ok(SignerTerm { key: Some(self.key.parse()?), since, until, generation: self.generation })
    }
}

/// Why a trust file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is not a trust file; the message names the line.
    #[error("{path}: {error}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// One of its keys is none.
    #[error("{path}: {error}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: InvalidId,
    },
}

impl Trust {
    /// Reads a trust file.
    ///
    /// # Errors
    /// When it cannot be read or is not one.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TrustFileError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| TrustFileError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Reads the text of the trust file `path`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        let file: TrustFile = toml::from_str(text)
            .map_err(|error| TrustFileError::Syntax { path: path.to_owned(), error: Box::new(error) })?;
        let signers = file.signers.iter().map(SignerTable::term).collect::<Result<_, _>>();
        let signers = signers.map_err(|error| TrustFileError::Key { path: path.to_owned(), error })?;
        Ok(Self { cluster: file.cluster, signers })
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let signers = self.signers.iter().filter_map(SignerTable::of).collect();
        let file = TrustFile { cluster: self.cluster.clone(), signers };
        toml::to_string(&file).expect("strings and lists of strings are TOML")
    }
}

/// Checks a deletion certificate offline: every signature, every receipt, and that each store that ever
/// held the object gave one.
///
/// # Errors
/// The first thing that does not hold.
///
/// ```
/// # use trefoil_client::{Trust, verify_certificate};
/// # let trust = Trust { cluster: "dev".into(), signers: Vec::new() };
/// assert!(verify_certificate(b"not a certificate", &trust).is_err());
/// ```
pub fn verify_certificate(bytes: &[u8], trust: &Trust) -> Result<SignedCertificate, CertificateError> {
    let signed = SignedCertificate::from_bytes(bytes)?;
    signed.verify(&Signers { terms: trust.signers.clone() })?;
    if signed.certificate.cluster != trust.cluster {
        return Err(CertificateError::Malformed(format!(
            "it is of cluster `{}`, the trust file of `{}`",
            signed.certificate.cluster, trust.cluster
        )));
    }
    Ok(signed)
}

/// Checks a list of lost versions offline: the signatures, and that the versions are those that were signed.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify_loss_list(list: &SignedLossList, trust: &Trust) -> Result<(), LossListError> {
    if list.statement.cluster != trust.cluster {
        return Err(LossListError::Malformed(format!(
            "it is of cluster `{}`, the trust file of `{}`",
            list.statement.cluster, trust.cluster
        )));
    }
    list.verify(&Signers { terms: trust.signers.clone() })
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::deletion::{
        DeletionCertificate, EraseReceipt, SignedEraseReceipt, StoreKeyStatement,
    };
    use trefoil_protocol::ids::{
        Hash, Lsn, OrderId, PrincipalId, PublicKey, StoreId, TenantId, VersionId, VolumeId,
    };
    use trefoil_protocol::sign::Signatory;
    use trefoil_protocol::time::Millis;

    use super::*;

    fn certificate() -> (Vec<u8>, Trust) {
        let (placement, store) = (Signatory::from_secret(&[1; 32]), Signatory::from_secret(&[2; 32]));
        let (tenant, volume, version) = (TenantId(1), VolumeId(2), VersionId([3; 16]));
        let receipt = EraseReceipt {
            order: OrderId(1),
            tenant,
            volume,
            version,
            tombstone: Lsn(9),
            store: StoreId([5; 16]),
            bytes: 100,
            at: CpTime(50),
            bag_generation: 4,
        };
        let statement = StoreKeyStatement {
            store: receipt.store,
            node: "a1".parse().unwrap(),
            dc: "a".parse().unwrap(),
            key: store.public(),
        };
        let certificate = DeletionCertificate {
            format: 1,
            cluster: "dev".into(),
            tenant,
            volume,
            version,
            root: Hash([8; 32]),
            size_class: 128,
            requested_by: PrincipalId(5),
            requested_at: CpTime(10),
            window: Millis(20),
            tombstone: Lsn(9),
            orders: vec![OrderId(1)],
            receipts: vec![SignedEraseReceipt { signature: store.sign(&receipt), receipt }],
            stores: vec![statement],
            exceptions: vec![],
            issued_at: CpTime(60),
            software: "0.1.0".into(),
            signers: 1,
        };
        let trust = Trust { cluster: "dev".into(), signers: vec![SignerTerm::founding(placement.public())] };
        (SignedCertificate::new(certificate, &placement).to_bytes().to_vec(), trust)
    }

    #[test]
    fn r067_a_certificate_verifies_offline_and_no_changed_byte_does() {
        let (bytes, trust) = certificate();
        let trust = Trust::parse(&trust.to_toml(), "trust.toml".as_ref()).unwrap();
        assert_eq!(verify_certificate(&bytes, &trust).unwrap().certificate.version, VersionId([3; 16]));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(verify_certificate(&changed, &trust).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_certificate_of_another_cluster_or_under_other_keys_is_refused() {
        let (bytes, trust) = certificate();
        let stranger = Trust { signers: vec![SignerTerm::founding(PublicKey([9; 32]))], ..trust.clone() };
        assert!(verify_certificate(&bytes, &stranger).is_err());
        let elsewhere = Trust { cluster: "production".into(), ..trust };
        assert!(verify_certificate(&bytes, &elsewhere).unwrap_err().to_string().contains("production"));
    }

    #[test]
    fn a_trust_file_with_an_unknown_key_or_a_bad_key_is_refused_with_its_place() {
        let error = |text: &str| Trust::parse(text, "trust.toml".as_ref()).unwrap_err().to_string();
        assert!(error("cluster = \"dev\"\nsigner = []\n").contains("line 2"));
        assert!(error("cluster = \"dev\"\n[[signers]]\nkey = \"zz\"\n").contains("zz"));
    }
}
