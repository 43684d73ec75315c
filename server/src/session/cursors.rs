//! A session's cursors and its statements prepared in SQL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};

/// Cursors, and prepared statements, that a session may hold: each pins what it reads.
const LIMIT: usize = 256;

/// A query that is read a few rows at a time, all at the cut of its `DECLARE`.
pub struct Cursor {
    /// The query's columns.
    pub schema: SchemaRef,
    /// Outlives its transaction block.
    pub hold: bool,
    rows: tokio::sync::Mutex<Rows>,
}

struct Rows {
    stream: SendableRecordBatchStream,
    /// Read from the stream and not yet fetched.
    rest: Option<RecordBatch>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}

impl Cursor {
    /// A cursor before the first row.
    pub fn new(schema: SchemaRef, stream: SendableRecordBatchStream, hold: bool) -> Self {
        let rows = tokio::sync::Mutex::new(Rows { stream, rest: None });
        Self { schema, hold, rows }
    }

    /// The next rows, at most so many; `None` at the end. Dropping the future loses no row.
    ///
    /// # Errors
    /// What the query reports.
    pub async fn next(&self, most: u64) -> Result<Option<RecordBatch>> {
        let mut rows = self.rows.lock().await;
        let batch = loop {
            let batch = match rows.rest.take() {
                Some(rest) => rest,
                None => match rows.stream.next().await {
                    Some(batch) => batch?,
                    None => return Ok(None),
                },
            };
            if batch.num_rows() > 0 {
                break batch;
            }
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if batch.num_rows() <= most {
            return Ok(Some(batch));
        }
        rows.rest = Some(batch.slice(most, batch.num_rows() - most));
        Ok(Some(batch.slice(0, most)))
    }
}

/// A statement prepared in SQL.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What it says.
    pub statement: Arc<Statement>,
    /// Types of its parameters.
    pub params: Vec<DataType>,
    /// Columns of its result.
    pub schema: Option<SchemaRef>,
}

/// Everything a session has given a name.
#[derive(Debug, Default)]
pub struct Named {
    cursors: HashMap<String, Arc<Cursor>>,
    prepared: HashMap<String, Prepared>,
}

impl Named {
    /// Adds a cursor.
    ///
    /// # Errors
    /// 42P03 when there is one of that name, 53400 when there are too many.
    pub fn declare(&mut self, name: &str, cursor: Cursor) -> Result<()> {
        let taken = self.cursors.contains_key(name);
        check(taken, "42P03", "cursor", name, self.cursors.len())?;
        self.cursors.insert(name.to_owned(), Arc::new(cursor));
        Ok(())
    }

    /// A cursor.
    ///
    /// # Errors
    /// 34000.
    pub fn cursor(&self, name: &str) -> Result<Arc<Cursor>> {
        self.cursors
            .get(name)
            .cloned()
            .ok_or_else(|| no_cursor(name))
    }

    /// Ends a cursor.
    ///
    /// # Errors
    /// 34000.
    pub fn close(&mut self, name: &str) -> Result<()> {
        match self.cursors.remove(name) {
            Some(_) => Ok(()),
            None => Err(no_cursor(name)),
        }
    }

    /// Ends all cursors.
    pub fn close_all(&mut self) {
        self.cursors.clear();
    }

    /// Ends the cursors that live no longer than their transaction block.
    pub fn end_transaction(&mut self) {
        self.cursors.retain(|_, cursor| cursor.hold);
    }

    /// Adds a prepared statement.
    ///
    /// # Errors
    /// 42P05 when there is one of that name, 53400 when there are too many.
    pub fn prepare(&mut self, name: &str, prepared: Prepared) -> Result<()> {
        let taken = self.prepared.contains_key(name);
        check(
            taken,
            "42P05",
            "prepared statement",
            name,
            self.prepared.len(),
        )?;
        self.prepared.insert(name.to_owned(), prepared);
        Ok(())
    }

    /// A prepared statement.
    ///
    /// # Errors
    /// 26000.
    pub fn prepared(&self, name: &str) -> Result<Prepared> {
        self.prepared
            .get(name)
            .cloned()
            .ok_or_else(|| no_statement(name))
    }

    /// Forgets a prepared statement.
    ///
    /// # Errors
    /// 26000.
    pub fn deallocate(&mut self, name: &str) -> Result<()> {
        match self.prepared.remove(name) {
            Some(_) => Ok(()),
            None => Err(no_statement(name)),
        }
    }

    /// Forgets all prepared statements.
    pub fn deallocate_all(&mut self) {
        self.prepared.clear();
    }
}

fn check(taken: bool, code: &'static str, kind: &str, name: &str, count: usize) -> Result<()> {
    if taken {
        return Err(Error::refused(
            SqlState(code),
            format!("{kind} \"{name}\" already exists"),
        ));
    }
    if count >= LIMIT {
        return Err(Error::refused(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            format!("a session has at most {LIMIT} of: {kind}"),
        ));
    }
    Ok(())
}

fn no_cursor(name: &str) -> Error {
    Error::refused(
        SqlState::INVALID_CURSOR_NAME,
        format!("cursor \"{name}\" does not exist"),
    )
}

fn no_statement(name: &str) -> Error {
    Error::refused(
        SqlState::INVALID_SQL_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}
