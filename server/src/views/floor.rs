//! A view's retention: which of its results are too old, and how that shows in its plan.
//!
//! A view with a retention has a *floor*, an instant that only rises. A result stays as long as its bucket
//! is not below the floor's own bucket, its window or session not over before the floor. Reads put that
//! condition over the core, whatever is stored; so a bucket is seen whole or not at all, and dropping state
//! only makes room. Rows that come too late are left out when they are stored, and counted.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::{Oid, Strategy};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit,
};
use datafusion::logical_expr::{Filter, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::analysis::{Finding, strategy_name};
use super::core::{self, Core};
use super::distinct::prepared;
use super::late::keeps_rows;
use super::maintain::restored_schema;
use crate::engine::scan::WeirTable;
use crate::error::Error;
use crate::stream::head::Floor;

/// How results age, and where in the core, or the result of an APPEND view, their time stands.
#[derive(Debug, Clone)]
pub(super) struct Aged {
    at: usize,
    ty: DataType,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// By a bucket or the time itself: `key` is a function of `column` that rises with it.
    Bucket {
        key: Box<Expr>,
        column: Column,
        of: DataType,
    },
    /// By the start of windows of this length, in microseconds.
    Window(i64),
    /// By the last time of sessions with this gap, in microseconds.
    Session(i64),
}

/// Why a query's results do not age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ageless {
    /// No result column is a time that its core is stored by.
    NoTime,
    /// Several are, and none comes from an event time.
    Several,
}

impl Aged {
    /// How the results of a prepared query age by their column at a place, if they do.
    pub(super) fn of(
        strategy: Strategy,
        plan: &LogicalPlan,
        column: usize,
    ) -> Result<Option<Self>> {
        match strategy {
            Strategy::Append => {
                let value = Expr::Column(Column::from(plan.schema().qualified_field(column)));
                Ok(bucket(&value, plan)?.map(|(ty, kind)| Self {
                    at: column,
                    ty,
                    kind,
                }))
            }
            Strategy::Agg | Strategy::Agg2 | Strategy::Session => {
                let mut found = None;
                descend(plan, column, None, &mut |node, aged| {
                    found = Some(aged);
                    Ok(node.clone())
                })?;
                Ok(found)
            }
            Strategy::Top | Strategy::Keyed | Strategy::Full => Ok(None),
        }
    }

    /// The condition of results that stay: `value` is their time.
    pub(super) fn stays(&self, value: Expr, floor: i64) -> Result<Expr> {
        Ok(match &self.kind {
            Kind::Bucket { key, column, of } => {
                let at = lit(instant(floor, of)?);
                let own = Expr::clone(key).transform_up(|e| {
                    Ok(match &e {
                        Expr::Column(c) if c == column => Transformed::yes(at.clone()),
                        _ => Transformed::no(e),
                    })
                })?;
                let simplifier = ExprSimplifier::new(SimplifyContext::default());
                let lowest = simplifier.simplify(own.data)?;
                value.clone().is_null().or(value.gt_eq(lowest))
            }
            Kind::Window(size) => value.gt(lit(instant(floor.saturating_sub(*size), &self.ty)?)),
            Kind::Session(gap) => value.gt_eq(lit(instant(floor.saturating_sub(*gap), &self.ty)?)),
        })
    }

    /// The time of stored states, restored to the core's columns.
    fn stored(&self, core: &Core, states: &DFSchema) -> Expr {
        let column = |at: usize| Expr::Column(Column::from(states.qualified_field(at)));
        match core {
            Core::Agg(agg) if agg.steps.is_empty() => column(self.at),
            Core::Agg(agg) => {
                let group = agg.aggregate.group_expr.get(self.at);
                group.map_or_else(|| column(self.at), |e| e.clone().unalias_nested().data)
            }
            Core::Session(_) | Core::Top(_) => column(states.fields().len().saturating_sub(1)),
        }
    }

