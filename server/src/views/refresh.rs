//! Storing what a view lacks: new state for a range of positions, and folding many runs into one.
//!
//! Owns the order *read the head → compute → commit* per view, one at a time. Reads are exact without
//! it; it keeps them cheap.

mod locks;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use catalog::{Oid, Strategy};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use locks::{Locks, Turn};
use tokio_util::sync::CancellationToken;

use super::analysis::{Analysis, prepared};
use super::read;
use super::source::{Range, cut, positioned};
use super::split::{Split, conform, next_stage};
use crate::error::{Error, Result};
use crate::stream::head::{DbHead, Lsn, TableHead, ViewHead};

/// Positions that one run of an AGG view covers at most: bounds the rows held while it is made.
const AGG_SLICE: i64 = 1 << 22;
/// The same for an APPEND view, whose runs hold the rows themselves.
const APPEND_SLICE: i64 = 1 << 19;

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

    /// Every materialized view with the streaming table it reads.
    fn views(&self) -> Vec<(Oid, Oid)>;

    /// The view's query over that head, with the rights of its owner.
    async fn plan(&self, view: Oid, head: &Arc<DbHead>) -> Result<Planned>;

    /// Adds a run, good for source rows up to `durable`, and publishes state and position in one
    /// swap. A position that is stored already changes nothing.
    async fn commit_state(
        &self,
        view: Oid,
        source: Oid,
        batches: Vec<RecordBatch>,
        durable: Lsn,
    ) -> Result<()>;

    /// Puts these rows in the place of the whole state and publishes; does nothing when the state
    /// stands beyond `durable` already.
    async fn replace_state(
        &self,
        view: Oid,
        source: Oid,
        batches: Vec<RecordBatch>,
        durable: Lsn,
    ) -> Result<()>;
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
}

impl Refresher {
    /// A refresher over a host.
    pub fn new(host: Arc<dyn Host>, pace: Pace) -> Self {
        Self {
            host,
            pace,
            locks: Locks::default(),
        }
    }

    /// Stores everything the view's source holds now. Gives the position it then stands at.
    pub async fn refresh(&self, view: Oid, source: Oid) -> Result<Lsn> {
        let mut turn = self.locks.hold(view).await;
        let target = {
            let head = self.host.head();
            head.tables
                .get(&source)
                .map(|t| newest(t))
                .unwrap_or_default()
        };
        let mut at = Lsn::default();
        loop {
            let head = self.host.head();
            let Some(state) = head.views.get(&view).map(Arc::clone) else {
                return Ok(at);
            };
            if state.durable >= target {
                return Ok(state.durable);
            }
            if at > Lsn::default() && state.durable < at {
                return Err(Error::Internal(format!("state of view {view} went back")));
            }
            let planned = self.host.plan(view, &head).await?;
            let step = self.step(&planned, view, &state, target);
            let (batches, upto) = self.in_time(step).await?;
            let host = Arc::clone(&self.host);
            let commit = async move { host.commit_state(view, source, batches, upto).await };
            turn = whole(turn, commit).await?;
            at = upto;
        }
    }

    /// Makes the whole state anew from the rows the source holds now, for sources whose stored rows
    /// were changed. Gives the position it then stands at.
    pub async fn rebuild(&self, view: Oid, source: Oid) -> Result<Lsn> {
        let turn = self.locks.hold(view).await;
        let head = self.host.head();
        let Some(state) = head.views.get(&view) else {
            return Ok(Lsn::default());
        };
        let target = head.tables.get(&source).map(|t| newest(t));
        let target = target.unwrap_or_default().max(state.durable);
        let planned = self.host.plan(view, &head).await?;
        let analysis = super::analyze(&planned.name, &planned.plan)?;
        if analysis.strategy == Strategy::Append && target.0 > APPEND_SLICE {
            return Err(Error::unsupported(
                format!(
                    "materialized view \"{}\" is too big to rebuild",
                    planned.name
                ),
                "drop it and create it again",
            ));
        }
        let work = run(&planned, &analysis, Lsn::default(), target);
        let batches = self.in_time(work).await?;
        let host = Arc::clone(&self.host);
        let commit = async move { host.replace_state(view, source, batches, target).await };
        whole(turn, commit).await?;
        Ok(target)
    }

    /// Folds the runs of an AGG view into one when it has too many files. Says whether it did.
    pub async fn compact(&self, view: Oid, source: Oid) -> Result<bool> {
        let turn = self.locks.hold(view).await;
        let head = self.host.head();
        let Some(state) = head.views.get(&view) else {
            return Ok(false);
        };
        if state.state.files.len() <= self.pace.files {
            return Ok(false);
        }
        let planned = self.host.plan(view, &head).await?;
        let folded = self.in_time(fold(&planned, view, state)).await?;
        let Some(batches) = folded else {
            return Ok(false);
        };
        let (host, durable) = (Arc::clone(&self.host), state.durable);
        let commit = async move { host.replace_state(view, source, batches, durable).await };
        whole(turn, commit).await?;
        Ok(true)
    }

