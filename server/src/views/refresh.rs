//! Storing what a view lacks: new state for a range of positions, the whole anew, and many runs as one.
//!
//! Owns the order *read the head → compute → commit* per view, one at a time. Reads are exact without
//! it, except those of views with a schedule; it keeps them cheap.

mod compute;
mod expire;
mod locks;
mod rekey;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::{Oid, Strategy};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use locks::{Locks, Turn};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
pub use verify::Verdict;

use super::options::Kept;
use super::read::{is_current, newest};
use super::source::Range;
use crate::error::{Error, Result};
use crate::lake::LakeFile;
use crate::stream::head::{DbHead, Floor, Lsn, ViewHead};
use crate::stream::{Replaces, StateChange};

/// Positions that one run of states covers at most: bounds the rows held while it is made.
const STATES_SLICE: i64 = 1 << 22;
/// The same where runs hold the rows themselves.
const ROWS_SLICE: i64 = 1 << 19;
/// Files that a fold takes at least.
const LEAST_FOLDED: usize = 4;

/// Bytes of files that are folded before they are too many.
const MOST_SCATTERED: u64 = 128 << 20;

/// A view's query over the tables of one head.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The view's name, for messages.
    pub name: String,
    /// What to plan and run with.
    pub session: SessionState,
    /// The query: analyzed, not optimized, scans of the head's tables at its leaves.
    pub plan: LogicalPlan,
}

/// What refreshing needs from the engine and the log.
#[async_trait]
pub trait Host: std::fmt::Debug + Send + Sync {
    /// The newest head.
    fn head(&self) -> Arc<DbHead>;

    /// Every materialized view.
    fn views(&self) -> Vec<Kept>;

    /// One of them, while it is there.
    fn kept(&self, view: Oid) -> Option<Kept>;

    /// The view's query over that head, with the rights of its owner.
    async fn plan(&self, view: Oid, head: &Arc<DbHead>) -> Result<Planned>;

    /// Makes one change of a view's state and publishes state and position in one swap. A change that
    /// was computed over another state than the one that is there changes nothing.
    async fn commit_state(&self, view: Oid, change: StateChange) -> Result<()>;
}

/// How eagerly views are stored in the background.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time between two looks.
    pub every: Duration,
    /// Positions a view may lag before it is stored.
    pub lag: i64,
    /// Files a state may have before they are folded into one.
    pub files: usize,
    /// How long computing one run may take.
    pub deadline: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            lag: 20_000,
            files: 8,
            deadline: Duration::from_secs(300),
        }
    }
}

/// Stores views: on demand and in the background, one commit at a time per view.
#[derive(Debug)]
pub struct Refresher {
    host: Arc<dyn Host>,
    pace: Pace,
    locks: Locks,
    /// Told when a view may have something to do before the next look.
    work: Notify,
}

/// What is to be stored next.
#[derive(Debug)]
struct Step {
    range: Range,
    replace: bool,
}

impl Refresher {
    /// A refresher over a host.
    pub fn new(host: Arc<dyn Host>, pace: Pace) -> Self {
        Self {
            host,
            pace,
            locks: Locks::default(),
            work: Notify::new(),
        }
    }

    /// Looks for work soon: rows that views have counted were changed, or an option was.
    pub fn nudge(&self) {
        self.work.notify_one();
    }

    /// Stores everything the view's sources hold now. Gives the position it then stands at.
    pub async fn refresh(&self, view: Oid) -> Result<Lsn> {
        self.store(view, false).await
    }

    /// Makes the whole state anew from the rows the sources hold now. Gives the position it then
    /// stands at.
    pub async fn rebuild(&self, view: Oid) -> Result<Lsn> {
        self.store(view, true).await
    }

