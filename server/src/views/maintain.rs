//! Plans over a core: the state of a range of rows, many runs as one, and the core's answer.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Cast, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Projection, Window, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit, when,
};

use super::core::{AggCore, Core, SessionCore, TopCore};
use super::nodes::{MergeStates, PartialStates, Shown, Stage, columns};
use super::source::{Range, cut};
use super::split::{Split, state_name};
use crate::error::Error;

const PREVIOUS: &str = "__previous";
const OPENS: &str = "__opens";
const SESSION: &str = "__session";

/// The state of the rows in a range: keys and states, or rows of the core.
pub(super) fn run(core: &Core, range: Range, shown: Shown) -> Result<LogicalPlan> {
    match core {
        // without keys there is a state per thread at most, and the optimizer takes an aggregation over
        // one partial aggregation for the final one
        Core::Agg(agg) if agg.split.over.keys == 0 => new_states(&agg.split, range),
        Core::Agg(agg) => reduced(shown, &agg.split, new_states(&agg.split, range)?),
        Core::Session(session) => {
            let new = session.new_states(range)?;
            session.reduced(shown, new)
        }
        Core::Top(top) => top.first_of(cut(LogicalPlan::clone(&top.window.input), range)?),
    }
}

/// Several runs as one.
pub(super) fn fold(core: &Core, stored: LogicalPlan, shown: Shown) -> Result<LogicalPlan> {
    match core {
        Core::Agg(agg) => reduced(shown, &agg.split, stored),
        Core::Session(session) => session.reduced(shown, stored),
        Core::Top(top) => top.first_of(stored),
    }
}

/// What the core gives: stored runs, restored to the core's columns, and the rows of a range.
pub(super) fn answer(
    core: &Core,
    stored: LogicalPlan,
    range: Range,
    shown: Shown,
) -> Result<LogicalPlan> {
    match core {
        Core::Agg(agg) => agg.answer(bag(stored, new_states(&agg.split, range)?)?, shown),
        Core::Session(session) => {
            let states = bag(stored, session.new_states(range)?)?;
            session.answer(states, shown)
        }
        Core::Top(top) => {
            let new = cut(LogicalPlan::clone(&top.window.input), range)?;
            top.over(&bag(stored, new)?)
        }
    }
}

/// What stored runs have to look like for [`fold`] and [`answer`].
pub(super) fn restored_schema(core: &Core) -> Result<DFSchemaRef> {
    match core {
        Core::Agg(agg) => agg.split.state_schema(),
        Core::Session(session) => session.state_schema(),
        Core::Top(top) => Ok(Arc::clone(top.window.input.schema())),
    }
}

/// Both, under the names of the second.
pub(super) fn bag(stored: LogicalPlan, new: LogicalPlan) -> Result<LogicalPlan> {
    let names: Vec<_> = new
        .schema()
        .iter()
        .map(|(relation, field)| (relation.cloned(), field.name().clone()))
        .collect();
    let all = LogicalPlanBuilder::from(stored).union(new)?.build()?;
    let named = all.schema().columns().into_iter().zip(names);
    let named = named.map(|(column, (relation, name))| match relation {
        // a column under an alias of its own name confuses the optimizer when its fields are taken
        None if column.relation.is_none() && column.name == name => Expr::Column(column),
        relation => Expr::Column(column).alias_qualified(relation, name),
    });
    let named = named.collect();
    Projection::try_new(named, Arc::new(all)).map(LogicalPlan::Projection)
}

fn new_states(split: &Split, range: Range) -> Result<LogicalPlan> {
    let mut split = split.clone();
    split.rows = cut(split.rows, range)?;
    PartialStates::plan(&split)
}

/// Each key once, in the order of the keys, so that a reader of few keys skips most of a run.
fn reduced(shown: Shown, split: &Split, states: LogicalPlan) -> Result<LogicalPlan> {
    let schema = split.state_schema()?;
    let keys = split.over.keys;
    let plan = MergeStates::plan(shown, split, states, keys, Stage::Reduce, schema);
    clustered(plan, keys)
}

