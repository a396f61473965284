//! The debt of a data centre: how long it may go without complete copies of what another one has. Nodes repair
//! by force after it, and `status` says so.

use std::time::Duration;

/// However little it is.
const AT_LEAST: Duration = Duration::from_secs(60);
/// A quarter of an hour for 100 GB.
const NANOS_PER_BYTE: u64 = 9;

/// After how long the debt of so many bytes is overdue.
pub fn deadline(bytes: u64) -> Duration {
    AT_LEAST.max(Duration::from_nanos(bytes.saturating_mul(NANOS_PER_BYTE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r050_a_hundred_gigabytes_are_due_after_a_quarter_of_an_hour() {
        assert_eq!(deadline(100_000_000_000), Duration::from_secs(900));
        assert_eq!(deadline(1), AT_LEAST);
        assert_eq!(deadline(u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