    async fn store(&self, view: Oid, mut anew: bool) -> Result<Lsn> {
        let mut turn = self.locks.hold(view).await;
        let mut target = None;
        let mut last_run = None;
        loop {
            let head = self.host.head();
            let (Some(kept), Some(state)) = (self.host.kept(view), head.views.get(&view)) else {
                return Ok(Lsn::default());
            };
            let target = *target.get_or_insert_with(|| newest(&kept, &head));
            let Some(step) = next(&kept, state, &head, target, anew) else {
                return Ok(state.durable);
            };
            if last_run == Some(state.run) {
                return Err(Error::Internal(format!(
                    "state of view {view} stands still"
                )));
            }
            last_run = Some(state.run);
            let planned = self.host.plan(view, &head).await?;
            if step.replace && state.holds_dropped_rows_of(&kept.sources, &head).is_some() {
                return Err(cannot_be_made_anew(&planned.name));
            }
            if step.replace
                && !anew
                && state.refreshed_at.is_some()
                && kept.strategy != Strategy::Full
            {
                let view = &planned.name;
                tracing::info!(%view, "materialized view made anew: what its sources held was changed");
            }
            let floor = floor_after(&kept, state, &step, target);
            let in_time = in_time_from(&kept, state, &step, floor);
            let (batches, late, replaces) = if kept.strategy == Strategy::Keyed && !step.replace {
                let work = rekey::rekey(&planned, &kept, state, step.range);
                let left = self.in_time(work).await?;
                (left.batches, 0, Replaces::Files(left.replaces))
            } else {
                let work = compute::run(&planned, &kept, state, step.range, in_time);
                let (batches, late) = self.in_time(work).await?;
                let replaces = match step.replace {
                    true => Replaces::Everything,
                    false => Replaces::Nothing,
                };
                (batches, late, replaces)
            };
            let change = StateChange {
                source: kept.source,
                batches,
                floor: match may_be_late(state, &step) {
                    // what was there before the floor is not late
                    false => floor,
                    true => Floor {
                        late: floor.late.saturating_add(late),
                        ..floor
                    },
                },
                replaces,
                base: state.run,
                durable: match kept.strategy {
                    Strategy::Full => head.visible,
                    _ => step.range.upto.unwrap_or(state.durable),
                },
                epochs: epochs(&kept, state, &head, &step),
                drops: drops(&kept, state, &head, &step),
                at: now(),
            };
            let host = Arc::clone(&self.host);
            turn = whole(turn, async move { host.commit_state(view, change).await }).await?;
            anew = false;
            if kept.strategy == Strategy::Full {
                return Ok(head.visible);
            }
        }
    }

    /// Folds the smallest runs of a view into one when they are too many, or hold most of its rows. Says
    /// whether it did.
    pub async fn compact(&self, view: Oid) -> Result<bool> {
        let turn = self.locks.hold(view).await;
        let head = self.host.head();
        let (Some(kept), Some(state)) = (self.host.kept(view), head.views.get(&view)) else {
            return Ok(false);
        };
        let files = &state.state.files;
        if !is_scattered(kept.strategy, files, self.pace.files) {
            return Ok(false);
        }
        let folded = smallest(files);
        let planned = self.host.plan(view, &head).await?;
        let batches = self
            .in_time(compute::fold(&planned, &kept, state, &folded))
            .await?;
        let change = StateChange {
            source: kept.source,
            batches,
            replaces: Replaces::Files(folded.into_iter().map(|f| f.path).collect()),
            base: state.run,
            durable: state.durable,
            epochs: state.epochs.clone(),
            drops: state.drops.clone(),
            floor: state.floor,
            at: state.refreshed_at.unwrap_or_else(now),
        };
        let host = Arc::clone(&self.host);
        whole(turn, async move { host.commit_state(view, change).await }).await?;
        Ok(true)
    }

    /// Lets a view's results from before `to` go: they are not shown any more, and where some are from
    /// before `overdue`, their state is dropped. Gives how many stored rows went; nothing when the view
    /// has no floor that could rise to there.
    ///
    /// # Errors
    /// As reading its state.
    pub async fn raise_floor(&self, view: Oid, to: i64, overdue: i64) -> Result<Option<usize>> {
        let turn = self.locks.hold(view).await;
        let head = self.host.head();
        let (Some(kept), Some(state)) = (self.host.kept(view), head.views.get(&view)) else {
            return Ok(None);
        };
        let rises = state.floor.at.is_none_or(|at| at < to);
        let Some(column) = kept
            .ages_by
            .filter(|_| rises && state.refreshed_at.is_some())
        else {
            return Ok(None);
        };
        let planned = self.host.plan(view, &head).await?;
        let work = expire::expire(&planned, &kept, state, (column, to, overdue));
        let left = self.in_time(work).await?;
        let change = StateChange {
            source: kept.source,
            batches: left.batches,
            replaces: Replaces::Files(left.replaces),
            base: state.run,
            durable: state.durable,
            epochs: state.epochs.clone(),
            drops: state.drops.clone(),
            floor: Floor {
                at: Some(to),
                from: state.floor.from.max(state.durable),
                ..state.floor
            },
            at: state.refreshed_at.unwrap_or_else(now),
        };
        let host = Arc::clone(&self.host);
        whole(turn, async move { host.commit_state(view, change).await }).await?;
        Ok(Some(left.gone))
    }

    /// Compares about so many keys of what a view stores with its sources, at one head.
    ///
    /// # Errors
    /// As reading them; 57014 when it takes too long.
    pub async fn verify(&self, view: Oid, keys: usize) -> Result<Verdict> {
        let head = self.host.head();
        let Some(kept) = self.host.kept(view) else {
            return Ok(Verdict::Skipped("it is gone"));
        };
        let planned = self.host.plan(view, &head).await?;
        self.in_time(verify::verify(&planned, &kept, &head, keys))
            .await
    }

