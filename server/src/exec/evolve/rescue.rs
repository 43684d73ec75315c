//! `schema_evolution = 'rescue'`: what has no column, and values that are not of their column's type, go
//! to `_rescued` as JSON under their keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, UInt32Array};
use arrow::compute::{is_not_null, nullif, take};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Column, Relation};

use super::{column, fit, members, rescued};
use crate::error::{Error, Result, SqlState};
use crate::types::{self, RESCUED};

/// Rows in the table's columns.
pub(super) fn rows(batch: &RecordBatch, table: &Relation, zone: &str) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut objects: Vec<String> = vec![String::new(); rows];
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut strangers = (Vec::new(), Vec::new());
    for (field, given) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() == RESCUED {
            continue;
        }
        let Some(known) = column(table, field.name()) else {
            strangers.0.push(field.as_ref().clone().with_nullable(true));
            strangers.1.push(Arc::clone(given));
            continue;
        };
        // what is of the type is checked later, as is a value for a generated column
        let as_is = known.generated.is_some() || types::sql_type(field) == known.sql_type;
        let fitted = match as_is {
            true => Arc::clone(given),
            false => fitted(given, known, zone, &mut objects)?,
        };
        let ty = fitted.data_type().clone();
        fields.push(
            field
                .as_ref()
                .clone()
                .with_data_type(ty)
                .with_nullable(true),
        );
        columns.push(fitted);
    }
    if !strangers.0.is_empty() {
        let (names, values) = strangers;
        for (object, more) in objects.iter_mut().zip(members(names, values, rows)?) {
            join(object, &more);
        }
    }
    if let Some(given) = rescued(batch)? {
        for (object, more) in objects.iter_mut().zip(given) {
            let Some(more) = more.as_deref().map(str::trim) else {
                continue;
            };
            let inside = more.strip_prefix('{').and_then(|m| m.strip_suffix('}'));
            let inside = inside.ok_or_else(|| {
                Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!("column \"{RESCUED}\" takes JSON objects as text"),
                )
            })?;
            join(object, inside.trim());
        }
    }
    if objects.iter().any(|o| !o.is_empty()) {
        let texts = objects
            .into_iter()
            .map(|o| (!o.is_empty()).then(|| format!("{{{o}}}")));
        let texts: StringArray = texts.collect();
        fields.push(Field::new(RESCUED, texts.data_type().clone(), true));
        columns.push(Arc::new(texts));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        columns,
        &options,
    )?)
}

fn join(object: &mut String, more: &str) {
    if !object.is_empty() && !more.is_empty() {
        object.push(',');
    }
    object.push_str(more);
}

/// The values that fit; the others go to their rows' objects.
fn fitted(
    given: &ArrayRef,
    column: &Column,
    zone: &str,
    objects: &mut [String],
) -> Result<ArrayRef> {
    let whole = match fit(given, column, zone) {
        Ok(whole) => return Ok(whole),
        // NULL cannot stand for it
        Err(e) if !column.nullable => return Err(e),
        Err(e) => e,
    };
    let fits = |row: usize| given.is_null(row) || fit(&given.slice(row, 1), column, zone).is_ok();
    let fits: Vec<bool> = (0..given.len()).map(fits).collect();
    let misfits = BooleanArray::from_iter(fits.iter().map(|f| Some(!f)));
    let kept = fit(&nullif(given, &misfits)?, column, zone).map_err(|_| whole)?;
    let rows = fits.iter().enumerate().filter(|(_, fits)| !**fits);
    let rows = rows.filter_map(|(row, _)| u32::try_from(row).ok());
    let rows = UInt32Array::from_iter_values(rows);
    let values = take(given, &rows, None)?;
    debug_assert!(is_not_null(&values)?.true_count() == rows.len());
    let field = Field::new(&column.name, values.data_type().clone(), true);
    let texts = members(vec![field], vec![values], rows.len())?;
    for (row, text) in rows.values().iter().zip(texts) {
        if let Some(object) = objects.get_mut(*row as usize) {
            join(object, &text);
        }
    }
    Ok(kept)
}
