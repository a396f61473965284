//! Planned changes of a volume's primary: the present one is asked to let what is under way end, and
//! when it says that it has stopped, the next configuration follows at once. Nothing is final before
//! that is committed; a handover that takes too long is called off and tried again later.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::ids::{Epoch, StoreId, VolumeId};
use trefoil_protocol::time::{BootTime, Millis};

use crate::state::{Command, VolumeRecord};

/// The primary waits for uploads at most half a minute; whatever takes longer than that and the switch
/// itself is called off.
const PATIENCE: Duration = Duration::from_secs(35);
/// A handover that was called off is tried again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A primary that could not switch works on before it stops again: what it says of one stop differs by less.
const SAME_STOP: Duration = Duration::from_secs(2);

/// A slow primary gets so long; then its leases are waited out, as after a loss.
const PATIENCE_WITH_SLOW: Duration = Duration::from_secs(6);

/// How long a handover may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// All is well: uploads end first.
    None,
    /// The primary is slow.
    Slow,
}

impl Haste {
    fn patience(self) -> Duration {
        match self {
            Self::None => PATIENCE,
            Self::Slow => PATIENCE_WITH_SLOW,
        }
    }
}

/// One volume's handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The primary of this epoch was asked.
    Asked { epoch: Epoch, at: BootTime },
    /// It stopped at this time, and the configuration follows.
    Stopped { epoch: Epoch, at: BootTime },
    /// It took too long.
    CalledOff { at: BootTime },
}

/// How the handovers of this leadership went.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    courses: BTreeMap<VolumeId, Course>,
    done: u64,
    longest: Duration,
}

impl Handovers {
    /// The primary said that it has taken nothing for so long.
    pub(crate) fn stopped(&mut self, volume: VolumeId, epoch: Epoch, stopped_for: Millis, now: BootTime) {
        let at = BootTime(now.0.saturating_sub(stopped_for.0.saturating_mul(1_000_000)));
        match self.courses.get(&volume) {
            Some(Course::Stopped { epoch: known, at: said }) if *known == epoch && at < *said + SAME_STOP => {
            }
            _ => drop(self.courses.insert(volume, Course::Stopped { epoch, at })),
        }
    }

    /// The configuration of a volume was activated: the pause is over.
    pub(crate) fn activated(&mut self, volume: VolumeId, epoch: Epoch, now: BootTime) {
        if let Some(Course::Stopped { epoch: former, at }) = self.courses.get(&volume).copied()
            && former < epoch
        {
            self.courses.remove(&volume);
            self.done += 1;
            self.longest = self.longest.max(now.since(at));
        }
    }

    /// How many were finished by this leader, and how long the longest of them kept writers waiting.
    pub(crate) fn measured(&self) -> (u64, Duration) {
        (self.done, self.longest)
    }

    /// Asks the primary to give the volume to `to`, goes on with that, or calls it off.
    pub(crate) fn ask(
        &mut self,
        record: &VolumeRecord,
        to: StoreId,
        haste: Haste,
        now: BootTime,
    ) -> Option<Command> {
        let (volume, epoch) = (record.config.volume, record.config.epoch);
        let course = self.courses.get(&volume).copied();
        if record.config.handover.is_some() {
            let began = match course {
                Some(Course::Asked { epoch: known, at } | Course::Stopped { epoch: known, at })
                    if known == epoch =>
                {
                    at
                }
                // A former leader asked.
                _ => {
                    self.courses.insert(volume, Course::Asked { epoch, at: now });
                    now
                }
            };
            return (now.since(began) >= haste.patience()).then(|| self.call_off(record, now));
        }
        if matches!(course, Some(Course::CalledOff { at }) if now.since(at) < AGAIN_AFTER) {
            return None;
        }
        self.courses.insert(volume, Course::Asked { epoch, at: now });
        Some(Command::HandOver(volume, epoch, Some(to)))
    }

    /// Whether a handover of the volume was called off a moment ago.
    pub(crate) fn was_called_off(&self, volume: VolumeId, now: BootTime) -> bool {
        let course = self.courses.get(&volume);
        matches!(course, Some(Course::CalledOff { at }) if now.since(*at) < AGAIN_AFTER)
    }

    /// The volume stays where it is.
    pub(crate) fn call_off(&mut self, record: &VolumeRecord, now: BootTime) -> Command {
        self.courses.insert(record.config.volume, Course::CalledOff { at: now });
        Command::HandOver(record.config.volume, record.config.epoch, None)
    }
}
