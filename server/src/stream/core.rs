//! What the log's writer and the committers share: the head and how it changes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use arrow::record_batch::RecordBatch;
use catalog::Oid;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::head::{DbHead, Lsn, TableHead, TailBatch, Upkeep, ViewHead};
use super::in_use::InUse;
use super::position::{Known, Positions};
use super::tail;
use crate::error::Result;
use crate::lake::{Compute, LakeSnapshot};

/// Tail memory is counted in these units.
const UNIT: usize = 1024;

/// Partitions with their next offsets, as far as they are known.
pub(super) type NextOffsets = Vec<(i32, Option<i64>)>;

/// Shared by everything that changes the head.
#[derive(Debug)]
pub(super) struct Core {
    head: ArcSwap<DbHead>,
    /// Held while a new head is made from the old one; what belongs to it but not into it.
    publishing: Mutex<HashMap<Oid, Pending>>,
    budget: Arc<Semaphore>,
    units: u32,
    /// Told when the tails take half of their memory.
    pub(super) pressure: Notify,
    /// Tables whose last flush in the background failed.
    pub(super) unflushable: AtomicUsize,
    pub(super) compute: Compute,
    /// Files that a vacuum must leave alone.
    pub(super) in_use: InUse,
}

/// What a table's log counts beside its versions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) changes: i64,
    pub(super) upkeep: Upkeep,
}

/// Bookkeeping of one table's tail.
#[derive(Debug, Default)]
struct Pending {
    /// Rows up to here are being flushed: their batches are not merged any more.
    barrier: Lsn,
    /// Memory taken by rows up to a position; given back when they are flushed.
    memory: VecDeque<(Lsn, OwnedSemaphorePermit)>,
    /// Where its source stands.
    source: Known,
}

/// Durable rows of one table, about to become visible.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) oid: Oid,
    pub(super) lo: Lsn,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// What a flush takes.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) lake: Arc<LakeSnapshot>,
    pub(super) flushed: Lsn,
    pub(super) tail: Vec<Arc<TailBatch>>,
    /// Positions of its source that belong to these rows, each with that of the record it came in.
    pub(super) marks: Vec<(Lsn, (String, i64))>,
}

impl Core {
    pub(super) fn new(tail_bytes: usize, compute: Compute) -> Self {
        let units = u32::try_from(tail_bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4);
        let units = units.clamp(1, u32::MAX >> 4);
        Self {
            head: ArcSwap::default(),
            publishing: Mutex::new(HashMap::new()),
            budget: Arc::new(Semaphore::new(units as usize)),
            units,
            pressure: Notify::new(),
            unflushable: AtomicUsize::new(0),
            compute,
            in_use: InUse::default(),
        }
    }

    pub(super) fn head(&self) -> Arc<DbHead> {
        self.head.load_full()
    }

