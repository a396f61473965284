//! The own certificate and the cluster's roots, as files that are looked at again and again: both are
//! replaced while the process runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use trefoil_transport::own_certificate::OwnCertificateError;
use trefoil_transport::trust::TrustError;
use trefoil_transport::{ClusterName, OwnCertificate, TrustStore};
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or its key is none.
    #[error("{path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OwnCertificateError,
    },
    /// The roots are none.
    #[error("{path}: {source}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
}

struct Texts {
    roots: String,
    certificate: String,
    key: Zeroizing<String>,
}

/// Where the identity comes from, and what was made of it.
pub(super) struct IdentityFiles {
    roots: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    texts: Texts,
    own: Arc<OwnCertificate>,
    trust: Arc<TrustStore>,
}

impl IdentityFiles {
    pub(super) fn load(
        roots: &Path,
        certificate: &Path,
        key: &Path,
        cluster: ClusterName,
    ) -> Result<Self, IdentityFileError> {
        let texts = read_all(roots, certificate, key)?;
        let own = OwnCertificate::from_pem(&texts.certificate, &texts.key)
            .map_err(|source| IdentityFileError::Certificate { path: certificate.to_owned(), source })?;
        let trust = TrustStore::from_pem(cluster, &texts.roots)
            .map_err(|source| IdentityFileError::Trust { path: roots.to_owned(), source })?;
        let (roots, certificate, key) = (roots.to_owned(), certificate.to_owned(), key.to_owned());
        Ok(Self { roots, certificate, key, texts, own, trust })
    }

    pub(super) fn own(&self) -> Arc<OwnCertificate> {
        Arc::clone(&self.own)
    }

    pub(super) fn trust(&self) -> Arc<TrustStore> {
        Arc::clone(&self.trust)
    }

    /// Looks at the files for ever and takes over what changed. What cannot be used is logged and
    /// looked at again; what is in use goes on.
    pub(super) async fn keep_fresh(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.look() {
                tracing::warn!(%error, "the new identity is not taken over");
            }
        }
    }

    fn look(&mut self) -> Result<(), IdentityFileError> {
        let texts = read_all(&self.roots, &self.certificate, &self.key)?;
        if texts.roots != self.texts.roots {
            self.trust
                .replace_roots_pem(&texts.roots)
                .map_err(|source| IdentityFileError::Trust { path: self.roots.clone(), source })?;
            tracing::info!("new root certificates are in use");
        }
        if texts.certificate != self.texts.certificate || *texts.key != *self.texts.key {
            self.own.replace(&texts.certificate, &texts.key).map_err(|source| {
                IdentityFileError::Certificate { path: self.certificate.clone(), source }
            })?;
            tracing::info!("a new certificate is in use");
        }
        self.texts = texts;
        Ok(())
    }
}

fn read_all(roots: &Path, certificate: &Path, key: &Path) -> Result<Texts, IdentityFileError> {
    Ok(Texts { roots: read(roots)?, certificate: read(certificate)?, key: Zeroizing::new(read(key)?) })
}

fn read(path: &Path) -> Result<String, IdentityFileError> {
    fs::read_to_string(path).map_err(|source| IdentityFileError::Read { path: path.to_owned(), source })
}
