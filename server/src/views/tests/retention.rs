//! A view with a retention is its query without what lies below its floor, whatever is stored, folded,
//! dropped or made anew; rows that come too late are in no result.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::same;
use super::world::{World, events};
use crate::views::{Options, analyze};

/// Longer than there has been time: only the test raises floors.
const KEEP: &str = "retention=30000days on_source_change=recompute";

/// Queries, and what of their results stays at a floor.
const AGING: &[(&str, &str)] = &[
    (
        "SELECT k, date_bin(INTERVAL '1 hour', ts) AS h, count(*) AS n, avg(v) AS a FROM t GROUP BY k, h",
        "h IS NULL OR h >= date_bin(INTERVAL '1 hour', {f})",
    ),
    (
        "SELECT date_trunc('minute', ts) AS m, sum(i) + 1 AS s FROM t WHERE i > 3 GROUP BY 1 HAVING count(*) > 0",
        "m IS NULL OR m >= date_trunc('minute', {f})",
    ),
    (
        "SELECT date_bin(INTERVAL '20 minutes', ts) AS h, count(DISTINCT k) AS u, sum(i) AS s FROM t GROUP BY 1",
        "h IS NULL OR h >= date_bin(INTERVAL '20 minutes', {f})",
    ),
    (
        "SELECT date_bin(INTERVAL '30 minutes', ts) AS h, count(DISTINCT k) AS u, count(DISTINCT i) AS w, avg(v) AS a \
         FROM t GROUP BY 1",
        "h IS NULL OR h >= date_bin(INTERVAL '30 minutes', {f})",
    ),
    (
        "SELECT date_trunc('hour', ts) AS h, approx_distinct(k) AS u, approx_median(v) AS m, approx_top_k(i, 2) AS top \
         FROM t GROUP BY 1",
        "h IS NULL OR h >= date_trunc('hour', {f})",
    ),
    (
        "SELECT DISTINCT h, b FROM (SELECT date_bin(INTERVAL '1 hour', ts) AS h, b FROM t) AS q",
        "h IS NULL OR h >= date_bin(INTERVAL '1 hour', {f})",
    ),
    (
        "SELECT i * 2 AS x, ts AS seen, k FROM t WHERE b IS NOT FALSE",
        "seen IS NULL OR seen >= {f}",
    ),
    (
        "SELECT d.region, date_bin(INTERVAL '1 hour', t.ts) AS h, count(*) AS n FROM t JOIN d ON t.k = d.k GROUP BY 1, 2",
        "h IS NULL OR h >= date_bin(INTERVAL '1 hour', {f})",
    ),
    (
        "SELECT b, hop_window(ts, INTERVAL '1 hour', INTERVAL '20 minutes') AS w, count(*) AS n FROM t \
         GROUP BY b, hop_window(ts, INTERVAL '1 hour', INTERVAL '20 minutes')",
        "w['end'] > {f}",
    ),
    (
        "SELECT k, session_window(ts, INTERVAL '10 minutes') AS w, count(*) AS n, max(i) AS m FROM t \
         GROUP BY k, session_window(ts, INTERVAL '10 minutes')",
        "w['end'] >= {f}",
    ),
    (
        "SELECT q.h, q.n, rank() OVER (PARTITION BY h ORDER BY n) AS r FROM \
         (SELECT date_bin(INTERVAL '1 hour', ts) AS h, k, count(*) AS n FROM t GROUP BY 1, 2) AS q",
        "h IS NULL OR h >= date_bin(INTERVAL '1 hour', {f})",
    ),
];

/// What is too late for one view: rows above a position and before a time.
#[derive(Debug, Default, Clone)]
struct Late {
    floor: Option<i64>,
    /// The state counts other rows than there are: reads ask them all.
    stale: bool,
    by: Vec<(i64, i64)>,
}

fn instant(micros: i64) -> String {
    format!("to_timestamp_micros({micros})::timestamptz")
}

impl Late {
    fn condition(&self) -> String {
        let each = self.by.iter().filter(|_| !self.stale);
        let each: Vec<String> = each
            .map(|(lsn, f)| format!("(_lsn > {lsn} AND ts < {})", instant(*f)))
            .collect();
        match each.is_empty() {
            true => "false".to_owned(),
            false => each.join(" OR "),
        }
    }

