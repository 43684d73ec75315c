//! Dates, times and intervals: text (ISO, and month/day/year as DateStyle `ISO, MDY` reads it) and
//! binary input.

mod free;

use std::str::FromStr;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, MappedLocalTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::super::write::datetime::{DAY, EPOCH_DAYS, EPOCH_MICROS};
use super::{bad_binary, exact, shown};
use crate::error::{Error, Result, SqlState};

const SECOND: i64 = 1_000_000;

fn bad(kind: &str, text: &str) -> Error {
    Error::refused(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid input syntax for type {kind}: \"{}\"", shown(text)),
    )
}

fn out_of_range(text: &str) -> Error {
    Error::refused(
        SqlState("22008"),
        format!("date/time field value out of range: \"{}\"", shown(text)),
    )
}

/// Day number of a proleptic Gregorian date (year 0 is 1 BC); the inverse of the writer's.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

enum Date {
    Day(i64),
    /// Right form, no such day.
    NoSuchDay,
    Malformed,
}

fn parse_date(text: &str, bc: bool) -> Date {
    let fields: Vec<Option<i64>>;
    let (year, month, day) = if let Some((a, rest)) = text.split_once('-') {
        let Some((b, c)) = rest.split_once('-') else {
            return Date::Malformed;
        };
        if a.len() > 2 {
            fields = vec![number(a), number(b), number(c)];
            (0, 1, 2)
        } else {
            let year = number(c).map(|year| free::full_year(year, c.len(), bc));
            fields = vec![number(a), number(b), year];
            (2, 0, 1)
        }
    } else if let Some((a, rest)) = text.split_once('/') {
        let Some((b, c)) = rest.split_once('/') else {
            return Date::Malformed;
        };
        if a.len() > 2 {
            fields = vec![number(a), number(b), number(c)];
            (0, 1, 2)
        } else {
            let year = number(c).map(|year| free::full_year(year, c.len(), bc));
            fields = vec![number(a), number(b), year];
            (2, 0, 1)
        }
    } else if text.len() == 8 && text.is_ascii() {
        fields = vec![number(&text[..4]), number(&text[4..6]), number(&text[6..])];
        (0, 1, 2)
    } else {
        return Date::Malformed;
    };
    let (Some(year), Some(month), Some(day)) = (fields[year], fields[month], fields[day]) else {
        return Date::Malformed;
    };
    if year == 0 {
        return Date::NoSuchDay;
    }
    let year = if bc { 1 - year } else { year };
    if (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day) {
        Date::Day(days_of(year, month, day))
    } else {
        Date::NoSuchDay
    }
}

/// Cuts a trailing ` BC` or ` AD`.
fn era(text: &str) -> (&str, bool) {
    let (head, tail) = match text
        .len()
        .checked_sub(2)
        .and_then(|at| text.split_at_checked(at))
    {
        Some(parts) => parts,
        None => return (text, false),
    };
    if tail.eq_ignore_ascii_case("bc") {
        (head.trim_end(), true)
    } else if tail.eq_ignore_ascii_case("ad") {
        (head.trim_end(), false)
    } else {
        (text, false)
    }
}

pub(super) fn date(text: &str) -> Result<i32> {
    let plain = text.trim_ascii();
    match plain.to_ascii_lowercase().as_str() {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        "epoch" => return Ok(0),
        _ => {}
    }
    let (head, bc) = era(plain);
    // a time after the date is read and dropped, as PostgreSQL does
    let (day, clock) = split_day(head);
    let (time, zone) = split_zone(clock);
    let clock_is_good = clock.is_empty()
        || (parse_clock(time).is_some() && (zone.is_empty() || offset(zone).is_some()));
    let days = match parse_date(day, bc) {
        Date::Day(days) if clock_is_good => days,
        Date::NoSuchDay => return Err(out_of_range(text)),
        _ => match free(plain, "date", text)?.days {
            Some(days) => days,
            None => return Err(bad("date", text)),
        },
    };
    match i32::try_from(days) {
        Ok(narrow) if (FIRST_DAY..=LAST_DAY).contains(&days) => Ok(narrow),
        _ => Err(out_of_range(text)),
    }
}

/// PostgreSQL's first day, 4714-11-24 BC, in days since 1970.
const FIRST_DAY: i64 = -2_440_588;
/// Its last one, 5874897-12-31.
const LAST_DAY: i64 = 2_145_042_905;

/// A text in none of the plain forms.
fn free(plain: &str, kind: &str, text: &str) -> Result<free::Moment> {
    free::parse(plain).map_err(|wrong| match wrong {
        free::Wrong::Malformed => bad(kind, text),
        free::Wrong::NoSuchDay => out_of_range(text),
    })
}

