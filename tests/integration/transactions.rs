//! Transaction blocks between sessions: what others see of them and when, and what ends them.

use proptest::prelude::*;
use tests::{PgSession, TestServer};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_first_to_commit_wins() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    one.run("CREATE TABLE kept (a INT)").await;
    one.run("INSERT INTO kept VALUES (1), (2)").await;
    for session in [&one, &two] {
        session.run("BEGIN").await;
        session.run("UPDATE kept SET a = a + 10").await;
    }
    one.run("COMMIT").await;
    assert_eq!(two.value("SELECT sum(a) FROM kept").await, "23");
    let failed = two.failure("COMMIT").await;
    assert_eq!(failed.state, "40001", "{failed}");
    assert_eq!(two.value("SELECT sum(a) FROM kept").await, "23");

    // rows beside those of others are no conflict
    for session in [&one, &two] {
        session.run("BEGIN").await;
        session.run("INSERT INTO kept VALUES (100)").await;
    }
    one.run("COMMIT").await;
    two.run("COMMIT").await;
    assert_eq!(two.value("SELECT sum(a) FROM kept").await, "223");
}

/// A statement of a block.
#[derive(Debug, Clone)]
enum Step {
    Insert(i32),
    Add(i32, i32),
    Delete(i32),
    Savepoint,
    Back,
    End(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..6i32;
    let step = prop_oneof![
        4 => n().prop_map(Step::Insert),
        2 => (n(), 1..4i32).prop_map(|(at, by)| Step::Add(at, by)),
        2 => n().prop_map(Step::Delete),
        1 => Just(Step::Savepoint),
        1 => Just(Step::Back),
        1 => any::<bool>().prop_map(Step::End),
    ];
    proptest::collection::vec(step, 1..24)
}

/// Runs the steps beside a list of numbers; what the block and another session read is compared after each.
async fn follow(steps: &[Step], one: &PgSession, two: &PgSession) -> Result<(), TestCaseError> {
    let read = "SELECT coalesce(string_agg(a::text, ',' ORDER BY a), '') FROM kept";
    let told = |rows: &[i32]| {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        let texts: Vec<String> = rows.iter().map(ToString::to_string).collect();
        texts.join(",")
    };
    one.run("TRUNCATE kept").await;
    let (mut committed, mut own, mut saved) = (Vec::new(), Vec::new(), None);
    one.run("BEGIN").await;
    for step in steps {
        match step {
            Step::Insert(n) => {
                own.push(*n);
                one.run(&format!("INSERT INTO kept VALUES ({n})")).await;
            }
            Step::Add(at, by) => {
                own.iter_mut().filter(|n| **n == *at).for_each(|n| *n += by);
                one.run(&format!("UPDATE kept SET a = a + {by} WHERE a = {at}"))
                    .await;
            }
            Step::Delete(at) => {
                own.retain(|n| n != at);
                one.run(&format!("DELETE FROM kept WHERE a = {at}")).await;
            }
            Step::Savepoint => {
                saved = Some(own.clone());
                one.run("SAVEPOINT here").await;
            }
            Step::Back => {
                if let Some(saved) = &saved {
                    own.clone_from(saved);
                    one.run("ROLLBACK TO here").await;
                }
            }
            Step::End(commit) => {
                match commit {
                    true => committed.clone_from(&own),
                    false => own.clone_from(&committed),
                }
                saved = None;
                one.run(if *commit { "COMMIT" } else { "ROLLBACK" }).await;
                one.run("BEGIN").await;
            }
        }
        prop_assert_eq!(one.value(read).await, told(&own));
        prop_assert_eq!(two.value(read).await, told(&committed));
    }
    one.run("ROLLBACK").await;
    prop_assert_eq!(one.value(read).await, told(&committed));
    Ok(())
}

#[test]
fn blocks_are_as_a_list_that_is_changed_whole() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, one, two) = runtime.block_on(async {
        let server = TestServer::start().await;
        let (one, two) = (server.connect().await, server.connect().await);
        one.run("CREATE TABLE kept (a INT)").await;
        (server, one, two)
    });
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(follow(&steps, &one, &two))?;
    });
    drop(server);
}
