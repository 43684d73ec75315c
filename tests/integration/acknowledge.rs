//! `acknowledge = 'object'`: an answer at any door means that the Delta table has the rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::{Value, json};
use tests::http::{Answer, HttpSession, NDJSON, answer};
use tests::{PgSession, TestServer, delta, wait};

async fn started(table: &str) -> (TestServer, PgSession) {
    let server = TestServer::configured(|config| {
        config.acknowledge_interval = Duration::from_millis(100);
        config.acknowledge_wait = Duration::from_secs(20);
    })
    .await;
    let pg = server.connect().await;
    pg.run(table).await;
    (server, pg)
}

async fn post(server: &TestServer, key: Option<&str>, body: &str) -> Answer {
    let path = "/v1/tables/public/t/rows";
    let mut request = server.http().post(path).header("content-type", NDJSON);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    answer(request.body(body.to_owned())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_any_door_means_that_storage_has_the_rows() {
    let (server, pg) = started(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL, user_id TEXT) \
         WITH (acknowledge = 'object', flush_interval = '1 hour', segment_write_key = 'wk', \
         dedup_key = 'id')",
    )
    .await;
    let lake = server.delta_location("public", "t");
    pg.run("INSERT INTO t VALUES (1), (2)").await;
    assert_eq!(delta::count(&lake).await, 2, "INSERT");
    pg.copy_in("COPY t (id) FROM STDIN", b"3\n4\n")
        .await
        .unwrap();
    assert_eq!(delta::count(&lake).await, 4, "COPY");
    // a bad row's letter is waited for as well
    let told = post(&server, None, "{\"id\":5}\n{\"id\":null}\n").await;
    assert_eq!((told.status, &told.body["rejected"]), (200, &json!(1)));
    assert_eq!(delta::count(&lake).await, 5, "HTTP");
    let letters = server.dir().join("warehouse/_weir/dead_letters");
    assert_eq!(delta::count(letters.to_str().unwrap()).await, 1);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![6, 7]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let mut flight = server.flight().await;
    flight.put("public", "t", vec![batch]).await.unwrap();
    assert_eq!(delta::count(&lake).await, 7, "Flight");
    let library = HttpSession::new(server.addresses().http, "wk", "");
    let event = json!({"userId": "u", "event": "e", "properties": {"id": 8}});
    let told = answer(library.post("/v1/track").json(&event))
        .await
        .unwrap();
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(delta::count(&lake).await, 8, "Segment");
    // a letter that fits by now
    pg.run("ALTER TABLE t ALTER COLUMN id DROP NOT NULL").await;
    pg.run("REPLAY DEAD LETTERS FOR t").await;
    assert_eq!(delta::count(&lake).await, 9, "REPLAY");
    // back to the log alone
    pg.run("ALTER TABLE t SET (acknowledge = 'local')").await;
    pg.run("INSERT INTO t VALUES (9)").await;
    assert_eq!(delta::count(&lake).await, 9);
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 10);
    // what repeats a row that only the log has waits for that one
    pg.run("ALTER TABLE t SET (acknowledge = 'object')").await;
    pg.run("INSERT INTO t VALUES (9)").await;
    assert_eq!(delta::count(&lake).await, 10, "a duplicate");
    let options = "SELECT options::text FROM weir.tables WHERE table_name = 't'";
    assert!(pg.value(options).await.contains("acknowledge=object"));
    drop(pg);
    server.stop().await;
}

/// Takes a table's log away as long as this lives: no commit succeeds.
struct Outage(PathBuf);

