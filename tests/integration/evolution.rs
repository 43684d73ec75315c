//! Keys that a table does not know, and values that do not fit, by the doors that take rows by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tests::{PgSession, TestServer, delta, pg::TextRow};

async fn send(server: &TestServer, table: &str, rows: &[Value]) -> tests::http::Answer {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let sent = server
        .http()
        .send_rows("public", table, lines.join("\n"))
        .await;
    sent.unwrap()
}

async fn accepted(server: &TestServer, table: &str, rows: &[Value]) {
    let answer = send(server, table, rows).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["accepted"], rows.len());
}

fn told(answer: &tests::http::Answer, accepted: usize, rejected: usize) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = (&answer.body["accepted"], &answer.body["rejected"]);
    assert_eq!(
        told,
        (&json!(accepted), &json!(rejected)),
        "{}",
        answer.text
    );
}

/// Position, bytes and code of the letters of a table, in the order of their places.
async fn letters(pg: &PgSession, table: &str) -> Vec<[String; 3]> {
    let sql = format!(
        "SELECT position, convert_from(raw, 'UTF8'), sqlstate FROM weir.dead_letters \
         WHERE table_name = '{table}' AND replayed_at IS NULL ORDER BY position"
    );
    let rows = texts(pg, &sql).await;
    let letter = |row: Vec<Option<String>>| -> [String; 3] {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    };
    rows.into_iter().map(letter).collect()
}

async fn columns(pg: &PgSession, table: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT column_name, data_type FROM information_schema.columns \
         WHERE table_name = '{table}' ORDER BY ordinal_position"
    );
    let rows = pg.rows(&sql).await.unwrap();
    let pair = |mut r: TextRow| (r[0].take().unwrap(), r[1].take().unwrap());
    rows.into_iter().map(pair).collect()
}

async fn texts(pg: &PgSession, sql: &str) -> Vec<Vec<Option<String>>> {
    let rows = pg.rows(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows.into_iter().map(|r| r.into_iter().collect()).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts
        .iter()
        .map(|t| (*t != "NULL").then(|| (*t).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_become_columns_and_columns_become_wider() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, small INT, day DATE) \
         WITH (schema_evolution = 'add', on_violation = 'reject', flush_interval = '1 hour')",
    )
    .await;
    accepted(&server, "t", &[json!({"id": 1, "small": 1})]).await;
    pg.run("FLUSH TABLE t").await;
    accepted(
        &server,
        "t",
        &[
            json!({"id": 2, "n": 5, "f": 0.5, "b": true, "s": "x", "o": {"k": [1]}, "nothing": null}),
            json!({"id": 3, "n": 6, "small": 3_000_000_000_i64}),
        ],
    )
    .await;
    let expected = [
        ("id", "bigint"),
        ("small", "bigint"),
        ("day", "date"),
        ("b", "boolean"),
        ("f", "double precision"),
        ("n", "bigint"),
        ("o", "jsonb"),
        ("s", "text"),
    ];
    let found = columns(&pg, "t").await;
    let found: Vec<_> = found
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    assert_eq!(found, expected);
    let sql = "SELECT id, small, n, f, b, s, o FROM t ORDER BY id";
    let rows = [
        some(&["1", "1", "NULL", "NULL", "NULL", "NULL", "NULL"]),
        some(&["2", "NULL", "5", "0.5", "t", "x", "{\"k\": [1]}"]),
        some(&["3", "3000000000", "6", "NULL", "NULL", "NULL", "NULL"]),
    ];
    assert_eq!(texts(&pg, sql).await, rows);

    // whole numbers become doubles, those become texts; what was there keeps its value
    accepted(&server, "t", &[json!({"id": 4, "n": 0.25})]).await;
    assert_eq!(columns(&pg, "t").await[5].1, "double precision");
    accepted(
        &server,
        "t",
        &[json!({"id": 5, "n": "many"}), json!({"id": 6, "n": 7})],
    )
    .await;
    assert_eq!(columns(&pg, "t").await[5].1, "text");
    let n = texts(&pg, "SELECT n FROM t ORDER BY id").await;
    let n: Vec<_> = n.iter().map(|r| r[0].as_deref()).collect();
    assert_eq!(
        n,
        [
            None,
            Some("5"),
            Some("6"),
            Some("0.25"),
            Some("many"),
            Some("7")
        ]
    );

    // no wider type takes it: refused, and nothing of the request is stored
    let refused = send(
        &server,
        "t",
        &[json!({"id": 7}), json!({"id": 8, "day": "soon"})],
    )
    .await;
    assert_eq!(
        (refused.status, &refused.body["error"]["code"]),
        (400, &json!("22007")),
        "{}",
        refused.text
    );
    for key in ["a b", "", "ID", "_lsn", "_rescued", &"k".repeat(64), "a\nb"] {
        let refused = send(&server, "t", &[json!({"id": 9, key: 1})]).await;
        assert_eq!(refused.status, 400, "{key}: {}", refused.text);
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 6);

    // a view of its columns holds them
    pg.run("CREATE VIEW v AS SELECT * FROM t").await;
    let refused = send(&server, "t", &[json!({"id": 9, "small": 0.5})]).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    accepted(&server, "t", &[json!({"id": 9, "later": 1})]).await;
    assert_eq!(texts(&pg, "SELECT * FROM v WHERE id = 9").await[0].len(), 8);

    // who did it, and when
    let audited = "SELECT statement FROM weir.audit_log WHERE command = 'ALTER TABLE' ORDER BY seq";
    let audited = texts(&pg, audited).await;
    assert_eq!(audited.len(), 4, "{audited:?}");
    assert_eq!(
        audited[3][0].as_deref(),
        Some("ALTER TABLE \"t\" ADD COLUMN \"later\" bigint")
    );
    let history = texts(&pg, "DESCRIBE HISTORY t").await;
    let added = history
        .iter()
        .filter(|r| r[2].as_deref() == Some("ADD COLUMN"));
    assert_eq!(added.count(), 2);

    // an outside reader sees the same
    pg.run("FLUSH TABLE t").await;
    let location = server.delta_location("public", "t");
    let outside = delta::columns(&location).await;
    assert_eq!(outside.len(), 10, "{outside:?}");
    assert_eq!(outside[9], "later");
    let batches = delta::query(&location, "SELECT n FROM t WHERE n IS NOT NULL ORDER BY n").await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);

    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(columns(&pg, "t").await.len(), 9);
    assert_eq!(pg.count("SELECT count(later) FROM t").await, 1);
    server.stop().await;
}

