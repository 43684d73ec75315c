//! Cancel and deadlines hold while a statement runs and while its rows stream.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tests::{PgFailure, TestServer};
use tokio_postgres::NoTls;

/// Long enough to hang the test were it not stopped.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) AS a (i), generate_series(1, 1000000) AS b (j)";
/// Rows without end.
const FLOOD: &str = "SELECT a.i, b.j FROM generate_series(1, 1000000) AS a (i), generate_series(1, 1000000) AS b (j)";
/// A stopped statement must be gone by then.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_is_cancelled() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for sql in [ENDLESS, FLOOD] {
        let token = pg.client().cancel_token();
        let begun = Instant::now();
        let asked = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let rows = async {
            let stream = pg.client().query_raw(sql, Vec::<i32>::new()).await?;
            stream.try_for_each(|_| async { Ok(()) }).await
        };
        let (ended, ()) = tokio::join!(rows, asked);
        let failure = PgFailure::from(ended.unwrap_err());
        assert_eq!(failure.state, "57014", "{failure}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(pg.value("SELECT 1").await, "1", "the session goes on");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_statement() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("SET statement_timeout = '300ms'").await;
    for sql in [ENDLESS, FLOOD] {
        let begun = Instant::now();
        let failure = pg.failure(sql).await;
        assert_eq!(failure.state, "57014", "{failure}");
        assert!(begun.elapsed() < SOON);
    }
    pg.run("SET statement_timeout = 0").await;
    assert_eq!(pg.value("SELECT 1").await, "1");
    server.stop().await;
}

/// A stranger cannot cancel: the key of another session does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_reaches_only_its_own_session() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    let query = one
        .client()
        .query_one("SELECT count(*) FROM generate_series(1, 3000000)", &[]);
    let cancel = async { two.client().cancel_token().cancel_query(NoTls).await };
    let (count, cancelled) = tokio::join!(query, cancel);
    cancelled.unwrap();
    assert_eq!(count.unwrap().get::<_, i64>(0), 3_000_000);
    server.stop().await;
}

/// Who hangs up stops paying: the server can shut down cleanly while the query would run for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_statement() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let gave_up = tokio::time::timeout(Duration::from_millis(300), pg.rows(FLOOD)).await;
    assert!(gave_up.is_err());
    drop(pg);
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Administrators and the role itself stop what runs elsewhere, by the number that `pg_stat_activity` has.
#[tokio::test(flavor = "multi_thread")]
async fn others_statements_and_sessions_are_ended_by_number() {
    let server = TestServer::start().await;
    let admin = server.connect().await;
    for role in ["one", "two"] {
        let password = tests::PASSWORD;
        admin
            .run(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"))
            .await;
    }
    let one = server.connect_as("one", tests::PASSWORD).await;
    let two = server.connect_as("two", tests::PASSWORD).await;
    let pid = one.value("SELECT pg_backend_pid()").await;
    let stop = async |by: &tests::PgSession, function: &str| {
        by.rows(&format!("SELECT {function}({pid})")).await
    };

    // planning and describing do nothing
    admin
        .run(&format!("EXPLAIN SELECT pg_terminate_backend({pid})"))
        .await;
    assert_eq!(one.value("SELECT 1").await, "1");
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let refused = stop(&two, function).await.unwrap_err();
        assert_eq!(refused.state, "42501", "{refused}");
        let own = admin.value("SELECT pg_backend_pid()").await;
        let refused = two.failure(&format!("SELECT {function}({own})")).await;
        assert_eq!(refused.state, "42501", "{refused}");
        let nobody = format!("SELECT {function}(2000000000)");
        assert_eq!(admin.value(&nobody).await, "f");
    }

    let begun = Instant::now();
    let (failure, ()) = tokio::join!(one.failure(ENDLESS), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop(&admin, "pg_cancel_backend").await.unwrap();
    });
    assert_eq!(failure.state, "57014", "{failure}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(one.value("SELECT 1").await, "1", "the session goes on");

    stop(&admin, "pg_terminate_backend").await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'one'";
    tests::wait::until("the session is gone", SOON, || async {
        (admin.count(open).await == 0).then_some(())
    })
    .await;
    assert!(one.rows("SELECT 1").await.is_err());
    server.stop().await;
}
