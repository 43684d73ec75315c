//! `DoAction`: prepared statements, transactions, cancel, session options.

use std::sync::Mutex;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionEndTransactionRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, IpcMessage, SchemaAsIpc,
};
use bytes::Bytes;
use prost::Message;

use super::handles::{Handles, Prepared};
use super::info::command;
use super::query::only_statement;
use super::status::malformed;
use super::{session_options, transactions};
use crate::error::{Error, Result};
use crate::protocol::credentials::Caller;
use crate::protocol::plain::plain_schema;

/// Names and meanings, as `ListActions` gives them.
pub(super) const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "Plans a statement and keeps it"),
    ("ClosePreparedStatement", "Forgets a prepared statement"),
    (
        "BeginTransaction",
        "Begins a transaction on a session of its own",
    ),
    ("EndTransaction", "Commits a transaction or rolls it back"),
    ("CancelFlightInfo", "Cancels a query by its FlightInfo"),
    ("SetSessionOptions", "Sets catalog, schema or a setting"),
    ("GetSessionOptions", "Reads catalog and schema"),
    ("CloseSession", "Ends the bearer token and its session"),
];

/// Runs an action; the body of its answer, `None` for an empty one.
pub(super) async fn run(
    caller: &Caller,
    handles: &Handles,
    action: &Action,
) -> Result<Option<Bytes>> {
    match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            prepare(caller, handles, &request).await.map(Some)
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            handles.close(caller, &request.prepared_statement_handle);
            Ok(None)
        }
        "CancelFlightInfo" => cancel(caller, handles, &action.body).map(Some),
        "SetSessionOptions" => session_options::set(caller, &action.body).map(Some),
        "GetSessionOptions" => Ok(Some(session_options::get(caller))),
        "BeginTransaction" => transactions::begin(caller, handles).await.map(Some),
        "EndTransaction" => {
            let request: ActionEndTransactionRequest = unpack(&action.body)?;
            transactions::end(caller, handles, &request).await?;
            Ok(None)
        }
        "BeginSavepoint" | "EndSavepoint" => Err(Error::unsupported(
            "the actions for savepoints are not supported",
            "run SAVEPOINT and ROLLBACK TO as statements of the transaction",
        )),
        other => Err(Error::unsupported(
            format!("action \"{other}\" is not supported"),
            "ListActions names those that are",
        )),
    }
}

/// The answer of `CreatePreparedStatement`, with the field that says whether the statement returns
/// rows; arrow-flight's message lacks it.
#[derive(Clone, PartialEq, Message)]
struct PreparedResult {
    #[prost(bytes = "bytes", tag = "1")]
    prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

async fn prepare(
    caller: &Caller,
    handles: &Handles,
    request: &ActionCreatePreparedStatementRequest,
) -> Result<Bytes> {
    let caller = &transactions::within(caller, handles, request.transaction_id.as_ref())?;
    let statement = only_statement(&*caller.session, &request.query)?;
    let description = caller.session.describe(&statement, &[]).await?;
    let dataset_schema = match &description.schema {
        Some(schema) => schema_bytes(&plain_schema(schema))?,
        None => Bytes::new(),
    };
    let parameter_schema = schema_bytes(&parameter_schema(&description.params))?;
    let is_update = description.schema.is_none();
    let prepared_statement_handle = handles.prepare(Prepared {
        role: caller.role.clone(),
        session: std::sync::Arc::clone(&caller.session),
        statement,
        description,
        bound: Mutex::default(),
    })?;
    let result = PreparedResult {
        prepared_statement_handle,
        dataset_schema,
        parameter_schema,
        is_update: Some(is_update),
    };
    let any = Any {
        type_url: arrow_flight::sql::ActionCreatePreparedStatementResult::type_url().to_owned(),
        value: result.encode_to_vec().into(),
    };
    Ok(any.encode_to_vec().into())
}

/// `$1`, `$2`, … with the types the planner found.
fn parameter_schema(params: &[DataType]) -> Schema {
    let fields: Vec<Field> = params
        .iter()
        .enumerate()
        .map(|(i, ty)| Field::new(format!("${}", i + 1), ty.clone(), true))
        .collect();
    plain_schema(&Schema::new(fields)).as_ref().clone()
}

fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into()?;
    Ok(bytes)
}

fn cancel(caller: &Caller, handles: &Handles, body: &Bytes) -> Result<Bytes> {
    let request = CancelFlightInfoRequest::decode(body.clone())
        .map_err(|e| malformed("the request is malformed").with_detail(e.to_string()))?;
    let endpoints = request.info.map(|i| i.endpoint).unwrap_or_default();
    let mut found = false;
    for ticket in endpoints.into_iter().filter_map(|e| e.ticket) {
        if let Command::TicketStatementQuery(query) = command(&ticket.ticket)? {
            found |= handles.cancel(caller, &query.statement_handle);
        }
    }
    let status = match found {
        true => CancelStatus::Cancelled,
        false => CancelStatus::NotCancellable,
    };
    let result = CancelFlightInfoResult {
        status: status as i32,
    };
    Ok(result.encode_to_vec().into())
}

fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M> {
    let any = Any::decode(body.clone())
        .map_err(|e| malformed("the action is malformed").with_detail(e.to_string()))?;
    any.unpack()
        .map_err(|e| malformed("the action is malformed").with_detail(e.to_string()))?
        .ok_or_else(|| malformed("the action's message is of another type"))
}
