//! Division of `numeric`: rounded to sixteen digits after the point, or to as many as an operand has. The engine's
//! own cuts off after four more than the dividend has.
//!
//! PostgreSQL chooses the digits by the values, at least sixteen significant ones; a column has one type here.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, SqlState};

/// Digits after the point that a quotient or a mean has at least.
const LEAST_SCALE: i8 = 16;

/// The type of a quotient or mean of values with so many digits after the point.
pub(super) fn quotient(scale: i8) -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale.max(LEAST_SCALE))
}

/// `left / right`, when one is `numeric` and the other is or becomes it.
pub(super) fn planned(left: Expr, right: Expr, types: (&DataType, &DataType)) -> Option<Expr> {
    let operand = |expr: Expr, ty: &DataType| match ty {
        DataType::Decimal128(..) => Some(expr),
        ty if ty.is_integer() => {
            let whole = DataType::Decimal128(20, 0);
            Some(Expr::Cast(Cast::new(Box::new(expr), whole)))
        }
        _ => None,
    };
    let is_decimal = |ty: &DataType| matches!(ty, DataType::Decimal128(..));
    if !is_decimal(types.0) && !is_decimal(types.1) {
        return None;
    }
    let args = vec![operand(left, types.0)?, operand(right, types.1)?];
    let function = Divide {
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    Some(Arc::new(ScalarUDF::from(function)).call(args))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    signature: Signature,
}

fn scale(ty: &DataType) -> i8 {
    match ty {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

impl ScalarUDFImpl for Divide {
    fn name(&self) -> &'static str {
        "numeric_divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(quotient(args.iter().map(scale).max().unwrap_or(0)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let ty = args.return_field.data_type();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(ty)?));
        };
        let quotients = divided(left, right, scale(ty))?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&quotients, 0)?),
            false => ColumnarValue::Array(quotients),
        })
    }
}

fn divided(left: &ArrayRef, right: &ArrayRef, to: i8) -> Result<ArrayRef> {
    let shift =
        i32::from(to) + i32::from(scale(right.data_type())) - i32::from(scale(left.data_type()));
    let shift = u32::try_from(shift).unwrap_or(0);
    let (left, right) = (
        left.as_primitive::<Decimal128Type>(),
        right.as_primitive::<Decimal128Type>(),
    );
    let small = 10i128.checked_pow(shift);
    let quotients: Decimal128Array = try_binary(left, right, |l, r| {
        let short = small.and_then(|factor| l.checked_mul(factor));
        match short {
            _ if r == 0 => Err(ArrowError::DivideByZero),
            Some(l) => rounded(l, r),
            None => rounded_wide(l, r, shift),
        }
    })?;
    Ok(Arc::new(
        quotients.with_precision_and_scale(DECIMAL128_MAX_PRECISION, to)?,
    ))
}

/// The quotient, ties away from zero.
fn rounded(l: i128, r: i128) -> Result<i128, ArrowError> {
    let (quotient, rest) = (l / r, l % r);
    let up = rest.unsigned_abs() >= r.unsigned_abs() - rest.unsigned_abs();
    let away = if (l < 0) == (r < 0) { 1 } else { -1 };
    fitting(quotient + if up { away } else { 0 })
}

fn rounded_wide(l: i128, r: i128, shift: u32) -> Result<i128, ArrowError> {
    let wide = i256::from_i128;
    let factor = wide(10).checked_pow(shift).ok_or_else(too_large)?;
    let dividend = wide(l).checked_mul(factor).ok_or_else(too_large)?;
    let (quotient, rest) = (dividend / wide(r), dividend % wide(r));
    let rest = rest.wrapping_abs();
    let up = rest >= wide(r).wrapping_abs() - rest;
    let away = if (l < 0) == (r < 0) { 1 } else { -1 };
    let quotient = quotient.to_i128().ok_or_else(too_large)?;
    fitting(quotient + if up { away } else { 0 })
}

fn fitting(value: i128) -> Result<i128, ArrowError> {
    match value.unsigned_abs() < 10u128.pow(u32::from(DECIMAL128_MAX_PRECISION)) {
        true => Ok(value),
        false => Err(too_large()),
    }
}

fn too_large() -> ArrowError {
    let e = Error::refused(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        "numeric field overflow: a quotient has at most 38 digits, 16 of them after the point",
    );
    ArrowError::ExternalError(Box::new(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_and_do_not_wrap() {
        assert_eq!(rounded(2, 3).unwrap(), 1);
        assert_eq!(rounded(-2, 3).unwrap(), -1);
        assert_eq!(rounded(1, 3).unwrap(), 0);
        assert_eq!(rounded(5, -2).unwrap(), -3);
        assert_eq!(rounded(-5, -2).unwrap(), 3);
        assert_eq!(rounded_wide(2, 3, 4).unwrap(), 6667);
        assert_eq!(rounded_wide(-2, 3, 4).unwrap(), -6667);
        let most = 10i128.pow(38) - 1;
        assert!(rounded(most, 1).is_ok());
        assert!(rounded_wide(most, 1, 0).is_ok());
        assert!(rounded_wide(most, 1, 1).is_err());
        assert!(rounded_wide(most, 10, 60).is_err());
        // both ways give the same
        for (l, r) in [
            (123_456_789, 97),
            (-123_456_789, 97),
            (1, 7),
            (-50, 4),
            (50, -4),
            (0, 3),
        ] {
            for shift in 0..12 {
                let short = rounded(l * 10i128.pow(shift), r).unwrap();
                assert_eq!(short, rounded_wide(l, r, shift).unwrap(), "{l}e{shift}/{r}");
            }
        }
    }
}
