//! The functions through a planner, as SQL sees them.

use std::collections::HashSet;
use std::path::PathBuf;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::prelude::{CsvReadOptions, SessionContext};

use super::*;

#[derive(Debug)]
struct TestKeys;

impl SecretKeys for TestKeys {
    fn key(&self, name: &str) -> Result<Arc<[u8]>> {
        match name {
            "k" => Ok(Arc::from(&b"not to be seen"[..])),
            _ => Err(FunctionError::invalid(format!("secret \"{name}\" does not exist")).into()),
        }
    }
}

fn keys() -> Arc<dyn SecretKeys> {
    Arc::new(TestKeys)
}

fn context() -> SessionContext {
    let mut ctx = SessionContext::new();
    register_all(&mut ctx, &keys()).unwrap();
    ctx.add_analyzer_rule(analyzer_rule());
    ctx
}

async fn run(ctx: &SessionContext, sql: &str) -> Result<String> {
    let batches = ctx.sql(sql).await?.collect().await?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

/// The cells of the result, rows joined by `;` and cells by `|`.
async fn cells(ctx: &SessionContext, sql: &str) -> String {
    let table = run(ctx, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = table.lines().filter(|l| l.starts_with('|')).skip(1);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        cells.join("|")
    })
    .collect::<Vec<_>>()
    .join(";")
}

async fn refusal(ctx: &SessionContext, sql: &str) -> FunctionError {
    let error = run(ctx, sql).await.expect_err(sql);
    match error.find_root() {
        datafusion::error::DataFusionError::External(inner) => {
            inner.downcast_ref::<FunctionError>().unwrap().clone()
        }
        other => panic!("{sql}: {other}"),
    }
}

const EVENTS: &str = "CREATE TABLE events AS SELECT column1 AS user_id, \
    arrow_cast(column2, 'Timestamp(Microsecond, Some(\"UTC\"))') AS ts, column3 AS event FROM (VALUES \
    ('a', '2026-01-01T00:00:00Z', 'view'), ('a', '2026-01-01T00:30:00Z', 'cart'), \
    ('a', '2026-01-01T01:00:01Z', 'paid'), ('b', '2026-01-01T00:00:00Z', 'view'), \
    ('b', NULL, 'cart'), (NULL, '2026-01-01T00:00:00Z', 'view'))";

async fn with_events() -> SessionContext {
    let ctx = context();
    run(&ctx, EVENTS).await.unwrap();
    ctx
}

#[test]
fn names_are_unique() {
    let mut seen = HashSet::new();
    let mut scalar = scalar::functions();
    scalar.push(scalar::keyed(&keys()));
    let aggregate = aggregate::functions();
    let window = window::functions();
    let names = (scalar.iter().map(|f| f.name()))
        .chain(aggregate.iter().map(|f| f.name()))
        .chain(window.iter().map(|f| f.name()));
    for name in names {
        assert!(seen.insert(name), "{name} is registered twice");
    }
}

#[test]
fn every_function_is_documented() {
    let page = functions_markdown(Vec::new());
    for name in [
        "approx_distinct",
        "approx_median",
        "approx_percentile_cont",
        "approx_top_k",
        "hash_token",
        "hop_window",
        "mask_email",
        "session_id",
        "session_window",
        "window_funnel",
    ] {
        assert!(page.contains(&format!("### `{name}`")), "{name}");
    }
    assert!(page.to_lowercase().contains("null"));
}

#[tokio::test]
async fn session_id_numbers_sessions_per_partition() {
    let ctx = with_events().await;
    let sql = "SELECT user_id, session_id(ts, INTERVAL '30 minutes') OVER (PARTITION BY user_id ORDER BY ts) AS s \
        FROM events ORDER BY user_id NULLS LAST, ts";
    assert_eq!(cells(&ctx, sql).await, "a|1;a|1;a|2;b|1;b|;|1");
}

#[tokio::test]
async fn session_id_refuses_what_it_would_have_to_ignore() {
    let ctx = with_events().await;
    let call = "session_id(ts, INTERVAL '30 minutes')";
    for (over, kind) in [
        ("OVER (PARTITION BY user_id)", Kind::InvalidParameter),
        ("OVER (ORDER BY user_id, ts)", Kind::InvalidParameter),
        ("IGNORE NULLS OVER (ORDER BY ts)", Kind::Unsupported),
    ] {
        let sql = format!("SELECT {call} {over} FROM events");
        assert_eq!(refusal(&ctx, &sql).await.kind, kind, "{over}");
    }
    let filtered =
        format!("SELECT {call} FILTER (WHERE event = 'view') OVER (ORDER BY ts) FROM events");
    assert!(run(&ctx, &filtered).await.is_err());
}

