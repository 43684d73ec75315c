//! Functions of dates, times and intervals: time zones, fields, parts put together, ages.

use std::str::FromStr;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use chrono_tz::Tz;
use datafusion::common::ScalarValue;

use super::{Entry, Gives, Nulls, Row, Ty, invalid, strict};
use crate::error::{Error, SqlState};
use crate::values::calendar::{DAY, civil, days_of, east_of, fixed_zone, offset_at};

const SECOND: i64 = 1_000_000;
const MONTH_DAYS: i64 = 30;

pub(super) const LIST: &[Entry] = &[
    Entry {
        name: "timezone",
        overloads: &[
            &[Ty::Text, Ty::Timestamptz],
            &[Ty::Text, Ty::Timestamp],
            &[Ty::Interval, Ty::Timestamptz],
            &[Ty::Interval, Ty::Timestamp],
        ],
        variadic: false,
        gives: Gives::OtherZone(1),
        nulls: Nulls::Strict,
        eval: timezone,
    },
    // `date_trunc` to units of many years
    Entry {
        name: "date_trunc_years",
        // a date is an instant
        overloads: &[&[Ty::Text, Ty::Timestamptz], &[Ty::Text, Ty::Timestamp]],
        variadic: false,
        gives: Gives::Like(1),
        nulls: Nulls::Strict,
        eval: truncated,
    },
    // what casts and sums become where the session is not in UTC
    strict(
        "local_to_instant",
        &[&[Ty::Timestamp]],
        Ty::Timestamptz,
        |row| {
            let local = row.int(0);
            Ok(instant(match local {
                i64::MAX | i64::MIN => local,
                local => local.saturating_sub(east_of(local, row.zone) * SECOND),
            }))
        },
    ),
    strict(
        "instant_to_local",
        &[&[Ty::Timestamptz]],
        Ty::Timestamp,
        |row| Ok(timestamp(local(row.int(0), row.zone))),
    ),
    strict(
        "instant_plus_interval",
        &[&[Ty::Timestamptz, Ty::Interval]],
        Ty::Timestamptz,
        |row| plus(row, 1).map(instant),
    ),
    strict(
        "instant_minus_interval",
        &[&[Ty::Timestamptz, Ty::Interval]],
        Ty::Timestamptz,
        |row| plus(row, -1).map(instant),
    ),
    // the order of intervals: months of 30 days, days of 24 hours
    strict("interval_order", &[&[Ty::Interval]], Ty::Numeric, |row| {
        let value = order(row.span(0));
        Ok(ScalarValue::Decimal128(
            Some(value * 10_i128.pow(10)),
            38,
            10,
        ))
    }),
    strict(
        "make_date",
        &[&[Ty::Int4, Ty::Int4, Ty::Int4]],
        Ty::Date,
        |row| {
            let days = date(row)?;
            Ok(ScalarValue::Date32(i32::try_from(days).ok()))
        },
    ),
    strict(
        "make_time",
        &[&[Ty::Int4, Ty::Int4, Ty::Float8]],
        Ty::Time,
        |row| Ok(ScalarValue::Time64Microsecond(Some(time(row, 0)?))),
    ),
    strict(
        "make_timestamp",
        &[&[Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Float8]],
        Ty::Timestamp,
        |row| Ok(timestamp(clock(row)?)),
    ),
    strict(
        "make_timestamptz",
        &[
            &[Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Float8],
            &[
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Float8,
                Ty::Text,
            ],
        ],
        Ty::Timestamptz,
        |row| {
            let local = clock(row)?;
            let east = match row.len() {
                // numbers count to the east here
                7 => match fixed_zone(row.text(6)) {
                    Some(east) => east,
                    None => zone(row.text(6))?.east_of(local),
                },
                _ => east_of(local, row.zone),
            };
            Ok(instant(local.saturating_sub(east * SECOND)))
        },
    ),
    strict(
        "make_interval",
        &[
            &[],
            &[Ty::Int4],
            &[Ty::Int4, Ty::Int4],
            &[Ty::Int4, Ty::Int4, Ty::Int4],
            &[Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4],
            &[Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4],
            &[Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4, Ty::Int4],
            &[
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Int4,
                Ty::Float8,
            ],
        ],
        Ty::Interval,
        make_interval,
    ),
    strict(
        "age",
        &[
            &[Ty::Timestamptz, Ty::Timestamptz],
            &[Ty::Timestamp, Ty::Timestamp],
        ],
        Ty::Interval,
        age,
    ),
    strict("justify_hours", &[&[Ty::Interval]], Ty::Interval, |row| {
        justified(row.span(0), true, false)
    }),
    strict("justify_days", &[&[Ty::Interval]], Ty::Interval, |row| {
        justified(row.span(0), false, true)
    }),
    strict(
        "justify_interval",
        &[&[Ty::Interval]],
        Ty::Interval,
        |row| justified(row.span(0), true, true),
    ),
    strict(
        "isfinite",
        &[
            &[Ty::Timestamptz],
            &[Ty::Timestamp],
            &[Ty::Date],
            &[Ty::Interval],
        ],
        Ty::Bool,
        |row| {
            let infinite = match row.ty(0) {
                DataType::Date32 => {
                    let days = row.int(0);
                    days == i64::from(i32::MAX) || days == i64::from(i32::MIN)
                }
                DataType::Timestamp(..) => matches!(row.int(0), i64::MAX | i64::MIN),
                _ => false,
            };
            Ok(ScalarValue::Boolean(Some(!infinite)))
        },
    ),
    // fields of EXTRACT that the planner has not, or counts otherwise
    strict(
        "date_field",
        &[
            &[Ty::Text, Ty::Timestamp],
            &[Ty::Text, Ty::Timestamptz],
            &[Ty::Text, Ty::Interval],
        ],
        Ty::Float8,
        field,
    ),
];

