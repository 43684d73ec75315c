//! Rows on their way into a table: by name, cast, defaults, generated columns, constraints.
//!
//! INSERT, COPY, the ingest doors and the new rows of UPDATE and MERGE all pass here.

mod cast;

pub(super) use cast::to_column;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
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
        self.check_nulls(&arrays)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        self.check_checks(&batch)?;
        Ok(batch)
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
                return Err(Error::refused(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        column.name, self.relation.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_checks(&self, batch: &RecordBatch) -> Result<()> {
        for (name, expr) in &self.checks {
            let holds = evaluate(expr, batch)?;
            let broken = holds
                .as_boolean_opt()
                .is_none_or(|b| b.iter().any(|v| v == Some(false)));
            if broken {
                return Err(Error::refused(
                    SqlState::CHECK_VIOLATION,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{name}\"",
                        self.relation.name
                    ),
                ));
            }
        }
        Ok(())
    }
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
