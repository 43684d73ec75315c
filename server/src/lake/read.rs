//! Reading some columns of a data file, without a plan.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};

use super::{LakeFile, LakeSnapshot};
use crate::error::{Error, Result};

/// Rows of a batch.
const BATCH_ROWS: usize = 32 * 1024;

/// The named columns of a file, in that order and in the table's types. A column that the file does
/// not have is NULL. Decodes on the thread that polls it: call it inside [`super::Compute::run`].
pub async fn read_columns(
    lake: &LakeSnapshot,
    file: &LakeFile,
    names: &[&str],
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let path =
        Path::parse(&file.path).map_err(|e| Error::Delta(object_store::Error::from(e).into()))?;
    let reader = Reader {
        store: lake.table.object_store(),
        path,
        size: file.size,
    };
    let builder = ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(parquet_error)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let rows = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(parquet_error)?;
    let shape = Shape::new(lake, file, names)?;
    Ok(rows
        .map(move |batch| shape.apply(&batch.map_err(parquet_error)?))
        .boxed())
}

/// What a batch of a file becomes.
struct Shape {
    schema: SchemaRef,
    /// Values that are in the table's log instead of the file.
    partition: Vec<Option<ScalarValue>>,
}

impl Shape {
    fn new(lake: &LakeSnapshot, file: &LakeFile, names: &[&str]) -> Result<Self> {
        let mut fields = Vec::with_capacity(names.len());
        let mut partition = Vec::with_capacity(names.len());
        for name in names {
            let field = lake.schema.field_with_name(name)?;
            fields.push(field.clone().with_nullable(true));
            let at = lake.partition_by.iter().position(|p| p == name);
            partition.push(at.and_then(|at| file.partition_values.get(at)).cloned());
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            partition,
        })
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let columns = self
            .schema
            .fields()
            .iter()
            .zip(&self.partition)
            .map(|(field, constant)| {
                let column: ArrayRef = match (constant, batch.column_by_name(field.name())) {
                    (Some(value), _) => value.to_array_of_size(rows)?,
                    (None, Some(column)) => Arc::clone(column),
                    (None, None) => new_null_array(field.data_type(), rows),
                };
                match column.data_type() == field.data_type() {
                    true => Ok(column),
                    false => Ok(cast(&column, field.data_type())?),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// A file of a table's store.
struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let bytes = self.store.get_range(&self.path, range);
        bytes.map_err(store_error).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let bytes = self.store.get_ranges(&self.path, &ranges);
            bytes.await.map_err(store_error)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .load_and_finish(self, size)
                .await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

fn parquet_error(e: ParquetError) -> Error {
    Error::Delta(e.into())
}

fn store_error(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}
