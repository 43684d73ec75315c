//! Numbers by PostgreSQL's template patterns: `to_char` of a number, and `to_number`.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::{Entry, Row, Ty, strict, text};
use crate::error::{Error, SqlState};

pub(super) const LIST: &[Entry] = &[strict(
    "to_number",
    &[&[Ty::Text, Ty::Text]],
    Ty::Numeric,
    to_number,
)];

/// Digits after the point of `numeric` without digits.
const SCALE: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Before the first digit, a blank for positive numbers.
    Plain,
    /// `S`: always shown, before the first digit or at the end.
    Anchored { last: bool },
    /// `MI` and `SG` have their place; `SG` is always shown.
    Placed,
    /// `PR`: in angle brackets.
    Brackets,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Digit { zero: bool },
    Point,
    Comma,
    Minus,
    Sign,
    Literal(String),
}

struct Pattern {
    pieces: Vec<Piece>,
    fill: bool,
    sign: Sign,
    ordinal: Option<bool>,
    /// Digits before and after the point.
    before: usize,
    after: usize,
}

fn pattern(written: &str) -> Result<Pattern, Error> {
    let mut found = Pattern {
        pieces: Vec::new(),
        fill: true,
        sign: Sign::Plain,
        ordinal: None,
        before: 0,
        after: 0,
    };
    let mut point = false;
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        let upper = rest.get(..2).map(str::to_ascii_uppercase);
        match upper.as_deref() {
            Some("FM") => {
                found.fill = false;
                rest = &rest[2..];
                continue;
            }
            Some("MI") | Some("SG") => {
                found.sign = Sign::Placed;
                found.pieces.push(match upper.as_deref() {
                    Some("MI") => Piece::Minus,
                    _ => Piece::Sign,
                });
                rest = &rest[2..];
                continue;
            }
            Some("PR") => {
                found.sign = Sign::Brackets;
                rest = &rest[2..];
                continue;
            }
            Some("TH") => {
                found.ordinal = Some(rest.starts_with('t'));
                rest = &rest[2..];
                continue;
            }
            Some("RN" | "PL" | "EE") => return Err(unsupported(&rest[..2])),
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '9' | '0' => {
                match point {
                    true => found.after += 1,
                    false => found.before += 1,
                }
                found.pieces.push(Piece::Digit { zero: c == '0' });
            }
            '.' | 'D' | 'd' => {
                if point {
                    return Err(Error::refused(
                        SqlState::SYNTAX_ERROR,
                        "multiple decimal points",
                    ));
                }
                point = true;
                found.pieces.push(Piece::Point);
            }
            ',' | 'G' | 'g' => found.pieces.push(Piece::Comma),
            'S' | 's' => {
                let last = found
                    .pieces
                    .iter()
                    .any(|p| matches!(p, Piece::Digit { .. }));
                found.sign = Sign::Anchored { last };
            }
            'V' | 'v' | 'L' | 'l' => return Err(unsupported(&c.to_string())),
            '\\' if rest.starts_with('"') => {
                found.pieces.push(Piece::Literal("\"".to_owned()));
                rest = &rest[1..];
            }
            '"' => {
                let mut literal = String::new();
                let mut quoted = rest.char_indices();
                let mut end = rest.len();
                while let Some((at, c)) = quoted.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => literal.extend(quoted.next().map(|(_, c)| c)),
                        c => literal.push(c),
                    }
                }
                found.pieces.push(Piece::Literal(literal));
                rest = rest.get(end..).unwrap_or_default();
            }
            c => found.pieces.push(Piece::Literal(c.to_string())),
        }
    }
    Ok(found)
}

fn unsupported(field: &str) -> Error {
    Error::unsupported(
        format!("number pattern \"{field}\" is not supported"),
        "the fields 9 0 . , D G S MI SG PR TH FM are",
    )
}

pub(super) fn to_char(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let mut pattern = pattern(row.text(1))?;
    let (negative, whole, fraction) = match row.ty(0) {
        DataType::Float64 => {
            let value = row.float(0);
            if !value.is_finite() {
                return Err(Error::unsupported(
                    "to_char of a number that is not finite is not supported",
                    "leave such numbers out with CASE",
                ));
            }
            // a double has 15 digits to show
            let whole = format!("{:.0}", value.abs()).len();
            pattern.after = pattern.after.min(15_usize.saturating_sub(whole));
            let shown = format!("{:.*}", pattern.after, value.abs());
            let (whole, fraction) = shown.split_once('.').unwrap_or((&shown, ""));
            (value < 0.0, whole.to_owned(), fraction.to_owned())
        }
        _ => {
            let (value, scale) = row.decimal(0);
            rounded(value, scale, pattern.after)
        }
    };
    // what is rounded to zero has no sign
    let zero = whole.bytes().chain(fraction.bytes()).all(|b| b == b'0');
    Ok(text(shown(&pattern, negative && !zero, &whole, &fraction)))
}

/// Sign, whole and fractional digits of a decimal rounded to so many digits, half away from zero.
fn rounded(value: i128, scale: i8, digits: usize) -> (bool, String, String) {
    let scale = usize::try_from(scale).unwrap_or_default();
    let mut units = value.unsigned_abs();
    if scale > digits {
        let step = 10_u128.pow(u32::try_from(scale - digits).unwrap_or_default());
        units = units / step + u128::from(units % step >= step / 2);
    }
    let kept = scale.min(digits);
    let all = format!("{units:0width$}", width = kept + 1);
    let (whole, fraction) = all.split_at(all.len() - kept);
    let fraction = format!("{fraction:0<digits$}");
    (value < 0, whole.to_owned(), fraction)
}

