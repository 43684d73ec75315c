//! Finding the part of a query that is kept: its *core*.
//!
//! All streaming tables of a query that is kept incrementally lie below one core. What stands above it
//! is computed at read, over the merged core and over other tables as they are at the cut; so it may be
//! anything whose value depends on its rows alone.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, Filter, LogicalPlan, Operator, Window, WindowFunctionDefinition,
};

use super::late::{self, Step};
use super::split::Split;
use crate::engine::scan::WeirTable;

/// Aggregates whose state has a fixed size and merges in any order.
const MERGEABLE: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_slope",
    "regr_intercept",
    "regr_count",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_top_k",
];

/// Of these, the ones that may be given an order as an argument.
const OF_AN_ORDER: &[&str] = &["approx_percentile_cont"];

/// The same for those that must be given an order.
const MERGEABLE_ORDERED: &[&str] = &["first_value", "last_value"];

/// Window functions that say how many rows come before a row: leaving out rows behind the n-th does
/// not change who is among the first n.
const RANKS: &[&str] = &["row_number", "rank", "dense_rank"];

/// The part that is kept.
#[derive(Debug, Clone)]
pub(super) enum Core {
    /// An aggregation, its rows perhaps joined with dimensions.
    Agg(AggCore),
    /// An aggregation over `session_window`.
    Session(SessionCore),
    /// The first rows of each partition of a window.
    Top(TopCore),
}

/// `Aggregate(joins and filters(rows))`: states are kept below the joins.
#[derive(Debug, Clone)]
pub(super) struct AggCore {
    /// The query's aggregation.
    pub(super) aggregate: Aggregate,
    /// What is kept: the same aggregates, by the columns that the joins need.
    pub(super) split: Split,
    /// What stands between the rows and the aggregation, innermost first.
    pub(super) steps: Vec<Step>,
}

/// Sessions: states by the other keys and the session's time.
#[derive(Debug, Clone)]
pub(super) struct SessionCore {
    pub(super) split: Split,
    pub(super) gap: ScalarValue,
}

/// `Filter(rank <= n)` over one window.
#[derive(Debug, Clone)]
pub(super) struct TopCore {
    /// The filter, down to the window.
    pub(super) plan: LogicalPlan,
    pub(super) window: Window,
    pub(super) first: i64,
}

impl Core {
    /// The rows that states are made of.
    pub(super) fn rows_mut(&mut self) -> Option<&mut LogicalPlan> {
        match self {
            Self::Agg(agg) => Some(&mut agg.split.rows),
            Self::Session(session) => Some(&mut session.split.rows),
            Self::Top(_) => None,
        }
    }
}

/// Why a node that could be a core is none.
pub(super) type Obstacle = (String, String);

/// The core that starts at a node, if there is one; an obstacle where only a detail is missing.
pub(super) fn recognize(node: &LogicalPlan) -> Result<std::result::Result<Core, Option<Obstacle>>> {
    match node {
        LogicalPlan::Aggregate(aggregate) => aggregation(aggregate),
        LogicalPlan::Filter(filter) => Ok(top(filter)?.map(Core::Top).ok_or(None)),
        _ => Ok(Err(None)),
    }
}

fn aggregation(aggregate: &Aggregate) -> Result<std::result::Result<Core, Option<Obstacle>>> {
    if !streams(&aggregate.input)? {
        return Ok(Err(None));
    }
    if let Some(obstacle) = obstacle(aggregate) {
        return Ok(Err(Some(obstacle)));
    }
    if let Some(sessions) = udfs::planned_sessions(aggregate) {
        let LogicalPlan::Window(window) = aggregate.input.as_ref() else {
            return Ok(Err(None));
        };
        if !plain_rows(&window.input) {
            return Ok(Err(None));
        }
        return Ok(Ok(Core::Session(SessionCore {
            split: Split::new(aggregate)?,
            gap: sessions.gap,
        })));
    }
    late::aggregation(aggregate)
}

/// Why an aggregation's states cannot be stored and merged, if so.
fn obstacle(aggregate: &Aggregate) -> Option<Obstacle> {
    let sets = aggregate.group_expr.iter();
    if sets.clone().any(|e| matches!(e, Expr::GroupingSet(_))) {
        let detail = "grouping sets are not kept incrementally";
        return Some(("GROUPING_SETS".to_owned(), detail.to_owned()));
    }
    aggregate
        .aggr_expr
        .iter()
        .find_map(|call| match call.clone().unalias_nested().data {
            Expr::AggregateFunction(f) => {
                let (code, detail) = unmergeable(&f)?;
                Some((format!("NON_MERGEABLE_AGG:{code}"), detail.to_owned()))
            }
            other => Some((
                "UNSUPPORTED_NODE".to_owned(),
                format!("\"{other}\" is no plain aggregate"),
            )),
        })
}

