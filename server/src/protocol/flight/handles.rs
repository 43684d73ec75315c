//! What the server remembers between calls: prepared statements, tickets, running queries. All are
//! bounded, expire, and belong to the role that made them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion::common::ScalarValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::dialect::Statement;
use crate::error::{Error, Result, SqlState};
use crate::protocol::backend::DataCalls;
use crate::protocol::credentials::Caller;
use crate::session::Description;

const MAX_HANDLES: usize = 10_000;
/// A prepared statement that is not used for so long is gone.
const PREPARED_LIFE: Duration = Duration::from_secs(60 * 60);
/// A transaction that is not used for so long is gone, with what it held.
pub(super) const TRANSACTION_LIFE: Duration = Duration::from_secs(10 * 60);
/// A ticket that is not fetched for so long is gone.
const TICKET_LIFE: Duration = Duration::from_secs(10 * 60);

/// A statement that waits to be run by a later call.
pub(super) struct Prepared {
    pub(super) role: String,
    pub(super) session: Arc<dyn DataCalls>,
    pub(super) statement: Arc<Statement>,
    pub(super) description: Description,
    /// Parameter rows bound by the last `DoPut`.
    pub(super) bound: Mutex<Vec<Vec<ScalarValue>>>,
}

impl Prepared {
    /// The parameter rows in force.
    pub(super) fn bound(&self) -> Vec<Vec<ScalarValue>> {
        self.bound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the parameter rows.
    pub(super) fn bind(&self, rows: Vec<Vec<ScalarValue>>) {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

/// A statement with its parameters, to be run by `DoGet` once.
pub(super) struct Planned {
    pub(super) role: String,
    pub(super) session: Arc<dyn DataCalls>,
    pub(super) statement: Arc<Statement>,
    pub(super) params: Vec<ScalarValue>,
}

/// All that is remembered.
pub(super) struct Handles {
    prepared: Expiring<Arc<Prepared>>,
    planned: Expiring<Planned>,
    transactions: Expiring<Caller>,
    running: Arc<Mutex<HashMap<Uuid, (String, CancellationToken)>>>,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            prepared: Expiring::new("prepared statements", PREPARED_LIFE),
            planned: Expiring::new("tickets", TICKET_LIFE),
            transactions: Expiring::new("transactions", TRANSACTION_LIFE),
            running: Arc::default(),
        }
    }
}

impl Handles {
    /// Keeps a prepared statement; the handle to give to the client.
    pub(super) fn prepare(&self, prepared: Prepared) -> Result<Bytes> {
        self.prepared.insert(Arc::new(prepared)).map(handle)
    }

    /// The caller's prepared statement of that handle.
    pub(super) fn prepared(&self, caller: &Caller, bytes: &[u8]) -> Result<Arc<Prepared>> {
        parse(bytes)
            .and_then(|id| self.prepared.get(id, Arc::clone))
            .filter(|p| p.role == caller.role)
            .ok_or_else(|| {
                Error::refused(
                    SqlState::INVALID_SQL_STATEMENT_NAME,
                    "the prepared statement does not exist",
                )
                .with_hint("it was closed, has expired, or belongs to another role")
            })
    }

    /// Forgets a prepared statement; one that is not there is no error.
    pub(super) fn close(&self, caller: &Caller, bytes: &[u8]) {
        if let Some(id) = parse(bytes) {
            self.prepared.take_if(id, |p| p.role == caller.role);
        }
    }

    /// Keeps a statement for `DoGet`; the ticket's handle.
    pub(super) fn plan(&self, planned: Planned) -> Result<Bytes> {
        self.planned.insert(planned).map(handle)
    }

    /// Takes the caller's statement out: a ticket runs once. The guard keeps it cancellable while
    /// its rows stream.
    pub(super) fn start(&self, caller: &Caller, bytes: &[u8]) -> Result<(Planned, Running)> {
        parse(bytes)
            .and_then(|id| {
                let planned = self.planned.take_if(id, |p| p.role == caller.role)?;
                Some((planned, self.run(id, caller)))
            })
            .ok_or_else(|| {
                Error::refused(SqlState::INVALID_CURSOR_NAME, "the ticket does not exist")
                    .with_hint("a ticket can be fetched once, by its role, for ten minutes")
            })
    }

