//! A table at one cut, as DataFusion reads it: stored files next to the tail in memory.
//!
//! Owns the translation of a [`TableHead`] (or of one old [`LakeSnapshot`]) into DataFusion's own
//! Parquet and memory leaves, with pruning and statistics. It reads only what the head holds: no log
//! replay, no listing, no look at a newer head. Who may see which column is decided above.

mod files;
mod prune;

pub(crate) use files::{location, scanned};

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use catalog::Oid;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics, project_schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableSource, TableType};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::lake::LakeSnapshot;
use crate::stream::head::{Lsn, TableHead, TailBatch, Upkeep};
use crate::types::LSN;

/// One table at one cut. Cheap to build, one per statement and reference.
#[derive(Debug, Clone)]
pub struct WeirTable {
    head: Arc<TableHead>,
    schema: SchemaRef,
    /// Others write it: nothing is told of what becomes of its rows.
    foreign: bool,
}

impl WeirTable {
    /// The table's rows at the head. `with_lsn` puts the log position in front of the visible
    /// columns, where the table has one.
    pub fn new(head: Arc<TableHead>, with_lsn: bool) -> Self {
        let lsn = head.lake.schema.fields().first();
        let lsn = lsn.filter(|f| with_lsn && f.name() == LSN).cloned();
        let visible = head.schema.fields().iter().cloned();
        let fields: Vec<FieldRef> = lsn.into_iter().chain(visible).collect();
        let schema = Arc::new(Schema::new(fields));
        Self {
            head,
            schema,
            foreign: false,
        }
    }

    /// The table as it was stored at one version: no tail, and not a stream to build on.
    pub fn at_version(oid: Oid, snapshot: Arc<LakeSnapshot>) -> Self {
        let visible = snapshot.schema.fields().iter().filter(|f| f.name() != LSN);
        let visible = Arc::new(Schema::new(visible.cloned().collect::<Vec<_>>()));
        Self::stored_as(oid, snapshot, visible)
    }

    /// [`Self::at_version`] in other columns: those that are not stored are NULL.
    pub fn stored_as(oid: Oid, snapshot: Arc<LakeSnapshot>, schema: SchemaRef) -> Self {
        let head = TableHead {
            oid,
            streaming: false,
            schema,
            lake: snapshot,
            flushed: Lsn::default(),
            changes: 0,
            upkeep: Upkeep::default(),
            tail: Vec::new(),
        };
        Self::new(Arc::new(head), false)
    }

    /// [`Self::stored_as`] for a table that others write.
    pub fn foreign(oid: Oid, snapshot: Arc<LakeSnapshot>, schema: SchemaRef) -> Self {
        Self {
            foreign: true,
            ..Self::stored_as(oid, snapshot, schema)
        }
    }

    /// The table behind a scan in a logical plan, if it is one of ours.
    pub fn behind(source: &Arc<dyn TableSource>) -> Option<Self> {
        let provider = source_as_provider(source).ok()?;
        let provider: &dyn std::any::Any = provider.as_ref();
        provider
            .downcast_ref::<Self>()
            .filter(|t| !t.foreign)
            .cloned()
    }

    /// What it reads.
    pub fn head(&self) -> &Arc<TableHead> {
        &self.head
    }

    /// Whether the log position is its first column.
    pub fn has_lsn(&self) -> bool {
        self.schema
            .fields()
            .first()
            .is_some_and(|f| f.name() == LSN)
    }

    /// The filters as one pruning-ready physical predicate.
    fn predicate(
        &self,
        state: &dyn Session,
        filters: &[Expr],
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(all) = conjunction(filters.iter().cloned()) else {
            return Ok(None);
        };
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        state.create_physical_expr(all, &schema).map(Some)
    }

    /// The tail as a leaf of its own: plain record batches, so that a plan with it stays shippable.
    fn hot(
        &self,
        output: &SchemaRef,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let tail = &self.head.tail;
        let keep = prune::tail(&self.schema, tail, predicate);
        let batches = tail
            .iter()
            .zip(keep)
            .filter(|(part, keep)| *keep && part.batch.num_rows() > 0)
            .map(|(part, _)| conform(part, output))
            .collect::<Result<Vec<_>>>()?;
        if batches.is_empty() {
            return Ok(None);
        }
        let source = MemorySourceConfig::try_new(&[batches], Arc::clone(output), None)?;
        Ok(Some(DataSourceExec::from_data_source(
            source.with_limit(limit),
        )))
    }
}

#[async_trait]
impl TableProvider for WeirTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let output = project_schema(&self.schema, projection)?;
        let predicate = self.predicate(state, filters)?;
        let layout = files::Layout::new(&self.schema, &self.head.lake)?;
        let cold = layout.scan(state, projection, predicate.as_ref(), limit)?;
        let hot = self.hot(&output, predicate.as_ref(), limit)?;
        match (cold, hot) {
            (None, None) => Ok(Arc::new(EmptyExec::new(output))),
            (Some(only), None) | (None, Some(only)) => Ok(only),
            (Some(cold), Some(hot)) => UnionExec::try_new(vec![cold, hot]),
        }
    }

    /// Everything is pushed down and nothing is promised: Parquet applies what it can exactly, and
    /// the physical optimizer keeps a filter over what it cannot (the tail).
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let layout = files::Layout::new(&self.schema, &self.head.lake).ok()?;
        let stored = layout.totals().ok()?;
        let tail: usize = self.head.tail.iter().map(|t| t.batch.num_rows()).sum();
        if tail == 0 {
            return Some(stored);
        }
        let mut all = Statistics::new_unknown(&self.schema);
        all.num_rows = stored.num_rows.add(&Precision::Exact(tail));
        Some(all)
    }
}

/// A tail batch in the wanted columns: one written before a column was added lacks it.
pub(crate) fn conform(part: &TailBatch, output: &SchemaRef) -> Result<RecordBatch> {
    let rows = part.batch.num_rows();
    let columns = output
        .fields()
        .iter()
        .map(|field| column(&part.batch, field, rows))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(output), columns, &options)
        .map_err(|e| DataFusionError::ArrowError(Box::new(e), None))
}

fn column(batch: &RecordBatch, field: &FieldRef, rows: usize) -> Result<ArrayRef> {
    match batch.column_by_name(field.name()) {
        Some(found) if found.data_type() == field.data_type() => Ok(Arc::clone(found)),
        Some(found) => Ok(arrow::compute::cast(found, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), rows)),
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
