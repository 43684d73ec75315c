//! Idempotency keys: a request that is sent again is answered again and stored once.
//!
//! A key belongs to a role and a table. Its answer is a row of an internal table, stored in the record of
//! the request's rows: it is known exactly when they are. What is kept in memory is made from that table
//! at start. Of two requests with one key that run at once, the second waits for the first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Date32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use catalog::Oid;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::execute_stream;
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::activity::now_micros;
use super::scan::WeirTable;
use crate::error::{Error, Result, SqlState};
use crate::stream::head::{DbHead, Lsn};
use crate::stream::internal::{self, KEYS};
use crate::types::LSN;

/// The longest key, in bytes.
const LONGEST: usize = 255;
/// The longest wait for a request with the same key.
const WAIT: Duration = Duration::from_secs(60);

/// A key as a client gave it, with what its request held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    key: String,
    fingerprint: [u8; 32],
}

impl RequestKey {
    /// A key and everything that makes its request what it is.
    ///
    /// # Errors
    /// 22023 for a text that is no key.
    pub fn new(key: &str, request: &[&[u8]]) -> Result<Self> {
        let mut hash = Sha256::new();
        for part in request {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self::of_hash(key, hash)
    }

    /// A key and the hash of its request.
    ///
    /// # Errors
    /// 22023 for a text that is no key.
    pub fn of_hash(key: &str, request: Sha256) -> Result<Self> {
        let refuse = |why: &str| {
            Err(
                Error::refused(SqlState::INVALID_PARAMETER_VALUE, "invalid idempotency key")
                    .with_detail(why),
            )
        };
        if key.is_empty() {
            return refuse("it is empty");
        }
        if key.len() > LONGEST {
            return refuse("it is longer than 255 bytes");
        }
        if key.chars().any(char::is_control) {
            return refuse("it has control characters");
        }
        Ok(Self {
            key: key.to_owned(),
            fingerprint: request.finalize().into(),
        })
    }

    /// The key as the client gave it.
    pub fn text(&self) -> &str {
        &self.key
    }

    /// The key of the `n`-th part of what a client sends under it; the first has the key itself.
    #[must_use]
    pub fn part(mut self, n: u64) -> Self {
        if n > 1 {
            // no client's key has this character
            self.key = format!("{}\u{1f}{n}", self.key);
        }
        self
    }

    /// The key's row of the internal table.
    pub fn row(&self, role: Oid, table: Oid, answer: &Answer) -> Result<RecordBatch> {
        let number = |n: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![n])) };
        let count = |n: u64| number(i64::try_from(n).unwrap_or(i64::MAX));
        let at = answer.at_micros;
        let columns: Vec<ArrayRef> = vec![
            number(role.0.into()),
            number(table.0.into()),
            Arc::new(StringArray::from(vec![self.key.as_str()])),
            Arc::new(BinaryArray::from(vec![self.fingerprint.as_slice()])),
            count(answer.accepted),
            count(answer.rejected),
            count(answer.duplicate),
            Arc::new(TimestampMicrosecondArray::from(vec![at]).with_timezone("UTC")),
            Arc::new(Date32Array::from(vec![internal::day(at)])),
        ];
        Ok(RecordBatch::try_new(internal::keys_schema(), columns)?)
    }
}

/// What a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Rows stored.
    pub accepted: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows that were there already.
    pub duplicate: u64,
    /// The commit token.
    pub lsn: Lsn,
    /// When, in microseconds since the Unix epoch.
    pub at_micros: i64,
}

/// What a key stands for, short: collisions of a cryptographic hash do not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id([u8; 16]);

impl Id {
    fn of(role: Oid, table: Oid, key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(role.0.to_le_bytes());
        hash.update(table.0.to_le_bytes());
        hash.update(key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        Self(short)
    }
}

#[derive(Debug)]
enum Entry {
    /// Its first request is at work; the channel closes when it ends.
    Running(watch::Receiver<()>),
    Done([u8; 32], Answer),
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Id, Entry>,
    /// Answered ones, oldest first.
    order: VecDeque<(i64, Id)>,
}

/// The keys of the last while.
#[derive(Debug)]
pub struct Keys {
    known: Mutex<Known>,
    window_micros: i64,
    most: usize,
}

/// What becomes of a request with a key.
#[derive(Debug)]
pub enum Begun {
    /// It is the first: it is to be stored, and the answer handed to the ticket.
    First(Ticket),
    /// It was answered before.
    Again(Answer),
}

/// The right to store the request of a key. Dropped without an answer, it lets the next one try.
#[derive(Debug)]
pub struct Ticket {
    keys: Arc<Keys>,
    id: Id,
    fingerprint: [u8; 32],
    answered: bool,
    _ends: watch::Sender<()>,
}

impl Ticket {
    /// The request is durable and was answered.
    pub fn answer(mut self, answer: Answer) {
        self.answered = true;
        let mut known = self.keys.known();
        known.put(self.id, self.fingerprint, answer);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.keys.known().entries.remove(&self.id);
        }
    }
}

