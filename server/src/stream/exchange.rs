//! Stored files exchanged for others: the same rows in fewer files, or without those that are too old.
//!
//! Rows are read and written outside the table's lock, over a state that is not the newest any more when
//! they are done. The commit is made inside it, over the newest state, and only when every file that
//! goes is still part of the table: so no row is lost or doubled, whatever happened meanwhile.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use deltalake::kernel::Add;
use futures::{Stream as Batches, StreamExt};
use tokio_util::sync::CancellationToken;

use super::anchor::published;
use super::committer::{self, Ledger, Owned, drops_app, flush_locked, newest, rewrites_app};
use super::core::{Core, Counts};
use super::head::{DbHead, Lsn};
use super::in_use::{Writing, now_ms};
use super::tail;
use crate::error::Result;
use crate::lake::crash::crash_point;
use crate::lake::{self, Commit, Garbage, Horizon, LakeSnapshot, Operation};

/// Files the log does not know are left alone when they are not older than this, in milliseconds: clocks
/// of stores differ from ours.
const SLACK_MS: i64 = 60 * 60 * 1000;

/// Files of a table that are written and not part of it yet. A vacuum leaves them alone meanwhile.
#[derive(Debug)]
pub struct Staged {
    adds: Vec<Add>,
    _writing: Writing,
}

impl Staged {
    /// How many files.
    pub fn files(&self) -> usize {
        self.adds.len()
    }

    /// Their rows, by what was noted when they were written.
    pub fn rows(&self) -> Option<usize> {
        let rows = self.adds.iter().map(|add| {
            let stats: serde_json::Value = serde_json::from_str(add.stats.as_deref()?).ok()?;
            usize::try_from(stats.get("numRecords")?.as_u64()?).ok()
        });
        rows.sum()
    }

    /// Deletes them: they are not needed after all.
    pub async fn discard(self, base: &LakeSnapshot) {
        lake::discard(base, &self.adds).await;
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = self.adds.iter().map(|add| add.size);
        bytes.sum::<i64>().cast_unsigned()
    }
}

/// Why files are exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// They become fewer or better ordered; the rows are the same.
    Compacted {
        /// Which files were looked at, for the history.
        predicate: Option<String>,
    },
    /// Rows whose retention is over are left out.
    Expired {
        /// Which, for the history.
        predicate: String,
    },
}

/// Asked inside the table's lock, over the newest head: no leaves everything as it is.
pub type Guard = Box<dyn FnOnce(&DbHead) -> bool + Send>;

