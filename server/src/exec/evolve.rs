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
//! rows are checked. The rights are those of INSERT: the table's owner has chosen the option. Rows for which
//! there is no place even so are bad ones, each by itself.
//!
//! | module | owns |
//! |---|---|
//! | `add`, `rescue` | the two options |
//! | `needs`, `infer` | what values need of columns |
//! | `sift` | which rows a table cannot get columns for |
//! | `part`, `place` | values without a column, and into the one they have got |

mod add;
mod infer;
mod needs;
mod part;
mod place;
mod rescue;
mod sift;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Column, Relation, RelationKind};

use super::write::{Intake, to_column};
use crate::decode::BadRows;
use crate::engine::scope::Scope;
use crate::error::{Error, Report, Result, SqlState};
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

/// What is wrong with rows, by their places in a batch.
pub(super) type Bad = BTreeMap<usize, Report>;

/// Rows in columns that their table has.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The rows that have a place.
    pub(super) batch: RecordBatch,
    /// Which of the given rows these are; all of them when there is nothing to say.
    rows: Option<Vec<usize>>,
    /// The given rows that are left out.
    pub(super) bad: Bad,
}

impl Prepared {
    /// Rows as they are.
    pub(super) fn whole(batch: RecordBatch) -> Self {
        Self {
            batch,
            rows: None,
            bad: Bad::new(),
        }
    }

    /// A batch without its bad rows.
    fn without(batch: &RecordBatch, bad: Bad) -> Result<Self> {
        if bad.is_empty() {
            return Ok(Self::whole(batch.clone()));
        }
        let all = 0..batch.num_rows();
        let keep: Vec<bool> = all.clone().map(|row| !bad.contains_key(&row)).collect();
        let rows = all.filter(|row| keep[*row]).collect();
        Ok(Self {
            batch: filter_record_batch(batch, &BooleanArray::from(keep))?,
            rows: Some(rows),
            bad,
        })
    }

    /// The given row that a row is.
    pub(super) fn given(&self, row: usize) -> usize {
        let rows = self.rows.as_ref();
        rows.and_then(|rows| rows.get(row)).copied().unwrap_or(row)
    }
}

/// Rows in columns that the table has, and the scope that knows these columns. Bad rows are left out.
///
/// # Errors
/// What is wrong with the first bad row, when those are refused; what is no row's fault.
pub(super) async fn prepare(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
    bad_rows: BadRows,
) -> Result<(Arc<Scope>, Vec<Prepared>)> {
    match option(table) {
        None => {
            let whole = batches.into_iter().map(Prepared::whole);
            Ok((Arc::clone(scope), whole.collect()))
        }
        Some(Evolution::Add) => add::prepare(scope, table, batches, bad_rows).await,
        Some(Evolution::Rescue) => {
            let (_, kept) = trial(scope, table, batches)?;
            if bad_rows == BadRows::Refuse {
                first(kept.iter().map(|prepared| &prepared.bad))?;
            }
            Ok((Arc::clone(scope), kept))
        }
    }
}

/// As [`prepare`] for rows that are all good, as the table stores them.
///
/// # Errors
/// What is wrong with the first bad row, also by the table's constraints.
pub(super) async fn accept(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let (scope, prepared) = prepare(scope, table, batches, BadRows::Refuse).await?;
    let Some(table) = scope.catalog.relation_by_oid(table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    let intake = Intake::new(&scope, table)?;
    prepared.iter().map(|p| intake.apply(&p.batch)).collect()
}

/// What [`prepare`] would make of the table and of rows of which the bad ones are left out; nothing
/// changes.
///
/// # Errors
/// What is no row's fault.
pub(super) fn trial(
    scope: &Arc<Scope>,
    table: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<(Relation, Vec<Prepared>)> {
    match option(table) {
        None => {
            let whole = batches.into_iter().map(Prepared::whole);
            Ok((table.clone(), whole.collect()))
        }
        Some(Evolution::Add) => add::trial(scope, table, batches),
        Some(Evolution::Rescue) => {
            let zone = &scope.caller.time_zone;
            let kept = batches.iter().map(|b| rescue::rows(b, table, zone));
            Ok((table.clone(), kept.collect::<Result<_>>()?))
        }
    }
}

/// Fails with the first bad row, if there is one.
fn first<'a>(bad: impl IntoIterator<Item = &'a Bad>) -> Result<()> {
    match bad.into_iter().find_map(|bad| bad.values().next()) {
        None => Ok(()),
        Some(why) => Err(Error::Refused(Box::new(why.clone()))),
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

/// The rows whose values a column does not take, ascending, and what is wrong with them. They are found by
/// halving.
fn misfits(given: &ArrayRef, column: &Column, zone: &str) -> Vec<(usize, Error)> {
    let mut found = Vec::new();
    let mut open = vec![(0, given.len())];
    while let Some((first, rows)) = open.pop() {
        let Err(e) = fit(&given.slice(first, rows), column, zone) else {
            continue;
        };
        if rows <= 1 {
            found.push((first, e));
            continue;
        }
        let half = rows / 2;
        open.push((first + half, rows - half));
        open.push((first, half));
    }
    found
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
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Ok(Some(texts.iter().map(|t| t.map(Cow::Borrowed)).collect()));
    }
    let texts = arrow::compute::cast(column, &DataType::Utf8).map_err(|_| no_objects())?;
    let texts = texts.as_string_opt::<i32>().ok_or_else(no_objects)?;
    let owned = texts.iter().map(|t| t.map(|t| Cow::Owned(t.to_owned())));
    Ok(Some(owned.collect()))
}

fn no_objects() -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("column \"{RESCUED}\" takes JSON objects as text"),
    )
}
