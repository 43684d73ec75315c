//! A key that is looked up is the key of the view, however its rows are spread.

use datafusion::common::ScalarValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{World, events};
use super::{Blocks, QUERIES, same};

/// Views by their keys, and the values that are asked for.
fn views() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        (QUERIES[0], vec!["k"]),
        (QUERIES[3], vec!["k"]),
        (QUERIES[5], vec!["hour", "k"]),
        (QUERIES[6], vec!["b", "k"]),
        (QUERIES[7], vec!["k"]),
        (QUERIES[13], vec!["b", "m"]),
        (QUERIES[16], vec!["price"]),
        (
            "SELECT q.key AS name, q.w FROM (SELECT upper(k) AS key, sum(v) AS w FROM t WHERE v > 1.0 \
             GROUP BY upper(k)) AS q",
            vec!["name"],
        ),
    ]
}

#[tokio::test]
async fn a_key_is_that_of_the_view() {
    let views = views();
    let queries: Vec<&str> = views.iter().map(|(query, _)| *query).collect();
    for budget in [64 << 20, 4_000] {
        let mut random = StdRng::seed_from_u64(5);
        let world = World::new(&queries).await;
        let blocks = Blocks::new(budget);
        let mut lookups = Vec::new();
        for (view, (_, keys)) in world.views().into_iter().zip(&views) {
            let conditions: Vec<String> = keys
                .iter()
                .enumerate()
                .map(|(at, key)| format!("{key} = ${}", at + 1))
                .collect();
            let question = format!("SELECT * FROM v WHERE {}", conditions.join(" AND "));
            let found = world.lookup(view, &question).await;
            lookups.push(found.unwrap_or_else(|| panic!("{}", world.sql(view))));
        }
        let mut answered = 0;
        for _ in 0..6 {
            let rows = random.random_range(1..60);
            world
                .append(events(&mut random, world.next_lsn(), rows))
                .await;
            if random.random_bool(0.5) {
                world.flush().await;
            }
            for view in world.views() {
                if random.random_bool(0.4) {
                    world.refresh(view).await;
                }
                if random.random_bool(0.3) {
                    world.compact(view).await;
                }
            }
            for ((view, (_, keys)), lookup) in world.views().into_iter().zip(&views).zip(&lookups) {
                let all = world.direct(view).await;
                let at = |name: &str| all.names.iter().position(|n| n == name).unwrap();
                let places: Vec<usize> = keys.iter().map(|key| at(key)).collect();
                for row in &all.rows {
                    let key: Vec<ScalarValue> = places.iter().map(|at| row[*at].clone()).collect();
                    let found = world.look_up(lookup, &key, &blocks).await;
                    if key.iter().any(ScalarValue::is_null) {
                        // nothing equals NULL: the planner says so
                        assert!(found.is_none());
                        continue;
                    }
                    let Some(found) = found else {
                        // too little room to read what is newer
                        assert_eq!(budget, 4_000, "{}", world.sql(view));
                        continue;
                    };
                    answered += 1;
                    let expected = super::world::Rows {
                        names: all.names.clone(),
                        types: all.types.clone(),
                        rows: vec![row.clone()],
                    };
                    same(&expected, &found, world.sql(view));
                }
            }
        }
        assert!(answered > 100, "{answered}");
        let none = [ScalarValue::from("no such key")];
        let found = world.look_up(&lookups[0], &none, &blocks).await;
        assert!(found.is_none_or(|rows| rows.rows.is_empty()));
    }
}

#[tokio::test]
async fn other_questions_are_planned() {
    let world = World::with_options(&[
        ("SELECT k, b, count(*) AS n FROM t GROUP BY k, b", ""),
        (
            "SELECT k, count(*) AS n FROM t GROUP BY k",
            "schedule=1hour",
        ),
        ("SELECT k, count(DISTINCT i) AS n FROM t GROUP BY k", ""),
        (
            "SELECT k, sum(i) AS n FROM t GROUP BY k HAVING count(*) > 5",
            "",
        ),
        ("SELECT f AS k, count(*) AS n FROM t GROUP BY f", ""),
        (
            "SELECT t.k, count(*) AS n FROM t JOIN d ON t.k = d.k GROUP BY t.k",
            "",
        ),
    ])
    .await;
    let views = world.views();
    for (view, question) in [
        (views[0], "SELECT * FROM v WHERE k = $1"),
        (
            views[0],
            "SELECT * FROM v WHERE k = $1 AND b = $2 AND n > 3",
        ),
        (views[0], "SELECT * FROM v WHERE k = $1 OR b = $2"),
        (views[0], "SELECT count(*) FROM v WHERE k = $1 AND b = $2"),
        (
            views[0],
            "SELECT random(), n FROM v WHERE k = $1 AND b = $2",
        ),
        (views[1], "SELECT * FROM v WHERE k = $1"),
        (views[2], "SELECT * FROM v WHERE k = $1"),
        (views[3], "SELECT * FROM v WHERE k = $1"),
        (views[4], "SELECT * FROM v WHERE k = $1"),
        (views[5], "SELECT * FROM v WHERE k = $1"),
    ] {
        let found = world.lookup(view, question).await;
        assert!(found.is_none(), "{question}");
    }
    let both = "SELECT n + 1 AS m, k FROM v WHERE b = $2 AND k = $1";
    assert!(world.lookup(views[0], both).await.is_some());
}

#[tokio::test]
async fn changed_rows_are_planned() {
    let world = World::with_options(&[(
        "SELECT k, count(*) AS n FROM t GROUP BY k",
        "on_source_change=recompute",
    )])
    .await;
    let view = world.views()[0];
    let mut random = StdRng::seed_from_u64(6);
    world.append(events(&mut random, 1, 200)).await;
    world.refresh(view).await;
    let lookup = world.lookup(view, "SELECT n FROM v WHERE k = $1").await;
    let lookup = lookup.unwrap();
    let (key, blocks) = ([ScalarValue::from("a")], Blocks::new(1 << 20));
    assert!(world.look_up(&lookup, &key, &blocks).await.is_some());
    world.delete("i > 10").await;
    assert!(world.look_up(&lookup, &key, &blocks).await.is_none());
    world.refresh(view).await;
    let found = world.look_up(&lookup, &key, &blocks).await.unwrap();
    let expected = world
        .ask(view, "SELECT n FROM v WHERE k = 'a'", false)
        .await;
    same(&expected, &found, "after it was made anew");
}
