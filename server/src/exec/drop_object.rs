//! `DROP TABLE | VIEW | MATERIALIZED VIEW | SCHEMA | MODEL | SECRET | ROLE`: out of the catalog in one
//! transaction, then the files. All names of a statement go, or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Change, ObjectKind, Oid, Relation, RelationKind, Snapshot, names_temporary};
use datafusion::sql::sqlparser::ast::ObjectName;

use super::{Outcome, Run, relations};
use crate::dialect::words::parts;
use crate::dialect::{DropKind, DropObject};
use crate::engine::open::ADMIN;
use crate::engine::scope::{DEFAULT_SCHEMA, Scope};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::system;

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &DropObject) -> Result<Outcome> {
    let (scope, s) = (Arc::clone(&run.scope), s.clone());
    let tag = super::command(&run.statement);
    relations::to_its_end("drop", async move {
        let engine = Arc::clone(&scope.engine);
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
        let dropped = resolve(&scope, &catalog, &s)?;
        if dropped.changes.is_empty() {
            return Ok(());
        }
        engine.commit(dropped.changes).await?;
        engine.sources.change();
        relations::delete_storage(&engine, &dropped.relations).await;
        Ok(())
    })
    .await?;
    relations::done(run, tag)
}

/// What a statement drops.
#[derive(Default)]
struct Dropped {
    changes: Vec<Change>,
    /// Those of them that may have files.
    relations: Vec<Relation>,
}

fn resolve(scope: &Scope, catalog: &Snapshot, s: &DropObject) -> Result<Dropped> {
    let mut roots = BTreeSet::new();
    let mut last = Vec::new();
    for name in &s.names {
        match s.kind {
            DropKind::Table | DropKind::View | DropKind::MaterializedView => {
                roots.extend(relation(scope, catalog, s, name)?);
            }
            DropKind::Schema => {
                if let Some((schema, change)) = schema(scope, catalog, s, name)? {
                    let inside = catalog.relations.iter().filter(|r| r.schema == schema);
                    let inside: Vec<Oid> = inside.map(|r| r.oid).collect();
                    // the catalog refuses a schema that is not empty, naming what is in it
                    if s.cascade {
                        roots.extend(inside);
                    }
                    last.push(change);
                }
            }
            DropKind::Model => last.extend(model(scope, catalog, s, name)?),
            DropKind::Secret => last.extend(secret(scope, catalog, s, name)?),
            DropKind::Role => last.extend(role(scope, catalog, s, name)?),
        }
    }
    let mut all = roots.clone();
    if s.cascade {
        all.extend(relations::readers(catalog, &roots));
    }
    let relations = readers_first(catalog, all);
    let drop = |r: &Relation| change(ObjectKind::Relation, r.oid, r.version);
    let changes = relations.iter().map(drop).chain(last).collect();
    Ok(Dropped { changes, relations })
}

fn change(kind: ObjectKind, oid: Oid, version: i64) -> Change {
    Change::Drop { kind, oid, version }
}

/// Orders relations so that each goes before what it reads.
fn readers_first(catalog: &Snapshot, mut oids: BTreeSet<Oid>) -> Vec<Relation> {
    let mut ordered = Vec::with_capacity(oids.len());
    while !oids.is_empty() {
        let all: Vec<&Relation> = oids
            .iter()
            .filter_map(|o| catalog.relation_by_oid(*o))
            .collect();
        let read: BTreeSet<Oid> = all
            .iter()
            .flat_map(|r| r.depends_on.iter().copied())
            .collect();
        let free: Vec<&Relation> = all
            .iter()
            .copied()
            .filter(|r| !read.contains(&r.oid))
            .collect();
        // no view reads itself, so there is always one; if not, the catalog says so
        let next = if free.is_empty() { all } else { free };
        oids.retain(|oid| {
            next.iter().all(|r| r.oid != *oid) && catalog.relation_by_oid(*oid).is_some()
        });
        ordered.extend(next.into_iter().cloned());
    }
    ordered
}

fn missing(s: &DropObject, state: SqlState, kind: &str, name: &str) -> Result<()> {
    match s.if_exists {
        true => Ok(()),
        false => Err(Error::refused(
            state,
            format!("{kind} \"{name}\" does not exist"),
        )),
    }
}