fn shown(pattern: &Pattern, negative: bool, whole: &str, fraction: &str) -> String {
    let overflows = whole.len() > pattern.before && whole != "0";
    // a zero before the point shows only where the pattern has a 0 or nothing behind it
    let whole = match whole {
        "0" if pattern.after > 0 || pattern.before == 0 => "",
        whole => whole,
    };
    let mut places: Vec<bool> = Vec::new();
    let mut last_zero = 0;
    let mut point = false;
    let mut at = 0;
    for piece in &pattern.pieces {
        match piece {
            Piece::Point => point = true,
            Piece::Digit { zero } if point => {
                at += 1;
                if *zero {
                    last_zero = at;
                }
            }
            Piece::Digit { zero } => places.push(*zero),
            _ => {}
        }
    }
    let first_zero = places.iter().position(|z| *z).unwrap_or(places.len());
    let first_digit = pattern.before.saturating_sub(whole.len());
    let starts = first_digit.min(first_zero);
    let written_after = at;
    let relevant = match pattern.fill {
        true => pattern.after,
        false => fraction.trim_end_matches('0').len().max(last_zero),
    };
    let mut out = String::new();
    let mut begun = None;
    let (mut place, mut behind, mut point) = (0, 0, false);
    let begin = |out: &String, begun: &mut Option<usize>| {
        begun.get_or_insert(out.len());
    };
    for piece in &pattern.pieces {
        match piece {
            Piece::Digit { .. } if !point => {
                if overflows {
                    begin(&out, &mut begun);
                    out.push('#');
                } else if place >= starts {
                    begin(&out, &mut begun);
                    let digit = place
                        .checked_sub(first_digit)
                        .and_then(|i| whole.as_bytes().get(i));
                    out.push(digit.map_or('0', |d| char::from(*d)));
                } else if pattern.fill {
                    out.push(' ');
                }
                place += 1;
            }
            Piece::Digit { .. } => {
                if behind >= pattern.after {
                    // a double has no such digit
                } else if overflows {
                    out.push('#');
                } else if behind < relevant {
                    let digit = fraction.as_bytes().get(behind);
                    out.push(digit.map_or('0', |d| char::from(*d)));
                }
                behind += 1;
            }
            Piece::Point if pattern.after == 0 && (!pattern.fill || written_after > 0) => {
                point = true
            }
            Piece::Point => {
                begin(&out, &mut begun);
                point = true;
                out.push('.');
            }
            Piece::Comma if begun.is_some() => out.push(','),
            Piece::Comma if pattern.fill => out.push(' '),
            Piece::Comma => {}
            Piece::Minus if negative => out.push('-'),
            Piece::Minus if pattern.fill => out.push(' '),
            Piece::Minus => {}
            Piece::Sign => out.push(if negative { '-' } else { '+' }),
            Piece::Literal(literal) => out.push_str(literal),
        }
    }
    let begun = begun.unwrap_or(out.len());
    match pattern.sign {
        Sign::Plain if negative => out.insert(begun, '-'),
        Sign::Plain if pattern.fill => out.insert(begun, ' '),
        Sign::Anchored { last: true } => out.push(if negative { '-' } else { '+' }),
        Sign::Anchored { last: false } => out.insert(begun, if negative { '-' } else { '+' }),
        Sign::Brackets if negative => {
            out.insert(begun, '<');
            out.push('>');
        }
        Sign::Brackets if pattern.fill => {
            out.insert(begun, ' ');
            out.push(' ');
        }
        Sign::Plain | Sign::Placed | Sign::Brackets => {}
    }
    if let Some(small) = pattern.ordinal
        && !negative
        && pattern.after == 0
    {
        let tens = whole.len() > 1 && whole.as_bytes()[whole.len() - 2] == b'1';
        let end = match whole.as_bytes().last() {
            Some(b'1') if !tens => "st",
            Some(b'2') if !tens => "nd",
            Some(b'3') if !tens => "rd",
            _ => "th",
        };
        out.push_str(&if small {
            end.to_owned()
        } else {
            end.to_ascii_uppercase()
        });
    }
    out
}

fn to_number(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let pattern = pattern(row.text(1))?;
    let input = row.text(0);
    let negative = input.contains('-')
        || (pattern.sign == Sign::Brackets && input.trim_start().starts_with('<'));
    let mut whole = String::new();
    let mut fraction = String::new();
    let mut point = false;
    for c in input.chars() {
        match c {
            '.' if !point && pattern.pieces.contains(&Piece::Point) => point = true,
            '.' => break,
            c if c.is_ascii_digit() && point && fraction.len() < pattern.after => fraction.push(c),
            c if c.is_ascii_digit() && !point && whole.len() < pattern.before => whole.push(c),
            c if c.is_ascii_digit() => break,
            _ => {}
        }
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(Error::refused(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type numeric: \"{input}\""),
        ));
    }
    let digits = format!("{whole}{fraction:0<SCALE$.SCALE$}");
    let value: i128 = digits
        .parse()
        .map_err(|_| Error::refused(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range"))?;
    let value = if negative { -value } else { value };
    Ok(ScalarValue::Decimal128(Some(value), 38, 10))
}
