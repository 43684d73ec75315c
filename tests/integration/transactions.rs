//! Blocks of INSERTs between sessions: what others see of them and when, and what ends them.

use tests::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_rows_before_their_commit() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    one.run("CREATE TABLE kept (a INT)").await;
    one.run("CREATE STREAMING TABLE events (a INT, at TIMESTAMPTZ)")
        .await;
    one.run(
        "CREATE MATERIALIZED VIEW counted AS
         SELECT date_bin('1 minute', at) AS minute, count(*) AS n FROM events GROUP BY 1",
    )
    .await;
    one.run("INSERT INTO events VALUES (0, '2026-01-01 00:00Z')")
        .await;

    one.run("BEGIN").await;
    for a in 1..=20 {
        one.run(&format!("INSERT INTO kept VALUES ({a})")).await;
        one.run(&format!(
            "INSERT INTO events VALUES ({a}, '2026-01-01 00:00Z')"
        ))
        .await;
    }
    let all = "SELECT (SELECT count(*) FROM kept) || ' ' || (SELECT count(*) FROM events)
               || ' ' || (SELECT sum(n) FROM counted)";
    assert_eq!(one.value(all).await, "20 21 21");
    assert_eq!(two.value(all).await, "0 1 1");
    // what the other session does meanwhile is there for both
    two.run("INSERT INTO kept VALUES (100)").await;
    assert_eq!(one.value(all).await, "21 21 21");
    one.run("COMMIT").await;
    assert_eq!(two.value(all).await, "21 21 21");
    assert_eq!(
        two.count("SELECT count(DISTINCT a) FROM kept").await,
        21,
        "each row once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_leaves_nothing() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    one.run("CREATE TABLE kept (a INT)").await;
    one.run("BEGIN").await;
    one.run("INSERT INTO kept VALUES (1)").await;
    drop(one);
    two.run("INSERT INTO kept VALUES (2)").await;
    assert_eq!(two.value("SELECT min(a) FROM kept").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_meanwhile_takes_none_of_the_rows() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    one.run("CREATE TABLE kept (a INT)").await;
    for change in ["ALTER TABLE kept ADD COLUMN b TEXT", "DROP TABLE kept"] {
        one.run("BEGIN").await;
        one.run("INSERT INTO kept (a) VALUES (1)").await;
        two.run(change).await;
        assert_eq!(one.failure("COMMIT").await.state, "40001", "{change}");
        // the block has ended
        assert_eq!(one.value("SELECT 1").await, "1");
        one.run("CREATE TABLE IF NOT EXISTS kept (a INT)").await;
        assert_eq!(one.count("SELECT count(*) FROM kept").await, 0, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_text_is_one_transaction() {
    let server = TestServer::start().await;
    let session = server.connect().await;
    session.run("CREATE TABLE kept (a INT)").await;
    let send = async |sql: &str| session.client().simple_query(sql).await;

    send("INSERT INTO kept VALUES (1); INSERT INTO kept VALUES (2)")
        .await
        .unwrap();
    assert_eq!(session.count("SELECT count(*) FROM kept").await, 2);
    assert_eq!(
        session
            .count("SELECT count(*) FROM kept VERSION AS OF 1")
            .await,
        2,
        "in one commit"
    );
    let failed = send("INSERT INTO kept VALUES (3); SELECT * FROM missing").await;
    assert!(failed.is_err());
    assert_eq!(session.count("SELECT count(*) FROM kept").await, 2);
    // a block that the text begins goes on after it
    send("INSERT INTO kept VALUES (4); BEGIN; INSERT INTO kept VALUES (5)")
        .await
        .unwrap();
    assert_eq!(session.count("SELECT count(*) FROM kept").await, 4);
    session.run("ROLLBACK").await;
    assert_eq!(session.count("SELECT count(*) FROM kept").await, 2);
}
