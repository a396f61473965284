//! The ground every other crate stands on: identifiers, keys, times, records, configurations, signed
//! papers and messages, with their encodings. Pure: no clock, no randomness, no socket, no file.

pub mod backup;
pub mod codec;
pub mod config;
pub mod debt;
pub mod deletion;
pub mod frame;
pub mod ids;
pub mod key;
pub mod layout;
pub mod leader;
pub mod links;
pub mod loss_list;
pub mod message;
pub mod mutant;
pub mod pacing;
pub mod record;
pub mod sign;
pub mod time;
pub mod tree;
pub mod triple;

pub use triple::Triple;
