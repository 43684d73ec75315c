//! What sources are doing: for `weir.sources`, and for statements that start, stop or wait for one.
//!
//! Holds no source itself: `sources` runs them, keeps these notes, and looks at the catalog again
//! whenever it is told that something has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::Oid;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::system::{SourceActivity, SourceState};

/// Between two looks of a statement that waits.
const STEP: Duration = Duration::from_millis(5);

/// Notes of one source, shared by who writes and who reads them.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<SourceActivity>>);

impl Notes {
    /// Changes them.
    pub fn write<T>(&self, change: impl FnOnce(&mut SourceActivity) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All sources of the server.
#[derive(Debug, Default)]
pub struct Sources {
    all: Mutex<BTreeMap<Oid, Notes>>,
    changed: Notify,
    watched: std::sync::atomic::AtomicBool,
}

impl Sources {
    /// The notes of a table's source, begun where there are none.
    pub fn notes(&self, table: Oid) -> Notes {
        let mut all = self.all();
        all.entry(table).or_default().clone()
    }

    /// Forgets a table's source.
    pub fn forget(&self, table: Oid) {
        self.all().remove(&table);
    }

    /// All of them, as they are now.
    pub fn list(&self) -> BTreeMap<Oid, SourceActivity> {
        let all = self.all();
        let list = all
            .iter()
            .map(|(table, notes)| (*table, notes.write(|a| a.clone())));
        list.collect()
    }

    /// Says that the catalog says something new of sources.
    pub fn change(&self) {
        self.changed.notify_one();
    }

    /// Waits for that. The first call makes statements wait for what they ask of sources.
    pub async fn changed(&self) {
        self.watched
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.changed.notified().await;
    }

    /// Waits until a source is in a state that `done` accepts, for a while; nothing depends on it.
    pub async fn settle(&self, table: Oid, limit: Duration, done: impl Fn(SourceState) -> bool) {
        let end = Instant::now() + limit;
        while self.watched.load(std::sync::atomic::Ordering::Relaxed) && Instant::now() < end {
            let state = self.all().get(&table).map(|n| n.write(|a| a.state));
            if state.is_some_and(&done) {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    // A panic elsewhere leaves the map whole: every change of it is one step.
    fn all(&self) -> MutexGuard<'_, BTreeMap<Oid, Notes>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
