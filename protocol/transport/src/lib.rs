//! The only crate that knows QUIC: identities, connections over both links, streams of frames.
//!
//! ```text
//! Authority ─► OwnCertificate ┐
//!              TrustStore ────┴► Endpoint ─► Connection ─► SendStream / RecvStream ─► Frame
//!                                   └──────► PeerLinks (two links, lanes) ⇄ Receiver
//! ```
//!
//! TLS 1.3 with certificates on both ends, one ALPN protocol per plane, no early data, no
//! resumption. Nothing above this crate may see a quinn or rustls type, and nothing in it may
//! interpret a frame's body.
#![allow(clippy::disallowed_methods, reason = "certificates begin at a wall clock's time")]

mod admission;
pub mod authority;
pub mod connection;
pub mod endpoint;
pub mod identity;
pub mod lane;
mod leaf;
pub mod limits;
pub mod own_certificate;
pub mod paper;
pub mod peers;
pub mod plane;
mod probe;
pub mod receiver;
mod socket;
pub mod stream;
mod tls;
pub mod trust;
pub mod verify;

pub use authority::{Authority, Issued, LEAF_LIFETIME};
pub use connection::{AskError, CloseReason, Closed, Connection};
pub use endpoint::{Accepted, BindError, DialError, Endpoint, local_address_for};
pub use identity::{ClusterName, Identity, IdentityError, Role};
pub use lane::Lane;
pub use limits::Limits;
pub use own_certificate::OwnCertificate;
pub use peers::{PeerLinks, PeerPath, SendError};
pub use plane::Plane;
pub use receiver::Receiver;
pub use stream::{Bulk, Frame, ReadFrameError, RecvStream, SendStream, Urgency, WriteFrameError};
pub use trust::TrustStore;
pub use verify::PeerIdentity;
