//! The control plane: which store holds which volume under which epoch, which deletes may become
//! erasures, and who may have which tenant key.
//!
//! The core is pure and sans-IO: [`Placement::step`] takes an event and the boot clock and returns
//! effects. The shell (feature `shell`) gives it sockets, a disk and a clock; the simulator gives it
//! others. Nothing here ever sees an object's name, content or data key.

pub mod caution;
mod controller;
pub mod custodian;
mod event;
pub mod log;
pub mod log_store;
mod placement;
pub mod raft_log;
mod refounding;
#[cfg(feature = "shell")]
pub mod shell;
pub mod state;

pub use caution::Caution;
pub use event::{Answer, Effect, Event, Request, RequestId};
pub use placement::{Beginning, COMPACT_AFTER, OpenError, Placement, Settings};
pub use refounding::{RefoundError, Refounding, last_known};
