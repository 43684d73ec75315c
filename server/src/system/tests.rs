//! Client-shaped queries over the system tables, planned and run by a plain query session.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use catalog::store::SqliteStore;
use catalog::{
    AuditOutcome, AuditRow, Change, Column, Grant, LineageEdge, LineageKind, MaterializedView,
    ObjectKind, Oid, Privilege, Relation, RelationKind, Role, Schema, SqlType, Store, Strategy,
};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result as QueryResult;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tempfile::TempDir;

use super::{
    Activity, FunctionInfo, Live, SCHEMAS, Setting, SourceActivity, SystemContext, compat,
};
use crate::dialect::column_names;
use crate::stream::head::DbHead;

const WEIR: Oid = Oid(10);
const PUBLIC: Oid = Oid(2200);
const SALES: Oid = Oid(16390);
const CUSTOMER: Oid = Oid(16404);
const ORDERS: Oid = Oid(16414);
const VIEW: Oid = Oid(16426);
const MATERIALIZED: Oid = Oid(16430);
const EVENTS: Oid = Oid(16434);

struct Database {
    _dir: TempDir,
    cx: SystemContext,
}

impl Database {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("catalog.db"))
            .await
            .unwrap();
        let catalog = store.commit(fixture()).await.unwrap();
        let said = ["weir", "analyst", "weir"].map(|role| AuditRow {
            role: role.to_owned(),
            ..audit_row()
        });
        store.append_audit(said.to_vec()).await.unwrap();
        let cx = SystemContext {
            catalog,
            head: Arc::new(DbHead::default()),
            store: Arc::new(store),
            role: "weir".to_owned(),
            session_role: "weir".to_owned(),
            database: "weir".to_owned(),
            search_path: vec!["public".to_owned()],
            temporary: None,
            backend_pid: 7,
            settings: Arc::new([Setting {
                name: "TimeZone",
                value: Some("UTC".to_owned()),
                description: "zone of printed times",
            }]),
            functions: vec![FunctionInfo {
                name: "session_id".to_owned(),
                kind: 'w',
                arguments: "ts timestamptz, gap interval".to_owned(),
                result: "bigint".to_owned(),
                description: "numbers sessions".to_owned(),
            }],
            jobs: None,
            live: Arc::new(Two),
        };
        Self { _dir: dir, cx }
    }

    fn role(&self, role: &str) -> SystemContext {
        SystemContext {
            role: role.to_owned(),
            ..self.cx.clone()
        }
    }
}

/// Two sessions, no source.
#[derive(Debug)]
struct Two;

impl Live for Two {
    fn activity(&self) -> Vec<Activity> {
        vec![activity(7, "weir"), activity(8, "analyst")]
    }

    fn stop(&self, _: i32, _: bool) -> bool {
        false
    }

    fn sources(&self) -> BTreeMap<Oid, SourceActivity> {
        BTreeMap::new()
    }
}

fn activity(pid: i32, role: &str) -> Activity {
    Activity {
        pid,
        session: format!("s{pid}"),
        door: "pg".to_owned(),
        role: role.to_owned(),
        application_name: Some("psql".to_owned()),
        client_address: Some("127.0.0.1".to_owned()),
        state: "active".to_owned(),
        query: Some(format!("select {pid}")),
        started_at_micros: Some(1),
        connected_at_micros: Some(0),
    }
}

fn audit_row() -> AuditRow {
    AuditRow {
        seq: 0,
        at_micros: 1,
        session: "s".to_owned(),
        door: "pg".to_owned(),
        role: String::new(),
        command: "SELECT".to_owned(),
        statement: "SELECT ?".to_owned(),
        objects: vec!["sales.orders".to_owned()],
        rows: Some(1),
        outcome: AuditOutcome::Ok,
        sqlstate: None,
        prev_hash: String::new(),
        hash: String::new(),
    }
}

