//! The acked-write checker: producers at every door, a server that dies at any moment, and the books.
//!
//! What must hold after each death: every acknowledged row is there exactly once, nothing is there that
//! was not sent, a request is there whole or not at all, each producer's rows stand in the order in
//! which it sent them, and the view equals its query. At the end a stranger reads the Delta table and
//! counts the same rows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test reports by panicking and printing"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "client tasks of tests are not the server's tasks"
)]

mod duplicates;
mod kafka;
mod keyed;
mod ledger;
mod object;
mod producers;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ledger::Ledger;
use producers::{Crowd, WRITE_KEY};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tests::{PgSession, Spawned, delta};

/// The program as its own process.
const PROGRAM: &str = env!("CARGO_BIN_EXE_weir-under-test");
/// How many times the server dies at a random moment, unless `WEIR_CRASH_KILLS` says.
const KILLS: usize = 25;
/// An armed crash point must be reached by then.
const REACH_LIMIT: Duration = Duration::from_secs(60);

/// Segments so small that the log goes on to the next one many times in a test, and upkeep that is due
/// all the time.
const SETTINGS: [(&str, &str); 9] = [
    ("WEIR__STREAM__SEGMENT_BYTES", "262144"),
    ("WEIR__JOBS__COMPACTION_INTERVAL", "100 ms"),
    ("WEIR__JOBS__COMPACTION_FILES", "3"),
    ("WEIR__JOBS__CHECKPOINT_INTERVAL", "100 ms"),
    ("WEIR__JOBS__LOG_CLEANUP_INTERVAL", "300 ms"),
    ("WEIR__JOBS__LOG_RETENTION", "2 s"),
    ("WEIR__JOBS__VACUUM_INTERVAL", "200 ms"),
    ("WEIR__JOBS__VACUUM_RETENTION", "2 s"),
    ("WEIR__JOBS__RETENTION_INTERVAL", "100 ms"),
];

/// Views of other strategies, which equal their queries too.
const KEPT: [(&str, &str); 3] = [
    (
        "follows",
        "SELECT a.producer, a.seq, b.seq AS next FROM acked AS a \
         LEFT JOIN acked AS b ON a.producer = b.producer AND a.seq + 1 = b.seq",
    ),
    (
        "kinds",
        "SELECT producer, count(DISTINCT seq) AS seqs, count(DISTINCT filler) AS fillers, sum(seq) AS total \
         FROM acked GROUP BY producer",
    ),
    (
        "sketched",
        "SELECT producer, approx_distinct(seq) AS seqs, approx_median(seq) AS middle, \
         approx_top_k(seq % 100, 3) AS last FROM acked GROUP BY producer",
    ),
];

async fn start(dir: &TempDir) -> Spawned {
    let started = Spawned::try_start(Path::new(PROGRAM), dir.path(), &SETTINGS).await;
    started.unwrap_or_else(|log| panic!("the server ended before it opened its doors:\n{log}"))
}

