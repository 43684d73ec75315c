//! A statement's effect, one file per statement.
//!
//! Owns what each statement does with the engine, the log, the views and the catalog; it must not
//! know a wire. [`execute`] is one flat match; [`describe`] says the columns without running.

mod alter_model;
mod alter_streaming_table;
mod alter_table;
mod alter_table_set;
mod cancel_job;
mod comment;
pub mod copy;
mod create_external_table;
mod create_materialized_view;
mod create_model;
mod create_role;
mod create_schema;
mod create_secret;
mod create_table;
mod create_view;
mod cursor;
mod delete;
mod describe_history;
mod drop_object;
pub(crate) mod evolve;
mod explain;
mod explain_materialized_view;
mod flush_table;
mod grant;
pub mod ingest;
mod insert;
mod lineage;
mod lookup;
mod merge;
mod optimize;
mod origins;
mod prepare;
mod query;
mod refresh_materialized_view;
mod relations;
mod replay_dead_letters;
mod reshape;
mod restore_table;
mod retrain_model;
mod rewrite;
pub mod rows;
mod series;
mod set;
mod set_config;
mod show;
mod show_lineage;
pub mod token;
pub(crate) mod transaction;
mod truncate;
mod update;
mod vacuum;
mod verify_audit;
mod write;

use std::sync::{Arc, Weak};

use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dialect::refuse::clause;
use crate::dialect::{DropKind, Kind, Statement};
use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::session::{Description, Session};

/// One statement with everything its effect needs.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its cut, caller and engine.
    pub scope: Arc<Scope>,
    /// What it says.
    pub statement: Arc<Statement>,
    /// Values of `$1`, `$2`, …
    pub params: Vec<ScalarValue>,
    /// Cancelled by the client, or when the server ends.
    pub cancel: CancellationToken,
    /// `statement_timeout`.
    pub deadline: Option<Instant>,
    /// The session that runs it.
    pub session: Weak<Session>,
}

impl Run {
    /// The session that runs it.
    pub fn session(&self) -> Result<Arc<Session>> {
        self.session
            .upgrade()
            .ok_or_else(|| Error::Internal("the session is closed".to_owned()))
    }
}

/// What running a statement gives.
pub enum Outcome {
    /// Rows. `tag` is the command word of the completion tag (`SELECT`, `SHOW`, `EXPLAIN`, `INSERT`…):
    /// doors print `SELECT n` with the count they sent.
    Rows {
        /// Command word.
        tag: &'static str,
        /// Columns, also when there are no rows.
        schema: SchemaRef,
        /// The rows; dropping it cancels the query.
        stream: SendableRecordBatchStream,
    },
    /// No rows; the whole completion tag: `CREATE TABLE`, `INSERT 0 5`.
    Command {
        /// The completion tag.
        tag: String,
        /// Rows changed, when the statement changes rows.
        rows: Option<u64>,
    },
    /// The statement waits for `COPY` data: the door feeds it, then finishes or drops it.
    CopyIn(Box<dyn CopySink>),
    /// `COPY … TO STDOUT`: ready-made bytes in the asked format, one row per item.
    CopyOut {
        /// Binary format (affects the CopyOutResponse's format codes).
        binary: bool,
        /// Number of columns.
        columns: usize,
        /// The data.
        stream: futures::stream::BoxStream<'static, Result<Bytes>>,
        /// Counts rows as they are encoded.
        rows: Arc<std::sync::atomic::AtomicU64>,
    },
    /// The text held no statement.
    Empty,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rows { .. } => "Rows",
            Self::Command { .. } => "Command",
            Self::CopyIn(_) => "CopyIn",
            Self::CopyOut { .. } => "CopyOut",
            Self::Empty => "Empty",
        })
    }
}

impl Outcome {
    /// A command without rows.
    pub fn command(tag: impl Into<String>) -> Result<Self> {
        Ok(Self::Command {
            tag: tag.into(),
            rows: None,
        })
    }
}

/// Takes `COPY … FROM STDIN` data. Nothing is stored before [`CopySink::finish`] returns.
#[async_trait::async_trait]
pub trait CopySink: Send {
    /// Binary format (affects the CopyInResponse's format codes).
    fn binary(&self) -> bool;
    /// Number of columns.
    fn columns(&self) -> usize;
    /// The next bytes as they came; boundaries mean nothing. Waits when the server is behind.
    async fn feed(&mut self, data: Bytes) -> Result<()>;
    /// The client sent CopyDone: stores the rows, durable and visible on return, and says how many.
    async fn finish(self: Box<Self>) -> Result<u64>;
}

