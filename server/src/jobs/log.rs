//! Checkpoints and cleaning of the tables' logs, away from their commits.

use std::sync::Arc;
use std::time::Duration;

use catalog::Oid;

use super::registry::Trigger;
use crate::engine::Engine;
use crate::error::Result;
use crate::lake::{self, CHECKPOINT_INTERVAL, LakeSnapshot};

/// Writes a checkpoint when the last one is many commits ago. `known` is the version of the last one, as
/// far as it was looked up.
pub(super) async fn checkpoint(
    engine: &Arc<Engine>,
    oid: Oid,
    snapshot: &Arc<LakeSnapshot>,
    known: &mut Option<i64>,
) -> Result<()> {
    let due = |last: Option<i64>| snapshot.version - last.unwrap_or(0) >= CHECKPOINT_INTERVAL;
    if !due(*known) {
        return Ok(());
    }
    if known.is_none() {
        *known = lake::last_checkpoint(snapshot).await?;
        if !due(*known) {
            return Ok(());
        }
    }
    let job = engine.jobs.begin("checkpoint", oid, Trigger::Schedule);
    let of = Arc::clone(snapshot);
    let work = async move { lake::checkpoint(&of).await };
    let result = engine.stream.compute().run(work).await;
    if result.is_ok() {
        *known = Some(snapshot.version);
        engine.stream.anchor(oid).await?;
    }
    job.end(&result, Some(format!("version {}", snapshot.version)));
    result
}

/// Removes old commits from a log, once the head knows it from a checkpoint behind them on.
pub(super) async fn clean(
    engine: &Arc<Engine>,
    oid: Oid,
    snapshot: &Arc<LakeSnapshot>,
    keep: Duration,
) -> Result<()> {
    // a vacuum reads the log too
    let Some(_turn) = engine.jobs.turn_now(oid) else {
        return Ok(());
    };
    let Some(base) = lake::last_checkpoint(snapshot).await? else {
        return Ok(());
    };
    if !engine.stream.anchor(oid).await? {
        return Ok(());
    }
    let job = engine.jobs.begin("log cleanup", oid, Trigger::Schedule);
    let of = Arc::clone(snapshot);
    let work = async move { lake::clean_log(&of, base, keep).await };
    let result = engine.stream.compute().run(work).await;
    let detail = result.as_ref().ok();
    job.end(
        &result,
        detail.map(|gone| format!("{gone} files of the log removed")),
    );
    result.map(|_| ())
}
