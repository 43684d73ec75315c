//! What lookups have read: pieces of runs, where they begin, and stored rows that are newer than a state.
//!
//! A run is ordered by its keys. The first key of every piece is kept while the run is there; pieces come
//! and go within a number of bytes. Everything is of files that never change, so nothing gets stale.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, concat_batches, filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::utils::compare_rows;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{col, lit};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, RowSelection,
};
use datafusion::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::PageIndexPolicy;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;
use object_store::ObjectMeta;
use url::Position;

use super::{equal, misfit};
use crate::engine::scan::{self, WeirTable};
use crate::error::Result;
use crate::lake::{LakeFile, LakeSnapshot};
use crate::stream::head::{Lsn, TableHead};
use crate::types::LSN;

/// Rows of a piece.
const PIECE: usize = 8192;
/// Positions between a state and what is flushed that are kept as rows.
const MOST_FLUSHED: i64 = 1 << 21;

/// Pieces of stored states and rows, kept within a number of bytes.
#[derive(Debug)]
pub struct Blocks {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    clock: u64,
    bytes: usize,
    runs: HashMap<String, Slot<Arc<Run>>>,
    pieces: HashMap<(String, usize), Slot<Arc<RecordBatch>>>,
    flushed: HashMap<String, Slot<Arc<Vec<RecordBatch>>>>,
}

#[derive(Debug)]
struct Slot<T> {
    used: u64,
    bytes: usize,
    what: T,
}

/// A run's file: where its pieces begin.
#[derive(Debug)]
struct Run {
    metadata: ArrowReaderMetadata,
    rows: usize,
    /// The first key column at each piece's first row; nothing when it is not in order.
    firsts: Option<ArrayRef>,
}

