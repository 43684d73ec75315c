//! The rows of a run, in stored columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use catalog::Strategy;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use super::Planned;
use crate::error::{Error, Result, SqlState};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, ViewHead};
use crate::views::analysis::strategy_name;
use crate::views::distinct::prepared;
use crate::views::maintain;
use crate::views::nodes::Shown;
use crate::views::options::Kept;
use crate::views::read::{self, Parts, parts, restored};
use crate::views::source::{Range, positioned};
use crate::views::split::conform;
use crate::views::state::{HI, LO, Layout};

/// Bytes that one run may hold before it is written.
const RUN_BYTES: usize = 1 << 30;

/// The state of the positions `after < _lsn <= upto`; for FULL, the whole result.
pub(super) async fn run(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    range: Range,
) -> Result<Vec<RecordBatch>> {
    let (plan, parts, layout) = understood(planned, kept, state)?;
    let (lo, hi) = (Lsn(range.after.0 + 1), range.upto.unwrap_or(range.after));
    let plan = match &parts {
        Parts::Full => plan,
        Parts::Append => positioned(&plan, range)?,
        Parts::Core(core) => maintain::run(core, range, shown(planned, kept, state))?,
    };
    computed(&planned.session, &plan, &layout, (lo, hi)).await
}

/// The runs in these files as one.
pub(super) async fn fold(
    planned: &Planned,
    kept: &Kept,
    state: &ViewHead,
    files: &[LakeFile],
) -> Result<Vec<RecordBatch>> {
    let (_, parts, layout) = understood(planned, kept, state)?;
    let some = Arc::new(LakeSnapshot {
        files: files.into(),
        ..LakeSnapshot::clone(&state.state)
    });
    let plan = match parts {
        // rows stay as they are, in fewer files
        Parts::Append | Parts::Full => read::stored_rows(kept.oid, &some)?,
        Parts::Core(core) => {
            let stored = read::stored(kept.oid, &layout, &some)?.ok_or_else(|| misfit(planned))?;
            let schema = maintain::restored_schema(&core)?;
            let stored = restored(stored, &layout, &schema)?;
            maintain::fold(&core, stored, shown(planned, kept, state))?
        }
    };
    let range = range(files, &some, state.durable);
    computed(&planned.session, &plan, &layout, range).await
}

/// The positions that files cover, by their statistics.
fn range(files: &[LakeFile], state: &LakeSnapshot, durable: Lsn) -> (Lsn, Lsn) {
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
fn understood(
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

fn misfit(planned: &Planned) -> Error {
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

async fn computed(
    session: &SessionState,
    plan: &LogicalPlan,
    layout: &Layout,
    (lo, hi): (Lsn, Lsn),
) -> Result<Vec<RecordBatch>> {
    // a reduction takes all states in one piece: one row for each key comes out
    let mut session = session.clone();
    let options = session.config_mut().options_mut();
    options.optimizer.enable_round_robin_repartition = false;
    let rows = session.create_physical_plan(plan).await?;
    let stored = layout.stored();
    let count = rows.schema().fields().len();
    let kept: Vec<_> = stored.fields().iter().take(count).cloned().collect();
    let columns = conform(one_partition(rows), &Arc::new(Schema::new(kept)))?;
    let mut stream = execute_stream(columns, session.task_ctx())?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > RUN_BYTES {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("one run of the view's state is greater than {RUN_BYTES} bytes"),
            ));
        }
        batches.push(match layout {
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
        });
    }
    Ok(batches)
}

/// The rows in one stream, in their order where they have one.
fn one_partition(rows: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match rows.properties().output_ordering().cloned() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order, rows)),
        None => Arc::new(CoalescePartitionsExec::new(rows)),
    }
}
