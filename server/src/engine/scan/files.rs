//! Stored files of a snapshot as one Parquet leaf.
//!
//! Owns the column layout (stored columns, then partition columns), the file list handed to
//! DataFusion, and what may be believed about the statistics in the table's log.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use object_store::ObjectMeta;
use object_store::path::Path;
use url::Position;

use super::prune;
use crate::lake::{LakeFile, LakeSnapshot};

/// How the columns that a table shows lie in its files.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    lake: &'a LakeSnapshot,
    shown: &'a SchemaRef,
    table: TableSchema,
    /// Where each of the table schema's columns stands in the stored schema (and its statistics), or
    /// among the partition columns.
    origin: Vec<Origin>,
    /// Where each shown column stands in the table schema.
    position: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Stored(usize),
    Partition(usize),
    /// Added to the table later than the snapshot: NULL everywhere.
    Missing,
}

impl<'a> Layout<'a> {
    /// Lays out the shown columns over a snapshot.
    pub(super) fn new(shown: &'a SchemaRef, lake: &'a LakeSnapshot) -> Result<Self> {
        let partition = |f: &FieldRef| lake.partition_by.iter().position(|p| p == f.name());
        let stored = shown.fields().iter().filter(|f| partition(f).is_none());
        let stored: Vec<FieldRef> = stored.cloned().collect();
        // every partition column takes part, shown or not: each file carries all their values
        let partitions = lake
            .partition_by
            .iter()
            .map(|name| {
                let found = shown.fields().find(name).map(|(_, f)| f);
                found.map_or_else(
                    || lake.schema.field_with_name(name).cloned().map(Arc::new),
                    |f| Ok(Arc::clone(f)),
                )
            })
            .collect::<Result<Vec<FieldRef>, _>>()?;
        let origin = stored
            .iter()
            .map(|f| {
                lake.schema
                    .index_of(f.name())
                    .map_or(Origin::Missing, Origin::Stored)
            })
            .chain((0..partitions.len()).map(Origin::Partition))
            .collect();
        let table = TableSchema::builder(Arc::new(Schema::new(stored)))
            .with_table_partition_cols(partitions)
            .build();
        let position = shown
            .fields()
            .iter()
            .map(|f| table.table_schema().index_of(f.name()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            lake,
            shown,
            table,
            origin,
            position,
        })
    }

    /// The files that may hold matching rows, as one Parquet scan; `None` when there are none.
    pub(super) fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let files = &self.lake.files;
        let column = |at: usize, column: usize| match files.get(at) {
            Some(file) => self.column_bounds(file, column),
            None => ColumnStatistics::new_unknown(),
        };
        let rows = |at: usize| {
            let file = files.get(at);
            file.map_or(Precision::Absent, |f| f.statistics.num_rows)
        };
        let known = prune::Containers {
            schema: self.table.table_schema(),
            count: files.len(),
            column: &column,
            rows: &rows,
        };
        let keep = prune::containers(&known, predicate);
        let kept: Vec<_> = files
            .iter()
            .zip(keep)
            .filter(|(_, keep)| *keep)
            .map(|(file, _)| (file, Arc::new(self.bounds(file))))
            .collect();
        let kept = match limit.filter(|_| predicate.is_none()) {
            Some(limit) => enough_for(kept, limit),
            None => kept,
        };
        if kept.is_empty() {
            return Ok(None);
        }

