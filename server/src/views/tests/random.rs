//! Random queries of the grammar that views accept, under random schedules of what can happen to
//! their sources and state: a read always gives what the query gives at the same cut.
//!
//! `WEIR_VIEW_SCHEDULES` says how many schedules (one query under one sequence of events) are run.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::same;
use super::world::{World, dimension, events};

/// Queries that share one world, and so one sequence of events.
const VIEWS: usize = 6;

fn pick(random: &mut StdRng, from: &[&str]) -> String {
    (*from.choose(random).unwrap()).to_owned()
}

fn some(random: &mut StdRng, from: &[&str], most: usize) -> Vec<String> {
    let count = random.random_range(1..=most.min(from.len()));
    let chosen = from.choose_multiple(random, count);
    chosen.map(|s| (*s).to_owned()).collect()
}

fn condition(random: &mut StdRng) -> String {
    pick(
        random,
        &[
            "i > 5",
            "k IS NOT NULL",
            "b",
            "k LIKE 'a%'",
            "v < 40.0 OR i % 2 = 0",
            "ts > TIMESTAMPTZ '1970-01-01T02:00:00Z'",
            "NOT b AND i < 30",
            "k IN ('a', 'b', 'ü')",
        ],
    )
}

fn filtered(random: &mut StdRng) -> String {
    match random.random_bool(0.4) {
        true => format!(" WHERE {}", condition(random)),
        false => String::new(),
    }
}

const KEYS: &[&str] = &[
    "k",
    "b",
    "i % 4",
    "upper(k)",
    "date_bin(INTERVAL '1 hour', ts)",
    "f",
    "coalesce(k, 'none')",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(v)",
    "sum(i)",
    "sum(d)",
    "avg(v)",
    "avg(d)",
    "min(ts)",
    "max(k)",
    "max(v)",
    "stddev(v)",
    "var_pop(i)",
    "corr(v, i)",
    "bool_or(b)",
    "bit_xor(i)",
    "count(*) FILTER (WHERE i > 10)",
    "sum(i) FILTER (WHERE k = 'a' OR b)",
    "last_value(i ORDER BY ts, i)",
    "regr_intercept(v, i)",
    "approx_distinct(i)",
    "approx_distinct(upper(k))",
    "approx_median(v)",
    "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY i)",
    "approx_percentile_cont(0.2, 20) WITHIN GROUP (ORDER BY v DESC)",
    "approx_top_k(k, 3)",
    "approx_top_k(ts, 2) FILTER (WHERE b)",
];

const MERGED: &[&str] = &[
    "count(*)",
    "sum(i)",
    "min(ts)",
    "max(d)",
    "bool_and(b)",
    "count(k)",
    "avg(v)",
    "avg(i) FILTER (WHERE b)",
];

const VALUES: &[&str] = &[
    "count(DISTINCT i)",
    "count(DISTINCT k) FILTER (WHERE i > 10)",
    "count(DISTINCT ts)",
    "sum(DISTINCT i % 7)",
    "avg(DISTINCT i)",
    "max(DISTINCT d)",
    "count(DISTINCT b)",
    "count(DISTINCT f)",
];

/// `e0 AS prefix0, e1 AS prefix1, …`
fn named(exprs: &[String], prefix: &str) -> String {
    let named = exprs.iter().enumerate();
    let named: Vec<String> = named.map(|(i, e)| format!("{e} AS {prefix}{i}")).collect();
    named.join(", ")
}

fn aggregation(random: &mut StdRng) -> String {
    let keys = match random.random_bool(0.15) {
        true => Vec::new(),
        false => some(random, KEYS, 3),
    };
    let calls = some(random, AGGREGATES, 4);
    let from = match random.random_bool(0.15) {
        true => "(SELECT * FROM t WHERE b UNION ALL SELECT * FROM t WHERE i > 20) AS u".to_owned(),
        false => "t".to_owned(),
    };
    let select = [named(&keys, "g"), named(&calls, "a")];
    let select: Vec<String> = select.into_iter().filter(|s| !s.is_empty()).collect();
    let group = match keys.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", keys.join(", ")),
    };
    let having = match random.random_bool(0.2) {
        true => " HAVING count(*) > 2",
        false => "",
    };
    let select = select.join(", ");
    let filtered = filtered(random);
    format!("SELECT {select} FROM {from}{filtered}{group}{having}")
}

