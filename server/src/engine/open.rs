//! From a data directory to an open database: lock, catalog, log, state of views, background work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use catalog::{Change, Relation, RelationKind, Snapshot, Store};
use datafusion::catalog::Session;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use deltalake::delta_datafusion::planner::DeltaExtensionPlanner;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Engine;
use super::activity::Sessions;
use super::expiry;
use super::keys::Keys;
use super::refresh::EngineHost;
use super::scope::DATABASE;
use crate::config::{Config, Secret};
use crate::error::{Error, Result, SqlState};
use crate::governance::audit::Audit;
use crate::governance::scram;
use crate::jobs::clock::Clock;
use crate::jobs::{self, Jobs};
use crate::lake;
use crate::stream::{DedupSpec, DirLock, Stream, StreamOptions, TableSpec, ViewSpec, internal};
use crate::tasks::{self, AbortOnDrop};
use crate::types;
use crate::views::refresh::Pace;
use crate::views::{Blocks, Kept, Refresher};

/// How far apart duplicates may be in time, when a table does not say.
const DEDUP_WINDOW: Duration = Duration::from_secs(60 * 60);

/// The superuser.
pub const ADMIN: &str = "weir";

impl Engine {
    /// Opens the catalog (migrating it), the log (recovering it) and the query runtime. Takes the
    /// data directory's lock; a second process is refused.
    ///
    /// # Errors
    /// 55006 when another process has the directory; what the catalog and the log report.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&config.data).map_err(Error::io("create the data directory"))?;
        let lock = DirLock::take(&config.data)?;
        let store = open_store(&config).await?;
        let (snapshot, generated) = ensure_admin(&store, &config).await?;
        lake::stores::configure(&config.storage);
        let warehouse = warehouse_url(&config)?;
        lake::stores::prove(&warehouse).await?;
        let stream = open_stream(&config, &snapshot, &warehouse).await?;
        clear_spilled(&config);
        let base = base_state(&config, &warehouse)?;
        let view_runtime = view_runtime(base.runtime_env(), &config)?;
        let keys = Keys::new(config.idempotency_window, config.max_idempotency_keys);
        keys.load(&base, &stream.head()).await?;
        let queries = super::QueryThreads::start()?;
        let stop = CancellationToken::new();
        let clock = Clock::open(config.data.join("clock"));
        let engine = Arc::new_cyclic(|engine| Self {
            audit: Audit::start(Arc::clone(&store)),
            refresher: Refresher::new(
                Arc::new(EngineHost::new(std::sync::Weak::clone(engine))),
                Pace::default(),
            ),
            lookups: super::lookups::Lookups::default(),
            blocks: Blocks::new(config.lookup_memory),
            jobs: Jobs::new(stop.clone()),
            clock,
            sessions: Sessions::default(),
            sources: super::sources::Sources::default(),
            stop,
            keys: Arc::new(keys),
            replays: Arc::default(),
            external: super::external::Known::default(),
            catalog: Arc::new(ArcSwap::new(snapshot)),
            ddl: tokio::sync::Mutex::new(()),
            background: Mutex::default(),
            generated_password: Mutex::new(generated),
            config,
            store,
            stream,
            warehouse,
            base,
            view_runtime,
            queries,
            lock,
        });
        // of sessions that a crash ended
        super::temporary::clear(&engine, None).await?;
        super::adopt::all(&engine).await?;
        engine.start_background();
        Ok(engine)
    }

    fn start_background(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        let stop = self.stop.clone();
        let refresher = tasks::spawn("view refresher", async move {
            // the engine owns this task: hold it only while it is at work
            if let Some(engine) = engine.upgrade() {
                engine.refresher.run(stop).await;
            }
        });
        let engine = Arc::downgrade(self);
        let stop = self.stop.clone();
        let expiry = tasks::spawn("expiry of internal tables", async move {
            while stop
                .run_until_cancelled(tokio::time::sleep(expiry::PAUSE))
                .await
                .is_some()
                && let Some(engine) = engine.upgrade()
            {
                if let Err(e) = engine.expire_internal().await {
                    tracing::warn!(error = ?e, "cannot let old days of internal tables go");
                }
            }
        });
        if let Ok(mut background) = self.background.lock() {
            background.push(AbortOnDrop::new(refresher));
            background.extend(jobs::start(self));
            background.push(AbortOnDrop::new(expiry));
        }
    }
}

