//! The log of a store in the model: up to sixteen records of a byte each, in one number.

use std::fmt;

use super::OBJECTS;

/// A log holds no more than this.
pub(crate) const RECORDS_MAX: usize = 16;

/// What happened to one object, as bits in the order in which they can happen.
pub(crate) mod step {
    /// It was put.
    pub(crate) const PUT: u8 = 1;
    /// Its first tombstone.
    pub(crate) const DELETE: u8 = 2;
    /// That tombstone was taken back.
    pub(crate) const UNDELETE: u8 = 4;
    /// Its second tombstone.
    pub(crate) const DELETE_AGAIN: u8 = 8;
    /// The point of no return.
    pub(crate) const PURGING: u8 = 16;
    /// All but the retained store have erased.
    pub(crate) const OTHERS_ERASED: u8 = 32;
    /// It is proven gone.
    pub(crate) const CERTIFIED: u8 = 64;
}

/// A record without its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The first record of an epoch.
    EpochStart,
    /// A step of an object; a purge names the store that erases last.
    Step {
        /// Which object.
        object: usize,
        /// Which step.
        step: u8,
        /// Of a purge: who erases last.
        retained: usize,
    },
}

const KINDS: u8 = 10;

/// A record: three bits of epoch, five of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record(u8);

impl Record {
    /// A record of an epoch.
    #[must_use]
    pub(crate) fn new(epoch: u8, body: Body) -> Self {
        let code = match body {
            Body::EpochStart => 1,
            Body::Step { object, step, retained } => {
                let kind = match step {
                    step::PURGING => 4 + retained as u8,
                    step::OTHERS_ERASED => 8,
                    step::CERTIFIED => 9,
                    _ => step.trailing_zeros() as u8,
                };
                2 + object as u8 * KINDS + kind
            }
        };
        Self(epoch << 5 | code)
    }

    /// The epoch that ordered it.
    #[must_use]
    pub(crate) fn epoch(self) -> u8 {
        self.0 >> 5
    }

    /// What it says.
    #[must_use]
    pub(crate) fn body(self) -> Body {
        let code = self.0 & 31;
        if code == 1 {
            return Body::EpochStart;
        }
        let (object, kind) = (usize::from((code - 2) / KINDS), (code - 2) % KINDS);
        let (step, retained) = match kind {
            4..8 => (step::PURGING, usize::from(kind - 4)),
            8 => (step::OTHERS_ERASED, 0),
            9 => (step::CERTIFIED, 0),
            _ => (1 << kind, 0),
        };
        Body::Step { object, step, retained }
    }
}

/// Records in their order, the oldest in the lowest byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log(u128);

impl Log {
    /// How many records.
    #[must_use]
    pub(crate) fn len(self) -> usize {
        RECORDS_MAX - self.0.leading_zeros() as usize / 8
    }

    /// Whether nothing more fits.
    #[must_use]
    pub(crate) fn is_full(self) -> bool {
        self.len() == RECORDS_MAX
    }

    /// With one more record.
    #[must_use]
    pub(crate) fn with(self, record: Record) -> Self {
        Self(self.0 | u128::from(record.0) << (8 * self.len()))
    }

    /// The first `length` records.
    #[must_use]
    pub(crate) fn prefix(self, length: usize) -> Self {
        if length >= RECORDS_MAX { self } else { Self(self.0 & ((1 << (8 * length)) - 1)) }
    }

    /// How many records both begin with.
    #[must_use]
    pub(crate) fn shared(self, other: Self) -> usize {
        let parted = (self.0 ^ other.0).trailing_zeros() as usize / 8;
        parted.min(self.len()).min(other.len())
    }

    /// The records.
    pub(crate) fn records(self) -> impl Iterator<Item = Record> {
        self.0.to_le_bytes().into_iter().take(self.len()).map(Record)
    }

    /// The epoch of the last record.
    #[must_use]
    pub(crate) fn last_epoch(self) -> u8 {
        self.records().last().map_or(0, Record::epoch)
    }

    /// What became of an object.
    #[must_use]
    pub(crate) fn steps(self, object: usize) -> u8 {
        self.records().fold(0, |steps, record| match record.body() {
            Body::Step { object: of, step, .. } if of == object => steps | step,
            _ => steps,
        })
    }

    /// What became of each object.
    #[must_use]
    pub(crate) fn all_steps(self) -> [u8; OBJECTS] {
        std::array::from_fn(|object| self.steps(object))
    }

    /// The store that a purge of the object retains.
    #[must_use]
    pub(crate) fn retained(self, object: usize) -> Option<usize> {
        self.records().find_map(|record| match record.body() {
            Body::Step { object: of, step: step::PURGING, retained } if of == object => Some(retained),
            _ => None,
        })
    }
}

/// Whether an object of which this happened can be read.
#[must_use]
pub(crate) fn is_readable(steps: u8) -> bool {
    steps == step::PUT || steps == step::PUT | step::DELETE | step::UNDELETE
}

/// Whether this can have happened to an object in this order.
#[must_use]
pub(crate) fn is_possible(steps: u8) -> bool {
    let (before, after) = (steps & 15, steps >> 4);
    let deleted = before == 3 || before == 15;
    matches!(before, 0 | 1 | 3 | 7 | 15) && (after == 0 || deleted && matches!(after, 1 | 3 | 7))
}

/// The word for a step.
#[must_use]
pub(crate) fn name(step: u8) -> &'static str {
    match step {
        step::PUT => "put",
        step::DELETE => "delete",
        step::UNDELETE => "undelete",
        step::DELETE_AGAIN => "second delete",
        step::PURGING => "PURGING",
        step::OTHERS_ERASED => "OTHERS_ERASED",
        _ => "CERTIFIED",
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.body() {
            Body::EpochStart => write!(f, "start of epoch {}", self.epoch()),
            Body::Step { object, step, .. } => {
                write!(f, "{} of {} in epoch {}", name(step), super::object(object), self.epoch())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_back_what_was_put_in() {
        let purging = Body::Step { object: 1, step: step::PURGING, retained: 3 };
        let put = Body::Step { object: 0, step: step::PUT, retained: 0 };
        let log = Log::default().with(Record::new(1, put)).with(Record::new(7, purging));
        let bodies: Vec<(u8, Body)> = log.records().map(|r| (r.epoch(), r.body())).collect();
        assert_eq!(bodies, [(1, put), (7, purging)]);
        assert_eq!((log.len(), log.last_epoch(), log.retained(1), log.retained(0)), (2, 7, Some(3), None));
        let other = log.prefix(1).with(Record::new(2, Body::EpochStart));
        assert_eq!((log.shared(other), log.shared(log), other.steps(0)), (1, 2, step::PUT));
    }

    #[test]
    fn a_log_may_be_full() {
        let start = Record::new(7, Body::EpochStart);
        let full = (0..RECORDS_MAX).fold(Log::default(), |log, _| log.with(start));
        assert!(full.is_full() && full.prefix(RECORDS_MAX) == full && full.shared(full) == RECORDS_MAX);
    }

    #[test]
    fn an_undeleted_object_is_not_purged_before_it_is_deleted_again() {
        assert!(is_possible(3 | step::PURGING) && is_possible(15 | step::PURGING));
        assert!(!is_possible(7 | step::PURGING) && !is_possible(3 | step::OTHERS_ERASED));
    }
}
