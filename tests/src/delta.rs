//! Reading a Delta table as a stranger would: by the `deltalake` crate alone, from its address.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use url::Url;

/// Rows of `query` over the table at `location`, which the query calls `t`.
pub async fn query(location: &str, query: &str) -> Vec<RecordBatch> {
    let table = open(location).await;
    let provider = table
        .table_provider()
        .await
        .expect("a readable Delta table");
    let context = SessionContext::new();
    context.register_table("t", provider).expect("registers");
    let frame = context.sql(query).await.expect("plans");
    frame.collect().await.expect("reads")
}

/// Names of a table's columns.
pub async fn columns(location: &str) -> Vec<String> {
    let table = open(location).await;
    let provider = table
        .table_provider()
        .await
        .expect("a readable Delta table");
    let schema = provider.schema();
    schema.fields().iter().map(|f| f.name().clone()).collect()
}

async fn open(location: &str) -> DeltaTable {
    let url = Url::parse(location)
        .or_else(|_| Url::from_directory_path(location))
        .expect("a table's address");
    deltalake::open_table(url)
        .await
        .expect("a valid Delta table")
}

/// How many rows the table at `location` holds.
pub async fn count(location: &str) -> i64 {
    let batches = query(location, "SELECT count(*) FROM t").await;
    let column = batches[0].column(0);
    let counts = column.as_any().downcast_ref::<arrow::array::Int64Array>();
    counts.expect("a count").value(0)
}

/// The Delta tables under a directory: every directory that holds a `_delta_log`.
pub fn tables_under(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        let entries = std::fs::read_dir(&dir).into_iter().flatten();
        let dirs = entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.is_dir());
        for path in dirs {
            if path.file_name().is_some_and(|n| n == "_delta_log") {
                found.push(dir.clone());
            } else if path.file_name().is_none_or(|n| n != "_weir") {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}
