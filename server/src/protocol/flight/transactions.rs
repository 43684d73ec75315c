//! `BeginTransaction` and `EndTransaction`: a block on a session of its own, under a handle.
//!
//! What a block means is said at [`crate::session::transaction`]; a handle that is not used for ten minutes
//! is gone, and what its block held with it.

use std::sync::Arc;

use arrow_flight::sql::EndTransaction;
use arrow_flight::sql::{
    ActionBeginTransactionResult, ActionEndTransactionRequest, Any, ProstMessageExt,
};
use bytes::Bytes;
use prost::Message;

use super::handles::Handles;
use super::query::{only_statement, update};
use super::status::malformed;
use crate::error::{Error, Result, SqlState};
use crate::protocol::backend::DataCalls;
use crate::protocol::credentials::Caller;

/// Begins a block; the answer with its handle.
pub(super) async fn begin(caller: &Caller, handles: &Handles) -> Result<Bytes> {
    let session = caller.session.sibling()?;
    run(&session, "BEGIN").await?;
    let transaction_id = handles.begin(Caller {
        role: caller.role.clone(),
        session,
        lasting: true,
    })?;
    let result = ActionBeginTransactionResult { transaction_id };
    let any = Any {
        type_url: ActionBeginTransactionResult::type_url().to_owned(),
        value: result.encode_to_vec().into(),
    };
    Ok(any.encode_to_vec().into())
}

/// Ends a block as the client wishes. The handle is gone whatever comes of it.
pub(super) async fn end(
    caller: &Caller,
    handles: &Handles,
    request: &ActionEndTransactionRequest,
) -> Result<()> {
    let how = match request.action() {
        EndTransaction::Commit => "COMMIT",
        EndTransaction::Rollback => "ROLLBACK",
        EndTransaction::Unspecified => {
            return Err(malformed("a transaction ends with COMMIT or ROLLBACK"));
        }
    };
    let block = handles.end(caller, &request.transaction_id);
    run(&block.ok_or_else(missing)?.session, how).await
}

/// The caller as a statement's transaction has it: on the session of that block.
pub(super) fn within(caller: &Caller, handles: &Handles, id: Option<&Bytes>) -> Result<Caller> {
    match id {
        Some(id) if !id.is_empty() => handles.within(caller, id).ok_or_else(missing),
        Some(_) | None => Ok(caller.clone()),
    }
}

async fn run(session: &Arc<dyn DataCalls>, sql: &str) -> Result<()> {
    let statement = only_statement(&**session, sql)?;
    update(&**session, &statement, Vec::new()).await.map(|_| ())
}

fn missing() -> Error {
    Error::refused(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        "the transaction does not exist",
    )
    .with_hint("it has ended, was not used for ten minutes, or belongs to another role")
}
