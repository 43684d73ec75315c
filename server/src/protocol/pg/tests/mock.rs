//! A backend of made-up statements and a server over it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray,
    StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use catalog::SqlType;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use futures::stream::BoxStream;
use pgwire::api::auth::sasl::scram::{ScramSecret, gen_salted_password};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::wire::Raw;
use crate::dialect::{Kind, Statement, VerifyAudit};
use crate::error::{Error, Result, SqlState};
use crate::exec::{CopySink, Outcome};
use crate::protocol::calls::SessionCalls;
use crate::protocol::pg::{Authenticator, Options, serve};
use crate::session::{Description, TransactionStatus};
use crate::stream::letters::Piece;
use crate::types::{TYPE_KEY, field};
use crate::values::{CopyFormat, CopyOptions, Decoder};

pub(super) const PASSWORD: &str = "pässword";

/// What the statement `types` answers.
pub(super) const TYPES: [Type; 22] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::BYTEA,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::TIME,
    Type::UUID,
    Type::JSONB,
    Type::JSONB,
    Type::INT4_ARRAY,
    Type::OID,
    Type::NAME,
    Type::INTERVAL,
    Type::INTERVAL,
];

pub(super) struct Server {
    pub(super) backend: Arc<Backend>,
    pub(super) stop: CancellationToken,
    pub(super) address: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

impl Server {
    pub(super) async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Arc::new(Backend::default());
        let stop = CancellationToken::new();
        let auth = Arc::new(Roles(Arc::clone(&backend)));
        let mut tasks = JoinSet::new();
        let serving = serve(listener, auth, options, stop.clone());
        tasks.spawn(async { serving.await.unwrap() });
        Self {
            backend,
            stop,
            address,
            tasks: Mutex::new(tasks),
        }
    }

    pub(super) fn config(&self, user: &str, password: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.address.port())
            .user(user)
            .password(password);
        config
            .dbname("weir")
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        config
    }

    /// Runs the other half of a client.
    pub(super) fn drive<S, T>(&self, connection: tokio_postgres::Connection<S, T>)
    where
        tokio_postgres::Connection<S, T>:
            Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        self.tasks.lock().unwrap().spawn(async {
            let _ = connection.await;
        });
    }

    pub(super) async fn connect(&self) -> tokio_postgres::Client {
        let config = self.config("weir", PASSWORD);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        self.drive(connection);
        client
    }

    /// A socket that sends and receives frames as they are, logged in.
    pub(super) async fn raw(&self) -> Raw {
        let mut raw = Raw::new(TcpStream::connect(self.address).await.unwrap());
        raw.login("weir", PASSWORD).await;
        raw
    }

    /// Waits until the door has closed.
    pub(super) async fn ended(self) {
        let mut tasks = self.tasks.into_inner().unwrap();
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), all)
            .await
            .unwrap();
    }
}

struct Roles(Arc<Backend>);

#[async_trait]
impl Authenticator for Roles {
    async fn scram_verifier(&self, role: &str) -> Result<Option<String>> {
        if !matches!(role, "weir" | "group") {
            return Ok(None);
        }
        let salt = b"0123456789abcdef".to_vec();
        let salted = gen_salted_password(PASSWORD, &salt, 4096);
        let secret = ScramSecret::verifier_from_salted_password(salt, salted, 4096);
        let ScramSecret::Verifier {
            salt,
            iterations,
            stored_key,
            server_key,
        } = secret
        else {
            panic!("no verifier")
        };
        Ok(Some(format!(
            "SCRAM-SHA-256${iterations}:{}${}:{}",
            STANDARD.encode(salt),
            STANDARD.encode(stored_key),
            STANDARD.encode(server_key)
        )))
    }

    async fn open(&self, role: &str, _: SocketAddr) -> Result<Arc<dyn SessionCalls>> {
        if role == "group" {
            return Err(Error::refused(
                SqlState::INVALID_AUTHORIZATION,
                "role \"group\" is not permitted to log in",
            ));
        }
        Ok(Arc::clone(&self.0) as Arc<dyn SessionCalls>)
    }
}

