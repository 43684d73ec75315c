//! A statement's audit row and its metrics, from start to end.

use std::sync::Arc;
use std::time::Instant;

use catalog::{AuditOutcome, AuditRow};

use super::Session;
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::exec::{self, Outcome, Run};
use crate::governance::audit::redact;

/// One statement on its way.
#[derive(Debug)]
pub(super) struct Trace {
    engine: Arc<Engine>,
    door: &'static str,
    started: Instant,
    row: AuditRow,
}

impl Trace {
    /// A statement begins.
    pub(super) fn start(session: &Session, run: &Run) -> Self {
        let mut trace = Self::new(session, exec::command(&run.statement));
        trace.row.statement = redact(&run.statement.text);
        trace
    }

    /// A text that is no statement: traced at once.
    pub(super) fn unread(session: &Session, sql: &str, error: &Error) {
        let mut trace = Self::new(session, "UNREAD");
        trace.row.statement = redact(sql);
        trace.row.at_micros = now_micros();
        trace.failed(error);
        trace.engine.audit.note_now(trace.row);
    }

    /// An ingest call begins.
    pub(super) fn ingest(session: &Session, table: &str) -> Self {
        let mut trace = Self::new(session, "INGEST");
        trace.row.objects = vec![table.to_owned()];
        trace
    }

    fn new(session: &Session, command: &str) -> Self {
        let role = session.inner().role.clone();
        Self {
            engine: Arc::clone(&session.engine),
            door: session.door.name(),
            started: Instant::now(),
            row: AuditRow {
                seq: 0,
                at_micros: 0,
                session: session.id.clone(),
                door: session.door.name().to_owned(),
                role,
                command: command.to_owned(),
                statement: String::new(),
                objects: Vec::new(),
                rows: None,
                outcome: AuditOutcome::Ok,
                sqlstate: None,
                prev_hash: String::new(),
                hash: String::new(),
            },
        }
    }

    /// The statement gave its outcome. Rows are traced when their stream ends; a change is
    /// acknowledged only after its row is durable, one that is `held` with the end of its block.
    pub(super) async fn finish(
        mut self,
        run: &Run,
        outcome: Outcome,
        held: bool,
    ) -> Result<Outcome> {
        match outcome {
            Outcome::Rows {
                tag,
                schema,
                stream,
            } => {
                let scope = Arc::clone(&run.scope);
                let ended =
                    move |rows: u64, error: Option<&Error>| self.stream_ended(&scope, rows, error);
                let stream = exec::rows::traced(stream, ended);
                Ok(Outcome::Rows {
                    tag,
                    schema,
                    stream,
                })
            }
            Outcome::Command { tag, rows } => {
                self.complete(&run.scope, rows);
                match exec::writes(&run.statement) && !held {
                    true => self.engine.audit.record(self.row.clone()).await?,
                    false => self.engine.audit.note(self.row.clone()).await,
                }
                Ok(Outcome::Command { tag, rows })
            }
            Outcome::CopyIn(sink) => Ok(Outcome::CopyIn(Box::new(CopyTrace {
                sink: Some(sink),
                trace: self,
                run: Arc::clone(&run.scope),
            }))),
            other @ (Outcome::CopyOut { .. } | Outcome::Empty) => {
                self.complete(&run.scope, None);
                self.engine.audit.note(self.row.clone()).await;
                Ok(other)
            }
        }
    }

    /// The statement failed.
    pub(super) async fn fail(mut self, run: &Run, error: &Error) {
        self.failed(error);
        self.complete(&run.scope, None);
        self.engine.audit.note(self.row.clone()).await;
    }

    /// An ingest call ended.
    pub(super) async fn ingested(mut self, rows: std::result::Result<u64, &Error>) -> Result<()> {
        self.row.at_micros = now_micros();
        match rows {
            Ok(rows) => {
                self.row.rows = i64::try_from(rows).ok();
            }
            Err(e) => self.failed(e),
        }
        // the rows are in the log already: their row in the audit log follows with the group
        self.engine.audit.note(self.row).await;
        Ok(())
    }

    fn failed(&mut self, error: &Error) {
        self.row.outcome = AuditOutcome::Error;
        self.row.sqlstate = Some(error.state().0.to_owned());
    }

    fn complete(&mut self, scope: &Scope, rows: Option<u64>) {
        self.row.at_micros = now_micros();
        self.row.objects = scope.touched();
        self.row.rows = rows.and_then(|r| i64::try_from(r).ok());
        let outcome = if self.row.outcome == AuditOutcome::Ok {
            "ok"
        } else {
            "error"
        };
        crate::metrics::statement(self.door, outcome, self.started.elapsed());
    }

    fn stream_ended(mut self, scope: &Scope, rows: u64, error: Option<&Error>) {
        if let Some(e) = error {
            self.failed(e);
        }
        self.complete(scope, Some(rows));
        self.engine.audit.note_now(self.row);
    }
}

/// A `COPY … FROM STDIN` on its way.
struct CopyTrace {
    sink: Option<Box<dyn exec::CopySink>>,
    trace: Trace,
    run: Arc<Scope>,
}

#[async_trait::async_trait]
impl exec::CopySink for CopyTrace {
    fn binary(&self) -> bool {
        self.sink.as_ref().is_some_and(|s| s.binary())
    }

    fn columns(&self) -> usize {
        self.sink.as_ref().map_or(0, |s| s.columns())
    }

    async fn feed(&mut self, data: bytes::Bytes) -> Result<()> {
        match &mut self.sink {
            Some(sink) => sink.feed(data).await,
            None => Err(Error::Internal("copy data after the end".to_owned())),
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        let Some(sink) = self.sink.take() else {
            return Err(Error::Internal("copy ended twice".to_owned()));
        };
        let result = sink.finish().await;
        if let Err(e) = &result {
            self.trace.failed(e);
        }
        self.trace
            .complete(&self.run, result.as_ref().ok().copied());
        self.trace
            .engine
            .audit
            .record(self.trace.row.clone())
            .await?;
        result
    }
}
