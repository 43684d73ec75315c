//! Which columns the data files of a table keep Bloom filters of.
//!
//! The table says so itself, as a property in its Delta log: whatever writes its files (flush, DML,
//! compaction, retention) finds it there. Files of before stay as they are until they are written anew.

use std::collections::HashMap;

use deltalake::kernel::transaction::CommitProperties;

use super::LakeSnapshot;
use crate::error::Result;

/// The property, as Impala has it: names with commas between.
const PROPERTY: &str = "parquet.bloom.filter.columns";

/// The property of a table with filters of these columns, if there are any.
pub(super) fn property(columns: &[String]) -> Option<(&'static str, Option<String>)> {
    (!columns.is_empty()).then(|| (PROPERTY, Some(columns.join(","))))
}

/// The columns of a table's property.
pub(super) fn columns(snapshot: &LakeSnapshot) -> Result<Vec<String>> {
    let state = snapshot.table.snapshot()?;
    let names = state.metadata().configuration().get(PROPERTY);
    let names = names.map(String::as_str).unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Lets a table's files keep filters of these columns from now on; nothing when they do already.
pub async fn keep_bloom_filters(
    snapshot: LakeSnapshot,
    wanted: &[String],
) -> Result<Option<LakeSnapshot>> {
    if columns(&snapshot)? == wanted {
        return Ok(None);
    }
    let property = (PROPERTY.to_owned(), wanted.join(","));
    let table = snapshot
        .table
        .clone()
        .set_tbl_properties()
        .with_properties(HashMap::from([property]))
        .with_raise_if_not_exists(false)
        .with_commit_properties(CommitProperties::default().with_cleanup_expired_logs(Some(false)))
        .await?;
    snapshot.with_table(table).map(Some)
}
