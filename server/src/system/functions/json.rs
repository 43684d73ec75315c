//! `json_build_object(key, value, …)`, as far as catalog queries need it.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result as QueryResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use crate::types::TYPE_KEY;

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let object = JsonBuildObject {
        signature: Signature::one_of(
            vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
            Volatility::Immutable,
        ),
    };
    vec![Arc::new(ScalarUDF::from(object))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonBuildObject {
    signature: Signature,
}

impl ScalarUDFImpl for JsonBuildObject {
    fn name(&self) -> &str {
        "json_build_object"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> QueryResult<FieldRef> {
        let json = [(TYPE_KEY.to_owned(), "json".to_owned())];
        let field = Field::new(self.name(), DataType::Utf8, true);
        Ok(Arc::new(field.with_metadata(json.into())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let rows = args.number_rows;
        let values = args
            .args
            .into_iter()
            .map(|a| a.into_array(rows))
            .collect::<QueryResult<Vec<_>>>()?;
        let texts = values
            .iter()
            .map(|v| Ok(cast(v, &DataType::Utf8)?))
            .collect::<QueryResult<Vec<ArrayRef>>>()?;
        let mut out = StringBuilder::new();
        for row in 0..rows {
            let field = |i: usize| {
                let text = texts[i].as_string::<i32>();
                text.is_valid(row).then(|| text.value(row))
            };
            let members: Vec<String> = (0..values.len() / 2)
                .map(|pair| {
                    let key = quoted(field(2 * pair).unwrap_or_default());
                    let bare = is_bare(values[2 * pair + 1].data_type());
                    let value = match field(2 * pair + 1) {
                        None => "null".to_owned(),
                        Some(text) if bare => text.to_owned(),
                        Some(text) => quoted(text),
                    };
                    format!("{key} : {value}")
                })
                .collect();
            out.append_value(format!("{{{}}}", members.join(", ")));
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// Whether JSON has no quotes around such values.
fn is_bare(ty: &DataType) -> bool {
    ty.is_numeric() || *ty == DataType::Boolean
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
