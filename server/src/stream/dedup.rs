//! Duplicates: rows whose key the table has already, near in time, do not enter the log.
//!
//! *A row is a duplicate when its table holds a row with an equal key whose time is at most a window
//! away.* The time is the event time where the table has one, else the arrival, by the server's
//! clock. Of several such rows the first in the log wins, within a batch too. A row without a value
//! in its key or its event time is never a duplicate.
//!
//! So the table itself is the truth. What is held in memory is an [`index::Index`] over parts of it,
//! by time; a part that is not there is read from storage and the tail before it is asked. Hence the
//! answers are the same after a restart, and after a change of stored rows, which makes the index
//! forget everything: a deleted key is not seen any more. A key is kept as 128 bits of a keyed hash,
//! its key drawn at each start: keys that collide cannot be found, and by chance two of a billion do
//! with a probability below 10⁻²⁰.
//!
//! A table's index is locked from the question until the rows are in the log's queue, so questions
//! are answered in log order. An append that does not get there takes its keys back.

pub(super) mod clock;
mod index;
mod keys;
mod load;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use catalog::Oid;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::record::Part;
use super::{Stream, streaming_table, tail};
use crate::error::{Error, Result, SqlState};
use clock::Clock;
use index::{Budget, Entry, Index};
use keys::{Hasher, Keys};

/// Rows up to this number are looked up on the connection's thread.
const ROWS_INLINE: usize = 8 * 1024;

/// What makes two rows of a table the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupSpec {
    /// Columns of the key.
    pub key: Vec<String>,
    /// How far apart the times of duplicates may be.
    pub window: Duration,
    /// The event time, if the table has one; else rows go by their arrival.
    pub event_time: Option<String>,
}

/// The tables that have a key.
#[derive(Debug)]
pub(super) struct Gates {
    gates: RwLock<HashMap<Oid, Arc<Gate>>>,
    budget: Arc<Budget>,
    pub(super) clock: Arc<Clock>,
}

/// One table with a key.
#[derive(Debug)]
pub(super) struct Gate {
    oid: Oid,
    name: String,
    spec: DedupSpec,
    hasher: Hasher,
    index: Arc<Mutex<Index>>,
}

/// A table with the parts of an append that are for it, and their places.
type Wanted = (Arc<Gate>, Vec<(usize, Part)>);

/// The hashed keys of an append's rows for one table: per part, per batch.
pub(super) struct Asked {
    gate: Arc<Gate>,
    parts: Vec<(usize, Vec<Keys>)>,
}

/// Rows that are in the index but not in the log yet: dropping it takes their keys out again.
#[derive(Default)]
pub(super) struct Passed {
    held: Vec<Held>,
    /// Per part with duplicates and batch, the rows that stay.
    stay: HashMap<usize, Vec<BooleanArray>>,
    /// Rows that were there before.
    pub(super) duplicates: u64,
}

struct Held {
    index: OwnedMutexGuard<Index>,
    entries: Vec<Entry>,
}

impl Gates {
    /// None yet; their indexes may hold `bytes` together.
    pub(super) fn new(bytes: usize, clock: Arc<Clock>) -> Self {
        Self {
            gates: RwLock::default(),
            budget: Arc::new(Budget::new(bytes)),
            clock,
        }
    }

    /// Takes in or (`None`) forgets a table's key.
    pub(super) fn set(&self, oid: Oid, name: &str, spec: Option<DedupSpec>) {
        let gate = spec.map(|spec| {
            let window = i64::try_from(spec.window.as_micros()).unwrap_or(i64::MAX);
            Arc::new(Gate {
                oid,
                name: name.to_owned(),
                hasher: Hasher::new(),
                index: Arc::new(Mutex::new(Index::new(window, Arc::clone(&self.budget)))),
                spec,
            })
        });
        let mut gates = self.gates.write().unwrap_or_else(PoisonError::into_inner);
        match gate {
            Some(gate) => gates.insert(oid, gate),
            None => gates.remove(&oid),
        };
    }

    fn of(&self, oid: Oid) -> Option<Arc<Gate>> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.get(&oid).map(Arc::clone)
    }

    /// Hashes the keys of rows whose tables have one; in the order in which tables are locked.
    pub(super) async fn ask(&self, parts: &[(Part, usize)]) -> Result<Vec<Asked>> {
        let mut tables: BTreeMap<Oid, Wanted> = BTreeMap::new();
        let mut rows = 0;
        for (at, (part, _)) in parts.iter().enumerate() {
            let Some(gate) = self.of(part.oid) else {
                continue;
            };
            rows += part.rows;
            let entry = tables.entry(part.oid).or_insert_with(|| (gate, Vec::new()));
            entry.1.push((at, part.clone()));
        }
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let work = move || {
            tables
                .into_values()
                .map(|(gate, parts)| {
                    let parts = parts
                        .into_iter()
                        .map(|(at, part)| {
                            let keys = part.batches.iter().map(|b| gate.keys(b));
                            Ok((at, keys.collect::<Result<Vec<_>>>()?))
                        })
                        .collect::<Result<Vec<_>>>()?;
                    Ok(Asked { gate, parts })
                })
                .collect::<Result<Vec<_>>>()
        };
        off_io(usize::try_from(rows).unwrap_or(usize::MAX), work).await
    }

    /// Lets go of what another table's index has not used for longest; false when there is nothing.
    fn evict_elsewhere(&self, oid: Oid) -> bool {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.values().filter(|gate| gate.oid != oid).any(|gate| {
            // one that is locked is in use
            let Ok(mut index) = Arc::clone(&gate.index).try_lock_owned() else {
                return false;
            };
            index.evict(&BTreeMap::new())
        })
    }

    /// Makes sure that an index can take `bytes` more, keeping the parts that `needed` names.
    fn make_room(
        &self,
        gate: &Gate,
        index: &mut Index,
        needed: &BTreeMap<i64, usize>,
        bytes: usize,
    ) -> Result<()> {
        while !self.budget.has(bytes) {
            if !index.evict(needed) && !self.evict_elsewhere(gate.oid) {
                return Err(gate.too_large());
            }
        }
        Ok(())
    }
}

