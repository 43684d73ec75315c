//! SQL functions over models. One file each; the model is named by the literal first argument.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarUDF};
use udfs::FunctionDoc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::{ModelResolver, ScoringModel, relations};
use crate::error::{Error, Result, SqlState};

pub mod cluster_of;
pub mod predict;
pub mod predict_proba;

/// Every scoring function, over the models of `resolver`.
pub fn functions(resolver: &Arc<dyn ModelResolver>) -> Vec<Arc<ScalarUDF>> {
    let own = || Arc::clone(resolver);
    vec![
        Arc::new(ScalarUDF::from(predict::Predict::new(own()))),
        Arc::new(ScalarUDF::from(predict_proba::PredictProba::new(own()))),
        Arc::new(ScalarUDF::from(cluster_of::ClusterOf::new(own()))),
    ]
}

/// Documentation of everything here and in [`relations`], for `udfs::functions_markdown`.
pub fn documentation() -> Vec<FunctionDoc> {
    let resolver: Arc<dyn ModelResolver> = Arc::new(NoModels);
    let scalar = functions(&resolver).into_iter().filter_map(|f| {
        Some(FunctionDoc {
            name: f.name().to_owned(),
            doc: f.documentation()?.clone(),
        })
    });
    let relations = relations::documentation().into_iter();
    let relations = relations.map(|(name, doc): (&str, Documentation)| FunctionDoc {
        name: name.to_owned(),
        doc,
    });
    scalar.chain(relations).collect()
}

/// The model that a call names, its arguments checked: what a function does while it is planned.
fn planned(
    function: &str,
    resolver: &Arc<dyn ModelResolver>,
    args: &ReturnFieldArgs,
) -> Result<Arc<ScoringModel>> {
    let spec = model_name(function, args.scalar_arguments.first().copied().flatten())?;
    resolver.resolve(spec)
}

/// Types of the feature arguments.
fn feature_types<'a>(args: &'a ReturnFieldArgs<'_>) -> Vec<&'a DataType> {
    args.arg_fields
        .iter()
        .skip(1)
        .map(|f| f.data_type())
        .collect()
}

/// The model and the feature columns of a batch: what a function does while it runs.
fn called(
    function: &str,
    resolver: &Arc<dyn ModelResolver>,
    args: &[ColumnarValue],
    rows: usize,
) -> Result<(Arc<ScoringModel>, Vec<ArrayRef>)> {
    let spec = match args.first() {
        Some(ColumnarValue::Scalar(value)) => model_name(function, Some(value))?,
        _ => model_name(function, None)?,
    };
    let columns = args
        .iter()
        .skip(1)
        .map(|value| value.to_array(rows))
        .collect::<Result<_, _>>()?;
    Ok((resolver.resolve(spec)?, columns))
}

fn model_name<'a>(function: &str, value: Option<&'a ScalarValue>) -> Result<&'a str> {
    value.and_then(|v| v.try_as_str().flatten()).ok_or_else(|| {
        Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the first argument of {function} must be a model's name"),
        )
        .with_hint("write it as a literal: 'churn', 'churn@3' or 'churn@champion'")
    })
}

/// Stands in where only documentation is wanted.
#[derive(Debug)]
struct NoModels;

impl ModelResolver for NoModels {
    fn resolve(&self, spec: &str) -> Result<Arc<ScoringModel>> {
        Err(Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("model \"{spec}\" does not exist"),
        ))
    }
}
