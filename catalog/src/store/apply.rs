//! Applies one [`Change`] inside an open transaction. The caller holds the lock that orders catalog
//! transactions, so a check made here holds until the commit.

use super::audit_chain::hex;
use super::driver::{Row, Tx, Value};
use super::rows::{to_json, to_word};
use super::sql::failed;
use crate::{
    CatalogError, Change, Grant, LineageEdge, Model, ModelVersion, ObjectKind, Oid, Relation, Role,
    Schema, Secret,
};

const ACTION: &str = "change the catalog";

/// Applies one change.
pub(super) async fn apply(tx: &mut dyn Tx, change: &Change) -> Result<(), CatalogError> {
    match change {
        Change::PutRole(role) => put_role(tx, role).await,
        Change::PutSchema(schema) => put_schema(tx, schema).await,
        Change::PutRelation(relation) => put_relation(tx, relation).await,
        Change::PutModel(model) => put_model(tx, model).await,
        Change::AddModelVersion(version) => add_model_version(tx, version).await,
        Change::PutSecret(secret) => put_secret(tx, secret).await,
        Change::AddGrant(grant) => add_grant(tx, grant).await,
        Change::RemoveGrant(grant) => remove_grant(tx, grant).await,
        Change::Drop { kind, oid, version } => drop_object(tx, *kind, *oid, *version).await,
        Change::AddLineage(edges) => add_lineage(tx, edges).await,
        Change::ClearLineage { target } => run(
            tx,
            "DELETE FROM lineage_edges WHERE target = $1",
            &[(*target).into()],
        )
        .await
        .map(drop),
    }
}

async fn put_role(tx: &mut dyn Tx, role: &Role) -> Result<(), CatalogError> {
    for group in &role.member_of {
        must_exist(tx, ObjectKind::Role, *group, ObjectKind::Role, &role.name).await?;
    }
    let fields = [
        role.oid.into(),
        role.name.as_str().into(),
        role.login.into(),
        role.superuser.into(),
        role.scram_verifier.clone().into(),
        to_json(&role.member_of)?.into(),
        role.version.into(),
    ];
    let put = Put {
        kind: ObjectKind::Role,
        name: &role.name,
        oid: role.oid,
        version: role.version,
        insert: "INSERT INTO roles (oid, name, login, superuser, scram_verifier, member_of, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7 + 1)",
        update: "UPDATE roles SET name = $2, login = $3, superuser = $4, scram_verifier = $5, \
             member_of = $6, version = version + 1 WHERE oid = $1 AND version = $7",
    };
    put.run(tx, &fields).await
}

async fn put_schema(tx: &mut dyn Tx, schema: &Schema) -> Result<(), CatalogError> {
    let kind = ObjectKind::Schema;
    must_exist(tx, ObjectKind::Role, schema.owner, kind, &schema.name).await?;
    let fields = [
        schema.oid.into(),
        schema.name.as_str().into(),
        schema.owner.into(),
        schema.version.into(),
    ];
    let put = Put {
        kind,
        name: &schema.name,
        oid: schema.oid,
        version: schema.version,
        insert: "INSERT INTO schemas (oid, name, owner, version) VALUES ($1, $2, $3, $4 + 1)",
        update: "UPDATE schemas SET name = $2, owner = $3, version = version + 1 \
             WHERE oid = $1 AND version = $4",
    };
    put.run(tx, &fields).await
}

async fn put_relation(tx: &mut dyn Tx, relation: &Relation) -> Result<(), CatalogError> {
    let kind = ObjectKind::Relation;
    let name = &relation.name;
    must_exist(tx, ObjectKind::Schema, relation.schema, kind, name).await?;
    must_exist(tx, ObjectKind::Role, relation.owner, kind, name).await?;
    for read in &relation.depends_on {
        // a view over itself never existed; a source that is gone was dropped since it was read
        if *read != relation.oid {
            must_exist(tx, ObjectKind::Relation, *read, kind, name).await?;
        }
    }
    let materialized = relation.materialized.as_ref().map(to_json).transpose()?;
    let fields = [
        relation.oid.into(),
        relation.schema.into(),
        name.as_str().into(),
        to_word(&relation.kind)?.into(),
        relation.owner.into(),
        to_json(&relation.columns)?.into(),
        to_json(&relation.partition_by)?.into(),
        to_json(&relation.checks)?.into(),
        to_json(&relation.options)?.into(),
        relation.location.clone().into(),
        relation.query.clone().into(),
        to_json(&relation.depends_on)?.into(),
        materialized.into(),
        relation.comment.clone().into(),
        relation.version.into(),
    ];
    let put = Put {
        kind,
        name,
        oid: relation.oid,
        version: relation.version,
        insert: "INSERT INTO relations (oid, schema_oid, name, kind, owner, column_list, \
             partition_by, checks, options, location, query, depends_on, materialized, remark, \
             version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 + 1)",
        update: "UPDATE relations SET schema_oid = $2, name = $3, kind = $4, owner = $5, \
             column_list = $6, partition_by = $7, checks = $8, options = $9, location = $10, \
             query = $11, depends_on = $12, materialized = $13, remark = $14, \
             version = version + 1 WHERE oid = $1 AND version = $15",
    };
    put.run(tx, &fields).await
}

