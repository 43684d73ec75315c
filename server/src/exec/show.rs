//! `SHOW name` and `SHOW ALL`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast::Ident;

use super::{Outcome, Run, rows};
use crate::error::{Error, Result, SqlState};

/// One setting, or all of them with their descriptions.
pub(super) async fn execute(run: &Run, variable: &[Ident]) -> Result<Outcome> {
    let session = run.session()?;
    let name = name_of(variable);
    let columns: Vec<ArrayRef> = if name == "all" {
        let all = session.with_settings(|s| s.list());
        vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|s| s.name))),
            Arc::new(all.iter().map(|s| s.value.clone()).collect::<StringArray>()),
            Arc::new(StringArray::from_iter_values(
                all.iter().map(|s| s.description),
            )),
        ]
    } else {
        let value = session.setting(&name).ok_or_else(|| {
            Error::refused(
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            )
        })?;
        vec![Arc::new(StringArray::from(vec![value]))]
    };
    let batch = RecordBatch::try_new(schema(variable), columns)?;
    std::future::ready(Ok(rows::of_batch("SHOW", batch))).await
}

/// Its columns.
pub(super) fn schema(variable: &[Ident]) -> SchemaRef {
    let name = name_of(variable);
    let names = match name.as_str() {
        "all" => vec!["name", "setting", "description"],
        "timezone" | "time zone" => vec!["TimeZone"],
        "transaction isolation level" => vec!["transaction_isolation"],
        other => vec![other],
    };
    let field = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(
        names.into_iter().map(field).collect::<Vec<_>>(),
    ))
}

fn name_of(variable: &[Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|w| w.value.to_lowercase()).collect();
    match words.first().map(String::as_str) {
        Some("time" | "transaction") => words.join(" "),
        _ => words.join("."),
    }
}
