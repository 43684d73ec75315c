//! One connection, whatever its door: role, settings, transaction, cancel. Every statement of every
//! door goes through [`Session::parse`], [`Session::describe`] and [`Session::execute`].
//!
//! | module | what lies there |
//! |---|---|
//! | [`cursors`] | cursors and statements prepared in SQL |
//! | [`settings`] | what SET and SHOW know |
//! | `held` | changes that wait for the end of their block |
//! | [`transaction`] | what a transaction block means |
//! | `trace` | a statement's audit row |

pub mod cursors;
pub(crate) mod held;
pub mod settings;
mod trace;
pub mod transaction;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use catalog::{Oid, Relation, Schema};
use datafusion::common::ScalarValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::decode::{BadRows, Decoded};
use crate::dialect::{self, Kind, Statement};
use crate::engine::Engine;
use crate::engine::activity::{Seat, now_micros};
use crate::engine::keys::RequestKey;
use crate::engine::scope::{Caller, Scope};
use crate::engine::temporary;
use crate::error::{Error, Report, Result, SqlState};
use crate::exec::ingest::{Delivery, Refused, Stored};
use crate::exec::{self, Outcome, Run};
use crate::governance::privileges;
use crate::stream::line::Turn;
use crate::{ml, system, tasks};
use cursors::Named;
use held::Held;
use settings::Settings;
use trace::Trace;
use transaction::Transaction;

/// Which door a session came in by; recorded in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// PostgreSQL protocol.
    Pg,
    /// Arrow Flight SQL.
    Flight,
    /// HTTP.
    Http,
    /// Segment's API, over HTTP.
    Segment,
    /// The server itself.
    System,
}

impl Door {
    /// Its name in the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pg => "pg",
            Self::Flight => "flight",
            Self::Http => "http",
            Self::Segment => "segment",
            Self::System => "system",
        }
    }
}

/// What a statement takes and gives, without running it.
#[derive(Debug, Clone)]
pub struct Description {
    /// Types of `$1`, `$2`, …; text where nothing decides.
    pub params: Vec<DataType>,
    /// Columns of the result; `None` when the statement returns no rows.
    pub schema: Option<SchemaRef>,
}

/// Where a transaction stands, as ReadyForQuery reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction block.
    Idle,
    /// Inside one.
    Open,
    /// Inside one that failed: only ROLLBACK is taken.
    Failed,
}

/// What an ingest call did.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// Rows stored by this call.
    pub accepted: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows that were there already.
    pub duplicate: u64,
    /// The rows were stored before under the same key; this is what was answered then.
    pub again: bool,
    /// The rows of this call that became dead letters.
    pub refused: Vec<Refused>,
    /// The commit token: `SET weir.read_after` waits for it.
    pub token: String,
}

/// What a door must know of a table before it decodes rows for it.
#[derive(Debug, Clone)]
pub struct IngestTable {
    /// Columns that rows may bring. Those with a default carry [`crate::types::DEFAULT_KEY`].
    pub columns: SchemaRef,
    /// What becomes of rows that are bad.
    pub bad_rows: BadRows,
}

/// One connection. Doors share it behind an `Arc`.
#[derive(Debug)]
pub struct Session {
    /// The database.
    pub engine: Arc<Engine>,
    id: String,
    door: Door,
    seat: Seat,
    /// A table that it may write whatever its role: a write key opened it.
    opened: Option<Oid>,
    inner: Mutex<Inner>,
    /// Itself: statements keep their session alive.
    me: Weak<Session>,
}

#[derive(Debug)]
struct Inner {
    role: String,
    session_role: String,
    settings: Settings,
    transaction: Transaction,
    named: Named,
    /// What is to be told besides the next answer.
    notices: Vec<Report>,
    /// It has, or may have, a schema of temporary tables.
    temporary: bool,
}

/// Notices kept for one answer; the oldest stay.
const MOST_NOTICES: usize = 16;

