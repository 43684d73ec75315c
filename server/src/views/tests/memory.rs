//! Views that do not fit into the memory that storing them has.

use catalog::Strategy;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::same;
use super::world::{World, events};

const SHAPES: [(&str, Strategy); 7] = [
    (
        "SELECT k, i, ts, count(*) AS n, sum(v) AS s, min(d) AS lo FROM t GROUP BY k, i, ts",
        Strategy::Agg,
    ),
    (
        "SELECT k, ts, count(DISTINCT i) AS x, max(v) AS m FROM t GROUP BY k, ts",
        Strategy::Agg2,
    ),
    (
        "SELECT i, ts, session_window(ts, INTERVAL '1 second') AS w, count(*) AS n FROM t \
         GROUP BY i, ts, session_window(ts, INTERVAL '1 second')",
        Strategy::Session,
    ),
    (
        "SELECT k, i, v, ts, repeat('and more of it ', 40) || k AS more FROM t",
        Strategy::Append,
    ),
    (
        "SELECT k, i, ts, v FROM t QUALIFY rank() OVER (PARTITION BY k, ts ORDER BY i DESC) <= 3",
        Strategy::Top,
    ),
    (
        "SELECT ts, k, median(i) AS m, count(*) AS n FROM t GROUP BY ts, k",
        Strategy::Keyed,
    ),
    (
        "SELECT k, ts, row_number() OVER (ORDER BY ts, k, i, v, b, d) AS place FROM t",
        Strategy::Full,
    ),
];

const ROWS: i64 = 30_000;

/// Runs, folds and states made anew are written in pieces, and are the same.
#[tokio::test]
async fn states_greater_than_memory_are_stored_in_pieces() {
    for (sql, strategy) in SHAPES {
        let mut random = StdRng::seed_from_u64(7);
        let world = World::new(&[sql]).await;
        let view = world.views()[0];
        assert_eq!(world.strategy(view), strategy, "{sql}");
        for _ in 0..2 {
            let first = world.next_lsn();
            world.append(events(&mut random, first, ROWS / 2)).await;
            world.refresh(view).await;
        }
        assert!(world.spilled() > 0, "{sql}");
        same(&world.direct(view).await, &world.read(view).await, sql);
        world.rebuild(view).await;
        same(&world.direct(view).await, &world.read(view).await, sql);
    }
}
