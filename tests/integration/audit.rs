//! Each statement of each door leaves one audit row.

use tests::{PgSession, TestServer};

async fn rows(pg: &PgSession, like: &str) -> Vec<tests::pg::TextRow> {
    let sql = format!(
        "SELECT door, role, command, outcome, sqlstate FROM weir.audit_log \
         WHERE statement LIKE '%{like}%' AND statement NOT LIKE '%audit_log%' ORDER BY seq"
    );
    pg.rows(&sql).await.unwrap()
}

fn row(door: &str, command: &str, state: Option<&str>) -> tests::pg::TextRow {
    let outcome = if state.is_some() { "error" } else { "ok" };
    let cells = [
        Some(door),
        Some("weir"),
        Some(command),
        Some(outcome),
        state,
    ];
    cells.map(|c| c.map(str::to_owned)).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_is_audited() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE noted (id BIGINT)").await;
    pg.run("INSERT INTO noted VALUES (1)").await;
    pg.client()
        .query("SELECT id FROM noted WHERE id = $1", &[&1i64])
        .await
        .unwrap();
    server
        .flight()
        .await
        .value("SELECT max(id) FROM noted")
        .await;
    server
        .http()
        .sql("SELECT min(id) FROM noted")
        .await
        .unwrap();
    pg.failure("SELECT nope FROM noted").await;
    pg.copy_in("COPY noted FROM STDIN", b"2\n").await.unwrap();

    assert_eq!(
        rows(&pg, "noted").await,
        [
            row("pg", "CREATE STREAMING TABLE", None),
            row("pg", "INSERT", None),
            row("pg", "SELECT", None),
            row("flight", "SELECT", None),
            row("http", "SELECT", None),
            row("pg", "SELECT", Some("42703")),
            row("pg", "COPY", None),
        ]
    );
    let told = server
        .http()
        .send_rows("public", "noted", "{\"id\": 3}\n")
        .await
        .unwrap();
    assert_eq!(told.status, 200);
    let sql = "SELECT count(*) FROM weir.audit_log WHERE door = 'http' AND rows = 1 \
               AND command <> 'SELECT'";
    assert_eq!(pg.count(sql).await, 1, "rows that came without a statement");
    server.stop().await;
}

/// Secrets in statements do not reach the log.
#[tokio::test(flavor = "multi_thread")]
async fn literals_stay_out() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE ROLE someone LOGIN PASSWORD 'swordfish'")
        .await;
    pg.run("CREATE TABLE noted (id INT, v TEXT)").await;
    pg.run("INSERT INTO noted VALUES (123456789, 'swordfish')")
        .await;
    pg.failure("INSERT INTO noted VALUES ('swordfish', 'x')")
        .await;
    pg.failure("SELEC 'swordfish'").await;
    for word in ["swordfish", "123456789"] {
        let rows = pg.rows("SELECT * FROM weir.audit_log").await.unwrap();
        assert!(rows.len() >= 5);
        let text = format!("{rows:?}");
        assert!(!text.contains(word), "{word} is in the audit log");
    }
    server.stop().await;
}
