//! Decides whether a peer's certificate is believed, and mints the proof of who it is.
//!
//! Every refusal looks the same from outside: one TLS alert and one reason text, whatever was
//! wrong. The true reason is logged here and nowhere else; it must never reach the peer.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::identity::{Identity, IdentityError};
use crate::leaf::{Leaf, LeafError};
use crate::plane::Plane;
use crate::tls::provider;
use crate::trust::TrustStore;

/// 1.3.6.1.5.5.7.3.1, TLS server authentication.
const SERVER_PURPOSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// 1.3.6.1.5.5.7.3.2, TLS client authentication.
const CLIENT_PURPOSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Proof that the peer of a connection showed, in its handshake, a certificate of this identity
/// that was believed. Only this file can make one.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    identity: Identity,
    serial: Arc<[u8]>,
}

impl PeerIdentity {
    /// Who the peer is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The serial number of the certificate the peer showed, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The serial number in hexadecimal, as connection records print it.
    pub fn serial_hex(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Mints the proof from the certificates of a completed handshake on `plane`.
    ///
    /// The verifiers below ran during that handshake, so only what they could not know is checked
    /// here: that a peer of this role may stand at the `remote` end of this plane.
    pub(crate) fn mint(
        certificates: &[CertificateDer<'_>],
        trust: &TrustStore,
        plane: Plane,
        remote: RemoteEnd,
    ) -> Result<Self, RefusalReason> {
        let leaf = certificates.first().ok_or(RefusalReason::NoCertificate)?;
        let identity = identity_of(leaf, trust)?;
        remote.check(plane, identity)?;
        let serial = EndEntityCert::try_from(leaf).map_err(RefusalReason::Chain)?.serial().into();
        Ok(Self { identity, serial })
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PeerIdentity({}, serial {})", self.identity, self.serial_hex())
    }
}

/// Which end of a connection the peer stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteEnd {
    /// The peer opened the connection.
    Client,
    /// The peer answered it.
    Server,
}

impl RemoteEnd {
    fn purpose(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::required(CLIENT_PURPOSE),
            Self::Server => KeyUsage::required(SERVER_PURPOSE),
        }
    }

    fn check(self, plane: Plane, identity: Identity) -> Result<(), RefusalReason> {
        let allowed = match self {
            Self::Client => plane.admits(identity.role()),
            Self::Server => plane.is_served_by(identity.role()),
        };
        if allowed {
            return Ok(());
        }
        Err(RefusalReason::Plane { identity, plane })
    }
}

/// Why a peer was refused: for the local log only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusalReason {
    #[error("no certificate")]
    NoCertificate,
    #[error("no plane was agreed")]
    NoPlane,
    #[error("certificate is not believed: {0}")]
    Chain(webpki::Error),
    #[error(transparent)]
    Unreadable(#[from] LeafError),
    #[error("certificate carries {got} URI names, expected exactly one")]
    UriCount { got: usize },
    #[error("the URI name is not text")]
    UriText,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("key usage does not allow digital signatures")]
    KeyUsage,
    #[error("{0} is refused")]
    Deactivated(Identity),
    #[error("{identity} has no place on this end of the {plane} plane")]
    Plane { identity: Identity, plane: Plane },
    #[error("the peer is {got}, expected {expected}")]
    Unexpected { got: Identity, expected: Identity },
    #[error("the handshake's signature is wrong")]
    Signature,
}

/// The one error every refusal turns into: alert `access_denied`, one reason text.
pub(crate) fn refusal() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// Logs why, and forgets it.
pub(crate) fn refuse(reason: &RefusalReason) -> rustls::Error {
    tracing::warn!(%reason, "peer refused");
    refusal()
}

/// Whom a certificate names that a client could have shown at that time; or why it is not believed.
pub(crate) fn believed(
    trust: &TrustStore,
    leaf: &CertificateDer<'_>,
    at: UnixTime,
) -> Result<Identity, String> {
    examine(trust, leaf, &[], at, RemoteEnd::Client).map_err(|reason| reason.to_string())
}

/// Everything a certificate must satisfy whatever the plane.
fn examine(
    trust: &TrustStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    remote: RemoteEnd,
) -> Result<Identity, RefusalReason> {
    let state = trust.current();
    let algorithms = provider().signature_verification_algorithms.all;
    // Checks encoding, chain, signatures, validity, purpose, unknown critical extensions, and
    // that the leaf is not an authority.
    EndEntityCert::try_from(leaf)
        .map_err(RefusalReason::Chain)?
        .verify_for_usage(algorithms, &state.roots, intermediates, now, remote.purpose(), None, None)
        .map_err(RefusalReason::Chain)?;
    let identity = identity_of(leaf, trust)?;
    if state.refused.contains(&identity) {
        return Err(RefusalReason::Deactivated(identity));
    }
    Ok(identity)
}

fn identity_of(leaf: &CertificateDer<'_>, trust: &TrustStore) -> Result<Identity, RefusalReason> {
    let leaf = Leaf::read(leaf)?;
    if !leaf.may_sign {
        return Err(RefusalReason::KeyUsage);
    }
    let [uri] = leaf.uris.as_slice() else {
        return Err(RefusalReason::UriCount { got: leaf.uris.len() });
    };
    let uri = str::from_utf8(uri).map_err(|_| RefusalReason::UriText)?;
    Ok(Identity::from_uri(uri, trust.cluster())?)
}

/// What both ends ask of a handshake's signature: TLS 1.3, and that it is right.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _leaf: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(refuse(&RefusalReason::Signature))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &provider().signature_verification_algorithms;
            verify_tls13_signature(message, leaf, signature, algorithms)
                .map_err(|_| refuse(&RefusalReason::Signature))
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// A listener's check of those who connect. The plane is checked once it is known
/// ([`crate::admission`]).
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) trust: Arc<TrustStore>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        examine(&self.trust, leaf, intermediates, now, RemoteEnd::Client)
            .map(|_| ClientCertVerified::assertion())
            .map_err(|reason| refuse(&reason))
    }

    signatures!();
}

/// A client's check of the one it connects to.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) plane: Plane,
    /// Who must answer; `None` accepts everyone who may serve the plane.
    pub(crate) expected: Option<Identity>,
}

impl ServerVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RefusalReason> {
        let got = examine(&self.trust, leaf, intermediates, now, RemoteEnd::Server)?;
        RemoteEnd::Server.check(self.plane, got)?;
        match self.expected {
            Some(expected) if expected != got => Err(RefusalReason::Unexpected { got, expected }),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|reason| refuse(&reason))
    }

    signatures!();
}
