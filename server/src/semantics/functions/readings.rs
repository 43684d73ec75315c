//! Texts read by the patterns of `to_date` and `to_timestamp`.

use super::patterns::{DAYS, MONTHS, Piece, ROMAN, monday, out_of_range, pieces};
use crate::error::{Error, SqlState};
use crate::values::calendar::days_of;

/// What was read.
#[derive(Debug, Default)]
struct Read {
    year: Option<i64>,
    bc: bool,
    month: Option<i64>,
    day: Option<i64>,
    of_year: Option<i64>,
    iso: (Option<i64>, Option<i64>, Option<i64>),
    julian: Option<i64>,
    century: Option<i64>,
    hour: i64,
    twelve: bool,
    afternoon: bool,
    minute: i64,
    second: i64,
    micros: i64,
    of_day: Option<i64>,
    east: Option<i64>,
}

/// Days since 1970-01-01, microseconds of the day, seconds east of UTC where the text says.
pub(super) fn parse(input: &str, pattern: &str) -> Result<(i64, i64, Option<i64>), Error> {
    let pieces = pieces(pattern);
    let mut read = Read::default();
    let mut rest = input;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => rest = passed(rest, literal),
            Piece::Field {
                name,
                fill,
                ordinal,
                ..
            } => {
                rest = rest.trim_start();
                if rest.is_empty() {
                    break;
                }
                // digits right behind are another field's
                let next_is_digits = matches!(
                    pieces.get(at + 1),
                    Some(Piece::Field { name, .. }) if !is_word(name)
                );
                rest = read.field(name, rest, *fill && next_is_digits)?;
                if ordinal.is_some() {
                    rest = rest.get(2..).unwrap_or_default();
                }
            }
        }
    }
    read.finish(input)
}

fn is_word(name: &str) -> bool {
    matches!(
        name,
        "MONTH"
            | "MON"
            | "DAY"
            | "DY"
            | "AM"
            | "PM"
            | "A.M."
            | "P.M."
            | "AD"
            | "BC"
            | "A.D."
            | "B.C."
            | "RM"
            | "TZ"
    )
}

/// Passes over what a pattern has between its fields. A separator stands for any separators; blanks and
/// separators of the input that the pattern lacks are passed over too.
fn passed<'t>(mut rest: &'t str, literal: &str) -> &'t str {
    let separates = |c: char| !c.is_alphanumeric();
    for c in literal.chars() {
        if separates(c) {
            let trimmed = rest.trim_start();
            rest = match trimmed.chars().next() {
                // a sign before digits belongs to them
                Some(found) if separates(found) && !matches!(found, '+' | '-') => {
                    &trimmed[found.len_utf8()..]
                }
                Some(found @ ('+' | '-')) if c != ' ' || found == c => &trimmed[1..],
                _ => trimmed,
            };
        } else if let Some(found) = rest.chars().next() {
            rest = &rest[found.len_utf8()..];
        }
    }
    rest
}

fn mismatch(name: &str, found: &str) -> Error {
    let found: String = found.chars().take(12).collect();
    Error::refused(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid value \"{found}\" for \"{name}\""),
    )
    .with_detail("value must be an integer")
}

/// Digits from the start, at most so many.
fn number<'t>(name: &str, rest: &'t str, most: usize) -> Result<(i64, usize, &'t str), Error> {
    let signed = rest.starts_with(['+', '-']);
    let digits = rest[usize::from(signed)..]
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let end = digits + usize::from(signed);
    let value = rest[..end].parse().map_err(|_| mismatch(name, rest))?;
    Ok((value, digits, &rest[end..]))
}

