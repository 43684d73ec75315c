//! `ml_weights('model')`: what a classifier adds up, one row per encoded feature.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    DocSection, Documentation, Expr, LogicalPlan, LogicalPlanBuilder, col, lit,
};
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;

use super::{expect_arguments, model_argument};
use crate::ml::ModelResolver;
use crate::ml::score::Weight;

/// SQL name.
pub const NAME: &str = "ml_weights";

const COLUMNS: [&str; 5] = ["feature", "category", "weight", "center", "scale"];

/// Its documentation.
pub fn documentation() -> Documentation {
    Documentation::builder(
        DocSection {
            include: true,
            label: "Models",
            description: None,
        },
        "What a classifier adds up to the log-odds of its positive class: a row for the intercept, one per number (per standard \
         deviation, counted from the mean: columns `scale` and `center`) and one per category, `(other)` for unknown and missing \
         ones. In `FROM`.",
        "ml_weights('model')",
    )
    .with_sql_example(
        "```sql\nSELECT feature, category, weight FROM ml_weights('churn') ORDER BY abs(weight) DESC;\n```",
    )
    .with_argument("model", "Name, `name@version` or `name@alias`, as a literal")
    .build()
}

pub(super) fn plan(
    resolver: &Arc<dyn ModelResolver>,
    arguments: &[SqlExpr],
) -> DfResult<LogicalPlan> {
    expect_arguments(NAME, arguments, 1)?;
    let model = resolver.resolve(&model_argument(NAME, arguments.first())?)?;
    let rows = model.weights()?.into_iter().map(row).collect();
    let names = COLUMNS.iter().enumerate();
    LogicalPlanBuilder::values(rows)?
        .project(names.map(|(i, name)| col(format!("column{}", i + 1)).alias(*name)))?
        .build()
}

fn row(weight: Weight) -> Vec<Expr> {
    vec![
        lit(weight.feature),
        lit(ScalarValue::Utf8(weight.category)),
        lit(weight.weight),
        lit(ScalarValue::Float64(weight.center)),
        lit(ScalarValue::Float64(weight.scale)),
    ]
}
