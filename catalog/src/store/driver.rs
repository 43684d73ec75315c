//! What a backend must offer: transactions over integers and texts. Knows no table.

use async_trait::async_trait;

use crate::{CatalogError, Oid};

/// A parameter or a field: the catalog's schema has no other types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `BIGINT`
    Int(Option<i64>),
    /// `TEXT`
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(Some(v))
    }
}

impl From<Option<i64>> for Value {
    fn from(v: Option<i64>) -> Self {
        Self::Int(v)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Int(Some(i64::from(v)))
    }
}

impl From<Oid> for Value {
    fn from(v: Oid) -> Self {
        Self::Int(Some(i64::from(v.0)))
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(Some(v.to_owned()))
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(Some(v))
    }
}

impl From<Option<String>> for Value {
    fn from(v: Option<String>) -> Self {
        Self::Text(v)
    }
}

/// One result row, read field by field from the left.
#[derive(Debug)]
pub(super) struct Row {
    fields: std::vec::IntoIter<Value>,
    what: &'static str,
}

impl Row {
    /// A row of the table called `what` in messages.
    pub(super) fn new(fields: Vec<Value>, what: &'static str) -> Self {
        Self {
            fields: fields.into_iter(),
            what,
        }
    }

    /// The error of a field that does not read.
    pub(super) fn corrupt(&self) -> CatalogError {
        CatalogError::Corrupt { what: self.what }
    }

    /// The next field, an integer.
    pub(super) fn int(&mut self) -> Result<i64, CatalogError> {
        self.opt_int()?.ok_or_else(|| self.corrupt())
    }

    /// The next field, an integer or NULL.
    pub(super) fn opt_int(&mut self) -> Result<Option<i64>, CatalogError> {
        match self.fields.next() {
            Some(Value::Int(v)) => Ok(v),
            Some(Value::Text(None)) => Ok(None),
            Some(Value::Text(Some(_))) | None => Err(self.corrupt()),
        }
    }

    /// The next field, a text.
    pub(super) fn text(&mut self) -> Result<String, CatalogError> {
        self.opt_text()?.ok_or_else(|| self.corrupt())
    }

    /// The next field, a text or NULL.
    pub(super) fn opt_text(&mut self) -> Result<Option<String>, CatalogError> {
        match self.fields.next() {
            Some(Value::Text(v)) => Ok(v),
            Some(Value::Int(None)) => Ok(None),
            Some(Value::Int(Some(_))) | None => Err(self.corrupt()),
        }
    }

    /// The next field, an object id.
    pub(super) fn oid(&mut self) -> Result<Oid, CatalogError> {
        let v = self.int()?;
        u32::try_from(v).map(Oid).map_err(|_| self.corrupt())
    }

    /// The next field, a truth value.
    pub(super) fn bool(&mut self) -> Result<bool, CatalogError> {
        Ok(self.int()? != 0)
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads one consistent state.
    Read,
    /// Writes; may wait for other writers.
    Write,
}

/// An open transaction. Dropped without [`Tx::commit`] it is rolled back.
#[async_trait]
pub trait Tx: Send {
    /// Runs a statement and gives the number of rows it touched.
    async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, sqlx::Error>;

    /// Runs a query and gives its rows.
    async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Vec<Value>>, sqlx::Error>;

    /// Makes it durable.
    async fn commit(self: Box<Self>) -> Result<(), sqlx::Error>;
}

/// A database that understands `$1` placeholders, `ON CONFLICT DO NOTHING` and `RETURNING`.
#[async_trait]
pub trait Driver: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a transaction.
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Tx>, sqlx::Error>;

    /// Closes all connections.
    async fn close(&self);
}
