//! What a driver is told of a statement's parameters before it sends their values.

use tests::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn types_of_parameters_are_those_of_postgresql() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE sales (id INT, region TEXT, amount NUMERIC(10,2), at TIMESTAMPTZ)")
        .await;
    let expected: &[(&str, &[&str])] = &[
        ("SELECT $1::int", &["int4"]),
        ("SELECT $1::int + 1, $2::text", &["int4", "text"]),
        ("SELECT CAST($1 AS timestamptz)", &["timestamptz"]),
        ("SELECT $1::int[]", &["_int4"]),
        ("SELECT $1::date - 3", &["date"]),
        ("SELECT * FROM sales WHERE id = $1", &["int4"]),
        ("SELECT * FROM sales WHERE id = ANY($1)", &["_int4"]),
        (
            "SELECT * FROM sales WHERE id IN ($1, $2)",
            &["int4", "int4"],
        ),
        (
            "SELECT * FROM sales WHERE at > $1 AND amount < $2 LIMIT $3 OFFSET $4",
            &["timestamptz", "numeric", "int8", "int8"],
        ),
        ("SELECT coalesce(region, $1) FROM sales", &["text"]),
        (
            "SELECT CASE WHEN $1 THEN id ELSE $2 END FROM sales",
            &["bool", "int4"],
        ),
        ("SELECT id FROM sales WHERE $1 OR id = 1", &["bool"]),
        (
            "SELECT (SELECT max(id) FROM sales WHERE at = $1)",
            &["timestamptz"],
        ),
        (
            "INSERT INTO sales (id, at) VALUES ($1, $2)",
            &["int4", "timestamptz"],
        ),
        (
            "UPDATE sales SET region = $1 WHERE id = $2",
            &["text", "int4"],
        ),
        (
            "UPDATE sales SET region = $1 FROM sales AS o WHERE o.id = sales.id AND o.at > $2",
            &["text", "timestamptz"],
        ),
        (
            "DELETE FROM sales USING sales AS o WHERE o.id = sales.id AND o.amount = $1",
            &["numeric"],
        ),
        ("SELECT $1 + 1", &["int4"]),
        ("SELECT 5000000000 - $1", &["int8"]),
        ("SELECT coalesce($1, 5)", &["int4"]),
        ("SELECT * FROM generate_series(1, $1)", &["int4"]),
        (
            "SELECT x + $3 FROM generate_series($1, $2) AS g (x)",
            &["int4", "int4", "int8"],
        ),
        ("SELECT oid FROM pg_type WHERE oid = $1", &["oid"]),
        (
            "SELECT typname FROM pg_type WHERE oid = ANY($1::oid[])",
            &["_oid"],
        ),
        ("SELECT upper($1)", &["text"]),
        // the first cast decides
        ("SELECT $1::text, $1::int", &["text"]),
    ];
    for (sql, types) in expected {
        let prepared = pg.client().prepare(sql).await.unwrap();
        let told: Vec<&str> = prepared.params().iter().map(|t| t.name()).collect();
        assert_eq!(told, *types, "{sql}");
    }
    let rows = pg
        .client()
        .query(
            "SELECT x FROM generate_series(1, 9) AS g (x) WHERE x = ANY($1) ORDER BY x LIMIT $2",
            &[&vec![2_i64, 4, 6], &2_i64],
        )
        .await
        .unwrap();
    let found: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(found, [2, 4]);
    let rows = pg
        .client()
        .query(
            "SELECT x FROM generate_series(1, $1) AS g (x) WHERE x > $2",
            &[&3_i32, &1_i64],
        )
        .await
        .unwrap();
    let found: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(found, [2, 3]);
    let rows = pg
        .client()
        .query(
            "SELECT typname::text FROM pg_type WHERE oid = ANY($1::oid[]) ORDER BY oid",
            &[&vec![25_u32, 16]],
        )
        .await
        .unwrap();
    let found: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(found, ["bool", "text"]);
}

/// What a client declares is what it gets, whatever the value: a small `bigint` is no `integer`.
#[tokio::test(flavor = "multi_thread")]
async fn declared_types_hold_for_every_value() {
    use tokio_postgres::types::Type;
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE sales (id INT, n BIGINT)").await;
    pg.run("INSERT INTO sales VALUES (1, 10), (2, 20), (3, 30)")
        .await;
    for (sql, wanted) in [
        ("SELECT $1", 2_i64),
        ("SELECT $1 + 1", 3),
        ("SELECT 1 - -$1", 3),
        ("SELECT x + 1 FROM (SELECT $1 AS x) AS t", 3),
        ("SELECT (SELECT $1) * 2", 4),
        ("SELECT CASE WHEN true THEN $1 ELSE 0 END", 2),
        ("SELECT sum(id + $1)::bigint FROM sales", 12),
        ("SELECT n FROM sales WHERE id = $1", 20),
        (
            "SELECT count(*) FROM (SELECT id FROM sales LIMIT $1) AS t",
            2,
        ),
        (
            "SELECT n + $1 FROM sales GROUP BY n + $1 ORDER BY 1 LIMIT 1",
            12,
        ),
        ("SELECT count(*) FROM sales WHERE id IN ($1, 3)", 2),
    ] {
        let prepared = pg.client().prepare_typed(sql, &[Type::INT8]).await;
        let prepared = prepared.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let row = pg.client().query_one(&prepared, &[&2_i64]).await;
        let row = row.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(row.get::<_, i64>(0), wanted, "{sql}");
    }
}
