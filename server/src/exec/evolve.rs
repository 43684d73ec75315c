//! `schema_evolution`: what becomes of keys that a streaming table does not have and of values that are
//! not of their column's type, for the doors that take rows by name.
//!
//! | option | then |
//! |---|---|
//! | unset, `'reject'` | the rows are refused (42703, 22P02, 22003) |
//! | `'add'` | new columns, wider types: [`add`] |
//! | `'rescue'` | the column `_rescued` keeps them: [`rescue`] |
//!
//! A door that decodes text puts what has no place into a column `_rescued` of JSON objects, one per
//! row ([`Evolution::of`] tells it to); Arrow data brings columns. Both come here before the
//! rows are checked. The rights are those of INSERT: the table's owner has chosen the option.

mod add;
mod infer;
mod rescue;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Column, Relation, RelationKind};

use super::write::to_column;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::types::{self, Evolution, RESCUED};

/// What a table's option says.
pub(super) fn option(table: &Relation) -> Option<Evolution> {
    let streaming = table.kind == RelationKind::StreamingTable;
    let value = table
        .options
        .get("schema_evolution")
        .filter(|_| streaming)?;
    Evolution::named(value)
}

/// The column that `'rescue'` needs.
pub(super) fn rescued_column() -> Column {
    Column {
        name: RESCUED.to_owned(),
        sql_type: catalog::SqlType::Jsonb,
        nullable: true,
        default: None,
        generated: None,
        comment: Some("keys and values that have no place in the other columns".to_owned()),
        since: None,
    }
}

/// Rows in columns that the table has, and the scope that knows these columns.
///
/// # Errors
/// What no column can be made for, and values that no wider type of their column takes.
pub(super) async fn prepare(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<(Arc<Scope>, Vec<RecordBatch>)> {
    match option(table) {
        None => Ok((Arc::clone(scope), batches)),
        Some(Evolution::Add) => add::prepare(scope, table, batches).await,
        Some(Evolution::Rescue) => {
            let zone = &scope.caller.time_zone;
            let kept = batches.iter().map(|b| rescue::rows(b, table, zone));
            Ok((Arc::clone(scope), kept.collect::<Result<_>>()?))
        }
    }
}

/// A table's column, unless weir keeps it for itself.
fn column<'a>(table: &'a Relation, name: &str) -> Option<&'a Column> {
    let own = |c: &&Column| c.name == name && c.name != RESCUED;
    table.columns.iter().find(own)
}

/// What a column makes of given values. Unlike the cast of an assignment, nothing is rounded.
fn fit(given: &ArrayRef, column: &Column, zone: &str) -> Result<ArrayRef> {
    let ty = types::arrow_type(&column.sql_type);
    if ty.is_integer() && given.data_type().is_floating() {
        let doubles = arrow::compute::cast(given, &DataType::Float64)?;
        let doubles = doubles.as_primitive::<Float64Type>();
        if doubles.iter().flatten().any(|d| d.fract() != 0.0) {
            return Err(Error::refused(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("column \"{}\" takes whole numbers only", column.name),
            ));
        }
    }
    to_column(given, &ty, column, zone)
}

/// Each row of some columns as the inside of a JSON object: `"a":1,"b":"x"`, empty where all are NULL.
fn members(fields: Vec<Field>, columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<String>> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
    let mut text = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut text);
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::Internal("JSON that is not UTF-8".to_owned()))?;
    let lines: Vec<String> = text
        .lines()
        .map(|l| l.trim().trim_start_matches('{').to_owned())
        .map(|mut l| {
            l.pop();
            l
        })
        .collect();
    match lines.len() == rows {
        true => Ok(lines),
        false => Err(Error::Internal("JSON lines are not the rows".to_owned())),
    }
}

/// The texts of a batch's column `_rescued`, if it has one.
fn rescued(batch: &RecordBatch) -> Result<Option<Vec<Option<Cow<'_, str>>>>> {
    let Some(column) = batch.column_by_name(RESCUED) else {
        return Ok(None);
    };
    let not_objects = || {
        Error::refused(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("column \"{RESCUED}\" takes JSON objects as text"),
        )
    };
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Ok(Some(texts.iter().map(|t| t.map(Cow::Borrowed)).collect()));
    }
    let texts = arrow::compute::cast(column, &DataType::Utf8).map_err(|_| not_objects())?;
    let texts = texts.as_string_opt::<i32>().ok_or_else(not_objects)?;
    let owned = texts.iter().map(|t| t.map(|t| Cow::Owned(t.to_owned())));
    Ok(Some(owned.collect()))
}
