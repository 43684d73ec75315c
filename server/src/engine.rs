//! The open database: planning and running queries over one cut.
//!
//! Owns what all sessions share (catalog, log, query runtime, audit, refresher), the per-statement
//! scope, name resolution per role and scans. It knows no wire and runs no command.
//!
//! | module | what lies there |
//! |---|---|
//! | [`scope`] | one statement's cut, role and planning state |
//! | [`names`] | names → providers, per role: the place where policies stand |
//! | [`scan`] | a table at a cut as DataFusion reads it |
//! | [`open`] | from a data directory to an open database |
//! | [`keys`] | requests that are sent twice and stored once |
//! | [`lookups`] | queries for one key of a view that were asked before |
//! | [`refresh`] | what the view refresher needs |
//! | [`adopt`] | columns that are stored and not in the catalog |
//! | [`temporary`] | tables that end with their session |
//! | [`activity`] | what all connections are doing |
//! | [`sources`] | what all sources are doing |
//! | [`optimizer`] | the rules that finish a physical plan |
//! | `expiry` | old days of the server's own tables |

pub mod activity;
pub mod adopt;
mod expiry;
pub mod external;
pub mod keys;
pub mod lookups;
pub mod names;
pub mod open;
pub mod optimizer;
pub mod refresh;
pub mod scan;
pub mod scope;
pub mod sources;
pub mod temporary;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use catalog::{Change, Oid, Relation, RelationKind, Snapshot, Store};
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::{Config, Secret};
use crate::error::{Error, Result};
use crate::governance::audit::Audit;
use crate::jobs::Jobs;
use crate::jobs::clock::Clock;
use crate::lake;
use crate::stream::{DirLock, Stream};
use crate::system::{Activity, Live, SourceActivity};
use crate::tasks::{self, AbortOnDrop};
use crate::views::{Blocks, Refresher};
use activity::Sessions;
use keys::Keys;
use lookups::Lookups;
use sources::Sources;

/// The open database: what all sessions share.
#[derive(Debug)]
pub struct Engine {
    /// Settings it was opened with.
    pub config: Config,
    /// The durable catalog.
    pub store: Arc<dyn Store>,
    /// The log and everything it feeds.
    pub stream: Arc<Stream>,
    /// The trace of statements.
    pub audit: Audit,
    /// Stores materialized views.
    pub refresher: Refresher,
    /// Queries for one key of a view.
    pub lookups: Lookups,
    /// What they have read.
    pub blocks: Blocks,
    /// Upkeep of stored tables: what runs and ran.
    pub jobs: Arc<Jobs>,
    /// Which log position was the newest at a time.
    pub(crate) clock: Clock,
    /// Open sessions.
    pub sessions: Sessions,
    /// What feeds streaming tables.
    pub sources: Sources,
    /// Root of the Delta tables, with a trailing slash.
    pub warehouse: Url,
    /// Cancelled when the server ends: every running statement ends with it.
    pub stop: CancellationToken,
    /// Requests that are not to be stored twice.
    pub keys: Arc<Keys>,
    /// Held by the one replay of dead letters that runs.
    pub replays: Arc<tokio::sync::Mutex<()>>,
    /// What is known of tables whose files others own.
    pub external: external::Known,
    base: SessionState,
    view_runtime: Arc<RuntimeEnv>,
    queries: QueryThreads,
    catalog: Arc<ArcSwap<Snapshot>>,
    /// One catalog transaction at a time, from reading the snapshot to publishing the next.
    ddl: tokio::sync::Mutex<()>,
    background: Mutex<Vec<AbortOnDrop<()>>>,
    generated_password: Mutex<Option<Secret>>,
    lock: DirLock,
}

impl Engine {
    /// The newest catalog state; a statement takes it once.
    pub fn catalog(&self) -> Arc<Snapshot> {
        self.catalog.load_full()
    }

    /// Where queries compute, apart from the threads that serve connections.
    pub fn query_threads(&self) -> &tokio::runtime::Handle {
        self.queries.handle()
    }

    /// What reads stored files outside a statement: no names, no role.
    pub fn reading(&self) -> &SessionState {
        &self.base
    }

