//! What was done to a table, read from its log.

use std::collections::BTreeMap;

use deltalake::DeltaTable;
use serde_json::Value;

use super::LakeSnapshot;
use crate::error::{Error, Result};

/// One commit, as `DESCRIBE HISTORY` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRecord {
    /// Delta version.
    pub version: i64,
    /// When, in microseconds since the Unix epoch.
    pub at_micros: i64,
    /// `CREATE TABLE`, `WRITE`, `DELETE`, …
    pub operation: String,
    /// Its parameters as the log has them.
    pub parameters: BTreeMap<String, String>,
    /// Metrics of the operation, where it recorded any.
    pub metrics: BTreeMap<String, String>,
    /// Rows in the files it added, when their counts are known.
    pub rows_added: Option<i64>,
    /// Files it added.
    pub files_added: u64,
    /// Files it removed.
    pub files_removed: u64,
}

/// The newest `limit` commits, newest first; ends early where the log was cleaned.
pub async fn history(snapshot: &LakeSnapshot, limit: usize) -> Result<Vec<CommitRecord>> {
    let mut records = Vec::new();
    let mut version = snapshot.version;
    while records.len() < limit && version >= 0 {
        let Some(actions) = commit_actions(&snapshot.table, version.unsigned_abs()).await? else {
            break;
        };
        records.push(record(version, &actions));
        version -= 1;
    }
    Ok(records)
}

/// When a version was committed: what the commit says, else zero.
pub(super) async fn commit_time_ms(table: &DeltaTable, version: u64) -> Result<i64> {
    let actions = commit_actions(table, version).await?.unwrap_or_default();
    Ok(info(&actions).and_then(time_ms).unwrap_or(0))
}

async fn commit_actions(table: &DeltaTable, version: u64) -> Result<Option<Vec<Value>>> {
    let Some(bytes) = table.log_store().read_commit_entry(version).await? else {
        return Ok(None);
    };
    serde_json::Deserializer::from_slice(&bytes)
        .into_iter::<Value>()
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
        .map_err(|e| Error::Delta(e.into()))
}

fn info(actions: &[Value]) -> Option<&Value> {
    actions.iter().find_map(|action| action.get("commitInfo"))
}

fn time_ms(info: &Value) -> Option<i64> {
    info.get("inCommitTimestamp")
        .or_else(|| info.get("timestamp"))
        .and_then(Value::as_i64)
}

fn record(version: i64, actions: &[Value]) -> CommitRecord {
    let info = info(actions);
    let adds: Vec<&Value> = actions.iter().filter_map(|a| a.get("add")).collect();
    let removes = actions.iter().filter(|a| a.get("remove").is_some()).count();
    CommitRecord {
        version,
        at_micros: info.and_then(time_ms).unwrap_or(0).saturating_mul(1000),
        operation: info
            .and_then(|i| i.get("operation"))
            .and_then(Value::as_str)
            .unwrap_or("UNKNOWN")
            .to_owned(),
        parameters: texts(info.and_then(|i| i.get("operationParameters"))),
        metrics: texts(info.and_then(|i| i.get("operationMetrics"))),
        rows_added: adds.iter().map(|add| rows(add)).sum(),
        files_added: adds.len() as u64,
        files_removed: removes as u64,
    }
}

fn rows(add: &Value) -> Option<i64> {
    let stats: Value = serde_json::from_str(add.get("stats")?.as_str()?).ok()?;
    stats.get("numRecords")?.as_i64()
}

fn texts(object: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = object else {
        return BTreeMap::new();
    };
    // a table's whole schema and protocol are no parameters that a reader looks for
    map.iter()
        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "protocol"))
        .map(|(key, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (key.clone(), text)
        })
        .collect()
}
