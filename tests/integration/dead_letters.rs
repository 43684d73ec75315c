//! Rows that a table refuses become dead letters at every door, in one step with the good ones, and only
//! those who may see the table whole see them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::json;
use tests::http::answer;
use tests::{PgSession, TestServer};

const TABLE: &str = "CREATE STREAMING TABLE t (id BIGINT NOT NULL, name VARCHAR(5), day DATE, \
                     props JSONB, CHECK (id <> 13))";

async fn started(options: &str) -> (TestServer, PgSession) {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!("{TABLE} {options}")).await;
    (server, pg)
}

/// Door, position, bytes and code of each letter, in the order they came.
async fn letters(pg: &PgSession) -> Vec<[String; 4]> {
    let sql = "SELECT door, position, convert_from(raw, 'UTF8'), sqlstate FROM weir.dead_letters ORDER BY id";
    let rows = pg.rows(sql).await.unwrap_or_else(|e| panic!("{e}"));
    rows.into_iter()
        .map(|row| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        })
        .collect()
}

fn letter(door: &str, position: &str, raw: &str, state: &str) -> [String; 4] {
    [door, position, raw, state].map(str::to_owned)
}

fn answered(accepted: u64, rejected: u64, body: &serde_json::Value) {
    let told = json!([body["accepted"], body["rejected"], body["duplicate"]]);
    assert_eq!(told, json!([accepted, rejected, 0]), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_kept_and_good_ones_stored() {
    let (server, pg) = started("").await;
    let body = "{\"id\":1,\"name\":\"ok\"}\n{\"id\":\n{\"id\":null}\n{\"id\":13}\n\
                {\"id\":2,\"name\":\"too long\"}\n{\"id\":3,\"day\":\"2026-02-31\"}\n{\"id\":4}\n";
    let told = server.http().send_rows("public", "t", body).await.unwrap();
    assert_eq!(told.status, 200, "{}", told.text);
    answered(2, 5, &told.body);
    let ids = pg.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t");
    assert_eq!(ids.await, "1,4");
    let expected = [
        letter("http", "line 2", "{\"id\":", "22P02"),
        letter("http", "line 3", "{\"id\":null}", "23502"),
        letter(
            "http",
            "line 6",
            "{\"id\":3,\"day\":\"2026-02-31\"}",
            "22P02",
        ),
        letter(
            "http",
            "line 5",
            "{\"id\":2,\"name\":\"too long\"}",
            "22001",
        ),
        letter("http", "line 4", "{\"id\":13}", "23514"),
    ];
    let mut found = letters(&pg).await;
    let mut wanted = expected.to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let open = "SELECT count(*) FROM weir.dead_letters WHERE replayed_at IS NULL AND attempts = 0 \
                AND table_schema = 'public' AND table_name = 't' AND NOT truncated \
                AND table_oid = 't'::regclass AND rejected_at > now() - INTERVAL '1 hour'";
    assert_eq!(pg.count(open).await, 5);
    drop(pg);

    let server = server.restart().await;
    let pg = server.connect().await;
    let mut again = letters(&pg).await;
    again.sort();
    assert_eq!(again, wanted, "from storage");
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_and_csv_are_told_apart_row_by_row() {
    let (server, pg) = started("").await;
    let post = |kind: &str, body: &'static str| {
        let request = server.http().post("/v1/tables/public/t/rows");
        answer(request.header("content-type", kind).body(body))
    };
    let told = post(
        "application/json",
        "[{\"id\":1},7,\n{\"id\":13},{\"id\":2}]",
    )
    .await;
    answered(2, 2, &told.unwrap().body);
    let told = post("text/csv", "id,name\n3,a\n4\nx,b\n13,c\n").await;
    answered(1, 3, &told.unwrap().body);
    let cut = post("application/json", "[{\"id\":1},").await.unwrap();
    assert_eq!(
        cut.status, 400,
        "what is no array has no rows: {}",
        cut.text
    );
    let mut found = letters(&pg).await;
    found.sort();
    assert_eq!(
        found,
        [
            letter("http", "line 1", "7", "22P02"),
            letter("http", "line 2", "{\"id\":13}", "23514"),
            letter("http", "line 3", "4", "22P04"),
            letter("http", "line 4", "x,b", "22P02"),
            letter("http", "line 5", "13,c", "23514"),
        ]
    );
    server.stop().await;
}

fn batch() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("props", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), None, Some(13), Some(2)])),
        Arc::new(StringArray::from(vec![
            Some("a"),
            Some("b"),
            None,
            Some("too long"),
        ])),
        Arc::new(StringArray::from(vec![
            Some("{}"),
            None,
            Some("{\"k\": 1}"),
            None,
        ])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_rows_become_json() {
    let (server, pg) = started("").await;
    let mut flight = server.flight().await;
    let told = flight.put("public", "t", vec![batch()]).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    answered(1, 3, &told);
    let mut found = letters(&pg).await;
    found.sort();
    let row = |n: usize, raw: &str, state: &str| letter("flight", &format!("row {n}"), raw, state);
    assert_eq!(
        found,
        [
            row(2, "{\"id\":null,\"name\":\"b\",\"props\":null}", "23502"),
            row(3, "{\"id\":13,\"name\":null,\"props\":{\"k\": 1}}", "23514"),
            row(
                4,
                "{\"id\":2,\"name\":\"too long\",\"props\":null}",
                "22001"
            ),
        ]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn insert_and_copy_keep_bad_rows_when_told_to() {
    let (server, pg) = started("").await;
    let e = pg.failure("INSERT INTO t (id) VALUES (1), (13)").await;
    assert_eq!(e.state, "23514");
    let e = pg
        .copy_in("COPY t (id) FROM STDIN", b"1\nx\n")
        .await
        .unwrap_err();
    assert_eq!(e.state, "22P02");
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    assert_eq!(letters(&pg).await.len(), 0);

    pg.run("ALTER TABLE t SET (on_violation = 'dead_letter')")
        .await;
    let stored = pg
        .client()
        .execute("INSERT INTO t (id, name) VALUES (1, 'a'), (13, 'b')", &[]);
    assert_eq!(stored.await.unwrap(), 1);
    let text = b"2\ta\n3\nx\tb\n13\tc\n4\t\\N\n";
    assert_eq!(
        pg.copy_in("COPY t (id, name) FROM STDIN", text)
            .await
            .unwrap(),
        2
    );
    let csv = b"id;name\n5;e\ny;\"f\ng\"\n";
    let sql = "COPY t (id, name) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')";
    assert_eq!(pg.copy_in(sql, csv).await.unwrap(), 1);
    let ids = pg.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t");
    assert_eq!(ids.await, "1,2,4,5");
    let mut found = letters(&pg).await;
    found.sort();
    assert_eq!(
        found,
        [
            letter("copy", "line 2", "3", "22P04"),
            letter("copy", "line 3", "x\tb", "22P02"),
            letter("copy", "line 3", "y;\"f\ng\"", "22P02"),
            letter("copy", "line 4", "13\tc", "23514"),
            letter("insert", "row 2", "{\"id\":13,\"name\":\"b\"}", "23514"),
        ]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_refuse_whole_batches() {
    let (server, pg) = started("WITH (on_violation = 'reject')").await;
    let http = server.http();
    let told = http.send_rows("public", "t", "{\"id\":1}\n{\"id\":13}\n");
    assert_eq!(told.await.unwrap().status, 400);
    let refused = server
        .flight()
        .await
        .put("public", "t", vec![batch()])
        .await;
    assert!(refused.is_err());
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    assert_eq!(letters(&pg).await.len(), 0);
    // an ordinary table has no dead letters
    pg.run("CREATE TABLE p (id BIGINT NOT NULL)").await;
    let told = http.send_rows("public", "p", "{\"id\":1}\n{}\n");
    assert_eq!(told.await.unwrap().status, 400);
    assert_eq!(pg.count("SELECT count(*) FROM p").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_sees_the_table_whole_sees_its_letters() {
    let (server, pg) = started("").await;
    let told = server
        .http()
        .send_rows("public", "t", "{\"id\":\"secret\"}\n")
        .await;
    answered(0, 1, &told.unwrap().body);
    for (role, grant) in [
        ("nobody", ""),
        ("writer", "GRANT INSERT ON t TO writer"),
        ("whole", "GRANT SELECT ON t TO whole"),
    ] {
        pg.run(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw-{role}'"))
            .await;
        if !grant.is_empty() {
            pg.run(grant).await;
        }
        let other = server.connect_as(role, &format!("pw-{role}")).await;
        let sees = i64::from(role == "whole");
        let count = other.count("SELECT count(*) FROM weir.dead_letters").await;
        assert_eq!(count, sees, "{role}");
        // a condition that fails on the row tells of it
        let probe = "SELECT count(*) FROM weir.dead_letters WHERE 1 / (length(convert_from(raw, 'UTF8')) - 15) > 5";
        let probed = other.rows(probe).await;
        match sees {
            0 => assert_eq!(probed.unwrap()[0][0].as_deref(), Some("0"), "{role}"),
            _ => assert_eq!(probed.unwrap_err().state, "22012", "{role}"),
        }
        let inside = other.failure("SELECT * FROM _weir.dead_letters").await;
        assert_eq!(inside.state, "42P01", "{role}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_rows_is_bounded() {
    let (server, pg) = started("").await;
    let flood = "x\n".repeat(600_000);
    let told = server.http().send_rows("public", "t", flood).await.unwrap();
    assert_eq!(told.status, 413, "{}", told.text);
    assert_eq!(letters(&pg).await.len(), 0);
    let many = "x\n".repeat(20_000) + "{\"id\":1}\n";
    let told = server.http().send_rows("public", "t", many).await.unwrap();
    answered(1, 20_000, &told.body);
    let count = pg.count("SELECT count(*) FROM weir.dead_letters").await;
    assert_eq!(count, 20_000);
    server.stop().await;
}

/// Rows of every door are read again in the form in which they came.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_door_are_replayed() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, name TEXT, props JSONB, at TIMESTAMPTZ, \
         twice BIGINT GENERATED ALWAYS AS (id * 2) STORED, CONSTRAINT closed CHECK (id < 0)) \
         WITH (on_violation = 'dead_letter')",
    )
    .await;
    let post = |kind: &str, body: &'static str| {
        let request = server.http().post("/v1/tables/public/t/rows");
        answer(request.header("content-type", kind).body(body))
    };
    let line =
        "{\"id\":1,\"name\":\"a\\nb\",\"props\":{\"k\":[1]},\"at\":\"2026-01-01T00:00:00Z\"}\n";
    answered(0, 1, &post(tests::http::NDJSON, line).await.unwrap().body);
    let array = "[\n{\"id\":\n2, \"props\": \"text\"}]";
    answered(0, 1, &post("application/json", array).await.unwrap().body);
    let csv = "name,id,props\n\"x, y\nz\",3,\"{\"\"k\"\":1}\"\n";
    answered(0, 1, &post("text/csv", csv).await.unwrap().body);
    let flight = server
        .flight()
        .await
        .put("public", "t", vec![batch()])
        .await;
    let told: serde_json::Value = serde_json::from_slice(&flight.unwrap()).unwrap();
    answered(0, 4, &told);
    pg.run("SET TIME ZONE 'Europe/Berlin'").await;
    pg.run("INSERT INTO t (id, name, at) VALUES (4, 'insert', '2026-01-01 01:00:00')")
        .await;
    let sql = "COPY t (name, id) FROM STDIN";
    assert_eq!(
        pg.copy_in(sql, b"tab\\there\t5\n\\N\t6\n").await.unwrap(),
        0
    );
    let sql = "COPY t (id, name) FROM STDIN WITH (FORMAT csv, DELIMITER ';', NULL '-')";
    assert_eq!(pg.copy_in(sql, b"7;\"a\nb\"\n8;-\n").await.unwrap(), 0);
    let mut binary = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    binary.extend_from_slice(b"\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x09\xff\xff");
    let sql = "COPY t (id) FROM STDIN WITH (FORMAT binary)";
    assert_eq!(pg.copy_in(sql, &binary).await.unwrap(), 0);
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    assert_eq!(letters(&pg).await.len(), 13);
    drop(pg);

    let server = server.restart().await;
    let pg = server.connect().await;
    pg.run("ALTER TABLE t DROP CONSTRAINT closed").await;
    let counts =
        |row: Vec<Vec<Option<String>>>| row[0].iter().flatten().cloned().collect::<Vec<_>>();
    let replay = "REPLAY DEAD LETTERS FOR t";
    assert_eq!(counts(pg.rows(replay).await.unwrap()), ["12", "1"]);
    assert_eq!(counts(pg.rows(replay).await.unwrap()), ["0", "1"]);
    let rows = pg
        .rows("SELECT id, name, props, at, twice FROM t ORDER BY id, name NULLS LAST")
        .await
        .unwrap();
    let rows: Vec<String> = rows
        .into_iter()
        .map(|r| {
            r.into_iter()
                .map(|c| c.unwrap_or("-".into()))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    assert_eq!(
        rows,
        [
            "1|a|{}|-|2",
            "1|a\nb|{\"k\": [1]}|2026-01-01 00:00:00+00|2",
            "2|too long|-|-|4",
            "2|-|\"text\"|-|4",
            "3|x, y\nz|{\"k\": 1}|-|6",
            "4|insert|-|2026-01-01 00:00:00+00|8",
            "5|tab\there|-|-|10",
            "6|-|-|-|12",
            "7|a\nb|-|-|14",
            "8|-|-|-|16",
            "9|-|-|-|18",
            "13|-|{\"k\": 1}|-|26",
        ]
    );
    server.stop().await;
}
