//! Values without a column into the columns that the table has for them by now.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Relation, SqlType};
use datafusion::common::DFSchema;
use serde_json::value::RawValue;

use super::super::write::{evaluate, physical_expr};
use super::part::Part;
use super::{column, members};
use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::types::RESCUED;

/// The batch with its strays in columns of their own.
pub(super) fn placed(scope: &Arc<Scope>, table: &Relation, part: Part) -> Result<RecordBatch> {
    let Part {
        batch, mut strays, ..
    } = part;
    let rows = batch.num_rows();
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, given) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() == RESCUED {
            continue;
        }
        let known = column(table, field.name());
        // a column of nothing but NULL that the table does not have says nothing
        if known.is_none() && given.null_count() == given.len() {
            continue;
        }
        let strays = strays.remove(field.name()).unwrap_or_default();
        let given = match known {
            Some(known) => {
                let given = in_type_of(scope, field, given, &known.sql_type)?;
                patched(given, &strays, &known.sql_type)?
            }
            None => Arc::clone(given),
        };
        let ty = given.data_type().clone();
        fields.push(Arc::new(Field::new(field.name(), ty, true)));
        columns.push(given);
    }
    for (key, values) in strays {
        // for what is no column, and for a generated one, null is nothing
        let Some(known) = column(table, &key).filter(|c| c.generated.is_none()) else {
            continue;
        };
        let nothing = arrow::array::new_null_array(&DataType::Utf8, rows);
        let given = patched(nothing, &values, &known.sql_type)?;
        fields.push(Arc::new(Field::new(&key, given.data_type().clone(), true)));
        columns.push(given);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

/// Values on their way into a column that an assignment would not take them to: nested ones into JSON,
/// numbers into text as PostgreSQL spells them.
fn in_type_of(
    scope: &Arc<Scope>,
    field: &Field,
    given: &ArrayRef,
    ty: &SqlType,
) -> Result<ArrayRef> {
    let rows = given.len();
    let nested = given.data_type().is_nested();
    match ty {
        SqlType::Json | SqlType::Jsonb if !is_text(given.data_type()) => json(field, given),
        SqlType::Text if nested => json(field, given),
        SqlType::Text if given.data_type().is_floating() => {
            let state = scope.state()?;
            let value = Arc::new(Field::new("value", given.data_type().clone(), true));
            let schema = Arc::new(Schema::new(vec![value]));
            let columns = DFSchema::try_from(schema.as_ref().clone())?;
            let text = crate::dialect::parse_expr("CAST(value AS text)")?;
            let expr = physical_expr(&state, text, &columns)?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let columns = vec![Arc::clone(given)];
            let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
            evaluate(&expr, &batch)
        }
        _ => Ok(Arc::clone(given)),
    }
}

fn is_text(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Each value as JSON text.
fn json(field: &Field, given: &ArrayRef) -> Result<ArrayRef> {
    let value =
        Field::new("v", given.data_type().clone(), true).with_metadata(field.metadata().clone());
    let members = members(vec![value], vec![Arc::clone(given)], given.len())?;
    let mut texts = StringBuilder::with_capacity(given.len(), 0);
    for (row, member) in members.iter().enumerate() {
        match given.is_null(row) {
            true => texts.append_null(),
            false => texts.append_value(member.strip_prefix("\"v\":").unwrap_or(member)),
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// The column with strays in their rows, as the texts that the column's type is read from.
fn patched(given: ArrayRef, strays: &[(usize, Box<RawValue>)], ty: &SqlType) -> Result<ArrayRef> {
    if strays.is_empty() {
        return Ok(given);
    }
    let mut by_row: HashMap<usize, &str> = HashMap::with_capacity(strays.len());
    by_row.extend(strays.iter().map(|(row, value)| (*row, value.get())));
    // doubles come back from their text as they were
    let doubles = given.data_type().is_floating() && *ty == SqlType::Float8;
    let texts = match doubles {
        true => spelled(&given)?,
        false => cast(&given, &DataType::Utf8)?,
    };
    let texts = texts.as_string::<i32>();
    let as_json = matches!(ty, SqlType::Json | SqlType::Jsonb);
    let mut all = StringBuilder::with_capacity(texts.len(), 0);
    for row in 0..texts.len() {
        match by_row.get(&row) {
            Some(&"null") => all.append_null(),
            Some(json) if as_json => all.append_value(json),
            Some(json) => all.append_value(text_of(json)?),
            None if texts.is_null(row) => all.append_null(),
            None => all.append_value(texts.value(row)),
        }
    }
    Ok(Arc::new(all.finish()))
}

fn spelled(doubles: &ArrayRef) -> Result<ArrayRef> {
    let doubles = cast(doubles, &DataType::Float64)?;
    let mut texts = StringBuilder::with_capacity(doubles.len(), 0);
    for value in doubles.as_primitive::<Float64Type>() {
        texts.append_option(value.map(|v| v.to_string()));
    }
    Ok(Arc::new(texts.finish()))
}

/// What a JSON value is as a text: what a string spells, any other value as written.
fn text_of(json: &str) -> Result<Cow<'_, str>> {
    if !json.starts_with('"') {
        return Ok(Cow::Borrowed(json));
    }
    serde_json::from_str(json)
        .map(Cow::Owned)
        .map_err(|e| Error::Internal(format!("a JSON string that is none: {e}")))
}
