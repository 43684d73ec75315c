//! The head: everything a statement may see, in one pointer.

use std::collections::{BTreeMap, HashMap};
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
    /// How often stored rows of a streaming table were changed (UPDATE, DELETE, MERGE, TRUNCATE).
    pub changes: i64,
    /// What upkeep did to its stored files.
    pub upkeep: Upkeep,
    /// Accepted and durable, not yet in `lake`; ascending. Every group of rows makes a new head with the
    /// batches of the one before, so they are shared.
    pub tail: Vec<Arc<TailBatch>>,
}

/// How often stored files of a table were exchanged without a statement that changes rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// By files with the same rows.
    pub rewrites: i64,
    /// By files without the rows whose retention was over.
    pub drops: i64,
}

impl TableHead {
    /// The newest position it holds.
    pub fn newest(&self) -> Lsn {
        self.tail
            .last()
            .map_or(self.flushed, |t| t.hi.max(self.flushed))
    }

    /// Differs between two heads of the table if anything but appended rows of the log differs.
    pub fn epoch(&self) -> i64 {
        if self.streaming {
            self.changes
        } else {
            // the same rows in other files are no other rows
            self.lake.version - self.upkeep.rewrites
        }
    }
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
    /// [`TableHead::epoch`] of each table that `state` was made from.
    pub epochs: BTreeMap<Oid, i64>,
    /// [`Upkeep::drops`] of each table when `state` was last made from all its rows.
    pub drops: BTreeMap<Oid, i64>,
    /// What its retention has left.
    pub floor: Floor,
    /// Number of the last commit of `state`; the next one is made over it or not at all.
    pub run: i64,
    /// When that commit was made, in microseconds since the Unix epoch.
    pub refreshed_at: Option<i64>,
}

/// From where on a view with a retention keeps results. It only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// Results of before are not shown, and their state may be gone; microseconds since the Unix epoch.
    pub at: Option<i64>,
    /// Source rows up to here were counted whatever their time; later ones may be too late.
    pub from: Lsn,
    /// How many were.
    pub late: i64,
}

impl ViewHead {
    /// True when the tables have these epochs still: no row that `state` counted was changed.
    pub fn is_of(&self, sources: &[Oid], head: &DbHead) -> bool {
        sources.iter().all(|oid| {
            let kept = self.epochs.get(oid).copied().unwrap_or(0);
            head.tables.get(oid).is_some_and(|t| t.epoch() == kept)
        })
    }

    /// A table whose retention has dropped rows that `state` counts: made anew, it would lose them.
    pub fn holds_dropped_rows_of(&self, sources: &[Oid], head: &DbHead) -> Option<Oid> {
        let made_before = |oid: &Oid| {
            let then = self.drops.get(oid).copied().unwrap_or(0);
            head.tables.get(oid).is_some_and(|t| t.upkeep.drops > then)
        };
        // a state that was never made holds nothing
        let made = self.refreshed_at.is_some();
        sources.iter().copied().filter(|_| made).find(made_before)
    }
}
