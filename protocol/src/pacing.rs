//! So many bytes a second, and no more: when the next message may go, and whether it is worth to wait. Messages go
//! whole, so the one after a large one waits longer.

use std::time::Duration;

use crate::time::BootTime;

/// What would wait longer is not taken: by then it was asked for again, perhaps elsewhere.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// A limit in bytes a second, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacing {
    per_second: Option<u64>,
    /// When everything that was let go so far would be through.
    through_at: BootTime,
}

impl Pacing {
    /// Another limit from now on, of at least one byte a second; what was let go under the one before is not held
    /// against it.
    pub fn limit(&mut self, per_second: Option<u64>) {
        let per_second = per_second.map(|limit| limit.max(1));
        if per_second != self.per_second {
            *self = Self { per_second, through_at: BootTime::default() };
        }
    }

    /// A message is to go: after which pause it may, or not at all.
    pub fn turn(&mut self, bytes: u64, now: BootTime) -> Option<Duration> {
        let Some(per_second) = self.per_second else { return Some(Duration::ZERO) };
        let from = self.through_at.max(now);
        let pause = from.since(now);
        if pause > WAIT_MAX {
            return None;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second);
        self.through_at = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(pause)
    }
}

/// What each of `nodes` may have of what a data centre may have, so that all together have that.
pub fn share(per_second: u64, nodes: usize) -> u64 {
    per_second / u64::try_from(nodes.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers 6.5 MB a second for ten seconds, and says what was taken.
    fn taken(pacing: &mut Pacing) -> u64 {
        let offers = (0..1000).map(|tick| BootTime(tick * 10_000_000));
        offers.filter(|now| pacing.turn(65_536, *now).is_some()).count() as u64 * 65_536
    }

    #[test]
    fn as_many_bytes_go_in_a_second_as_are_allowed() {
        let mut pacing = Pacing::default();
        assert_eq!(taken(&mut pacing), 65_536_000, "without a limit, all of it");
        pacing.limit(Some(1_000_000));
        let taken = taken(&mut pacing);
        assert!((9_900_000..=10_400_000).contains(&taken), "{taken} bytes in ten seconds");
    }

    #[test]
    fn what_would_wait_long_is_not_taken_and_nothing_is_owed_under_another_limit() {
        let mut pacing = Pacing::default();
        pacing.limit(Some(1000));
        let begun = BootTime::default();
        assert_eq!(pacing.turn(200, begun), Some(Duration::ZERO));
        assert_eq!(pacing.turn(60_000, begun), Some(Duration::from_millis(200)));
        assert_eq!(pacing.turn(1, begun), None);
        assert_eq!(pacing.turn(60_000, BootTime(61_000_000_000)), Some(Duration::ZERO));
        pacing.limit(Some(2000));
        assert_eq!(pacing.turn(1, BootTime(61_000_000_000)), Some(Duration::ZERO));
    }

    #[test]
    fn shares_add_up_to_no_more_than_the_whole() {
        assert_eq!(share(100, 3), 33);
        assert_eq!(share(100, 0), 100);
    }
}
