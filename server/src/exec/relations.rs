//! What the statements over relations share: finding one of the right kind, taking a new name, doing
//! a change to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{
    Change, Column, Oid, Privilege, Relation, RelationKind, Schema, Snapshot, names_temporary,
};
use datafusion::common::DFSchema;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as PlanStatement;
use datafusion::sql::sqlparser::ast::{self, ObjectName};

use super::lineage::edges;
use super::{Outcome, Run, query};
use crate::dialect::time_travel::TableVersion;
use crate::dialect::words::parts;
use crate::engine::Engine;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;
use crate::views::Kept;
use crate::{system, tasks, types};

/// Ends a statement that has written: notes it for the transaction block and answers with the tag.
pub(super) fn done(run: &Run, command: &'static str) -> Result<Outcome> {
    note_write(run, command)?;
    Outcome::command(command)
}

/// Notes for the transaction block that a statement has written.
pub(super) fn note_write(run: &Run, command: &'static str) -> Result<()> {
    run.session()?.with_transaction(|t| t.note_write(command));
    Ok(())
}

/// What a kind is called in messages.
pub(super) fn kind_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "table",
        RelationKind::StreamingTable => "streaming table",
        RelationKind::ExternalTable => "external table",
        RelationKind::View => "view",
        RelationKind::MaterializedView => "materialized view",
    }
}

/// True for relations that hold rows of their own.
pub(super) fn is_table(relation: &Relation) -> bool {
    matches!(
        relation.kind,
        RelationKind::Table | RelationKind::StreamingTable
    )
}

/// The relation a name means.
///
/// # Errors
/// 42P01, or 3F000 when its schema is not there either.
pub(super) fn find<'a>(scope: &'a Scope, name: &ObjectName) -> Result<&'a Relation> {
    let written = parts(name);
    let (schema, bare) = scope.split_name(&written)?;
    if let Some(relation) = scope.catalog.relation(&schema, &bare) {
        return Ok(relation);
    }
    let known =
        scope.catalog.schema(&schema).is_some() || system::SCHEMAS.contains(&schema.as_str());
    match known {
        true => Err(Error::undefined_table(&written.join("."))),
        false => Err(no_schema(&schema)),
    }
}

/// The relation a name means, when it is an ordinary or streaming table.
///
/// # Errors
/// As [`find`]; 42809 for another kind.
pub(super) fn find_table<'a>(scope: &'a Scope, name: &ObjectName) -> Result<&'a Relation> {
    let relation = find(scope, name)?;
    match is_table(relation) {
        true => Ok(relation),
        false => Err(wrong_kind(relation, "a table")),
    }
}

/// 0A000 for an external table.
pub(super) fn cannot_change(relation: &Relation) -> Error {
    Error::unsupported(
        format!("external table \"{}\" cannot be changed", relation.name),
        "copy its rows into a table with CREATE TABLE … AS, or drop it and create it again",
    )
}

/// The materialized view a name means, and how it is kept.
///
/// # Errors
/// As [`find`]; 42809 for another kind.
pub(super) fn find_materialized<'a>(
    scope: &'a Scope,
    name: &ObjectName,
) -> Result<(&'a Relation, Kept)> {
    let relation = find(scope, name)?;
    match Kept::of(relation)? {
        Some(kept) => Ok((relation, kept)),
        None => Err(wrong_kind(relation, "a materialized view")),
    }
}

/// 42809: `"x" is not a table`; 0A000 for an external table, which is one that cannot be changed.
pub(super) fn wrong_kind(relation: &Relation, wanted: &str) -> Error {
    if relation.kind == RelationKind::ExternalTable && wanted.ends_with("table") {
        return cannot_change(relation);
    }
    let message = format!("\"{}\" is not {wanted}", relation.name);
    Error::refused(SqlState::WRONG_OBJECT_TYPE, message).with_hint(format!(
        "\"{}\" is {} {}",
        relation.name,
        match relation.kind {
            RelationKind::ExternalTable => "an",
            _ => "a",
        },
        kind_name(relation.kind)
    ))
}

/// 3F000.
pub(super) fn no_schema(name: &str) -> Error {
    Error::refused(
        SqlState::INVALID_SCHEMA_NAME,
        format!("schema \"{name}\" does not exist"),
    )
}

/// Where a new relation goes.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its schema.
    pub schema: Schema,
    /// Its name.
    pub name: String,
    /// Who will own it.
    pub owner: Oid,
}