impl Read {
    #[expect(clippy::too_many_lines, reason = "one arm per field")]
    fn field<'t>(&mut self, name: &str, rest: &'t str, exact: bool) -> Result<&'t str, Error> {
        let take = |width: usize| number(name, rest, if exact { width } else { 10 });
        let at_most = |width: usize| number(name, rest, width);
        Ok(match name {
            "HH" | "HH12" => {
                let (value, _, left) = take(2)?;
                (self.hour, self.twelve) = (value, true);
                left
            }
            "HH24" => {
                let (value, _, left) = take(2)?;
                self.hour = value;
                left
            }
            "MI" => {
                let (value, _, left) = take(2)?;
                self.minute = value;
                left
            }
            "SS" => {
                let (value, _, left) = take(2)?;
                self.second = value;
                left
            }
            "SSSS" | "SSSSS" => {
                let (value, _, left) = take(5)?;
                self.of_day = Some(value);
                left
            }
            "MS" => self.fraction(at_most(3)?)?,
            "US" | "FF6" => self.fraction(at_most(6)?)?,
            "YYYY" | "IYYY" => {
                let (value, _, left) = take(4)?;
                self.set_year(name, value);
                left
            }
            "Y,YYY" => {
                let (thousands, _, left) = at_most(3)?;
                let left = left.strip_prefix(',').ok_or_else(|| mismatch(name, rest))?;
                let (value, _, left) = number(name, left, 3)?;
                self.year = Some(thousands * 1000 + value);
                left
            }
            "YYY" | "IYY" | "YY" | "IY" | "Y" | "I" => {
                let width = name
                    .trim_start_matches('I')
                    .len()
                    .max(name.len() - 1)
                    .max(1);
                let width = if name.starts_with('I') {
                    name.len()
                } else {
                    width.min(name.len())
                };
                let (value, digits, left) = take(width)?;
                self.set_year(name, if digits < 4 { nearest(value) } else { value });
                left
            }
            "MM" => {
                let (value, _, left) = take(2)?;
                self.month = Some(value);
                left
            }
            "DD" => {
                let (value, _, left) = take(2)?;
                self.day = Some(value);
                left
            }
            "DDD" => {
                let (value, _, left) = take(3)?;
                self.of_year = Some(value);
                left
            }
            "IW" => {
                let (value, _, left) = take(2)?;
                self.iso.1 = Some(value);
                left
            }
            "ID" => {
                let (value, _, left) = take(1)?;
                self.iso.2 = Some(value);
                left
            }
            "WW" => {
                let (value, _, left) = take(2)?;
                self.of_year = Some((value - 1) * 7 + 1);
                left
            }
            "W" => {
                let (value, _, left) = take(1)?;
                self.day = Some((value - 1) * 7 + 1);
                left
            }
            "D" | "Q" => take(1)?.2,
            "CC" => {
                let (value, _, left) = take(2)?;
                if !(-99..=99).contains(&value) {
                    return Err(out_of_range(&value.to_string()));
                }
                self.century = Some(value);
                left
            }
            "J" => {
                let (value, _, left) = take(10)?;
                self.julian = Some(value);
                left
            }
            "IDDD" => {
                let (value, _, left) = take(3)?;
                self.iso.1 = Some((value - 1) / 7 + 1);
                self.iso.2 = Some((value - 1) % 7 + 1);
                left
            }
            "MONTH" | "MON" => {
                let (at, left) = word(name, rest, &MONTHS)?;
                self.month = Some(at + 1);
                left
            }
            "DAY" | "DY" => word(name, rest, &DAYS)?.1,
            "RM" => {
                let found = ROMAN
                    .iter()
                    .enumerate()
                    .rev()
                    .filter(|(_, r)| starts(rest, r))
                    .max_by_key(|(_, r)| r.len());
                let (at, roman) = found.ok_or_else(|| mismatch(name, rest))?;
                self.month = Some(i64::try_from(at).unwrap_or_default() + 1);
                &rest[roman.len()..]
            }
            "AM" | "PM" | "A.M." | "P.M." => {
                let (at, left) = one_of(name, rest, &["A.M.", "P.M.", "AM", "PM"])?;
                (self.afternoon, self.twelve) = (at % 2 == 1, true);
                left
            }
            "AD" | "BC" | "A.D." | "B.C." => {
                let (at, left) = one_of(name, rest, &["A.D.", "B.C.", "AD", "BC"])?;
                self.bc = at % 2 == 1;
                left
            }
            "TZH" => {
                let (value, _, left) = at_most(2)?;
                let minutes = self.east.unwrap_or(0);
                let sign = if rest.starts_with('-') { -1 } else { 1 };
                self.east = Some(value * 3_600 + sign * minutes);
                left
            }
            "TZM" => {
                let (value, _, left) = at_most(2)?;
                let hours = self.east.unwrap_or(0);
                self.east = Some(if hours < 0 {
                    hours - value * 60
                } else {
                    hours + value * 60
                });
                left
            }
            _ => {
                return Err(Error::unsupported(
                    format!("formatting field \"{name}\" is only supported in to_char"),
                    "leave it out of the pattern",
                ));
            }
        })
    }

    fn set_year(&mut self, name: &str, value: i64) {
        match name.starts_with('I') {
            true => self.iso.0 = Some(value),
            false => self.year = Some(value),
        }
    }

    fn fraction<'t>(
        &mut self,
        (value, digits, left): (i64, usize, &'t str),
    ) -> Result<&'t str, Error> {
        if value < 0 {
            return Err(out_of_range(&value.to_string()));
        }
        let missing = u32::try_from(6_usize.saturating_sub(digits)).unwrap_or_default();
        self.micros = value * 10_i64.pow(missing);
        Ok(left)
    }

    fn finish(&self, input: &str) -> Result<(i64, i64, Option<i64>), Error> {
        let wrong = || out_of_range(input);
        let mut hour = self.hour;
        if self.twelve {
            if !(1..=12).contains(&hour) && (hour != 0 || self.afternoon) {
                return Err(Error::refused(
                    SqlState::INVALID_DATETIME_FORMAT,
                    format!("hour \"{hour}\" is invalid for the 12-hour clock"),
                )
                .with_hint("use the 24-hour clock, or give an hour between 1 and 12"));
            }
            hour = hour % 12 + if self.afternoon { 12 } else { 0 };
        }
        let in_range = (0..24).contains(&hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second);
        if !in_range {
            return Err(wrong());
        }
        let seconds = match self.of_day {
            Some(seconds) if (0..=86_400).contains(&seconds) => seconds,
            Some(_) => return Err(wrong()),
            None => hour * 3_600 + self.minute * 60 + self.second,
        };
        let mut year = match (self.year, self.century) {
            (Some(year), Some(century)) if (0..100).contains(&year) => (century - 1) * 100 + year,
            (Some(year), _) => year,
            (None, Some(century)) => (century - 1) * 100 + 1,
            // a year that is not given is 1 BC, as a month that is not given is January
            (None, None) => 0,
        };
        if self.bc {
            year = -year;
        }
        if year < 0 {
            year += 1;
        }
        let days = match (self.julian, self.iso) {
            (Some(julian), _) => julian - 2_440_588,
            (None, (Some(year), Some(week), day)) => {
                monday(year) + (week - 1) * 7 + day.unwrap_or(1) - 1
            }
            _ => {
                let month = self.month.unwrap_or(1);
                let day = self.day.unwrap_or(1);
                if !(1..=12).contains(&month) {
                    return Err(wrong());
                }
                match self.of_year {
                    Some(of_year) if self.month.is_none() => days_of(year, 1, 1) + of_year - 1,
                    _ => {
                        let first = days_of(year, month, 1);
                        let next = match month {
                            12 => days_of(year + 1, 1, 1),
                            month => days_of(year, month + 1, 1),
                        };
                        if day < 1 || day > next - first {
                            return Err(wrong());
                        }
                        first + day - 1
                    }
                }
            }
        };
        Ok((days, seconds * 1_000_000 + self.micros, self.east))
    }
}

/// A year of fewer than four digits is the one nearest to 2020.
fn nearest(year: i64) -> i64 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

fn starts(text: &str, word: &str) -> bool {
    text.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// A name in full or its first three letters.
fn word<'t>(name: &str, rest: &'t str, list: &[&str]) -> Result<(i64, &'t str), Error> {
    for (at, full) in list.iter().enumerate() {
        for shown in [full, &full[..3]] {
            if starts(rest, shown) && (shown.len() == 3 || name.len() > 3) {
                let at = i64::try_from(at).unwrap_or_default();
                return Ok((at, &rest[shown.len()..]));
            }
        }
    }
    let found: String = rest.chars().take(12).collect();
    Err(Error::refused(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid value \"{found}\" for \"{name}\""),
    )
    .with_detail("the given value did not match any of the allowed values for this field"))
}

fn one_of<'t>(name: &str, rest: &'t str, list: &[&str]) -> Result<(usize, &'t str), Error> {
    list.iter()
        .position(|w| starts(rest, w))
        .map(|at| (at, &rest[list[at].len()..]))
        .ok_or_else(|| mismatch(name, rest))
}