/// What evolution cannot place holds up nobody else, and only good rows make columns.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_place_becomes_a_letter() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let table = "(id BIGINT NOT NULL, n INT, day DATE, CONSTRAINT small CHECK (n < 100))";
    pg.run(&format!(
        "CREATE STREAMING TABLE t {table} WITH (schema_evolution = 'add')"
    ))
    .await;
    let body = [
        r#"{"id":1,"new":1}"#,
        r#"{"id":2,"n":"many"}"#,
        r#"{"id":3,"a b":1}"#,
        r#"{"id":4,"day":"soon","other":2}"#,
        r#"{"id":5,"NEW":1}"#,
        r#"{"id":6,"n":500,"third":1}"#,
        r#"{"id":7,"new":"x"}"#,
        r#"{"id":8,"s":"\ud800"}"#,
        r#"{"id":9,"n":5}"#,
    ];
    let http = server.http();
    let answer = http.send_rows("public", "t", body.join("\n")).await;
    told(&answer.unwrap(), 3, 6);
    let expected = [2, 3, 4, 5, 6, 8].map(|line| {
        let state = ["22P02", "42703", "22007", "42703", "23514", "", "22021"][line - 2];
        [
            format!("line {line}"),
            body[line - 1].to_owned(),
            state.to_owned(),
        ]
    });
    assert_eq!(letters(&pg, "t").await, expected);
    let found = columns(&pg, "t").await;
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "n", "day", "new"]);
    assert_eq!(found[3].1, "text");
    let rows = texts(&pg, "SELECT id, new FROM t ORDER BY id").await;
    assert_eq!(
        rows,
        [some(&["1", "1"]), some(&["7", "x"]), some(&["9", "NULL"])]
    );

    // with nothing but bad rows nothing changes
    let bad = r#"{"id":null,"y":1}
{"id":1,"n":"x","y":1}
"#;
    let answer = server.http().send_rows("public", "t", bad).await.unwrap();
    told(&answer, 0, 2);
    assert_eq!(columns(&pg, "t").await.len(), 4);
    drop(pg);
    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(letters(&pg, "t").await.len(), 8);

    // what would pass is told without a change of the table
    pg.run("ALTER TABLE t DROP CONSTRAINT small").await;
    let only =
        "position IN ('line 2', 'line 3', 'line 4', 'line 5', 'line 6') AND sqlstate <> '23502'";
    let replay = format!("REPLAY DEAD LETTERS FOR t WHERE {only}");
    let dry = texts(&pg, &format!("{replay} DRY RUN")).await;
    assert_eq!(dry, [some(&["3", "3"])]);
    assert_eq!(columns(&pg, "t").await, found);
    assert_eq!(texts(&pg, &replay).await, [some(&["3", "3"])]);
    let now = columns(&pg, "t").await;
    assert_eq!(now[1].1, "text");
    let mut names: Vec<_> = now[4..].iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["third", "y"]);
    pg.run("ALTER TABLE t SET (schema_evolution = 'rescue')")
        .await;
    assert_eq!(texts(&pg, &replay).await, [some(&["3", "0"])]);
    let kept = texts(
        &pg,
        "SELECT id, _rescued FROM t WHERE _rescued IS NOT NULL ORDER BY id",
    )
    .await;
    assert_eq!(kept[0], some(&["3", "{\"a b\": 1}"]));
    assert_eq!(kept.len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_adds_no_columns() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, CHECK (id <> 13)) \
         WITH (schema_evolution = 'add', on_violation = 'reject')",
    )
    .await;
    for bad in [
        json!({"id": 13}),
        json!({"id": 2, "a b": 1}),
        json!({"id": 2, "X": 1}),
    ] {
        let refused = send(&server, "t", &[json!({"id": 1, "x": 1}), bad]).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert_eq!(columns(&pg, "t").await.len(), 1);
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    assert_eq!(letters(&pg, "t").await.len(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_rows_without_a_place_become_letters_too() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for mode in ["add", "rescue"] {
        // what a constraint is about stays as it is; what cannot be NULL cannot be rescued
        pg.run(&format!(
            "CREATE STREAMING TABLE t_{mode} (id BIGINT, n INT NOT NULL, CHECK (n <> 7)) \
             WITH (schema_evolution = '{mode}')"
        ))
        .await;
        let table = format!("t_{mode}");
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let n: ArrayRef = Arc::new(StringArray::from(vec!["5", "six", "7", "8"]));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![None, None, None, Some(0.5)]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("n", n), ("x", x)]).unwrap();
        let mut flight = server.flight().await;
        let told = flight.put("public", &table, vec![batch]).await.unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(
            (&told["accepted"], &told["rejected"]),
            (&json!(2), &json!(2))
        );
        let found = letters(&pg, &table).await;
        let places: Vec<_> = found
            .iter()
            .map(|l| (l[0].as_str(), l[2].as_str()))
            .collect();
        assert_eq!(places, [("row 2", "22P02"), ("row 3", "23514")], "{mode}");
        assert_eq!(found[0][1], "{\"id\":2,\"n\":\"six\",\"x\":null}");
        assert_eq!(pg.value(&format!("SELECT sum(n) FROM {table}")).await, "13");
    }
    server.stop().await;
}