impl Blocks {
    /// Keeps so many bytes at most; none turns lookups off.
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            kept: Mutex::default(),
        }
    }

    /// True when there is no use in asking.
    pub fn is_off(&self) -> bool {
        self.budget == 0
    }

    /// A key's states in all runs, in columns of `states`; nothing at all when runs are in no order.
    pub(super) async fn states(
        &self,
        lake: &LakeSnapshot,
        states: &SchemaRef,
        key: &[ScalarValue],
        session: &SessionState,
    ) -> Result<Option<Option<RecordBatch>>> {
        let Some(first) = key.first() else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for file in lake.files.iter().filter(|file| may_hold(file, first)) {
            let name = format!("{}{}", lake.root, file.path);
            let known = self.get(|kept| &mut kept.runs, &name);
            let run = match known {
                Some(run) => run,
                None => {
                    let run = Arc::new(opened(lake, file, session).await?);
                    let bytes = run.firsts.as_ref().map_or(0, |f| f.get_array_memory_size());
                    let bytes = bytes + run.metadata.metadata().memory_size();
                    self.put(|kept| &mut kept.runs, name.clone(), Arc::clone(&run), bytes);
                    run
                }
            };
            let Some(firsts) = &run.firsts else {
                return Ok(None);
            };
            let (mut from, to) = pieces_of(firsts, first)?;
            while from < to {
                let at = (name.clone(), from);
                let piece = match self.get(|kept| &mut kept.pieces, &at) {
                    Some(piece) => piece,
                    None => {
                        let piece = read(lake, file, &run, from, states, session).await?;
                        let piece = Arc::new(piece);
                        let bytes = piece.get_array_memory_size();
                        self.put(|kept| &mut kept.pieces, at, Arc::clone(&piece), bytes);
                        piece
                    }
                };
                if let Some(mask) = equal(piece.columns().iter().zip(key))? {
                    found.push(filter_record_batch(&piece, &mask)?);
                }
                from += 1;
            }
        }
        Ok(Some(match found.first() {
            None => None,
            Some(first) => Some(concat_batches(&first.schema(), &found)?),
        }))
    }

    /// Rows above a position that are stored, in these columns; nothing when they are too many.
    pub(super) async fn flushed(
        &self,
        table: &TableHead,
        above: Lsn,
        schema: &SchemaRef,
        session: &SessionState,
    ) -> Result<Option<Arc<Vec<RecordBatch>>>> {
        if table.flushed.0.saturating_sub(above.0) > MOST_FLUSHED {
            return Ok(None);
        }
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let name = format!(
            "{} {} {} {}",
            table.lake.root,
            table.lake.version,
            above.0,
            names.join("\u{1}")
        );
        if let Some(rows) = self.get(|kept| &mut kept.flushed, &name) {
            return Ok(Some(rows));
        }
        let stored = TableHead {
            tail: Vec::new(),
            ..TableHead::clone(table)
        };
        let source = WeirTable::new(Arc::new(stored), true);
        let all = source.schema();
        let wanted = names.iter().map(|name| all.index_of(name));
        let wanted = wanted.collect::<std::result::Result<Vec<_>, _>>()?;
        let newer = col(LSN).gt(lit(above.0));
        let plan = source.scan(session, Some(&wanted), &[newer], None).await?;
        let plan = Arc::new(CoalescePartitionsExec::new(plan));
        let mut stream = execute_stream(plan, session.task_ctx())?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            if bytes > self.budget {
                return Ok(None);
            }
            rows.push(batch);
        }
        let rows = Arc::new(rows);
        self.put(|kept| &mut kept.flushed, name, Arc::clone(&rows), bytes);
        Ok(Some(rows))
    }

    fn get<K: Hash + Eq, V: Clone>(
        &self,
        of: impl Fn(&mut Kept) -> &mut HashMap<K, Slot<V>>,
        key: &K,
    ) -> Option<V> {
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        let slot = of(&mut kept).get_mut(key)?;
        slot.used = now;
        Some(slot.what.clone())
    }

    fn put<K: Hash + Eq, V>(
        &self,
        of: impl Fn(&mut Kept) -> &mut HashMap<K, Slot<V>>,
        key: K,
        what: V,
        bytes: usize,
    ) {
        let mut kept = self.lock();
        kept.clock += 1;
        let used = kept.clock;
        let before = of(&mut kept).insert(key, Slot { used, bytes, what });
        kept.bytes += bytes;
        kept.bytes -= before.map_or(0, |slot| slot.bytes);
        if kept.bytes > self.budget {
            kept.shrink(self.budget / 4 * 3);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // every change of it is one step
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Lets what was not used for longest go.
    fn shrink(&mut self, to: usize) {
        fn ages<'a, K: 'a, V: 'a>(
            of: &'a HashMap<K, Slot<V>>,
        ) -> impl Iterator<Item = (u64, usize)> + 'a {
            of.values().map(|slot| (slot.used, slot.bytes))
        }
        let mut all: Vec<(u64, usize)> = ages(&self.runs)
            .chain(ages(&self.pieces))
            .chain(ages(&self.flushed))
            .collect();
        all.sort_unstable();
        let mut bytes = self.bytes;
        let mut oldest = 0;
        for (used, size) in all {
            if bytes <= to {
                break;
            }
            bytes -= size;
            oldest = used;
        }
        self.runs.retain(|_, slot| slot.used > oldest);
        self.pieces.retain(|_, slot| slot.used > oldest);
        self.flushed.retain(|_, slot| slot.used > oldest);
        self.bytes = bytes;
    }
}

/// False when the log's statistics say that a run lacks a value in its first column.
fn may_hold(file: &LakeFile, value: &ScalarValue) -> bool {
    let Some(known) = file.statistics.column_statistics.first() else {
        return true;
    };
    let beside = |bound: Option<&ScalarValue>, side: std::cmp::Ordering| {
        bound
            .and_then(|bound| bound.cast_to(&value.data_type()).ok())
            .filter(|bound| !bound.is_null())
            .and_then(|bound| value.partial_cmp(&bound))
            == Some(side)
    };
    !(beside(known.min_value.get_value(), std::cmp::Ordering::Less)
        || beside(known.max_value.get_value(), std::cmp::Ordering::Greater))
}

fn unread(e: ParquetError) -> DataFusionError {
    DataFusionError::ParquetError(Box::new(e))
}

fn reader(
    lake: &LakeSnapshot,
    file: &LakeFile,
    session: &SessionState,
) -> Result<Box<dyn AsyncFileReader>> {
    let url = ObjectStoreUrl::parse(&lake.root[..Position::BeforePath])?;
    let runtime = session.runtime_env();
    let footers = runtime.cache_manager.get_file_metadata_cache();
    let readers = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, footers);
    let meta = ObjectMeta {
        location: scan::location(lake, file)?,
        last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
        size: file.size,
        e_tag: None,
        version: None,
    };
    let part = PartitionedFile::new_from_meta(meta);
    let metrics = ExecutionPlanMetricsSet::new();
    Ok(readers.create_reader(0, part, None, &metrics)?)
}

