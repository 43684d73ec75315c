//! Functions of numbers: logarithms, roots and powers that report what they cannot give, angles in
//! degrees, digits of decimals.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::{Entry, Gives, Nulls, Row, Ty, int4, strict, text};
use crate::error::{Error, SqlState};

pub(super) const LIST: &[Entry] = &[
    strict("ln", &[&[Ty::Float8]], Ty::Float8, |row| {
        float(logarithm(row.float(0))?.ln())
    }),
    strict("log10", &[&[Ty::Float8]], Ty::Float8, |row| {
        float(logarithm(row.float(0))?.log10())
    }),
    strict(
        "log",
        &[&[Ty::Float8], &[Ty::Float8, Ty::Float8]],
        Ty::Float8,
        |row| {
            let first = logarithm(row.float(0))?;
            if row.len() == 1 {
                return float(first.log10());
            }
            let value = logarithm(row.float(1))?;
            if first.ln() == 0.0 {
                return Err(Error::refused(
                    SqlState::DIVISION_BY_ZERO,
                    "division by zero",
                ));
            }
            float(value.ln() / first.ln())
        },
    ),
    strict("sqrt", &[&[Ty::Float8]], Ty::Float8, |row| {
        match row.float(0) {
            value if value < 0.0 => Err(Error::refused(
                SqlState("2201F"),
                "cannot take square root of a negative number",
            )),
            value => float(value.sqrt()),
        }
    }),
    strict("power", &[&[Ty::Float8, Ty::Float8]], Ty::Float8, power),
    strict("pow", &[&[Ty::Float8, Ty::Float8]], Ty::Float8, power),
    strict("exp", &[&[Ty::Float8]], Ty::Float8, |row| {
        let value = row.float(0);
        in_range(value.exp(), value.is_finite())
    }),
    strict("sign", &[&[Ty::Float8]], Ty::Float8, |row| {
        let value = row.float(0);
        float(match value {
            v if v > 0.0 => 1.0,
            v if v < 0.0 => -1.0,
            v => v,
        })
    }),
    strict("sind", &[&[Ty::Float8]], Ty::Float8, |row| {
        float(degrees(row.float(0))?.sine())
    }),
    strict("cosd", &[&[Ty::Float8]], Ty::Float8, |row| {
        float(degrees(row.float(0) + 90.0)?.sine())
    }),
    strict("tand", &[&[Ty::Float8]], Ty::Float8, |row| {
        let (sine, cosine) = (
            degrees(row.float(0))?.sine(),
            degrees(row.float(0) + 90.0)?.sine(),
        );
        float(sine / cosine + 0.0)
    }),
    strict("cotd", &[&[Ty::Float8]], Ty::Float8, |row| {
        let (sine, cosine) = (
            degrees(row.float(0))?.sine(),
            degrees(row.float(0) + 90.0)?.sine(),
        );
        float(cosine / sine + 0.0)
    }),
    strict("asind", &[&[Ty::Float8]], Ty::Float8, |row| {
        arc(row.float(0), f64::asin, -1.0)
    }),
    strict("acosd", &[&[Ty::Float8]], Ty::Float8, |row| {
        arc(row.float(0), f64::acos, -1.0)
    }),
    strict("atand", &[&[Ty::Float8]], Ty::Float8, |row| {
        float(exact(row.float(0).atan().to_degrees()))
    }),
    strict("atan2d", &[&[Ty::Float8, Ty::Float8]], Ty::Float8, |row| {
        float(exact(row.float(0).atan2(row.float(1)).to_degrees()))
    }),
    strict("to_hex", &[&[Ty::Int4], &[Ty::Int8]], Ty::Text, |row| {
        Ok(text(match row.ty(0) {
            DataType::Int32 => format!("{:x}", row.int(0) & 0xffff_ffff),
            _ => format!("{:x}", row.int(0)),
        }))
    }),
    strict("scale", &[&[Ty::Numeric]], Ty::Int4, |row| {
        int4(row.decimal(0).1.into())
    }),
    strict("min_scale", &[&[Ty::Numeric]], Ty::Int4, |row| {
        let (value, scale) = row.decimal(0);
        int4(needed(value, scale).into())
    }),
    Entry {
        name: "div",
        overloads: &[&[Ty::Numeric, Ty::Numeric]],
        variadic: false,
        gives: Gives::A(Ty::Numeric),
        nulls: Nulls::Strict,
        eval: div,
    },
    strict(
        "width_bucket",
        &[&[Ty::Float8, Ty::Float8, Ty::Float8, Ty::Int4]],
        Ty::Int4,
        width_bucket,
    ),
];

