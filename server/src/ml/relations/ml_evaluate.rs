//! `ml_evaluate('model', 'relation')`: metrics of a classifier over a relation that has its features and
//! its target as columns.
//!
//! Planned as an aggregate over the relation, so that whatever holds for reading it holds here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, DocSection, Documentation, Expr, ExprSchemable,
    LogicalPlan, LogicalPlanBuilder, ScalarUDF, Signature, Volatility, col, lit,
};
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;

use super::{expect_arguments, model_argument, relation_argument};
use crate::error::{Error, Result, SqlState};
use crate::ml::ModelResolver;
use crate::ml::artifact::Label;
use crate::ml::functions::predict_proba::PredictProba;
use crate::ml::metrics::{Metrics, NAMES};

/// SQL name.
pub const NAME: &str = "ml_evaluate";

/// Rows one evaluation may hold in memory.
const MAX_ROWS: usize = 50_000_000;

/// Its documentation.
pub fn documentation() -> Documentation {
    Documentation::builder(
        DocSection {
            include: true,
            label: "Models",
            description: None,
        },
        "Metrics of a classifier over a relation with the model's features and target as columns (found by name): one row with `n`, \
         `base_rate`, `accuracy`, `auc`, `log_loss`, `f1`, `precision`, `recall`, `brier`, at threshold 0.5. Accuracy says nothing without \
         the base rate. Rows whose target is NULL or of neither class are left out; an undefined metric is NULL. In `FROM`.",
        "ml_evaluate('model', 'relation')",
    )
    .with_alternative_syntax("ml_evaluate('model', (SELECT ...))")
    .with_sql_example("```sql\nSELECT n, base_rate, auc FROM ml_evaluate('churn', 'holdout');\n```")
    .with_argument("model", "Name, `name@version` or `name@alias`, as a literal")
    .with_argument(
        "relation",
        "Name of a table or view, as a literal, or a subquery",
    )
    .build()
}

pub(super) fn plan(
    resolver: &Arc<dyn ModelResolver>,
    arguments: &[SqlExpr],
    context: &mut dyn RelationPlannerContext,
) -> DfResult<LogicalPlan> {
    expect_arguments(NAME, arguments, 2)?;
    let spec = model_argument(NAME, arguments.first())?;
    let model = resolver.resolve(&spec)?;
    let (target, negative, positive) = model.classes()?;
    let input = relation_argument(NAME, &arguments[1], context)?;

    let mut scored = vec![lit(spec.as_str())];
    for feature in model.features() {
        scored.push(column(&input, &feature.name, &spec)?);
    }
    let udf = ScalarUDF::from(PredictProba::new(Arc::clone(resolver)));
    let probability = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf), scored));
    let label = truth(&input, column(&input, target, &spec)?, negative, positive)?;

    let collect = AggregateUDF::from(EvaluateMetrics::default());
    let metrics = col("metrics");
    let n = get_field(metrics.clone(), "n").alias("n");
    let others = NAMES.map(|name| get_field(metrics.clone(), name).alias(name));
    LogicalPlanBuilder::from(input)
        .aggregate(
            Vec::<Expr>::new(),
            vec![collect.call(vec![probability, label]).alias("metrics")],
        )?
        .project(std::iter::once(n).chain(others))?
        .build()
}

/// The relation's column of that name.
fn column(input: &LogicalPlan, name: &str, model: &str) -> Result<Expr> {
    let matches = input.schema().qualified_fields_with_unqualified_name(name);
    match matches.as_slice() {
        [(qualifier, field)] => Ok(Expr::Column(Column::new(qualifier.cloned(), field.name()))),
        [] => Err(Error::refused(
            SqlState::UNDEFINED_COLUMN,
            format!("the relation has no column \"{name}\", which model \"{model}\" needs"),
        )),
        _ => Err(Error::refused(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{name}\" is ambiguous"),
        )),
    }
}