    /// Keeps all views close to their sources until told to stop. A view that fails is logged and
    /// tried again at the next look; its reads stay exact meanwhile.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.pace.every) => {}
            }
            for (view, source) in self.host.views() {
                let kept = tokio::select! {
                    () = stop.cancelled() => return,
                    kept = self.keep(view, source) => kept,
                };
                if let Err(e) = kept {
                    tracing::warn!(view = %view, error = %e, "materialized view not stored");
                }
            }
        }
    }

    async fn keep(&self, view: Oid, source: Oid) -> Result<()> {
        if lag(&self.host.head(), view, source) > self.pace.lag {
            Box::pin(self.refresh(view, source)).await?;
        }
        Box::pin(self.compact(view, source)).await?;
        Ok(())
    }

    async fn step(
        &self,
        planned: &Planned,
        view: Oid,
        state: &ViewHead,
        target: Lsn,
    ) -> Result<(Vec<RecordBatch>, Lsn)> {
        let analysis = super::analyze(&planned.name, &planned.plan)?;
        // the layout is checked before anything is written to it
        read::stored(&planned.name, view, &analysis, &state.state)?;
        let slice = match analysis.strategy {
            Strategy::Append => APPEND_SLICE,
            Strategy::Agg => AGG_SLICE,
        };
        let upto = target.min(Lsn(state.durable.0.saturating_add(slice)));
        let batches = run(planned, &analysis, state.durable, upto).await?;
        Ok((batches, upto))
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

/// How many positions of its source a view has not stored.
pub fn lag(head: &DbHead, view: Oid, source: Oid) -> i64 {
    match (head.views.get(&view), head.tables.get(&source)) {
        (Some(view), Some(table)) => newest(table).0.saturating_sub(view.durable.0).max(0),
        _ => 0,
    }
}

/// The newest position a table holds.
fn newest(table: &TableHead) -> Lsn {
    table
        .tail
        .last()
        .map_or(table.flushed, |t| t.hi.max(table.flushed))
}

/// The state of the positions `after < _lsn <= upto`, in stored columns.
pub(super) async fn run(
    planned: &Planned,
    analysis: &Analysis,
    after: Lsn,
    upto: Lsn,
) -> Result<Vec<RecordBatch>> {
    let range = Range {
        after,
        upto: Some(upto),
    };
    let session = &planned.session;
    let stored = analysis.layout.stored();
    match analysis.strategy {
        Strategy::Append => {
            let plan = positioned(&planned.plan, range)?;
            let rows = session.create_physical_plan(&plan).await?;
            let rows = conform(Arc::new(CoalescePartitionsExec::new(rows)), &stored)?;
            Ok(collect(rows, session.task_ctx()).await?)
        }
        Strategy::Agg => {
            let mut split = aggregation(&planned.plan)?;
            split.rows = cut(split.rows, range)?;
            let rows = session.create_physical_plan(&split.rows).await?;
            let partial = partial(&split, session.execution_props(), rows)?;
            let states: Arc<dyn ExecutionPlan> = Arc::<AggregateExec>::clone(&partial);
            reduced(session, &partial, states, &stored, (Lsn(after.0 + 1), upto)).await
        }
    }
}

/// All runs of an AGG view as one; nothing for the other strategies.
pub(super) async fn fold(
    planned: &Planned,
    view: Oid,
    head: &ViewHead,
) -> Result<Option<Vec<RecordBatch>>> {
    let analysis = super::analyze(&planned.name, &planned.plan)?;
    if analysis.strategy != Strategy::Agg {
        return Ok(None);
    }
    let session = &planned.session;
    let stored = analysis.layout.stored();
    let split = aggregation(&planned.plan)?;
    let scan = read::stored(&planned.name, view, &analysis, &head.state)?;
    let scan = LogicalPlanBuilder::from(scan)
        .project(read::without_range(&stored))?
        .build()?;
    let states = session.create_physical_plan(&scan).await?;
    let none: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(
        split.rows.schema().as_arrow().clone(),
    )));
    let partial = partial(&split, session.execution_props(), none)?;
    let states = conform(states, &partial.schema())?;
    reduced(session, &partial, states, &stored, (Lsn(1), head.durable))
        .await
        .map(Some)
}

fn partial(
    split: &Split,
    props: &ExecutionProps,
    rows: Arc<dyn ExecutionPlan>,
) -> Result<Arc<AggregateExec>> {
    let planning = PhysicalPlanningContext::default();
    let lowered = split
        .over
        .lower(split.rows.schema(), &rows.schema(), props, &planning)?;
    Ok(lowered.partial(rows)?)
}

/// States of several partitions or runs, each key once, in stored columns.
async fn reduced(
    session: &SessionState,
    partial: &AggregateExec,
    states: Arc<dyn ExecutionPlan>,
    stored: &SchemaRef,
    (lo, hi): (Lsn, Lsn),
) -> Result<Vec<RecordBatch>> {
    let one = Arc::new(CoalescePartitionsExec::new(states));
    let reduced = next_stage(partial, AggregateMode::PartialReduce, one)?;
    let count = reduced.schema().fields().len();
    let kept: Vec<_> = stored.fields().iter().take(count).cloned().collect();
    let columns = conform(reduced, &Arc::new(Schema::new(kept)))?;
    let batches = collect(columns, session.task_ctx()).await?;
    let ranged = batches.into_iter().map(|batch| {
        let constant = |v: Lsn| Arc::new(Int64Array::from(vec![v.0; batch.num_rows()])) as ArrayRef;
        let mut columns = batch.columns().to_vec();
        columns.extend([constant(lo), constant(hi)]);
        Ok(RecordBatch::try_new(Arc::clone(stored), columns)?)
    });
    ranged.collect()
}

/// The one aggregation of an AGG view.
fn aggregation(plan: &LogicalPlan) -> Result<Split> {
    let plan = prepared(plan.clone())?;
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            found = Some(Split::new(aggregate)?);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    found.ok_or_else(|| Error::Internal("an AGG view without an aggregation".to_owned()))
}
