//! Statements of weir's own, splitting, positions, refusals.

use super::*;

fn one(sql: &str) -> Kind {
    let mut all = parse(sql).unwrap();
    assert_eq!(all.len(), 1, "{sql}");
    all.remove(0).kind
}

fn state(sql: &str) -> &'static str {
    parse(sql).unwrap_err().state().0
}

#[test]
fn splits_by_token_and_keeps_the_text() {
    let all = parse(" select ';' ; -- a; b\n select 2;;").unwrap();
    let texts: Vec<_> = all.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0], "select ';'");
    assert!(texts[1].ends_with("select 2"));
    assert!(parse("  ; ;").unwrap().is_empty());
}

#[test]
fn reads_a_streaming_table() {
    let Kind::CreateTable(t) = one(
        "CREATE STREAMING TABLE s.events (id uuid NOT NULL, ts timestamptz, \
         d date GENERATED ALWAYS AS (ts::date) STORED, CHECK (id IS NOT NULL)) \
         PARTITIONED BY (d) WITH (event_time = 'ts', flush_interval = '5 s')",
    ) else {
        panic!("not a table")
    };
    assert!(t.streaming);
    assert_eq!(t.columns.len(), 3);
    assert_eq!(t.constraints.len(), 1);
    assert_eq!(t.partitioned_by, ["d"]);
    assert_eq!(t.options["flush_interval"], "5 s");
}

#[test]
fn keeps_a_views_query_as_written() {
    let Kind::CreateMaterializedView(v) = one(
        "create materialized view v with (refresh = 'auto') as select  User_id, count(*) from t group by 1",
    ) else {
        panic!("not a view")
    };
    assert_eq!(v.query_text, "select  User_id, count(*) from t group by 1");
    assert_eq!(v.options["refresh"], "auto");
}

#[test]
fn reads_models_secrets_grants_and_the_small_ones() {
    assert!(matches!(
        one("CREATE OR REPLACE MODEL m TYPE kmeans WITH (k = 3, seed = 7) AS SELECT a FROM t"),
        Kind::CreateModel(m) if m.or_replace && m.kind == "kmeans" && m.options["k"] == "3"
    ));
    assert!(matches!(
        one("create secret k type tokenization"),
        Kind::CreateSecret(_)
    ));
    assert!(matches!(
        one("GRANT SELECT (a, b), INSERT ON s.t TO analyst WITH GRANT OPTION"),
        Kind::Grant(g) if g.grant_option && g.privileges[0].1 == ["a", "b"]
    ));
    assert!(matches!(one("revoke all on secret k from public"), Kind::Grant(g) if g.revoke));
    assert!(
        matches!(one("GRANT reader TO analyst"), Kind::Grant(g) if g.target == GrantTarget::Membership)
    );
    assert!(matches!(one("flush table t"), Kind::FlushTable(_)));
    assert!(matches!(
        one("replay dead letters for s.t where door = 'http' and attempts < 3 dry run"),
        Kind::ReplayDeadLetters(r) if r.dry_run && r.selection.is_some()
    ));
    assert!(matches!(
        one("DESCRIBE HISTORY s.t"),
        Kind::DescribeHistory(_)
    ));
    assert!(matches!(
        one("show lineage for v column c downstream"),
        Kind::ShowLineage(_)
    ));
    assert!(
        matches!(one("drop materialized view if exists a, b cascade"), Kind::DropObject(d) if d.cascade)
    );
    assert!(matches!(
        one("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1"),
        Kind::ExplainMaterializedView(_)
    ));
    assert!(matches!(
        one("alter table t set (retention = '3 days')"),
        Kind::AlterTableSet(_)
    ));
    assert!(matches!(one("copy t from stdin"), Kind::Native(_)));
}

#[test]
fn time_travel_moves_into_the_name() {
    let Kind::Native(native) = one("select * from s.t version as of 3") else {
        panic!()
    };
    let mut names = Vec::new();
    let _ = ast::visit_relations(&*native, |name| {
        names.push(words::parts(name));
        std::ops::ControlFlow::<()>::Continue(())
    });
    let (bare, version) = time_travel::TableVersion::of(&names[0][1]);
    assert_eq!(
        (bare, version),
        ("t", Some(time_travel::TableVersion::Version(3)))
    );
    assert_eq!(state("select * from t timestamp as of now()"), "0A000");
}

#[test]
fn says_where_the_syntax_is_wrong() {
    let Error::Refused(report) = parse("select 1;\nselect * fro t").unwrap_err() else {
        panic!()
    };
    assert_eq!(report.state, SqlState::SYNTAX_ERROR);
    assert!(
        report.message.contains("syntax error at or near"),
        "{}",
        report.message
    );
    assert!(report.position.is_some());
    assert_eq!(state("select 'x"), "42601");
}

#[test]
fn refuses_what_it_would_ignore() {
    for sql in [
        "select * from t for update",
        "select * from t tablesample bernoulli (10)",
        "select 1 into x",
        "select * from t limit 1 with ties",
    ] {
        assert!(matches!(state(sql), "0A000" | "42601"), "{sql}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(sql in ".{0,200}") {
        let _ = parse(&sql);
    }

    #[test]
    fn no_token_soup_panics(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "create", "streaming", "table", "materialized", "view", "(", ")", ",", "as", "select", "1", "x", ";",
            "with", "=", "'s'", "model", "type", "grant", "on", "to", "explain", "show", "lineage", "for", "é", "$1",
            "partitioned", "by", "from", "kafka", "drop", "version", "of", "3",
        ]), 0..14)) {
        let _ = parse(&words.join(" "));
    }
}

#[test]
fn refuses_what_would_take_too_long_to_plan() {
    let items = |n: usize| format!("SELECT 1{}", ", 1".repeat(n - 1));
    assert!(parse(&items(4096)).is_ok());
    assert_eq!(state(&items(4097)), "54011");
    let nested = |n: usize| format!("SELECT {}1{}", "(SELECT ".repeat(n), ")".repeat(n));
    assert!(parse(&nested(14)).is_ok());
    assert_eq!(state(&nested(15)), "54001");
    let within = |n: usize| {
        format!(
            "SELECT 1 WHERE {}true{}",
            "1 IN (SELECT 1 WHERE ".repeat(n),
            ")".repeat(n)
        )
    };
    assert!(parse(&within(14)).is_ok());
    assert_eq!(state(&within(15)), "54001");
    // those that ended do not count
    let beside = format!("SELECT {}1", "(SELECT 1) + ".repeat(100));
    assert!(parse(&beside).is_ok());
    // parentheses are counted in one pass
    assert_eq!(state(&format!("SELECT {}", "(".repeat(1_000_000))), "54001");
    // tables and parentheses are none
    let tables = format!(
        "SELECT * FROM {}t{}",
        "(SELECT * FROM ".repeat(16),
        ") s".repeat(16)
    );
    assert!(parse(&tables).is_ok());
    assert!(parse(&format!("SELECT {}1{}", "(".repeat(20), ")".repeat(20))).is_ok());
}
