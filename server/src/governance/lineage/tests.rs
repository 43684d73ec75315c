//! Each kind of clause, planned from SQL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Extension, UserDefinedLogicalNodeCore};
use datafusion::prelude::SessionContext;

use super::*;

fn table(ctx: &SessionContext, name: &str, fields: Vec<Field>) {
    let schema = Arc::new(Schema::new(fields));
    let table = MemTable::try_new(schema, vec![vec![]]).unwrap();
    ctx.register_table(name, Arc::new(table)).unwrap();
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn list(name: &str) -> Field {
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    Field::new(name, DataType::List(item), true)
}

async fn context() -> SessionContext {
    let ctx = SessionContext::new();
    table(&ctx, "t", vec![int("a"), int("b"), int("c"), list("l")]);
    table(&ctx, "u", vec![int("a"), int("d")]);
    let view = "CREATE VIEW v AS SELECT a + b AS ab FROM t WHERE c > 0";
    ctx.sql(view).await.unwrap().collect().await.unwrap();
    ctx
}

async fn analyzed(ctx: &SessionContext, sql: &str) -> LogicalPlan {
    let state = ctx.state();
    let plan = state.create_logical_plan(sql).await.unwrap();
    let analyzer = state.analyzer();
    analyzer
        .execute_and_check(plan, state.config_options(), |_, _| {})
        .unwrap()
}

/// Edges as text: `t.a>x` direct, `t.a~*` indirect; `x`, `y`, `z` are the targets.
async fn traced(sql: &str) -> String {
    let ctx = context().await;
    let plan = analyzed(&ctx, sql).await;
    let width = written(&plan).schema().fields().len();
    let targets: Vec<String> = ["x", "y", "z"][..width.min(3)]
        .iter()
        .map(|s| (*s).to_owned())
        .collect();
    let mut direct = Vec::new();
    let mut indirect = Vec::new();
    for edge in edges(&plan, &targets) {
        let source = format!("{}.{}", edge.source.table(), edge.source_column);
        match edge.kind {
            LineageKind::Direct => direct.push(format!("{source}>{}", edge.target_column)),
            LineageKind::Indirect => indirect.push(format!("{source}~{}", edge.target_column)),
        }
    }
    direct.extend(indirect);
    direct.join(" ")
}

#[tokio::test]
async fn values_and_filters() {
    for (sql, want) in [
        ("SELECT a, b + c AS s FROM t", "t.a>x t.b>y t.c>y"),
        ("SELECT 1 AS one, a FROM t", "t.a>y"),
        ("SELECT a FROM t WHERE b > 1 AND c = 2", "t.a>x t.b~* t.c~*"),
        (
            "SELECT CASE WHEN b > 0 THEN a ELSE 0 END FROM t AS q",
            "t.a>x t.b>x",
        ),
        (
            "SELECT q.k FROM (SELECT a AS k, b FROM t) AS q WHERE q.b = 1",
            "t.a>x t.b~*",
        ),
        ("SELECT ab FROM v", "t.a>x t.b>x t.c~*"),
        ("SELECT column1 FROM (VALUES (1), (2)) AS w", ""),
        ("SELECT a FROM t ORDER BY b LIMIT 3", "t.a>x t.b~*"),
        ("SELECT DISTINCT a FROM t", "t.a>x t.a~*"),
        (
            "SELECT DISTINCT ON (b) a FROM t ORDER BY b, c",
            "t.a>x t.b~* t.c~*",
        ),
    ] {
        assert_eq!(traced(sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn joins() {
    for (sql, want) in [
        (
            "SELECT t.b, u.d FROM t JOIN u ON t.a = u.a AND t.c < u.d",
            "t.b>x u.d>y t.a~* t.c~* u.a~* u.d~*",
        ),
        (
            "SELECT t.b FROM t LEFT SEMI JOIN u ON t.a = u.a",
            "t.b>x t.a~* u.a~*",
        ),
        ("SELECT t.b FROM t CROSS JOIN u", "t.b>x u.*~*"),
        (
            "SELECT t.a, d FROM t FULL JOIN u USING (a)",
            "t.a>x u.d>y t.a~* u.a~*",
        ),
        (
            "SELECT p.b, q.b FROM t p JOIN t q ON p.a = q.c",
            "t.b>x t.b>y t.a~* t.c~*",
        ),
        (
            "SELECT t.b, s.d FROM t, LATERAL (SELECT d FROM u WHERE u.a = t.c) AS s",
            "t.b>x u.d>y t.c~* u.a~*",
        ),
    ] {
        assert_eq!(traced(sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn groups_and_windows() {
    for (sql, want) in [
        ("SELECT a, sum(b) FROM t GROUP BY a", "t.a>x t.b>y t.a~*"),
        ("SELECT count(*) FROM t", "t.*~*"),
        ("SELECT sum(b) FILTER (WHERE c > 0) FROM t", "t.b>x t.c~*"),
        ("SELECT array_agg(b ORDER BY c) FROM t", "t.b>x t.c~*"),
        (
            "SELECT a FROM t GROUP BY a HAVING max(b) > 1",
            "t.a>x t.a~* t.b~*",
        ),
        (
            "SELECT a, b, count(*) FROM t GROUP BY ROLLUP (a, b)",
            "t.a>x t.b>y t.a~* t.b~*",
        ),
        (
            "SELECT sum(a) OVER (PARTITION BY b ORDER BY c) FROM t",
            "t.a>x t.b~* t.c~*",
        ),
        (
            "SELECT a, row_number() OVER (ORDER BY c) FROM t",
            "t.a>x t.c~*",
        ),
    ] {
        assert_eq!(traced(sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn subqueries() {
    for (sql, want) in [
        ("SELECT b, (SELECT max(d) FROM u) FROM t", "t.b>x u.d>y"),
        (
            "SELECT (SELECT d FROM u WHERE u.a = t.a LIMIT 1) FROM t",
            "u.d>x t.a~* u.a~*",
        ),
        (
            "SELECT b FROM t WHERE a IN (SELECT a FROM u WHERE d > 0)",
            "t.b>x t.a~* u.a~* u.d~*",
        ),
        (
            "SELECT b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.c)",
            "t.b>x t.c~* u.a~*",
        ),
        (
            "SELECT b FROM t WHERE NOT EXISTS (SELECT * FROM u)",
            "t.b>x u.a~* u.d~*",
        ),
    ] {
        assert_eq!(traced(sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn unions_ctes_and_recursion() {
    for (sql, want) in [
        (
            "SELECT a, b FROM t UNION ALL SELECT d, a FROM u",
            "t.a>x t.b>y u.a>y u.d>x",
        ),
        (
            "SELECT a FROM t UNION SELECT d FROM u",
            "t.a>x u.d>x t.a~* u.d~*",
        ),
        (
            "SELECT a FROM t INTERSECT SELECT d FROM u",
            "t.a>x t.a~* u.d~*",
        ),
        (
            "WITH k AS (SELECT a AS n FROM t WHERE b = 1) SELECT n + 1 FROM k",
            "t.a>x t.b~*",
        ),
        (
            "WITH RECURSIVE r AS (SELECT a AS n, b AS m FROM t UNION ALL \
             SELECT r.m, u.d FROM r JOIN u ON u.a = r.n) SELECT n FROM r",
            "t.a>x t.b>x u.d>x t.a~* t.b~* u.a~* u.d~*",
        ),
        ("SELECT unnest(l), a FROM t", "t.l>x t.a>y t.l~*"),
    ] {
        let mut got: Vec<String> = traced(sql).await.split(' ').map(str::to_owned).collect();
        let mut want: Vec<&str> = want.split(' ').collect();
        got.sort();
        want.sort_unstable();
        assert_eq!(got, want, "{sql}");
    }
}

#[tokio::test]
async fn statements_are_looked_through() {
    for (sql, want) in [
        (
            "CREATE TABLE n AS SELECT a FROM t WHERE b = 1",
            "t.a>x t.b~*",
        ),
        ("CREATE VIEW w AS SELECT a, c FROM t", "t.a>x t.c>y"),
        (
            "INSERT INTO u SELECT b, c FROM t WHERE a = 1",
            "t.b>x t.c>y t.a~*",
        ),
        ("EXPLAIN SELECT a FROM t", "t.a>x"),
    ] {
        assert_eq!(traced(sql).await, want, "{sql}");
    }
}

#[tokio::test]
async fn more_or_fewer_targets_get_everything() {
    let ctx = context().await;
    let plan = analyzed(&ctx, "SELECT a, b FROM t").await;
    let found = edges(&plan, &["only".to_owned()]);
    let columns: Vec<&str> = found.iter().map(|e| e.source_column.as_str()).collect();
    assert_eq!(columns, ["a", "b"]);
    assert!(found.iter().all(|e| e.target_column == "only"));
}

/// A node nobody knows.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd)]
struct Strange {
    input: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for Strange {
    fn name(&self) -> &str {
        "Strange"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &datafusion::common::DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<datafusion::logical_expr::Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Strange")
    }

    fn with_exprs_and_inputs(
        &self,
        _: Vec<datafusion::logical_expr::Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion::error::Result<Self> {
        Ok(Self {
            input: inputs.remove(0),
        })
    }
}

#[tokio::test]
async fn unknown_nodes_pass_everything_to_everything() {
    let ctx = context().await;
    let input = analyzed(&ctx, "SELECT a, b FROM t WHERE c = 1").await;
    let node = Arc::new(Strange { input });
    let plan = LogicalPlan::Extension(Extension { node });
    let found = edges(&plan, &["x".to_owned(), "y".to_owned()]);
    for target in ["x", "y", "*"] {
        for column in ["a", "b", "c"] {
            let hit = |e: &&Edge| e.target_column == target && e.source_column == column;
            assert!(found.iter().any(|e| hit(&e)), "{column} to {target}");
        }
    }
}

#[tokio::test]
async fn deep_plans_do_not_blow_up() {
    let mut sql = "SELECT a AS n FROM t".to_owned();
    for _ in 0..15 {
        sql = format!("SELECT max(n) AS n FROM ({sql}) AS s GROUP BY n + 1");
    }
    assert_eq!(traced(&sql).await, "t.a>x t.a~*");
}
