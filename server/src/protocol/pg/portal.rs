//! Prepared statements and portals of the extended protocol.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;

use super::params::Param;
use super::rows::{Formats, Rows};
use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};
use crate::values::PgType;

/// Statements, and portals, that a connection may keep at a time.
const LIMIT: usize = 10_000;

/// A parsed statement.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `None` for a blank text.
    pub(super) statement: Option<Arc<Statement>>,
    pub(super) params: Vec<Param>,
    pub(super) schema: Option<SchemaRef>,
}

/// A statement with its parameters, perhaps running.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    pub(super) formats: Formats,
    pub(super) state: State,
}

pub(super) enum State {
    /// Not run yet.
    Ready(Vec<ScalarValue>),
    /// Some rows are sent, the stream is open.
    Running(Box<Rows>),
    /// All rows are sent; the tag's word.
    Drained(&'static str),
    /// Ran, and cannot run again.
    Done,
}

/// Named things of one kind; the empty name is overwritten, others must be new.
pub(super) struct Named<T> {
    kind: &'static str,
    duplicate: SqlState,
    missing: SqlState,
    items: HashMap<String, T>,
}

impl<T> Named<T> {
    pub(super) fn get(&self, name: &str) -> Result<&T> {
        self.items.get(name).ok_or_else(|| self.none(name))
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Result<&mut T> {
        if !self.items.contains_key(name) {
            return Err(self.none(name));
        }
        self.items
            .get_mut(name)
            .ok_or_else(|| Error::Internal(format!("a {} vanished", self.kind)))
    }

    fn none(&self, name: &str) -> Error {
        Error::refused(
            self.missing,
            format!("{} \"{name}\" does not exist", self.kind),
        )
    }

    /// Refuses a name that is taken.
    pub(super) fn check_new(&self, name: &str) -> Result<()> {
        if !name.is_empty() && self.items.contains_key(name) {
            return Err(Error::refused(
                self.duplicate,
                format!("{} \"{name}\" already exists", self.kind),
            ));
        }
        if self.items.len() >= LIMIT {
            return Err(Error::refused(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("a connection cannot keep more than {LIMIT} {}s", self.kind),
            ));
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, name: String, item: T) {
        self.items.insert(name, item);
    }

    /// Forgets it; a name that is not there is fine.
    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        self.items.remove(name)
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
    }
}

pub(super) fn statements() -> Named<Arc<Prepared>> {
    Named {
        kind: "prepared statement",
        duplicate: SqlState("42P05"),
        missing: SqlState::INVALID_SQL_STATEMENT_NAME,
        items: HashMap::new(),
    }
}

pub(super) fn portals() -> Named<Portal> {
    Named {
        kind: "portal",
        duplicate: SqlState("42P03"),
        missing: SqlState::INVALID_CURSOR_NAME,
        items: HashMap::new(),
    }
}

/// Refuses a result that is not what the client was told: the table changed in between.
pub(super) fn same_result(described: Option<&Schema>, actual: &Schema) -> Result<()> {
    let types = |schema: &Schema| -> Vec<u32> {
        schema.fields().iter().map(|f| PgType::of(f).oid).collect()
    };
    match described {
        Some(described) if types(described) == types(actual) => Ok(()),
        _ => Err(Error::refused(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cached plan must not change result type",
        )
        .with_hint("prepare the statement again")),
    }
}
