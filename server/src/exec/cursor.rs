//! `DECLARE … CURSOR FOR query`, `FETCH`, `CLOSE`: a result read a few rows at a time.
//!
//! The query runs at the cut of its `DECLARE`, only as far ahead as its rows are fetched. Cursors move
//! forward only.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::{
    CloseCursor, Declare, DeclareType, FetchDirection, Ident, Value, ValueWithSpan,
};

use super::{Outcome, Run, query, rows};
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::error::{Error, Result, SqlState};
use crate::session::TransactionStatus;
use crate::session::cursors::Cursor;

/// Opens a cursor.
pub(super) async fn declare(run: &Run, declared: &[Declare]) -> Result<Outcome> {
    let session = run.session()?;
    let [declare] = declared else {
        return Err(not_a_cursor());
    };
    let Declare {
        names,
        data_type,
        assignment,
        declare_type,
        binary,
        sensitive: _, // a cut never changes: every cursor is insensitive
        scroll,
        hold,
        for_query,
    } = declare;
    let (Some(DeclareType::Cursor), [name], Some(source), None, None) = (
        declare_type,
        names.as_slice(),
        for_query,
        data_type,
        assignment,
    ) else {
        return Err(not_a_cursor());
    };
    clause(
        *binary == Some(true),
        "DECLARE … BINARY CURSOR",
        "ask for binary results when fetching",
    )?;
    clause(
        *scroll == Some(true),
        "DECLARE … SCROLL CURSOR",
        "cursors move forward only; declare another one to start again",
    )?;
    let hold = *hold == Some(true);
    if !hold && session.transaction_status() == TransactionStatus::Idle {
        return Err(Error::refused(
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "DECLARE CURSOR can only be used in transaction blocks",
        )
        .with_hint("use BEGIN first, or DECLARE … CURSOR WITH HOLD"));
    }
    // each FETCH has a deadline and a cancel of its own
    let lasting = Run {
        deadline: None,
        cancel: run.scope.engine.stop.child_token(),
        ..run.clone()
    };
    let Outcome::Rows { schema, stream, .. } = query::execute(&lasting, source).await? else {
        return Err(Error::Internal("a query gave no rows".to_owned()));
    };
    let cursor = Cursor::new(schema, stream, hold);
    session.with_named(|named| named.declare(&fold(name), cursor))?;
    Outcome::command("DECLARE CURSOR")
}

fn not_a_cursor() -> Error {
    Error::unsupported(
        "this form of DECLARE is not supported",
        "use DECLARE name CURSOR FOR query",
    )
}

/// Columns of a cursor's rows.
pub(super) fn schema(run: &Run, name: &Ident) -> Result<SchemaRef> {
    let cursor = run
        .session()?
        .with_named(|named| named.cursor(&fold(name)))?;
    Ok(Arc::clone(&cursor.schema))
}

/// The next rows of a cursor, as a stream that ends with the statement's cancel and deadline.
pub(super) fn fetch(run: &Run, name: &Ident, direction: &FetchDirection) -> Result<Outcome> {
    let cursor = run
        .session()?
        .with_named(|named| named.cursor(&fold(name)))?;
    let wanted = forward(direction)?;
    let schema = Arc::clone(&cursor.schema);
    let batches = futures::stream::try_unfold((cursor, wanted), |(cursor, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let batch = cursor.next(left).await.map_err(DataFusionError::from)?;
        Ok(batch.map(|batch| {
            let left = left.saturating_sub(batch.num_rows() as u64);
            (batch, (cursor, left))
        }))
    });
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
    Ok(Outcome::Rows {
        tag: "FETCH",
        schema,
        stream: rows::guarded(run, stream),
    })
}

/// How many rows forward.
fn forward(direction: &FetchDirection) -> Result<u64> {
    let count = |limit: &ValueWithSpan| match &limit.value {
        Value::Number(digits, _) => digits.parse::<u64>().ok().filter(|n| *n > 0),
        _ => None,
    };
    let rows = match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Some(1),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => {
            count(limit)
        }
        FetchDirection::All | FetchDirection::ForwardAll => Some(u64::MAX),
        _ => None,
    };
    rows.ok_or_else(|| {
        Error::refused(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "cursor can only scan forward",
        )
        .with_hint("use FETCH n, FETCH NEXT or FETCH ALL")
    })
}

/// Ends a cursor, or all of them.
pub(super) fn close(run: &Run, cursor: &CloseCursor) -> Result<Outcome> {
    let session = run.session()?;
    match cursor {
        CloseCursor::All => session.with_named(|named| named.close_all()),
        CloseCursor::Specific { name } => session.with_named(|named| named.close(&fold(name)))?,
    }
    Outcome::command("CLOSE CURSOR")
}
