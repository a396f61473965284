//! The client library: it seals and opens objects, and talks to the stores that keep them.
//!
//! Plaintext and data keys exist in this crate and nowhere else. Its core (everything but the feature `shell`) has no
//! sockets, clocks or randomness of its own, so that the simulator can run it.

pub mod entropy;
pub mod seal;
pub mod secret;
