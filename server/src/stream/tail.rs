//! Batches on their way into a tail: the visible columns checked, `_lsn` put in front, small ones
//! merged, memory they do not need let go.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, Int64Array, MutableArrayData, StringArray, make_array,
    new_null_array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::head::{Lsn, TailBatch};
use crate::error::{Error, Result, SqlState};
use crate::types::{DEFAULT_KEY, GENERATED_KEY, LSN, MISSING_KEY};

/// Batches are merged up to this many rows and bytes; larger ones stay as they came. The log's thread
/// copies them while the next group waits.
const MERGE_ROWS: usize = 2 * 1024;
const MERGE_BYTES: usize = 1024 * 1024;

/// The stored schema of a streaming table: `_lsn`, then the visible columns.
pub fn stored_schema(visible: &Schema) -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new(LSN, DataType::Int64, false))];
    fields.extend(visible.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

/// The visible schema of a stored one.
pub(super) fn visible_schema(stored: &SchemaRef) -> SchemaRef {
    match stored.fields().first() {
        Some(first) if first.name() == LSN => Arc::new(Schema::new(
            stored.fields().iter().skip(1).cloned().collect::<Vec<_>>(),
        )),
        _ => Arc::clone(stored),
    }
}

/// The batch with exactly the columns of `schema`. Columns in place are taken as they are; else
/// they are found by name, cast, and where missing filled with what rows of before the column have.
///
/// # Errors
/// `23502` for NULL in a column that takes none, `42804` for a type that cannot be cast, `40001` for a
/// missing column whose values only a statement that knows it can make.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast(column, field.data_type()).map_err(|_| {
                Error::refused(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "column \"{}\" is of type {} but the rows have {}",
                        field.name(),
                        crate::types::sql_type(field),
                        crate::types::sql_type_of(column.data_type()),
                    ),
                )
            })?,
            None => missing(field, batch.num_rows())?,
        };
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::refused(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" violates not-null constraint",
                    field.name()
                ),
            ));
        }
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A column that was added after the rows were made.
fn missing(field: &FieldRef, rows: usize) -> Result<ArrayRef> {
    let metadata = field.metadata();
    if let Some(text) = metadata.get(MISSING_KEY) {
        let one: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
        let one = cast(&one, field.data_type())?;
        let places = arrow::array::UInt32Array::from(vec![0; rows]);
        return Ok(arrow::compute::take(&one, &places, None)?);
    }
    let made = metadata.contains_key(DEFAULT_KEY) || metadata.contains_key(GENERATED_KEY);
    match made || !field.is_nullable() {
        true => Err(altered(field.name())),
        false => Ok(new_null_array(field.data_type(), rows)),
    }
}

/// The refusal of rows that were made before a column was added and cannot be completed here.
fn altered(column: &str) -> Error {
    Error::refused(
        SqlState::SERIALIZATION_FAILURE,
        format!("column \"{column}\" was added by another statement meanwhile"),
    )
    .with_hint("send the rows again")
}

/// Rows with their positions `lo, lo + 1, …` in the stored schema.
pub(super) fn with_lsn(batch: &RecordBatch, lo: Lsn, stored: &SchemaRef) -> Result<TailBatch> {
    let rows = i64::try_from(batch.num_rows())
        .map_err(|_| Error::Internal("batch too long".to_owned()))?;
    let positions: Int64Array = (lo.0..lo.0 + rows).collect::<Vec<_>>().into();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns() + 1);
    columns.push(Arc::new(positions));
    columns.extend(batch.columns().iter().cloned());
    let unchanged = stored
        .fields()
        .iter()
        .skip(1)
        .eq(batch.schema_ref().fields().iter());
    let batch = if unchanged {
        RecordBatch::try_new(Arc::clone(stored), columns)?
    } else {
        // altered since the rows were accepted
        let with_positions = RecordBatch::try_new(stored_schema(batch.schema_ref()), columns)?;
        conform(&with_positions, stored)?
    };
    Ok(TailBatch {
        lo,
        hi: Lsn(lo.0 + rows - 1),
        batch,
    })
}

