//! What every store must do. Each case gets a store of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::store::audit_chain::{verify, verify_after};
use catalog::{
    AuditOutcome, AuditRow, CatalogError, Change, Column, Grant, LineageEdge, LineageKind,
    MaterializedView, Model, ModelVersion, ObjectKind, Oid, Privilege, Relation, RelationKind,
    Role, Schema, Secret, SqlType, Store, Strategy,
};

const WEIR: Oid = Oid(10);
const PUBLIC: Oid = Oid(2200);

/// Runs all cases; `fresh` opens an empty catalog and whatever must outlive it.
pub(crate) async fn run<G>(fresh: impl AsyncFn() -> (Arc<dyn Store>, G)) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            eprintln!("case {}", stringify!($case));
            let (store, guard) = fresh().await;
            $case(Arc::clone(&store)).await;
            store.close().await;
            drop(guard);
        )*};
    }
    cases!(
        bootstraps,
        oids_are_never_given_twice,
        values_read_back,
        versions_are_checked,
        names_are_unique,
        a_failed_commit_leaves_nothing,
        dependents_stop_a_drop,
        a_drop_takes_what_belongs_to_the_object,
        a_role_leaves_cleanly,
        what_vanished_is_a_conflict,
        grants_are_a_set,
        lineage_is_a_set,
        one_of_two_racing_creators_wins,
        the_audit_chain_holds_under_concurrency,
        audit_takes_any_text,
    );
}

pub(crate) fn role(oid: Oid, name: &str) -> Role {
    Role {
        oid,
        name: name.to_owned(),
        login: true,
        superuser: false,
        scram_verifier: Some("SCRAM-SHA-256$4096:c2FsdA==$a:b".to_owned()),
        member_of: Vec::new(),
        version: 0,
    }
}

pub(crate) fn audit(statement: &str) -> AuditRow {
    AuditRow {
        seq: -1,
        at_micros: 1_700_000_000_000_000,
        session: "s1".to_owned(),
        door: "pg".to_owned(),
        role: "weir".to_owned(),
        command: "SELECT".to_owned(),
        statement: statement.to_owned(),
        objects: vec!["public.t".to_owned()],
        rows: Some(3),
        outcome: AuditOutcome::Ok,
        sqlstate: None,
        prev_hash: "ignored".to_owned(),
        hash: "ignored".to_owned(),
    }
}

pub(crate) fn table(oid: Oid, name: &str, depends_on: &[Oid]) -> Relation {
    Relation {
        oid,
        schema: PUBLIC,
        name: name.to_owned(),
        kind: RelationKind::Table,
        owner: WEIR,
        columns: Vec::new(),
        partition_by: Vec::new(),
        checks: BTreeMap::new(),
        options: BTreeMap::new(),
        location: None,
        query: None,
        depends_on: depends_on.to_vec(),
        materialized: None,
        comment: None,
        version: 0,
    }
}

fn grant_to(object_kind: ObjectKind, object: Oid, grantee: Option<Oid>) -> Grant {
    Grant {
        object_kind,
        object,
        column: None,
        privilege: Privilege::Select,
        grantee,
        grantor: WEIR,
        grant_option: false,
    }
}

fn edge(target: Oid, source: Oid, column: &str) -> LineageEdge {
    LineageEdge {
        target,
        target_column: column.to_owned(),
        source,
        source_column: "a".to_owned(),
        kind: LineageKind::Direct,
        statement: "CREATE VIEW".to_owned(),
    }
}

async fn put(store: &dyn Store, change: Change) {
    store.commit(vec![change]).await.unwrap();
}

async fn new_table(store: &dyn Store, name: &str, depends_on: &[Oid]) -> Oid {
    let oid = store.allocate_oid().await.unwrap();
    put(store, Change::PutRelation(table(oid, name, depends_on))).await;
    oid
}

async fn new_role(store: &dyn Store, name: &str) -> Oid {
    let oid = store.allocate_oid().await.unwrap();
    put(store, Change::PutRole(role(oid, name))).await;
    oid
}

fn drop_relation(oid: Oid) -> Change {
    let kind = ObjectKind::Relation;
    let version = 1;
    Change::Drop { kind, oid, version }
}

