//! `to_char`, `to_date` and `to_timestamp`: times by PostgreSQL's template patterns.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use chrono::{DateTime, TimeZone};
use chrono_tz::{OffsetName, Tz};
use datafusion::common::ScalarValue;

use super::readings::parse;
use super::{Entry, Row, Ty, invalid, strict, text};
use crate::error::{Error, SqlState};
use crate::values::calendar::{DAY, civil, days_of, east_of, offset_at};

pub(super) const LIST: &[Entry] = &[
    strict(
        "to_char",
        &[
            &[Ty::Timestamp, Ty::Text],
            &[Ty::Timestamptz, Ty::Text],
            &[Ty::Interval, Ty::Text],
            &[Ty::Numeric, Ty::Text],
            &[Ty::Float8, Ty::Text],
        ],
        Ty::Text,
        to_char,
    ),
    strict("to_date", &[&[Ty::Text, Ty::Text]], Ty::Date, |row| {
        let (days, _, _) = parse(row.text(0), row.text(1))?;
        let days = i32::try_from(days).map_err(|_| out_of_range(row.text(0)))?;
        Ok(ScalarValue::Date32(Some(days)))
    }),
    strict(
        "to_timestamp",
        &[&[Ty::Float8], &[Ty::Text, Ty::Text]],
        Ty::Timestamptz,
        |row| match row.len() {
            1 => seconds(row.float(0)),
            _ => {
                let (days, micros, east) = parse(row.text(0), row.text(1))?;
                let local = days
                    .checked_mul(DAY)
                    .and_then(|d| d.checked_add(micros))
                    .ok_or_else(|| out_of_range(row.text(0)))?;
                let east = east.unwrap_or_else(|| east_of(local, row.zone));
                let at = local.checked_sub(east * 1_000_000);
                Ok(instant(at.ok_or_else(|| out_of_range(row.text(0)))?))
            }
        },
    ),
];

fn instant(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
}

