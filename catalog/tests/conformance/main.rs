//! One suite that holds every catalog backend to the same behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod model;
mod postgres;
mod suite;

use std::sync::Arc;

use catalog::Store;
use catalog::store::{PostgresStore, SqliteStore, open};
use proptest::test_runner::{Config, TestRunner};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    suite::run(async || {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("catalog.db")).await;
        (Arc::new(store.unwrap()) as Arc<dyn Store>, dir)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    let Some(server) = postgres::Server::start() else {
        // the embedded backend is held to the same suite above
        eprintln!("skipped: no PostgreSQL server binaries on this machine");
        return;
    };
    suite::run(async || {
        let url = server.fresh_database().await;
        let store = PostgresStore::open(&url).await.unwrap();
        (Arc::new(store) as Arc<dyn Store>, ())
    })
    .await;

    // two servers may open the same database, also at the same time
    let url = server.fresh_database().await;
    let (a, b) = tokio::join!(open(&url), open(&url));
    let (a, b) = (a.unwrap(), b.unwrap());
    suite::two_handles(&*a, &*b).await;
    a.close().await;
    b.close().await;

    let url = server.fresh_database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    check_against_model(Arc::new(store), 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_matches_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("catalog.db"))
        .await
        .unwrap();
    check_against_model(Arc::new(store), 24).await;
}

/// Random transactions on a store and on the naive model give the same answers and the same state.
/// Cases run one after the other on one store: each starts from what the one before left.
async fn check_against_model(store: Arc<dyn Store>, cases: u32) {
    let runtime = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Config::default()
        });
        runner
            .run(&model::transactions(), |steps| {
                runtime.block_on(model::compare(&*store, &steps))
            })
            .unwrap();
        runtime.block_on(store.close());
    });
    checked.await.unwrap();
}

#[tokio::test]
async fn a_file_is_private_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let store = open(path.to_str().unwrap()).await.unwrap();
    let first = store.allocate_oid().await.unwrap();
    let role = suite::role(first, "kept");
    let before = store
        .commit(vec![catalog::Change::PutRole(role)])
        .await
        .unwrap();
    store.append_audit(vec![suite::audit("one")]).await.unwrap();
    store.close().await;

    #[cfg(unix)]
    for file in std::fs::read_dir(dir.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            file.path()
        );
    }

    let store = open(path.to_str().unwrap()).await.unwrap();
    let after = store.load().await.unwrap();
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.roles, before.roles);
    assert!(store.allocate_oid().await.unwrap() > first);
    store.append_audit(vec![suite::audit("two")]).await.unwrap();
    let log = store.audit(0, 10).await.unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(catalog::store::audit_chain::verify(&log), Ok(()));
    store.close().await;
}

#[tokio::test]
async fn a_newer_catalog_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999999, 'from the future', 1, x'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let refused = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(refused, catalog::CatalogError::Migration(_)));
}

#[tokio::test]
async fn what_is_not_a_catalog_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    std::fs::write(
        &path,
        b"not a database, but long enough to have a header of its own",
    )
    .unwrap();
    SqliteStore::open(&path).await.unwrap_err();
    SqliteStore::open(dir.path()).await.unwrap_err();
}
