//! What is said on the wire, by plane: tenants to nodes ([`tenant`]), nodes to each other
//! ([`peer`]), nodes to the control plane ([`control`], [`holdings`], [`loss`]), its voters to each other
//! ([`voter`]), operators to the control plane ([`admin`],
//! [`plan`], [`approval`], [`refused`]).
//!
//! A message is a CBOR body in a frame; bulk bytes (sealed payload, encoded records) ride behind the
//! body uncopied. Nobody believes a tenant or a node id in a message: both come from the
//! certificate of the connection.

pub mod admin;
pub mod approval;
pub mod control;
pub mod holdings;
pub mod load;
pub mod loss;
pub mod peer;
pub mod plan;
pub mod refused;
mod rules;
pub mod tenant;
pub mod traffic;
pub mod voter;

/// The longest reason that a refusal may give, in bytes.
pub const REASON_MAX: usize = 4096;
