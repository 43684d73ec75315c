//! What a door asks of a session, as a trait: doors can be tested over canned answers.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;

use crate::dialect::Statement;
use crate::error::{Report, Result};
use crate::exec::Outcome;
use crate::session::{Description, Session, TransactionStatus};

/// The calls of [`Session`] that doors use; each forwards to the method of the same name, where the
/// contract stands.
#[async_trait]
pub trait SessionCalls: Send + Sync {
    /// Splits and parses a text.
    fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>>;
    /// Parameter and result types.
    async fn describe(
        &self,
        statement: &Arc<Statement>,
        hints: &[Option<DataType>],
    ) -> Result<Description>;
    /// Runs one statement.
    async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome>;
    /// Columns of a cursor declared in SQL.
    fn cursor_schema(&self, name: &str) -> Result<SchemaRef>;
    /// Where the transaction stands.
    fn transaction_status(&self) -> TransactionStatus;
    /// A setting's value.
    fn setting(&self, name: &str) -> Option<String>;
    /// Sets a setting.
    fn set(&self, name: &str, value: &str) -> Result<()>;
    /// Settings to report that changed since the last call.
    fn take_reported_changes(&self) -> Vec<(String, String)>;
    /// What is to be told besides the next answer.
    fn take_notices(&self) -> Vec<Report> {
        Vec::new()
    }
    /// A client begins to send in one go.
    fn begin_implicit(&self) {}
    /// It has sent all.
    async fn end_implicit(&self) -> Result<()> {
        Ok(())
    }
    /// It broke off.
    fn give_up_implicit(&self) {}
    /// Cancels the running statement.
    fn cancel_running(&self);
    /// Its number, told to the client.
    fn pid(&self) -> i32;
    /// Cancelled when somebody ends the session.
    fn ending(&self) -> CancellationToken {
        CancellationToken::new()
    }
}

#[async_trait]
impl SessionCalls for Session {
    fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        self.parse(sql)
    }

    async fn describe(
        &self,
        statement: &Arc<Statement>,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        self.describe(statement, hints).await
    }

    async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.execute(statement, params).await
    }

    fn cursor_schema(&self, name: &str) -> Result<SchemaRef> {
        self.cursor_schema(name)
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.transaction_status()
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.setting(name)
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        self.set(name, value)
    }

    fn take_reported_changes(&self) -> Vec<(String, String)> {
        self.take_reported_changes()
    }

    fn take_notices(&self) -> Vec<Report> {
        self.take_notices()
    }

    fn begin_implicit(&self) {
        self.begin_implicit();
    }

    async fn end_implicit(&self) -> Result<()> {
        self.end_implicit().await
    }

    fn give_up_implicit(&self) {
        self.give_up_implicit();
    }

    fn cancel_running(&self) {
        self.cancel_running();
    }

    fn pid(&self) -> i32 {
        self.pid()
    }

    fn ending(&self) -> CancellationToken {
        self.ending()
    }
}