fn fixture() -> Vec<Change> {
    let role = |oid, name: &str, login, member_of: &[Oid]| {
        Change::PutRole(Role {
            oid: Oid(oid),
            name: name.to_owned(),
            login,
            superuser: false,
            scram_verifier: None,
            member_of: member_of.to_vec(),
            version: 0,
        })
    };
    let mut orders = relation(ORDERS, SALES, "orders", RelationKind::Table);
    orders.columns = vec![
        column("id", SqlType::Int4, false),
        column("cust", SqlType::Int8, true),
        column("amount", SqlType::Float8, true),
    ];
    orders.checks = BTreeMap::from([("orders_amount_check".to_owned(), "amount >= 0".to_owned())]);
    let mut view = relation(VIEW, SALES, "v", RelationKind::View);
    view.columns = vec![column("name", SqlType::Text, true)];
    view.query = Some("SELECT name FROM sales.customer".to_owned());
    view.depends_on = vec![CUSTOMER];
    let mut kept = relation(MATERIALIZED, SALES, "mv", RelationKind::MaterializedView);
    kept.columns = vec![column("n", SqlType::Int8, true)];
    kept.query = Some("SELECT count(*) AS n FROM public.ev".to_owned());
    kept.depends_on = vec![EVENTS];
    kept.materialized = Some(MaterializedView {
        strategy: Strategy::Agg,
        codes: vec!["AGG_OK".to_owned()],
        state_format: 1,
        source: EVENTS,
        sources: vec![EVENTS],
        ages_by: None,
        made_in: None,
    });
    let mut events = relation(EVENTS, PUBLIC, "ev", RelationKind::StreamingTable);
    events.columns = vec![
        column("d", SqlType::Date, true),
        column("n", SqlType::Int4, true),
    ];
    events.options = BTreeMap::from([
        ("segment_write_key".to_owned(), "hush".to_owned()),
        ("flush_interval".to_owned(), "5 s".to_owned()),
    ]);
    let grant = |object, column: Option<&str>| {
        Change::AddGrant(Grant {
            object_kind: ObjectKind::Relation,
            object,
            column: column.map(str::to_owned),
            privilege: Privilege::Select,
            grantee: Some(Oid(16385)),
            grantor: WEIR,
            grant_option: false,
        })
    };
    vec![
        role(16385, "team", false, &[]),
        role(16386, "analyst", true, &[Oid(16385)]),
        Change::PutSchema(Schema {
            oid: SALES,
            name: "sales".to_owned(),
            owner: WEIR,
            version: 0,
        }),
        Change::PutRelation(customer()),
        Change::PutRelation(orders),
        Change::PutRelation(events),
        Change::PutRelation(view),
        Change::PutRelation(kept),
        grant(ORDERS, None),
        grant(CUSTOMER, Some("name")),
        Change::AddLineage(vec![LineageEdge {
            target: VIEW,
            target_column: "name".to_owned(),
            source: CUSTOMER,
            source_column: "name".to_owned(),
            kind: LineageKind::Direct,
            statement: "CREATE VIEW".to_owned(),
        }]),
    ]
}

fn customer() -> Relation {
    let mut customer = relation(CUSTOMER, SALES, "customer", RelationKind::Table);
    let text_array = SqlType::Array(Box::new(SqlType::Text));
    let money = SqlType::Numeric {
        precision: 12,
        scale: 2,
    };
    customer.columns = vec![
        column("id", SqlType::Int8, false),
        Column {
            default: Some("'x'".to_owned()),
            comment: Some("the name".to_owned()),
            ..column("name", SqlType::Varchar(40), false)
        },
        column("balance", money, true),
        column("tags", text_array, true),
        column("uid", SqlType::Uuid, true),
        Column {
            generated: Some("seen::date".to_owned()),
            ..column("born", SqlType::Date, true)
        },
        column("seen", SqlType::Timestamptz, true),
    ];
    customer.comment = Some("customers".to_owned());
    customer
}

