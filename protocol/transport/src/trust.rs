//! Whom this process believes: the cluster's roots and the identities that are refused.
//!
//! Both change while connections live. A reader always sees one consistent state.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::identity::{ClusterName, Identity};

/// Why a set of roots cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no root certificate: nobody could ever be believed.
    #[error("trust roots: expected at least one certificate")]
    NoRoot,
    /// One of the roots is no certificate.
    #[error("trust root {index}: expected an X.509 version 3 certificate")]
    Root {
        /// Which one, counted from 0.
        index: usize,
    },
}

/// The roots of one cluster and its refused identities.
#[derive(Debug)]
pub struct TrustStore {
    cluster: ClusterName,
    current: RwLock<Arc<Trust>>,
}

/// One consistent state of a [`TrustStore`].
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) roots: Vec<TrustAnchor<'static>>,
    pub(crate) refused: BTreeSet<Identity>,
}

impl TrustStore {
    /// Believes certificates of `cluster` that lead to one of `roots`.
    ///
    /// # Errors
    /// When there is no root or one of them is no certificate.
    pub fn new(cluster: ClusterName, roots: &[CertificateDer<'_>]) -> Result<Arc<Self>, TrustError> {
        let trust = Trust { roots: anchors(roots)?, refused: BTreeSet::new() };
        Ok(Arc::new(Self { cluster, current: RwLock::new(Arc::new(trust)) }))
    }

    /// As [`TrustStore::new`], from one or more PEM certificates.
    ///
    /// # Errors
    /// When there is no root or one of them is no certificate.
    pub fn from_pem(cluster: ClusterName, roots_pem: &str) -> Result<Arc<Self>, TrustError> {
        Self::new(cluster, &certificates(roots_pem)?)
    }

    /// The cluster whose identities are believed.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Believes other roots from the next handshake on; pass old and new ones while they overlap.
    ///
    /// # Errors
    /// When there is no root or one of them is no certificate; the old ones stay.
    pub fn replace_roots_pem(&self, roots_pem: &str) -> Result<(), TrustError> {
        let roots = anchors(&certificates(roots_pem)?)?;
        self.change(|trust| trust.roots = roots);
        Ok(())
    }

    /// Replaces the set of identities that are refused at the handshake. Connections that already
    /// stand are closed by [`crate::Endpoint::close_refused`].
    pub fn refuse_exactly(&self, refused: BTreeSet<Identity>) {
        self.change(|trust| trust.refused = refused);
    }

    /// Whether `identity` is refused now.
    pub fn refuses(&self, identity: &Identity) -> bool {
        self.current().refused.contains(identity)
    }

    pub(crate) fn current(&self) -> Arc<Trust> {
        // The lock guards one pointer, which no panic can leave half written.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Trust)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut current));
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .enumerate()
        .map(|(index, certificate)| certificate.map_err(|_| TrustError::Root { index }))
        .collect()
}

fn anchors(roots: &[CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'static>>, TrustError> {
    if roots.is_empty() {
        return Err(TrustError::NoRoot);
    }
    roots
        .iter()
        .enumerate()
        .map(|(index, root)| {
            webpki::anchor_from_trusted_cert(root)
                .map(|anchor| anchor.to_owned())
                .map_err(|_| TrustError::Root { index })
        })
        .collect()
}