#[derive(Default)]
pub(super) struct Backend {
    pub(super) settings: Mutex<HashMap<String, String>>,
    changes: Mutex<Vec<(String, String)>>,
    pub(super) executed: AtomicUsize,
    /// Batches that queries were asked for.
    pub(super) batches: Arc<AtomicUsize>,
    pub(super) copied: Arc<AtomicU64>,
    /// A statement runs that waits for a cancel.
    pub(super) running: Arc<Notify>,
    /// Such a statement ended.
    pub(super) ended: Arc<Notify>,
    pub(super) cancel: Arc<Notify>,
    in_transaction: Mutex<bool>,
}

/// The statement of a text; the backend looks at nothing else.
fn statement(text: &str) -> Arc<Statement> {
    Arc::new(Statement {
        text: text.to_owned(),
        start: Default::default(),
        kind: Kind::VerifyAudit(VerifyAudit),
    })
}

fn refused(code: &'static str, message: &str) -> Error {
    Error::refused(SqlState(code), message)
}

fn canceled() -> Error {
    Error::refused(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

/// Tells when it is dropped.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn bigints() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn echo_schema(types: &[DataType]) -> SchemaRef {
    let fields = types
        .iter()
        .enumerate()
        .map(|(i, ty)| Field::new(format!("p{i}"), ty.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn rows(
    tag: &'static str,
    schema: SchemaRef,
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> Outcome {
    let stream = batches.map(|b| b.map_err(Into::into));
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    Outcome::Rows {
        tag,
        schema,
        stream,
    }
}

fn one(batch: RecordBatch) -> Outcome {
    rows("SELECT", batch.schema(), futures::stream::iter([Ok(batch)]))
}

impl Backend {
    fn schema(&self, text: &str) -> Option<SchemaRef> {
        match text.split(' ').next()? {
            "select" | "series" | "boom" | "half" | "drip" => Some(bigints()),
            "types" => Some(types().schema()),
            _ => None,
        }
    }

    /// `n` numbers in batches of at most 1000, each made when it is asked for.
    fn series(&self, n: i64) -> Outcome {
        let made = Arc::clone(&self.batches);
        let schema = bigints();
        let of = Arc::clone(&schema);
        let batches = futures::stream::iter((0..n).step_by(1000)).map(move |from| {
            made.fetch_add(1, Ordering::SeqCst);
            let numbers = Int64Array::from_iter_values(from..n.min(from + 1000));
            Ok(RecordBatch::try_new(
                Arc::clone(&of),
                vec![Arc::new(numbers)],
            )?)
        });
        rows("SELECT", schema, batches)
    }
}

#[async_trait]
impl SessionCalls for Backend {
    fn parse(&self, sql: &str) -> Result<Vec<Arc<Statement>>> {
        if sql.contains("syntax") {
            let mut e = refused("42601", "syntax error at or near \"syntax\"");
            if let Error::Refused(report) = &mut e {
                report.position = Some(3);
            }
            return Err(e);
        }
        Ok(sql
            .split(';')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(statement)
            .collect())
    }

    async fn describe(
        &self,
        statement: &Arc<Statement>,
        hints: &[Option<DataType>],
    ) -> Result<Description> {
        if statement.text == "echo" {
            let params: Vec<_> = hints
                .iter()
                .map(|h| h.clone().unwrap_or(DataType::Utf8))
                .collect();
            let schema = Some(echo_schema(&params));
            return Ok(Description { params, schema });
        }
        Ok(Description {
            params: Vec::new(),
            schema: self.schema(&statement.text),
        })
    }

    async fn execute(
        &self,
        statement: &Arc<Statement>,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.executed.fetch_add(1, Ordering::SeqCst);
        let words: Vec<&str> = statement.text.split(' ').collect();
        let command = |tag: &str| Outcome::Command {
            tag: tag.to_owned(),
            rows: None,
        };
        Ok(match words.as_slice() {
            ["select", ..] => {
                let one_row = Int64Array::from(vec![1]);
                one(RecordBatch::try_new(bigints(), vec![Arc::new(one_row)])?)
            }
            ["series", n] => self.series(n.parse().unwrap()),
            ["types"] => one(types()),
            ["echo"] => {
                let columns: Vec<ArrayRef> = params
                    .iter()
                    .map(|p| p.to_array_of_size(1))
                    .collect::<Result<_, _>>()?;
                let types: Vec<_> = params.iter().map(ScalarValue::data_type).collect();
                one(RecordBatch::try_new(echo_schema(&types), columns)?)
            }
            ["boom"] => {
                return Err(refused("22012", "division by zero")
                    .with_detail("a detail")
                    .with_hint("a hint"));
            }
            ["half"] => {
                let numbers = Int64Array::from(vec![1, 2]);
                let batch = RecordBatch::try_new(bigints(), vec![Arc::new(numbers)])?;
                let e = refused("53200", "out of memory");
                rows(
                    "SELECT",
                    bigints(),
                    futures::stream::iter([Ok(batch), Err(e)]),
                )
            }
            ["sleep"] => {
                let _ended = Ended(Arc::clone(&self.ended));
                let cancelled = self.cancel.notified();
                self.running.notify_one();
                cancelled.await;
                return Err(canceled());
            }
            ["drip"] => {
                let ended = Ended(Arc::clone(&self.ended));
                let cancel = Arc::clone(&self.cancel).notified_owned();
                let running = Arc::clone(&self.running);
                let wait = futures::stream::once(async move {
                    running.notify_one();
                    cancel.await;
                    drop(ended);
                    Err(canceled())
                });
                let numbers = Int64Array::from(vec![1, 2]);
                let batch = RecordBatch::try_new(bigints(), vec![Arc::new(numbers)])?;
                rows(
                    "SELECT",
                    bigints(),
                    futures::stream::iter([Ok(batch)]).chain(wait),
                )
            }
            ["copy", "in"] => Outcome::CopyIn(Box::new(Sink::new(Arc::clone(&self.copied))?)),
            ["copy", "out", ..] => {
                let broken = words.len() > 2;
                let data = (0..3).map(|n| Ok(Bytes::from(format!("{n}\n"))));
                let end = broken.then(|| Err(refused("53200", "out of memory")));
                let stream: BoxStream<'static, Result<Bytes>> =
                    futures::stream::iter(data.chain(end).collect::<Vec<_>>()).boxed();
                let rows = Arc::new(AtomicU64::new(3));
                Outcome::CopyOut {
                    binary: false,
                    columns: 1,
                    stream,
                    rows,
                }
            }
            ["insert", n] => command(&format!("INSERT 0 {n}")),
            ["set", "zone"] => {
                let change = ("TimeZone".to_owned(), "Europe/Berlin".to_owned());
                self.changes.lock().unwrap().push(change);
                command("SET")
            }
            ["BEGIN" | "START", ..] => {
                *self.in_transaction.lock().unwrap() = true;
                command("BEGIN")
            }
            ["COMMIT" | "ROLLBACK"] => {
                *self.in_transaction.lock().unwrap() = false;
                command("COMMIT")
            }
            _ => command("CREATE TABLE"),
        })
    }

    fn cursor_schema(&self, name: &str) -> Result<SchemaRef> {
        Err(Error::refused(
            SqlState("34000"),
            format!("cursor \"{name}\" does not exist"),
        ))
    }

    fn transaction_status(&self) -> TransactionStatus {
        if *self.in_transaction.lock().unwrap() {
            TransactionStatus::Open
        } else {
            TransactionStatus::Idle
        }
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.settings.lock().unwrap().get(name).cloned()
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        if name == "nonsense" {
            return Err(refused(
                "42704",
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
        std::mem::take(&mut self.changes.lock().unwrap())
    }

    fn cancel_running(&self) {
        self.cancel.notify_waiters();
    }

    fn pid(&self) -> i32 {
        static LAST: AtomicI32 = AtomicI32::new(0);
        LAST.fetch_add(1, Ordering::Relaxed)
    }
}

struct Sink {
    decoder: Decoder,
    rows: u64,
    copied: Arc<AtomicU64>,
}

impl Sink {
    fn new(copied: Arc<AtomicU64>) -> Result<Self> {
        let schema = Schema::new(vec![
            field("n", &SqlType::Int4, true),
            field("t", &SqlType::Text, true),
        ]);
        let decoder = Decoder::new(CopyOptions::new(CopyFormat::Text), Arc::new(schema))?;
        Ok(Self {
            decoder,
            rows: 0,
            copied,
        })
    }

    fn count(&mut self, batches: impl IntoIterator<Item = Piece>) {
        self.rows += batches
            .into_iter()
            .map(|p| p.batch.num_rows() as u64)
            .sum::<u64>();
    }
}

#[async_trait]
impl CopySink for Sink {
    fn binary(&self) -> bool {
        false
    }

    fn columns(&self) -> usize {
        2
    }

    async fn feed(&mut self, data: Bytes) -> Result<()> {
        let batches = self.decoder.feed(&data)?;
        self.count(batches);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<u64> {
        let rest = self.decoder.finish()?;
        self.count(rest);
        self.copied.fetch_add(self.rows, Ordering::SeqCst);
        Ok(self.rows)
    }
}

/// One row with a column of each type.
fn types() -> RecordBatch {
    const MICROS: i64 = 1_704_164_645_500_000; // 2024-01-02 03:04:05.5
    let numeric = SqlType::Numeric {
        precision: 10,
        scale: 2,
    };
    let span = IntervalMonthDayNano {
        months: 1,
        days: 2,
        nanoseconds: 1_000_000_000,
    };
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    let composite = StructArray::from(vec![
        (
            Arc::new(Field::new("n", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("t", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["x"])) as ArrayRef,
        ),
    ]);
    let tagged = |tag: &str, ty: DataType| {
        Field::new("tagged", ty, true).with_metadata([(TYPE_KEY.to_owned(), tag.to_owned())].into())
    };
    let sql = |ty: &SqlType| field("c", ty, true);
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            sql(&SqlType::Bool),
            Arc::new(BooleanArray::from(vec![true])),
        ),
        (sql(&SqlType::Int2), Arc::new(Int16Array::from(vec![-2]))),
        (sql(&SqlType::Int4), Arc::new(Int32Array::from(vec![3]))),
        (
            sql(&SqlType::Int8),
            Arc::new(Int64Array::from(vec![1 << 40])),
        ),
        (
            sql(&SqlType::Float4),
            Arc::new(Float32Array::from(vec![1.5])),
        ),
        (
            sql(&SqlType::Float8),
            Arc::new(Float64Array::from(vec![-0.1])),
        ),
        (
            sql(&numeric),
            Arc::new(
                Decimal128Array::from(vec![-12_345])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
        ),
        (sql(&SqlType::Text), text("text")),
        (sql(&SqlType::Varchar(5)), text("vc")),
        (
            sql(&SqlType::Bytea),
            Arc::new(BinaryArray::from(vec![[0u8, 255].as_slice()])),
        ),
        (
            sql(&SqlType::Date),
            Arc::new(Date32Array::from(vec![19_724])),
        ),
        (
            sql(&SqlType::Timestamp),
            Arc::new(TimestampMicrosecondArray::from(vec![MICROS])),
        ),
        (
            sql(&SqlType::Timestamptz),
            Arc::new(TimestampMicrosecondArray::from(vec![MICROS]).with_timezone("UTC")),
        ),
        (
            sql(&SqlType::Time),
            Arc::new(Time64MicrosecondArray::from(vec![
                MICROS.rem_euclid(86_400_000_000),
            ])),
        ),
        (
            sql(&SqlType::Uuid),
            text("00000000-0000-0000-0000-000000000007"),
        ),
        (sql(&SqlType::Jsonb), text("{\"a\": [1]}")),
        (
            Field::new("s", composite.data_type().clone(), true),
            Arc::new(composite),
        ),
        (
            Field::new("l", list.data_type().clone(), true),
            Arc::new(list),
        ),
        (
            tagged("oid", DataType::UInt32),
            Arc::new(UInt32Array::from(vec![4_000_000_000])),
        ),
        (tagged("name", DataType::Utf8), text("a name")),
        (
            sql(&SqlType::Interval),
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                None::<IntervalMonthDayNano>,
            ])),
        ),
        (
            sql(&SqlType::Interval),
            Arc::new(IntervalMonthDayNanoArray::from(vec![span])),
        ),
    ];
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}
