//! Skips files and tail batches whose statistics exclude a predicate.
//!
//! Only ever a shortcut: what is kept is still filtered, and anything unknown is kept.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::PhysicalExpr;

use crate::stream::head::TailBatch;
use crate::types::LSN;

/// Containers with statistics by column, looked up one by one: most predicates ask for few columns.
pub(super) struct Containers<'a> {
    /// Names the columns.
    pub(super) schema: &'a SchemaRef,
    /// How many there are.
    pub(super) count: usize,
    /// What is known of a column of a container.
    pub(super) column: &'a dyn Fn(usize, usize) -> ColumnStatistics,
    /// The rows of a container.
    pub(super) rows: &'a dyn Fn(usize) -> Precision<usize>,
}

/// Which containers may hold a matching row.
pub(super) fn containers(
    containers: &Containers<'_>,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<bool> {
    let all = vec![true; containers.count];
    let Some(predicate) = predicate.filter(|_| containers.count > 0) else {
        return all;
    };
    let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(containers.schema));
    let Some(pruning) = builder.build(Arc::clone(predicate)) else {
        return all;
    };
    match pruning.prune(containers) {
        Ok(keep) => keep,
        Err(e) => {
            tracing::debug!(error = %e, "files not pruned");
            all
        }
    }
}

/// Which tail batches may hold a matching row, by their log positions.
pub(super) fn tail(
    schema: &SchemaRef,
    tail: &[Arc<TailBatch>],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<bool> {
    let Ok(lsn) = schema.index_of(LSN) else {
        return vec![true; tail.len()];
    };
    let bound = |at: usize, column: usize| match tail.get(at).filter(|_| column == lsn) {
        Some(part) => ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: Precision::Exact(ScalarValue::Int64(Some(part.lo.0))),
            max_value: Precision::Exact(ScalarValue::Int64(Some(part.hi.0))),
            ..ColumnStatistics::new_unknown()
        },
        None => ColumnStatistics::new_unknown(),
    };
    let rows = |at: usize| {
        let part = tail.get(at);
        part.map_or(Precision::Absent, |p| Precision::Exact(p.batch.num_rows()))
    };
    let known = Containers {
        schema,
        count: tail.len(),
        column: &bound,
        rows: &rows,
    };
    containers(&known, predicate)
}

/// Statistics as the pruning predicate wants them. DataFusion's own adapter gives up on a column as
/// soon as one container lacks a value for it.
impl Containers<'_> {
    fn values(
        &self,
        column: &Column,
        pick: impl Fn(ColumnStatistics) -> Precision<ScalarValue>,
    ) -> Option<ArrayRef> {
        let (index, field) = self.schema.column_with_name(column.name())?;
        let unknown = ScalarValue::try_from(field.data_type()).ok()?;
        let values = (0..self.count).map(|at| match pick((self.column)(at, index)) {
            Precision::Exact(v) if v.data_type() == *field.data_type() => v,
            _ => unknown.clone(),
        });
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for Containers<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |c| c.min_value)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |c| c.max_value)
    }

    fn num_containers(&self) -> usize {
        self.count
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.schema.index_of(column.name()).ok()?;
        let counts = (0..self.count).map(|at| exact(&(self.column)(at, index).null_count));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts = (0..self.count).map(|at| exact(&(self.rows)(at)));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

fn exact(count: &Precision<usize>) -> Option<u64> {
    match count {
        Precision::Exact(n) => u64::try_from(*n).ok(),
        Precision::Inexact(_) | Precision::Absent => None,
    }
}
