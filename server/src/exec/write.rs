//! Rows on their way into a table: by name, cast, defaults, generated columns, constraints.
//!
//! INSERT, COPY, the ingest doors and the new rows of UPDATE and MERGE all pass here.

mod cast;
#[cfg(test)]
mod tests;

pub(super) use cast::to_column;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use catalog::{Relation, SqlType};
use datafusion::common::DFSchema;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{Expr, ExprWithAlias};

use crate::dialect;
use crate::engine::scope::Scope;
use crate::error::{Error, Result, SqlState};
use crate::types;

/// What a table asks of its rows, ready to be applied to batches.
#[derive(Debug)]
pub(super) struct Intake {
    relation: Relation,
    schema: SchemaRef,
    zone: String,
    defaults: Vec<Option<Arc<dyn PhysicalExpr>>>,
    generated: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

impl Intake {
    /// Prepares a table's defaults, generated columns and checks.
    pub(super) fn new(scope: &Arc<Scope>, relation: &Relation) -> Result<Self> {
        let schema = types::schema(&relation.columns);
        let mut intake = Self {
            relation: relation.clone(),
            schema: Arc::clone(&schema),
            zone: scope.caller.time_zone.clone(),
            defaults: vec![None; relation.columns.len()],
            generated: Vec::new(),
            checks: Vec::new(),
        };
        let plain = relation.checks.is_empty()
            && relation
                .columns
                .iter()
                .all(|c| c.default.is_none() && c.generated.is_none());
        if plain {
            return Ok(intake);
        }
        let state = scope.state()?;
        let columns = DFSchema::try_from(schema.as_ref().clone())?;
        let nothing = DFSchema::empty();
        let make = |text: &str, over: &DFSchema| -> Result<Arc<dyn PhysicalExpr>> {
            physical_expr(&state, dialect::parse_expr(text)?, over)
        };
        for (at, column) in relation.columns.iter().enumerate() {
            if let Some(text) = &column.default {
                intake.defaults[at] = Some(make(text, &nothing)?);
            }
            if let Some(text) = &column.generated {
                intake.generated.push((at, make(text, &columns)?));
            }
        }
        for (name, text) in &relation.checks {
            intake.checks.push((name.clone(), make(text, &columns)?));
        }
        Ok(intake)
    }

    /// True for a column that rows may bring.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.relation
            .columns
            .iter()
            .any(|c| c.name == name && c.generated.is_none())
    }

    /// The value of a column's default, in the column's type; `None` for a column without one.
    pub(super) fn default_of(&self, at: usize) -> Result<Option<ArrayRef>> {
        let Some(Some(default)) = self.defaults.get(at) else {
            return Ok(None);
        };
        let column = &self.relation.columns[at];
        let ty = self.schema.field(at).data_type();
        to_column(&evaluate(default, &one_row(1)?)?, ty, column, &self.zone).map(Some)
    }

