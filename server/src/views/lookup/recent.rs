//! Rows of a stream that a state does not count yet, as far as they are of one key.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::gt;
use arrow::datatypes::{Schema, SchemaRef};
use catalog::Oid;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::{Ours, equal, flat, matching, physical, position};
use crate::engine::scan::{self, WeirTable};
use crate::error::Result;
use crate::stream::head::{Lsn, TailBatch};
use crate::types::LSN;

/// What is made of a table's rows.
#[derive(Debug)]
pub(super) struct Recent {
    table: Oid,
    /// The position, then the columns that are needed.
    schema: SchemaRef,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// Keys, then what the aggregates take.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    rows: SchemaRef,
}

impl Recent {
    /// From the rows of new states; nothing when they are not just rows of one table above a position.
    pub(super) fn of(
        rows: &LogicalPlan,
        ours: Ours<'_>,
        state: &SessionState,
    ) -> Result<Option<Self>> {
        let Some(flat) = flat::over_table(rows, ours)? else {
            return Ok(None);
        };
        let scan = flat.base;
        let Some(table) = WeirTable::behind(&scan.source).filter(WeirTable::has_lsn) else {
            return Ok(None);
        };
        let (above, conditions): (Vec<Expr>, Vec<Expr>) =
            flat.conditions.into_iter().partition(is_above);
        let positions = |e: &Expr| e.column_refs().iter().any(|c| c.name == LSN);
        if above.len() != 1 || conditions.iter().chain(&flat.exprs).any(positions) {
            return Ok(None);
        }
        let mut needed = conditions
            .iter()
            .chain(&flat.exprs)
            .flat_map(|e| e.column_refs().into_iter().map(|c| c.name.clone()))
            .collect::<Vec<_>>();
        needed.push(LSN.to_owned());
        let all = scan.source.schema();
        let fields = all.fields().iter().filter(|f| needed.contains(f.name()));
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let known = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &schema)?;
        let physical = |exprs: Vec<Expr>| {
            let made = exprs.into_iter().map(|e| physical(e, &known, state));
            made.collect::<Result<Vec<_>>>()
        };
        Ok(Some(Self {
            table: table.head().oid,
            conditions: physical(conditions)?,
            columns: physical(flat.exprs)?,
            rows: Arc::new(rows.schema().as_arrow().clone()),
            schema,
        }))
    }

    pub(super) fn table(&self) -> Oid {
        self.table
    }

    /// The columns that batches must have.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A part of the tail in those columns.
    pub(super) fn conformed(&self, part: &TailBatch) -> Result<RecordBatch> {
        Ok(scan::conform(part, &self.schema)?)
    }

    /// The rows of a batch above a position and of a key, as the aggregates take them.
    pub(super) fn of_key(
        &self,
        batch: &RecordBatch,
        above: Lsn,
        key: &[ScalarValue],
    ) -> Result<Option<RecordBatch>> {
        let keys = self.columns.iter().take(key.len());
        let keys = keys.map(|c| c.evaluate(batch)?.into_array(batch.num_rows()));
        let keys = keys.collect::<datafusion::error::Result<Vec<ArrayRef>>>()?;
        let Some(mask) = equal(keys.iter().zip(key))? else {
            return Ok(None);
        };
        let mut some = filter_record_batch(batch, &mask)?;
        if let Some(positions) = some.column_by_name(LSN) {
            let newer = gt(positions, &position(above).to_scalar()?)?;
            some = filter_record_batch(&some, &newer)?;
        }
        for condition in &self.conditions {
            some = matching(&some, condition)?;
        }
        if some.num_rows() == 0 {
            return Ok(None);
        }
        let columns = self.columns.iter();
        let columns = columns.map(|c| c.evaluate(&some)?.into_array(some.num_rows()));
        let columns = columns.collect::<datafusion::error::Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(some.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.rows), columns, &options)?;
        Ok(Some(rows))
    }
}

/// A value, also one that is brought to the other side's type.
fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_literal(&cast.expr),
        _ => false,
    }
}

/// `_lsn > n`: the position that the state stood at.
fn is_above(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Gt,
            right,
        }) => matches!(left.as_ref(), Expr::Column(c) if c.name == LSN) && is_literal(right),
        _ => false,
    }
}
