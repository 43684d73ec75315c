//! Late binding of dimensions: `Aggregate(joins(rows, tables))` keeps states by the columns of the rows
//! that the joins look at, and joins the states.
//!
//! A row that meets several rows of a table counts several times, and so does its state: joining
//! states and merging them gives what aggregating joined rows would. The tables are read at each
//! statement's cut, so their changes show at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, JoinType, LogicalPlan};

use super::core::{AggCore, Core, Obstacle, has_subquery, plain_rows, streams};
use super::split::Split;

/// What happens to rows on their way to the aggregation.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A condition that looks at a table too.
    Filter(Expr),
    /// A join; the rows are its left or right input.
    Join { join: Join, left: bool },
}

type Found = std::result::Result<Core, Option<Obstacle>>;

/// An aggregation over streaming rows, perhaps joined with tables.
pub(super) fn aggregation(aggregate: &Aggregate) -> Result<Found> {
    let mut steps = Vec::new();
    let mut rows = aggregate.input.as_ref();
    while !plain_rows(rows) {
        if has_subquery(rows)? {
            return Ok(Err(None));
        }
        match rows {
            LogicalPlan::Filter(filter) => {
                steps.push(Step::Filter(filter.predicate.clone()));
                rows = &filter.input;
            }
            LogicalPlan::Join(join) => {
                let left = streams(&join.left)?;
                if streams(&join.right)? == left || !keeps_rows(join.join_type, left) {
                    return Ok(Err(None));
                }
                steps.push(Step::Join {
                    join: join.clone(),
                    left,
                });
                rows = if left { &join.left } else { &join.right };
            }
            _ => return Ok(Err(None)),
        }
    }
    steps.reverse();
    if steps.is_empty() {
        return Ok(Ok(Core::Agg(AggCore {
            aggregate: aggregate.clone(),
            split: Split::new(aggregate)?,
            steps,
        })));
    }
    let (rows, steps) = pushed(rows, steps)?;
    let own = |c: &Column| rows.schema().has_column(c);
    if !aggregate
        .aggr_expr
        .iter()
        .all(|e| e.column_refs().into_iter().all(own))
    {
        let detail = "an aggregate's argument is a column of a joined table";
        return Ok(Err(Some(("DIM_IN_AGG_ARGS".to_owned(), detail.to_owned()))));
    }
    let mut looked_at = Vec::new();
    looked_at.extend(aggregate.group_expr.iter().cloned());
    for step in &steps {
        match step {
            Step::Filter(predicate) => looked_at.push(predicate.clone()),
            Step::Join { join, .. } => {
                let pairs = join.on.iter();
                looked_at.extend(pairs.flat_map(|(l, r)| [l.clone(), r.clone()]));
                looked_at.extend(join.filter.clone());
            }
        }
    }
    let keys: BTreeSet<Column> = looked_at
        .iter()
        .flat_map(Expr::column_refs)
        .filter(|c| own(c))
        .cloned()
        .collect();
    if keys.is_empty() {
        // states without keys exist over no rows too, joined rows would not
        let detail = "no column of the stream decides what it is joined with";
        return Ok(Err(Some(("CROSS_JOIN".to_owned(), detail.to_owned()))));
    }
    let keys = keys.into_iter().map(Expr::Column).collect();
    let kept = Aggregate::try_new(Arc::new(rows), keys, aggregate.aggr_expr.clone())?;
    Ok(Ok(Core::Agg(AggCore {
        aggregate: aggregate.clone(),
        split: Split::new(&kept)?,
        steps,
    })))
}

/// The join never gives rows of the stream that were not there, nor NULLs in their place.
pub(super) fn keeps_rows(join: JoinType, left: bool) -> bool {
    match join {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => left,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => !left,
        JoinType::Full | JoinType::LeftMark | JoinType::RightMark => false,
    }
}

/// Conditions that look at the rows alone are applied to them, so that their columns need not be kept.
fn pushed(rows: &LogicalPlan, steps: Vec<Step>) -> Result<(LogicalPlan, Vec<Step>)> {
    let mut own = Vec::new();
    let mut rest = Vec::new();
    let mut split = |predicate: Expr| {
        let (mine, others): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(predicate)
            .into_iter()
            .partition(|p| {
                p.column_refs()
                    .into_iter()
                    .all(|c| rows.schema().has_column(c))
            });
        own.extend(mine);
        conjunction(others)
    };
    for step in steps {
        match step {
            Step::Filter(predicate) => rest.extend(split(predicate).map(Step::Filter)),
            Step::Join { mut join, left } => {
                if join.join_type == JoinType::Inner {
                    join.filter = join.filter.and_then(&mut split);
                }
                rest.push(Step::Join { join, left });
            }
        }
    }
    let rows = match conjunction(own) {
        Some(own) => LogicalPlan::Filter(Filter::try_new(own, Arc::new(rows.clone()))?),
        None => rows.clone(),
    };
    Ok((rows, rest))
}

impl Step {
    /// The step over other rows that have the columns it looks at.
    pub(super) fn over(&self, rows: LogicalPlan) -> Result<LogicalPlan> {
        match self {
            Self::Filter(predicate) => {
                Filter::try_new(predicate.clone(), Arc::new(rows)).map(LogicalPlan::Filter)
            }
            Self::Join { join, left } => {
                let rows = Arc::new(rows);
                let (l, r) = match left {
                    true => (rows, Arc::clone(&join.right)),
                    false => (Arc::clone(&join.left), rows),
                };
                Join::try_new(
                    l,
                    r,
                    join.on.clone(),
                    join.filter.clone(),
                    join.join_type,
                    join.join_constraint,
                    join.null_equality,
                    join.null_aware,
                )
                .map(LogicalPlan::Join)
            }
        }
    }
}
