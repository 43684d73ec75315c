use crate::error::SqlState;
use crate::views::options::Refresh;
use crate::views::tests::world::World;
use crate::views::{Options, analyze, examine, explain};

fn strict() -> Options {
    Options {
        refresh: Refresh::Strict,
        ..Options::default()
    }
}

#[tokio::test]
async fn what_no_view_can_keep_is_refused_with_its_code() {
    let world = World::new(&[]).await;
    for (sql, code) in [
        ("SELECT k, now() AS at FROM t", "NON_DETERMINISTIC:now"),
        (
            "SELECT k FROM t WHERE random() < 0.5",
            "NON_DETERMINISTIC:random",
        ),
        (
            "SELECT sum(v * random()) FROM t",
            "NON_DETERMINISTIC:random",
        ),
        (
            "SELECT k FROM t WHERE i > (SELECT max(w) FROM d WHERE random() < 0.5)",
            "NON_DETERMINISTIC:random",
        ),
        (
            "SELECT k, count(*) FROM t GROUP BY k LIMIT 3",
            "UNORDERED_LIMIT",
        ),
        (
            "SELECT DISTINCT ON (k) k, v FROM t",
            "UNORDERED_DISTINCT_ON",
        ),
        ("SELECT array_agg(v) FROM t", "UNORDERED_AGG:array_agg"),
        (
            "SELECT k, row_number() OVER (PARTITION BY k) AS n FROM t",
            "UNORDERED_WINDOW:row_number",
        ),
        ("SELECT 1 AS one", "NO_SOURCE"),
        ("SELECT i AS _lsn FROM t", "RESERVED_COLUMN"),
        (
            "SELECT CASE WHEN b THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END AS m FROM t",
            "STATE_TYPE_UNSUPPORTED:Interval",
        ),
    ] {
        let plan = world.plan(sql).await;
        let options = Options::default();
        let report = analyze("v", &plan, &options).expect_err(sql).report();
        assert_eq!(report.state, SqlState::FEATURE_NOT_SUPPORTED, "{sql}");
        assert!(report.message.contains("\"v\""), "{sql}");
        assert!(report.hint.is_some(), "{sql}");
        let detail = report.detail.unwrap();
        assert!(detail.contains(code), "{sql}: {detail}");
        let rows = explain(&examine(&plan, &options).unwrap(), None).unwrap();
        assert!(rows.num_rows() > 0 && rows.num_columns() == 7, "{sql}");
    }
}

#[tokio::test]
async fn what_is_not_incremental_is_made_anew_or_refused_by_policy() {
    let world = World::new(&[]).await;
    for (sql, code) in [
        (
            "SELECT count(DISTINCT v), count(DISTINCT i), stddev(v) FROM t",
            "NON_MERGEABLE_AGG:count(DISTINCT)",
        ),
        ("SELECT median(v) FROM t", "NON_MERGEABLE_AGG:median"),
        ("SELECT k FROM t ORDER BY k", "SORT_LIMIT_INSIDE"),
        ("SELECT a.k FROM t a JOIN t b ON a.i < b.i", "JOIN"),
        ("SELECT a.k FROM t a JOIN d b ON a.k > b.k", "JOIN"),
        (
            "SELECT a.k FROM t a LEFT JOIN t b ON a.i > b.i",
            "OUTER_JOIN",
        ),
        (
            "SELECT b.region, sum(a.i * b.w) FROM t a JOIN d b ON a.k < b.k GROUP BY b.region",
            "DIM_IN_AGG_ARGS",
        ),
        (
            "SELECT b.region, count(*) FROM t a CROSS JOIN d b GROUP BY b.region",
            "CROSS_JOIN",
        ),
        (
            "SELECT k, row_number() OVER (ORDER BY ts, i) AS n FROM t",
            "WINDOW",
        ),
        ("SELECT k FROM t UNION ALL SELECT k FROM t", "SET_OP:UNION"),
        (
            "SELECT k, b, count(*) FROM t GROUP BY ROLLUP (k, b)",
            "GROUPING_SETS",
        ),
        (
            "SELECT k FROM t WHERE i > (SELECT max(w) FROM d)",
            "SUBQUERY",
        ),
        (
            "SELECT k, count(*) FROM t GROUP BY k HAVING count(*) > (SELECT avg(i) FROM t)",
            "SEVERAL_STREAMS",
        ),
        ("SELECT count(*) FROM d", "SOURCE_NOT_STREAMING"),
    ] {
        let plan = world.plan(sql).await;
        let analysis = analyze("v", &plan, &Options::default()).expect(sql);
        assert_eq!(analysis.strategy, catalog::Strategy::Full, "{sql}");
        let full = format!("FULL({code}");
        assert!(
            analysis.codes.iter().any(|c| c.starts_with(&full)),
            "{sql}: {:?}",
            analysis.codes
        );
        let report = analyze("v", &plan, &strict()).expect_err(sql).report();
        assert_eq!(report.state, SqlState::FEATURE_NOT_SUPPORTED, "{sql}");
        assert!(report.detail.unwrap().contains(code), "{sql}");
    }
}

#[tokio::test]
async fn explain_names_strategy_and_code() {
    let world = World::new(&[]).await;
    for (sql, strategy, code) in [
        ("SELECT k, count(*) AS n FROM t GROUP BY k", "AGG", "AGG_OK"),
        ("SELECT k FROM t WHERE b", "APPEND", "APPEND_OK"),
        (
            "SELECT max(n) FROM (SELECT count(*) AS n FROM t GROUP BY k) AS q",
            "AGG",
            "AGG_OK",
        ),
        (
            "SELECT k, count(DISTINCT i) FROM t GROUP BY k",
            "AGG2",
            "AGG2_OK",
        ),
        (
            "SELECT k, session_window(ts, INTERVAL '30 minutes') AS w, count(*) AS n FROM t \
             GROUP BY k, session_window(ts, INTERVAL '30 minutes')",
            "SESSION",
            "SESSION_OK",
        ),
        (
            "SELECT k, i FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY i) <= 2",
            "TOP",
            "TOP_OK",
        ),
        (
            "SELECT d.region, count(*) FROM t JOIN d ON t.k = d.k GROUP BY d.region",
            "AGG",
            "DIM_LATE_BINDING",
        ),
        (
            "SELECT k, named_struct('x', v) AS s FROM t",
            "APPEND",
            "APPEND_OK",
        ),
    ] {
        let options = Options::default();
        let examination = examine(&world.plan(sql).await, &options).unwrap();
        assert_eq!(examination.findings[0].strategy, strategy, "{sql}");
        let analysis = examination.accept("v").unwrap();
        assert!(analysis.codes.contains(&code.to_owned()), "{sql}");
        assert!(
            analyze("v", &world.plan(sql).await, &strict()).is_ok(),
            "{sql}"
        );
    }
}
