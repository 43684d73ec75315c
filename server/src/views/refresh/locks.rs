//! One lock per view, so that a run and a fold never work on the same state at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use catalog::Oid;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Held by whoever works on a view.
pub(super) type Turn = OwnedMutexGuard<()>;

#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<Oid, Lock>>);

impl Locks {
    /// Waits for the view's turn. Locks nobody holds are dropped on the way, so dropped views leave
    /// nothing behind.
    pub(super) async fn hold(&self, view: Oid) -> Turn {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|oid, lock| *oid == view || Arc::strong_count(lock) > 1);
            Arc::clone(all.entry(view).or_default())
        };
        lock.lock_owned().await
    }
}