async fn set_up(server: &Spawned) {
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE acked (producer TEXT NOT NULL, seq BIGINT NOT NULL, filler TEXT) \
         WITH (flush_interval = '150 ms')",
    )
    .await;
    pg.run("CREATE STREAMING TABLE altered (v BIGINT) WITH (flush_interval = '150 ms')")
        .await;
    pg.run("CREATE TABLE plain (producer TEXT NOT NULL, seq BIGINT NOT NULL, filler TEXT)")
        .await;
    pg.run(
        "CREATE MATERIALIZED VIEW per_producer AS SELECT producer, count(*) AS n, \
         sum(seq) AS total, max(seq) AS highest FROM acked GROUP BY producer",
    )
    .await;
    pg.run(
        "CREATE MATERIALIZED VIEW seen WITH (published = '100 ms') AS SELECT producer, count(*) AS n FROM acked \
         GROUP BY producer",
    )
    .await;
    for (view, query) in KEPT {
        pg.run(&format!("CREATE MATERIALIZED VIEW {view} AS {query}"))
            .await;
    }
    // rows whose retention is over when they come: only views keep them
    pg.run(
        "CREATE STREAMING TABLE fleeting (producer TEXT NOT NULL, seq BIGINT NOT NULL, \
         ts TIMESTAMPTZ NOT NULL) WITH (event_time = 'ts', retention = '1 hour', flush_interval = '150 ms')",
    )
    .await;
    pg.run("CREATE MATERIALIZED VIEW fled AS SELECT producer, seq FROM fleeting")
        .await;
    pg.run("CREATE MATERIALIZED VIEW fled_rows AS SELECT count(*) AS n FROM fleeting")
        .await;
    // results that a retention of the view keeps, and others that it drops at once
    for (view, retention) in [("fled_hours", "3 days"), ("forgotten", "1 day")] {
        pg.run(&format!(
            "CREATE MATERIALIZED VIEW {view} WITH (retention = '{retention}') AS \
             SELECT date_bin(INTERVAL '1 hour', ts) AS h, count(*) AS n FROM fleeting GROUP BY 1"
        ))
        .await;
    }
    pg.run(&format!(
        "CREATE STREAMING TABLE tracked (user_id TEXT NOT NULL, seq BIGINT NOT NULL, padding TEXT, \
         event TEXT, properties JSONB) \
         WITH (segment_write_key = '{WRITE_KEY}', flush_interval = '150 ms')"
    ))
    .await;
    pg.run("CREATE TABLE garden AS SELECT i AS id FROM generate_series(1, 100) AS g (i)")
        .await;
}

/// Compares what a server shows with the books.
async fn check(pg: &PgSession, ledger: &Ledger, step: &str) {
    // An ordinary table keeps no order of its own.
    let mut rows = Vec::new();
    for sql in [
        "SELECT producer, seq FROM acked ORDER BY _lsn",
        "SELECT producer, seq FROM plain ORDER BY seq",
        "SELECT producer, seq FROM fled ORDER BY seq",
        "SELECT user_id, seq FROM tracked ORDER BY _lsn",
    ] {
        let read = pg.rows(sql).await;
        rows.extend(read.unwrap_or_else(|e| panic!("{step}: {e}")));
    }
    let read = rows.into_iter().map(|mut row| {
        let seq = row[1].as_ref().unwrap().parse().unwrap();
        (row[0].take().unwrap(), seq)
    });
    ledger
        .compare(read)
        .unwrap_or_else(|e| panic!("{step}: {e}"));

    let view = pg
        .rows("SELECT producer, n, total, highest FROM per_producer ORDER BY producer")
        .await;
    let query = "SELECT producer, count(*), sum(seq), max(seq) FROM acked GROUP BY producer ORDER BY producer";
    let asked = pg.rows(query).await;
    assert_eq!(
        view.unwrap(),
        asked.unwrap(),
        "{step}: the view is not its query"
    );
    for (view, query) in KEPT {
        let view = pg.rows(&format!("SELECT * FROM {view}")).await;
        let asked = pg.rows(query).await;
        let [mut view, mut asked] = [view, asked].map(Result::unwrap);
        view.sort();
        asked.sort();
        assert_eq!(view, asked, "{step}: {query}");
    }
    check_upkeep(pg, step).await;
}

/// Retention takes nothing from views and leaves nothing twice; a restored table is what it was.
async fn check_upkeep(pg: &PgSession, step: &str) {
    let fled = pg.count("SELECT count(*) FROM fled").await;
    let counted = pg.count("SELECT sum(n) FROM fled_rows").await;
    assert_eq!(fled, counted, "{step}: two views of the same rows");
    let stays = "SELECT coalesce(sum(n), 0) FROM fled_hours";
    assert_eq!(pg.count(stays).await, fled, "{step}: above its floor");
    let below = "SELECT count(*) FROM forgotten";
    assert_eq!(pg.count(below).await, 0, "{step}: below its floor");
    let twice = "SELECT count(*) - count(DISTINCT seq) FROM fleeting";
    assert_eq!(pg.count(twice).await, 0, "{step}: fleeting rows twice");
    let trees = "SELECT count(*), count(DISTINCT id) FROM garden WHERE id <= 100";
    let expected = vec![Some("100".to_owned()); 2];
    assert_eq!(pg.rows(trees).await.unwrap()[0], expected, "{step}: garden");
    let weeds = pg.count("SELECT count(*) FROM garden WHERE id > 100").await;
    assert!(weeds <= 1, "{step}: {weeds} weeds");
}