fn float(value: f64) -> Result<ScalarValue, Error> {
    Ok(ScalarValue::Float64(Some(value)))
}

fn logarithm(value: f64) -> Result<f64, Error> {
    let wrong = |message| Err(Error::refused(SqlState("2201E"), message));
    match value {
        0.0 => wrong("cannot take logarithm of zero"),
        v if v < 0.0 => wrong("cannot take logarithm of a negative number"),
        v => Ok(v),
    }
}

fn in_range(value: f64, finite_input: bool) -> Result<ScalarValue, Error> {
    if value.is_infinite() && finite_input {
        return Err(Error::refused(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "value out of range: overflow",
        ));
    }
    float(value)
}

fn power(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let (base, exponent) = (row.float(0), row.float(1));
    let complex = base < 0.0 && exponent.fract() != 0.0 && exponent.is_finite();
    if base == 0.0 && exponent < 0.0 {
        return Err(Error::refused(
            SqlState("2201F"),
            "zero raised to a negative power is undefined",
        ));
    }
    if complex {
        return Err(Error::refused(
            SqlState("2201F"),
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    in_range(
        base.powf(exponent),
        base.is_finite() && exponent.is_finite(),
    )
}

/// An angle between 0 and 360 degrees.
struct Degrees(f64);

fn degrees(value: f64) -> Result<Degrees, Error> {
    if value.is_infinite() {
        return Err(Error::refused(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "input is out of range",
        ));
    }
    Ok(Degrees(value.rem_euclid(360.0)))
}

impl Degrees {
    /// Exact where the sine is: at multiples of 30 and 90.
    fn sine(&self) -> f64 {
        let (angle, sign) = match self.0 {
            a if a >= 180.0 => (a - 180.0, -1.0),
            a => (a, 1.0),
        };
        let angle = if angle > 90.0 { 180.0 - angle } else { angle };
        let sine = match angle {
            0.0 => 0.0,
            30.0 => 0.5,
            90.0 => 1.0,
            a => a.to_radians().sin(),
        };
        if sine == 0.0 { 0.0 } else { sine * sign }
    }
}

fn arc(value: f64, of: fn(f64) -> f64, least: f64) -> Result<ScalarValue, Error> {
    if value < least || value > 1.0 {
        return Err(Error::refused(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "input is out of range",
        ));
    }
    float(exact(of(value).to_degrees()))
}

/// Whole degrees without the noise of the conversion.
fn exact(degrees: f64) -> f64 {
    match (degrees - degrees.round()).abs() < 1e-13 {
        true => degrees.round(),
        false => degrees,
    }
}

/// Digits after the point without zeros at the end.
fn needed(mut value: i128, mut scale: i8) -> i8 {
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    scale
}

fn div(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let ((a, a_scale), (b, b_scale)) = (row.decimal(0), row.decimal(1));
    let wrong = || Error::refused(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range");
    if b == 0 {
        return Err(Error::refused(
            SqlState::DIVISION_BY_ZERO,
            "division by zero",
        ));
    }
    let power = |n: i8| 10_i128.checked_pow(u32::try_from(n.max(0)).unwrap_or_default());
    let scale = |value: i128, by: i8| {
        power(by)
            .and_then(|p| value.checked_mul(p))
            .ok_or_else(wrong)
    };
    let quotient = scale(a, b_scale - a_scale)? / scale(b, a_scale - b_scale)?;
    let value = scale(quotient, 10)?;
    Ok(ScalarValue::Decimal128(Some(value), 38, 10))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float below the count fits"
)]
fn width_bucket(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let (value, low, high, count) = (row.float(0), row.float(1), row.float(2), row.int(3));
    let wrong = |message| Err(Error::refused(SqlState("2201G"), message));
    if count <= 0 {
        return wrong("count must be greater than zero");
    }
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return wrong("operand, lower bound, and upper bound cannot be NaN");
    }
    if !low.is_finite() || !high.is_finite() {
        return wrong("lower and upper bounds must be finite");
    }
    let (value, low, high) = match low < high {
        true => (value, low, high),
        false => (-value, -low, -high),
    };
    let bucket = match value {
        _ if low == high => return wrong("lower bound cannot equal upper bound"),
        v if v < low => 0,
        v if v >= high => count + 1,
        v => {
            let share = (v / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            #[expect(
                clippy::cast_precision_loss,
                reason = "an integer is exact in a double"
            )]
            let place = (count as f64 * share).floor() as i64;
            place + 1
        }
    };
    int4(bucket)
}
