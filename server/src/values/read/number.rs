//! Numbers: text and binary input.

use std::str::FromStr;

use super::{bad_binary, bad_syntax, shown};
use crate::error::{Error, Result, SqlState};

fn out_of_range(kind: &str, text: &str) -> Error {
    Error::refused(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value \"{}\" is out of range for type {kind}", shown(text)),
    )
}

fn integer<T: FromStr<Err = std::num::ParseIntError>>(kind: &str, text: &str) -> Result<T> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim_ascii()
        .parse()
        .map_err(|e: std::num::ParseIntError| match e.kind() {
            PosOverflow | NegOverflow => out_of_range(kind, text),
            _ => bad_syntax(kind, text),
        })
}

pub(super) fn int2(text: &str) -> Result<i16> {
    integer("smallint", text)
}

pub(super) fn int4(text: &str) -> Result<i32> {
    integer("integer", text)
}

pub(super) fn int8(text: &str) -> Result<i64> {
    integer("bigint", text)
}

pub(super) fn float8(text: &str) -> Result<f64> {
    let plain = text.trim_ascii();
    let value: f64 = plain
        .parse()
        .map_err(|_| bad_syntax("double precision", text))?;
    let lost = value.is_infinite() && plain.bytes().any(|b| b.is_ascii_digit());
    if lost || (value == 0.0 && !is_zero(plain)) {
        return Err(out_of_range("double precision", text));
    }
    Ok(value)
}

/// Whether a number's digits, before its exponent, are all zero.
fn is_zero(plain: &str) -> bool {
    let mantissa = plain.split(['e', 'E']).next().unwrap_or(plain);
    !mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b))
}

pub(super) fn float4(text: &str) -> Result<f32> {
    let plain = text.trim_ascii();
    let value: f32 = plain.parse().map_err(|_| bad_syntax("real", text))?;
    let lost = value.is_infinite() && plain.bytes().any(|b| b.is_ascii_digit());
    if lost || (value == 0.0 && !is_zero(plain)) {
        return Err(out_of_range("real", text));
    }
    Ok(value)
}

/// A decimal as digits and the power of ten of the last one.
struct Parts {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

/// Longest decimal text worth looking at; what is longer cannot fit any column.
const MAX_DIGITS: usize = 2_000;

impl Parts {
    fn of_text(text: &str) -> Result<Self> {
        let bad = || bad_syntax("numeric", text);
        let mut rest = text.trim_ascii().as_bytes();
        let negative = rest.first() == Some(&b'-');
        if let [b'-' | b'+', tail @ ..] = rest {
            rest = tail;
        }
        if matches!(
            rest.to_ascii_lowercase().as_slice(),
            b"nan" | b"inf" | b"infinity"
        ) {
            return Err(no_special());
        }
        let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => {
                let exponent = std::str::from_utf8(&rest[at + 1..]).map_err(|_| bad())?;
                (&rest[..at], exponent.parse::<i32>().map_err(|_| bad())?)
            }
            None => (rest, 0),
        };
        if mantissa.len() > MAX_DIGITS {
            return Err(out_of_range("numeric", text));
        }
        let mut digits = Vec::with_capacity(mantissa.len());
        let mut after_point = None;
        for byte in mantissa {
            match byte {
                b'0'..=b'9' => {
                    digits.push(byte - b'0');
                    after_point = after_point.map(|n: i64| n + 1);
                }
                b'.' if after_point.is_none() => after_point = Some(0),
                _ => return Err(bad()),
            }
        }
        if digits.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            negative,
            digits,
            exponent: i64::from(exponent) - after_point.unwrap_or(0),
        })
    }

    fn of_binary(bytes: &[u8]) -> Result<Self> {
        let bad = || bad_binary("numeric");
        let word = |i: usize| {
            let pair = bytes.get(i * 2..i * 2 + 2).ok_or_else(bad)?;
            Ok::<_, Error>(u16::from_be_bytes([pair[0], pair[1]]))
        };
        let count = usize::from(word(0)?);
        let weight = i64::from(i16::from_be_bytes(word(1)?.to_be_bytes()));
        let negative = match word(2)? {
            0 => false,
            0x4000 => true,
            0xc000 | 0xd000 | 0xf000 => return Err(no_special()),
            _ => return Err(bad()),
        };
        if bytes.len() != 8 + count * 2 {
            return Err(bad());
        }
        let mut digits = Vec::with_capacity(count * 4);
        for i in 0..count {
            let group = word(4 + i)?;
            if group > 9_999 {
                return Err(bad());
            }
            for power in [1_000, 100, 10, 1] {
                digits.push(u8::try_from(group / power % 10).unwrap_or_default());
            }
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Ok(Self {
            negative,
            digits,
            exponent: 4 * (weight - count + 1),
        })
    }

    /// The unscaled value at a scale, rounded half away from zero.
    fn at_scale(&self, precision: u8, scale: i8) -> Result<i128> {
        let overflow = || {
            Error::refused(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "numeric field overflow",
            )
            .with_detail(format!(
                "a field with precision {precision}, scale {scale} cannot hold the value"
            ))
        };
        // how many of the digits stand at or above the last kept position
        let shift = self.exponent + i64::from(scale);
        let length = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let kept = usize::try_from((length + shift.min(0)).max(0)).unwrap_or_default();
        let mut value: i128 = 0;
        let push = |value: i128, digit: u8| {
            value
                .checked_mul(10)
                .and_then(|v| v.checked_add(i128::from(digit)))
                .ok_or_else(overflow)
        };
        for digit in &self.digits[..kept] {
            value = push(value, *digit)?;
        }
        if value != 0 {
            for _ in 0..shift.max(0) {
                value = push(value, 0)?;
            }
        }
        let round = length + shift >= 0 && self.digits.get(kept).is_some_and(|d| *d >= 5);
        if round {
            value = value.checked_add(1).ok_or_else(overflow)?;
        }
        let limit = 10i128.checked_pow(precision.into()).ok_or_else(overflow)?;
        if value >= limit {
            return Err(overflow());
        }
        Ok(if self.negative { -value } else { value })
    }
}

fn no_special() -> Error {
    Error::refused(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "numeric cannot hold NaN or infinity",
    )
    .with_hint("use double precision")
}

pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128> {
    Parts::of_text(text)?.at_scale(precision, scale)
}

pub(super) fn decimal_binary(bytes: &[u8], precision: u8, scale: i8) -> Result<i128> {
    Parts::of_binary(bytes)?.at_scale(precision, scale)
}

/// Digits after the point that a numeric value needs; a value that cannot be read needs none, its
/// error comes when it is read.
pub(in super::super) fn natural_scale(bytes: &[u8], binary: bool) -> i8 {
    let parts = if binary {
        Parts::of_binary(bytes)
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) => Parts::of_text(text),
            Err(_) => return 0,
        }
    };
    let Ok(parts) = parts else { return 0 };
    let zeros = parts.digits.iter().rev().take_while(|d| **d == 0).count();
    let last = parts.exponent + i64::try_from(zeros).unwrap_or_default();
    i8::try_from((-last).clamp(0, 38)).unwrap_or_default()
}
