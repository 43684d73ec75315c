//! The rows of a run, in stored columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use catalog::Strategy;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use super::Planned;
use super::spool::Spool;
use crate::error::{Error, Result, SqlState};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, ViewHead};
use crate::views::analysis::strategy_name;
use crate::views::core::Core;
use crate::views::distinct::prepared;
use crate::views::floor::{self, Aged};
use crate::views::maintain;
use crate::views::nodes::Shown;
use crate::views::options::Kept;
use crate::views::read::{self, Parts, parts, restored};
use crate::views::source::{Range, cut, positioned};
use crate::views::split::conform;
use crate::views::state::{HI, LO, Layout};

/// The state of the positions `after < _lsn <= upto`; for FULL, the whole result. With a column and an
/// instant, rows that are too late by them are left out; their number comes with the state.
pub(super) async fn run(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    range: Range,
    in_time: Option<(usize, i64)>,
) -> Result<(Spool, i64)> {
    let (plan, parts, layout) = understood(planned, kept, state)?;
    let (lo, hi) = (Lsn(range.after.0 + 1), range.upto.unwrap_or(range.after));
    let aged = match in_time {
        None => None,
        Some((column, at)) => {
            Aged::of(kept.strategy, &plan, column)?.map(|aged| (aged, column, at))
        }
    };
    let shown = shown(planned, kept, state);
    let (plan, late) = match (&parts, aged) {
        (Parts::Full, _) => (plan, None),
        (Parts::Keyed(core), _) => (core.whole(range)?, None),
        (Parts::Append, None) => (positioned(&plan, range)?, None),
        (Parts::Core(core), None) => (maintain::run(core, range, shown)?, None),
        (Parts::Append, Some((aged, column, at))) => {
            let rows = positioned(&plan, range)?;
            let time = Expr::Column(Column::from(plan.schema().qualified_field(column)));
            let stays = aged.stays(time, at)?;
            let late =
                LogicalPlanBuilder::from(rows.clone()).filter(stays.clone().is_not_true())?;
            let rows = LogicalPlanBuilder::from(rows).filter(stays)?.build()?;
            (rows, Some(late.build()?))
        }
        (Parts::Core(core), Some((aged, _, at))) => {
            let late = aged.of_rows(core, at, true)?.rows_mut().cloned();
            let core = aged.of_rows(core, at, false)?;
            (
                maintain::run(&core, range, shown)?,
                late.map(|l| cut(l, range)).transpose()?,
            )
        }
    };
    let late = match late {
        None => 0,
        Some(rows) => count(&planned.session, rows).await?,
    };
    let mut rows = planned.spool(&layout);
    computed(&planned.session, &plan, &layout, (lo, hi), &mut rows).await?;
    Ok((rows, late))
}

/// The number of rows a plan gives.
pub(super) async fn count(session: &SessionState, rows: LogicalPlan) -> Result<i64> {
    let plan = session.create_physical_plan(&floor::counted(rows)?).await?;
    let mut stream = execute_stream(plan, session.task_ctx())?;
    let mut counted = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let counts = batch.column(0).as_primitive_opt::<Int64Type>();
        counted += counts.map_or(0, |c| c.iter().flatten().sum::<i64>());
    }
    Ok(counted)
}

pub(super) fn of_files(state: &ViewHead, files: &[LakeFile]) -> Arc<LakeSnapshot> {
    Arc::new(LakeSnapshot {
        files: files.into(),
        ..LakeSnapshot::clone(&state.state)
    })
}

pub(super) fn folded(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    core: &Core,
    layout: &Layout,
    some: &Arc<LakeSnapshot>,
) -> Result<LogicalPlan> {
    let stored = read::stored(kept.oid, layout, some)?.ok_or_else(|| misfit(planned))?;
    let schema = maintain::restored_schema(core)?;
    let stored = restored(stored, layout, &schema)?;
    Ok(maintain::fold(core, stored, shown(planned, kept, state))?)
}

/// The runs in these files as one.
pub(super) async fn fold(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    files: &[LakeFile],
) -> Result<Spool> {
    let (_, parts, layout) = understood(planned, kept, state)?;
    let some = of_files(state, files);
    let plan = match parts {
        // rows stay as they are, in fewer files
        Parts::Append | Parts::Full | Parts::Keyed(_) => read::stored_rows(kept.oid, &some)?,
        Parts::Core(core) => folded(planned, kept, state, &core, &layout, &some)?,
    };
    let range = range(files, &some, state.durable);
    let mut rows = planned.spool(&layout);
    computed(&planned.session, &plan, &layout, range, &mut rows).await?;
    Ok(rows)
}

