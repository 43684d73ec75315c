//! Committers: the only writers of a table in the process, one at a time per table.
//!
//! delta-rs loses or doubles rows when two commits of one table are planned over the same state,
//! so every commit here is made under the table's lock over a state read inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use catalog::Oid;
use deltalake::DeltaTable;
use futures::stream::BoxStream;
use futures::{Stream as Batches, StreamExt, stream};
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, mpsc};

use super::acknowledge::Prompt;
use super::core::{Core, Counts};
use super::head::{Floor, Lsn, TailBatch, Upkeep, ViewHead};
use super::tail;
use crate::error::{Error, Result, SqlState};
use crate::lake::crash::crash_point;
use crate::lake::{self, Commit, LakeSnapshot};

/// A table or view state that this process writes.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) oid: Oid,
    pub(super) name: String,
    pub(super) streaming: bool,
    pub(super) flush_interval: std::time::Duration,
    pub(super) lock: Arc<Mutex<Ledger>>,
    /// Shared by appends on their way into the log, held alone while the columns change so that rows
    /// of before do not fit any more.
    pub(super) gate: Arc<RwLock<()>>,
    /// Held by the one of the waiting writers that flushes for all of them.
    pub(super) prompt: Arc<Mutex<Prompt>>,
}

/// What only the lock's holder knows.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The last commit ended in an error: the log must be asked before the next one.
    pub(super) uncertain: bool,
    /// The table was dropped while others waited for the lock.
    pub(super) dropped: bool,
}

impl Owned {
    /// The application id of flushes.
    pub(super) fn wal_app(oid: Oid) -> String {
        format!("weir/{oid}/wal")
    }

    pub(super) async fn locked(&self) -> Result<OwnedMutexGuard<Ledger>> {
        let guard = Arc::clone(&self.lock).lock_owned().await;
        if guard.dropped {
            return Err(Error::undefined_table(&self.name));
        }
        Ok(guard)
    }
}

/// Writes a table's tail to storage; what `lake` holds afterwards.
pub(super) async fn flush(core: Arc<Core>, table: Arc<Owned>) -> Result<Lsn> {
    let mut ledger = table.locked().await?;
    flush_locked(&core, &table, &mut ledger).await
}

