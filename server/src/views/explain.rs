//! `EXPLAIN CREATE MATERIALIZED VIEW` and `EXPLAIN MATERIALIZED VIEW`: how a query is kept, as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::analysis::{Examination, Finding};
use crate::error::Result;

/// The columns of [`explain`].
pub fn schema() -> SchemaRef {
    let columns = ["node", "strategy", "code", "detail", "fix"];
    Arc::new(Schema::new(
        columns
            .map(|name| Field::new(name, DataType::Utf8, false))
            .to_vec(),
    ))
}

/// One row per remark; a refused query explains itself as well as an accepted one.
pub fn explain(examination: &Examination) -> Result<RecordBatch> {
    let column = |pick: fn(&Finding) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            examination.findings.iter().map(pick),
        ))
    };
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            column(|f| &f.node),
            column(|f| f.strategy),
            column(|f| &f.code),
            column(|f| &f.detail),
            column(|f| &f.fix),
        ],
    )?)
}
