//! One key of an AGG view, without a plan: what a query for it means is found out once, and each time it
//! is asked only the key's stored states and newer rows are merged.
//!
//! A query qualifies when it is projections and a condition `key = value` for every key over a view whose
//! state stands for its rows. It is recognized in the analyzed plan, so everything that stands between the
//! query and the view, rights and conditions included, is in there or the query does not qualify. What
//! does not fit at the cut it is asked at is left to the planner too. Owns no state; [`Blocks`] keeps what
//! was read.

mod blocks;
mod flat;
mod recent;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use catalog::{Oid, Strategy};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Accumulator, Expr, LogicalPlan, ScalarUDF, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;

pub use blocks::Blocks;
use flat::Flat;
use recent::Recent;

use super::nodes::MergeStates;
use super::options::Kept;
use super::split::Lowered;
use crate::error::{Error, Result};
use crate::stream::head::{DbHead, Lsn, TableHead, ViewHead};

/// What a key of a view is asked by.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// A parameter, by its place.
    Param(usize),
    /// A value.
    Value(ScalarValue),
}

/// True for functions that outlive the statement they were planned for.
pub type Ours<'a> = &'a dyn Fn(&Arc<ScalarUDF>) -> bool;

/// A query for one key.
#[derive(Debug)]
pub struct Lookup {
    view: Oid,
    table: Oid,
    /// By key of the core: its type and what it is asked by.
    keys: Vec<(DataType, Asked)>,
    /// Keys and states in the types they are merged in.
    states: SchemaRef,
    lowered: Lowered,
    recent: Recent,
    /// Of the core: keys, then results.
    merged: SchemaRef,
    /// Over those: the columns of the query.
    outputs: Vec<Arc<dyn PhysicalExpr>>,
}

impl Lookup {
    /// Finds out what an analyzed query with placeholders asks of a view; nothing when it is no query
    /// for one key of one. `ours` tells functions that hold on to nothing of the statement they were
    /// planned for.
    ///
    /// # Errors
    /// What making its expressions reports.
    pub fn of(
        plan: &LogicalPlan,
        kept: &dyn Fn(Oid) -> Option<Kept>,
        ours: Ours<'_>,
        state: &SessionState,
    ) -> Result<Option<Self>> {
        let Some(query) = flat::over_states(plan, ours)? else {
            return Ok(None);
        };
        let node = query.base;
        let Some((view, new)) = flat::beside_stored(node.states()) else {
            return Ok(None);
        };
        let Some(kept) = kept(view) else {
            return Ok(None);
        };
        if kept.strategy != Strategy::Agg
            || kept.options.schedule.is_some()
            || kept.options.retention.is_some()
            || !node.is_result()
        {
            return Ok(None);
        }
        let Some(keys) = asked_keys(node, &query)? else {
            return Ok(None);
        };
        let Some(recent) = Recent::of(new.rows(), ours, state)? else {
            return Ok(None);
        };
        let rows = new.rows().schema();
        let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let lowered = node
            .over()
            .lower(rows, rows.as_arrow(), &props, &planning)?;
        if lowered.is_ordered() {
            return Ok(None);
        }
        let merged = node.schema();
        let outputs = query.exprs.iter().cloned();
        let outputs = outputs
            .map(|expr| physical(expr, merged, state))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Self {
            view: kept.oid,
            table: recent.table(),
            keys,
            states: Arc::new(node.states().schema().as_arrow().clone()),
            lowered,
            recent,
            merged: Arc::new(merged.as_arrow().clone()),
            outputs,
        }))
    }

    /// The view.
    pub fn view(&self) -> Oid {
        self.view
    }

    /// The answer at a head, in columns of these fields; nothing when it has to be planned there.
    ///
    /// # Errors
    /// As reading the state.
    pub async fn answer(
        &self,
        head: &DbHead,
        kept: &Kept,
        params: &[ScalarValue],
        shown: &SchemaRef,
        (blocks, session): (&Blocks, &SessionState),
    ) -> Result<Option<RecordBatch>> {
        let (Some(state), Some(table)) = (head.views.get(&self.view), head.tables.get(&self.table))
        else {
            return Ok(None);
        };
        if state.floor.at.is_some() || !(kept.ignores_changes() || state.is_of(&kept.sources, head))
        {
            return Ok(None);
        }
        let Some(key) = self.key(params) else {
            return Ok(None);
        };
        let Some(stored) = blocks
            .states(&state.state, &self.states, &key, session)
            .await?
        else {
            return Ok(None);
        };
        let Some(rows) = self.rows(state, table, &key, (blocks, session)).await? else {
            return Ok(None);
        };
        if stored.is_none() && rows.is_none() {
            return Ok(Some(RecordBatch::new_empty(Arc::clone(shown))));
        }
        let merged = self.merge(&key, stored.as_ref(), rows.as_ref())?;
        let columns = self.outputs.iter().zip(shown.fields()).map(|(output, f)| {
            let column = output.evaluate(&merged)?.into_array(1)?;
            match column.data_type() == f.data_type() {
                true => Ok(column),
                false => Ok(cast(&column, f.data_type())?),
            }
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(Arc::clone(shown), columns, &options)?;
        Ok(Some(batch))
    }

    /// The values asked for, in the keys' types; nothing when one is NULL or of another kind.
    fn key(&self, params: &[ScalarValue]) -> Option<Vec<ScalarValue>> {
        let one = |(ty, asked): &(DataType, Asked)| {
            let value = match asked {
                Asked::Param(at) => params.get(*at)?,
                Asked::Value(value) => value,
            };
            if value.is_null() {
                return None;
            }
            let given = value.data_type();
            let text = |ty: &DataType| {
                matches!(
                    ty,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                )
            };
            match given == *ty {
                true => Some(value.clone()),
                false if (given.is_integer() && ty.is_integer()) || (text(&given) && text(ty)) => {
                    value.cast_to(ty).ok().filter(|v| !v.is_null())
                }
                false => None,
            }
        };
        self.keys.iter().map(one).collect()
    }

    /// The key's rows that the state does not count, ready to be aggregated; nothing at all when they are
    /// too many to be looked through, nothing inside when there are none.
    async fn rows(
        &self,
        state: &ViewHead,
        table: &TableHead,
        key: &[ScalarValue],
        (blocks, session): (&Blocks, &SessionState),
    ) -> Result<Option<Option<RecordBatch>>> {
        let mut found = Vec::new();
        if table.flushed > state.durable {
            let flushed = blocks
                .flushed(table, state.durable, self.recent.schema(), session)
                .await?;
            let Some(flushed) = flushed else {
                return Ok(None);
            };
            for batch in flushed.iter() {
                found.extend(self.recent.of_key(batch, state.durable, key)?);
            }
        }
        for part in &table.tail {
            if part.hi > state.durable {
                let batch = self.recent.conformed(part)?;
                found.extend(self.recent.of_key(&batch, state.durable, key)?);
            }
        }
        Ok(Some(match found.first() {
            None => None,
            Some(first) => Some(concat_batches(&first.schema(), &found)?),
        }))
    }

    fn merge(
        &self,
        key: &[ScalarValue],
        stored: Option<&RecordBatch>,
        rows: Option<&RecordBatch>,
    ) -> Result<RecordBatch> {
        let mut columns = key
            .iter()
            .map(ScalarValue::to_array)
            .collect::<datafusion::error::Result<Vec<ArrayRef>>>()?;
        let mut at = key.len();
        for (call, filter) in self.lowered.calls() {
            let mut accumulator: Box<dyn Accumulator> = call.create_accumulator()?;
            let width = call.state_fields()?.len();
            if let Some(stored) = stored {
                let states = stored.columns().get(at..at + width).ok_or_else(misfit)?;
                accumulator.merge_batch(states)?;
            }
            at += width;
            if let Some(rows) = rows {
                let counted = match filter {
                    None => rows.clone(),
                    Some(filter) => matching(rows, filter)?,
                };
                let args = call.expressions();
                let args = args.iter().map(|arg| {
                    let value = arg.evaluate(&counted)?;
                    value.into_array(counted.num_rows())
                });
                let args = args.collect::<datafusion::error::Result<Vec<_>>>()?;
                accumulator.update_batch(&args)?;
            }
            columns.push(accumulator.evaluate()?.to_array()?);
        }
        let typed = columns.into_iter().zip(self.merged.fields());
        let typed = typed.map(
            |(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column),
                false => Ok(cast(&column, field.data_type())?),
            },
        );
        let typed = typed.collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.merged), typed)?)
    }
}

