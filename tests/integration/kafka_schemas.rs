//! Kafka sources whose messages have schemas: Avro and Protobuf, with a registry and without.

use tests::kafka::Kafka;
use tests::{PgSession, TestServer, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::kafka::{SOON, holds, source, source_is};

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

/// The rows of a query once there are three; nothing for NULL.
async fn three(pg: &PgSession, sql: &str) -> Vec<Vec<String>> {
    let rows = wait::until("three rows", SOON, || async {
        let rows = pg.rows(sql).await.expect("rows");
        (rows.len() == 3).then_some(rows)
    })
    .await;
    let texts = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect();
    rows.into_iter().map(texts).collect()
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
    let rows = three(&pg, sql).await;
    assert_eq!(rows[0], ["-1", "hello", "", "", "0"]);
    let time = "2023-11-14 22:13:20.123+00";
    assert_eq!(rows[1], ["2", "", time, r#"{"a": 4, "b": "b"}"#, "1"]);
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
    let rows = three(&pg, sql).await;
    let time = "2023-11-14 22:13:20.123456+00";
    let more = r#"{"a": 4, "b": "b"}"#;
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