/// A run, with its first key column looked through.
async fn opened(lake: &LakeSnapshot, file: &LakeFile, session: &SessionState) -> Result<Run> {
    let mut source = reader(lake, file, session)?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load_async(&mut source, options)
        .await
        .map_err(unread)?;
    let rows = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
    let first = ProjectionMask::leaves(metadata.parquet_schema(), [0]);
    let mut stream = ParquetRecordBatchStreamBuilder::new_with_metadata(source, metadata.clone())
        .with_projection(first)
        .with_batch_size(PIECE)
        .build()
        .map_err(unread)?;
    let mut firsts: Vec<ArrayRef> = Vec::new();
    let mut last: Option<ScalarValue> = None;
    let mut ordered = true;
    let mut seen = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(unread)?;
        let column = Arc::clone(batch.columns().first().ok_or_else(misfit)?);
        // pieces are counted from the file's first row, whatever batches come
        let starts = (0..column.len()).filter(|at| (seen + at) % PIECE == 0);
        let starts: UInt32Array = starts.filter_map(|at| u32::try_from(at).ok()).collect();
        firsts.push(take(&column, &starts, None)?);
        let order = SortOptions {
            descending: false,
            nulls_first: true,
        };
        let before = last.replace(ScalarValue::try_from_array(&column, column.len() - 1)?);
        if let Some(before) = before {
            let next = ScalarValue::try_from_array(&column, 0)?;
            ordered &= compare_rows(&[before], &[next], &[order])?.is_le();
        }
        ordered &= is_sorted(&column)?;
        seen += column.len();
    }
    let firsts: Vec<&dyn Array> = firsts.iter().map(AsRef::as_ref).collect();
    let firsts = match (ordered, firsts.is_empty()) {
        (true, false) => Some(arrow::compute::concat(&firsts)?),
        _ => None,
    };
    Ok(Run {
        metadata,
        rows,
        firsts,
    })
}

/// True when no value is below the one before it; NULLs come first.
fn is_sorted(column: &ArrayRef) -> Result<bool> {
    if column.len() < 2 {
        return Ok(true);
    }
    let nulls = column.null_count();
    if nulls > 0 && (0..nulls).any(|at| column.is_valid(at)) {
        return Ok(false);
    }
    let values = column.slice(nulls, column.len() - nulls);
    if values.len() < 2 {
        return Ok(true);
    }
    let (before, after) = (
        values.slice(0, values.len() - 1),
        values.slice(1, values.len() - 1),
    );
    let falls = arrow::compute::kernels::cmp::lt(&after, &before)?;
    Ok(falls.true_count() == 0)
}

/// Pieces that may hold a value in their first column: `from..to`.
fn pieces_of(firsts: &ArrayRef, value: &ScalarValue) -> Result<(usize, usize)> {
    let value = value.cast_to(firsts.data_type())?;
    let order = [SortOptions {
        descending: false,
        nulls_first: true,
    }];
    let value = [value];
    // the first piece that begins at or above the value, and the first that begins above it
    let bound = |above: bool| -> Result<usize> {
        let (mut low, mut high) = (0, firsts.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let first = [ScalarValue::try_from_array(firsts, middle)?];
            let order = compare_rows(&first, &value, &order)?;
            match order.is_lt() || (above && order.is_eq()) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    };
    Ok((bound(false)?.saturating_sub(1), bound(true)?))
}

/// A piece of a run, in columns of `states`.
async fn read(
    lake: &LakeSnapshot,
    file: &LakeFile,
    run: &Run,
    piece: usize,
    states: &SchemaRef,
    session: &SessionState,
) -> Result<RecordBatch> {
    let source = reader(lake, file, session)?;
    let from = piece * PIECE;
    let to = (from + PIECE).min(run.rows);
    let selection = RowSelection::from_consecutive_ranges(std::iter::once(from..to), run.rows);
    let wanted = ProjectionMask::roots(run.metadata.parquet_schema(), 0..states.fields().len());
    let mut stream =
        ParquetRecordBatchStreamBuilder::new_with_metadata(source, run.metadata.clone())
            .with_row_selection(selection)
            .with_projection(wanted)
            .with_batch_size(PIECE)
            .build()
            .map_err(unread)?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(unread)?;
        if batch.num_columns() != states.fields().len() {
            return Err(misfit());
        }
        let columns = batch.columns().iter().zip(states.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        batches.push(RecordBatch::try_new(Arc::clone(states), columns)?);
    }
    Ok(concat_batches(states, &batches)?)
}
