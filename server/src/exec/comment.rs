//! `COMMENT ON TABLE | VIEW | MATERIALIZED VIEW | COLUMN name IS 'text' | NULL`: for its owner.

use catalog::{Change, Relation, RelationKind, Snapshot};
use datafusion::sql::sqlparser::ast::{CommentObject, ObjectName};

use super::{Outcome, Run};
use crate::dialect::words::parts;
use crate::error::{Error, Result, SqlState};
use crate::governance::privileges;

/// Sets or (with `NULL` or an empty text) takes away a comment.
pub(super) async fn execute(
    run: &Run,
    object_type: &CommentObject,
    object_name: &ObjectName,
    comment: Option<&str>,
    if_exists: bool,
) -> Result<Outcome> {
    let mut names = parts(object_name);
    let column = match object_type {
        CommentObject::Column => names.pop(),
        CommentObject::Table | CommentObject::View | CommentObject::MaterializedView => None,
        other => {
            return Err(Error::unsupported(
                format!("COMMENT ON {other} is not supported"),
                "tables, views, materialized views and their columns have comments",
            ));
        }
    };
    if names.is_empty() {
        return Err(
            Error::refused(SqlState::SYNTAX_ERROR, "column name must be qualified")
                .with_hint("write COMMENT ON COLUMN table.column IS '…'"),
        );
    }
    let engine = &run.scope.engine;
    let _ddl = engine.ddl().await;
    let catalog = engine.catalog();
    let mut relation = match find(run, &catalog, &names) {
        Ok(relation) => relation.clone(),
        Err(e) if if_exists && e.state() == SqlState::UNDEFINED_TABLE => {
            return Outcome::command("COMMENT");
        }
        Err(e) => return Err(e),
    };
    check_kind(object_type, &relation)?;
    privileges::check_owner(&catalog, &run.scope.caller.role, &relation)?;
    let comment = comment.filter(|text| !text.is_empty()).map(str::to_owned);
    match column {
        None => relation.comment = comment,
        Some(name) => {
            let missing = Error::refused(
                SqlState::UNDEFINED_COLUMN,
                format!(
                    "column \"{name}\" of relation \"{}\" does not exist",
                    relation.name
                ),
            );
            let column = relation.columns.iter_mut().find(|c| c.name == name);
            column.ok_or(missing)?.comment = comment;
        }
    }
    run.scope.touch(relation.oid);
    engine.commit(vec![Change::PutRelation(relation)]).await?;
    run.session()?.with_transaction(|t| t.note_write("COMMENT"));
    Outcome::command("COMMENT")
}

fn find<'a>(run: &Run, catalog: &'a Snapshot, names: &[String]) -> Result<&'a Relation> {
    let (schema, name) = run.scope.split_name(names)?;
    catalog
        .relation(&schema, &name)
        .ok_or_else(|| Error::undefined_table(&names.join(".")))
}

fn check_kind(object_type: &CommentObject, relation: &Relation) -> Result<()> {
    let (fits, what) = match object_type {
        CommentObject::View => (relation.kind == RelationKind::View, "view"),
        CommentObject::MaterializedView => (
            relation.kind == RelationKind::MaterializedView,
            "materialized view",
        ),
        CommentObject::Table => {
            let table = matches!(
                relation.kind,
                RelationKind::Table | RelationKind::StreamingTable | RelationKind::ExternalTable
            );
            (table, "table")
        }
        _ => (true, "relation"),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {what}", relation.name),
        )),
    }
}
