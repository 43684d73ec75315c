//! Rows whose retention is over leave their table; materialized views keep what they have counted, as long
//! as their own retention says.
//!
//! A row is old by the table's event time, or, without one, by the time it came. Before rows go, every
//! view over the table has stored what it makes of them, and nothing goes that a view has not. The
//! commit does not count as a change of rows, so views stand; one that had to be made anew from all rows
//! could not be any more, which is why such views and retention exclude each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use catalog::{Oid, Relation, RelationKind, Snapshot, Strategy};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};

use super::compact::head;
use super::registry::{Amount, Handle, Trigger};
use super::rows::{self, Wanted};
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::engine::open::parse_duration;
use crate::error::{Error, Result};
use crate::lake::LakeFile;
use crate::stream::head::{DbHead, Lsn, TableHead};
use crate::stream::{Exchange, Reason, Staged};
use crate::types::LSN;
use crate::views::refresh::By;
use crate::views::{Kept, refresh};

/// A file is written again for rows that are old for this part of the retention, not for each one.
const PATIENCE: u32 = 10;
/// And for rows that are old for this long at the latest, in microseconds.
const MOST_PATIENCE: i64 = 24 * 60 * 60 * 1_000_000;
/// A view's floor rises by this part of its retention at least.
const FLOOR_STEPS: u32 = 100;
/// And by this much at the latest.
const MOST_FLOOR_STEP: Duration = Duration::from_secs(60 * 60);
/// Bytes that are written again in one commit.
const COMMIT_BYTES: u64 = 1 << 30;

/// How long a table's rows stay, when it says so.
///
/// # Errors
/// 22023 for a text that is no duration.
pub fn of(relation: &Relation) -> Result<Option<Duration>> {
    parse(relation.options.get("retention").map(String::as_str))
}

/// Reads the option's text: a duration, or `none`.
///
/// # Errors
/// 22023.
pub fn parse(text: Option<&str>) -> Result<Option<Duration>> {
    match text.map(str::trim) {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("off") => {
            Ok(None)
        }
        Some(text) => parse_duration(text).map(Some),
    }
}

/// Refuses a retention for a table that a view is made anew from.
///
/// # Errors
/// 0A000 naming the view.
pub fn check_table(catalog: &Snapshot, table: &Relation) -> Result<()> {
    for view in &catalog.relations {
        let needs = Kept::of(view)?.filter(|k| refresh::needs_rows(k.strategy));
        if needs.is_some_and(|k| k.sources.contains(&table.oid)) {
            return Err(excluded(&view.name, &table.name));
        }
    }
    Ok(())
}

/// Refuses a view that is made anew from tables with a retention.
///
/// # Errors
/// 0A000 naming the table.
pub fn check_view(
    catalog: &Snapshot,
    name: &str,
    strategy: Strategy,
    sources: &[Oid],
) -> Result<()> {
    if !refresh::needs_rows(strategy) {
        return Ok(());
    }
    for table in sources
        .iter()
        .filter_map(|oid| catalog.relation_by_oid(*oid))
    {
        if of(table)?.is_some() {
            return Err(excluded(name, &table.name));
        }
    }
    Ok(())
}

fn excluded(view: &str, table: &str) -> Error {
    Error::unsupported(
        format!("materialized view \"{view}\" cannot be kept over a table with a retention"),
        "write the query so that it is kept incrementally, use an ordinary view, or set retention = 'none'",
    )
    .with_detail(format!(
        "it is made again from the rows of \"{table}\", and would lose those that have been dropped"
    ))
}

/// What is old.
#[derive(Debug, Clone)]
struct Age {
    /// The event time; without one the position decides.
    column: Option<String>,
    /// Rows below are old: a time in microseconds, or the first young position.
    cutoff: i64,
    /// Files with rows below are written again.
    overdue: i64,
}

impl Age {
    fn of(engine: &Engine, relation: &Relation, retention: Duration) -> Self {
        let now = now_micros();
        let keep = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
        let cutoff = now.saturating_sub(keep);
        let overdue = cutoff.saturating_sub((keep / i64::from(PATIENCE)).min(MOST_PATIENCE));
        let first_young = |at: i64| engine.clock.position_at(at).0 + 1;
        match relation.options.get("event_time") {
            Some(column) => Self {
                column: Some(column.clone()),
                cutoff,
                overdue,
            },
            None => Self {
                column: None,
                cutoff: first_young(cutoff),
                overdue: first_young(overdue),
            },
        }
    }

    /// Lowest and highest age in a file, and whether every row has one; nothing when unknown.
    fn range(&self, table: &TableHead, file: &LakeFile) -> Option<(i64, i64, bool)> {
        let column = self.column.as_deref().unwrap_or(LSN);
        let at = table.lake.schema.index_of(column).ok()?;
        let known = file.statistics.column_statistics.get(at)?;
        let low = number(known.min_value.get_value()?)?;
        let high = number(known.max_value.get_value()?)?;
        Some((low, high, known.null_count.get_value() == Some(&0)))
    }