async fn bootstraps(store: Arc<dyn Store>) {
    let snapshot = store.load().await.unwrap();
    let weir = snapshot.role("weir").unwrap();
    assert_eq!((weir.oid, weir.superuser, weir.login), (WEIR, true, true));
    assert_eq!(weir.scram_verifier, None);
    let public = snapshot.schema("public").unwrap();
    assert_eq!((public.oid, public.owner), (PUBLIC, WEIR));
    assert!(snapshot.relations.is_empty() && snapshot.grants.is_empty());
    assert_eq!(store.allocate_oid().await.unwrap(), Oid(16384));
    assert_eq!(store.audit(0, 10).await.unwrap(), Vec::new());
    // nothing to do is no transaction
    let same = store.commit(Vec::new()).await.unwrap();
    assert_eq!(same.generation, snapshot.generation);
}

async fn oids_are_never_given_twice(store: Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut got = Vec::new();
            for _ in 0..5 {
                got.push(store.allocate_oid().await.unwrap());
            }
            got
        });
    }
    let mut all: Vec<Oid> = tasks.join_all().await.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
}

async fn values_read_back(store: Arc<dyn Store>) {
    let [source, view, model, secret, member] = [16400, 16401, 16402, 16403, 16404].map(Oid);
    let mut streaming = table(source, "Ünïcode \"quoted\"", &[]);
    streaming.kind = RelationKind::StreamingTable;
    streaming.columns = vec![Column {
        name: "a".to_owned(),
        sql_type: SqlType::Array(Box::new(SqlType::Record(vec![(
            "x".to_owned(),
            SqlType::Numeric {
                precision: 12,
                scale: 2,
            },
        )]))),
        nullable: false,
        default: Some("'it''s'".to_owned()),
        generated: None,
        comment: Some(String::new()),
        since: None,
    }];
    streaming.partition_by = vec!["a".to_owned()];
    streaming.checks = BTreeMap::from([("c".to_owned(), "a <> ''".to_owned())]);
    streaming.options = BTreeMap::from([("event_time".to_owned(), "ts".to_owned())]);
    streaming.location = Some("file:///w/t/".to_owned());
    streaming.comment = Some("said".to_owned());
    let mut kept = table(view, "v", &[source]);
    kept.kind = RelationKind::MaterializedView;
    kept.query = Some("SELECT 1;\n-- end".to_owned());
    kept.materialized = Some(MaterializedView {
        strategy: Strategy::Agg,
        codes: vec!["AGG_OK".to_owned()],
        state_format: 1,
        source,
        sources: vec![source],
        ages_by: Some(2),
        made_in: Some(Box::new(catalog::MadeIn {
            schema: "public".to_owned(),
            time_zone: "UTC".to_owned(),
        })),
    });
    let churn = Model {
        oid: model,
        name: "churn".to_owned(),
        kind: "logistic_regression".to_owned(),
        owner: WEIR,
        current: 1,
        aliases: BTreeMap::from([("champion".to_owned(), 1)]),
        version: 0,
    };
    let trained = ModelVersion {
        model,
        number: 1,
        query: "SELECT 1".to_owned(),
        options: BTreeMap::from([("seed".to_owned(), "7".to_owned())]),
        artifact: serde_json::json!({"coefficients": [0.5, -1.25e-8], "names": ["a"]}),
        metrics: serde_json::json!({"auc": 0.875}),
        trained_at_micros: i64::MAX,
    };
    let key = Secret {
        oid: secret,
        name: "k".to_owned(),
        kind: "tokenization".to_owned(),
        key: (0..=255).collect(),
        owner: WEIR,
        version: 0,
    };
    let mut joined = role(member, "analyst");
    joined.member_of = vec![WEIR];
    let mut column_grant = grant_to(ObjectKind::Relation, source, None);
    column_grant.column = Some("a".to_owned());
    column_grant.grant_option = true;
    let committed = store
        .commit(vec![
            Change::PutRelation(streaming.clone()),
            Change::PutRelation(kept.clone()),
            Change::PutModel(churn.clone()),
            Change::AddModelVersion(trained.clone()),
            Change::PutSecret(key.clone()),
            Change::PutRole(joined.clone()),
            Change::AddGrant(column_grant.clone()),
        ])
        .await
        .unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.generation, committed.generation);
    for snapshot in [committed, loaded] {
        (streaming.version, kept.version, joined.version) = (1, 1, 1);
        assert_eq!(snapshot.relations, [streaming.clone(), kept.clone()]);
        assert_eq!(
            snapshot.models,
            [Model {
                version: 1,
                ..churn.clone()
            }]
        );
        assert_eq!(snapshot.model_versions, std::slice::from_ref(&trained));
        assert_eq!(
            snapshot.secrets,
            [Secret {
                version: 1,
                ..key.clone()
            }]
        );
        assert_eq!(snapshot.role("analyst"), Some(&joined));
        assert_eq!(snapshot.grants, std::slice::from_ref(&column_grant));
    }
}

