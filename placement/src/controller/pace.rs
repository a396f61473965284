//! How fast copies were made lately: what the expected duration of a plan is reckoned from.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::config::MemberState;
use trefoil_protocol::ids::{StoreId, VolumeId};
use trefoil_protocol::time::BootTime;

use crate::state::VolumeRecord;

/// The copies that this leader saw begin and end.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    began: BTreeMap<(VolumeId, StoreId), BootTime>,
    copies: u64,
    bytes: u64,
    time: Duration,
}

impl Pace {
    /// Takes a look at a volume that holds so many bytes.
    pub(crate) fn look(&mut self, record: &VolumeRecord, bytes: u64, now: BootTime) {
        for member in &record.config.members {
            let key = (record.config.volume, member.store);
            match member.state {
                MemberState::CatchingUp | MemberState::Owing => drop(self.began.entry(key).or_insert(now)),
                MemberState::InSync => {
                    if let Some(began) = self.began.remove(&key) {
                        self.copies += 1;
                        self.bytes += bytes;
                        self.time += now.since(began);
                    }
                }
            }
        }
    }

    /// How long it takes to make so many copies of so many bytes together, some of them at once.
    pub(crate) fn expected(&self, copies: u64, bytes: u64, at_once: u64) -> Option<Duration> {
        let seconds = self.time.as_secs_f64();
        if self.copies == 0 || seconds == 0.0 {
            return None;
        }
        let by_count = copies as f64 * seconds / self.copies as f64;
        let by_bytes = bytes as f64 * seconds / self.bytes.max(1) as f64;
        let longest = if self.bytes == 0 { by_count } else { by_count.max(by_bytes) };
        Some(Duration::from_secs_f64((longest / at_once as f64).min(1e9)))
    }
}