    /// Turns a batch whose columns carry the table's column names into rows of the table.
    ///
    /// # Errors
    /// 42703, 428C9, 22P02, 22003, 22001, 23502, 23514: none of the batch is to be stored then.
    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.check_names(batch.schema_ref())?;
        let arrays = self.columns(batch)?;
        self.check_nulls(&arrays)?;
        let batch = self.batch(arrays, batch.num_rows())?;
        self.check_checks(&batch)?;
        Ok(batch)
    }

    /// As [`Self::apply`], but takes the good rows of a batch and tells of the bad ones.
    ///
    /// # Errors
    /// 42703, 428C9, 42804: what is wrong with the columns is no row's fault.
    pub(super) fn sort(&self, batch: &RecordBatch) -> Result<Sorted> {
        let mut sorted = Sorted::default();
        match self.apply(batch) {
            Ok(rows) => sorted.good.push(rows),
            Err(e) if !is_rows_fault(&e) => return Err(e),
            Err(_) => {
                let mut good = Vec::new();
                self.halve(batch, 0, &mut good, &mut sorted.bad)?;
                // in few pieces again, in their order
                if let Some(first) = good.first() {
                    sorted.good.push(concat_batches(first.schema_ref(), &good)?);
                }
            }
        }
        Ok(sorted)
    }

    /// Casts whole pieces where they pass and halves where they do not; constraints are looked up row
    /// by row in what was cast.
    fn halve(
        &self,
        batch: &RecordBatch,
        first: usize,
        good: &mut Vec<RecordBatch>,
        bad: &mut Vec<(usize, Error)>,
    ) -> Result<()> {
        let rows = batch.num_rows();
        match self.constrained(batch) {
            Ok((kept, broken)) => {
                if kept.num_rows() > 0 {
                    good.push(kept);
                }
                bad.extend(broken.into_iter().map(|(row, e)| (first + row, e)));
                Ok(())
            }
            Err(e) if rows == 0 || !is_rows_fault(&e) => Err(e),
            Err(e) if rows == 1 => {
                bad.push((first, e));
                Ok(())
            }
            Err(_) => {
                let half = rows / 2;
                self.halve(&batch.slice(0, half), first, good, bad)?;
                self.halve(&batch.slice(half, rows - half), first + half, good, bad)
            }
        }
    }

    /// The rows that keep the table's constraints, and those that do not.
    fn constrained(&self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<(usize, Error)>)> {
        let rows = batch.num_rows();
        let arrays = self.columns(batch)?;
        let mut keep = vec![true; rows];
        let mut broken = Vec::new();
        let mut breaks = |row: usize, error: Error| {
            if std::mem::replace(&mut keep[row], false) {
                broken.push((row, error));
            }
        };
        for (column, array) in self.relation.columns.iter().zip(&arrays) {
            if column.nullable || array.null_count() == 0 {
                continue;
            }
            let nulls = (0..rows).filter(|row| array.is_null(*row));
            nulls.for_each(|row| breaks(row, self.null_in(&column.name)));
        }
        // checks are asked of rows whose columns hold what they may
        let loose: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let all = RecordBatch::try_new_with_options(
            Arc::new(Schema::new(loose)),
            arrays.clone(),
            &options,
        )?;
        for (name, expr) in &self.checks {
            let holds = evaluate(expr, &all)?;
            let holds = holds.as_boolean_opt();
            let fails = |row: &usize| holds.is_none_or(|h| h.is_valid(*row) && !h.value(*row));
            (0..rows)
                .filter(fails)
                .for_each(|row| breaks(row, self.broken_check(name)));
        }
        if broken.is_empty() {
            return Ok((self.batch(arrays, rows)?, broken));
        }
        broken.sort_by_key(|(row, _)| *row);
        let kept = filter_record_batch(&all, &BooleanArray::from(keep))?;
        let rows = kept.num_rows();
        Ok((self.batch(kept.columns().to_vec(), rows)?, broken))
    }

    /// Given rows as they can be read again elsewhere: texts for columns of JSON are JSON, and times
    /// without a zone are those of this session.
    pub(super) fn readable(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let given = batch.schema_ref().fields().iter().zip(batch.columns());
        let (fields, arrays): (Vec<_>, Vec<_>) = given
            .map(|(field, array)| {
                let same = (field.as_ref().clone(), Arc::clone(array));
                let mut columns = self.relation.columns.iter().enumerate();
                let Some((at, column)) = columns.find(|(_, c)| c.name == *field.name()) else {
                    return same;
                };
                let own = self.schema.field(at).clone().with_nullable(true);
                match column.sql_type {
                    SqlType::Json | SqlType::Jsonb if field.data_type() == own.data_type() => {
                        (own, same.1)
                    }
                    SqlType::Timestamptz if field.data_type() != own.data_type() => {
                        match to_column(array, own.data_type(), column, &self.zone) {
                            Ok(cast) => (own, cast),
                            Err(_) => same,
                        }
                    }
                    _ => same,
                }
            })
            .unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// The table's columns, cast, defaulted and generated.
    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (at, column) in self.relation.columns.iter().enumerate() {
            let ty = self.schema.field(at).data_type();
            let array = match (batch.column_by_name(&column.name), &self.defaults[at]) {
                (Some(given), _) => to_column(given, ty, column, &self.zone)?,
                (None, Some(default)) => {
                    let one = one_row(rows)?;
                    to_column(&evaluate(default, &one)?, ty, column, &self.zone)?
                }
                (None, None) => new_null_array(ty, rows),
            };
            arrays.push(array);
        }
        self.fill_generated(&mut arrays, rows)?;
        Ok(arrays)
    }

    fn check_names(&self, given: &Schema) -> Result<()> {
        for (at, field) in given.fields().iter().enumerate() {
            let Some(column) = self
                .relation
                .columns
                .iter()
                .find(|c| c.name == *field.name())
            else {
                return Err(Error::refused(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{}\" of relation \"{}\" does not exist",
                        field.name(),
                        self.relation.name
                    ),
                ));
            };
            if column.generated.is_some() {
                return Err(generated_always(&column.name));
            }
            if given.fields()[..at]
                .iter()
                .any(|f| f.name() == field.name())
            {
                return Err(Error::refused(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", field.name()),
                ));
            }
        }
        Ok(())
    }

    fn fill_generated(&self, arrays: &mut [ArrayRef], rows: usize) -> Result<()> {
        for (at, expr) in &self.generated {
            let loose: Vec<_> = self
                .schema
                .fields()
                .iter()
                .map(|f| f.as_ref().clone().with_nullable(true))
                .collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let columns = arrays.to_vec();
            let so_far =
                RecordBatch::try_new_with_options(Arc::new(Schema::new(loose)), columns, &options)?;
            let value = evaluate(expr, &so_far)?;
            let ty = self.schema.field(*at).data_type();
            arrays[*at] = to_column(&value, ty, &self.relation.columns[*at], &self.zone)?;
        }
        Ok(())
    }

    fn check_nulls(&self, arrays: &[ArrayRef]) -> Result<()> {
        for (column, array) in self.relation.columns.iter().zip(arrays) {
            if !column.nullable && array.null_count() > 0 {
                return Err(self.null_in(&column.name));
            }
        }
        Ok(())
    }

    fn null_in(&self, column: &str) -> Error {
        Error::refused(
            SqlState::NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{column}\" of relation \"{}\" violates not-null constraint",
                self.relation.name
            ),
        )
    }

    fn check_checks(&self, batch: &RecordBatch) -> Result<()> {
        for (name, expr) in &self.checks {
            let holds = evaluate(expr, batch)?;
            let broken = holds
                .as_boolean_opt()
                .is_none_or(|b| b.iter().any(|v| v == Some(false)));
            if broken {
                return Err(self.broken_check(name));
            }
        }
        Ok(())
    }

    fn broken_check(&self, name: &str) -> Error {
        Error::refused(
            SqlState::CHECK_VIOLATION,
            format!(
                "new row for relation \"{}\" violates check constraint \"{name}\"",
                self.relation.name
            ),
        )
    }
}

