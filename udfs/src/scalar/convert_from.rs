//! `convert_from(bytes, encoding)`: bytes read as text.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

use crate::error::FunctionError;

#[user_doc(
    doc_section(label = "Texts and bytes"),
    description = "Reads bytes as text. The only encoding is UTF8; bytes that are no such text are an error. NULL \
stays NULL.",
    syntax_example = "convert_from(bytes, encoding)",
    sql_example = r#"```sql
SELECT convert_from(raw, 'UTF8') FROM weir.dead_letters;
```"#,
    argument(name = "bytes", description = "Bytes to read"),
    argument(name = "encoding", description = "`'UTF8'`")
)]
/// `convert_from(bytes, encoding)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ConvertFrom {
    signature: Signature,
}

impl Default for ConvertFrom {
    fn default() -> Self {
        let types = vec![DataType::Binary, DataType::Utf8];
        Self {
            signature: Signature::exact(types, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for ConvertFrom {
    fn name(&self) -> &str {
        "convert_from"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [bytes, encodings] = take_function_args(self.name(), arrays)?;
        let rows = bytes.as_binary::<i32>().iter();
        let texts = rows.zip(encodings.as_string::<i32>());
        let texts: StringArray = texts
            .map(|(bytes, encoding)| match (bytes, encoding) {
                (Some(bytes), Some(encoding)) => read(bytes, encoding).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_, FunctionError>>()?;
        Ok(ColumnarValue::Array(Arc::new(texts) as ArrayRef))
    }
}

fn read<'a>(bytes: &'a [u8], encoding: &str) -> Result<&'a str, FunctionError> {
    match encoding.to_lowercase().replace('-', "").as_str() {
        "utf8" | "unicode" => std::str::from_utf8(bytes).map_err(|_| {
            FunctionError::invalid("convert_from: invalid byte sequence for encoding \"UTF8\"")
        }),
        _ => Err(FunctionError::unsupported(format!(
            "convert_from: encoding \"{encoding}\" is not supported"
        ))
        .with_hint("use UTF8")),
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn only_utf8_is_read() {
        assert_eq!(read("é".as_bytes(), "UTF8").unwrap(), "é");
        assert_eq!(read(b"a", "utf-8").unwrap(), "a");
        assert!(read(b"\xff", "UTF8").is_err());
        assert!(read(b"a", "LATIN1").is_err());
    }
}