/// Resolves the name of a relation to be made and checks that the caller may make it there.
///
/// # Errors
/// 3F000, 42501.
pub(super) fn place(scope: &Scope, name: &ObjectName) -> Result<Place> {
    let (schema, name) = match parts(name).as_slice() {
        // a temporary table of that name is no hindrance
        [name] => (scope.caller.schema.clone(), name.clone()),
        written => scope.split_name(written)?,
    };
    if system::SCHEMAS.contains(&schema.as_str()) {
        return Err(Error::denied("schema", &schema).with_detail("system schemas take no objects"));
    }
    if names_temporary(&schema) {
        return Err(Error::unsupported(
            format!("schema \"{schema}\" takes tables only"),
            "use CREATE TEMPORARY TABLE",
        ));
    }
    let Some(found) = scope.catalog.schema(&schema) else {
        return Err(no_schema(&schema));
    };
    privileges::check_schema(
        &scope.catalog,
        &scope.caller.role,
        found.oid,
        Privilege::Create,
    )?;
    let owner = privileges::role(&scope.catalog, &scope.caller.role)?.oid;
    Ok(Place {
        schema: found.clone(),
        name,
        owner,
    })
}

/// Where a new temporary table goes: a schema of its session, made now if it is the first one.
///
/// # Errors
/// 0A000 at a door whose sessions are too short, 42P16 for a name in another schema.
pub(super) async fn temporary_place(run: &Run, name: &ObjectName) -> Result<Place> {
    let scope = &run.scope;
    let session = run.session()?;
    if !session.keeps_temporary() {
        return Err(Error::unsupported(
            "temporary tables are not supported at this door",
            "connect by the PostgreSQL protocol, or create an ordinary table and drop it when done",
        ));
    }
    let name = match parts(name).as_slice() {
        [name] => name.clone(),
        written => {
            let (schema, name) = scope.split_name(written)?;
            if !names_temporary(&schema) {
                return Err(Error::refused(
                    SqlState::INVALID_TABLE_DEFINITION,
                    "cannot create temporary relation in non-temporary schema",
                ));
            }
            name
        }
    };
    let owner = privileges::role(&scope.catalog, &scope.caller.role)?.oid;
    let engine = Arc::clone(&scope.engine);
    // the session is told inside: it drops what there is, also when the statement ends early
    let schema = to_its_end("create temporary schema", async move {
        let _ddl = engine.ddl().await;
        session.make_temporary(owner).await
    })
    .await?;
    Ok(Place {
        schema,
        name,
        owner,
    })
}

/// Refuses (0A000) to keep a query that reads a temporary table.
pub(super) fn no_temporary(scope: &Arc<Scope>, query: &ast::Query, what: &str) -> Result<()> {
    let Some(own) = &scope.caller.temporary else {
        return Ok(());
    };
    let own = scope.catalog.schema(own).map(|s| s.oid);
    let read = named_relations(scope, query)?;
    let mut read = read
        .into_iter()
        .filter_map(|oid| scope.catalog.relation_by_oid(oid));
    match read.find(|r| Some(r.schema) == own) {
        None => Ok(()),
        Some(table) => Err(Error::unsupported(
            format!(
                "a {what} over temporary table \"{}\" is not supported",
                table.name
            ),
            "store the rows in an ordinary table",
        )),
    }
}

impl Place {
    /// What has the name in a catalog.
    pub(super) fn occupant<'a>(&self, catalog: &'a Snapshot) -> Option<&'a Relation> {
        catalog.relation(&self.schema.name, &self.name)
    }

    /// 42P07.
    pub(super) fn taken(&self) -> Error {
        let message = format!("relation \"{}\" already exists", self.name);
        Error::refused(SqlState::DUPLICATE_TABLE, message)
    }

    /// A relation of this place with nothing in it yet.
    pub(super) fn relation(&self, kind: RelationKind, columns: Vec<Column>) -> Relation {
        Relation {
            oid: Oid(0),
            schema: self.schema.oid,
            name: self.name.clone(),
            kind,
            owner: self.owner,
            columns,
            partition_by: Vec::new(),
            checks: std::collections::BTreeMap::new(),
            options: std::collections::BTreeMap::new(),
            location: None,
            query: None,
            depends_on: Vec::new(),
            materialized: None,
            comment: None,
            version: 0,
        }
    }
}

/// Runs a change of catalog and storage to its end, also when the statement is cancelled meanwhile:
/// a half-made table would be nobody's.
pub(super) async fn to_its_end<T, F>(name: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    match tasks::spawn(name, work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Internal(format!("{name} ended early: {e}"))),
    }
}

/// [`Engine::delete_storage`]; the statement has succeeded by then.
pub(super) async fn delete_storage(engine: &Engine, relations: &[Relation]) {
    engine.delete_storage(relations).await;
}