async fn versions_are_checked(store: Arc<dyn Store>) {
    let oid = new_table(&*store, "t", &[]).await;
    let read = store.load().await.unwrap();
    let mut mine = read.relation("public", "t").unwrap().clone();
    let theirs = mine.clone();
    mine.comment = Some("mine".to_owned());
    let after = store.commit(vec![Change::PutRelation(mine)]).await.unwrap();
    assert!(after.generation > read.generation);
    assert_eq!(after.relation("public", "t").unwrap().version, 2);
    let refused = store.commit(vec![Change::PutRelation(theirs)]).await;
    assert!(
        matches!(&refused, Err(CatalogError::ConcurrentModification { name, .. }) if name == "t")
    );
    let refused = store.commit(vec![drop_relation(oid)]).await;
    assert!(matches!(
        refused,
        Err(CatalogError::ConcurrentModification { .. })
    ));
    let mut gone = table(Oid(20000), "gone", &[]);
    gone.version = 1;
    let refused = store.commit(vec![Change::PutRelation(gone)]).await;
    assert!(matches!(&refused, Err(CatalogError::NotFound { name, .. }) if name == "gone"));
    let refused = store.commit(vec![drop_relation(Oid(20000))]).await;
    assert!(matches!(refused, Err(CatalogError::NotFound { .. })));
}