/// The Delta side of a table.
pub fn table_spec(snapshot: &Snapshot, relation: &Relation) -> Result<TableSpec> {
    Ok(TableSpec {
        oid: relation.oid,
        name: snapshot.qualified_name(relation),
        schema: types::schema(&relation.columns),
        partition_by: relation.partition_by.clone(),
        streaming: relation.kind == RelationKind::StreamingTable,
        root: location(relation)?,
        flush_interval: match relation.options.get("flush_interval") {
            Some(text) => Some(parse_duration(text)?),
            None => None,
        },
        dedup: dedup_spec(&relation.options)?,
        bloom_filters: relation
            .options
            .get("bloom_filter_columns")
            .map(|names| bloom_filters(names))
            .unwrap_or_default(),
    })
}

/// What makes two rows of a streaming table the same, by its options.
///
/// # Errors
/// 22023 for a window that is no duration.
pub fn dedup_spec(options: &BTreeMap<String, String>) -> Result<Option<DedupSpec>> {
    let Some(key) = options.get("dedup_key") else {
        return Ok(None);
    };
    Ok(Some(DedupSpec {
        key: column_list(key),
        window: match options.get("dedup_window") {
            Some(text) => parse_duration(text)?,
            None => DEDUP_WINDOW,
        },
        event_time: options.get("event_time").cloned(),
    }))
}

/// The columns that `bloom_filter_columns` names; none when it is empty.
pub fn bloom_filters(text: &str) -> Vec<String> {
    match text.trim().is_empty() {
        true => Vec::new(),
        false => column_list(text),
    }
}

/// The columns that an option names: `a, b`; one with other letters in double quotes.
pub fn column_list(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    names
        .map(|name| {
            let quoted = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
            quoted.unwrap_or(name).replace("\"\"", "\"")
        })
        .collect()
}

/// The location of a relation that has storage.
pub fn location(relation: &Relation) -> Result<Url> {
    relation
        .location
        .as_deref()
        .and_then(|text| Url::parse(text).ok())
        .ok_or_else(|| Error::Internal(format!("relation \"{}\" has no location", relation.name)))
}

/// `5 s`, `200 ms`, `1 minute`, `2 hours`, `30 days`.
///
/// # Errors
/// 22023 for anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis = match unit.trim() {
        "ms" | "millisecond" | "milliseconds" => 1,
        "s" | "second" | "seconds" | "sec" => 1_000,
        "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(millis))
    {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        _ => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid duration \"{text}\""),
        )
        .with_hint("write a number and a unit, such as '5 s', '200 ms' or '1 hour'")),
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>> {
    let location = match &config.catalog {
        Some(url) => url.0.clone(),
        None => config.data.join("catalog.db").display().to_string(),
    };
    Ok(catalog::store::open(&location).await?)
}

/// Gives the superuser the configured password, or makes one up when it has none.
async fn ensure_admin(
    store: &Arc<dyn Store>,
    config: &Config,
) -> Result<(Arc<Snapshot>, Option<Secret>)> {
    let snapshot = store.load().await?;
    let Some(admin) = snapshot.role(ADMIN) else {
        return Err(Error::Internal("the catalog has no superuser".to_owned()));
    };
    let (password, generated) = match (&config.admin_password, &admin.scram_verifier) {
        (Some(given), Some(verifier)) if scram::check_password(verifier, &given.0) => {
            return Ok((snapshot, None));
        }
        (Some(given), _) => (given.0.clone(), None),
        (None, Some(_)) => return Ok((snapshot, None)),
        (None, None) => {
            let made = made_up_password();
            (made.clone(), Some(Secret(made)))
        }
    };
    let mut admin = admin.clone();
    admin.scram_verifier = Some(scram::make_verifier(&password));
    Ok((store.commit(vec![Change::PutRole(admin)]).await?, generated))
}

fn made_up_password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = rand::rng();
    (0..20)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

fn warehouse_url(config: &Config) -> Result<Url> {
    let bad = |text: &str| {
        Error::refused(
            SqlState::CONFIG_FILE_ERROR,
            format!("invalid warehouse \"{text}\""),
        )
    };
    match &config.warehouse {
        Some(text) if text.contains("://") => {
            let url =
                Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|_| bad(text))?;
            // a scheme or settings without a store are refused here
            lake::stores::object_store(&url)?;
            Ok(url)
        }
        Some(path) => directory_url(Path::new(path)),
        None => directory_url(&config.data.join("warehouse")),
    }
}