/// The rows of a batch, told apart.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Rows of the table, in the order they came in.
    pub(super) good: Vec<RecordBatch>,
    /// Places in the batch with the reason, ascending.
    pub(super) bad: Vec<(usize, Error)>,
}

/// True for what is wrong with a value, not with the batch or the server.
fn is_rows_fault(e: &Error) -> bool {
    let SqlState(code) = e.state();
    code.starts_with("22") || code.starts_with("23")
}

/// The refusal of a value for a generated column.
pub(super) fn generated_always(column: &str) -> Error {
    Error::refused(
        SqlState("428C9"),
        format!("cannot insert a non-DEFAULT value into column \"{column}\""),
    )
    .with_detail(format!("column \"{column}\" is a generated column"))
}

/// An expression over a table's columns, ready to be evaluated.
pub(super) fn physical_expr(
    state: &datafusion::execution::SessionState,
    expr: Expr,
    columns: &DFSchema,
) -> Result<Arc<dyn PhysicalExpr>> {
    let expr =
        state.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, columns)?;
    let expr = crate::semantics::apply_to_expr(expr, columns)?;
    Ok(state.create_physical_expr(expr, columns)?)
}

pub(super) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    match expr.evaluate(batch)? {
        ColumnarValue::Array(array) => Ok(array),
        ColumnarValue::Scalar(value) => Ok(value.to_array_of_size(batch.num_rows())?),
    }
}

/// A batch without columns, to evaluate constants over.
fn one_row(rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &options,
    )?)
}

/// True for types whose text form is checked beyond its Arrow type.
fn is_checked_text(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Varchar(_)
    )
}
