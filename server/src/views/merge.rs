//! The plan node that merges stored states with new rows, and its planner.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::split::{Over, Split, conform, next_stage};
use crate::error::Error;
use crate::stream::head::Lsn;

/// An aggregation whose older part is stored as states: `Final(states ∪ Partial(rows))`.
///
/// Both inputs begin with the keys under the names that the output gives them, so a predicate on keys
/// may be pushed into both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeStates {
    view: String,
    durable: Lsn,
    rows: LogicalPlan,
    states: LogicalPlan,
    over: Over,
    /// Predicates to apply to the result.
    after: Vec<Expr>,
    schema: DFSchemaRef,
}

impl MergeStates {
    /// Puts the aggregation back together over new rows and stored states.
    pub(super) fn plan(view: &str, durable: Lsn, split: Split, states: LogicalPlan) -> LogicalPlan {
        let node = Self {
            view: view.to_owned(),
            durable,
            rows: split.rows,
            states,
            over: split.over,
            after: Vec::new(),
            schema: split.schema,
        };
        LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        })
    }
}

impl PartialOrd for MergeStates {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for MergeStates {
    fn name(&self) -> &'static str {
        "MergeStates"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.rows, &self.states]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// The aggregates are not shown: they must stay what the stored states were made by.
    fn expressions(&self) -> Vec<Expr> {
        self.after.clone()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.over.names.iter().cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.schema.fields().iter().take(self.over.keys);
        let keys: Vec<&str> = keys.map(|f| f.name().as_str()).collect();
        write!(
            f,
            "MergeStates: view={}, strategy=AGG, durable_lsn={}, keys=[{}], aggregates=[{}]",
            self.view,
            self.durable.0,
            keys.join(", "),
            self.over.names.join(", "),
        )?;
        match conjunction(self.after.iter().cloned()) {
            Some(after) => write!(f, ", filter={after}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [rows, states] = <[LogicalPlan; 2]>::try_from(inputs)
            .map_err(|_| Error::Internal("merging states takes two inputs".to_owned()))?;
        let (rows, states, lifted) = lift(rows, states)?;
        let mut after = exprs;
        after.extend(lifted);
        Ok(Self {
            rows,
            states,
            after,
            ..self.clone()
        })
    }
}

/// Takes pushed-down predicates that must not be applied before aggregation off both inputs.
///
/// The optimizer pushes any predicate that names no forbidden column, so also one without columns or
/// a volatile one. Below the aggregation those would be evaluated per row instead of per group, and
/// could not remove the one row that an aggregation without keys always gives.
fn lift(rows: LogicalPlan, states: LogicalPlan) -> Result<(LogicalPlan, LogicalPlan, Vec<Expr>)> {
    let (LogicalPlan::Filter(over_rows), LogicalPlan::Filter(over_states)) = (&rows, &states)
    else {
        return Ok((rows, states, Vec::new()));
    };
    let both = split_conjunction(&over_states.predicate);
    let lifted: Vec<Expr> = split_conjunction(&over_rows.predicate)
        .into_iter()
        .filter(|p| both.contains(p) && (p.is_volatile() || p.column_refs().is_empty()))
        .cloned()
        .collect();
    if lifted.is_empty() {
        return Ok((rows, states, lifted));
    }
    let without = |filter: &Filter| {
        let kept = split_conjunction_owned(filter.predicate.clone());
        match conjunction(kept.into_iter().filter(|p| !lifted.contains(p))) {
            Some(kept) => Filter::try_new(kept, Arc::clone(&filter.input)).map(LogicalPlan::Filter),
            None => Ok(LogicalPlan::clone(&filter.input)),
        }
    };
    Ok((without(over_rows)?, without(over_states)?, lifted))
}

/// The planner of this module's nodes, for the session's list of extension planners.
pub fn extension_planner() -> Arc<dyn ExtensionPlanner + Send + Sync> {
    Arc::new(MergePlanner)
}

#[derive(Debug)]
struct MergePlanner;

#[async_trait]
impl ExtensionPlanner for MergePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<MergeStates>() else {
            return Ok(None);
        };
        let [rows, states] = physical_inputs else {
            return Err(Error::Internal("merging states takes two inputs".to_owned()).into());
        };
        let props = session.execution_props();
        let lowered = node
            .over
            .lower(node.rows.schema(), &rows.schema(), props, planning_ctx)?;
        let partial = lowered.partial(Arc::clone(rows))?;
        let stored = conform(Arc::clone(states), &partial.schema())?;
        let new: Arc<dyn ExecutionPlan> = Arc::<AggregateExec>::clone(&partial);
        let all = UnionExec::try_new(vec![stored, new])?;
        let spread = node.over.keys > 0
            && session.config().target_partitions() > 1
            && session.config().repartition_aggregations();
        let mode = if spread {
            AggregateMode::FinalPartitioned
        } else {
            AggregateMode::Final
        };
        let merged = next_stage(&partial, mode, all)?;
        let Some(after) = conjunction(node.after.iter().cloned()) else {
            return Ok(Some(merged));
        };
        let after = planner.create_physical_expr(&after, &node.schema, session, planning_ctx)?;
        Ok(Some(Arc::new(FilterExec::try_new(after, merged)?)))
    }
}
