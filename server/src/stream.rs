//! The log: WAL with group commit, tail, head, per-table committers, recovery.
//!
//! Owns the order *fsync → publish → acknowledge*, the one [`head::DbHead`] and every write to a
//! table that weir owns. It must not import `protocol` or `exec`.
//!
//! | module | owns |
//! |---|---|
//! | [`head`] | what a statement sees: one cut |
//! | `acknowledge` | answers that wait until rows are in storage |
//! | `append` | rows on their way into the log |
//! | `core` | how the head changes, tail memory |
//! | `record`, `segment`, `wal` | bytes of the log, its files, its writer |
//! | [`position`] | where sources stand, in records and in Delta |
//! | `tail` | batches in memory |
//! | `committer` | flushes, appends to ordinary tables, DML, view state: one at a time per table |
//! | `anchor` | logs read from their newest checkpoint again |
//! | `exchange` | stored files exchanged for others: compaction, retention |
//! | `in_use` | files that are no part of a newest state and must stay |
//! | `flusher` | flushes in the background |
//! | `recovery` | from what is on disk to the first head |
//! | `dedup` | which rows a table has already; when rows arrived |
//! | [`internal`] | tables of the server's own, fed by the log |
//! | [`letters`] | rows that were refused, as they came |
//! | [`mod@line`] | order of one producer's appends |
//! | [`lock`] | one process per data directory |

mod acknowledge;
mod anchor;
mod append;
mod committer;
mod core;
mod dedup;
mod exchange;
mod flusher;
pub mod head;
mod in_use;
pub mod internal;
pub mod letters;
pub mod line;
pub mod lock;
pub mod position;
mod publish;
mod record;
mod recovery;
mod segment;
mod tail;
mod wal;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::Oid;
use deltalake::DeltaTable;
use futures::Stream as Batches;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::error::{Error, Result, SqlState};
pub use crate::lake::crash::CRASH_POINTS;
use crate::lake::{self, Compute, Garbage, LakeSnapshot};
pub use append::{Appended, Origin, Receipt, is_tail_full};
use committer::{Owned, StateApps};
pub use committer::{Replaces, Rows, StateChange};
use core::Core;
pub use dedup::DedupSpec;
use dedup::Gates;
pub use exchange::{Exchange, Guard, Reason, Staged};
use head::{DbHead, Lsn, TableHead, ViewHead};
pub use in_use::Writing;
pub use lock::DirLock;
use position::Positions;
pub use publish::published_at;
pub use tail::stored_schema;
use wal::Request;

/// Batches of an ordinary append that may wait for the encoder.
const APPEND_QUEUE: usize = 2;

/// How the log runs.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Directory of the log's segments; made where there is none.
    pub wal_dir: PathBuf,
    /// Time between flushes of a table that has no own.
    pub flush_interval: Duration,
    /// Shortest time between two flushes that writers wait for.
    pub acknowledge_interval: Duration,
    /// How long a writer waits for such a flush.
    pub acknowledge_wait: Duration,
    /// Bytes that all tails hold together before writers wait.
    pub tail_bytes: usize,
    /// Bytes that the keys of rows may hold together, of all tables that have one.
    pub dedup_bytes: usize,
    /// How long an append waits for room in the tail before it is refused.
    pub append_wait: Duration,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Threads that encode Parquet.
    pub writer_threads: usize,
}

impl StreamOptions {
    /// The defaults over a directory.
    pub fn new(wal_dir: PathBuf) -> Self {
        Self {
            wal_dir,
            flush_interval: Duration::from_secs(5),
            acknowledge_interval: Duration::from_millis(200),
            acknowledge_wait: Duration::from_secs(30),
            tail_bytes: 512 * 1024 * 1024,
            dedup_bytes: 512 * 1024 * 1024,
            append_wait: Duration::from_secs(30),
            segment_bytes: 64 * 1024 * 1024,
            writer_threads: 2,
        }
    }
}

