//! Real Delta tables in a temporary directory, for tests of everything that reads heads.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::Oid;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::protocol::SaveMode;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, TableHead, TailBatch, Upkeep};
use crate::types::LSN;

/// A Delta table that lives as long as the value.
#[derive(Debug)]
pub(crate) struct Lake {
    pub(crate) dir: TempDir,
    pub(crate) schema: SchemaRef,
    pub(crate) partition_by: Vec<String>,
    table: DeltaTable,
    flushed: Lsn,
}

impl Lake {
    /// An empty table with the stored schema.
    pub(crate) async fn create(schema: &SchemaRef, partition_by: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(dir.path()).unwrap();
        let delta: StructType = schema.as_ref().try_into_kernel().unwrap();
        let table = DeltaTable::try_from_url(url)
            .await
            .unwrap()
            .create()
            .with_columns(delta.fields().cloned())
            .with_partition_columns(partition_by.iter().copied())
            .await
            .unwrap();
        Self {
            dir,
            schema: Arc::clone(schema),
            partition_by: partition_by.iter().map(|s| (*s).to_owned()).collect(),
            table,
            flushed: Lsn::default(),
        }
    }

    /// Stores rows as one commit.
    pub(crate) async fn append(&mut self, batch: RecordBatch) {
        self.write(batch, SaveMode::Append).await;
    }

    /// Stores rows in place of all others.
    pub(crate) async fn overwrite(&mut self, batch: RecordBatch) {
        self.write(batch, SaveMode::Overwrite).await;
    }

    async fn write(&mut self, batch: RecordBatch, mode: SaveMode) {
        if batch.schema().field(0).name() == LSN && batch.num_rows() > 0 {
            self.flushed = self.flushed.max(tail_batch(batch.clone()).hi);
        }
        let write = self.table.clone().write(vec![batch]);
        self.table = write.with_save_mode(mode).await.unwrap();
    }

    /// The newest version.
    pub(crate) fn snapshot(&self) -> Arc<LakeSnapshot> {
        let state = self.table.snapshot().unwrap();
        let files: Vec<LakeFile> = state
            .log_data()
            .iter()
            .map(|view| {
                let raw = view.partition_values_map();
                let values = self.partition_by.iter().map(|name| {
                    let ty = self.schema.field_with_name(name).unwrap().data_type();
                    let raw = raw.get(name).cloned().flatten();
                    ScalarValue::Utf8(raw).cast_to(ty).unwrap()
                });
                let stats = view.stats().unwrap_or_else(|| "{}".to_owned());
                LakeFile {
                    path: view.path().into_owned(),
                    size: u64::try_from(view.size()).unwrap(),
                    modified_ms: view.modification_time(),
                    partition_values: values.collect(),
                    statistics: Arc::new(statistics(
                        &self.schema,
                        &serde_json::from_str(&stats).unwrap(),
                    )),
                }
            })
            .collect();
        Arc::new(LakeSnapshot {
            root: Url::from_directory_path(self.dir.path()).unwrap(),
            version: i64::try_from(state.version()).unwrap(),
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by.clone().into(),
            files: files.into(),
            table: self.table.clone(),
        })
    }

    /// A streaming table's head: what is stored, and a tail above it.
    pub(crate) fn head(&self, tail: Vec<RecordBatch>) -> Arc<TableHead> {
        let tail = tail.into_iter().map(tail_batch).map(Arc::new).collect();
        let visible = self.schema.fields().iter().filter(|f| f.name() != LSN);
        Arc::new(TableHead {
            oid: Oid(16384),
            streaming: true,
            schema: Arc::new(arrow::datatypes::Schema::new(
                visible.cloned().collect::<Vec<_>>(),
            )),
            lake: self.snapshot(),
            flushed: self.flushed,
            changes: 0,
            upkeep: Upkeep::default(),
            tail,
        })
    }
}

fn tail_batch(batch: RecordBatch) -> TailBatch {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let lsn = batch.column(0).as_primitive::<Int64Type>();
    let (lo, hi) = (lsn.value(0), lsn.value(lsn.len() - 1));
    TailBatch {
        lo: Lsn(lo),
        hi: Lsn(hi),
        batch,
    }
}

fn statistics(schema: &SchemaRef, json: &Value) -> Statistics {
    let count = |v: &Value| {
        v.as_u64().map_or(Precision::Absent, |n| {
            Precision::Exact(usize::try_from(n).unwrap())
        })
    };
    let columns = schema.fields().iter().map(|f| ColumnStatistics {
        null_count: count(&json["nullCount"][f.name()]),
        min_value: bound(&json["minValues"][f.name()], f.data_type()),
        max_value: widened(bound(&json["maxValues"][f.name()], f.data_type())),
        ..ColumnStatistics::new_unknown()
    });
    Statistics {
        num_rows: count(&json["numRecords"]),
        total_byte_size: Precision::Absent,
        column_statistics: columns.collect(),
    }
}

fn bound(json: &Value, ty: &DataType) -> Precision<ScalarValue> {
    // a log's bounds of floats leave NaN out
    if ty.is_floating() {
        return Precision::Absent;
    }
    let raw = match json {
        Value::Bool(b) => ScalarValue::Boolean(Some(*b)),
        Value::Number(n) if n.is_i64() => ScalarValue::Int64(n.as_i64()),
        Value::Number(n) => ScalarValue::Float64(n.as_f64()),
        Value::String(s) => ScalarValue::Utf8(Some(s.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => return Precision::Absent,
    };
    raw.cast_to(ty).map_or(Precision::Absent, Precision::Exact)
}

/// The log cuts timestamps to the millisecond; a bound has to lie above.
fn widened(max: Precision<ScalarValue>) -> Precision<ScalarValue> {
    match max {
        Precision::Exact(ScalarValue::TimestampMicrosecond(Some(v), zone)) => {
            Precision::Inexact(ScalarValue::TimestampMicrosecond(Some(v + 999), zone))
        }
        other => other,
    }
}
