//! Merging small files and ordering rows. The rows stay what they are: views, tokens and older versions
//! notice nothing.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use catalog::Oid;
use datafusion::logical_expr::SortExpr;

use super::cluster::{self, MOST_COLUMNS};
use super::plan::{self, Bin};
use super::registry::{Amount, Compaction, Handle, Trigger};
use super::rows::{self, Wanted};
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::error::{Error, Result, SqlState};
use crate::stream::head::TableHead;
use crate::stream::{Exchange, Reason, Staged};
use crate::types::LSN;

/// Bytes that are rewritten before they are committed: what a cancelled job may lose.
const COMMIT_BYTES: u64 = 1 << 30;
/// Times an `OPTIMIZE` starts over when the table's files were exchanged under it.
const ATTEMPTS: usize = 5;

/// What `OPTIMIZE` asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Columns to order by; without any, small files are merged.
    pub order: Vec<String>,
    /// Only these files.
    pub among: Option<HashSet<String>>,
    /// How they were chosen, for the history.
    pub predicate: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// What went.
    pub before: Amount,
    /// What came.
    pub after: Amount,
}

/// Merges or orders a table's files now; `among` says which, over the table as it is then.
pub async fn optimize(engine: &Arc<Engine>, oid: Oid, wish: &Wish, job: &Handle) -> Result<Done> {
    let mut done = Done::default();
    for _ in 0..ATTEMPTS {
        let table = head(engine, oid)?;
        let files: Vec<_> = table
            .lake
            .files
            .iter()
            .filter(|f| {
                wish.among
                    .as_ref()
                    .is_none_or(|some| some.contains(&f.path))
            })
            .cloned()
            .collect();
        let (bins, kind) = match wish.order.is_empty() {
            true => (plan::full(&files), "optimize"),
            false => (plan::whole(&files), "zorder"),
        };
        if exchange(engine, &table, bins, wish, kind, job, &mut done).await? {
            return Ok(done);
        }
    }
    Err(Error::refused(
        SqlState::SERIALIZATION_FAILURE,
        "the table was changed by other statements again and again",
    ))
}

/// Merges the small files of a table when there are enough; says whether there was something to do.
pub(super) async fn merge_small(engine: &Arc<Engine>, oid: Oid, trigger: usize) -> Result<bool> {
    let plan = || {
        let table = head(engine, oid)?;
        let bins = plan::tiers(&table.lake.files, trigger);
        Ok::<_, Error>((table, bins))
    };
    if plan()?.1.is_empty() {
        return Ok(false);
    }
    let Some(_turn) = engine.jobs.turn_now(oid) else {
        return Ok(false);
    };
    let (table, bins) = plan()?;
    if bins.is_empty() {
        return Ok(false);
    }
    let job = engine.jobs.begin("compaction", oid, Trigger::Schedule);
    let wish = Wish::default();
    let mut done = Done::default();
    let result = exchange(engine, &table, bins, &wish, "compaction", &job, &mut done).await;
    job.end(&result, Some(told(&done)));
    result
}

/// One line about it.
pub fn told(done: &Done) -> String {
    format!("{} files became {}", done.before.files, done.after.files)
}

/// The table as it is now.
pub(super) fn head(engine: &Engine, oid: Oid) -> Result<Arc<TableHead>> {
    let head = engine.stream.head();
    let found = head.tables.get(&oid).cloned();
    found.ok_or_else(|| Error::undefined_table(&oid.to_string()))
}

