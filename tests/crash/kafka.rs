//! A Kafka source over kills: every message becomes a row once, whatever step the server died at.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tests::kafka::Kafka;
use tests::{PgSession, Spawned, delta, wait};

use crate::{PROGRAM, REACH_LIMIT, SETTINGS, start};

/// Messages are all stored by then.
const CAUGHT_UP: Duration = Duration::from_secs(60);
const TOPIC: &str = "events";
const PARTITIONS: i32 = 2;

/// Numbers messages of each partition.
pub(crate) struct Sender {
    kafka: Kafka,
    sent: [i64; PARTITIONS as usize],
    filler: String,
}

impl Sender {
    /// Over a cluster of its own, with messages of about that length.
    pub(crate) fn start(length: usize) -> Self {
        Self {
            kafka: Kafka::start(&[(TOPIC, PARTITIONS)]),
            sent: [0; PARTITIONS as usize],
            filler: "x".repeat(length),
        }
    }

    /// Makes the table `events` that is fed by what is sent.
    pub(crate) async fn create_table(&self, pg: &PgSession) {
        pg.run(&format!(
            "CREATE STREAMING TABLE events (n BIGINT NOT NULL, p INT NOT NULL, filler TEXT) \
             WITH (flush_interval = '150 ms') \
             FROM KAFKA (brokers = '{}', topic = '{TOPIC}', partition_column = 'p')",
            self.kafka.brokers()
        ))
        .await;
    }

    pub(crate) fn send(&mut self, partition: i32, count: i64) {
        let sent = &mut self.sent[usize::try_from(partition).unwrap()];
        let filler = &self.filler;
        let values =
            (*sent..*sent + count).map(|n| format!("{{\"n\":{n},\"filler\":\"{filler}\"}}"));
        self.kafka.send(TOPIC, partition, values);
        *sent += count;
    }

    pub(crate) fn all(&self) -> i64 {
        self.sent.iter().sum()
    }
}

/// Waits for what is missing; then each partition's numbers must be there once, in their order.
pub(crate) async fn check(pg: &PgSession, sender: &Sender, step: &str) {
    wait::until(
        &format!("{step}: all messages are rows"),
        CAUGHT_UP,
        || async { (pg.count("SELECT count(*) FROM events").await >= sender.all()).then_some(()) },
    )
    .await;
    let rows = pg
        .rows("SELECT p, n FROM events ORDER BY p, _lsn")
        .await
        .unwrap();
    let mut expected = (0..PARTITIONS).flat_map(|p| {
        let sent = sender.sent[usize::try_from(p).unwrap()];
        (0..sent).map(move |n| (p, n))
    });
    for row in &rows {
        let found = (
            row[0].as_ref().unwrap().parse().unwrap(),
            row[1].as_ref().unwrap().parse().unwrap(),
        );
        assert_eq!(Some(found), expected.next(), "{step}");
    }
    assert_eq!(expected.next(), None, "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_exactly_after_every_crash_point() {
    let mut sender = Sender::start(900);
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir).await;
    let pg = server.connect().await;
    sender.create_table(&pg).await;
    drop(pg);
    let points = server::stream::CRASH_POINTS.iter();
    // those of ordinary tables, of views and of upkeep are not on a source's way
    let kinds = ["wal-", "flush-", "data-", "commit-"];
    for point in points.filter(|p| kinds.iter().any(|kind| p.starts_with(kind))) {
        for passes in [0, 3] {
            let step = format!("{point} after {passes} passes");
            server.kill();
            let armed = match passes {
                0 => format!("{point}=return"),
                n => format!("{point}={n}*off->return"),
            };
            let mut settings = SETTINGS.to_vec();
            settings.push(("FAILPOINTS", armed.as_str()));
            let started = Spawned::try_start(Path::new(PROGRAM), dir.path(), &settings).await;
            if let Ok(mut doomed) = started {
                let end = Instant::now() + REACH_LIMIT;
                while doomed.ended().is_none() {
                    assert!(Instant::now() < end, "{step}: the point was never reached");
                    sender.send(0, 20);
                    sender.send(1, 3);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            server = start(&dir).await;
            check(&server.connect().await, &sender, &step).await;
        }
    }
    let pg = server.connect().await;
    pg.run("FLUSH TABLE events").await;
    drop(pg);
    server.stop().await;
    let tables = delta::tables_under(dir.path());
    let batches = delta::query(
        tables[0].to_str().unwrap(),
        "SELECT count(*), count(DISTINCT concat(p, ':', n)) FROM t",
    )
    .await;
    for column in 0..2 {
        let counted = batches[0]
            .column(column)
            .as_primitive::<Int64Type>()
            .value(0);
        assert_eq!(counted, sender.all(), "rows and distinct rows in Delta");
    }
    println!("{} messages", sender.all());
}
