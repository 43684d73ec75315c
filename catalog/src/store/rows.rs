//! Stored rows → model values. Anything that does not parse is `Corrupt`, never guessed at.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::audit_chain::unhex;
use super::driver::{Row, Tx};
use crate::{
    AuditRow, CatalogError, Grant, LineageEdge, Model, ModelVersion, Relation, Role, Schema,
    Secret, Snapshot,
};

/// The whole catalog as the transaction sees it, in order of object id.
pub(super) async fn snapshot(tx: &mut dyn Tx, generation: i64) -> Result<Snapshot, CatalogError> {
    Ok(Snapshot {
        generation,
        roles: all(tx, "role", ROLES, role).await?,
        schemas: all(tx, "schema", SCHEMAS, schema).await?,
        relations: all(tx, "relation", RELATIONS, relation).await?,
        models: all(tx, "model", MODELS, model).await?,
        model_versions: all(tx, "model version", MODEL_VERSIONS, model_version).await?,
        secrets: all(tx, "secret", SECRETS, secret).await?,
        grants: all(tx, "grant", GRANTS, grant).await?,
    })
}

/// All lineage edges.
pub(super) async fn lineage(tx: &mut dyn Tx) -> Result<Vec<LineageEdge>, CatalogError> {
    all(tx, "lineage edge", LINEAGE, lineage_edge).await
}

const ROLES: &str = "SELECT oid, name, login, superuser, scram_verifier, member_of, version \
     FROM roles ORDER BY oid";

fn role(row: &mut Row) -> Result<Role, CatalogError> {
    Ok(Role {
        oid: row.oid()?,
        name: row.text()?,
        login: row.bool()?,
        superuser: row.bool()?,
        scram_verifier: row.opt_text()?,
        member_of: json(row)?,
        version: row.int()?,
    })
}

const SCHEMAS: &str = "SELECT oid, name, owner, version FROM schemas ORDER BY oid";

fn schema(row: &mut Row) -> Result<Schema, CatalogError> {
    Ok(Schema {
        oid: row.oid()?,
        name: row.text()?,
        owner: row.oid()?,
        version: row.int()?,
    })
}

const RELATIONS: &str = "SELECT oid, schema_oid, name, kind, owner, column_list, partition_by, \
     checks, options, location, query, depends_on, materialized, remark, version \
     FROM relations ORDER BY oid";

fn relation(row: &mut Row) -> Result<Relation, CatalogError> {
    Ok(Relation {
        oid: row.oid()?,
        schema: row.oid()?,
        name: row.text()?,
        kind: word(row)?,
        owner: row.oid()?,
        columns: json(row)?,
        partition_by: json(row)?,
        checks: json(row)?,
        options: json(row)?,
        location: row.opt_text()?,
        query: row.opt_text()?,
        depends_on: json(row)?,
        materialized: match row.opt_text()? {
            Some(text) => Some(serde_json::from_str(&text).map_err(|_| row.corrupt())?),
            None => None,
        },
        comment: row.opt_text()?,
        version: row.int()?,
    })
}

const MODELS: &str =
    "SELECT oid, name, kind, owner, current_number, aliases, version FROM models ORDER BY oid";

fn model(row: &mut Row) -> Result<Model, CatalogError> {
    Ok(Model {
        oid: row.oid()?,
        name: row.text()?,
        kind: row.text()?,
        owner: row.oid()?,
        current: small(row)?,
        aliases: json(row)?,
        version: row.int()?,
    })
}

const MODEL_VERSIONS: &str = "SELECT model, number, query, options, artifact, metrics, trained_at \
     FROM model_versions ORDER BY model, number";

fn model_version(row: &mut Row) -> Result<ModelVersion, CatalogError> {
    Ok(ModelVersion {
        model: row.oid()?,
        number: small(row)?,
        query: row.text()?,
        options: json(row)?,
        artifact: json(row)?,
        metrics: json(row)?,
        trained_at_micros: row.int()?,
    })
}

