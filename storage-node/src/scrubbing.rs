//! The scrub of a node in use: every durable byte of every volume is read once a period, a stretch at a
//! time and one stretch at once. It leaves the disk to others for nine times as long as it took, so
//! that it never has more than a tenth of the disk's time, whatever the period asks for.
//!
//! It only paces and remembers; what was found is taken over by the volume.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_engine::frame::Position;
use trefoil_engine::{Disk, ScrubJob};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::time::BootTime;

use crate::node::Replicas;
use crate::yielding::{self, Claim, Work, Yielding};

/// Bytes of one stretch.
const STRETCH: u64 = 1 << 20;
/// Others have the disk for so many times as long as a stretch took.
const REST: u32 = 9;
/// The period is kept if no more than this many tenths of it are planned.
const PLANNED_TENTHS: u32 = 8;
/// A node without anything to read looks again after this long.
const IDLE: Duration = Duration::from_secs(1);

/// What a node knows of the bytes that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubState {
    /// How long ago the byte that has waited longest for a reading was read or written, as far as this run
    /// knows.
    pub oldest: Duration,
    /// How much damage was found in this run.
    pub faults: u64,
}

/// Where the scrub of a node is.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// The next stretch.
    next: Option<(VolumeId, Position)>,
    under_way: Option<(VolumeId, BootTime)>,
    not_before: BootTime,
    /// When the present reading of each volume began, and when the last whole one did.
    volumes: BTreeMap<VolumeId, Reading>,
    /// Everything damaged that was found in this run.
    found: u64,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Everything on the volume was read since then, or was written since.
    whole_since: BootTime,
    began: BootTime,
}

impl Scrubbing {
    /// The next stretch to read, if it is time for one.
    pub(crate) fn begin<D: Disk>(
        &mut self,
        volumes: &Replicas<D>,
        yielding: &mut Yielding,
        now: BootTime,
    ) -> Option<(VolumeId, ScrubJob<D>)> {
        if self.under_way.is_some() || now < self.not_before {
            return None;
        }
        self.volumes.retain(|volume, _| volumes.contains_key(volume));
        let (first, at) = self.next.take().unwrap_or_default();
        for (volume, replica) in volumes.range(first..) {
            let from = if *volume == first { at } else { Position::default() };
            let reading = self.volumes.entry(*volume).or_insert(Reading { whole_since: now, began: now });
            if from == Position::default() {
                reading.began = now;
            }
            match replica.holding().log().scrub_job(from, STRETCH) {
                Some(job) if !yielding.take(Work::one(job.bytes_max()), Claim::Patient, now) => {
                    self.next = Some((*volume, from));
                    self.not_before = now + yielding::AGAIN_AFTER;
                    return None;
                }
                Some(job) => {
                    self.under_way = Some((*volume, now));
                    return Some((*volume, job));
                }
                None => reading.whole_since = reading.began,
            }
        }
        self.not_before = now + IDLE;
        None
    }

    /// A stretch was read; `held` are the bytes of all volumes together.
    pub(crate) fn read(
        &mut self,
        volume: VolumeId,
        next: Position,
        bytes: u64,
        held: u64,
        period: Duration,
        now: BootTime,
    ) {
        let Some((_, began)) = self.under_way.take() else { return };
        self.next = Some((volume, next));
        let rest = now.since(began) * REST;
        self.not_before = now + rest.max(share_of(period, bytes, held));
    }

    /// The volume went away, or could not be read.
    pub(crate) fn broken_off(&mut self, now: BootTime) {
        self.under_way = None;
        self.not_before = now + IDLE;
    }

    /// Damage was found.
    pub(crate) fn found(&mut self, faults: u64) {
        self.found += faults;
    }

    /// How far it is.
    pub(crate) fn report(&self, now: BootTime) -> ScrubState {
        let oldest = self.volumes.values().map(|reading| reading.whole_since).min();
        ScrubState { oldest: oldest.map_or(Duration::ZERO, |since| now.since(since)), faults: self.found }
    }

    /// When to look again.
    pub(crate) fn next_wakeup(&self) -> Option<BootTime> {
        self.under_way.is_none().then_some(self.not_before)
    }
}

/// The part of the period that these bytes may take.
fn share_of(period: Duration, bytes: u64, held: u64) -> Duration {
    let nanos = period.as_nanos() * u128::from(PLANNED_TENTHS) / 10 * u128::from(bytes);
    Duration::from_nanos(u64::try_from(nanos / u128::from(held.max(bytes).max(1))).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    #[test]
    fn r013_everything_is_read_within_the_period_and_with_a_tenth_of_the_disks_time() {
        let mebibyte = share_of(WEEK, STRETCH, 1 << 40);
        assert!(mebibyte * (1 << 20) < WEEK, "a tebibyte in a week");
        let mut scrubbing = Scrubbing { under_way: Some((VolumeId(1), BootTime(0))), ..Scrubbing::default() };
        let took = Duration::from_millis(700);
        scrubbing.read(VolumeId(1), Position::default(), STRETCH, 1 << 50, WEEK, BootTime(0) + took);
        assert_eq!(scrubbing.next_wakeup(), Some(BootTime(0) + took * 10), "a slow disk is spared");
    }
}
