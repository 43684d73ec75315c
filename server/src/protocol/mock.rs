//! A database for tests of the doors: DataFusion answers queries, tables are lists of batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use catalog::SqlType;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use super::backend::{Backend, DataCalls, Keyed};
use super::calls::SessionCalls;
use crate::decode::{BadRows, Decoded};
use crate::dialect::{self, Statement};
use crate::engine::keys::RequestKey;
use crate::error::{Error, Result, SqlState};
use crate::exec::Outcome;
use crate::governance::scram::make_verifier;
use crate::session::{Description, Door, IngestTable, Receipt, TransactionStatus};
use crate::stream::line::Turn;
use crate::types;

/// The role that may do everything.
pub(super) const ROLE: &str = "weir";
pub(super) const WRITE_KEY: &str = "a write key";
/// Its password.
pub(super) const PASSWORD: &str = "open sesame";

/// One database.
pub(super) struct MockDb {
    verifier: Mutex<String>,
    tables: Mutex<HashMap<String, Arc<Table>>>,
    /// What statements without rows were run, with their parameters.
    pub(super) commands: Mutex<Vec<(String, Vec<ScalarValue>)>>,
    /// Told when the endless query is dropped.
    pub(super) dropped: Arc<Notify>,
}

/// One table.
pub(super) struct Table {
    pub(super) schema: SchemaRef,
    pub(super) batches: Mutex<Vec<RecordBatch>>,
}

impl Table {
    /// Rows stored.
    pub(super) fn rows(&self) -> usize {
        self.batches
            .lock()
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum()
    }

    /// All rows in one batch.
    pub(super) fn all(&self) -> RecordBatch {
        let batches = self.batches.lock().unwrap();
        arrow::compute::concat_batches(&batches[0].schema(), batches.iter()).unwrap()
    }
}

impl MockDb {
    /// With the table `public.events`: `id bigint NOT NULL, name text, amount numeric(10,2), at
    /// timestamptz, props jsonb, source text DEFAULT`.
    pub(super) fn new() -> Arc<Self> {
        let with_default = types::field("source", &SqlType::Text, true).with_metadata(
            HashMap::from([(types::DEFAULT_KEY.to_owned(), "true".to_owned())]),
        );
        let amount = SqlType::Numeric {
            precision: 10,
            scale: 2,
        };
        let events = Schema::new(vec![
            types::field("id", &SqlType::Int8, false),
            types::field("name", &SqlType::Text, true),
            types::field("amount", &amount, true),
            types::field("at", &SqlType::Timestamptz, true),
            types::field("props", &SqlType::Jsonb, true),
            with_default,
        ]);
        let db = Arc::new(Self {
            verifier: Mutex::new(make_verifier(PASSWORD)),
            tables: Mutex::default(),
            commands: Mutex::default(),
            dropped: Arc::default(),
        });
        db.create("events", events);
        db
    }

    /// Adds a table to `public`.
    pub(super) fn create(&self, name: &str, schema: Schema) {
        let table = Table {
            schema: Arc::new(schema),
            batches: Mutex::default(),
        };
        self.tables
            .lock()
            .unwrap()
            .insert(name.to_owned(), Arc::new(table));
    }

    /// A table of `public`.
    pub(super) fn table(&self, name: &str) -> Arc<Table> {
        Arc::clone(&self.tables.lock().unwrap()[name])
    }

    /// Gives the role another password.
    pub(super) fn change_password(&self) {
        *self.verifier.lock().unwrap() = make_verifier("another");
    }
}

/// [`MockDb`] as doors see it.
pub(super) struct MockBackend(pub(super) Arc<MockDb>);

impl Backend for MockBackend {
    fn verifier(&self, role: &str) -> Option<String> {
        (role == ROLE).then(|| self.0.verifier.lock().unwrap().clone())
    }

    fn open(&self, _role: &str, _door: Door) -> Result<Arc<dyn DataCalls>> {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema("weir", "public");
        Ok(Arc::new(MockSession {
            db: Arc::clone(&self.0),
            context: SessionContext::new_with_config(config),
            settings: Mutex::default(),
        }))
    }

    fn keyed(&self, key: &str) -> Option<Keyed> {
        let session = self.open(ROLE, Door::Http).ok()?;
        (key == WRITE_KEY).then(|| Keyed {
            session,
            schema: "public".to_owned(),
            table: "segment".to_owned(),
            event_time: None,
        })
    }
}

struct MockSession {
    db: Arc<MockDb>,
    context: SessionContext,
    settings: Mutex<HashMap<String, String>>,
}

