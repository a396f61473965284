//! The data plane: volume replication, deletion, backfill, repair.
//!
//! The core is sans-IO: [`Event`]s go in with the time, [`Effect`]s come out. Sockets, clocks, disk
//! threads and randomness stay in the shell, so that the simulator runs the same code.

mod admission;
mod arrivals;
pub mod authorise;
pub mod effect;
pub mod event;
pub mod flushes;
mod lease;
pub mod node;
pub mod outbox;
pub mod pace;
mod probing;
mod quarantine;
mod read_queue;
pub mod retire;
mod scrubbing;
pub mod session;
#[cfg(feature = "shell")]
pub mod shell;
mod statement;
mod statistics;
mod timings;
pub mod view;
pub mod volume;
mod wakeups;
mod work_queue;
mod work_rate;
mod yielding;

pub use effect::{Effect, Fatal, Lane, Notice};
pub use event::{ControlTicket, ControlUnreachable, Event, ReadTicket, RequestId, Spent, VerifiedPrincipal};
pub use node::{NodeCore, StartError};
pub use pace::Pace;
pub use scrubbing::ScrubState;
pub use session::NodeSettings;
pub use work_queue::{Place, WorkQueue};

/// Bytes of one upload that a client may have sent and the core has not yet taken over.
pub const UPLOAD_WINDOW: u64 = 8 << 20;
