//! A clean restart keeps everything.

use tests::{PgSession, TestServer};

const MADE: &[&str] = &[
    "CREATE TABLE plain (id INT NOT NULL, v TEXT DEFAULT 'none', CHECK (id > 0))",
    "INSERT INTO plain (id) VALUES (1), (2)",
    "CREATE STREAMING TABLE stream (k TEXT, n BIGINT, at TIMESTAMPTZ) WITH (flush_interval = '1 hour')",
    "INSERT INTO stream VALUES ('a', 1, '2026-01-01 00:00:00+00'), ('b', 2, NULL)",
    "FLUSH TABLE stream",
    "CREATE MATERIALIZED VIEW sums AS SELECT k, sum(n) AS n FROM stream GROUP BY k",
    "REFRESH MATERIALIZED VIEW sums",
    "INSERT INTO stream VALUES ('a', 10, NULL)",
    "CREATE VIEW doubled AS SELECT k, n * 2 AS n FROM sums",
    "CREATE SECRET key TYPE tokenization",
    "CREATE ROLE analyst LOGIN PASSWORD 'analyst password'",
    "GRANT SELECT ON doubled TO analyst",
    "CREATE TABLE points AS SELECT i::float8 AS x, i > 10 AS y FROM generate_series(1, 20) AS g (i)",
    "CREATE MODEL m TYPE logistic_regression WITH (target = 'y', seed = 1) AS SELECT y, x FROM points",
];

const ASKED: &[&str] = &[
    "SELECT * FROM plain ORDER BY id",
    "SELECT * FROM stream ORDER BY k, n",
    "SELECT count(*), count(DISTINCT _lsn), max(_lsn) FROM stream",
    "SELECT * FROM sums ORDER BY k",
    "SELECT * FROM doubled ORDER BY k",
    "SELECT hash_token('someone', 'key')",
    "SELECT predict_proba('m', 10.0)",
    "SELECT count(*) FROM weir.lineage_edges",
    "SELECT count(*) FROM plain VERSION AS OF 0",
];

async fn answers(pg: &PgSession) -> Vec<Vec<tests::pg::TextRow>> {
    let mut all = Vec::new();
    for sql in ASKED {
        all.push(pg.rows(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_again() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for sql in MADE {
        pg.run(sql).await;
    }
    let before = answers(&pg).await;
    let audited = pg.count("SELECT count(*) FROM weir.audit_log").await;
    drop(pg);

    let mut server = server.restart().await;
    for round in 0..2 {
        let pg = server.connect().await;
        for (sql, (now, then)) in ASKED.iter().zip(answers(&pg).await.iter().zip(&before)) {
            assert_eq!(now, then, "round {round}: {sql}");
        }
        assert!(pg.count("SELECT count(*) FROM weir.audit_log").await >= audited);
        let analyst = server.connect_as("analyst", "analyst password").await;
        assert_eq!(
            analyst.rows("SELECT * FROM doubled").await.unwrap().len(),
            2
        );
        assert_eq!(analyst.failure("SELECT * FROM stream").await.state, "42501");
        assert_eq!(
            pg.failure("INSERT INTO plain (id) VALUES (0)").await.state,
            "23514"
        );
        drop((pg, analyst));
        server = server.restart().await;
    }

    // The log goes on above what it gave out before.
    let pg = server.connect().await;
    let highest = pg.count("SELECT max(_lsn) FROM stream").await;
    pg.run("INSERT INTO stream VALUES ('c', 3, NULL)").await;
    assert!(pg.count("SELECT _lsn FROM stream WHERE k = 'c'").await > highest);
    assert_eq!(pg.count("SELECT sum(n) FROM sums").await, 16);
    server.stop().await;
}
