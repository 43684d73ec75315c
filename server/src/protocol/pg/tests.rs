//! The door over a real socket, with a backend that answers a few made-up statements.

mod mock;
mod wire;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::error::SqlState as Code;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use mock::{PASSWORD, Server};

async fn server() -> Server {
    Server::start(super::Options::default()).await
}

fn code(e: &tokio_postgres::Error) -> &str {
    e.code().map_or("none", Code::code)
}

/// Rows of a simple query as text, then the tags' row counts.
async fn simple(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut lines = Vec::new();
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<_> = (0..row.len())
                    .map(|i| row.get(i).unwrap_or("NULL").to_owned())
                    .collect();
                lines.push(cells.join("|"));
            }
            SimpleQueryMessage::CommandComplete(n) => lines.push(format!("#{n}")),
            _ => {}
        }
    }
    Ok(lines)
}

#[tokio::test]
async fn login_works_and_settings_are_reported() {
    let server = server().await;
    let (client, connection) = server
        .config("weir", PASSWORD)
        .application_name("app")
        .options("-c TimeZone=Asia/Kolkata")
        .connect(NoTls)
        .await
        .unwrap();
    server.drive(connection);
    assert_eq!(simple(&client, "select 1").await.unwrap(), ["1", "#1"]);
    let row = simple(&client, "types").await.unwrap().remove(0);
    assert_eq!(row.split('|').nth(12), Some("2024-01-02 08:34:05.5+05:30"));
    let settings = server.backend.settings.lock().unwrap().clone();
    assert_eq!(
        settings.get("application_name").map(String::as_str),
        Some("app")
    );
}