impl Outage {
    fn of(location: &str) -> Self {
        let table = PathBuf::from(location.strip_prefix("file://").unwrap());
        std::fs::rename(table.join("_delta_log"), table.join("gone")).unwrap();
        Self(table)
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        std::fs::rename(self.0.join("gone"), self.0.join("_delta_log")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_out_makes_an_error_and_no_second_row() {
    let server = TestServer::configured(|config| {
        config.acknowledge_interval = Duration::from_millis(50);
        config.acknowledge_wait = Duration::from_millis(700);
    })
    .await;
    let pg = server.connect().await;
    pg.run(
        "CREATE STREAMING TABLE t (id BIGINT NOT NULL) \
         WITH (acknowledge = 'object', flush_interval = '1 hour')",
    )
    .await;
    let lake = server.delta_location("public", "t");
    let outage = Outage::of(&lake);
    let told = post(&server, Some("k"), "{\"id\":1}\n").await;
    assert_eq!(told.status, 504, "{}", told.text);
    assert_eq!(told.body["error"]["code"], "40003");
    let e = pg.rows("INSERT INTO t VALUES (2)").await.unwrap_err();
    assert_eq!(e.state, "40003");
    assert!(e.message.contains("\"public.t\""), "{}", e.message);
    // they are there, and one that is sent again under its key waits, as the first one did
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 2);
    let again = post(&server, Some("k"), "{\"id\":1}\n").await;
    assert_eq!(again.status, 504, "{}", again.text);
    drop(outage);
    // who waits tries again after a pause, which may be longer than this wait
    let again = wait::until("the commit", Duration::from_secs(60), || async {
        let again = post(&server, Some("k"), "{\"id\":1}\n").await;
        (again.status != 504).then_some(again)
    });
    let again = again.await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.body["replayed"], Value::Bool(true));
    assert_eq!(delta::count(&lake).await, 2);
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 2);
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_storage_can_be_cancelled() {
    let (server, pg) = started(
        "CREATE STREAMING TABLE t (id BIGINT) \
         WITH (acknowledge = 'object', flush_interval = '1 hour')",
    )
    .await;
    let lake = server.delta_location("public", "t");
    let outage = Outage::of(&lake);
    pg.run("SET statement_timeout = '300 ms'").await;
    let started = std::time::Instant::now();
    let e = pg.rows("INSERT INTO t VALUES (1)").await.unwrap_err();
    assert_eq!(e.state, "57014", "{}", e.message);
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(outage);
    pg.run("RESET statement_timeout").await;
    pg.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(delta::count(&lake).await, 2);
    drop(pg);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bloom_filters_spare_a_look_at_row_groups() {
    let (server, pg) = started(
        "CREATE STREAMING TABLE t (event_id UUID NOT NULL, user_id TEXT, n BIGINT) \
         WITH (bloom_filter_columns = 'event_id, user_id', acknowledge = 'object')",
    )
    .await;
    for round in 0..3 {
        pg.run(&format!(
            "INSERT INTO t SELECT gen_random_uuid(), 'user ' || (i * 3 + {round})::text, i \
             FROM generate_series(1, 2000) AS g (i)"
        ))
        .await;
    }
    let pruned = async |condition: &str| -> i64 {
        let plan = pg
            .rows(&format!(
                "EXPLAIN ANALYZE SELECT n FROM t WHERE {condition}"
            ))
            .await
            .unwrap();
        let plan: String = plan.into_iter().flatten().flatten().collect();
        let of = "row_groups_pruned_bloom_filter=";
        let at = plan.find(of).unwrap_or_else(|| panic!("{plan}")) + of.len();
        // "3 total → 1 matched"
        let numbers: Vec<i64> = plan[at..]
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .take(2)
            .collect();
        numbers[0] - numbers[1]
    };
    // within the bounds of all three files, in one of them
    assert_eq!(pruned("user_id = 'user 3000'").await, 2);
    let id = pg
        .value("SELECT event_id FROM t WHERE user_id = 'user 3000'")
        .await;
    assert_eq!(pruned(&format!("event_id = '{id}'")).await, 2);
    assert_eq!(
        pg.count(&format!("SELECT count(*) FROM t WHERE event_id = '{id}'"))
            .await,
        1
    );
    // OPTIMIZE keeps them
    pg.run("OPTIMIZE t").await;
    assert_eq!(pruned("user_id = 'user 3000.5'").await, 1);
    assert_eq!(
        pg.count("SELECT count(*) FROM t WHERE user_id = 'user 3000'")
            .await,
        1
    );
    drop(pg);
    server.stop().await;
}
