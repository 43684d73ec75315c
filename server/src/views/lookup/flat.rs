//! Plans of projections, conditions and aliases, as expressions over the node at their bottom.

use catalog::Oid;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, Operator, TableScan, UserDefinedLogicalNode, Volatility,
};

use super::{Asked, Ours};
use crate::engine::scan::WeirTable;
use crate::views::core::has_subquery;
use crate::views::nodes::{MergeStates, PartialStates};

/// A plan's columns and conditions over its bottom.
#[derive(Debug)]
pub(super) struct Flat<'a, T> {
    pub(super) base: &'a T,
    /// One per column.
    pub(super) exprs: Vec<Expr>,
    /// All must be true.
    pub(super) conditions: Vec<Expr>,
}

/// A query over merged states, if that is all it is.
pub(super) fn over_states<'a>(
    plan: &'a LogicalPlan,
    ours: Ours<'_>,
) -> Result<Option<Flat<'a, MergeStates>>> {
    flat(plan, ours, &|plan| match plan {
        LogicalPlan::Extension(e) => {
            let node: &dyn UserDefinedLogicalNode = e.node.as_ref();
            let node = node.as_any().downcast_ref::<MergeStates>()?;
            Some((node, columns(plan.schema())))
        }
        _ => None,
    })
}

/// Rows of one table, if that is all they are.
pub(super) fn over_table<'a>(
    plan: &'a LogicalPlan,
    ours: Ours<'_>,
) -> Result<Option<Flat<'a, TableScan>>> {
    flat(plan, ours, &|plan| match plan {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
            Some((scan, columns(plan.schema())))
        }
        _ => None,
    })
}

/// The view, and the states of new rows, where states are just those beside the stored ones.
pub(super) fn beside_stored(states: &LogicalPlan) -> Option<(Oid, &PartialStates)> {
    let LogicalPlan::Projection(named) = states else {
        return None;
    };
    let LogicalPlan::Union(union) = named.input.as_ref() else {
        return None;
    };
    let [stored, new] = union.inputs.as_slice() else {
        return None;
    };
    let mut below = stored.as_ref();
    let view = loop {
        match below {
            LogicalPlan::Projection(p) => below = &p.input,
            LogicalPlan::TableScan(scan) => break WeirTable::behind(&scan.source)?.head().oid,
            _ => return None,
        }
    };
    // a union brings its inputs to the same types
    let new = match new.as_ref() {
        LogicalPlan::Projection(p) if p.expr.iter().all(plain) => p.input.as_ref(),
        other => other,
    };
    match new {
        LogicalPlan::Extension(e) => {
            let node: &dyn UserDefinedLogicalNode = e.node.as_ref();
            Some((view, node.as_any().downcast_ref::<PartialStates>()?))
        }
        _ => None,
    }
}

fn plain(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => plain(&alias.expr),
        _ => false,
    }
}

fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

type Bottom<'a, 'f, T> = &'f dyn Fn(&'a LogicalPlan) -> Option<(&'a T, Vec<Expr>)>;

fn flat<'a, T>(
    plan: &'a LogicalPlan,
    ours: Ours<'_>,
    bottom: Bottom<'a, '_, T>,
) -> Result<Option<Flat<'a, T>>> {
    if let Some((base, exprs)) = bottom(plan) {
        return Ok(Some(Flat {
            base,
            exprs,
            conditions: Vec::new(),
        }));
    }
    let input: &LogicalPlan = match plan {
        LogicalPlan::Projection(p) => &p.input,
        LogicalPlan::Filter(f) => &f.input,
        LogicalPlan::SubqueryAlias(a) => &a.input,
        _ => return Ok(None),
    };
    if has_subquery(plan)? || !plan.expressions().iter().all(|e| steady(e, ours)) {
        return Ok(None);
    }
    let Some(mut below) = flat(input, ours, bottom)? else {
        return Ok(None);
    };
    match plan {
        LogicalPlan::Projection(p) => {
            let exprs = p.expr.iter();
            let exprs = exprs.map(|e| replaced(e, input.schema(), &below.exprs));
            below.exprs = exprs.collect::<Result<_>>()?;
        }
        LogicalPlan::Filter(f) => {
            for part in split_conjunction(&f.predicate) {
                let part = replaced(part, input.schema(), &below.exprs)?;
                below.conditions.push(part);
            }
        }
        _ => {}
    }
    Ok(Some(below))
}

/// True when the expression's value depends on its columns alone, and it holds on to nothing else.
fn steady(expr: &Expr, ours: Ours<'_>) -> bool {
    !expr
        .exists(|e| {
            Ok(match e {
                Expr::ScalarFunction(f) => {
                    let fixed = f.func.signature().volatility == Volatility::Immutable;
                    let known = crate::semantics::is_text_conversion(f.func.name());
                    !(known || (fixed && ours(&f.func)))
                }
                Expr::ScalarVariable(..) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                    true
                }
                _ => false,
            })
        })
        .unwrap_or(true)
}

fn replaced(expr: &Expr, schema: &DFSchema, below: &[Expr]) -> Result<Expr> {
    let done = expr.clone().unalias_nested().data.transform_up(|e| {
        Ok(match &e {
            Expr::Column(column) => match below.get(schema.index_of_column(column)?) {
                Some(meant) => Transformed::yes(meant.clone()),
                None => Transformed::no(e),
            },
            _ => Transformed::no(e),
        })
    })?;
    Ok(done.data)
}

/// `column = value`, either way round.
pub(super) fn equality(condition: &Expr) -> Option<(Column, Asked)> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = condition
    else {
        return None;
    };
    let value = |e: &Expr| match e {
        Expr::Placeholder(p) => {
            let number: usize = p.id.strip_prefix('$')?.parse().ok()?;
            Some(Asked::Param(number.checked_sub(1)?))
        }
        Expr::Literal(value, _) => Some(Asked::Value(value.clone())),
        _ => None,
    };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), other) | (other, Expr::Column(column)) => {
            Some((column.clone(), value(other)?))
        }
        _ => None,
    }
}