#[tokio::test]
async fn session_window_groups_and_leaves_out_null_times() {
    let ctx = with_events().await;
    let sql = "SELECT user_id, session_window(ts, INTERVAL '30 minutes') AS w, count(*) AS n FROM events \
        GROUP BY user_id, session_window(ts, INTERVAL '30 minutes') HAVING count(*) > 0 \
        ORDER BY user_id NULLS LAST, w.start";
    assert_eq!(
        cells(&ctx, sql).await,
        "a|{start: 2026-01-01T00:00:00Z, end: 2026-01-01T01:00:00Z}|2;\
         a|{start: 2026-01-01T01:00:01Z, end: 2026-01-01T01:30:01Z}|1;\
         b|{start: 2026-01-01T00:00:00Z, end: 2026-01-01T00:30:00Z}|1;\
         |{start: 2026-01-01T00:00:00Z, end: 2026-01-01T00:30:00Z}|1"
    );
}

#[tokio::test]
async fn session_window_works_below_other_plans() {
    let ctx = with_events().await;
    run(
        &ctx,
        "CREATE VIEW sessions AS SELECT user_id, session_window(ts, INTERVAL '30 minutes') AS w, \
         count(*) AS n, max(event) FILTER (WHERE event <> 'view') AS last FROM events GROUP BY user_id, w",
    )
    .await
    .unwrap();
    let by_field =
        "SELECT user_id, w['start'], n, last FROM sessions WHERE user_id = 'a' ORDER BY w";
    assert_eq!(
        cells(&ctx, by_field).await,
        "a|2026-01-01T00:00:00Z|2|cart;a|2026-01-01T01:00:01Z|1|paid"
    );
    let joined = "SELECT count(*) FROM sessions s JOIN (SELECT session_window(e.ts, '1 hour') AS w FROM events e GROUP BY 1) t \
        ON s.w.start = t.w.start WHERE s.user_id IN (SELECT user_id FROM sessions)";
    assert_eq!(cells(&ctx, joined).await, "2");
    // without other keys all rows are one stream; no rows, no sessions
    let alone = "SELECT session_window(ts, INTERVAL '1 day') AS w, count(DISTINCT user_id) FROM events WHERE false GROUP BY w";
    assert_eq!(cells(&ctx, alone).await, "");
}

#[tokio::test]
async fn session_window_works_before_and_after_coercion() {
    let ctx = context();
    run(
        &ctx,
        "CREATE TABLE d AS SELECT DATE '2026-01-01' AS day UNION ALL SELECT DATE '2026-01-03'",
    )
    .await
    .unwrap();
    let sql = "SELECT w.\"end\" FROM (SELECT session_window(day, '1 day') AS w FROM d GROUP BY w) ORDER BY 1";
    let want = "2026-01-02T00:00:00;2026-01-04T00:00:00";
    assert_eq!(cells(&ctx, sql).await, want);

    let plan = ctx.state().create_logical_plan(sql).await.unwrap();
    let options = datafusion::common::config::ConfigOptions::default();
    let first = analyzer_rule().analyze(plan.clone(), &options).unwrap();
    assert_eq!(first.schema(), plan.schema());
    let frame = ctx.execute_logical_plan(first).await.unwrap();
    let table = pretty_format_batches(&frame.collect().await.unwrap()).unwrap();
    assert!(table.to_string().contains("2026-01-04T00:00:00"));
}

#[tokio::test]
async fn session_window_is_refused_where_it_has_no_meaning() {
    let ctx = with_events().await;
    for sql in [
        "SELECT session_window(ts, INTERVAL '1 hour') FROM events",
        "SELECT user_id FROM events WHERE session_window(ts, INTERVAL '1 hour') IS NULL",
        "SELECT max(session_window(ts, INTERVAL '1 hour')) FROM events",
    ] {
        assert_eq!(refusal(&ctx, sql).await.kind, Kind::Misplaced, "{sql}");
    }
    let rollup = "SELECT count(*) FROM events GROUP BY ROLLUP (user_id, session_window(ts, INTERVAL '1 hour'))";
    assert_eq!(refusal(&ctx, rollup).await.kind, Kind::Unsupported);
    let twice = "SELECT count(*) FROM events GROUP BY session_window(ts, INTERVAL '1 hour'), session_window(ts, INTERVAL '2 hour')";
    assert_eq!(refusal(&ctx, twice).await.kind, Kind::Unsupported);
    let over =
        "SELECT count(*) FROM events GROUP BY session_window(ts, INTERVAL '1 hour')['start']";
    assert_eq!(refusal(&ctx, over).await.kind, Kind::Unsupported);
    for gap in ["INTERVAL '0'", "INTERVAL '1 month'", "ts - ts", "NULL"] {
        let sql = format!("SELECT count(*) FROM events GROUP BY session_window(ts, {gap})");
        assert_eq!(
            refusal(&ctx, &sql).await.kind,
            Kind::InvalidParameter,
            "{gap}"
        );
    }
    let text = "SELECT count(*) FROM events GROUP BY session_window(event, INTERVAL '1 hour')";
    assert!(run(&ctx, text).await.is_err());
}

