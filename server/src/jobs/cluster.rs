//! The order of `ZORDER BY`: rows that are near each other in all columns at once come together.
//!
//! A sample of each column gives bounds that cut its values into equally full pieces; a row's pieces are
//! its cell, and cells are ordered by Hilbert's curve.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SortExpr,
    Volatility,
};
use futures::{Stream, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{curve, rows};
use crate::error::{Error, Result};

/// Rows a sample holds.
const SAMPLE: usize = 16 * 1024;
/// Bits of one column's piece at most.
const MOST_BITS: u32 = 10;
/// Columns that one order may have.
pub(crate) const MOST_COLUMNS: usize = 6;

/// Whether rows can be ordered by a column of that type.
pub(super) fn orders(ty: &DataType) -> bool {
    RowConverter::supports_fields(&[SortField::new(ty.clone())])
}

/// The order by several columns, from some rows that hold exactly these.
pub(super) async fn order<S>(columns: &[String], sampled: S) -> Result<Vec<SortExpr>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let by = |expr: Expr| expr.sort(true, true);
    if let [only] = columns {
        return Ok(vec![by(rows::column(only))]);
    }
    let bits = (63 / u32::try_from(columns.len()).unwrap_or(63)).clamp(1, MOST_BITS);
    let bounds = bounds(sampled, columns.len(), bits).await?;
    let key = ScalarUDF::from(CurveKey {
        signature: Signature::variadic_any(Volatility::Immutable),
        bits,
        bounds: bounds.into(),
    });
    let key = key.call(columns.iter().map(|c| rows::column(c)).collect());
    // rows of one cell in the order of the columns, so that the same rows give the same files
    let rest = columns.iter().map(|c| by(rows::column(c)));
    Ok(std::iter::once(by(key)).chain(rest).collect())
}

/// Bounds of equally full pieces, for each column.
async fn bounds<S>(mut sampled: S, columns: usize, bits: u32) -> Result<Vec<Vec<OwnedRow>>>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    let mut samples: Vec<Vec<OwnedRow>> = vec![Vec::new(); columns];
    let mut converters: Vec<RowConverter> = Vec::new();
    // always the same sample of the same rows
    let mut random = StdRng::seed_from_u64(1);
    let mut seen = 0usize;
    while let Some(batch) = sampled.next().await {
        let batch = batch?;
        if converters.is_empty() {
            converters = converters_of(&batch.schema())?;
        }
        let converted = converters
            .iter()
            .zip(batch.columns())
            .map(|(c, column)| c.convert_columns(std::slice::from_ref(column)))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            seen += 1;
            let place = match seen <= SAMPLE {
                true => seen - 1,
                false => random.random_range(0..seen),
            };
            for (sample, rows) in samples.iter_mut().zip(&converted) {
                if place == sample.len() {
                    sample.push(rows.row(row).owned());
                } else if let Some(there) = sample.get_mut(place) {
                    *there = rows.row(row).owned();
                }
            }
        }
    }
    let pieces = 1usize << bits;
    Ok(samples
        .into_iter()
        .map(|mut sample| {
            sample.sort_unstable();
            let mut bounds: Vec<OwnedRow> = (1..pieces)
                .filter_map(|piece| sample.get(piece * sample.len() / pieces).cloned())
                .collect();
            bounds.dedup();
            // nothing lies below the smallest value
            if bounds.first() == sample.first() && !bounds.is_empty() {
                bounds.remove(0);
            }
            bounds
        })
        .collect())
}

fn converters_of(schema: &SchemaRef) -> Result<Vec<RowConverter>> {
    let each = schema.fields().iter().map(|f| converter(f.data_type()));
    each.collect()
}

fn converter(ty: &DataType) -> Result<RowConverter> {
    Ok(RowConverter::new(vec![SortField::new(ty.clone())])?)
}

/// A row's place on the curve.
#[derive(Debug)]
struct CurveKey {
    signature: Signature,
    bits: u32,
    bounds: Arc<[Vec<OwnedRow>]>,
}

impl PartialEq for CurveKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bounds, &other.bounds)
    }
}

impl Eq for CurveKey {}

impl Hash for CurveKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits.hash(state);
    }
}

impl ScalarUDFImpl for CurveKey {
    fn name(&self) -> &str {
        "curve_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let cells = columns
            .iter()
            .zip(self.bounds.iter())
            .map(|(column, bounds)| pieces(column, bounds, self.bits))
            .collect::<Result<Vec<_>>>()?;
        let mut cell = vec![0u32; cells.len()];
        let keys = (0..args.number_rows).map(|row| {
            for (axis, pieces) in cell.iter_mut().zip(&cells) {
                *axis = pieces.get(row).copied().unwrap_or(0);
            }
            curve::position(&mut cell, self.bits)
        });
        let keys: UInt64Array = keys.collect();
        Ok(ColumnarValue::Array(Arc::new(keys)))
    }
}

/// Which piece each value lies in. The pieces of a column with few values are spread over the whole
/// range, so that it counts as much as the others.
fn pieces(column: &ArrayRef, bounds: &[OwnedRow], bits: u32) -> Result<Vec<u32>> {
    let converter = converter(column.data_type())?;
    let rows = converter.convert_columns(std::slice::from_ref(column))?;
    let count = bounds.len() + 1;
    rows.iter()
        .map(|row| {
            let piece = bounds.partition_point(|bound| bound.row() <= row);
            u32::try_from((piece << bits) / count)
                .map_err(|_| Error::Internal("too many pieces".to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use datafusion::prelude::SessionContext;

    /// Rows of a shuffled grid, ordered and cut into files: each file must cover a small part of both
    /// columns' values.
    #[tokio::test]
    async fn files_cover_little_of_every_column() {
        let side = 64i64;
        let cells: Vec<i64> = (0..side * side).map(|i| i * 1013 % (side * side)).collect();
        let batch = RecordBatch::try_from_iter([
            (
                "a",
                Arc::new(Int64Array::from_iter_values(cells.iter().map(|c| c / side))) as ArrayRef,
            ),
            (
                "b",
                Arc::new(StringArray::from_iter_values(
                    cells.iter().map(|c| format!("{:03}", c % side)),
                )),
            ),
        ])
        .unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let sampled = futures::stream::iter([Ok(batch.clone())]);
        let order = order(&names, Box::pin(sampled)).await.unwrap();

        let ctx = SessionContext::new();
        ctx.register_batch("t", batch).unwrap();
        let rows = ctx.table("t").await.unwrap().sort(order).unwrap();
        let batches = rows.collect().await.unwrap();
        let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        let per_file = 256;
        for file in 0..all.num_rows() / per_file {
            let part = all.slice(file * per_file, per_file);
            let a =
                arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(part.column(0));
            let b: Vec<&str> = arrow::array::AsArray::as_string::<i32>(part.column(1))
                .iter()
                .flatten()
                .collect();
            let width = a.values().iter().max().unwrap() - a.values().iter().min().unwrap();
            let low: i64 = b.iter().min().unwrap().parse().unwrap();
            let high: i64 = b.iter().max().unwrap().parse().unwrap();
            assert!(width <= side / 2, "file {file} spans {width} of a");
            assert!(
                high - low <= side / 2,
                "file {file} spans {} of b",
                high - low
            );
        }
    }

    #[tokio::test]
    async fn no_rows_give_an_order_too() {
        let names = ["a".to_owned(), "b".to_owned()];
        let none = futures::stream::iter(Vec::<Result<RecordBatch>>::new());
        assert_eq!(order(&names, none).await.unwrap().len(), 3);
    }
}