fn relation(oid: Oid, schema: Oid, name: &str, kind: RelationKind) -> Relation {
    Relation {
        oid,
        schema,
        name: name.to_owned(),
        kind,
        owner: WEIR,
        columns: Vec::new(),
        partition_by: Vec::new(),
        checks: BTreeMap::new(),
        options: BTreeMap::new(),
        location: None,
        query: None,
        depends_on: Vec::new(),
        materialized: None,
        comment: None,
        version: 0,
    }
}

fn column(name: &str, sql_type: SqlType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        sql_type,
        nullable,
        default: None,
        generated: None,
        comment: None,
        since: None,
    }
}

#[derive(Debug)]
struct SystemSchema {
    name: &'static str,
    cx: Arc<SystemContext>,
}

#[async_trait::async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        super::names(self.name)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    async fn table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        Ok(super::table(self.name, name, &self.cx).await?)
    }

    fn table_exist(&self, name: &str) -> bool {
        super::names(self.name).contains(&name)
    }
}

fn session(cx: &Arc<SystemContext>) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("weir", "public")
        .with_target_partitions(1);
    config.options_mut().sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    let session = SessionContext::new_with_config(config);
    let database = MemoryCatalogProvider::new();
    for name in SCHEMAS {
        let schema = SystemSchema {
            name,
            cx: Arc::clone(cx),
        };
        database.register_schema(name, Arc::new(schema)).unwrap();
    }
    session.register_catalog("weir", Arc::new(database));
    for function in super::functions(cx) {
        session.register_udf(function.as_ref().clone());
    }
    session
}

async fn run(session: &SessionContext, sql: &str) -> QueryResult<Vec<RecordBatch>> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql)?;
    let mut statement = statements.remove(0);
    compat::rewrite(&mut statement);
    let state = session.state();
    let plan = state
        .statement_to_plan(Parsed::Statement(Box::new(statement)))
        .await?;
    session.execute_logical_plan(plan).await?.collect().await
}

/// Rows as texts, columns joined by `|`, NULL as `-`.
async fn rows(cx: &SystemContext, sql: &str) -> Vec<String> {
    let cx = Arc::new(cx.clone());
    let batches = run(&session(&cx), sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let options = FormatOptions::default().with_null("-");
    let mut all = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let fields: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            all.push(fields.join("|"));
        }
    }
    all
}

async fn error(cx: &SystemContext, sql: &str) -> crate::error::Error {
    let cx = Arc::new(cx.clone());
    run(&session(&cx), sql).await.unwrap_err().into()
}