fn unmergeable(f: &AggregateFunction) -> Option<(String, &'static str)> {
    let name = f.func.name();
    let ordered = MERGEABLE_ORDERED.contains(&name);
    if !ordered && !MERGEABLE.contains(&name) {
        Some((
            name.to_owned(),
            "its state has no fixed size or depends on order",
        ))
    } else if f.params.distinct {
        Some((
            format!("{name}(DISTINCT)"),
            "its state holds every distinct value",
        ))
    } else if (f.params.order_by.is_empty() == ordered && !OF_AN_ORDER.contains(&name))
        || f.params.null_treatment.is_some()
    {
        Some((
            name.to_owned(),
            "an order or null treatment inside is not kept",
        ))
    } else {
        None
    }
}

fn top(filter: &Filter) -> Result<Option<TopCore>> {
    let mut chain = Vec::new();
    let mut below = filter.input.as_ref();
    let window = loop {
        match below {
            LogicalPlan::Window(window) => break window,
            LogicalPlan::Projection(p) => {
                chain.push(below);
                below = &p.input;
            }
            LogicalPlan::SubqueryAlias(a) => {
                chain.push(below);
                below = &a.input;
            }
            _ => return Ok(None),
        }
    };
    let [rank] = window.window_expr.as_slice() else {
        return Ok(None);
    };
    if !is_rank(rank) || !plain_rows(&window.input) || !streams(&window.input)? {
        return Ok(None);
    }
    for node in chain.iter().chain([&&LogicalPlan::Filter(filter.clone())]) {
        if has_subquery(node)? {
            return Ok(None);
        }
    }
    let at = window.input.schema().fields().len();
    let bound = split_conjunction(&filter.predicate)
        .into_iter()
        .filter_map(upper_bound)
        .find(|(column, _)| traced(column, &chain, &window.schema) == Some(at));
    Ok(bound.map(|(_, first)| TopCore {
        plan: LogicalPlan::Filter(filter.clone()),
        window: window.clone(),
        first,
    }))
}

fn is_rank(expr: &Expr) -> bool {
    match expr.clone().unalias_nested().data {
        Expr::WindowFunction(f) => {
            matches!(f.fun, WindowFunctionDefinition::WindowUDF(_))
                && RANKS.contains(&f.fun.name())
                && !f.params.order_by.is_empty()
                && f.params.filter.is_none()
        }
        _ => false,
    }
}

/// `column <= n`, in any of its spellings.
fn upper_bound(predicate: &Expr) -> Option<(Expr, i64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else {
        return None;
    };
    let (column, op, bound) = match (number(left), number(right)) {
        (None, Some(bound)) => (left, *op, bound),
        (Some(bound), None) => (right, op.swap()?, bound),
        _ => return None,
    };
    match op {
        Operator::LtEq | Operator::Eq => Some((bare(column).clone(), bound)),
        Operator::Lt => Some((bare(column).clone(), bound.checked_sub(1)?)),
        _ => None,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => bare(&cast.expr),
        other => other,
    }
}

fn number(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = bare(expr) else {
        return None;
    };
    let whole = value.data_type().is_integer();
    match value.cast_to(&arrow::datatypes::DataType::Int64) {
        Ok(ScalarValue::Int64(n)) if whole => n,
        _ => None,
    }
}

/// Where a column of the topmost node stands in the window's output, through projections and aliases.
fn traced(column: &Expr, chain: &[&LogicalPlan], window: &DFSchema) -> Option<usize> {
    let Expr::Column(column) = column else {
        return None;
    };
    let top = chain.first().map_or(window, |node| node.schema());
    let mut at = top.maybe_index_of_column(column)?;
    for node in chain {
        if let LogicalPlan::Projection(p) = node {
            let Expr::Column(c) = p.expr.get(at)?.clone().unalias_nested().data else {
                return None;
            };
            at = p.input.schema().maybe_index_of_column(&c)?;
        }
    }
    Some(at)
}

/// Filter, projection, unnesting and union of streaming tables: every result row comes from one row.
pub(super) fn plain_rows(plan: &LogicalPlan) -> bool {
    let shape = match plan {
        LogicalPlan::TableScan(scan) => {
            return scan.filters.is_empty()
                && scan.fetch.is_none()
                && WeirTable::behind(&scan.source).is_some_and(|t| {
                    t.head().streaming && WeirTable::new(Arc::clone(t.head()), true).has_lsn()
                });
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => true,
        _ => false,
    };
    shape && !has_subquery(plan).unwrap_or(true) && plan.inputs().into_iter().all(plain_rows)
}

/// A node's own expressions hold a query, or refer to one around it.
pub(super) fn has_subquery(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    for expr in node.expressions() {
        found |= expr.exists(|e| {
            Ok(matches!(
                e,
                Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_)
                    | Expr::OuterReferenceColumn(..)
            ))
        })?;
    }
    Ok(found)
}

/// A streaming table lies below.
pub(super) fn streams(plan: &LogicalPlan) -> Result<bool> {
    Ok(stream_scans(plan)? > 0)
}

/// How often streaming tables are mentioned below.
pub(super) fn stream_scans(plan: &LogicalPlan) -> Result<usize> {
    let mut found = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && WeirTable::behind(&scan.source).is_some_and(|t| t.head().streaming)
        {
            found += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
