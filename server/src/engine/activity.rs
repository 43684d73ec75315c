//! What all connections are doing: for `pg_stat_activity`, `weir.queries` and cancelling.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::system::Activity;

/// Open sessions by their number.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Seats>);

/// The last number given out, and who sits where.
#[derive(Debug, Default)]
struct Seats {
    last: i32,
    taken: BTreeMap<i32, Taken>,
}

#[derive(Debug)]
struct Taken {
    activity: Arc<Mutex<Activity>>,
    stops: Arc<Stops>,
}

/// How others end what a session does.
#[derive(Debug)]
pub struct Stops {
    /// The statement that runs.
    statement: Mutex<CancellationToken>,
    /// The session: its connection ends when this is cancelled.
    pub session: CancellationToken,
}

impl Stops {
    /// Another statement begins.
    pub fn next_statement(&self, token: CancellationToken) {
        *self.statement() = token;
    }

    /// Cancels the statement that runs, if one does.
    pub fn cancel_statement(&self) {
        self.statement().cancel();
    }

    fn statement(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.statement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's place in [`Sessions`]; leaves it when dropped.
#[derive(Debug)]
pub struct Seat {
    /// The session's number.
    pub pid: i32,
    /// What it is doing.
    pub activity: Arc<Mutex<Activity>>,
    /// How it is ended.
    pub stops: Arc<Stops>,
}

impl Sessions {
    /// Enters a session.
    pub fn enter(&self, session: &str, door: &str, role: &str) -> Seat {
        let stops = Arc::new(Stops {
            statement: Mutex::default(),
            session: CancellationToken::new(),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pid = all.last;
        loop {
            pid = pid.checked_add(1).unwrap_or(1);
            // requests have sessions too, so numbers come round while older ones are still open
            if !all.taken.contains_key(&pid) {
                break;
            }
        }
        all.last = pid;
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
        let taken = Taken {
            activity: Arc::clone(&activity),
            stops: Arc::clone(&stops),
        };
        all.taken.insert(pid, taken);
        Seat {
            pid,
            activity,
            stops,
        }
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
            .map(|taken| {
                let activity = taken.activity.lock();
                activity.unwrap_or_else(PoisonError::into_inner).clone()
            })
            .collect()
    }

    /// Cancels the statement of a session, or ends the session with it; false when there is none of
    /// that number.
    pub fn stop(&self, pid: i32, session_too: bool) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.taken.get(&pid) else {
            return false;
        };
        if session_too {
            taken.stops.session.cancel();
        }
        taken.stops.cancel_statement();
        true
    }
}

/// Microseconds since the Unix epoch.
pub fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
