//! A request that is sent again under its key is answered again and stored once, at every door.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use serde_json::{Value, json};
use tests::http::{Answer, NDJSON, answer};
use tests::{PgSession, TestServer};

async fn started() -> (TestServer, PgSession) {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT NOT NULL)")
        .await;
    (server, pg)
}

async fn post(server: &TestServer, table: &str, key: &str, body: &str) -> Answer {
    let path = format!("/v1/tables/public/{table}/rows");
    let request = server.http().post(&path).header("content-type", NDJSON);
    let request = request.header("idempotency-key", key);
    answer(request.body(body.to_owned())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_again_also_after_a_restart() {
    let (server, pg) = started().await;
    let body = "{\"id\":1}\n{\"id\":null}\n{\"id\":2}\n";
    let first = post(&server, "t", "k1", body).await;
    assert_eq!((first.status, &first.body["accepted"]), (200, &json!(2)));
    assert_eq!(first.body["rejected"], 1);
    let mut expected = first.body.clone();
    expected["replayed"] = json!(true);
    assert_eq!(post(&server, "t", "k1", body).await.body, expected);
    // other contents, another table, another key
    let other = post(&server, "t", "k1", "{\"id\":9}\n").await;
    assert_eq!(other.status, 409, "{}", other.text);
    pg.run("CREATE STREAMING TABLE u (id BIGINT NOT NULL)")
        .await;
    assert_eq!(post(&server, "u", "k1", "{\"id\":9}\n").await.status, 200);
    assert_eq!(post(&server, "t", "k2", "{\"id\":3}\n").await.status, 200);
    pg.run("CREATE TABLE plain (id BIGINT)").await;
    let plain = post(&server, "plain", "k1", "{\"id\":9}\n").await;
    assert_eq!(
        (plain.status, &plain.body["error"]["code"]),
        (400, &json!("0A000")),
        "{}",
        plain.text
    );
    let count = "SELECT count(*) FROM t";
    assert_eq!(pg.count(count).await, 3);
    drop(pg);
    let server = server.restart().await;
    assert_eq!(post(&server, "t", "k1", body).await.body, expected);
    let pg = server.connect().await;
    assert_eq!(pg.count(count).await, 3);
    assert_eq!(pg.count("SELECT count(*) FROM weir.dead_letters").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_its_key_free() {
    let (server, pg) = started().await;
    pg.run("ALTER TABLE t SET (on_violation = 'reject')").await;
    let body = "{\"id\":1}\n{\"id\":null}\n";
    assert_eq!(post(&server, "t", "k", body).await.status, 400);
    assert_eq!(post(&server, "t", "k", body).await.status, 400);
    let fine = post(&server, "t", "k", "{\"id\":1}\n").await;
    assert_eq!((fine.status, &fine.body["replayed"]), (200, &Value::Null));
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_stored() {
    let (server, pg) = started().await;
    let body = (0..500)
        .map(|n| format!("{{\"id\":{n}}}\n"))
        .collect::<String>();
    let requests = (0..16).map(|_| post(&server, "t", "same", &body));
    let answers = futures::future::join_all(requests).await;
    let again = answers.iter().filter(|a| a.body["replayed"] == json!(true));
    assert_eq!(again.count(), 15);
    for told in &answers {
        assert_eq!((told.status, &told.body["accepted"]), (200, &json!(500)));
        assert_eq!(told.body["token"], answers[0].body["token"]);
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 500);
    server.stop().await;
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

async fn put(server: &TestServer, whole: Option<&str>, keys: &[&str]) -> Result<Value, String> {
    let path = FlightDescriptor::new_path(vec!["public".to_owned(), "t".to_owned()]);
    let mut builder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(path));
    if let Some(key) = whole {
        builder = builder.with_metadata(Bytes::from(key.to_owned()));
    }
    let batches = stream::iter([Ok(batch(0..3)), Ok(batch(3..10))]);
    let mut data: Vec<FlightData> = builder.build(batches).try_collect().await.unwrap();
    let rows = data.len() - keys.len();
    for (message, key) in data.iter_mut().skip(rows).zip(keys) {
        message.app_metadata = Bytes::from((*key).to_owned());
    }
    let mut flight = server.flight().await;
    let answers = flight.client().do_put(stream::iter(data)).await;
    let answers: Vec<_> = answers
        .map_err(|e| e.to_string())?
        .try_collect()
        .await
        .map_err(|e| e.to_string())?;
    let last = answers.last().expect("an answer");
    Ok(serde_json::from_slice(&last.app_metadata).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_takes_a_key_per_batch_or_for_all() {
    let (server, pg) = started().await;
    let count = "SELECT count(*) FROM t";
    for _ in 0..3 {
        let told = put(&server, None, &["a", "b"]).await.unwrap();
        assert_eq!(told["accepted"], 10);
        assert_eq!(pg.count(count).await, 10);
    }
    // the second batch under a new key
    put(&server, None, &["a", "c"]).await.unwrap();
    assert_eq!(pg.count(count).await, 17);
    for _ in 0..3 {
        let told = put(&server, Some("all"), &[]).await.unwrap();
        assert_eq!(told["accepted"], 10);
        assert_eq!(pg.count(count).await, 27);
    }
    // one key on every batch
    for _ in 0..3 {
        put(&server, None, &["one", "one"]).await.unwrap();
        assert_eq!(pg.count(count).await, 37);
    }
    let refused = put(&server, None, &["b", "a"]).await.unwrap_err();
    assert!(refused.contains("other contents"), "{refused}");
    let both = put(&server, Some("all"), &["a", "b"]).await.unwrap_err();
    assert!(both.contains("key"), "{both}");
    assert_eq!(pg.count(count).await, 37);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_session_sets_the_key_of_its_next_write() {
    let (server, pg) = started().await;
    for _ in 0..3 {
        pg.run("SET weir.idempotency_key = 'k1'").await;
        let rows = pg
            .client()
            .execute("INSERT INTO t VALUES (1), (2)", &[])
            .await;
        assert_eq!(rows.unwrap(), 2);
        assert_eq!(pg.value("SHOW weir.idempotency_key").await, "");
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 2);
    pg.run("INSERT INTO t VALUES (1), (2)").await;
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 4);
    pg.run("SET weir.idempotency_key = 'k1'").await;
    let e = pg.failure("INSERT INTO t VALUES (3)").await;
    assert_eq!(e.state, "55000");
    // a refused statement keeps it
    assert_eq!(pg.value("SHOW weir.idempotency_key").await, "k1");
    pg.run("RESET weir.idempotency_key").await;
    // parameters are part of the statement
    for (id, stored) in [(7i64, true), (7, true), (8, false)] {
        pg.run("SET weir.idempotency_key = 'k2'").await;
        let told = pg
            .client()
            .execute("INSERT INTO t VALUES ($1)", &[&id])
            .await;
        assert_eq!(told.is_ok(), stored, "{id}");
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_has_a_key_too() {
    let (server, pg) = started().await;
    let client = pg.client();
    for (data, stored) in [("1\n2\n", true), ("1\n2\n", true), ("3\n", false)] {
        pg.run("SET weir.idempotency_key = 'k'").await;
        let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
        futures::pin_mut!(sink);
        futures::SinkExt::send(&mut sink, Bytes::from(data))
            .await
            .unwrap();
        assert_eq!(sink.finish().await.is_ok(), stored, "{data}");
    }
    assert_eq!(
        server.connect().await.count("SELECT count(*) FROM t").await,
        2
    );
    server.stop().await;
}
