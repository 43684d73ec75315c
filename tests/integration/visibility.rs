//! An acknowledged row is there for the next statement, on every wire, before and after a flush.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tests::TestServer;

fn batch(id: i64, door: &str) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("door", DataType::Utf8, true),
    ]);
    let ids = Arc::new(Int64Array::from(vec![id]));
    let doors = Arc::new(StringArray::from(vec![door]));
    RecordBatch::try_new(Arc::new(schema), vec![ids, doors]).unwrap()
}

async fn seen_everywhere(server: &TestServer, rows: i64) {
    let sql = "SELECT count(*) FROM seen";
    assert_eq!(server.connect().await.count(sql).await, rows, "postgres");
    assert_eq!(
        server.flight().await.value(sql).await,
        rows.to_string(),
        "flight"
    );
    let answer = server
        .http()
        .sql("SELECT count(*) AS n FROM seen")
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer.text.contains(&rows.to_string()),
        "http: {}",
        answer.text
    );
    assert_eq!(
        server.connect().await.count("SELECT n FROM counted").await,
        rows,
        "view"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_door_shows_what_every_door_took() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE seen (id BIGINT NOT NULL, door TEXT) WITH (flush_interval = '1 hour')")
        .await;
    pg.run("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM seen")
        .await;

    let mut rows = 0;
    for round in 0..3 {
        pg.run(&format!("INSERT INTO seen VALUES ({round}, 'insert')"))
            .await;
        rows += 1;
        seen_everywhere(&server, rows).await;

        let line = format!("{{\"id\": {round}, \"door\": \"http\"}}\n");
        let answer = server
            .http()
            .send_rows("public", "seen", line)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.body["accepted"], 1);
        assert!(answer.body["token"].as_str().is_some_and(|t| !t.is_empty()));
        rows += 1;
        seen_everywhere(&server, rows).await;

        let mut flight = server.flight().await;
        let token = flight
            .put("public", "seen", vec![batch(round, "flight")])
            .await
            .unwrap();
        assert!(!token.is_empty(), "a token");
        rows += 1;
        seen_everywhere(&server, rows).await;

        let copied = pg
            .copy_in("COPY seen FROM STDIN", b"7\tcopy\n")
            .await
            .unwrap();
        assert_eq!(copied, 1);
        rows += 1;
        seen_everywhere(&server, rows).await;

        if round == 1 {
            pg.run("FLUSH TABLE seen").await;
            seen_everywhere(&server, rows).await;
        }
    }
    let doors = pg
        .rows("SELECT door, count(*) FROM seen GROUP BY door ORDER BY door")
        .await
        .unwrap();
    let expected = ["copy", "flight", "http", "insert"]
        .map(|door| vec![Some(door.to_owned()), Some("3".to_owned())]);
    assert_eq!(doors, expected);
    server.stop().await;
}

/// Arrow bodies over HTTP carry the same rows as NDJSON.
#[tokio::test(flavor = "multi_thread")]
async fn http_takes_arrow_streams() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE seen (id BIGINT NOT NULL, door TEXT)")
        .await;
    let mut body = Vec::new();
    let rows = batch(1, "arrow");
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut body, &rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    let request = server
        .http()
        .post("/v1/tables/public/seen/rows")
        .header("content-type", "application/vnd.apache.arrow.stream")
        .body(body);
    let answer = tests::http::answer(request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        pg.value("SELECT door FROM seen WHERE id = 1").await,
        "arrow"
    );
    server.stop().await;
}

/// A row written on one connection is read by a second one that waits for the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_waited_for() {
    let server = TestServer::start().await;
    let writer = server.connect().await;
    writer
        .run("CREATE STREAMING TABLE seen (id BIGINT NOT NULL, door TEXT)")
        .await;
    let reader = server.connect().await;
    for id in 0..20 {
        let line = format!("{{\"id\": {id}}}\n");
        let answer = server
            .http()
            .send_rows("public", "seen", line)
            .await
            .unwrap();
        let token = answer.body["token"].as_str().unwrap().to_owned();
        reader
            .run(&format!("SET weir.read_after = '{token}'"))
            .await;
        assert_eq!(reader.count("SELECT count(*) FROM seen").await, id + 1);
    }
    server.stop().await;
}