    /// The state was made from all rows up to there.
    fn made_anew(&mut self, upto: i64) {
        self.stale = false;
        self.by.clear();
        self.by.extend(self.floor.map(|f| (upto, f)));
    }
}

async fn check(world: &World, late: &[Late], seed: u64) {
    for (i, view) in world.views().into_iter().enumerate() {
        let (sql, stays) = AGING[i];
        let late = &late[i];
        let rows = format!(
            "FROM (SELECT * FROM m WHERE ({}) IS NOT TRUE) AS t",
            match sql.contains("session_window") {
                true => late.condition(),
                // a bucket counts all its rows, or is not seen
                false => "false".to_owned(),
            }
        );
        let query = sql.replace("FROM t", &rows);
        let stays = late.floor.map(|f| stays.replace("{f}", &instant(f)));
        let expected = match stays {
            None => query,
            Some(stays) => format!("SELECT * FROM ({query}) AS q WHERE {stays}"),
        };
        let what = format!("seed {seed}: {sql}\n{late:?}");
        same(
            &world.model(&expected).await,
            &world.read(view).await,
            &what,
        );
    }
}

#[tokio::test]
async fn a_view_with_a_retention_is_its_query_above_its_floor() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test runs is asked for outside"
    )]
    let wanted = std::env::var("WEIR_RETENTION_SCHEDULES").ok();
    let schedules: u64 = wanted.and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 0..schedules {
        let mut random = StdRng::seed_from_u64(seed);
        let views: Vec<(&str, &str)> = AGING.iter().map(|(q, _)| (*q, KEEP)).collect();
        let world = World::with_options(&views).await;
        world.change_dim(super::world::dimension(&mut random)).await;
        let mut late = vec![Late::default(); views.len()];
        let all = world.views();
        for (i, view) in all.iter().enumerate() {
            // the first refresh gives a view its floor: far below all rows
            world.refresh(*view).await;
            late[i].made_anew(0);
        }
        for _ in 0..random.random_range(4..9) {
            match random.random_range(0..10) {
                0..6 => {
                    let rows = random.random_range(1..40);
                    world
                        .append(events(&mut random, world.next_lsn(), rows))
                        .await;
                }
                6..8 => world.flush().await,
                8 => {
                    world.delete("i % 5 = 0").await;
                    for late in &mut late {
                        late.stale = true;
                    }
                }
                _ => {}
            }
            for (i, view) in all.iter().enumerate() {
                let upto = world.next_lsn() - 1;
                match random.random_range(0..12) {
                    0..3 => {
                        world.refresh(*view).await;
                        if late[i].stale {
                            late[i].made_anew(upto);
                        }
                    }
                    3..5 => drop(world.compact(*view).await),
                    5..8 => {
                        let from = world.durable(*view);
                        let to = late[i].floor.unwrap_or(0) + random.random_range(0..6_000_000_000);
                        let overdue = to - random.random_range(0..2) * 3_000_000_000;
                        if world.raise_floor(*view, to, overdue).await {
                            late[i].floor = Some(to);
                            late[i].by.push((from, to));
                        }
                    }
                    8 => {
                        world.rebuild(*view).await;
                        late[i].made_anew(upto);
                    }
                    _ => {}
                }
            }
            check(&world, &late, seed).await;
        }
        for (i, view) in all.iter().enumerate() {
            world.refresh(*view).await;
            if late[i].stale {
                let upto = world.next_lsn() - 1;
                late[i].made_anew(upto);
            }
        }
        check(&world, &late, seed).await;
    }
}