/// A request of nothing but bad rows takes time by its length, not by its square.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rows_without_a_place_is_found_in_time() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, n INT, CHECK (n < 100)) \
         WITH (schema_evolution = 'add')",
    )
    .await;
    let line = |n: usize| match n % 4 {
        0 => format!("{{\"id\":{n},\"n\":\"x{n}\"}}\n"),
        1 => format!("{{\"id\":{n},\"a {n}\":1}}\n"),
        2 => format!("{{\"id\":{n},\"n\":{}}}\n", 100 + n),
        _ => format!("{{\"id\":{n},\"day\":\"\\ud800\"}}\n"),
    };
    let flood: String = (0..40_000).map(line).collect::<String>() + "{\"id\":1,\"good\":1}\n";
    let started = std::time::Instant::now();
    let answer = server.http().send_rows("public", "t", flood).await.unwrap();
    told(&answer, 1, 40_000);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert_eq!(columns(&pg, "t").await.len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_option_rows_with_unknown_keys_are_bad() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT)").await;
    pg.run("CREATE STREAMING TABLE r (id BIGINT) WITH (schema_evolution = 'reject')")
        .await;
    for table in ["t", "r"] {
        let refused = send(&server, table, &[json!({"id": 1, "x": 1})]).await;
        assert_eq!(refused.body["rejected"], json!(1), "{}", refused.text);
        assert_eq!(pg.count(&format!("SELECT count(*) FROM {table}")).await, 0);
        let letters = "SELECT count(*) FROM weir.dead_letters WHERE table_name =";
        assert_eq!(pg.count(&format!("{letters} '{table}'")).await, 1);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_column_is_rescued() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, n INT, at TIMESTAMPTZ) \
         WITH (schema_evolution = 'rescue')",
    )
    .await;
    accepted(
        &server,
        "t",
        &[
            json!({"id": 1, "n": 1}),
            json!({"id": 2, "n": "many", "x": {"y": 1}, "_rescued": 5}),
            json!({"id": 3, "at": "soon", "a b": null}),
        ],
    )
    .await;
    let refused = send(&server, "t", &[json!({"id": "none"})]).await;
    assert_eq!(refused.body["rejected"], json!(1), "{}", refused.text);
    let rows = texts(&pg, "SELECT id, n, at, _rescued FROM t ORDER BY id").await;
    let rescued = |row: usize| -> Value {
        serde_json::from_str(rows[row][3].as_deref().unwrap_or("null")).unwrap()
    };
    assert_eq!(rescued(0), Value::Null);
    assert_eq!(
        rescued(1),
        json!({"n": "many", "x": {"y": 1}, "_rescued": 5})
    );
    assert_eq!(rescued(2), json!({"at": "soon", "a b": null}));

    // Arrow columns too, and single values of one that does not fit
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![4, 5]));
    let n: ArrayRef = Arc::new(StringArray::from(vec!["7", "seven"]));
    let extra: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(0.5)]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("n", n), ("extra", extra)]).unwrap();
    let mut flight = server.flight().await;
    flight.put("public", "t", vec![batch]).await.unwrap();
    let rows = texts(&pg, "SELECT n, _rescued FROM t WHERE id > 3 ORDER BY id").await;
    assert_eq!(rows[0], some(&["7", "NULL"]));
    assert_eq!(rows[1][0], None);
    let kept: Value = serde_json::from_str(rows[1][1].as_deref().unwrap()).unwrap();
    assert_eq!(kept, json!({"n": "seven", "extra": 0.5}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_columns_are_added_by_their_type() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id INT) WITH (schema_evolution = 'add')")
        .await;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 5_000_000_000]));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(0.5)]));
    let none: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>, None]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("x", x), ("none", none)]).unwrap();
    let mut flight = server.flight().await;
    flight.put("public", "t", vec![batch]).await.unwrap();
    let rows = texts(&pg, "SELECT * FROM t ORDER BY id").await;
    assert_eq!(rows, [some(&["1", "NULL"]), some(&["5000000000", "0.5"])]);
    server.stop().await;
}

