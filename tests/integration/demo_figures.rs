//! The shipped demo SQL over the shipped data gives the published figures.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tests::{PgSession, TestServer};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("sql/demo")
}

fn data(path: &str) -> String {
    let file = std::fs::File::open(demo().join("data").join(path)).unwrap();
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

async fn run_file(pg: &PgSession, name: &str) {
    let sql = std::fs::read_to_string(demo().join(name)).unwrap();
    pg.run(&sql).await;
}

/// The clickstream as the HTTP door takes it.
fn events_as_ndjson() -> Vec<String> {
    let text = data("ecom_clickstream/ecom.csv.gz");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let line = |values: &str| {
        let pairs = names
            .iter()
            .zip(values.split(','))
            .map(|(name, value)| match *name {
                "timestamp" => (
                    "ts".to_owned(),
                    format!("{}Z", value.replace(' ', "T")).into(),
                ),
                name => (name.to_owned(), serde_json::Value::from(value)),
            });
        serde_json::Value::Object(pairs.collect()).to_string() + "\n"
    };
    lines.map(line).collect()
}

/// `customer_id date cds dollars` between spaces → CSV.
fn purchases_as_csv() -> String {
    let text = data("cdnow/CDNOW_master.txt.gz");
    let rows = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 4)
        .map(|row| row.join(",") + "\n")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clickstream_has_its_sessions() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for file in [
        "01_events.sql",
        "02_sessions.sql",
        "03_features.sql",
        "04_funnel.sql",
    ] {
        run_file(&pg, file).await;
    }
    let http = server.http();
    let events = events_as_ndjson();
    for lines in events.chunks(5000) {
        let told = http
            .send_rows("public", "events", lines.concat())
            .await
            .unwrap();
        assert_eq!(told.status, 200, "{}", told.text);
    }
    assert_eq!(pg.count("SELECT count(*) FROM events").await, 31_106);
    assert_eq!(pg.count("SELECT count(*) FROM sessions").await, 3_605);
    // The sessions found are those that the shop marked.
    let marked = "SELECT count(*) FROM (SELECT DISTINCT user_id, session_id FROM events) AS m";
    assert_eq!(pg.count(marked).await, 3_605);
    assert_eq!(pg.count("SELECT count(*) FROM user_features").await, 600);
    assert_eq!(
        pg.count("SELECT sum(purchases) FROM user_features").await,
        470
    );
    assert_eq!(pg.count("SELECT sum(events) FROM sessions").await, 31_106);
    assert_eq!(
        pg.count("SELECT count(*) FROM checkout_funnel WHERE step = 0")
            .await,
        2
    );
    assert_eq!(
        pg.count("SELECT count(*) FROM checkout_funnel WHERE step >= 2")
            .await,
        480
    );

    for file in ["05_purchases.sql", "07_governance.sql"] {
        run_file(&pg, file).await;
    }
    let tokens = "SELECT count(DISTINCT user_token) FROM events_pseudonymous";
    assert_eq!(pg.count(tokens).await, 600);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_purchases_have_their_total() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    run_file(&pg, "05_purchases.sql").await;
    let csv = purchases_as_csv();
    let copied = pg
        .copy_in(
            "COPY purchases FROM STDIN WITH (FORMAT csv)",
            csv.as_bytes(),
        )
        .await;
    assert_eq!(copied.unwrap(), 69_659);
    assert_eq!(
        pg.value("SELECT sum(amount) FROM purchases").await,
        "2500315.63"
    );
    assert_eq!(pg.count("SELECT count(*) FROM customers").await, 23_570);
    assert_eq!(
        pg.value("SELECT sum(spent) FROM customers").await,
        "2500315.63"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_churn_model_ranks_well() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let sql = std::fs::read_to_string(demo().join("06_churn.sql")).unwrap();
    // The table first, then its rows, then what is made from them.
    let (table, rest) = sql
        .split_once("-- COPY telco")
        .expect("where the rows come in");
    let rest = rest.split_once('\n').unwrap().1;
    pg.run(table).await;
    let csv = data("telco_churn/telco_churn.csv.gz");
    let copy = "COPY telco FROM STDIN WITH (FORMAT csv, HEADER)";
    assert_eq!(pg.copy_in(copy, csv.as_bytes()).await.unwrap(), 7_043);
    pg.run(rest).await;
    assert_eq!(pg.count("SELECT count(*) FROM churn_scores").await, 1_408);
    let auc = "SELECT auc FROM ml_evaluate('churn', 'churn_holdout')";
    let auc: f64 = pg.value(auc).await.parse().unwrap();
    assert!(auc >= 0.83, "AUC {auc}");

    // The same figure from the scores themselves: pairs of a leaver and a stayer in the right order.
    let pairs = "SELECT avg(CASE WHEN l.risk > s.risk THEN 1e0 WHEN l.risk = s.risk THEN 5e-1 ELSE 0e0 END) \
                 FROM churn_scores AS l, churn_scores AS s WHERE l.churned AND NOT s.churned";
    let ranked: f64 = pg.value(pairs).await.parse().unwrap();
    assert!(
        (ranked - auc).abs() < 1e-6,
        "{ranked} by hand, {auc} by ml_evaluate"
    );
    server.stop().await;
}
