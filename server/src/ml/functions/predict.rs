//! `predict(model, f1, f2, …)`: predicted class of a classifier.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion_macros::user_doc;

use super::{called, feature_types, planned};
use crate::ml::ModelResolver;

#[user_doc(
    doc_section(label = "Models"),
    description = "Predicted class, in the type of the model's target: the positive class from a probability of 0.5 on. A missing feature (NULL; for numbers also NaN and infinity) counts as the training mean, a missing or unknown category as `(other)`. Never NULL.",
    syntax_example = "predict('model', f1, f2, ...)",
    sql_example = r#"```sql
SELECT user_id, predict('churn', tenure, contract) FROM customers;
```"#,
    argument(
        name = "model",
        description = "Name, `name@version` or `name@alias`, as a literal; a bare name is the current version"
    ),
    argument(
        name = "f1, f2, ...",
        description = "The features in the order of the training query, the target left out"
    )
)]
/// `predict`.
#[derive(Debug)]
pub struct Predict {
    signature: Signature,
    resolver: Arc<dyn ModelResolver>,
}

impl Predict {
    /// The function over the models of a resolver.
    pub fn new(resolver: Arc<dyn ModelResolver>) -> Self {
        Self {
            // Stable: what a name means may change between statements
            signature: Signature::variadic_any(Volatility::Stable),
            resolver,
        }
    }
}

impl PartialEq for Predict {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resolver, &other.resolver)
    }
}

impl Eq for Predict {}

impl Hash for Predict {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Predict {
    fn name(&self) -> &str {
        "predict"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        datafusion::common::internal_err!("the type of predict depends on the model")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let model = planned(self.name(), &self.resolver, &args)?;
        let ty = model.label_type()?;
        model.check_arguments(&feature_types(&args))?;
        Ok(Arc::new(Field::new(self.name(), ty, false)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (model, columns) = called(self.name(), &self.resolver, &args.args, args.number_rows)?;
        Ok(ColumnarValue::Array(model.labels(&columns)?))
    }
}
