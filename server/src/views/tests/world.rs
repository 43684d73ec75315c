//! Streaming tables `t` and `o` and a dimension `d` with views over them: real Delta tables, the real
//! refresher, a head in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use catalog::{Oid, Strategy};
use datafusion::catalog::Session;
use datafusion::common::ScalarValue;
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::TryStreamExt;
use rand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::engine::scan::WeirTable;
use crate::engine::scan::fixture::Lake;
use crate::error::{Error, Result};
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{DbHead, Floor, Lsn, TableHead, ViewHead};
use crate::stream::{Replaces, StateChange};
use crate::types::LSN;
use crate::views::refresh::{By, Host, Pace, Planned, Progress, Refresher, Verdict, session_in};
use crate::views::{
    Blocks, Kept, Lookup, Options, analyze, extension_planner, read_plan, state_schema,
};

const SOURCE: Oid = Oid(16384);
const DIM: Oid = Oid(16385);
const OTHER: Oid = Oid(16386);

pub(super) struct World {
    host: Arc<TestHost>,
    pub(super) refresher: Refresher,
    source: tokio::sync::Mutex<Lake>,
    other: tokio::sync::Mutex<Lake>,
    dim: tokio::sync::Mutex<Lake>,
    plain: Arc<TableHead>,
}

/// Bytes that storing views has in these worlds.
const MEMORY: usize = 3 << 20;

#[derive(Debug)]
struct NoKeys;

impl udfs::SecretKeys for NoKeys {
    fn key(&self, name: &str) -> datafusion::error::Result<Arc<[u8]>> {
        datafusion::common::plan_err!("no key {name}")
    }
}

/// The real planner list, as a session installs it.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![extension_planner()]);
        planner.create_physical_plan(plan, session).await
    }
}

fn session(head: &DbHead) -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(3)
        .with_batch_size(16);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .with_physical_optimizer_rules(crate::engine::optimizer::rules())
        .with_analyzer_rule(udfs::analyzer_rule())
        .build();
    let mut state = state;
    let keys: Arc<dyn udfs::SecretKeys> = Arc::new(NoKeys);
    udfs::register_all(&mut state, &keys).unwrap();
    let ctx = SessionContext::new_with_state(state);
    if let Some(table) = head.tables.get(&DIM) {
        let table = WeirTable::new(Arc::clone(table), false);
        ctx.register_table("d", Arc::new(table)).unwrap();
    }
    for (oid, name) in [(SOURCE, "t"), (OTHER, "o")] {
        if let Some(table) = head.tables.get(&oid) {
            let table = WeirTable::new(Arc::clone(table), false);
            ctx.register_table(name, Arc::new(table)).unwrap();
        }
    }
    ctx
}

async fn planned(ctx: &SessionContext, sql: &str) -> LogicalPlan {
    let state = ctx.state();
    let plan = state.create_logical_plan(sql).await.unwrap();
    state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})
        .unwrap()
}

#[derive(Debug)]
struct TestHost {
    sql: HashMap<Oid, String>,
    kept: Mutex<HashMap<Oid, Kept>>,
    head: Mutex<Arc<DbHead>>,
    states: tokio::sync::Mutex<HashMap<Oid, Lake>>,
    /// The next commit says that it began, and takes its time.
    dawdle: AtomicBool,
    began: Notify,
    /// What storing views has: little, so that all of it spills now and then.
    runtime: Arc<RuntimeEnv>,
    /// Work that spilled.
    spilled: Arc<AtomicUsize>,
}

impl TestHost {
    fn publish(&self, change: impl FnOnce(&mut DbHead)) {
        let mut head = self.head.lock().unwrap();
        let mut next = DbHead::clone(&head);
        change(&mut next);
        *head = Arc::new(next);
    }
}

async fn rows_in(view: Oid, state: &Arc<LakeSnapshot>, file: &LakeFile) -> Vec<RecordBatch> {
    let part = LakeSnapshot {
        files: [file.clone()].into(),
        ..LakeSnapshot::clone(state)
    };
    let table = WeirTable::at_version(view, Arc::new(part));
    let table = WeirTable::new(Arc::clone(table.head()), true);
    let ctx = session(&DbHead::default());
    let rows = ctx.read_table(Arc::new(table)).unwrap();
    let rows = rows.collect().await.unwrap();
    let typed =
        |b: RecordBatch| RecordBatch::try_new(Arc::clone(&state.schema), b.columns().to_vec());
    rows.into_iter().map(|b| typed(b).unwrap()).collect()
}