    /// Keeps all views close to their sources until told to stop. A view that fails is logged and
    /// tried again at the next look; its reads stay exact meanwhile.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let pause = self.pause();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.work.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            for kept in self.host.views() {
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = self.keep(&kept) => done,
                };
                if let Err(e) = done {
                    tracing::warn!(view = %kept.oid, error = %e, "materialized view not stored");
                }
            }
        }
    }

    /// Until the next look, or the next view that is due.
    fn pause(&self) -> Duration {
        let head = self.host.head();
        let now = now();
        let due = self.host.views().into_iter().filter_map(|kept| {
            let state = head.views.get(&kept.oid)?;
            let due = due_at(&kept, state)?;
            Some(Duration::from_micros(
                due.saturating_sub(now).max(0).cast_unsigned(),
            ))
        });
        let soonest = due.min().unwrap_or(self.pace.every);
        soonest.clamp(
            Duration::from_millis(100).min(self.pace.every),
            self.pace.every,
        )
    }

    async fn keep(&self, kept: &Kept) -> Result<()> {
        let head = self.host.head();
        let Some(state) = head.views.get(&kept.oid) else {
            return Ok(());
        };
        let wanted = match (due_at(kept, state), kept.strategy) {
            (Some(due), _) => due <= now(),
            // its reads run the query: storing a result that the next row makes stale is no use
            (None, Strategy::Full) => false,
            (None, _) => moved(kept, state, &head) || lag(kept, &head) > self.pace.lag,
        };
        if wanted {
            Box::pin(self.refresh(kept.oid)).await?;
        }
        Box::pin(self.compact(kept.oid)).await?;
        Ok(())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.pace.deadline, Box::pin(work)).await {
            Ok(done) => done,
            Err(_) => Err(Error::refused(
                crate::error::SqlState::QUERY_CANCELED,
                "refreshing the materialized view took too long",
            )),
        }
    }
}

/// The next run, or nothing when the state has everything up to the target.
fn next(kept: &Kept, state: &ViewHead, head: &DbHead, target: Lsn, anew: bool) -> Option<Step> {
    if kept.strategy == Strategy::Full {
        let range = Range {
            after: Lsn::default(),
            upto: None,
        };
        let stale = anew || !is_current(kept, state, head);
        return stale.then_some(Step {
            range,
            replace: true,
        });
    }
    // the first commit also says that there was one, for views that are read as of it
    let replace = anew || moved(kept, state, head) || state.refreshed_at.is_none();
    if !replace && state.durable >= target {
        return None;
    }
    let after = match replace {
        true => Lsn::default(),
        false => state.durable,
    };
    let slice = match kept.strategy {
        Strategy::Append | Strategy::Top => ROWS_SLICE,
        _ => STATES_SLICE,
    };
    let mut upto = match kept.strategy {
        // a key's results are made of all its rows
        Strategy::Keyed => target,
        _ => target.min(Lsn(after.0.saturating_add(slice))),
    };
    if !replace && after < state.floor.from {
        // up to there rows count whatever their time
        upto = upto.min(state.floor.from);
    }
    Some(Step {
        range: Range {
            after,
            upto: Some(upto),
        },
        replace,
    })
}

/// True when rows that the state has counted were changed, and it has to follow.
fn moved(kept: &Kept, state: &ViewHead, head: &DbHead) -> bool {
    !kept.ignores_changes() && !state.is_of(&kept.sources, head)
}

/// The epochs that a run's state is of. One that keeps what was changed stays of before: should it
/// have to follow one day, it is made anew.
fn epochs(
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
    step: &Step,
) -> std::collections::BTreeMap<Oid, i64> {
    let epoch = |oid: &Oid| head.tables.get(oid).map(|t| (*oid, t.epoch()));
    if kept.ignores_changes() && !step.replace {
        let known = |oid: &Oid| (*oid, state.epochs.get(oid).copied().unwrap_or(0));
        return kept.sources.iter().map(known).collect();
    }
    kept.sources.iter().filter_map(epoch).collect()
}

/// What retention had dropped when a run's state was last made from all rows.
fn drops(
    kept: &Kept,
    state: &ViewHead,
    head: &DbHead,
    step: &Step,
) -> std::collections::BTreeMap<Oid, i64> {
    match step.replace {
        false => state.drops.clone(),
        true => {
            let dropped = |oid: &Oid| head.tables.get(oid).map(|t| (*oid, t.upkeep.drops));
            kept.sources.iter().filter_map(dropped).collect()
        }
    }
}