/// Runs a statement.
pub async fn execute(run: &Run) -> Result<Outcome> {
    match &run.statement.kind {
        Kind::CreateTable(s) => create_table::execute(run, s).await,
        Kind::CreateExternalTable(s) => create_external_table::execute(run, s).await,
        Kind::CreateMaterializedView(s) => create_materialized_view::execute(run, s).await,
        Kind::RefreshMaterializedView(s) => refresh_materialized_view::execute(run, s).await,
        Kind::ExplainMaterializedView(s) => explain_materialized_view::execute(run, s).await,
        Kind::CreateModel(s) => create_model::execute(run, s).await,
        Kind::RetrainModel(s) => retrain_model::execute(run, s).await,
        Kind::AlterModel(s) => alter_model::execute(run, s).await,
        Kind::CreateSecret(s) => create_secret::execute(run, s).await,
        Kind::AlterStreamingTable(s) => alter_streaming_table::execute(run, s).await,
        Kind::AlterTableSet(s) => alter_table_set::execute(run, s).await,
        Kind::DropObject(s) => drop_object::execute(run, s).await,
        Kind::Grant(s) => grant::execute(run, s).await,
        Kind::FlushTable(s) => flush_table::execute(run, s).await,
        Kind::Optimize(s) => Box::pin(optimize::execute(run, s)).await,
        Kind::Vacuum(s) => Box::pin(vacuum::execute(run, s)).await,
        Kind::RestoreTable(s) => Box::pin(restore_table::execute(run, s)).await,
        Kind::CancelJob(s) => cancel_job::execute(run, *s),
        Kind::ReplayDeadLetters(s) => Box::pin(replay_dead_letters::execute(run, s)).await,
        Kind::DescribeHistory(s) => describe_history::execute(run, s).await,
        Kind::ShowLineage(s) => show_lineage::execute(run, s).await,
        Kind::VerifyAudit(_) => verify_audit::execute(run).await,
        Kind::Native(native) => Box::pin(execute_native(run, native)).await,
    }
}

async fn execute_native(run: &Run, native: &Ast) -> Result<Outcome> {
    match native {
        Ast::Query(query) => query::execute(run, query).await,
        Ast::Insert(s) => insert::execute(run, s).await,
        Ast::Update(s) => Box::pin(update::execute(run, s)).await,
        Ast::Delete(s) => Box::pin(delete::execute(run, s)).await,
        Ast::Merge(s) => Box::pin(merge::execute(run, s)).await,
        Ast::Truncate(s) => truncate::execute(run, s).await,
        Ast::Copy {
            source,
            to,
            target,
            options,
            legacy_options,
            values: _,
        } => copy::execute(run, source, *to, target, options, legacy_options).await,
        Ast::CreateView(s) => create_view::execute(run, s).await,
        Ast::CreateSchema { .. } => create_schema::execute(run, native).await,
        Ast::AlterTable(s) => alter_table::execute(run, s).await,
        Ast::Comment {
            object_type,
            object_name,
            comment,
            if_exists,
        } => {
            comment::execute(
                run,
                object_type,
                object_name,
                comment.as_deref(),
                *if_exists,
            )
            .await
        }
        Ast::CreateRole(s) => create_role::create(run, s).await,
        Ast::CreateUser(s) => create_role::create_user(run, s).await,
        Ast::AlterRole { name, operation } => create_role::alter(run, name, operation).await,
        Ast::Explain { .. } => explain::execute(run, native).await,
        Ast::Set(s) => set::execute(run, s),
        Ast::Reset(s) => set::reset(run, s),
        Ast::Discard { object_type } => set::discard(run, object_type).await,
        Ast::ShowVariable { variable } => show::execute(run, variable).await,
        Ast::ShowTables { .. } => Err(Error::unsupported(
            "SHOW TABLES is not supported",
            "use \\dt in psql, or SELECT * FROM information_schema.tables",
        )),
        Ast::StartTransaction { .. }
        | Ast::Commit { .. }
        | Ast::Rollback { .. }
        | Ast::Savepoint { .. }
        | Ast::ReleaseSavepoint { .. } => Box::pin(transaction::execute(run, native)).await,
        // nothing can be listened to, so there is nothing to end; pools say it when they reset
        Ast::UNLISTEN { .. } => Outcome::command("UNLISTEN"),
        Ast::Declare { stmts } => cursor::declare(run, stmts).await,
        Ast::Fetch {
            name,
            direction,
            position: _,
            into,
        } => {
            clause(into.is_some(), "FETCH … INTO", "use CREATE TABLE … AS")?;
            cursor::fetch(run, name, direction)
        }
        Ast::Close { cursor } => cursor::close(run, cursor),
        Ast::Prepare {
            name,
            data_types,
            statement,
        } => prepare::prepare(run, name, data_types, statement).await,
        Ast::Execute {
            name,
            parameters,
            immediate,
            into,
            using,
            ..
        } => {
            let foreign = *immediate || !into.is_empty() || !using.is_empty();
            clause(foreign, "this form of EXECUTE", "use EXECUTE name (values)")?;
            prepare::execute(run, name.as_ref(), parameters).await
        }
        Ast::Deallocate { name, .. } => prepare::deallocate(run, name),
        other => Err(unsupported(other)),
    }
}