/// A table as the catalog knows it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Its id.
    pub oid: Oid,
    /// Its name, for messages.
    pub name: String,
    /// Visible columns.
    pub schema: SchemaRef,
    /// Partition columns.
    pub partition_by: Vec<String>,
    /// Fed through the log, or plain Delta.
    pub streaming: bool,
    /// Where it lies.
    pub root: Url,
    /// Time between flushes, if it has its own.
    pub flush_interval: Option<Duration>,
    /// What makes two of its rows the same, if duplicates are dropped.
    pub dedup: Option<DedupSpec>,
    /// Columns whose values its data files keep a Bloom filter of; looked at when its storage is made.
    pub bloom_filters: Vec<String>,
}

/// A materialized view's state table.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// The view's id.
    pub oid: Oid,
    /// Its name, for messages.
    pub name: String,
    /// Columns of the state.
    pub schema: SchemaRef,
    /// Partition columns of the state.
    pub partition_by: Vec<String>,
    /// The table whose name the state's position goes by.
    pub source: Oid,
    /// Every table it is made from.
    pub sources: Vec<Oid>,
    /// Where the state lies.
    pub root: Url,
}

/// The open log with everything it feeds. All statements share one.
#[derive(Debug)]
pub struct Stream {
    core: Arc<Core>,
    gates: Arc<Gates>,
    options: StreamOptions,
    wal: mpsc::Sender<Request>,
    owned: Mutex<HashMap<Oid, Arc<Owned>>>,
    stop: CancellationToken,
}

impl Stream {
    /// Opens the log and the tables and brings back every acknowledged row. The caller holds the
    /// data directory's [`DirLock`].
    ///
    /// # Errors
    /// `XX001` when the log is damaged so that acknowledged rows would be missing.
    pub async fn open(options: StreamOptions, tables: Vec<TableSpec>) -> Result<Arc<Self>> {
        let recovered = recovery::recover(&options, tables).await?;
        let stream = Arc::new(Self {
            core: recovered.core,
            gates: recovered.gates,
            wal: recovered.wal,
            owned: Mutex::new(recovered.owned),
            stop: CancellationToken::new(),
            options,
        });
        flusher::start(&stream, stream.stop.clone());
        // What recovery found flushed already needs no log any more.
        stream.prune();
        Ok(stream)
    }

    /// The newest cut. A statement loads it once.
    pub fn head(&self) -> Arc<DbHead> {
        self.core.head()
    }

