//! `VERIFY AUDIT`: recomputes the hash chain of the audit log, from its first row.

use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::AuditRow;
use catalog::store::audit_chain;

use super::{Outcome, Run, rows};
use crate::error::Result;
use crate::governance::privileges;

/// Rows held in memory at a time.
const PAGE: i64 = 1000;

/// Columns of the answer.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("rows", DataType::Int64, false),
        Field::new("valid", DataType::Boolean, false),
        Field::new("first_bad_seq", DataType::Int64, true),
    ]))
}

/// Answers with one row: how many rows were read, whether they are what was written, and where not.
pub(super) async fn execute(run: &Run) -> Result<Outcome> {
    let scope = &run.scope;
    privileges::check_superuser(&scope.catalog, &scope.caller.role, "verify the audit log")?;
    let mut last: Option<AuditRow> = None;
    let mut count = 0_i64;
    let mut bad = None;
    while bad.is_none() {
        let after = last.as_ref().map_or(0, |row| row.seq);
        let page = scope.engine.store.audit(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        bad = match &last {
            None => audit_chain::verify(&page),
            Some(last) => audit_chain::verify_after(last, &page),
        }
        .err();
        count += i64::try_from(page.len()).unwrap_or(PAGE);
        last = page.into_iter().next_back();
    }
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(vec![count])),
            Arc::new(BooleanArray::from(vec![bad.is_none()])),
            Arc::new(Int64Array::from(vec![bad])),
        ],
    )?;
    Ok(rows::of_batch("VERIFY", batch))
}