fn distinct(random: &mut StdRng) -> String {
    let key = pick(random, KEYS);
    let value = pick(random, &["i", "k", "ts", "i % 7", "d"]);
    let others = named(&some(random, MERGED, 3), "a");
    let filter = match random.random_bool(0.3) {
        true => " FILTER (WHERE i > 0)",
        false => "",
    };
    let filtered = filtered(random);
    format!(
        "SELECT {key} AS g, count(DISTINCT {value}){filter} AS n, {others} FROM t{filtered} GROUP BY {key}"
    )
}

fn several_distinct(random: &mut StdRng) -> String {
    let values = named(&some(random, VALUES, 4), "n");
    let others = named(&some(random, MERGED, 3), "a");
    let filtered = filtered(random);
    match random.random_bool(0.2) {
        true => format!("SELECT {values}, {others} FROM t{filtered}"),
        false => {
            let key = pick(random, KEYS);
            let having = pick(random, &["", "", " HAVING count(*) > 2"]);
            format!("SELECT {key} AS g, {values}, {others} FROM t{filtered} GROUP BY {key}{having}")
        }
    }
}

/// Joins of two streams, and of a stream with itself or a table, by equal keys.
fn paired(random: &mut StdRng) -> String {
    let other = pick(
        random,
        &["o", "o", "o", "t AS o", "(SELECT * FROM o WHERE b) AS o"],
    );
    let on = pick(
        random,
        &[
            "t.k = o.k AND t.i = o.i",
            "t.i = o.i",
            "o.i = t.i AND o.ts > t.ts",
            "t.i % 20 = o.i % 20 AND t.k = o.k",
            "t.i = o.i AND o.ts BETWEEN t.ts AND t.ts + INTERVAL '30 minutes'",
            "t.d = o.d AND t.b IS NOT DISTINCT FROM o.b",
            "upper(t.k) = upper(o.k) AND t.i = o.i + 1",
        ],
    );
    let how = pick(random, &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let from = format!("t {how} {other} ON {on}");
    let filtered = pick(
        random,
        &[
            "",
            "",
            " WHERE t.i > 10",
            " WHERE t.b OR o.b",
            " WHERE o.ts IS NULL",
        ],
    );
    match random.random_range(0..7) {
        0 => format!("SELECT t.i, count(*) AS n, sum(o.v) AS s FROM {from}{filtered} GROUP BY t.i"),
        1 => {
            format!("SELECT o.b, count(*) AS n, max(t.ts) AS m FROM {from}{filtered} GROUP BY o.b")
        }
        2 => format!("SELECT coalesce(t.i, o.i) AS i, t.ts, o.ts AS ots FROM {from}{filtered}"),
        3 => format!(
            "SELECT t.i, t.k, rank() OVER (PARTITION BY t.i ORDER BY o.ts) AS r FROM {from}{filtered}"
        ),
        4 => {
            format!("SELECT t.k, t.i, o.d, d.region FROM {from} LEFT JOIN d ON t.k = d.k{filtered}")
        }
        _ => format!("SELECT t.k, t.i, t.v, o.k AS ok, o.ts AS ots FROM {from}{filtered}"),
    }
}

fn looked_up(random: &mut StdRng) -> String {
    let found = pick(
        random,
        &[
            "EXISTS (SELECT 1 FROM o WHERE o.i = t.i)",
            "NOT EXISTS (SELECT 1 FROM o WHERE o.i = t.i AND o.k = t.k)",
            "i IN (SELECT i FROM o WHERE b)",
            "i NOT IN (SELECT i + 1 FROM o WHERE NOT b)",
            "k IS NOT NULL AND k NOT IN (SELECT k FROM o WHERE k IS NOT NULL AND i > 30)",
            "(i > 30 OR EXISTS (SELECT 1 FROM o WHERE o.i = t.i AND o.ts < t.ts))",
            "EXISTS (SELECT 1 FROM o WHERE o.i = t.i GROUP BY o.i HAVING count(*) > 1)",
            "k IN (SELECT k FROM d WHERE w > 1)",
            "NOT EXISTS (SELECT 1 FROM d WHERE d.k = t.k)",
            "i NOT IN (SELECT w FROM d)",
        ],
    );
    let more = pick(random, &["", " AND b", " AND i > 5"]);
    match random.random_range(0..4) {
        0 => format!("SELECT i, count(*) AS n, avg(v) AS a FROM t WHERE {found}{more} GROUP BY i"),
        1 => format!("SELECT b, count(*) AS n, max(ts) AS m FROM t WHERE {found}{more} GROUP BY b"),
        _ => format!("SELECT k, i, ts, d FROM t WHERE {found}{more}"),
    }
}

fn with_tables(random: &mut StdRng) -> String {
    pick(
        random,
        &[
            "SELECT t.k, t.i, d.w FROM t LEFT JOIN d ON t.k = d.k",
            "SELECT t.i, d.region FROM t JOIN d ON t.k = d.k AND t.i > d.w",
            "SELECT d.k, d.w, t.ts FROM d LEFT JOIN t ON d.k = t.k",
            "SELECT t.k, d.k AS dk, t.i FROM t FULL JOIN d ON t.k = d.k",
            "SELECT t.i, median(t.v * d.w) AS m FROM t JOIN d ON t.k = d.k GROUP BY t.i",
            "SELECT d.region, sum(t.i * d.w) AS s FROM t JOIN d ON t.k = d.k GROUP BY d.region",
            "SELECT t.k, t.i, d.w, rank() OVER (PARTITION BY t.k ORDER BY t.i) AS r FROM t, d WHERE t.k = d.k",
        ],
    )
}

fn sessions(random: &mut StdRng) -> String {
    let gap = pick(random, &["1 minute", "10 minutes", "30 minutes", "2 hours"]);
    let window = format!("session_window(ts, INTERVAL '{gap}')");
    let mut keys = match random.random_bool(0.2) {
        true => Vec::new(),
        false => some(random, &["k", "b", "i % 4"], 2),
    };
    let calls = named(&some(random, AGGREGATES, 3), "a");
    let named_keys = match keys.is_empty() {
        true => String::new(),
        false => format!("{}, ", named(&keys, "g")),
    };
    keys.push(window.clone());
    let filtered = filtered(random);
    let group = keys.join(", ");
    format!("SELECT {named_keys}{window} AS w, {calls} FROM t{filtered} GROUP BY {group}")
}

fn top(random: &mut StdRng) -> String {
    let rank = pick(random, &["rank", "dense_rank"]);
    let by = pick(random, &["k", "k, b", "i % 3"]);
    let order = pick(
        random,
        &["i DESC", "ts, i", "d NULLS FIRST, i", "b, ts DESC"],
    );
    let n = random.random_range(1..5);
    let filtered = filtered(random);
    format!(
        "SELECT k, i, ts, d, b FROM t{filtered} QUALIFY {rank}() OVER (PARTITION BY {by} ORDER BY {order}) <= {n}"
    )
}

fn joined(random: &mut StdRng) -> String {
    let join = pick(random, &["JOIN", "LEFT JOIN"]);
    let on = pick(
        random,
        &[
            "t.k = d.k",
            "t.k = d.k AND d.w > 1",
            "t.k = d.k AND t.i > d.w",
        ],
    );
    let keys = some(random, &["d.region", "t.b", "d.w", "t.k"], 2);
    let calls = some(
        random,
        &[
            "count(*)",
            "sum(t.i)",
            "avg(t.v)",
            "var(t.v)",
            "min(t.ts)",
            "count(t.d)",
        ],
        3,
    );
    let select = [named(&keys, "g"), named(&calls, "a")].join(", ");
    let condition = pick(
        random,
        &[
            "",
            " WHERE t.i > 3",
            " WHERE d.w < 4 AND t.b",
            " WHERE t.i > d.w",
        ],
    );
    let keys = keys.join(", ");
    format!("SELECT {select} FROM t {join} d ON {on}{condition} GROUP BY {keys}")
}

fn above(random: &mut StdRng) -> String {
    let inner = "SELECT k, b, count(*) AS n, sum(i) AS s FROM t";
    let filtered = filtered(random);
    let inner = format!("({inner}{filtered} GROUP BY k, b) AS q");
    let template = pick(
        random,
        &[
            "SELECT b, max(n) AS m, count(*) AS c FROM {q} GROUP BY b",
            "SELECT k, b, n, rank() OVER (PARTITION BY b ORDER BY n) AS r FROM {q}",
            "SELECT * FROM {q} ORDER BY n DESC, s, k, b LIMIT 5",
            "SELECT q.k, q.n, d.region FROM {q} JOIN d ON q.k = d.k",
            "SELECT k, n FROM {q} WHERE k IN (SELECT k FROM d WHERE w > 1)",
            "SELECT DISTINCT n FROM {q}",
            "SELECT k, s * 2 AS s2, coalesce(s, 0) / n AS mean FROM {q} WHERE n > 1",
        ],
    );
    template.replace("{q}", &inner)
}

fn rows(random: &mut StdRng) -> String {
    let columns = named(
        &some(
            random,
            &[
                "k",
                "i * 2",
                "ts",
                "d",
                "coalesce(k, '?')",
                "v",
                "make_array(i)",
            ],
            4,
        ),
        "c",
    );
    let filtered = filtered(random);
    format!("SELECT {columns} FROM t{filtered}")
}

fn anew(random: &mut StdRng) -> String {
    pick(
        random,
        &[
            "SELECT k, median(i) AS m FROM t GROUP BY k",
            "SELECT t.k, t.i, d.w FROM t LEFT JOIN d ON t.k = d.k",
            "SELECT k, i, rank() OVER (PARTITION BY k ORDER BY i, ts) AS r FROM t",
            "SELECT k FROM t EXCEPT SELECT k FROM d",
            "SELECT count(*) AS n, (SELECT count(*) FROM d) AS m FROM t",
            "SELECT a.k, count(*) AS n FROM t AS a JOIN t AS c ON a.k = c.k AND a.i = c.i GROUP BY a.k",
            "SELECT region, count(*) AS n FROM d GROUP BY region",
            "SELECT k, b, count(*) AS n FROM t GROUP BY ROLLUP (k, b)",
        ],
    )
}

const HELD: &[&str] = &[
    "median(i)",
    "count(DISTINCT i)",
    "count(DISTINCT k)",
    "string_agg(k, ',' ORDER BY k)",
    "array_agg(i ORDER BY i)",
    "percentile_cont(0.5) WITHIN GROUP (ORDER BY i)",
    "window_funnel(INTERVAL '1 hour', ts, b, i > 20)",
    "sum(DISTINCT i)",
    "array_agg(d ORDER BY d DESC NULLS LAST) FILTER (WHERE b)",
];

const WINDOWS: &[&str] = &[
    "rank() OVER (PARTITION BY {p} ORDER BY i)",
    "lag(i) OVER (PARTITION BY {p} ORDER BY i, ts, v, d, b, f, k)",
    "sum(i) OVER (PARTITION BY {p} ORDER BY i)",
    "count(*) OVER (PARTITION BY {p})",
    "max(ts) OVER (PARTITION BY {p} ORDER BY i RANGE BETWEEN 5 PRECEDING AND CURRENT ROW)",
    "dense_rank() OVER (PARTITION BY b, {p} ORDER BY ts DESC)",
    "session_id(ts, INTERVAL '10 minutes') OVER (PARTITION BY {p} ORDER BY ts)",
    "first_value(i) OVER (PARTITION BY {p} ORDER BY i DESC)",
];

const BY: &[&str] = &["k", "i", "k, b", "i % 5", "upper(k)", "d", "ts", "k, i"];

fn keyed(random: &mut StdRng) -> String {
    let filtered = filtered(random);
    let by = pick(random, BY);
    if random.random_bool(0.5) {
        let calls = named(&some(random, HELD, 3), "a");
        let keys: Vec<String> = by.split(", ").map(str::to_owned).collect();
        let having = pick(random, &["", "", " HAVING count(*) > 1"]);
        let keyed = named(&keys, "g");
        return format!("SELECT {keyed}, {calls} FROM t{filtered} GROUP BY {by}{having}");
    }
    let windows = named(&some(random, WINDOWS, 2), "w").replace("{p}", &by);
    let rows = format!("SELECT k, i, b, d, ts, {windows} FROM t{filtered}");
    match random.random_range(0..4) {
        0 => format!("SELECT k, i, w0 FROM ({rows}) AS q WHERE w0 IS NOT NULL"),
        1 => format!("SELECT q.k, count(w0) AS n, max(i) AS m FROM ({rows}) AS q GROUP BY q.k"),
        2 => format!("SELECT q.k, q.w0, d.region FROM ({rows}) AS q JOIN d ON q.k = d.k"),
        _ => rows,
    }
}

fn hops(random: &mut StdRng) -> String {
    let window = pick(
        random,
        &[
            "hop_window(ts, INTERVAL '1 hour', INTERVAL '20 minutes')",
            "hop_window(ts, INTERVAL '10 minutes', INTERVAL '30 minutes')",
        ],
    );
    let calls = named(&some(random, AGGREGATES, 3), "a");
    let filtered = filtered(random);
    format!("SELECT b, {window} AS w, {calls} FROM t{filtered} GROUP BY b, {window}")
}

fn query(random: &mut StdRng) -> String {
    match random.random_range(0..31) {
        16 => hops(random),
        17..21 => keyed(random),
        21..23 => several_distinct(random),
        23..27 => paired(random),
        27..30 => looked_up(random),
        30.. => with_tables(random),
        0..4 => aggregation(random),
        4..6 => distinct(random),
        6..9 => sessions(random),
        9..11 => top(random),
        11..13 => joined(random),
        13 => above(random),
        14 => rows(random),
        _ => anew(random),
    }
}

async fn happen(world: &World, random: &mut StdRng) {
    match random.random_range(0..20) {
        0..6 => {
            let rows = random.random_range(1..30);
            world.append(events(random, world.next_lsn(), rows)).await;
        }
        6..9 => {
            let rows = random.random_range(1..20);
            world
                .append_other(events(random, world.next_lsn(), rows))
                .await;
        }
        9..12 => world.flush().await,
        12..14 => world.change_dim(dimension(random)).await,
        14 => {
            let gone = condition(random);
            world.delete(&gone).await;
        }
        _ => {}
    }
    for view in world.views() {
        match random.random_range(0..10) {
            0..3 => world.refresh(view).await,
            3..5 => drop(world.compact(view).await),
            5 if random.random_bool(0.2) => world.rebuild(view).await,
            _ => {}
        }
    }
}

#[tokio::test]
async fn random_views_are_their_queries_under_random_schedules() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test runs is asked for outside"
    )]
    let wanted = std::env::var("WEIR_VIEW_SCHEDULES").ok();
    let schedules: usize = wanted.and_then(|n| n.parse().ok()).unwrap_or(48);
    #[expect(clippy::disallowed_methods, reason = "another part of a long run")]
    let from = std::env::var("WEIR_VIEW_SEED").ok();
    let from: u64 = from.and_then(|n| n.parse().ok()).unwrap_or(1000);
    for seed in (from..).take(schedules.div_ceil(VIEWS)) {
        let mut random = StdRng::seed_from_u64(seed);
        let queries: Vec<String> = (0..VIEWS).map(|_| query(&mut random)).collect();
        let views: Vec<(&str, &str)> = queries
            .iter()
            .map(|q| (q.as_str(), "on_source_change=recompute"))
            .collect();
        let world = World::with_options(&views).await;
        for _ in 0..random.random_range(4..9) {
            happen(&world, &mut random).await;
        }
        for view in world.views() {
            let what = format!("seed {seed}: {}", world.sql(view));
            same(&world.direct(view).await, &world.read(view).await, &what);
        }
    }
}
