//! Values as bytes that do not depend on how Arrow lays them out.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;

use crate::FunctionError;

/// What values of a type are taken as; nothing for types that have no bytes of their own.
pub(crate) fn known_type(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Dictionary(_, of) => known_type(of)?,
        DataType::Null => DataType::Utf8,
        DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..) => ty.clone(),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        ty if ty.is_integer() => ty.clone(),
        _ => return None,
    })
}

/// Gives the bytes of each value that is not NULL.
///
/// # Errors
/// For a type that [`known_type`] does not know.
pub(crate) fn each_value(values: &ArrayRef, mut take: impl FnMut(&[u8])) -> Result<()> {
    match values.data_type() {
        DataType::Utf8View => {
            let texts = values.as_string_view().iter().flatten();
            texts.for_each(|v| take(v.as_bytes()));
        }
        DataType::Utf8 => {
            let texts = values.as_string::<i32>().iter().flatten();
            texts.for_each(|v| take(v.as_bytes()));
        }
        DataType::LargeUtf8 => {
            let texts = values.as_string::<i64>().iter().flatten();
            texts.for_each(|v| take(v.as_bytes()));
        }
        DataType::BinaryView => values.as_binary_view().iter().flatten().for_each(take),
        DataType::Binary => values.as_binary::<i32>().iter().flatten().for_each(take),
        DataType::LargeBinary => values.as_binary::<i64>().iter().flatten().for_each(take),
        DataType::Boolean => {
            let all = values.as_boolean().iter().flatten();
            all.for_each(|v| take(&[u8::from(v)]));
        }
        DataType::UInt64 => {
            let all = values.as_primitive::<UInt64Type>().iter().flatten();
            all.for_each(|v| take(&i128::from(v).to_le_bytes()));
        }
        ty if ty.is_integer() => {
            let all = cast(values, &DataType::Int64)?;
            let all = all.as_primitive::<Int64Type>().iter().flatten();
            all.for_each(|v| take(&i128::from(v).to_le_bytes()));
        }
        DataType::Date32 => {
            let all = values.as_primitive::<Date32Type>().iter().flatten();
            all.for_each(|v| take(&i128::from(v).to_le_bytes()));
        }
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            let all = cast(values, &micros)?;
            let all = all.as_primitive::<TimestampMicrosecondType>().iter();
            all.flatten()
                .for_each(|v| take(&i128::from(v).to_le_bytes()));
        }
        DataType::Decimal128(..) => {
            let all = values.as_primitive::<Decimal128Type>().iter().flatten();
            all.for_each(|v| take(&v.to_le_bytes()));
        }
        DataType::Float32 | DataType::Float64 => {
            let all = cast(values, &DataType::Float64)?;
            let all = all.as_primitive::<Float64Type>().iter().flatten();
            all.for_each(|v| take(&same_float(v).to_le_bytes()));
        }
        DataType::Dictionary(_, of) => each_value(&cast(values, of)?, take)?,
        DataType::Null => {}
        other => {
            return Err(FunctionError::wrong_type(format!("no sketch of {other}")).into());
        }
    }
    Ok(())
}

/// One float for all that are equal.
pub(crate) fn same_float(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

/// The value that [`each_value`] gave these bytes for.
pub(crate) fn value_of(bytes: &[u8], ty: &DataType) -> Result<ScalarValue> {
    let wrong = || FunctionError::invalid(format!("not a value of {ty}"));
    let number = || {
        let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| wrong())?;
        Ok::<_, FunctionError>(i128::from_le_bytes(bytes))
    };
    let whole = || i64::try_from(number()?).map_err(|_| wrong());
    Ok(match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
            ScalarValue::Utf8(Some(text.to_owned())).cast_to(ty)?
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            ScalarValue::Binary(Some(bytes.to_vec())).cast_to(ty)?
        }
        DataType::Boolean => match bytes {
            [value @ (0 | 1)] => ScalarValue::Boolean(Some(*value == 1)),
            _ => return Err(wrong().into()),
        },
        DataType::UInt64 => {
            let value = u64::try_from(number()?).map_err(|_| wrong())?;
            ScalarValue::UInt64(Some(value))
        }
        DataType::Date32 => {
            let days = i32::try_from(number()?).map_err(|_| wrong())?;
            ScalarValue::Date32(Some(days))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(whole()?), zone.clone())
        }
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(number()?), *precision, *scale)
        }
        DataType::Float32 | DataType::Float64 => {
            let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| wrong())?;
            ScalarValue::Float64(Some(f64::from_le_bytes(bytes))).cast_to(ty)?
        }
        ty if ty.is_integer() => ScalarValue::Int64(Some(whole()?)).cast_to(ty)?,
        _ => return Err(wrong().into()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        Float64Array, Int32Array, Int64Array, StringArray, StringViewArray,
    };

    use super::*;

    fn all(values: &ArrayRef) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        each_value(values, |v| found.push(v.to_vec())).unwrap();
        found
    }

    fn made(values: impl Array + 'static) -> ArrayRef {
        Arc::new(values)
    }

    #[test]
    fn layouts_of_one_value_are_one() {
        let texts = [
            Some("a"),
            None,
            Some("a text that is too long for a view"),
            Some(""),
        ];
        let plain = all(&made(StringArray::from(texts.to_vec())));
        assert_eq!(plain, all(&made(StringViewArray::from(texts.to_vec()))));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let array: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        assert_eq!(plain, all(&cast(&array, &dictionary).unwrap()));
        assert_eq!(
            all(&made(Int32Array::from(vec![-7, 3]))),
            all(&made(Int64Array::from(vec![-7, 3])))
        );
        let floats = all(&made(Float64Array::from(vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
        ])));
        assert_eq!(floats[0], floats[1]);
        assert_eq!(floats[2], floats[3]);
    }

    #[test]
    fn values_come_back() {
        let zone = Some("UTC".into());
        for value in [
            ScalarValue::Utf8View(Some("ü".to_owned())),
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int16(Some(-3)),
            ScalarValue::UInt64(Some(u64::MAX)),
            ScalarValue::Date32(Some(-1)),
            ScalarValue::TimestampMicrosecond(Some(-5), zone),
            ScalarValue::Decimal128(Some(-12345), 12, 2),
            ScalarValue::Float32(Some(1.5)),
            ScalarValue::Binary(Some(vec![0, 255])),
        ] {
            let bytes = all(&value.to_array().unwrap());
            assert_eq!(value_of(&bytes[0], &value.data_type()).unwrap(), value);
        }
        assert!(value_of(b"\xff", &DataType::Utf8).is_err());
        assert!(value_of(b"", &DataType::Int64).is_err());
    }
}
