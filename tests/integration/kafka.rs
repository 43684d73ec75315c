//! Kafka sources against a cluster in this process: where they begin, that each message becomes a row
//! once, what stops them and what does not.

use std::time::Duration;

use tests::kafka::Kafka;
use tests::{PgSession, TestServer, wait};

/// Anything a source does is done by then.
pub(crate) const SOON: Duration = Duration::from_secs(30);

fn numbered(range: std::ops::Range<i64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{{\"n\":{n},\"text\":\"number {n}\"}}"))
}

async fn declare(pg: &PgSession, kafka: &Kafka, table: &str, more: &str) {
    pg.run(&format!(
        "CREATE STREAMING TABLE {table} (n BIGINT NOT NULL, text TEXT) \
         WITH (flush_interval = '200 ms') \
         FROM KAFKA (brokers = '{}', topic = '{table}', partition_discovery = '200 ms'{more})",
        kafka.brokers()
    ))
    .await;
}

/// Waits until a table has exactly that many rows, each number once.
pub(crate) async fn holds(pg: &PgSession, table: &str, rows: i64) {
    let sql = format!("SELECT count(*) FROM {table}");
    wait::until(&format!("{table} has {rows} rows"), SOON, || async {
        (pg.count(&sql).await >= rows).then_some(())
    })
    .await;
    let sql = format!("SELECT count(*), count(DISTINCT n), count(DISTINCT _lsn) FROM {table}");
    let row = pg.rows(&sql).await.expect("counts").remove(0);
    let rows = Some(rows.to_string());
    assert_eq!(row, [rows.clone(), rows.clone(), rows], "{table}");
}

pub(crate) async fn source(pg: &PgSession, table: &str, column: &str) -> Option<String> {
    let sql = format!("SELECT {column} FROM weir.sources WHERE table_name = '{table}'");
    pg.rows(&sql)
        .await
        .expect("weir.sources")
        .remove(0)
        .remove(0)
}

