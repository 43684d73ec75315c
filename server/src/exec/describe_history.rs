//! `DESCRIBE HISTORY t`: the commits of a table's Delta log, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::{Privilege, SqlType};

use super::{Outcome, Run, relations, rows};
use crate::dialect::DescribeHistory;
use crate::error::{Error, Result};
use crate::governance::privileges;
use crate::lake::{self, CommitRecord};
use crate::types::field;

/// Commits shown; older ones are still there for `VERSION AS OF`.
const LIMIT: usize = 1000;

/// The columns.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("version", &SqlType::Int8, false),
        field("committed_at", &SqlType::Timestamptz, false),
        field("operation", &SqlType::Text, false),
        field("parameters", &SqlType::Jsonb, false),
        field("metrics", &SqlType::Jsonb, false),
        field("rows_added", &SqlType::Int8, true),
        field("files_added", &SqlType::Int8, false),
        field("files_removed", &SqlType::Int8, false),
    ]))
}

/// Runs the statement.
pub(super) async fn execute(run: &Run, s: &DescribeHistory) -> Result<Outcome> {
    let scope = &run.scope;
    let table = relations::find_table(scope, &s.name)?;
    privileges::check_relation(&scope.catalog, &scope.caller.role, table, Privilege::Select)?;
    scope.touch(table.oid);
    let Some(head) = scope.head.tables.get(&table.oid) else {
        return Err(Error::undefined_table(&table.name));
    };
    let commits = lake::history(&head.lake, LIMIT).await?;
    Ok(rows::of_batch("DESCRIBE", batch(&commits)?))
}

fn batch(commits: &[CommitRecord]) -> Result<RecordBatch> {
    let numbers = |pick: fn(&CommitRecord) -> Option<i64>| -> ArrayRef {
        Arc::new(commits.iter().map(pick).collect::<Int64Array>())
    };
    let json = |pick: fn(&CommitRecord) -> &BTreeMap<String, String>| -> ArrayRef {
        let texts = commits
            .iter()
            .map(|c| serde_json::json!(pick(c)).to_string());
        Arc::new(StringArray::from_iter_values(texts))
    };
    let times = TimestampMicrosecondArray::from_iter_values(commits.iter().map(|c| c.at_micros));
    let operations = commits.iter().map(|c| c.operation.as_str());
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            numbers(|c| Some(c.version)),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values(operations)),
            json(|c| &c.parameters),
            json(|c| &c.metrics),
            numbers(|c| c.rows_added),
            numbers(|c| i64::try_from(c.files_added).ok()),
            numbers(|c| i64::try_from(c.files_removed).ok()),
        ],
    )?)
}