#[tokio::test]
async fn every_system_table_answers() {
    let database = Database::new().await;
    let cx = Arc::new(database.cx.clone());
    let session = session(&cx);
    for shape in super::shapes::all() {
        let sql = format!("SELECT * FROM {}.{}", shape.schema, shape.name);
        let rows: usize = run(&session, &sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        let empty = match shape.schema {
            "pg_catalog" => super::pg_catalog::always_empty(shape.name),
            "information_schema" => super::information_schema::always_empty(shape.name),
            _ => {
                let empty = [
                    "models",
                    "model_versions",
                    "jobs",
                    "compaction_history",
                    "sources",
                    "dead_letters",
                ];
                empty.contains(&shape.name)
            }
        };
        assert!(rows == 0 || !empty, "{sql} has {rows} rows");
        let filled_here = shape.name != "pg_group" && shape.name != "pg_stat_all_tables";
        assert!(rows > 0 || empty || !filled_here, "{sql} has no rows");
    }
}

#[tokio::test]
async fn lists_of_relations() {
    let database = Database::new().await;
    // as the list commands of psql ask
    let list = |kinds: &str, schema: &str| {
        format!(
            "SELECT n.nspname as \"Schema\", c.relname as \"Name\", \
             CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' \
               WHEN 'm' THEN 'materialized view' END as \"Type\", \
             pg_catalog.pg_get_userbyid(c.relowner) as \"Owner\", am.amname, \
             pg_catalog.pg_size_pretty(pg_catalog.pg_table_size(c.oid)) as \"Size\", \
             pg_catalog.obj_description(c.oid, 'pg_class') as \"Description\" \
             FROM pg_catalog.pg_class c \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam \
             WHERE c.relkind IN ({kinds}) \
             AND n.nspname OPERATOR(pg_catalog.~) '{schema}' COLLATE pg_catalog.default \
             ORDER BY 1,2"
        )
    };
    let cx = &database.cx;
    assert_eq!(
        rows(cx, &list("'r','p',''", "^(sales|public)$")).await,
        [
            "public|ev|table|weir|heap|0 bytes|-",
            "sales|customer|table|weir|heap|0 bytes|customers",
            "sales|orders|table|weir|heap|0 bytes|-"
        ]
    );
    assert_eq!(
        rows(cx, &list("'v','m'", "^(sales)$")).await,
        [
            "sales|mv|materialized view|weir|heap|0 bytes|-",
            "sales|v|view|weir|-|0 bytes|-"
        ]
    );
    let visible = "SELECT relname FROM pg_class c WHERE c.oid >= 16384 \
         AND pg_catalog.pg_table_is_visible(c.oid)";
    assert_eq!(rows(cx, visible).await, ["ev"]);
}

#[tokio::test]
async fn columns_of_a_relation() {
    let database = Database::new().await;
    let cx = &database.cx;
    // scalar subqueries over a key, one of them with a condition that is no equality
    let describe = "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d \
          WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), \
         a.attnotnull, \
         (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t \
          WHERE c.oid = a.attcollation AND t.oid = a.atttypid \
          AND a.attcollation <> t.typcollation) AS attcollation, \
         a.attgenerated, pg_catalog.col_description(a.attrelid, a.attnum) \
         FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = '16404' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    assert_eq!(
        rows(cx, describe).await,
        [
            "id|bigint|-|true|-||-",
            "name|character varying(40)|'x'|true|-||the name",
            "balance|numeric(12,2)|-|false|-||-",
            "tags|text[]|-|false|-||-",
            "uid|uuid|-|false|-||-",
            "born|date|seen::date|false|-|s|-",
            "seen|timestamp with time zone|-|false|-||-",
        ]
    );
    let checks = "SELECT r.conname, pg_catalog.pg_get_constraintdef(r.oid, true) \
         FROM pg_catalog.pg_constraint r WHERE r.conrelid = '16414' AND r.contype = 'c' ORDER BY 1";
    assert_eq!(
        rows(cx, checks).await,
        ["orders_amount_check|CHECK (amount >= 0)"]
    );
    let view = "SELECT pg_catalog.pg_get_viewdef('16426'::pg_catalog.oid, true)";
    assert_eq!(rows(cx, view).await, ["SELECT name FROM sales.customer;"]);
}

#[tokio::test]
async fn roles_and_their_groups() {
    let database = Database::new().await;
    let sql = "SELECT r.rolname, r.rolsuper, r.rolcanlogin, \
         ARRAY(SELECT b.rolname FROM pg_catalog.pg_auth_members m \
               JOIN pg_catalog.pg_roles b ON (m.roleid = b.oid) \
               WHERE m.member = r.oid) as memberof \
         FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1";
    assert_eq!(
        rows(&database.cx, sql).await,
        [
            "analyst|false|true|[team]",
            "team|false|false|[]",
            "weir|true|true|[]"
        ]
    );
}

