use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve;
use crate::config::Config;
use crate::protocol::admission::Admission;
use crate::protocol::buffers::Buffers;
use crate::protocol::credentials::Credentials;
use crate::protocol::mock::{MockBackend, MockDb, PASSWORD, ROLE};
use crate::tasks;
use crate::tls::Tls;

const NDJSON: &str = "application/x-ndjson";
const ARROW: &str = "application/vnd.apache.arrow.stream";
const DEADLINE: Duration = Duration::from_secs(20);

struct Door {
    addr: SocketAddr,
    db: Arc<MockDb>,
    admission: Admission,
    client: Client,
    _stop: DropGuard,
}

impl Door {
    async fn open() -> Self {
        Self::open_with(None).await
    }

    async fn open_with(tls: Option<&Tls>) -> Self {
        crate::metrics::install();
        let db = MockDb::new();
        let mut config = Config::for_test(std::path::Path::new("unused"));
        config.max_body = 1 << 20;
        let backend = Arc::new(MockBackend(Arc::clone(&db)));
        let credentials = Arc::new(Credentials::new(backend, config.token_lifetime));
        let listener = TcpListener::bind(config.http_addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let admission = Admission::new(1, || false);
        drop(tasks::spawn(
            "http",
            serve(
                listener,
                credentials,
                admission.clone(),
                &Buffers::new(config.buffer_bytes),
                &config,
                tls,
                stop.clone(),
            ),
        ));
        Self {
            addr,
            db,
            admission,
            client: Client::builder()
                .timeout(DEADLINE)
                .no_proxy()
                .build()
                .unwrap(),
            _stop: stop.drop_guard(),
        }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.addr);
        self.client.post(url).basic_auth(ROLE, Some(PASSWORD))
    }

    fn rows(&self, kind: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/v1/tables/public/events/rows")
            .header("content-type", kind)
            .body(body)
    }

    fn sql(&self, body: &Value) -> RequestBuilder {
        self.post("/v1/sql").json(body)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.addr))
    }

    fn stored(&self) -> usize {
        self.db.table("events").rows()
    }
}

