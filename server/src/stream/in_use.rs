//! Files that are no part of a table's newest state and must stay all the same: those of older states
//! that somebody is still reading, and those that are written and not committed yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use catalog::Oid;

use crate::lake::{LakeFile, LakeSnapshot};

#[derive(Debug, Default)]
pub(super) struct InUse {
    /// File lists of states that were replaced, as long as a plan or a head holds them.
    retired: Mutex<HashMap<Oid, Vec<Weak<[LakeFile]>>>>,
    writing: Arc<Mutex<Writers>>,
}

/// Who writes files outside a table's lock, with the time they began.
#[derive(Debug, Default)]
struct Writers {
    last: u64,
    since: BTreeMap<u64, i64>,
}

/// Somebody is writing files that no log knows yet.
#[derive(Debug)]
pub struct Writing {
    number: u64,
    all: Arc<Mutex<Writers>>,
}

impl InUse {
    /// A state is about to be replaced.
    pub(super) fn retire(&self, oid: Oid, lake: &LakeSnapshot) {
        let mut retired = lock(&self.retired);
        let of_table = retired.entry(oid).or_default();
        of_table.retain(|files| files.strong_count() > 0);
        of_table.push(Arc::downgrade(&lake.files));
    }

    /// The table is gone.
    pub(super) fn forget(&self, oid: Oid) {
        lock(&self.retired).remove(&oid);
    }

    /// Paths of older states that somebody still holds.
    pub(super) fn held(&self, oid: Oid) -> HashSet<String> {
        let retired = lock(&self.retired);
        let states = retired.get(&oid).into_iter().flatten();
        states
            .filter_map(Weak::upgrade)
            .flat_map(|files| files.iter().map(|f| f.path.clone()).collect::<Vec<_>>())
            .collect()
    }

    /// From now until the answer is dropped, files are written that no log knows.
    pub(super) fn write(&self) -> Writing {
        let mut writers = lock(&self.writing);
        writers.last += 1;
        let number = writers.last;
        writers.since.insert(number, now_ms());
        Writing {
            number,
            all: Arc::clone(&self.writing),
        }
    }

    /// When the oldest of those who write now began, in milliseconds since the Unix epoch.
    pub(super) fn writing_since(&self) -> Option<i64> {
        lock(&self.writing).since.values().min().copied()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        lock(&self.all).since.remove(&self.number);
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

// A panic elsewhere leaves the maps whole: every change of them is one step.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