/// True for the positive class, false for the negative one, NULL for everything else.
fn truth(input: &LogicalPlan, target: Expr, negative: &Label, positive: &Label) -> DfResult<Expr> {
    let literal = |label: &Label| match label {
        Label::Bool(b) => lit(*b),
        Label::Int(n) => lit(*n),
        Label::Text(text) => lit(text.as_str()),
    };
    let ty = match positive {
        Label::Bool(_) => DataType::Boolean,
        Label::Int(_) => DataType::Int64,
        Label::Text(_) => DataType::Utf8,
    };
    let target = target.cast_to(&ty, input.schema())?;
    Ok(Expr::Case(Case::new(
        Some(Box::new(target)),
        vec![
            (Box::new(literal(positive)), Box::new(lit(true))),
            (Box::new(literal(negative)), Box::new(lit(false))),
        ],
        None,
    )))
}

/// Collects (probability, label) pairs; its value is a struct of all metrics.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EvaluateMetrics {
    signature: Signature,
}

impl Default for EvaluateMetrics {
    fn default() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Float64, DataType::Boolean],
                Volatility::Immutable,
            ),
        }
    }
}

fn metric_fields() -> Fields {
    std::iter::once(Field::new("n", DataType::Int64, true))
        .chain(NAMES.map(|name| Field::new(name, DataType::Float64, true)))
        .collect()
}

impl AggregateUDFImpl for EvaluateMetrics {
    fn name(&self) -> &str {
        "ml_metrics"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Struct(metric_fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let list = |name: &str, ty: DataType| {
            let item = Arc::new(Field::new_list_field(ty, true));
            let name = format!("{}[{name}]", args.name);
            Arc::new(Field::new(name, DataType::List(item), true))
        };
        Ok(vec![
            list("probability", DataType::Float64),
            list("label", DataType::Boolean),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Pairs(Vec::new())))
    }
}

#[derive(Debug)]
struct Pairs(Vec<(f64, bool)>);

impl Pairs {
    fn add(&mut self, probabilities: &ArrayRef, labels: &ArrayRef) -> Result<()> {
        if self.0.len().saturating_add(labels.len()) > MAX_ROWS {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("{NAME} holds at most {MAX_ROWS} rows"),
            )
            .with_hint("evaluate over a sample"));
        }
        let probabilities = probabilities.as_primitive::<Float64Type>().iter();
        let rows = probabilities.zip(labels.as_boolean().iter());
        self.0
            .extend(rows.filter_map(|(p, label)| Some((p?, label?))));
        Ok(())
    }
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        Ok(self.add(&values[0], &values[1])?)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let metrics = Metrics::of(&mut self.0);
        let n = ScalarValue::Int64(i64::try_from(metrics.n).ok());
        let values = std::iter::once(n)
            .chain(metrics.values().map(ScalarValue::Float64))
            .map(|v| v.to_array())
            .collect::<DfResult<Vec<_>>>()?;
        let row = arrow::array::StructArray::try_new(metric_fields(), values, None)?;
        Ok(ScalarValue::Struct(Arc::new(row)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.capacity() * size_of::<(f64, bool)>()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let probabilities = Float64Array::from_iter_values(self.0.iter().map(|(p, _)| *p));
        let labels = BooleanArray::from_iter(self.0.iter().map(|(_, label)| Some(*label)));
        Ok(vec![
            SingleRowListArrayBuilder::new(Arc::new(probabilities)).build_list_scalar(),
            SingleRowListArrayBuilder::new(Arc::new(labels)).build_list_scalar(),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let probabilities = states[0].as_list::<i32>().iter();
        for (probabilities, labels) in probabilities.zip(states[1].as_list::<i32>().iter()) {
            if let (Some(probabilities), Some(labels)) = (probabilities, labels) {
                self.add(&probabilities, &labels)?;
            }
        }
        Ok(())
    }
}
