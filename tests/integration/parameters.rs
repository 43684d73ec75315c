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

/// Drivers ask `pg_attribute` for what RowDescription says a column is: names, NULLs, whose rows they are.
#[tokio::test(flavor = "multi_thread")]
async fn columns_of_results_tell_their_table() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    for sql in [
        "CREATE TABLE sales (id INT NOT NULL, region TEXT, amount DOUBLE)",
        "CREATE STREAMING TABLE clicks (at TIMESTAMPTZ, id INT)",
        "CREATE VIEW big AS SELECT region AS place, id FROM sales WHERE amount > 10",
        "CREATE MATERIALIZED VIEW totals AS SELECT id, count(*) AS n FROM clicks GROUP BY id",
        "INSERT INTO sales VALUES (1, 'north', 20)",
    ] {
        pg.run(sql).await;
    }
    // as PostgreSQL 15 tells it
    let expected: &[(&str, &str)] = &[
        ("SELECT * FROM sales", "sales.id sales.region sales.amount"),
        (
            "SELECT amount AS x, id FROM sales WHERE id > 1",
            "sales.amount sales.id",
        ),
        (
            "SELECT id + 1, id::bigint, 1, lower(region) FROM sales",
            "- - - -",
        ),
        (
            "SELECT * FROM clicks ORDER BY at LIMIT 1",
            "clicks.at clicks.id",
        ),
        (
            "SELECT s.*, c.id FROM sales s LEFT JOIN clicks c ON c.id = s.id",
            "sales.id sales.region sales.amount clicks.id",
        ),
        (
            "SELECT q.y FROM (SELECT region AS y FROM sales) AS q",
            "sales.region",
        ),
        (
            "WITH q AS (SELECT region FROM sales) SELECT region FROM q",
            "sales.region",
        ),
        (
            "SELECT region, count(*) FROM sales GROUP BY region",
            "sales.region -",
        ),
        ("SELECT DISTINCT region FROM sales", "sales.region"),
        (
            "SELECT id, row_number() OVER (ORDER BY id) FROM sales",
            "sales.id -",
        ),
        ("SELECT id FROM sales UNION ALL SELECT id FROM sales", "-"),
        ("SELECT * FROM big", "big.place big.id"),
        ("SELECT b.id FROM big b", "big.id"),
        ("SELECT n, id FROM totals", "totals.n totals.id"),
        ("SELECT n FROM totals WHERE id = $1", "totals.n"),
    ];
    let name = "SELECT c.relname::text || '.' || a.attname::text FROM pg_class c \
                JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.oid = $1 AND a.attnum = $2";
    let name = pg.client().prepare(name).await.unwrap();
    for (sql, told) in expected {
        let prepared = pg.client().prepare(sql).await.unwrap();
        let mut names = Vec::new();
        for column in prepared.columns() {
            names.push(match (column.table_oid(), column.column_id()) {
                (Some(table), Some(number)) => {
                    let row = pg.client().query_one(&name, &[&table, &number]).await;
                    row.expect(sql).get(0)
                }
                _ => "-".to_owned(),
            });
        }
        assert_eq!(names.join(" "), *told, "{sql}");
    }
}
