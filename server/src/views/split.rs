//! An aggregation taken apart: plain rows to aggregate, and aggregates over their columns.
//!
//! Every group key, argument and FILTER condition becomes a column of the rows, so that the same
//! aggregates can be built again, at any time, from the row columns alone.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, Sort};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, lit};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::expressions::{self, CastExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::empty::EmptyExec;
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
    calls: Vec<Arc<AggregateFunctionExpr>>,
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

    /// Keys as the aggregation names them, then the state columns `__state0`….
    pub(super) fn state_schema(&self) -> Result<DFSchemaRef> {
        let (_, states) = self.partial_fields()?;
        let keys = self.schema.iter().take(self.over.keys);
        let keys = keys.map(|(relation, field)| (relation.cloned(), Arc::clone(field)));
        let states = states.iter().flatten().enumerate().map(|(i, field)| {
            let field = Field::new(state_name(i), field.data_type().clone(), true);
            (None, Arc::new(field))
        });
        let fields = keys.chain(states).collect();
        DFSchema::new_with_metadata(fields, HashMap::new()).map(Arc::new)
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
    /// How many keys the rows have.
    fn keys(&self) -> usize {
        self.group.expr().len()
    }

    /// Each aggregate with its FILTER condition.
    pub(super) fn calls(
        &self,
    ) -> impl Iterator<Item = (&AggregateFunctionExpr, Option<&Arc<dyn PhysicalExpr>>)> {
        let filters = self.filters.iter().map(Option::as_ref);
        self.calls.iter().map(AsRef::as_ref).zip(filters)
    }

    /// True when an aggregate asks for an order of its rows.
    pub(super) fn is_ordered(&self) -> bool {
        self.calls.iter().any(|call| !call.order_bys().is_empty())
    }

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

/// The stage after `partial`: states to states, or states to results. `names` are the keys' names; the
/// states follow them in the order of the aggregates.
pub(super) fn merge(
    lowered: &Lowered,
    rows: &DFSchema,
    names: Vec<String>,
    mode: AggregateMode,
    states: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let raw = Arc::new(rows.as_arrow().clone());
    // making the first stage settles how each aggregate runs
    let first = lowered.partial(Arc::new(EmptyExec::new(Arc::clone(&raw))))?;
    let calls = first.aggr_expr().to_vec();
    let found = states.schema();
    let keys = found.fields().iter().take(names.len()).cloned();
    let expected: Vec<FieldRef> = keys
        .chain(first.schema().fields().iter().skip(lowered.keys()).cloned())
        .collect();
    let states = conform(states, &Arc::new(Schema::new(expected)))?;
    let group = names.into_iter().enumerate().map(|(i, name)| {
        let column = expressions::Column::new(found.field(i).name(), i);
        (Arc::new(column) as Arc<dyn PhysicalExpr>, name)
    });
    // FILTER conditions belong to the rows and are spent
    let none = vec![None; calls.len()];
    let group = PhysicalGroupBy::new_single(group.collect());
    let next = AggregateExec::try_new(mode, group, calls, none, states, raw)?;
    Ok(Arc::new(next))
}

/// Name of a state column in a plan.
pub(super) fn state_name(i: usize) -> String {
    format!("__state{i}")
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
            let same = f.data_type() == target.data_type()
                && f.is_nullable() == target.is_nullable()
                && f.metadata() == target.metadata();
            let value = match same {
                true => column,
                false => Arc::new(CastExpr::new_with_target_field(
                    column,
                    Arc::clone(target),
                    None,
                )),
            };
            (value, target.name().clone())
        });
    let columns: Vec<_> = columns.collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, input)?))
}

/// The same for all rows, perhaps after a cast: an aggregate that asks for a constant finds one.
fn is_constant(arg: &Expr) -> bool {
    !arg.any_column_refs() && !arg.is_volatile()
}

/// The call with its arguments and condition moved into columns.
fn over_columns(call: AggregateFunction, index: usize, columns: &mut Vec<Expr>) -> Expr {
    let mut moved = |expr: Expr, name: String| {
        columns.push(expr.unalias_nested().data.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    };
    let args = call.params.args.into_iter().enumerate();
    let args = args.map(|(j, arg)| match arg {
        arg if is_constant(&arg) => arg,
        arg => moved(arg, format!("__arg{index}_{j}")),
    });
    let args = args.collect();
    let filter = call
        .params
        .filter
        .map(|f| Box::new(moved(*f, format!("__if{index}"))));
    let order_by = call.params.order_by.into_iter().enumerate();
    let order_by = order_by.map(|(j, sort)| Sort {
        expr: moved(sort.expr, format!("__by{index}_{j}")),
        ..sort
    });
    let order_by = order_by.collect();
    Expr::AggregateFunction(AggregateFunction {
        func: call.func,
        params: AggregateFunctionParams {
            args,
            filter,
            order_by,
            ..call.params
        },
    })
}
