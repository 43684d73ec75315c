use crate::error::SqlState;
use crate::views::tests::world::World;
use crate::views::{analyze, examine, explain};

#[tokio::test]
async fn what_cannot_be_kept_is_refused_with_its_code() {
    let world = World::new(&[]).await;
    for (sql, code) in [
        (
            "SELECT k, count(DISTINCT v) FROM t GROUP BY k",
            "NON_MERGEABLE_AGG:count(DISTINCT)",
        ),
        ("SELECT median(v) FROM t", "NON_MERGEABLE_AGG:median"),
        ("SELECT array_agg(v) FROM t", "NON_MERGEABLE_AGG:array_agg"),
        (
            "SELECT approx_distinct(v) FROM t",
            "NON_MERGEABLE_AGG:approx_distinct",
        ),
        ("SELECT k, now() AS at FROM t", "NON_DETERMINISTIC:now"),
        (
            "SELECT k FROM t WHERE random() < 0.5",
            "NON_DETERMINISTIC:random",
        ),
        (
            "SELECT sum(v * random()) FROM t",
            "NON_DETERMINISTIC:random",
        ),
        ("SELECT k FROM t ORDER BY k", "SORT_LIMIT_INSIDE"),
        (
            "SELECT k, count(*) FROM t GROUP BY k LIMIT 3",
            "SORT_LIMIT_INSIDE",
        ),
        ("SELECT a.k FROM t a JOIN t b ON a.i = b.i", "JOIN"),
        (
            "SELECT a.k FROM t a LEFT JOIN t b ON a.i = b.i",
            "OUTER_JOIN",
        ),
        ("SELECT k FROM t EXCEPT SELECT k FROM t", "ANTI_JOIN"),
        (
            "SELECT k, row_number() OVER (ORDER BY ts) AS n FROM t",
            "WINDOW",
        ),
        ("SELECT DISTINCT ON (k) k, v FROM t", "DISTINCT_ON"),
        ("SELECT k FROM t UNION ALL SELECT k FROM t", "SET_OP:UNION"),
        (
            "SELECT max(n) FROM (SELECT count(*) AS n FROM t GROUP BY k) AS q",
            "NESTED_AGGREGATE",
        ),
        (
            "SELECT k, b, count(*) FROM t GROUP BY ROLLUP (k, b)",
            "GROUPING_SETS",
        ),
        ("SELECT k FROM t WHERE i IN (SELECT i FROM t)", "SUBQUERY"),
        ("SELECT count(*) FROM plain", "SOURCE_NOT_STREAMING"),
        ("SELECT 1 AS one", "SOURCE_NOT_STREAMING"),
        ("SELECT i AS _lsn FROM t", "RESERVED_COLUMN"),
        (
            "SELECT k, named_struct('x', v) AS s FROM t",
            "STATE_TYPE_UNSUPPORTED:Struct",
        ),
        (
            "SELECT CASE WHEN b THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END AS m FROM t",
            "STATE_TYPE_UNSUPPORTED:Interval",
        ),
    ] {
        let plan = world.plan(sql).await;
        let report = analyze("v", &plan).expect_err(sql).report();
        assert_eq!(report.state, SqlState::FEATURE_NOT_SUPPORTED, "{sql}");
        assert!(report.message.contains("\"v\""), "{sql}");
        assert!(report.hint.is_some(), "{sql}");
        let detail = report.detail.unwrap();
        assert!(detail.contains(code), "{sql}: {detail}");
        let rows = explain(&examine(&plan).unwrap()).unwrap();
        assert!(rows.num_rows() > 0 && rows.num_columns() == 5, "{sql}");
    }
}

#[tokio::test]
async fn explain_names_strategy_and_code() {
    let world = World::new(&[]).await;
    for (sql, strategy, code) in [
        ("SELECT k, count(*) AS n FROM t GROUP BY k", "AGG", "AGG_OK"),
        ("SELECT k FROM t WHERE b", "APPEND", "APPEND_OK"),
    ] {
        let examination = examine(&world.plan(sql).await).unwrap();
        assert_eq!(examination.findings.len(), 1);
        assert_eq!(examination.findings[0].strategy, strategy);
        let analysis = examination.accept("v").unwrap();
        assert_eq!(analysis.codes, [code]);
    }
}