pub(crate) async fn source_is(pg: &PgSession, table: &str, column: &str, value: &str) {
    wait::until(&format!("{column} of {table} is {value}"), SOON, || async {
        (source(pg, table, column).await.as_deref() == Some(value)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_becomes_a_row_once_over_restarts() {
    let kafka = Kafka::start(&[("t", 3)]);
    for partition in 0..3 {
        let from = i64::from(partition) * 1000;
        kafka.send("t", partition, numbered(from..from + 1000));
    }
    let server = TestServer::start().await;
    let mut pg = server.connect().await;
    declare(&pg, &kafka, "t", "").await;
    holds(&pg, "t", 3000).await;
    source_is(&pg, "t", "lag", "0").await;
    source_is(&pg, "t", "state", "running").await;
    source_is(&pg, "t", "offsets", r#"{"0":1000,"1":1000,"2":1000}"#).await;
    source_is(&pg, "t", "end_offsets", r#"{"0":1000,"1":1000,"2":1000}"#).await;
    let mut server = server;
    for round in 0..3 {
        drop(pg);
        // half of them while nobody reads, half meanwhile
        let from = 3000 + round * 200;
        kafka.send("t", 1, numbered(from..from + 100));
        server = server.restart().await;
        pg = server.connect().await;
        kafka.send("t", 2, numbered(from + 100..from + 200));
        holds(&pg, "t", from + 200).await;
    }
    // a partition's messages stand in their order
    let sql = "SELECT count(*) FROM (SELECT n, lag(n) OVER (ORDER BY _lsn) AS before FROM t WHERE n < 1000) \
               AS o WHERE n < before";
    assert_eq!(pg.count(sql).await, 0);
    pg.run("FLUSH TABLE t").await;
    let stored = tests::delta::count(&server.delta_location("public", "t")).await;
    assert_eq!(stored, 3600);
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_begins_behind_what_is_there_and_is_remembered() {
    let kafka = Kafka::start(&[("t", 2)]);
    kafka.send("t", 0, numbered(0..50));
    let server = TestServer::start().await;
    let pg = server.connect().await;
    declare(&pg, &kafka, "t", ", start = 'latest'").await;
    source_is(&pg, "t", "state", "running").await;
    drop(pg);
    // nothing was stored yet, and still it is known where the source stands
    let server = server.restart().await;
    let pg = server.connect().await;
    kafka.send("t", 0, numbered(50..60));
    kafka.send("t", 1, numbered(60..70));
    holds(&pg, "t", 20).await;
    assert_eq!(pg.count("SELECT min(n) FROM t").await, 50);
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_and_drop() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    declare(&pg, &kafka, "t", "").await;
    kafka.send("t", 0, numbered(0..100));
    holds(&pg, "t", 100).await;
    pg.run("ALTER STREAMING TABLE t PAUSE").await;
    assert_eq!(source(&pg, "t", "state").await.as_deref(), Some("paused"));
    kafka.send("t", 0, numbered(100..200));
    drop(pg);
    let server = server.restart().await;
    let pg = server.connect().await;
    // a pause outlives the server
    source_is(&pg, "t", "state", "paused").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 100);
    pg.run("ALTER STREAMING TABLE t RESUME").await;
    holds(&pg, "t", 200).await;
    pg.run("DROP TABLE t").await;
    assert_eq!(pg.count("SELECT count(*) FROM weir.sources").await, 0);
    // one of the same name begins anew
    declare(&pg, &kafka, "t", "").await;
    holds(&pg, "t", 200).await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_the_value_becomes_columns() {
    let kafka = Kafka::start(&[("t", 1)]);
    kafka.send_whole(
        "t",
        "k1",
        Some(r#"{"n":1}"#),
        &[("h", "x"), ("h", "y")],
        1_700_000_000_123,
    );
    kafka.send_whole("t", "k2", None, &[], 1_700_000_000_000);
    kafka.send_whole("t", "k3", Some(r#"{"n":3}"#), &[], 1_700_000_001_000);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!(
        "CREATE STREAMING TABLE t (n BIGINT, k BYTEA, h JSONB, at TIMESTAMPTZ, topic TEXT, part INT, off BIGINT, \
         twice BIGINT GENERATED ALWAYS AS (n * 2) STORED, CHECK (n > 0)) \
         FROM KAFKA (brokers = '{}', topic = 't', key_column = 'k', headers_column = 'h', timestamp_column = 'at', \
         topic_column = 'topic', partition_column = 'part', offset_column = 'off')",
        kafka.brokers()
    ))
    .await;
    pg.run(&format!(
        "CREATE STREAMING TABLE r (v BYTEA) FROM KAFKA (brokers = '{}', topic = 't', format = 'raw')",
        kafka.brokers()
    ))
    .await;
    let rows = wait::until("two rows", SOON, || async {
        let rows = pg
            .rows("SELECT n, k, h, at, topic, part, off, twice FROM t ORDER BY off")
            .await;
        rows.ok().filter(|rows| rows.len() == 2)
    })
    .await;
    let row = |row: &tests::pg::TextRow| -> Vec<String> {
        row.iter().map(|v| v.clone().unwrap_or_default()).collect()
    };
    assert_eq!(
        row(&rows[0]),
        [
            "1",
            "\\x6b31",
            r#"{"h": ["x", "y"]}"#,
            "2023-11-14 22:13:20.123+00",
            "t",
            "0",
            "0",
            "2"
        ]
    );
    assert_eq!(row(&rows[1])[1..3], ["\\x6b33", ""]);
    wait::until("raw rows", SOON, || async {
        (pg.count("SELECT count(*) FROM r").await == 3).then_some(())
    })
    .await;
    assert_eq!(pg.count("SELECT count(*) FROM r WHERE v IS NULL").await, 1);
    // the tombstone brought no row but was read
    source_is(&pg, "t", "messages", "3").await;
    source_is(&pg, "t", "rows", "2").await;
    source_is(&pg, "t", "lag", "0").await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_full_holds_a_source_up_and_loses_nothing() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::configured(|config| config.tail_bytes = 256 << 10).await;
    let pg = server.connect().await;
    let filler = "x".repeat(400);
    let values = (0..5000).map(|n| format!("{{\"n\":{n},\"text\":\"{filler}\"}}"));
    kafka.send("t", 0, values);
    declare(&pg, &kafka, "t", "").await;
    // stopped while it waits for room, it forgets nothing that it has read
    for _ in 0..5 {
        pg.run("ALTER STREAMING TABLE t PAUSE").await;
        pg.run("ALTER STREAMING TABLE t RESUME").await;
    }
    holds(&pg, "t", 5000).await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_is_waited_for() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    declare(&pg, &kafka, "t", ", kafka.reconnect.backoff.max.ms = 200").await;
    kafka.send("t", 0, numbered(0..10));
    holds(&pg, "t", 10).await;
    kafka.cluster().broker_down(1).expect("down");
    source_is(&pg, "t", "state", "waiting").await;
    assert!(source(&pg, "t", "last_error").await.is_some());
    kafka.cluster().broker_up(1).expect("up");
    kafka.send("t", 0, numbered(10..20));
    holds(&pg, "t", 20).await;
    source_is(&pg, "t", "state", "running").await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_yet_is_waited_for() {
    let kafka = Kafka::start(&[]);
    let unknown = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    kafka.cluster().topic_error("t", unknown).expect("no topic");
    let server = TestServer::start().await;
    let pg = server.connect().await;
    declare(&pg, &kafka, "t", "").await;
    source_is(&pg, "t", "state", "waiting").await;
    let error = source(&pg, "t", "last_error").await.unwrap_or_default();
    assert!(error.contains("topic \"t\" does not exist"), "{error}");
    let fine = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    kafka.cluster().topic_error("t", fine).expect("a topic");
    kafka.send("t", 0, numbered(0..10));
    holds(&pg, "t", 10).await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_gone_are_told() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    declare(&pg, &kafka, "t", "").await;
    declare_over(&pg, &kafka, "c", "t", ", on_gap = 'continue'").await;
    kafka.send("t", 0, numbered(0..10));
    holds(&pg, "t", 10).await;
    holds(&pg, "c", 10).await;
    for table in ["t", "c"] {
        pg.run(&format!("ALTER STREAMING TABLE {table} PAUSE"))
            .await;
    }
    // the cluster keeps about 5 MB
    let filler = "x".repeat(4000);
    kafka.send(
        "t",
        0,
        (10..5000).map(|n| format!("{{\"n\":{n},\"text\":\"{filler}\"}}")),
    );
    for table in ["t", "c"] {
        pg.run(&format!("ALTER STREAMING TABLE {table} RESUME"))
            .await;
    }
    source_is(&pg, "t", "state", "failed").await;
    let error = source(&pg, "t", "last_error").await.unwrap_or_default();
    assert!(
        error.contains("offset 10 of topic \"t\", partition 0"),
        "{error}"
    );
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 10);
    wait::until("the other goes on", SOON, || async {
        (pg.count("SELECT max(n) FROM c").await == 4999).then_some(())
    })
    .await;
    let error = source(&pg, "c", "last_error").await.unwrap_or_default();
    assert!(error.contains("is not there any more"), "{error}");
    let twice = pg.count("SELECT count(*) - count(DISTINCT n) FROM c").await;
    assert_eq!(twice, 0);
    drop(pg);
    server.stop().await;
}

async fn declare_over(pg: &PgSession, kafka: &Kafka, table: &str, topic: &str, more: &str) {
    pg.run(&format!(
        "CREATE STREAMING TABLE {table} (n BIGINT NOT NULL, text TEXT) \
         FROM KAFKA (brokers = '{}', topic = '{topic}'{more})",
        kafka.brokers()
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_stops_a_source_that_rejects() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!(
        "CREATE STREAMING TABLE t (n BIGINT NOT NULL, text TEXT, CHECK (n <> 77)) \
         WITH (on_violation = 'reject') FROM KAFKA (brokers = '{}', topic = 't')",
        kafka.brokers()
    ))
    .await;
    kafka.send(
        "t",
        0,
        numbered(0..40).chain(["{\"n\":\"many\"}".to_owned()]),
    );
    kafka.send("t", 0, numbered(41..50));
    holds(&pg, "t", 40).await;
    source_is(&pg, "t", "state", "failed").await;
    source_is(&pg, "t", "offsets", r#"{"0":40}"#).await;
    let error = source(&pg, "t", "last_error").await.unwrap_or_default();
    assert!(
        error.contains("topic \"t\", partition 0, offset 40"),
        "{error}"
    );
    assert!(error.contains("column \"n\""), "{error}");
    // it does not go past it, by trying again or by a restart
    pg.run("ALTER STREAMING TABLE t PAUSE").await;
    pg.run("ALTER STREAMING TABLE t RESUME").await;
    source_is(&pg, "t", "state", "failed").await;
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 40);
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_become_dead_letters_in_the_same_step() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!(
        "CREATE STREAMING TABLE t (n BIGINT NOT NULL, text TEXT, k BYTEA, h JSONB, at TIMESTAMPTZ, off BIGINT, \
         CONSTRAINT small CHECK (n < 1000)) \
         FROM KAFKA (brokers = '{}', topic = 't', key_column = 'k', headers_column = 'h', \
         timestamp_column = 'at', offset_column = 'off')",
        kafka.brokers()
    ))
    .await;
    let values = |from: i64| {
        numbered(from..from + 20).chain([
            "{\"n\":\"many\"}".to_owned(),
            "not json".to_owned(),
            String::new(),
        ])
    };
    kafka.send("t", 0, values(0));
    kafka.send_whole(
        "t",
        "key",
        Some(r#"{"n":5000}"#),
        &[("h", "x")],
        1_700_000_000_123,
    );
    kafka.send("t", 0, values(20));
    holds(&pg, "t", 40).await;
    source_is(&pg, "t", "rejected", "7").await;
    source_is(&pg, "t", "rows", "40").await;
    source_is(&pg, "t", "lag", "0").await;
    source_is(&pg, "t", "state", "running").await;
    let sql = "SELECT position, sqlstate, door FROM weir.dead_letters ORDER BY position";
    let letters: Vec<String> = pg
        .rows(sql)
        .await
        .expect("letters")
        .iter()
        .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" "))
        .collect();
    let expected: Vec<String> = [20, 21, 22, 23, 44, 45, 46]
        .iter()
        .map(|n| format!("t/0/{n} {} kafka", if *n == 23 { "23514" } else { "22P02" }))
        .collect();
    assert_eq!(letters, expected);
    drop(pg);
    // only bad ones, and a restart: none is read again
    kafka.send("t", 0, ["no", "no"]);
    let server = server.restart().await;
    let pg = server.connect().await;
    wait::until("nine letters", SOON, || async {
        (pg.count("SELECT count(*) FROM weir.dead_letters").await == 9).then_some(())
    })
    .await;
    drop(pg);
    let server = server.restart().await;
    let pg = server.connect().await;
    kafka.send("t", 0, numbered(40..41));
    holds(&pg, "t", 41).await;
    assert_eq!(pg.count("SELECT count(*) FROM weir.dead_letters").await, 9);
    // what stood beside the value comes with it when it is tried again
    pg.run("ALTER TABLE t DROP CONSTRAINT small").await;
    pg.run("REPLAY DEAD LETTERS FOR t WHERE sqlstate = '23514'")
        .await;
    let row = pg
        .rows("SELECT n, k, h, at, off FROM t WHERE n = 5000")
        .await;
    let row: Vec<_> = row
        .expect("a row")
        .remove(0)
        .iter()
        .flatten()
        .cloned()
        .collect();
    assert_eq!(
        row,
        [
            "5000",
            "\\x6b6579",
            r#"{"h": "x"}"#,
            "2023-11-14 22:13:20.123+00",
            "23"
        ]
    );
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    // nobody listens there: the table is made all the same
    pg.run(
        "CREATE STREAMING TABLE t (v TEXT) FROM KAFKA (brokers = '127.0.0.1:9', topic = 't', format = 'raw', \
         kafka.security.protocol = 'SASL_PLAINTEXT', kafka.sasl.mechanism = 'PLAIN', \
         kafka.sasl.username = 'someone', kafka.sasl.password = 'hush-hush')",
    )
    .await;
    source_is(&pg, "t", "state", "waiting").await;
    for sql in [
        "SELECT options::text FROM weir.tables",
        "SELECT reloptions::text FROM pg_catalog.pg_class WHERE relname = 't'",
        "SELECT statement FROM weir.audit_log",
        "SELECT concat(last_error, brokers, topic) FROM weir.sources",
    ] {
        for row in pg.rows(sql).await.expect(sql) {
            let text = row[0].clone().unwrap_or_default();
            assert!(!text.contains("hush-hush"), "{sql}: {text}");
        }
    }
    let e = pg
        .failure(
            "CREATE STREAMING TABLE u (v TEXT) FROM KAFKA (brokers = 'b', topic = 't', format = 'raw', \
             kafka.security.protocol = 'SSL', kafka.ssl.key.pem = 'hush-hush')",
        )
        .await;
    assert!(!format!("{e:?}").contains("hush-hush"), "{e:?}");
    drop(pg);
    server.stop().await;
}