impl Known {
    fn put(&mut self, id: Id, fingerprint: [u8; 32], answer: Answer) {
        self.entries.insert(id, Entry::Done(fingerprint, answer));
        self.order.push_back((answer.at_micros, id));
    }

    /// Forgets what was answered before then.
    fn expire(&mut self, before: i64) {
        while let Some((at, id)) = self.order.front().copied()
            && at < before
        {
            self.order.pop_front();
            // the key may have been used again since
            let stale = |e: &Entry| matches!(e, Entry::Done(_, a) if a.at_micros <= at);
            if self.entries.get(&id).is_some_and(stale) {
                self.entries.remove(&id);
            }
        }
    }
}

impl Keys {
    /// None yet. A key is known for `window`, and so many at a time.
    pub fn new(window: Duration, most: usize) -> Self {
        Self {
            known: Mutex::default(),
            window_micros: i64::try_from(window.as_micros()).unwrap_or(i64::MAX),
            most,
        }
    }

    /// Those of the internal table, at start.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn load(&self, state: &SessionState, head: &DbHead) -> Result<()> {
        let Some(table) = head.tables.get(&KEYS) else {
            return Err(Error::Internal("the table of keys is not open".to_owned()));
        };
        let table = Arc::new(WeirTable::new(Arc::clone(table), true));
        let oldest = now_micros().saturating_sub(self.window_micros);
        let oldest = ScalarValue::TimestampMicrosecond(Some(oldest), Some("UTC".into()));
        let plan = LogicalPlanBuilder::scan("keys", provider_as_source(table), None)?
            .filter(col("answered_at").gt_eq(lit(oldest)))?
            .sort([col(LSN).sort(true, false)])?
            .build()?;
        let physical = state.create_physical_plan(&plan).await?;
        let mut rows = execute_stream(physical, state.task_ctx())?;
        while let Some(batch) = rows.next().await {
            self.take(&batch?)?;
        }
        Ok(())
    }

    fn take(&self, batch: &RecordBatch) -> Result<()> {
        let missing = || Error::Internal("the table of keys has other columns".to_owned());
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let numbers = |name: &str| {
            let found = column(name)?.as_primitive_opt::<Int64Type>();
            found.ok_or_else(missing)
        };
        let keys = column("key")?.as_string_opt::<i32>().ok_or_else(missing)?;
        let fingerprints = column("fingerprint")?
            .as_binary_opt::<i32>()
            .ok_or_else(missing)?;
        let times = column("answered_at")?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(missing)?;
        let (roles, tables) = (numbers("role_oid")?, numbers("table_oid")?);
        let (accepted, rejected) = (numbers("accepted")?, numbers("rejected")?);
        let (duplicate, lsns) = (numbers("duplicate")?, numbers(LSN)?);
        let oid = |n: i64| u32::try_from(n).map(Oid).map_err(|_| missing());
        let mut known = self.known();
        for row in 0..batch.num_rows() {
            let id = Id::of(
                oid(roles.value(row))?,
                oid(tables.value(row))?,
                keys.value(row),
            );
            let fingerprint = fingerprints.value(row).try_into().map_err(|_| missing())?;
            let answer = Answer {
                accepted: accepted.value(row).unsigned_abs(),
                rejected: rejected.value(row).unsigned_abs(),
                duplicate: duplicate.value(row).unsigned_abs(),
                lsn: Lsn(lsns.value(row)),
                at_micros: times.value(row),
            };
            known.put(id, fingerprint, answer);
        }
        Ok(())
    }

    /// Begins a request, after another of the same key that is under way.
    ///
    /// # Errors
    /// 55000 when the key was used for another request, 55006 when the other one takes too long, 53400
    /// when more keys would have to be remembered than may be.
    pub async fn begin(
        self: &Arc<Self>,
        role: Oid,
        table: Oid,
        request: &RequestKey,
    ) -> Result<Begun> {
        let id = Id::of(role, table, &request.key);
        let end = tokio::time::Instant::now() + WAIT;
        loop {
            let mut running = match self.look(id, request)? {
                Look::Begun(begun) => return Ok(begun),
                Look::Running(running) => running,
            };
            // nothing is ever sent: it closes when the other one ends
            let ended = tokio::time::timeout_at(end, running.changed()).await;
            if ended.is_err() {
                return Err(Error::refused(
                    SqlState::OBJECT_IN_USE,
                    format!("a request with the key \"{}\" is under way", request.key),
                )
                .with_hint("send the request again later"));
            }
        }
    }

    fn look(self: &Arc<Self>, id: Id, request: &RequestKey) -> Result<Look> {
        let mut known = self.known();
        known.expire(now_micros().saturating_sub(self.window_micros));
        match known.entries.get(&id) {
            Some(Entry::Running(running)) => Ok(Look::Running(running.clone())),
            Some(Entry::Done(fingerprint, answer)) => {
                if *fingerprint == request.fingerprint {
                    return Ok(Look::Begun(Begun::Again(*answer)));
                }
                Err(Error::refused(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "the key \"{}\" was used for a request with other contents",
                        request.key
                    ),
                )
                .with_hint("send a new key with new contents"))
            }
            None => {
                if known.entries.len() >= self.most {
                    return Err(Error::refused(
                        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                        "too many idempotency keys were used lately",
                    )
                    .with_hint(
                        "send the request again later, raise limits.idempotency_keys, or make \
                         stream.idempotency_window shorter",
                    ));
                }
                let (ends, running) = watch::channel(());
                known.entries.insert(id, Entry::Running(running));
                Ok(Look::Begun(Begun::First(Ticket {
                    keys: Arc::clone(self),
                    id,
                    fingerprint: request.fingerprint,
                    answered: false,
                    _ends: ends,
                })))
            }
        }
    }

    // A panic elsewhere leaves the map whole: every change of it is one step.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look {
    Begun(Begun),
    Running(watch::Receiver<()>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: Oid = Oid(10);
    const TABLE: Oid = Oid(20_000);

    fn request(key: &str, body: &str) -> RequestKey {
        RequestKey::new(key, &[body.as_bytes()]).unwrap()
    }

    fn answer(lsn: i64) -> Answer {
        Answer {
            accepted: 1,
            rejected: 0,
            duplicate: 0,
            lsn: Lsn(lsn),
            at_micros: now_micros(),
        }
    }

    async fn first(keys: &Arc<Keys>, request: &RequestKey) -> Ticket {
        match keys.begin(ROLE, TABLE, request).await.unwrap() {
            Begun::First(ticket) => ticket,
            Begun::Again(answer) => panic!("known already: {answer:?}"),
        }
    }

    fn keys(window: Duration, most: usize) -> Arc<Keys> {
        Arc::new(Keys::new(window, most))
    }

    #[tokio::test]
    async fn a_request_is_answered_again() {
        let keys = keys(Duration::from_secs(60), 10);
        let one = request("k", "body");
        first(&keys, &one).await.answer(answer(7));
        let again = keys.begin(ROLE, TABLE, &one).await.unwrap();
        assert!(matches!(again, Begun::Again(a) if a.lsn == Lsn(7)));
        let other = keys.begin(ROLE, TABLE, &request("k", "other")).await;
        assert_eq!(
            other.unwrap_err().state(),
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        );
        // another role, another table, another key
        for (role, table, key) in [
            (Oid(11), TABLE, "k"),
            (ROLE, Oid(20_001), "k"),
            (ROLE, TABLE, "l"),
        ] {
            let begun = keys
                .begin(role, table, &request(key, "body"))
                .await
                .unwrap();
            assert!(matches!(begun, Begun::First(_)));
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let keys = keys(Duration::from_secs(60), 10);
        let one = request("k", "body");
        let ticket = first(&keys, &one).await;
        let waiting = {
            let (keys, one) = (Arc::clone(&keys), one.clone());
            async move { keys.begin(ROLE, TABLE, &one).await.unwrap() }
        };
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        ticket.answer(answer(3));
        assert!(matches!(waiting.await, Begun::Again(a) if a.lsn == Lsn(3)));
        // one that failed lets the next one try
        let two = request("l", "body");
        drop(first(&keys, &two).await);
        first(&keys, &two).await.answer(answer(4));
    }

    #[tokio::test]
    async fn keys_expire_and_are_bounded() {
        let keys = keys(Duration::from_millis(0), 2);
        for key in ["a", "b", "c", "d"] {
            first(&keys, &request(key, "x")).await.answer(Answer {
                at_micros: now_micros() - 10,
                ..answer(1)
            });
        }
        first(&keys, &request("a", "y")).await.answer(answer(2));
        let keys = self::keys(Duration::from_secs(60), 2);
        for key in ["a", "b"] {
            first(&keys, &request(key, "x")).await.answer(answer(1));
        }
        let full = keys.begin(ROLE, TABLE, &request("c", "x")).await;
        assert_eq!(
            full.unwrap_err().state(),
            SqlState::CONFIGURATION_LIMIT_EXCEEDED
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "a\nb", "a\u{0}", &"k".repeat(256)] {
            assert!(RequestKey::new(bad, &[]).is_err());
        }
        assert!(RequestKey::new(&"k".repeat(255), &[]).is_ok());
        // parts do not run into each other
        let split = |parts: &[&[u8]]| RequestKey::new("k", parts).unwrap();
        assert_ne!(split(&[b"ab", b"c"]), split(&[b"a", b"bc"]));
    }
}
