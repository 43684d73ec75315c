//! The plan nodes that make states of rows and merge states, and their planner.
//!
//! `MergeStates(states ∪ PartialStates(rows))` is the aggregation over all rows. Between the two stand
//! ordinary plan nodes: a union with stored states, joins with dimensions, the numbering of sessions.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateMode;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::split::{Over, Split, conform, merge};
use crate::error::Error;
use crate::stream::head::Lsn;

/// Rows to states: keys, then state columns. A key may come out more than once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartialStates {
    rows: LogicalPlan,
    over: Over,
    schema: DFSchemaRef,
}

/// What merging gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Results of the aggregates.
    Final,
    /// States again, each key once.
    Reduce,
}

/// Where merged states come from, for EXPLAIN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    pub(super) view: String,
    pub(super) strategy: &'static str,
    pub(super) durable: Lsn,
}

/// States to results, or to fewer states.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeStates {
    shown: Shown,
    /// Keys, then states in the order of the aggregates.
    states: LogicalPlan,
    keys: usize,
    over: Over,
    /// The rows that states were made from.
    rows: DFSchemaRef,
    stage: Stage,
    /// Predicates to apply to the result.
    after: Vec<Expr>,
    schema: DFSchemaRef,
}

impl PartialStates {
    /// The states of a split aggregation's rows.
    pub(super) fn plan(split: &Split) -> Result<LogicalPlan> {
        let node = Self {
            rows: split.rows.clone(),
            over: split.over.clone(),
            schema: split.state_schema()?,
        };
        Ok(LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        }))
    }
}

impl MergeStates {
    /// Merges states that were made by a split aggregation. `schema` names what comes out: as many
    /// keys as the states have in front, then results or states.
    pub(super) fn plan(
        shown: Shown,
        split: &Split,
        states: LogicalPlan,
        keys: usize,
        stage: Stage,
        schema: DFSchemaRef,
    ) -> LogicalPlan {
        let node = Self {
            shown,
            states,
            keys,
            over: split.over.clone(),
            rows: Arc::clone(split.rows.schema()),
            stage,
            after: Vec::new(),
            schema,
        };
        LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        })
    }
}

impl PartialStates {
    /// What states are made of.
    pub(super) fn rows(&self) -> &LogicalPlan {
        &self.rows
    }
}

impl MergeStates {
    /// What is merged: keys, then states.
    pub(super) fn states(&self) -> &LogicalPlan {
        &self.states
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// The aggregates.
    pub(super) fn over(&self) -> &Over {
        &self.over
    }

    /// True when results come out, all of them.
    pub(super) fn is_result(&self) -> bool {
        self.stage == Stage::Final && self.after.is_empty()
    }
}

impl PartialOrd for PartialStates {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl PartialOrd for MergeStates {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for PartialStates {
    fn name(&self) -> &'static str {
        "PartialStates"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.rows]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// The aggregates are not shown: they must stay what the stored states were made by.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        names(&self.schema, self.over.keys)
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PartialStates: aggregates=[{}]",
            self.over.names.join(", ")
        )
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self {
            rows: only(inputs)?,
            ..self.clone()
        })
    }
}

impl UserDefinedLogicalNodeCore for MergeStates {
    fn name(&self) -> &'static str {
        "MergeStates"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.states]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.after.clone()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        names(&self.schema, self.keys)
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.schema.fields().iter().take(self.keys);
        let keys: Vec<&str> = keys.map(|f| f.name().as_str()).collect();
        write!(
            f,
            "MergeStates: view={}, strategy={}, durable_lsn={}, keys=[{}], aggregates=[{}]",
            self.shown.view,
            self.shown.strategy,
            self.shown.durable.0,
            keys.join(", "),
            self.over.names.join(", "),
        )?;
        match conjunction(self.after.iter().cloned()) {
            Some(after) => write!(f, ", filter={after}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (states, lifted) = lift(only(inputs)?)?;
        let mut after = exprs;
        after.extend(lifted);
        Ok(Self {
            states,
            after,
            ..self.clone()
        })
    }
}

fn only(inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
    let [input] = <[LogicalPlan; 1]>::try_from(inputs)
        .map_err(|_| Error::Internal("a node over states takes one input".to_owned()))?;
    Ok(input)
}