/// An expression ready to run. Some functions are never run, but what they simplify to is.
fn physical(expr: Expr, schema: &DFSchema, state: &SessionState) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let expr = ExprSimplifier::new(context).simplify(expr)?;
    Ok(state.create_physical_expr(expr, schema)?)
}

/// What each key is asked by, when the conditions are just that.
fn asked_keys(
    node: &MergeStates,
    query: &Flat<'_, MergeStates>,
) -> Result<Option<Vec<(DataType, Asked)>>> {
    let schema = node.schema();
    let mut found: Vec<Option<Asked>> = vec![None; node.keys()];
    for condition in &query.conditions {
        let Some((column, asked)) = flat::equality(condition) else {
            return Ok(None);
        };
        let at = schema.maybe_index_of_column(&column);
        match at.and_then(|at| found.get_mut(at)) {
            Some(slot @ None) => *slot = Some(asked),
            Some(Some(_)) | None => return Ok(None),
        }
    }
    let keys = found.into_iter().enumerate().map(|(at, asked)| {
        let ty = schema.field(at).data_type().clone();
        // floats have several zeros, and nested values no order
        let plain = !ty.is_nested() && !ty.is_floating();
        asked.filter(|_| plain).map(|asked| (ty, asked))
    });
    let keys: Option<Vec<_>> = keys.collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
}

/// The rows of a batch that a condition is true of.
pub(super) fn matching(
    rows: &RecordBatch,
    condition: &Arc<dyn PhysicalExpr>,
) -> Result<RecordBatch> {
    let mask = condition.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = mask
        .as_any()
        .downcast_ref::<BooleanArray>()
        .ok_or_else(misfit)?;
    Ok(filter_record_batch(rows, mask)?)
}

/// The rows whose columns have these values.
pub(super) fn equal<'a>(
    pairs: impl Iterator<Item = (&'a ArrayRef, &'a ScalarValue)>,
) -> Result<Option<BooleanArray>> {
    let mut all: Option<BooleanArray> = None;
    for (column, value) in pairs {
        let same = eq(column, &value.to_scalar()?)?;
        all = Some(match all {
            None => same,
            Some(before) => and(&before, &same)?,
        });
    }
    Ok(all.filter(|mask| mask.true_count() > 0))
}

pub(super) fn misfit() -> Error {
    Error::Internal("the state of a view does not fit what is asked of it".to_owned())
}

/// A position as stored.
pub(super) fn position(lsn: Lsn) -> ScalarValue {
    ScalarValue::Int64(Some(lsn.0))
}
