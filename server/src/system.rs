//! System tables: `weir.*`, `pg_catalog`, `information_schema`; one file per table that has rows.
//!
//! Owns what these tables show, the catalog functions that clients call, and the rewrites that let
//! clients' catalog queries plan. Everything is built for one statement, from the catalog snapshot
//! and the head that statement took, and shows a role only what it owns or was granted. It must not
//! run statements or change anything.
//!
//! | module | what lies there |
//! |---|---|
//! | [`compat`] | rewrites of statements that mention system tables |
//! | `functions` | `version()`, `pg_get_viewdef(oid)`, … |
//! | `pg_catalog`, `information_schema`, `weir` | the tables |
//! | `shapes` | names, types and oids of all columns |
//! | `frame` | rows → record batches |
//! | `access` | what a role may see |

mod access;
pub mod compat;
mod frame;
mod functions;
mod information_schema;
mod pg_catalog;
mod shapes;
mod stats;
mod weir;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::catalog::{Oid, Privilege, Relation, RelationKind, Snapshot, Store};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ScalarUDF;

use crate::error::Result;
use crate::governance::privileges;
use crate::jobs::Jobs;
use crate::stream::head::DbHead;

/// The schemas that exist in every database and hold system tables.
pub const SCHEMAS: [&str; 3] = ["information_schema", "pg_catalog", "weir"];

/// What system tables and functions are built from: one statement's view of the database.
#[derive(Debug, Clone)]
pub struct SystemContext {
    /// The statement's catalog.
    pub catalog: Arc<Snapshot>,
    /// The statement's cut.
    pub head: Arc<DbHead>,
    /// Where lineage and audit rows are read.
    pub store: Arc<dyn Store>,
    /// The current role: its privileges filter what is shown.
    pub role: String,
    /// The role that logged in.
    pub session_role: String,
    /// The database's name.
    pub database: String,
    /// Schemas that unqualified names are looked up in.
    pub search_path: Vec<String>,
    /// The schema of this session's temporary tables, if there is one.
    pub temporary: Option<String>,
    /// Number of this connection.
    pub backend_pid: i32,
    /// All settings.
    pub settings: Arc<[Setting]>,
    /// Functions that SQL can call, for `pg_proc`.
    pub functions: Vec<FunctionInfo>,
    /// Background work, where there is any.
    pub jobs: Option<Arc<Jobs>>,
    /// What goes on in the server.
    pub live: Arc<dyn Live>,
}

/// What changes from moment to moment, looked up by the tables and functions that show it: most
/// statements ask for none of it.
pub trait Live: std::fmt::Debug + Send + Sync {
    /// What all connections are doing.
    fn activity(&self) -> Vec<Activity>;

    /// Cancels what a connection is doing, or ends it as well; false when there is none of that number.
    fn stop(&self, pid: i32, session_too: bool) -> bool;

    /// What feeds streaming tables, by table.
    fn sources(&self) -> BTreeMap<Oid, SourceActivity>;
}

/// One setting, as `SHOW ALL` has it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Name.
    pub name: &'static str,
    /// Value as text.
    pub value: Option<String>,
    /// What it does, in one line.
    pub description: &'static str,
}

/// One SQL function.
#[derive(Debug, Clone)]
pub struct FunctionInfo {
    /// Name.
    pub name: String,
    /// `f` function, `a` aggregate, `w` window: as `pg_proc.prokind`.
    pub kind: char,
    /// Arguments as they are written in documentation.
    pub arguments: String,
    /// Result type as it is written in documentation.
    pub result: String,
    /// What it does, in one line.
    pub description: String,
}

/// One connection and its statement.
#[derive(Debug, Clone)]
pub struct Activity {
    /// Its number.
    pub pid: i32,
    /// Session id, as in the audit log.
    pub session: String,
    /// `pg`, `flight`, `http`.
    pub door: String,
    /// Role.
    pub role: String,
    /// What the client calls itself.
    pub application_name: Option<String>,
    /// The client's address.
    pub client_address: Option<String>,
    /// `active` or `idle`.
    pub state: String,
    /// The running or last statement.
    pub query: Option<String>,
    /// When it began, microseconds since the Unix epoch.
    pub started_at_micros: Option<i64>,
    /// When the connection was made, microseconds since the Unix epoch.
    pub connected_at_micros: Option<i64>,
}

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceState {
    /// It was not begun yet.
    #[default]
    Starting,
    /// It reads, or waits for messages.
    Running,
    /// Memory for rows is full: it waits until there is room.
    Throttled,
    /// No broker can be reached, or the topic is not there; it tries again.
    Waiting,
    /// Something has to be done by a person; it tries again now and then.
    Failed,
    /// Its owner has stopped it.
    Paused,
}

