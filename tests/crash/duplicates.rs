//! Senders that send everything again until it is acknowledged, over a server that dies: each row is
//! there once, told by its event time and told by its arrival.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::http::HttpSession;
use tests::{ADMIN, Addresses, PASSWORD, PgSession};

use super::{REACH_LIMIT, start};

/// How many times the server dies.
const DEATHS: usize = 8;
const TABLES: [&str; 2] = ["by_event", "by_arrival"];

fn body(rows: std::ops::Range<i64>) -> String {
    rows.map(|n| {
        // over several windows, so that the index is not one piece
        let at = format!("2026-01-01T{:02}:{:02}:00Z", n / 900 % 24, n / 15 % 60);
        format!("{{\"id\": {n}, \"at\": \"{at}\"}}\n")
    })
    .collect()
}

/// Sends pieces in order, old ones again in between; gives how many rows were acknowledged.
async fn send(at: Addresses, table: &str, mut done: i64, rng: &mut StdRng) -> i64 {
    let http = HttpSession::new(at.http, ADMIN, PASSWORD);
    loop {
        let again = done > 0 && rng.random_bool(0.4);
        let from = match again {
            true => rng.random_range(0..done),
            false => done,
        };
        let rows = from..from + rng.random_range(1..40);
        let Ok(told) = http.send_rows("public", table, body(rows.clone())).await else {
            return done;
        };
        if told.status != 200 {
            return done;
        }
        let (accepted, duplicate) = (&told.body["accepted"], &told.body["duplicate"]);
        let (accepted, duplicate) = (accepted.as_i64().unwrap(), duplicate.as_i64().unwrap());
        assert_eq!(accepted + duplicate, rows.end - rows.start, "{}", told.text);
        assert!(
            accepted <= (rows.end - done).max(0),
            "{table}: {} above {done}",
            told.text
        );
        done = done.max(rows.end);
    }
}

async fn check(pg: &PgSession, table: &str, done: i64, step: usize) {
    let all = format!("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM {table}");
    let row = pg.rows(&all).await.unwrap().remove(0);
    let numbers: Vec<i64> = row.iter().flatten().map(|n| n.parse().unwrap()).collect();
    let [rows, distinct, ..] = numbers[..] else {
        assert_eq!(done, 0, "{table} {step}: nothing is there");
        return;
    };
    assert_eq!(rows, distinct, "{table} {step}: a row is there twice");
    let acked = format!("SELECT count(*) FROM {table} WHERE id < {done}");
    assert_eq!(
        pg.count(&acked).await,
        done,
        "{table} {step}: a row is missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_there_once() {
    let mut rng = StdRng::seed_from_u64(24);
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir).await;
    let pg = server.connect().await;
    for (table, time) in TABLES.iter().zip(["event_time = 'at', ", ""]) {
        pg.run(&format!(
            "CREATE STREAMING TABLE {table} (id BIGINT NOT NULL, at TIMESTAMPTZ) \
             WITH ({time}dedup_key = 'id', dedup_window = '1 hour', flush_interval = '150 ms')"
        ))
        .await;
    }
    drop(pg);
    let mut done = [0; 2];
    for step in 0..DEATHS {
        let end = Instant::now() + REACH_LIMIT;
        let moment = Duration::from_millis(rng.random_range(100..700));
        let at = server.addresses();
        let (mut left, mut right) = (
            StdRng::seed_from_u64(rng.random()),
            StdRng::seed_from_u64(rng.random()),
        );
        let sending = async {
            tokio::join!(
                send(at, TABLES[0], done[0], &mut left),
                send(at, TABLES[1], done[1], &mut right),
            )
        };
        let dying = async {
            tokio::time::sleep(moment).await;
            server.kill();
        };
        let ((events, arrivals), ()) = tokio::join!(sending, dying);
        assert!(Instant::now() < end, "{step}: the senders did not notice");
        done = [events, arrivals];
        server = start(&dir).await;
        let pg = server.connect().await;
        for (table, done) in TABLES.iter().zip(done) {
            check(&pg, table, done, step).await;
        }
    }
    assert!(done.iter().all(|rows| *rows > 100), "{done:?}");
    server.stop().await;
}
