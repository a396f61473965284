//! The last step of a listener's handshake: the peer's role must fit the plane it asked for.
//!
//! A certificate verifier cannot see the plane, so this wraps the TLS session and looks at both
//! when the handshake is complete, before any stream exists. A peer that does not fit is refused
//! with the very code and text of a bad certificate.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::AlertDescription;
use rustls_pki_types::CertificateDer;

use crate::plane::Plane;
use crate::trust::TrustStore;
use crate::verify::{PeerIdentity, RefusalReason, RemoteEnd, refuse};

/// A listener's handshakes, each ending with the check of role against plane.
pub(crate) struct Admission {
    pub(crate) tls: Arc<QuicServerConfig>,
    pub(crate) trust: Arc<TrustStore>,
}

impl ServerConfig for Admission {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.tls.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.tls.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        Box::new(AdmittingSession {
            inner: Arc::clone(&self.tls).start_session(version, parameters),
            trust: Arc::clone(&self.trust),
            admitted: false,
        })
    }
}

struct AdmittingSession {
    inner: Box<dyn Session>,
    trust: Arc<TrustStore>,
    admitted: bool,
}

impl AdmittingSession {
    fn admit(&self) -> Result<(), RefusalReason> {
        let (plane, certificates) = agreed(self.inner.handshake_data(), self.inner.peer_identity())?;
        PeerIdentity::mint(&certificates, &self.trust, plane, RemoteEnd::Client).map(|_| ())
    }
}

/// The plane and the peer's certificates, out of what QUIC hands over untyped.
pub(crate) fn agreed(
    handshake: Option<Box<dyn Any>>,
    certificates: Option<Box<dyn Any>>,
) -> Result<(Plane, Vec<CertificateDer<'static>>), RefusalReason> {
    let plane = handshake
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| Plane::from_alpn(data.protocol.as_deref()?))
        .ok_or(RefusalReason::NoPlane)?;
    let certificates = certificates
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(RefusalReason::NoCertificate)?;
    Ok((plane, *certificates))
}

/// What QUIC says to a refused peer: the same as rustls makes it say for a bad certificate.
fn refused(reason: &RefusalReason) -> TransportError {
    let error = refuse(reason);
    TransportError {
        code: TransportErrorCode::crypto(AlertDescription::AccessDenied.into()),
        frame: None,
        reason: error.to_string(),
    }
}

impl Session for AdmittingSession {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let ready = self.inner.read_handshake(bytes)?;
        if !self.admitted && !self.inner.is_handshaking() {
            self.admit().map_err(|reason| refused(&reason))?;
            self.admitted = true;
        }
        Ok(ready)
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        // There is no early data on any plane.
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