/// The positions that files cover, by their statistics.
pub(super) fn range(files: &[LakeFile], state: &LakeSnapshot, durable: Lsn) -> (Lsn, Lsn) {
    let bounds = |name: &str, pick: fn(&ColumnStatistics) -> &Precision<ScalarValue>| {
        let at = state.schema.index_of(name).ok();
        let known = files.iter().filter_map(move |file| {
            let column = file.statistics.column_statistics.get(at?)?;
            match pick(column).get_value() {
                Some(ScalarValue::Int64(Some(lsn))) => Some(Lsn(*lsn)),
                _ => None,
            }
        });
        known.collect::<Vec<_>>()
    };
    let lo = bounds(LO, |c| &c.min_value).into_iter().min();
    let hi = bounds(HI, |c| &c.max_value).into_iter().max();
    (lo.unwrap_or(Lsn(1)), hi.unwrap_or(durable))
}

/// The query and what is kept of it. The layout is checked before anything is written to it.
pub(super) fn understood(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
) -> Result<(LogicalPlan, Parts, Layout)> {
    let plan = match kept.strategy {
        Strategy::Full => planned.plan.clone(),
        _ => prepared(planned.plan.clone())?,
    };
    let (parts, layout) = parts(kept.strategy, &plan)?.ok_or_else(|| misfit(planned))?;
    match read::stored(kept.oid, &layout, &state.state)? {
        Some(_) => Ok((plan, parts, layout)),
        None => Err(misfit(planned)),
    }
}

pub(super) fn misfit(planned: &Planned) -> Error {
    Error::refused(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the state of materialized view \"{}\" does not fit its query",
            planned.name
        ),
    )
    .with_hint("create the view again")
}

fn shown(planned: &Planned, kept: &Kept, state: &ViewHead) -> Shown {
    Shown {
        view: planned.name.clone(),
        strategy: strategy_name(kept.strategy),
        durable: state.durable,
    }
}

/// Computes a plan's rows into `into`, in the columns that are stored.
pub(super) async fn computed(
    session: &SessionState,
    plan: &LogicalPlan,
    layout: &Layout,
    (lo, hi): (Lsn, Lsn),
    into: &mut Spool,
) -> Result<()> {
    // a reduction takes all states in one piece: one row for each key comes out
    let mut session = session.clone();
    let options = session.config_mut().options_mut();
    options.optimizer.enable_round_robin_repartition = false;
    let rows = session.create_physical_plan(plan).await?;
    let stored = layout.stored();
    let count = rows.schema().fields().len();
    let kept: Vec<_> = stored.fields().iter().take(count).cloned().collect();
    let columns = conform(one_partition(rows), &Arc::new(Schema::new(kept)))?;
    let mut stream = execute_stream(Arc::clone(&columns), session.task_ctx())?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        into.push(match layout {
            Layout::Append(_) | Layout::Rows(_) => {
                RecordBatch::try_new(Arc::clone(&stored), batch.columns().to_vec())?
            }
            Layout::Agg { .. } => {
                let constant =
                    |v: Lsn| Arc::new(Int64Array::from(vec![v.0; batch.num_rows()])) as ArrayRef;
                let mut columns = batch.columns().to_vec();
                columns.extend([constant(lo), constant(hi)]);
                RecordBatch::try_new(Arc::clone(&stored), columns)?
            }
        })?;
    }
    let spilled = spilled(columns.as_ref());
    if spilled > 0 {
        let plan = DisplayableExecutionPlan::with_metrics(columns.as_ref());
        tracing::debug!(spilled, plan = %plan.indent(false), "a view did not fit into its memory");
    }
    into.count_spilled(spilled);
    Ok(())
}

/// Bytes that the operators of a plan that has run have written to disk.
fn spilled(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|m| m.spilled_bytes()).unwrap_or(0);
    let below = plan.children().into_iter();
    below.map(|child| spilled(child.as_ref())).sum::<u64>() + own as u64
}

/// The rows in one stream, in their order where they have one.
fn one_partition(rows: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match rows.properties().output_ordering().cloned() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order, rows)),
        None => Arc::new(CoalescePartitionsExec::new(rows)),
    }
}
