//! What links, disks and clocks may be like, as data: the values that faults set.

use serde::{Deserialize, Serialize};

use crate::duration::{MICROSECOND, MILLISECOND};

/// Which way over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the site that comes first in the alphabet; inside a site, both ways.
    Forth,
    /// Towards it.
    Back,
}

/// How a link behaves while it is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkModel {
    /// Least delay, nanoseconds.
    pub delay_min: u64,
    /// Mean of the exponential part of the delay.
    pub delay_mean: u64,
    /// How often a message meets a spike, per million.
    pub spike_per_million: u32,
    /// Mean length of a spike.
    pub spike_mean: u64,
    /// How often a packet is lost and comes a retransmission later, per million.
    pub late_per_million: u32,
    /// How often a message is lost for good, per million (a stream was reset).
    pub lost_per_million: u32,
    /// How often a message comes twice, per million (a retry of the sender's shell).
    pub twice_per_million: u32,
    /// Bytes per second; 0 means that size costs nothing.
    pub bytes_per_second: u64,
}

impl Default for LinkModel {
    fn default() -> Self {
        Self::inside()
    }
}

impl LinkModel {
    /// A data centre's own network.
    #[must_use]
    pub fn inside() -> Self {
        Self {
            delay_min: 50 * MICROSECOND,
            delay_mean: 50 * MICROSECOND,
            spike_per_million: 100,
            spike_mean: 20 * MILLISECOND,
            late_per_million: 100,
            lost_per_million: 0,
            twice_per_million: 0,
            bytes_per_second: 1_000_000_000,
        }
    }

    /// A line between sites.
    #[must_use]
    pub fn between_sites() -> Self {
        Self { delay_min: 2 * MILLISECOND, delay_mean: 200 * MICROSECOND, ..Self::inside() }
    }
}

/// How long a fault of a disk stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    /// The next matching operation fails, later ones do not.
    Once,
    /// Every matching operation fails until the disk is repaired.
    Sticky,
}

/// A way in which a disk fails. Paths are matched by a pattern in which `*` stands for any characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Reads answer with EIO.
    ReadError,
    /// Writes, allocations and punches answer with EIO; nothing is written.
    WriteError,
    /// Syncs answer with EIO and the dirty pages are dropped, as Linux does.
    SyncError,
    /// Syncs answer that all is well and keep nothing: a lying cache.
    SyncLies,
    /// Writes that need room find none.
    Full,
    /// The power of the whole machine is lost at a write or sync, which does nothing any more.
    PowerLoss,
    /// A write lands 4 KiB further on instead of where it should.
    Misdirect,
}

impl FaultKind {
    /// Its name in plans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadError => "read-error",
            Self::WriteError => "write-error",
            Self::SyncError => "sync-error",
            Self::SyncLies => "sync-lies",
            Self::Full => "full",
            Self::PowerLoss => "power-loss",
            Self::Misdirect => "misdirect",
        }
    }
}

/// Whether the boot clock runs on while the machine is suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuspendedClock {
    /// As `CLOCK_BOOTTIME` promises, and as leases require.
    #[default]
    RunsOn,
    /// A hypervisor that hides the pause from its guest: out of contract.
    Stops,
}
