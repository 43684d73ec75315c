//! Sources: messages of brokers into streaming tables, each exactly once.
//!
//! A source reads a batch of messages, makes rows of them, and appends the rows together with the
//! offsets that come next, in one record of the log. So the log and the table's Delta log know how far
//! it is, and nobody else is asked: after a restart, a kill or an error it goes on from there.
//!
//! The catalog says which sources there are. [`run`] looks at it whenever something changes and starts
//! and stops tasks accordingly; one task per table (`reader`). It must not know a wire.

mod reader;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Oid, RelationKind, Snapshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Result;
use crate::kafka::options;
use crate::system::SourceState;
use crate::tasks;
use reader::Reader;

/// Between two looks at the catalog that nobody asked for.
const LOOK: Duration = Duration::from_secs(1);

/// A source at work.
struct Running {
    /// What it was started with.
    options: BTreeMap<String, String>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs the sources of all tables until `stop`.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) -> Result<()> {
    let mut running: HashMap<Oid, Running> = HashMap::new();
    while !stop.is_cancelled() {
        follow(&engine, &mut running, &stop).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = engine.sources.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    for source in running.into_values() {
        end(source).await;
    }
    Ok(())
}

/// Starts what should run and does not, stops what runs and should not.
async fn follow(
    engine: &Arc<Engine>,
    running: &mut HashMap<Oid, Running>,
    stop: &CancellationToken,
) {
    let catalog = engine.catalog();
    let wanted = wanted(&catalog);
    let over: Vec<Oid> = running
        .iter()
        .filter(|(oid, source)| {
            source.task.is_finished() || wanted.get(oid).is_none_or(|o| **o != source.options)
        })
        .map(|(oid, _)| *oid)
        .collect();
    for oid in over {
        if let Some(source) = running.remove(&oid) {
            end(source).await;
        }
    }
    for (oid, options) in wanted {
        if running.contains_key(&oid) {
            continue;
        }
        let notes = engine.sources.notes(oid);
        notes.write(|a| {
            a.state = SourceState::Starting;
            a.started_at = Some(crate::engine::activity::now_micros());
        });
        let stop = stop.child_token();
        let reader = Reader::new(Arc::clone(engine), oid, notes, stop.clone());
        let source = Running {
            options: options.clone(),
            stop,
            task: tasks::spawn("source", reader.run()),
        };
        running.insert(oid, source);
    }
    note_the_others(engine, &catalog, running);
}

/// Tables whose sources should run, with their options.
fn wanted(catalog: &Snapshot) -> HashMap<Oid, &BTreeMap<String, String>> {
    catalog
        .relations
        .iter()
        .filter(|r| r.kind == RelationKind::StreamingTable)
        .filter(|r| options::is_source(&r.options) && !options::is_paused(&r.options))
        .map(|r| (r.oid, &r.options))
        .collect()
}

/// Sources that are paused say so; those of dropped tables are forgotten.
fn note_the_others(engine: &Engine, catalog: &Snapshot, running: &HashMap<Oid, Running>) {
    for relation in &catalog.relations {
        if options::is_source(&relation.options) && !running.contains_key(&relation.oid) {
            engine.sources.notes(relation.oid).write(|a| {
                a.state = SourceState::Paused;
                a.per_second = 0.0;
            });
        }
    }
    for table in engine.sources.list().into_keys() {
        if catalog.relation_by_oid(table).is_none() {
            engine.sources.forget(table);
        }
    }
}

/// Stops a source and waits for its end: what it is storing is stored.
async fn end(source: Running) {
    source.stop.cancel();
    // a panic was logged by its task
    let _ = source.task.await;
}
