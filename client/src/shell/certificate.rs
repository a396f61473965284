//! Deletion certificates, checked without a cluster: the bytes, and the public keys that must stand
//! behind them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trefoil_protocol::deletion::{CertificateError, SignedCertificate, Signers};
use trefoil_protocol::ids::PublicKey;

/// The public keys of the control plane: what a certificate is checked against.
///
/// ```
/// # use trefoil_client::Trust;
/// # use trefoil_protocol::ids::PublicKey;
/// let trust = Trust { cluster: "dev".into(), placement_keys: [PublicKey([7; 32])].into(), signers: 1 };
/// assert_eq!(Trust::parse(&trust.to_toml(), "trust.toml".as_ref()).unwrap(), trust);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The cluster whose certificates these keys sign.
    pub cluster: String,
    /// The keys.
    pub placement_keys: BTreeSet<PublicKey>,
    /// How many of them must have signed.
    pub signers: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    cluster: String,
    placement_keys: Vec<String>,
    #[serde(default = "one")]
    signers: u32,
}

fn one() -> u32 {
    1
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
        error: trefoil_protocol::ids::InvalidId,
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
        let keys = file.placement_keys.iter().map(|key| key.parse()).collect::<Result<_, _>>();
        let placement_keys = keys.map_err(|error| TrustFileError::Key { path: path.to_owned(), error })?;
        Ok(Self { cluster: file.cluster, placement_keys, signers: file.signers })
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let keys = self.placement_keys.iter().map(PublicKey::to_string).collect();
        let file = TrustFile { cluster: self.cluster.clone(), placement_keys: keys, signers: self.signers };
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
/// # let trust = Trust { cluster: "dev".into(), placement_keys: Default::default(), signers: 1 };
/// assert!(verify_certificate(b"not a certificate", &trust).is_err());
/// ```
pub fn verify_certificate(bytes: &[u8], trust: &Trust) -> Result<SignedCertificate, CertificateError> {
    let signed = SignedCertificate::from_bytes(bytes)?;
    let keys = trust.placement_keys.iter().copied().collect();
    signed.verify(&Signers { keys, needed: trust.signers })?;
    if signed.certificate.cluster != trust.cluster {
        return Err(CertificateError::Malformed(format!(
            "it is of cluster `{}`, the trust file of `{}`",
            signed.certificate.cluster, trust.cluster
        )));
    }
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::deletion::{
        DeletionCertificate, EraseReceipt, SignedEraseReceipt, StoreKeyStatement,
    };
    use trefoil_protocol::ids::{Hash, Lsn, OrderId, PrincipalId, StoreId, TenantId, VersionId, VolumeId};
    use trefoil_protocol::sign::Signatory;
    use trefoil_protocol::time::{CpTime, Millis};

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
        let trust = Trust { cluster: "dev".into(), placement_keys: [placement.public()].into(), signers: 1 };
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
        let stranger = Trust { placement_keys: [PublicKey([9; 32])].into(), ..trust.clone() };
        assert!(verify_certificate(&bytes, &stranger).is_err());
        let elsewhere = Trust { cluster: "production".into(), ..trust };
        assert!(verify_certificate(&bytes, &elsewhere).unwrap_err().to_string().contains("production"));
    }

    #[test]
    fn a_trust_file_with_an_unknown_key_or_a_bad_key_is_refused_with_its_place() {
        let error = |text: &str| Trust::parse(text, "trust.toml".as_ref()).unwrap_err().to_string();
        assert!(error("cluster = \"dev\"\nplacement_key = []\n").contains("line 2"));
        assert!(error("cluster = \"dev\"\nplacement_keys = [\"zz\"]\n").contains("zz"));
    }
}