fn instant(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
}

fn timestamp(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), None)
}

fn out_of_range(what: &str) -> Error {
    Error::refused(SqlState("22008"), format!("{what} out of range"))
}

/// A zone by name, or a fixed distance from UTC.
enum Zone {
    Named(Tz),
    /// Seconds east.
    Fixed(i64),
}

impl Zone {
    fn east_of(&self, local: i64) -> i64 {
        match self {
            Self::Named(tz) => east_of(local, *tz),
            Self::Fixed(east) => *east,
        }
    }

    fn east_at(&self, at: i64) -> i64 {
        match self {
            Self::Named(tz) => offset_at(at, *tz).into(),
            Self::Fixed(east) => *east,
        }
    }
}

fn zone(name: &str) -> Result<Zone, Error> {
    let name = name.trim();
    if let Ok(tz) = Tz::from_str(name) {
        return Ok(Zone::Named(tz));
    }
    // POSIX counts to the west: '+3' and 'UTC+3' lie west of Greenwich
    let posix = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if posix.starts_with(['+', '-']) || posix.starts_with(|c: char| c.is_ascii_digit()) {
        let signed = match posix.starts_with(['+', '-']) {
            true => posix.to_owned(),
            false => format!("+{posix}"),
        };
        if let Some(east) = fixed_zone(&signed) {
            return Ok(Zone::Fixed(-east));
        }
    }
    if name.eq_ignore_ascii_case("MSK") {
        // Moscow's has been other hours at other times
        return Ok(Zone::Named(Tz::Europe__Moscow));
    }
    if let Some((_, tz)) = ABBREVIATIONS
        .iter()
        .find(|(short, _)| short.eq_ignore_ascii_case(name))
    {
        return Ok(Zone::Fixed(tz * 3_600));
    }
    let named = chrono_tz::TZ_VARIANTS
        .iter()
        .find(|tz| tz.name().eq_ignore_ascii_case(name));
    named.map(|tz| Zone::Named(*tz)).ok_or_else(|| {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("time zone \"{name}\" not recognized"),
        )
    })
}

/// Short names with their hours east, as PostgreSQL's default set has them.
const ABBREVIATIONS: [(&str, i64); 16] = [
    ("Z", 0),
    ("GMT", 0),
    ("WET", 0),
    ("BST", 1),
    ("CET", 1),
    ("CEST", 2),
    ("EET", 2),
    ("EEST", 3),
    ("PST", -8),
    ("PDT", -7),
    ("MST", -7),
    ("MDT", -6),
    ("CST", -6),
    ("CDT", -5),
    ("EST", -5),
    ("EDT", -4),
];