#[tokio::test]
async fn queries_over_what_weir_does_not_have() {
    let database = Database::new().await;
    let cx = &database.cx;
    for sql in [
        "SELECT pubname, NULL, NULL FROM pg_catalog.pg_publication p \
         JOIN pg_catalog.pg_class pc ON pc.oid = '16404' \
         UNION SELECT pubname, pg_get_expr(pr.prqual, c.oid), \
         (SELECT string_agg(attname, ', ') FROM pg_catalog.generate_series(0, \
          pg_catalog.array_upper(pr.prattrs::pg_catalog.int2[], 1)) s, pg_catalog.pg_attribute \
          WHERE attrelid = pr.prrelid AND attnum = prattrs[s]) \
         FROM pg_catalog.pg_publication p \
         JOIN pg_catalog.pg_publication_rel pr ON p.oid = pr.prpubid \
         JOIN pg_catalog.pg_class c ON c.oid = pr.prrelid ORDER BY 1",
        "SELECT pol.polname, array(select rolname from pg_catalog.pg_roles \
          where oid = any (pol.polroles) order by 1) FROM pg_catalog.pg_policy pol ORDER BY 1",
        "SELECT conname, conrelid::pg_catalog.regclass FROM pg_catalog.pg_constraint c \
         WHERE confrelid IN (SELECT pg_catalog.pg_partition_ancestors('16404') \
         UNION ALL VALUES ('16404'::pg_catalog.regclass)) AND contype = 'f'",
        "SELECT (k.keys).n FROM (SELECT information_schema._pg_expandarray(i.indkey) AS keys \
         FROM pg_catalog.pg_index i) k",
    ] {
        assert_eq!(rows(cx, sql).await, Vec::<String>::new(), "{sql}");
    }
    // one row over no rows, and no key of any table
    let sql = "SELECT count(*), bool_and(t.tgisinternal) FROM pg_trigger t";
    assert_eq!(rows(cx, sql).await, ["0|-"]);
    let sql = "SELECT relname, EXISTS (SELECT * FROM pg_index i WHERE i.indrelid = c.oid) AS keyed \
         FROM pg_class c WHERE c.oid = 16414";
    assert_eq!(rows(cx, sql).await, ["orders|false"]);
}

#[tokio::test]
async fn names_and_oids() {
    let database = Database::new().await;
    let cx = &database.cx;
    for (sql, answer) in [
        ("SELECT 'sales.orders'::regclass", "sales.orders"),
        ("SELECT 'ev'::regclass::text", "ev"),
        (
            "SELECT 'sales.v'::pg_catalog.regclass::pg_catalog.oid",
            "16426",
        ),
        (
            "SELECT relname FROM pg_class WHERE oid = 'ev'::regclass",
            "ev",
        ),
        (
            "SELECT c.oid::regclass FROM pg_class c WHERE relname = 'mv'",
            "sales.mv",
        ),
        ("SELECT to_regclass('nothing') IS NULL", "true"),
        ("SELECT 'int4'::regtype::oid", "23"),
        (
            "SELECT atttypid::regtype FROM pg_attribute WHERE attrelid = 16414 AND attnum = 3",
            "double precision",
        ),
        (
            "SELECT typname FROM pg_type WHERE typinput = 'pg_catalog.array_in'::regproc AND oid = 1009",
            "_text",
        ),
        (
            "SELECT p.proname FROM pg_type t JOIN pg_proc p ON p.oid = t.typreceive WHERE t.oid = 23",
            "int4recv",
        ),
        (
            "SELECT relname FROM pg_class WHERE relkind = ANY ('{m,f}'::\"char\"[])",
            "mv",
        ),
        (
            "SELECT relname FROM pg_class WHERE relkind = ANY (ARRAY['m'::\"char\"])",
            "mv",
        ),
        (
            "SELECT nspname FROM pg_namespace WHERE nspname = ANY (current_schemas(false))",
            "public",
        ),
        ("SELECT 'r' <> ALL ('{r,v}')", "false"),
        (
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pg/_%' ESCAPE '/'",
            "pg_catalog",
        ),
        (
            "SELECT current_user, session_user, current_database(), current_schema",
            "weir|weir|weir|public",
        ),
        ("SELECT pg_catalog.version() ~ '^PostgreSQL 15\\.'", "true"),
        (
            "SELECT pg_typeof(oid), pg_typeof('x') FROM pg_class WHERE relname = 'ev'",
            "bigint|text",
        ),
        ("SELECT quote_ident('A b'), quote_ident('ab')", "\"A b\"|ab"),
        (
            "SELECT current_setting('timezone'), current_setting('nothing', true)",
            "UTC|-",
        ),
    ] {
        assert_eq!(rows(cx, sql).await, [answer], "{sql}");
    }
    let refused = error(cx, "SELECT 'missing'::regclass").await.report();
    assert_eq!(refused.state.0, "42P01");
    assert_eq!(refused.message, "relation \"missing\" does not exist");
}

