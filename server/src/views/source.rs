//! The streaming tables below a view's core, cut to a range of log positions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, lit,
};

use super::core::{has_subquery, plain_rows};
use crate::engine::scan::WeirTable;
use crate::error::Error;
use crate::stream::head::Lsn;
use crate::types::LSN;

/// Positions `after < _lsn <= upto`; without an end, everything the head holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) after: Lsn,
    pub(super) upto: Option<Lsn>,
}

/// The plan with its source cut to the range. Columns stay as they are.
pub(super) fn cut(plan: LogicalPlan, range: Range) -> Result<LogicalPlan> {
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::TableScan(scan) => Ok(Transformed::new(
            ranged(&scan, range, false)?,
            true,
            TreeNodeRecursion::Jump,
        )),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// The same of a whole query: tables beside the streams stay as they are.
pub(super) fn cut_streams(plan: LogicalPlan, range: Range) -> Result<LogicalPlan> {
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::TableScan(scan)
            if WeirTable::behind(&scan.source).is_some_and(|t| t.head().streaming) =>
        {
            Ok(Transformed::new(
                ranged(&scan, range, false)?,
                true,
                TreeNodeRecursion::Jump,
            ))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// The shape of APPEND views: each result row comes from one row of one table, and has its position.
pub(super) fn positionable(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => plain_rows(plan),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            !has_subquery(plan).unwrap_or(true) && plan.inputs().into_iter().all(positionable)
        }
        _ => false,
    }
}

/// The plan of an APPEND view with its source cut to the range, and each row's position in front.
pub(super) fn positioned(plan: &LogicalPlan, range: Range) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::TableScan(scan) => ranged(scan, range, true),
        LogicalPlan::Filter(filter) => {
            let input = positioned(&filter.input, range)?;
            Filter::try_new(filter.predicate.clone(), Arc::new(input)).map(LogicalPlan::Filter)
        }
        LogicalPlan::Projection(projection) => {
            let input = positioned(&projection.input, range)?;
            let position = Expr::Column(Column::from(input.schema().qualified_field(0)));
            let exprs = std::iter::once(position)
                .chain(projection.expr.iter().cloned())
                .collect();
            Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = positioned(&alias.input, range)?;
            SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())
                .map(LogicalPlan::SubqueryAlias)
        }
        other => Err(Error::Internal(format!("an APPEND view over {}", other.display())).into()),
    }
}

fn ranged(scan: &TableScan, range: Range, keep_position: bool) -> Result<LogicalPlan> {
    let table = WeirTable::behind(&scan.source)
        .map(|t| WeirTable::new(Arc::clone(t.head()), true))
        .filter(WeirTable::has_lsn)
        .filter(|_| scan.filters.is_empty() && scan.fetch.is_none())
        .ok_or_else(|| {
            Error::Internal(format!("cannot cut \"{}\" by position", scan.table_name))
        })?;
    let position = || Expr::Column(Column::new(Some(scan.table_name.clone()), LSN));
    let at = |lsn: Lsn| lit(ScalarValue::Int64(Some(lsn.0)));
    let mut wanted = position().gt(at(range.after));
    if let Some(upto) = range.upto {
        wanted = wanted.and(position().lt_eq(at(upto)));
    }
    let shown = scan.projected_schema.columns().into_iter();
    let shown = shown
        .filter(|c| !(keep_position && c.name == LSN))
        .map(Expr::Column);
    let columns = keep_position.then(position).into_iter().chain(shown);
    LogicalPlanBuilder::scan(
        scan.table_name.clone(),
        provider_as_source(Arc::new(table)),
        None,
    )?
    .filter(wanted)?
    .project(columns)?
    .build()
}
