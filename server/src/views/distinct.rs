//! The form of a query that analysis and reading share. Subqueries that rows are looked up in become
//! joins, and DISTINCT plain aggregation: `SELECT DISTINCT` groups, and aggregates over distinct values
//! group twice, by the values too and then over them. The inner aggregation is what a view keeps.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Cast, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
    Projection, col, lit, when,
};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

/// Aggregates of aggregates: what merges the inner results of each, over groups of more keys.
const MERGED_BY_ITSELF: &[&str] = &[
    "sum", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor",
];

/// How many expressions at most may be wanted distinct at once: rows are looked at once for each.
const MOST_VALUES: usize = 8;

/// Aggregates for which a value counts once or not at all.
const OF_VALUES: &[&str] = &["count", "sum", "avg", "min", "max"];

const VALUE: &str = "__distinct";
/// Which of several values a row counts for.
const WHICH: &str = "__which";

/// The query in the form that analysis and reading share.
pub(super) fn prepared(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = subqueries_joined(plan);
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

/// `EXISTS` and `IN` over queries as joins, where they can be; anything else stays.
fn subqueries_joined(plan: LogicalPlan) -> LogicalPlan {
    let mentions = plan.exists(|node| {
        let looks = |e: &Expr| Ok(matches!(e, Expr::Exists(_) | Expr::InSubquery(_)));
        let of = matches!(node, LogicalPlan::Filter(_)).then(|| node.expressions());
        let mut found = false;
        for expr in of.into_iter().flatten() {
            found |= expr.exists(looks)?;
        }
        Ok(found)
    });
    if !matches!(mentions, Ok(true)) {
        return plan;
    }
    // names that the rule makes up start anew each time: the same query has the same form
    let names = OptimizerContext::new();
    let rule = DecorrelatePredicateSubquery::new();
    match plan
        .clone()
        .transform_down(|node| rule.rewrite(node, &names))
    {
        Ok(joined) => joined.data,
        // the optimizer says why, should it come so far
        Err(_) => plan,
    }
}

/// True when the aggregation is the inner one that [`prepared`] made.
pub(super) fn is_inner(aggregate: &Aggregate) -> bool {
    matches!(aggregate.group_expr.last(), Some(Expr::Alias(a)) if a.name.starts_with(VALUE))
}

/// What an aggregate becomes over the inner results.
enum Outer {
    /// Another aggregate; it counts, so no rows give 0.
    Count(Expr),
    /// Another aggregate.
    Same(Expr),
    /// The first divided by the second.
    Mean(Expr, Expr),
}

/// Aggregation over distinct values, as an aggregation over an aggregation. When they are of several
/// expressions, each row comes once for each of them, and other aggregates look at it once.
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
    let Some(values) = the_values(&calls)? else {
        return Ok(None);
    };
    let schema = Arc::clone(aggregate.input.schema());
    let mut keys = aggregate.group_expr.clone();
    let several = values.len() > 1;
    let input = match several {
        false => Arc::clone(&aggregate.input),
        true => {
            keys.push(col(WHICH));
            Arc::new(repeated(&aggregate.input, values.len())?)
        }
    };
    for (i, value) in values.iter().enumerate() {
        keys.push(match several {
            false => value.clone().alias(VALUE),
            true => when(col(WHICH).eq(lit(number(i))), value.clone())
                .end()?
                .alias(value_name(i)),
        });
    }
    let mut inner = Vec::new();
    let mut outer = Vec::new();
    for (i, mut call) in calls.into_iter().enumerate() {
        if call.params.distinct {
            let of = value(&call)?.and_then(|v| values.iter().position(|other| *other == v));
            let Some(of) = of else {
                return Ok(None);
            };
            let name = match several {
                false => VALUE.to_owned(),
                true => value_name(of),
            };
            outer.push(Outer::Same(over(call.func, &name)));
            continue;
        }
        if several {
            let once = col(WHICH).eq(lit(number(0)));
            call.params.filter = Some(Box::new(match call.params.filter {
                None => once,
                Some(filter) => once.and(*filter),
            }));
        }
        let Some(merged) = merged(call, i, &schema, &mut inner)? else {
            return Ok(None);
        };
        outer.push(merged);
    }
    let inner = Aggregate::try_new(input, keys, inner)?;
    let groups = aggregate.group_expr.len();
    let columns = inner.schema.columns();
    let keys = columns.into_iter().take(groups).map(Expr::Column).collect();
    let mut named = Vec::new();
    for (i, call) in outer.iter().enumerate() {
        match call {
            Outer::Count(call) | Outer::Same(call) => {
                named.push(call.clone().alias(format!("__outer{i}")));
            }
            Outer::Mean(sum, count) => {
                named.push(sum.clone().alias(format!("__outer{i}")));
                named.push(count.clone().alias(format!("__count{i}")));
            }
        }
    }
    let outer_plan = Aggregate::try_new(Arc::new(LogicalPlan::Aggregate(inner)), keys, named)?;
    let mut output = Vec::new();
    for (i, (relation, field)) in aggregate.schema.iter().enumerate() {
        let value = match i
            .checked_sub(groups)
            .and_then(|at| Some((at, outer.get(at)?)))
        {
            None => Expr::Column(Column::from(outer_plan.schema.qualified_field(i))),
            Some((at, how)) => {
                let result = col(format!("__outer{at}"));
                match how {
                    Outer::Same(_) => result,
                    Outer::Count(_) => coalesce(vec![result, lit(0_i64)]),
                    Outer::Mean(..) => {
                        let count = col(format!("__count{at}"));
                        let float =
                            Expr::Cast(Cast::new(Box::new(count.clone()), DataType::Float64));
                        when(count.gt(lit(0_i64)), result / float).end()?
                    }
                }
            }
        };
        let value = match value.get_type(&outer_plan.schema)? == *field.data_type() {
            true => value,
            false => Expr::Cast(Cast::new(Box::new(value), field.data_type().clone())),
        };
        output.push(value.alias_qualified(relation.cloned(), field.name()));
    }
    let plan = Projection::try_new(output, Arc::new(LogicalPlan::Aggregate(outer_plan)))?;
    Ok(Some(LogicalPlan::Projection(plan)))
}

