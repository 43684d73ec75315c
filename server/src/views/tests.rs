mod keyed;
mod lookup;
mod memory;
mod random;
mod refusals;
mod retention;
mod strategies;
mod verify;
mod world;

use datafusion::common::ScalarValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::world::{Rows, World, events};
use super::refresh::Verdict;
use super::*;

/// Every accepted shape: keys of all kinds, no keys, HAVING, FILTER, expressions around aggregates.
const QUERIES: &[&str] = &[
    "SELECT k, count(*) AS n, count(v) AS c, sum(i) AS s, avg(v) AS a, min(ts) AS lo, max(ts) AS hi, \
     min(k) AS mk FROM t GROUP BY k",
    "SELECT count(*) AS n, sum(v) AS s, avg(d) AS a, stddev(v) AS sd, var_pop(v) AS vp, corr(v, i) AS c, \
     covar_samp(v, i) AS cs, max(d) AS m FROM t",
    "SELECT k, sum(i) AS s FROM t GROUP BY k HAVING count(*) > 5 AND k IS NOT NULL",
    "SELECT k, count(*) FILTER (WHERE b) AS n, sum(i) FILTER (WHERE v > 0.0) AS s, \
     avg(v) FILTER (WHERE k = 'a' AND i > 0) AS a FROM t GROUP BY k",
    "SELECT f, count(*) AS n, var(v) AS va FROM t GROUP BY f",
    "SELECT date_bin(INTERVAL '1 hour', ts) AS hour, k, count(*) AS n, stddev_pop(v) AS sp FROM t \
     GROUP BY 1, 2",
    "SELECT DISTINCT k, b FROM t",
    "SELECT k, sum(i) * 2 + 1 AS x, coalesce(sum(v), 0.0) / count(*) AS y, \
     CASE WHEN count(*) > 3 THEN 'many' ELSE 'few' END AS z FROM t WHERE i <> 7 GROUP BY k",
    "SELECT k, i * 2 AS x, ts, d FROM t WHERE i > 0 OR k IS NULL",
    "SELECT s.key || '!' AS key, s.v FROM (SELECT k AS key, v, b FROM t WHERE b) AS s WHERE s.v < 50.0",
    "SELECT q.key, sum(q.w) AS w FROM (SELECT upper(k) AS key, v * 2 AS w FROM t WHERE v > 1.0) AS q \
     GROUP BY q.key",
    "SELECT b, sum(d) AS s, avg(d) AS a, bool_and(v > 10.0) AS ba, bool_or(b) AS bo, bit_and(i) AS x, \
     bit_or(i) AS y, bit_xor(i) AS z, covar_pop(v, i) AS cp FROM t GROUP BY b",
    "SELECT count(*) AS n, sum(i) AS s, min(k) AS m FROM t WHERE i > 1000000",
    "SELECT i % 3 AS m, b, max(v) AS v FROM t GROUP BY i % 3, b",
    "SELECT min(v) AS lo, max(ts) AS hi FROM t",
    "SELECT k, make_array(k, upper(k)) AS l, ts - TIMESTAMPTZ '1970-01-01T00:00:00Z' AS age FROM t",
    "SELECT d AS price, count(k) AS n FROM t WHERE k LIKE 'a%' GROUP BY d",
];

/// Questions over a view `v` that has a column `n`.
const QUESTIONS: &[&str] = &[
    "SELECT count(*), sum(n) FROM v",
    "SELECT * FROM v WHERE n > 3 ORDER BY n LIMIT 2",
];

#[tokio::test]
async fn a_view_is_its_query_however_its_rows_are_spread() {
    for seed in 0..2 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new(QUERIES).await;
        for _ in 0..5 {
            let rows = random.random_range(1..60);
            world
                .append(events(&mut random, world.next_lsn(), rows))
                .await;
            if random.random_bool(0.4) {
                world.flush().await;
            }
            for view in world.views() {
                if random.random_bool(0.35) {
                    world.refresh(view).await;
                }
                if random.random_bool(0.3) {
                    world.compact(view).await;
                }
            }
            if random.random_bool(0.5) {
                check(&world, seed).await;
            }
        }
        check(&world, seed).await;
        // everything stored, nothing left to aggregate
        for view in world.views() {
            world.refresh(view).await;
        }
        world.flush().await;
        check(&world, seed).await;
    }
}