    /// The memory and disk that storing views takes.
    pub fn view_runtime(&self) -> &Arc<RuntimeEnv> {
        &self.view_runtime
    }

    /// Commits catalog changes and publishes the state that holds them.
    ///
    /// # Errors
    /// As [`Store::commit`]; nothing was applied then.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Arc<Snapshot>> {
        let (store, catalog) = (Arc::clone(&self.store), Arc::clone(&self.catalog));
        // a task of its own: a statement that is cancelled here must not leave the store ahead of
        // what statements see
        let committed = tasks::spawn("catalog commit", async move {
            let snapshot = store.commit(changes).await?;
            catalog.rcu(|current| match current.generation < snapshot.generation {
                true => Arc::clone(&snapshot),
                false => Arc::clone(current),
            });
            Ok(snapshot)
        });
        committed
            .await
            .map_err(|e| Error::Internal(format!("a catalog commit ended early: {e}")))?
    }

    /// Holds off other statements that change the catalog: names found stay free or taken.
    pub async fn ddl(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.ddl.lock().await
    }

    /// A fresh object id.
    pub async fn allocate_oid(&self) -> Result<Oid> {
        Ok(self.store.allocate_oid().await?)
    }

    /// Where a new table's files go: a folder of its own, never used before.
    pub fn location_for(&self, schema: &str, name: &str, oid: Oid) -> Result<Url> {
        let safe = |text: &str| -> String {
            let keep = |c: char| c.is_ascii_alphanumeric() || c == '_';
            text.chars()
                .map(|c| if keep(c) { c } else { '-' })
                .take(48)
                .collect()
        };
        let path = format!("{}/{}-{oid}/", safe(schema), safe(name));
        self.warehouse
            .join(&path)
            .map_err(|e| Error::Internal(format!("warehouse url cannot be extended: {e}")))
    }

    /// Takes relations that the catalog has let go out of the log, and deletes their files. What cannot
    /// be deleted is logged and stays as files nobody reads.
    pub async fn delete_storage(&self, relations: &[Relation]) {
        for relation in relations {
            if relation.kind == RelationKind::ExternalTable {
                // its files are not ours
                self.external.forget(relation.oid);
                continue;
            }
            if relation.location.is_none() {
                continue;
            }
            let deleted = async {
                self.stream.drop_table(relation.oid).await?;
                lake::delete(&open::location(relation)?).await
            };
            if let Err(e) = deleted.await {
                tracing::warn!(relation = %relation.name, error = %e, "cannot delete a dropped relation's files");
            }
        }
    }

    /// The superuser's password if this start made it up; given once, to be shown once.
    pub fn take_generated_password(&self) -> Option<Secret> {
        self.generated_password
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Cancelled when nothing holds the engine any more and its data directory is free.
    pub fn released(&self) -> CancellationToken {
        self.lock.released()
    }

    /// Stops background work, flushes the log, writes the audit rows and closes the catalog.
    pub async fn close(&self) -> Result<()> {
        // of sessions that have just ended
        if let Err(e) = temporary::clear(self, None).await {
            tracing::warn!(error = %e, "cannot drop temporary tables");
        }
        self.stop.cancel();
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let flushed = self.stream.shutdown(self.config.grace).await;
        self.audit.close().await;
        self.store.close().await;
        flushed
    }
}

/// Threads that queries compute on.
#[derive(Debug)]
struct QueryThreads(Option<tokio::runtime::Runtime>, tokio::runtime::Handle);

impl QueryThreads {
    /// More threads than cores: one query that computes long without a pause must not stop the others.
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.max(4) * 2)
            .thread_name("weir-query")
            .thread_stack_size(16 << 20)
            .enable_all()
            .build()
            .map_err(Error::io("start the query threads"))?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        &self.1
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // the engine may be dropped by a task, which must not wait for threads
            runtime.shutdown_background();
        }
    }
}

impl Live for Engine {
    fn activity(&self) -> Vec<Activity> {
        self.sessions.list()
    }

    fn stop(&self, pid: i32, session_too: bool) -> bool {
        self.sessions.stop(pid, session_too)
    }

    fn sources(&self) -> BTreeMap<Oid, SourceActivity> {
        self.sources.list()
    }
}
