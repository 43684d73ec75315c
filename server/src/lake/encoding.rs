//! How the columns of a data file are encoded.
//!
//! A dictionary costs a lookup per value. It is worth that where values repeat; for numbers and
//! times, whose differences are packed into a few bits, and for values that hardly repeat, it is
//! built only to be thrown away.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use deltalake::parquet::basic::{Compression, Encoding, ZstdLevel};
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use deltalake::parquet::schema::types::ColumnPath;
use futures::{Stream, StreamExt};

use crate::error::Result;

/// Values looked at to find out whether a column's repeat.
const SAMPLE: usize = 16 * 1024;
/// So few say nothing.
const FEW: usize = 256;

/// A Bloom filter says yes to one in so many values that are not there.
const FALSE_POSITIVES: f64 = 0.01;
/// Different values that a filter has room for while it is made: the rows of a full row group. What it
/// does not need is folded away before it is written.
const MOST_DIFFERENT: usize = 1024 * 1024;

/// The first rows of a file, enough to tell how its columns are best encoded; `None` without rows.
pub(super) async fn sample<S>(batches: &mut S) -> Result<Option<RecordBatch>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let (mut first, mut rows) = (Vec::new(), 0);
    while rows < SAMPLE
        && let Some(batch) = batches.next().await.transpose()?
    {
        rows += batch.num_rows();
        first.push(batch);
    }
    Ok(match first.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        [one, ..] => Some(concat_batches(one.schema_ref(), &first)?),
    })
}

/// How files are written that begin with these rows: of some columns they keep Bloom filters, made for
/// that many rows in all if their number is known.
pub(super) fn properties(
    sample: &RecordBatch,
    bloom_filters: &[String],
    rows: Option<usize>,
) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page);
    let different = rows.unwrap_or(MOST_DIFFERENT).clamp(1, MOST_DIFFERENT);
    for name in bloom_filters {
        let path = ColumnPath::from(name.as_str());
        properties = properties
            .set_column_bloom_filter_fpp(path.clone(), FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path, different as u64);
    }
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        let path = ColumnPath::from(field.name().as_str());
        if packs(column.data_type()) {
            properties = properties
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                .set_column_dictionary_enabled(path, false);
        } else if !repeats(column) {
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    properties.build()
}

/// True for types that a file holds as whole numbers.
fn packs(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(..)
    )
}

/// False when more than half of the values looked at are different ones.
fn repeats(column: &dyn Array) -> bool {
    let sample = column.slice(0, column.len().min(SAMPLE));
    match sample.data_type() {
        DataType::Utf8 => few_different(sample.as_string::<i32>().iter().flatten()),
        DataType::Binary => few_different(sample.as_binary::<i32>().iter().flatten()),
        DataType::Float32 => {
            let values = sample.as_primitive::<Float32Type>().iter().flatten();
            few_different(values.map(f32::to_bits))
        }
        DataType::Float64 => {
            let values = sample.as_primitive::<Float64Type>().iter().flatten();
            few_different(values.map(f64::to_bits))
        }
        _ => true,
    }
}

fn few_different<T: Hash + Eq>(values: impl Iterator<Item = T>) -> bool {
    let mut all = 0;
    let different: HashSet<T> = values.inspect(|_| all += 1).collect();
    all < FEW || different.len() * 2 <= all
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn dictionary(name: &str, properties: &WriterProperties) -> bool {
        properties.dictionary_enabled(&ColumnPath::from(name))
    }

    #[test]
    fn dictionaries_are_for_values_that_repeat() {
        let rows = 10_000i64;
        let texts = |different: i64| -> ArrayRef {
            let values = (0..rows).map(|i| format!("value {}", i * 7919 % different));
            Arc::new(StringArray::from_iter_values(values))
        };
        let batch = RecordBatch::try_from_iter([
            (
                "_lsn",
                Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef,
            ),
            ("id", texts(rows)),
            ("city", texts(800)),
            ("page", texts(4_000)),
            (
                "price",
                Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64))),
            ),
        ])
        .unwrap();
        let chosen = properties(&batch, &["id".to_owned()], Some(10_000));
        for (name, expected) in [
            ("_lsn", false),
            ("id", false),
            ("city", true),
            ("page", true),
            ("price", false),
        ] {
            assert_eq!(dictionary(name, &chosen), expected, "{name}");
        }
        let packed = chosen.encoding(&ColumnPath::from("_lsn"));
        assert_eq!(packed, Some(Encoding::DELTA_BINARY_PACKED));
        let filter = |name: &str| chosen.bloom_filter_properties(&ColumnPath::from(name));
        assert_eq!(filter("id").map(|f| f.ndv()), Some(10_000));
        assert!(filter("city").is_none());
        // a handful of rows says nothing about those that follow
        let few = properties(&batch.slice(0, 100), &[], None);
        assert!(dictionary("id", &few));
    }
}
