//! How soon and how fast a node does what nobody waits for. Foreground work comes first whatever is
//! said here.

use std::time::Duration;

/// The pace of a node's background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long a wrapped key rides in its record before it moves to the key bag, in the control
    /// plane's time.
    pub keys_move_after: Duration,
    /// So many keys of a volume move at once, however young they are. A bag is written anew as a
    /// whole, so a large one waits for an eighth of its own number.
    pub keys_move_count: usize,
    /// Every durable byte is read and checked once in this time, if a tenth of the disk's time is enough
    /// for it.
    pub scrub_every: Duration,
    /// Bytes a second that repair, backfill and scrub may always do, however little clients do: a fifth of
    /// what a slow disk can.
    pub repair_floor: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            keys_move_after: Duration::from_secs(3600),
            keys_move_count: 1024,
            scrub_every: Duration::from_secs(7 * 24 * 3600),
            repair_floor: 8 << 20,
        }
    }
}