fn directory_url(path: &Path) -> Result<Url> {
    std::fs::create_dir_all(path).map_err(Error::io("create the warehouse directory"))?;
    let path = path
        .canonicalize()
        .map_err(Error::io("find the warehouse directory"))?;
    Url::from_directory_path(&path)
        .map_err(|()| Error::Internal("the warehouse directory has no url".to_owned()))
}

async fn open_stream(config: &Config, snapshot: &Snapshot, warehouse: &Url) -> Result<Arc<Stream>> {
    let mut options = StreamOptions::new(config.data.join("wal"));
    options.flush_interval = config.flush_interval;
    options.acknowledge_interval = config.acknowledge_interval;
    options.acknowledge_wait = config.acknowledge_wait;
    options.tail_bytes = config.tail_bytes;
    options.segment_bytes = config.segment_bytes;
    options.dedup_bytes = config.dedup_bytes;
    let mut tables = snapshot
        .relations
        .iter()
        .filter(|r| matches!(r.kind, RelationKind::Table | RelationKind::StreamingTable))
        .map(|r| table_spec(snapshot, r))
        .collect::<Result<Vec<_>>>()?;
    tables.extend(internal::prepare(warehouse).await?);
    let stream = Stream::open(options, tables).await?;
    for relation in &snapshot.relations {
        if let Some(view) = Kept::of(relation)? {
            stream.open_view(view_spec(relation, &view)?).await?;
        }
    }
    Ok(stream)
}

/// The state of a materialized view as the log takes it in.
fn view_spec(relation: &Relation, view: &Kept) -> Result<ViewSpec> {
    Ok(ViewSpec {
        oid: relation.oid,
        name: relation.name.clone(),
        schema: Arc::new(arrow::datatypes::Schema::empty()),
        partition_by: Vec::new(),
        source: view.source,
        sources: view.sources.clone(),
        root: location(relation)?,
    })
}

/// So many bytes for those who ask, shared by those who can spill.
fn memory_pool(bytes: usize) -> Arc<dyn MemoryPool> {
    let named_in_errors = std::num::NonZeroUsize::MIN.saturating_add(4);
    let pool = FairSpillPool::new(bytes);
    Arc::new(TrackConsumersPool::new(pool, named_in_errors))
}

/// Where views are stored: as queries run, with memory of its own, so that neither waits for the other's.
fn view_runtime(queries: &RuntimeEnv, config: &Config) -> Result<Arc<RuntimeEnv>> {
    let builder = RuntimeEnvBuilder::from_runtime_env(queries);
    let builder = builder.with_memory_pool(memory_pool(config.view_memory));
    Ok(builder.build_arc()?)
}

/// Where operators put what does not fit into memory.
fn spilled(config: &Config) -> PathBuf {
    config.data.join("spill")
}

/// Removes what a killed process had spilled; the directory's lock says that it is nobody's. The folder itself
/// stays: it may be a disk of its own.
fn clear_spilled(config: &Config) {
    let Ok(left) = std::fs::read_dir(spilled(config)) else {
        return;
    };
    for entry in left.flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        if let Err(e) = removed {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove what was spilled");
        }
    }
}

/// DataFusion as weir uses it, before a statement's names are put in.
fn base_state(config: &Config, warehouse: &Url) -> Result<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(memory_pool(config.query_memory))
        .with_temp_file_path(spilled(config))
        .with_metadata_cache_limit(64 << 20)
        .build_arc()?;
    if warehouse.scheme() != "file" {
        let store = lake::stores::object_store(warehouse)?;
        runtime.register_object_store(warehouse, store);
    }
    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(DATABASE, super::scope::DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = session.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    // casts and functions say that a result may be NULL where the optimizer knows that it is not
    options.execution.skip_physical_aggregate_schema_check = true;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    options.optimizer.filter_null_join_keys = true;
    let builder = SessionStateBuilder::new()
        .with_default_features()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_query_planner(Arc::new(Planner))
        .with_physical_optimizer_rules(super::optimizer::rules())
        .with_analyzer_rule(udfs::analyzer_rule());
    let mut state = crate::semantics::install(builder).build();
    udfs::register_keyless(&mut state)?;
    Ok(state)
}

/// DataFusion's planner with the nodes of views and of delta-rs.
#[derive(Debug)]
struct Planner;

#[async_trait::async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![
            crate::views::extension_planner(),
            DeltaExtensionPlanner::new(),
        ]);
        planner.create_physical_plan(plan, session).await
    }
}
