//! Papers: statements that somebody signs with the key of a certificate, so that others can check later,
//! without a connection, who said so. The certificate must have been valid when the paper says it was
//! signed; whether that moment is true is not proven.

use std::time::Duration;

use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::EndEntityCert;

use crate::identity::Identity;
use crate::tls::provider;
use crate::trust::TrustStore;
use crate::verify::believed;

/// Why nothing can be signed, or a signature is not believed.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// The key cannot sign.
    #[error("the key cannot sign: {0}")]
    Key(#[from] rcgen::Error),
    /// No PEM private key.
    #[error("there is no PEM private key")]
    NoKey,
    /// No certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// Not issued for this cluster by a root that is trusted, or not valid at that time.
    #[error("the signer's certificate is not believed: {0}")]
    Untrusted(String),
    /// The signature is over something else, or by somebody else.
    #[error("the signature does not match what it is said to sign")]
    Mismatch,
}

/// A signature and the certificate of who made it. The private key, which often lies in the same file, is no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signer's certificate, DER.
    pub certificate: Vec<u8>,
    /// The Ed25519 signature.
    pub signature: Vec<u8>,
}

/// Signs a statement with a certificate's key. Statements begin with a word of their own, so that none is taken for
/// another kind or for a handshake.
///
/// # Errors
/// If the certificate or the key cannot be used.
pub fn sign(certificate_pem: &str, key_pem: &str, statement: &[u8]) -> Result<Signed, PaperError> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes());
    let certificate = certificate.map_err(|_| PaperError::Certificate)?.as_ref().to_vec();
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| PaperError::NoKey)?;
    let signature = KeyPair::try_from(&key)?.sign(statement)?;
    Ok(Signed { certificate, signature })
}

/// Who signed a statement, by the certificate that is shown with it, as of `signed_at` (since 1970).
///
/// # Errors
/// If the certificate is not believed or the signature is another's.
pub fn verify(
    signed: &Signed,
    trust: &TrustStore,
    signed_at: Duration,
    statement: &[u8],
) -> Result<Identity, PaperError> {
    let leaf = CertificateDer::from(signed.certificate.as_slice());
    let at = UnixTime::since_unix_epoch(signed_at);
    let identity = believed(trust, &leaf, at).map_err(PaperError::Untrusted)?;
    let end = EndEntityCert::try_from(&leaf).map_err(|_| PaperError::Certificate)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let is_genuine = algorithms
        .iter()
        .any(|algorithm| end.verify_signature(*algorithm, statement, &signed.signature).is_ok());
    if is_genuine { Ok(identity) } else { Err(PaperError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{PaperError, Signed, sign, verify};
    use crate::{Authority, Identity, LEAF_LIFETIME, TrustStore};

    #[test]
    fn a_paper_tells_who_signed_it_and_nothing_else_does() {
        let cluster = "here".parse().unwrap();
        let (authority, stranger) =
            (Authority::create(&cluster).unwrap(), Authority::create(&cluster).unwrap());
        let admin = Identity::operator("admin").unwrap();
        let issued = authority.issue(&admin, LEAF_LIFETIME).unwrap();
        let other = authority.issue(&admin, LEAF_LIFETIME).unwrap();
        let check = |signed: &Signed, authority: &Authority, at: Duration, statement: &[u8]| {
            let trust = TrustStore::from_pem(cluster.clone(), authority.certificate_pem()).unwrap();
            verify(signed, &trust, at, statement)
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // One file often holds both.
        let both = format!("{}{}", issued.certificate_pem, issued.key_pem);
        let signed = sign(&both, &both, b"a word").unwrap();
        assert_eq!(check(&signed, &authority, now, b"a word").unwrap(), admin);
        let of_another = sign(&other.certificate_pem, &issued.key_pem, b"a word").unwrap();
        let cut = Signed { signature: signed.signature[1..].to_vec(), ..signed.clone() };
        for result in [
            check(&signed, &authority, now, b"a sword"),
            check(&of_another, &authority, now, b"a word"),
            check(&cut, &authority, now, b"a word"),
        ] {
            assert!(matches!(result, Err(PaperError::Mismatch)), "{result:?}");
        }
        let nobody = Signed { certificate: b"nothing".to_vec(), ..signed.clone() };
        for result in [
            check(&signed, &stranger, now, b"a word"),
            check(&signed, &authority, now + 2 * LEAF_LIFETIME, b"a word"),
            check(&nobody, &authority, now, b"a word"),
        ] {
            assert!(matches!(result, Err(PaperError::Untrusted(_))), "{result:?}");
        }
        assert!(matches!(sign("", &both, b""), Err(PaperError::Certificate)));
        assert!(matches!(sign(&both, &issued.certificate_pem, b""), Err(PaperError::NoKey)));
    }

    #[test]
    fn what_is_shown_with_a_paper_holds_no_key() {
        let authority = Authority::create(&"here".parse().unwrap()).unwrap();
        let issued = authority.issue(&Identity::operator("admin").unwrap(), LEAF_LIFETIME).unwrap();
        let alone = sign(&issued.certificate_pem, &issued.key_pem, b"a word").unwrap();
        let both = format!("{}{}", issued.key_pem, issued.certificate_pem);
        assert_eq!(sign(&both, &both, b"a word").unwrap(), alone);
    }
}
