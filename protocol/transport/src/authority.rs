//! The certificate authority of a development cluster: makes a root, issues short-lived leaves.
//!
//! Production clusters may bring any authority that issues the same leaves: Ed25519 or ECDSA keys,
//! one URI name, digital signatures, both TLS purposes. The key file is readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::identity::{ClusterName, Identity, trust_domain_prefix};
use crate::leaf::Leaf;

/// How long a leaf lives when nothing else is asked for: the longest that is allowed.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a root lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Certificates begin this long before they are issued, for peers whose clock is behind.
const CLOCK_ALLOWANCE: Duration = Duration::from_secs(60);

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";

/// Why the authority could not be made, kept, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `ca.pem` holds no certificate of this cluster.
    #[error("{path}: expected the root certificate of cluster {cluster}")]
    NotThisCluster {
        /// The file.
        path: PathBuf,
        /// The cluster that was asked for.
        cluster: ClusterName,
    },
    /// Keys or certificates could not be made.
    #[error("certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
}

/// A root certificate and its key.
pub struct Authority {
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf certificate and its key, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

impl Authority {
    /// Makes a new root for `cluster`.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn create(cluster: &ClusterName) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut root = root_parameters(cluster)?;
        (root.not_before, root.not_after) = validity(ROOT_LIFETIME);
        let certificate = root.self_signed(&key)?;
        Ok(Self {
            cluster: cluster.clone(),
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(root, key),
        })
    }

    /// Loads `ca.pem` and `ca.key` from `directory`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the certificate belongs to another cluster.
    pub fn load(directory: &Path, cluster: &ClusterName) -> Result<Self, AuthorityError> {
        let path = directory.join(CERTIFICATE_FILE);
        let certificate_pem = read(&path)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .ok()
            .filter(|certificate| is_root_of(certificate, cluster))
            .ok_or_else(|| AuthorityError::NotThisCluster { path, cluster: cluster.clone() })?;
        let key = KeyPair::from_pem(&read(&directory.join(KEY_FILE))?)?;
        Ok(Self {
            cluster: cluster.clone(),
            certificate,
            certificate_pem,
            // The names in a root follow from the cluster's name alone, so an issuer made anew
            // signs under the subject that is in the file.
            issuer: Issuer::new(root_parameters(cluster)?, key),
        })
    }

    /// Writes `ca.key` (mode 0600) and `ca.pem` into `directory`, which is made if missing.
    ///
    /// # Errors
    /// When a file cannot be written or already exists.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        fs::create_dir_all(directory)
            .map_err(|source| AuthorityError::File { path: directory.to_owned(), source })?;
        // The key first: a certificate without its key would look like a finished authority.
        let key_pem = self.issuer.key().serialize_pem();
        create(&directory.join(KEY_FILE), 0o600, &key_pem)?;
        create(&directory.join(CERTIFICATE_FILE), 0o644, &self.certificate_pem)
    }

    /// Loads the authority kept in `directory`, or makes one and keeps it there.
    ///
    /// # Errors
    /// As [`Authority::load`] and [`Authority::save`].
    pub fn load_or_create(directory: &Path, cluster: &ClusterName) -> Result<Self, AuthorityError> {
        if directory.join(CERTIFICATE_FILE).exists() {
            return Self::load(directory, cluster);
        }
        let authority = Self::create(cluster)?;
        authority.save(directory)?;
        Ok(authority)
    }

    /// Issues a leaf for `identity` that is valid from now for `lifetime`.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn issue(&self, identity: &Identity, lifetime: Duration) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate =
            leaf_parameters(identity, &self.cluster, lifetime)?.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The root certificate, for a trust store.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The root certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
}

fn root_parameters(cluster: &ClusterName) -> Result<CertificateParams, rcgen::Error> {
    let mut root = CertificateParams::default();
    root.distinguished_name = DistinguishedName::new();
    root.distinguished_name.push(DnType::CommonName, format!("Trefoil root {cluster}"));
    root.subject_alt_names = vec![uri_name(trust_domain_prefix(cluster))?];
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(root)
}

fn leaf_parameters(
    identity: &Identity,
    cluster: &ClusterName,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut leaf = CertificateParams::default();
    // The URI is the only name: no second place can disagree with it.
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![uri_name(identity.to_uri(cluster))?];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = validity(lifetime);
    Ok(leaf)
}

fn uri_name(uri: String) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(uri.try_into()?))
}

/// `(not_before, not_after)` of a certificate issued now. The type belongs to a crate that only
/// rcgen needs, hence the unnamed sum with its epoch.
fn validity<T>(lifetime: Duration) -> (T, T)
where
    T: From<SystemTime>,
{
    let now = SystemTime::now();
    (T::from(now - CLOCK_ALLOWANCE), T::from(now + lifetime))
}

fn is_root_of(certificate: &CertificateDer<'_>, cluster: &ClusterName) -> bool {
    let expected = trust_domain_prefix(cluster);
    Leaf::read(certificate).is_ok_and(|root| root.uris == [expected.as_bytes()])
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), AuthorityError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}