fn clustered(plan: LogicalPlan, keys: usize) -> Result<LogicalPlan> {
    let mut types = plan.schema().fields().iter().take(keys);
    if keys == 0 || types.any(|f| f.data_type().is_nested()) {
        return Ok(plan);
    }
    let order: Vec<Sort> = columns(&plan)
        .take(keys)
        .map(|key| key.sort(true, true))
        .collect();
    LogicalPlanBuilder::from(plan).sort(order)?.build()
}

impl AggCore {
    fn answer(&self, states: LogicalPlan, shown: Shown) -> Result<LogicalPlan> {
        let count = states.schema().fields().len() - self.split.over.keys;
        let keys = self.aggregate.group_expr.len();
        let states = if self.steps.is_empty() {
            states
        } else {
            let mut joined = states;
            for step in &self.steps {
                joined = step.over(joined)?;
            }
            let groups = self.aggregate.group_expr.iter().enumerate();
            let groups = groups.map(|(i, group)| {
                let (relation, field) = self.aggregate.schema.qualified_field(i);
                let group = group.clone().unalias_nested().data;
                group.alias_qualified(relation.cloned(), field.name())
            });
            let rest = (0..count).map(|i| Expr::Column(Column::new_unqualified(state_name(i))));
            let output = groups.chain(rest).collect();
            LogicalPlan::Projection(Projection::try_new(output, Arc::new(joined))?)
        };
        let schema = Arc::clone(&self.aggregate.schema);
        Ok(MergeStates::plan(
            shown,
            &self.split,
            states,
            keys,
            Stage::Final,
            schema,
        ))
    }
}

impl SessionCore {
    /// Keys beside the session's number.
    fn keys(&self) -> usize {
        self.split.over.keys - 1
    }

    /// The keys and states, without the session's number.
    fn state_schema(&self) -> Result<DFSchemaRef> {
        let all = self.split.state_schema()?;
        let fields = all.iter().enumerate().filter(|(i, _)| *i != self.keys());
        let fields = fields.map(|(_, (relation, field))| (relation.cloned(), Arc::clone(field)));
        DFSchema::new_with_metadata(fields.collect(), all.metadata().clone()).map(Arc::new)
    }

    fn new_states(&self, range: Range) -> Result<LogicalPlan> {
        without(new_states(&self.split, range)?, self.keys())
    }

    /// Sessions that touch get the same number, the time of their first row: states of any sessions,
    /// in any order, overlapping or not. The states' last two columns are a session's times.
    fn numbered(&self, states: LogicalPlan) -> Result<LogicalPlan> {
        let all: Vec<Expr> = columns(&states).collect();
        let (keys, values) = all.split_at(self.keys());
        let [.., first, last] = values else {
            return Err(Error::Internal("session states without times".to_owned()).into());
        };
        let order = vec![first.clone().sort(true, false)];
        let max = |of: Expr| {
            let function = WindowFunctionDefinition::AggregateUDF(max_udaf());
            Expr::from(WindowFunction::new(function, vec![of]))
                .partition_by(keys.to_vec())
                .order_by(order.clone())
        };
        let before = WindowFrame::new_bounds(
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
        );
        let previous = max(last.clone())
            .window_frame(before)
            .build()?
            .alias(PREVIOUS);
        let seen = LogicalPlan::Window(Window::try_new(vec![previous], Arc::new(states))?);
        // a state opens a session when all before it have ended longer ago than the gap
        let previous = Expr::Column(Column::new_unqualified(PREVIOUS));
        let gap = lit(self.gap.clone());
        let opens = previous
            .clone()
            .is_null()
            .or(first.clone().gt(previous + gap));
        let opens = when(opens, first.clone()).end()?.alias(OPENS);
        let output = all.iter().cloned().chain([opens]).collect();
        let marked = LogicalPlan::Projection(Projection::try_new(output, Arc::new(seen))?);
        // by range: states that begin together see the same
        let upto = WindowFrame::new(Some(false));
        let session = max(Expr::Column(Column::new_unqualified(OPENS)))
            .window_frame(upto)
            .build()?
            .alias(SESSION);
        let joined = LogicalPlan::Window(Window::try_new(vec![session], Arc::new(marked))?);
        let session = Expr::Column(Column::new_unqualified(SESSION));
        let output = keys.iter().cloned().chain([session]);
        let output = output.chain(values.iter().cloned()).collect();
        Projection::try_new(output, Arc::new(joined)).map(LogicalPlan::Projection)
    }

