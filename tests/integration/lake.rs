//! What lies in storage is a plain Delta table that other engines read.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tests::{TestServer, delta, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_stream_reads_the_same_from_outside() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, k TEXT, at TIMESTAMPTZ, \
         day DATE GENERATED ALWAYS AS (at::date) STORED) PARTITIONED BY (day) \
         WITH (event_time = 'at', flush_interval = '1 hour')",
    )
    .await;
    let insert = "INSERT INTO t (id, k, at) SELECT i, 'k' || i % 7, \
                  '2026-01-01 00:00:00+00'::timestamptz + i * INTERVAL '1 hour' \
                  FROM generate_series(1, 1000) AS g (i)";
    pg.run(insert).await;
    pg.run("FLUSH TABLE t").await;
    pg.run("INSERT INTO t (id, k) VALUES (5000, NULL)").await;
    pg.run("FLUSH TABLE t").await;

    let location = server.delta_location("public", "t");
    assert_eq!(delta::count(&location).await, 1001);
    let sql = "SELECT sum(id), count(k), count(DISTINCT day), count(DISTINCT _lsn) FROM t";
    let outside = delta::query(&location, sql).await;
    let inside = pg.rows(sql).await.unwrap();
    for (column, value) in inside[0].iter().enumerate() {
        let theirs = outside[0]
            .column(column)
            .as_primitive::<Int64Type>()
            .value(0);
        assert_eq!(Some(theirs.to_string()), *value, "column {column}");
    }

    // The first column is the position; the partition column is in the path.
    let first = delta::query(&location, "SELECT * FROM t LIMIT 1").await;
    assert_eq!(first[0].schema().field(0).name(), "_lsn");

    pg.run("DELETE FROM t WHERE id <= 500").await;
    assert_eq!(delta::count(&location).await, 501);
    server.stop().await;
}

/// Without anybody asking, rows lie in the lake within the flush interval.
#[tokio::test(flavor = "multi_thread")]
async fn rows_reach_the_lake_by_themselves() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT) WITH (flush_interval = '200 ms')")
        .await;
    pg.run("INSERT INTO t VALUES (1), (2), (3)").await;
    let location = server.delta_location("public", "t");
    wait::until("three rows in Delta", Duration::from_secs(20), || async {
        (delta::count(&location).await == 3).then_some(())
    })
    .await;
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 3);
    server.stop().await;
}

/// Stopping flushes: nothing is left only in memory or the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_all_rows_in_the_lake() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT) WITH (flush_interval = '1 hour')")
        .await;
    pg.run("INSERT INTO t SELECT i FROM generate_series(1, 500) AS g (i)")
        .await;
    let location = server.delta_location("public", "t");
    drop(pg);
    // The data directory must outlive the server: serve it again, look, and stop for good.
    let server = server.restart().await;
    assert_eq!(delta::count(&location).await, 500);
    assert_eq!(
        server.connect().await.count("SELECT count(*) FROM t").await,
        500
    );
    server.stop().await;
}

/// An ordinary table is plain Delta at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_table_is_delta_at_once() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE t (id BIGINT, v TEXT)").await;
    pg.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    let location = server.delta_location("public", "t");
    assert_eq!(delta::count(&location).await, 2);
    pg.run("UPDATE t SET v = 'c' WHERE id = 1").await;
    let rows = delta::query(&location, "SELECT count(*) FROM t WHERE v = 'c'").await;
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 1);
    server.stop().await;
}
