//! What a view stores, compared with its sources.
//!
//! Some keys of the state, and keys of some source rows, are asked of both: of the view as of the
//! position that it is stored up to, and of its query over the rows up to there. Whatever their strategy,
//! both must give the same. Nothing is changed. What cannot be compared is said to be so.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::DataType;
use catalog::Strategy;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::functions::expr_fn::random;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{
    Distinct, Expr, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, lit,
};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use rand::Rng;

use super::Planned;
use super::compute::understood;
use crate::error::Result;
use crate::stream::head::{DbHead, Lsn, ViewHead};
use crate::types::LSN;
use crate::views::core::streams;
use crate::views::floor;
use crate::views::options::{Kept, Options};
use crate::views::read::{is_current, read_plan, restored, stored_rows};
use crate::views::source::{Range, cut_streams};

/// Rows that are compared at once at most.
const MOST_ROWS: usize = 100_000;
/// Positions that are looked at for keys of source rows, for each key that is asked for.
const POSITIONS: i64 = 4;
/// Floats that differ by less, of the greater, are the same: sums of the same values in another order.
const SAME: f64 = 1e-6;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Keys were compared.
    Compared {
        /// How many.
        keys: usize,
        /// How many of them the state has otherwise than the sources.
        wrong: usize,
    },
    /// There was nothing to compare, or nothing to compare it with.
    Skipped(&'static str),
}

/// Both sides of a comparison: plans of the same columns.
struct Sides {
    stored: LogicalPlan,
    asked: LogicalPlan,
}

type Row = Vec<ScalarValue>;

/// Compares about so many keys of a view's state at a head.
pub(super) async fn verify(
    planned: &Planned,
    kept: &Kept,
    head: &DbHead,
    keys: usize,
) -> Result<Verdict> {
    let Some(state) = head.views.get(&kept.oid) else {
        return Ok(Verdict::Skipped("it has no state"));
    };
    if let Some(reason) = incomparable(planned, kept, state, head)? {
        return Ok(Verdict::Skipped(reason));
    }
    // it has the lowest priority, and no use for a second processor
    let mut session = planned.session.clone();
    session
        .config_mut()
        .options_mut()
        .execution
        .target_partitions = 1;
    let planned = Planned {
        session,
        ..planned.clone()
    };
    let durable = state.durable;
    let length = i64::try_from(keys).unwrap_or(i64::MAX);
    let length = length.saturating_mul(POSITIONS).max(1);
    let last_first = durable.0.saturating_sub(length).max(0);
    let after = rand::rng().random_range(0..=last_first);
    let some = Range {
        after: Lsn(after),
        upto: Some(Lsn(after.saturating_add(length)).min(durable)),
    };
    let (sides, columns) = match kept.strategy {
        Strategy::Append => (appended(&planned, kept, state, some)?, Vec::new()),
        _ => {
            let sides = whole(&planned, kept, state, head)?;
            let columns = key_columns(&planned.plan)?;
            (sides, columns)
        }
    };
    let sides = match columns.is_empty() {
        true => sides,
        false => {
            let of_rows = cut_streams(planned.plan.clone(), some)?;
            let session = &planned.session;
            let mut found = chosen(session, &sides.stored, &columns, keys).await?;
            found.extend(chosen(session, &of_rows, &columns, keys).await?);
            match among(&sides.stored, &columns, &found) {
                Some(wanted) => Sides {
                    asked: filtered(sides.asked.clone(), wanted(&sides.asked))?,
                    stored: filtered(sides.stored.clone(), wanted(&sides.stored))?,
                },
                None => return Ok(Verdict::Skipped("it has no rows")),
            }
        }
    };
    let stored = rows(&planned.session, sides.stored).await?;
    let asked = rows(&planned.session, sides.asked).await?;
    let (Some(stored), Some(asked)) = (stored, asked) else {
        return Ok(Verdict::Skipped("it has too many rows of one key"));
    };
    let stored = by_key(stored, &columns);
    let mut asked = by_key(asked, &columns);
    let mut verdict = (0, 0);
    for (key, rows) in stored {
        let expected = asked.remove(&key);
        verdict.0 += 1;
        verdict.1 += usize::from(!expected.is_some_and(|expected| same(&rows, &expected)));
    }
    // those that the state lacks
    Ok(Verdict::Compared {
        keys: verdict.0 + asked.len(),
        wrong: verdict.1 + asked.len(),
    })
}