fn unsupported(statement: &Ast) -> Error {
    let text = statement.to_string();
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    let name = words.join(" ").to_uppercase();
    Error::unsupported(
        format!("{name} is not supported"),
        "the README lists the statements that are there",
    )
}

/// The parameters and columns of a statement, without running it.
pub async fn describe(run: &Run, hints: &[Option<DataType>]) -> Result<Description> {
    let none = |schema| Description {
        params: Vec::new(),
        schema,
    };
    Ok(match &run.statement.kind {
        Kind::Native(native) => match &**native {
            Ast::Query(query) => query::describe(run, query, hints).await?,
            Ast::Insert(s) => insert::describe(run, s, hints).await?,
            Ast::Update(s) => update::describe(run, s, hints).await?,
            Ast::Delete(s) => delete::describe(run, s, hints).await?,
            Ast::Explain { .. } => none(Some(explain::schema())),
            Ast::Fetch { name, .. } => none(Some(cursor::schema(run, name)?)),
            Ast::Execute { name, .. } => none(prepare::named(run, name.as_ref())?.schema),
            Ast::ShowVariable { variable } => none(Some(show::schema(variable))),
            _ => none(None),
        },
        Kind::ReplayDeadLetters(_) => none(Some(replay_dead_letters::schema())),
        Kind::DescribeHistory(_) => none(Some(describe_history::schema())),
        Kind::ShowLineage(_) => none(Some(show_lineage::schema())),
        Kind::ExplainMaterializedView(_) => none(Some(crate::views::explain::schema())),
        Kind::VerifyAudit(_) => none(Some(verify_audit::schema())),
        Kind::Optimize(_) => none(Some(optimize::schema())),
        Kind::Vacuum(s) => none(s.dry_run.then(vacuum::schema)),
        Kind::CreateTable(_)
        | Kind::CreateExternalTable(_)
        | Kind::CreateMaterializedView(_)
        | Kind::RefreshMaterializedView(_)
        | Kind::CreateModel(_)
        | Kind::RetrainModel(_)
        | Kind::AlterModel(_)
        | Kind::CreateSecret(_)
        | Kind::AlterStreamingTable(_)
        | Kind::AlterTableSet(_)
        | Kind::DropObject(_)
        | Kind::Grant(_)
        | Kind::RestoreTable(_)
        | Kind::CancelJob(_)
        | Kind::FlushTable(_) => none(None),
    })
}

/// The command's name, as in its completion tag.
pub fn command(statement: &Statement) -> &'static str {
    match &statement.kind {
        Kind::CreateTable(s) if s.streaming => "CREATE STREAMING TABLE",
        Kind::CreateTable(s) if s.query.is_some() => "CREATE TABLE AS",
        Kind::CreateTable(_) => "CREATE TABLE",
        Kind::CreateExternalTable(_) => "CREATE EXTERNAL TABLE",
        Kind::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
        Kind::RefreshMaterializedView(_) => "REFRESH MATERIALIZED VIEW",
        Kind::ExplainMaterializedView(_) => "EXPLAIN",
        Kind::CreateModel(_) => "CREATE MODEL",
        Kind::RetrainModel(_) => "RETRAIN MODEL",
        Kind::AlterModel(_) => "ALTER MODEL",
        Kind::CreateSecret(_) => "CREATE SECRET",
        Kind::AlterStreamingTable(_) => "ALTER STREAMING TABLE",
        Kind::AlterTableSet(_) => "ALTER TABLE",
        Kind::DropObject(s) => match s.kind {
            DropKind::Table => "DROP TABLE",
            DropKind::View => "DROP VIEW",
            DropKind::MaterializedView => "DROP MATERIALIZED VIEW",
            DropKind::Schema => "DROP SCHEMA",
            DropKind::Model => "DROP MODEL",
            DropKind::Secret => "DROP SECRET",
            DropKind::Role => "DROP ROLE",
        },
        Kind::Grant(s) if s.revoke => "REVOKE",
        Kind::Grant(_) => "GRANT",
        Kind::FlushTable(_) => "FLUSH TABLE",
        Kind::Optimize(_) => "OPTIMIZE",
        Kind::Vacuum(_) => "VACUUM",
        Kind::RestoreTable(_) => "RESTORE TABLE",
        Kind::CancelJob(_) => "CANCEL JOB",
        Kind::ReplayDeadLetters(_) => "REPLAY DEAD LETTERS",
        Kind::DescribeHistory(_) => "DESCRIBE HISTORY",
        Kind::ShowLineage(_) => "SHOW LINEAGE",
        Kind::VerifyAudit(_) => "VERIFY AUDIT",
        Kind::Native(native) => native_command(native),
    }
}