impl Session {
    /// Opens a session for a role that a door has authenticated.
    ///
    /// # Errors
    /// 28000 for a role that may not log in.
    pub fn open(engine: &Arc<Engine>, role: &str, door: Door) -> Result<Arc<Self>> {
        if !engine.catalog().role(role).is_some_and(|r| r.login) {
            return Err(Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                format!("role \"{role}\" is not permitted to log in"),
            ));
        }
        Ok(Self::make(engine, role, door, None))
    }

    /// Another session of the same role and door, with the settings of this one.
    ///
    /// # Errors
    /// 28000 for a role that may not log in any more.
    pub fn sibling(&self) -> Result<Arc<Self>> {
        let (role, session_role, settings) = {
            let inner = self.inner();
            let roles = (inner.role.clone(), inner.session_role.clone());
            (roles.0, roles.1, inner.settings.clone())
        };
        let session = Self::open(&self.engine, &session_role, self.door)?;
        {
            let mut inner = session.inner();
            inner.role = role;
            inner.settings = settings;
        }
        Ok(session)
    }

    /// Opens a session for whoever has the write key of a table: it may add rows to that table. Its
    /// role is made up, so that traces tell such rows from those of people.
    pub fn open_for_writes(engine: &Arc<Engine>, name: &str, table: &Relation) -> Arc<Self> {
        let role = format!("write key of {name}");
        Self::make(engine, &role, Door::Segment, Some(table.oid))
    }

    fn make(engine: &Arc<Engine>, role: &str, door: Door, opened: Option<Oid>) -> Arc<Self> {
        let id = uuid::Uuid::now_v7().to_string();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            seat: engine.sessions.enter(&id, door.name(), role),
            engine: Arc::clone(engine),
            id,
            door,
            opened,
            inner: Mutex::new(Inner {
                role: role.to_owned(),
                session_role: role.to_owned(),
                settings: Settings::new(role),
                transaction: Transaction::default(),
                named: Named::default(),
                notices: Vec::new(),
                temporary: false,
            }),
        })
    }

    /// Splits and parses a text once; `;`-separated statements in order, none for blank text.
    ///
    /// # Errors
    /// 42601 with the position; 0A000 for what is read but not supported.
    pub fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        let mut statements = dialect::parse(sql).inspect_err(|e| {
            self.fail_transaction();
            Trace::unread(self, sql, e);
        })?;
        for statement in &mut statements {
            if let Kind::Native(native) = &mut statement.kind {
                ml::bind_relation_arguments(native)?;
                if system::compat::mentions_system_tables(native) {
                    system::compat::rewrite(native);
                    // what is left of them has no keys
                    dialect::array_of::rewrite_all(native.as_mut());
                }
            }
        }
        Ok(statements.into_iter().map(Arc::new).collect())
    }

    /// Parameter and result types. `hints` are the types the client declared (`None`: undeclared).
    ///
    /// # Errors
    /// What planning reports.
    pub async fn describe(
        &self,
        statement: &Arc<Statement>,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        let run = self.run(statement, Vec::new())?;
        let trace = Trace::start(self, &run);
        match exec::describe(&run, hints).await {
            Ok(description) => Ok(description),
            Err(e) => {
                let e = statement.place(e);
                // refused here, the statement is never executed: this is its row
                trace.fail(&run, &e).await;
                self.fail_transaction();
                Err(e)
            }
        }
    }

    /// Runs one statement. Rows stream; the statement's deadline and cancel also hold while they do.
    ///
    /// # Errors
    /// What the statement reports; an open transaction has failed then.
    pub async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.check_transaction(statement)?;
        self.await_token().await?;
        if self.holds() && exec::commits_by_itself(statement) {
            Box::pin(self.commit_held())
                .await
                .inspect_err(|_| self.fail_transaction())?;
        }
        let run = self.run(statement, params)?;
        let trace = Trace::start(self, &run);
        show(&self.seat.activity, "active", Some(&statement.text));
        let result = self.guarded(&run, Box::pin(exec::execute(&run))).await;
        let result = match result {
            Ok(outcome) => {
                let held = !exec::commits_by_itself(statement) && self.holds();
                trace.finish(&run, outcome, held).await
            }
            Err(e) => {
                let e = statement.place(e);
                trace.fail(&run, &e).await;
                Err(e)
            }
        };
        self.rests_after(result.inspect_err(|_| self.fail_transaction()))
    }

    /// Shows the session as idle, once its rows have been read where there are some.
    fn rests_after(&self, result: Result<Outcome>) -> Result<Outcome> {
        let state = match self.transaction_status() {
            TransactionStatus::Idle => "idle",
            TransactionStatus::Open => "idle in transaction",
            TransactionStatus::Failed => "idle in transaction (aborted)",
        };
        match result {
            Ok(Outcome::Rows {
                tag,
                schema,
                stream,
            }) => {
                let seat = Arc::clone(&self.seat.activity);
                let read = move |_, _: Option<&Error>| show(&seat, state, None);
                Ok(Outcome::Rows {
                    tag,
                    schema,
                    stream: exec::rows::traced(stream, read),
                })
            }
            other => {
                show(&self.seat.activity, state, None);
                other
            }
        }
    }

    /// A client begins to send in one go: its INSERTs are one transaction until [`Self::end_implicit`].
    pub fn begin_implicit(&self) {
        self.with_transaction(Transaction::begin_implicit);
    }

    /// It has sent all: what it inserted outside of a block is stored.
    ///
    /// # Errors
    /// What storing reports; nothing is stored then.
    pub async fn end_implicit(&self) -> Result<()> {
        let held = self.with_transaction(|t| t.end_implicit().then(|| std::mem::take(t.held())));
        let (Some(held), Some(commit)) = (held, dialect::parse("COMMIT")?.pop()) else {
            return Ok(());
        };
        let run = self.run(&Arc::new(commit), Vec::new())?;
        let trace = Trace::start(self, &run);
        let stored = exec::transaction::store(&run.scope, self, held);
        let stored = self.guarded(&run, Box::pin(stored)).await;
        if let Err(e) = &stored {
            // the INSERTs have their rows: this one tells that nothing came of them
            trace.fail(&run, e).await;
        }
        stored
    }

    /// It broke off: what it inserted outside of a block is forgotten.
    pub fn give_up_implicit(&self) {
        self.with_transaction(|t| {
            if t.end_implicit() {
                *t.held() = Held::default();
            }
        });
    }

    fn holds(&self) -> bool {
        self.with_transaction(|t| !t.held().is_empty())
    }

    /// Commits the rows that the block holds, before something that commits by itself.
    ///
    /// # Errors
    /// What storing reports.
    pub(crate) async fn commit_held(&self) -> Result<()> {
        let held = self.with_transaction(|t| std::mem::take(t.held()));
        if !held.is_empty() {
            let scope = self.scope()?;
            exec::transaction::store(&scope, self, held).await?;
            self.with_transaction(|t| t.note_write("INSERT"));
        }
        Ok(())
    }

    /// Stores rows in `schema.table` by column name: privileges, casts, defaults, generated columns
    /// and constraints as for INSERT. Durable and visible on return. Bad rows of a streaming table become
    /// dead letters, unless the table refuses them. They are stored when their `turn` has come; what was
    /// stored under their `key` before is not stored again.
    ///
    /// # Errors
    /// As INSERT; nothing was stored then.
    pub async fn ingest(
        &self,
        schema: &str,
        table: &str,
        rows: Decoded,
        turn: Turn,
        key: Option<RequestKey>,
    ) -> Result<Receipt> {
        self.inner().transaction.check_failed()?;
        if self.holds() {
            Box::pin(self.commit_held()).await?;
        }
        let scope = Arc::new(self.scope()?);
        let trace = Trace::ingest(self, &format!("{schema}.{table}"));
        let delivery = Delivery {
            turn,
            key,
            ..Delivery::by(self.door.name())
        };
        let stored =
            exec::ingest::store(&scope, schema, table, rows, BadRows::Collect, delivery).await;
        let moved = |(s, _): &(Stored, Vec<Refused>)| if s.again { 0 } else { s.accepted };
        trace.ingested(stored.as_ref().map(moved)).await?;
        let (stored, refused) = stored?;
        let token = exec::token::of(stored.lsn);
        self.inner().settings.set_last_token(&token);
        self.with_transaction(|t| t.note_write("INGEST"));
        Ok(Receipt {
            accepted: stored.accepted,
            rejected: stored.rejected,
            duplicate: stored.duplicate,
            again: stored.again,
            refused,
            token,
        })
    }

    /// What [`Session::ingest`] takes for that table (checks INSERT privilege), so a door can decode
    /// text straight into the right types.
    ///
    /// # Errors
    /// 42P01, 42501.
    pub async fn ingest_table(&self, schema: &str, table: &str) -> Result<IngestTable> {
        let scope = self.scope()?;
        let relation = exec::ingest::target(&scope, schema, table)?;
        exec::ingest::check_insert(&scope, relation)?;
        std::future::ready(Ok(IngestTable {
            columns: exec::ingest::accepted_schema(relation),
            bad_rows: exec::ingest::bad_rows(relation, BadRows::Collect),
        }))
        .await
    }

    /// Columns of a cursor that `DECLARE` has opened.
    ///
    /// # Errors
    /// 34000.
    pub fn cursor_schema(&self, name: &str) -> Result<SchemaRef> {
        let cursor = self.with_named(|named| named.cursor(name))?;
        Ok(Arc::clone(&cursor.schema))
    }

    /// Where the transaction stands.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.inner().transaction.status()
    }

    /// A setting's value as `SHOW` prints it: `TimeZone`, `DateStyle`, `extra_float_digits`, …
    pub fn setting(&self, name: &str) -> Option<String> {
        self.inner().settings.get(name)
    }

    /// Sets a setting; the same rules as `SET`.
    ///
    /// # Errors
    /// 42704 for an unknown one, 22023 for a bad value.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let result = self.inner().settings.set(name, value);
        if name.eq_ignore_ascii_case("application_name") {
            let mut activity = self
                .seat
                .activity
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            activity.application_name = Some(value.to_owned());
        }
        result
    }

    /// Settings whose values the Postgres door must report and that changed since the last call.
    pub fn take_reported_changes(&self) -> Vec<(String, String)> {
        self.inner().settings.take_reported()
    }

    /// `weir.idempotency_key`, if that is set.
    pub(crate) fn idempotency_key(&self) -> Option<String> {
        let key = self.inner().settings.get("weir.idempotency_key");
        key.filter(|k| !k.is_empty())
    }

    /// The key was used: it stands for one statement.
    pub(crate) fn forget_idempotency_key(&self) {
        self.inner().settings.forget_idempotency_key();
    }

    /// Tells the client something besides the statement's answer, at a door that can.
    pub(crate) fn warn(&self, message: impl Into<String>, hint: impl Into<String>) {
        let inner = &mut *self.inner();
        let least = inner.settings.get("client_min_messages");
        let silent = matches!(least.as_deref(), Some("error" | "fatal" | "panic"));
        if !silent && inner.notices.len() < MOST_NOTICES {
            inner.notices.push(Report {
                state: SqlState::WARNING,
                message: message.into(),
                detail: None,
                hint: Some(hint.into()),
                position: None,
            });
        }
    }

    /// What is to be told besides the next answer.
    pub fn take_notices(&self) -> Vec<Report> {
        std::mem::take(&mut self.inner().notices)
    }

    /// Cancels the running statement, if any; the session goes on.
    pub fn cancel_running(&self) {
        self.seat.stops.cancel_statement();
    }

    /// Its number, as `pg_stat_activity` has it.
    pub fn pid(&self) -> i32 {
        self.seat.pid
    }

    /// Cancelled when somebody ends the session.
    pub fn ending(&self) -> CancellationToken {
        self.seat.stops.session.clone()
    }

    /// The settings, for the statements that change them.
    pub(crate) fn with_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut self.inner().settings)
    }

    /// The transaction, for the statements that change it.
    pub(crate) fn with_transaction<T>(&self, change: impl FnOnce(&mut Transaction) -> T) -> T {
        change(&mut self.inner().transaction)
    }

    /// The cursors and prepared statements, for the statements that use them.
    pub(crate) fn with_named<T>(&self, change: impl FnOnce(&mut Named) -> T) -> T {
        change(&mut self.inner().named)
    }

    /// `SET ROLE`: names resolve for that role from now on; `None` goes back to the one that logged in.
    ///
    /// # Errors
    /// 42704, 42501.
    pub(crate) fn set_role(&self, role: Option<&str>) -> Result<()> {
        let catalog = self.engine.catalog();
        let mut inner = self.inner();
        let Some(role) = role else {
            inner.role = inner.session_role.clone();
            return Ok(());
        };
        let wanted = privileges::role(&catalog, role)?;
        if !privileges::owns(&catalog, &inner.session_role, wanted.oid) {
            return Err(Error::refused(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied to set role \"{role}\""),
            ));
        }
        inner.role = role.to_owned();
        Ok(())
    }

    /// Whether its temporary tables would be there for a next statement: at the other doors a session may
    /// be one request.
    pub(crate) fn keeps_temporary(&self) -> bool {
        self.door == Door::Pg
    }

    /// The schema of its temporary tables, made if it is not there. The caller holds off other
    /// statements that change the catalog.
    pub(crate) async fn make_temporary(&self, owner: Oid) -> Result<Schema> {
        self.inner().temporary = true;
        temporary::schema(&self.engine, self.seat.pid, owner).await
    }

    /// Drops its temporary tables.
    pub(crate) async fn drop_temporary(&self) -> Result<()> {
        if self.inner().temporary {
            temporary::clear(&self.engine, Some(self.seat.pid)).await?;
            self.inner().temporary = false;
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest cut, with the rows that the session's block holds.
    fn scope(&self) -> Result<Scope> {
        let mut scope = Scope::new(&self.engine, self.caller());
        let inner = &mut *self.inner();
        let held = inner.transaction.held();
        if !held.is_empty() {
            scope.head = Arc::new(held.over(&scope.head)?);
        }
        Ok(scope)
    }

    fn caller(&self) -> Caller {
        let inner = self.inner();
        Caller {
            role: inner.role.clone(),
            session_role: inner.session_role.clone(),
            schema: inner.settings.schema(),
            search_path: inner.settings.search_path(),
            temporary: inner.temporary.then(|| Schema::temporary(self.seat.pid)),
            time_zone: inner
                .settings
                .get("timezone")
                .unwrap_or_else(|| "UTC".to_owned()),
            as_of: inner.settings.as_of(),
            pid: self.seat.pid,
            opened: self.opened,
            settings: inner.settings.list().into(),
        }
    }

    fn run(&self, statement: &Arc<Statement>, params: Vec<ScalarValue>) -> Result<Run> {
        let token = self.engine.stop.child_token();
        self.seat.stops.next_statement(token.clone());
        let timeout = self.inner().settings.statement_timeout();
        Ok(Run {
            scope: Arc::new(self.scope()?),
            statement: Arc::clone(statement),
            params,
            cancel: token,
            deadline: timeout.map(|t| Instant::now() + t),
            session: Weak::clone(&self.me),
        })
    }

    /// Waits for the log to reach `weir.read_after`, if that is set.
    async fn await_token(&self) -> Result<()> {
        let (token, timeout) = {
            let inner = self.inner();
            (
                inner.settings.get("weir.read_after"),
                inner.settings.statement_timeout(),
            )
        };
        match token.filter(|t| !t.is_empty()) {
            Some(token) => exec::token::wait(&self.engine, &token, timeout).await,
            None => Ok(()),
        }
    }

    /// Runs until the cancel and the deadline.
    async fn guarded<T>(&self, run: &Run, work: impl Future<Output = Result<T>>) -> Result<T> {
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        tokio::select! {
            result = work => result,
            () = run.cancel.cancelled() => Err(exec::rows::canceled()),
            () = tokio::time::sleep_until(run.deadline.unwrap_or(far)) => Err(exec::rows::timed_out()),
        }
    }

    fn check_transaction(&self, statement: &Statement) -> Result<()> {
        self.inner().transaction.check(statement)
    }

    fn fail_transaction(&self) {
        self.inner().transaction.fail();
    }
}

fn show(activity: &Mutex<system::Activity>, state: &str, query: Option<&str>) {
    let mut activity = activity.lock().unwrap_or_else(PoisonError::into_inner);
    activity.state = state.to_owned();
    if let Some(query) = query {
        activity.query = Some(crate::governance::audit::redact(query));
        activity.started_at_micros = Some(now_micros());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel_running();
        self.engine.sessions.leave(self.seat.pid);
        if self.inner().temporary && tokio::runtime::Handle::try_current().is_ok() {
            let (engine, pid) = (Arc::clone(&self.engine), self.seat.pid);
            // the handle is not needed: the task ends by itself; what it leaves goes at the next start
            drop(tasks::spawn("drop temporary tables", async move {
                if let Err(e) = temporary::clear(&engine, Some(pid)).await {
                    tracing::warn!(error = %e, "cannot drop temporary tables");
                }
            }));
        }
    }
}