impl MockSession {
    /// A query that gives a row every few milliseconds for ever.
    fn endless(&self) -> Outcome {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let told = DropTold(Arc::clone(&self.db.dropped));
        let of = Arc::clone(&schema);
        let rows = stream::unfold(0i64, move |n| {
            let (_told, of) = (&told, Arc::clone(&of));
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let column = arrow::array::Int64Array::from(vec![n]);
                let batch = RecordBatch::try_new(of, vec![Arc::new(column)]).unwrap();
                Some((Ok(batch), n + 1))
            }
        });
        let rows = rows.boxed();
        Outcome::Rows {
            tag: "SELECT",
            schema: Arc::clone(&schema),
            stream: Box::pin(RecordBatchStreamAdapter::new(schema, rows)),
        }
    }
}

struct DropTold(Arc<Notify>);

impl Drop for DropTold {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn is_query(sql: &str) -> bool {
    sql.starts_with("SELECT") || sql.starts_with("VALUES")
}

#[async_trait]
impl SessionCalls for MockSession {
    fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        Ok(dialect::parse(sql)?.into_iter().map(Arc::new).collect())
    }

    async fn describe(
        &self,
        statement: &Arc<Statement>,
        _hints: &[Option<DataType>],
    ) -> Result<Description> {
        if !is_query(&statement.text) {
            let params = statement.text.matches('$').count();
            return Ok(Description {
                params: vec![DataType::Utf8; params],
                schema: None,
            });
        }
        let frame = self.context.sql(&statement.text).await?;
        let named = frame.logical_plan().get_parameter_types()?;
        let params = (1..=named.len())
            .map(|i| named[&format!("${i}")].clone().unwrap_or(DataType::Utf8))
            .collect();
        Ok(Description {
            params,
            schema: Some(Arc::new(frame.schema().as_arrow().clone())),
        })
    }

    async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        let sql = statement.text.as_str();
        if sql == "SELECT 'endless'" {
            return Ok(self.endless());
        }
        if is_query(sql) {
            let mut frame = self.context.sql(sql).await?;
            if !params.is_empty() {
                frame = frame.with_param_values(params)?;
            }
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let stream = frame.execute_stream().await?;
            return Ok(Outcome::Rows {
                tag: "SELECT",
                schema,
                stream,
            });
        }
        self.db
            .commands
            .lock()
            .unwrap()
            .push((sql.to_owned(), params));
        if let Some(rest) = sql.strip_prefix("CREATE TABLE \"public\".\"") {
            let name = rest.split('"').next().unwrap();
            self.db.create(
                name,
                Schema::new(vec![Field::new("n", DataType::Int64, true)]),
            );
        }
        Ok(Outcome::Command {
            tag: "INSERT 0 1".to_owned(),
            rows: Some(1),
        })
    }

    fn cursor_schema(&self, name: &str) -> Result<SchemaRef> {
        Err(Error::refused(
            SqlState("34000"),
            format!("cursor \"{name}\" does not exist"),
        ))
    }

    fn transaction_status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.settings.lock().unwrap().get(name).cloned()
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        if name == "nonsense" {
            return Err(Error::refused(
                SqlState::UNDEFINED_OBJECT,
                "unrecognized configuration parameter \"nonsense\"",
            ));
        }
        self.settings
            .lock()
            .unwrap()
            .insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn take_reported_changes(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn cancel_running(&self) {}

    fn pid(&self) -> i32 {
        1
    }
}

#[async_trait]
impl DataCalls for MockSession {
    fn sibling(&self) -> Result<Arc<dyn DataCalls>> {
        MockBackend(Arc::clone(&self.db)).open(ROLE, Door::Flight)
    }

    async fn ingest(
        &self,
        schema: &str,
        table: &str,
        rows: Decoded,
        mut turn: Turn,
        key: Option<RequestKey>,
    ) -> Result<Receipt> {
        self.ingest_table(schema, table).await?;
        turn.come().await?;
        let table = self.db.table(table);
        let rejected = rows.letters.len();
        let batches: Vec<_> = rows.pieces.into_iter().map(|p| p.batch).collect();
        let accepted = batches.iter().map(|b| b.num_rows() as u64).sum();
        let mut stored = table.batches.lock().unwrap();
        stored.extend(batches);
        let rows: usize = stored.iter().map(RecordBatch::num_rows).sum();
        turn.over();
        Ok(Receipt {
            accepted,
            rejected: rejected as u64,
            again: key.is_some(),
            token: format!("weir-{rows}"),
            ..Receipt::default()
        })
    }

    async fn ingest_table(&self, schema: &str, table: &str) -> Result<IngestTable> {
        if table == "forbidden" {
            return Err(Error::denied("table", table));
        }
        let tables = self.db.tables.lock().unwrap();
        match tables.get(table).filter(|_| schema == "public") {
            Some(table) => Ok(IngestTable {
                columns: Arc::clone(&table.schema),
                bad_rows: BadRows::Refuse,
            }),
            None => Err(Error::undefined_table(table)),
        }
    }
}
