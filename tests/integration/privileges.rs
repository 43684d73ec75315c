//! A new role may do nothing, on no wire, in no statement form.

use tests::flight::FlightSession;
use tests::http::HttpSession;
use tests::{PgSession, TestServer};

const PASSWORD: &str = "nobody's business";

async fn started() -> (TestServer, PgSession, PgSession) {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for sql in [
        "CREATE TABLE kept (id INT, secret TEXT)",
        "INSERT INTO kept VALUES (1, 'hidden')",
        "CREATE STREAMING TABLE stream (id BIGINT)",
        "CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM stream",
        "CREATE VIEW v AS SELECT id FROM kept",
        &format!(
            "CREATE ROLE guest LOGIN PASSWORD '{}'",
            PASSWORD.replace('\'', "''")
        ),
    ] {
        pg.run(sql).await;
    }
    let guest = server.connect_as("guest", PASSWORD).await;
    (server, pg, guest)
}

const REFUSED: &[&str] = &[
    "SELECT * FROM kept",
    "SELECT 1 FROM kept WHERE false",
    "SELECT count(*) FROM stream",
    "SELECT * FROM mv",
    "SELECT * FROM v",
    "SELECT (SELECT max(id) FROM kept)",
    "SELECT * FROM kept VERSION AS OF 0",
    "WITH k AS (SELECT * FROM kept) SELECT 1",
    "EXPLAIN SELECT * FROM kept",
    "EXPLAIN ANALYZE SELECT * FROM kept",
    "DESCRIBE HISTORY kept",
    "INSERT INTO kept VALUES (2, 'x')",
    "INSERT INTO stream VALUES (2)",
    "UPDATE kept SET secret = 'x'",
    "DELETE FROM kept",
    "UPDATE kept SET secret = o.secret FROM kept AS o WHERE o.id = kept.id",
    "DELETE FROM kept USING kept AS o WHERE o.id = kept.id",
    "TRUNCATE kept",
    "MERGE INTO kept USING (SELECT 1 AS id) s ON kept.id = s.id WHEN MATCHED THEN DELETE",
    "DROP TABLE kept",
    "DROP VIEW v",
    "DROP MATERIALIZED VIEW mv",
    "REFRESH MATERIALIZED VIEW mv",
    "FLUSH TABLE stream",
    "CREATE VIEW mine AS SELECT * FROM kept",
    "CREATE MATERIALIZED VIEW mine AS SELECT count(*) AS n FROM stream",
    "CREATE TABLE mine AS SELECT * FROM kept",
    "CREATE MODEL mine TYPE kmeans WITH (k = 1) AS SELECT id FROM kept",
    "CREATE ROLE friend",
    "DROP ROLE weir",
    "GRANT SELECT ON kept TO guest",
    "SET ROLE weir",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_new_role_may_do_nothing() {
    let (server, pg, guest) = started().await;
    for sql in REFUSED {
        let failure = guest.failure(sql).await;
        assert_eq!(failure.state, "42501", "{sql}: {failure}");
        assert!(!failure.to_string().contains("hidden"), "{sql}: {failure}");
        let prepared = guest.client().prepare(sql).await;
        let refused = match prepared {
            Ok(statement) => guest.client().execute(&statement, &[]).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "prepared: {sql}");
    }
    for sql in ["COPY kept FROM STDIN", "COPY stream FROM STDIN"] {
        assert_eq!(
            guest.copy_in(sql, b"1\n").await.unwrap_err().state,
            "42501",
            "{sql}"
        );
    }
    for sql in ["COPY kept TO STDOUT", "COPY (SELECT * FROM kept) TO STDOUT"] {
        assert_eq!(
            guest.copy_out(sql).await.unwrap_err().state,
            "42501",
            "{sql}"
        );
    }
    assert_eq!(
        guest.value("SELECT 1").await,
        "1",
        "what touches nothing is allowed"
    );

    let at = server.addresses();
    let mut flight = FlightSession::open(at.flight, "guest", PASSWORD)
        .await
        .unwrap();
    for sql in REFUSED {
        assert!(flight.query(sql).await.is_err(), "flight: {sql}");
    }
    let http = HttpSession::new(at.http, "guest", PASSWORD);
    for sql in REFUSED {
        assert_eq!(http.sql(sql).await.unwrap().status, 403, "http: {sql}");
    }
    let told = http
        .send_rows("public", "stream", "{\"id\": 1}\n")
        .await
        .unwrap();
    assert_eq!(told.status, 403, "{}", told.text);

    assert_eq!(
        pg.count("SELECT count(*) FROM kept WHERE secret = 'hidden'")
            .await,
        1
    );
    assert_eq!(pg.count("SELECT count(*) FROM stream").await, 0);
    server.stop().await;
}

/// Grants work at once, in sessions that are already open, and so does taking them away.
#[tokio::test(flavor = "multi_thread")]
async fn grants_reach_open_sessions() {
    let (server, pg, guest) = started().await;
    let prepared_before = guest.client().prepare("SELECT count(*) FROM v").await;
    assert!(prepared_before.is_err());
    pg.run("GRANT SELECT ON v TO guest").await;
    assert_eq!(guest.count("SELECT count(*) FROM v").await, 1);
    let statement = guest
        .client()
        .prepare("SELECT count(*) FROM v")
        .await
        .unwrap();
    assert_eq!(
        guest
            .client()
            .query_one(&statement, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        1
    );
    pg.run("REVOKE SELECT ON v FROM guest").await;
    assert_eq!(guest.failure("SELECT count(*) FROM v").await.state, "42501");
    assert!(
        guest.client().query_one(&statement, &[]).await.is_err(),
        "a prepared statement too"
    );
    server.stop().await;
}