/// Names of the columns behind the keys.
fn names(schema: &DFSchema, keys: usize) -> HashSet<String> {
    let behind = schema.fields().iter().skip(keys);
    behind.map(|f| f.name().clone()).collect()
}

/// Takes pushed-down predicates that must not be applied before merging off the input.
///
/// The optimizer pushes any predicate that names no forbidden column, so also one without columns or
/// a volatile one. Below the merge those would be evaluated per state instead of per group, and
/// could not remove the one row that an aggregation without keys always gives.
fn lift(states: LogicalPlan) -> Result<(LogicalPlan, Vec<Expr>)> {
    let LogicalPlan::Filter(filter) = &states else {
        return Ok((states, Vec::new()));
    };
    let lifted: Vec<Expr> = split_conjunction(&filter.predicate)
        .into_iter()
        .filter(|p| p.is_volatile() || p.column_refs().is_empty())
        .cloned()
        .collect();
    if lifted.is_empty() {
        return Ok((states, lifted));
    }
    let kept = split_conjunction_owned(filter.predicate.clone());
    let without = match conjunction(kept.into_iter().filter(|p| !lifted.contains(p))) {
        Some(kept) => Filter::try_new(kept, Arc::clone(&filter.input)).map(LogicalPlan::Filter)?,
        None => LogicalPlan::clone(&filter.input),
    };
    Ok((without, lifted))
}

/// The planner of this module's nodes, for the session's list of extension planners.
pub fn extension_planner() -> Arc<dyn ExtensionPlanner + Send + Sync> {
    Arc::new(StatesPlanner)
}

#[derive(Debug)]
struct StatesPlanner;

#[async_trait]
impl ExtensionPlanner for StatesPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let [input] = physical_inputs else {
            return Ok(None);
        };
        if let Some(node) = node.as_any().downcast_ref::<PartialStates>() {
            let props = session.execution_props();
            let rows = node.rows.schema();
            let lowered = node
                .over
                .lower(rows, &input.schema(), props, planning_ctx)?;
            let partial = lowered.partial(Arc::clone(input))?;
            return conform(partial, node.schema.inner()).map(Some);
        }
        let Some(node) = node.as_any().downcast_ref::<MergeStates>() else {
            return Ok(None);
        };
        let merged = node.merged(input, session, planning_ctx)?;
        let Some(after) = conjunction(node.after.iter().cloned()) else {
            return Ok(Some(merged));
        };
        let after = planner.create_physical_expr(&after, &node.schema, session, planning_ctx)?;
        Ok(Some(Arc::new(FilterExec::try_new(after, merged)?)))
    }
}

impl MergeStates {
    fn merged(
        &self,
        states: &Arc<dyn ExecutionPlan>,
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.as_arrow();
        let props = session.execution_props();
        let lowered = self.over.lower(&self.rows, rows, props, planning_ctx)?;
        let config = session.config();
        let spread =
            self.keys > 0 && config.target_partitions() > 1 && config.repartition_aggregations();
        let (mode, states) = match self.stage {
            Stage::Final if spread => (AggregateMode::FinalPartitioned, Arc::clone(states)),
            Stage::Final => (AggregateMode::Final, Arc::clone(states)),
            Stage::Reduce => {
                let one = Arc::new(CoalescePartitionsExec::new(Arc::clone(states)));
                // a reduction runs as well in parts, so the optimizer would take the step out again; a
                // limit without a number keeps it, and is dropped once that is settled
                let one = GlobalLimitExec::new(one, 0, None);
                (AggregateMode::PartialReduce, Arc::new(one) as Arc<_>)
            }
        };
        let fields = self.schema.fields().iter().take(self.keys);
        let names = fields.map(|f| f.name().clone()).collect();
        let merged = merge(&lowered, &self.rows, names, mode, states)?;
        match self.stage {
            Stage::Final => Ok(merged),
            Stage::Reduce => conform(merged, self.schema.inner()),
        }
    }
}

/// Columns of a plan as expressions.
pub(super) fn columns(plan: &LogicalPlan) -> impl Iterator<Item = Expr> + '_ {
    plan.schema()
        .iter()
        .map(|qualified| Expr::Column(Column::from(qualified)))
}