fn one(batches: &[RecordBatch], schema: &SchemaRef) -> RecordBatch {
    concat_batches(schema, batches).unwrap()
}

#[async_trait]
impl Host for TestHost {
    fn head(&self) -> Arc<DbHead> {
        Arc::clone(&self.head.lock().unwrap())
    }

    fn views(&self) -> Vec<Kept> {
        self.kept.lock().unwrap().values().cloned().collect()
    }

    fn kept(&self, view: Oid) -> Option<Kept> {
        self.kept.lock().unwrap().get(&view).cloned()
    }

    async fn plan(&self, view: Oid, head: &Arc<DbHead>) -> Result<Planned> {
        let ctx = session(head);
        let plan = planned(&ctx, &self.sql[&view]).await;
        Ok(Planned {
            name: "v".to_owned(),
            session: session_in(ctx.state(), &self.runtime),
            plan,
        })
    }

    fn begin(&self, _: &'static str, _: Oid, _: By) -> Box<dyn Progress> {
        Box::new(Watched(Arc::clone(&self.spilled)))
    }

    async fn commit_state(&self, view: Oid, change: StateChange) -> Result<()> {
        assert_eq!(self.head().views[&view].run, change.base);
        if self.dawdle.swap(false, Ordering::SeqCst) {
            self.began.notify_one();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut states = self.states.lock().await;
        let lake = states.get_mut(&view).unwrap();
        let batches: Vec<_> = change.rows.into_stream().try_collect().await?;
        let batch = one(&batches, &lake.schema);
        match change.replaces {
            Replaces::Everything => lake.overwrite(batch).await,
            Replaces::Nothing => lake.append(batch).await,
            Replaces::Files(gone) => {
                // the fixture cannot take single files away: each of the others is written again
                let before = lake.snapshot();
                let stay = before.files.iter().filter(|f| !gone.contains(&f.path));
                let mut rest = Vec::new();
                for file in stay {
                    rest.push(rows_in(view, &before, file).await);
                }
                lake.overwrite(batch).await;
                for batch in rest {
                    lake.append(one(&batch, &before.schema)).await;
                }
            }
        }
        let state = ViewHead {
            state: lake.snapshot(),
            durable: change.durable,
            epochs: change.epochs,
            drops: change.drops,
            floor: change.floor,
            run: change.base + 1,
            refreshed_at: Some(change.at),
        };
        self.publish(|head| {
            head.views.insert(view, Arc::new(state));
        });
        Ok(())
    }
}

/// Counts work that spilled.
#[derive(Debug)]
struct Watched(Arc<AtomicUsize>);

impl Progress for Watched {
    fn expect(&self, _: u64) {}
    fn advance(&self, _: u64) {}
    fn stop(&self) -> CancellationToken {
        CancellationToken::new()
    }
    fn end(self: Box<Self>, _: Option<&Error>, detail: Option<String>) {
        let spilled = detail.is_some_and(|d| d.contains("spilled"));
        self.0.fetch_add(usize::from(spilled), Ordering::Relaxed);
    }
}

fn memory(bytes: usize) -> Arc<RuntimeEnv> {
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
    builder.build_arc().unwrap()
}

impl World {
    pub(super) async fn new(queries: &[&str]) -> Self {
        let queries: Vec<(&str, &str)> = queries.iter().map(|q| (*q, "")).collect();
        Self::with_options(&queries).await
    }