    /// Fields of keys and session, as the numbered states have them, and `rest`.
    fn merged_schema(&self, numbered: &LogicalPlan, rest: &DFSchema) -> Result<DFSchemaRef> {
        let keys = numbered.schema().iter().take(self.keys() + 1);
        let rest = rest.iter().skip(self.keys() + 1);
        let fields = keys
            .chain(rest)
            .map(|(relation, field)| (relation.cloned(), Arc::clone(field)));
        DFSchema::new_with_metadata(fields.collect(), rest_metadata()).map(Arc::new)
    }

    fn reduced(&self, shown: Shown, states: LogicalPlan) -> Result<LogicalPlan> {
        let numbered = self.numbered(states)?;
        let states = self.split.state_schema()?;
        let schema = self.merged_schema(&numbered, &states)?;
        let keys = self.keys() + 1;
        let plan = MergeStates::plan(shown, &self.split, numbered, keys, Stage::Reduce, schema);
        without(clustered(plan, keys)?, self.keys())
    }

    fn answer(&self, states: LogicalPlan, shown: Shown) -> Result<LogicalPlan> {
        let numbered = self.numbered(states)?;
        let wanted = Arc::clone(&self.split.schema);
        let schema = self.merged_schema(&numbered, &wanted)?;
        let keys = self.keys() + 1;
        let merged = MergeStates::plan(shown, &self.split, numbered, keys, Stage::Final, schema);
        let found = merged.schema().columns();
        let output = wanted.iter().zip(found).enumerate();
        let output = output.map(|(i, ((relation, field), column))| {
            let value = match i == self.keys() {
                // nothing looks at the number: sessions are told apart by their time
                true => Expr::Cast(Cast::new(Box::new(lit(0_i64)), field.data_type().clone())),
                false => Expr::Column(column),
            };
            value.alias_qualified(relation.cloned(), field.name())
        });
        let output = output.collect();
        Projection::try_new(output, Arc::new(merged)).map(LogicalPlan::Projection)
    }
}

impl TopCore {
    /// The rows of `rows` that are among the first of their partition.
    fn first_of(&self, rows: LogicalPlan) -> Result<LogicalPlan> {
        let kept: Vec<Expr> = columns(&rows).collect();
        let window = Window::try_new(self.window.window_expr.clone(), Arc::new(rows))?;
        let window = LogicalPlan::Window(window);
        let rank = columns(&window).last();
        let ty = window
            .schema()
            .fields()
            .last()
            .map(|f| f.data_type().clone());
        let (Some(rank), Some(ty)) = (rank, ty) else {
            return Err(Error::Internal("a window without columns".to_owned()).into());
        };
        let first = ScalarValue::Int64(Some(self.first.max(0))).cast_to(&ty)?;
        LogicalPlanBuilder::from(window)
            .filter(rank.lt_eq(lit(first)))?
            .project(kept)?
            .build()
    }

    /// The core over other rows.
    fn over(&self, rows: &LogicalPlan) -> Result<LogicalPlan> {
        replaced(&self.plan, rows, &self.window)
    }
}

/// The filter and what stands below it, with the window over `rows`.
fn replaced(plan: &LogicalPlan, rows: &LogicalPlan, window: &Window) -> Result<LogicalPlan> {
    if let LogicalPlan::Window(_) = plan {
        let window = Window::try_new(window.window_expr.clone(), Arc::new(rows.clone()))?;
        return Ok(LogicalPlan::Window(window));
    }
    let inputs = plan
        .inputs()
        .into_iter()
        .map(|input| replaced(input, rows, window))
        .collect::<Result<Vec<_>>>()?;
    plan.with_new_exprs(plan.expressions(), inputs)
}

/// The plan without its column at a place.
fn without(plan: LogicalPlan, at: usize) -> Result<LogicalPlan> {
    let kept = columns(&plan).enumerate().filter(|(i, _)| *i != at);
    let kept = kept.map(|(_, column)| column).collect();
    Projection::try_new(kept, Arc::new(plan)).map(LogicalPlan::Projection)
}

fn rest_metadata() -> std::collections::HashMap<String, String> {
    std::collections::HashMap::new()
}
