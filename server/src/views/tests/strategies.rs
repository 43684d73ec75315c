//! Each strategy beyond plain aggregation: what it is, and what changes of its sources do to it.

use catalog::Strategy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::same;
use super::world::{World, dimension, events};

const GAP: &str = "session_window(ts, INTERVAL '30 minutes')";

/// One query per shape; all follow changes of their sources.
pub(super) fn shapes() -> Vec<(String, Strategy)> {
    [
        (
            format!("SELECT k, {GAP} AS w, count(*) AS n, sum(i) AS s, avg(v) AS a FROM t GROUP BY k, {GAP}"),
            Strategy::Session,
        ),
        (
            format!(
                "SELECT w['start'] AS at, n, m FROM (SELECT {GAP} AS w, count(*) FILTER (WHERE b) AS n, max(i) AS m \
                 FROM t WHERE i > 0 GROUP BY {GAP}) AS q WHERE m > 10"
            ),
            Strategy::Session,
        ),
        (
            format!("SELECT k, count(*) AS sessions, avg(n) AS mean FROM (SELECT k, b, {GAP} AS w, count(*) AS n \
                     FROM t GROUP BY k, b, {GAP}) AS q GROUP BY k"),
            Strategy::Session,
        ),
        (
            "SELECT k, i, ts FROM t QUALIFY rank() OVER (PARTITION BY k ORDER BY i DESC) <= 3".to_owned(),
            Strategy::Top,
        ),
        (
            "SELECT q.k, q.i, q.r FROM (SELECT k, i, dense_rank() OVER (PARTITION BY k, b ORDER BY i, ts) AS r \
             FROM t WHERE i <> 3) AS q WHERE q.r < 3 AND q.i > 0".to_owned(),
            Strategy::Top,
        ),
        (
            "SELECT k, count(DISTINCT i) AS d, count(*) AS n, sum(i) AS s, min(ts) AS lo FROM t GROUP BY k".to_owned(),
            Strategy::Agg2,
        ),
        (
            "SELECT count(DISTINCT k) FILTER (WHERE b) AS d, count(v) AS n, max(d) AS m, sum(d) AS sd FROM t".to_owned(),
            Strategy::Agg2,
        ),
        (
            "SELECT max(n) AS top, count(*) AS keys FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS q".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, n, rank() OVER (ORDER BY n DESC) AS r FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS q \
             ORDER BY r, k LIMIT 4".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT d.region, count(*) AS n, avg(t.v) AS a, stddev(t.v) AS sd FROM t JOIN d ON t.k = d.k \
             WHERE t.i > 0 AND d.w > 0 GROUP BY d.region".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT d.region, t.b, sum(t.i) AS s, count(*) FILTER (WHERE t.v > 0.0) AS p FROM t \
             LEFT JOIN d ON t.k = d.k AND d.w > 1 GROUP BY d.region, t.b".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT count(*) AS n, sum(t.i) AS s FROM t JOIN d ON t.k = d.k AND t.i > 5".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT q.k, q.n, d.region FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS q LEFT JOIN d ON q.k = d.k".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, sum(x) AS s, count(*) AS n FROM (SELECT k, i AS x FROM t WHERE b UNION ALL \
             SELECT upper(k), i * 2 FROM t WHERE i > 5) AS u GROUP BY k".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT b, first_value(i ORDER BY ts, i) AS f, last_value(i ORDER BY ts, i) AS l, \
             regr_slope(v, i) AS rs, regr_count(v, i) AS rc FROM t GROUP BY b".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, median(i) AS m FROM t GROUP BY k".to_owned(),
            Strategy::Keyed,
        ),
        (
            "SELECT median(i) AS m FROM t".to_owned(),
            Strategy::Full,
        ),
        (
            "SELECT t.k, t.i, d.region FROM t JOIN d ON t.k = d.k".to_owned(),
            Strategy::Keyed,
        ),
        (
            "SELECT k, b FROM t EXCEPT SELECT k, w > 2 FROM d".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, count(DISTINCT i) AS x, count(DISTINCT d) FILTER (WHERE b) AS y, sum(DISTINCT i) AS z, \
             avg(v) AS a, sum(i) AS s, count(*) AS n FROM t GROUP BY k".to_owned(),
            Strategy::Agg2,
        ),
        (
            "SELECT count(DISTINCT k) AS x, count(DISTINCT ts) AS y, max(DISTINCT d) AS z, min(v) AS lo FROM t WHERE i > 3"
                .to_owned(),
            Strategy::Agg2,
        ),
        (
            "SELECT upper(k) AS k, approx_distinct(k) AS x, approx_distinct(ts) AS y, approx_median(v) AS m, \
             approx_percentile_cont(0.9, 64) WITHIN GROUP (ORDER BY i DESC) AS p, approx_top_k(i, 3) AS top, \
             approx_top_k(upper(k), 2, 5) FILTER (WHERE b) AS keys FROM t GROUP BY upper(k)".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT approx_distinct(d) AS x, approx_percentile_cont(v, 0.25) AS p, approx_top_k(b, 2) AS top FROM t".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, count(*) AS n FROM t WHERE k IN (SELECT k FROM d WHERE w > 1) GROUP BY k".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT b, sum(i) AS s FROM t WHERE NOT EXISTS (SELECT 1 FROM d WHERE d.k = t.k) GROUP BY b".to_owned(),
            Strategy::Agg,
        ),
        (
            "SELECT k, named_struct('x', i, 'y', ts) AS s FROM t".to_owned(),
            Strategy::Append,
        ),
    ]
    .into()
}

