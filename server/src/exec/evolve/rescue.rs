//! `schema_evolution = 'rescue'`: what has no column, and values that are not of their column's type, go
//! to `_rescued` as JSON under their keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, UInt32Array};
use arrow::compute::{nullif, take};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Column, Relation};

use super::{Bad, Prepared, column, fit, members, misfits, no_objects, rescued};
use crate::error::Result;
use crate::types::{self, RESCUED};

/// Rows in the table's columns; those are bad whose values are for a column that cannot be NULL instead.
pub(super) fn rows(batch: &RecordBatch, table: &Relation, zone: &str) -> Result<Prepared> {
    let rows = batch.num_rows();
    let mut bad = Bad::new();
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
            false => fitted(given, known, zone, &mut objects, &mut bad)?,
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
        for (row, (object, more)) in objects.iter_mut().zip(given).enumerate() {
            let Some(more) = more.as_deref().map(str::trim) else {
                continue;
            };
            match more.strip_prefix('{').and_then(|m| m.strip_suffix('}')) {
                Some(inside) => join(object, inside.trim()),
                None => {
                    bad.entry(row).or_insert_with(|| no_objects().report());
                }
            }
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
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
    Prepared::without(&batch, bad)
}

fn join(object: &mut String, more: &str) {
    if !object.is_empty() && !more.is_empty() {
        object.push(',');
    }
    object.push_str(more);
}

/// The values that fit; the others go to their rows' objects, or make these bad.
fn fitted(
    given: &ArrayRef,
    column: &Column,
    zone: &str,
    objects: &mut [String],
    bad: &mut Bad,
) -> Result<ArrayRef> {
    let whole = match fit(given, column, zone) {
        Ok(whole) => return Ok(whole),
        Err(e) => e,
    };
    let misfits = misfits(given, column, zone);
    let mut gone = vec![false; given.len()];
    misfits.iter().for_each(|(row, _)| gone[*row] = true);
    let kept = nullif(given, &BooleanArray::from(gone))?;
    let kept = fit(&kept, column, zone).map_err(|_| whole)?;
    // NULL cannot stand for it
    if !column.nullable {
        for (row, e) in misfits {
            bad.entry(row).or_insert_with(|| e.report());
        }
        return Ok(kept);
    }
    let rows = misfits
        .iter()
        .filter_map(|(row, _)| u32::try_from(*row).ok());
    let rows = UInt32Array::from_iter_values(rows);
    let values = take(given, &rows, None)?;
    let field = Field::new(&column.name, values.data_type().clone(), true);
    let texts = members(vec![field], vec![values], rows.len())?;
    for (row, text) in rows.values().iter().zip(texts) {
        if let Some(object) = objects.get_mut(*row as usize) {
            join(object, &text);
        }
    }
    Ok(kept)
}
