//! Dates, times and intervals as PostgreSQL prints (ISO style) and packs them.

use std::io::Write as _;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::error::{Error, Result, SqlState};

/// Days from 1970-01-01 to PostgreSQL's epoch 2000-01-01.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// Microseconds between the same days.
pub(crate) const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// Year (0 is 1 BC), month and day of a day number counted from 1970-01-01, for every number:
/// the proleptic Gregorian calendar in 400-year eras that begin on 1 March.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn two(value: i64, out: &mut Vec<u8>) {
    let digit = |v: i64| b'0' + u8::try_from(v % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

fn ymd(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year } else { 1 - year };
    if (0..10_000).contains(&shown) {
        two(shown / 100, out);
        two(shown % 100, out);
    } else {
        let _ = write!(out, "{shown}");
    }
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(day, out);
    year <= 0
}

fn clock(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    let hours = seconds / 3_600;
    if hours < 100 {
        two(hours, out);
    } else {
        let _ = write!(out, "{hours}");
    }
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    let mut fraction = micros % 1_000_000;
    if fraction > 0 {
        let mut width = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        let _ = write!(out, ".{fraction:0width$}");
    }
}

pub(super) fn date_text(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        days => {
            if ymd(days.into(), out) {
                out.extend_from_slice(b" BC");
            }
        }
    }
}

pub(super) fn time_text(micros: i64, out: &mut Vec<u8>) {
    clock(micros.clamp(0, DAY), out);
}

/// A timestamp; with a zone it is shown there, with its offset. `between` stands between date and
/// time: a blank, or `T` as JSON wants it.
pub(super) fn timestamp_text(micros: i64, zone: Option<Tz>, between: u8, out: &mut Vec<u8>) {
    if micros == i64::MAX || micros == i64::MIN {
        let text: &[u8] = if micros > 0 {
            b"infinity"
        } else {
            b"-infinity"
        };
        return out.extend_from_slice(text);
    }
    let offset = zone.map(|zone| offset_at(micros, zone));
    let local = i128::from(micros) + i128::from(offset.unwrap_or(0)) * 1_000_000;
    let day = i128::from(DAY);
    let days = i64::try_from(local.div_euclid(day)).unwrap_or_default();
    let bc = ymd(days, out);
    out.push(between);
    clock(
        i64::try_from(local.rem_euclid(day)).unwrap_or_default(),
        out,
    );
    if let Some(offset) = offset {
        out.push(if offset < 0 { b'-' } else { b'+' });
        let offset = i64::from(offset.unsigned_abs());
        two(offset / 3_600, out);
        let (minutes, seconds) = (offset / 60 % 60, offset % 60);
        if minutes > 0 || seconds > 0 || between == b'T' {
            out.push(b':');
            two(minutes, out);
        }
        if seconds > 0 {
            out.push(b':');
            two(seconds, out);
        }
    }
    if bc {
        out.extend_from_slice(b" BC");
    }
}

/// Seconds east of UTC that hold in the zone at an instant.
pub(crate) fn offset_at(micros: i64, zone: Tz) -> i32 {
    if zone == Tz::UTC {
        return 0;
    }
    // beyond chrono's years no zone has rules
    DateTime::from_timestamp_micros(micros).map_or(0, |at| {
        zone.offset_from_utc_datetime(&at.naive_utc())
            .fix()
            .local_minus_utc()
    })
}

pub(super) fn date_binary(days: i32, out: &mut Vec<u8>) -> Result<()> {
    let packed = match days {
        i32::MAX | i32::MIN => days,
        days => days
            .checked_sub(EPOCH_DAYS)
            .ok_or_else(|| out_of_range("date"))?,
    };
    out.extend_from_slice(&packed.to_be_bytes());
    Ok(())
}

pub(super) fn timestamp_binary(micros: i64, out: &mut Vec<u8>) -> Result<()> {
    let packed = match micros {
        i64::MAX | i64::MIN => micros,
        micros => micros
            .checked_sub(EPOCH_MICROS)
            .ok_or_else(|| out_of_range("timestamp"))?,
    };
    out.extend_from_slice(&packed.to_be_bytes());
    Ok(())
}

fn out_of_range(kind: &str) -> Error {
    Error::refused(SqlState("22008"), format!("{kind} out of range"))
}

/// An interval in PostgreSQL's own style: `1 year 2 mons -3 days +04:05:06.7`.
pub(super) fn interval_text(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let mut first = true;
    let mut after_minus = false;
    for (value, unit) in [
        (value.months / 12, "year"),
        (value.months % 12, "mon"),
        (value.days, "day"),
    ] {
        if value == 0 {
            continue;
        }
        let _ = write!(
            out,
            "{}{}{value} {unit}{}",
            if first { "" } else { " " },
            if after_minus && value > 0 { "+" } else { "" },
            if value == 1 { "" } else { "s" },
        );
        first = false;
        after_minus = value < 0;
    }
    let micros = value.nanoseconds / 1_000;
    if first || micros != 0 {
        if !first {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if after_minus {
            out.push(b'+');
        }
        clock(
            i64::try_from(micros.unsigned_abs()).unwrap_or(i64::MAX),
            out,
        );
    }
}
