//! Cancel keys: which session a CancelRequest means.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::protocol::calls::SessionCalls;

/// The sessions of this door by the process number told to their clients.
#[derive(Default)]
pub(super) struct Registry {
    sessions: Mutex<Keys>,
}

/// Each session's secret, by its number.
type Keys = HashMap<i32, (u32, Weak<dyn SessionCalls>)>;

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a session its key, until the value is dropped.
    pub(super) fn register(self: &Arc<Self>, session: &Arc<dyn SessionCalls>) -> Registered {
        let secret = rand::random();
        let pid = session.pid();
        self.lock().insert(pid, (secret, Arc::downgrade(session)));
        Registered {
            registry: Arc::clone(self),
            pid,
            secret,
        }
    }

    /// Cancels the running statement of the session, if the secret is its own.
    pub(super) fn cancel(&self, pid: i32, secret: &[u8]) {
        let found = self.lock().get(&pid).cloned();
        let Some((own, session)) = found else { return };
        let own = own.to_be_bytes();
        // every byte is looked at, wherever the first difference lies
        let difference = own.iter().zip(secret).fold(0, |acc, (a, b)| acc | (a ^ b));
        if difference == 0
            && secret.len() == own.len()
            && let Some(session) = session.upgrade()
        {
            session.cancel_running();
        }
    }

    /// Cancels every running statement.
    pub(super) fn cancel_all(&self) {
        let all: Vec<_> = self
            .lock()
            .values()
            .filter_map(|(_, session)| session.upgrade())
            .collect();
        for session in all {
            session.cancel_running();
        }
    }
}

/// A session's key.
pub(super) struct Registered {
    registry: Arc<Registry>,
    pub(super) pid: i32,
    pub(super) secret: u32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.pid);
    }
}