pub(super) async fn flush_locked(core: &Core, table: &Owned, ledger: &mut Ledger) -> Result<Lsn> {
    let Some(captured) = core.capture(table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    let rows_end = captured.tail.last().map(|last| last.hi);
    let marks_end = captured.marks.iter().map(|(lsn, _)| *lsn).max();
    let Some(target) = rows_end.max(marks_end) else {
        return Ok(captured.flushed);
    };
    crash_point("flush-before-parquet");
    let lake = captured.lake.refreshed().await?;
    // A change may have been committed by a statement that ended before it could publish it.
    let counts = match lake.version == captured.lake.version {
        true => None,
        false => Some(counts_of(&lake, table.oid).await?),
    };
    // An earlier attempt may have landed although it reported an error.
    let stored = if ledger.uncertain || lake.version != captured.lake.version {
        let found = lake.txn_version(&Owned::wal_app(table.oid)).await?;
        found.map_or(captured.flushed, |v| captured.flushed.max(Lsn(v)))
    } else {
        captured.flushed
    };
    let rows: Vec<RecordBatch> = captured
        .tail
        .iter()
        .filter_map(|batch| tail::above(batch, stored))
        .map(|batch: TailBatch| tail::conform(&batch.batch, &lake.schema))
        .collect::<Result<_>>()?;
    // a commit that landed has the positions of its source up to where it went
    let marks: Vec<(String, i64)> = captured
        .marks
        .into_iter()
        .filter(|(lsn, _)| *lsn > stored)
        .map(|(_, mark)| mark)
        .collect();
    let target = target.max(stored);
    let lake = if rows.is_empty() && marks.is_empty() {
        lake
    } else {
        ledger.uncertain = true;
        let adds = lake::write_rows(&lake, rows).await?;
        crash_point("flush-after-data-fsync-before-commit");
        let commit = Commit {
            adds,
            txn: Some((Owned::wal_app(table.oid), target.0)),
            marks,
            ..Commit::default()
        };
        lake::commit(&lake, commit).await?
    };
    crash_point("flush-after-commit-before-publish");
    ledger.uncertain = false;
    core.stored(table.oid, lake, target, counts)?;
    Ok(target)
}

/// A piece of an ordinary table's append: rows, or the word that all were sent.
pub(super) enum Piece {
    Rows(RecordBatch),
    End,
}

/// Appends to an ordinary table what arrives on `pieces`, in one commit. Without [`Piece::End`]
/// the sender gave up, and nothing is committed.
pub(super) async fn append(
    core: Arc<Core>,
    table: Arc<Owned>,
    pieces: mpsc::Receiver<Piece>,
) -> Result<u64> {
    let head = core.head();
    let Some(table_head) = head.tables.get(&table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    let planned = Arc::clone(&table_head.lake);
    let schema = Arc::clone(&planned.schema);
    let rows = std::sync::atomic::AtomicU64::new(0);
    let batches = stream::unfold((pieces, false), |(mut pieces, over)| async move {
        if over {
            return None;
        }
        match pieces.recv().await {
            Some(Piece::Rows(batch)) => Some((Ok(batch), (pieces, false))),
            Some(Piece::End) => None,
            None => Some((Err(canceled()), (pieces, true))),
        }
    })
    .map(|batch| {
        let batch = tail::conform(&batch?, &schema)?;
        rows.fetch_add(
            batch.num_rows() as u64,
            std::sync::atomic::Ordering::Relaxed,
        );
        Ok(batch)
    });
    let _writing = core.in_use.write();
    let adds = lake::write_files(&planned, std::pin::pin!(batches)).await?;
    let rows = rows.into_inner();
    if adds.is_empty() {
        return Ok(0);
    }
    crash_point("append-after-data-fsync-before-commit");
    let _ledger = table.locked().await?;
    let lake = newest(&core, &table).await?;
    let counts = match core.head().tables.get(&table.oid) {
        Some(known) if known.lake.version == lake.version => None,
        _ => Some(counts_of(&lake, table.oid).await?),
    };
    if lake.schema != planned.schema || lake.partition_by != planned.partition_by {
        return Err(Error::refused(
            SqlState::SERIALIZATION_FAILURE,
            format!("table \"{}\" was altered by another statement", table.name),
        ));
    }
    let app = format!("weir/{}/append", table.oid);
    let before = lake.txn_version(&app).await?.unwrap_or(0);
    let commit = Commit {
        adds,
        txn: Some((app, before + 1)),
        ..Commit::default()
    };
    let lake = lake::commit(&lake, commit).await?;
    crash_point("append-after-commit-before-publish");
    core.stored(table.oid, lake, Lsn::default(), counts)?;
    Ok(rows)
}

/// Gives `change` the newest state of a table, alone with it, and publishes what it made of it.
pub(super) async fn exclusive<T, F, Fut>(core: &Core, table: &Owned, change: F) -> Result<T>
where
    F: FnOnce(DeltaTable) -> Fut,
    Fut: Future<Output = Result<(DeltaTable, T)>>,
{
    let mut ledger = table.locked().await?;
    if table.streaming {
        flush_locked(core, table, &mut ledger).await?;
    }
    let before = newest(core, table).await?;
    match change(before.table.clone()).await {
        Ok((after, result)) => {
            publish_change(core, table.oid, before.with_table(after)?).await?;
            Ok(result)
        }
        Err(e) => {
            // It may have committed before it failed.
            if let Ok(after) = before.refreshed().await {
                publish_change(core, table.oid, after).await?;
            }
            Err(e)
        }
    }
}

/// Changes a table's columns: gives `change` the newest state, alone with it, and publishes the one it
/// made, if it made one. With `still` there is no tail meanwhile, and no row of before comes after.
pub(super) async fn alter<F, Fut>(core: &Core, table: &Owned, still: bool, change: F) -> Result<()>
where
    F: FnOnce(LakeSnapshot) -> Fut,
    Fut: Future<Output = Result<Option<LakeSnapshot>>>,
{
    // before the lock: an append may hold the gate while it waits for a flush to make room
    let _gate = match still {
        true => Some(table.gate.write().await),
        false => None,
    };
    let mut ledger = table.locked().await?;
    if still && table.streaming {
        flush_locked(core, table, &mut ledger).await?;
    }
    let before = newest(core, table).await?;
    match change(before.clone()).await {
        Ok(None) => Ok(()),
        Ok(Some(after)) => core.stored(table.oid, after, Lsn::default(), None),
        Err(e) => {
            // it may have committed before it failed
            if let Ok(after) = before.refreshed().await {
                core.stored(table.oid, after, Lsn::default(), None)?;
            }
            Err(e)
        }
    }
}

async fn publish_change(core: &Core, oid: Oid, lake: LakeSnapshot) -> Result<()> {
    let counts = counts_of(&lake, oid).await?;
    core.stored(oid, lake, Lsn::default(), Some(counts))
}

/// Which runs of a view's state a new one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaces {
    /// None: it is added.
    Nothing,
    /// All of them.
    Everything,
    /// Those in these files.
    Files(BTreeSet<String>),
}

/// Rows on their way into storage.
pub struct Rows(BoxStream<'static, Result<RecordBatch>>);

impl Rows {
    /// What a stream gives.
    pub fn new(rows: BoxStream<'static, Result<RecordBatch>>) -> Self {
        Self(rows)
    }

    /// The stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        self.0
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

impl From<Vec<RecordBatch>> for Rows {
    fn from(batches: Vec<RecordBatch>) -> Self {
        Self(stream::iter(batches.into_iter().map(Ok)).boxed())
    }
}

/// One change of a view's state.
#[derive(Debug)]
pub struct StateChange {
    /// The streaming table whose positions it counts (any of them: there is one log).
    pub source: Oid,
    /// Rows of the run, computed already: they are read under the lock of the state.
    pub rows: Rows,
    /// What they take the place of.
    pub replaces: Replaces,
    /// [`ViewHead::run`] of the state it was computed over.
    pub base: i64,
    /// The state is good for source rows up to here afterwards.
    pub durable: Lsn,
    /// Epochs of all source tables it was made from.
    pub epochs: BTreeMap<Oid, i64>,
    /// What the tables' retention had dropped when the state was last made from all their rows.
    pub drops: BTreeMap<Oid, i64>,
    /// The view's floor afterwards.
    pub floor: Floor,
    /// When it was computed, in microseconds since the Unix epoch.
    pub at: i64,
}

/// Makes one change of a view's state. When the state is not the one that the change was computed
/// over, because an earlier commit landed although it reported an error, what is there is published
/// instead: the caller looks at the head and goes on from it.
pub(super) async fn commit_state(
    core: Arc<Core>,
    view: Arc<Owned>,
    change: StateChange,
) -> Result<()> {
    let _ledger = view.locked().await?;
    let head = core.head();
    let Some(before) = head.views.get(&view.oid) else {
        return Err(Error::undefined_table(&view.name));
    };
    crash_point("state-before-parquet");
    let lake = before.state.refreshed().await?;
    let sources: Vec<Oid> = change.epochs.keys().copied().collect();
    let apps = StateApps::new(view.oid, change.source, &sources);
    let stored = match lake.version == before.state.version {
        true => ViewHead::clone(before),
        false => apps.read(lake.clone()).await?,
    };
    if stored.run != change.base {
        core.put_view(view.oid, stored);
        return Ok(());
    }
    let schema = Arc::clone(&lake.schema);
    let rows = change
        .rows
        .into_stream()
        .map(move |batch| tail::conform(&batch?, &schema));
    let adds = lake::write_files(&lake, rows).await?;
    let goes = |path: &str| match &change.replaces {
        Replaces::Nothing => false,
        Replaces::Everything => true,
        Replaces::Files(files) => files.contains(path),
    };
    let removes = lake
        .table
        .snapshot()?
        .log_data()
        .iter()
        .filter(|file| goes(&file.path()))
        .map(|file| file.remove_action(true))
        .collect();
    crash_point("state-after-data-fsync-before-commit");
    let mut after = ViewHead {
        state: Arc::new(lake.clone()),
        durable: change.durable,
        epochs: change.epochs,
        drops: change.drops,
        floor: change.floor,
        run: change.base + 1,
        refreshed_at: Some(change.at),
    };
    let commit = Commit {
        adds,
        removes,
        txn: Some((apps.run.clone(), after.run)),
        marks: apps.marks(&after),
        ..Commit::default()
    };
    after.state = Arc::new(lake::commit(&lake, commit).await?);
    crash_point("state-after-commit-before-publish");
    core.put_view(view.oid, after);
    Ok(())
}

/// Where a view's state keeps its positions: application versions of its Delta log.
pub(super) struct StateApps {
    run: String,
    at: String,
    durable: String,
    epochs: Vec<(Oid, String)>,
    drops: Vec<(Oid, String)>,
    floor: [String; 3],
}

impl StateApps {
    pub(super) fn new(view: Oid, source: Oid, sources: &[Oid]) -> Self {
        let epoch = |oid: &Oid| (*oid, format!("mv/{view}/{oid}/epoch"));
        let drops = |oid: &Oid| (*oid, format!("mv/{view}/{oid}/drops"));
        Self {
            run: format!("mv/{view}/run"),
            at: format!("mv/{view}/at"),
            durable: format!("mv/{view}/{source}"),
            epochs: sources.iter().map(epoch).collect(),
            drops: sources.iter().map(drops).collect(),
            floor: ["floor", "floor/from", "floor/late"].map(|what| format!("mv/{view}/{what}")),
        }
    }

    /// The state with the positions that its log says.
    pub(super) async fn read(&self, lake: LakeSnapshot) -> Result<ViewHead> {
        let mut epochs = BTreeMap::new();
        for (oid, app) in &self.epochs {
            epochs.insert(*oid, lake.txn_version(app).await?.unwrap_or(0));
        }
        let mut drops = BTreeMap::new();
        for (oid, app) in &self.drops {
            drops.insert(*oid, lake.txn_version(app).await?.unwrap_or(0));
        }
        let [at, from, late] = &self.floor;
        let floor = match lake.txn_version(at).await? {
            None => Floor::default(),
            at => Floor {
                at,
                from: Lsn(lake.txn_version(from).await?.unwrap_or(0)),
                late: lake.txn_version(late).await?.unwrap_or(0),
            },
        };
        Ok(ViewHead {
            floor,
            durable: Lsn(lake.txn_version(&self.durable).await?.unwrap_or(0)),
            epochs,
            drops,
            run: lake.txn_version(&self.run).await?.unwrap_or(0),
            refreshed_at: lake.txn_version(&self.at).await?,
            state: Arc::new(lake),
        })
    }

    fn marks(&self, view: &ViewHead) -> Vec<(String, i64)> {
        let marks = |apps: &[(Oid, String)], counts: &BTreeMap<Oid, i64>| -> Vec<(String, i64)> {
            let mark = |(oid, app): &(Oid, String)| Some((app.clone(), *counts.get(oid)?));
            apps.iter().filter_map(mark).collect()
        };
        let floor = view.floor.at.into_iter().flat_map(|at| {
            let values = [at, view.floor.from.0, view.floor.late];
            self.floor.iter().cloned().zip(values)
        });
        [
            (self.durable.clone(), view.durable.0),
            (self.at.clone(), view.refreshed_at.unwrap_or_default()),
        ]
        .into_iter()
        .chain(marks(&self.epochs, &view.epochs))
        .chain(marks(&self.drops, &view.drops))
        .chain(floor)
        .collect()
    }
}

/// What a table's log counts.
pub(super) async fn counts_of(lake: &LakeSnapshot, oid: Oid) -> Result<Counts> {
    let count = async |app: String| Ok::<i64, Error>(lake.txn_version(&app).await?.unwrap_or(0));
    Ok(Counts {
        changes: changes_of(lake, oid).await?,
        upkeep: Upkeep {
            rewrites: count(rewrites_app(oid)).await?,
            drops: count(drops_app(oid)).await?,
        },
    })
}

/// How often stored rows of a table were changed, by its log.
pub(super) async fn changes_of(lake: &LakeSnapshot, oid: Oid) -> Result<i64> {
    Ok(lake.txn_version(&changes_app(oid)).await?.unwrap_or(0))
}

/// The application whose version counts a table's changes of stored rows.
pub(super) fn changes_app(oid: Oid) -> String {
    format!("weir/{oid}/changes")
}

/// The application whose version counts how often files were exchanged for others of the same rows.
pub(super) fn rewrites_app(oid: Oid) -> String {
    format!("weir/{oid}/rewrites")
}

/// The application whose version counts how often retention dropped rows.
pub(super) fn drops_app(oid: Oid) -> String {
    format!("weir/{oid}/drops")
}

pub(super) async fn newest(core: &Core, table: &Owned) -> Result<LakeSnapshot> {
    let head = core.head();
    let Some(table) = head.tables.get(&table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    table.lake.refreshed().await
}

/// Sends a stream's batches and then the word that it ended well.
pub(super) async fn feed<S>(mut batches: S, pieces: mpsc::Sender<Piece>) -> Result<()>
where
    S: Batches<Item = Result<RecordBatch>> + Unpin,
{
    while let Some(batch) = batches.next().await {
        // A writer that is gone says why itself.
        if pieces.send(Piece::Rows(batch?)).await.is_err() {
            return Ok(());
        }
    }
    let _ = pieces.send(Piece::End).await;
    Ok(())
}

fn canceled() -> Error {
    Error::refused(
        SqlState::QUERY_CANCELED,
        "the append was canceled before all rows were sent",
    )
}