    /// Cancels what a ticket stands for, waiting or running. False if it stands for nothing.
    pub(super) fn cancel(&self, caller: &Caller, bytes: &[u8]) -> bool {
        let Some(id) = parse(bytes) else {
            return false;
        };
        if self
            .planned
            .take_if(id, |p| p.role == caller.role)
            .is_some()
        {
            return true;
        }
        match lock(&self.running).get(&id) {
            Some((role, token)) if *role == caller.role => {
                token.cancel();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Keeps a block that was begun; the handle to give to the client.
    pub(super) fn begin(&self, block: Caller) -> Result<Bytes> {
        self.transactions.insert(block).map(handle)
    }

    /// The caller's block of that handle.
    pub(super) fn within(&self, caller: &Caller, bytes: &[u8]) -> Option<Caller> {
        let block = self.transactions.get(parse(bytes)?, Caller::clone)?;
        (block.role == caller.role).then_some(block)
    }

    /// Takes the caller's block out, to be ended.
    pub(super) fn end(&self, caller: &Caller, bytes: &[u8]) -> Option<Caller> {
        let id = parse(bytes)?;
        self.transactions.take_if(id, |b| b.role == caller.role)
    }

    /// A guard for a statement that runs without a ticket.
    pub(super) fn run_unnamed(&self, caller: &Caller) -> Running {
        self.run(Uuid::new_v4(), caller)
    }

    fn run(&self, id: Uuid, caller: &Caller) -> Running {
        let token = CancellationToken::new();
        lock(&self.running).insert(id, (caller.role.clone(), token.clone()));
        Running {
            id,
            token,
            all: Arc::clone(&self.running),
        }
    }
}

/// A query that streams; dropping it ends its registration.
pub(super) struct Running {
    id: Uuid,
    /// Cancelled by the client's request.
    pub(super) token: CancellationToken,
    all: Arc<Mutex<HashMap<Uuid, (String, CancellationToken)>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.id);
    }
}

/// A bounded map whose entries go when they are not used. Keys are random: knowing one is needed
/// (and, with the role, enough) to use it.
struct Expiring<T> {
    what: &'static str,
    life: Duration,
    entries: Mutex<HashMap<Uuid, (T, Instant)>>,
}

impl<T> Expiring<T> {
    fn new(what: &'static str, life: Duration) -> Self {
        Self {
            what,
            life,
            entries: Mutex::default(),
        }
    }

    fn insert(&self, value: T) -> Result<Uuid> {
        let mut entries = lock(&self.entries);
        let now = Instant::now();
        if entries.len() >= MAX_HANDLES {
            entries.retain(|_, (_, used)| now.duration_since(*used) < self.life);
        }
        if entries.len() >= MAX_HANDLES {
            return Err(Error::refused(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("too many {} are open", self.what),
            )
            .with_hint("close what is no longer needed"));
        }
        let id = Uuid::new_v4();
        entries.insert(id, (value, now));
        Ok(id)
    }

    fn get<R>(&self, id: Uuid, read: impl FnOnce(&T) -> R) -> Option<R> {
        let mut entries = lock(&self.entries);
        let (value, used) = entries.get_mut(&id)?;
        let now = Instant::now();
        if now.duration_since(*used) >= self.life {
            entries.remove(&id);
            return None;
        }
        *used = now;
        Some(read(value))
    }

    fn take_if(&self, id: Uuid, allowed: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut entries = lock(&self.entries);
        let (value, used) = entries.get(&id)?;
        if !allowed(value) {
            return None;
        }
        let alive = used.elapsed() < self.life;
        let (value, _) = entries.remove(&id)?;
        alive.then_some(value)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn parse(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}