#[tokio::test]
async fn result_columns_have_postgresql_names() {
    let database = Database::new().await;
    let cx = Arc::new(database.cx.clone());
    let sql = "SELECT d.oid, d.*, 1, 2, pg_catalog.pg_get_userbyid(d.datdba), d.datname::text, \
         CASE WHEN true THEN 1 END FROM pg_catalog.pg_database d";
    let batches = run(&session(&cx), sql).await.unwrap();
    let schema = batches[0].schema();
    let shown = |f: &arrow::datatypes::FieldRef| column_names::shown(f.name()).to_owned();
    let names: Vec<String> = schema.fields().iter().map(shown).collect();
    assert_eq!(names[..3], ["oid", "oid", "datname"]);
    let last = &names[names.len() - 5..];
    assert_eq!(
        last,
        ["?column?", "?column?", "pg_get_userbyid", "datname", "case"]
    );
}

#[tokio::test]
async fn a_role_sees_what_is_its_business() {
    let database = Database::new().await;
    let analyst = &database.role("analyst");
    let tables = "SELECT table_name FROM weir.tables ORDER BY 1";
    assert_eq!(rows(analyst, tables).await, ["customer", "orders"]);
    let classes = "SELECT relname FROM pg_class WHERE oid >= 16384 ORDER BY 1";
    assert_eq!(rows(analyst, classes).await, ["customer", "orders"]);
    for hidden in [
        "SELECT 1 FROM information_schema.columns WHERE table_name = 'v'",
        "SELECT 1 FROM pg_catalog.pg_views",
        "SELECT 1 FROM weir.lineage_edges",
        "SELECT pg_get_viewdef(16426) AS d WHERE pg_get_viewdef(16426) IS NOT NULL",
        "SELECT 1 WHERE to_regclass('sales.v') IS NOT NULL",
        "SELECT 1 FROM weir.queries WHERE role = 'weir'",
    ] {
        assert_eq!(
            rows(analyst, hidden).await,
            Vec::<String>::new(),
            "{hidden}"
        );
    }
    let audit = "SELECT DISTINCT role FROM weir.audit_log";
    assert_eq!(rows(analyst, audit).await, ["analyst"]);
    let audit = "SELECT seq, role FROM weir.audit_log ORDER BY seq";
    assert_eq!(
        rows(&database.cx, audit).await,
        ["1|weir", "2|analyst", "3|weir"]
    );
    // nobody, and so nothing
    let nobody = &database.role("nobody");
    assert_eq!(rows(nobody, tables).await, Vec::<String>::new());
}

#[tokio::test]
async fn privilege_functions_answer_from_grants() {
    let database = Database::new().await;
    let analyst = &database.role("analyst");
    for (call, answer) in [
        ("has_table_privilege('sales.orders', 'SELECT')", "true"),
        (
            "has_table_privilege('sales.orders', 'SELECT WITH GRANT OPTION')",
            "false",
        ),
        (
            "has_table_privilege('sales.orders', 'INSERT, SELECT')",
            "true",
        ),
        ("has_table_privilege('sales.orders', 'DELETE')", "false"),
        (
            "has_table_privilege('weir', 'sales.orders', 'DELETE')",
            "true",
        ),
        ("has_table_privilege('sales.customer', 'SELECT')", "false"),
        (
            "has_any_column_privilege('sales.customer', 'SELECT')",
            "true",
        ),
        (
            "has_column_privilege('sales.customer', 'name', 'SELECT')",
            "true",
        ),
        (
            "has_column_privilege('sales.customer', 1, 'SELECT')",
            "false",
        ),
        ("has_table_privilege('pg_class', 'SELECT')", "true"),
        ("has_schema_privilege('sales', 'CREATE')", "false"),
        ("pg_has_role('team', 'MEMBER')", "true"),
    ] {
        assert_eq!(
            rows(analyst, &format!("SELECT {call}")).await,
            [answer],
            "{call}"
        );
    }
    let refused = error(analyst, "SELECT has_table_privilege('sales.orders', 'FLY')").await;
    assert_eq!(refused.state().0, "22023");
}

