//! Domain types and wire messages: the ground every other crate stands on.

pub mod frame;
pub mod links;
pub mod tree;
