//! Temporary tables: ordinary tables in a schema that belongs to one session.
//!
//! The schema is made when the session first needs it, comes first when the session's names are looked
//! up, and cannot be named by another session ([`super::scope::Scope::named_schema`]). It is dropped
//! with its session; what a crash leaves is dropped at the next start.

use catalog::{Change, ObjectKind, Oid, Relation, Schema};

use super::Engine;
use crate::error::Result;

/// The schema of a session's temporary tables, made if it is not there. The caller holds off other
/// statements that change the catalog.
pub async fn schema(engine: &Engine, session: i32, owner: Oid) -> Result<Schema> {
    let name = Schema::temporary(session);
    if let Some(there) = engine.catalog().schema(&name) {
        return Ok(there.clone());
    }
    let made = Schema {
        oid: engine.allocate_oid().await?,
        name,
        owner,
        version: 0,
    };
    engine.commit(vec![Change::PutSchema(made.clone())]).await?;
    Ok(made)
}

/// Drops one session's temporary tables, or those of all.
///
/// # Errors
/// What the catalog reports; the tables are all there then.
pub async fn clear(engine: &Engine, session: Option<i32>) -> Result<()> {
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let wanted = session.map(Schema::temporary);
    let of_session = |s: &&Schema| wanted.as_ref().is_none_or(|name| s.name == *name);
    let schemas = catalog.schemas.iter().filter(|s| s.is_temporary());
    let schemas: Vec<&Schema> = schemas.filter(of_session).collect();
    let inside = |r: &&Relation| schemas.iter().any(|s| s.oid == r.schema);
    let tables: Vec<Relation> = catalog.relations.iter().filter(inside).cloned().collect();
    let drop = |kind, oid, version| Change::Drop { kind, oid, version };
    let mut changes: Vec<Change> = tables
        .iter()
        .map(|t| drop(ObjectKind::Relation, t.oid, t.version))
        .collect();
    changes.extend(
        schemas
            .iter()
            .map(|s| drop(ObjectKind::Schema, s.oid, s.version)),
    );
    if changes.is_empty() {
        return Ok(());
    }
    engine.commit(changes).await?;
    engine.delete_storage(&tables).await;
    Ok(())
}