/// Reads the Delta tables without weir.
async fn check_from_outside(dir: &TempDir, acked: i64, plain: i64) {
    let mut counted = Vec::new();
    for table in delta::tables_under(dir.path()) {
        let location = table.to_str().unwrap();
        let columns = delta::columns(location).await;
        let has = |name: &str| columns.iter().any(|c| c == name);
        if !has("filler") || !has("producer") {
            continue;
        }
        let position = if columns[0] == "_lsn" { "_lsn" } else { "seq" };
        let sql = format!(
            "SELECT count(*), count(DISTINCT concat(producer, ':', seq)), \
             count(DISTINCT {position}) FROM t"
        );
        let batches = delta::query(location, &sql).await;
        let value = |i: usize| batches[0].column(i).as_primitive::<Int64Type>().value(0);
        counted.push((position, [value(0), value(1), value(2)]));
    }
    counted.sort_unstable();
    let expected = [("_lsn", [acked; 3]), ("seq", [plain; 3])];
    assert_eq!(
        counted, expected,
        "rows, distinct rows, distinct positions in Delta"
    );
}

async fn finish(server: Spawned, dir: &TempDir, ledger: &Ledger) {
    let pg = server.connect().await;
    check(&pg, ledger, "at the end").await;
    let rows = pg.count("SELECT count(*) FROM acked").await;
    let plain = pg.count("SELECT count(*) FROM plain").await;
    pg.run("FLUSH TABLE acked").await;
    drop(pg);
    server.stop().await;
    check_from_outside(dir, rows, plain).await;
    println!(
        "{rows} rows in the table, {} of them acknowledged",
        ledger.acknowledged()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_kills_at_random_moments() {
    let kills = std::env::var("WEIR_CRASH_KILLS").ok();
    let kills = kills.and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let mut rng = StdRng::seed_from_u64(20);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut sender = kafka::Sender::start(20);
    let mut server = start(&dir).await;
    set_up(&server).await;
    sender.create_table(&server.connect().await).await;
    for kill in 0..kills {
        let crowd = Crowd::start(server.addresses(), &ledger, rng.random());
        let until = ledger.acknowledged() + rng.random_range(1..200);
        let moment = Duration::from_millis(rng.random_range(0..400));
        let end = Instant::now() + REACH_LIMIT;
        sender.send(0, rng.random_range(1..20));
        while ledger.acknowledged() < until {
            assert!(Instant::now() < end, "kill {kill}: nothing is acknowledged");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sender.send(1, rng.random_range(1..5));
        tokio::time::sleep(moment).await;
        server.kill();
        crowd.ended().await;

        server = start(&dir).await;
        let (pg, step) = (server.connect().await, format!("kill {kill}"));
        check(&pg, &ledger, &step).await;
        kafka::check(&pg, &sender, &step).await;
        if kill % 20 == 19 {
            println!("{step}: {} rows acknowledged", ledger.acknowledged());
        }
    }
    finish(server, &dir, &ledger).await;
    println!("{kills} kills, {} messages", sender.all());
    println!(
        "rows sent and acknowledged at each door: {}",
        ledger.figures()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_every_crash_point() {
    let mut rng = StdRng::seed_from_u64(21);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut server = start(&dir).await;
    set_up(&server).await;
    for point in server::stream::CRASH_POINTS {
        for passes in [0, 2] {
            let step = format!("{point} after {passes} passes");
            // Without a clean end, so that there is something to recover.
            server.kill();
            let armed = match passes {
                0 => format!("{point}=return"),
                n => format!("{point}={n}*off->return"),
            };
            let mut settings = SETTINGS.to_vec();
            settings.push(("FAILPOINTS", armed.as_str()));
            // A point on the way up ends the server before its doors are open; that is a death too.
            let started = Spawned::try_start(Path::new(PROGRAM), dir.path(), &settings).await;
            if let Ok(mut doomed) = started {
                let crowd = Crowd::start(doomed.addresses(), &ledger, rng.random());
                let end = Instant::now() + REACH_LIMIT;
                while doomed.ended().is_none() {
                    assert!(Instant::now() < end, "{step}: the point was never reached");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                crowd.ended().await;
            }
            server = start(&dir).await;
            check(&server.connect().await, &ledger, &step).await;
        }
    }
    finish(server, &dir, &ledger).await;
}

/// A column is there with its values or not at all, whenever the server dies while it is added.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_survives_death_between_its_two_commits() {
    for (point, there) in [
        ("alter-before-commit", false),
        ("alter-after-commit-before-catalog", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = start(&dir).await;
        let pg = server.connect().await;
        for sql in [
            "CREATE STREAMING TABLE s (id BIGINT NOT NULL, filler TEXT) WITH (flush_interval = '1 hour')",
            "CREATE TABLE p (id BIGINT NOT NULL, filler TEXT)",
            "INSERT INTO s VALUES (1, 'stored')",
            "FLUSH TABLE s",
            "INSERT INTO s VALUES (2, 'in the log')",
            "INSERT INTO p VALUES (1, 'stored')",
        ] {
            pg.run(sql).await;
        }
        server.kill();
        for table in ["s", "p"] {
            let alter = format!(
                "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS c BIGINT NOT NULL DEFAULT 5, \
                 ADD COLUMN IF NOT EXISTS d TEXT"
            );
            let armed = format!("{point}=return");
            let armed = [("FAILPOINTS", armed.as_str())];
            let started = Spawned::try_start(Path::new(PROGRAM), dir.path(), &armed).await;
            let mut doomed = started.unwrap_or_else(|log| panic!("{point}: {log}"));
            let pg = doomed.connect().await;
            assert!(pg.rows(&alter).await.is_err(), "{point}: it went on");
            let end = Instant::now() + REACH_LIMIT;
            while doomed.ended().is_none() {
                assert!(Instant::now() < end, "{point}: it lives");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let server = start(&dir).await;
            let pg = server.connect().await;
            let known = format!(
                "SELECT count(*) FROM information_schema.columns WHERE table_name = '{table}'"
            );
            assert_eq!(pg.count(&known).await, if there { 4 } else { 2 }, "{point}");
            // what nobody was told may be there or not; asked again, it is
            pg.run(&alter).await;
            assert_eq!(pg.count(&known).await, 4, "{point}");
            pg.run(&format!("INSERT INTO {table} (id) VALUES (3)"))
                .await;
            let rows = format!("SELECT count(*) FROM {table} WHERE c = 5 AND d IS NULL");
            let all = if table == "s" { 3 } else { 2 };
            assert_eq!(pg.count(&rows).await, all, "{point}: {table}");
            if table == "s" {
                pg.run("FLUSH TABLE s").await;
            }
            drop(pg);
            server.kill();
        }
        for table in delta::tables_under(dir.path()) {
            let location = table.to_str().unwrap();
            let columns = delta::columns(location).await;
            let visible: Vec<&str> = columns.iter().map(String::as_str).collect();
            assert!(
                visible.ends_with(&["id", "filler", "c", "d"]),
                "{columns:?}"
            );
            let batches = delta::query(location, "SELECT sum(c) FROM t").await;
            let sum = batches[0].column(0).as_primitive::<Int64Type>().value(0);
            assert_eq!(sum, if columns[0] == "_lsn" { 15 } else { 10 }, "{point}");
        }
    }
}

/// Recovery itself may be killed, again and again, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_may_be_interrupted() {
    let mut rng = StdRng::seed_from_u64(22);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let server = start(&dir).await;
    set_up(&server).await;
    let crowd = Crowd::start(server.addresses(), &ledger, rng.random());
    let end = Instant::now() + REACH_LIMIT;
    while ledger.acknowledged() < 500 {
        assert!(Instant::now() < end, "nothing is acknowledged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    crowd.ended().await;
    for _ in 0..8 {
        let log = std::fs::File::create(dir.path().join("interrupted.log")).unwrap();
        let mut command = Spawned::command(Path::new(PROGRAM), dir.path());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..250))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let server = start(&dir).await;
    finish(server, &dir, &ledger).await;
}
