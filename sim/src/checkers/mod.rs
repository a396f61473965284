//! The checkers: one invariant per file, each with a test that feeds it a doctored history and
//! sees it fire.
//!
//! A checker sees everything, true time and the inside of disks included, and changes nothing. It
//! must never share code with what it checks.

pub mod consensus;
pub mod durable_at_ack;
pub mod epochs;
pub mod erase_is_legal;
pub mod idempotency;
pub mod isolation;
pub mod linearizable;
pub mod liveness;
pub mod no_lost_write;
pub mod no_resurrection;
pub mod single_primary;
pub mod stale_versions;

use std::fmt;

use serde::Serialize;

use crate::trace::Seconds;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The checker that fired; its module's name.
    pub checker: &'static str,
    /// The object, volume or node concerned.
    pub object: String,
    /// True time at which it happened.
    pub at_ns: u64,
    /// What happened, for a reader.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checker, object, at_ns, sentence } = self;
        write!(formatter, "{checker} at{} s on {object}: {sentence}", Seconds(*at_ns))
    }
}
