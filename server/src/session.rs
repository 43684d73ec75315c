//! One connection, whatever its door: role, settings, transaction, cancel. Every statement of every
//! door goes through [`Session::parse`], [`Session::describe`] and [`Session::execute`].

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;

use crate::dialect::Statement;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::exec::Outcome;

/// Which door a session came in by; recorded in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// PostgreSQL protocol.
    Pg,
    /// Arrow Flight SQL.
    Flight,
    /// HTTP.
    Http,
    /// The server itself.
    System,
}

/// What a statement takes and gives, without running it.
#[derive(Debug, Clone)]
pub struct Description {
    /// Types of `$1`, `$2`, …; text where nothing decides.
    pub params: Vec<DataType>,
    /// Columns of the result; `None` when the statement returns no rows.
    pub schema: Option<SchemaRef>,
}

/// Where a transaction stands, as ReadyForQuery reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction block.
    Idle,
    /// Inside one.
    Open,
    /// Inside one that failed: only ROLLBACK is taken.
    Failed,
}

/// What an ingest call did.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Rows stored by this call.
    pub accepted: u64,
    /// The commit token: `SET weir.read_after` waits for it.
    pub token: String,
}

/// One connection. Doors share it behind an `Arc`; statements of one session run one at a time.
#[derive(Debug)]
pub struct Session {
    cancel: CancellationToken,
}

impl Session {
    /// Opens a session for a role that a door has authenticated. Refuses a role that may not log in.
    pub fn open(engine: &Arc<Engine>, role: &str, door: Door) -> Result<Arc<Self>> {
        let _ = (engine, role, door);
        Err(Error::Internal("skeleton".to_owned()))
    }

    /// Splits and parses a text once; `;`-separated statements in order, none for blank text.
    pub fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        let _ = sql;
        Err(Error::Internal("skeleton".to_owned()))
    }

    /// Parameter and result types. `hints` are the types the client declared (`None`: undeclared).
    pub async fn describe(
        &self,
        statement: &Arc<Statement>,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        let _ = (statement, hints);
        std::future::ready(Err(Error::Internal("skeleton".to_owned()))).await
    }

    /// Runs one statement. Rows stream; the statement's deadline and cancel also hold while they do.
    pub async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        let _ = (statement, params);
        std::future::ready(Err(Error::Internal("skeleton".to_owned()))).await
    }

    /// Stores rows in `schema.table` by column name: privileges, casts, defaults, generated columns
    /// and constraints as for INSERT. Durable and visible on return.
    pub async fn ingest(
        &self,
        schema: &str,
        table: &str,
        batches: Vec<RecordBatch>,
    ) -> Result<Receipt> {
        let _ = (schema, table, batches);
        std::future::ready(Err(Error::Internal("skeleton".to_owned()))).await
    }

    /// Columns that [`Session::ingest`] takes for that table (checks INSERT privilege), so a door can
    /// decode text straight into the right types.
    pub async fn ingest_schema(&self, schema: &str, table: &str) -> Result<SchemaRef> {
        let _ = (schema, table);
        std::future::ready(Err(Error::Internal("skeleton".to_owned()))).await
    }

    /// Where the transaction stands.
    pub fn transaction_status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    /// A setting's value as `SHOW` prints it: `TimeZone`, `DateStyle`, `extra_float_digits`, …
    pub fn setting(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// Sets a setting from the startup packet; the same rules as `SET`.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let _ = (name, value);
        Ok(())
    }

    /// Settings whose values the Postgres door must report and that changed since the last call.
    pub fn take_reported_changes(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Cancels the running statement, if any; the session goes on.
    pub fn cancel_running(&self) {
        self.cancel.cancel();
    }
}