async fn sent(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

async fn refused(request: RequestBuilder) -> (u16, String, String) {
    let (status, body) = sent(request).await;
    let text = |member: &str| {
        body["error"][member]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (status, text("code"), text("message"))
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn arrow_stream() -> Vec<u8> {
    let ids: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn rows_are_turned_away_while_others_wait_too_long() {
    let door = Door::open().await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        let coming = door.admission.let_in(usize::MAX).unwrap();
        turns.push(door.admission.turn(coming, usize::MAX).await.unwrap());
    }
    // those let in wait for a turn, until one is not let in any more
    let mut waiting = tokio::task::JoinSet::new();
    let mut refused = None;
    for _ in 0..100 {
        waiting.spawn(door.rows(NDJSON, "{\"id\":1}\n").send());
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(answer) = waiting.try_join_next() {
            refused = Some(answer.unwrap().unwrap());
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let answer: Value = refused.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "53400");
    // a statement is no row
    let (status, _) = sent(door.sql(&json!({"sql": "SELECT 1"}))).await;
    assert_eq!(status, 200);
    let let_in = waiting.len();
    assert!(let_in > 0);
    drop(turns);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    assert_eq!(door.stored(), let_in);
    let (status, _) = sent(door.rows(NDJSON, "{\"id\":1}\n")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn rows_are_taken_in_every_form() {
    let door = Door::open().await;
    let lines = "{\"id\":1,\"name\":\"a\",\"props\":{\"k\":[1]}}\n{\"id\":2}\n";
    let (status, body) = sent(door.rows(NDJSON, lines)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body,
        json!({"accepted": 2, "rejected": 0, "duplicate": 0, "token": "weir-2"})
    );
    assert_eq!(
        sent(door.rows("application/json", "[{\"id\":3}]")).await.0,
        200
    );
    assert_eq!(
        sent(door.rows("text/csv; charset=utf-8", "id,name\n4,x\n"))
            .await
            .0,
        200
    );
    assert_eq!(sent(door.rows(ARROW, arrow_stream())).await.0, 200);
    let packed = door
        .rows(NDJSON, gzip(b"{\"id\":8}\n"))
        .header("content-encoding", "gzip");
    assert_eq!(sent(packed).await.0, 200);
    let packed = zstd::encode_all(&b"{\"id\":9}\n"[..], 1).unwrap();
    let packed = door.rows(NDJSON, packed).header("content-encoding", "zstd");
    assert_eq!(sent(packed).await.0, 200);
    assert_eq!(door.stored(), 9);
    let (status, body) = sent(door.rows(NDJSON, "\n")).await;
    assert_eq!((status, &body["accepted"]), (200, &json!(0)));
    let first = door.db.table("events").batches.lock().unwrap()[0].clone();
    assert_eq!(
        first
            .column_by_name("id")
            .unwrap()
            .as_primitive::<Int64Type>()
            .values(),
        &[1, 2]
    );
    assert_eq!(
        first
            .column_by_name("props")
            .unwrap()
            .as_string::<i32>()
            .value(0),
        "{\"k\":[1]}"
    );
    assert!(
        first.column_by_name("source").is_none(),
        "left to its default"
    );
    // more than is decoded in place
    let many: String = (0..5000).map(|n| format!("{{\"id\":{n}}}\n")).collect();
    assert_eq!(sent(door.rows(NDJSON, many)).await.1["accepted"], 5000);
}

#[tokio::test]
async fn bad_requests_are_refused_and_store_nothing() {
    let door = Door::open().await;
    let table = |name: &str| door.post(&format!("/v1/tables/public/{name}/rows"));
    let bomb = gzip(&vec![b' '; 8 << 20]);
    assert!(bomb.len() < 1 << 20);
    let cases = [
        (door.rows(NDJSON, "{\"id\":1}\n{\"id\":"), 400, "22P02"),
        (
            door.rows(NDJSON, "{\"id\":1}\n{\"id\":\"x\"}"),
            400,
            "22P02",
        ),
        (door.rows(NDJSON, "{\"id\":1}\n{\"nope\":1}"), 400, "42703"),
        (door.rows(NDJSON, vec![0xff, 0xfe]), 400, "22021"),
        (door.rows(ARROW, "garbage that is no arrow"), 400, "08P01"),
        (
            door.rows(NDJSON, "{\"id\":1}")
                .header("idempotency-key", "k".repeat(256)),
            400,
            "22023",
        ),
        (door.rows("text/plain", "x"), 415, "0A000"),
        (
            door.rows(NDJSON, "{}").header("content-encoding", "br"),
            415,
            "0A000",
        ),
        (
            door.rows(NDJSON, "{}").header("content-encoding", "gzip"),
            400,
            "22P02",
        ),
        (door.rows(NDJSON, vec![b' '; (1 << 20) + 1]), 413, "54000"),
        (
            door.rows(NDJSON, bomb).header("content-encoding", "gzip"),
            413,
            "54000",
        ),
        (
            table("missing").header("content-type", NDJSON).body("{}"),
            404,
            "42P01",
        ),
        (
            table("forbidden").header("content-type", NDJSON).body("{}"),
            403,
            "42501",
        ),
        (door.post("/v1/nowhere"), 404, "42704"),
        (door.get("/v1/sql"), 405, "0A000"),
    ];
    for (i, (request, status, code)) in cases.into_iter().enumerate() {
        let found = refused(request).await;
        assert_eq!(
            (found.0, found.1.as_str()),
            (status, code),
            "case {i}: {}",
            found.2
        );
    }
    assert_eq!(door.stored(), 0);
    let (_, _, message) = refused(door.rows(NDJSON, "{\"id\":1}\n{\"id\":\"x\"}")).await;
    assert_eq!(
        message,
        "line 2, column \"id\": invalid input for type bigint: \"x\""
    );
}

#[tokio::test]
async fn callers_must_say_who_they_are() {
    let door = Door::open().await;
    let url = format!("http://{}/v1/sql", door.addr);
    let query = json!({"sql": "SELECT 1"});
    let anonymous = || door.client.post(&url).json(&query);
    assert_eq!(refused(anonymous()).await.1, "28000");
    assert_eq!(
        refused(anonymous().basic_auth(ROLE, Some("no"))).await,
        (
            401,
            "28P01".to_owned(),
            "password authentication failed for user \"weir\"".to_owned()
        )
    );
    assert_eq!(
        refused(anonymous().basic_auth("nobody", Some(PASSWORD)))
            .await
            .1,
        "28P01"
    );
    assert_eq!(refused(anonymous().bearer_auth("guess")).await.1, "28000");
    assert_eq!(
        refused(anonymous().header("authorization", "Basic ???"))
            .await
            .1,
        "28000"
    );
    let challenge = anonymous().send().await.unwrap();
    assert!(challenge.headers().contains_key("www-authenticate"));
    assert_eq!(
        sent(anonymous().basic_auth(ROLE, Some(PASSWORD))).await.0,
        200
    );
    door.db.change_password();
    assert_eq!(
        refused(anonymous().basic_auth(ROLE, Some(PASSWORD)))
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn sql_answers_in_the_accepted_form() {
    let door = Door::open().await;
    let query =
        json!({"sql": "SELECT column1 AS n, column2 AS s FROM (VALUES (1, 'a'), (2, NULL))"});
    let (status, body) = sent(door.sql(&query)).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({
            "columns": [{"name": "n", "type": "bigint"}, {"name": "s", "type": "text"}],
            "rows": [[1, "a"], [2, null]],
        })
    );
    let accepting = |kind: &str| door.sql(&query).header("accept", kind);
    let (_, lines) = sent(accepting(NDJSON)).await;
    assert_eq!(
        lines,
        json!("{\"n\":1,\"s\":\"a\"}\n{\"n\":2,\"s\":null}\n")
    );
    let (_, lines) = sent(accepting("text/html, text/csv;q=0.9")).await;
    assert_eq!(lines, json!("n,s\n1,a\n2,\n"));
    let bytes = accepting(ARROW)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let batches: Vec<_> = StreamReader::try_new(&*bytes, None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(batches[0].num_rows(), 2);
    assert_eq!(refused(accepting("image/png")).await.0, 406);
}

#[tokio::test]
async fn sql_takes_parameters_and_settings() {
    let door = Door::open().await;
    let query =
        json!({"sql": "SELECT $1 + 1 AS n", "params": [41], "settings": {"weir.read_after": "5"}});
    assert_eq!(sent(door.sql(&query)).await.1["rows"], json!([[42]]));
    let refusals = [
        (
            json!({"sql": "SELECT $1 + 1", "params": [1, 2]}),
            400,
            "42P02",
        ),
        (json!({"sql": "SELECT 1; SELECT 2"}), 400, "42601"),
        (json!({"sql": " "}), 400, "42601"),
        (json!({"sql": "SELEKT"}), 400, "42601"),
        (json!({"sql": "SELECT * FROM missing"}), 404, "42P01"),
        (json!({"query": "SELECT 1"}), 400, "22P02"),
        (
            json!({"sql": "SELECT 1", "settings": {"nonsense": "1"}}),
            404,
            "42704",
        ),
        (json!({"sql": "SELECT 1/0"}), 400, "22012"),
    ];
    for (body, status, code) in refusals {
        let found = refused(door.sql(&body)).await;
        assert_eq!(
            (found.0, found.1.as_str()),
            (status, code),
            "{body}: {}",
            found.2
        );
    }
    let (status, body) = sent(door.sql(&json!({"sql": "INSERT INTO t VALUES (1)"}))).await;
    assert_eq!(status, 200);
    assert_eq!(body["command"], "INSERT 0 1");
    assert_eq!(body["rows_affected"], 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query() {
    let door = Door::open().await;
    let dropped = Arc::clone(&door.db.dropped);
    let query = json!({"sql": "SELECT 'endless'"});
    let mut response = door.sql(&query).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    tokio::time::timeout(DEADLINE, dropped.notified())
        .await
        .expect("the query is dropped");
}

#[tokio::test]
async fn service_endpoints_are_open() {
    let door = Door::open().await;
    assert_eq!(sent(door.get("/healthz")).await, (200, json!("ok\n")));
    assert_eq!(sent(door.get("/readyz")).await.0, 200);
    sent(door.rows(NDJSON, "{\"id\":1}")).await;
    let (status, text) = sent(door.get("/metrics")).await;
    assert_eq!(status, 200);
    let text = text.as_str().unwrap().to_owned();
    assert!(
        text.contains("weir_ingest_rows_total{door=\"http\"}"),
        "{text}"
    );
    assert!(text.contains("weir_connections{door=\"http\"}"));
}

#[tokio::test]
async fn garbage_on_the_port_hurts_nobody() {
    let door = Door::open().await;
    for garbage in [
        &b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..],
        b"\x16\x03\x01\xff\xff",
        b"SELECT 1;\n\n",
    ] {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection ends");
    }
    assert_eq!(sent(door.get("/healthz")).await.0, 200);
}

#[tokio::test]
async fn tls_carries_requests() {
    let (tls, pem) = crate::tls::tests::self_signed();
    let door = Door::open_with(Some(&tls)).await;
    let client = Client::builder()
        .timeout(DEADLINE)
        .no_proxy()
        .add_root_certificate(reqwest::Certificate::from_pem(pem.as_bytes()).unwrap())
        .resolve("localhost", door.addr)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/readyz", door.addr.port());
    assert_eq!(sent(client.get(url)).await, (200, json!("ready\n")));
    let plain = door.get("/readyz").send().await;
    assert!(plain.is_err(), "nothing is answered in the clear");
}
