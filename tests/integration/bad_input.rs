//! Bad rows: a clear answer with its code, nothing of the request stored, the server lives on.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tests::http::answer;
use tests::{PgSession, TestServer};

async fn started() -> (TestServer, PgSession) {
    let server = TestServer::configured(|c| c.max_body = 256 << 10).await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, name TEXT, day DATE, CHECK (id >= 0)) \
         WITH (flush_interval = '1 hour', on_violation = 'reject')",
    )
    .await;
    (server, pg)
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refuses_what_it_cannot_store() {
    let (server, pg) = started().await;
    let http = server.http();
    let good = "{\"id\": 1, \"name\": \"ok\"}\n";
    for (name, bad, says) in [
        ("broken JSON", "{\"id\": 2, \"name\": \n", "line 2"),
        ("no object", "[1, 2]\n", "line 2"),
        ("text for a number", "{\"id\": \"abc\"}\n", "id"),
        ("fraction for a whole number", "{\"id\": 1.5}\n", "id"),
        (
            "too large a number",
            "{\"id\": 99999999999999999999}\n",
            "id",
        ),
        (
            "no such day",
            "{\"id\": 2, \"day\": \"2026-02-31\"}\n",
            "day",
        ),
        ("NULL where none may be", "{\"id\": null}\n", "id"),
        (
            "nothing where something must be",
            "{\"name\": \"x\"}\n",
            "id",
        ),
        ("a broken rule", "{\"id\": -1}\n", "check"),
        ("an unknown column", "{\"id\": 2, \"nope\": 1}\n", "nope"),
        (
            "bytes that are no text",
            "{\"id\": 2, \"name\": \"\u{0}\"}\n",
            "line 2",
        ),
    ] {
        let told = http
            .send_rows("public", "t", format!("{good}{bad}"))
            .await
            .unwrap();
        assert_eq!(told.status, 400, "{name}: {}", told.text);
        assert!(
            told.text.to_lowercase().contains(says),
            "{name}: {}",
            told.text
        );
        assert_eq!(
            pg.count("SELECT count(*) FROM t").await,
            0,
            "{name}: stored anyway"
        );
    }
    let cut = http
        .send_rows("public", "t", &b"{\"id\": 1, \"name\": \"\xff\xfe\"}\n"[..])
        .await;
    assert_eq!(cut.unwrap().status, 400, "not UTF-8");

    assert_eq!(
        http.send_rows("public", "missing", good)
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        http.send_rows("nowhere", "t", good).await.unwrap().status,
        404
    );
    let xml = http
        .post("/v1/tables/public/t/rows")
        .header("content-type", "text/xml")
        .body("<a/>");
    assert_eq!(answer(xml).await.unwrap().status, 415);
    let huge = format!("{{\"id\": 1, \"name\": \"{}\"}}\n", "x".repeat(512 << 10));
    assert_eq!(
        http.send_rows("public", "t", huge).await.unwrap().status,
        413
    );
    let arrow = http
        .post("/v1/tables/public/t/rows")
        .header("content-type", "application/vnd.apache.arrow.stream")
        .body("not arrow at all");
    assert_eq!(answer(arrow).await.unwrap().status, 400);

    // An empty body is no rows, not an error.
    let empty = http.send_rows("public", "t", "").await.unwrap();
    assert_eq!(
        (empty.status, &empty.body["accepted"]),
        (200, &serde_json::json!(0)),
        "{}",
        empty.text
    );

    let fine = http.send_rows("public", "t", good).await.unwrap();
    assert_eq!(fine.status, 200, "{}", fine.text);
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_errors_carry_their_sqlstate() {
    let (server, _) = started().await;
    let http = server.http();
    for (sql, status, state) in [
        ("SELEC 1", 400, "42601"),
        ("SELECT * FROM missing", 404, "42P01"),
        ("SELECT 1 / 0", 400, "22012"),
    ] {
        let told = http.sql(sql).await.unwrap();
        assert!(
            told.status == status || told.status == 400,
            "{sql}: {}",
            told.status
        );
        assert!(told.text.contains(state), "{sql}: {}", told.text);
    }
    let no_json = http
        .post("/v1/sql")
        .header("content-type", "application/json")
        .body("{");
    assert_eq!(answer(no_json).await.unwrap().status, 400);
    assert_eq!(answer(http.get("/no/such/path")).await.unwrap().status, 404);
    assert_eq!(answer(http.get("/v1/sql")).await.unwrap().status, 405);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(answer(http.get(path)).await.unwrap().status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_refuses_what_it_cannot_store() {
    let (server, pg) = started().await;
    let mut flight = server.flight().await;
    let batch = |fields: Vec<Field>, columns| {
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let text_for_number = batch(
        vec![Field::new("id", DataType::Utf8, false)],
        vec![Arc::new(StringArray::from(vec!["abc"])) as _],
    );
    let unknown_column = batch(
        vec![
            Field::new("id", DataType::Int64, false),
            Field::new("nope", DataType::Int64, false),
        ],
        vec![
            Arc::new(Int64Array::from(vec![1])) as _,
            Arc::new(Int64Array::from(vec![1])) as _,
        ],
    );
    let no_key = batch(
        vec![Field::new("name", DataType::Utf8, false)],
        vec![Arc::new(StringArray::from(vec!["x"])) as _],
    );
    let broken_rule = batch(
        vec![Field::new("id", DataType::Int64, false)],
        vec![Arc::new(Int64Array::from(vec![-5])) as _],
    );
    let fine = batch(
        vec![Field::new("id", DataType::Int64, false)],
        vec![Arc::new(Int64Array::from(vec![5])) as _],
    );
    for (name, rows) in [
        ("text for a number", text_for_number),
        ("an unknown column", unknown_column),
        ("nothing where something must be", no_key),
        ("a broken rule", broken_rule),
    ] {
        let refused = flight.put("public", "t", vec![rows]).await;
        assert!(refused.is_err(), "{name}");
        assert_eq!(
            pg.count("SELECT count(*) FROM t").await,
            0,
            "{name}: stored anyway"
        );
    }
    let missing = flight
        .put("public", "missing", vec![fine.clone()])
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
    assert!(flight.query("SELECT * FROM missing").await.is_err());
    flight.put("public", "t", vec![fine]).await.unwrap();
    assert_eq!(flight.value("SELECT id FROM t").await, "5");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_refuses_what_it_cannot_store() {
    let (server, pg) = started().await;
    for (name, data, state) in [
        ("text for a number", "1\ta\t\\N\nx\tb\t\\N\n", "22P02"),
        ("too few columns", "1\ta\n", "22P04"),
        ("too many columns", "1\ta\t\\N\tmore\n", "22P04"),
        ("no such day", "1\ta\t2026-02-31\n", "22008"),
        ("NULL where none may be", "\\N\ta\t\\N\n", "23502"),
        ("a broken rule", "-1\ta\t\\N\n", "23514"),
    ] {
        let refused = pg
            .copy_in("COPY t FROM STDIN", data.as_bytes())
            .await
            .unwrap_err();
        let date = state == "22008" && refused.state == "22007";
        assert!(refused.state == state || date, "{name}: {refused}");
        assert_eq!(
            pg.count("SELECT count(*) FROM t").await,
            0,
            "{name}: stored anyway"
        );
    }
    let missing = pg
        .copy_in("COPY missing FROM STDIN", b"1\n")
        .await
        .unwrap_err();
    assert_eq!(missing.state, "42P01");
    assert_eq!(
        pg.copy_in("COPY t FROM STDIN", b"1\ta\t\\N\n")
            .await
            .unwrap(),
        1
    );
    server.stop().await;
}