async fn put_model(tx: &mut dyn Tx, model: &Model) -> Result<(), CatalogError> {
    let kind = ObjectKind::Model;
    must_exist(tx, ObjectKind::Role, model.owner, kind, &model.name).await?;
    let fields = [
        model.oid.into(),
        model.name.as_str().into(),
        model.kind.as_str().into(),
        model.owner.into(),
        i64::from(model.current).into(),
        to_json(&model.aliases)?.into(),
        model.version.into(),
    ];
    let put = Put {
        kind,
        name: &model.name,
        oid: model.oid,
        version: model.version,
        insert: "INSERT INTO models (oid, name, kind, owner, current_number, aliases, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $7 + 1)",
        update: "UPDATE models SET name = $2, kind = $3, owner = $4, current_number = $5, \
             aliases = $6, version = version + 1 WHERE oid = $1 AND version = $7",
    };
    put.run(tx, &fields).await
}

async fn add_model_version(tx: &mut dyn Tx, version: &ModelVersion) -> Result<(), CatalogError> {
    let name = match find(tx, ObjectKind::Model, version.model).await? {
        Some(model) => format!("{}@{}", model.name, version.number),
        None => return Err(not_found(ObjectKind::Model, version.model)),
    };
    let inserted = run_unique(
        tx,
        "INSERT INTO model_versions (model, number, query, options, artifact, metrics, trained_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &[
            version.model.into(),
            i64::from(version.number).into(),
            version.query.as_str().into(),
            to_json(&version.options)?.into(),
            to_json(&version.artifact)?.into(),
            to_json(&version.metrics)?.into(),
            version.trained_at_micros.into(),
        ],
        ObjectKind::Model,
        &name,
    )
    .await?;
    if inserted == 0 {
        let kind = ObjectKind::Model;
        return Err(CatalogError::AlreadyExists { kind, name });
    }
    Ok(())
}

async fn put_secret(tx: &mut dyn Tx, secret: &Secret) -> Result<(), CatalogError> {
    let kind = ObjectKind::Secret;
    must_exist(tx, ObjectKind::Role, secret.owner, kind, &secret.name).await?;
    let fields = [
        secret.oid.into(),
        secret.name.as_str().into(),
        secret.kind.as_str().into(),
        hex(&secret.key).into(),
        secret.owner.into(),
        secret.version.into(),
    ];
    let put = Put {
        kind,
        name: &secret.name,
        oid: secret.oid,
        version: secret.version,
        insert: "INSERT INTO secrets (oid, name, kind, key_hex, owner, version) \
             VALUES ($1, $2, $3, $4, $5, $6 + 1)",
        update: "UPDATE secrets SET name = $2, kind = $3, key_hex = $4, owner = $5, \
             version = version + 1 WHERE oid = $1 AND version = $6",
    };
    put.run(tx, &fields).await
}

async fn add_grant(tx: &mut dyn Tx, grant: &Grant) -> Result<(), CatalogError> {
    let Some(object) = find(tx, grant.object_kind, grant.object).await? else {
        return Err(not_found(grant.object_kind, grant.object));
    };
    for role in grant.grantee.iter().chain([&grant.grantor]) {
        if find(tx, ObjectKind::Role, *role).await?.is_none() {
            return Err(changed(grant.object_kind, &object.name));
        }
    }
    let mut fields = grant_key(grant)?;
    fields.extend([grant.grantor.into(), grant.grant_option.into()]);
    run(
        tx,
        "INSERT INTO grants (object_kind, object, column_name, privilege, grantee, grantor, \
         grant_option) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        &fields,
    )
    .await
    .map(drop)
}