async fn check(world: &World, seed: u64) {
    for view in world.views() {
        let direct = world.direct(view).await;
        let read = world.read(view).await;
        same(&direct, &read, &format!("seed {seed}: {}", world.sql(view)));
    }
}

/// Equal as bags, floats to the last bits.
fn same(direct: &Rows, read: &Rows, what: &str) {
    assert_eq!(direct.names, read.names, "{what}");
    assert_eq!(direct.types, read.types, "{what}");
    assert_eq!(
        direct.rows.len(),
        read.rows.len(),
        "{what}\n{direct:?}\n{read:?}"
    );
    for (a, b) in direct.rows.iter().zip(&read.rows) {
        let equal = a.iter().zip(b).all(|(a, b)| match (a, b) {
            (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
                a == b
                    || (a.is_nan() && b.is_nan())
                    || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
            }
            _ => a == b,
        });
        assert!(equal, "{what}\ndirect {a:?}\nread   {b:?}");
    }
}

#[tokio::test]
async fn questions_over_a_view_see_the_view() {
    let queries = &[QUERIES[0], QUERIES[1], QUERIES[12]];
    let mut random = StdRng::seed_from_u64(77);
    let world = World::new(queries).await;
    world.append(events(&mut random, 1, 50)).await;
    for view in world.views() {
        world.refresh(view).await;
    }
    world.append(events(&mut random, 51, 50)).await;
    for view in world.views() {
        for question in QUESTIONS {
            let asked = world.ask(view, question, true).await;
            let expected = world.ask(view, question, false).await;
            same(&expected, &asked, question);
        }
    }
    // predicates without columns stay above the merge; DataFusion itself pushes them below an
    // aggregation, where they cannot remove its row
    for (question, n) in [
        ("SELECT n FROM v WHERE random() > 2.0", 0),
        ("SELECT n FROM v WHERE (SELECT count(*) FROM t) < 0", 0),
        ("SELECT n FROM v WHERE (SELECT count(*) FROM t) = 100", 1),
    ] {
        let single = world.views()[1];
        assert_eq!(
            world.ask(single, question, true).await.rows.len(),
            n,
            "{question}"
        );
    }
    let keyed = world.views()[0];
    let share = "SELECT k FROM v WHERE k IS NOT NULL AND random() < 2.0";
    let all = "SELECT k FROM v WHERE k IS NOT NULL";
    same(
        &world.ask(keyed, all, false).await,
        &world.ask(keyed, share, true).await,
        share,
    );
    let question = "SELECT n, s FROM v WHERE k = 'a'";
    let asked = world.ask(keyed, question, true).await;
    same(&world.ask(keyed, question, false).await, &asked, question);
    let plan = world.explain(keyed, question).await;
    assert!(
        plan.contains("MergeStates: view=v, strategy=AGG, durable_lsn=50"),
        "{plan}"
    );
    // the key's predicate reaches the stored states and the new rows
    assert!(
        plan.contains("g0@0 = a") || plan.contains("predicate=g0@0 = a"),
        "{plan}"
    );
    assert!(plan.contains("k@1 = a"), "{plan}");
}

#[tokio::test]
async fn refresh_stores_once_and_folding_keeps_the_answer() {
    let world = World::new(&[QUERIES[0]]).await;
    let view = world.views()[0];
    let mut random = StdRng::seed_from_u64(5);
    for i in 0..5 {
        world
            .append(events(&mut random, world.next_lsn(), 40))
            .await;
        world.refresh(view).await;
        world.refresh(view).await;
        assert_eq!(world.state_files(view), i + 1);
    }
    let before = world.read(view).await;
    assert!(world.compact(view).await);
    assert_eq!(world.state_files(view), 1);
    assert!(!world.compact(view).await);
    let after = world.read(view).await;
    same(&before, &after, "folded");
    let folded = world.state_rows(view).await;
    assert_eq!(folded.rows.len(), after.rows.len(), "one row per key");
    let last = folded.names.len();
    assert_eq!(folded.names[last - 2..], ["_lo", "_hi"]);
    assert_eq!(folded.rows[0][last - 2], ScalarValue::Int64(Some(1)));
    assert_eq!(folded.rows[0][last - 1], ScalarValue::Int64(Some(200)));
}

