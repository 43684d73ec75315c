//! Segment's HTTP API: calls, batches with bad events, keys, limits, browsers.

use std::io::Write;

use serde_json::{Value, json};
use tests::TestServer;
use tests::http::{Answer, HttpSession, answer};

const TABLE: &str = "CREATE STREAMING TABLE events (message_id TEXT, type TEXT, event TEXT, \
     user_id TEXT, anonymous_id TEXT, timestamp TIMESTAMPTZ, received_at TIMESTAMPTZ, \
     context JSONB, properties JSONB, amount INT, CHECK (amount >= 0)) \
     WITH (event_time = 'timestamp', dedup_key = 'message_id', segment_write_key = 'wk-1')";

async fn started() -> TestServer {
    let server = TestServer::start().await;
    server.connect().await.run(TABLE).await;
    server
}

fn keyed(server: &TestServer, key: &str) -> HttpSession {
    HttpSession::new(server.addresses().http, key, "")
}

async fn call(http: &HttpSession, call: &str, body: &Value) -> Answer {
    let request = http.post(&format!("/v1/{call}")).json(body);
    answer(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_lands_in_the_table_of_its_key() {
    let server = started().await;
    let http = keyed(&server, "wk-1");
    for (name, body) in [
        (
            "track",
            json!({"userId": "u", "event": "Bought", "properties": {"amount": 3}}),
        ),
        (
            "identify",
            json!({"userId": "u", "traits": {"plan": "pro"}}),
        ),
        ("page", json!({"anonymousId": "a", "name": "Home"})),
        ("screen", json!({"anonymousId": "a", "name": "Main"})),
        ("group", json!({"userId": "u", "groupId": "g"})),
        ("alias", json!({"userId": "u", "previousId": "a"})),
    ] {
        let told = call(&http, name, &body).await;
        assert_eq!(told.status, 200, "{name}: {}", told.text);
        assert_eq!(told.body["success"], true);
        assert_eq!(told.body["accepted"], 1);
        assert!(told.body["token"].is_string());
    }
    let pg = server.connect().await;
    let types = "SELECT string_agg(type, ',' ORDER BY type) FROM events";
    assert_eq!(
        pg.value(types).await,
        "alias,group,identify,page,screen,track"
    );
    let track = "SELECT event || amount::text || properties FROM events WHERE type = 'track'";
    assert_eq!(pg.value(track).await, "Bought3{\"amount\": 3}");
    let plan = "SELECT properties FROM events WHERE type = 'identify'";
    assert_eq!(pg.value(plan).await, "{\"plan\": \"pro\"}");
    let by = "SELECT DISTINCT role FROM weir.audit_log WHERE command = 'INGEST'";
    assert_eq!(pg.value(by).await, "write key of public.events");
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_does_not_reject_its_batch() {
    let server = started().await;
    let http = keyed(&server, "wk-1");
    let event = |id: &str, amount: i64| {
        json!({"type": "track", "userId": "u", "event": "e", "messageId": id,
            "timestamp": "2026-01-01T00:00:00Z", "properties": {"amount": amount}})
    };
    let batch = json!({"sentAt": "2026-01-01T00:01:00Z", "context": {"library": {"name": "test"}}, "batch": [
        event("1", 1), {"type": "track", "userId": "u"}, event("2", -1), event("3", 3),
        {"type": "track", "userId": "u", "event": "e", "properties": {"amount": "much"}},
        event("1", 5), 7, {"type": "track", "userId": "u", "event": "x".repeat(40_000)},
    ]});
    let told = call(&http, "batch", &batch).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let counts = ["accepted", "rejected", "duplicate"].map(|k| told.body[k].as_u64().unwrap());
    assert_eq!(counts, [2, 5, 1], "{}", told.text);
    let errors = told.body["errors"].as_array().unwrap();
    let places: Vec<u64> = errors
        .iter()
        .map(|e| e["index"].as_u64().unwrap())
        .collect();
    assert_eq!(places, [1, 2, 4, 6, 7]);
    assert_eq!(errors[1]["messageId"], "2");
    assert_eq!(errors[1]["code"], "23514");

    // a resent batch stores nothing again
    let again = call(
        &http,
        "batch",
        &json!({"sentAt": "2026-01-01T00:01:00Z", "batch": [event("1", 1), event("3", 3)]}),
    )
    .await;
    assert_eq!(again.body["duplicate"], 2);
    assert_eq!(told.body["dead_letters"], 5);
    let all_bad = call(
        &http,
        "batch",
        &json!({"batch": [{"type": "nonsense", "userId": "u"}]}),
    )
    .await;
    assert_eq!(all_bad.status, 400);
    assert_eq!(all_bad.body["success"], false);
    assert_eq!(all_bad.body["error"]["code"], "22023");
    let pg = server.connect().await;
    assert_eq!(pg.count("SELECT count(*) FROM events").await, 2);
    let library = "SELECT DISTINCT context FROM events";
    assert_eq!(
        pg.value(library).await,
        "{\"library\": {\"name\": \"test\"}}"
    );
    // the client's clock was wrong by months, and the event a minute old when it was sent
    let age = "SELECT max(received_at - timestamp) = INTERVAL '1 minute' FROM events";
    assert_eq!(pg.value(age).await, "t");
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_decides_and_the_limits_hold() {
    let server = started().await;
    let good = json!({"userId": "u", "event": "e"});
    for http in [
        keyed(&server, "wk-2"),
        keyed(&server, "weir"),
        keyed(&server, ""),
    ] {
        let told = call(&http, "track", &good).await;
        assert_eq!(told.status, 401, "{}", told.text);
    }
    let anonymous = keyed(&server, "").post_anonymously("/v1/track").json(&good);
    assert_eq!(answer(anonymous).await.unwrap().status, 401);
    // browsers put the key into the body, as text
    let body = json!({"userId": "u", "event": "e", "writeKey": "wk-1"}).to_string();
    let browser = keyed(&server, "").post_anonymously("/v1/track");
    let browser = browser.header("content-type", "text/plain").body(body);
    let response = browser.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");

    let http = keyed(&server, "wk-1");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(good.to_string().as_bytes()).unwrap();
    let request = http.post("/v1/track").header("content-encoding", "gzip");
    let told = answer(request.body(packed.finish().unwrap()))
        .await
        .unwrap();
    assert_eq!(told.status, 200, "{}", told.text);

    let large = json!({"userId": "u", "event": "e".repeat(600 << 10)});
    assert_eq!(call(&http, "track", &large).await.status, 413);
    assert_eq!(call(&http, "import", &good).await.status, 404);
    let broken = http.post("/v1/batch").body("{\"batch\": 5}");
    assert_eq!(answer(broken).await.unwrap().status, 400);
    let broken = http.post("/v1/track").body("{");
    assert_eq!(answer(broken).await.unwrap().status, 400);

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/track", server.addresses().http);
    let preflight = client.request(reqwest::Method::OPTIONS, url);
    let response = preflight.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");

    // the key opens nothing else
    let rows = http.send_rows("public", "events", "{}").await.unwrap();
    assert_eq!(rows.status, 401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_unique_secret_and_can_be_changed() {
    let server = started().await;
    let pg = server.connect().await;
    let second = "CREATE STREAMING TABLE other (user_id TEXT) WITH (segment_write_key = 'wk-1')";
    assert_eq!(pg.failure(second).await.state, "23505");
    pg.run("CREATE STREAMING TABLE other (user_id TEXT) WITH (segment_write_key = 'wk-2')")
        .await;
    let taken = pg
        .failure("ALTER TABLE other SET (segment_write_key = 'wk-1')")
        .await;
    assert_eq!(taken.state, "23505");
    pg.run("ALTER TABLE other SET (segment_write_key = 'wk-3')")
        .await;
    for sql in [
        "SELECT options::text FROM weir.tables",
        "SELECT reloptions::text FROM pg_class WHERE relname IN ('events', 'other')",
        "SELECT statement FROM weir.audit_log",
    ] {
        for row in pg.rows(sql).await.unwrap() {
            let text = format!("{row:?}");
            assert!(
                !text.contains("wk-") && !text.contains("sha256"),
                "{sql}: {text}"
            );
        }
    }
    drop(pg);
    let server = server.restart().await;
    let told = call(&keyed(&server, "wk-3"), "page", &json!({"userId": "u"})).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let told = call(&keyed(&server, "wk-2"), "page", &json!({"userId": "u"})).await;
    assert_eq!(told.status, 401);
    // what has no column is refused, not lost
    let lost = json!({"userId": "u", "event": "e", "properties": {"a": 1}});
    let told = call(&keyed(&server, "wk-3"), "track", &lost).await;
    assert_eq!(
        (told.status, &told.body["error"]["code"]),
        (400, &"42703".into())
    );
    server.stop().await;
}

/// Position, code and bytes of the letters of a door.
async fn letters(pg: &tests::PgSession) -> Vec<[String; 3]> {
    let sql = "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM weir.dead_letters \
               WHERE door = 'segment' AND format = 'segment' AND replayed_at IS NULL ORDER BY position";
    let letter = |row: tests::pg::TextRow| -> [String; 3] {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    };
    pg.rows(sql)
        .await
        .unwrap()
        .into_iter()
        .map(letter)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_event_becomes_a_letter_and_can_be_replayed() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE events (message_id TEXT, type TEXT, event TEXT, user_id TEXT, \
         ts TIMESTAMPTZ, received_at TIMESTAMPTZ, context JSONB, amount INT, \
         CONSTRAINT positive CHECK (amount >= 0)) \
         WITH (event_time = 'ts', dedup_key = 'message_id', segment_write_key = 'wk-1')",
    )
    .await;
    let http = keyed(&server, "wk-1");
    let event = |id: &str, properties: Value| {
        json!({"type": "track", "userId": "u", "event": "e", "messageId": id,
            "timestamp": "2026-01-01T00:00:00Z", "properties": properties})
    };
    let mut late = event("4", json!({}));
    late["timestamp"] = json!("soon");
    let events = [
        event("1", json!({"amount": 1})),
        json!(7),
        json!({"userId": "u"}),
        late,
        event("5", json!({"size": 2})),
        event("6", json!({"amount": -1})),
        event("7", json!({"amount": "much"})),
        json!({"type": "nonsense", "userId": "u"}),
        json!({"type": "track", "userId": "u", "event": "x".repeat(40_000)}),
    ];
    let batch =
        json!({"sentAt": "2026-01-01T00:01:00Z", "context": {"ip": "::1"}, "batch": events});
    let told = call(&http, "batch", &batch).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let counts = ["accepted", "rejected", "dead_letters"];
    assert_eq!(
        counts.map(|k| told.body[k].as_u64().unwrap()),
        [1, 8, 8],
        "{}",
        told.text
    );
    let codes = told.body["errors"].as_array().unwrap().iter();
    let codes: Vec<_> = codes
        .map(|e| (e["index"].as_u64().unwrap(), e["code"].clone()))
        .collect();
    let expected = [
        (2, "22023"),
        (3, "22023"),
        (4, "22007"),
        (5, "42703"),
        (6, "23514"),
        (7, "22P02"),
        (8, "22023"),
        (9, "54000"),
    ];
    let of = expected.map(|(at, code): (usize, &str)| {
        [
            format!("event {at}"),
            code.to_owned(),
            events[at - 1].to_string(),
        ]
    });
    assert_eq!(letters(&pg).await, of);
    let expected = expected.map(|(at, code)| (at as u64 - 1, json!(code)));
    assert_eq!(codes, expected);
    assert_eq!(told.body["errors"][4]["messageId"], "6");

    // an event alone, and one that nobody could be told of but by the answer
    let told = call(&http, "track", &json!({"event": "e"})).await;
    assert_eq!((told.status, &told.body["dead_letters"]), (400, &json!(1)));
    let broken = http.post("/v1/track").body("{");
    assert_eq!(answer(broken).await.unwrap().status, 400);
    assert_eq!(letters(&pg).await.len(), 9);
    assert_eq!(letters(&pg).await[0][0], "event 1");
    let by = "SELECT DISTINCT door FROM weir.audit_log WHERE command = 'INGEST'";
    assert_eq!(pg.value(by).await, "segment");
    drop(pg);

    let server = server.restart().await;
    let pg = server.connect().await;
    pg.run("ALTER TABLE events ADD COLUMN size INT").await;
    pg.run("ALTER TABLE events DROP CONSTRAINT positive").await;
    let replayed = pg.rows("REPLAY DEAD LETTERS FOR events").await.unwrap();
    let counts: Vec<_> = replayed[0].iter().flatten().cloned().collect();
    assert_eq!(counts, ["3", "6"]);
    // as if they had been good at once
    let sql = "SELECT message_id, size, amount, context FROM events WHERE ts = received_at - INTERVAL '1 minute' \
               AND message_id IS NOT NULL ORDER BY message_id";
    let rows = pg.rows(sql).await.unwrap();
    let rows: Vec<String> = rows
        .into_iter()
        .map(|r| {
            r.into_iter()
                .map(|c| c.unwrap_or("-".into()))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    let ip = "{\"ip\": \"::1\"}";
    let expected = ["1|-|1", "5|2|-", "6|-|-1"].map(|row| format!("{row}|{ip}"));
    assert_eq!(rows, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_keeps_no_letters_says_so() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE events (user_id TEXT, amount INT) \
         WITH (segment_write_key = 'wk-1', on_violation = 'reject')",
    )
    .await;
    let event = |amount: Value| json!({"type": "track", "userId": "u", "event": "e", "properties": {"amount": amount}});
    let batch = json!({"batch": [event(json!(1)), 7, event(json!("x")), event(json!(2))]});
    let told = call(&keyed(&server, "wk-1"), "batch", &batch).await;
    let counts = ["accepted", "rejected", "dead_letters"];
    assert_eq!(
        counts.map(|k| told.body[k].as_u64().unwrap()),
        [2, 2, 0],
        "{}",
        told.text
    );
    assert_eq!(pg.count("SELECT count(*) FROM weir.dead_letters").await, 0);
    assert_eq!(pg.count("SELECT count(*) FROM events").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_become_columns_or_are_rescued() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for (mode, key) in [("add", "wk-1"), ("rescue", "wk-2")] {
        pg.run(&format!(
            "CREATE STREAMING TABLE t_{mode} (type TEXT, user_id TEXT, amount INT, CHECK (amount >= 0)) \
             WITH (schema_evolution = '{mode}', segment_write_key = '{key}')"
        ))
        .await;
    }
    let events = json!({"context": {"ip": "::1", "app": {"name": "a"}}, "batch": [
        {"type": "track", "userId": "u", "event": "e", "properties": {"amount": 1, "orderTotal": 9.5, "type": "x"}},
        {"type": "identify", "userId": "u", "traits": {"plan": "pro", "tags": ["a"]}, "shoeSize": 44},
        {"type": "track", "userId": "u", "event": "e", "properties": {"amount": -1, "never": 1}},
        {"type": "track", "userId": "u", "event": "e", "properties": {"x".repeat(64): 1}},
    ]});
    let told = call(&keyed(&server, "wk-1"), "batch", &events).await;
    let counts = ["accepted", "rejected", "dead_letters"].map(|k| told.body[k].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 2], "{}", told.text);
    let columns = "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_name) \
                   FROM information_schema.columns WHERE table_name = 't_add'";
    assert_eq!(
        pg.value(columns).await,
        "amount integer, context_app_name text, context_ip text, order_total double precision, \
         plan text, properties_type text, shoe_size bigint, tags jsonb, type text, user_id text"
    );
    let row = "SELECT order_total || plan || properties_type || shoe_size || context_ip || context_app_name \
               FROM (SELECT max(order_total) AS order_total, max(plan) AS plan, max(shoe_size) AS shoe_size, \
               max(properties_type) AS properties_type, min(context_ip) AS context_ip, \
               min(context_app_name) AS context_app_name FROM t_add) t";
    assert_eq!(pg.value(row).await, "9.5prox44::1a");
    // the columns are found again, whatever the case
    let again = json!({"userId": "u", "event": "e", "properties": {"Order Total": 3}});
    assert_eq!(
        call(&keyed(&server, "wk-1"), "track", &again).await.body["accepted"],
        1
    );
    assert_eq!(pg.value("SELECT sum(order_total) FROM t_add").await, "12.5");

    let told = call(&keyed(&server, "wk-2"), "batch", &events).await;
    let counts = ["accepted", "rejected", "dead_letters"].map(|k| told.body[k].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 1], "{}", told.text);
    let kept = "SELECT _rescued FROM t_rescue WHERE type = 'identify'";
    let kept: Value = serde_json::from_str(&pg.value(kept).await).unwrap();
    let expected = json!({"plan": "pro", "tags": ["a"], "shoe_size": 44, "context_ip": "::1", "context_app_name": "a"});
    assert_eq!(kept, expected);
    server.stop().await;
}