    /// True of rows that stay; those above `upto` do.
    fn stays(&self, table: &TableHead, upto: Lsn) -> Result<Expr> {
        let above = rows::column(LSN).gt(lit(upto.0));
        let young = match &self.column {
            None => rows::column(LSN).gt_eq(lit(self.cutoff)),
            Some(name) => {
                let ty = table.lake.schema.field_with_name(name)?.data_type();
                let zone = match ty {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    other => {
                        return Err(Error::Internal(format!("event time of type {other}")));
                    }
                };
                let cutoff = lit(ScalarValue::TimestampMicrosecond(Some(self.cutoff), zone));
                let column = rows::column(name);
                column.clone().is_null().or(column.gt_eq(cutoff))
            }
        };
        Ok(young.or(above))
    }

    fn told(&self) -> String {
        match &self.column {
            Some(name) => format!("{name} < {}", text_of(self.cutoff)),
            None => format!("{LSN} < {}", self.cutoff),
        }
    }
}

fn text_of(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |t| format!("'{}'", t.to_rfc3339()))
}

fn number(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(n) | ScalarValue::TimestampMicrosecond(n, _) => *n,
        _ => None,
    }
}

/// Files that have old rows.
#[derive(Debug, Default)]
struct Old {
    /// Every row of them is old.
    whole: Vec<LakeFile>,
    /// Some rows are; they are written again without them.
    partly: Vec<LakeFile>,
    /// The highest position in them.
    newest: Lsn,
}

/// What of a table's files is old. Positions above `upto` stay.
fn old(table: &TableHead, age: &Age, upto: Lsn) -> Old {
    let mut old = Old::default();
    let mut bytes = 0;
    for file in table.lake.files.iter() {
        let Some((low, high, all)) = age.range(table, file) else {
            continue;
        };
        let positions = file.statistics.column_statistics.first();
        let bound = |value: Option<&ScalarValue>| value.and_then(number);
        let first = bound(positions.and_then(|c| c.min_value.get_value()));
        let last = bound(positions.and_then(|c| c.max_value.get_value()));
        let (Some(first), Some(last)) = (first, last) else {
            continue;
        };
        if first > upto.0 {
            continue;
        }
        if all && high < age.cutoff && last <= upto.0 {
            old.whole.push(file.clone());
        } else if low < age.overdue && bytes < COMMIT_BYTES {
            bytes += file.size;
            old.partly.push(file.clone());
        } else {
            continue;
        }
        old.newest = old.newest.max(Lsn(last));
    }
    old
}

/// Drops a table's old rows; says whether there were files to look into.
pub(super) async fn enforce(engine: &Arc<Engine>, oid: Oid) -> Result<bool> {
    let catalog = engine.catalog();
    let Some(relation) = catalog.relation_by_oid(oid) else {
        return Ok(false);
    };
    let Some(retention) = of(relation)?.filter(|_| relation.kind == RelationKind::StreamingTable)
    else {
        return Ok(false);
    };
    let Some(_turn) = engine.jobs.turn_now(oid) else {
        return Ok(false);
    };
    let age = Age::of(engine, relation, retention);
    let table = head(engine, oid)?;
    let wanted = old(&table, &age, table.flushed);
    if wanted.whole.is_empty() && wanted.partly.is_empty() {
        return Ok(false);
    }
    let counted = counted(engine, oid, wanted.newest).await?;
    // the views may have taken a while, and compaction has other files meanwhile
    let table = head(engine, oid)?;
    let upto = counted.min(table.flushed);
    let found = old(&table, &age, upto);
    if found.whole.is_empty() && found.partly.is_empty() {
        return Ok(false);
    }
    let job = engine.jobs.begin("retention", oid, Trigger::Schedule);
    let result = drop_rows(engine, &table, &age, found, upto, &job).await;
    let detail = match &result {
        Ok(Some(rows)) => Some(format!("{rows} rows dropped")),
        Ok(None) => Some("the table was changed meanwhile".to_owned()),
        Err(_) => None,
    };
    job.end(&result, detail);
    result.map(|dropped| dropped.is_some())
}

