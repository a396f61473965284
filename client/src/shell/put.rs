//! What mutations take and give.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trefoil_protocol::ids::{Lsn, VersionId};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Precondition, PutReceipt};
use trefoil_protocol::time::CpTime;

use crate::seal::{Sealer, padme};

/// An acknowledged put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The name.
    pub key: ObjectKey,
    /// Plaintext bytes.
    pub bytes: u64,
    /// How many attempts to send the bytes it took, from 1.
    pub attempts: u32,
    /// The primary's acknowledgement.
    pub receipt: PutReceipt,
}

/// An acknowledged delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The name.
    pub key: ObjectKey,
    /// The version that is hidden.
    pub version: VersionId,
    /// The tombstone.
    pub tombstone: Lsn,
    /// When it can no longer be undone, in control-plane time.
    pub window_ends: CpTime,
}

/// An acknowledged undelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The name.
    pub key: ObjectKey,
    /// The version that is live again.
    pub version: VersionId,
    /// The record.
    pub lsn: Lsn,
}

/// What to do with the sealed bytes of a source that can be read only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spool {
    /// Keep them until the put is acknowledged: up to 64 MiB in memory, beyond that in an unnamed
    /// temporary file. A broken connection is survived.
    #[default]
    Allowed,
    /// Keep nothing. A broken connection is [`crate::WriteError::Unrepeatable`].
    Forbidden,
}

/// What the length of an object's ciphertext tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// The object's length, to the byte.
    #[default]
    None,
    /// The class of lengths that it belongs to: it is padded to the longest of its class, with at most
    /// 12 % more bytes.
    Padme,
}

impl Padding {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The length that `bytes` of plaintext are padded to.
    pub(super) fn padded(self, bytes: u64) -> u64 {
        match self {
            Self::None => bytes,
            Self::Padme => padme(bytes),
        }
    }

    /// The padding that what was pushed wants.
    pub(super) fn wanted(self, sealer: &Sealer) -> u64 {
        match self {
            Self::None => 0,
            Self::Padme => sealer.padding_wanted(),
        }
    }
}

/// How to put, beyond key and source.
///
/// ```
/// # use trefoil_client::{PutOptions, Spool};
/// # use trefoil_protocol::message::tenant::Precondition;
/// let options = PutOptions { precondition: Precondition::Absent, ..PutOptions::default() }
///     .with_progress(|bytes| eprintln!("{bytes} bytes sealed and sent"));
/// assert_eq!(options.spool, Spool::Allowed);
/// ```
#[derive(Default)]
pub struct PutOptions {
    /// What must be true of the key.
    pub precondition: Precondition,
    /// The tenant's own pairs, sealed with the object: at most 8 KiB in all.
    pub user: BTreeMap<String, String>,
    /// Whether a source that can be read only once is spooled.
    pub spool: Spool,
    /// What its length may tell; `None` leaves that to the profile.
    pub padding: Option<Padding>,
    /// Called with the plaintext bytes sent so far in the current attempt.
    pub progress: Option<Box<dyn FnMut(u64) + Send>>,
}

impl PutOptions {
    /// These options, with `progress` called as bytes are sent.
    #[must_use]
    pub fn with_progress(self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        Self { progress: Some(Box::new(progress)), ..self }
    }
}

impl std::fmt::Debug for PutOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutOptions")
            .field("precondition", &self.precondition)
            .field("spool", &self.spool)
            .field("padding", &self.padding)
            .finish_non_exhaustive()
    }
}
