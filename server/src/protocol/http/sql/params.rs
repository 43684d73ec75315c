//! JSON parameters → scalars of the types the planner found.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use serde_json::Value;

use crate::error::{Error, Result, SqlState};

/// One scalar per parameter.
pub(super) fn bind(values: &[Value], types: &[DataType]) -> Result<Vec<ScalarValue>> {
    if values.len() != types.len() {
        return Err(Error::refused(
            SqlState::UNDEFINED_PARAMETER,
            format!(
                "the statement takes {} parameters, {} were sent",
                types.len(),
                values.len()
            ),
        ));
    }
    values
        .iter()
        .zip(types)
        .enumerate()
        .map(|(i, (value, ty))| {
            let scalar = scalar(value);
            scalar.cast_to(ty).map_err(|e| {
                Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!("parameter ${} does not fit its type {ty}", i + 1),
                )
                .with_detail(e.strip_backtrace())
            })
        })
        .collect()
}

fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(b) => ScalarValue::Boolean(Some(*b)),
        Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => ScalarValue::Int64(Some(n)),
            (None, Some(n)) => ScalarValue::UInt64(Some(n)),
            (None, None) => ScalarValue::Float64(number.as_f64()),
        },
        // a structure is a JSON value
        Value::Array(_) | Value::Object(_) => ScalarValue::Utf8(Some(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_take_their_types() {
        let types = [DataType::Int32, DataType::Date32, DataType::Utf8];
        let bound = bind(&[json!(5), json!("2026-01-31"), json!(null)], &types).unwrap();
        assert_eq!(bound[0], ScalarValue::Int32(Some(5)));
        assert_eq!(bound[1].data_type(), DataType::Date32);
        assert_eq!(bound[2], ScalarValue::Utf8(None));
        assert!(bind(&[json!(5)], &types).is_err());
        assert!(bind(&[json!("x"), json!("2026-01-31"), json!("")], &types).is_err());
    }
}
