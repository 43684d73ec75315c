//! An interval times or over a number, as PostgreSQL's `interval_mul` has it: a fraction of a month
//! goes down to days of 30 a month, a fraction of a day to 24 hours.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, SqlState};

const DAY_MICROS: f64 = 86_400e6;

/// `interval * double precision`.
pub(super) fn times(interval: Expr, factor: Expr) -> Expr {
    call(false, vec![interval, factor])
}

/// `interval / double precision`.
pub(super) fn over(interval: Expr, divisor: Expr) -> Expr {
    call(true, vec![interval, divisor])
}

fn call(divide: bool, args: Vec<Expr>) -> Expr {
    let function = Scale {
        divide,
        signature: Signature::any(2, Volatility::Immutable),
    };
    Arc::new(ScalarUDF::from(function)).call(args)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scale {
    divide: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Scale {
    fn name(&self) -> &'static str {
        if self.divide {
            "interval_divide"
        } else {
            "interval_multiply"
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let spans = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
        let factors = arrays[1].as_primitive::<Float64Type>();
        let scaled = (0..spans.len())
            .map(|row| {
                if spans.is_null(row) || factors.is_null(row) {
                    return Ok(None);
                }
                let factor = factors.value(row);
                match self.divide {
                    true if factor == 0.0 => Err(ArrowError::DivideByZero.into()),
                    true => scale(spans.value(row), |v| v / factor).map(Some),
                    false => scale(spans.value(row), |v| v * factor).map(Some),
                }
            })
            .collect::<Result<IntervalMonthDayNanoArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(scaled) as ArrayRef))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "ranges are checked; an interval's microseconds are exact in a double below 285 years"
)]
fn scale(span: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano> {
    let out_of_range = || Error::refused(SqlState("22008"), "interval out of range");
    let narrow = |v: f64| {
        (v.abs() <= f64::from(i32::MAX))
            .then_some(v)
            .ok_or_else(out_of_range)
    };
    let months = by(f64::from(span.months));
    let days = by(f64::from(span.days));
    let spilled = to_micro((months - months.trunc()) * 30.0);
    let rest = to_micro((days - days.trunc() + spilled - spilled.trunc()) * 86_400.0) * 1e6;
    let mut whole_days = narrow(days)?.trunc() + spilled.trunc();
    let mut rest_micros = rest;
    if rest.abs() >= DAY_MICROS {
        whole_days += (rest / DAY_MICROS).trunc();
        rest_micros = rest - (rest / DAY_MICROS).trunc() * DAY_MICROS;
    }
    let micros = (by(span.nanoseconds as f64 / 1e3) + rest_micros).round_ties_even();
    if micros.is_nan() || micros.abs() * 1e3 >= i64::MAX as f64 {
        return Err(out_of_range().into());
    }
    Ok(IntervalMonthDayNano {
        months: narrow(months)?.trunc() as i32,
        days: narrow(whole_days)? as i32,
        nanoseconds: micros as i64 * 1_000,
    })
}

/// Rounds to six digits after the point, so that noise of the division does not show.
fn to_micro(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}