/// Adds a batch and merges the newest ones while they are small, sizes falling from old to new,
/// so single-row inserts cost a logarithm each. Batches at or below `barrier` are being flushed
/// and stay apart.
pub(super) fn push(tail: &mut Vec<Arc<TailBatch>>, batch: TailBatch, barrier: Lsn) -> Result<()> {
    tail.push(Arc::new(batch));
    while let [.., older, newer] = tail.as_slice() {
        let small = older.batch.num_rows() < 2 * newer.batch.num_rows()
            && older.batch.num_rows() + newer.batch.num_rows() <= MERGE_ROWS
            && slice_bytes(&older.batch) + slice_bytes(&newer.batch) <= MERGE_BYTES;
        if !small || older.lo <= barrier || older.batch.schema_ref() != newer.batch.schema_ref() {
            break;
        }
        let merged = TailBatch {
            lo: older.lo,
            hi: newer.hi,
            batch: concat_batches(older.batch.schema_ref(), [&older.batch, &newer.batch])?,
        };
        tail.truncate(tail.len() - 2);
        tail.push(Arc::new(merged));
    }
    Ok(())
}

/// The part of a batch above a position; `None` when nothing is.
pub(super) fn above(batch: &TailBatch, position: Lsn) -> Option<TailBatch> {
    if batch.hi <= position {
        return None;
    }
    if batch.lo > position {
        return Some(batch.clone());
    }
    let positions = batch.batch.column(0).as_primitive_opt::<Int64Type>()?;
    let from = positions.values().partition_point(|lsn| *lsn <= position.0);
    let lo = positions.values().get(from).copied()?;
    Some(TailBatch {
        lo: Lsn(lo),
        hi: batch.hi,
        batch: batch.batch.slice(from, batch.batch.num_rows() - from),
    })
}

/// Bytes of the rows themselves.
pub(super) fn slice_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
        .sum()
}

/// Beyond twice its rows' bytes, what a batch may keep alive without being copied.
const SLACK: usize = 4096;

/// What rows take from the memory of tails: the allocations they keep alive, their own bytes where those
/// are shared, and a position for each.
pub(super) fn held_bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows() * size_of::<i64>();
    pinned(batch).max(slice_bytes(batch)) + rows
}

/// The batch, copied if it is a small part of larger buffers that it would keep alive.
pub(super) fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    if pinned(&batch) <= 2 * slice_bytes(&batch) + SLACK {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            let mut copy = MutableArrayData::new(vec![&data], false, data.len());
            copy.try_extend(0, 0, data.len())?;
            Ok(make_array(copy.freeze()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// Bytes of the allocations a batch keeps alive, each counted once.
fn pinned(batch: &RecordBatch) -> usize {
    let mut seen = HashSet::new();
    let columns = batch.columns().iter();
    columns
        .map(|column| pinned_bytes(&column.to_data(), &mut seen))
        .sum()
}

fn pinned_bytes(data: &ArrayData, seen: &mut HashSet<usize>) -> usize {
    let mut bytes = 0;
    let validity = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(validity) {
        if seen.insert(buffer.data_ptr().as_ptr() as usize) {
            bytes += buffer.capacity();
        }
    }
    bytes
        + data
            .child_data()
            .iter()
            .map(|child| pinned_bytes(child, seen))
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Builder, StringBuilder};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn memory_is_counted_as_it_is_held() {
        let fields = [DataType::Int64, DataType::Utf8].map(|ty| Field::new("c", ty, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let batch = |rows: i64, room: usize| {
            let mut numbers = Int64Builder::with_capacity(room);
            let mut texts = StringBuilder::with_capacity(room, room * 10);
            for n in 0..rows {
                numbers.append_value(n);
                texts.append_value("0123456789");
            }
            let columns: Vec<ArrayRef> = vec![Arc::new(numbers.finish()), Arc::new(texts.finish())];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        };
        let row = 8 + 4 + 10;
        // room that was never used counts while it is held, and is given back where it is most of it
        let half = compact(batch(10_000, 15_000)).unwrap();
        assert!(held_bytes(&half) > 15_000 * row);
        let little = compact(batch(1, 1024)).unwrap();
        assert!(held_bytes(&little) < SLACK);
        // a part of a large batch is not the whole of it
        let part = compact(batch(10_000, 10_000).slice(100, 100)).unwrap();
        assert!(held_bytes(&part) < 2 * 100 * (row + 8) + SLACK);
        assert_eq!(part, batch(200, 200).slice(100, 100));
    }
}
