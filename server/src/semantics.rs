//! PostgreSQL's meaning of operators, literals and casts, put over the planner's own.
//!
//! The engine below computes as Arrow does: integers wrap, a number beside a text becomes a text, a
//! cast cuts off where PostgreSQL rounds. Each difference is closed here, in the logical plan, and
//! nowhere else; a query that would still mean something else is refused.
//!
//! | module | when | what |
//! |---|---|---|
//! | `types` | a type name is planned | the one Arrow form of each SQL type |
//! | `operators` | an operator is planned | dates and intervals, types that do not go together |
//! | `integers` | the plan stands ([`apply`]) | `integer` literals, checked arithmetic, `CASE` |
//! | `casts` | types are coerced | text ↔ value by PostgreSQL's input and output rules, rounding |
//! | `arithmetic`, `intervals`, `text` | | the functions that the rewritten plans call |
//! | `functions` | | functions that the planner lacks, or has with another meaning |
//! | `zones` | types are coerced | instants where the session is not in UTC |
//! | `lateral` | the plan stands | lists of a row, unnested beside it |
//! | `grouping` | the plan stands | grouping sets over equal columns |
//! | `sum`, `average` | | aggregates that do not wrap, and round |
//! | `division` | the plan stands | quotients of `numeric`, rounded |
//! | [`parameters`] | a statement is described | types of `$1`, `$2`, … |
//!
//! Must not know statements, sessions or tables.

mod arguments;
mod arithmetic;
mod average;
mod casts;
mod division;
mod functions;
mod grouping;
mod integers;
mod intervals;
mod lateral;
mod operators;
pub mod parameters;
mod sum;
mod text;
mod types;
mod zones;

use std::sync::Arc;

use arrow::array::StringArray;
use datafusion::common::DFSchema;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF};

/// Puts PostgreSQL's rules into a planner.
pub fn install(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    builder
        .aggregate_functions()
        .get_or_insert_default()
        .extend([Arc::new(sum::function()), Arc::new(average::function())]);
    builder
        .scalar_functions()
        .get_or_insert_default()
        .extend([Arc::new(arithmetic::modulo()), random_uuid()]);
    builder
        .scalar_functions()
        .get_or_insert_default()
        .extend(functions::all());
    let mut planners = vec![operators::planner()];
    planners.extend(SessionStateDefaults::default_expr_planners());
    builder
        .with_expr_planners(planners)
        .with_type_planner(types::planner())
        .with_analyzer_rule(Arc::new(casts::Casts))
}

/// The planner's `uuid()` under PostgreSQL's name as well.
fn random_uuid() -> Arc<ScalarUDF> {
    let function = datafusion::functions::string::uuid().as_ref().clone();
    Arc::new(function.with_aliases(["gen_random_uuid"]))
}

/// The texts of `jsonb` values: keys sorted by length and bytes, the last of equal ones, one space after
/// each `:` and `,`. NULL stays NULL.
///
/// # Errors
/// 22P02 if one is not JSON.
pub fn normal_jsonb(texts: &StringArray) -> Result<StringArray, crate::error::Error> {
    functions::normalized_all(texts)
}

/// The functions that casts from and to text become. They change with the time zone, nothing else.
pub fn is_text_conversion(function: &str) -> bool {
    text::NAMES.contains(&function) || function == grouping::NAME
}

/// Gives literals and arithmetic of a plan PostgreSQL's types. To be called on every plan once its
/// parameters are in; a second call changes nothing.
///
/// # Errors
/// 42804 for branches of a `CASE` whose types do not go together.
pub fn apply(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    grouping::apply(integers::apply(lateral::apply(plan)?)?)
}

/// The same for one expression over columns, with its casts.
pub fn apply_to_expr(expr: Expr, columns: &DFSchema) -> datafusion::error::Result<Expr> {
    casts::rewrite(integers::rewrite(expr, columns)?, columns)
}

#[cfg(test)]
mod tests;
