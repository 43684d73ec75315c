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
    assert_eq!(pg.value(track).await, "Bought3{\"amount\":3}");
    let plan = "SELECT properties FROM events WHERE type = 'identify'";
    assert_eq!(pg.value(plan).await, "{\"plan\":\"pro\"}");
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
    assert_eq!(pg.value(library).await, "{\"library\":{\"name\":\"test\"}}");
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
