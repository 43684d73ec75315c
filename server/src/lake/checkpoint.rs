//! Checkpoints of a table's log, and removing what of the log lies before them.
//!
//! Both read or list the whole log, so no commit waits for them: they are background work.

use std::time::Duration;

use deltalake::checkpoints;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use serde_json::Value;

use super::LakeSnapshot;
use super::crash::crash_point;
use crate::error::{Error, Result};

/// Commits after which a checkpoint is worth its cost.
pub const CHECKPOINT_INTERVAL: i64 = 50;

/// The version of the newest checkpoint, when there is one.
pub async fn last_checkpoint(snapshot: &LakeSnapshot) -> Result<Option<i64>> {
    let hint = Path::from("_delta_log/_last_checkpoint");
    let found = match snapshot.table.object_store().get(&hint).await {
        Ok(found) => found,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(Error::Delta(e.into())),
    };
    let bytes = found.bytes().await.map_err(|e| Error::Delta(e.into()))?;
    // one that cannot be read is as good as none: the next checkpoint writes it again
    let hint: Option<Value> = serde_json::from_slice(&bytes).ok();
    Ok(hint.and_then(|h| h.get("version").and_then(Value::as_i64)))
}

/// Sums up the log up to the snapshot's version, so opening the table stays quick. Blocks its thread
/// while it writes: call it inside [`super::Compute::run`].
pub async fn checkpoint(snapshot: &LakeSnapshot) -> Result<()> {
    crash_point("checkpoint-before-write");
    checkpoints::create_checkpoint(&snapshot.table, None).await?;
    crash_point("checkpoint-after-write");
    Ok(())
}

/// Removes commits and checkpoints that are older than `keep` and not needed to read a younger version or
/// one from the checkpoint at version `base` on; how many files went. No handle may know the log from
/// before `base`.
pub async fn clean_log(snapshot: &LakeSnapshot, base: i64, keep: Duration) -> Result<usize> {
    let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let cutoff = chrono::Utc::now().timestamp_millis().saturating_sub(keep);
    let base = u64::try_from(base)
        .map_err(|_| Error::Internal("table version out of range".to_owned()))?;
    crash_point("clean-log-before-delete");
    let log = snapshot.table.log_store();
    let gone = checkpoints::cleanup_expired_logs_for(base, log.as_ref(), cutoff, None).await?;
    crash_point("clean-log-after-delete");
    Ok(gone)
}
