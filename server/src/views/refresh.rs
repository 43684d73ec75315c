//! Storing what a view lacks: new state for a range of positions, the whole anew, and many runs as one.
//!
//! Owns the order *read the head → compute → commit* per view, one at a time. Reads are exact without
//! it, except those of views with a schedule; it keeps them cheap.

mod compute;
mod expire;
mod locks;
mod progress;
mod rekey;
mod spool;
mod step;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::{Oid, Strategy};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use locks::{Locks, Turn};
use progress::Work;
pub use progress::{By, Progress};
use spool::Spool;
use step::{
    Step, drops, epochs, floor_after, half, in_time_from, is_scattered, may_be_late, moved, next,
    smallest,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
pub use verify::Verdict;

use super::options::Kept;
use super::read::newest;
use super::state::Layout;
use crate::error::{Error, Result, SqlState};
use crate::stream::head::{DbHead, Floor, Lsn, ViewHead};
use crate::stream::{Replaces, Rows, StateChange};

/// Each sort keeps so many parts less than all memory for merging what it spilled.
const SORTS: usize = 32;
/// Runs that were shortened grow by this part of their length each.
const REGROWTH: i64 = 8;

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

/// A session that stores views in the memory of `runtime`, however little that is.
pub fn session_in(session: SessionState, runtime: &Arc<RuntimeEnv>) -> SessionState {
    let mut session = SessionStateBuilder::new_from_existing(session)
        .with_runtime_env(Arc::clone(runtime))
        .build();
    if let MemoryLimit::Finite(bytes) = runtime.memory_pool.memory_limit() {
        let execution = &mut session.config_mut().options_mut().execution;
        let kept_for_merging = &mut execution.sort_spill_reservation_bytes;
        *kept_for_merging = (*kept_for_merging).min(bytes / SORTS);
    }
    session
}

impl Planned {
    fn spool(&self, layout: &Layout) -> Spool {
        Spool::new(self.session.runtime_env(), &layout.stored())
    }

    /// True when work that failed so can be tried once more in less memory: a join by hashing keeps one
    /// side whole, a join by sorting spills; and each operator keeps some batches.
    fn spares(&mut self, failed: &Error) -> bool {
        let config = self.session.config_mut();
        if failed.state() != SqlState::OUT_OF_MEMORY || !config.options().optimizer.prefer_hash_join
        {
            return false;
        }
        config.options_mut().optimizer.prefer_hash_join = false;
        let smaller = config.batch_size().div_ceil(8);
        *config = config.clone().with_batch_size(smaller);
        true
    }
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

    /// Shows work on a view to users from now on.
    fn begin(&self, name: &'static str, view: Oid, by: By) -> Box<dyn Progress>;
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
    pub async fn refresh(&self, view: Oid, by: By) -> Result<Lsn> {
        self.store(view, false, by).await
    }

    /// Makes the whole state anew from the rows the sources hold now. Gives the position it then
    /// stands at.
    pub async fn rebuild(&self, view: Oid, by: By) -> Result<Lsn> {
        self.store(view, true, by).await
    }

    async fn store(&self, view: Oid, anew: bool, by: By) -> Result<Lsn> {
        let turn = self.locks.hold(view).await;
        let mut work = None;
        let stored = Box::pin(self.store_runs(view, anew, by, turn, &mut work)).await;
        if let Some(work) = work {
            work.end(stored.as_ref().err());
        }
        stored
    }

    async fn store_runs(
        &self,
        view: Oid,
        mut anew: bool,
        by: By,
        mut turn: Turn,
        work: &mut Option<Work>,
    ) -> Result<Lsn> {
        let mut target = None;
        let mut last_run = None;
        let mut most = i64::MAX;
        loop {
            let head = self.host.head();
            let (Some(kept), Some(state)) = (self.host.kept(view), head.views.get(&view)) else {
                return Ok(Lsn::default());
            };
            let target = *target.get_or_insert_with(|| newest(&kept, &head));
            let Some(step) = next(&kept, state, &head, target, anew, most) else {
                return Ok(state.durable);
            };
            if last_run == Some(state.run) {
                return Err(Error::Internal(format!(
                    "state of view {view} stands still"
                )));
            }
            last_run = Some(state.run);
            let work = work.get_or_insert_with(|| {
                let progress = self.host.begin("refresh", view, by);
                progress.expect(positions(step.range.after, target));
                Work::new(progress)
            });
            let mut planned = self.host.plan(view, &head).await?;
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
            let computed = loop {
                let computed = self.step(&planned, &kept, state, &step, in_time);
                match self.in_time(work.progress(), computed).await {
                    Err(e) if planned.spares(&e) => {}
                    computed => break computed,
                }
            };
            let (rows, late, replaces) = match (computed, half(&kept, &step)) {
                // shorter runs need less; folding makes one of them when there is room
                (Err(e), Some(half)) if e.state() == SqlState::OUT_OF_MEMORY => {
                    (most, last_run) = (half, None);
                    continue;
                }
                (computed, _) => computed?,
            };
            work.computed(&rows);
            let upto = step.range.upto.unwrap_or(target);
            let change = StateChange {
                source: kept.source,
                rows: Rows::new(rows.into_stream()),
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
            work.progress().advance(positions(step.range.after, upto));
            anew = false;
            // what did not fit may fit by and by
            most = most.saturating_add(most / REGROWTH);
            if kept.strategy == Strategy::Full {
                return Ok(head.visible);
            }
        }
    }

    /// The rows of the next run, how many were too late for it, and what it takes the place of.
    async fn step(
        &self,
        planned: &Planned,
        kept: &Kept,
        state: &ViewHead,
        step: &Step,
        in_time: Option<(usize, i64)>,
    ) -> Result<(Spool, i64, Replaces)> {
        if kept.strategy == Strategy::Keyed && !step.replace {
            let left = rekey::rekey(planned, kept, state, step.range).await?;
            return Ok((left.rows, 0, Replaces::Files(left.replaces)));
        }
        let (rows, late) = compute::run(planned, kept, state, step.range, in_time).await?;
        let replaces = match step.replace {
            true => Replaces::Everything,
            false => Replaces::Nothing,
        };
        Ok((rows, late, replaces))
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
        let mut work = Work::new(self.host.begin("compaction", view, By::Schedule));
        let folded = Box::pin(self.fold(&kept, &head, state, turn, &mut work)).await;
        work.end(folded.as_ref().err());
        folded.map(|()| true)
    }

    async fn fold(
        &self,
        kept: &Kept,
        head: &Arc<DbHead>,
        state: &ViewHead,
        turn: Turn,
        work: &mut Work,
    ) -> Result<()> {
        let view = kept.oid;
        let folded = smallest(&state.state.files);
        let mut planned = self.host.plan(view, head).await?;
        let rows = loop {
            let rows = compute::fold(&planned, kept, state, &folded);
            match self.in_time(work.progress(), rows).await {
                Err(e) if planned.spares(&e) => {}
                rows => break rows?,
            }
        };
        work.computed(&rows);
        let change = StateChange {
            source: kept.source,
            rows: Rows::new(rows.into_stream()),
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
        Ok(())
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
        let mut planned = self.host.plan(view, &head).await?;
        let left = loop {
            let work = expire::expire(&planned, &kept, state, (column, to, overdue));
            match within(self.pace.deadline, work).await {
                Err(e) if planned.spares(&e) => {}
                left => break left?,
            }
        };
        let change = StateChange {
            source: kept.source,
            rows: Rows::new(left.rows.into_stream()),
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
        let work = verify::verify(&planned, &kept, &head, keys);
        within(self.pace.deadline, work).await
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
            Box::pin(self.refresh(kept.oid, By::Schedule)).await?;
        }
        Box::pin(self.compact(kept.oid)).await?;
        Ok(())
    }

    /// Work that ends when it takes too long or is told to stop.
    async fn in_time<T>(
        &self,
        progress: &dyn Progress,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let stop = progress.stop();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::refused(
                SqlState::QUERY_CANCELED,
                "refreshing the materialized view was canceled",
            )),
            done = within(self.pace.deadline, work) => done,
        }
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(deadline, Box::pin(work)).await {
        Ok(done) => done,
        Err(_) => Err(Error::refused(
            SqlState::QUERY_CANCELED,
            "refreshing the materialized view took too long",
        )),
    }
}

fn positions(after: Lsn, upto: Lsn) -> u64 {
    u64::try_from(upto.0.saturating_sub(after.0)).unwrap_or(0)
}

/// The instant before which results are too old.
pub fn oldest(keep: Duration, now: i64) -> i64 {
    now.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

/// The refusal to make a state anew that would lose rows it has counted.
pub fn cannot_be_made_anew(view: &str) -> Error {
    Error::refused(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
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