/// Many writers bring one key at once: one column comes of it, and no row is lost.
#[tokio::test(flavor = "multi_thread")]
async fn many_writers_bring_the_same_keys() {
    let server = Arc::new(TestServer::start().await);
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT) WITH (schema_evolution = 'add', flush_interval = '50 ms')")
        .await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_i64 {
        let server = Arc::clone(&server);
        writers.spawn(async move {
            for n in 0..6_i64 {
                // a type by writer: they meet in the widest
                let value = match (writer + n) % 3 {
                    0 => json!(n),
                    1 => json!(0.5),
                    _ => json!("text"),
                };
                let key = format!("k{n}");
                let mut row = Map::new();
                row.insert("id".to_owned(), json!(writer * 100 + n));
                row.insert(key, value);
                accepted(&server, "t", &[Value::Object(row)]).await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let found = columns(&pg, "t").await;
    assert_eq!(found.len(), 7, "{found:?}");
    assert!(found[1..].iter().all(|(_, ty)| ty == "text"), "{found:?}");
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 48);
    for n in 0..6 {
        let there = format!("SELECT count(k{n}) FROM t");
        assert_eq!(pg.count(&there).await, 8);
    }
    drop(pg);
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_end_at_the_limit() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT) WITH (schema_evolution = 'add')")
        .await;
    let row = |from: usize, to: usize| {
        let keys = (from..to).map(|n| (format!("k{n}"), json!(1)));
        Value::Object(keys.collect())
    };
    accepted(&server, "t", &[row(0, 900)]).await;
    let refused = send(&server, "t", &[row(900, 1000), row(10, 20)]).await;
    told(&refused, 1, 1);
    assert_eq!(columns(&pg, "t").await.len(), 901);
    accepted(&server, "t", &[row(800, 901)]).await;
    server.stop().await;
}

/// Values as JSON of every kind, whose texts are the same however they are written.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-1000_i64..1000).prop_map(|n| json!(n)),
        1 => any::<i64>().prop_map(|n| json!(n)),
        2 => (-4000_i32..4000).prop_map(|n| json!(f64::from(n) / 8.0)),
        1 => any::<bool>().prop_map(|b| json!(b)),
        2 => "[a-zé\"\\\\ ]{0,6}".prop_map(|s| json!(s)),
        1 => Just(Value::Null),
        1 => (0..9_i32).prop_map(|n| json!({"a": [n, "x"]})),
    ]
}