/// False when the table has other files by now.
async fn exchange(
    engine: &Arc<Engine>,
    table: &Arc<TableHead>,
    bins: Vec<Bin>,
    wish: &Wish,
    kind: &'static str,
    job: &Handle,
    done: &mut Done,
) -> Result<bool> {
    job.expect(amount(&bins));
    let mut open = Open::default();
    let last = bins.len();
    for (number, bin) in bins.into_iter().enumerate() {
        job.check()?;
        let staged = rewritten(engine, table, &bin, wish, job).await?;
        open.bytes += bin.bytes();
        open.staged.push(staged);
        open.bins.push(bin);
        if open.bytes < COMMIT_BYTES && number + 1 < last {
            continue;
        }
        let open = std::mem::take(&mut open);
        if !commit(engine, table, open, wish, kind, job, done).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bins that are written and not committed.
#[derive(Debug, Default)]
struct Open {
    bins: Vec<Bin>,
    staged: Vec<Staged>,
    bytes: u64,
}

async fn commit(
    engine: &Arc<Engine>,
    table: &Arc<TableHead>,
    open: Open,
    wish: &Wish,
    kind: &'static str,
    job: &Handle,
    done: &mut Done,
) -> Result<bool> {
    let before = amount(&open.bins);
    let after = Amount {
        files: open.staged.iter().map(|s| s.files() as u64).sum(),
        rows: before.rows,
        bytes: open.staged.iter().map(Staged::bytes).sum(),
    };
    let removes: BTreeSet<String> = open
        .bins
        .iter()
        .flat_map(|bin| bin.files.iter().map(|f| f.path.clone()))
        .collect();
    let wanted = Exchange {
        base: Arc::clone(&table.lake),
        removes,
        staged: open.staged,
        reason: Reason::Compacted {
            predicate: wish.predicate.clone(),
        },
        guard: Box::new(|_| true),
    };
    let Some(version) = engine.stream.exchange(table.oid, wanted).await? else {
        return Ok(false);
    };
    job.advance(Amount { rows: 0, ..before });
    add(&mut done.before, before);
    add(&mut done.after, after);
    engine.jobs.compacted(Compaction {
        job: job.id(),
        object: table.oid,
        kind,
        started_at_micros: job.started_at(),
        ended_at_micros: now_micros(),
        before,
        after,
        version,
    });
    Ok(true)
}

/// A bin's rows in new files. The numbers of rows are compared: what cannot be, is not committed.
async fn rewritten(
    engine: &Arc<Engine>,
    table: &Arc<TableHead>,
    bin: &Bin,
    wish: &Wish,
    job: &Handle,
) -> Result<Staged> {
    let wanted = Wanted {
        order: order(engine, table, bin, wish, job).await?,
        ..Wanted::default()
    };
    let rows = rows::read(engine, table, &bin.files, wanted, job).await?;
    let staged = engine.stream.stage(&table.lake, rows).await?;
    match (staged.rows(), bin.rows()) {
        (Some(new), Some(old)) if new != old => Err(Error::Internal(format!(
            "{old} rows became {new} when files were merged"
        ))),
        _ => Ok(staged),
    }
}

async fn order(
    engine: &Arc<Engine>,
    table: &Arc<TableHead>,
    bin: &Bin,
    wish: &Wish,
    job: &Handle,
) -> Result<Vec<SortExpr>> {
    if wish.order.is_empty() {
        // neighbours on the log stay neighbours: ranges of positions are found by statistics; files that
        // follow each other need no sort, and so no memory
        let sort = table.streaming && !bin.follows_the_log();
        let lsn = sort.then(|| rows::column(LSN).sort(true, false));
        return Ok(lsn.into_iter().collect());
    }
    let wanted = Wanted {
        columns: wish.order.clone(),
        // they are counted when they are written, not when they are looked at
        uncounted: true,
        ..Wanted::default()
    };
    let sampled = rows::read(engine, table, &bin.files, wanted, job).await?;
    cluster::order(&wish.order, sampled).await
}

/// Refuses columns that rows cannot be ordered by.
///
/// # Errors
/// 42703, 42P16, 0A000.
pub fn check_order(table: &TableHead, columns: &[String]) -> Result<()> {
    if columns.len() > MOST_COLUMNS {
        return Err(Error::unsupported(
            format!("ZORDER BY of more than {MOST_COLUMNS} columns is not supported"),
            "with so many columns each one is hardly ordered: name those that queries filter by",
        ));
    }
    let mut seen = HashSet::new();
    for name in columns {
        let Ok(field) = table.schema.field_with_name(name) else {
            return Err(Error::refused(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" does not exist"),
            ));
        };
        if !seen.insert(name) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        if table.lake.partition_by.contains(name) {
            return Err(Error::refused(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("column \"{name}\" is a partition column"),
            )
            .with_hint("rows of a partition have one value of it: leave it out"));
        }
        if !cluster::orders(field.data_type()) {
            return Err(Error::unsupported(
                format!("ZORDER BY column \"{name}\" is not supported"),
                "its type has no order",
            ));
        }
    }
    Ok(())
}

fn amount(bins: &[Bin]) -> Amount {
    let rows = bins.iter().filter_map(Bin::rows);
    Amount {
        files: bins.iter().map(|b| b.files.len() as u64).sum(),
        rows: rows.sum::<usize>() as u64,
        bytes: bins.iter().map(Bin::bytes).sum(),
    }
}

fn add(to: &mut Amount, more: Amount) {
    to.files += more.files;
    to.rows += more.rows;
    to.bytes += more.bytes;
}
