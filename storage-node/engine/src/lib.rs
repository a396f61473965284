//! The disk: segments, index, key bag, recovery, erase, scrub. Synchronous and generic over
//! [`Disk`]; it knows no network and no clock.
//!
//! A [`Store`] holds the logs of many volumes, each in its own directory. Appending only stages; a
//! [`SyncJob`] makes durable on whatever thread runs it.

pub mod bag;
pub mod conformance;
pub mod create;
pub mod disk;
pub mod erase;
pub mod find;
pub mod frame;
pub mod health;
pub mod index;
pub mod payload;
pub mod probe;
pub mod read;
pub mod recovery;
mod scan;
pub mod scrub;
pub mod scrub_job;
pub mod segment;
mod state;
pub mod store;
pub mod superblock;
pub mod sync;
pub mod verify;
pub mod volume;
pub mod wipe;

pub use bag::{BagEntry, BagError, KeyBag, Rotated, RotationJob};
pub use create::CreateJob;
pub use disk::{Disk, DiskError, DiskFile};
pub use erase::{EraseError, EraseJob, EraseReport, ErasedRange};
pub use find::FoundBytes;
pub use frame::{Owner, Position};
pub use health::{Health, SyncError};
pub use index::Index;
pub use payload::PayloadState;
pub use probe::{ProbeError, ProbeJob};
pub use read::{ReadError, ReadJob};
pub use recovery::{OpenError, RecoveryReport, Tail};
pub use scan::ScanError;
pub use scrub::{RepairError, Scrub, ScrubError, ScrubFault, ScrubReport};
pub use scrub_job::{ScrubJob, Scrubbed};
pub use segment::SegmentLayout;
pub use state::{EraseTarget, RecordFault};
pub use store::{Store, StoreError, StoreState, Volume, VolumeSecrets};
pub use sync::{SyncJob, SyncTicket};
pub use verify::{VerifyError, VerifyJob};
pub use volume::{LogIdentity, RecordReadError, StageError, VolumeLog};
pub use wipe::{WipeError, WipeJob};