fn row() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof!["[a-f]", Just("n".to_owned()), Just("t".to_owned())];
    proptest::collection::btree_map(key, value(), 0..5).prop_map(|row| row.into_iter().collect())
}

/// One form for a value however it is stored: a number as its number, anything else as its text.
fn normal(text: &str) -> String {
    if let Ok(number) = text.parse::<i128>() {
        return number.to_string();
    }
    match text.parse::<f64>() {
        // a double prints whole numbers without a point; -0 and 0 are different texts
        Ok(number) if number.is_finite() => number.to_string(),
        _ => match text {
            "t" => "true".to_owned(),
            "f" => "false".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn model(rows: &[Map<String, Value>]) -> BTreeMap<(usize, String), String> {
    let mut all = BTreeMap::new();
    for (id, row) in rows.iter().enumerate() {
        for (key, value) in row {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            all.insert((id, key.clone()), normal(&text));
        }
    }
    all
}

/// What was sent is what is read, whatever the keys and the types, through flushes and a restart.
#[tokio::test(flavor = "multi_thread")]
async fn every_key_and_value_is_read_back() {
    let mut runner = TestRunner::deterministic();
    let mut server = TestServer::start().await;
    let pg = server.connect().await;
    for mode in ["add", "rescue"] {
        for case in 0..6 {
            pg.run(&format!(
                "CREATE STREAMING TABLE {mode}_{case} (id BIGINT NOT NULL, n INT, t TEXT) \
                 WITH (schema_evolution = '{mode}')"
            ))
            .await;
        }
    }
    drop(pg);
    let requests = proptest::collection::vec(proptest::collection::vec(row(), 1..6), 1..6);
    let mut sent = BTreeMap::new();
    for mode in ["add", "rescue"] {
        for case in 0..6 {
            let table = format!("{mode}_{case}");
            let requests = requests.new_tree(&mut runner).unwrap().current();
            let pg = server.connect().await;
            let mut all: Vec<Map<String, Value>> = Vec::new();
            for (at, rows) in requests.into_iter().enumerate() {
                let mut lines = Vec::new();
                for row in rows {
                    let mut line = row.clone();
                    line.insert("id".to_owned(), json!(all.len()));
                    lines.push(Value::Object(line));
                    all.push(row);
                }
                if at % 2 == 0 {
                    accepted(&server, &table, &lines).await;
                } else {
                    let path = format!("/v1/tables/public/{table}/rows");
                    let call = server.http().post(&path).json(&lines);
                    let answer = tests::http::answer(call).await.unwrap();
                    assert_eq!(answer.status, 200, "{table}: {}", answer.text);
                }
                if at % 3 == 1 {
                    pg.run(&format!("FLUSH TABLE {table}")).await;
                }
            }
            sent.insert(table, all);
        }
    }
    for round in 0..2 {
        let pg = server.connect().await;
        for (table, rows) in &sent {
            assert_eq!(
                read(&pg, table).await,
                model(rows),
                "round {round}: {table}"
            );
        }
        drop(pg);
        server = server.restart().await;
    }
    server.stop().await;
}

async fn read(pg: &PgSession, table: &str) -> BTreeMap<(usize, String), String> {
    let names = columns(pg, table).await;
    let rows = texts(pg, &format!("SELECT * FROM {table}")).await;
    let mut all = BTreeMap::new();
    for row in rows {
        let id: usize = row[0].as_deref().unwrap().parse().unwrap();
        for ((name, ty), value) in names.iter().zip(&row).skip(1) {
            let Some(value) = value else { continue };
            if name == "_rescued" {
                let kept: Map<String, Value> = serde_json::from_str(value).unwrap();
                for ((_, key), value) in model(&[kept]) {
                    all.insert((id, key), value);
                }
                continue;
            }
            let text = match ty.as_str() {
                "jsonb" => match serde_json::from_str(value).unwrap() {
                    Value::String(text) => text,
                    other => other.to_string(),
                },
                _ => value.clone(),
            };
            all.insert((id, name.clone()), normal(&text));
        }
    }
    all
}
