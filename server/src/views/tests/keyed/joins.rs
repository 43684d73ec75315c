//! Joins whose results are kept by key: of streams with streams, and with tables.

use catalog::Strategy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::views::tests::same;
use crate::views::tests::world::{World, dimension, events};
use crate::views::{Options, analyze, examine};

/// Queries, and the codes that say why.
const SHAPES: &[(&str, &[&str])] = &[
    (
        "SELECT t.k, t.i, o.v FROM t LEFT JOIN o ON t.k = o.k AND o.i > 10",
        &["KEYED(OUTER_JOIN)"],
    ),
    (
        "SELECT o.k, o.i, t.ts FROM t RIGHT JOIN o ON t.k = o.k AND t.i = o.i",
        &["KEYED(OUTER_JOIN)"],
    ),
    (
        "SELECT coalesce(t.i, o.i) AS i, t.v AS tv, o.v AS ov FROM t FULL JOIN o ON t.i = o.i",
        &["KEYED(OUTER_JOIN)"],
    ),
    (
        "SELECT t.i, o.i AS oi, t.ts, o.ts AS ots, o.b FROM t FULL JOIN o ON t.i = o.i AND t.b",
        &["KEYED(OUTER_JOIN)"],
    ),
    (
        "SELECT i, k, ts FROM t WHERE EXISTS (SELECT 1 FROM o WHERE o.i = t.i AND o.ts > t.ts)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT i, k, ts FROM t WHERE b AND NOT EXISTS (SELECT 1 FROM o WHERE o.i = t.i AND o.k = t.k)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT k, i FROM t WHERE k IN (SELECT upper(k) FROM o WHERE i < 25)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT k, i FROM t WHERE i NOT IN (SELECT i FROM o WHERE b)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT k, d FROM t WHERE k IS NOT NULL AND k NOT IN (SELECT k FROM o WHERE k IS NOT NULL AND i > 40)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT k, i FROM t WHERE i > 40 OR EXISTS (SELECT 1 FROM o WHERE o.k = t.k)",
        &["KEYED(ANTI_JOIN)"],
    ),
    (
        "SELECT a.k, a.i, c.i AS j FROM t AS a JOIN t AS c ON a.i = c.i AND a.ts < c.ts",
        &["KEYED(JOIN)"],
    ),
    (
        "SELECT t.k, t.ts, o.v FROM t JOIN o ON t.k = o.k \
         AND o.ts BETWEEN t.ts AND t.ts + INTERVAL '10 minutes'",
        &["KEYED(JOIN)"],
    ),
    (
        "SELECT o.i, count(*) AS n, sum(t.v) AS s FROM t, o WHERE t.i = o.i AND t.b GROUP BY o.i",
        &["KEYED(JOIN)"],
    ),
    (
        "SELECT x.k, x.n, y.s FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS x \
         LEFT JOIN (SELECT k, sum(i) AS s FROM o GROUP BY k) AS y ON x.k = y.k",
        &["KEYED(SEVERAL_STREAMS)"],
    ),
    (
        "SELECT t.i, t.k, d.region FROM t LEFT JOIN d ON t.k = d.k AND t.i > d.w",
        &["KEYED(OUTER_JOIN)", "KEYED(DIM_FOLLOWED)"],
    ),
    (
        "SELECT d.region, d.k, t.i FROM d LEFT JOIN t ON d.k = t.k",
        &["KEYED(OUTER_JOIN)", "KEYED(DIM_FOLLOWED)"],
    ),
    (
        "SELECT t.b, median(t.i * d.w) AS m FROM t JOIN d ON t.k = d.k GROUP BY t.b",
        &["KEYED(NON_MERGEABLE_AGG:median)", "KEYED(DIM_FOLLOWED)"],
    ),
    (
        "SELECT k, ts FROM t WHERE NOT EXISTS (SELECT 1 FROM d WHERE d.k = t.k)",
        &["KEYED(ANTI_JOIN)", "KEYED(DIM_FOLLOWED)"],
    ),
    (
        "SELECT t.k, o.i, d.region FROM t JOIN o ON t.k = o.k AND t.i = o.i LEFT JOIN d ON o.k = d.k",
        &["KEYED(JOIN)", "KEYED(DIM_FOLLOWED)"],
    ),
];