/// Raises a view's floor to its retention's; says whether it did. Rows that are there count first: only
/// what comes later can be too late. State goes when some of it is old for a part of the retention.
pub(super) async fn of_view(engine: &Arc<Engine>, oid: Oid) -> Result<bool> {
    let due = |keep: Duration, patience: Duration| {
        let to = refresh::oldest(keep, now_micros());
        (to, refresh::oldest(patience, to))
    };
    let catalog = engine.catalog();
    let kept = catalog.relation_by_oid(oid).map(Kept::of).transpose()?;
    let Some(kept) = kept.flatten().filter(|kept| kept.ages_by.is_some()) else {
        return Ok(false);
    };
    let Some(keep) = kept.options.retention else {
        return Ok(false);
    };
    let (_, next) = due(keep, (keep / FLOOR_STEPS).min(MOST_FLOOR_STEP));
    let head = engine.stream.head();
    let Some(floor) = head.views.get(&oid).map(|view| view.floor.at) else {
        return Ok(false);
    };
    if floor.is_some_and(|at| at > next) {
        return Ok(false);
    }
    let Some(_turn) = engine.jobs.turn_now(oid) else {
        return Ok(false);
    };
    if kept.options.schedule.is_none() {
        engine.refresher.refresh(oid, By::Schedule).await?;
    }
    let job = engine.jobs.begin("retention", oid, Trigger::Schedule);
    let most = Duration::from_micros(MOST_PATIENCE.unsigned_abs());
    let (to, overdue) = due(keep, (keep / PATIENCE).min(most));
    let result = engine.refresher.raise_floor(oid, to, overdue).await;
    let detail = match &result {
        Ok(Some(gone)) => Some(format!("{gone} stored rows dropped, floor {}", text_of(to))),
        Ok(None) | Err(_) => None,
    };
    job.end(&result, detail);
    result.map(|gone| gone.is_some())
}

/// How far every view over a table has counted its rows; views without a schedule are stored first.
async fn counted(engine: &Arc<Engine>, oid: Oid, wanted: Lsn) -> Result<Lsn> {
    for kept in views_over(&engine.catalog(), oid)? {
        let exact = kept.options.schedule.is_none();
        if exact && refresh::absorbed(&kept, &engine.stream.head()) < wanted {
            engine.refresher.refresh(kept.oid, By::Schedule).await?;
        }
    }
    let least = least(&views_over(&engine.catalog(), oid)?, &engine.stream.head());
    Ok(least.unwrap_or(Lsn(i64::MAX)))
}

fn least(views: &[Kept], head: &DbHead) -> Option<Lsn> {
    views.iter().map(|kept| refresh::absorbed(kept, head)).min()
}

fn views_over(catalog: &Snapshot, oid: Oid) -> Result<Vec<Kept>> {
    let mut views = Vec::new();
    for relation in &catalog.relations {
        views.extend(Kept::of(relation)?.filter(|k| k.sources.contains(&oid)));
    }
    Ok(views)
}

/// The number of rows that went; nothing when the table has other files by now.
async fn drop_rows(
    engine: &Arc<Engine>,
    table: &Arc<TableHead>,
    age: &Age,
    found: Old,
    upto: Lsn,
    job: &Handle,
) -> Result<Option<usize>> {
    let all = || found.whole.iter().chain(&found.partly);
    let rows = |files: &mut dyn Iterator<Item = &LakeFile>| -> usize {
        let known = files.filter_map(|f| f.statistics.num_rows.get_value().copied());
        known.sum()
    };
    let before = Amount {
        files: all().count() as u64,
        rows: rows(&mut all()) as u64,
        bytes: all().map(|f| f.size).sum(),
    };
    job.expect(before);
    let mut staged = Vec::new();
    if !found.partly.is_empty() {
        let wanted = Wanted {
            filter: Some(age.stays(table, upto)?),
            order: vec![rows::column(LSN).sort(true, false)],
            ..Wanted::default()
        };
        let kept = rows::read(engine, table, &found.partly, wanted, job).await?;
        staged.push(engine.stream.stage(&table.lake, kept).await?);
    }
    let kept: usize = staged.iter().filter_map(Staged::rows).sum();
    let gone = rows(&mut all()).saturating_sub(kept);
    if gone == 0 {
        // what is old in these files, no view has counted yet
        for files in staged {
            files.discard(&table.lake).await;
        }
        return Ok(Some(0));
    }
    let removes: BTreeSet<String> = all().map(|f| f.path.clone()).collect();
    job.check()?;
    let (database, oid) = (Arc::clone(engine), table.oid);
    let wanted = Exchange {
        base: Arc::clone(&table.lake),
        removes,
        staged,
        reason: Reason::Expired {
            predicate: age.told(),
        },
        // a view may have come, or been told to follow, since the last look
        guard: Box::new(move |head| match views_over(&database.catalog(), oid) {
            Ok(views) => least(&views, head).is_none_or(|counted| counted >= upto),
            Err(_) => false,
        }),
    };
    let made = engine.stream.exchange(table.oid, wanted).await?;
    job.advance(Amount { rows: 0, ..before });
    Ok(made.map(|_| gone))
}
