//! `predict_proba(model, f1, f2, …)`: probability of the positive class.

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
    description = "Probability of the positive class of a classifier, a `double precision` from 0 to 1. A missing feature (NULL; for numbers also NaN and infinity) counts as the training mean, a missing or unknown category as `(other)`. Never NULL.",
    syntax_example = "predict_proba('model', f1, f2, ...)",
    sql_example = r#"```sql
SELECT user_id, predict_proba('churn@champion', tenure, contract) AS p FROM customers ORDER BY p DESC;
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
/// `predict_proba`.
#[derive(Debug)]
pub struct PredictProba {
    signature: Signature,
    resolver: Arc<dyn ModelResolver>,
}

impl PredictProba {
    /// The function over the models of a resolver.
    pub fn new(resolver: Arc<dyn ModelResolver>) -> Self {
        Self {
            // Stable: what a name means may change between statements
            signature: Signature::variadic_any(Volatility::Stable),
            resolver,
        }
    }
}

impl PartialEq for PredictProba {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resolver, &other.resolver)
    }
}

impl Eq for PredictProba {}

impl Hash for PredictProba {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for PredictProba {
    fn name(&self) -> &str {
        "predict_proba"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let model = planned(self.name(), &self.resolver, &args)?;
        model.classes()?;
        let ty = DataType::Float64;
        model.check_arguments(&feature_types(&args))?;
        Ok(Arc::new(Field::new(self.name(), ty, false)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (model, columns) = called(self.name(), &self.resolver, &args.args, args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(
            model.probabilities(&columns)?,
        )))
    }
}