#[tokio::test]
async fn weir_tables_show_no_keys() {
    let database = Database::new().await;
    let sql = "SELECT options FROM weir.tables WHERE table_name = 'ev'";
    assert_eq!(
        rows(&database.cx, sql).await,
        ["[flush_interval=5 s, segment_write_key=***]"]
    );
    let sql = "SELECT source, target, target_column, kind FROM weir.lineage_edges";
    assert_eq!(
        rows(&database.cx, sql).await,
        ["sales.customer|sales.v|name|direct"]
    );
    let sql = "SELECT grantee, object, column_name, privilege FROM weir.grants ORDER BY object";
    assert_eq!(
        rows(&database.cx, sql).await,
        [
            "team|sales.customer|name|select",
            "team|sales.orders|-|select"
        ]
    );
}

#[test]
fn only_statements_about_the_catalog_are_rewritten() {
    let mentions = |sql: &str| {
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        compat::mentions_system_tables(&parsed[0])
    };
    assert!(mentions("SELECT * FROM pg_class"));
    assert!(mentions(
        "SELECT 1 FROM t WHERE x = (SELECT 1 FROM information_schema.tables)"
    ));
    assert!(mentions("SELECT pg_catalog.version()"));
    assert!(mentions("SELECT 't'::regclass"));
    assert!(mentions("SELECT * FROM weir.tables"));
    assert!(!mentions("SELECT a, count(*) FROM sales.orders GROUP BY a"));
    assert!(!mentions(
        "SELECT max(x)::text FROM events WHERE kind = ANY (ARRAY['a'])"
    ));
}

#[tokio::test]
async fn parameters_stay_parameters() {
    let database = Database::new().await;
    let cx = Arc::new(database.cx.clone());
    let session = session(&cx);
    for (sql, values, answer) in [
        (
            "SELECT typname FROM pg_type t WHERE t.oid = to_regtype($1)",
            vec!["int4"],
            1,
        ),
        (
            "SELECT 1 FROM pg_attribute WHERE attrelid = $1::regclass::oid",
            vec!["sales.orders"],
            3,
        ),
        (
            "SELECT 1 FROM pg_class WHERE relname = $1 AND relkind = ANY ($2)",
            vec!["mv", "{m,v}"],
            1,
        ),
        (
            "SELECT 1 FROM pg_class WHERE relname IN ($1::VARCHAR) AND relkind = ANY (ARRAY[$2::VARCHAR])",
            vec!["mv", "m"],
            1,
        ),
        (
            "SELECT upper(x.relname) FROM pg_index i JOIN pg_class x ON x.relname = $1",
            vec!["mv"],
            0,
        ),
    ] {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql)
            .unwrap()
            .remove(0);
        compat::rewrite(&mut statement);
        let state = session.state();
        let plan = state
            .statement_to_plan(Parsed::Statement(Box::new(statement)))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(
            plan.get_parameter_names().unwrap().len(),
            values.len(),
            "{sql}"
        );
        let values: Vec<_> = values.into_iter().map(ScalarValue::from).collect();
        let plan = plan.with_param_values(values).unwrap();
        let batches = session
            .execute_logical_plan(plan)
            .await
            .unwrap()
            .collect()
            .await;
        let found: usize = batches
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(found, answer, "{sql}");
    }
}
