//! A materialized view equals its query, whatever came in, in whatever order, however often it was
//! flushed, refreshed or restarted in between.

use std::fmt::Write as _;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::{PgSession, TestServer, delta, wait};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

const VIEWS: &[(&str, &str)] = &[
    (
        "by_key",
        "SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS s, min(v) AS lo, max(v) AS hi, avg(v) AS mean FROM s GROUP BY k",
    ),
    (
        "by_hour",
        "SELECT date_trunc('hour', at) AS hour, k, count(*) AS n, min(at) AS first_at FROM s GROUP BY date_trunc('hour', at), k",
    ),
    (
        "filtered",
        "SELECT k, count(*) AS n, sum(v) AS s FROM s WHERE v > 0 GROUP BY k",
    ),
    (
        "overall",
        "SELECT count(*) AS n, sum(v) AS s, max(at) AS last_at FROM s",
    ),
    (
        "passed",
        "SELECT k, v * 2 AS doubled, at FROM s WHERE v % 3 = 0",
    ),
    (
        "sessions",
        "SELECT k, w['start'] AS first_at, w['end'] AS last_at, n, s FROM (SELECT k, session_window(at, INTERVAL '3 hours') \
         AS w, count(*) AS n, sum(v) AS s FROM s GROUP BY k, session_window(at, INTERVAL '3 hours')) AS q",
    ),
    (
        "distinct_values",
        "SELECT k, count(DISTINCT v) AS d, count(*) AS n, min(at) AS first_at FROM s GROUP BY k",
    ),
    (
        "best",
        "SELECT k, v, at FROM s WHERE v IS NOT NULL \
         QUALIFY rank() OVER (PARTITION BY k ORDER BY v DESC, at) <= 3",
    ),
    (
        "by_label",
        "SELECT d.label, count(*) AS n, avg(s.v) AS mean FROM s LEFT JOIN d ON s.k = d.k GROUP BY d.label",
    ),
    (
        "followed_by",
        "SELECT a.k, a.v, b.at FROM s AS a LEFT JOIN s AS b ON a.v = b.v AND b.at > a.at AND b.k <> a.k WHERE a.v > 0",
    ),
    (
        "labelled",
        "SELECT s.v, s.k, d.label FROM s LEFT JOIN d ON s.k = d.k WHERE s.v % 5 = 0",
    ),
    (
        "kinds",
        "SELECT k, count(DISTINCT v % 11) AS vs, count(DISTINCT at) AS ats, avg(v) AS mean FROM s GROUP BY k",
    ),
    (
        "sketched",
        "SELECT k, approx_distinct(v) AS d, approx_median(v) AS m, approx_top_k(v % 7, 2) AS top FROM s GROUP BY k",
    ),
    (
        "middle",
        "SELECT k, median(v) AS m, count(*) AS n FROM s GROUP BY k",
    ),
    (
        "busiest",
        "SELECT n, count(*) AS keys, max(s) AS s FROM (SELECT k, count(*) AS n, sum(v) AS s FROM s GROUP BY k) AS q GROUP BY n",
    ),
];

fn made(name: &str, query: &str) -> String {
    format!("CREATE MATERIALIZED VIEW {name} WITH (on_source_change = 'recompute') AS {query}")
}

async fn views_equal_queries(pg: &PgSession, step: &str) {
    for (name, query) in VIEWS {
        let sql = |from: &str| format!("SELECT * FROM ({from}) AS q ORDER BY 1, 2, 3");
        let view = pg
            .rows(&sql(&format!("SELECT * FROM {name}")))
            .await
            .unwrap();
        let asked = pg.rows(&sql(query)).await.unwrap();
        assert_eq!(view, asked, "{step}: {name}");
    }
}

