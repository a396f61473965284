//! The disk: segments, index, key bag, recovery, erase, scrub. Synchronous and generic over
//! [`Disk`]; it knows no network and no clock.

pub mod conformance;
pub mod disk;

pub use disk::{Disk, DiskError, DiskFile};