impl SourceState {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Throttled => "throttled",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Paused => "paused",
        }
    }
}

/// How far a source is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourcePartition {
    /// The offset of the next message: all before it are stored.
    pub next: i64,
    /// Where the partition ends, when the broker has said so.
    pub end: Option<i64>,
    /// Nothing that brings a row lies before the end.
    pub drained: bool,
}

/// The source of one table since the server was started. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Default)]
pub struct SourceActivity {
    /// What it is doing.
    pub state: SourceState,
    /// How far it is.
    pub partitions: BTreeMap<i32, SourcePartition>,
    /// Messages taken in, those without a row included.
    pub messages: u64,
    /// Rows stored.
    pub rows: u64,
    /// Messages that were no rows of the table.
    pub rejected: u64,
    /// Bytes of values taken in.
    pub bytes: u64,
    /// Messages per second, lately.
    pub per_second: f64,
    /// When messages were stored last.
    pub last_message_at: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When.
    pub last_error_at: Option<i64>,
    /// When it was begun.
    pub started_at: Option<i64>,
}

impl SourceActivity {
    /// Messages that are there and not stored; `None` while the ends are not known.
    pub fn lag(&self) -> Option<i64> {
        let of = |p: &SourcePartition| match p.drained {
            true => Some(0),
            false => Some((p.end? - p.next).max(0)),
        };
        match self.partitions.is_empty() {
            true => None,
            false => self.partitions.values().map(of).sum(),
        }
    }
}

/// The system table `schema.name`, or `None` when there is none of that name.
///
/// # Errors
/// When the catalog store cannot be read.
pub async fn table(
    schema: &str,
    name: &str,
    cx: &Arc<SystemContext>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some(shape) = shapes::find(schema, name) else {
        return Ok(None);
    };
    let mut frame = frame::Frame::new(shape);
    match schema {
        "pg_catalog" => pg_catalog::fill(name, &mut frame, cx)?,
        "information_schema" => information_schema::fill(name, &mut frame, cx)?,
        _ => {
            if let Some(provider) = weir::fill(name, &mut frame, cx).await? {
                return Ok(Some(provider));
            }
        }
    }
    frame.into_table().map(Some)
}

/// True for a role that may read every column of every row of a table: what may be shown of whole rows
/// beside the table, as its dead letters, is shown to those alone.
pub fn sees_whole(catalog: &Snapshot, role: &str, relation: &Relation) -> bool {
    let access = access::Access::new(catalog, role);
    privileges::check_schema(catalog, role, relation.schema, Privilege::Usage).is_ok()
        && relation
            .columns
            .iter()
            .all(|c| access.may_column(relation, &c.name, Privilege::Select, false))
}

/// Names of the system tables of a schema.
pub fn names(schema: &str) -> Vec<&'static str> {
    shapes::all()
        .iter()
        .filter(|s| s.schema == schema)
        .map(|s| s.name)
        .collect()
}

/// The catalog functions, bound to one statement's context.
pub fn functions(cx: &Arc<SystemContext>) -> Vec<Arc<ScalarUDF>> {
    functions::all(cx)
}

impl SystemContext {
    fn access(&self) -> access::Access<'_> {
        access::Access::new(&self.catalog, &self.role).of_session(self.temporary.as_deref())
    }

    /// Relations the role may see, with their schemas' names.
    fn relations(&self) -> Vec<(&str, &Relation)> {
        let access = self.access();
        self.catalog
            .relations
            .iter()
            .filter(|r| access.sees_relation(r))
            .filter_map(|r| Some((self.catalog.schema_by_oid(r.schema)?.name.as_str(), r)))
            .collect()
    }

    fn role_name(&self, oid: Oid) -> Option<String> {
        self.catalog.role_by_oid(oid).map(|r| r.name.clone())
    }
}

/// `pg_class.relkind` of a relation.
fn relkind(kind: RelationKind) -> &'static str {
    match kind {
        // an external one is no "f": clients would ask which foreign server has it
        RelationKind::Table | RelationKind::StreamingTable | RelationKind::ExternalTable => "r",
        RelationKind::View => "v",
        RelationKind::MaterializedView => "m",
    }
}

/// `name=value` texts of options; values that open a door are not shown.
fn option_list<'a>(options: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    options
        .into_iter()
        .map(|(name, value)| {
            let secret = crate::kafka::options::is_secret(name);
            format!("{name}={}", if secret { "***" } else { value })
        })
        .collect()
}
