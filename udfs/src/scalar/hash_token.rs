//! `hash_token(value, 'secret')`: a keyed pseudonym, the same for the same value and secret.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion_macros::user_doc;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::FunctionError;

/// Where keys come from. The implementation checks that the caller may use the secret.
pub trait SecretKeys: fmt::Debug + Send + Sync {
    /// The key bytes of a secret.
    ///
    /// # Errors
    /// When it does not exist or may not be used.
    fn key(&self, name: &str) -> Result<Arc<[u8]>>;
}

#[user_doc(
    doc_section(label = "Anonymization"),
    description = "A pseudonym: HMAC-SHA256 of the value under the secret's key, as 64 lower-case hexadecimal digits. Equal values \
give equal tokens as long as the secret stays the same; without the key a token can neither be reversed nor guessed from a list. Text \
is hashed as its UTF-8 bytes, `bytea` as its bytes, integers, booleans, `numeric` and `date` as their SQL text. NULL stays NULL.",
    syntax_example = "hash_token(value, 'secret')",
    sql_example = r#"```sql
CREATE SECRET users_key TYPE tokenization;
SELECT hash_token(email, 'users_key') AS user_token, count(*) FROM logins GROUP BY 1;
```"#,
    argument(name = "value", description = "Value to replace"),
    argument(
        name = "secret",
        description = "Name of a secret made by `CREATE SECRET`, as a literal"
    )
)]
/// `hash_token(value, 'secret')`. Never shows a key: not in `Debug`, plans or errors.
pub struct HashToken {
    signature: Signature,
    keys: Arc<dyn SecretKeys>,
}

impl HashToken {
    /// The function over a source of keys.
    pub fn new(keys: Arc<dyn SecretKeys>) -> Self {
        Self {
            // Stable, not immutable: the key behind a name may be replaced
            signature: Signature::user_defined(Volatility::Stable),
            keys,
        }
    }
}

impl fmt::Debug for HashToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashToken")
    }
}

impl PartialEq for HashToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys)
    }
}

impl Eq for HashToken {}

impl Hash for HashToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for HashToken {
    fn name(&self) -> &str {
        "hash_token"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _] = arg_types else {
            return Err(FunctionError::invalid(
                "hash_token takes a value and the name of a secret",
            )
            .into());
        };
        let value = match value {
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => DataType::Binary,
            ty if has_one_text(ty) => DataType::Utf8,
            ty => {
                return Err(FunctionError::wrong_type(format!(
                    "hash_token does not take values of type {ty}"
                ))
                .with_hint("cast the value to text, so that its spelling is yours")
                .into());
            }
        };
        Ok(vec![value, DataType::Utf8])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // resolving here refuses an unknown or forbidden secret before any row is read
        self.keys.key(secret_name(
            args.scalar_arguments.get(1).copied().flatten(),
        )?)?;
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match args.args.get(1) {
            Some(ColumnarValue::Scalar(value)) => secret_name(Some(value))?,
            _ => secret_name(None)?,
        };
        let keyed = Hmac::<Sha256>::new_from_slice(&self.keys.key(name)?).map_err(|_| {
            FunctionError::invalid(format!("secret \"{name}\" holds no usable key"))
        })?;
        match args.args.first() {
            Some(ColumnarValue::Scalar(value)) => {
                let token = tokens(&keyed, &value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &token, 0,
                )?))
            }
            Some(ColumnarValue::Array(values)) => Ok(ColumnarValue::Array(tokens(&keyed, values)?)),
            None => Err(DataFusionError::Internal(
                "hash_token without arguments".to_owned(),
            )),
        }
    }
}

/// Types whose text form is one and stays so. Floats and times are not among them.
fn has_one_text(ty: &DataType) -> bool {
    match ty {
        DataType::Dictionary(_, value) => has_one_text(value),
        DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Boolean
        | DataType::Date32 => true,
        ty => ty.is_integer() || ty.is_decimal(),
    }
}

fn secret_name(value: Option<&ScalarValue>) -> Result<&str, FunctionError> {
    value.and_then(|v| v.try_as_str().flatten()).ok_or_else(|| {
        FunctionError::invalid("the second argument of hash_token must be the name of a secret")
            .with_hint("write it as a literal: hash_token(email, 'my_secret')")
    })
}

fn tokens(keyed: &Hmac<Sha256>, values: &ArrayRef) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * 64);
    let mut push = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            let mut mac = keyed.clone();
            mac.update(bytes);
            out.append_value(hex(&mac.finalize().into_bytes()));
        }
        None => out.append_null(),
    };
    match values.data_type() {
        DataType::Utf8 => values
            .as_string::<i32>()
            .iter()
            .for_each(|v| push(v.map(str::as_bytes))),
        DataType::Binary => values.as_binary::<i32>().iter().for_each(&mut push),
        other => {
            return Err(DataFusionError::Internal(format!(
                "hash_token over {other}"
            )));
        }
    }
    Ok(Arc::new(out.finish()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(*b)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &[u8]) -> Hmac<Sha256> {
        Hmac::new_from_slice(key).unwrap()
    }

    #[test]
    fn matches_the_first_vector_of_rfc_4231() {
        let values = ScalarValue::from("Hi There").to_array().unwrap();
        let out = tokens(&keyed(&[0x0b; 20]), &values).unwrap();
        assert_eq!(
            out.as_string::<i32>().value(0),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn text_and_its_bytes_give_the_same_token() {
        let text = tokens(&keyed(b"k"), &ScalarValue::from("a").to_array().unwrap()).unwrap();
        let bytes = ScalarValue::Binary(Some(b"a".to_vec())).to_array().unwrap();
        let bytes = tokens(&keyed(b"k"), &bytes).unwrap();
        assert_eq!(&text, &bytes);
    }
}