#[tokio::test]
async fn dropped_state_makes_room_and_late_rows_are_counted() {
    let mut random = StdRng::seed_from_u64(5);
    let views: Vec<(&str, &str)> = AGING.iter().map(|(q, _)| (*q, KEEP)).collect();
    let world = World::with_options(&views).await;
    world.append(events(&mut random, 1, 400)).await;
    for view in world.views() {
        world.refresh(view).await;
        let before = world.state_rows(view).await.rows.len();
        let low = 12_000_000_000;
        assert!(world.raise_floor(view, low - 6_000_000_000, 0).await);
        let kept = world.state_rows(view).await.rows.len();
        assert_eq!(kept, before, "nothing is overdue: {}", world.sql(view));
        assert!(world.raise_floor(view, low, low).await);
        let after = world.state_rows(view).await.rows.len();
        assert!(after < before, "{after} of {before}: {}", world.sql(view));
        assert!(
            !world.raise_floor(view, low - 1, low).await,
            "a floor falls"
        );
    }
    let counted = AGING
        .iter()
        .position(|(sql, _)| sql.contains("IS NOT FALSE"));
    let counted = world.views()[counted.unwrap()];
    assert_eq!(world.late(counted), 0);
    world
        .append(events(&mut random, world.next_lsn(), 100))
        .await;
    let below = "SELECT count(*) AS n FROM m WHERE _lsn > 400 AND ts < to_timestamp_micros(12000000000)::timestamptz \
                 AND b IS NOT FALSE";
    let below = world.model(below).await;
    for view in world.views() {
        world.refresh(view).await;
        assert!(world.late(view) > 0, "{}", world.sql(view));
    }
    assert_eq!(
        world.late(counted).to_string(),
        below.rows[0][0].to_string()
    );
}

#[tokio::test]
async fn results_without_a_time_do_not_age() {
    let world = World::new(&[]).await;
    for (sql, expected) in [
        ("SELECT k, count(*) AS n FROM t GROUP BY k", None),
        ("SELECT k, max(ts) AS last FROM t GROUP BY k", None),
        // the bucket is not in the result, or not as it is stored
        (
            "SELECT count(*) AS n FROM t GROUP BY date_bin(INTERVAL '1 hour', ts)",
            None,
        ),
        (
            "SELECT max(h) AS h FROM (SELECT date_bin(INTERVAL '1 hour', ts) AS h, k FROM t GROUP BY 1, 2) AS q",
            None,
        ),
        (
            "SELECT h + INTERVAL '1 hour' AS h FROM (SELECT date_bin(INTERVAL '1 hour', ts) AS h FROM t GROUP BY 1) AS q",
            None,
        ),
        (
            "SELECT h, n FROM (SELECT date_bin(INTERVAL '1 hour', ts) AS h, count(*) AS n FROM t GROUP BY 1) AS q ORDER BY n, h LIMIT 3",
            None,
        ),
        (
            "SELECT h, rank() OVER (ORDER BY h) AS r FROM (SELECT date_bin(INTERVAL '1 hour', ts) AS h FROM t GROUP BY 1) AS q",
            None,
        ),
        (
            "SELECT k, i, ts FROM t QUALIFY rank() OVER (PARTITION BY k ORDER BY i) <= 2",
            None,
        ),
        ("SELECT k, ts FROM t", Some(1)),
        (
            "SELECT k, ts::date AS day, date_bin(INTERVAL '1 hour', ts) AS h, count(*) AS n FROM t GROUP BY 1, 2, 3",
            Some(1),
        ),
        (
            "SELECT count(*) AS n, date_trunc('day', ts) AS d FROM (SELECT * FROM t UNION ALL SELECT * FROM t) AS u GROUP BY 2",
            Some(1),
        ),
    ] {
        let plan = world.plan(sql).await;
        let analysis = analyze("v", &plan, &Options::default()).expect(sql);
        let ages = |declared: &str| {
            let declared = declared.to_owned();
            crate::views::floor::ages_by("v", &plan, analysis.strategy, &move |_| {
                Some(declared.clone())
            })
        };
        assert_eq!(ages("ts").ok(), expected, "{sql}");
    }
    // two times, neither the event time
    let plan = world.plan("SELECT ts, ts AS again FROM t").await;
    let refused = |declared: Option<&str>| {
        let declared = declared.map(str::to_owned);
        crate::views::floor::ages_by("v", &plan, catalog::Strategy::Append, &move |_| {
            declared.clone()
        })
    };
    assert!(refused(None).is_err());
    assert_eq!(refused(Some("ts")).unwrap(), 0);
}
