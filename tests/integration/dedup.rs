//! Duplicates at every door, after a restart, and between callers.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::Value;
use tests::TestServer;
use tests::http::HttpSession;

const TABLE: &str = "CREATE STREAMING TABLE events (id BIGINT, ts TIMESTAMPTZ) \
     WITH (event_time = 'ts', dedup_key = 'id', flush_interval = '1 hour')";

fn batch(ids: &[i64]) -> RecordBatch {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", ts, true),
    ]);
    let times = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000; ids.len()]);
    let ids = Int64Array::from(ids.to_vec());
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(ids), Arc::new(times.with_timezone("UTC"))];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn lines(ids: &[i64]) -> String {
    ids.iter()
        .map(|id| format!("{{\"id\": {id}, \"ts\": \"2026-01-01T00:00:00Z\"}}\n"))
        .collect()
}

async fn sent(http: &HttpSession, ids: &[i64]) -> Value {
    let told = http.send_rows("public", "events", lines(ids)).await;
    told.unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_tells_how_many_rows_were_there() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(TABLE).await;

    let told = sent(&server.http(), &[1, 2, 2]).await;
    assert_eq!(
        (&told["accepted"], &told["duplicate"]),
        (&2.into(), &1.into())
    );
    let first = told["token"].as_str().unwrap().to_owned();
    // only duplicates: the token is still one that the rows are visible at
    let told = sent(&server.http(), &[2, 1]).await;
    assert_eq!(
        (&told["accepted"], &told["duplicate"]),
        (&0.into(), &2.into())
    );
    assert_eq!(told["token"].as_str().unwrap(), first);

    let mut flight = server.flight().await;
    let told = flight
        .put("public", "events", vec![batch(&[2, 3]), batch(&[3, 4])])
        .await
        .unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(
        (&told["accepted"], &told["duplicate"]),
        (&2.into(), &2.into())
    );

    let copied = pg.copy_in(
        "COPY events FROM STDIN",
        b"4\t2026-01-01 00:00:00+00\n5\t2026-01-01 00:00:00+00\n",
    );
    assert_eq!(copied.await.unwrap(), 1);
    let inserted = pg.client().execute(
        "INSERT INTO events VALUES (5, '2026-01-01 00:00:00+00'), (6, '2026-01-01 00:00:00+00')",
        &[],
    );
    assert_eq!(inserted.await.unwrap(), 1);

    let all = "SELECT string_agg(id::text, ',' ORDER BY id) FROM events";
    assert_eq!(pg.value(all).await, "1,2,3,4,5,6");
    drop((pg, flight));
    let server = server.restart().await;
    let pg = server.connect().await;
    let told = sent(&server.http(), &[1, 6, 7]).await;
    assert_eq!(
        (&told["accepted"], &told["duplicate"]),
        (&1.into(), &2.into())
    );
    assert_eq!(pg.value(all).await, "1,2,3,4,5,6,7");
    let metrics = tests::http::answer(server.http().get("/metrics"))
        .await
        .unwrap();
    assert!(metrics.text.contains("weir_ingest_duplicate_rows_total"));
    drop(pg);
    server.stop().await;
}

/// After a restore the table says again what a duplicate is, before and after a restart, with and without
/// an event time.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_table_decides_what_is_a_duplicate() {
    let mut server = TestServer::start().await;
    let pg = server.connect().await;
    let tables = [
        ("timed", "event_time = 'ts', "),
        ("arrived", "dedup_window = '1 day', "),
    ];
    for (table, options) in tables {
        pg.run(&format!(
            "CREATE STREAMING TABLE {table} (id BIGINT, ts TIMESTAMPTZ) \
             WITH ({options} dedup_key = 'id', flush_interval = '1 hour')"
        ))
        .await;
    }
    drop(pg);
    let send = async |server: &TestServer, table: &str, ids: &[i64]| {
        let told = server.http().send_rows("public", table, lines(ids)).await;
        let told = told.unwrap().body;
        ["accepted", "duplicate"].map(|k| told[k].as_u64().unwrap())
    };
    for (table, _) in tables {
        let flush = format!("FLUSH TABLE {table}");
        let pg = server.connect().await;
        assert_eq!(send(&server, table, &[1, 2]).await, [2, 0]);
        pg.run(&flush).await;
        assert_eq!(send(&server, table, &[2, 3, 4]).await, [2, 1]);
        pg.run(&flush).await;
        // in memory when the restore begins: it is taken away too
        assert_eq!(send(&server, table, &[5]).await, [1, 0]);
        let version = "TO VERSION AS OF 1";
        pg.run(&format!("RESTORE TABLE {table} {version}")).await;
        let all = format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}");
        assert_eq!(pg.value(&all).await, "1,2", "{table}");
        assert_eq!(send(&server, table, &[1, 2, 3, 5]).await, [2, 2], "{table}");
        assert_eq!(send(&server, table, &[3, 4]).await, [1, 1], "{table}");
        pg.run(&flush).await;
        pg.run(&format!("RESTORE TABLE {table} {version}")).await;
        drop(pg);

        server = server.restart().await;
        let pg = server.connect().await;
        assert_eq!(pg.value(&all).await, "1,2", "{table}");
        assert_eq!(send(&server, table, &[1, 2, 3, 6]).await, [2, 2], "{table}");
        pg.run(&format!("UPDATE {table} SET id = 7 WHERE id = 6"))
            .await;
        pg.run(&format!("DELETE FROM {table} WHERE id = 1")).await;
        pg.run(&format!("ALTER TABLE {table} ADD COLUMN extra INT"))
            .await;
        drop(pg);

        server = server.restart().await;
        let pg = server.connect().await;
        assert_eq!(
            send(&server, table, &[1, 2, 3, 6, 7]).await,
            [2, 3],
            "{table}"
        );
        assert_eq!(pg.value(&all).await, "1,2,3,6,7", "{table}");
    }
    server.stop().await;
}

/// Many callers send the same rows at once: each is stored once, and whoever is told of a duplicate
/// can read the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_told_only_when_its_original_is_there() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(TABLE).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (http, addresses) = (server.http(), server.addresses());
        callers.spawn(async move {
            let pg = tests::PgSession::open(addresses.pg, tests::ADMIN, tests::PASSWORD);
            let pg = pg.await.unwrap();
            let mut accepted = 0;
            for n in 0..40i64 {
                let told = http.send_rows("public", "events", lines(&[n, n + 1]));
                let told = told.await.unwrap();
                assert_eq!(told.status, 200, "{}", told.text);
                accepted += told.body["accepted"].as_i64().unwrap();
                let sql = format!("SELECT count(*) FROM events WHERE id IN ({n}, {})", n + 1);
                assert_eq!(pg.count(&sql).await, 2);
            }
            accepted
        });
    }
    let mut accepted = 0;
    while let Some(done) = callers.join_next().await {
        accepted += done.unwrap();
    }
    assert_eq!(accepted, 41);
    assert_eq!(pg.count("SELECT count(*) FROM events").await, 41);
    drop(pg);
    server.stop().await;
}
