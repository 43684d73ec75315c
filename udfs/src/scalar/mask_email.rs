//! `mask_email(text)`: an e-mail address with its local part hidden.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

#[user_doc(
    doc_section(label = "Anonymization"),
    description = "Hides the local part of an e-mail address: its first character and the domain stay. What has no \
domain (no `@`, or nothing after the last one) becomes `***`; an empty local part becomes `***@domain`. NULL stays NULL.",
    syntax_example = "mask_email(address)",
    sql_example = r#"```sql
SELECT mask_email('alice@example.com');  -- a***@example.com
```"#,
    argument(name = "address", description = "Text to mask")
)]
/// `mask_email(text)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MaskEmail {
    signature: Signature,
}

impl Default for MaskEmail {
    fn default() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for MaskEmail {
    fn name(&self) -> &str {
        "mask_email"
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
        let [address] = take_function_args(self.name(), arrays)?;
        let masked: StringArray = address
            .as_string::<i32>()
            .iter()
            .map(|v| v.map(mask))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(masked) as ArrayRef))
    }
}

/// The masking itself.
fn mask(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) if !domain.is_empty() => match local.chars().next() {
            Some(first) => format!("{first}***@{domain}"),
            None => format!("***@{domain}"),
        },
        _ => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn only_the_first_character_and_the_domain_stay() {
        assert_eq!(mask("alice@example.com"), "a***@example.com");
        assert_eq!(mask("é@example.com"), "é***@example.com");
        assert_eq!(mask("\"a@b\"@example.com"), "\"***@example.com");
        assert_eq!(mask("@example.com"), "***@example.com");
    }

    #[test]
    fn what_is_no_address_is_hidden_whole() {
        for odd in ["", "alice", "alice@", "@"] {
            assert_eq!(mask(odd), "***");
        }
    }
}
