//! The product on the kernel: the production cores of storage node, placement and client, the
//! production disk engine and the production seal, run, watched and judged.
//!
//! Nothing here may decide anything that a core decides; a second implementation of a rule would
//! only agree with itself.

pub mod client;
pub mod control;
mod links;
mod losses;
pub mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod oracle;
pub mod process;
mod rescue;
pub mod roster;
pub mod rows;
pub mod run;
pub mod scenario;
pub mod seen;
pub mod shrink;
pub mod storage;
mod streams;
pub mod swarm;
pub use trefoil_drill::timeline;
