//! Times as machines write them, `2026-01-31T12:30:00.5Z` → microseconds. Every other spelling is
//! left to arrow's parser.

/// Microseconds since the Unix epoch of a date and time in UTC, or without a zone.
pub(super) fn plain_micros(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let number = |from: usize, to: usize| -> Option<i64> {
        let mut value = 0;
        for byte in date_time.get(from..to)? {
            value = value * 10 + digit(*byte)?;
        }
        Some(value)
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| date_time[*at] != *mark)
        || !matches!(date_time[10], b'T' | b' ')
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = year > 0
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let fraction = fraction(rest)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000_000 + fraction)
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

/// What follows the seconds: a fraction, cut to microseconds, and the zone, UTC or none.
fn fraction(rest: &[u8]) -> Option<i64> {
    let mut micros = 0;
    let mut zone = rest;
    if let Some(digits) = rest.strip_prefix(b".") {
        let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&count) {
            return None;
        }
        for place in 0..6 {
            let next = digits.get(place).filter(|_| place < count);
            micros = micros * 10 + next.map_or(Some(0), |b| digit(*b))?;
        }
        zone = digits.get(count..)?;
    }
    matches!(zone, b"" | b"Z" | b"+00:00").then_some(micros)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the Unix epoch, of the proleptic Gregorian calendar. Years begin in March here, so
/// that a leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::kernels::cast_utils::string_to_datetime;
    use chrono::Utc;
    use proptest::prelude::*;

    fn arrow(text: &str) -> Option<i64> {
        let time = string_to_datetime(&Utc, text).ok()?;
        Some(time.timestamp_micros())
    }

    #[test]
    fn plain_times_are_read_as_arrow_reads_them() {
        for text in [
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999Z",
            "2024-02-29T12:30:59.1234567+00:00",
            "2000-02-29 00:00:00",
            "0001-01-01T00:00:00.5",
            "9999-12-31T23:59:59.999999999Z",
        ] {
            let read = plain_micros(text.as_bytes());
            assert!(read.is_some(), "{text}");
            assert_eq!(read, arrow(text), "{text}");
        }
    }

    #[test]
    fn other_spellings_are_left_alone() {
        for text in [
            "",
            "2026-01-31",
            "2023-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00+02:00",
            "2026-01-01T00:00:00 Z",
            "2026-01-01t00:00:00Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(plain_micros(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_arrow_reads(
            year in 1..9999i32, month in 0..14u8, day in 0..33u8, seconds in 0..90_000u32,
            fraction in "(|\\.[0-9]{1,9})", zone in "(|Z|\\+00:00)",
        ) {
            let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let text = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}{zone}");
            if let Some(micros) = plain_micros(text.as_bytes()) {
                prop_assert_eq!(Some(micros), arrow(&text));
            }
        }
    }
}