/// Relations that read one of `oids`, directly or through others; without `oids` themselves.
pub(super) fn readers(catalog: &Snapshot, oids: &BTreeSet<Oid>) -> BTreeSet<Oid> {
    let mut all = oids.clone();
    loop {
        let more: Vec<Oid> = catalog
            .relations
            .iter()
            .filter(|r| !all.contains(&r.oid) && r.depends_on.iter().any(|d| all.contains(d)))
            .map(|r| r.oid)
            .collect();
        if more.is_empty() {
            return all.difference(oids).copied().collect();
        }
        all.extend(more);
    }
}

/// Relations that a query names, in the statement's catalog. Names of CTEs are no relations; system
/// tables and table functions have no id and are left out.
pub(super) fn named_relations(scope: &Arc<Scope>, query: &ast::Query) -> Result<Vec<Oid>> {
    let statement = ast::Statement::Query(Box::new(query.clone()));
    let references = scope
        .state()?
        .resolve_table_references(&PlanStatement::Statement(Box::new(statement)))?;
    let mut found = BTreeSet::new();
    for reference in references {
        let written = reference.to_vec();
        let (schema, name) = scope.split_name(&written)?;
        let (bare, _) = TableVersion::of(&name);
        found.extend(scope.catalog.relation(&schema, bare).map(|r| r.oid));
    }
    Ok(found.into_iter().collect())
}

/// Refuses `$1` in a query that is kept.
pub(super) fn no_parameters(plan: &LogicalPlan, what: &str) -> Result<()> {
    match plan.get_parameter_names()?.into_iter().next() {
        None => Ok(()),
        Some(name) => Err(Error::refused(
            SqlState::UNDEFINED_PARAMETER,
            format!("there is no parameter {name}"),
        )
        .with_hint(format!(
            "the query of a {what} is kept and cannot have parameters"
        ))),
    }
}

/// Columns that a query gives, under `names` as far as they go.
///
/// # Errors
/// 42601 for too many names, 42701 for one twice, 42P16 for no column at all.
pub(super) fn query_columns(
    query: &ast::Query,
    schema: &DFSchema,
    names: &[String],
) -> Result<Vec<Column>> {
    let planned: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let own = query::output_names(query, &planned);
    if names.len() > own.len() {
        return Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            "more column names are given than the query has columns",
        ));
    }
    let names = names
        .iter()
        .cloned()
        .chain(own.into_iter().skip(names.len()));
    let columns: Vec<Column> = names
        .zip(schema.fields())
        .map(|(name, field)| Column::plain(name, types::sql_type(field)))
        .collect();
    check_names(&columns)?;
    Ok(columns)
}

/// Refuses no columns at all, a name twice and the name of the log position.
pub(super) fn check_names(columns: &[Column]) -> Result<()> {
    if columns.is_empty() {
        return Err(Error::refused(
            SqlState::INVALID_TABLE_DEFINITION,
            "a relation needs at least one column",
        ));
    }
    let mut seen = BTreeSet::new();
    for column in columns {
        if !seen.insert(column.name.as_str()) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", column.name),
            ));
        }
        if column.name.is_empty() {
            return Err(Error::refused(
                SqlState::INVALID_TABLE_DEFINITION,
                "a column needs a name",
            ));
        }
    }
    Ok(())
}

/// Refuses the name that the position in the log has.
pub(super) fn check_reserved(columns: &[Column]) -> Result<()> {
    match columns.iter().any(|c| c.name == types::LSN) {
        true => Err(reserved(types::LSN, "the position in the log")),
        false => Ok(()),
    }
}

/// 42P16 for the name of a column that weir keeps for itself.
pub(super) fn reserved(name: &str, what: &str) -> Error {
    let message = format!("column name \"{name}\" is reserved for {what}");
    Error::refused(SqlState::INVALID_TABLE_DEFINITION, message)
        .with_hint("give the column another name")
}

/// Refuses (40001) to keep a query over relations whose columns have changed since it was planned.
pub(super) fn unchanged(scope: &Scope, catalog: &Snapshot, read: &[Oid]) -> Result<()> {
    for oid in read {
        let planned = scope.catalog.relation_by_oid(*oid);
        let now = catalog.relation_by_oid(*oid);
        if let (Some(planned), Some(now)) = (planned, now)
            && types::schema(&planned.columns) != types::schema(&now.columns)
        {
            let message = format!("table \"{}\" was altered by another statement", now.name);
            return Err(Error::refused(SqlState::SERIALIZATION_FAILURE, message));
        }
    }
    Ok(())
}

/// The lineage of a query that fills `target`, as catalog changes. System tables have no lineage.
pub(super) fn lineage(
    scope: &Scope,
    plan: &LogicalPlan,
    target: Oid,
    columns: &[Column],
    statement: &'static str,
) -> Vec<Change> {
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let edges = edges(scope, plan, target, &names, statement);
    match edges.is_empty() {
        true => Vec::new(),
        false => vec![Change::AddLineage(edges)],
    }
}