/// A few rows: many of few keys, some NULL, times forwards, backwards and far off.
fn rows(rng: &mut StdRng) -> String {
    let mut values = String::new();
    for i in 0..rng.random_range(1..40) {
        let key = ["'a'", "'b'", "'c'", "'ü'", "NULL"].choose(rng).unwrap();
        let value = match rng.random_range(0..10) {
            0 => "NULL".to_owned(),
            _ => rng.random_range(-50..1000).to_string(),
        };
        let minutes = rng.random_range(-5000..5000);
        let comma = if i == 0 { "" } else { ", " };
        write!(
            values,
            "{comma}({key}, {value}, '2026-03-01 00:00:00+00'::timestamptz + INTERVAL '{minutes} minutes')"
        )
        .unwrap();
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn views_equal_their_queries_under_random_ingestion() {
    let mut rng = StdRng::seed_from_u64(2026);
    let mut server = TestServer::start().await;
    let mut pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE s (k TEXT, v BIGINT, at TIMESTAMPTZ) WITH (flush_interval = '1 hour')")
        .await;
    // Half of the views exist from the start, the others are made over rows that are there.
    pg.run("CREATE TABLE d (k TEXT, label TEXT)").await;
    pg.run("INSERT INTO d VALUES ('a', 'first'), ('b', 'first'), ('ü', 'second')")
        .await;
    for (name, query) in VIEWS.iter().step_by(2) {
        pg.run(&made(name, query)).await;
    }
    pg.run(&format!("INSERT INTO s VALUES {}", rows(&mut rng)))
        .await;
    for (name, query) in VIEWS.iter().skip(1).step_by(2) {
        pg.run(&made(name, query)).await;
    }
    views_equal_queries(&pg, "start").await;

    for step in 0..60 {
        let what = rng.random_range(0..20);
        let label = format!("step {step} ({what})");
        match what {
            0..12 => {
                pg.run(&format!("INSERT INTO s VALUES {}", rows(&mut rng)))
                    .await
            }
            12..15 => pg.run("FLUSH TABLE s").await,
            15..18 => {
                let (name, _) = VIEWS.choose(&mut rng).unwrap();
                pg.run(&format!("REFRESH MATERIALIZED VIEW {name}")).await;
            }
            18 if step % 2 == 0 => pg.run("DELETE FROM s WHERE v % 17 = 5").await,
            18 => {
                pg.run(&format!("UPDATE d SET label = 'l{step}' WHERE k = 'b'"))
                    .await;
            }
            _ => {
                drop(pg);
                server = server.restart().await;
                pg = server.connect().await;
            }
        }
        views_equal_queries(&pg, &label).await;
    }
    drop(pg);
    server.stop().await;
}

/// Reads while rows stream in: view and query of one statement see the same cut.
#[tokio::test(flavor = "multi_thread")]
async fn one_statement_sees_one_cut() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE s (v BIGINT) WITH (flush_interval = '100 ms')")
        .await;
    pg.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(v) AS s FROM s")
        .await;
    let writer = server.connect().await;
    let writing = async {
        for i in 0..150 {
            writer
                .run(&format!("INSERT INTO s VALUES ({i}), ({i} * 2), (NULL)"))
                .await;
        }
    };
    let reading = async {
        let mut last = 0;
        for _ in 0..100 {
            let sql = "SELECT t.n, (SELECT count(*) FROM s) FROM total AS t";
            let row = pg.rows(sql).await.unwrap().remove(0);
            assert_eq!(row[0], row[1], "view and table of one statement");
            let now: i64 = row[0].as_ref().unwrap().parse().unwrap();
            assert!(
                now >= last && now % 3 == 0,
                "{now} after {last}: whole inserts, never fewer"
            );
            last = now;
        }
    };
    tokio::join!(writing, reading);
    assert_eq!(pg.count("SELECT n FROM total").await, 450);
    server.stop().await;
}

/// A floor is kept over restarts and kills of its server, and never falls: what was dropped stays away.
#[tokio::test(flavor = "multi_thread")]
async fn a_floor_survives_a_restart() {
    let mut server = TestServer::start().await;
    let mut pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE s (v BIGINT, ts TIMESTAMPTZ) WITH (event_time = 'ts', flush_interval = '1 hour')")
        .await;
    pg.run("INSERT INTO s VALUES (1, now() - INTERVAL '3 days'), (2, now() - INTERVAL '2 hours'), (3, now())")
        .await;
    pg.run(
        "CREATE MATERIALIZED VIEW hourly WITH (retention = '1 day') AS \
         SELECT date_bin(INTERVAL '1 hour', ts) AS hour, sum(v) AS v FROM s GROUP BY 1",
    )
    .await;
    let state = "SELECT floor_at, retention, late_dropped FROM weir.materialized_views";
    let total = "SELECT sum(v) FROM hourly";
    let mut before = pg.rows(state).await.unwrap();
    assert!(before[0][0].is_some());
    assert_eq!(pg.count(total).await, 5);
    pg.run("ALTER MATERIALIZED VIEW hourly SET (retention = 'none')")
        .await;
    for start in 0..2 {
        drop(pg);
        server = server.restart().await;
        pg = server.connect().await;
        let after = pg.rows(state).await.unwrap();
        if start == 0 {
            // a job may have been about to raise it when the retention was taken away
            assert!(after[0][0] >= before[0][0]);
        } else {
            assert_eq!(after[0][0], before[0][0]);
        }
        before = after;
        assert_eq!(pg.count(total).await, 5);
        pg.run("INSERT INTO s VALUES (100, now() - INTERVAL '3 days')")
            .await;
        assert_eq!(pg.count(total).await, 5);
        pg.run("REFRESH MATERIALIZED VIEW hourly").await;
    }
    assert_eq!(
        pg.count("SELECT late_dropped FROM weir.materialized_views")
            .await,
        2
    );
    pg.run("REFRESH MATERIALIZED VIEW hourly FULL").await;
    assert_eq!(pg.count(total).await, 5);
    drop(pg);
    server.stop().await;
}

/// What readers outside see of a published view: its result and nothing else, the newest soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_published_result_is_a_plain_table() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE s (k TEXT, v BIGINT, ts TIMESTAMPTZ) WITH (flush_interval = '1 hour')")
        .await;
    pg.run("INSERT INTO s VALUES ('a', 1, '2026-01-01'), ('a', 2, NULL), (NULL, 3, '2026-01-02')")
        .await;
    pg.run(
        "CREATE MATERIALIZED VIEW totals WITH (published = '100 ms') AS \
         SELECT k, sum(v) AS total, max(ts) AS last, count(*) AS n FROM s GROUP BY k",
    )
    .await;
    let location =
        "SELECT published_location FROM weir.materialized_views WHERE view_name = 'totals'";
    let location = pg.rows(location).await.unwrap()[0][0].clone().unwrap();
    let path = url::Url::parse(&location).unwrap().to_file_path().unwrap();
    let path = path.to_str().unwrap().to_owned();
    for (step, expected) in [(0, 6), (1, 16), (2, 6)] {
        match step {
            0 => {}
            1 => pg.run("INSERT INTO s VALUES ('b', 10, NULL)").await,
            // a view that fails changes is not in the way of the table
            _ => {
                pg.run("ALTER MATERIALIZED VIEW totals SET (on_source_change = 'recompute')")
                    .await;
                pg.run("DELETE FROM s WHERE k = 'b'").await;
            }
        }
        wait::until("published", LIMIT, || async {
            let first = "_delta_log/00000000000000000001.json";
            if !std::path::Path::new(&path).join(first).exists() {
                return None;
            }
            let batches = delta::query(&path, "SELECT CAST(sum(total) AS BIGINT) FROM t").await;
            let total = batches[0].column(0).as_primitive::<Int64Type>().value(0);
            (total == expected).then_some(())
        })
        .await;
    }
    assert_eq!(delta::columns(&path).await, ["k", "total", "last", "n"]);
    // nothing is new: nothing is written
    let versions = || {
        std::fs::read_dir(format!("{path}/_delta_log"))
            .unwrap()
            .count()
    };
    let before = versions();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(versions(), before);
    let refused = pg
        .rows("CREATE MATERIALIZED VIEW v WITH (published = '1 minute') AS SELECT ts - ts AS d FROM s")
        .await;
    assert_eq!(refused.unwrap_err().state, "0A000");
    pg.run("DROP MATERIALIZED VIEW totals").await;
    assert!(!std::path::Path::new(&path).exists());
    drop(pg);
    server.stop().await;
}