    /// Views with options, written `key=value key=value`.
    pub(super) async fn with_options(queries: &[(&str, &str)]) -> Self {
        let source = Lake::create(&stored(), &[]).await;
        let dim = Lake::create(&dim_schema(), &[]).await;
        let mut head = DbHead::default();
        let other = Lake::create(&stored(), &[]).await;
        head.tables.insert(SOURCE, source.head(vec![]));
        head.tables.insert(OTHER, other_head(&other, vec![]));
        head.tables.insert(DIM, dim_head(&dim));
        let mut states = HashMap::new();
        let mut sql = HashMap::new();
        let mut kept = HashMap::new();
        for (i, (query, options)) in queries.iter().enumerate() {
            let view = Oid(20000 + u32::try_from(i).unwrap());
            let options = options_of(options);
            let plan = planned(&session(&head), query).await;
            let analysis = analyze("v", &plan, &options).expect(query);
            let lake = Lake::create(&state_schema(&analysis), &[]).await;
            let state = ViewHead {
                state: lake.snapshot(),
                durable: Lsn::default(),
                epochs: BTreeMap::new(),
                drops: BTreeMap::new(),
                floor: Floor::default(),
                run: 0,
                refreshed_at: None,
            };
            head.views.insert(view, Arc::new(state));
            states.insert(view, lake);
            sql.insert(view, (*query).to_owned());
            let known = Kept {
                oid: view,
                strategy: analysis.strategy,
                source: analysis.source,
                sources: analysis.sources,
                options,
                ages_by: options.retention.map(|_| {
                    let declared = |oid| (oid == SOURCE).then(|| "ts".to_owned());
                    let at = crate::views::floor::ages_by("v", &plan, analysis.strategy, &declared);
                    usize::try_from(at.expect(query)).unwrap()
                }),
            };
            kept.insert(view, known);
        }
        let host = Arc::new(TestHost {
            sql,
            kept: Mutex::new(kept),
            head: Mutex::new(Arc::new(head)),
            states: tokio::sync::Mutex::new(states),
            dawdle: AtomicBool::new(false),
            runtime: memory(MEMORY),
            spilled: Arc::default(),
            began: Notify::new(),
        });
        let pace = Pace {
            every: Duration::from_millis(10),
            lag: 10,
            files: 2,
            ..Pace::default()
        };
        let refresher = Refresher::new(Arc::<TestHost>::clone(&host), pace);
        let plain = TableHead {
            streaming: false,
            ..TableHead::clone(&source.head(vec![]))
        };
        let source = tokio::sync::Mutex::new(source);
        Self {
            host,
            refresher,
            source,
            other: tokio::sync::Mutex::new(other),
            dim: tokio::sync::Mutex::new(dim),
            plain: Arc::new(plain),
        }
    }

    pub(super) fn views(&self) -> Vec<Oid> {
        let mut views: Vec<Oid> = self.host.sql.keys().copied().collect();
        views.sort();
        views
    }

    pub(super) fn sql(&self, view: Oid) -> &str {
        &self.host.sql[&view]
    }

    /// One more than the newest position.
    pub(super) fn next_lsn(&self) -> i64 {
        let head = self.host.head();
        let newest = |oid| head.tables[&oid].newest().0;
        newest(SOURCE).max(newest(OTHER)) + 1
    }

    pub(super) fn strategy(&self, view: Oid) -> Strategy {
        self.host.kept(view).unwrap().strategy
    }

    pub(super) fn set_options(&self, view: Oid, options: &str) {
        let mut kept = self.host.kept.lock().unwrap();
        kept.get_mut(&view).unwrap().options = options_of(options);
    }

    pub(super) async fn append(&self, batch: RecordBatch) {
        let source = self.source.lock().await;
        let mut tail: Vec<RecordBatch> = self.tail(SOURCE);
        tail.push(batch);
        self.publish(&source.head(tail), 0);
    }

    /// The same into `o`.
    pub(super) async fn append_other(&self, batch: RecordBatch) {
        let other = self.other.lock().await;
        let mut tail: Vec<RecordBatch> = self.tail(OTHER);
        tail.push(batch);
        self.publish(&other_head(&other, tail), 0);
    }

    fn tail(&self, oid: Oid) -> Vec<RecordBatch> {
        self.host.head().tables[&oid]
            .tail
            .iter()
            .map(|t| t.batch.clone())
            .collect()
    }

    fn publish(&self, table: &TableHead, changes: i64) {
        self.host.publish(|head| {
            let before = &head.tables[&table.oid];
            let table = TableHead {
                changes: before.changes + changes,
                upkeep: before.upkeep,
                ..TableHead::clone(table)
            };
            head.visible = head.visible.max(table.newest());
            head.tables.insert(table.oid, Arc::new(table));
        });
    }

    /// Moves the tails to storage, as one file each.
    pub(super) async fn flush(&self) {
        let mut source = self.source.lock().await;
        let tail = self.tail(SOURCE);
        if !tail.is_empty() {
            source.append(one(&tail, &stored())).await;
        }
        self.publish(&source.head(vec![]), 0);
        drop(source);
        let mut other = self.other.lock().await;
        let tail = self.tail(OTHER);
        if !tail.is_empty() {
            other.append(one(&tail, &stored())).await;
        }
        self.publish(&other_head(&other, vec![]), 0);
    }

