//! Deleting data files that no version within reach needs any more.
//!
//! Reads the log and lists the table's folder; knows nothing of who else may be reading: the caller
//! says which files are in use and since when every file that is being written is younger.

use std::collections::{HashMap, HashSet};

use deltalake::kernel::Add;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};

use super::LakeSnapshot;
use super::crash::crash_point;
use crate::error::{Error, Result};

/// A data file that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Path relative to the root.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// How far back files are kept, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    /// Files that left the table before this go.
    pub removed_before: i64,
    /// Files the log does not know go when they were written before this.
    pub unknown_before: i64,
}

/// Data files that are neither part of the table nor among `used`, and lie behind the horizon.
pub async fn garbage(
    snapshot: &LakeSnapshot,
    used: &HashSet<String>,
    horizon: Horizon,
) -> Result<Vec<Garbage>> {
    let active: HashSet<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    let removed = removed(snapshot).await?;
    let store = snapshot.table.object_store();
    let mut listed = store.list(None);
    let mut found = Vec::new();
    while let Some(meta) = listed.try_next().await.map_err(storage)? {
        let path = meta.location.as_ref();
        if hidden(path) || active.contains(path) || used.contains(path) {
            continue;
        }
        let gone = match removed.get(path) {
            Some(at) => *at < horizon.removed_before,
            None => meta.last_modified.timestamp_millis() < horizon.unknown_before,
        };
        if gone {
            found.push(Garbage {
                path: path.to_owned(),
                size: meta.size,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Deletes a file of [`garbage`]; one that is gone already is no error.
pub async fn sweep(snapshot: &LakeSnapshot, file: &Garbage) -> Result<()> {
    crash_point("vacuum-before-delete");
    delete(snapshot, &file.path).await?;
    crash_point("vacuum-after-delete");
    Ok(())
}

/// Deletes files that were written and not committed. Failing leaves them to a vacuum.
pub async fn discard(snapshot: &LakeSnapshot, adds: &[Add]) {
    for add in adds {
        if let Err(e) = delete(snapshot, &add.path).await {
            tracing::debug!(error = %e, "a file that was not needed stays");
        }
    }
}

async fn delete(snapshot: &LakeSnapshot, path: &str) -> Result<()> {
    let path = Path::parse(path).unwrap_or_else(|_| Path::from(path));
    match snapshot.table.object_store().delete(&path).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(e) => Err(storage(e)),
    }
}

/// When files left the table, by path, as far as the log remembers.
async fn removed(snapshot: &LakeSnapshot) -> Result<HashMap<String, i64>> {
    let log = snapshot.table.log_store();
    let mut tombstones = snapshot.table.snapshot()?.all_tombstones(log.as_ref());
    let mut removed = HashMap::new();
    while let Some(tombstone) = tombstones.try_next().await? {
        let at = tombstone.deletion_timestamp().unwrap_or(0);
        let path = tombstone.path().into_owned();
        let newest = removed.entry(path).or_insert(at);
        *newest = at.max(*newest);
    }
    Ok(removed)
}

/// The log, and what other engines keep beside the data; folders of partitions are not hidden.
fn hidden(path: &str) -> bool {
    path.split('/')
        .any(|part| part.starts_with(['_', '.']) && !part.contains('='))
}

fn storage(e: StoreError) -> Error {
    Error::Delta(e.into())
}
