//! The [`Store`] trait: durable catalog transactions, and the backends that keep them.
//!
//! | module | what lies there |
//! |---|---|
//! | `sql` | the one implementation of [`Store`], over any SQL backend |
//! | `apply`, `rows` | changes → statements, rows → model |
//! | `driver` | what a backend must offer: transactions over integers and texts |
//! | `sqlite`, `postgres` | the backends |
//! | `migrations` | the forward-only schema, embedded |
//! | [`audit_chain`] | the hash chain over audit rows |

mod apply;
pub mod audit_chain;
mod driver;
mod migrations;
mod postgres;
mod rows;
mod sql;
mod sqlite;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use postgres::PostgresStore;
pub use sql::SqlStore;
pub use sqlite::SqliteStore;

use crate::{AuditRow, CatalogError, Change, LineageEdge, Oid, Snapshot};

/// A durable catalog. One conformance suite holds every backend to the same behaviour.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The newest committed state.
    async fn load(&self) -> Result<Arc<Snapshot>, CatalogError>;

    /// A fresh object id, never given out before, also over restarts.
    async fn allocate_oid(&self) -> Result<Oid, CatalogError>;

    /// Applies all changes in one transaction and returns the state read back inside it.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, `ConcurrentModification`, `DependentObjects`: nothing was applied.
    async fn commit(&self, changes: Vec<Change>) -> Result<Arc<Snapshot>, CatalogError>;

    /// Appends audit rows in order, filling `seq`, `prev_hash` and `hash`; durable on return.
    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), CatalogError>;

    /// Audit rows with `seq > after`, at most `limit`, in order.
    async fn audit(&self, after: i64, limit: i64) -> Result<Vec<AuditRow>, CatalogError>;

    /// All lineage edges.
    async fn lineage(&self) -> Result<Vec<LineageEdge>, CatalogError>;

    /// Closes connections; the store is not used afterwards.
    async fn close(&self);
}

/// Opens the catalog at a `postgres://` URL or, for anything else, in the SQLite file of that path,
/// and brings its schema up to date.
///
/// # Errors
/// `Store` when it cannot be reached, `Migration` when its schema is newer than this program or was
/// tampered with.
pub async fn open(location: &str) -> Result<Arc<dyn Store>, CatalogError> {
    if location.starts_with("postgres://") || location.starts_with("postgresql://") {
        return Ok(Arc::new(PostgresStore::open(location).await?));
    }
    let path = location.strip_prefix("sqlite://").unwrap_or(location);
    Ok(Arc::new(SqliteStore::open(Path::new(path)).await?))
}