fn relation(
    scope: &Scope,
    catalog: &Snapshot,
    s: &DropObject,
    name: &ObjectName,
) -> Result<Option<Oid>> {
    let written = parts(name);
    let (schema, bare) = scope.split_name(&written)?;
    if system::SCHEMAS.contains(&schema.as_str()) {
        return Err(Error::denied("schema", &schema).with_detail("system tables cannot be dropped"));
    }
    let (kind, wanted) = match s.kind {
        DropKind::View => ("view", "a view"),
        DropKind::MaterializedView => ("materialized view", "a materialized view"),
        _ => ("table", "a table"),
    };
    let Some(found) = catalog.relation(&schema, &bare) else {
        if !s.if_exists && catalog.schema(&schema).is_none() {
            return Err(relations::no_schema(&schema));
        }
        return missing(s, SqlState::UNDEFINED_TABLE, kind, &written.join(".")).map(|()| None);
    };
    let fits = match found.kind {
        RelationKind::Table | RelationKind::StreamingTable | RelationKind::ExternalTable => {
            s.kind == DropKind::Table
        }
        RelationKind::View => s.kind == DropKind::View,
        RelationKind::MaterializedView => s.kind == DropKind::MaterializedView,
    };
    if !fits {
        let right = match found.kind {
            RelationKind::Table | RelationKind::StreamingTable | RelationKind::ExternalTable => {
                "TABLE"
            }
            RelationKind::View => "VIEW",
            RelationKind::MaterializedView => "MATERIALIZED VIEW",
        };
        return Err(relations::wrong_kind(found, wanted).with_hint(format!("use DROP {right}")));
    }
    privileges::check_owner(catalog, &scope.caller.role, found)?;
    scope.touch(found.oid);
    Ok(Some(found.oid))
}

fn single(name: &ObjectName, kind: &str) -> Result<String> {
    match parts(name).as_slice() {
        [name] => Ok(name.clone()),
        more => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            format!("improper {kind} name \"{}\"", more.join(".")),
        )),
    }
}

fn check_owner(
    scope: &Scope,
    catalog: &Snapshot,
    owner: Oid,
    kind: &str,
    name: &str,
) -> Result<()> {
    match privileges::owns(catalog, &scope.caller.role, owner) {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of {kind} \"{name}\""),
        )),
    }
}

fn schema(
    scope: &Scope,
    catalog: &Snapshot,
    s: &DropObject,
    name: &ObjectName,
) -> Result<Option<(Oid, Change)>> {
    let name = single(name, "schema")?;
    if system::SCHEMAS.contains(&name.as_str()) || name == DEFAULT_SCHEMA || names_temporary(&name)
    {
        return Err(Error::refused(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("cannot drop schema \"{name}\": it is part of the database"),
        ));
    }
    let Some(found) = catalog.schema(&name) else {
        return missing(s, SqlState::INVALID_SCHEMA_NAME, "schema", &name).map(|()| None);
    };
    check_owner(scope, catalog, found.owner, "schema", &name)?;
    Ok(Some((
        found.oid,
        change(ObjectKind::Schema, found.oid, found.version),
    )))
}

fn model(
    scope: &Scope,
    catalog: &Snapshot,
    s: &DropObject,
    name: &ObjectName,
) -> Result<Option<Change>> {
    let name = single(name, "model")?;
    let Some(found) = catalog.model(&name) else {
        return missing(s, SqlState::UNDEFINED_OBJECT, "model", &name).map(|()| None);
    };
    check_owner(scope, catalog, found.owner, "model", &name)?;
    Ok(Some(change(ObjectKind::Model, found.oid, found.version)))
}

fn secret(
    scope: &Scope,
    catalog: &Snapshot,
    s: &DropObject,
    name: &ObjectName,
) -> Result<Option<Change>> {
    let name = single(name, "secret")?;
    let Some(found) = catalog.secret(&name) else {
        return missing(s, SqlState::UNDEFINED_OBJECT, "secret", &name).map(|()| None);
    };
    check_owner(scope, catalog, found.owner, "secret", &name)?;
    Ok(Some(change(ObjectKind::Secret, found.oid, found.version)))
}

/// A role that owns something is refused by the catalog, naming what.
fn role(
    scope: &Scope,
    catalog: &Snapshot,
    s: &DropObject,
    name: &ObjectName,
) -> Result<Option<Change>> {
    let name = single(name, "role")?;
    privileges::check_superuser(catalog, &scope.caller.role, "drop a role")?;
    if s.cascade {
        return Err(Error::unsupported(
            "DROP ROLE … CASCADE is not supported",
            "drop what the role owns, or give it to another role with ALTER TABLE … OWNER TO",
        ));
    }
    if name == ADMIN {
        return Err(Error::refused(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop role \"{name}\" because it is required by the database system"),
        ));
    }
    let Some(found) = catalog.role(&name) else {
        return missing(s, SqlState::UNDEFINED_OBJECT, "role", &name).map(|()| None);
    };
    if name == scope.caller.role || name == scope.caller.session_role {
        return Err(Error::refused(
            SqlState::OBJECT_IN_USE,
            "current user cannot be dropped",
        ));
    }
    Ok(Some(change(ObjectKind::Role, found.oid, found.version)))
}
