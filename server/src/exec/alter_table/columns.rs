//! `ADD COLUMN` and `ALTER COLUMN … { SET DEFAULT | DROP DEFAULT | SET NOT NULL | DROP NOT NULL | TYPE }`,
//! any number of them in one statement. What they make of rows that are there is in `exec::reshape`.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Column, Oid, Relation, RelationKind, Snapshot, SqlType};
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, Expr, visit_expressions,
};

use super::super::create_table::{columns::Defined, columns::define, expressions};
use super::super::{relations, reshape::reshape};
use super::own;
use crate::dialect::data_type::sql_type;
use crate::dialect::refuse::clause;
use crate::dialect::words::fold;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::types;

/// True for an action that is about a column and is known here.
pub(super) fn is_one(operation: &AlterTableOperation) -> bool {
    matches!(
        operation,
        AlterTableOperation::AddColumn { .. } | AlterTableOperation::AlterColumn { .. }
    )
}

/// Runs all actions, or none.
pub(super) async fn execute(
    scope: &Arc<Scope>,
    table: Oid,
    operations: &[AlterTableOperation],
) -> Result<()> {
    let inner = Arc::clone(scope);
    let operations = operations.to_vec();
    let make = move |catalog: &Snapshot, _: &Relation| {
        let before = own(&inner, catalog, table)?;
        if !relations::is_table(before) {
            return Err(relations::wrong_kind(before, "a table"));
        }
        let mut after = before.clone();
        for operation in &operations {
            apply(catalog, &mut after, operation)?;
        }
        if after == *before {
            return Ok(None);
        }
        let defined = Defined {
            columns: after.columns.clone(),
            checks: after.checks.clone(),
        };
        expressions::check(&inner.state()?, &defined)?;
        Ok(Some(after))
    };
    reshape(scope, table, None, make).await.map(drop)
}

fn apply(catalog: &Snapshot, table: &mut Relation, operation: &AlterTableOperation) -> Result<()> {
    match operation {
        AlterTableOperation::AddColumn {
            column_keyword: _,
            if_not_exists,
            column_def,
            column_position,
        } => {
            clause(
                column_position.is_some(),
                "FIRST and AFTER",
                "leave it out: a new column is the last",
            )?;
            let name = fold(&column_def.name);
            if table.columns.iter().any(|c| c.name == name) {
                return match if_not_exists {
                    true => Ok(()),
                    false => Err(Error::refused(
                        SqlState::DUPLICATE_COLUMN,
                        format!(
                            "column \"{name}\" of relation \"{}\" already exists",
                            table.name
                        ),
                    )),
                };
            }
            let mut defined = define(std::slice::from_ref(column_def), &[], &table.name)?;
            clause(
                !defined.checks.is_empty(),
                "CHECK in ADD COLUMN",
                "leave it out, or create the table with it",
            )?;
            if table.kind == RelationKind::StreamingTable && name == types::RESCUED {
                return Err(relations::reserved(&name, "values that have no column"));
            }
            table.columns.append(&mut defined.columns);
            Ok(())
        }
        AlterTableOperation::AlterColumn { column_name, op } => {
            let name = fold(column_name);
            let Some(at) = table.columns.iter().position(|c| c.name == name) else {
                return Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{name}\" of relation \"{}\" does not exist",
                        table.name
                    ),
                ));
            };
            alter(catalog, table, at, op)
        }
        other => Err(super::refused(other)),
    }
}

fn alter(
    catalog: &Snapshot,
    table: &mut Relation,
    at: usize,
    op: &AlterColumnOperation,
) -> Result<()> {
    match op {
        AlterColumnOperation::SetNotNull => table.columns[at].nullable = false,
        AlterColumnOperation::DropNotNull => table.columns[at].nullable = true,
        AlterColumnOperation::SetDefault { value } => {
            not_generated(table, at)?;
            table.columns[at].default = Some(value.to_string());
        }
        AlterColumnOperation::DropDefault => {
            not_generated(table, at)?;
            table.columns[at].default = None;
        }
        AlterColumnOperation::SetDataType {
            data_type,
            using,
            had_set: _,
        } => {
            clause(using.is_some(), "USING", "only widening casts are done")?;
            let wanted = sql_type(data_type)?;
            if wanted != table.columns[at].sql_type {
                widenable(catalog, table, &table.columns[at], &wanted)?;
                table.columns[at].sql_type = wanted;
            }
        }
        AlterColumnOperation::AddGenerated { .. } => clause(
            true,
            "an identity column",
            "give the numbers yourself, or use uuid DEFAULT gen_random_uuid()",
        )?,
    }
    Ok(())
}

fn not_generated(table: &Relation, at: usize) -> Result<()> {
    let column = &table.columns[at];
    match column.generated {
        None => Ok(()),
        Some(_) => Err(Error::refused(
            SqlState::SYNTAX_ERROR,
            format!(
                "column \"{}\" of relation \"{}\" is a generated column",
                column.name, table.name
            ),
        )),
    }
}

/// Refuses another type of a column where it does not hold every value, or where something else is made
/// of the column.
pub(in crate::exec) fn widenable(
    catalog: &Snapshot,
    table: &Relation,
    column: &Column,
    wanted: &SqlType,
) -> Result<()> {
    let from = &column.sql_type;
    if !types::widenings(from).contains(wanted) {
        return Err(Error::unsupported(
            format!(
                "changing the type of column \"{}\" from {from} to {wanted} is not supported",
                column.name
            ),
            "smallint, integer and bigint can become wider, double precision or text; \
             real, boolean and varchar too; else cast in a view",
        ));
    }
    let used = if table.partition_by.contains(&column.name) {
        Some("as partition column".to_owned())
    } else if mentioned(table, &column.name)? {
        Some("in a generated column or check constraint".to_owned())
    } else if let Some(option) = named_by_option(table, &column.name) {
        Some(format!("in option \"{option}\""))
    } else if column.generated.is_some() {
        Some("as generated column".to_owned())
    } else {
        let readers = relations::readers(catalog, &BTreeSet::from([table.oid]));
        let reader = readers.iter().find_map(|o| catalog.relation_by_oid(*o));
        reader.map(|r| format!("by view \"{}\", which reads the table", r.name))
    };
    match used {
        None => Ok(()),
        Some(used) => Err(Error::unsupported(
            format!("cannot alter type of column \"{}\"", column.name),
            "drop what uses it first and create it again after",
        )
        .with_detail(format!("it may be used {used}"))),
    }
}

/// Options whose value is a column: `event_time`, `dedup_key` and the like.
fn named_by_option<'a>(table: &'a Relation, column: &str) -> Option<&'a str> {
    let names = |value: &str| value.split(',').any(|part| part.trim() == column);
    let mut options = table.options.iter();
    options.find_map(|(key, value)| names(value).then_some(key.as_str()))
}

/// True when an expression of the table reads the column.
fn mentioned(table: &Relation, column: &str) -> Result<bool> {
    let generated = table.columns.iter().filter_map(|c| c.generated.as_ref());
    for text in generated.chain(table.checks.values()) {
        let expr = crate::dialect::parse_expr(text)?;
        let mut found = false;
        // nothing breaks the walk
        let _ = visit_expressions(&expr, |e: &Expr| {
            let name = match e {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(names) => names.last(),
                _ => None,
            };
            found |= name.is_some_and(|n| fold(n) == column);
            std::ops::ControlFlow::<()>::Continue(())
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