pub(super) fn out_of_range(value: &str) -> Error {
    Error::refused(
        SqlState("22008"),
        format!("date/time field value out of range: \"{value}\""),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked before"
)]
fn seconds(value: f64) -> Result<ScalarValue, Error> {
    if value.is_nan() {
        return Err(Error::refused(SqlState("22008"), "timestamp cannot be NaN"));
    }
    let micros = (value * 1e6).round_ties_even();
    if value.is_infinite() {
        return Ok(instant(if value > 0.0 { i64::MAX } else { i64::MIN }));
    }
    if micros.abs() >= i64::MAX as f64 {
        return Err(Error::refused(
            SqlState("22008"),
            format!("timestamp out of range: \"{value}\""),
        ));
    }
    Ok(instant(micros as i64))
}

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Field {
        name: &'static str,
        /// The letters as they are written decide about the case of words.
        case: Case,
        fill: bool,
        /// `TH` behind it; in small letters or not.
        ordinal: Option<bool>,
    },
    Literal(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

/// Longer names before those that they begin with.
const FIELDS: [&str; 55] = [
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2",
    "FF3", "FF4", "FF5", "FF6", "HH24", "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I",
    "J", "MI", "MM", "MONTH", "MON", "MS", "OF", "P.M.", "PM", "Q", "RM", "SSSSS", "SSSS", "SS",
    "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY", "YYY", "YY", "Y", "FX", "SP",
];

pub(super) fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    let mut literal = String::new();
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let mut quoted = rest[1..].char_indices();
            let mut end = rest.len();
            while let Some((at, c)) = quoted.next() {
                match c {
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    '\\' => literal.extend(quoted.next().map(|(_, c)| c)),
                    c => literal.push(c),
                }
            }
            rest = &rest[end.min(rest.len())..];
            continue;
        }
        if c == '\\' && rest[1..].starts_with('"') {
            literal.push('"');
            rest = &rest[2..];
            continue;
        }
        let mut at = rest;
        let mut fill = true;
        while let Some(prefix) = at
            .get(..2)
            .filter(|p| matches!(*p, "FM" | "fm" | "TM" | "tm"))
        {
            fill = fill && !prefix.eq_ignore_ascii_case("FM") && !prefix.eq_ignore_ascii_case("TM");
            at = &at[2..];
        }
        let Some((name, case)) = FIELDS.iter().find_map(|name| written(at, name)) else {
            literal.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        rest = &at[name.len()..];
        let ordinal = match rest.get(..2) {
            Some("TH") => Some(false),
            Some("th") => Some(true),
            _ => None,
        };
        if ordinal.is_some() {
            rest = &rest[2..];
        }
        if !matches!(name, "FX" | "SP") {
            pieces.push(Piece::Field {
                name,
                case,
                fill,
                ordinal,
            });
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

fn written(rest: &str, name: &'static str) -> Option<(&'static str, Case)> {
    let start = rest.get(..name.len())?;
    if start == name {
        return Some((name, Case::Upper));
    }
    if start == name.to_ascii_lowercase() {
        return Some((name, Case::Lower));
    }
    let capital = matches!(name, "MONTH" | "MON" | "DAY" | "DY")
        && start[..1] == name[..1]
        && start[1..] == name[1..].to_ascii_lowercase();
    capital.then_some((name, Case::Capital))
}

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
pub(super) const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

/// What a pattern shows: a time, or an interval.
struct Moment {
    is_interval: bool,
    year: i64,
    month: i64,
    day: i64,
    /// Days since 1970-01-01.
    days: i64,
    /// Microseconds of the day, or of an interval's time.
    micros: i64,
    east: i64,
    zone: String,
}

fn to_char(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let moment = match row.ty(0) {
        DataType::Timestamp(_, zone) => {
            let at = row.int(0);
            if matches!(at, i64::MAX | i64::MIN) {
                return Ok(text(if at > 0 { "infinity" } else { "-infinity" }));
            }
            match zone {
                Some(_) => Moment::zoned(at, row.zone),
                None => Moment::of(at, 0, String::new()),
            }
        }
        DataType::Interval(_) => Moment::span(row.span(0)),
        _ => return super::digits::to_char(row),
    };
    let mut out = String::new();
    for piece in pieces(row.text(1)) {
        match piece {
            Piece::Literal(literal) => out.push_str(&literal),
            Piece::Field {
                name,
                case,
                fill,
                ordinal,
            } => moment.show(name, case, fill, ordinal, &mut out)?,
        }
    }
    Ok(text(out))
}

impl Moment {
    fn zoned(at: i64, zone: Tz) -> Self {
        let east = i64::from(offset_at(at, zone));
        let name = DateTime::from_timestamp_micros(at)
            .map(|at| zone.offset_from_utc_datetime(&at.naive_utc()))
            .and_then(|offset| offset.abbreviation().map(str::to_owned));
        Self::of(
            at.saturating_add(east * 1_000_000),
            east,
            name.unwrap_or_default(),
        )
    }

    fn of(local: i64, east: i64, zone: String) -> Self {
        let days = local.div_euclid(DAY);
        let (year, month, day) = civil(days);
        Self {
            is_interval: false,
            year,
            month,
            day,
            days,
            micros: local.rem_euclid(DAY),
            east,
            zone,
        }
    }

    fn span(span: IntervalMonthDayNano) -> Self {
        let months = i64::from(span.months);
        Self {
            is_interval: true,
            year: months / 12,
            month: months % 12,
            day: span.days.into(),
            days: 0,
            micros: span.nanoseconds / 1_000,
            east: 0,
            zone: String::new(),
        }
    }

    fn show(
        &self,
        name: &str,
        case: Case,
        fill: bool,
        ordinal: Option<bool>,
        out: &mut String,
    ) -> Result<(), Error> {
        if self.is_interval && !FOR_INTERVALS.contains(&name) {
            return Err(
                invalid("invalid format specification for an interval value")
                    .with_hint("intervals are not tied to specific calendar dates"),
            );
        }
        if let Some((value, width)) = self.number(name) {
            let digits = match (name, fill) {
                ("Y,YYY", _) => format!("{},{:03}", value / 1000, (value % 1000).abs()),
                (_, false) => value.to_string(),
                (_, true) if value < 0 => format!("{value:0w$}", w = width + 1),
                (_, true) => format!("{value:0width$}"),
            };
            out.push_str(&digits);
            if let Some(small) = ordinal {
                let end = ending(&digits);
                out.push_str(&if small {
                    end.to_owned()
                } else {
                    end.to_ascii_uppercase()
                });
            }
            return Ok(());
        }
        self.word(name, case, fill, out);
        Ok(())
    }

    /// The value of a field of digits, and how many it has at least.
    fn number(&self, name: &str) -> Option<(i64, usize)> {
        let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
        let hours = seconds / 3_600;
        let year = match self.year {
            year if self.is_interval || year > 0 => year,
            year => 1 - year,
        };
        let first = days_of(self.year, 1, 1);
        let of_year = self.days - first + 1;
        let (iso_year, iso_week) = self.iso();
        Some(match name {
            "HH" | "HH12" => match hours % 12 {
                0 => (12, 2),
                hour => (hour, 2),
            },
            "HH24" => (hours, 2),
            "MI" => (seconds / 60 % 60, 2),
            "SS" => (seconds % 60, 2),
            "MS" | "FF3" => (micros / 1_000, 3),
            "US" | "FF6" => (micros, 6),
            "FF1" => (micros / 100_000, 1),
            "FF2" => (micros / 10_000, 2),
            "FF4" => (micros / 100, 4),
            "FF5" => (micros / 10, 5),
            "SSSS" | "SSSSS" => (seconds, 1),
            "YYYY" => (year, 4),
            "Y,YYY" => (year, 1),
            "YYY" => (year % 1000, 3),
            "YY" => (year % 100, 2),
            "Y" => (year % 10, 1),
            "IYYY" => (iso_year, 4),
            "IYY" => (iso_year % 1000, 3),
            "IY" => (iso_year % 100, 2),
            "I" => (iso_year % 10, 1),
            "MM" => (self.month, 2),
            "DDD" if self.is_interval => (year * 360 + self.month * 30 + self.day, 3),
            "DDD" => (of_year, 3),
            "IDDD" => (self.days - monday(iso_year) + 1, 3),
            "DD" => (self.day, 2),
            "D" => (weekday(self.days) + 1, 1),
            "ID" => (iso_weekday(self.days), 1),
            "WW" => ((of_year - 1) / 7 + 1, 2),
            "IW" => (iso_week, 2),
            "W" => ((self.day - 1) / 7 + 1, 1),
            "Q" => ((self.month - 1) / 3 + 1, 1),
            "CC" if self.is_interval => (year / 100, 2),
            "CC" if self.year > 0 => ((self.year + 99) / 100, 2),
            "CC" => (-((year + 99) / 100), 2),
            "J" => (self.days + 2_440_588, 1),
            _ => return None,
        })
    }

    fn iso(&self) -> (i64, i64) {
        let mut year = self.year;
        if self.days >= monday(year + 1) {
            year += 1;
        } else if self.days < monday(year) {
            year -= 1;
        }
        (year, (self.days - monday(year)) / 7 + 1)
    }

    fn word(&self, name: &str, case: Case, fill: bool, out: &mut String) {
        let cased = |word: &str| match case {
            Case::Upper => word.to_ascii_uppercase(),
            Case::Capital => word.to_owned(),
            Case::Lower => word.to_ascii_lowercase(),
        };
        let named = |list: &[&str], at: i64| {
            let at = usize::try_from(at).unwrap_or_default();
            list.get(at).copied().unwrap_or_default().to_owned()
        };
        let short = |word: String| word.chars().take(3).collect::<String>();
        let padded = |word: &str, width: usize| match fill {
            true => format!("{word:<width$}"),
            false => word.to_owned(),
        };
        let afternoon = self.micros / 3_600_000_000 % 24 >= 12;
        let sign = if self.east < 0 { '-' } else { '+' };
        let minutes = self.east.abs() / 60;
        let shown = match name {
            "MONTH" => padded(&cased(&named(&MONTHS, self.month - 1)), 9),
            "MON" => cased(&short(named(&MONTHS, self.month - 1))),
            "DAY" => padded(&cased(&named(&DAYS, weekday(self.days))), 9),
            "DY" => cased(&short(named(&DAYS, weekday(self.days)))),
            "RM" if self.month == 0 && self.year == 0 => String::new(),
            "RM" => {
                let at = match self.month {
                    0 if self.year < 0 => 0,
                    0 => 11,
                    month if month < 0 => 12 + month,
                    month => month - 1,
                };
                padded(&cased(&named(&ROMAN, at)), 4)
            }
            "AM" | "PM" => cased(if afternoon { "PM" } else { "AM" }),
            "A.M." | "P.M." => cased(if afternoon { "P.M." } else { "A.M." }),
            "AD" | "BC" => cased(if self.year > 0 { "AD" } else { "BC" }),
            "A.D." | "B.C." => cased(if self.year > 0 { "A.D." } else { "B.C." }),
            "TZ" => cased(&self.zone),
            "TZH" => format!("{sign}{:02}", minutes / 60),
            "TZM" => format!("{:02}", minutes % 60),
            "OF" if minutes % 60 == 0 => format!("{sign}{:02}", minutes / 60),
            "OF" => format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
            _ => String::new(),
        };
        out.push_str(&shown);
    }
}

/// What an interval has.
const FOR_INTERVALS: [&str; 36] = [
    "HH", "HH12", "HH24", "MI", "SS", "MS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "SSSS",
    "SSSSS", "AM", "PM", "A.M.", "P.M.", "YYYY", "Y,YYY", "YYY", "YY", "Y", "IYYY", "IYY", "IY",
    "I", "MM", "DDD", "DD", "CC", "Q", "RM", "J", "W",
];

/// The first day of a year's first ISO week.
pub(super) fn monday(year: i64) -> i64 {
    let fourth = days_of(year, 1, 4);
    fourth - (iso_weekday(fourth) - 1)
}

/// 0 is Sunday; 1970-01-01 was a Thursday.
fn weekday(days: i64) -> i64 {
    (days + 4).rem_euclid(7)
}

fn iso_weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

fn ending(digits: &str) -> &'static str {
    let tens = digits.len() > 1 && digits.as_bytes()[digits.len() - 2] == b'1';
    match digits.as_bytes().last() {
        Some(b'1') if !tens => "st",
        Some(b'2') if !tens => "nd",
        Some(b'3') if !tens => "rd",
        _ => "th",
    }
}
