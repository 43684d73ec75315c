//! `CREATE [OR REPLACE] VIEW`: the query's text is kept as written and planned anew at each read.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Change, Oid, Relation, RelationKind, Snapshot};
use datafusion::sql::sqlparser::ast::{self, CreateTableOptions, ViewColumnDef};

use super::relations;
use super::{Outcome, Run};
use crate::dialect::refuse::clause;
use crate::dialect::view_query_text;
use crate::dialect::words::fold;
use crate::engine::scope::bound;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

const TAG: &str = "CREATE VIEW";

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &ast::CreateView) -> Result<Outcome> {
    refuse(s)?;
    let names = s
        .columns
        .iter()
        .map(column_name)
        .collect::<Result<Vec<_>>>()?;
    let place = relations::place(&run.scope, &s.name)?;
    if let Some(there) = place.occupant(&run.scope.catalog) {
        match (s.or_replace, s.if_not_exists) {
            (true, _) => replaceable(&run.scope.catalog, &run.scope.caller.role, there)?,
            (false, true) => return Outcome::command(TAG),
            (false, false) => return Err(place.taken()),
        }
    }
    let text = view_query_text(&run.statement.text)?.to_owned();
    let query = bound((*s.query).clone())?;
    relations::no_temporary(&run.scope, &query, "view")?;
    // planned as a reader will
    let inside = Arc::new(run.scope.in_schema(&place.schema.name));
    let (_, plan) = inside.plan(&query).await?;
    relations::no_parameters(&plan, "view")?;
    let columns = relations::query_columns(&query, plan.schema(), &names)?;
    let depends_on = relations::named_relations(&inside, &query)?;
    let mut view = place.relation(RelationKind::View, columns);
    view.query = Some(text);
    view.depends_on = depends_on;

    let (scope, or_replace, if_not_exists) =
        (Arc::clone(&run.scope), s.or_replace, s.if_not_exists);
    relations::to_its_end("create view", async move {
        let engine = &scope.engine;
        let _ddl = engine.ddl().await;
        let catalog = engine.catalog();
        relations::unchanged(&scope, &catalog, &view.depends_on)?;
        let mut changes = Vec::new();
        match place.occupant(&catalog) {
            None => view.oid = engine.allocate_oid().await?,
            Some(there) if or_replace => {
                replaceable(&catalog, &scope.caller.role, there)?;
                view.oid = there.oid;
                view.owner = there.owner;
                view.version = there.version;
                view.comment.clone_from(&there.comment);
                no_cycle(&catalog, &view)?;
                // the query is newer than the view: it sees the columns of today
                let now = engine.allocate_oid().await?;
                view.columns.iter_mut().for_each(|c| c.since = Some(now));
                changes.push(Change::ClearLineage { target: view.oid });
            }
            Some(_) if if_not_exists => return Ok(()),
            Some(_) => return Err(place.taken()),
        }
        changes.push(Change::PutRelation(view.clone()));
        changes.extend(relations::lineage(
            &scope,
            &plan,
            view.oid,
            &view.columns,
            TAG,
        ));
        engine.commit(changes).await.map(drop)
    })
    .await?;
    relations::done(run, TAG)
}

fn refuse(s: &ast::CreateView) -> Result<()> {
    let ast::CreateView {
        or_alter,
        or_replace,
        materialized,
        secure,
        name: _,
        name_before_not_exists,
        columns: _,
        query: _,
        options,
        cluster_by,
        comment,
        with_no_schema_binding,
        if_not_exists,
        temporary,
        copy_grants,
        to,
        params,
    } = s;
    clause(
        *or_alter,
        "CREATE OR ALTER VIEW",
        "use CREATE OR REPLACE VIEW",
    )?;
    clause(
        *materialized,
        "this form of CREATE MATERIALIZED VIEW",
        "write CREATE MATERIALIZED VIEW v AS …",
    )?;
    clause(
        *secure,
        "SECURE",
        "leave it out: a view reads with its owner's rights",
    )?;
    clause(
        *name_before_not_exists,
        "IF NOT EXISTS after the name",
        "write it before the name",
    )?;
    clause(
        *or_replace && *if_not_exists,
        "OR REPLACE with IF NOT EXISTS",
        "use one of them",
    )?;
    clause(
        !matches!(options, CreateTableOptions::None),
        "WITH (…) of a view",
        "leave it out: a view has no options",
    )?;
    clause(!cluster_by.is_empty(), "CLUSTER BY", "leave it out")?;
    clause(
        comment.is_some(),
        "COMMENT in CREATE VIEW",
        "use COMMENT ON VIEW",
    )?;
    clause(
        *with_no_schema_binding,
        "WITH NO SCHEMA BINDING",
        "leave it out",
    )?;
    clause(
        *temporary,
        "CREATE TEMPORARY VIEW",
        "use a WITH clause, or an ordinary view",
    )?;
    clause(
        *copy_grants,
        "COPY GRANTS",
        "leave it out: OR REPLACE keeps the grants",
    )?;
    clause(to.is_some(), "TO", "leave it out")?;
    clause(
        params.is_some(),
        "ALGORITHM, DEFINER and SQL SECURITY",
        "leave them out",
    )
}

fn column_name(column: &ViewColumnDef) -> Result<String> {
    clause(
        column.data_type.is_some(),
        "a column type in a view",
        "cast in the query",
    )?;
    clause(
        column.options.is_some(),
        "a column option in a view",
        "leave it out",
    )?;
    Ok(fold(&column.name))
}

/// Refuses to replace what is no view, another's view, or a view under a materialized view, whose
/// state was made from the old query.
fn replaceable(catalog: &Snapshot, role: &str, there: &Relation) -> Result<()> {
    if there.kind != RelationKind::View {
        return Err(relations::wrong_kind(there, "a view"));
    }
    privileges::check_owner(catalog, role, there)?;
    let readers = relations::readers(catalog, &BTreeSet::from([there.oid]));
    let kept = readers
        .iter()
        .filter_map(|oid| catalog.relation_by_oid(*oid))
        .find(|r| r.kind == RelationKind::MaterializedView);
    match kept {
        None => Ok(()),
        Some(kept) => Err(Error::refused(
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            format!(
                "cannot replace view \"{}\": materialized view \"{}\" keeps its rows",
                there.name, kept.name
            ),
        )
        .with_hint(format!(
            "drop materialized view \"{}\" first and create it again after",
            kept.name
        ))),
    }
}

/// Refuses a view that would read itself.
fn no_cycle(catalog: &Snapshot, view: &Relation) -> Result<()> {
    let mut all: BTreeSet<Oid> = view.depends_on.iter().copied().collect();
    let mut open: Vec<Oid> = view.depends_on.clone();
    while let Some(oid) = open.pop() {
        let Some(relation) = catalog.relation_by_oid(oid) else {
            continue;
        };
        open.extend(
            relation
                .depends_on
                .iter()
                .copied()
                .filter(|d| all.insert(*d)),
        );
    }
    match all.contains(&view.oid) {
        false => Ok(()),
        true => Err(Error::refused(
            SqlState("42P17"),
            format!(
                "infinite recursion detected in rules for relation \"{}\"",
                view.name
            ),
        )),
    }
}
