//! Defaults, generated columns and checks: each must plan over the table's columns and give its type.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema};
use catalog::Column;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::sql::sqlparser::ast::ExprWithAlias;

use super::columns::Defined;
use crate::dialect;
use crate::error::{Error, Result, SqlState};
use crate::types;

/// PostgreSQL's `invalid_object_definition`.
const INVALID_OBJECT_DEFINITION: SqlState = SqlState("42P17");

/// Checks every expression of a table. What is checked is the text that is stored, read again.
pub(in crate::exec) fn check(state: &SessionState, table: &Defined) -> Result<()> {
    let all = DFSchema::try_from(types::schema(&table.columns).as_ref().clone())?;
    let none = DFSchema::try_from(Schema::empty())?;
    for column in &table.columns {
        if let Some(text) = &column.default {
            let (_, ty) = planned(state, text, &none, "DEFAULT expressions")?;
            castable(column, "default", &ty)?;
        }
        if let Some(text) = &column.generated {
            let (expr, ty) = planned(state, text, &all, "column generation expressions")?;
            castable(column, "generation", &ty)?;
            immutable(&expr)?;
            other_columns(&expr, &table.columns)?;
        }
    }
    for text in table.checks.values() {
        let (_, ty) = planned(state, text, &all, "check constraints")?;
        if !matches!(ty, DataType::Boolean | DataType::Null) {
            return Err(Error::refused(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "argument of CHECK must be type boolean, not type {}",
                    types::sql_type_of(&ty)
                ),
            ));
        }
    }
    Ok(())
}

/// The expression over those columns, with the type it gives.
fn planned(
    state: &SessionState,
    text: &str,
    columns: &DFSchema,
    place: &str,
) -> Result<(Expr, DataType)> {
    let expr = ExprWithAlias {
        expr: dialect::parse_expr(text)?,
        alias: None,
    };
    let expr = state.create_logical_expr_from_sql_expr(expr, columns)?;
    row_only(&expr, place)?;
    let input = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: columns.fields().is_empty(),
        schema: Arc::new(columns.clone()),
    });
    let plan = LogicalPlanBuilder::from(input)
        .project([expr.clone().alias("value")])?
        .build()?;
    let plan = crate::semantics::apply(plan)?;
    let plan = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?;
    let ty = plan.schema().field(0).data_type().clone();
    Ok((expr, ty))
}

/// Refuses what needs more than one row.
fn row_only(expr: &Expr, place: &str) -> Result<()> {
    let mut refused = None;
    expr.apply(|e| {
        refused = match e {
            Expr::AggregateFunction(_) => Some((SqlState::GROUPING_ERROR, "aggregate functions")),
            Expr::WindowFunction(_) => Some((SqlState("42P20"), "window functions")),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some((SqlState::FEATURE_NOT_SUPPORTED, "subqueries"))
            }
            Expr::Placeholder(_) => Some((SqlState::UNDEFINED_PARAMETER, "parameters")),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    match refused {
        None => Ok(()),
        Some((state, what)) => Err(Error::refused(
            state,
            format!("{what} are not allowed in {place}"),
        )),
    }
}

fn castable(column: &Column, what: &str, from: &DataType) -> Result<()> {
    let to = types::arrow_type(&column.sql_type);
    if *from == to || can_cast_types(from, &to) {
        return Ok(());
    }
    Err(Error::refused(
        SqlState::DATATYPE_MISMATCH,
        format!(
            "column \"{}\" is of type {} but {what} expression is of type {}",
            column.name,
            column.sql_type,
            types::sql_type_of(from)
        ),
    )
    .with_hint("cast the expression"))
}

/// A stored value must be the one the expression gives whenever it is computed.
fn immutable(expr: &Expr) -> Result<()> {
    let mut changing = false;
    expr.apply(|e| {
        if let Expr::ScalarFunction(call) = e
            && call.func.signature().volatility != Volatility::Immutable
        {
            changing = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match changing {
        true => Err(Error::refused(
            INVALID_OBJECT_DEFINITION,
            "generation expression is not immutable",
        )),
        false => Ok(()),
    }
}

fn other_columns(expr: &Expr, columns: &[Column]) -> Result<()> {
    let generated = |name: &str| {
        columns
            .iter()
            .any(|c| c.name == name && c.generated.is_some())
    };
    match expr.column_refs().into_iter().find(|c| generated(&c.name)) {
        None => Ok(()),
        Some(column) => Err(Error::refused(
            INVALID_OBJECT_DEFINITION,
            format!(
                "cannot use generated column \"{}\" in column generation expression",
                column.name
            ),
        )),
    }
}
