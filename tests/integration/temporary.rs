//! Temporary tables belong to one session and end with it.

use std::path::Path;
use std::time::Duration;

use tests::{Spawned, TestServer, wait};

const LIMIT: Duration = Duration::from_secs(20);

/// Folders of temporary tables in a warehouse.
fn folders(data: &Path) -> usize {
    let Ok(schemas) = std::fs::read_dir(data.join("warehouse")) else {
        return 0;
    };
    schemas
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("pg_temp_"))
        .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
        .map(Iterator::count)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_do_not_see_each_other() {
    let server = TestServer::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    for (session, word) in [(&one, "one"), (&two, "two")] {
        session
            .run(&format!(
                "CREATE TEMP TABLE mine AS SELECT '{word}' AS word"
            ))
            .await;
    }
    assert_eq!(one.value("SELECT word FROM mine").await, "one");
    assert_eq!(two.value("SELECT word FROM mine").await, "two");
    assert_eq!(folders(server.dir()), 2);

    // not by its name, for a reader, a writer or the catalog, whoever asks
    let schema = one
        .value("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
        .await;
    for sql in [
        format!("SELECT * FROM {schema}.mine"),
        format!("INSERT INTO {schema}.mine VALUES ('two')"),
        format!("DROP TABLE {schema}.mine"),
        format!("CREATE TABLE {schema}.other (a INT)"),
        format!("COPY {schema}.mine TO STDOUT"),
        format!("GRANT SELECT ON {schema}.mine TO PUBLIC"),
    ] {
        assert_eq!(two.failure(&sql).await.state, "0A000", "{sql}");
    }
    two.run(&format!("SET search_path = {schema}")).await;
    assert_eq!(two.failure("SELECT * FROM other").await.state, "0A000");
    two.run("RESET search_path").await;
    for sql in [
        "SELECT count(*) FROM pg_class WHERE relname = 'mine'",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'mine'",
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'mine'",
        "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'pg_temp_%'",
        "SELECT count(*) FROM weir.tables WHERE table_name = 'mine'",
    ] {
        assert_eq!(two.count(sql).await, 1, "{sql}");
    }
    let rows = server
        .http()
        .send_rows(&schema, "mine", "{\"word\": \"http\"}\n")
        .await
        .unwrap();
    assert_ne!(rows.status, 200);
    let failure = server.http().sql("CREATE TEMP TABLE mine (a INT)").await;
    assert_ne!(failure.unwrap().status, 200);

    drop(one);
    wait::until("the first session's table is gone", LIMIT, || async {
        (folders(server.dir()) == 1).then_some(())
    })
    .await;
    assert_eq!(two.value("SELECT word FROM mine").await, "two");
    drop(two);
    let server = server.restart().await;
    assert_eq!(folders(server.dir()), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Spawned::start(Path::new(crate::PROGRAM), dir.path()).await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE kept AS SELECT 1 AS a").await;
    pg.run("CREATE TEMP TABLE lost AS SELECT 2 AS a").await;
    assert_eq!(folders(dir.path()), 1);
    server.kill();

    let server = Spawned::start(Path::new(crate::PROGRAM), dir.path()).await;
    let pg = server.connect().await;
    assert_eq!(folders(dir.path()), 0);
    assert_eq!(pg.value("SELECT a FROM kept").await, "1");
    assert_eq!(pg.failure("SELECT a FROM lost").await.state, "42P01");
    // the first session of before had this one's number
    pg.run("CREATE TEMP TABLE lost AS SELECT 3 AS a").await;
    assert_eq!(pg.value("SELECT a FROM lost").await, "3");
    drop(pg);
    server.stop().await;
}