    /// Takes stored rows away, as DELETE would, after a flush.
    pub(super) async fn delete(&self, condition: &str) {
        self.without(condition, 1).await;
    }

    /// Takes stored rows away, as retention would, after a flush.
    pub(super) async fn expire(&self, condition: &str) {
        self.without(condition, 0).await;
        self.host.publish(|head| {
            let mut table = TableHead::clone(&head.tables[&SOURCE]);
            table.upkeep.drops += 1;
            head.tables.insert(SOURCE, Arc::new(table));
        });
    }

    /// How far a view has counted its rows.
    pub(super) fn absorbed(&self, view: Oid) -> i64 {
        let kept = self.host.kept(view).unwrap();
        crate::views::refresh::absorbed(&kept, &self.host.head()).0
    }

    async fn without(&self, condition: &str, changes: i64) {
        self.flush().await;
        let head = self.host.head();
        let ctx = session(&head);
        let table = WeirTable::new(Arc::clone(&head.tables[&SOURCE]), true);
        ctx.register_table("all_rows", Arc::new(table)).unwrap();
        let sql = format!("SELECT * FROM all_rows WHERE ({condition}) IS NOT TRUE");
        let rest = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        let rest: Vec<RecordBatch> = rest
            .into_iter()
            .map(|b| RecordBatch::try_new(stored(), b.columns().to_vec()).unwrap())
            .collect();
        let mut source = self.source.lock().await;
        source.overwrite(one(&rest, &stored())).await;
        self.publish(&source.head(vec![]), changes);
    }

    /// Other rows in the dimension.
    pub(super) async fn change_dim(&self, batch: RecordBatch) {
        let mut dim = self.dim.lock().await;
        dim.overwrite(batch).await;
        let head = dim_head(&dim);
        self.host.publish(|all| {
            all.tables.insert(DIM, head);
        });
    }

    pub(super) async fn refresh(&self, view: Oid) {
        Box::pin(self.refresher.refresh(view, By::Statement))
            .await
            .unwrap();
    }

    /// Begins to refresh and goes away in the middle of the commit.
    pub(super) async fn abandon_refresh(&self, view: Oid) {
        self.host.dawdle.store(true, Ordering::SeqCst);
        tokio::select! {
            () = self.refresh(view) => panic!("refreshed"),
            () = self.host.began.notified() => {}
        }
    }

    /// How often storing a view did not fit into memory.
    pub(super) fn spilled(&self) -> usize {
        self.host.spilled.load(Ordering::Relaxed)
    }

    pub(super) async fn compact(&self, view: Oid) -> bool {
        Box::pin(self.refresher.compact(view)).await.unwrap()
    }

    /// Puts a stored row of a view into its state once more.
    pub(super) async fn store_a_row_twice(&self, view: Oid) {
        let state = Arc::clone(&self.host.head().views[&view]);
        let rows = rows_in(view, &state.state, &state.state.files[0]).await;
        let change = StateChange {
            source: SOURCE,
            rows: vec![rows[0].slice(0, 1)].into(),
            replaces: Replaces::Nothing,
            base: state.run,
            durable: state.durable,
            epochs: state.epochs.clone(),
            drops: state.drops.clone(),
            floor: state.floor,
            at: 1,
        };
        self.host.commit_state(view, change).await.unwrap();
    }

    pub(super) async fn verify(&self, view: Oid, keys: usize) -> Verdict {
        Box::pin(self.refresher.verify(view, keys)).await.unwrap()
    }

    pub(super) async fn rebuild(&self, view: Oid) {
        self.try_rebuild(view).await.unwrap();
    }

    pub(super) async fn try_rebuild(&self, view: Oid) -> Result<Lsn> {
        Box::pin(self.refresher.rebuild(view, By::Statement)).await
    }

    pub(super) fn durable(&self, view: Oid) -> i64 {
        self.host.head().views[&view].durable.0
    }

    pub(super) fn state_files(&self, view: Oid) -> usize {
        self.host.head().views[&view].state.files.len()
    }

    pub(super) async fn state_rows(&self, view: Oid) -> Rows {
        let head = self.host.head();
        let ctx = session(&head);
        let table = WeirTable::at_version(view, Arc::clone(&head.views[&view].state));
        rows_of(ctx.read_table(Arc::new(table)).unwrap()).await
    }

