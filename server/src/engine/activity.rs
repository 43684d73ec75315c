//! What all connections are doing: for `pg_stat_activity`, `weir.queries` and cancelling.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::system::Activity;

/// Open sessions by their number.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Seats>);

/// The last number given out, and who sits where.
#[derive(Debug, Default)]
struct Seats {
    last: i32,
    taken: BTreeMap<i32, Arc<Mutex<Activity>>>,
}

/// One session's place in [`Sessions`]; leaves it when dropped.
#[derive(Debug)]
pub struct Seat {
    /// The session's number.
    pub pid: i32,
    /// What it is doing.
    pub activity: Arc<Mutex<Activity>>,
}

impl Sessions {
    /// Enters a session.
    pub fn enter(&self, session: &str, door: &str, role: &str) -> Seat {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.last = all.last.checked_add(1).unwrap_or(1);
        let pid = all.last;
        let activity = Arc::new(Mutex::new(Activity {
            pid,
            session: session.to_owned(),
            door: door.to_owned(),
            role: role.to_owned(),
            application_name: None,
            client_address: None,
            state: "idle".to_owned(),
            query: None,
            started_at_micros: None,
            connected_at_micros: Some(now_micros()),
        }));
        all.taken.insert(pid, Arc::clone(&activity));
        Seat { pid, activity }
    }

    /// Takes a session out.
    pub fn leave(&self, pid: i32) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken
            .remove(&pid);
    }

    /// All of them, as they are now.
    pub fn list(&self) -> Vec<Activity> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.taken
            .values()
            .map(|a| a.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }
}

/// Microseconds since the Unix epoch.
pub fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
