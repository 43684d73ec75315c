//! Arithmetic that reports what does not fit: integers beyond their range, floats over zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::types::name;
use crate::error::{Error, SqlState};

/// The operations that differ from the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    /// Of floats; integers and numerics check for zero by themselves.
    Divide,
    /// Floats to whole floats, ties to even.
    Round,
    /// `mod(a, b)`, the operator `%` as a function.
    Remainder,
}

/// The function `mod`.
pub(super) fn modulo() -> ScalarUDF {
    ScalarUDF::from(Checked {
        op: Op::Remainder,
        signature: Signature::numeric(2, Volatility::Immutable),
    })
}

/// `left op right`, both of one type, with an error for what does not fit.
pub(super) fn checked(op: Op, args: Vec<Expr>) -> Expr {
    let function = Checked {
        op,
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    Arc::new(ScalarUDF::from(function)).call(args)
}

/// One checked operation over two values of one type; the result has that type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Op,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.op {
            Op::Add => "checked_add",
            Op::Subtract => "checked_subtract",
            Op::Multiply => "checked_multiply",
            Op::Divide => "checked_divide",
            Op::Round => "round_half_even",
            Op::Remainder => "mod",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [value] => round(value),
            [left, right] => binary(self.op, left, right),
            _ => Ok(ColumnarValue::Scalar(ScalarValue::Null)),
        }
    }
}

fn binary(op: Op, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    let scalar = matches!(
        (left, right),
        (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_))
    );
    let (left, right) = (datum(left)?, datum(right)?);
    let (left, right) = (left.as_ref(), right.as_ref());
    let result = match op {
        Op::Add => numeric::add(left, right),
        Op::Subtract => numeric::sub(left, right),
        Op::Multiply => numeric::mul(left, right),
        Op::Remainder => numeric::rem(left, right),
        Op::Divide | Op::Round => {
            if divides_by_zero(left, right) {
                return Err(ArrowError::DivideByZero.into());
            }
            numeric::div(left, right)
        }
    };
    let result = result.map_err(|e| match e {
        ArrowError::ArithmeticOverflow(_) => out_of_range(left.get().0.data_type()),
        other => other.into(),
    })?;
    Ok(match scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
        false => ColumnarValue::Array(result),
    })
}

fn out_of_range(ty: &DataType) -> DataFusionError {
    Error::refused(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("{} out of range", name(ty)),
    )
    .into()
}

fn datum(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(value) => Box::new(value.to_scalar()?),
    })
}

/// Whether a divisor is zero where the dividend is not NULL.
fn divides_by_zero(left: &dyn Datum, right: &dyn Datum) -> bool {
    match right.get().0.data_type() {
        DataType::Float64 => zero_under::<Float64Type>(left, right),
        DataType::Float32 => zero_under::<Float32Type>(left, right),
        _ => false,
    }
}

fn zero_under<T: ArrowPrimitiveType>(left: &dyn Datum, right: &dyn Datum) -> bool
where
    T::Native: Default,
{
    let ((dividend, one_dividend), (divisor, one_divisor)) = (left.get(), right.get());
    let zero = T::Native::default();
    divisor
        .as_primitive::<T>()
        .iter()
        .enumerate()
        .filter(|(_, value)| *value == Some(zero))
        .any(|(row, _)| match (one_dividend, one_divisor) {
            (true, _) => dividend.is_valid(0),
            (false, false) => dividend.is_valid(row),
            (false, true) => dividend.null_count() < dividend.len(),
        })
}

fn round(value: &ColumnarValue) -> Result<ColumnarValue> {
    let (array, scalar) = match value {
        ColumnarValue::Array(array) => (Arc::clone(array), false),
        ColumnarValue::Scalar(value) => (value.to_array()?, true),
    };
    let rounded: ArrayRef = match array.data_type() {
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(f32::round_ties_even),
        ),
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(f64::round_ties_even),
        ),
        _ => array,
    };
    Ok(match scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?),
        false => ColumnarValue::Array(rounded),
    })
}