async fn names_are_unique(store: Arc<dyn Store>) {
    new_table(&*store, "t", &[]).await;
    let schema = Schema {
        oid: Oid(20001),
        name: "other".to_owned(),
        owner: WEIR,
        version: 0,
    };
    let mut elsewhere = table(Oid(20002), "t", &[]);
    elsewhere.schema = schema.oid;
    store
        .commit(vec![
            Change::PutSchema(schema.clone()),
            Change::PutRelation(elsewhere),
            Change::PutRelation(table(Oid(20003), "T", &[])),
        ])
        .await
        .unwrap();
    let mut second = schema;
    second.oid = Oid(20004);
    for (change, kind, name) in [
        (
            Change::PutRelation(table(Oid(20005), "t", &[])),
            ObjectKind::Relation,
            "t",
        ),
        (Change::PutSchema(second), ObjectKind::Schema, "other"),
        (
            Change::PutRole(role(Oid(20006), "weir")),
            ObjectKind::Role,
            "weir",
        ),
    ] {
        match store.commit(vec![change]).await {
            Err(CatalogError::AlreadyExists { kind: k, name: n }) => {
                assert_eq!((k, n.as_str()), (kind, name));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // renaming onto a taken name is refused the same way
    let mut renamed = store
        .load()
        .await
        .unwrap()
        .relation("public", "T")
        .unwrap()
        .clone();
    renamed.name = "t".to_owned();
    let refused = store.commit(vec![Change::PutRelation(renamed)]).await;
    assert!(matches!(refused, Err(CatalogError::AlreadyExists { .. })));
}

async fn a_failed_commit_leaves_nothing(store: Arc<dyn Store>) {
    let before = store.load().await.unwrap();
    store
        .commit(vec![
            Change::PutRelation(table(Oid(20000), "a", &[])),
            Change::PutRelation(table(Oid(20001), "a", &[])),
        ])
        .await
        .unwrap_err();
    let after = store.load().await.unwrap();
    assert_eq!(after.generation, before.generation);
    assert!(after.relations.is_empty());
    // and the store goes on
    new_table(&*store, "a", &[]).await;
}

async fn dependents_stop_a_drop(store: Arc<dyn Store>) {
    let base = new_table(&*store, "base", &[]).await;
    let view = new_table(&*store, "view", &[base]).await;
    let over = new_table(&*store, "over", &[view, base]).await;
    match store.commit(vec![drop_relation(base)]).await {
        Err(CatalogError::DependentObjects {
            name, dependents, ..
        }) => {
            assert_eq!(name, "base");
            assert_eq!(dependents, ["view", "over"]);
        }
        other => panic!("{other:?}"),
    }
    let wrong_order = [base, view, over].map(drop_relation).to_vec();
    store.commit(wrong_order).await.unwrap_err();
    let schema = Change::Drop {
        kind: ObjectKind::Schema,
        oid: PUBLIC,
        version: 1,
    };
    assert!(matches!(
        store.commit(vec![schema.clone()]).await,
        Err(CatalogError::DependentObjects { .. })
    ));
    let mut cascade = [over, view, base].map(drop_relation).to_vec();
    cascade.push(schema);
    let after = store.commit(cascade).await.unwrap();
    assert!(after.relations.is_empty() && after.schemas.is_empty());
}

async fn a_drop_takes_what_belongs_to_the_object(store: Arc<dyn Store>) {
    let t = new_table(&*store, "t", &[]).await;
    let other = new_table(&*store, "other", &[]).await;
    let model = Oid(20010);
    let churn = |oid| Model {
        oid,
        name: "churn".to_owned(),
        kind: "kmeans".to_owned(),
        owner: WEIR,
        current: 1,
        aliases: BTreeMap::new(),
        version: 0,
    };
    let trained = ModelVersion {
        model,
        number: 1,
        query: String::new(),
        options: BTreeMap::new(),
        artifact: serde_json::Value::Null,
        metrics: serde_json::json!({}),
        trained_at_micros: 0,
    };
    store
        .commit(vec![
            Change::AddGrant(grant_to(ObjectKind::Relation, t, None)),
            Change::AddGrant(grant_to(ObjectKind::Relation, other, None)),
            Change::AddLineage(vec![edge(t, other, "x"), edge(other, t, "x")]),
            Change::PutModel(churn(model)),
            Change::AddModelVersion(trained.clone()),
            Change::AddLineage(vec![edge(model, t, "*")]),
        ])
        .await
        .unwrap();
    let again = store.commit(vec![Change::AddModelVersion(trained)]).await;
    assert!(matches!(&again, Err(CatalogError::AlreadyExists { name, .. }) if name == "churn@1"));
    let after = store
        .commit(vec![
            drop_relation(t),
            Change::Drop {
                kind: ObjectKind::Model,
                oid: model,
                version: 1,
            },
        ])
        .await
        .unwrap();
    assert_eq!(after.grants.len(), 1);
    assert_eq!(after.grants[0].object, other);
    assert!(after.models.is_empty() && after.model_versions.is_empty());
    // where the dropped table was a source, the trace stays
    assert_eq!(store.lineage().await.unwrap(), [edge(other, t, "x")]);
    put(&*store, Change::PutModel(churn(Oid(20011)))).await;
    new_table(&*store, "t", &[]).await;
}

async fn a_role_leaves_cleanly(store: Arc<dyn Store>) {
    let t = new_table(&*store, "t", &[]).await;
    let group = new_role(&*store, "group").await;
    let member = store.allocate_oid().await.unwrap();
    let mut user = role(member, "member");
    user.member_of = vec![group];
    store
        .commit(vec![
            Change::PutRole(user),
            Change::AddGrant(grant_to(ObjectKind::Relation, t, Some(group))),
        ])
        .await
        .unwrap();
    let drop_role = |oid| Change::Drop {
        kind: ObjectKind::Role,
        oid,
        version: 1,
    };
    let after = store.commit(vec![drop_role(group)]).await.unwrap();
    assert!(after.grants.is_empty());
    let user = after.role("member").unwrap();
    assert!(user.member_of.is_empty());
    assert_eq!(user.version, 2);
    match store.commit(vec![drop_role(WEIR)]).await {
        Err(CatalogError::DependentObjects { dependents, .. }) => {
            assert_eq!(dependents, ["public", "t"]);
        }
        other => panic!("{other:?}"),
    }
}

async fn what_vanished_is_a_conflict(store: Arc<dyn Store>) {
    let nobody = Oid(30000);
    let mut no_schema = table(Oid(20000), "x", &[]);
    no_schema.schema = nobody;
    let mut no_owner = table(Oid(20000), "x", &[]);
    no_owner.owner = nobody;
    for relation in [no_schema, no_owner, table(Oid(20000), "x", &[nobody])] {
        let refused = store.commit(vec![Change::PutRelation(relation)]).await;
        assert!(matches!(
            refused,
            Err(CatalogError::ConcurrentModification { .. })
        ));
    }
    let t = new_table(&*store, "t", &[]).await;
    let to_nobody = grant_to(ObjectKind::Relation, t, Some(nobody));
    let refused = store.commit(vec![Change::AddGrant(to_nobody)]).await;
    assert!(matches!(
        refused,
        Err(CatalogError::ConcurrentModification { .. })
    ));
    let on_nothing = grant_to(ObjectKind::Relation, nobody, None);
    let refused = store.commit(vec![Change::AddGrant(on_nothing)]).await;
    assert!(matches!(refused, Err(CatalogError::NotFound { .. })));
}

async fn grants_are_a_set(store: Arc<dyn Store>) {
    let t = new_table(&*store, "t", &[]).await;
    let analyst = new_role(&*store, "analyst").await;
    let first = grant_to(ObjectKind::Relation, t, Some(analyst));
    let mut again = first.clone();
    again.grant_option = true;
    let mut column = first.clone();
    column.column = Some("a".to_owned());
    let public = grant_to(ObjectKind::Relation, t, None);
    let after = store
        .commit(
            [&first, &again, &column, &public, &public]
                .map(|g| Change::AddGrant(g.clone()))
                .to_vec(),
        )
        .await
        .unwrap();
    assert_eq!(after.grants.len(), 3);
    assert!(after.grants.contains(&first));
    let after = store
        .commit(vec![
            Change::RemoveGrant(again),
            Change::RemoveGrant(first.clone()),
        ])
        .await
        .unwrap();
    assert_eq!(after.grants.len(), 2);
    assert!(!after.grants.contains(&first));
}

async fn lineage_is_a_set(store: Arc<dyn Store>) {
    let a = new_table(&*store, "a", &[]).await;
    let b = new_table(&*store, "b", &[]).await;
    let mut later = edge(b, a, "x");
    later.statement = "INSERT".to_owned();
    put(
        &*store,
        Change::AddLineage(vec![edge(b, a, "x"), edge(b, a, "y")]),
    )
    .await;
    put(&*store, Change::AddLineage(vec![later])).await;
    assert_eq!(
        store.lineage().await.unwrap(),
        [edge(b, a, "x"), edge(b, a, "y")]
    );
    store
        .commit(vec![
            Change::ClearLineage { target: b },
            Change::AddLineage(vec![edge(b, a, "z")]),
        ])
        .await
        .unwrap();
    assert_eq!(store.lineage().await.unwrap(), [edge(b, a, "z")]);
}

async fn one_of_two_racing_creators_wins(store: Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..6 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let oid = store.allocate_oid().await.unwrap();
            let relation = table(oid, &format!("t{}", i % 2), &[]);
            store.commit(vec![Change::PutRelation(relation)]).await
        });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 2);
    for refused in results.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, CatalogError::AlreadyExists { .. }));
    }
    assert_eq!(store.load().await.unwrap().relations.len(), 2);
}

