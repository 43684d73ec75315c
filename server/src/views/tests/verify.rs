//! States that agree with their sources are found to, one that does not is found out.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::strategies::shapes;
use super::world::{World, dimension, events};
use super::{QUERIES, Verdict};

const ALL: usize = 1_000;

fn wrong(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Compared { wrong, .. } => *wrong,
        Verdict::Skipped(_) => 0,
    }
}

#[tokio::test]
async fn what_is_right_agrees_with_its_sources() {
    let shapes = shapes();
    let queries: Vec<(&str, &str)> = QUERIES
        .iter()
        .copied()
        .chain(shapes.iter().map(|(query, _)| query.as_str()))
        .map(|query| (query, "on_source_change=recompute"))
        .collect();
    let mut random = StdRng::seed_from_u64(11);
    let world = World::with_options(&queries).await;
    world.change_dim(dimension(&mut random)).await;
    for view in world.views() {
        let none = world.verify(view, 4).await;
        assert!(matches!(none, Verdict::Skipped(_)), "{}", world.sql(view));
    }
    let mut compared = 0;
    for round in 0..3 {
        for _ in 0..2 {
            world
                .append(events(&mut random, world.next_lsn(), 40))
                .await;
            if round > 0 {
                world.flush().await;
            }
            for view in world.views() {
                world.refresh(view).await;
            }
        }
        // rows behind the state are none of its business
        world
            .append(events(&mut random, world.next_lsn(), 10))
            .await;
        for view in world.views() {
            let verdict = world.verify(view, 3).await;
            assert_eq!(wrong(&verdict), 0, "{}: {verdict:?}", world.sql(view));
            compared += usize::from(matches!(verdict, Verdict::Compared { .. }));
        }
    }
    assert!(compared > 3 * world.views().len() / 2, "{compared}");
    world.delete("i < 20").await;
    for view in world.views() {
        let verdict = world.verify(view, 3).await;
        assert!(
            matches!(verdict, Verdict::Skipped(_)),
            "{}",
            world.sql(view)
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_found() {
    let queries = [
        "SELECT k, count(*) AS n, sum(i) AS s FROM t GROUP BY k",
        "SELECT count(*) AS n FROM t",
        "SELECT k, i, ts FROM t WHERE i > 0",
        "SELECT k, session_window(ts, INTERVAL '1 minute') AS w, count(*) AS n FROM t \
         GROUP BY k, session_window(ts, INTERVAL '1 minute')",
        "SELECT k, count(DISTINCT i) AS d, sum(i) AS s FROM t GROUP BY k",
        "SELECT k, median(i) AS m, count(*) AS n FROM t GROUP BY k",
    ];
    let mut random = StdRng::seed_from_u64(12);
    let world = World::new(&queries).await;
    world.append(events(&mut random, 1, 60)).await;
    world.flush().await;
    for view in world.views() {
        world.refresh(view).await;
        let verdict = world.verify(view, ALL).await;
        assert!(
            matches!(
                verdict,
                Verdict::Compared {
                    keys: 1..,
                    wrong: 0
                }
            ),
            "{}: {verdict:?}",
            world.sql(view)
        );
        world.store_a_row_twice(view).await;
        let verdict = world.verify(view, ALL).await;
        assert!(wrong(&verdict) > 0, "{}: {verdict:?}", world.sql(view));
        // made anew, it is right again
        world.rebuild(view).await;
        let verdict = world.verify(view, ALL).await;
        assert_eq!(wrong(&verdict), 0, "{}: {verdict:?}", world.sql(view));
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_not() {
    let mut random = StdRng::seed_from_u64(13);
    let hourly = "SELECT date_bin(INTERVAL '1 hour', ts) AS h, count(*) AS n FROM t GROUP BY 1";
    let queries = [
        (hourly, ""),
        (hourly, "retention=30000days"),
        (
            "SELECT k, session_window(ts, INTERVAL '10 minutes') AS w, count(*) AS n FROM t \
             GROUP BY k, session_window(ts, INTERVAL '10 minutes')",
            "retention=30000days",
        ),
        (
            "SELECT k, i, row_number() OVER (PARTITION BY k ORDER BY i) AS r FROM t",
            "",
        ),
    ];
    let world = World::with_options(&queries).await;
    let [plain, aging, sessions, tied] = world.views()[..] else {
        panic!("four views");
    };
    world.append(events(&mut random, 1, 60)).await;
    for view in world.views() {
        world.refresh(view).await;
    }
    let verdict = world.verify(tied, 4).await;
    assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("chance")));
    // a floor cuts buckets whole, and sessions in two
    let floor = 6_000_000_000;
    for view in [aging, sessions] {
        assert!(world.raise_floor(view, floor, floor).await);
    }
    world.append(events(&mut random, 61, 60)).await;
    for view in [plain, aging, sessions] {
        world.refresh(view).await;
    }
    let verdict = world.verify(aging, ALL).await;
    assert!(
        matches!(verdict, Verdict::Compared { wrong: 0, .. }),
        "{verdict:?}"
    );
    let verdict = world.verify(sessions, 4).await;
    assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("sessions")));
    // rows that are gone still count
    world.expire("i < 20").await;
    let verdict = world.verify(plain, 4).await;
    assert!(matches!(verdict, Verdict::Skipped(why) if why.contains("dropped")));
}
