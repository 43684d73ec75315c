//! `DoPut`: updates, parameters and rows, told apart by the first message's descriptor.

use std::pin::Pin;

use arrow_flight::error::FlightError;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Command, CommandPreparedStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult,
};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use datafusion::common::ScalarValue;
use futures::stream::Peekable;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Status, Streaming};

use super::handles::{Handles, Prepared};
use super::info::command;
use super::query::{only_statement, update};
use super::status::malformed;
use super::transactions;
use super::{Answers, ingest};
use crate::error::{Error, Result, SqlState};
use crate::protocol::arrow_stream::{Batches, stream_error};
use crate::protocol::buffers::Buffers;
use crate::protocol::credentials::Caller;
use crate::protocol::plain::{plain_batch, plain_schema};

/// Rows of parameters one call may bind.
const MAX_PARAMETER_ROWS: usize = 100_000;

/// Serves one call.
pub(super) async fn put(
    caller: Caller,
    handles: &Handles,
    buffers: &Buffers,
    messages: Streaming<FlightData>,
) -> Result<Answers<PutResult>> {
    let mut messages = messages.peekable();
    let descriptor = descriptor(&mut messages).await?;
    if descriptor.r#type == DescriptorType::Path as i32 {
        return ingest::to_path(caller, buffers, &descriptor.path, batches(messages)).await;
    }
    match command(&descriptor.cmd)? {
        Command::CommandStatementUpdate(c) => {
            let caller = transactions::within(&caller, handles, c.transaction_id.as_ref())?;
            let statement = only_statement(&*caller.session, &c.query)?;
            count(update(&*caller.session, &statement, Vec::new()).await?)
        }
        Command::CommandPreparedStatementQuery(c) => {
            let handle = &c.prepared_statement_handle;
            let prepared = handles.prepared(&caller, handle)?;
            let rows = parameters(&prepared, batches(messages)).await?;
            handles.bind(&caller, handle, rows)?;
            let result = DoPutPreparedStatementResult {
                prepared_statement_handle: Some(c.prepared_statement_handle),
            };
            answer(result.encode_to_vec())
        }
        Command::CommandPreparedStatementUpdate(c) => {
            count(prepared_update(&caller, handles, &c, batches(messages)).await?)
        }
        Command::CommandStatementIngest(c) => {
            let caller = transactions::within(&caller, handles, c.transaction_id.as_ref())?;
            count(ingest::to_table(caller, buffers, c, batches(messages)).await?)
        }
        other => Err(Error::unsupported(
            format!("DoPut of \"{}\" is not supported", other.type_url()),
            "put rows to the path [schema, table], or run statements as text",
        )),
    }
}

fn batches(messages: Peekable<Streaming<FlightData>>) -> Batches {
    Batches::new(messages.map_err(FlightError::from))
}

async fn descriptor(messages: &mut Peekable<Streaming<FlightData>>) -> Result<FlightDescriptor> {
    let first = Pin::new(messages).peek().await;
    match first {
        None => Err(malformed("the stream is empty")),
        Some(Err(status)) => Err(stream_error(FlightError::from(status.clone()))),
        Some(Ok(message)) => message
            .flight_descriptor
            .clone()
            .ok_or_else(|| malformed("the first message has no descriptor")),
    }
}

/// Runs an update once per row of parameters: those sent along, or else those bound before.
async fn prepared_update(
    caller: &Caller,
    handles: &Handles,
    command: &CommandPreparedStatementUpdate,
    batches: Batches,
) -> Result<i64> {
    let prepared = handles.prepared(caller, &command.prepared_statement_handle)?;
    let sent = parameters(&prepared, batches).await?;
    let mut rows = match sent.is_empty() {
        true => prepared.bound(),
        false => sent,
    };
    if rows.is_empty() {
        if !prepared.description.params.is_empty() {
            return Err(Error::refused(
                SqlState::UNDEFINED_PARAMETER,
                "the prepared statement's parameters are not bound",
            ));
        }
        rows.push(Vec::new());
    }
    let mut changed = 0i64;
    for params in rows {
        let more = update(&*prepared.session, &prepared.statement, params).await?;
        changed = changed.saturating_add(more);
    }
    Ok(changed)
}

async fn parameters(prepared: &Prepared, mut batches: Batches) -> Result<Vec<Vec<ScalarValue>>> {
    let expected = prepared.description.params.len();
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await? {
        if batch.num_columns() != expected {
            return Err(Error::refused(
                SqlState::UNDEFINED_PARAMETER,
                format!(
                    "the statement takes {expected} parameters, {} were bound",
                    batch.num_columns()
                ),
            ));
        }
        if rows.len() + batch.num_rows() > MAX_PARAMETER_ROWS {
            return Err(Error::refused(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("more than {MAX_PARAMETER_ROWS} rows of parameters"),
            )
            .with_hint("use DoPut to a path, or CommandStatementIngest, to load rows"));
        }
        let batch = plain_batch(&batch, &plain_schema(&batch.schema()))?;
        for row in 0..batch.num_rows() {
            let params = batch
                .columns()
                .iter()
                .map(|column| ScalarValue::try_from_array(column, row))
                .collect::<Result<Vec<_>, _>>()?;
            rows.push(params);
        }
    }
    Ok(rows)
}

fn count(record_count: i64) -> Result<Answers<PutResult>> {
    answer(DoPutUpdateResult { record_count }.encode_to_vec())
}

fn answer(metadata: Vec<u8>) -> Result<Answers<PutResult>> {
    let result = PutResult {
        app_metadata: metadata.into(),
    };
    let answers: [Result<PutResult, Status>; 1] = [Ok(result)];
    Ok(Box::pin(stream::iter(answers)))
}