/// `x AT TIME ZONE zone`.
/// The first day of a decade, which begins with a year ending in 0, or of a century or millennium, which begin
/// with one ending in 1.
fn truncated(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let at = row.int(1);
    if matches!(at, i64::MAX | i64::MIN) {
        return Ok(same_kind(row, at));
    }
    let (year, _, _) = civil(at.div_euclid(DAY));
    let (years, first) = match row.text(0).to_lowercase().as_str() {
        "decade" | "decades" => (10, 0),
        "century" | "centuries" => (100, 1),
        _ => (1000, 1),
    };
    let begin = (year - first).div_euclid(years) * years + first;
    let days = days_of(begin, 1, 1);
    Ok(same_kind(row, days.saturating_mul(DAY)))
}

/// An instant, or a time of the clocks, as the second argument is.
fn same_kind(row: &Row<'_>, at: i64) -> ScalarValue {
    match row.ty(1) {
        DataType::Timestamp(_, Some(_)) => instant(at),
        _ => timestamp(at),
    }
}

fn timezone(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let zone = match row.ty(0) {
        DataType::Interval(_) => {
            let span = row.span(0);
            if span.months != 0 || span.days != 0 {
                return Err(invalid(
                    "interval time zone must not include months or days",
                ));
            }
            Zone::Fixed(span.nanoseconds / 1_000_000_000)
        }
        _ => zone(row.text(0))?,
    };
    let at = row.int(1);
    let infinite = matches!(at, i64::MAX | i64::MIN);
    Ok(match row.ty(1) {
        DataType::Timestamp(_, Some(_)) if infinite => timestamp(at),
        DataType::Timestamp(_, Some(_)) => timestamp(at.saturating_add(zone.east_at(at) * SECOND)),
        _ if infinite => instant(at),
        _ => instant(at.saturating_sub(zone.east_of(at) * SECOND)),
    })
}

fn local(at: i64, zone: Tz) -> i64 {
    match at {
        i64::MAX | i64::MIN => at,
        at => at.saturating_add(i64::from(offset_at(at, zone)) * SECOND),
    }
}

/// An instant plus an interval: months and days by the clocks of the session's zone.
fn plus(row: &Row<'_>, sign: i32) -> Result<i64, Error> {
    let (at, span) = (row.int(0), row.span(1));
    if matches!(at, i64::MAX | i64::MIN) {
        return Ok(at);
    }
    let wrong = || out_of_range("timestamp");
    let mut at = at;
    if span.months != 0 || span.days != 0 {
        let here = local(at, row.zone);
        let mut days = here.div_euclid(DAY);
        if span.months != 0 {
            let (year, month, day) = civil(days);
            let months = year * 12 + month - 1 + i64::from(span.months) * i64::from(sign);
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
            let first = days_of(year, month, 1);
            let next = days_of(year + month / 12, month % 12 + 1, 1);
            days = first + day.min(next - first) - 1;
        }
        days += i64::from(span.days) * i64::from(sign);
        let moved = days
            .checked_mul(DAY)
            .and_then(|d| d.checked_add(here.rem_euclid(DAY)))
            .ok_or_else(wrong)?;
        at = moved.saturating_sub(east_of(moved, row.zone) * SECOND);
    }
    at.checked_add(span.nanoseconds / 1_000 * i64::from(sign))
        .ok_or_else(wrong)
}

fn order(span: IntervalMonthDayNano) -> i128 {
    let days = i128::from(span.months) * i128::from(MONTH_DAYS) + i128::from(span.days);
    days * i128::from(DAY) + i128::from(span.nanoseconds / 1_000)
}

/// Days of the first three arguments; a negative year is before Christ.
fn date(row: &Row<'_>) -> Result<i64, Error> {
    let (year, month, day) = (row.int(0), row.int(1), row.int(2));
    let shown = if year < 0 { year + 1 } else { year };
    let wrong = || {
        Error::refused(
            SqlState("22008"),
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        )
    };
    if year == 0 || !(1..=12).contains(&month) || !(-4713..=5_874_897).contains(&shown) {
        return Err(wrong());
    }
    let first = days_of(shown, month, 1);
    let next = days_of(shown + month / 12, month % 12 + 1, 1);
    if day < 1 || day > next - first {
        return Err(wrong());
    }
    Ok(first + day - 1)
}

