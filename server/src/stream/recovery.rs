//! From what is on disk to the first head: what Delta holds by its `txn`, and above it the log.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use catalog::Oid;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::committer::{self, Owned};
use super::core::{Arrived, Core, Counts};
use super::dedup::Gates;
use super::dedup::clock::Clock;
use super::head::{Lsn, TableHead};
use super::internal;
use super::position::Positions;
use super::record::{Record, read_payload};
use super::segment::{self, Replayed};
use super::wal::{self, Request, Start};
use super::{StreamOptions, TableSpec, tail};
use crate::error::{Error, Result, SqlState};
use crate::lake::{self, At, Commit, Compute, make_dirs_durable};
use crate::types;

/// Segments of the log that are kept beyond what is always kept.
const MOST_SPARES: u64 = 32;
/// Tables opened at the same time.
const AT_ONCE: usize = 8;

/// The state to go on from.
pub(super) struct Recovered {
    pub(super) core: Arc<Core>,
    pub(super) gates: Arc<Gates>,
    pub(super) wal: mpsc::Sender<Request>,
    pub(super) owned: HashMap<Oid, Arc<Owned>>,
}

pub(super) async fn recover(options: &StreamOptions, tables: Vec<TableSpec>) -> Result<Recovered> {
    let compute = Compute::start(options.writer_threads)?;
    let core = Arc::new(Core::new(options.tail_bytes, compute));
    let clock = Arc::new(Clock::default());
    let gates = Arc::new(Gates::new(options.dedup_bytes, Arc::clone(&clock)));
    for spec in &tables {
        gates.set(spec.oid, &spec.name, spec.dedup.clone());
    }
    let mut owned = HashMap::new();
    let opened: Vec<(TableHead, Owned)> = stream::iter(tables)
        .map(|spec| open_table(options, spec))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    for (head, table) in opened {
        owned.insert(table.oid, Arc::new(table));
        core.put_table(head);
    }
    let dir = options.wal_dir.clone();
    let segment_bytes = options.segment_bytes;
    // between two flushes the log grows by about what the tails hold, and by as much again until the
    // second one ends; files written again spare the file system new blocks, and a sync the wait for
    // its journal
    let tail_segments = 2 * options.tail_bytes as u64 / segment_bytes.max(1);
    let most_spares = usize::try_from(tail_segments.min(MOST_SPARES)).unwrap_or(0) + 2;
    let read = {
        let (core, clock, dir) = (Arc::clone(&core), Arc::clone(&clock), dir.clone());
        move || {
            make_dirs_durable(&dir).map_err(Error::io("make the log's directory"))?;
            clock.load(&dir)?;
            replay(&core, &clock, &dir)
        }
    };
    let replayed = blocking(read).await?;
    if replayed.closed.is_empty() {
        // before the first segment is made: who dies here finds none again
        without_log(&core, &owned).await?;
    }
    let work = {
        let core = Arc::clone(&core);
        move || {
            let flushed = core.head().tables.values().map(|t| t.flushed.0).max();
            let next = Lsn(replayed.end.0.max(flushed.unwrap_or(0) + 1));
            core.arrived(Vec::new(), Vec::new(), Lsn(next.0 - 1))?;
            // rows of a log that did not say when they arrived have just arrived
            clock.note(next, clock.now());
            let start = Start {
                clock,
                dir,
                segment_bytes,
                most_spares,
                closed: replayed.closed,
                spares: replayed.spares,
                next_id: replayed.next_id,
                end: replayed.end,
                next,
            };
            wal::start(core, start)
        }
    };
    let wal = blocking(work).await?;
    Ok(Recovered {
        core,
        gates,
        wal,
        owned,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Internal(format!("reading the log failed: {e}"))),
    }
}

/// The log of these tables is gone, with rows that storage did not have and that views may count: to
/// their states this is a change of the rows, so they are made from what is there.
async fn without_log(core: &Core, owned: &HashMap<Oid, Arc<Owned>>) -> Result<()> {
    let head = core.head();
    let tables = head.tables.values().filter(|t| t.streaming);
    for table in tables.filter(|t| !internal::is(t.oid)) {
        let name = owned.get(&table.oid).map(|owned| owned.name.as_str());
        tracing::warn!(
            table = name,
            "there is no log; the table has the rows of its storage, and its views are made anew"
        );
        let counts = Counts {
            changes: table.changes + 1,
            upkeep: table.upkeep,
        };
        let commit = Commit {
            txn: Some((committer::changes_app(table.oid), counts.changes)),
            ..Commit::default()
        };
        let lake = lake::commit(&table.lake, commit).await?;
        core.stored(table.oid, lake, Lsn::default(), Some(counts))?;
    }
    Ok(())
}

