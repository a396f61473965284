//! Times of the wall clock, in UTC, and the windows in which a drill must not run.

use std::fmt;

use serde::{Deserialize, Serialize};

const DAY: u64 = 86_400;

/// The days of a week, beginning with the day on which 1970 began.
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// A moment of the wall clock: seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallTime(
    /// Seconds.
    pub u64,
);

impl WallTime {
    /// Year, month and day.
    fn date(self) -> (u64, u64, u64) {
        // Years begin in March here, so that the day that leap years add is the last one.
        let days = self.0 / DAY + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        (year_of_era + era * 400 + u64::from(month <= 2), month, day)
    }

    /// `20261122T034512Z`: for names of files.
    #[must_use]
    pub fn compact(self) -> String {
        self.to_string().replace(['-', ':'], "")
    }

    fn weekday(self) -> usize {
        usize::try_from(self.0 / DAY % 7).expect("below seven")
    }

    fn minute_of_day(self) -> u16 {
        u16::try_from(self.0 % DAY / 60).expect("a day has 1440 minutes")
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), second) = (self.date(), self.0 % DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A time in which no drill begins or goes on: on some days of the week, between two times of day, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// `mon`, `sat-sun`, `fri-mon`; every day if left out.
    #[serde(default)]
    days: Days,
    /// It begins, `08:30`.
    from: TimeOfDay,
    /// It has ended; at or before `from`, on the next day.
    until: TimeOfDay,
    /// Why, for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Blackout {
    /// Whether any moment between the two lies in it.
    #[must_use]
    pub fn meets(&self, from: WallTime, until: WallTime) -> bool {
        let mut moment = from;
        loop {
            if self.holds(moment) {
                return true;
            }
            if moment >= until {
                return false;
            }
            moment = WallTime((moment.0 + 60 - moment.0 % 60).min(until.0));
        }
    }

    fn holds(&self, moment: WallTime) -> bool {
        let (minute, today) = (moment.minute_of_day(), moment.weekday());
        let yesterday = (today + 6) % 7;
        let (from, until) = (self.from.0, self.until.0);
        match from < until {
            true => self.days.holds(today) && (from..until).contains(&minute),
            false => self.days.holds(today) && minute >= from || self.days.holds(yesterday) && minute < until,
        }
    }
}

impl fmt::Display for Blackout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { days, from, until, reason } = self;
        write!(formatter, "{} {}-{} UTC", String::from(*days), String::from(*from), String::from(*until))?;
        reason.iter().try_for_each(|reason| write!(formatter, " ({reason})"))
    }
}

/// Days of the week, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Days(usize, usize);

impl Default for Days {
    fn default() -> Self {
        Self(4, 3)
    }
}

impl Days {
    fn holds(self, day: usize) -> bool {
        (day + 7 - self.0) % 7 <= (self.1 + 7 - self.0) % 7
    }
}

/// What are no days.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} are no days of the week; write for example `sat` or `mon-fri`")]
struct NoDays(String);

impl TryFrom<String> for Days {
    type Error = NoDays;

    fn try_from(text: String) -> Result<Self, NoDays> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let day = |name: &str| DAYS.iter().position(|day| *day == name);
        day(first).zip(day(last)).map(|(first, last)| Self(first, last)).ok_or(NoDays(text))
    }
}

impl From<Days> for String {
    fn from(days: Days) -> Self {
        match days {
            Days(first, last) if first == last => DAYS[first].to_owned(),
            Days(first, last) => format!("{}-{}", DAYS[first], DAYS[last]),
        }
    }
}

/// Minutes since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct TimeOfDay(u16);

/// What is no time of day.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no time of day; write for example `08:30`, in UTC")]
struct NoTimeOfDay(String);

impl TryFrom<String> for TimeOfDay {
    type Error = NoTimeOfDay;

    fn try_from(text: String) -> Result<Self, NoTimeOfDay> {
        let parts = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2);
        let numbers = parts.and_then(|(hour, minute)| hour.parse().ok().zip(minute.parse().ok()));
        match numbers {
            Some((hour @ 0..24, minute @ 0..60)) => Ok(Self(hour * 60 + minute)),
            _ => Err(NoTimeOfDay(text)),
        }
    }
}

impl From<TimeOfDay> for String {
    fn from(TimeOfDay(minutes): TimeOfDay) -> Self {
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::{Blackout, DAY, WallTime};

    /// A Sunday.
    const NOON: WallTime = WallTime(1_795_348_800);

    fn blackout(text: &str) -> Blackout {
        toml::from_str(text).expect("a good blackout")
    }

    #[test]
    fn a_moment_has_a_date() {
        assert_eq!(NOON.to_string(), "2026-11-22T12:00:00Z");
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(WallTime(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(NOON.compact(), "20261122T120000Z");
    }

    #[test]
    fn office_hours_are_left_alone_and_sundays_are_not() {
        let office = blackout("days = \"mon-fri\"\nfrom = \"08:00\"\nuntil = \"18:00\"");
        let monday = WallTime(NOON.0 + DAY);
        assert!(!office.meets(NOON, NOON));
        assert!(office.meets(monday, monday));
        let early = WallTime(monday.0 - 5 * 3_600);
        assert!(!office.meets(early, WallTime(early.0 + 1_800)), "over at 7:30");
        assert!(office.meets(early, WallTime(early.0 + 3_700)), "still running at 8:00");
        assert_eq!(office.to_string(), "mon-fri 08:00-18:00 UTC");
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_began() {
        let night = blackout("days = \"sat\"\nfrom = \"22:00\"\nuntil = \"06:00\"\nreason = \"backups\"");
        let on_sunday = |hour: u64| WallTime(NOON.0 - 12 * 3_600 + hour * 3_600);
        assert!(night.meets(on_sunday(5), on_sunday(5)));
        assert!(!night.meets(on_sunday(6), on_sunday(23)));
        assert!(night.to_string().ends_with("(backups)"));
        let always = blackout("from = \"00:00\"\nuntil = \"00:00\"");
        assert!(always.meets(on_sunday(3), on_sunday(3)));
    }
}