const SECRETS: &str = "SELECT oid, name, kind, key_hex, owner, version FROM secrets ORDER BY oid";

fn secret(row: &mut Row) -> Result<Secret, CatalogError> {
    Ok(Secret {
        oid: row.oid()?,
        name: row.text()?,
        kind: row.text()?,
        key: unhex(&row.text()?).ok_or_else(|| row.corrupt())?,
        owner: row.oid()?,
        version: row.int()?,
    })
}

const GRANTS: &str = "SELECT object_kind, object, column_name, privilege, grantee, grantor, \
     grant_option FROM grants ORDER BY object, object_kind, column_name, privilege, grantee";

fn grant(row: &mut Row) -> Result<Grant, CatalogError> {
    Ok(Grant {
        object_kind: word(row)?,
        object: row.oid()?,
        column: Some(row.text()?).filter(|c| !c.is_empty()),
        privilege: word(row)?,
        grantee: Some(row.oid()?).filter(|g| g.0 != 0),
        grantor: row.oid()?,
        grant_option: row.bool()?,
    })
}

const LINEAGE: &str = "SELECT target, target_column, source, source_column, kind, statement \
     FROM lineage_edges ORDER BY target, source, target_column, source_column, kind";

fn lineage_edge(row: &mut Row) -> Result<LineageEdge, CatalogError> {
    Ok(LineageEdge {
        target: row.oid()?,
        target_column: row.text()?,
        source: row.oid()?,
        source_column: row.text()?,
        kind: word(row)?,
        statement: row.text()?,
    })
}

/// The columns [`audit_row`] reads, in its order.
pub(super) const AUDIT: &str = "SELECT seq, ended_at, session, door, role, command, statement, \
     objects, row_count, outcome, sqlstate, prev_hash, hash FROM audit_log \
     WHERE seq > $1 ORDER BY seq LIMIT $2";

/// One audit row as stored; whether its hash fits is the reader's question.
pub(super) fn audit_row(row: &mut Row) -> Result<AuditRow, CatalogError> {
    Ok(AuditRow {
        seq: row.int()?,
        at_micros: row.int()?,
        session: row.text()?,
        door: row.text()?,
        role: row.text()?,
        command: row.text()?,
        statement: row.text()?,
        objects: json(row)?,
        rows: row.opt_int()?,
        outcome: word(row)?,
        sqlstate: row.opt_text()?,
        prev_hash: row.text()?,
        hash: row.text()?,
    })
}

/// The stored word of an enum value.
pub(super) fn to_word<T: Serialize>(value: &T) -> Result<String, CatalogError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(_) | Err(_) => Err(CatalogError::Corrupt { what: "enum value" }),
    }
}

/// The stored JSON text of a value.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, CatalogError> {
    serde_json::to_string(value).map_err(|_| CatalogError::Corrupt { what: "JSON value" })
}

async fn all<T>(
    tx: &mut dyn Tx,
    what: &'static str,
    sql: &str,
    read: fn(&mut Row) -> Result<T, CatalogError>,
) -> Result<Vec<T>, CatalogError> {
    let rows = tx.fetch(sql, &[]).await.map_err(|source| {
        let action = "read the catalog";
        CatalogError::Store { action, source }
    })?;
    rows.into_iter()
        .map(|fields| read(&mut Row::new(fields, what)))
        .collect()
}

fn json<T: DeserializeOwned>(row: &mut Row) -> Result<T, CatalogError> {
    serde_json::from_str(&row.text()?).map_err(|_| row.corrupt())
}

fn word<T: DeserializeOwned>(row: &mut Row) -> Result<T, CatalogError> {
    serde_json::from_value(serde_json::Value::String(row.text()?)).map_err(|_| row.corrupt())
}

fn small(row: &mut Row) -> Result<i32, CatalogError> {
    i32::try_from(row.int()?).map_err(|_| row.corrupt())
}
