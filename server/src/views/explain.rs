//! `EXPLAIN CREATE MATERIALIZED VIEW` and `EXPLAIN MATERIALIZED VIEW`: how a query is kept, as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::analysis::{Examination, Finding};
use super::options::Kept;
use super::read::{is_current, newest};
use crate::error::Result;
use crate::stream::head::DbHead;

/// The columns of [`explain`].
pub fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("node"),
        text("strategy"),
        text("code"),
        text("detail"),
        Field::new("cost", DataType::Utf8, true),
        Field::new("state_bytes", DataType::Int64, true),
        text("fix"),
    ]))
}

/// One row per remark; a refused query explains itself as well as an accepted one. Of a view that is
/// there, also what a read has to look at, and what is stored.
pub fn explain(examination: &Examination, there: Option<(&Kept, &DbHead)>) -> Result<RecordBatch> {
    let findings = &examination.findings;
    let column = |pick: fn(&Finding) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(findings.iter().map(pick)))
    };
    let cost = there.and_then(|(kept, head)| cost(kept, head));
    let bytes = there.and_then(|(kept, head)| state_bytes(kept, head));
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            column(|f| &f.node),
            column(|f| f.strategy),
            column(|f| &f.code),
            column(|f| &f.detail),
            Arc::new(StringArray::from_iter(
                findings.iter().map(|_| cost.clone()),
            )),
            Arc::new(Int64Array::from_iter(findings.iter().map(|_| bytes))),
            column(|f| &f.fix),
        ],
    )?)
}

/// What a read looks at now.
fn cost(kept: &Kept, head: &DbHead) -> Option<String> {
    let view = head.views.get(&kept.oid)?;
    let rows = view.state.rows().unwrap_or(0);
    let new = newest(kept, head).0.saturating_sub(view.durable.0).max(0);
    Some(match (kept.options.schedule, kept.strategy) {
        (Some(_), _) => format!("{rows} stored rows"),
        (None, catalog::Strategy::Full) if is_current(kept, view, head) => {
            format!("{rows} stored rows")
        }
        (None, catalog::Strategy::Full) => "the whole query".to_owned(),
        (None, _) if !kept.ignores_changes() && !view.is_of(&kept.sources, head) => {
            "the whole query, until the view is made anew".to_owned()
        }
        (None, _) => format!("{rows} stored rows, {new} newer positions"),
    })
}

/// Bytes that a view's state takes in storage.
pub fn state_bytes(kept: &Kept, head: &DbHead) -> Option<i64> {
    let view = head.views.get(&kept.oid)?;
    let bytes: u64 = view.state.files.iter().map(|f| f.size).sum();
    Some(bytes.cast_signed())
}