/// Microseconds of six arguments: a day and a time.
fn clock(row: &Row<'_>) -> Result<i64, Error> {
    let time = time(row, 3)?;
    let days = date(row)?.checked_mul(DAY);
    days.and_then(|d| d.checked_add(time))
        .ok_or_else(|| out_of_range("timestamp"))
}

/// Microseconds of three arguments: hour, minute, second.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a second is below 61 million microseconds"
)]
fn time(row: &Row<'_>, from: usize) -> Result<i64, Error> {
    let (hour, minute, second) = (row.int(from), row.int(from + 1), row.float(from + 2));
    let micros = (second * 1e6).round_ties_even();
    let total = hour * 3_600 * SECOND + minute * 60 * SECOND;
    if !(0..=24).contains(&hour)
        || !(0..60).contains(&minute)
        || !(0.0..=60e6).contains(&micros)
        || total + micros as i64 > DAY
    {
        return Err(Error::refused(
            SqlState("22008"),
            format!("time field value out of range: {hour}:{minute:02}:{second}"),
        ));
    }
    Ok(total + micros as i64)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked before"
)]
fn make_interval(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let part = |i: usize| if i < row.len() { row.int(i) } else { 0 };
    let wrong = || Error::refused(SqlState("22008"), "interval out of range");
    let seconds = if row.len() > 6 { row.float(6) } else { 0.0 };
    let micros = (seconds * 1e6).round_ties_even();
    if !micros.is_finite() || micros.abs() > 9e15 {
        return Err(wrong());
    }
    let nanos = (part(4) * 3_600 * SECOND + part(5) * 60 * SECOND + micros as i64)
        .checked_mul(1_000)
        .ok_or_else(wrong)?;
    span(part(0) * 12 + part(1), part(2) * 7 + part(3), nanos)
}

fn span(months: i64, days: i64, nanoseconds: i64) -> Result<ScalarValue, Error> {
    let narrow = |v: i64| {
        i32::try_from(v).map_err(|_| Error::refused(SqlState("22008"), "interval out of range"))
    };
    Ok(ScalarValue::IntervalMonthDayNano(Some(
        IntervalMonthDayNano {
            months: narrow(months)?,
            days: narrow(days)?,
            nanoseconds,
        },
    )))
}

/// Years, months and days between two times, as a calendar counts them.
fn age(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let place = |i: usize| match row.ty(i) {
        DataType::Timestamp(_, Some(_)) => local(row.int(i), row.zone),
        _ => row.int(i),
    };
    let (one, other) = (place(0), place(1));
    if [one, other]
        .iter()
        .any(|at| matches!(*at, i64::MAX | i64::MIN))
    {
        return Err(out_of_range("interval"));
    }
    let negative = one < other;
    let (late, early) = if negative { (other, one) } else { (one, other) };
    let (late_day, early_day) = (civil(late.div_euclid(DAY)), civil(early.div_euclid(DAY)));
    let mut micros = late.rem_euclid(DAY) - early.rem_euclid(DAY);
    let mut days = late_day.2 - early_day.2;
    let mut months = (late_day.0 - early_day.0) * 12 + late_day.1 - early_day.1;
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        // borrowed from the earlier one's month
        let (year, month, _) = early_day;
        days += days_of(year + month / 12, month % 12 + 1, 1) - days_of(year, month, 1);
        months -= 1;
    }
    let sign = if negative { -1 } else { 1 };
    span(months * sign, days * sign, micros * 1_000 * sign)
}