#[tokio::test]
async fn failed_logins_are_fatal_and_alike() {
    let server = server().await;
    for (user, password) in [
        ("weir", "wrong"),
        ("nobody", PASSWORD),
        ("nopassword", PASSWORD),
    ] {
        let e = server
            .config(user, password)
            .connect(NoTls)
            .await
            .err()
            .unwrap();
        let db = e.as_db_error().unwrap();
        assert_eq!(db.code().code(), "28P01");
        assert_eq!(db.severity(), "FATAL");
        assert_eq!(
            db.message(),
            format!("password authentication failed for user \"{user}\"")
        );
    }
    let e = server
        .config("group", PASSWORD)
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(code(&e), "28000");
    let e = server
        .config("weir", PASSWORD)
        .dbname("other")
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(code(&e), "3D000");
    let e = server
        .config("weir", PASSWORD)
        .options("-c nonsense=1")
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(
        (code(&e), e.as_db_error().unwrap().severity()),
        ("42704", "FATAL")
    );
    assert_eq!(server.backend.executed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let options = super::Options {
        max_connections: 1,
        ..super::Options::default()
    };
    let server = Server::start(options).await;
    let first = server.connect().await;
    let e = server
        .config("weir", PASSWORD)
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(code(&e), "53300");
    drop(first);
    // the seat is free once the server has seen the first one go
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while server
        .config("weir", PASSWORD)
        .connect(NoTls)
        .await
        .is_err()
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the seat was not given back"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_keeps_what_came_before_an_error() {
    let server = server().await;
    let client = server.connect().await;
    let messages = client
        .simple_query_raw("select 1; series 2; boom; select 1")
        .await
        .unwrap();
    pin_mut!(messages);
    let mut rows = 0;
    let failed = loop {
        match messages.next().await.unwrap() {
            Ok(SimpleQueryMessage::Row(_)) => rows += 1,
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(rows, 3);
    let db = failed.as_db_error().unwrap();
    assert_eq!(
        (db.code().code(), db.message()),
        ("22012", "division by zero")
    );
    assert_eq!((db.detail(), db.hint()), (Some("a detail"), Some("a hint")));
    // the connection goes on
    assert_eq!(simple(&client, "select 1").await.unwrap(), ["1", "#1"]);
    assert_eq!(simple(&client, " ; ").await.unwrap(), ["#0"]); // an empty answer counts as one
    assert_eq!(
        simple(&client, "create; series 3").await.unwrap(),
        ["#0", "0", "1", "2", "#3"]
    );
    let e = client.simple_query("syntax").await.unwrap_err();
    let db = e.as_db_error().unwrap();
    assert_eq!(
        db.position(),
        Some(&tokio_postgres::error::ErrorPosition::Original(3))
    );
    let e = simple(&client, "half").await.unwrap_err();
    assert_eq!(code(&e), "53200");
}

#[tokio::test]
async fn every_type_travels_in_binary() {
    let server = server().await;
    let client = server.connect().await;
    let row = client.query_one("types", &[]).await.unwrap();
    let types: Vec<_> = row.columns().iter().map(|c| c.type_().clone()).collect();
    assert_eq!(types, mock::TYPES);
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), -2);
    assert_eq!(row.get::<_, i32>(2), 3);
    assert_eq!(row.get::<_, i64>(3), 1 << 40);
    assert_eq!(row.get::<_, f32>(4), 1.5);
    assert_eq!(row.get::<_, f64>(5), -0.1);
    assert_eq!(
        row.get::<_, Raw>(6).0,
        [0, 2, 0, 0, 0x40, 0, 0, 2, 0, 123, 0x11, 0x94]
    );
    assert_eq!(row.get::<_, &str>(7), "text");
    assert_eq!(row.get::<_, &str>(8), "vc");
    assert_eq!(row.get::<_, &[u8]>(9), [0, 255]);
    assert_eq!(
        row.get::<_, chrono::NaiveDate>(10).to_string(),
        "2024-01-02"
    );
    assert_eq!(
        row.get::<_, chrono::NaiveDateTime>(11).to_string(),
        "2024-01-02 03:04:05.500"
    );
    assert_eq!(
        row.get::<_, chrono::DateTime<chrono::Utc>>(12).to_rfc3339(),
        "2024-01-02T03:04:05.500+00:00"
    );
    assert_eq!(
        row.get::<_, chrono::NaiveTime>(13).to_string(),
        "03:04:05.500"
    );
    assert_eq!(row.get::<_, uuid::Uuid>(14), uuid::Uuid::from_u128(7));
    assert_eq!(
        row.get::<_, serde_json::Value>(15),
        serde_json::json!({"a": [1]})
    );
    assert_eq!(
        row.get::<_, serde_json::Value>(16),
        serde_json::json!({"n": 1, "t": "x"})
    );
    assert_eq!(row.get::<_, Vec<Option<i32>>>(17), [Some(1), None]);
    assert_eq!(row.get::<_, u32>(18), 4_000_000_000);
    assert_eq!(row.get::<_, &str>(19), "a name");
    assert_eq!(row.get::<_, Option<Raw>>(20).map(|r| r.0.len()), None); // NULL interval stays NULL
    assert_eq!(
        row.get::<_, Raw>(21).0,
        [0, 0, 0, 0, 0, 15, 66, 64, 0, 0, 0, 2, 0, 0, 0, 1]
    );
}

/// A value's bytes, whatever its type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[tokio::test]
async fn parameters_come_back_as_they_went() {
    let server = server().await;
    let client = server.connect().await;
    let bytes = vec![1u8, 2];
    let day = chrono::NaiveDate::from_ymd_opt(1999, 12, 31).unwrap();
    let stamp = chrono::DateTime::from_timestamp(1_000_000_000, 123_456_000).unwrap();
    let values: Vec<(&(dyn ToSql + Sync), Type)> = vec![
        (&true, Type::BOOL),
        (&7i16, Type::INT2),
        (&-7i32, Type::INT4),
        (&70i64, Type::INT8),
        (&0.5f32, Type::FLOAT4),
        (&0.25f64, Type::FLOAT8),
        (&"ünï", Type::TEXT),
        (&bytes, Type::BYTEA),
        (&day, Type::DATE),
        (&stamp, Type::TIMESTAMPTZ),
        (&Option::<i32>::None, Type::INT4),
    ];
    let types: Vec<Type> = values.iter().map(|(_, t)| t.clone()).collect();
    let params: Vec<_> = values.iter().map(|(v, _)| *v).collect();
    let statement = client.prepare_typed("echo", &types).await.unwrap();
    assert_eq!(statement.params(), types);
    let row = client.query_one(&statement, &params).await.unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), 7);
    assert_eq!(row.get::<_, i32>(2), -7);
    assert_eq!(row.get::<_, i64>(3), 70);
    assert_eq!(row.get::<_, f32>(4), 0.5);
    assert_eq!(row.get::<_, f64>(5), 0.25);
    assert_eq!(row.get::<_, &str>(6), "ünï");
    assert_eq!(row.get::<_, &[u8]>(7), [1, 2]);
    assert_eq!(row.get::<_, chrono::NaiveDate>(8), day);
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(9), stamp);
    assert_eq!(row.get::<_, Option<i32>>(10), None);

    let lists = client
        .prepare_typed(
            "echo",
            &[Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::UUID, Type::JSONB],
        )
        .await
        .unwrap();
    let (uuid, json) = (uuid::Uuid::from_u128(9), serde_json::json!({"k": null}));
    let row = client
        .query_one(
            &lists,
            &[&vec![Some(1), None], &vec!["a,b", ""], &uuid, &json],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, Vec<Option<i32>>>(0), [Some(1), None]);
    assert_eq!(row.get::<_, Vec<String>>(1), ["a,b", ""]);
    // uuid and json have no type of their own in an expression: they come back as text
    assert_eq!(row.get::<_, &str>(2), uuid.to_string());
    assert_eq!(row.get::<_, &str>(3), json.to_string());
}

