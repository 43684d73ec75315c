//! Flushes in the background: each table when its time has come, all when memory gets short.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use catalog::Oid;
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Stream;
use super::core::Core;

/// Flushes that run at once.
const AT_ONCE: usize = 2;
/// Longest pause after repeated failures: shorter than writers wait for room, so that a storage that
/// is back costs them time and no refusal.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs until `stop`, or until the stream is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "the task ends with the stream's own token, and shutdown flushes what it left"
)]
pub(super) fn start(stream: &Arc<Stream>, stop: CancellationToken) {
    let core = Arc::clone(&stream.core);
    let shortest = stream.options.flush_interval / 4;
    let tick = shortest.clamp(Duration::from_millis(10), Duration::from_millis(250));
    tokio::spawn(run(Arc::downgrade(stream), core, tick, stop));
}

/// When a table is flushed next, and how often it failed in a row.
struct Due {
    at: Instant,
    failures: u32,
}

async fn run(stream: Weak<Stream>, core: Arc<Core>, tick: Duration, stop: CancellationToken) {
    let mut due: HashMap<Oid, Due> = HashMap::new();
    loop {
        let short = tokio::select! {
            () = stop.cancelled() => return,
            () = core.pressure.notified() => true,
            () = tokio::time::sleep(tick) => false,
        };
        let Some(stream) = stream.upgrade() else {
            return;
        };
        let work = pass(&stream, &core, &mut due, short);
        tokio::select! {
            () = stop.cancelled() => return,
            () = work => {}
        }
    }
}

/// Flushes what is due. With `short` every tail, but one that keeps failing waits its time.
async fn pass(stream: &Arc<Stream>, core: &Core, due: &mut HashMap<Oid, Due>, short: bool) {
    let now = Instant::now();
    let head = stream.head();
    due.retain(|oid, _| head.tables.contains_key(oid));
    let mut chosen = Vec::new();
    for table in head.tables.values() {
        if !core.is_unflushed(table) {
            due.remove(&table.oid);
            continue;
        }
        let Ok(owned) = stream.owned(table.oid) else {
            continue;
        };
        let entry = due.entry(table.oid).or_insert(Due {
            at: now + owned.flush_interval,
            failures: 0,
        });
        if entry.failures == 0 {
            // the interval may have been made shorter since
            entry.at = entry.at.min(now + owned.flush_interval);
        }
        if entry.at <= now || (short && entry.failures == 0) {
            chosen.push(owned);
        }
    }
    drop(head);
    let outcomes: Vec<_> = futures::stream::iter(chosen)
        .map(|owned| async move {
            let result = stream.flush(owned.oid).await;
            (owned, result)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (owned, result) in outcomes {
        let Some(entry) = due.get_mut(&owned.oid) else {
            continue;
        };
        match result {
            Ok(_) => {
                due.remove(&owned.oid);
            }
            Err(e) => {
                entry.failures += 1;
                let pause = owned.flush_interval * 2u32.saturating_pow(entry.failures.min(8));
                entry.at = Instant::now() + pause.min(LONGEST_PAUSE);
                tracing::warn!(
                    table = owned.name,
                    error = ?e,
                    failures = entry.failures,
                    "cannot flush a table; its rows stay in the log and in memory"
                );
            }
        }
    }
    let failing = due.values().filter(|entry| entry.failures > 0).count();
    core.unflushable.store(failing, Ordering::Relaxed);
}