fn justified(value: IntervalMonthDayNano, hours: bool, months: bool) -> Result<ScalarValue, Error> {
    let mut days = i64::from(value.days);
    let mut nanos = value.nanoseconds;
    let mut month = i64::from(value.months);
    let day = DAY * 1_000;
    if hours {
        days += nanos / day;
        nanos %= day;
    }
    if months {
        month += days / MONTH_DAYS;
        days %= MONTH_DAYS;
    }
    if months {
        if month > 0 && (days < 0 || (hours && days == 0 && nanos < 0)) {
            days += MONTH_DAYS;
            month -= 1;
        } else if month < 0 && (days > 0 || (hours && days == 0 && nanos > 0)) {
            days -= MONTH_DAYS;
            month += 1;
        }
    }
    if hours {
        if days > 0 && nanos < 0 {
            nanos += day;
            days -= 1;
        } else if days < 0 && nanos > 0 {
            nanos -= day;
            days += 1;
        }
    }
    span(month, days, nanos)
}

/// Fields that [`field`] knows.
pub(in crate::semantics) const FIELDS: [&str; 22] = [
    "century",
    "centuries",
    "decade",
    "decades",
    "millennium",
    "millennia",
    "millenniums",
    "julian",
    "isoyear",
    "timezone",
    "timezone_hour",
    "timezone_minute",
    "second",
    "seconds",
    "sec",
    "secs",
    "millisecond",
    "milliseconds",
    "msec",
    "msecs",
    "msecond",
    "mseconds",
];

/// How many of a field of seconds make one; `None` for other fields.
fn of_a_second(field: &str) -> Option<f64> {
    match field {
        "second" | "seconds" | "sec" | "secs" => Some(1.0),
        "millisecond" | "milliseconds" | "msec" | "msecs" | "msecond" | "mseconds" => Some(1e3),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "years and days are small")]
fn field(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let name = row.text(0).to_ascii_lowercase();
    let float = |v: f64| Ok(ScalarValue::Float64(Some(v)));
    // seconds come with their fraction
    let seconds = |micros: i64, per: f64| float(micros as f64 / (SECOND as f64 / per));
    if let DataType::Interval(_) = row.ty(1) {
        if let Some(per) = of_a_second(&name) {
            return seconds(row.span(1).nanoseconds / 1_000 % (60 * SECOND), per);
        }
        let years = i64::from(row.span(1).months) / 12;
        let years = match name.as_str() {
            "century" | "centuries" => years / 100,
            "decade" | "decades" => years / 10,
            "millennium" | "millennia" | "millenniums" => years / 1000,
            _ => return Err(unknown(&name, "interval")),
        };
        return float(years as f64);
    }
    let at = row.int(1);
    let zoned = matches!(row.ty(1), DataType::Timestamp(_, Some(_)));
    if matches!(at, i64::MAX | i64::MIN) {
        return float(if at > 0 {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        });
    }
    let east = if zoned {
        i64::from(offset_at(at, row.zone))
    } else {
        0
    };
    let here = at.saturating_add(east * SECOND);
    let days = here.div_euclid(DAY);
    if let Some(per) = of_a_second(&name) {
        return seconds(here.rem_euclid(60 * SECOND), per);
    }
    if let DataType::Time64(_) = row.ty(1) {
        return Err(unknown(&name, "time"));
    }
    let (year, ..) = civil(days);
    float(match name.as_str() {
        "century" | "centuries" if year > 0 => ((year + 99) / 100) as f64,
        "century" | "centuries" => -((100 - year) / 100) as f64,
        "millennium" | "millennia" | "millenniums" if year > 0 => ((year + 999) / 1000) as f64,
        "millennium" | "millennia" | "millenniums" => -((1000 - year) / 1000) as f64,
        "decade" | "decades" => year.div_euclid(10) as f64,
        "julian" => (days + 2_440_588) as f64 + here.rem_euclid(DAY) as f64 / DAY as f64,
        "isoyear" => {
            let thursday = days - (days + 3).rem_euclid(7) + 3;
            let (year, ..) = civil(thursday);
            (if year > 0 { year } else { year - 1 }) as f64
        }
        "timezone" if zoned => east as f64,
        "timezone_hour" if zoned => (east / 3_600) as f64,
        "timezone_minute" if zoned => (east / 60 % 60) as f64,
        _ => return Err(unknown(&name, "timestamp")),
    })
}

fn unknown(name: &str, ty: &str) -> Error {
    Error::unsupported(
        format!("unit \"{name}\" not supported for type {ty}"),
        "EXTRACT has other fields for it",
    )
}