#[tokio::test]
async fn errors_in_the_extended_flow_skip_to_sync() {
    let server = server().await;
    let client = server.connect().await;
    for (sql, expected) in [
        ("boom", "22012"),
        ("syntax", "42601"),
        ("select 1; select 1", "42601"),
    ] {
        let e = client.query(sql, &[]).await.unwrap_err();
        assert_eq!(code(&e), expected);
        assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
    }
    // pipelined: one failure does not touch its neighbours
    let (a, b, c) = tokio::join!(
        client.query("series 3", &[]),
        client.query("boom", &[]),
        client.query("series 2", &[])
    );
    assert_eq!((a.unwrap().len(), c.unwrap().len()), (3, 2));
    assert_eq!(code(&b.unwrap_err()), "22012");
    assert_eq!(client.execute("insert 5", &[]).await.unwrap(), 5);
}

#[tokio::test]
async fn portals_suspend_and_keep_their_stream() {
    let server = server().await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("series 5", &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 2).await.unwrap();
    // another statement between two fetches
    assert_eq!(transaction.query("select 1", &[]).await.unwrap().len(), 1);
    let second = transaction.query_portal(&portal, 2).await.unwrap();
    let third = transaction.query_portal(&portal, 2).await.unwrap();
    let none = transaction.query_portal(&portal, 2).await.unwrap();
    let numbers: Vec<i64> = first
        .iter()
        .chain(&second)
        .chain(&third)
        .map(|row| row.get(0))
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!((first.len(), third.len(), none.len()), (2, 1, 0));
    // asking for all that is left, and for a huge number
    let portal = transaction.bind("series 5", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 1).await.unwrap().len(), 1);
    assert_eq!(
        transaction
            .query_portal(&portal, i32::MAX)
            .await
            .unwrap()
            .len(),
        4
    );
    let kept = transaction.bind("series 5", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&kept, 0).await.unwrap().len(), 5);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn rows_are_not_gathered() {
    let server = server().await;
    let client = server.connect().await;
    let rows = client
        .query_raw("series 100000000", Vec::<i32>::new())
        .await
        .unwrap();
    pin_mut!(rows);
    for _ in 0..5 {
        rows.try_next().await.unwrap().unwrap();
    }
    // a client that does not read on holds the query back
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = server.backend.batches.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(
        before < 50_000,
        "{before} batches were made for a client that does not read"
    );
}