/// Why the state cannot be compared with the sources, if so.
fn incomparable(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
) -> Result<Option<&'static str>> {
    if state.refreshed_at.is_none() || (state.durable.0 == 0 && kept.strategy != Strategy::Full) {
        return Ok(Some("nothing is stored yet"));
    }
    if !state.is_of(&kept.sources, head) {
        return Ok(Some("rows that it has counted were changed"));
    }
    if state.holds_dropped_rows_of(&kept.sources, head).is_some() {
        return Ok(Some("it counts rows that retention has dropped"));
    }
    if state.floor.at.is_some() && kept.strategy == Strategy::Session {
        return Ok(Some("its retention has cut sessions"));
    }
    if kept.strategy == Strategy::Full && !is_current(kept, state, head) {
        return Ok(Some("its result is of before"));
    }
    if left_to_chance(&planned.plan)? {
        return Ok(Some("its query leaves the order of equal rows to chance"));
    }
    if understood(planned, kept, state).is_err() {
        return Ok(Some("its state does not fit its query"));
    }
    Ok(None)
}

/// True when two answers to a query may differ where rows are equal by the order it asks for.
fn left_to_chance(plan: &LogicalPlan) -> Result<bool> {
    const TIED: &[&str] = &[
        "row_number",
        "ntile",
        "lag",
        "lead",
        "first_value",
        "last_value",
        "nth_value",
        "array_agg",
        "string_agg",
    ];
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(
            node,
            LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_))
        );
        for expr in node.expressions() {
            found |= expr.exists(|e| {
                Ok(match e {
                    Expr::AggregateFunction(f) => TIED.contains(&f.func.name()),
                    Expr::WindowFunction(f) => match f.fun {
                        WindowFunctionDefinition::WindowUDF(_) => TIED.contains(&f.fun.name()),
                        // a frame may end between equal rows
                        WindowFunctionDefinition::AggregateUDF(_) => !f.params.order_by.is_empty(),
                    },
                    _ => false,
                })
            })?;
        }
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The view as of its position, and its query up to there.
fn whole(planned: &Planned, kept: &Kept, state: &ViewHead, head: &DbHead) -> Result<Sides> {
    // a view with a schedule is read as of its position
    let as_of = Kept {
        options: Options {
            schedule: Some(Duration::MAX),
            ..kept.options
        },
        ..kept.clone()
    };
    let stored = read_plan(&planned.name, &as_of, planned.plan.clone(), head)?;
    let asked = match (kept.strategy, kept.ages_by.zip(state.floor.at)) {
        (Strategy::Full, _) | (_, None) => planned.plan.clone(),
        (strategy, Some((column, at))) => {
            let plan = crate::views::distinct::prepared(planned.plan.clone())?;
            floor::restricted(strategy, &plan, column, at)?
        }
    };
    let asked = match kept.strategy {
        Strategy::Full => asked,
        _ => cut_streams(
            asked,
            Range {
                after: Lsn::default(),
                upto: Some(state.durable),
            },
        )?,
    };
    Ok(Sides { stored, asked })
}

/// Rows of an APPEND view in a range of positions, and its query over that range.
fn appended(planned: &Planned, kept: &Kept, state: &ViewHead, range: Range) -> Result<Sides> {
    let (plan, _, layout) = understood(planned, kept, state)?;
    let position = || Expr::Column(Column::new_unqualified(LSN));
    let upto = range.upto.unwrap_or(state.durable);
    let rows = LogicalPlanBuilder::from(stored_rows(kept.oid, &state.state)?)
        .filter(position().gt(lit(range.after.0)))?
        .filter(position().lt_eq(lit(upto.0)))?
        .build()?;
    let stored = restored(rows, &layout, plan.schema())?;
    let asked = cut_streams(plan, range)?;
    Ok(match kept.ages_by.zip(state.floor.at) {
        None => Sides { stored, asked },
        Some((column, at)) => {
            // how its results age is told by the query alone
            let aged = |rows: &LogicalPlan| floor::restricted(kept.strategy, rows, column, at);
            Sides {
                stored: aged(&stored)?,
                asked: aged(&asked)?,
            }
        }
    })
}

/// Places of result columns that rows can be picked by before anything is computed of them.
fn key_columns(plan: &LogicalPlan) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (at, field) in plan.schema().fields().iter().enumerate() {
        if !field.data_type().is_nested() && is_key(plan, at)? {
            found.push(at);
        }
    }
    Ok(found)
}

