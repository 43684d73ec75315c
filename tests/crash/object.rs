//! A table whose writers wait for its storage: it does without the log that they came by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::delta;

use crate::ledger::Ledger;
use crate::producers::{Crowd, Door};
use crate::{REACH_LIMIT, start};

/// How often the server dies and its log is lost.
const LOSSES: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_storage_survive_the_loss_of_the_log() {
    let mut rng = StdRng::seed_from_u64(23);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut server = start(&dir).await;
    let pg = server.connect().await;
    // nobody flushes but for who waits
    pg.run(
        "CREATE STREAMING TABLE acked (producer TEXT NOT NULL, seq BIGINT NOT NULL, filler TEXT) \
         WITH (flush_interval = '1 hour', acknowledge = 'object')",
    )
    .await;
    let view = "SELECT producer, count(*) AS n, max(seq) AS highest FROM acked GROUP BY producer";
    pg.run(&format!("CREATE MATERIALIZED VIEW per_producer AS {view}"))
        .await;
    drop(pg);
    for loss in 0..LOSSES {
        let step = format!("loss {loss}");
        let doors = [Door::Insert, Door::Copy, Door::Http, Door::Flight];
        let crowd = Crowd::at_doors(server.addresses(), &ledger, rng.random(), &doors);
        let until = ledger.acknowledged() + rng.random_range(20..200);
        let end = Instant::now() + REACH_LIMIT;
        while ledger.acknowledged() < until {
            assert!(Instant::now() < end, "{step}: nothing is acknowledged");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // its state counts rows that will be lost
        let pg = server.connect().await;
        pg.run("REFRESH MATERIALIZED VIEW per_producer").await;
        drop(pg);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        server.kill();
        crowd.ended().await;
        std::fs::remove_dir_all(dir.path().join("wal")).unwrap();

        server = start(&dir).await;
        let pg = server.connect().await;
        let read = pg
            .rows("SELECT producer, seq FROM acked ORDER BY _lsn")
            .await;
        let read = read.unwrap().into_iter().map(|mut row| {
            let seq = row[1].as_ref().unwrap().parse().unwrap();
            (row[0].take().unwrap(), seq)
        });
        let compared = ledger.compare(read);
        compared.unwrap_or_else(|e| panic!("{step}: {e}"));
        let kept = "SELECT producer, n, highest FROM per_producer ORDER BY producer";
        assert_eq!(
            pg.rows(kept).await.unwrap(),
            pg.rows(&format!("{view} ORDER BY producer")).await.unwrap(),
            "{step}: the view is not its query"
        );
    }
    let pg = server.connect().await;
    let rows = pg.count("SELECT count(*) FROM acked").await;
    drop(pg);
    server.stop().await;
    let mut counted = Vec::new();
    for table in delta::tables_under(dir.path()) {
        let location = table.to_str().unwrap();
        if delta::columns(location).await.iter().any(|c| c == "filler") {
            counted.push(delta::count(location).await);
        }
    }
    assert_eq!(counted, [rows], "rows in Delta");
    println!(
        "{rows} rows in the table, {} of them acknowledged",
        ledger.acknowledged()
    );
}