#[tokio::test]
async fn cancel_requests_reach_the_running_statement() {
    let server = server().await;
    let client = server.connect().await;
    for sql in ["sleep", "drip"] {
        let token = client.cancel_token();
        let cancel = async {
            server.backend.running.notified().await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (failed, ()) = tokio::join!(client.simple_query(sql), cancel);
        assert_eq!(code(&failed.unwrap_err()), "57014");
    }
    assert_eq!(simple(&client, "select 1").await.unwrap(), ["1", "#1"]);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_statement() {
    for sql in ["sleep", "drip"] {
        let server = server().await;
        let mut raw = server.raw().await;
        raw.query(sql).await;
        server.backend.running.notified().await;
        drop(raw);
        tokio::time::timeout(Duration::from_secs(10), server.backend.ended.notified())
            .await
            .unwrap_or_else(|_| panic!("{sql} still runs"));
    }
}

#[tokio::test]
async fn copy_in_stores_or_fails_cleanly() {
    let server = server().await;
    let client = server.connect().await;
    let sink = client.copy_in::<_, Bytes>("copy in").await.unwrap();
    pin_mut!(sink);
    sink.send(Bytes::from_static(b"1\ta\n2")).await.unwrap();
    sink.send(Bytes::from_static(b"\tb\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    assert_eq!(server.backend.copied.load(Ordering::SeqCst), 2);

    let sink = client.copy_in::<_, Bytes>("copy in").await.unwrap();
    pin_mut!(sink);
    for _ in 0..100 {
        if sink.send(Bytes::from_static(b"x\ty\n")).await.is_err() {
            break;
        }
    }
    let e = sink.finish().await.unwrap_err();
    assert_eq!(code(&e), "22P02");
    assert_eq!(
        e.as_db_error().unwrap().detail(),
        Some("line 1, column \"n\"")
    );
    assert_eq!(simple(&client, "select 1").await.unwrap(), ["1", "#1"]);

    // dropped before the end: the client says CopyFail
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("copy in").await.unwrap());
    sink.send(Bytes::from_static(b"1\ta\n")).await.unwrap();
    drop(sink);
    assert_eq!(simple(&client, "select 1").await.unwrap(), ["1", "#1"]);
    assert_eq!(server.backend.copied.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn copy_out_streams() {
    let server = server().await;
    let client = server.connect().await;
    let stream = client.copy_out("copy out").await.unwrap();
    let data: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(data.concat(), b"0\n1\n2\n");
    let e = client
        .copy_out("copy out broken")
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert_eq!(code(&e), "53200");
    assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn stopping_tells_idle_clients_and_waits_for_running_ones() {
    let server = server().await;
    let idle = server.connect().await;
    let busy = server.connect().await;
    let running = async {
        let failed = busy.simple_query("sleep").await;
        failed.map(|_| ()).unwrap_err()
    };
    let stop = async {
        server.backend.running.notified().await;
        server.stop.cancel();
        // the idle one is gone while the busy one still runs
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !idle.is_closed() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the idle connection stayed"
            );
            tokio::task::yield_now().await;
        }
        server.backend.cancel.notify_waiters();
    };
    let (failed, ()) = tokio::join!(running, stop);
    assert_eq!(code(&failed), "57014");
    server.ended().await;
}

#[tokio::test]
async fn changed_settings_are_reported_before_ready() {
    let server = server().await;
    let mut raw = server.raw().await;
    raw.query("set zone").await;
    let replies = raw.until_ready().await;
    let kinds: Vec<u8> = replies.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, b"CSZ");
    assert_eq!(replies[1].1, b"TimeZone\0Europe/Berlin\0");
}