/// An exchange of files, ready to be committed.
pub struct Exchange {
    /// The state whose files were read.
    pub base: Arc<LakeSnapshot>,
    /// Paths of the files that go.
    pub removes: BTreeSet<String>,
    /// What takes their place.
    pub staged: Vec<Staged>,
    /// Why.
    pub reason: Reason,
    /// Whether it may be made still.
    pub guard: Guard,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("removes", &self.removes.len())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Writes rows as files of a table.
pub(super) async fn stage<S>(core: Arc<Core>, base: Arc<LakeSnapshot>, rows: S) -> Result<Staged>
where
    S: Batches<Item = Result<RecordBatch>> + Send + 'static,
{
    let writing = core.in_use.write();
    let work = async move {
        let schema = Arc::clone(&base.schema);
        let rows = rows.map(move |batch| tail::conform(&batch?, &schema));
        lake::write_files(&base, std::pin::pin!(rows)).await
    };
    Ok(Staged {
        adds: core.compute.run(work).await?,
        _writing: writing,
    })
}

/// Makes the exchange; the version it has, or nothing when the table has moved on.
pub(super) async fn exchange(
    core: Arc<Core>,
    table: Arc<Owned>,
    exchange: Exchange,
    stop: CancellationToken,
) -> Result<Option<i64>> {
    let base = Arc::clone(&exchange.base);
    let adds: Vec<Add> = exchange
        .staged
        .iter()
        .flat_map(|s| s.adds.clone())
        .collect();
    let made = locked(&core, &table, exchange, adds.clone(), &stop).await;
    if matches!(made, Ok(None)) {
        lake::discard(&base, &adds).await;
    }
    made
}

async fn locked(
    core: &Core,
    table: &Owned,
    exchange: Exchange,
    mut adds: Vec<Add>,
    stop: &CancellationToken,
) -> Result<Option<i64>> {
    let mut ledger = table.locked().await?;
    if stop.is_cancelled() {
        // shutdown waits for who has the lock, not for who comes after it
        return Ok(None);
    }
    let (lake, mut counts) = settled(core, table, &mut ledger).await?;
    let active: HashSet<&str> = lake.files.iter().map(|f| f.path.as_str()).collect();
    let there = exchange.removes.iter().all(|p| active.contains(p.as_str()));
    let alike =
        lake.schema == exchange.base.schema && lake.partition_by == exchange.base.partition_by;
    if !there || !alike || !(exchange.guard)(&core.head()) {
        return Ok(None);
    }
    let expired = matches!(exchange.reason, Reason::Expired { .. });
    for add in &mut adds {
        add.data_change = expired;
    }
    let removes = lake
        .table
        .snapshot()?
        .log_data()
        .iter()
        .filter(|file| exchange.removes.contains(file.path().as_ref()))
        .map(|file| file.remove_action(expired))
        .collect();
    let (txn, operation, [before, after]) = match exchange.reason {
        Reason::Compacted { predicate } => {
            counts.upkeep.rewrites += 1;
            (
                (rewrites_app(table.oid), counts.upkeep.rewrites),
                Operation::Optimize { predicate },
                [
                    "compact-after-data-fsync-before-commit",
                    "compact-after-commit-before-publish",
                ],
            )
        }
        Reason::Expired { predicate } => {
            counts.upkeep.drops += 1;
            (
                (drops_app(table.oid), counts.upkeep.drops),
                Operation::Expire { predicate },
                [
                    "expire-after-data-fsync-before-commit",
                    "expire-after-commit-before-publish",
                ],
            )
        }
    };
    crash_point(before);
    let commit = Commit {
        adds,
        removes,
        txn: Some(txn),
        operation,
        ..Commit::default()
    };
    let after_commit = lake::commit(&lake, commit).await?;
    crash_point(after);
    let version = after_commit.version;
    core.stored(table.oid, after_commit, Lsn::default(), Some(counts))?;
    Ok(Some(version))
}

/// The newest state, with no commit of unknown outcome below it.
async fn settled(
    core: &Core,
    table: &Owned,
    ledger: &mut Ledger,
) -> Result<(LakeSnapshot, Counts)> {
    let mut lake = newest(core, table).await?;
    let known = |lake: &LakeSnapshot| {
        let head = core.head();
        let there = head.tables.get(&table.oid);
        there
            .filter(|t| t.lake.version == lake.version)
            .map(|t| Counts {
                changes: t.changes,
                upkeep: t.upkeep,
            })
    };
    if table.streaming && (ledger.uncertain || known(&lake).is_none()) {
        // rows of the tail may be in storage already: flushing finds out
        flush_locked(core, table, ledger).await?;
        lake = newest(core, table).await?;
    }
    let counts = match known(&lake) {
        Some(counts) => counts,
        None => committer::counts_of(&lake, table.oid).await?,
    };
    Ok((lake, counts))
}

/// Data files of a table or view state that nobody needs: not part of its newest state, in no plan, not
/// being written, and out of it for longer than `keep_ms`.
pub(super) async fn garbage(
    core: Arc<Core>,
    table: Arc<Owned>,
    keep_ms: i64,
) -> Result<(LakeSnapshot, Vec<Garbage>)> {
    let (lake, used, horizon) = {
        // who writes inside the lock has committed, who writes outside it is counted
        let _ledger = table.locked().await?;
        let published = published(&core, &table)?;
        let mut used = core.in_use.held(table.oid);
        used.extend(published.files.iter().map(|f| f.path.clone()));
        let now = now_ms();
        let removed_before = now.saturating_sub(keep_ms);
        let settled = core.in_use.writing_since().unwrap_or(now).min(now) - SLACK_MS;
        let horizon = Horizon {
            removed_before,
            unknown_before: removed_before.min(settled),
        };
        (published.refreshed().await?, used, horizon)
    };
    let garbage = lake::garbage(&lake, &used, horizon).await?;
    Ok((lake, garbage))
}
