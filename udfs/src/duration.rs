//! Constant durations as arguments: `INTERVAL` literals (or their text) in microseconds.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, IntervalUnit, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Expr};
use datafusion::physical_plan::PhysicalExpr;

use crate::FunctionError;

/// The Arrow type intervals are coerced to.
pub(crate) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Microseconds of a constant interval; a day counts 24 hours. `what` names function and argument.
///
/// # Errors
/// NULL, no interval, months or years (their length varies), or too long for 64 bits.
pub(crate) fn micros(value: &ScalarValue, what: &str) -> Result<i64, FunctionError> {
    let as_interval = match value {
        ScalarValue::IntervalMonthDayNano(_) => value.clone(),
        other => other.cast_to(&INTERVAL).map_err(|_| {
            FunctionError::wrong_type(format!("{what} must be an interval"))
                .with_hint("write INTERVAL '30 minutes'")
        })?,
    };
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = as_interval else {
        return Err(FunctionError::invalid(format!("{what} must not be null")));
    };
    if interval.months != 0 {
        return Err(
            FunctionError::invalid(format!("{what} must not contain months or years"))
                .with_hint("use days, hours, minutes or seconds"),
        );
    }
    i64::from(interval.days)
        .checked_mul(MICROS_PER_DAY)
        .and_then(|days| days.checked_add(interval.nanoseconds / 1000))
        .ok_or_else(|| FunctionError::invalid(format!("{what} is too long")))
}

/// As [`micros`], and more than zero.
pub(crate) fn positive_micros(value: &ScalarValue, what: &str) -> Result<i64, FunctionError> {
    match micros(value, what)? {
        n if n > 0 => Ok(n),
        _ => Err(FunctionError::invalid(format!("{what} must be positive"))),
    }
}

/// The constant an expression stands for: a literal, also behind an alias or a cast.
pub(crate) fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(cast) => constant(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        _ => None,
    }
}

/// As [`constant`], of a physical expression.
pub(crate) fn evaluated(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    // a column has nothing to stand on here and fails
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    match expr.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(value)) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_nanoseconds_add_up() {
        let value = ScalarValue::new_interval_mdn(0, 1, 1_500_000);
        assert_eq!(micros(&value, "x").unwrap(), MICROS_PER_DAY + 1_500);
        let text = ScalarValue::from("30 minutes");
        assert_eq!(micros(&text, "x").unwrap(), 1_800_000_000);
    }

    #[test]
    fn months_null_zero_and_other_types_are_refused() {
        let months = ScalarValue::new_interval_mdn(1, 0, 0);
        assert!(
            micros(&months, "gap")
                .unwrap_err()
                .message
                .contains("months")
        );
        assert!(micros(&ScalarValue::IntervalMonthDayNano(None), "gap").is_err());
        assert!(micros(&ScalarValue::from("soon"), "gap").is_err());
        let zero = ScalarValue::new_interval_mdn(0, 0, 0);
        assert!(positive_micros(&zero, "gap").is_err());
    }
}
