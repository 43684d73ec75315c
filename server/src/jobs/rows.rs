//! Stored rows, read to be written again: by DataFusion, on the query threads, within query memory.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, SortExpr};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, StreamExt, stream};

use super::registry::{Handle, canceled};
use crate::engine::Engine;
use crate::engine::scan::WeirTable;
use crate::engine::scope::{Caller, Scope};
use crate::error::{Error, Result};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::TableHead;

/// Batches the reader may be ahead of the writer.
const AHEAD: usize = 2;
/// The table's name in plans.
const TABLE: &str = "t";

/// What is read.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Only rows of which this is true.
    pub(super) filter: Option<Expr>,
    /// In this order; without one, as the files have them.
    pub(super) order: Vec<SortExpr>,
    /// Only these columns; without any, all that are stored.
    pub(super) columns: Vec<String>,
    /// They are no progress of the job.
    pub(super) uncounted: bool,
}

/// A column of the table.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new(Some(TABLE), name))
}

/// The rows of some files of a table, all stored columns, `_lsn` first where there is one. They end with
/// an error when the job is to stop.
pub(super) async fn read(
    engine: &Arc<Engine>,
    table: &TableHead,
    files: &[LakeFile],
    wanted: Wanted,
    job: &Handle,
) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static> {
    let some = LakeSnapshot {
        files: files.into(),
        ..LakeSnapshot::clone(&table.lake)
    };
    let part = TableHead {
        lake: Arc::new(some),
        tail: Vec::new(),
        ..TableHead::clone(table)
    };
    let source = provider_as_source(Arc::new(WeirTable::new(Arc::new(part), true)));
    let mut plan = LogicalPlanBuilder::scan(TABLE, source, None)?;
    if let Some(filter) = wanted.filter {
        plan = plan.filter(filter)?;
    }
    if !wanted.columns.is_empty() {
        plan = plan.project(wanted.columns.iter().map(|name| column(name)))?;
    }
    let ordered = !wanted.order.is_empty();
    if ordered {
        plan = plan.sort(wanted.order)?;
    }
    let mut state = Arc::new(Scope::new(engine, Caller::system())).state()?;
    if !ordered {
        // several readers would mix the files
        state.config_mut().options_mut().execution.target_partitions = 1;
    }
    let physical = state.create_physical_plan(&plan.build()?).await?;
    let context = state.task_ctx();
    Ok(streamed(engine, physical, context, job, wanted.uncounted))
}

/// The rows of a plan, run on the query threads. They end with an error when the job is to stop.
pub(super) fn streamed(
    engine: &Arc<Engine>,
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    job: &Handle,
    uncounted: bool,
) -> impl Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static {
    let mut apart = RecordBatchReceiverStream::builder(physical.schema(), AHEAD);
    let sender = apart.tx();
    let work = async move {
        let mut rows = execute_stream(physical, context)?;
        while let Some(batch) = rows.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    apart.spawn_on(work, engine.query_threads());
    let stop = job.stop().clone();
    let count = (!uncounted).then(|| job.row_counter());
    let rows = stream::unfold(Some((apart.build(), stop)), move |open| async move {
        let (mut rows, stop) = open?;
        tokio::select! {
            biased;
            () = stop.cancelled() => Some((Err(canceled()), None)),
            next = rows.next() => match next? {
                Ok(batch) => Some((Ok(batch), Some((rows, stop)))),
                Err(e) => Some((Err(Error::from(e)), None)),
            },
        }
    });
    Box::pin(rows.inspect(move |batch| {
        if let (Ok(batch), Some(count)) = (batch, &count) {
            count(batch.num_rows());
        }
    }))
}