#[tokio::test]
async fn every_shape_is_its_query_under_changes() {
    let shapes = shapes();
    let views: Vec<(&str, &str)> = shapes
        .iter()
        .map(|(q, _)| (q.as_str(), "on_source_change=recompute"))
        .collect();
    let mut random = StdRng::seed_from_u64(21);
    let world = World::with_options(&views).await;
    for (view, (query, strategy)) in world.views().into_iter().zip(&shapes) {
        assert_eq!(world.strategy(view), *strategy, "{query}");
    }
    for step in 0..9 {
        let rows = random.random_range(1..50);
        world
            .append(events(&mut random, world.next_lsn(), rows))
            .await;
        match step % 3 {
            0 => world.flush().await,
            1 => world.change_dim(dimension(&mut random)).await,
            _ => {}
        }
        if step == 5 {
            world.delete("i % 3 = 0").await;
        }
        for view in world.views() {
            if random.random_bool(0.5) {
                world.refresh(view).await;
            }
            if random.random_bool(0.4) {
                world.compact(view).await;
            }
        }
        for view in world.views() {
            let what = format!("step {step}: {}", world.sql(view));
            same(&world.direct(view).await, &world.read(view).await, &what);
        }
    }
}

#[tokio::test]
async fn a_change_is_followed_ignored_or_made_up_for() {
    let query = "SELECT k, count(*) AS n FROM t GROUP BY k";
    let world = World::with_options(&[
        (query, "on_source_change=recompute"),
        (query, "on_source_change=ignore"),
        (query, "refresh=full"),
    ])
    .await;
    let [follows, ignores, full] = world.views()[..] else {
        panic!("three views");
    };
    assert_eq!(world.strategy(full), Strategy::Full);
    let mut random = StdRng::seed_from_u64(3);
    world.append(events(&mut random, 1, 60)).await;
    for view in world.views() {
        world.refresh(view).await;
    }
    let before = world.read(ignores).await;
    world.delete("i > 10").await;
    same(&before, &world.read(ignores).await, "ignores");
    for view in [follows, full] {
        same(
            &world.direct(view).await,
            &world.read(view).await,
            "at once",
        );
        world.refresh(view).await;
        same(&world.direct(view).await, &world.read(view).await, "anew");
        assert_eq!(world.state_files(view), 1);
    }
    // what it goes on to count is added to what it has
    world
        .append(events(&mut random, world.next_lsn(), 20))
        .await;
    world.refresh(ignores).await;
    assert!(world.read(ignores).await.rows.len() >= before.rows.len());
    // once it is told to follow, it does
    world.set_options(ignores, "on_source_change=recompute");
    same(
        &world.direct(ignores).await,
        &world.read(ignores).await,
        "told",
    );
    world.refresh(ignores).await;
    same(
        &world.direct(ignores).await,
        &world.read(ignores).await,
        "made",
    );
}

#[tokio::test]
async fn a_scheduled_view_is_read_as_of_its_refresh() {
    let world = World::with_options(&[
        ("SELECT count(*) AS n, sum(i) AS s FROM t", "schedule=1h"),
        ("SELECT k, i FROM t", "schedule=1h"),
        ("SELECT median(i) AS m FROM t", "schedule=1h"),
    ])
    .await;
    let mut random = StdRng::seed_from_u64(4);
    world.append(events(&mut random, 1, 30)).await;
    for view in world.views() {
        // before its first refresh there is nothing to be read but the query
        same(&world.direct(view).await, &world.read(view).await, "first");
        world.refresh(view).await;
    }
    let mut before = Vec::new();
    for view in world.views() {
        before.push(world.direct(view).await);
    }
    world.append(events(&mut random, 31, 30)).await;
    world.delete("i > 20").await;
    for (view, before) in world.views().into_iter().zip(&before) {
        same(before, &world.read(view).await, "as of the refresh");
        world.refresh(view).await;
        same(&world.direct(view).await, &world.read(view).await, "after");
    }
}

/// Rows that a view has counted may leave their table: every shape goes on as if they were there.
#[tokio::test]
async fn every_shape_keeps_what_retention_drops() {
    // a view that is made again from rows of before and a retention exclude each other
    let mut shapes = shapes();
    shapes.retain(|(_, strategy)| !matches!(strategy, Strategy::Full | Strategy::Keyed));
    let views: Vec<(&str, &str)> = shapes
        .iter()
        .map(|(q, _)| (q.as_str(), "on_source_change=recompute"))
        .collect();
    let mut random = StdRng::seed_from_u64(31);
    let less = World::with_options(&views).await;
    let all = World::with_options(&views).await;
    for step in 0..6 {
        let rows = random.random_range(10..50);
        let batch = events(&mut random, less.next_lsn(), rows);
        less.append(batch.clone()).await;
        all.append(batch).await;
        let dim = dimension(&mut random);
        less.change_dim(dim.clone()).await;
        all.change_dim(dim).await;
        if step % 2 == 1 {
            for view in less.views() {
                less.refresh(view).await;
                assert_eq!(less.absorbed(view), less.next_lsn() - 1);
            }
            less.expire(["i % 2 = 0", "k = 'a' OR i % 3 = 0", "true"][step / 2])
                .await;
        }
        for view in less.views() {
            if random.random_bool(0.4) {
                less.compact(view).await;
            }
            let what = format!("step {step}: {}", less.sql(view));
            same(&all.direct(view).await, &less.read(view).await, &what);
        }
    }
    for view in less.views() {
        // made anew it would count what is left only
        let refused = less.try_rebuild(view).await.unwrap_err();
        assert_eq!(refused.state().0, "55000");
        same(&all.direct(view).await, &less.read(view).await, "refused");
    }
    // a change of counted rows leaves a view nothing to go by: nothing more may be dropped either
    less.delete("i = 1").await;
    assert!(
        less.views()
            .into_iter()
            .all(|view| less.absorbed(view) == 0)
    );
}