/// The floor that a step leaves. A state that is made anew counts all rows there are, however late.
fn floor_after(kept: &Kept, state: &ViewHead, step: &Step, target: Lsn) -> Floor {
    let retention = kept.options.retention.filter(|_| kept.ages_by.is_some());
    let lowest = retention.map(|keep| oldest(keep, now()));
    match step.replace {
        true => Floor {
            at: state.floor.at.max(lowest),
            from: target,
            late: state.floor.late,
        },
        false => state.floor,
    }
}

/// By which column and from when on the rows of a step are in time, when some may be too late. A session
/// that is made anew needs all its rows; buckets below the floor are not seen, with or without theirs.
fn in_time_from(kept: &Kept, state: &ViewHead, step: &Step, floor: Floor) -> Option<(usize, i64)> {
    let may_be = may_be_late(state, step) || kept.strategy != Strategy::Session;
    kept.ages_by.zip(floor.at).filter(|_| may_be)
}

/// True when a step's rows have come since the floor rose.
fn may_be_late(state: &ViewHead, step: &Step) -> bool {
    !step.replace && step.range.after >= state.floor.from
}

/// The instant before which results are too old.
pub fn oldest(keep: Duration, now: i64) -> i64 {
    now.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

/// The refusal to make a state anew that would lose rows it has counted.
pub fn cannot_be_made_anew(view: &str) -> Error {
    Error::refused(
        crate::error::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("materialized view \"{view}\" cannot be made anew"),
    )
    .with_detail("it counts rows that the retention of its table has dropped")
    .with_hint("create the view again to count only the rows that are left")
}

/// True when results are made again from rows they were made from before.
pub fn needs_rows(strategy: Strategy) -> bool {
    match strategy {
        Strategy::Full | Strategy::Keyed => true,
        Strategy::Append | Strategy::Agg | Strategy::Agg2 | Strategy::Session | Strategy::Top => {
            false
        }
    }
}

/// How far a view has counted the rows of its sources, so that they may go: nothing while it waits to be
/// made from all of them.
pub fn absorbed(kept: &Kept, head: &DbHead) -> Lsn {
    match head.views.get(&kept.oid) {
        Some(state)
            if !needs_rows(kept.strategy)
                && state.refreshed_at.is_some()
                && !moved(kept, state, head) =>
        {
            state.durable
        }
        Some(_) | None => Lsn::default(),
    }
}

fn due_at(kept: &Kept, state: &ViewHead) -> Option<i64> {
    let every = i64::try_from(kept.options.schedule?.as_micros()).unwrap_or(i64::MAX);
    Some(state.refreshed_at.unwrap_or(0).saturating_add(every))
}

/// True when a state has too many files, or more than twice the rows of its greatest run: a key that is in
/// many runs is read as often. What is too big to be folded at once stays as it is.
fn is_scattered(strategy: Strategy, files: &[LakeFile], most: usize) -> bool {
    let merges = match strategy {
        Strategy::Full => return false,
        Strategy::Agg | Strategy::Agg2 | Strategy::Session => true,
        Strategy::Append | Strategy::Top | Strategy::Keyed => false,
    };
    let rows = |file: &LakeFile| file.statistics.num_rows.get_value().copied().unwrap_or(0);
    let all: usize = files.iter().map(rows).sum();
    let greatest = files.iter().map(rows).max().unwrap_or(0);
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    files.len() > most || (merges && all / 2 > greatest && bytes <= MOST_SCATTERED)
}

/// The files to fold: from the smallest on, as long as the next is not much bigger than all before it
/// together. So a row is rewritten as often as the state doubles, not at each fold.
fn smallest(files: &[LakeFile]) -> Vec<LakeFile> {
    let mut files = files.to_vec();
    files.sort_by_key(|f| f.size);
    let mut bytes = 0;
    let fits = |(i, file): &(usize, LakeFile)| {
        let taken = *i < LEAST_FOLDED || file.size <= bytes;
        bytes += file.size;
        taken
    };
    let folded = files.into_iter().enumerate().take_while(fits);
    folded.map(|(_, file)| file).collect()
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Finishes a commit also when the caller goes away (a cancelled statement, shutdown), and keeps the
/// view's turn until then: the next run must start from what this one stored, or count rows twice.
async fn whole(
    turn: Turn,
    commit: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<Turn> {
    let done = detached(async move { (turn, commit.await) }).await;
    let (turn, result) = done.map_err(|e| Error::Internal(format!("a commit ended: {e}")))?;
    result.map(|()| turn)
}

#[expect(
    clippy::disallowed_methods,
    reason = "ends by itself with the commit, which has its own deadline"
)]
fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

/// How many positions of its sources a view has not stored.
pub fn lag(kept: &Kept, head: &DbHead) -> i64 {
    match head.views.get(&kept.oid) {
        Some(view) => newest(kept, head).0.saturating_sub(view.durable.0).max(0),
        None => 0,
    }
}