    /// Where the source of a table stands: the next offset of each of these partitions that it has
    /// taken messages from. Exact as long as no append of the source is under way.
    pub async fn source_positions(
        &self,
        oid: Oid,
        topic: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>> {
        let Some((lake, known)) = self.core.source(oid, topic, partitions) else {
            return Err(Error::undefined_table(&oid.to_string()));
        };
        let mut found = BTreeMap::new();
        for (partition, next) in known {
            let next = match next {
                Some(next) => Some(next),
                // not since the log was opened: then its storage says, if it ever came to one
                None => {
                    lake.txn_version(&Positions::app(oid, topic, partition))
                        .await?
                }
            };
            found.extend(next.map(|next| (partition, next)));
        }
        Ok(found)
    }

    /// Makes a table's storage and takes it in. Its rows are visible from then on.
    pub async fn create_table(&self, spec: TableSpec) -> Result<()> {
        let stored = if spec.streaming {
            stored_schema(&spec.schema)
        } else {
            Arc::clone(&spec.schema)
        };
        let (root, partition_by) = (spec.root.clone(), spec.partition_by.clone());
        let filters = spec.bloom_filters.clone();
        self.core
            .compute
            .run(async move { lake::create_with(&root, &stored, &partition_by, &filters).await })
            .await?;
        self.add_table(spec).await
    }

    /// Takes in a table whose storage is there.
    pub async fn add_table(&self, spec: TableSpec) -> Result<()> {
        let dedup = spec.dedup.clone();
        let (head, owned) = recovery::open_table(&self.options, spec).await?;
        self.gates.set(owned.oid, &owned.name, dedup);
        self.own(owned);
        self.core.put_table(head);
        Ok(())
    }

    /// Forgets a table or a view's state; waits for a running commit to end. Its files stay: see
    /// [`lake::delete`]. Its rows in the log are skipped and pruned.
    pub async fn drop_table(&self, oid: Oid) -> Result<()> {
        let owned = self.owned(oid)?;
        let mut ledger = owned.lock.lock().await;
        ledger.dropped = true;
        self.core.remove(oid);
        self.tables().remove(&oid);
        self.gates.set(oid, &owned.name, None);
        drop(ledger);
        self.prune();
        Ok(())
    }

    /// Changes the time between a table's flushes; takes effect at the flusher's next look.
    pub fn set_flush_interval(&self, oid: Oid, interval: Duration) -> Result<()> {
        let owned = self.owned(oid)?;
        self.own(Owned {
            oid,
            name: owned.name.clone(),
            streaming: owned.streaming,
            flush_interval: interval,
            lock: Arc::clone(&owned.lock),
            gate: Arc::clone(&owned.gate),
            prompt: Arc::clone(&owned.prompt),
        });
        Ok(())
    }

    /// Writes a streaming table's tail to Delta; everything up to the returned position is there.
    pub async fn flush(&self, oid: Oid) -> Result<Lsn> {
        let owned = self.owned(oid)?;
        if !owned.streaming {
            return Err(not_streaming(&owned.name));
        }
        let core = Arc::clone(&self.core);
        let flushed = self.core.compute.run(committer::flush(core, owned)).await?;
        lake::crash::crash_point("flush-after-publish-before-wal-removal");
        self.prune();
        Ok(flushed)
    }

    /// Appends to an ordinary table in one commit; the number of rows. Dropping the future before
    /// the last batch was taken commits nothing.
    pub async fn lake_append<S>(&self, oid: Oid, batches: S) -> Result<u64>
    where
        S: Batches<Item = Result<RecordBatch>> + Send + Unpin,
    {
        let owned = self.owned(oid)?;
        if owned.streaming {
            return Err(Error::Internal(format!(
                "\"{}\" takes rows through the log only",
                owned.name
            )));
        }
        let (pieces, queue) = mpsc::channel(APPEND_QUEUE);
        let core = Arc::clone(&self.core);
        let write = self.core.compute.run(committer::append(core, owned, queue));
        let (fed, written) = tokio::join!(committer::feed(batches, pieces), write);
        fed?;
        written
    }

    /// Runs a change that commits by itself (delta-rs DELETE, UPDATE, MERGE, OPTIMIZE, …) alone
    /// with the newest state of a table, the tail flushed before. What it returns is published.
    /// Appends to a streaming table go on meanwhile: their rows lie above what was flushed.
    ///
    /// Dropping the future while delta-rs commits leaves open whether the change was made; what was
    /// made is published with the table's next commit. A statement that must know does not drop it.
    pub async fn exclusive<T, F, Fut>(&self, oid: Oid, change: F) -> Result<T>
    where
        F: FnOnce(DeltaTable) -> Fut,
        Fut: Future<Output = Result<(DeltaTable, T)>>,
    {
        let owned = self.owned(oid)?;
        let result = committer::exclusive(&self.core, &owned, change).await;
        self.prune();
        result
    }

    /// Changes a table's columns: `change` gets its newest state, alone with it, and makes the commit,
    /// or none. With `still` every row of before is stored by then, and appends wait until it is done:
    /// for changes that rows of before do not fit.
    ///
    /// Dropping the future leaves open whether the change was made. Do not drop it.
    pub async fn alter<F, Fut>(&self, oid: Oid, still: bool, change: F) -> Result<()>
    where
        F: FnOnce(LakeSnapshot) -> Fut,
        Fut: Future<Output = Result<Option<LakeSnapshot>>>,
    {
        let owned = self.owned(oid)?;
        let result = committer::alter(&self.core, &owned, still, change).await;
        self.prune();
        result
    }

    /// Writes rows, in any order and with at least the stored columns, as files of a table that are not
    /// part of it yet: for [`Self::exchange`].
    pub async fn stage<S>(&self, base: &Arc<LakeSnapshot>, rows: S) -> Result<Staged>
    where
        S: Batches<Item = Result<RecordBatch>> + Send + 'static,
    {
        exchange::stage(Arc::clone(&self.core), Arc::clone(base), rows).await
    }

    /// Until it is dropped no vacuum deletes files that were written since, and that no commit names.
    pub fn writing(&self) -> Writing {
        self.core.in_use.write()
    }

    /// Puts files in the place of others, in one commit; its version. Nothing is done, and nothing
    /// given, when the table has other files by now or the guard says no.
    pub async fn exchange(&self, oid: Oid, wanted: Exchange) -> Result<Option<i64>> {
        let owned = self.owned(oid)?;
        let core = Arc::clone(&self.core);
        let made =
            self.core
                .compute
                .run(exchange::exchange(core, owned, wanted, self.stop.clone()));
        let made = made.await;
        self.prune();
        made
    }

    /// Data files of a table or view state that nothing has needed for longer than `keep`, with the
    /// state they were found by: for [`lake::sweep`]. No older version may be restored meanwhile.
    pub async fn garbage(&self, oid: Oid, keep: Duration) -> Result<(LakeSnapshot, Vec<Garbage>)> {
        let owned = self.owned(oid)?;
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        exchange::garbage(Arc::clone(&self.core), owned, keep_ms).await
    }

    /// Lets the head know a table's or view state's log from its newest checkpoint on: commits before that
    /// may go. False when it could not be done now.
    pub async fn anchor(&self, oid: Oid) -> Result<bool> {
        let owned = self.owned(oid)?;
        let core = Arc::clone(&self.core);
        self.core.compute.run(anchor::anchor(core, owned)).await
    }

    /// There is hardly any room left in memory for rows that are not stored yet.
    pub fn is_almost_full(&self) -> bool {
        self.core.is_almost_full()
    }

    /// True while the storage of some table does not take its rows: it may be full, and what makes
    /// files without need would take the room that the rows wait for.
    pub fn cannot_flush(&self) -> bool {
        self.core.unflushable.load(Ordering::Relaxed) > 0
    }

    /// Where Parquet is encoded and logs are read in one piece.
    pub fn compute(&self) -> &Compute {
        &self.core.compute
    }

    /// Puts rows in the place of a view's published result, in one commit; its version.
    pub async fn publish<S>(&self, view: Oid, root: Url, schema: SchemaRef, rows: S) -> Result<i64>
    where
        S: Batches<Item = Result<RecordBatch>> + Send + 'static,
    {
        publish::publish(&self.core, view, root, schema, rows).await
    }

    /// Makes a view's state table and takes it in, empty, good for position `durable`.
    pub async fn create_view(&self, spec: ViewSpec) -> Result<()> {
        let (root, schema) = (spec.root.clone(), Arc::clone(&spec.schema));
        let partition_by = spec.partition_by.clone();
        self.core
            .compute
            .run(async move { lake::create(&root, &schema, &partition_by).await })
            .await?;
        self.open_view(spec).await
    }

    /// Takes in a view's state table that is there.
    pub async fn open_view(&self, spec: ViewSpec) -> Result<()> {
        let state = lake::open(&spec.root, lake::At::Latest).await?;
        let apps = StateApps::new(spec.oid, spec.source, &spec.sources);
        let view = apps.read(state).await?;
        self.own(Owned {
            oid: spec.oid,
            name: spec.name,
            streaming: false,
            flush_interval: self.options.flush_interval,
            lock: Arc::default(),
            gate: Arc::default(),
            prompt: Arc::default(),
        });
        self.publish_view(spec.oid, view);
        Ok(())
    }

    /// Publishes a view's state as it is.
    pub fn publish_view(&self, oid: Oid, view: ViewHead) {
        self.core.put_view(oid, view);
    }

    /// Adds a run to a view's state or puts one in the place of all, with the position it is good for,
    /// and publishes both in one swap. A change that was computed over another state than the one
    /// that is there changes nothing.
    pub async fn commit_state(&self, oid: Oid, change: StateChange) -> Result<()> {
        let view = self.owned(oid)?;
        if change.durable > self.head().visible {
            return Err(Error::Internal(format!(
                "state of \"{}\" is ahead of the log",
                view.name
            )));
        }
        let core = Arc::clone(&self.core);
        self.core
            .compute
            .run(committer::commit_state(core, view, change))
            .await
    }

    /// Stops the flusher, flushes what is in the tails and ends the log's thread, each within its
    /// part of `wait`. What is not flushed in time is in the log and comes back at the next start.
    pub async fn shutdown(&self, wait: Duration) -> Result<()> {
        self.stop.cancel();
        let flushed = tokio::time::timeout(wait, async {
            self.flush_all().await?;
            // exchanges of files that have begun end; none begins any more
            let all: Vec<Arc<Owned>> = self.tables().values().cloned().collect();
            for table in all {
                let _ended = table.lock.lock().await;
            }
            Ok(())
        });
        let flushed = flushed.await;
        let (done, ended) = oneshot::channel();
        if self.wal.send(Request::Stop(done)).await.is_ok() {
            // An error is the sender's end: the thread is gone.
            let _ = tokio::time::timeout(wait, ended).await;
        }
        match flushed {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!("tails were not flushed in time; the log keeps their rows");
                Ok(())
            }
        }
    }