fn native_command(native: &Ast) -> &'static str {
    match native {
        Ast::Query(_) => "SELECT",
        Ast::Insert(_) => "INSERT",
        Ast::Update(_) => "UPDATE",
        Ast::Delete(_) => "DELETE",
        Ast::Merge(_) => "MERGE",
        Ast::Truncate(_) => "TRUNCATE TABLE",
        Ast::Copy { .. } => "COPY",
        Ast::CreateView(_) => "CREATE VIEW",
        Ast::CreateSchema { .. } => "CREATE SCHEMA",
        Ast::AlterTable(_) => "ALTER TABLE",
        Ast::Comment { .. } => "COMMENT",
        Ast::CreateRole(_) | Ast::CreateUser(_) => "CREATE ROLE",
        Ast::AlterRole { .. } => "ALTER ROLE",
        Ast::Explain { .. } => "EXPLAIN",
        Ast::Set(_) => "SET",
        Ast::Reset(_) => "RESET",
        Ast::Discard { .. } => "DISCARD",
        Ast::ShowVariable { .. } => "SHOW",
        Ast::StartTransaction { .. } => "BEGIN",
        Ast::Commit { .. } => "COMMIT",
        Ast::Rollback { .. } => "ROLLBACK",
        Ast::Savepoint { .. } => "SAVEPOINT",
        Ast::ReleaseSavepoint { .. } => "RELEASE",
        Ast::UNLISTEN { .. } => "UNLISTEN",
        Ast::Declare { .. } => "DECLARE CURSOR",
        Ast::Fetch { .. } => "FETCH",
        Ast::Close { .. } => "CLOSE CURSOR",
        Ast::Prepare { .. } => "PREPARE",
        Ast::Execute { .. } => "EXECUTE",
        Ast::Deallocate { .. } => "DEALLOCATE",
        _ => "UNSUPPORTED",
    }
}

/// True for statements that change something and whose change is durable when they return, inside a
/// block too. Those that change rows decide by their table, and `EXECUTE` is what it names.
pub fn commits_by_itself(statement: &Statement) -> bool {
    let waits = matches!(
        &statement.kind,
        Kind::Native(native) if matches!(
            **native,
            Ast::Insert(_)
                | Ast::Update(_)
                | Ast::Delete(_)
                | Ast::Merge(_)
                | Ast::Truncate(_)
                | Ast::Execute { .. }
        )
    );
    writes(statement) && !waits
}

/// True for a statement that changes stored rows or the catalog.
pub fn writes(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::ExplainMaterializedView(_)
        | Kind::DescribeHistory(_)
        | Kind::ShowLineage(_)
        | Kind::VerifyAudit(_) => false,
        Kind::Native(native) => match &**native {
            Ast::Copy { to, .. } => !to,
            other => !matches!(
                native_command(other),
                "SELECT"
                    | "EXPLAIN"
                    | "SET"
                    | "RESET"
                    | "DISCARD"
                    | "SHOW"
                    | "BEGIN"
                    | "COMMIT"
                    | "ROLLBACK"
                    | "SAVEPOINT"
                    | "RELEASE"
                    | "UNLISTEN"
                    | "DECLARE CURSOR"
                    | "FETCH"
                    | "CLOSE CURSOR"
                    | "PREPARE"
                    | "DEALLOCATE"
            ),
        },
        Kind::ReplayDeadLetters(s) => !s.dry_run,
        Kind::CreateTable(_)
        | Kind::CreateExternalTable(_)
        | Kind::CreateMaterializedView(_)
        | Kind::RefreshMaterializedView(_)
        | Kind::CreateModel(_)
        | Kind::RetrainModel(_)
        | Kind::AlterModel(_)
        | Kind::CreateSecret(_)
        | Kind::AlterStreamingTable(_)
        | Kind::AlterTableSet(_)
        | Kind::DropObject(_)
        | Kind::Grant(_)
        | Kind::Optimize(_)
        | Kind::RestoreTable(_)
        | Kind::CancelJob(_)
        | Kind::FlushTable(_) => true,
        Kind::Vacuum(s) => !s.dry_run,
    }
}
