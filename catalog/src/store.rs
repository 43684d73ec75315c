//! The [`Store`] trait: durable catalog transactions.

use std::sync::Arc;

use async_trait::async_trait;

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