    /// The condition of stored states that stay. States of a session may lie in several runs: only of
    /// all of them together does it say which may go.
    pub(super) fn states_stay(&self, core: &Core, floor: i64) -> Result<Expr> {
        let states = restored_schema(core)?;
        self.stays(self.stored(core, &states), floor)
    }

    /// The condition of a core's rows that do not come too late.
    fn rows_in_time(&self, core: &Core, floor: i64) -> Result<Expr> {
        match core {
            Core::Session(session) => {
                let last = session.split.over.calls.last();
                let Some(Expr::AggregateFunction(call)) = last else {
                    return Err(Error::Internal("a session without its end".to_owned()).into());
                };
                let Some(time) = call.params.args.first() else {
                    return Err(Error::Internal("a session's end of nothing".to_owned()).into());
                };
                Ok(time.clone().gt_eq(lit(instant(floor, &self.ty)?)))
            }
            Core::Agg(agg) => self.stays(self.stored(core, agg.split.rows.schema()), floor),
            Core::Top(_) => Err(Error::Internal("first rows do not age".to_owned()).into()),
        }
    }

    /// The core over rows that do not come too late, or over those that do.
    pub(super) fn of_rows(&self, core: &Core, floor: i64, late: bool) -> Result<Core> {
        let condition = self.rows_in_time(core, floor)?;
        let condition = match late {
            true => condition.is_not_true(),
            false => condition,
        };
        let mut core = core.clone();
        if let Some(rows) = core.rows_mut() {
            *rows = filtered(rows.clone(), condition)?;
        }
        Ok(core)
    }
}

/// A prepared query whose results below the floor are left out. For APPEND that is what it gives; a
/// core stays recognizable below the condition.
pub(super) fn restricted(
    strategy: Strategy,
    plan: &LogicalPlan,
    column: usize,
    floor: i64,
) -> Result<LogicalPlan> {
    let restricted = match strategy {
        Strategy::Append => match Aged::of(strategy, plan, column)? {
            Some(aged) => Some(above(plan, &aged, floor)?),
            None => None,
        },
        _ => descend(plan, column, None, &mut |node, aged| {
            above(node, &aged, floor)
        })?,
    };
    restricted.ok_or_else(|| {
        Error::Internal("a view with a retention whose results do not age".to_owned()).into()
    })
}

fn above(node: &LogicalPlan, aged: &Aged, floor: i64) -> Result<LogicalPlan> {
    let value = Expr::Column(Column::from(node.schema().qualified_field(aged.at)));
    filtered(node.clone(), aged.stays(value, floor)?)
}

fn filtered(plan: LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    Filter::try_new(condition, Arc::new(plan)).map(LogicalPlan::Filter)
}

/// The result column by which the results of a prepared query age: the first that comes from an event
/// time, or the only one there is.
fn column(
    strategy: Strategy,
    plan: &LogicalPlan,
    event_time: &dyn Fn(Oid) -> Option<String>,
) -> Result<std::result::Result<usize, Ageless>> {
    let mut found = Vec::new();
    for at in 0..plan.schema().fields().len() {
        let Some(aged) = Aged::of(strategy, plan, at)? else {
            continue;
        };
        let declared = match &aged.kind {
            Kind::Window(_) | Kind::Session(_) => true,
            Kind::Bucket { .. } => {
                let column = Column::from(plan.schema().qualified_field(at));
                let from = origin(&Expr::Column(column), plan)?;
                from.is_some_and(|(oid, name)| event_time(oid) == Some(name))
            }
        };
        if declared {
            return Ok(Ok(at));
        }
        found.push(at);
    }
    Ok(match found[..] {
        [] => Err(Ageless::NoTime),
        [at] => Ok(at),
        _ => Err(Ageless::Several),
    })
}

type Found<'a> = &'a mut dyn FnMut(&LogicalPlan, Aged) -> Result<LogicalPlan>;

