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
/// About what all prepared statements, or all tickets, may take in memory.
const MAX_BYTES: usize = 256 << 20;
/// A byte of a statement takes about so many once it is read,
const READ_BYTES: usize = 160;
/// a column of its result so many,
const COLUMN_BYTES: usize = 256;
/// and a session.
const SESSION_BYTES: usize = 4096;
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
        lock(&self.bound).clone()
    }
}

/// What keeping a value takes in memory, roughly.
trait Weigh {
    fn bytes(&self) -> usize;
}

impl Weigh for Arc<Prepared> {
    fn bytes(&self) -> usize {
        let columns = self
            .description
            .schema
            .as_ref()
            .map_or(0, |s| s.fields().len());
        let bound = lock(&self.bound)
            .iter()
            .map(|row| values(row))
            .sum::<usize>();
        self.statement.text.len() * READ_BYTES + columns * COLUMN_BYTES + bound
    }
}

impl Weigh for Planned {
    fn bytes(&self) -> usize {
        self.statement.text.len() * READ_BYTES + values(&self.params)
    }
}

impl Weigh for Caller {
    fn bytes(&self) -> usize {
        SESSION_BYTES
    }
}

fn values(row: &[ScalarValue]) -> usize {
    row.iter().map(ScalarValue::size).sum()
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

    /// Replaces the parameter rows of a prepared statement.
    ///
    /// # Errors
    /// 26000 when it is not there, 53400 when there is no room for them.
    pub(super) fn bind(
        &self,
        caller: &Caller,
        bytes: &[u8],
        rows: Vec<Vec<ScalarValue>>,
    ) -> Result<()> {
        let prepared = self.prepared(caller, bytes)?;
        let before = std::mem::replace(&mut *lock(&prepared.bound), rows);
        let id = parse(bytes).unwrap_or_default();
        self.prepared.weigh(id).inspect_err(|_| {
            *lock(&prepared.bound) = before;
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
    entries: Mutex<Entries<T>>,
}

struct Entries<T> {
    map: HashMap<Uuid, Entry<T>>,
    bytes: usize,
}

struct Entry<T> {
    value: T,
    used: Instant,
    bytes: usize,
}

impl<T> Entries<T> {
    fn remove(&mut self, id: Uuid) -> Option<Entry<T>> {
        let entry = self.map.remove(&id)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn expire(&mut self, life: Duration) {
        self.map.retain(|_, entry| entry.used.elapsed() < life);
        self.bytes = self.map.values().map(|entry| entry.bytes).sum();
    }
}

impl<T: Weigh> Expiring<T> {
    fn new(what: &'static str, life: Duration) -> Self {
        Self {
            what,
            life,
            entries: Mutex::new(Entries {
                map: HashMap::new(),
                bytes: 0,
            }),
        }
    }

    fn insert(&self, value: T) -> Result<Uuid> {
        let bytes = value.bytes();
        let mut entries = lock(&self.entries);
        let full = |e: &Entries<T>| {
            e.map.len() >= MAX_HANDLES || e.bytes.saturating_add(bytes) > MAX_BYTES
        };
        if full(&entries) {
            entries.expire(self.life);
        }
        if full(&entries) {
            return Err(self.full());
        }
        let id = Uuid::new_v4();
        let used = Instant::now();
        entries.bytes += bytes;
        entries.map.insert(id, Entry { value, used, bytes });
        Ok(id)
    }

    /// Counts an entry as what it takes now.
    fn weigh(&self, id: Uuid) -> Result<()> {
        let mut entries = lock(&self.entries);
        let entries = &mut *entries;
        let Some(entry) = entries.map.get_mut(&id) else {
            return Ok(());
        };
        let (before, now) = (entry.bytes, entry.value.bytes());
        let all = (entries.bytes - before).saturating_add(now);
        if now > before && all > MAX_BYTES {
            return Err(self.full());
        }
        (entries.bytes, entry.bytes) = (all, now);
        Ok(())
    }

    fn full(&self) -> Error {
        Error::refused(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            format!("too many {} are open, or too large ones", self.what),
        )
        .with_hint("close what is no longer needed")
    }

    fn get<R>(&self, id: Uuid, read: impl FnOnce(&T) -> R) -> Option<R> {
        let mut entries = lock(&self.entries);
        let entry = entries.map.get_mut(&id)?;
        if entry.used.elapsed() >= self.life {
            entries.remove(id);
            return None;
        }
        entry.used = Instant::now();
        Some(read(&entry.value))
    }

    fn take_if(&self, id: Uuid, allowed: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut entries = lock(&self.entries);
        if !allowed(&entries.map.get(&id)?.value) {
            return None;
        }
        let entry = entries.remove(id)?;
        (entry.used.elapsed() < self.life).then_some(entry.value)
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Block(usize);

    impl Weigh for Block {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes() {
        let kept = Expiring::new("blocks", PREPARED_LIFE);
        let first = kept.insert(Block(MAX_BYTES / 2)).unwrap();
        kept.insert(Block(MAX_BYTES / 2)).unwrap();
        let refused = kept.insert(Block(1)).unwrap_err();
        assert_eq!(refused.state(), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        assert!(kept.take_if(first, |_| false).is_none());
        assert!(kept.take_if(first, |_| true).is_some());
        kept.insert(Block(1)).unwrap();

        // those that nobody used make room
        let kept = Expiring::new("blocks", Duration::ZERO);
        let old = kept.insert(Block(MAX_BYTES)).unwrap();
        kept.insert(Block(MAX_BYTES)).unwrap();
        assert!(kept.get(old, |_| ()).is_none());
        assert_eq!(lock(&kept.entries).bytes, MAX_BYTES);
    }
}
