//! Skips files and tail batches whose statistics exclude a predicate.
//!
//! Only ever a shortcut: what is kept is still filtered, and anything unknown is kept.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::PhysicalExpr;

use crate::stream::head::TailBatch;
use crate::types::LSN;

/// Which containers may hold a matching row; `schema` names the columns of the statistics.
pub(super) fn containers(
    schema: &SchemaRef,
    containers: &[Arc<Statistics>],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<bool> {
    let all = vec![true; containers.len()];
    let Some(predicate) = predicate.filter(|_| !containers.is_empty()) else {
        return all;
    };
    let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
    let Some(pruning) = builder.build(Arc::clone(predicate)) else {
        return all;
    };
    match pruning.prune(&Bounds { schema, containers }) {
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
    tail: &[TailBatch],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<bool> {
    let Ok(lsn) = schema.index_of(LSN) else {
        return vec![true; tail.len()];
    };
    let known: Vec<Arc<Statistics>> = tail
        .iter()
        .map(|part| {
            let mut known = Statistics::new_unknown(schema);
            known.num_rows = Precision::Exact(part.batch.num_rows());
            if let Some(column) = known.column_statistics.get_mut(lsn) {
                column.null_count = Precision::Exact(0);
                column.min_value = Precision::Exact(ScalarValue::Int64(Some(part.lo.0)));
                column.max_value = Precision::Exact(ScalarValue::Int64(Some(part.hi.0)));
            }
            Arc::new(known)
        })
        .collect();
    containers(schema, &known, predicate)
}

/// Statistics as the pruning predicate wants them. DataFusion's own adapter gives up on a column as
/// soon as one container lacks a value for it.
struct Bounds<'a> {
    schema: &'a SchemaRef,
    containers: &'a [Arc<Statistics>],
}

impl Bounds<'_> {
    fn values(
        &self,
        column: &Column,
        pick: impl Fn(&ColumnStatistics) -> &Precision<ScalarValue>,
    ) -> Option<ArrayRef> {
        let (index, field) = self.schema.column_with_name(column.name())?;
        let unknown = ScalarValue::try_from(field.data_type()).ok()?;
        let values = self.containers.iter().map(|known| {
            match known.column_statistics.get(index).map(&pick) {
                Some(Precision::Exact(v)) if v.data_type() == *field.data_type() => v.clone(),
                _ => unknown.clone(),
            }
        });
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |c| &c.min_value)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |c| &c.max_value)
    }

    fn num_containers(&self) -> usize {
        self.containers.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.schema.index_of(column.name()).ok()?;
        let counts = self.containers.iter().map(|known| {
            known
                .column_statistics
                .get(index)
                .and_then(|c| exact(&c.null_count))
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts = self.containers.iter().map(|known| exact(&known.num_rows));
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