#[tokio::test]
async fn rebuilding_forgets_rows_that_the_source_lost() {
    let world = World::new(&[QUERIES[0], QUERIES[8]]).await;
    let mut random = StdRng::seed_from_u64(9);
    world.append(events(&mut random, 1, 40)).await;
    world.flush().await;
    for view in world.views() {
        world.refresh(view).await;
        assert!(!world.read(view).await.rows.is_empty());
    }
    world.delete("true").await;
    world.append(events(&mut random, 41, 10)).await;
    for view in world.views() {
        world.rebuild(view).await;
        assert_eq!(world.durable(view), 50);
        same(
            &world.direct(view).await,
            &world.read(view).await,
            world.sql(view),
        );
    }
}

#[tokio::test]
async fn an_abandoned_refresh_counts_no_row_twice() {
    let world = World::new(&[QUERIES[0]]).await;
    let view = world.views()[0];
    let mut random = StdRng::seed_from_u64(11);
    world.append(events(&mut random, 1, 40)).await;
    world.abandon_refresh(view).await;
    world.append(events(&mut random, 41, 40)).await;
    world.refresh(view).await;
    assert_eq!(world.durable(view), 80);
    assert_eq!(world.state_files(view), 2);
    same(
        &world.direct(view).await,
        &world.read(view).await,
        world.sql(view),
    );
}

#[tokio::test]
async fn the_background_refresher_keeps_views_close_and_stops() {
    let world = World::new(&[QUERIES[0], QUERIES[8]]).await;
    let mut random = StdRng::seed_from_u64(6);
    world.append(events(&mut random, 1, 40)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let wait = async {
        while world.views().into_iter().any(|v| world.durable(v) < 40) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    // boxed as a task would be: it must be Send
    let run: futures::future::BoxFuture<'_, ()> = Box::pin(world.refresher.run(stop.clone()));
    let both = async { tokio::join!(run, wait) };
    tokio::time::timeout(std::time::Duration::from_secs(60), both)
        .await
        .unwrap();
}

#[tokio::test]
async fn state_format_1_has_these_columns() {
    let golden = [
        ("count(*)", "Int64"),
        ("count(v)", "Int64"),
        ("sum(i)", "Int64"),
        ("sum(v)", "Float64"),
        ("sum(d)", "Decimal128(22, 2)"),
        ("avg(v)", "Int64, Float64"),
        ("avg(d)", "Int64, Decimal128(38, 2)"),
        ("min(k)", "Utf8"),
        ("max(ts)", "Timestamp(µs, \"UTC\")"),
        ("bool_and(b)", "Boolean"),
        ("bool_or(b)", "Boolean"),
        ("bit_and(i)", "Int32"),
        ("bit_or(i)", "Int32"),
        ("bit_xor(i)", "Int32"),
        ("var(v)", "Int64, Float64, Float64"),
        ("var_pop(v)", "Int64, Float64, Float64"),
        ("stddev(v)", "Int64, Float64, Float64"),
        ("stddev_pop(v)", "Int64, Float64, Float64"),
        ("covar_samp(v, i)", "Int64, Float64, Float64, Float64"),
        ("covar_pop(v, i)", "Int64, Float64, Float64, Float64"),
        (
            "corr(v, i)",
            "Int64, Float64, Float64, Float64, Float64, Float64",
        ),
    ];
    assert_eq!(STATE_FORMAT, 1);
    let world = World::new(&[]).await;
    for (call, expected) in golden {
        let sql = format!("SELECT k, {call} AS x FROM t GROUP BY k");
        let schema =
            state_schema(&analyze("v", &world.plan(&sql).await, &Options::default()).unwrap());
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let states: Vec<_> = schema
            .fields()
            .iter()
            .filter(|f| f.name().starts_with('s'))
            .collect();
        let types: Vec<_> = states.iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types.join(", "), expected, "{call}");
        assert_eq!(names.first(), Some(&"g0"));
        assert_eq!(names[names.len() - 2..], ["_lo", "_hi"]);
        assert!(
            states
                .iter()
                .enumerate()
                .all(|(i, f)| f.name() == &format!("s{i}"))
        );
    }
}