        let totals = self.merge(kept.iter().map(|(_, known)| known.as_ref()))?;
        let files = kept
            .into_iter()
            .map(|(file, known)| self.partitioned(file, known))
            .collect::<Result<Vec<_>>>()?;
        // one reader reads them as they are listed; splitting would go by their names
        let groups = match state.config().target_partitions() {
            1 => vec![FileGroup::new(files)],
            readers => FileGroup::new(files).split_files(readers),
        };
        let indices = match projection {
            Some(picked) => picked
                .iter()
                .filter_map(|i| self.position.get(*i))
                .copied()
                .collect(),
            None => self.position.clone(),
        };
        let url = ObjectStoreUrl::parse(&self.lake.root[..Position::BeforePath])?;
        let config = FileScanConfigBuilder::new(url.clone(), self.source(state, &url)?)
            .with_file_groups(groups)
            .with_statistics(totals)
            .with_projection_indices(Some(indices))?
            .with_limit(limit)
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    /// Statistics over all files, for the shown columns.
    pub(super) fn totals(&self) -> Result<Statistics> {
        let known: Vec<Statistics> = self.lake.files.iter().map(|f| self.bounds(f)).collect();
        let mut totals = self.merge(known.iter())?;
        let columns = self
            .position
            .iter()
            .filter_map(|i| totals.column_statistics.get(*i));
        totals.column_statistics = columns.cloned().collect();
        debug_assert_eq!(totals.column_statistics.len(), self.shown.fields().len());
        Ok(totals)
    }

    fn source(&self, state: &dyn Session, url: &ObjectStoreUrl) -> Result<Arc<ParquetSource>> {
        let runtime = state.runtime_env();
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let readers = CachedParquetFileReaderFactory::new(runtime.object_store(url)?, footers);
        let options = state.default_table_options().parquet;
        let readers = Held {
            readers,
            _files: Arc::clone(&self.lake.files),
        };
        let source = ParquetSource::new(self.table.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(readers))
            .with_pushdown_filters(true)
            .with_reorder_filters(true);
        Ok(Arc::new(source))
    }

    fn partitioned(&self, file: &LakeFile, known: Arc<Statistics>) -> Result<PartitionedFile> {
        let values = self
            .table
            .table_partition_cols()
            .iter()
            .zip(&file.partition_values)
            .map(|(field, value)| value.cast_to(field.data_type()))
            .collect::<Result<Vec<_>>>()?;
        let meta = ObjectMeta {
            location: location(self.lake, file)?,
            last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
            size: file.size,
            e_tag: None,
            version: None,
        };
        let mut part = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        // set as a field: the builder method would append its own partition column statistics, which
        // take a NULL partition value for a value
        part.statistics = Some(known);
        Ok(part)
    }

    /// What is known of a file, in table schema order. Minima and maxima are *bounds*, marked exact
    /// since DataFusion skips files by exact ones only; [`Layout::merge`] takes the mark away again.
    fn bounds(&self, file: &LakeFile) -> Statistics {
        let columns = (0..self.origin.len()).map(|column| self.column_bounds(file, column));
        Statistics {
            num_rows: file.statistics.num_rows,
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        }
    }

    /// The same of one column.
    fn column_bounds(&self, file: &LakeFile, column: usize) -> ColumnStatistics {
        let rows = file.statistics.num_rows;
        let fields = self.table.table_schema().fields();
        let (Some(origin), Some(field)) = (self.origin.get(column), fields.get(column)) else {
            return ColumnStatistics::new_unknown();
        };
        match origin {
            Origin::Missing => all_null(rows),
            Origin::Partition(i) => match file.partition_values.get(*i) {
                Some(value) if value.is_null() => all_null(rows),
                Some(value) => as_type(value, field.data_type())
                    .map_or_else(ColumnStatistics::new_unknown, constant),
                None => ColumnStatistics::new_unknown(),
            },
            Origin::Stored(i) => match file.statistics.column_statistics.get(*i) {
                Some(known) => stored(known, field.data_type()),
                None => ColumnStatistics::new_unknown(),
            },
        }
    }

    /// One statistics value for several files, fit for answering `count(*)`, `min` and `max`.
    fn merge<'s>(&self, files: impl Iterator<Item = &'s Statistics>) -> Result<Statistics> {
        let mut files = files.peekable();
        let schema = self.table.table_schema();
        if files.peek().is_none() {
            let mut none = Statistics::new_unknown(schema);
            none.num_rows = Precision::Exact(0);
            return Ok(none);
        }
        let mut all = Statistics::try_merge_iter(files, schema)?;
        for ((column, field), origin) in all
            .column_statistics
            .iter_mut()
            .zip(schema.fields())
            .zip(&self.origin)
        {
            if !(matches!(origin, Origin::Partition(_)) || bounds_are_values(field.data_type())) {
                column.min_value = std::mem::take(&mut column.min_value).to_inexact();
                column.max_value = std::mem::take(&mut column.max_value).to_inexact();
            }
        }
        Ok(all)
    }
}

