//! Postgres sessions for tests: plain calls, and the door the SQL logic tests go through.

mod text;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, TryStreamExt, pin_mut};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A row as text; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

/// An error as the wire gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgFailure {
    /// SQLSTATE; empty when the connection broke without an answer.
    pub state: String,
    /// Primary message.
    pub message: String,
    /// Hint, if any.
    pub hint: Option<String>,
}

/// `SQLSTATE: message`, and the hint on its own line: what `statement error` in a test file matches.
impl std::fmt::Display for PgFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.state, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHINT: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PgFailure {}

impl From<tokio_postgres::Error> for PgFailure {
    fn from(e: tokio_postgres::Error) -> Self {
        match e.as_db_error() {
            Some(db) => Self {
                state: db.code().code().to_owned(),
                message: db.message().to_owned(),
                hint: db.hint().map(str::to_owned),
            },
            None => Self {
                state: String::new(),
                message: e.to_string(),
                hint: None,
            },
        }
    }
}

/// How statements travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One `Query` message; text results.
    Simple,
    /// `Parse`, `Describe`, `Bind`, `Execute`; binary results.
    Extended,
}

/// One connection.
pub struct PgSession {
    client: Client,
    protocol: Protocol,
    login: (SocketAddr, String, String),
}

impl PgSession {
    /// Logs in by password.
    pub async fn open(addr: SocketAddr, user: &str, password: &str) -> Result<Self, PgFailure> {
        let (client, connection) = tokio_postgres::Config::new()
            .host(addr.ip().to_string())
            .port(addr.port())
            .user(user)
            .password(password)
            .dbname("weir")
            .application_name("weir-tests")
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
            .await?;
        // Ends with the client; a broken connection shows in the next call.
        tokio::spawn(connection);
        Ok(Self {
            client,
            protocol: Protocol::Simple,
            login: (addr, user.to_owned(), password.to_owned()),
        })
    }

    /// The same session, its slt statements travelling as told.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The driver itself, for what this harness does not wrap.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a text by the simple protocol; the rows of all its statements.
    pub async fn rows(&self, sql: &str) -> Result<Vec<TextRow>, PgFailure> {
        let messages = self.client.simple_query(sql).await?;
        Ok(messages.iter().filter_map(text_row).collect())
    }

    /// Runs a text that must succeed and give one value.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self
            .rows(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        match rows.as_slice() {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_else(|| "NULL".to_owned()),
            other => panic!("{sql}: expected one value, got {other:?}"),
        }
    }

    /// Runs a text that must succeed and give one whole number.
    pub async fn count(&self, sql: &str) -> i64 {
        let value = self.value(sql).await;
        value
            .parse()
            .unwrap_or_else(|_| panic!("{sql}: {value} is no whole number"))
    }

    /// Runs a text that must succeed.
    pub async fn run(&self, sql: &str) {
        self.rows(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// Runs a text that must fail.
    pub async fn failure(&self, sql: &str) -> PgFailure {
        match self.rows(sql).await {
            Ok(rows) => panic!("{sql}: expected an error, got {rows:?}"),
            Err(failure) => failure,
        }
    }

    /// `COPY … FROM STDIN` with all its data; the rows stored.
    pub async fn copy_in(&self, sql: &str, data: &[u8]) -> Result<u64, PgFailure> {
        // A connection of its own: after a refused copy the driver sends one Sync too many and takes
        // the answer to it for the next statement's.
        let (addr, user, password) = &self.login;
        let own = Box::pin(Self::open(*addr, user, password)).await?;
        let sink = own.client.copy_in::<_, bytes::Bytes>(sql).await?;
        pin_mut!(sink);
        for chunk in data.chunks(64 << 10) {
            sink.send(bytes::Bytes::copy_from_slice(chunk)).await?;
        }
        Ok(sink.finish().await?)
    }

    /// `COPY … TO STDOUT`, the whole data.
    pub async fn copy_out(&self, sql: &str) -> Result<Vec<u8>, PgFailure> {
        let stream = self.client.copy_out(sql).await?;
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await?;
        Ok(chunks.concat())
    }

    async fn run_simple(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, PgFailure> {
        let messages = self.client.simple_query(sql).await?;
        let mut columns = None;
        let mut rows = Vec::new();
        let mut count = 0;
        for message in &messages {
            match message {
                SimpleQueryMessage::RowDescription(c) => columns = Some(c.len()),
                SimpleQueryMessage::CommandComplete(n) => count = *n,
                _ => {}
            }
            if let Some(row) = text_row(message) {
                rows.push(row.into_iter().map(cell).collect());
            }
        }
        // This protocol's driver drops the type codes; the extended pass checks them.
        Ok(match columns {
            Some(n) => DBOutput::Rows {
                types: vec![DefaultColumnType::Any; n],
                rows,
            },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn run_extended(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, PgFailure> {
        let statement = self.client.prepare(sql).await?;
        let columns = statement.columns();
        if columns.is_empty() {
            return Ok(DBOutput::StatementComplete(
                self.client.execute(&statement, &[]).await?,
            ));
        }
        let types = columns.iter().map(|c| column_type(c.type_())).collect();
        let mut rows = Vec::new();
        for row in self.client.query(&statement, &[]).await? {
            let values = (0..row.len()).map(|i| cell(text::value(&row, i)));
            rows.push(values.collect());
        }
        Ok(DBOutput::Rows { types, rows })
    }
}

#[async_trait]
impl AsyncDB for PgSession {
    type Error = PgFailure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, PgFailure> {
        match self.protocol {
            Protocol::Simple => self.run_simple(sql).await,
            Protocol::Extended => self.run_extended(sql).await,
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        match self.protocol {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
        }
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn text_row(message: &SimpleQueryMessage) -> Option<TextRow> {
    let SimpleQueryMessage::Row(row) = message else {
        return None;
    };
    Some(
        (0..row.len())
            .map(|i| row.get(i).map(str::to_owned))
            .collect(),
    )
}

/// NULL and the empty text must show in a file of lines.
fn cell(value: Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text,
    }
}

fn column_type(ty: &Type) -> DefaultColumnType {
    match *ty {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => DefaultColumnType::Integer,
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}
