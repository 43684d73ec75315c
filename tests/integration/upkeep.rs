//! Upkeep of stored tables while everything else goes on: rows are there once, views stand, older cuts
//! stay readable, and the log and the folder stay small.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use server::config::JobsConfig;
use tests::{PgSession, TestServer, delta, wait};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);

/// Work that is due all the time.
fn busy() -> JobsConfig {
    let often = |ms| Some(Duration::from_millis(ms));
    JobsConfig {
        compaction_interval: often(50),
        compaction_files: 3,
        checkpoint_interval: often(50),
        log_cleanup_interval: often(150),
        log_retention: Duration::from_millis(1),
        vacuum_interval: often(100),
        vacuum_retention: Duration::from_millis(1),
        retention_interval: often(50),
        verify_interval: often(100),
        verify_keys: 8,
    }
}

/// Files of the table's data that lie in its folder.
fn parquet_files(location: &str) -> usize {
    let mut open = vec![url::Url::parse(location).unwrap().to_file_path().unwrap()];
    let mut found = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.ends_with("_delta_log") {
                continue;
            }
            match path.is_dir() {
                true => open.push(path),
                false => found += usize::from(path.extension().is_some_and(|e| e == "parquet")),
            }
        }
    }
    found
}

fn commits_in_log(location: &str) -> usize {
    let log = url::Url::parse(location).unwrap().to_file_path().unwrap();
    let entries = std::fs::read_dir(log.join("_delta_log")).unwrap().flatten();
    entries
        .filter(|e| e.path().extension().is_some_and(|e| e == "json"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_log_stay_few_by_themselves() {
    let server = TestServer::configured(|c| c.jobs = busy()).await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT NOT NULL) WITH (flush_interval = '1 hour')")
        .await;
    pg.run("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(id) AS total FROM t")
        .await;
    for id in 1..=70 {
        pg.run(&format!("INSERT INTO t VALUES ({id})")).await;
        pg.run("FLUSH TABLE t").await;
        if id % 10 == 0 {
            assert_eq!(pg.count("SELECT count(DISTINCT id) FROM t").await, id);
        }
    }
    let location = server.delta_location("public", "t");
    wait::until("few files", LIMIT, || async {
        let files = pg
            .count("SELECT files FROM weir.tables WHERE table_name = 't'")
            .await;
        (files < 10).then_some(())
    })
    .await;
    wait::until("nothing but these in the folder", LIMIT, || async {
        let files = pg
            .count("SELECT files FROM weir.tables WHERE table_name = 't'")
            .await;
        (parquet_files(&location) == usize::try_from(files).unwrap()).then_some(())
    })
    .await;
    wait::until("a short log", LIMIT, || async {
        (commits_in_log(&location) < 60).then_some(())
    })
    .await;
    let done = "SELECT count(DISTINCT name) FROM weir.jobs WHERE state = 'done' AND object = 'public.t' \
                AND name IN ('compaction', 'checkpoint', 'log cleanup', 'vacuum')";
    assert_eq!(pg.count(done).await, 4);
    assert_eq!(
        pg.count("SELECT count(*) FROM weir.jobs WHERE state = 'failed'")
            .await,
        0
    );
    let merged = "SELECT sum(files_before) - sum(files_after) FROM weir.compaction_history \
                  WHERE object = 'public.t' AND kind = 'compaction'";
    assert!(pg.count(merged).await >= 60);
    let all = "SELECT count(*), count(DISTINCT id), sum(id), count(DISTINCT _lsn) FROM t";
    let expected: Vec<Option<String>> = ["70", "70", "2485", "70"].map(|n| Some(n.into())).into();
    assert_eq!(pg.rows(all).await.unwrap()[0], expected);
    assert_eq!(delta::count(&location).await, 70);
    assert_eq!(pg.count("SELECT n + total FROM v").await, 70 + 2485);
    drop(pg);

    // what is left is enough to start from
    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(pg.rows(all).await.unwrap()[0], expected);
    pg.run("INSERT INTO t VALUES (71)").await;
    pg.run("FLUSH TABLE t").await;
    assert_eq!(pg.count("SELECT count(DISTINCT _lsn) FROM t").await, 71);
    assert_eq!(pg.count("SELECT n FROM v").await, 71);
    server.stop().await;
}

/// What the writers of the test below did, for the oracle.
#[derive(Default)]
struct Books {
    young: AtomicI64,
    old: AtomicI64,
    deleted: AtomicI64,
    over: AtomicBool,
}

/// Inserts rows that stay and rows whose retention is over when they come.
async fn insert(pg: PgSession, books: Arc<Books>, producer: i64) {
    let mut seq = 0;
    while !books.over.load(Ordering::Relaxed) {
        let mut values = Vec::new();
        for _ in 0..20 {
            seq += 1;
            let age = match seq % 4 {
                0 => "now() - INTERVAL '2 days'",
                _ => "now()",
            };
            values.push(format!("({producer}, {seq}, {age})"));
        }
        pg.run(&format!("INSERT INTO t VALUES {}", values.join(", ")))
            .await;
        books.young.fetch_add(15, Ordering::Relaxed);
        books.old.fetch_add(5, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Deletes young rows, some at a time.
async fn delete(pg: PgSession, books: Arc<Books>) {
    while !books.over.load(Ordering::Relaxed) {
        let bound = pg.count("SELECT coalesce(max(seq), 0) - 100 FROM t").await;
        let sql = format!(
            "DELETE FROM t WHERE seq % 10 = 7 AND seq < {bound} AND ts > now() - INTERVAL '1 hour'"
        );
        let gone = pg.client().execute(&sql, &[]).await.expect("a delete");
        books
            .deleted
            .fetch_add(i64::try_from(gone).unwrap(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Statements of upkeep on top of the background's.
async fn tidy(pg: PgSession, books: Arc<Books>) {
    let statements = [
        "FLUSH TABLE t",
        "OPTIMIZE t",
        "VACUUM t RETAIN 0 HOURS",
        "OPTIMIZE t ZORDER BY (producer, seq)",
        "REFRESH MATERIALIZED VIEW v",
    ];
    for statement in statements.iter().cycle() {
        if books.over.load(Ordering::Relaxed) {
            return;
        }
        match pg.rows(statement).await {
            Ok(_) => {}
            // others were always faster; nothing was done
            Err(e) if e.state == "40001" => {}
            Err(e) => panic!("{statement}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every cut has every row once, however long its reading takes.
async fn read(pg: PgSession, books: Arc<Books>) {
    while !books.over.load(Ordering::Relaxed) {
        let twice = pg
            .count(
                "SELECT count(*) FROM (SELECT _lsn FROM t GROUP BY _lsn HAVING count(*) > 1) AS x",
            )
            .await;
        assert_eq!(twice, 0, "rows are there twice");
        let before = books.young.load(Ordering::Relaxed) - books.deleted.load(Ordering::Relaxed);
        let young = "SELECT count(*) FROM t WHERE ts > now() - INTERVAL '1 hour'";
        let there = pg.count(young).await;
        // a delete that is committed and not answered yet may have taken some
        let slack = 2_000;
        assert!(
            there + slack >= before,
            "{there} of {before} rows are there"
        );
    }
}

/// Compaction, ordering, retention, flushes, deletes, vacuum and ingest at once, for some seconds
/// (`WEIR_UPKEEP_SECONDS`).
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_there_once_whatever_happens_to_their_files() {
    let seconds = std::env::var("WEIR_UPKEEP_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let server = TestServer::configured(|c| c.jobs = busy()).await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (producer BIGINT NOT NULL, seq BIGINT NOT NULL, ts TIMESTAMPTZ NOT NULL) \
         WITH (event_time = 'ts', retention = '1 day', flush_interval = '60 ms')",
    )
    .await;
    pg.run(
        "CREATE MATERIALIZED VIEW v WITH (on_source_change = 'ignore') AS \
         SELECT producer, count(*) AS n, sum(seq) AS total, max(seq) AS highest FROM t GROUP BY producer",
    )
    .await;
    pg.run(
        "CREATE MATERIALIZED VIEW kept WITH (on_source_change = 'ignore') AS SELECT producer, seq FROM t",
    )
    .await;
    let books = Arc::new(Books::default());
    let mut all = JoinSet::new();
    for producer in 0..2 {
        all.spawn(insert(server.connect().await, Arc::clone(&books), producer));
    }
    all.spawn(delete(server.connect().await, Arc::clone(&books)));
    all.spawn(tidy(server.connect().await, Arc::clone(&books)));
    all.spawn(read(server.connect().await, Arc::clone(&books)));
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        // somebody's failure ends the test at once
        match tokio::time::timeout_at(end.into(), all.join_next()).await {
            Ok(Some(ended)) => ended.unwrap(),
            Ok(None) | Err(_) => break,
        }
    }
    books.over.store(true, Ordering::Relaxed);
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }

    let young = books.young.load(Ordering::Relaxed);
    let old = books.old.load(Ordering::Relaxed);
    let deleted = books.deleted.load(Ordering::Relaxed);
    pg.run("FLUSH TABLE t").await;
    wait::until("old rows gone", LIMIT, || async {
        let there = pg
            .count("SELECT count(*) FROM t WHERE ts < now() - INTERVAL '1 day'")
            .await;
        (there == 0).then_some(())
    })
    .await;
    check(&pg, young, old, deleted).await;
    let failed = "SELECT name || ': ' || error FROM weir.jobs WHERE state = 'failed'";
    assert_eq!(pg.rows(failed).await.unwrap(), Vec::<Vec<_>>::new());
    let kinds: BTreeSet<_> = pg
        .rows("SELECT DISTINCT name FROM weir.jobs WHERE state = 'done' AND object = 'public.t'")
        .await
        .unwrap()
        .into_iter()
        .filter_map(|mut row| row[0].take())
        .collect();
    // which of the others come to their turn depends on how busy the machine is
    assert!(kinds.contains("retention"), "{kinds:?}");
    println!("{young} young rows, {old} old ones, {deleted} deleted; done: {kinds:?}");
    drop(pg);

    let server = server.restart().await;
    check(&server.connect().await, young, old, deleted).await;
    let location = server.delta_location("public", "t");
    assert_eq!(delta::count(&location).await, young - deleted);
    server.stop().await;
}

async fn check(pg: &PgSession, young: i64, old: i64, deleted: i64) {
    let rows =
        "SELECT count(*), count(DISTINCT _lsn), count(DISTINCT producer * 10000000 + seq) FROM t";
    let expected = vec![Some((young - deleted).to_string()); 3];
    assert_eq!(pg.rows(rows).await.unwrap()[0], expected);
    // views have counted every row that ever came, once
    assert_eq!(pg.count("SELECT sum(n) FROM v").await, young + old);
    assert_eq!(pg.count("SELECT sum(total) FROM v").await, {
        let per_producer = pg.rows("SELECT highest FROM v").await.unwrap();
        let tops = per_producer
            .iter()
            .map(|r| r[0].as_ref().unwrap().parse::<i64>().unwrap());
        tops.map(|top| top * (top + 1) / 2).sum::<i64>()
    });
    let kept = "SELECT count(*), count(DISTINCT producer * 10000000 + seq) FROM kept";
    assert_eq!(
        pg.rows(kept).await.unwrap()[0],
        vec![Some((young + old).to_string()); 2]
    );
}

/// What views store is compared with their sources in the background, and what came of it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn views_are_compared_with_their_sources() {
    let server = TestServer::configured(|c| c.jobs = busy()).await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE s (k TEXT, v BIGINT) WITH (flush_interval = '1 hour')")
        .await;
    pg.run(
        "CREATE MATERIALIZED VIEW totals AS SELECT k, sum(v) AS v, count(*) AS n FROM s GROUP BY k",
    )
    .await;
    pg.run("INSERT INTO s SELECT 'k' || i % 10, i FROM generate_series(1, 1000) AS g (i)")
        .await;
    pg.run("REFRESH MATERIALIZED VIEW totals").await;
    let state = "SELECT count(last_verified_at) + 10 * sum(mismatches)::bigint FROM weir.materialized_views";
    let deadline = Instant::now() + LIMIT;
    while pg.count(state).await != 1 {
        assert!(Instant::now() < deadline, "never compared");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let job = "SELECT count(*) FROM weir.jobs WHERE name = 'verify' AND object = 'public.totals' \
               AND state = 'done' AND detail LIKE '% keys agree' AND rows_done > 0";
    assert!(pg.count(job).await > 0);
    server.stop().await;
}

/// A view over an ordinary table goes by its rows, not by its files.
#[tokio::test(flavor = "multi_thread")]
async fn merging_files_makes_no_view_anew() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE d (id BIGINT, name TEXT)").await;
    for id in 1..=4 {
        pg.run(&format!("INSERT INTO d VALUES ({id}, 'n{id}')"))
            .await;
    }
    pg.run("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, max(name) AS top FROM d")
        .await;
    let refreshed = "SELECT last_refresh_at FROM weir.materialized_views WHERE view_name = 'v'";
    let before = pg.value(refreshed).await;
    pg.run("OPTIMIZE d").await;
    pg.run("OPTIMIZE d ZORDER BY (name, id)").await;
    // nothing to refresh: the state is of these rows
    pg.run("REFRESH MATERIALIZED VIEW v").await;
    assert_eq!(pg.value(refreshed).await, before);
    assert_eq!(pg.count("SELECT n FROM v").await, 4);
    pg.run("INSERT INTO d VALUES (5, 'n5')").await;
    assert_eq!(pg.count("SELECT n FROM v").await, 5);
    drop(pg);
    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(pg.count("SELECT n FROM v").await, 5);
    server.stop().await;
}

/// A statement that is reading keeps its files, whatever is vacuumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_takes_no_file_from_a_running_query() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE t (id BIGINT, filler TEXT)").await;
    for part in 0..6 {
        pg.run(&format!(
            "INSERT INTO t SELECT i + {part} * 40000, repeat('x', 50) || i FROM generate_series(1, 40000) AS g (i)"
        ))
        .await;
    }
    let reader = server.connect().await;
    reader.run("BEGIN").await;
    reader
        .run("DECLARE c CURSOR FOR SELECT id, filler FROM t")
        .await;
    let mut seen = reader.rows("FETCH 10 FROM c").await.unwrap().len();
    pg.run("OPTIMIZE t").await;
    pg.run("VACUUM t RETAIN 0 HOURS").await;
    loop {
        let rows = reader.rows("FETCH 50000 FROM c").await.unwrap().len();
        seen += rows;
        if rows == 0 {
            break;
        }
    }
    assert_eq!(seen, 240_000);
    reader.run("COMMIT").await;
    pg.run("VACUUM t RETAIN 0 HOURS").await;
    assert_eq!(parquet_files(&server.delta_location("public", "t")), 1);
    assert_eq!(pg.count("SELECT count(DISTINCT id) FROM t").await, 240_000);
    server.stop().await;
}