    /// A query's analyzed plan; `plain` is the same table, not streaming.
    pub(super) async fn plan(&self, sql: &str) -> LogicalPlan {
        let ctx = session(&self.host.head());
        let plain = WeirTable::new(Arc::clone(&self.plain), false);
        ctx.register_table("plain", Arc::new(plain)).unwrap();
        planned(&ctx, sql).await
    }

    pub(super) async fn direct(&self, view: Oid) -> Rows {
        let ctx = session(&self.host.head());
        rows_of(ctx.sql(self.sql(view)).await.unwrap()).await
    }

    pub(super) async fn read(&self, view: Oid) -> Rows {
        let head = self.host.head();
        let ctx = session(&head);
        let plan = planned(&ctx, self.sql(view)).await;
        let plan = read_plan("v", &self.host.kept(view).unwrap(), plan, &head).unwrap();
        rows_of(ctx.execute_logical_plan(plan).await.unwrap()).await
    }

    /// What a query gives over the source with its positions, under the name `m`.
    pub(super) async fn model(&self, sql: &str) -> Rows {
        let head = self.host.head();
        let ctx = session(&head);
        let all = WeirTable::new(Arc::clone(&head.tables[&SOURCE]), true);
        ctx.register_table("m", Arc::new(all)).unwrap();
        rows_of(ctx.sql(sql).await.unwrap()).await
    }

    /// Says whether the floor rose.
    pub(super) async fn raise_floor(&self, view: Oid, to: i64, overdue: i64) -> bool {
        let raised = Box::pin(self.refresher.raise_floor(view, to, overdue)).await;
        raised.unwrap().is_some()
    }

    /// How many rows came too late for a view.
    pub(super) fn late(&self, view: Oid) -> i64 {
        self.host.head().views[&view].floor.late
    }

    async fn with_view(&self, view: Oid, kept: bool) -> SessionContext {
        let head = self.host.head();
        let ctx = session(&head);
        let mut plan = planned(&ctx, self.sql(view)).await;
        if kept {
            plan = read_plan("v", &self.host.kept(view).unwrap(), plan, &head).unwrap();
        }
        ctx.register_table("v", Arc::new(ViewTable::new(plan, None)))
            .unwrap();
        ctx
    }

    /// Asks over the view, or over its query under the same name.
    pub(super) async fn ask(&self, view: Oid, question: &str, kept: bool) -> Rows {
        let ctx = self.with_view(view, kept).await;
        rows_of(ctx.sql(question).await.unwrap()).await
    }

    /// A question for one key as a lookup, with the fields of its answer; nothing when it is none.
    pub(super) async fn lookup(&self, view: Oid, question: &str) -> Option<(Lookup, SchemaRef)> {
        let ctx = self.with_view(view, true).await;
        let plan = planned(&ctx, question).await;
        let kept = |oid: Oid| self.host.kept(oid);
        let found = Lookup::of(&plan, &kept, &|_| true, &ctx.state()).unwrap()?;
        assert_eq!(found.view(), view);
        Some((found, Arc::clone(plan.schema().inner())))
    }

    /// What it gives now.
    pub(super) async fn look_up(
        &self,
        (lookup, shown): &(Lookup, SchemaRef),
        params: &[ScalarValue],
        blocks: &Blocks,
    ) -> Option<Rows> {
        let head = self.host.head();
        let ctx = session(&head);
        let kept = self.host.kept(lookup.view()).unwrap();
        let read = (blocks, &ctx.state());
        let found = lookup.answer(&head, &kept, params, shown, read).await;
        Some(rows_of(ctx.read_batch(found.unwrap()?).unwrap()).await)
    }

    pub(super) async fn explain(&self, view: Oid, question: &str) -> String {
        let ctx = self.with_view(view, true).await;
        let rows = ctx
            .sql(&format!("EXPLAIN {question}"))
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string()
    }
}

fn options_of(text: &str) -> Options {
    let pairs = text.split_whitespace().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    Options::parse(&pairs.collect()).unwrap()
}

fn dim_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("region", DataType::Utf8, true),
        Field::new("w", DataType::Int32, true),
    ]))
}

fn other_head(other: &Lake, tail: Vec<RecordBatch>) -> Arc<TableHead> {
    Arc::new(TableHead {
        oid: OTHER,
        ..TableHead::clone(&other.head(tail))
    })
}