    async fn flush_all(&self) -> Result<()> {
        let head = self.head();
        for table in head.tables.values() {
            if self.core.is_unflushed(table) {
                self.flush(table.oid).await?;
            }
        }
        Ok(())
    }

    /// Lets the log's thread look for segments to remove. When its queue is full it will be asked
    /// again after the next flush.
    fn prune(&self) {
        let _ = self.wal.try_send(Request::Prune);
    }

    fn own(&self, owned: Owned) {
        self.tables().insert(owned.oid, Arc::new(owned));
    }

    fn owned(&self, oid: Oid) -> Result<Arc<Owned>> {
        match self.tables().get(&oid) {
            Some(owned) => Ok(Arc::clone(owned)),
            None => Err(Error::undefined_table(&oid.to_string())),
        }
    }

    // A panic elsewhere leaves the map whole: every change of it is one step.
    fn tables(&self) -> std::sync::MutexGuard<'_, HashMap<Oid, Arc<Owned>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn not_streaming(name: &str) -> Error {
    Error::refused(
        SqlState::WRONG_OBJECT_TYPE,
        format!("\"{name}\" is not a streaming table"),
    )
}

fn streaming_table(head: &DbHead, oid: Oid) -> Result<&TableHead> {
    match head.tables.get(&oid) {
        Some(table) if table.streaming => Ok(table),
        Some(_) => Err(not_streaming(&oid.to_string())),
        None => Err(Error::undefined_table(&oid.to_string())),
    }
}

/// The `txn` to commit a change of a table's stored rows with: views made from the rows of before see
/// by it that they are of before. To be asked inside [`Stream::exclusive`].
pub async fn next_change(lake: &LakeSnapshot, oid: Oid) -> Result<(String, i64)> {
    let done = committer::changes_of(lake, oid).await?;
    Ok((committer::changes_app(oid), done + 1))
}