/// Follows a column down to the core, through nodes that a condition on it may be moved through, and puts
/// what `found` makes of the core in its place.
fn descend(
    plan: &LogicalPlan,
    at: usize,
    size: Option<i64>,
    found: Found<'_>,
) -> Result<Option<LogicalPlan>> {
    if let LogicalPlan::Aggregate(aggregate) = plan
        && let Ok(core) = core::recognize(plan)?
    {
        return match aged(aggregate, &core, at, size)? {
            Some(aged) => found(plan, aged).map(Some),
            None => Ok(None),
        };
    }
    let Some((input, at, size)) = below(plan, at, size)? else {
        return Ok(None);
    };
    let mut inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    let Some(slot) = inputs.get_mut(input) else {
        return Ok(None);
    };
    let Some(changed) = descend(slot, at, size, found)? else {
        return Ok(None);
    };
    *slot = changed;
    plan.with_new_exprs(plan.expressions(), inputs).map(Some)
}

/// Which input a column comes from unchanged, and its place there.
pub(super) fn below(
    plan: &LogicalPlan,
    at: usize,
    size: Option<i64>,
) -> Result<Option<(usize, usize, Option<i64>)>> {
    let place = |column: &Column, of: &LogicalPlan| of.schema().maybe_index_of_column(column);
    Ok(match plan {
        LogicalPlan::Projection(p) => {
            let Some(expr) = p.expr.get(at) else {
                return Ok(None);
            };
            through(expr)
                .and_then(|(column, length)| Some((0, place(&column, &p.input)?, length.or(size))))
        }
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => Some((0, at, size)),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Some((0, at, size)),
        LogicalPlan::Aggregate(a) => match a.group_expr.get(at) {
            Some(Expr::Column(column)) => place(column, &a.input).map(|at| (0, at, size)),
            _ => None,
        },
        LogicalPlan::Window(w) if at < w.input.schema().fields().len() => {
            let column = Expr::Column(Column::from(w.input.schema().qualified_field(at)));
            let apart = |e: &Expr| match e.clone().unalias_nested().data {
                Expr::WindowFunction(f) => f.params.partition_by.contains(&column),
                _ => false,
            };
            w.window_expr.iter().all(apart).then_some((0, at, size))
        }
        LogicalPlan::Join(join) => {
            let lefts = join.left.schema().fields().len();
            let left = core::streams(&join.left)?;
            match (left, keeps_rows(join.join_type, left)) {
                (_, false) => None,
                (true, true) => (at < lefts).then_some((0, at, size)),
                (false, true) => {
                    // semi joins of the right side have its columns alone
                    let rights = join.right.schema().fields().len();
                    let hidden = plan.schema().fields().len().checked_sub(rights);
                    hidden
                        .and_then(|first| at.checked_sub(first))
                        .map(|at| (1, at, size))
                }
            }
        }
        _ => None,
    })
}

