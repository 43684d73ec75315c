//! What a transaction block has changed and nobody else sees until it ends: rows of INSERTs, and ordinary
//! tables that were written anew.
//!
//! Rows stay in memory, up to [`MOST_BYTES`]; the session reads them as the newest part of the table's tail.
//! A table that was written anew is a list of files beside the table's own, which no commit names yet. How
//! either is stored is decided in `exec`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::{LineageEdge, Relation};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use deltalake::kernel::Add;

use crate::error::{Error, Result, SqlState};
use crate::lake::LakeSnapshot;
use crate::stream::Writing;
use crate::stream::head::{DbHead, Lsn, TailBatch};
use crate::types::LSN;

/// What a session holds at most. A block is for a few rows; for many there are COPY and one INSERT.
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// Small INSERTs are put together up to so many rows.
const TOGETHER: usize = 1024;

/// What one INSERT brought.
#[derive(Debug)]
pub(crate) struct HeldInsert {
    /// Its table, as it was.
    pub(crate) relation: Relation,
    /// In the table's columns, casts and constraints behind them.
    pub(crate) rows: Vec<RecordBatch>,
    /// What they were made from.
    pub(crate) lineage: Vec<LineageEdge>,
}

/// What an UPDATE, DELETE, MERGE or TRUNCATE made of a table.
#[derive(Debug)]
pub(crate) struct HeldRewrite {
    /// The table, as it was.
    pub(crate) relation: Relation,
    /// The stored version that it was made from: nothing may have been committed since.
    pub(crate) base: i64,
    /// All files of the new state.
    pub(crate) adds: Vec<Add>,
    /// The table with these files.
    pub(crate) lake: Arc<LakeSnapshot>,
    /// Keeps a vacuum from them.
    pub(crate) writing: Writing,
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    /// Rows beside those before.
    Insert(HeldInsert),
    /// In the place of all rows before, those held among them.
    Rewrite(HeldRewrite),
}

/// Held changes in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Held {
    changes: Vec<Change>,
    /// Those before the newest savepoint: they stay as they are.
    sealed: usize,
    /// Of the engine's memory for queries.
    memory: Option<MemoryReservation>,
}

impl HeldInsert {
    /// Whether so few rows of the same table come next that one batch is better.
    fn takes(&self, next: &Self) -> bool {
        let rows = |insert: &Self| insert.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        self.relation.oid == next.relation.oid
            && self.relation.columns == next.relation.columns
            && self.lineage == next.lineage
            && rows(self) + rows(next) <= TOGETHER
    }

    fn extend(&mut self, next: Self) -> Result<()> {
        self.rows.extend(next.rows);
        if let Some(schema) = self.rows.first().map(RecordBatch::schema) {
            self.rows = vec![concat_batches(&schema, &self.rows)?];
        }
        Ok(())
    }
}

/// The refusal of more rows than a block may hold.
pub(crate) fn too_much() -> Error {
    let most = MOST_BYTES >> 20;
    Error::refused(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("a transaction block holds at most {most} MiB of new rows"),
    )
    .with_hint("commit more often, or bring the rows by COPY or by one INSERT of their own")
}

/// Memory of rows.
pub(crate) fn bytes(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::get_array_memory_size).sum()
}

impl Held {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// A savepoint: where [`Self::truncate`] goes back to.
    pub(crate) fn seal(&mut self) -> usize {
        self.sealed = self.changes.len();
        self.sealed
    }

    /// Holds what an INSERT brought.
    ///
    /// # Errors
    /// 54000 for more than a block may hold, 53200 for more than there is memory.
    pub(crate) fn add(&mut self, insert: HeldInsert, pool: &Arc<dyn MemoryPool>) -> Result<()> {
        let memory = self
            .memory
            .get_or_insert_with(|| MemoryConsumer::new("transaction block").register(pool));
        let more = bytes(&insert.rows);
        if memory.size().saturating_add(more) > MOST_BYTES {
            return Err(too_much());
        }
        memory.try_grow(more)?;
        let sealed = self.changes.len() <= self.sealed;
        match self.changes.last_mut().filter(|_| !sealed) {
            Some(Change::Insert(last)) if last.takes(&insert) => last.extend(insert)?,
            _ => self.changes.push(Change::Insert(insert)),
        }
        self.fit();
        Ok(())
    }

    /// Holds what a table was made into.
    pub(crate) fn replace(&mut self, rewrite: HeldRewrite) {
        self.changes.push(Change::Rewrite(rewrite));
    }

    /// Forgets those after a savepoint.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.changes.truncate(len);
        self.sealed = self.changes.len();
        self.fit();
    }

    fn fit(&mut self) {
        let rows = |change: &Change| match change {
            Change::Insert(insert) => bytes(&insert.rows),
            Change::Rewrite(_) => 0,
        };
        let all = self.changes.iter().map(rows).sum();
        if let Some(memory) = &mut self.memory {
            // never more than was reserved: rows put together take less
            let _ = memory.try_resize(all);
        }
    }

    /// All, to be stored.
    pub(crate) fn take(&mut self) -> Vec<Change> {
        std::mem::take(self).changes
    }

    /// A head as the block sees it.
    pub(crate) fn over(&self, head: &DbHead) -> Result<DbHead> {
        let mut head = head.clone();
        for change in &self.changes {
            let oid = match change {
                Change::Insert(insert) => insert.relation.oid,
                Change::Rewrite(rewrite) => rewrite.relation.oid,
            };
            // one that was dropped meanwhile: reads say so, and so does the end of the block
            let Some(table) = head.tables.get_mut(&oid) else {
                continue;
            };
            let table = Arc::make_mut(table);
            match change {
                Change::Insert(insert) => {
                    for rows in &insert.rows {
                        let part = behind(head.visible, rows, &table.lake.schema)?;
                        head.visible = part.hi;
                        table.tail.push(Arc::new(part));
                    }
                }
                Change::Rewrite(rewrite) => {
                    table.lake = Arc::clone(&rewrite.lake);
                    table.tail.clear();
                }
            }
        }
        Ok(head)
    }
}

/// Rows at the positions after the newest one; with these where the table stores them.
fn behind(newest: Lsn, rows: &RecordBatch, stored: &SchemaRef) -> Result<TailBatch> {
    let count = i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
    let (lo, hi) = (Lsn(newest.0 + 1), Lsn(newest.0 + count));
    let batch = match stored.fields().first().filter(|f| f.name() == LSN) {
        None => rows.clone(),
        Some(lsn) => {
            let positions: ArrayRef = Arc::new(Int64Array::from_iter_values(lo.0..=hi.0));
            let fields = std::iter::once(lsn).chain(rows.schema_ref().fields());
            let schema = Schema::new(fields.cloned().collect::<Vec<_>>());
            let columns = std::iter::once(positions).chain(rows.columns().iter().cloned());
            RecordBatch::try_new(Arc::new(schema), columns.collect())?
        }
    };
    Ok(TailBatch { lo, hi, batch })
}
