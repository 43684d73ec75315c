//! A logged-in connection: the simple and the extended query flow.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;

use super::cancel::Registered;
use super::copy::{copy_in, copy_out};
use super::message::{Bind, Message, Parse};
use super::portal::{Named, Portal, Prepared, State, portals, same_result, statements};
use super::rows::{Formats, Rows, Sent, style, tag};
use super::wire::{Broken, Failure, Wire};
use super::{params, reply};
use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};
use crate::exec::Outcome;
use crate::protocol::calls::SessionCalls;
use crate::session::TransactionStatus;
use crate::types::arrow_type;
use crate::values::WireFormat;

pub(super) struct Connection {
    wire: Wire,
    session: Arc<dyn SessionCalls>,
    key: Registered,
    statements: Named<Arc<Prepared>>,
    portals: Named<Portal>,
    /// After an error in the extended flow: everything up to the next Sync is skipped.
    skipping: bool,
}

/// Somebody ended the session, or the server stops.
fn terminated() -> Broken {
    Broken::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}

impl Connection {
    pub(super) fn new(wire: Wire, session: Arc<dyn SessionCalls>, key: Registered) -> Self {
        Self {
            wire,
            session,
            key,
            statements: statements(),
            portals: portals(),
            skipping: false,
        }
    }

    /// Serves the client until it goes, breaks the protocol, or the server stops.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        reply::backend_key(&mut self.wire.out, self.key.pid, self.key.secret);
        self.ready();
        if self.wire.flush().await.is_err() {
            return;
        }
        let ending = self.session.ending();
        let end = loop {
            if let Err(end) = self.step(stop, &ending).await {
                break end;
            }
        };
        if let Broken::Fatal(report) = end {
            reply::error(&mut self.wire.out, "FATAL", &report);
            tokio::select! {
                () = self.wire.close() => {}
                // a client that does not read must not keep the stop waiting
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            }
        }
    }

    /// One message.
    async fn step(
        &mut self,
        stop: &CancellationToken,
        ending: &CancellationToken,
    ) -> Result<(), Broken> {
        let frame = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(terminated()),
            () = ending.cancelled() => return Err(terminated()),
            frame = self.wire.frame() => frame?,
        };
        let kind = frame.kind;
        // COPY messages outside of a COPY are what is left of one that failed
        if matches!(kind, b'c' | b'd' | b'f') || (self.skipping && !matches!(kind, b'S' | b'X')) {
            return Ok(());
        }
        let handled = match Message::decode(frame) {
            Ok(message) => self.handle(message).await,
            Err(e) => Err(e.into()),
        };
        match handled {
            Ok(()) => {}
            Err(Failure::Broken(end)) => return Err(end),
            Err(Failure::Statement(e)) => {
                reply::error(&mut self.wire.out, "ERROR", &e.report());
                if Message::is_extended(kind) {
                    self.skipping = true;
                } else {
                    self.ready();
                }
                return self.wire.flush().await;
            }
        }
        if matches!(kind, b'Q' | b'S' | b'H') {
            return self.wire.flush().await;
        }
        self.wire.flush_block().await
    }

    async fn handle(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Query(sql) => {
                if let Err(failure) = Box::pin(self.query(&sql)).await {
                    self.session.give_up_implicit();
                    return Err(failure);
                }
                self.session.end_implicit().await?;
                self.ready();
            }
            Message::Parse(parse) => self.parse(parse).await?,
            Message::Bind(bind) => self.bind(bind)?,
            Message::Describe { portal, name } => self.describe(portal, &name)?,
            Message::Execute { portal, max_rows } => {
                Box::pin(self.execute(&portal, max_rows)).await?;
            }
            Message::Close { portal, name } => {
                if portal {
                    self.portals.remove(&name);
                } else {
                    self.statements.remove(&name);
                }
                reply::bare(&mut self.wire.out, reply::CLOSE_COMPLETE);
            }
            Message::Sync => {
                if std::mem::take(&mut self.skipping) {
                    self.session.give_up_implicit();
                } else if let Err(e) = self.session.end_implicit().await {
                    reply::error(&mut self.wire.out, "ERROR", &e.report());
                }
                self.ready();
            }
            // the caller flushes, and has dropped stray COPY messages
            Message::Flush | Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => {}
            Message::Terminate => return Err(Broken::Gone.into()),
            Message::FunctionCall => {
                return Err(Error::unsupported(
                    "function call messages are not supported",
                    "call the function in a query",
                )
                .into());
            }
            Message::Password => {
                return Err(Broken::fatal(
                    SqlState::PROTOCOL_VIOLATION,
                    "unexpected password message",
                )
                .into());
            }
        }
        Ok(())
    }

    /// ReadyForQuery, with the settings that changed before it. Outside a transaction no portal
    /// outlives it.
    fn ready(&mut self) {
        for (name, value) in self.session.take_reported_changes() {
            reply::parameter_status(&mut self.wire.out, &name, &value);
        }
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        reply::ready(&mut self.wire.out, status);
    }

    /// Simple flow: statement by statement, each one's results sent before the next runs.
    async fn query(&mut self, sql: &str) -> Result<(), Failure> {
        self.portals.remove("");
        self.statements.remove("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            reply::bare(&mut self.wire.out, reply::EMPTY_QUERY);
        }
        if statements.len() > 1 {
            self.session.begin_implicit();
        }
        for statement in statements {
            let outcome = self.start(&statement, Vec::new()).await?;
            if let Outcome::Rows {
                tag: word,
                schema,
                stream,
            } = outcome
            {
                reply::row_description(&mut self.wire.out, &schema, |_| WireFormat::Text)?;
                let style = style(self.session.as_ref())?;
                let formats = Formats::All(WireFormat::Text);
                let mut rows = Rows::new(word, schema, stream, formats, style);
                if let Sent::All(count) = rows.send(&mut self.wire, 0).await? {
                    reply::command_complete(&mut self.wire.out, &tag(word, count));
                }
            } else {
                self.finish(outcome).await?;
            }
            self.wire.flush().await?;
        }
        Ok(())
    }

    /// Runs a statement. When the client goes away meanwhile the statement is cancelled, but
    /// waited for: it may be past the point where it can be given up.
    async fn start(
        &mut self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome, Failure> {
        let session = Arc::clone(&self.session);
        // also between the statements of one message
        if session.ending().is_cancelled() {
            return Err(terminated().into());
        }
        let mut running = session.execute(statement, params);
        tokio::select! {
            biased;
            outcome = &mut running => return Ok(outcome?),
            () = self.wire.gone() => {}
        }
        session.cancel_running();
        drop(running.await);
        Err(Broken::Gone.into())
    }

    /// Ends every outcome but rows.
    async fn finish(&mut self, outcome: Outcome) -> Result<(), Failure> {
        let wire = &mut self.wire;
        match outcome {
            Outcome::Command { tag, .. } => {
                let notices = self.session.take_notices();
                notices
                    .iter()
                    .for_each(|n| reply::warning(&mut wire.out, n));
                reply::command_complete(&mut wire.out, &tag);
            }
            Outcome::CopyIn(sink) => {
                let rows = copy_in(wire, sink).await?;
                let notices = self.session.take_notices();
                notices
                    .iter()
                    .for_each(|n| reply::warning(&mut wire.out, n));
                reply::command_complete(&mut wire.out, &tag("COPY", rows));
            }
            Outcome::CopyOut {
                binary,
                columns,
                stream,
                rows,
            } => {
                let rows = copy_out(wire, binary, columns, stream, rows).await?;
                reply::command_complete(&mut wire.out, &tag("COPY", rows));
            }
            Outcome::Empty | Outcome::Rows { .. } => {
                reply::bare(&mut wire.out, reply::EMPTY_QUERY);
            }
        }
        Ok(())
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), Failure> {
        self.statements.check_new(&parse.name)?;
        let mut parsed = self.session.parse(&parse.sql)?;
        if parsed.len() > 1 {
            return Err(Error::refused(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let prepared = match parsed.pop() {
            None => Prepared {
                statement: None,
                params: params::known(&parse.types, &[]),
                schema: None,
            },
            Some(statement) => {
                let hints: Vec<_> = parse
                    .types
                    .iter()
                    .map(|oid| params::declared(*oid).map(|sql| arrow_type(&sql)))
                    .collect();
                let described = self.session.describe(&statement, &hints).await?;
                Prepared {
                    statement: Some(statement),
                    params: params::known(&parse.types, &described.params),
                    schema: described.schema,
                }
            }
        };
        self.statements.insert(parse.name, Arc::new(prepared));
        reply::bare(&mut self.wire.out, reply::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<()> {
        self.portals.check_new(&bind.portal)?;
        let prepared = Arc::clone(self.statements.get(&bind.statement)?);
        let zone = style(self.session.as_ref())?.time_zone;
        let values = params::decode(&prepared.params, &bind.param_formats, &bind.params, zone)?;
        let formats = Formats::of_codes(&bind.result_formats)?;
        if let Some(schema) = &prepared.schema {
            formats.check(schema.fields().len())?;
        }
        self.portals.insert(
            bind.portal,
            Portal {
                prepared,
                formats,
                state: State::Ready(values),
            },
        );
        reply::bare(&mut self.wire.out, reply::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, portal: bool, name: &str) -> Result<()> {
        let out = &mut self.wire.out;
        // a cursor declared in SQL is a portal too: clients ask for its columns that way
        if portal
            && self.portals.get(name).is_err()
            && let Ok(schema) = self.session.cursor_schema(name)
        {
            return reply::row_description(out, &schema, |_| WireFormat::Text);
        }
        let (prepared, formats) = if portal {
            let portal = self.portals.get(name)?;
            (&portal.prepared, portal.formats.clone())
        } else {
            let prepared = self.statements.get(name)?;
            let oids: Vec<u32> = prepared
                .params
                .iter()
                .map(|p| match p.oid {
                    0 => params::told(&p.ty),
                    oid => oid,
                })
                .collect();
            reply::parameter_description(out, &oids)?;
            (prepared, Formats::All(WireFormat::Text))
        };
        match &prepared.schema {
            Some(schema) => reply::row_description(out, schema, |i| formats.get(i)),
            None => {
                reply::bare(out, reply::NO_DATA);
                Ok(())
            }
        }
    }

    /// Runs a portal or goes on with it; a failed one is forgotten.
    async fn execute(&mut self, name: &str, max_rows: i32) -> Result<(), Failure> {
        let done = self.execute_portal(name, max_rows).await;
        if done.is_err() {
            self.portals.remove(name);
        }
        done
    }

    async fn execute_portal(&mut self, name: &str, max_rows: i32) -> Result<(), Failure> {
        let portal = self.portals.get_mut(name)?;
        let prepared = Arc::clone(&portal.prepared);
        let formats = portal.formats.clone();
        let mut rows = match std::mem::replace(&mut portal.state, State::Done) {
            State::Ready(values) => {
                let Some(statement) = &prepared.statement else {
                    reply::bare(&mut self.wire.out, reply::EMPTY_QUERY);
                    return Ok(());
                };
                self.session.begin_implicit();
                let outcome = self.start(statement, values).await?;
                let Outcome::Rows {
                    tag,
                    schema,
                    stream,
                } = outcome
                else {
                    return self.finish(outcome).await;
                };
                same_result(prepared.schema.as_deref(), &schema)?;
                let style = style(self.session.as_ref())?;
                Box::new(Rows::new(tag, schema, stream, formats, style))
            }
            State::Running(rows) => rows,
            State::Drained(word) => {
                reply::command_complete(&mut self.wire.out, &tag(word, 0));
                portal.state = State::Drained(word);
                return Ok(());
            }
            State::Done => {
                return Err(Error::refused(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run anymore"),
                )
                .into());
            }
        };
        // zero and less mean: all
        let limit = u64::try_from(max_rows).unwrap_or(0);
        let sent = rows.send(&mut self.wire, limit).await?;
        let portal = self.portals.get_mut(name)?;
        match sent {
            Sent::All(count) => {
                reply::command_complete(&mut self.wire.out, &tag(rows.tag, count));
                portal.state = State::Drained(rows.tag);
            }
            Sent::Limit => {
                reply::bare(&mut self.wire.out, reply::PORTAL_SUSPENDED);
                portal.state = State::Running(rows);
            }
        }
        Ok(())
    }
}