fn dim_head(dim: &Lake) -> Arc<TableHead> {
    Arc::new(TableHead {
        oid: DIM,
        streaming: false,
        schema: dim_schema(),
        ..TableHead::clone(&dim.head(vec![]))
    })
}

/// Random rows of the dimension: keys of the events and others, some twice.
pub(super) fn dimension(random: &mut impl Rng) -> RecordBatch {
    let rows = random.random_range(0..9);
    let (mut k, mut region, mut w) = (vec![], vec![], vec![]);
    for _ in 0..rows {
        let some = |random: &mut dyn rand::RngCore| random.random_bool(0.85);
        k.push(some(random).then(|| KEYS[random.random_range(0..KEYS.len())]));
        region.push(some(random).then(|| ["eu", "us"][random.random_range(0..2)]));
        w.push(some(random).then(|| random.random_range(0i32..5)));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(k)),
        Arc::new(StringArray::from(region)),
        Arc::new(Int32Array::from(w)),
    ];
    RecordBatch::try_new(dim_schema(), columns).unwrap()
}

const KEYS: [&str; 6] = [
    "a",
    "ab",
    "b",
    "a long key that does not fit a view",
    "ü",
    "",
];

fn stored() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(LSN, DataType::Int64, false),
        Field::new("k", DataType::Utf8, true),
        Field::new("i", DataType::Int32, false),
        Field::new("v", DataType::Float64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("d", DataType::Decimal128(12, 2), true),
        Field::new("b", DataType::Boolean, true),
        Field::new(
            "ts",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
    ]))
}

/// Random rows from that position on: few keys, NULLs everywhere, NaN among the float keys.
pub(super) fn events(random: &mut impl Rng, first: i64, rows: i64) -> RecordBatch {
    let floats = [0.0, 1.5, -3.25, f64::NAN, f64::INFINITY];
    let mut k: Vec<Option<&str>> = vec![];
    let (mut i, mut v, mut f, mut d, mut b, mut ts) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rows {
        let some = |random: &mut dyn rand::RngCore| random.random_bool(0.85);
        k.push(some(random).then(|| KEYS[random.random_range(0..KEYS.len())]));
        i.push(random.random_range(-5i32..50));
        v.push(some(random).then(|| random.random_range(-100.0..100.0)));
        f.push(some(random).then(|| floats[random.random_range(0..floats.len())]));
        d.push(some(random).then(|| random.random_range(-500i128..500)));
        b.push(some(random).then(|| random.random_bool(0.5)));
        ts.push(some(random).then(|| random.random_range(0i64..20_000_000_000)));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(first..first + rows)),
        Arc::new(StringArray::from(k)),
        Arc::new(Int32Array::from(i)),
        Arc::new(Float64Array::from(v)),
        Arc::new(Float64Array::from(f)),
        Arc::new(
            Decimal128Array::from(d)
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(BooleanArray::from(b)),
        Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC")),
    ];
    RecordBatch::try_new(stored(), columns).unwrap()
}

/// A result as values, sorted.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) names: Vec<String>,
    pub(super) types: Vec<DataType>,
    pub(super) rows: Vec<Vec<ScalarValue>>,
}

async fn rows_of(frame: DataFrame) -> Rows {
    let schema = Arc::clone(frame.schema().inner());
    let mut rows: Vec<Vec<ScalarValue>> = vec![];
    for batch in frame.collect().await.unwrap() {
        assert_eq!(batch.schema().fields().len(), schema.fields().len());
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter();
            rows.push(
                values
                    .map(|c| ScalarValue::try_from_array(c, row).unwrap())
                    .collect(),
            );
        }
    }
    // floats last and coarse, so that their last bits do not decide
    let key = |row: &Vec<ScalarValue>| {
        let coarse = |v: &ScalarValue| match v {
            ScalarValue::Float64(Some(f)) => format!("{f:.4e}"),
            other => other.to_string(),
        };
        let (floats, exact): (Vec<_>, Vec<_>) = row
            .iter()
            .partition(|v| matches!(v, ScalarValue::Float64(_)));
        let texts: Vec<String> = exact.into_iter().chain(floats).map(coarse).collect();
        texts.join("\u{1}")
    };
    rows.sort_by_cached_key(key);
    Rows {
        names: schema.fields().iter().map(|f| f.name().clone()).collect(),
        types: schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect(),
        rows,
    }
}
