//! Big results stream: the server's memory does not follow their size.

use std::path::Path;

use futures::{StreamExt, TryStreamExt, pin_mut};
use tests::flight::FlightSession;
use tests::{ADMIN, PASSWORD, Spawned};

use crate::PROGRAM;

const ROWS: u64 = 1_000_000;
/// The whole result is about 120 MB as text.
const SQL: &str = "SELECT i, repeat('x', 100) AS filler FROM generate_series(1, 1000000) AS g (i)";
const GROWTH: u64 = 100 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Spawned::start(Path::new(PROGRAM), dir.path()).await;

    // The first queries of a process allocate what it keeps.
    let pg = server.connect().await;
    pg.run("SELECT i, repeat('x', 100) FROM generate_series(1, 20000) AS g (i)")
        .await;
    let before = server.resident();
    let mut highest = 0;

    let stream = pg.client().query_raw(SQL, Vec::<i32>::new()).await.unwrap();
    pin_mut!(stream);
    let mut rows = 0u64;
    while let Some(row) = stream.next().await {
        row.unwrap();
        rows += 1;
        if rows.is_multiple_of(50_000) {
            highest = highest.max(server.resident());
        }
    }
    assert_eq!(rows, ROWS);

    let mut flight = FlightSession::open(server.addresses().flight, ADMIN, PASSWORD)
        .await
        .unwrap();
    let info = flight.client().execute(SQL.to_owned(), None).await.unwrap();
    let mut rows = 0u64;
    for endpoint in info.endpoint {
        let batches = flight
            .client()
            .do_get(endpoint.ticket.unwrap())
            .await
            .unwrap();
        pin_mut!(batches);
        while let Some(batch) = batches.try_next().await.unwrap() {
            rows += batch.num_rows() as u64;
            highest = highest.max(server.resident());
        }
    }
    assert_eq!(rows, ROWS);
    let growth = highest.saturating_sub(before);
    assert!(
        growth < GROWTH,
        "resident memory grew by {} MiB",
        growth >> 20
    );

    // A reader that stops reading does not make the server buffer the rest.
    let slow = server.connect().await;
    let unread = slow
        .client()
        .query_raw(SQL, Vec::<i32>::new())
        .await
        .unwrap();
    pin_mut!(unread);
    unread.next().await.unwrap().unwrap();
    assert_eq!(pg.value("SELECT 1").await, "1");
    let growth = server.resident().saturating_sub(before);
    assert!(
        growth < GROWTH,
        "resident memory grew by {} MiB",
        growth >> 20
    );
    server.kill();
}
