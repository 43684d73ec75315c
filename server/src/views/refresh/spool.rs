//! Rows of a run between their computation and their commit.
//!
//! They are computed whole before the state is touched, so they wait here: in memory as far as the pool
//! of views has room, on disk beyond it.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SpillFile;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use futures::stream::{self, BoxStream, StreamExt};

use crate::error::{Error, Result};

/// Batches of one schema, given back in their order.
pub(super) struct Spool {
    files: SpillManager,
    spilled: Vec<Arc<dyn SpillFile>>,
    held: Vec<RecordBatch>,
    memory: MemoryReservation,
    rows: usize,
    spilled_bytes: u64,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("rows", &self.rows)
            .field("held", &self.held.len())
            .field("spilled_bytes", &self.spilled_bytes)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// An empty one, in the memory and on the disk of `runtime`.
    pub(super) fn new(runtime: &Arc<RuntimeEnv>, schema: &SchemaRef) -> Self {
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        Self {
            files: SpillManager::new(Arc::clone(runtime), metrics, Arc::clone(schema)),
            spilled: Vec::new(),
            held: Vec::new(),
            memory: MemoryConsumer::new("rows of a view's run")
                .with_can_spill(true)
                .register(&runtime.memory_pool),
            rows: 0,
            spilled_bytes: 0,
        }
    }

    /// Takes a batch in.
    ///
    /// # Errors
    /// When the disk takes no more of it.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        let bytes = bytes(&batch)?;
        self.held.push(batch);
        if self.memory.try_grow(bytes).is_err() {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let file = self
            .files
            .spill_record_batch_and_finish(&self.held, "rows of a view's run")?;
        if let Some(file) = file {
            self.spilled_bytes += file.size().unwrap_or_default();
            self.spilled.push(file);
        }
        self.held.clear();
        self.memory.free();
        Ok(())
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Counts what was written to disk while its rows were computed.
    pub(super) fn count_spilled(&mut self, bytes: u64) {
        self.spilled_bytes += bytes;
    }

    /// Bytes that were written to disk for it.
    pub(super) fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes
    }

    /// Everything in it, once. Files go as they are read to their end.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        let Self {
            files,
            spilled,
            held,
            memory,
            ..
        } = self;
        let on_disk = stream::iter(spilled).flat_map(move |file| {
            match files.read_spill_as_stream_unbuffered(file, None) {
                Ok(rows) => rows.map(|batch| batch.map_err(Error::from)).boxed(),
                Err(e) => stream::iter([Err(e.into())]).boxed(),
            }
        });
        let in_memory = stream::iter(held).map(move |batch| {
            memory.shrink(bytes(&batch)?.min(memory.size()));
            Ok(batch)
        });
        on_disk.chain(in_memory).boxed()
    }
}

/// What the rows of a batch take, without what other slices of the same memory hold.
pub(super) fn bytes(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter();
    let sizes = sizes.map(|column| column.to_data().get_slice_memory_size());
    Ok(sizes.sum::<std::result::Result<usize, _>>()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::execution::memory_pool::FairSpillPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    fn batch(from: i64) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("s", DataType::Utf8, true),
        ]);
        let numbers = Int64Array::from_iter_values(from..from + 1000);
        let texts: StringArray = numbers
            .values()
            .iter()
            .map(|n| (n % 7 != 0).then(|| format!("text {n}")))
            .collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
    }

    fn runtime(bytes: usize) -> Arc<RuntimeEnv> {
        RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(bytes)))
            .build_arc()
            .unwrap()
    }

    fn filled(bytes: usize) -> (Arc<RuntimeEnv>, Spool) {
        let runtime = runtime(bytes);
        let mut spool = Spool::new(&runtime, &batch(0).schema());
        for i in 0..50 {
            spool.push(batch(i * 1000)).unwrap();
            assert!(runtime.memory_pool.reserved() <= bytes);
        }
        (runtime, spool)
    }

    async fn read(spool: Spool) -> Vec<i64> {
        let mut rows = spool.into_stream();
        let mut read = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch.unwrap();
            for (n, s) in batch
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .zip(batch.column(1).as_string::<i32>())
            {
                assert_eq!(s.is_some(), n % 7 != 0);
                read.push(*n);
            }
        }
        read
    }

    #[tokio::test]
    async fn rows_come_back_in_their_order_from_memory_and_disk() {
        let (all, none) = (filled(100 << 20), filled(100 << 10));
        assert_eq!(all.1.spilled_bytes(), 0);
        assert!(none.1.spilled_bytes() > 500_000, "{:?}", none.1);
        for (runtime, spool) in [all, none] {
            assert_eq!(spool.rows(), 50_000);
            assert_eq!(read(spool).await, (0..50_000).collect::<Vec<_>>());
            assert_eq!(runtime.memory_pool.reserved(), 0);
            assert_eq!(runtime.disk_manager.used_disk_space(), 0);
        }
    }

    #[tokio::test]
    async fn one_that_is_given_up_leaves_nothing() {
        let (runtime, spool) = filled(100 << 10);
        assert!(runtime.disk_manager.used_disk_space() > 0);
        drop(spool);
        assert_eq!(runtime.memory_pool.reserved(), 0);
        assert_eq!(runtime.disk_manager.used_disk_space(), 0);
    }
}