/// The column that an expression is, or that is the start of a window it makes, with its length.
fn through(expr: &Expr) -> Option<(Column, Option<i64>)> {
    match expr {
        Expr::Column(column) => Some((column.clone(), None)),
        Expr::Alias(alias) => through(&alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => match (func.name(), &args[..]) {
            ("get_field", [from, ..]) => through(from),
            ("named_struct", [_, start, _, end]) => {
                let (column, _) = through(start)?;
                let length = match end {
                    Expr::BinaryExpr(BinaryExpr {
                        op: Operator::Plus,
                        right,
                        ..
                    }) => micros(right),
                    _ => None,
                };
                Some((column, length))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A constant interval without months.
fn micros(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => interval(value),
        Expr::Cast(cast) => micros(&cast.expr),
        _ => None,
    }
}

fn interval(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 && i.days == 0 => {
            Some(i.nanoseconds / 1000)
        }
        _ => None,
    }
}

/// How a core's results age by their column at a place.
fn aged(aggregate: &Aggregate, core: &Core, at: usize, size: Option<i64>) -> Result<Option<Aged>> {
    let schema = &aggregate.schema;
    match core {
        Core::Session(session) => {
            let end = schema.fields().len().saturating_sub(1);
            let Some(gap) = interval(&session.gap).filter(|_| at + 1 >= end) else {
                return Ok(None);
            };
            Ok(Some(Aged {
                at: end,
                ty: schema.field(end).data_type().clone(),
                kind: Kind::Session(gap),
            }))
        }
        Core::Agg(agg) => {
            let Some(group) = aggregate.group_expr.get(at) else {
                return Ok(None);
            };
            let group = group.clone().unalias_nested().data;
            let rows = agg.split.rows.schema();
            let own = |column: &Column| rows.has_column(column);
            // the states know nothing of a joined table's times
            if !agg.steps.is_empty() && !group.column_refs().into_iter().all(own) {
                return Ok(None);
            }
            let ty = schema.field(at).data_type().clone();
            if let Some(size) = size.filter(|_| is_time(&ty)) {
                let kind = Kind::Window(size);
                return Ok(Some(Aged { at, ty, kind }));
            }
            Ok(bucket(&group, &aggregate.input)?.map(|(ty, kind)| Aged { at, ty, kind }))
        }
        Core::Top(_) => Ok(None),
    }
}

/// What an expression over a plan's rows is made from: itself, or what stands below for a column.
fn made_from<'a>(expr: &Expr, plan: &'a LogicalPlan) -> Result<Option<(Expr, &'a LogicalPlan)>> {
    let Expr::Column(column) = expr else {
        return Ok(None);
    };
    let Some(at) = plan.schema().maybe_index_of_column(column) else {
        return Ok(None);
    };
    let column_of =
        |input: &LogicalPlan| Expr::Column(Column::from(input.schema().qualified_field(at)));
    Ok(match plan {
        LogicalPlan::Projection(p) => p.expr.get(at).map(|e| {
            let below = e.clone().unalias_nested().data;
            (below, p.input.as_ref())
        }),
        LogicalPlan::Filter(f) => Some((column_of(&f.input), f.input.as_ref())),
        LogicalPlan::SubqueryAlias(a) => Some((column_of(&a.input), a.input.as_ref())),
        LogicalPlan::Unnest(u) => {
            let from = u.dependency_indices.get(at).copied();
            let from = from.map(|at| Column::from(u.input.schema().qualified_field(at)));
            let same = from.filter(|from| !u.exec_columns.contains(from));
            same.map(|from| (Expr::Column(from), u.input.as_ref()))
        }
        LogicalPlan::Union(u) => u.inputs.first().map(|i| (column_of(i), i.as_ref())),
        _ => None,
    })
}

/// The bucket that an expression is, with its type.
fn bucket(expr: &Expr, plan: &LogicalPlan) -> Result<Option<(DataType, Kind)>> {
    if let Some((below, input)) = made_from(expr, plan)? {
        return bucket(&below, input);
    }
    let Some(column) = rising(expr) else {
        return Ok(None);
    };
    let schema = plan.schema();
    let (ty, of) = (
        expr.get_type(schema)?,
        schema
            .qualified_field_from_column(&column)?
            .1
            .data_type()
            .clone(),
    );
    let kind = Kind::Bucket {
        key: Box::new(expr.clone()),
        column,
        of: of.clone(),
    };
    Ok((is_time(&ty) && is_time(&of)).then_some((ty, kind)))
}

/// The column of which an expression is a function that rises with it.
fn rising(expr: &Expr) -> Option<Column> {
    match expr {
        Expr::Column(column) => Some(column.clone()),
        Expr::Alias(alias) => rising(&alias.expr),
        Expr::Cast(cast) => rising(&cast.expr),
        Expr::ScalarFunction(f) if matches!(f.func.name(), "date_bin" | "date_trunc") => {
            let fixed = |e: &Expr| e.column_refs().is_empty() && !e.is_volatile();
            match &f.args[..] {
                [unit, time] if fixed(unit) => rising(time),
                [unit, time, origin] if fixed(unit) && fixed(origin) => rising(time),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The column of a table that a time comes from.
fn origin(expr: &Expr, plan: &LogicalPlan) -> Result<Option<(Oid, String)>> {
    let Some(column) = rising(expr) else {
        return Ok(None);
    };
    let expr = Expr::Column(column.clone());
    if let LogicalPlan::TableScan(scan) = plan {
        let table = WeirTable::behind(&scan.source);
        return Ok(table.map(|t| (t.head().oid, column.name)));
    }
    if let Some((below, input)) = made_from(&expr, plan)? {
        return origin(&below, input);
    }
    match plan {
        LogicalPlan::Aggregate(a) => {
            let at = plan.schema().maybe_index_of_column(&column);
            match at.and_then(|at| a.group_expr.get(at)) {
                Some(group) => origin(&group.clone().unalias_nested().data, &a.input),
                None => Ok(None),
            }
        }
        LogicalPlan::Join(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
            let mut inputs = plan.inputs().into_iter();
            match inputs.find(|input| input.schema().has_column(&column)) {
                Some(input) => origin(&expr, input),
                None => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

fn is_time(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    )
}

fn instant(micros: i64, ty: &DataType) -> Result<ScalarValue> {
    ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())).cast_to(ty)
}

/// The result column by which the results of a query age that is kept by a strategy; its plan is the one
/// that was analyzed, and `event_time` says which column of a table was declared to be one.
///
/// # Errors
/// 0A000 when there is none, or no telling which.
pub fn ages_by(
    name: &str,
    plan: &LogicalPlan,
    strategy: Strategy,
    event_time: &dyn Fn(Oid) -> Option<String>,
) -> crate::error::Result<u32> {
    let plan = prepared(plan.clone())?;
    let message = format!("retention of materialized view \"{name}\" is not supported");
    if matches!(strategy, Strategy::Top | Strategy::Keyed | Strategy::Full) {
        let detail = format!(
            "it is kept as {}: what is old may count again",
            strategy_name(strategy)
        );
        let hint = "use a query that is kept as APPEND, AGG, AGG2 or SESSION";
        return Err(Error::unsupported(message, hint).with_detail(detail));
    }
    let (detail, hint) = match column(strategy, &plan, event_time)? {
        Ok(at) => {
            return u32::try_from(at)
                .map_err(|_| Error::Internal("a result of too many columns".to_owned()));
        }
        Err(Ageless::NoTime) => (
            "no column of its result is a time that its rows are grouped by",
            "group by date_bin, date_trunc, hop_window or session_window of a time and select it, or \
             select the time where nothing is grouped",
        ),
        Err(Ageless::Several) => (
            "several columns of its result are times, and none comes from the event_time of its table",
            "select one of them only, or declare the table's event_time",
        ),
    };
    Err(Error::unsupported(message, hint).with_detail(detail))
}

/// What EXPLAIN says about a retention: by which column, and what it has left of a view that is there.
pub fn finding(
    plan: &LogicalPlan,
    strategy: Strategy,
    column: usize,
    floor: Option<Floor>,
) -> Finding {
    let name = plan
        .schema()
        .fields()
        .get(column)
        .map_or("", |f| f.name().as_str());
    let mut detail = format!("results are dropped by \"{name}\"");
    if let Some((floor, at)) = floor.and_then(|f| Some((f, f.at?))) {
        let at = chrono::DateTime::from_timestamp_micros(at).map(|t| t.to_rfc3339());
        let at = at.unwrap_or_default();
        // writing to a text cannot fail
        let _ = write!(
            detail,
            "; those of before {at} are gone, {} rows came too late",
            floor.late
        );
    }
    Finding {
        node: plan.display().to_string(),
        strategy: strategy_name(strategy),
        code: "RETENTION".to_owned(),
        detail,
        fix: String::new(),
    }
}

/// How many rows a plan gives.
pub(super) fn counted(plan: LogicalPlan) -> Result<LogicalPlan> {
    let count = datafusion::functions_aggregate::expr_fn::count(lit(1_i64));
    LogicalPlanBuilder::from(plan)
        .aggregate(Vec::<Expr>::new(), vec![count])?
        .build()
}