/// Splits at the blank or `T` between date and time.
fn split_day(text: &str) -> (&str, &str) {
    match text.find([' ', 'T', 't']) {
        Some(at) => (&text[..at], text[at + 1..].trim_start()),
        None => (text, ""),
    }
}

/// Splits a clock text before its zone.
fn split_zone(text: &str) -> (&str, &str) {
    match text.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.'))) {
        Some(at) => (&text[..at], text[at..].trim()),
        None => (text, ""),
    }
}

/// Microseconds after midnight, 24:00 at most.
fn parse_clock(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut fields = clock.split(':');
    let hours = number(fields.next()?)?;
    let minutes = number(fields.next()?)?;
    let seconds = fields.next().map_or(Some(0), number)?;
    if fields.next().is_some() || hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let total = (hours * 3_600 + minutes * 60 + seconds) * SECOND + micros_of(fraction)?;
    (total <= DAY).then_some(total)
}

/// Microseconds of the digits after a decimal point, rounded.
fn micros_of(fraction: &str) -> Option<i64> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut micros = 0;
    let mut digits = fraction.bytes().map(|b| i64::from(b - b'0'));
    for _ in 0..6 {
        micros = micros * 10 + digits.next().unwrap_or(0);
    }
    Some(micros + i64::from(digits.next().is_some_and(|d| d >= 5)))
}

/// A zone as written after a time.
enum Zone {
    /// Seconds east of UTC.
    Fixed(i64),
    Named(Tz),
}

/// Seconds east of UTC that a text like `+05:30` says.
pub(crate) fn fixed_zone(text: &str) -> Option<i64> {
    match offset(text)? {
        Zone::Fixed(east) => Some(east),
        Zone::Named(_) => None,
    }
}

fn offset(text: &str) -> Option<Zone> {
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(Zone::Fixed(0));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return Tz::from_str(text).ok().map(Zone::Named),
    };
    let digits = &text[1..];
    let mut parts = digits.split(':');
    let first = parts.next()?;
    let (hours, minutes) = match first.len() {
        1 | 2 => (number(first)?, parts.next().map_or(Some(0), number)?),
        4 => (number(&first[..2])?, number(&first[2..])?),
        _ => return None,
    };
    let seconds = parts.next().map_or(Some(0), number)?;
    if parts.next().is_some() || hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(Zone::Fixed(sign * (hours * 3_600 + minutes * 60 + seconds)))
}

pub(super) fn time(text: &str) -> Result<i64> {
    let (clock, zone) = split_zone(text.trim_ascii());
    // a zone is dropped, as PostgreSQL does
    if (zone.is_empty() || offset(zone).is_some())
        && let Some(micros) = parse_clock(clock)
    {
        return Ok(micros);
    }
    let moment = free(text.trim_ascii(), "time", text)?;
    moment.micros.ok_or_else(|| bad("time", text))
}

/// A timestamp: with `zone` the result is an instant, and a text without its own zone is local
/// there; without, a zone in the text is dropped.
pub(super) fn timestamp(text: &str, zone: Option<Tz>) -> Result<i64> {
    let kind = if zone.is_some() {
        "timestamp with time zone"
    } else {
        "timestamp"
    };
    let plain = text.trim_ascii();
    match plain.to_ascii_lowercase().as_str() {
        "infinity" => return Ok(i64::MAX),
        "-infinity" => return Ok(i64::MIN),
        "epoch" => return Ok(0),
        _ => {}
    }
    let (head, bc) = era(plain);
    let (day, rest) = split_day(head);
    let (clock, own_zone) = split_zone(rest);
    let micros = if clock.is_empty() {
        Some(0)
    } else {
        parse_clock(clock)
    };
    let fixed = match own_zone {
        "" => Some(None),
        written => offset(written).map(Some),
    };
    let (days, micros, own_zone) = match (parse_date(day, bc), micros, fixed) {
        (Date::Day(days), Some(micros), Some(zone)) => (days, micros, zone),
        (Date::NoSuchDay, ..) => return Err(out_of_range(text)),
        _ => {
            let moment = free(plain, kind, text)?;
            let days = moment.days.ok_or_else(|| bad(kind, text))?;
            (days, moment.micros.unwrap_or(0), moment.zone)
        }
    };
    let local = days
        .checked_mul(DAY)
        .and_then(|d| d.checked_add(micros))
        .ok_or_else(|| out_of_range(text))?;
    let known = |micros: i64| match micros >= FIRST_DAY * DAY {
        true => Ok(micros),
        false => Err(out_of_range(text)),
    };
    let Some(session) = zone else {
        return known(local);
    };
    let east = match own_zone {
        Some(Zone::Fixed(seconds)) => seconds,
        Some(Zone::Named(tz)) => east_of(local, tz),
        None => east_of(local, session),
    };
    let instant = local.checked_sub(east * SECOND);
    known(instant.ok_or_else(|| out_of_range(text))?)
}

