//! Kafka sources against a cluster in this process: where they begin, that each message becomes a row
//! once, what stops them and what does not.

use std::time::Duration;

use tests::kafka::Kafka;
use tests::{PgSession, TestServer, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Anything a source does is done by then.
const SOON: Duration = Duration::from_secs(30);

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
async fn holds(pg: &PgSession, table: &str, rows: i64) {
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

async fn source(pg: &PgSession, table: &str, column: &str) -> Option<String> {
    let sql = format!("SELECT {column} FROM weir.sources WHERE table_name = '{table}'");
    pg.rows(&sql)
        .await
        .expect("weir.sources")
        .remove(0)
        .remove(0)
}

async fn source_is(pg: &PgSession, table: &str, column: &str, value: &str) {
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
            r#"{"h":["x","y"]}"#,
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
            r#"{"h":"x"}"#,
            "2023-11-14 22:13:20.123+00",
            "23"
        ]
    );
    drop(pg);
    server.stop().await;
}

/// Answers as a schema registry, for as long as the test runs: what it says at which path, to whom it
/// knows.
async fn registry(answers: Vec<(&'static str, serde_json::Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers = std::sync::Arc::new(answers);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let answers = std::sync::Arc::clone(&answers);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                let mut bytes = [0; 1024];
                while !asked.ends_with(b"\r\n\r\n") {
                    match connection.read(&mut bytes).await {
                        Ok(n) if n > 0 => asked.extend_from_slice(&bytes[..n]),
                        _ => return,
                    }
                }
                let asked = String::from_utf8_lossy(&asked).into_owned();
                // someone:hush
                let known = asked
                    .to_lowercase()
                    .contains("authorization: basic c29tzw9uztpodxno");
                let path = asked.split_whitespace().nth(1).unwrap_or_default();
                let found = answers
                    .iter()
                    .find(|(at, _)| known && path.strip_prefix("/registry/") == Some(*at));
                let (status, body) = match found {
                    Some((_, answer)) => ("200 OK", answer.to_string()),
                    None => ("404 Not Found", "{}".to_owned()),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(connection.write_all(answer.as_bytes()).await);
            });
        }
    });
    format!("http://{address}/registry")
}

/// A registry with two Avro schemas.
async fn avro_registry() -> String {
    const SEVEN: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},
        {"name":"text","type":["null","string"]}]}"#;
    const EIGHT: &str = r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"more","type":{"type":"record","name":"m","fields":[{"name":"a","type":"int"},
        {"name":"b","type":"string"}]}}]}"#;
    registry(vec![
        ("schemas/ids/7", serde_json::json!({"schema": SEVEN})),
        ("schemas/ids/8", serde_json::json!({"schema": EIGHT})),
    ])
    .await
}

/// A value in Confluent's frame.
fn framed(id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let mut value = vec![0];
    value.extend(id.to_be_bytes());
    value.extend(fields.concat());
    value
}

