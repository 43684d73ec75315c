//! `DoGet`: runs what a ticket stands for and streams its rows.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::Command;
use arrow_flight::{FlightData, Ticket};
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};

use super::handles::{Handles, Running};
use super::info::command;
use super::status::{encoder_status, flight_error};
use super::{Answers, metadata};
use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};
use crate::exec::Outcome;
use crate::protocol::backend::DataCalls;
use crate::protocol::credentials::Caller;
use crate::protocol::plain::{plain_batch, plain_schema};

/// Rows of a ticket. Nothing is computed ahead of what the client reads; dropping the stream ends
/// the query.
pub(super) async fn rows(
    caller: &Caller,
    handles: &Handles,
    ticket: &Ticket,
) -> Result<Answers<FlightData>> {
    match command(&ticket.ticket)? {
        Command::TicketStatementQuery(query) => {
            let (planned, running) = handles.start(caller, &query.statement_handle)?;
            let outcome = planned
                .session
                .execute(&planned.statement, planned.params)
                .await?;
            stream_outcome(outcome, running)
        }
        Command::CommandPreparedStatementQuery(query) => {
            let prepared = handles.prepared(caller, &query.prepared_statement_handle)?;
            let params = prepared.bound().into_iter().next().unwrap_or_default();
            let running = handles.run_unnamed(caller);
            let outcome = prepared
                .session
                .execute(&prepared.statement, params)
                .await?;
            stream_outcome(outcome, running)
        }
        other => {
            let batch = metadata::batch(caller, other).await?;
            Ok(encode(batch.schema(), stream::iter([Ok(batch)])))
        }
    }
}

/// The single statement of a text.
pub(super) fn only_statement(session: &dyn DataCalls, sql: &str) -> Result<Arc<Statement>> {
    let mut statements = session.parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "the text holds several statements",
        )
        .with_hint("send one statement per call")),
        (None, _) => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "the text holds no statement",
        )),
    }
}

/// Runs a statement for its effect; the rows it changed, 0 when it changes none.
pub(super) async fn update(
    session: &dyn DataCalls,
    statement: &Arc<Statement>,
    params: Vec<ScalarValue>,
) -> Result<i64> {
    let rows = match session.execute(statement, params).await? {
        Outcome::Command { rows, .. } => rows.unwrap_or(0),
        Outcome::Rows { mut stream, .. } => {
            let mut rows = 0;
            while let Some(batch) = stream.try_next().await? {
                rows += batch.num_rows() as u64;
            }
            rows
        }
        Outcome::Empty => 0,
        Outcome::CopyIn(_) | Outcome::CopyOut { .. } => return Err(no_copy()),
    };
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

fn no_copy() -> Error {
    Error::unsupported(
        "COPY through the client is not supported over Flight SQL",
        "use DoPut to load and a query to read",
    )
}

fn stream_outcome(outcome: Outcome, running: Running) -> Result<Answers<FlightData>> {
    match outcome {
        Outcome::Rows { schema, stream, .. } => {
            let plain = plain_schema(&schema);
            let target = Arc::clone(&plain);
            let batches = stream.map(move |batch| plain_batch(&batch?, &target));
            Ok(encode(plain, cancellable(batches, running)))
        }
        Outcome::Command { .. } | Outcome::Empty => {
            Ok(encode(Arc::new(Schema::empty()), stream::empty()))
        }
        Outcome::CopyIn(_) | Outcome::CopyOut { .. } => Err(no_copy()),
    }
}

/// Ends the stream with 57014 when its guard's token is cancelled.
fn cancellable(
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    running: Running,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    let cancelled = running.token.clone().cancelled_owned();
    let last = running.token.clone();
    let end = stream::once(async move { last.is_cancelled() }).filter_map(|cancelled| async move {
        cancelled.then(|| {
            Err(Error::refused(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ))
        })
    });
    batches.take_until(cancelled).chain(end).inspect(move |_| {
        // the registration lives as long as the stream
        let _ = &running;
    })
}

fn encode(
    schema: SchemaRef,
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> Answers<FlightData> {
    let data = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(batches.map_err(|e| flight_error(&e)))
        .map_err(encoder_status);
    Box::pin(data)
}
