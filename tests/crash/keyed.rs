//! Requests that are sent again until they are answered, over a server that dies at every step: each is
//! stored once, with its dead letters, and so is every replayed letter.

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::http::{HttpSession, NDJSON, answer};
use tests::{ADMIN, PASSWORD, PgSession, Spawned};

use crate::{PROGRAM, REACH_LIMIT, SETTINGS, start};

/// Points on the way of a row into the log and into storage.
fn points() -> impl Iterator<Item = &'static str> {
    let all = server::stream::CRASH_POINTS.iter().copied();
    all.filter(|p| {
        ["wal-", "flush-", "commit-", "data-"]
            .iter()
            .any(|s| p.starts_with(s))
    })
}

async fn armed(dir: &TempDir, point: &str, passes: usize) -> Option<Spawned> {
    let armed = match passes {
        0 => format!("{point}=return"),
        n => format!("{point}={n}*off->return"),
    };
    let mut settings = SETTINGS.to_vec();
    settings.push(("FAILPOINTS", armed.as_str()));
    Spawned::try_start(std::path::Path::new(PROGRAM), dir.path(), &settings)
        .await
        .ok()
}

/// Request `n`: three rows, one of which is refused.
async fn post(server: &Spawned, n: i64) -> Option<Value> {
    let http = HttpSession::new(server.addresses().http, ADMIN, PASSWORD);
    let body = format!(
        "{{\"id\":{n}}}\n{{\"id\":{}}}\n{{\"id\":null,\"n\":{n}}}\n",
        -n - 1
    );
    let request = http
        .post("/v1/tables/public/once/rows")
        .header("content-type", NDJSON)
        .header("idempotency-key", format!("request {n}"))
        .timeout(Duration::from_secs(10));
    let told = answer(request.body(body)).await.ok()?;
    (told.status == 200).then_some(told.body)
}

async fn set_up(pg: &PgSession) {
    pg.run(
        "CREATE STREAMING TABLE once (id BIGINT NOT NULL, n BIGINT) WITH (flush_interval = '100 ms')",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keyed_requests_are_stored_once_over_every_crash_point() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir).await;
    set_up(&server.connect().await).await;
    let mut next = 0i64;
    for (round, point) in points().enumerate() {
        let step = format!("{point}, round {round}");
        server.kill();
        if let Some(mut doomed) = armed(&dir, point, round % 3).await {
            let end = Instant::now() + REACH_LIMIT;
            while doomed.ended().is_none() {
                assert!(Instant::now() < end, "{step}: the point was never reached");
                match post(&doomed, next).await {
                    Some(_) => next += 1,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        server = start(&dir).await;
        // the one that was not answered, as often as one likes
        let first = post(&server, next).await.expect("an answer");
        let second = post(&server, next).await.expect("an answer");
        next += 1;
        for told in [&first, &second] {
            assert_eq!(
                (&told["accepted"], &told["rejected"]),
                (&2.into(), &1.into()),
                "{step}"
            );
        }
        assert_eq!(first["token"], second["token"], "{step}");
        assert_eq!(second["replayed"], true, "{step}");
        let pg = server.connect().await;
        let counts = "SELECT count(*) = 2 * $1 AND count(DISTINCT id) = 2 * $1 FROM once";
        let once = counts.replace("$1", &next.to_string());
        assert_eq!(pg.value(&once).await, "t", "{step}: after {next} requests");
        let letters = "SELECT count(*) FROM weir.dead_letters";
        assert_eq!(pg.count(letters).await, next, "{step}");
    }
    server.stop().await;
}

/// Letters of a constraint that is taken off again, replayed over deaths.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_replayed_once_over_every_crash_point() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir).await;
    let mut expected = 0i64;
    for (round, point) in points().filter(|p| p.starts_with("wal-")).enumerate() {
        let step = format!("{point}, round {round}");
        let pg = server.connect().await;
        let table = format!("t{round}");
        pg.run(&format!(
            "CREATE STREAMING TABLE {table} (id BIGINT, CONSTRAINT closed CHECK (id < 0)) \
             WITH (on_violation = 'dead_letter', flush_interval = '100 ms')"
        ))
        .await;
        let rows = 300;
        pg.run(&format!(
            "INSERT INTO {table} SELECT i FROM generate_series(1, {rows}) AS g (i)"
        ))
        .await;
        pg.run(&format!("ALTER TABLE {table} DROP CONSTRAINT closed"))
            .await;
        drop(pg);
        server.kill();
        let replay = format!("REPLAY DEAD LETTERS FOR {table}");
        if let Some(mut doomed) = armed(&dir, point, round % 3).await {
            // a point that needs more rows than these is not reached: the server dies all the same
            let reached = !(point.contains("roll") || point.contains("removal"));
            let end = Instant::now() + REACH_LIMIT;
            while doomed.ended().is_none() && Instant::now() < end {
                if let Ok(pg) = PgSession::open(doomed.addresses().pg, ADMIN, PASSWORD).await {
                    // an error is the server's death
                    drop(pg.rows(&replay).await);
                }
                if !reached {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            doomed.kill();
        }
        server = start(&dir).await;
        let pg = server.connect().await;
        pg.rows(&replay)
            .await
            .unwrap_or_else(|e| panic!("{step}: {e}"));
        let counts = format!("SELECT count(*), count(DISTINCT id) FROM {table}");
        let counts = pg.rows(&counts).await.unwrap();
        let wanted = Some(rows.to_string());
        assert_eq!(counts[0], [wanted.clone(), wanted], "{step}");
        expected += rows;
        let done = "SELECT count(*) FROM weir.dead_letters WHERE replayed_at IS NOT NULL";
        assert_eq!(pg.count(done).await, expected, "{step}");
    }
    server.stop().await;
}