/// A table as its storage has it, without tail.
pub(super) async fn open_table(
    options: &StreamOptions,
    spec: TableSpec,
) -> Result<(TableHead, Owned)> {
    let lake = lake::open(&spec.root, At::Latest).await?;
    let expected = if spec.streaming {
        tail::stored_schema(&spec.schema)
    } else {
        Arc::clone(&spec.schema)
    };
    if !follows(&lake.schema, &expected) {
        return Err(Error::refused(
            SqlState::DATA_CORRUPTED,
            format!(
                "the stored columns of table \"{}\" are not those of the catalog",
                spec.name
            ),
        )
        .with_detail(format!("the table lies at \"{}\"", spec.root)));
    }
    let flushed = if spec.streaming {
        let app = Owned::wal_app(spec.oid);
        lake.txn_version(&app).await?.map_or(Lsn::default(), Lsn)
    } else {
        Lsn::default()
    };
    let counts = committer::counts_of(&lake, spec.oid).await?;
    let schema = match spec.streaming {
        true => tail::visible_schema(&lake.schema),
        false => Arc::clone(&lake.schema),
    };
    let head = TableHead {
        oid: spec.oid,
        streaming: spec.streaming,
        schema,
        lake: Arc::new(lake),
        flushed,
        changes: counts.changes,
        upkeep: counts.upkeep,
        tail: Vec::new(),
    };
    let owned = Owned {
        oid: spec.oid,
        name: spec.name,
        streaming: spec.streaming,
        flush_interval: spec.flush_interval.unwrap_or(options.flush_interval),
        lock: Arc::default(),
        gate: Arc::default(),
        prompt: Arc::default(),
    };
    Ok((head, owned))
}

/// True for stored columns that are the expected ones, or what an `ALTER TABLE` has made of them that did
/// not live to tell the catalog: wider types, more columns behind. The engine tells the catalog then.
fn follows(stored: &Schema, expected: &Schema) -> bool {
    stored.fields().len() >= expected.fields().len()
        && stored
            .fields()
            .iter()
            .zip(expected.fields())
            .all(|(stored, known)| {
                stored.name() == known.name()
                    && (stored.data_type() == known.data_type() || widens(known, stored))
            })
}

/// True for columns whose type `ALTER TABLE` may have made of the other's.
fn widens(from: &Field, to: &Field) -> bool {
    types::widenings(&types::sql_type(from)).contains(&types::sql_type(to))
}

/// Puts every row of the log that no table's storage has into the tails.
fn replay(core: &Core, clock: &Clock, dir: &std::path::Path) -> Result<Replayed> {
    segment::replay(dir, |record| {
        if record.at > 0 {
            clock.note(record.first, record.at);
        }
        let rows = unflushed(core, record)?;
        let end = Lsn(record.end().0 - 1);
        let source = Positions::read(&record.source)?.filter(|source| {
            let head = core.head();
            let table = head.tables.get(&source.table);
            table.is_some_and(|table| table.flushed < end)
        });
        let positions = source.map(|source| (source, end)).into_iter().collect();
        core.arrived(rows, positions, end)
    })
}

fn unflushed(core: &Core, record: &Record) -> Result<Vec<Arrived>> {
    let head = core.head();
    let mut arrived = Vec::new();
    for (oid, lo, hi, payload) in record.parts() {
        let Some(table) = head.tables.get(&oid) else {
            continue; // dropped since
        };
        if !table.streaming || hi <= table.flushed {
            continue;
        }
        let mut batches = Vec::new();
        for batch in read_payload(payload)? {
            batches.push(tail::conform(&batch, &table.schema)?);
        }
        let skip = usize::try_from(table.flushed.0 - lo.0 + 1).unwrap_or(0);
        let batches = without_first(batches, skip);
        let bytes = batches.iter().map(tail::slice_bytes).sum();
        arrived.push(Arrived {
            oid,
            lo: Lsn(lo.0 + i64::try_from(skip).unwrap_or(0)),
            batches,
            memory: core.reserve_left(bytes),
        });
    }
    Ok(arrived)
}

fn without_first(batches: Vec<RecordBatch>, mut skip: usize) -> Vec<RecordBatch> {
    let mut rest = Vec::with_capacity(batches.len());
    for batch in batches {
        let rows = batch.num_rows();
        if skip < rows {
            rest.push(batch.slice(skip, rows - skip));
        }
        skip = skip.saturating_sub(rows);
    }
    rest
}
