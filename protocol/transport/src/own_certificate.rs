//! The certificate this process shows, replaceable while connections live.
//!
//! New handshakes use the newest certificate; connections that already stand keep going.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::provider;

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// The text holds no PEM certificate.
    #[error("certificate chain: expected at least one PEM certificate")]
    NoCertificate,
    /// The text holds no PEM private key.
    #[error("private key: expected one PEM key")]
    NoKey,
    /// The key is of no usable kind or does not belong to the certificate.
    #[error("private key does not fit the certificate: {0}")]
    Mismatch(#[from] rustls::Error),
}

/// The certificate chain and key this process shows to peers.
pub struct OwnCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl OwnCertificate {
    /// Takes a chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// When either is missing or the two do not belong together.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Arc<Self>, OwnCertificateError> {
        Ok(Arc::new(Self { current: RwLock::new(parse(chain_pem, key_pem)?) }))
    }

    /// Shows another certificate from the next handshake on. On an error the old one stays.
    ///
    /// # Errors
    /// As [`OwnCertificate::from_pem`].
    pub fn replace(&self, chain_pem: &str, key_pem: &str) -> Result<(), OwnCertificateError> {
        let renewed = parse(chain_pem, key_pem)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        // The lock guards one pointer, which no panic can leave half written.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn parse(chain_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, OwnCertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| OwnCertificateError::NoCertificate)?;
    if chain.is_empty() {
        return Err(OwnCertificateError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| OwnCertificateError::NoKey)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider())?))
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("OwnCertificate")
    }
}