/// A key that a prepared statement asks for over and over: planned once, it is the view at each moment,
/// for those who may read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_looked_up() {
    let server = TestServer::start().await;
    let admin = server.connect().await;
    admin
        .run("CREATE STREAMING TABLE s (k TEXT, v BIGINT, ts TIMESTAMPTZ) WITH (flush_interval = '1 hour')")
        .await;
    admin
        .run(
            "CREATE MATERIALIZED VIEW totals WITH (on_source_change = 'recompute') AS \
             SELECT k, sum(v) AS v, count(*) AS n, max(ts) AS last FROM s WHERE v > 0 GROUP BY k",
        )
        .await;
    admin
        .run("CREATE ROLE reader LOGIN PASSWORD 'secret'")
        .await;
    let statement = "SELECT n, v::text AS v, last::text, k FROM totals WHERE k = $1";
    let looked_up = async |pg: &PgSession, key: &str| -> Option<(i64, String)> {
        let rows = pg.client().query(statement, &[&key]).await.unwrap();
        assert!(rows.len() < 2);
        let row = rows.first()?;
        assert_eq!(row.get::<_, &str>(3), key);
        Some((row.get(0), row.get(1)))
    };
    let lookups = async || -> u64 {
        let text = server.http().get("/metrics").send().await.unwrap();
        let text = text.text().await.unwrap();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("weir_view_lookups_total "));
        line.map_or(0, |n| n.parse().unwrap())
    };
    assert_eq!(looked_up(&admin, "a").await, None);
    let (mut total, before) = (0, lookups().await);
    for round in 1..=6_i64 {
        admin
            .run(&format!(
                "INSERT INTO s SELECT CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END, i - 1, now() \
                 FROM generate_series(1, {}) AS g (i)",
                round * 3
            ))
            .await;
        total += (1..=round).map(|n| 3 * n - 1).sum::<i64>();
        let n = round * (round + 1) / 2;
        let expected = Some((n, total.to_string()));
        assert_eq!(looked_up(&admin, "a").await, expected, "round {round}");
        match round % 3 {
            0 => admin.run("REFRESH MATERIALIZED VIEW totals").await,
            1 => admin.run("FLUSH TABLE s").await,
            _ => {}
        }
        assert_eq!(looked_up(&admin, "a").await, expected, "round {round}");
        assert_eq!(looked_up(&admin, "c").await, None);
    }
    // none of them was planned
    assert!(lookups().await >= before + 18);
    // rows that a block holds count in its session
    admin.run("BEGIN").await;
    admin.run("INSERT INTO s VALUES ('d', 7, NULL)").await;
    assert_eq!(looked_up(&admin, "d").await, Some((1, "7".to_owned())));
    admin.run("ROLLBACK").await;
    assert_eq!(looked_up(&admin, "d").await, None);
    // each read is in the audit log
    let noted = "SELECT count(*) FROM weir.audit_log WHERE statement LIKE '%WHERE k = $1' \
                 AND array_has(objects, 'public.totals') AND rows = 1";
    assert!(admin.count(noted).await >= 12);
    let reader = server.connect_as("reader", "secret").await;
    assert!(reader.client().query(statement, &[&"a"]).await.is_err());
    admin.run("GRANT SELECT ON totals TO reader").await;
    assert!(looked_up(&reader, "a").await.is_some());
    admin.run("REVOKE SELECT ON totals FROM reader").await;
    assert!(reader.client().query(statement, &[&"a"]).await.is_err());
    admin.run("DELETE FROM s WHERE k = 'a'").await;
    assert_eq!(looked_up(&admin, "a").await, None);
    assert!(looked_up(&admin, "b").await.is_some());
    server.stop().await;
}
