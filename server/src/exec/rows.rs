//! Streams of result rows: with cancel and deadline, under their output names, traced to their end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::TaskContext;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Outcome, Run};
use crate::error::{Error, Result, SqlState};

/// Batches a query may be ahead of its client.
const AHEAD: usize = 2;

/// The refusal of a cancelled statement.
pub fn canceled() -> Error {
    Error::refused(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

/// The refusal of a statement that took too long.
pub fn timed_out() -> Error {
    Error::refused(
        SqlState::QUERY_CANCELED,
        "canceling statement due to statement timeout",
    )
}

/// Ready rows as a stream.
pub fn ready(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    let stream = futures::stream::iter([Ok(batch)]);
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// Ready rows as an outcome.
pub fn of_batch(tag: &'static str, batch: RecordBatch) -> Outcome {
    Outcome::Rows {
        tag,
        schema: batch.schema(),
        stream: ready(batch),
    }
}

/// Starts a plan; its rows end with the statement's cancel and deadline.
pub async fn start(
    run: &Run,
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<SendableRecordBatchStream> {
    let physical = state.create_physical_plan(plan).await?;
    Ok(run_physical(run, physical, state.task_ctx()))
}

/// Runs a plan to its end and keeps the rows, up to a number of bytes.
///
/// # Errors
/// 53200 beyond the limit.
pub async fn collect(
    run: &Run,
    state: &SessionState,
    plan: &LogicalPlan,
    limit: usize,
) -> Result<Vec<RecordBatch>> {
    let mut stream = start(run, state, plan).await?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > limit {
            return Err(
                Error::refused(SqlState::OUT_OF_MEMORY, "the rows do not fit in memory")
                    .with_hint("split the statement into smaller ones"),
            );
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The single number a plan gives.
pub async fn count(run: &Run, state: &SessionState, plan: &LogicalPlan) -> Result<u64> {
    let batches = collect(run, state, plan, 1 << 20).await?;
    let value = batches.first().and_then(|b| {
        let column = arrow::array::AsArray::as_primitive_opt::<arrow::datatypes::Int64Type>(
            b.columns().first()?,
        )?;
        column.iter().next().flatten()
    });
    value
        .and_then(|n| u64::try_from(n).ok())
        .ok_or_else(|| Error::Internal("a count gave no number".to_owned()))
}

/// A value that does not fit is an error, never NULL.
const STRICT: arrow::compute::CastOptions<'static> = arrow::compute::CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

/// The same rows under other column names and in the types shown.
pub fn renamed(stream: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let shown = Arc::clone(&schema);
    let rows = stream.map(move |batch| {
        let batch = batch?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch
            .columns()
            .iter()
            .zip(shown.fields())
            .map(
                |(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(Arc::clone(column)),
                    false => arrow::compute::cast_with_options(column, field.data_type(), &STRICT),
                },
            )
            .collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&shown),
            columns,
            &options,
        )?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Runs a physical plan; its rows end with 57014 when cancelled or past the deadline, also while
/// nothing comes.
///
/// The query runs on the engine's query threads: an operator that computes long before it yields must
/// hold up neither the answer to a cancel nor other connections.
pub fn run_physical(
    run: &Run,
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let mut apart = RecordBatchReceiverStream::builder(physical.schema(), AHEAD);
    let rows = apart.tx();
    let work = async move {
        let mut stream = execute_stream(physical, context)?;
        while let Some(batch) = stream.next().await {
            if rows.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    apart.spawn_on(work, run.scope.engine.query_threads());
    guarded(run, apart.build())
}

/// The same rows, ending with 57014 when the statement is cancelled or past its deadline.
pub fn guarded(run: &Run, stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
    Box::pin(
        Guarded {
            stream: Some(stream),
            cancel: Box::pin(run.cancel.clone().cancelled_owned()),
            deadline: run
                .deadline
                .map(|at| Box::pin(tokio::time::sleep_until(at))),
            schema: Arc::new(arrow::datatypes::Schema::empty()),
        }
        .with_schema(),
    )
}

struct Guarded {
    stream: Option<SendableRecordBatchStream>,
    cancel: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
    schema: SchemaRef,
}

impl Guarded {
    fn with_schema(mut self) -> Self {
        if let Some(stream) = &self.stream {
            self.schema = stream.schema();
        }
        self
    }
}

impl Stream for Guarded {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        let late = this
            .deadline
            .as_mut()
            .is_some_and(|d| d.poll_unpin(cx).is_ready());
        let stopped = this.cancel.poll_unpin(cx).is_ready();
        if late || stopped {
            this.stream = None;
            let error = if stopped { canceled() } else { timed_out() };
            return Poll::Ready(Some(Err(error.into())));
        }
        stream.poll_next_unpin(cx)
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Rows that tell once how many they were when they end, fail or are dropped.
pub fn traced<F>(stream: SendableRecordBatchStream, ended: F) -> SendableRecordBatchStream
where
    F: FnOnce(u64, Option<&Error>) + Send + Unpin + 'static,
{
    Box::pin(Traced {
        stream,
        rows: 0,
        ended: Some(ended),
    })
}

struct Traced<F: FnOnce(u64, Option<&Error>)> {
    stream: SendableRecordBatchStream,
    rows: u64,
    ended: Option<F>,
}

impl<F: FnOnce(u64, Option<&Error>) + Send + Unpin> Stream for Traced<F> {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.poll_next_unpin(cx);
        match &polled {
            Poll::Ready(Some(Ok(batch))) => self.rows += batch.num_rows() as u64,
            Poll::Ready(Some(Err(e))) => {
                let error = Error::refused(report_state(e), e.to_string());
                let rows = self.rows;
                if let Some(ended) = self.ended.take() {
                    ended(rows, Some(&error));
                }
            }
            Poll::Ready(None) => {
                let rows = self.rows;
                if let Some(ended) = self.ended.take() {
                    ended(rows, None);
                }
            }
            Poll::Pending => {}
        }
        polled
    }
}

/// The code of an error that is still on its way through DataFusion.
fn report_state(e: &DataFusionError) -> SqlState {
    crate::error::query_state(e)
}

impl<F: FnOnce(u64, Option<&Error>) + Send + Unpin> RecordBatchStream for Traced<F> {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl<F: FnOnce(u64, Option<&Error>)> Drop for Traced<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(self.rows, None);
        }
    }
}
