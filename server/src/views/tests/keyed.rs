//! Results kept by key: which queries are, and that keys with new rows alone are computed again.

mod joins;

use catalog::Strategy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::same;
use super::world::{World, dimension, events};
use crate::views::{Options, analyze, examine};

/// Queries, and the code that says why.
pub(super) const SHAPES: &[(&str, &str)] = &[
    (
        "SELECT k, i, ts, row_number() OVER (PARTITION BY k ORDER BY i, ts, f, v, d, b) AS r FROM t",
        "KEYED(WINDOW)",
    ),
    (
        "SELECT k, b, i, lag(i) OVER (PARTITION BY b, k ORDER BY i) AS before, \
         sum(i) OVER (PARTITION BY k ORDER BY i) AS total FROM t WHERE i > 3",
        "KEYED(WINDOW)",
    ),
    (
        "SELECT i % 7 AS m, i, count(*) OVER (PARTITION BY i % 7) AS n FROM t",
        "KEYED(WINDOW)",
    ),
    (
        "SELECT k, ts, session_id(ts, INTERVAL '10 minutes') OVER (PARTITION BY k ORDER BY ts) AS s FROM t \
         WHERE ts IS NOT NULL",
        "KEYED(WINDOW)",
    ),
    (
        "SELECT k, median(i) AS m, count(*) AS n FROM t GROUP BY k",
        "KEYED(NON_MERGEABLE_AGG:median)",
    ),
    (
        "SELECT i AS key, string_agg(k, ',' ORDER BY k) AS ks, array_agg(b ORDER BY b) AS bs FROM t \
         GROUP BY i HAVING count(*) > 1",
        "KEYED(NON_MERGEABLE_AGG:string_agg)",
    ),
    (
        "SELECT k, d, count(DISTINCT i) AS x, stddev(v) AS y FROM t GROUP BY k, d",
        "KEYED(NON_MERGEABLE_AGG:count(DISTINCT))",
    ),
    (
        "SELECT q.k, avg(q.gap) AS gap FROM (SELECT k, i - lag(i) OVER (PARTITION BY k ORDER BY i) AS gap FROM t) AS q \
         GROUP BY q.k",
        "KEYED(WINDOW)",
    ),
    (
        "SELECT d.region, count(*) AS n, max(q.m) AS m FROM (SELECT k, median(i) AS m FROM t GROUP BY k) AS q \
         JOIN d ON q.k = d.k GROUP BY d.region",
        "KEYED(NON_MERGEABLE_AGG:median)",
    ),
    (
        "SELECT k, m FROM (SELECT k, median(i) AS m FROM t GROUP BY k) AS q ORDER BY m DESC, k LIMIT 3",
        "KEYED(NON_MERGEABLE_AGG:median)",
    ),
    (
        "SELECT upper(u.k) AS key, window_funnel(INTERVAL '1 hour', u.ts, u.b, u.i > 20) AS steps FROM \
         (SELECT * FROM t WHERE b UNION ALL SELECT * FROM t WHERE i > 20) AS u GROUP BY upper(u.k)",
        "KEYED(NON_MERGEABLE_AGG:window_funnel)",
    ),
];

#[tokio::test]
async fn results_are_kept_by_key() {
    let views: Vec<(&str, &str)> = SHAPES.iter().map(|(q, _)| (*q, "")).collect();
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(300 + seed);
        let world = World::with_options(&views).await;
        for (view, (query, code)) in world.views().into_iter().zip(SHAPES) {
            let plan = world.plan(query).await;
            let analysis = analyze("v", &plan, &Options::default()).expect(query);
            assert_eq!(analysis.strategy, Strategy::Keyed, "{query}");
            assert!(
                analysis.codes.iter().any(|c| c == code),
                "{:?}",
                analysis.codes
            );
            assert_eq!(world.strategy(view), Strategy::Keyed);
        }
        for step in 0..8 {
            let rows = if step == 0 {
                200
            } else {
                random.random_range(1..12)
            };
            world
                .append(events(&mut random, world.next_lsn(), rows))
                .await;
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

/// A read asks for the keys of the tail, and a refresh writes only files that have one of them.
#[tokio::test]
async fn only_touched_keys_are_computed_again() {
    let query = "SELECT i, median(v) AS m, count(*) AS n FROM t GROUP BY i";
    let world = World::new(&[query]).await;
    let view = world.views()[0];
    let mut random = StdRng::seed_from_u64(4);
    world.append(events(&mut random, 1, 300)).await;
    world.refresh(view).await;
    let before = world.state_rows(view).await.rows.len();
    let plan = world.explain(view, "SELECT * FROM v").await;
    assert!(!plan.contains("Join"), "nothing is new: {plan}");
    world.append(events(&mut random, 301, 2)).await;
    let plan = world.explain(view, "SELECT * FROM v").await;
    assert!(
        plan.contains("LeftAnti") || plan.contains("RightAnti"),
        "{plan}"
    );
    assert!(
        plan.contains("LeftSemi") || plan.contains("RightSemi"),
        "{plan}"
    );
    world.refresh(view).await;
    assert_eq!(world.durable(view), 302);
    assert!(world.state_rows(view).await.rows.len() >= before);
    same(&world.direct(view).await, &world.read(view).await, query);
    // all rows of all keys are new
    world.append(events(&mut random, 303, 400)).await;
    world.refresh(view).await;
    assert_eq!(world.state_files(view), 1);
    same(&world.direct(view).await, &world.read(view).await, query);
}

#[tokio::test]
async fn what_has_no_key_is_made_anew() {
    let world = World::new(&[]).await;
    for sql in [
        "SELECT median(i) FROM t",
        "SELECT k, row_number() OVER (ORDER BY i, ts) AS r FROM t",
        // floats are not joined as they are grouped
        "SELECT f, median(i) AS m FROM t GROUP BY f",
        "SELECT k, b, median(i) AS m FROM t GROUP BY ROLLUP (k, b)",
        "SELECT median(q.n) AS m FROM (SELECT k, b, median(i) AS n FROM t GROUP BY k, b) AS q, t AS u",
    ] {
        let plan = world.plan(sql).await;
        let analysis = analyze("v", &plan, &Options::default()).expect(sql);
        assert_eq!(analysis.strategy, Strategy::Full, "{sql}");
    }
    let ignores = Options::parse(&[("on_source_change".to_owned(), "ignore".to_owned())].into());
    let plan = world
        .plan("SELECT k, median(i) AS m FROM t GROUP BY k")
        .await;
    let refused = examine(&plan, &ignores.unwrap()).unwrap().accept("v");
    assert!(refused.is_err());
}