#[tokio::test]
async fn window_funnel_over_timestamps_and_integers() {
    let ctx = with_events().await;
    let sql = "SELECT user_id, window_funnel(INTERVAL '1 hour', ts, event = 'view', event = 'cart', event = 'paid') \
        FROM events WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY 1";
    assert_eq!(cells(&ctx, sql).await, "a|2;b|1");
    let longer = sql.replace("INTERVAL '1 hour'", "3601, 'strict_increase'");
    assert_eq!(cells(&ctx, &longer).await, "a|3;b|1");
    let ticks =
        "SELECT window_funnel(5, t, t = 1, t = 3, t = 6, t = 7) FROM generate_series(1, 9) AS g(t)";
    assert_eq!(cells(&ctx, ticks).await, "3");
    let merged = "SELECT window_funnel(5, t, t = 1, t = 3, t = 6) FROM (SELECT 6 AS t UNION ALL SELECT 3 UNION ALL SELECT 1)";
    assert_eq!(cells(&ctx, merged).await, "3");
    let none = "SELECT window_funnel(5, 'strict_order', t, t = 1) FROM generate_series(1, 9) AS g(t) WHERE false";
    assert_eq!(cells(&ctx, none).await, "0");
}

#[tokio::test]
async fn window_funnel_refuses_what_it_does_not_know() {
    let ctx = with_events().await;
    let call = |args: &str| format!("SELECT window_funnel({args}) FROM events");
    for (args, kind) in [
        (
            "INTERVAL '1 hour', 'strict_once', ts, true",
            Kind::Unsupported,
        ),
        ("INTERVAL '1 month', ts, true", Kind::InvalidParameter),
        ("-1, ts, true", Kind::InvalidParameter),
    ] {
        assert_eq!(refusal(&ctx, &call(args)).await.kind, kind, "{args}");
    }
    for args in [
        "INTERVAL '1 hour', ts",
        "INTERVAL '1 hour', ts, event",
        "ts, ts, true",
    ] {
        assert!(run(&ctx, &call(args)).await.is_err(), "{args}");
    }
}

#[tokio::test]
async fn hash_token_keeps_null_and_hides_the_key() {
    let ctx = with_events().await;
    let sql = "SELECT count(DISTINCT hash_token(user_id, 'k')), count(hash_token(user_id, 'k')), \
        min(length(hash_token(user_id, 'k'))) FROM events";
    assert_eq!(cells(&ctx, sql).await, "2|5|64");
    assert_eq!(
        cells(
            &ctx,
            "SELECT hash_token(7, 'k') = hash_token('7', 'k'), hash_token(NULL, 'k') IS NULL"
        )
        .await,
        "true|true"
    );
    let plan = run(
        &ctx,
        "EXPLAIN VERBOSE SELECT hash_token(user_id, 'k') FROM events",
    )
    .await
    .unwrap();
    assert!(!plan.contains("not to be seen"));
    assert_eq!(format!("{:?}", scalar::keyed(&keys()).inner()), "HashToken");
}

#[tokio::test]
async fn hash_token_refuses_unknown_secrets_before_any_row() {
    let ctx = with_events().await;
    for sql in [
        "EXPLAIN SELECT hash_token(user_id, 'nope') FROM events",
        "SELECT hash_token(user_id, event) FROM events",
    ] {
        assert_eq!(
            refusal(&ctx, sql).await.kind,
            Kind::InvalidParameter,
            "{sql}"
        );
    }
    assert!(run(&ctx, "SELECT hash_token(1.5e0, 'k')").await.is_err());
}

#[tokio::test]
async fn mask_email_in_sql() {
    let ctx = context();
    let sql = "SELECT mask_email('bob@x.org'), mask_email(NULL), mask_email('bob')";
    assert_eq!(cells(&ctx, sql).await, "b***@x.org||***");
}

/// The shared data sets lie beside a checkout; tests over them run where they are.
fn shared(file: &str) -> Option<PathBuf> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package
        .ancestors()
        .map(|dir| dir.join("shared/data").join(file))
        .find(|path| path.exists())
}

#[tokio::test]
async fn the_clickstream_has_its_own_sessions() {
    let Some(path) = shared("ecom_clickstream/ecom.csv.gz") else {
        return;
    };
    let ctx = context();
    let options = CsvReadOptions::new()
        .file_extension(".csv.gz")
        .file_compression_type(FileCompressionType::GZIP);
    ctx.register_csv("ecom", path.to_str().unwrap(), options)
        .await
        .unwrap();
    let by_window = "SELECT count(*), sum(n) FROM (SELECT user_id, session_window(timestamp, INTERVAL '30 minutes') AS w, \
        count(*) AS n FROM ecom GROUP BY user_id, session_window(timestamp, INTERVAL '30 minutes'))";
    assert_eq!(cells(&ctx, by_window).await, "3605|31106");
    let by_id = "SELECT sum(n) FROM (SELECT max(s) AS n FROM (SELECT user_id, session_id(timestamp, INTERVAL '30 minutes') \
        OVER (PARTITION BY user_id ORDER BY timestamp) AS s FROM ecom) GROUP BY user_id)";
    assert_eq!(cells(&ctx, by_id).await, "3605");
}