async fn the_audit_chain_holds_under_concurrency(store: Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..5 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for i in 0..4 {
                let pair = ["a", "b"].map(|s| audit(&format!("{writer} {i} {s}")));
                store.append_audit(pair.to_vec()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let log = store.audit(0, 1000).await.unwrap();
    assert_eq!(log.len(), 40);
    assert_eq!(verify(&log), Ok(()));
    for pair in log.chunks(2) {
        let [a, b] = pair else { panic!("odd length") };
        assert_eq!(
            a.statement.trim_end_matches('a'),
            b.statement.trim_end_matches('b')
        );
    }
    let first = store.audit(0, 15).await.unwrap();
    let rest = store.audit(15, 1000).await.unwrap();
    assert_eq!((first.len(), rest.len()), (15, 25));
    assert_eq!(verify_after(&first[14], &rest), Ok(()));
    assert!(store.audit(40, 10).await.unwrap().is_empty());
    assert!(store.audit(0, -1).await.unwrap().is_empty());
}

async fn audit_takes_any_text(store: Arc<dyn Store>) {
    let mut row = audit("nul \0 and \u{10ffff} and 'quote'");
    row.objects = vec!["a\0b".to_owned(), String::new()];
    row.rows = None;
    row.outcome = AuditOutcome::Error;
    row.sqlstate = Some("42601".to_owned());
    store.append_audit(vec![row]).await.unwrap();
    let log = store.audit(0, 10).await.unwrap();
    assert_eq!(verify(&log), Ok(()));
    assert_eq!(log[0].seq, 1);
    assert_eq!(log[0].statement, "nul \u{fffd} and \u{10ffff} and 'quote'");
    assert_eq!(log[0].rows, None);
    assert_eq!(log[0].outcome, AuditOutcome::Error);
}

/// What one handle commits, another one sees.
pub(crate) async fn two_handles(a: &dyn Store, b: &dyn Store) {
    a.load().await.unwrap();
    b.load().await.unwrap();
    let oid = new_table(a, "t", &[]).await;
    assert!(b.load().await.unwrap().relation("public", "t").is_some());
    let dropped = b.commit(vec![drop_relation(oid)]).await.unwrap();
    assert_eq!(a.load().await.unwrap().generation, dropped.generation);
    assert!(a.load().await.unwrap().relations.is_empty());
    a.append_audit(vec![audit("a")]).await.unwrap();
    b.append_audit(vec![audit("b")]).await.unwrap();
    assert_eq!(verify(&a.audit(0, 10).await.unwrap()), Ok(()));
}