/// A whole number as Avro has it.
fn long(n: i64) -> Vec<u8> {
    let mut rest = ((n << 1) ^ (n >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_messages_with_a_registry() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!(
        "CREATE STREAMING TABLE t (n BIGINT NOT NULL, text TEXT, at TIMESTAMPTZ, more JSONB, off BIGINT) \
         WITH (on_violation = 'reject') \
         FROM KAFKA (brokers = '{}', topic = 't', format = 'avro', offset_column = 'off', \
         schema_registry = '{}', schema_registry_user = 'someone', schema_registry_password = 'hush')",
        kafka.brokers(),
        avro_registry().await
    ))
    .await;
    let text = [&long(1), &long(5), &b"hello"[..]].concat();
    let more = [&long(4), &long(1), &b"b"[..]].concat();
    let time = long(1_700_000_000_123);
    kafka.send(
        "t",
        0,
        [
            framed(7, &[&long(-1), &text]),
            framed(8, &[&long(2), &time, &more]),
            framed(7, &[&long(300), &long(0)]),
        ],
    );
    let sql = "SELECT n, text, at, more, off FROM t ORDER BY off";
    let rows = wait::until("three rows", SOON, || async {
        let rows = pg.rows(sql).await.expect("rows");
        (rows.len() == 3).then_some(rows)
    })
    .await;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|v| v.clone().unwrap_or_default()).collect())
        .collect();
    assert_eq!(rows[0], ["-1", "hello", "", "", "0"]);
    let time = "2023-11-14 22:13:20.123+00";
    assert_eq!(rows[1], ["2", "", time, r#"{"a":4,"b":"b"}"#, "1"]);
    assert_eq!(rows[2], ["300", "", "", "", "2"]);
    // cut off, too long, no frame, no such schema
    for (n, bad) in [
        framed(7, &[&long(1), &long(1), &long(50), b"short"]),
        framed(7, &[&long(1), &long(0), b"\0"]),
        b"{}".to_vec(),
        framed(9, &[&long(1)]),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("bad{n}");
        kafka.cluster().create_topic(&topic, 1, 1).expect("a topic");
        kafka.send(&topic, 0, [framed(7, &[&long(1), &long(0)]), bad]);
        pg.run(&format!(
            "CREATE STREAMING TABLE {topic} (n BIGINT, text TEXT) WITH (on_violation = 'reject') \
             FROM KAFKA (brokers = '{}', topic = '{topic}', format = 'avro', schema_registry = '{}', \
             schema_registry_user = 'someone', schema_registry_password = 'hush')",
            kafka.brokers(),
            avro_registry().await
        ))
        .await;
        source_is(&pg, &topic, "state", "failed").await;
        source_is(&pg, &topic, "rows", "1").await;
        let error = source(&pg, &topic, "last_error").await.unwrap_or_default();
        assert!(error.contains("offset 1"), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
    drop(pg);
    server.stop().await;
}

/// A registry with Protobuf schemas: 7 refers to another, 8 has its type first, 9 is none.
async fn protobuf_registry() -> String {
    const SEVEN: &str = r#"syntax = "proto3"; package t;
        import "google/protobuf/timestamp.proto";
        import "more.proto";
        enum Kind { NONE = 0; CLICK = 1; }
        message Other { int64 n = 1; }
        message Event { int64 n = 1; optional string text = 2; google.protobuf.Timestamp at = 3;
            m.More more = 4; Kind kind = 5; repeated int32 list = 6; bytes raw = 7; }"#;
    const EIGHT: &str = r#"syntax = "proto3"; package t; message Event { int64 n = 1; }"#;
    const MORE: &str =
        r#"syntax = "proto3"; package m; message More { int64 a = 1; string b = 2; }"#;
    let reference = serde_json::json!([{"name": "more.proto", "subject": "a/more", "version": 3}]);
    registry(vec![
        (
            "schemas/ids/7",
            serde_json::json!({"schemaType": "PROTOBUF", "schema": SEVEN, "references": reference}),
        ),
        (
            "subjects/a%2Fmore/versions/3",
            serde_json::json!({"schemaType": "PROTOBUF", "schema": MORE, "version": 3}),
        ),
        (
            "schemas/ids/8",
            serde_json::json!({"schemaType": "PROTOBUF", "schema": EIGHT}),
        ),
        (
            "schemas/ids/9",
            serde_json::json!({"schemaType": "PROTOBUF", "schema": "message {"}),
        ),
    ])
    .await
}

/// A whole number as a field of Protobuf.
fn number(field: u8, n: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    let mut rest = n;
    while rest > 0x7f {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Bytes as a field of Protobuf.
fn piece(field: u8, of: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2, u8::try_from(of.len()).expect("a few bytes")];
    bytes.extend_from_slice(of);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_messages_with_a_registry() {
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(&format!(
        "CREATE STREAMING TABLE t (n BIGINT NOT NULL, text TEXT, at TIMESTAMPTZ, more JSONB, kind TEXT, \
         list INT[], raw BYTEA, off BIGINT) \
         FROM KAFKA (brokers = '{}', topic = 't', format = 'protobuf', message = 't.Event', offset_column = 'off', \
         schema_registry = '{}', schema_registry_user = 'someone', schema_registry_password = 'hush')",
        kafka.brokers(),
        protobuf_registry().await
    ))
    .await;
    let at = [number(1, 1_700_000_000), number(2, 123_456_789)].concat();
    let more = [number(1, 4), piece(2, b"b")].concat();
    let whole = [
        number(1, 300),
        piece(2, b"hello"),
        piece(3, &at),
        piece(4, &more),
        number(5, 1),
        piece(6, &[1, 2]),
        piece(7, b"\x00\xff"),
    ]
    .concat();
    kafka.send(
        "t",
        0,
        [
            framed(7, &[b"\x02\x02", &whole]),
            framed(8, &[b"\x00", &number(1, 2)]),
            // no frame, no such schema, none that is one, another type, no such type, cut off
            b"{}".to_vec(),
            framed(10, &[b"\x00", &number(1, 2)]),
            framed(9, &[b"\x00", &number(1, 2)]),
            framed(7, &[b"\x00", &number(1, 2)]),
            framed(7, &[b"\x02\x08", &number(1, 2)]),
            framed(8, &[b"\x00", &piece(2, b"x")[..2]]),
            framed(7, &[b"\x02\x02"]),
        ],
    );
    let sql = "SELECT n, text, at, more, kind, list, raw, off FROM t ORDER BY off";
    let rows = wait::until("three rows", SOON, || async {
        let rows = pg.rows(sql).await.expect("rows");
        (rows.len() == 3).then_some(rows)
    })
    .await;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|v| v.clone().unwrap_or_default()).collect())
        .collect();
    let time = "2023-11-14 22:13:20.123456+00";
    let more = r#"{"a":4,"b":"b"}"#;
    assert_eq!(
        rows[0],
        ["300", "hello", time, more, "CLICK", "{1,2}", "\\x00ff", "0"]
    );
    assert_eq!(rows[1], ["2", "", "", "", "", "", "", "1"]);
    // an empty message has the defaults of its type, where these cannot be told from values
    assert_eq!(rows[2], ["0", "", "", "", "NONE", "{}", "\\x", "8"]);
    let sql = "SELECT position, sqlstate, format FROM weir.dead_letters ORDER BY position";
    let letters = wait::until("six letters", SOON, || async {
        let letters = pg.rows(sql).await.expect("letters");
        (letters.len() == 6).then_some(letters)
    })
    .await;
    for (n, letter) in (2..).zip(&letters) {
        let expected = [
            format!("t/0/{n}"),
            "22P02".to_owned(),
            "protobuf".to_owned(),
        ];
        assert_eq!(*letter, expected.map(Some), "letter {n}");
    }
    source_is(&pg, "t", "state", "running").await;
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_messages_of_a_given_type() {
    const SCHEMA: &str = r#"syntax = "proto3"; message Event { int64 n = 1; string text = 2; }"#;
    let kafka = Kafka::start(&[("t", 1)]);
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), SCHEMA).expect("a schema");
    let path = file.path().display();
    let given = format!("schema = '{SCHEMA}'");
    let by_file = format!("schema_file = '{path}', message = 'Event'");
    for (table, how) in [("given", &given), ("by_file", &by_file)] {
        pg.run(&format!(
            "CREATE STREAMING TABLE {table} (n BIGINT NOT NULL, text TEXT) \
             FROM KAFKA (brokers = '{}', topic = 't', format = 'protobuf', {how})",
            kafka.brokers(),
        ))
        .await;
    }
    // the file was read once
    drop(file);
    let message = |n: u64| [number(1, n), piece(2, b"x")].concat();
    kafka.send("t", 0, (0..20).map(message));
    holds(&pg, "given", 20).await;
    drop(pg);
    let server = server.restart().await;
    let pg = server.connect().await;
    kafka.send("t", 0, (20..40).map(message));
    for table in ["given", "by_file"] {
        holds(&pg, table, 40).await;
    }
    pg.run("CREATE ROLE maker LOGIN").await;
    pg.run("GRANT CREATE ON SCHEMA public TO maker").await;
    pg.run("SET ROLE maker").await;
    let e = pg
        .failure(
            "CREATE STREAMING TABLE u (n BIGINT) FROM KAFKA (brokers = 'b', topic = 't', \
             format = 'protobuf', schema_file = '/etc/passwd')",
        )
        .await;
    assert!(format!("{e:?}").contains("42501"), "{e:?}");
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