/// Offset of a local time in a zone. A time that the clocks skip or repeat takes the standard
/// offset, as PostgreSQL does.
pub(crate) fn east_of(local: i64, zone: Tz) -> i64 {
    if zone == Tz::UTC {
        return 0;
    }
    let Some(naive) = DateTime::from_timestamp_micros(local).map(|at| at.naive_utc()) else {
        return 0;
    };
    let seconds = |o: chrono_tz::TzOffset| i64::from(o.fix().local_minus_utc());
    match zone.offset_from_local_datetime(&naive) {
        MappedLocalTime::Single(at) => seconds(at),
        MappedLocalTime::Ambiguous(a, b) => seconds(a).min(seconds(b)),
        // skipped: the offset before the change
        MappedLocalTime::None => {
            let before = naive - chrono::TimeDelta::days(1);
            seconds(zone.offset_from_utc_datetime(&before))
        }
    }
}

pub(super) fn date_binary(bytes: &[u8]) -> Result<i32> {
    match i32::from_be_bytes(exact("date", bytes)?) {
        end @ (i32::MAX | i32::MIN) => Ok(end),
        days => days
            .checked_add(EPOCH_DAYS)
            .filter(|d| *d != i32::MAX)
            .ok_or_else(|| out_of_range("date")),
    }
}

pub(super) fn time_binary(bytes: &[u8]) -> Result<i64> {
    match i64::from_be_bytes(exact("time", bytes)?) {
        micros @ 0..=DAY => Ok(micros),
        _ => Err(bad_binary("time")),
    }
}

pub(super) fn timestamp_binary(bytes: &[u8]) -> Result<i64> {
    match i64::from_be_bytes(exact("timestamp", bytes)?) {
        end @ (i64::MAX | i64::MIN) => Ok(end),
        micros => micros
            .checked_add(EPOCH_MICROS)
            .filter(|m| *m != i64::MAX)
            .ok_or_else(|| out_of_range("timestamp")),
    }
}

pub(super) fn interval_binary(bytes: &[u8]) -> Result<IntervalMonthDayNano> {
    let bytes: [u8; 16] = exact("interval", bytes)?;
    let (micros, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| bad_binary("interval"))?;
    let (days, months) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| bad_binary("interval"))?;
    Ok(IntervalMonthDayNano {
        months: i32::from_be_bytes(exact("interval", months)?),
        days: i32::from_be_bytes(*days),
        nanoseconds: i64::from_be_bytes(*micros)
            .checked_mul(1_000)
            .ok_or_else(|| out_of_range("interval"))?,
    })
}

/// Months, days and microseconds collected from an interval's text. Wide, so that only the end
/// result can be out of range.
#[derive(Default)]
struct Span {
    months: f64,
    days: f64,
    micros: i128,
    /// Units that were named.
    seen: u16,
}

const HOUR: u16 = 1 << 6;
const MINUTE: u16 = 1 << 7;
const SECOND_ALONE: u16 = 1 << 8;
/// Decimals of a second are its milli- and microseconds.
const SECOND_AND_PARTS: u16 = 1 << 8 | 1 << 9 | 1 << 10;

impl Span {
    /// Adds `value` (with its decimals) of a unit; fractions go down to the next smaller unit. Gives the
    /// unit's bit.
    fn add(&mut self, value: f64, unit: &str) -> Option<u16> {
        let months = |span: &mut Self, months: f64| {
            span.months += months.trunc();
            let days = months.fract() * 30.0;
            span.add_days(days);
        };
        let unit = unit.to_ascii_lowercase();
        let (bit, seconds) = match unit.as_str() {
            "y" | "yr" | "yrs" | "year" | "years" => {
                self.months += (value * 12.0).round();
                return Some(1);
            }
            "mon" | "mons" | "month" | "months" => {
                months(self, value);
                return Some(1 << 1);
            }
            "dec" | "decade" | "decades" => {
                self.months += (value * 120.0).round();
                return Some(1 << 2);
            }
            "c" | "cent" | "century" | "centuries" => {
                self.months += (value * 1_200.0).round();
                return Some(1 << 3);
            }
            "w" | "week" | "weeks" => {
                self.add_days(value * 7.0);
                return Some(1 << 4);
            }
            "d" | "day" | "days" => {
                self.add_days(value);
                return Some(1 << 5);
            }
            "h" | "hr" | "hrs" | "hour" | "hours" => (HOUR, value * 3_600.0),
            "m" | "min" | "mins" | "minute" | "minutes" => (MINUTE, value * 60.0),
            "s" | "sec" | "secs" | "second" | "seconds" => match value.fract() == 0.0 {
                true => (SECOND_ALONE, value),
                false => (SECOND_AND_PARTS, value),
            },
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => (1 << 9, value / 1e3),
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => (1 << 10, value / 1e6),
            _ => return None,
        };
        self.add_seconds(seconds);
        Some(bit)
    }