/// Opens files, and holds their list as long as the plan lives: a vacuum leaves them alone meanwhile.
#[derive(Debug)]
struct Held {
    readers: CachedParquetFileReaderFactory,
    _files: Arc<[LakeFile]>,
}

impl ParquetFileReaderFactory for Held {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        self.readers
            .create_reader(partition_index, file, metadata_size_hint, metrics)
    }
}

/// Paths of a snapshot's files that a plan reads.
pub(crate) fn scanned(
    plan: &Arc<dyn ExecutionPlan>,
    lake: &LakeSnapshot,
) -> Result<HashSet<String>> {
    let mut read = HashSet::new();
    plan.apply(|node| {
        let source = node.downcast_ref::<DataSourceExec>();
        if let Some((files, _)) =
            source.and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>)
        {
            let groups = files.file_groups.iter().flat_map(FileGroup::iter);
            read.extend(groups.map(|f| f.object_meta.location.clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut paths = HashSet::new();
    for file in lake.files.iter() {
        if read.contains(&location(lake, file)?) {
            paths.insert(file.path.clone());
        }
    }
    Ok(paths)
}

type Known<'a> = (&'a LakeFile, Arc<Statistics>);

/// The first files that together hold at least `limit` rows.
fn enough_for(files: Vec<Known<'_>>, limit: usize) -> Vec<Known<'_>> {
    let mut rows = 0usize;
    files
        .into_iter()
        .take_while(|(_, known)| {
            let wanted = rows < limit;
            if let Precision::Exact(n) = known.num_rows {
                rows = rows.saturating_add(n);
            }
            wanted
        })
        .collect()
}

/// A file's path inside its object store.
pub(crate) fn location(lake: &LakeSnapshot, file: &LakeFile) -> Result<Path> {
    let root = Path::from_url_path(lake.root.path()).map_err(external)?;
    let full = match root.as_ref() {
        "" => file.path.clone(),
        root => format!("{root}/{}", file.path),
    };
    Path::parse(full).map_err(external)
}

fn external(e: object_store::path::Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

fn all_null(rows: Precision<usize>) -> ColumnStatistics {
    ColumnStatistics {
        null_count: rows,
        ..ColumnStatistics::new_unknown()
    }
}

fn constant(value: ScalarValue) -> ColumnStatistics {
    ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: Precision::Exact(value.clone()),
        max_value: Precision::Exact(value),
        ..ColumnStatistics::new_unknown()
    }
}

/// A value in a column's type; most have it, and casting costs more than all the rest of a look.
fn as_type(value: &ScalarValue, ty: &DataType) -> Option<ScalarValue> {
    match value.data_type() == *ty {
        true => Some(value.clone()),
        false => value.cast_to(ty).ok(),
    }
}

/// A stored column's bounds. The lake leaves out what it cannot vouch for; exact or not, a minimum is
/// never above and a maximum never below a value.
fn stored(known: &ColumnStatistics, ty: &DataType) -> ColumnStatistics {
    // a number's text has another order: a column that was widened since
    let ordered = |from: &DataType| from.is_numeric() == ty.is_numeric();
    let bound = |p: &Precision<ScalarValue>| match p.get_value() {
        Some(v) if !v.is_null() && ordered(&v.data_type()) => {
            as_type(v, ty).map_or(Precision::Absent, Precision::Exact)
        }
        _ => Precision::Absent,
    };
    ColumnStatistics {
        null_count: known.null_count,
        min_value: bound(&known.min_value),
        max_value: bound(&known.max_value),
        ..ColumnStatistics::new_unknown()
    }
}

/// Types whose bounds in the log are the smallest and greatest value themselves: texts may be cut,
/// timestamps are, and floats leave out NaN.
fn bounds_are_values(ty: &DataType) -> bool {
    ty.is_integer() || matches!(ty, DataType::Boolean | DataType::Date32)
}
