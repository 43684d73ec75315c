//! `CREATE EXTERNAL TABLE`: a name for files that others own. Only superusers make them, since they read
//! whatever the server can read; who may read the table is granted as for any other.

use std::sync::Arc;

use catalog::{Change, Column, RelationKind};

use super::create_table::columns::define;
use super::{Outcome, Run, relations};
use crate::dialect::CreateExternalTable;
use crate::dialect::refuse::clause;
use crate::engine::external::{self, FORMAT, Reading};
use crate::error::Result;
use crate::governance::privileges;
use crate::types;

const TAG: &str = "CREATE EXTERNAL TABLE";

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &CreateExternalTable) -> Result<Outcome> {
    let scope = &run.scope;
    privileges::check_superuser(
        &scope.catalog,
        &scope.caller.role,
        "create an external table",
    )?;
    let place = relations::place(scope, &s.name)?;
    if place.occupant(&scope.catalog).is_some() {
        return match s.if_not_exists {
            true => Outcome::command(TAG),
            false => Err(place.taken()),
        };
    }
    let reading = Reading::parse(&s.format, &s.options)?;
    let location = external::parse_location(&s.location)?;
    let columns = match s.columns.is_empty() {
        false => declared(s, &place.name)?,
        true => found(&*external::inspect(&scope.state()?, reading, &location).await?),
    };
    relations::check_names(&columns)?;
    relations::check_reserved(&columns)?;
    let mut relation = place.relation(RelationKind::ExternalTable, columns);
    relation.options.clone_from(&s.options);
    relation.options.insert(FORMAT.to_owned(), s.format.clone());
    relation.location = Some(location.to_string());

    let (engine, if_not_exists) = (Arc::clone(&scope.engine), s.if_not_exists);
    relations::to_its_end("create external table", async move {
        let _ddl = engine.ddl().await;
        if place.occupant(&engine.catalog()).is_some() {
            return match if_not_exists {
                true => Ok(()),
                false => Err(place.taken()),
            };
        }
        relation.oid = engine.allocate_oid().await?;
        let change = Change::PutRelation(relation);
        engine.commit(vec![change]).await.map(drop)
    })
    .await?;
    relations::done(run, TAG)
}

fn declared(s: &CreateExternalTable, table: &str) -> Result<Vec<Column>> {
    let defined = define(&s.columns, &s.constraints, table)?;
    let unchecked = "leave it out: the files of an external table are not checked";
    let mut columns = defined.columns;
    clause(!defined.checks.is_empty(), "CHECK", unchecked)?;
    for column in &mut columns {
        clause(column.default.is_some(), "DEFAULT", unchecked)?;
        clause(column.generated.is_some(), "GENERATED", unchecked)?;
        clause(!column.nullable, "NOT NULL", unchecked)?;
    }
    Ok(columns)
}

fn found(schema: &arrow::datatypes::Schema) -> Vec<Column> {
    let fields = schema.fields().iter();
    fields
        .map(|field| Column::plain(field.name(), types::sql_type(field)))
        .collect()
}