    /// No unit is named twice.
    fn once(&mut self, bits: u16) -> Option<()> {
        let new = self.seen & bits == 0;
        self.seen |= bits;
        new.then_some(())
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc();
        self.add_seconds(days.fract() * 86_400.0);
    }

    fn add_seconds(&mut self, seconds: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates; checked at the end"
        )]
        let micros = (seconds * 1e6).round() as i128;
        self.micros = self.micros.saturating_add(micros);
    }

    fn value(&self, text: &str) -> Result<IntervalMonthDayNano> {
        let narrow = |v: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked here")]
            (v.abs() <= f64::from(i32::MAX)).then_some(v as i32)
        };
        let parts = (
            narrow(self.months),
            narrow(self.days),
            i64::try_from(self.micros.saturating_mul(1_000)).ok(),
        );
        match parts {
            (Some(months), Some(days), Some(nanoseconds)) => Ok(IntervalMonthDayNano {
                months,
                days,
                nanoseconds,
            }),
            _ => Err(Error::refused(
                SqlState("22008"),
                format!("interval field value out of range: \"{}\"", shown(text)),
            )),
        }
    }
}

pub(super) fn interval(text: &str) -> Result<IntervalMonthDayNano> {
    let plain = text.trim_ascii();
    let span = if plain.starts_with(['P', 'p']) {
        iso_interval(plain)
    } else {
        verbose_interval(plain)
    };
    span.ok_or_else(|| bad("interval", text))?.value(text)
}

/// `1 year 2 mons -3 days 04:05:06.7 ago`.
fn verbose_interval(text: &str) -> Option<Span> {
    let mut span = Span::default();
    let mut words = text
        .trim_start_matches('@')
        .split_ascii_whitespace()
        .peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("ago") {
            span = Span {
                months: -span.months,
                days: -span.days,
                micros: -span.micros,
                ..span
            };
            return words.next().is_none().then_some(span);
        }
        if word.contains(':') {
            let (negative, clock) = match word.as_bytes().first()? {
                b'-' => (true, &word[1..]),
                b'+' => (false, &word[1..]),
                _ => (false, word),
            };
            let micros = long_clock(clock)?;
            span.once(HOUR | MINUTE | SECOND_AND_PARTS)?;
            span.micros += if negative { -micros } else { micros };
            continue;
        }
        let split = word
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(word.len());
        let value = decimal(&word[..split])?;
        let unit = match &word[split..] {
            "" => match words.peek() {
                Some(unit) if unit.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    words.next()?
                }
                // a bare number is days before a time, and else seconds
                Some(clock) if clock.contains(':') => "d",
                _ => "s",
            },
            unit => unit,
        };
        let bits = span.add(value, unit)?;
        span.once(bits)?;
    }
    Some(span)
}

/// Hours may exceed a day here.
fn long_clock(text: &str) -> Option<i128> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut fields = clock.split(':');
    let hours: i64 = fields
        .next()
        .filter(|h| h.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()?;
    let minutes = number(fields.next()?)?;
    let seconds = fields.next().map_or(Some(0), number)?;
    if fields.next().is_some() || minutes > 59 || seconds > 60 {
        return None;
    }
    let whole = i128::from(hours) * 3_600 + i128::from(minutes * 60 + seconds);
    Some(whole * i128::from(SECOND) + i128::from(micros_of(fraction)?))
}

/// A plain decimal; exponents and names of infinity are no interval fields.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        .then(|| text.parse().ok())?
}

/// `P1Y2M3DT4H5M6.7S`.
fn iso_interval(text: &str) -> Option<Span> {
    let mut span = Span::default();
    let mut rest = &text[1..];
    let mut clock = false;
    let mut any = false;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix(['T', 't']) {
            if std::mem::replace(&mut clock, true) {
                return None;
            }
            rest = tail;
            continue;
        }
        let split = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let value = decimal(&rest[..split])?;
        let unit = match (clock, rest.as_bytes()[split].to_ascii_uppercase()) {
            (false, b'Y') => "y",
            (false, b'M') => "mon",
            (false, b'W') => "w",
            (false, b'D') => "d",
            (true, b'H') => "h",
            (true, b'M') => "m",
            (true, b'S') => "s",
            _ => return None,
        };
        span.add(value, unit)?;
        rest = &rest[split + 1..];
        any = true;
    }
    any.then_some(span)
}