async fn remove_grant(tx: &mut dyn Tx, grant: &Grant) -> Result<(), CatalogError> {
    run(
        tx,
        "DELETE FROM grants WHERE object_kind = $1 AND object = $2 AND column_name = $3 \
         AND privilege = $4 AND grantee = $5",
        &grant_key(grant)?,
    )
    .await
    .map(drop)
}

fn grant_key(grant: &Grant) -> Result<Vec<Value>, CatalogError> {
    Ok(vec![
        to_word(&grant.object_kind)?.into(),
        grant.object.into(),
        grant.column.as_deref().unwrap_or_default().into(),
        to_word(&grant.privilege)?.into(),
        grant.grantee.unwrap_or(Oid(0)).into(),
    ])
}

async fn add_lineage(tx: &mut dyn Tx, edges: &[LineageEdge]) -> Result<(), CatalogError> {
    for edge in edges {
        run(
            tx,
            "INSERT INTO lineage_edges (target, target_column, source, source_column, kind, \
             statement) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            &[
                edge.target.into(),
                edge.target_column.as_str().into(),
                edge.source.into(),
                edge.source_column.as_str().into(),
                to_word(&edge.kind)?.into(),
                edge.statement.as_str().into(),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn drop_object(
    tx: &mut dyn Tx,
    kind: ObjectKind,
    oid: Oid,
    version: i64,
) -> Result<(), CatalogError> {
    let Some(found) = find(tx, kind, oid).await? else {
        return Err(not_found(kind, oid));
    };
    if found.version != version {
        return Err(changed(kind, &found.name));
    }
    let dependents = dependents(tx, kind, oid).await?;
    if !dependents.is_empty() {
        let name = found.name;
        return Err(CatalogError::DependentObjects {
            kind,
            name,
            dependents,
        });
    }
    let table = table(kind);
    run(
        tx,
        &format!("DELETE FROM {table} WHERE oid = $1"),
        &[oid.into()],
    )
    .await?;
    run(
        tx,
        "DELETE FROM grants WHERE object_kind = $1 AND object = $2",
        &[to_word(&kind)?.into(), oid.into()],
    )
    .await?;
    match kind {
        ObjectKind::Relation => clear_lineage(tx, oid).await,
        ObjectKind::Model => {
            clear_lineage(tx, oid).await?;
            let sql = "DELETE FROM model_versions WHERE model = $1";
            run(tx, sql, &[oid.into()]).await.map(drop)
        }
        ObjectKind::Role => forget_role(tx, oid).await,
        ObjectKind::Schema | ObjectKind::Secret => Ok(()),
    }
}

async fn clear_lineage(tx: &mut dyn Tx, target: Oid) -> Result<(), CatalogError> {
    let sql = "DELETE FROM lineage_edges WHERE target = $1";
    run(tx, sql, &[target.into()]).await.map(drop)
}

/// What stands in the way of dropping an object, by name.
async fn dependents(
    tx: &mut dyn Tx,
    kind: ObjectKind,
    oid: Oid,
) -> Result<Vec<String>, CatalogError> {
    match kind {
        ObjectKind::Relation => readers(tx, oid).await,
        ObjectKind::Schema => {
            let sql = "SELECT name FROM relations WHERE schema_oid = $1 ORDER BY oid";
            names(tx, sql, oid).await
        }
        ObjectKind::Role => {
            // what it owns, and what it granted to others
            let sql = "SELECT name FROM relations WHERE owner = $1 \
                 UNION SELECT name FROM schemas WHERE owner = $1 \
                 UNION SELECT name FROM models WHERE owner = $1 \
                 UNION SELECT name FROM secrets WHERE owner = $1 \
                 UNION SELECT 'grant of ' || privilege || ' on object ' || CAST(object AS TEXT) \
                     FROM grants WHERE grantor = $1 AND grantee <> $1 \
                 ORDER BY 1";
            names(tx, sql, oid).await
        }
        ObjectKind::Model | ObjectKind::Secret => Ok(Vec::new()),
    }
}

/// Relations whose defining query reads `oid`.
async fn readers(tx: &mut dyn Tx, oid: Oid) -> Result<Vec<String>, CatalogError> {
    let sql = "SELECT name, depends_on FROM relations WHERE oid <> $1 AND depends_on <> '[]' \
         ORDER BY oid";
    let mut found = Vec::new();
    for fields in fetch(tx, sql, &[oid.into()]).await? {
        let mut row = Row::new(fields, "relation");
        let name = row.text()?;
        let reads: Vec<Oid> = serde_json::from_str(&row.text()?).map_err(|_| row.corrupt())?;
        if reads.contains(&oid) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Removes what was granted to a role and its memberships.
async fn forget_role(tx: &mut dyn Tx, role: Oid) -> Result<(), CatalogError> {
    let sql = "DELETE FROM grants WHERE grantee = $1";
    run(tx, sql, &[role.into()]).await?;
    let sql = "SELECT oid, member_of FROM roles WHERE member_of <> '[]'";
    for fields in fetch(tx, sql, &[]).await? {
        let mut row = Row::new(fields, "role");
        let member = row.oid()?;
        let mut groups: Vec<Oid> = serde_json::from_str(&row.text()?).map_err(|_| row.corrupt())?;
        if groups.contains(&role) {
            groups.retain(|g| *g != role);
            let sql = "UPDATE roles SET member_of = $2, version = version + 1 WHERE oid = $1";
            run(tx, sql, &[member.into(), to_json(&groups)?.into()]).await?;
        }
    }
    Ok(())
}

/// Inserts or replaces one row by the rules of optimistic versions.
struct Put<'a> {
    kind: ObjectKind,
    name: &'a str,
    oid: Oid,
    version: i64,
    insert: &'static str,
    update: &'static str,
}

impl Put<'_> {
    async fn run(&self, tx: &mut dyn Tx, fields: &[Value]) -> Result<(), CatalogError> {
        let sql = if self.version == 0 {
            self.insert
        } else {
            self.update
        };
        let touched = run_unique(tx, sql, fields, self.kind, self.name).await?;
        if touched == 1 {
            return Ok(());
        }
        match find(tx, self.kind, self.oid).await? {
            Some(_) => Err(changed(self.kind, self.name)),
            None => Err(CatalogError::NotFound {
                kind: self.kind,
                name: self.name.to_owned(),
            }),
        }
    }
}

struct Found {
    name: String,
    version: i64,
}

async fn find(tx: &mut dyn Tx, kind: ObjectKind, oid: Oid) -> Result<Option<Found>, CatalogError> {
    let sql = format!("SELECT name, version FROM {} WHERE oid = $1", table(kind));
    let Some(fields) = fetch(tx, &sql, &[oid.into()]).await?.into_iter().next() else {
        return Ok(None);
    };
    let mut row = Row::new(fields, "object");
    Ok(Some(Found {
        name: row.text()?,
        version: row.int()?,
    }))
}

/// `needed` was there when the statement read the catalog; if it is gone, another transaction
/// dropped it in between and the statement has to start again.
async fn must_exist(
    tx: &mut dyn Tx,
    needed_kind: ObjectKind,
    needed: Oid,
    kind: ObjectKind,
    name: &str,
) -> Result<(), CatalogError> {
    match find(tx, needed_kind, needed).await? {
        Some(_) => Ok(()),
        None => Err(changed(kind, name)),
    }
}

fn table(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Role => "roles",
        ObjectKind::Schema => "schemas",
        ObjectKind::Relation => "relations",
        ObjectKind::Model => "models",
        ObjectKind::Secret => "secrets",
    }
}

fn changed(kind: ObjectKind, name: &str) -> CatalogError {
    let name = name.to_owned();
    CatalogError::ConcurrentModification { kind, name }
}

fn not_found(kind: ObjectKind, oid: Oid) -> CatalogError {
    let name = oid.to_string();
    CatalogError::NotFound { kind, name }
}

async fn names(tx: &mut dyn Tx, sql: &str, oid: Oid) -> Result<Vec<String>, CatalogError> {
    fetch(tx, sql, &[oid.into()])
        .await?
        .into_iter()
        .map(|fields| Row::new(fields, "object").text())
        .collect()
}

async fn fetch(
    tx: &mut dyn Tx,
    sql: &str,
    args: &[Value],
) -> Result<Vec<Vec<Value>>, CatalogError> {
    tx.fetch(sql, args).await.map_err(failed(ACTION))
}

async fn run(tx: &mut dyn Tx, sql: &str, args: &[Value]) -> Result<u64, CatalogError> {
    tx.execute(sql, args).await.map_err(failed(ACTION))
}

/// As [`run`], for statements that a taken name may refuse.
async fn run_unique(
    tx: &mut dyn Tx,
    sql: &str,
    args: &[Value],
    kind: ObjectKind,
    name: &str,
) -> Result<u64, CatalogError> {
    tx.execute(sql, args).await.map_err(|e| {
        let taken = e
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        if taken {
            let name = name.to_owned();
            CatalogError::AlreadyExists { kind, name }
        } else {
            failed(ACTION)(e)
        }
    })
}
