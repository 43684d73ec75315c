//! The background: each kind of upkeep has its own loop, which goes from table to table.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use catalog::Oid;
use tokio_util::sync::CancellationToken;

use super::{compact, log, publish, retention, vacuum, verify};
use crate::engine::Engine;
use crate::engine::activity::now_micros;
use crate::error::{Error, Result, SqlState};
use crate::lake::{CHECKPOINT_INTERVAL, LakeSnapshot};
use crate::tasks::{self, AbortOnDrop};

/// Work that is due seldom is not put off by restarts for longer than this.
const FIRST_LOOK: Duration = Duration::from_secs(10 * 60);

/// Time between two looks for results that are to be published.
const PUBLISH_LOOK: Duration = Duration::from_millis(250);

/// Starts what the configuration asks for.
pub fn start(engine: &Arc<Engine>) -> Vec<AbortOnDrop<()>> {
    let config = engine.config.jobs;
    let mut tasks = Vec::new();
    tasks.extend(every(engine, "compaction", config.compaction_interval, {
        move |engine: Arc<Engine>| async move {
            for (oid, _) in tables(&engine, true) {
                if engine.stream.cannot_flush() {
                    return;
                }
                let trigger = config.compaction_files;
                report(
                    "compaction",
                    oid,
                    compact::merge_small(&engine, oid, trigger).await,
                );
            }
        }
    }));
    tasks.extend(every(engine, "checkpoints", config.checkpoint_interval, {
        let last = Arc::new(tokio::sync::Mutex::new(HashMap::new()));
        move |engine: Arc<Engine>| {
            let last = Arc::clone(&last);
            async move {
                let mut last = last.lock().await;
                let all = logs(&engine);
                last.retain(|oid, _| all.iter().any(|(there, _)| there == oid));
                for (oid, snapshot) in all {
                    let known = last.entry(oid).or_default();
                    let done = log::checkpoint(&engine, oid, &snapshot, known).await;
                    report("checkpoint", oid, done);
                }
            }
        }
    }));
    tasks.extend(every(engine, "log cleanup", config.log_cleanup_interval, {
        move |engine: Arc<Engine>| async move {
            for (oid, snapshot) in logs(&engine) {
                // without a checkpoint, all of the log is needed
                if snapshot.version < CHECKPOINT_INTERVAL {
                    continue;
                }
                let done = log::clean(&engine, oid, &snapshot, config.log_retention).await;
                report("log cleanup", oid, done);
            }
        }
    }));
    tasks.extend(every(engine, "vacuum", config.vacuum_interval, {
        move |engine: Arc<Engine>| async move {
            let states: Vec<Oid> = engine.stream.head().views.keys().copied().collect();
            for (oid, _) in logs(&engine) {
                let keep = config.vacuum_retention;
                let done = vacuum::scheduled(&engine, oid, states.contains(&oid), keep).await;
                report("vacuum", oid, done);
            }
        }
    }));
    tasks.extend(every(engine, "retention", config.retention_interval, {
        move |engine: Arc<Engine>| async move {
            let visible = engine.stream.head().visible;
            if let Err(e) = engine.clock.mark(now_micros(), visible) {
                tracing::warn!(error = %e, "cannot write the clock of the log");
            }
            for (oid, _) in tables(&engine, true) {
                report("retention", oid, retention::enforce(&engine, oid).await);
            }
            let views: Vec<Oid> = engine.stream.head().views.keys().copied().collect();
            for oid in views {
                report("retention", oid, retention::of_view(&engine, oid).await);
            }
        }
    }));
    tasks.extend(every(engine, "publishing", Some(PUBLISH_LOOK), {
        let last = Arc::new(tokio::sync::Mutex::new(HashMap::new()));
        move |engine: Arc<Engine>| {
            let last = Arc::clone(&last);
            async move {
                let mut last = last.lock().await;
                let views: Vec<Oid> = engine.stream.head().views.keys().copied().collect();
                last.retain(|oid, _| views.contains(oid));
                for oid in views {
                    let known = last.entry(oid).or_default();
                    report("publish", oid, publish::publish(&engine, oid, known).await);
                }
            }
        }
    }));
    let pace = config.verify_interval.filter(|_| config.verify_keys > 0);
    tasks.extend(every(engine, "verifying", pace, {
        let last = Arc::new(tokio::sync::Mutex::new(HashMap::new()));
        move |engine: Arc<Engine>| {
            let last = Arc::clone(&last);
            async move {
                let mut last = last.lock().await;
                if let Some(oid) = verify::next(&engine, &mut last) {
                    let keys = config.verify_keys;
                    report("verify", oid, verify::verify(&engine, oid, keys).await);
                }
            }
        }
    }));
    tasks
}

/// A loop that does `work` each time the interval is over, until the engine stops or is gone.
fn every<W, F>(
    engine: &Arc<Engine>,
    name: &'static str,
    interval: Option<Duration>,
    work: W,
) -> Option<AbortOnDrop<()>>
where
    W: Fn(Arc<Engine>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let interval = interval?;
    let stop = engine.stop.clone();
    let engine = Arc::downgrade(engine);
    Some(AbortOnDrop::new(tasks::spawn(name, async move {
        let mut pause = interval.min(FIRST_LOOK);
        while waited(&stop, pause).await {
            // the engine owns this task: it is held only while there is work
            let Some(engine) = Weak::upgrade(&engine) else {
                return;
            };
            work(engine).await;
            pause = interval;
        }
    })))
}

/// False when it is time to stop.
async fn waited(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

/// Tables with what they have stored.
fn tables(engine: &Engine, streaming: bool) -> Vec<(Oid, Arc<LakeSnapshot>)> {
    let head = engine.stream.head();
    let all = head.tables.values().filter(|t| t.streaming || !streaming);
    all.map(|t| (t.oid, Arc::clone(&t.lake))).collect()
}

/// Everything that has a log: tables and states of views.
fn logs(engine: &Engine) -> Vec<(Oid, Arc<LakeSnapshot>)> {
    let head = engine.stream.head();
    let states = head
        .views
        .iter()
        .map(|(oid, v)| (*oid, Arc::clone(&v.state)));
    let mut all = tables(engine, false);
    all.extend(states);
    all
}

/// A failure is logged once and tried again next time.
fn report<T>(job: &'static str, object: Oid, result: Result<T>) {
    match result {
        Ok(_) => {}
        // dropped meanwhile, or told to stop
        Err(e) if is_gone(&e) => tracing::debug!(job, %object, error = %e, "upkeep ended early"),
        Err(e) => tracing::warn!(job, %object, error = ?e, "upkeep failed"),
    }
}

fn is_gone(e: &Error) -> bool {
    matches!(
        e.state(),
        SqlState::UNDEFINED_TABLE | SqlState::QUERY_CANCELED
    )
}
