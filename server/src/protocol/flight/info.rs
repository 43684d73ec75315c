//! `GetFlightInfo` and `GetSchema`: what a command would return, and the ticket to fetch it.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    Any, Command, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use prost::Message;

use super::handles::{Handles, Planned};
use super::metadata;
use super::query::only_statement;
use super::status::malformed;
use super::transactions;
use crate::error::{Error, Result};
use crate::protocol::credentials::Caller;
use crate::protocol::plain::plain_schema;
use crate::session::Description;

/// The schema and the ticket of a command. Statements are planned here and run by `DoGet`.
pub(super) async fn flight_info(
    caller: &Caller,
    handles: &Handles,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    let command = command(&descriptor.cmd)?;
    let (schema, ticket) = match command {
        Command::CommandStatementQuery(query) => {
            let (description, planned) = plan(caller, handles, &query).await?;
            (result_schema(&description), ticket(handles.plan(planned)?))
        }
        Command::CommandPreparedStatementQuery(query) => {
            let prepared = handles.prepared(caller, &query.prepared_statement_handle)?;
            let mut rows = prepared.bound();
            let params = match rows.len() {
                0 => Vec::new(),
                1 => rows.remove(0),
                n => {
                    return Err(Error::unsupported(
                        format!("a query takes one row of parameters, not {n}"),
                        "run it once per row",
                    ));
                }
            };
            // bound values decide types that were open when the statement was prepared
            let schema = match params.is_empty() {
                true => result_schema(&prepared.description),
                false => {
                    let types: Vec<_> = params.iter().map(|p| Some(p.data_type())).collect();
                    let described = prepared
                        .session
                        .describe(&prepared.statement, &types)
                        .await?;
                    result_schema(&described)
                }
            };
            let handle = handles.plan(Planned {
                role: prepared.role.clone(),
                session: Arc::clone(&prepared.session),
                statement: Arc::clone(&prepared.statement),
                params,
            })?;
            (schema, ticket(handle))
        }
        other => (metadata::schema(&other)?, descriptor.cmd.clone()),
    };
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    Ok(FlightInfo::new()
        .try_with_schema(&schema)?
        .with_endpoint(endpoint)
        .with_descriptor(descriptor))
}

/// The schema of a command's result, or of what `DoPut` to a path takes.
pub(super) async fn schema_result(
    caller: &Caller,
    handles: &Handles,
    descriptor: FlightDescriptor,
) -> Result<SchemaResult> {
    let schema = match descriptor.path.as_slice() {
        [] => match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                let (description, _) = plan(caller, handles, &query).await?;
                result_schema(&description)
            }
            Command::CommandPreparedStatementQuery(query) => {
                let prepared = handles.prepared(caller, &query.prepared_statement_handle)?;
                result_schema(&prepared.description)
            }
            other => metadata::schema(&other)?,
        },
        [schema, table] => caller.session.ingest_table(schema, table).await?.columns,
        _ => return Err(malformed("a path is [schema, table]")),
    };
    let options = IpcWriteOptions::default();
    Ok(SchemaResult::try_from(SchemaAsIpc::new(&schema, &options))?)
}

/// Reads the command in a descriptor or ticket.
pub(super) fn command(bytes: &Bytes) -> Result<Command> {
    let any = Any::decode(bytes.clone())
        .map_err(|e| malformed("the command is malformed").with_detail(e.to_string()))?;
    Command::try_from(any)
        .map_err(|e| malformed("the command is malformed").with_detail(e.to_string()))
}

async fn plan(
    caller: &Caller,
    handles: &Handles,
    query: &CommandStatementQuery,
) -> Result<(Description, Planned)> {
    let caller = transactions::within(caller, handles, query.transaction_id.as_ref())?;
    let statement = only_statement(&*caller.session, &query.query)?;
    let description = caller.session.describe(&statement, &[]).await?;
    let planned = Planned {
        role: caller.role.clone(),
        session: Arc::clone(&caller.session),
        statement,
        params: Vec::new(),
    };
    Ok((description, planned))
}

/// A statement without rows has a schema without columns.
fn result_schema(description: &Description) -> SchemaRef {
    match &description.schema {
        Some(schema) => plain_schema(schema),
        None => Arc::new(Schema::empty()),
    }
}

fn ticket(statement_handle: Bytes) -> Bytes {
    TicketStatementQuery { statement_handle }
        .as_any()
        .encode_to_vec()
        .into()
}
