//! Lengths of time as people write them: a whole number and a unit, `250ms`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nanoseconds of a microsecond.
pub const MICROSECOND: u64 = 1_000;

/// Nanoseconds of a millisecond.
pub const MILLISECOND: u64 = 1_000 * MICROSECOND;

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// The units, the longest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLISECOND),
    ("us", MICROSECOND),
    ("ns", 1),
];

/// A length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(
    /// Nanoseconds.
    pub u64,
);

/// What is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a length of time; write a whole number and one of h, m, s, ms, us, ns")]
pub struct NoDuration {
    text: String,
}

impl std::str::FromStr for Duration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<Self, NoDuration> {
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = UNITS.iter().find(|(name, _)| *name == &text[digits.len()..]);
        let number: Option<u64> = digits.parse().ok();
        let nanoseconds = unit.zip(number).and_then(|((_, unit), number)| number.checked_mul(*unit));
        nanoseconds.map(Self).ok_or_else(|| NoDuration { text: text.to_owned() })
    }
}

impl TryFrom<String> for Duration {
    type Error = NoDuration;

    fn try_from(text: String) -> Result<Self, NoDuration> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        let (name, unit) = exact.unwrap_or(&("s", 1_000_000_000));
        write!(formatter, "{}{name}", self.0 / unit)
    }
}

/// A moment, printed as seconds with nine digits, so that lines sort.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(
    /// Nanoseconds.
    pub u64,
);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:5}.{:09}", self.0 / SECOND, self.0 % SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn what_is_written_is_read_again() {
        for nanoseconds in [0, 1, 999, 1_500, 3_000_000_000, 90_000_000_000, 7_200_000_000_000] {
            let text = Duration(nanoseconds).to_string();
            assert_eq!(text.parse(), Ok(Duration(nanoseconds)), "{text}");
        }
        for text in ["", "3", "s", "3 s", "-3s", "3x", "99999999999999h"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
