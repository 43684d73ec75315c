//! DISTINCT as plain aggregation: `SELECT DISTINCT` groups, and aggregates over distinct values group
//! twice, by the values too and then over them. The inner aggregation is what a view keeps.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Cast, Distinct, Expr, LogicalPlan, Projection, lit, when,
};

/// Aggregates of aggregates: what merges the inner results of each, over groups of more keys.
const MERGED_BY_ITSELF: &[&str] = &[
    "sum", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor",
];

/// Aggregates for which a value counts once or not at all.
const OF_VALUES: &[&str] = &["count", "sum", "avg", "min", "max"];

const VALUE: &str = "__distinct";

/// The query in the form that analysis and reading share.
pub(super) fn prepared(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_down(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let keys = input
                .schema()
                .columns()
                .into_iter()
                .map(Expr::Column)
                .collect();
            let aggregate = Aggregate::try_new(input, keys, Vec::new())?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        LogicalPlan::Aggregate(aggregate) => match two_levels(&aggregate)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// True when the aggregation is the inner one that [`prepared`] made.
pub(super) fn is_inner(aggregate: &Aggregate) -> bool {
    matches!(aggregate.group_expr.last(), Some(Expr::Alias(a)) if a.name == VALUE)
}

/// Aggregation over distinct values of one expression, as an aggregation over an aggregation.
fn two_levels(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let sets = |e: &Expr| matches!(e, Expr::GroupingSet(_));
    if aggregate.group_expr.iter().any(sets) {
        return Ok(None);
    }
    let mut calls = Vec::new();
    for call in &aggregate.aggr_expr {
        match call.clone().unalias_nested().data {
            Expr::AggregateFunction(f) => calls.push(f),
            _ => return Ok(None),
        }
    }
    let Some(value) = the_value(&calls)? else {
        return Ok(None);
    };
    let mut keys = aggregate.group_expr.clone();
    keys.push(value.alias(VALUE));
    let mut inner = Vec::new();
    let mut outer = Vec::new();
    for (i, call) in calls.into_iter().enumerate() {
        let Some(merged) = merged(call, i, &mut inner) else {
            return Ok(None);
        };
        outer.push(merged);
    }
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), keys, inner)?;
    let groups = aggregate.group_expr.len();
    let columns = inner.schema.columns();
    let keys = columns.into_iter().take(groups).map(Expr::Column).collect();
    let named = outer.iter().enumerate();
    let named = named.map(|(i, (call, _))| call.clone().alias(format!("__outer{i}")));
    let named = named.collect();
    let outer_plan = Aggregate::try_new(Arc::new(LogicalPlan::Aggregate(inner)), keys, named)?;
    let output = aggregate
        .schema
        .iter()
        .enumerate()
        .map(|(i, (relation, field))| {
            let (from, _) = outer_plan.schema.qualified_field(i);
            let column = Column::new(from.cloned(), outer_plan.schema.field(i).name());
            let mut value = Expr::Column(column);
            if let Some((_, counts)) = i.checked_sub(groups).and_then(|at| outer.get(at)) {
                if *counts {
                    value = coalesce(vec![value, lit(0_i64)]);
                }
                if outer_plan.schema.field(i).data_type() != field.data_type() {
                    value = Expr::Cast(Cast::new(Box::new(value), field.data_type().clone()));
                }
            }
            value.alias_qualified(relation.cloned(), field.name())
        });
    let output = output.collect();
    let plan = Projection::try_new(output, Arc::new(LogicalPlan::Aggregate(outer_plan)))?;
    Ok(Some(LogicalPlan::Projection(plan)))
}

/// The one expression that aggregates want distinct, NULL where a FILTER leaves it out.
fn the_value(calls: &[AggregateFunction]) -> Result<Option<Expr>> {
    let mut found: Option<Expr> = None;
    for call in calls.iter().filter(|c| c.params.distinct) {
        let plain = call.params.order_by.is_empty() && call.params.null_treatment.is_none();
        let [arg] = call.params.args.as_slice() else {
            return Ok(None);
        };
        if !plain || !OF_VALUES.contains(&call.func.name()) || matches!(arg, Expr::Literal(..)) {
            return Ok(None);
        }
        let value = match &call.params.filter {
            None => arg.clone(),
            Some(filter) => when((**filter).clone(), arg.clone()).end()?,
        };
        match &found {
            Some(other) if *other != value => return Ok(None),
            _ => found = Some(value),
        }
    }
    Ok(found)
}

/// The outer call, and whether it counts (0 over no rows); what it needs goes into `inner`.
fn merged(call: AggregateFunction, i: usize, inner: &mut Vec<Expr>) -> Option<(Expr, bool)> {
    let over = |func, name: &str| {
        Expr::AggregateFunction(AggregateFunction {
            func,
            params: AggregateFunctionParams {
                args: vec![Expr::Column(Column::new_unqualified(name))],
                distinct: false,
                filter: None,
                order_by: Vec::new(),
                null_treatment: None,
            },
        })
    };
    if call.params.distinct {
        return Some((over(call.func, VALUE), false));
    }
    let name = call.func.name().to_owned();
    let plain = call.params.order_by.is_empty() && call.params.null_treatment.is_none();
    let itself = MERGED_BY_ITSELF.contains(&name.as_str());
    if !plain || !(itself || name == "count") {
        return None;
    }
    let column = format!("__inner{i}");
    let func = match itself {
        true => Arc::clone(&call.func),
        false => sum_udaf(),
    };
    inner.push(Expr::AggregateFunction(call).alias(&column));
    Some((over(func, &column), !itself))
}