    /// Waits for tail memory; one append may take all of it, never more.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.units);
        if self.budget.available_permits() < (self.units / 2) as usize + units as usize {
            self.pressure.notify_one();
        }
        Arc::clone(&self.budget)
            .acquire_many_owned(units)
            .await
            .ok()
    }

    /// Less than a quarter of the tails' memory is left: what has been let in by then fits.
    pub(super) fn is_almost_full(&self) -> bool {
        self.budget.available_permits() < (self.units / 4) as usize
    }

    /// As [`Self::reserve`] for rows that are there already: takes what is left, at once.
    pub(super) fn reserve_left(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let left = u32::try_from(self.budget.available_permits()).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.min(left);
        Arc::clone(&self.budget).try_acquire_many_owned(units).ok()
    }

    /// Makes durable rows visible, all in one swap, and takes in the positions of sources that came
    /// with them. Rows of a table dropped meanwhile are let go.
    pub(super) fn arrived(
        &self,
        rows: Vec<Arrived>,
        positions: Vec<(Positions, Lsn)>,
        visible: Lsn,
    ) -> Result<()> {
        let mut publishing = self.publishing();
        let mut head = DbHead::clone(&self.head.load());
        for (source, lsn) in positions {
            if head.tables.contains_key(&source.table) {
                let pending = publishing.entry(source.table).or_default();
                pending.source.arrived(&source, lsn);
            }
        }
        let mut changed: HashMap<Oid, TableHead> = HashMap::new();
        for part in rows {
            let table = match changed.entry(part.oid) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    match head.tables.get(&part.oid) {
                        Some(table) => entry.insert(TableHead::clone(table)),
                        None => continue,
                    }
                }
            };
            let pending = publishing.entry(part.oid).or_default();
            let mut lo = part.lo;
            for batch in part.batches {
                let batch = tail::with_lsn(&batch, lo, &table.lake.schema)?;
                lo = Lsn(batch.hi.0 + 1);
                tail::push(&mut table.tail, batch, pending.barrier)?;
            }
            if let Some(memory) = part.memory {
                pending.memory.push_back((Lsn(lo.0 - 1), memory));
            }
        }
        for (oid, table) in changed {
            head.tables.insert(oid, Arc::new(table));
        }
        head.visible = head.visible.max(visible);
        self.head.store(Arc::new(head));
        Ok(())
    }

    /// Adds or replaces a table.
    pub(super) fn put_table(&self, table: TableHead) {
        let _publishing = self.publishing();
        let mut head = DbHead::clone(&self.head.load());
        head.tables.insert(table.oid, Arc::new(table));
        self.head.store(Arc::new(head));
    }

    /// Takes a table or view out of sight.
    pub(super) fn remove(&self, oid: Oid) {
        let mut publishing = self.publishing();
        let mut head = DbHead::clone(&self.head.load());
        head.tables.remove(&oid);
        head.views.remove(&oid);
        self.head.store(Arc::new(head));
        publishing.remove(&oid);
        self.in_use.forget(oid);
    }

    /// The tail as it stands; until the next call its batches keep their borders.
    pub(super) fn capture(&self, oid: Oid) -> Option<Captured> {
        let mut publishing = self.publishing();
        let table = Arc::clone(self.head.load().tables.get(&oid)?);
        let pending = publishing.entry(oid).or_default();
        if let Some(last) = table.tail.last() {
            pending.barrier = last.hi;
        }
        let mut marks = pending.source.marks(oid);
        marks.retain(|(lsn, _)| *lsn > table.flushed);
        Some(Captured {
            lake: Arc::clone(&table.lake),
            flushed: table.flushed,
            tail: table.tail.clone(),
            marks,
        })
    }

    /// True when a table has something that its storage does not have yet.
    pub(super) fn is_unflushed(&self, table: &TableHead) -> bool {
        let publishing = self.publishing();
        let pending = publishing.get(&table.oid);
        !table.tail.is_empty() || pending.is_some_and(|p| p.source.newest() > table.flushed)
    }

    /// True when a table holds rows up to a position that its storage does not have yet.
    pub(super) fn lacks(&self, oid: Oid, upto: Lsn) -> bool {
        let head = self.head.load();
        let first = head.tables.get(&oid).and_then(|t| t.tail.first());
        first.is_some_and(|first| first.lo <= upto)
    }

    /// What storage holds of a table, and the next offsets of a topic's partitions as far as they
    /// came in since the log was opened.
    pub(super) fn source(
        &self,
        oid: Oid,
        topic: &str,
        partitions: &[i32],
    ) -> Option<(Arc<LakeSnapshot>, NextOffsets)> {
        let publishing = self.publishing();
        let lake = Arc::clone(&self.head.load().tables.get(&oid)?.lake);
        let known = publishing.get(&oid).map(|p| &p.source);
        let next = partitions
            .iter()
            .map(|p| (*p, known.and_then(|known| known.next(topic, *p))))
            .collect();
        Some((lake, next))
    }

    /// The new stored state, what it holds of the tail, and, where they may be new ones, its counts, in
    /// one swap.
    pub(super) fn stored(
        &self,
        oid: Oid,
        lake: LakeSnapshot,
        flushed: Lsn,
        counts: Option<Counts>,
    ) -> Result<()> {
        let mut publishing = self.publishing();
        let mut head = DbHead::clone(&self.head.load());
        let Some(table) = head.tables.get(&oid) else {
            return Ok(());
        };
        let mut table = TableHead::clone(table);
        let flushed = table.flushed.max(flushed);
        table.tail.retain(|batch| batch.hi > flushed);
        table.flushed = flushed;
        if let Some(counts) = counts {
            table.changes = counts.changes;
            table.upkeep = counts.upkeep;
        }
        if lake.schema != table.lake.schema {
            table.schema = if table.streaming {
                tail::visible_schema(&lake.schema)
            } else {
                Arc::clone(&lake.schema)
            };
            for part in &mut table.tail {
                let batch = tail::conform(&part.batch, &lake.schema)?;
                *part = Arc::new(TailBatch { batch, ..**part });
            }
        }
        self.in_use.retire(oid, &table.lake);
        table.lake = Arc::new(lake);
        head.tables.insert(oid, Arc::new(table));
        let before = self.head.swap(Arc::new(head));
        if let Some(pending) = publishing.get_mut(&oid) {
            while pending.memory.front().is_some_and(|(hi, _)| *hi <= flushed) {
                pending.memory.pop_front();
            }
        }
        drop(publishing);
        // a whole tail may go with it: the log's thread does not wait for that
        drop(before);
        Ok(())
    }

    /// Publishes a view's state.
    pub(super) fn put_view(&self, oid: Oid, view: ViewHead) {
        let _publishing = self.publishing();
        let mut head = DbHead::clone(&self.head.load());
        if let Some(before) = head.views.get(&oid) {
            self.in_use.retire(oid, &before.state);
        }
        head.views.insert(oid, Arc::new(view));
        self.head.store(Arc::new(head));
    }

    // A panic elsewhere leaves the map whole: every change of it is one step.
    fn publishing(&self) -> MutexGuard<'_, HashMap<Oid, Pending>> {
        self.publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