/// Each row so often, with the numbers from 0 on.
fn repeated(rows: &LogicalPlan, times: usize) -> Result<LogicalPlan> {
    let numbers: Vec<ScalarValue> = (0..times).map(|i| number(i).into()).collect();
    let numbers = ScalarValue::new_list_nullable(&numbers, &DataType::Int64);
    let mut columns: Vec<Expr> = rows
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    columns.push(lit(ScalarValue::List(numbers)).alias(WHICH));
    LogicalPlanBuilder::from(rows.clone())
        .project(columns)?
        .unnest_column(WHICH)?
        .build()
}

fn number(i: usize) -> i64 {
    i64::try_from(i).unwrap_or(i64::MAX)
}

fn value_name(i: usize) -> String {
    format!("{VALUE}{i}")
}

/// The expressions that aggregates want distinct; nothing when there are none, or one that cannot be kept.
fn the_values(calls: &[AggregateFunction]) -> Result<Option<Vec<Expr>>> {
    let mut found: Vec<Expr> = Vec::new();
    for call in calls.iter().filter(|c| c.params.distinct) {
        match value(call)? {
            None => return Ok(None),
            Some(value) if found.contains(&value) => {}
            Some(value) => found.push(value),
        }
    }
    Ok((!found.is_empty() && found.len() <= MOST_VALUES).then_some(found))
}

/// The expression that an aggregate wants distinct, NULL where a FILTER leaves it out.
fn value(call: &AggregateFunction) -> Result<Option<Expr>> {
    let plain = call.params.order_by.is_empty() && call.params.null_treatment.is_none();
    let [arg] = call.params.args.as_slice() else {
        return Ok(None);
    };
    if !plain || !OF_VALUES.contains(&call.func.name()) || matches!(arg, Expr::Literal(..)) {
        return Ok(None);
    }
    Ok(Some(match &call.params.filter {
        None => arg.clone(),
        Some(filter) => when((**filter).clone(), arg.clone()).end()?,
    }))
}

/// A plain call over one column.
fn over(func: Arc<AggregateUDF>, name: &str) -> Expr {
    called(
        func,
        vec![Expr::Column(Column::new_unqualified(name))],
        None,
    )
}

fn called(func: Arc<AggregateUDF>, args: Vec<Expr>, filter: Option<Box<Expr>>) -> Expr {
    Expr::AggregateFunction(AggregateFunction {
        func,
        params: AggregateFunctionParams {
            args,
            distinct: false,
            filter,
            order_by: Vec::new(),
            null_treatment: None,
        },
    })
}

/// The outer form of a call; what it needs goes into `inner`.
fn merged(
    call: AggregateFunction,
    i: usize,
    rows: &DFSchema,
    inner: &mut Vec<Expr>,
) -> Result<Option<Outer>> {
    let name = call.func.name().to_owned();
    let plain = call.params.order_by.is_empty() && call.params.null_treatment.is_none();
    if !plain {
        return Ok(None);
    }
    let column = format!("__inner{i}");
    Ok(match name.as_str() {
        "count" => {
            inner.push(Expr::AggregateFunction(call).alias(&column));
            Some(Outer::Count(over(sum_udaf(), &column)))
        }
        "avg" => {
            let [arg] = call.params.args.as_slice() else {
                return Ok(None);
            };
            if arg.get_type(rows)? != DataType::Float64 {
                return Ok(None);
            }
            let counts = format!("__inner{i}_count");
            let args = call.params.args.clone();
            let filter = call.params.filter.clone();
            inner.push(called(sum_udaf(), args.clone(), filter.clone()).alias(&column));
            inner.push(called(count_udaf(), args, filter).alias(&counts));
            Some(Outer::Mean(
                over(sum_udaf(), &column),
                over(sum_udaf(), &counts),
            ))
        }
        name if MERGED_BY_ITSELF.contains(&name) => {
            let func = Arc::clone(&call.func);
            inner.push(Expr::AggregateFunction(call).alias(&column));
            Some(Outer::Same(over(func, &column)))
        }
        _ => None,
    })
}
