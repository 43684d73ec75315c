//! The head: everything a statement may see, in one pointer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::Oid;

use crate::lake::LakeSnapshot;

/// Position in the log. Every accepted row of a streaming table has one; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub i64);

/// One cut of the database: a statement loads it once and sees nothing else.
#[derive(Debug, Clone, Default)]
pub struct DbHead {
    /// Every row at or below it is in `tables`; none above it is.
    pub visible: Lsn,
    /// Ordinary and streaming tables.
    pub tables: HashMap<Oid, Arc<TableHead>>,
    /// State of materialized views.
    pub views: HashMap<Oid, Arc<ViewHead>>,
}

/// One table at a cut: rows with `_lsn <= flushed` are in `lake`, the others in `tail`.
#[derive(Debug, Clone)]
pub struct TableHead {
    /// The catalog's id of the table.
    pub oid: Oid,
    /// Takes rows through the log (and has `_lsn`), or is plain Delta.
    pub streaming: bool,
    /// The visible columns, without `_lsn`.
    pub schema: SchemaRef,
    /// What is in storage.
    pub lake: Arc<LakeSnapshot>,
    /// Highest LSN that `lake` holds.
    pub flushed: Lsn,
    /// Accepted and durable, not yet in `lake`; ascending.
    pub tail: Vec<TailBatch>,
}

/// Rows in memory, `_lsn` first and ascending within `lo..=hi`. There are gaps where other tables'
/// rows lie: small batches are merged.
#[derive(Debug, Clone)]
pub struct TailBatch {
    /// First row's position.
    pub lo: Lsn,
    /// Last row's position.
    pub hi: Lsn,
    /// The rows, in the stored schema.
    pub batch: RecordBatch,
}

/// The kept state of a materialized view at a cut.
#[derive(Debug, Clone)]
pub struct ViewHead {
    /// The state table (runs of partial states, or result rows).
    pub state: Arc<LakeSnapshot>,
    /// Source rows with `_lsn <= durable` are in `state`.
    pub durable: Lsn,
}
