//! Lengths of time, sizes and byte ranges as people write them: `5s`, `7d`, `1h30m`; `64MiB`; `0-99`.

use std::time::Duration;

/// A text that is no quantity of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub(crate) struct InvalidQuantity {
    text: String,
    expected: &'static str,
}

/// Parses a length of time: numbers with `ms`, `s`, `m`, `h` or `d`, added up.
pub(crate) fn duration(text: &str) -> Result<Duration, InvalidQuantity> {
    let expected = "a length of time such as 500ms, 5s, 90m or 7d";
    let invalid = || InvalidQuantity { text: text.to_owned(), expected };
    let units = [("ms", 1_u64), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let parts = parts(text).filter(|parts| !parts.is_empty()).ok_or_else(invalid)?;
    let mut millis = 0_u64;
    for (number, unit) in parts {
        let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
        millis = number.checked_mul(factor).and_then(|part| millis.checked_add(part)).ok_or_else(invalid)?;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a length of time so that [`duration`] reads it again.
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, factor)| millis.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// Parses a number of bytes, with `KiB`, `MiB`, `GiB` or `TiB` or without.
pub(crate) fn size(text: &str) -> Result<u64, InvalidQuantity> {
    let expected = "a size such as 4096, 64MiB or 10GiB";
    let invalid = || InvalidQuantity { text: text.to_owned(), expected };
    let units =
        [("", 1_u64), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let parts = parts(text).ok_or_else(invalid)?;
    let [(number, unit)] = parts.as_slice() else { return Err(invalid()) };
    let factor = units.iter().find(|(name, _)| name == unit).ok_or_else(invalid)?.1;
    number.checked_mul(factor).ok_or_else(invalid)
}

/// Parses `FIRST-LAST`, both included, or `FIRST-` to the end, counted from 0.
pub(crate) fn byte_range(text: &str) -> Result<(u64, Option<u64>), InvalidQuantity> {
    let invalid = || InvalidQuantity { text: text.to_owned(), expected: "a byte range such as 0-99 or 100-" };
    let (first, last) = text.split_once('-').ok_or_else(invalid)?;
    let first: u64 = first.parse().map_err(|_| invalid())?;
    let last: Option<u64> = match last {
        "" => None,
        last => Some(last.parse().map_err(|_| invalid())?),
    };
    if last.is_some_and(|last| last < first) { Err(invalid()) } else { Ok((first, last)) }
}

/// Cuts `1h30m` into `(1, "h"), (30, "m")`.
fn parts(text: &str) -> Option<Vec<(u64, &str)>> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        found.push((number, rest[..unit].trim()));
        rest = &rest[unit..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_written() {
        for (text, millis) in [("500ms", 500), ("5s", 5000), ("1h30m", 5_400_000), ("7d", 604_800_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis));
        }
        for text in ["", "5", "s", "5 weeks", "99999999999999999999s", "-5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for millis in [0, 1, 1000, 1500, 90_000, 3_600_000, 604_800_000] {
            let written = duration_text(Duration::from_millis(millis));
            assert_eq!(duration(&written).unwrap(), Duration::from_millis(millis), "{written}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        for text in ["", "MiB", "1MiB1", "64MB", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn byte_ranges_are_read() {
        assert_eq!(byte_range("0-99"), Ok((0, Some(99))));
        assert_eq!(byte_range("100-"), Ok((100, None)));
        for text in ["", "-", "9-1", "a-b", "5"] {
            assert!(byte_range(text).is_err(), "{text}");
        }
    }
}