impl Gate {
    fn keys(&self, batch: &arrow::record_batch::RecordBatch) -> Result<Keys> {
        let time = self.spec.event_time.as_deref();
        self.hasher.keys(batch, &self.spec.key, time)
    }

    fn too_large(&self) -> Error {
        Error::refused(
            SqlState::OUT_OF_MEMORY,
            format!(
                "the keys of table \"{}\" within its dedup_window do not fit in memory",
                self.name
            ),
        )
        .with_detail("without them, rows cannot be told from duplicates")
        .with_hint(
            "raise stream.dedup_bytes, make dedup_window shorter, or send rows of fewer different \
             times at once",
        )
    }
}

/// Finds the duplicates among rows about to enter the log, and notes the others' keys. Holds the
/// tables' locks until the result is dropped.
pub(super) async fn pass(stream: &Stream, asked: Vec<Asked>, wait: Duration) -> Result<Passed> {
    let mut passed = Passed::default();
    for Asked { gate, parts } in asked {
        let lock = Arc::clone(&gate.index).lock_owned();
        let Ok(index) = tokio::time::timeout(wait, lock).await else {
            return Err(busy(&gate.name));
        };
        let now = match gate.spec.event_time {
            Some(_) => None,
            None => Some(stream.gates.clock.now()),
        };
        let mut needed = BTreeMap::new();
        for keys in parts.iter().flat_map(|(_, keys)| keys) {
            index.needs(keys, now, &mut needed);
        }
        let ready = ready(stream, &gate, index, &needed);
        let Ok(ready) = tokio::time::timeout(wait, ready).await else {
            return Err(busy(&gate.name));
        };
        let mut index = ready?;
        let growth = index.growth(&needed);
        stream.gates.make_room(&gate, &mut index, &needed, growth)?;
        let rows = needed.values().sum();
        let work = move || {
            let mut held = Held {
                index,
                entries: Vec::with_capacity(rows),
            };
            let mut stay = Vec::with_capacity(parts.len());
            for (at, keys) in parts {
                let masks = keys
                    .iter()
                    .map(|keys| held.index.take(keys, now, &mut held.entries))
                    .collect::<Result<Vec<_>>>()?;
                stay.push((at, masks));
            }
            held.index.settle(&needed);
            Ok((held, stay))
        };
        let (held, stay) = off_io(rows, work).await?;
        passed.held.push(held);
        for (at, masks) in stay {
            let gone: usize = masks.iter().map(BooleanArray::false_count).sum();
            if gone > 0 {
                passed.duplicates += gone as u64;
                passed.stay.insert(at, masks);
            }
        }
    }
    Ok(passed)
}

/// Brings the parts of the index that are asked for into memory, as the table is now.
async fn ready(
    stream: &Stream,
    gate: &Arc<Gate>,
    mut index: OwnedMutexGuard<Index>,
    needed: &BTreeMap<i64, usize>,
) -> Result<OwnedMutexGuard<Index>> {
    let head = stream.head();
    index.follow(streaming_table(&head, gate.oid)?);
    if index.lacks(needed).is_empty() {
        return Ok(index);
    }
    // rows on their way into the log are in the index only: what is read must have them
    stream.settled().await?;
    let head = stream.head();
    let table = streaming_table(&head, gate.oid)?;
    index.follow(table);
    index.forget_unused();
    let plan = load::Plan {
        table: table.clone(),
        gates: Arc::clone(&stream.gates),
        gate: Arc::clone(gate),
        missing: index.lacks(needed),
        needed: needed.clone(),
    };
    stream.core.compute.run(load::load(plan, index)).await
}

impl Passed {
    /// The parts without duplicates; those that have no rows left are gone.
    pub(super) fn rest(&self, parts: Vec<(Part, usize)>) -> Result<Vec<(Part, usize)>> {
        let mut rest = Vec::with_capacity(parts.len());
        for (at, (part, size)) in parts.into_iter().enumerate() {
            let Some(masks) = self.stay.get(&at) else {
                rest.push((part, size));
                continue;
            };
            let mut batches = Vec::with_capacity(part.batches.len());
            for (batch, mask) in part.batches.iter().zip(masks) {
                let batch = filter_record_batch(batch, mask)?;
                if batch.num_rows() > 0 {
                    batches.push(batch);
                }
            }
            let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            if rows > 0 {
                let size = batches.iter().map(tail::slice_bytes).sum();
                let oid = part.oid;
                rest.push((Part { oid, batches, rows }, size));
            }
        }
        Ok(rest)
    }

    /// The rows are in the log's queue: their keys stay.
    pub(super) fn entered(mut self) {
        for held in &mut self.held {
            held.entries.clear();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.index.withdraw(&self.entries);
    }
}

/// CPU work over that many rows.
async fn off_io<T: Send + 'static>(
    rows: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if rows <= ROWS_INLINE {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("looking for duplicates failed: {e}")))?
}

fn busy(name: &str) -> Error {
    Error::refused(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("looking for duplicates in table \"{name}\" takes too long"),
    )
    .with_hint("send the rows again later")
}