#[tokio::test]
async fn joined_results_are_kept_by_key() {
    let views: Vec<(&str, &str)> = SHAPES.iter().map(|(q, _)| (*q, "")).collect();
    for seed in 0..2 {
        let mut random = StdRng::seed_from_u64(700 + seed);
        let world = World::with_options(&views).await;
        for (view, (query, codes)) in world.views().into_iter().zip(SHAPES) {
            assert_eq!(world.strategy(view), Strategy::Keyed, "{query}");
            let plan = world.plan(query).await;
            let analysis = analyze("v", &plan, &Options::default()).expect(query);
            for code in *codes {
                assert!(
                    analysis.codes.iter().any(|c| c == code),
                    "{query}: {:?}",
                    analysis.codes
                );
            }
            let examined = examine(&plan, &Options::default()).unwrap();
            assert!(examined.findings.iter().all(|f| f.strategy == "KEYED"));
        }
        for step in 0..8 {
            let rows = if step == 0 {
                60
            } else {
                random.random_range(1..6)
            };
            let (here, there) = (
                step == 0 || random.random_bool(0.6),
                step == 0 || random.random_bool(0.6),
            );
            if here {
                world
                    .append(events(&mut random, world.next_lsn(), rows))
                    .await;
            }
            if there {
                world
                    .append_other(events(&mut random, world.next_lsn(), rows))
                    .await;
            }
            match step % 4 {
                1 => world.flush().await,
                2 => world.change_dim(dimension(&mut random)).await,
                3 if random.random_bool(0.5) => world.delete("i % 11 = 4").await,
                _ => {}
            }
            for view in world.views() {
                let what = format!("seed {seed} step {step}: {}", world.sql(view));
                same(&world.direct(view).await, &world.read(view).await, &what);
                if random.random_bool(0.5) {
                    world.refresh(view).await;
                }
                if random.random_bool(0.2) {
                    world.compact(view).await;
                }
                same(&world.direct(view).await, &world.read(view).await, &what);
            }
        }
    }
}

/// A new row of either stream makes the results of its key anew and no others.
#[tokio::test]
async fn new_rows_of_either_stream_touch_their_keys() {
    let query = "SELECT t.i, t.k, o.ts FROM t LEFT JOIN o ON t.i = o.i";
    let world = World::new(&[query]).await;
    let view = world.views()[0];
    let mut random = StdRng::seed_from_u64(5);
    world.append(events(&mut random, 1, 200)).await;
    world.append_other(events(&mut random, 201, 50)).await;
    world.refresh(view).await;
    assert_eq!(world.durable(view), 250);
    let plan = world.explain(view, "SELECT * FROM v").await;
    assert!(!plan.contains("Join"), "nothing is new: {plan}");
    world.append_other(events(&mut random, 251, 2)).await;
    let plan = world.explain(view, "SELECT * FROM v").await;
    assert!(
        plan.contains("LeftAnti") || plan.contains("RightAnti"),
        "{plan}"
    );
    same(&world.direct(view).await, &world.read(view).await, query);
    world.refresh(view).await;
    assert_eq!(world.durable(view), 252);
    same(&world.direct(view).await, &world.read(view).await, query);
}

#[tokio::test]
async fn joins_without_a_key_say_so() {
    let world = World::new(&[]).await;
    for (sql, code) in [
        (
            "SELECT t.k, o.i FROM t JOIN o ON t.ts < o.ts",
            "FULL(STREAM_JOIN_UNBOUNDED)",
        ),
        (
            "SELECT t.k, o.i FROM t LEFT JOIN o ON t.i > o.i",
            "FULL(NO_KEY)",
        ),
        (
            "SELECT t.ts, o.b FROM t FULL JOIN o ON t.i = o.i",
            "FULL(KEY_NOT_SHOWN)",
        ),
        (
            "SELECT t.b, count(*) AS n, max(o.ts) AS m FROM t JOIN o ON t.i = o.i GROUP BY t.b",
            "FULL(KEY_NOT_SHOWN)",
        ),
        // floats are not joined as they are grouped
        ("SELECT t.k FROM t LEFT JOIN o ON t.f = o.f", "FULL(NO_KEY)"),
        (
            "SELECT k, i FROM t WHERE k NOT IN (SELECT k FROM o)",
            "FULL(NOT_IN_NULLS)",
        ),
    ] {
        let plan = world.plan(sql).await;
        let analysis = analyze("v", &plan, &Options::default()).expect(sql);
        assert_eq!(analysis.strategy, Strategy::Full, "{sql}");
        let codes = &analysis.codes;
        assert!(codes.iter().any(|c| c == code), "{sql}: {codes:?}");
    }
    let strict = Options::parse(&[("refresh".to_owned(), "strict".to_owned())].into()).unwrap();
    let plan = world
        .plan("SELECT t.k, d.region FROM t LEFT JOIN d ON t.k = d.k")
        .await;
    let refused = examine(&plan, &strict).unwrap().accept("v").unwrap_err();
    assert!(refused.report().detail.unwrap().contains("DIM_FOLLOWED"));
    let plan = world
        .plan("SELECT t.i, o.v FROM t LEFT JOIN o ON t.i = o.i")
        .await;
    assert!(analyze("v", &plan, &strict).is_ok());
}
