//! An aggregation taken apart: plain rows to aggregate, and aggregates over their columns.
//!
//! Every group key, argument and FILTER condition becomes a column of the rows, so that the same
//! aggregates can be built again, at any time, from the row columns alone.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, lit};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::expressions::{self, CastExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::error::Error;

/// An aggregation over prepared rows.
#[derive(Debug, Clone)]
pub(super) struct Split {
    /// The rows: group keys first, named as the aggregation names them, then arguments and conditions.
    pub(super) rows: LogicalPlan,
    /// The aggregates over them.
    pub(super) over: Over,
    /// What the aggregation gives: keys, then results.
    pub(super) schema: DFSchemaRef,
}

/// Aggregates over the columns of prepared rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Over {
    /// How many of the row columns are keys.
    pub(super) keys: usize,
    /// Aggregate calls over row columns.
    pub(super) calls: Vec<Expr>,
    /// Names of their results.
    pub(super) names: Vec<String>,
}

/// Aggregates ready to run.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    group: PhysicalGroupBy,
    pub(super) calls: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
}

impl Split {
    /// Takes an aggregation apart. The caller has checked that each aggregate is a plain call.
    pub(super) fn new(aggregate: &Aggregate) -> Result<Self> {
        let keys = aggregate.group_expr.len();
        let mut columns = Vec::with_capacity(keys);
        for (i, key) in aggregate.group_expr.iter().enumerate() {
            let (relation, field) = aggregate.schema.qualified_field(i);
            let key = key.clone().unalias_nested().data;
            columns.push(key.alias_qualified(relation.cloned(), field.name()));
        }
        let mut calls = Vec::new();
        let mut names = Vec::new();
        for (i, call) in aggregate.aggr_expr.iter().enumerate() {
            let Expr::AggregateFunction(call) = call.clone().unalias_nested().data else {
                return Err(Error::Internal(format!("\"{call}\" is no aggregate call")).into());
            };
            calls.push(over_columns(call, i, &mut columns));
            names.push(aggregate.schema.field(keys + i).name().clone());
        }
        if columns.is_empty() {
            // count(*) alone reads no column; rows still have to be counted
            columns.push(lit(true).alias("__row"));
        }
        let rows = Projection::try_new(columns, Arc::clone(&aggregate.input))?;
        Ok(Self {
            rows: LogicalPlan::Projection(rows),
            over: Over { keys, calls, names },
            schema: Arc::clone(&aggregate.schema),
        })
    }

    /// Keys and state fields as DataFusion's partial aggregation gives them.
    pub(super) fn partial_fields(&self) -> Result<(Vec<FieldRef>, Vec<Vec<FieldRef>>)> {
        let lowered = self.over.lower(
            self.rows.schema(),
            self.rows.schema().as_arrow(),
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        let keys = self
            .rows
            .schema()
            .fields()
            .iter()
            .take(self.over.keys)
            .cloned()
            .collect();
        let states = lowered
            .calls
            .iter()
            .map(|c| c.state_fields())
            .collect::<Result<Vec<_>>>()?;
        Ok((keys, states))
    }
}

impl Over {
    /// Builds the aggregates over rows of these schemas.
    pub(super) fn lower(
        &self,
        logical: &DFSchema,
        physical: &Schema,
        props: &ExecutionProps,
        planning: &PhysicalPlanningContext,
    ) -> Result<Lowered> {
        let keys = physical.fields().iter().take(self.keys).enumerate();
        let keys = keys.map(|(i, f)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(expressions::Column::new(f.name(), i));
            (column, f.name().clone())
        });
        let group = PhysicalGroupBy::new_single(keys.collect());
        let mut calls = Vec::new();
        let mut filters = Vec::new();
        for (call, name) in self.calls.iter().zip(&self.names) {
            let lowered = LoweredAggregateBuilder::new(call, logical, physical, props, planning)
                .with_name(name)
                .build()?;
            calls.push(lowered.aggregate);
            filters.push(lowered.filter);
        }
        Ok(Lowered {
            group,
            calls,
            filters,
        })
    }
}

impl Lowered {
    /// Rows to states. Keys may come out more than once.
    pub(super) fn partial(&self, rows: Arc<dyn ExecutionPlan>) -> Result<Arc<AggregateExec>> {
        let schema = rows.schema();
        AggregateExec::try_new(
            AggregateMode::Partial,
            self.group.clone(),
            self.calls.clone(),
            self.filters.clone(),
            rows,
            schema,
        )
        .map(Arc::new)
    }
}

/// The stage after `partial`: states to states, or states to results.
pub(super) fn next_stage(
    partial: &AggregateExec,
    mode: AggregateMode,
    states: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    // FILTER conditions belong to the rows and are spent
    let calls = partial.aggr_expr().to_vec();
    let none = vec![None; calls.len()];
    let group = partial.group_expr().as_final();
    let next = AggregateExec::try_new(mode, group, calls, none, states, partial.input_schema())?;
    Ok(Arc::new(next))
}

/// The columns of `input` in order, cast to exactly these fields.
pub(super) fn conform(
    input: Arc<dyn ExecutionPlan>,
    fields: &SchemaRef,
) -> Result<Arc<dyn ExecutionPlan>> {
    let from = input.schema();
    if from.fields().len() != fields.fields().len() {
        return Err(DataFusionError::Internal(format!(
            "{} state columns where {} are expected",
            from.fields().len(),
            fields.fields().len()
        )));
    }
    let columns = from
        .fields()
        .iter()
        .zip(fields.fields())
        .enumerate()
        .map(|(i, (f, target))| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(expressions::Column::new(f.name(), i));
            let cast = CastExpr::new_with_target_field(column, Arc::clone(target), None);
            (
                Arc::new(cast) as Arc<dyn PhysicalExpr>,
                target.name().clone(),
            )
        });
    let columns: Vec<_> = columns.collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, input)?))
}

/// The call with its arguments and condition moved into columns.
fn over_columns(call: AggregateFunction, index: usize, columns: &mut Vec<Expr>) -> Expr {
    let mut moved = |expr: Expr, name: String| {
        columns.push(expr.unalias_nested().data.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    };
    let args = call.params.args.into_iter().enumerate();
    let args = args.map(|(j, arg)| match arg {
        literal @ Expr::Literal(..) => literal,
        arg => moved(arg, format!("__arg{index}_{j}")),
    });
    let args = args.collect();
    let filter = call
        .params
        .filter
        .map(|f| Box::new(moved(*f, format!("__if{index}"))));
    Expr::AggregateFunction(AggregateFunction {
        func: call.func,
        params: AggregateFunctionParams {
            args,
            filter,
            ..call.params
        },
    })
}
