//! `ALTER TABLE t RENAME TO n`: views over the relation read it under its new name. Their queries are
//! kept as text, so the text is edited, and planned before anything is changed: a view that would give
//! other columns, or whose state depends on how its source is called, holds the old name.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use catalog::{Change, Oid, Privilege, Relation, Snapshot, Strategy};
use datafusion::sql::sqlparser::ast::ObjectName;

use super::super::relations;
use super::{own, quoted};
use crate::dialect::words::parts;
use crate::dialect::{parse_query, rename_relations};
use crate::engine::scope::{Scope, bound};
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

pub(super) async fn execute(scope: &Arc<Scope>, oid: Oid, name: &ObjectName) -> Result<()> {
    let [name] = parts(name).try_into().map_err(|_| {
        Error::refused(
            SqlState::SYNTAX_ERROR,
            "the new name of a table has no schema",
        )
    })?;
    let engine = &scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let old = own(scope, &catalog, oid)?;
    privileges::check_schema(&catalog, &scope.caller.role, old.schema, Privilege::Create)?;
    let mut of_schema = catalog.relations.iter().filter(|r| r.schema == old.schema);
    if of_schema.any(|r| r.name == name) {
        return Err(Error::refused(
            SqlState::DUPLICATE_TABLE,
            format!("relation \"{name}\" already exists"),
        ));
    }
    let renamed = Relation {
        name,
        ..old.clone()
    };
    let mut all = readers(scope, &catalog, old, &renamed).await?;
    all.insert(0, renamed);
    let changes = all.into_iter().map(Change::PutRelation).collect();
    engine.commit(changes).await.map(drop)
}

/// The views over a relation with its new name in their queries.
async fn readers(
    scope: &Arc<Scope>,
    catalog: &Arc<Snapshot>,
    old: &Relation,
    new: &Relation,
) -> Result<Vec<Relation>> {
    let mut before = scope.copied();
    before.catalog = Arc::clone(catalog);
    let reading: Vec<&Relation> = catalog
        .relations
        .iter()
        .filter(|r| r.depends_on.contains(&old.oid))
        .collect();
    // through other views too: their queries stand in the plans that states are made by
    let all = relations::readers(catalog, &BTreeSet::from([old.oid]));
    let mut all = all.iter().filter_map(|oid| catalog.relation_by_oid(*oid));
    let by_names = |r: &&Relation| {
        let materialized = r.materialized.as_ref();
        materialized.is_some_and(|m| m.strategy != Strategy::Full)
    };
    if let Some(reader) = all.find(by_names) {
        return Err(held(old, reader));
    }
    let mut changed = Vec::new();
    for reader in &reading {
        let inside = before.of_view(reader)?;
        let text = reader.query.as_deref().unwrap_or_default();
        let query = rename_relations(text, [&old.name, &new.name], &mut |name| {
            let (schema, bare) = inside.split_name(&parts(name)).ok()?;
            let found = inside.catalog.relation(&schema, &bare)?;
            (found.oid == old.oid).then(|| quoted(&new.name))
        });
        let Ok(Some(query)) = query else {
            return Err(held(old, reader));
        };
        changed.push(Relation {
            query: Some(query),
            ..(*reader).clone()
        });
    }
    if changed.is_empty() {
        return Ok(changed);
    }
    let mut after = scope.copied();
    after.catalog = Arc::new(with(catalog, new, &changed));
    for (reader, changed) in reading.iter().zip(&changed) {
        let same = matches!(
            (columns(&before, reader).await, columns(&after, changed).await),
            (Ok(before), Ok(after)) if before == after
        );
        if !same {
            return Err(held(old, reader));
        }
    }
    Ok(changed)
}

/// The catalog as it will be.
fn with(catalog: &Snapshot, renamed: &Relation, readers: &[Relation]) -> Snapshot {
    let mut after = catalog.clone();
    for relation in &mut after.relations {
        let mut changed = std::iter::once(renamed).chain(readers);
        if let Some(changed) = changed.find(|c| c.oid == relation.oid) {
            relation.clone_from(changed);
        }
    }
    after
}

/// What a view's query gives.
async fn columns(scope: &Scope, view: &Relation) -> Result<Schema> {
    let query = bound(parse_query(view.query.as_deref().unwrap_or_default())?)?;
    let (_, plan) = Arc::new(scope.of_view(view)?).plan(&query).await?;
    Ok(plan.schema().as_arrow().clone())
}

fn held(relation: &Relation, reader: &Relation) -> Error {
    Error::refused(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "cannot rename \"{}\" because \"{}\" reads it",
            relation.name, reader.name
        ),
    )
    .with_hint("drop the views over it first and create them again after")
}