/// A result column that is a group's key or a partition's.
fn is_key(plan: &LogicalPlan, at: usize) -> Result<bool> {
    let (mut node, mut at) = (plan, at);
    loop {
        if let LogicalPlan::Aggregate(aggregate) = node
            && streams(&aggregate.input)?
        {
            return Ok(at < aggregate.group_expr.len());
        }
        let Some((input, next, _)) = floor::below(node, at, None)? else {
            return Ok(false);
        };
        if matches!(node, LogicalPlan::Window(_)) {
            return Ok(true);
        }
        let Some(below) = node.inputs().get(input).copied() else {
            return Ok(false);
        };
        (node, at) = (below, next);
    }
}

fn column(plan: &LogicalPlan, at: usize) -> Expr {
    Expr::Column(Column::from(plan.schema().qualified_field(at)))
}

/// The keys of some rows, picked by chance.
async fn chosen(
    session: &SessionState,
    plan: &LogicalPlan,
    columns: &[usize],
    count: usize,
) -> Result<Vec<Row>> {
    let keys = columns.iter().map(|at| column(plan, *at));
    let plan = LogicalPlanBuilder::from(plan.clone())
        .project(keys.collect::<Vec<_>>())?
        .sort_with_limit(vec![random().sort(true, false)], Some(count))?
        .build()?;
    Ok(rows(session, plan).await?.unwrap_or_default())
}

/// The condition that a row has one of these keys, over either side; nothing when there are none.
fn among<'a>(
    plan: &LogicalPlan,
    columns: &'a [usize],
    keys: &'a [Row],
) -> Option<impl Fn(&LogicalPlan) -> Expr + use<'a>> {
    debug_assert!(columns.iter().all(|at| *at < plan.schema().fields().len()));
    (!keys.is_empty()).then_some(move |plan: &LogicalPlan| {
        let each = keys.iter().filter_map(|key| {
            let parts = columns.iter().zip(key).map(|(at, value)| {
                let column = column(plan, *at);
                match value.is_null() {
                    true => column.is_null(),
                    false => column.eq(lit(value.clone())),
                }
            });
            conjunction(parts)
        });
        disjunction(each).unwrap_or_else(|| lit(true))
    })
}

fn filtered(plan: LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    Ok(LogicalPlanBuilder::from(plan).filter(condition)?.build()?)
}

/// The rows of a plan; nothing when there are too many.
async fn rows(session: &SessionState, plan: LogicalPlan) -> Result<Option<Vec<Row>>> {
    let plan = session.create_physical_plan(&plan).await?;
    let mut stream = execute_stream(plan, session.task_ctx())?;
    let mut rows: Vec<Row> = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if rows.len() + batch.num_rows() > MOST_ROWS {
            return Ok(None);
        }
        for at in 0..batch.num_rows() {
            let values = batch.columns().iter();
            let row = values.map(|column| ScalarValue::try_from_array(column, at));
            rows.push(row.collect::<datafusion::error::Result<_>>()?);
        }
    }
    Ok(Some(rows))
}

/// Rows by the text of their keys, in an order that does not depend on the last bits of floats.
fn by_key(rows: Vec<Row>, columns: &[usize]) -> BTreeMap<String, Vec<Row>> {
    const APART: char = '\u{1}';
    let mut groups: BTreeMap<String, Vec<(String, Row)>> = BTreeMap::new();
    for row in rows {
        let mut key = String::new();
        for value in columns.iter().filter_map(|at| row.get(*at)) {
            key.extend([format!("{value:?}").as_str()]);
            key.push(APART);
        }
        let exact = row.iter().filter(|v| !is_float(&v.data_type()));
        let coarse = row.iter().filter(|v| is_float(&v.data_type()));
        let mut order = String::new();
        for text in exact
            .map(|v| format!("{v:?}"))
            .chain(coarse.map(|v| number(v).map_or_else(String::new, |f| format!("{f:.4e}"))))
        {
            order.push_str(&text);
            order.push(APART);
        }
        groups.entry(key).or_default().push((order, row));
    }
    let sorted = groups.into_iter().map(|(key, mut rows)| {
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        (key, rows.into_iter().map(|(_, row)| row).collect())
    });
    sorted.collect()
}

fn same(stored: &[Row], asked: &[Row]) -> bool {
    stored.len() == asked.len()
        && stored.iter().zip(asked).all(|(a, b)| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || nearly(a, b))
        })
}

fn nearly(a: &ScalarValue, b: &ScalarValue) -> bool {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => {
            (a.is_nan() && b.is_nan()) || (a - b).abs() <= SAME * a.abs().max(b.abs()).max(SAME)
        }
        _ => false,
    }
}

fn is_float(ty: &DataType) -> bool {
    matches!(ty, DataType::Float64 | DataType::Float32)
}

fn number(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Float64(number) => *number,
        ScalarValue::Float32(number) => number.map(f64::from),
        _ => None,
    }
}
