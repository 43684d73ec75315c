//! What runs and what ran: numbers, progress, cancelling, and one piece of upkeep per table at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::Oid;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::engine::activity::now_micros;
use crate::error::{Error, Result, SqlState};

/// Ended jobs that are remembered.
const REMEMBERED: usize = 1000;

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Nobody: it was time.
    Schedule,
    /// A statement.
    Statement,
}

/// One piece of background work.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What it is: `compaction`, `checkpoint`, …
    pub name: String,
    /// The relation it works on.
    pub object: Option<Oid>,
    /// `schedule` or `statement`.
    pub trigger: String,
    /// `running`, `done`, `failed`, `canceled`.
    pub state: String,
    /// When it began, microseconds since the Unix epoch.
    pub started_at_micros: Option<i64>,
    /// When it ended, microseconds since the Unix epoch.
    pub ended_at_micros: Option<i64>,
    /// Files, rows and bytes behind it.
    pub done: Amount,
    /// Files, rows and bytes altogether.
    pub total: Amount,
    /// What it did.
    pub detail: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// How much work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Files of a table that became fewer or better ordered.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// The job that did it.
    pub job: i64,
    /// The table.
    pub object: Oid,
    /// `compaction`, `optimize`, `zorder`.
    pub kind: &'static str,
    /// When it began, microseconds since the Unix epoch.
    pub started_at_micros: i64,
    /// When it was committed, microseconds since the Unix epoch.
    pub ended_at_micros: i64,
    /// What went.
    pub before: Amount,
    /// What came.
    pub after: Amount,
    /// The table's version with it.
    pub version: i64,
}

/// What is known of a view's state, compared with its sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// When they agreed last, microseconds since the Unix epoch.
    pub at_micros: Option<i64>,
    /// Keys that did not, since the server started.
    pub mismatches: u64,
}

/// All jobs of a server.
#[derive(Debug)]
pub struct Jobs {
    stop: CancellationToken,
    book: Mutex<Book>,
    turns: Mutex<HashMap<Oid, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Book {
    last: i64,
    running: BTreeMap<i64, Arc<Running>>,
    ended: VecDeque<Job>,
    compactions: VecDeque<Compaction>,
    verified: HashMap<Oid, Verified>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    stop: CancellationToken,
    done: Counter,
    total: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    files: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn add(&self, amount: Amount) {
        self.files.fetch_add(amount.files, Relaxed);
        self.rows.fetch_add(amount.rows, Relaxed);
        self.bytes.fetch_add(amount.bytes, Relaxed);
    }

    fn get(&self) -> Amount {
        Amount {
            files: self.files.load(Relaxed),
            rows: self.rows.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

/// A job that runs. Dropped without [`Handle::end`], it was canceled.
#[derive(Debug)]
pub struct Handle {
    jobs: Arc<Jobs>,
    running: Arc<Running>,
    over: bool,
}

/// Held by whoever does upkeep on a table.
pub type Turn = OwnedMutexGuard<()>;

impl Jobs {
    /// No jobs yet. Those to come end with `stop`.
    pub fn new(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            stop,
            book: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// Enters a job.
    pub fn begin(self: &Arc<Self>, name: &str, object: Oid, trigger: Trigger) -> Handle {
        let mut book = lock(&self.book);
        book.last += 1;
        let trigger = match trigger {
            Trigger::Schedule => "schedule",
            Trigger::Statement => "statement",
        };
        let running = Arc::new(Running {
            job: Job {
                id: book.last,
                name: name.to_owned(),
                object: Some(object),
                trigger: trigger.to_owned(),
                state: "running".to_owned(),
                started_at_micros: Some(now_micros()),
                ..Job::default()
            },
            stop: self.stop.child_token(),
            done: Counter::default(),
            total: Counter::default(),
        });
        book.running.insert(running.job.id, Arc::clone(&running));
        Handle {
            jobs: Arc::clone(self),
            running,
            over: false,
        }
    }

    /// What runs, then what ended, the newest first.
    pub fn list(&self) -> Vec<Job> {
        let book = lock(&self.book);
        let running = book.running.values().rev().map(|r| r.seen());
        running.chain(book.ended.iter().rev().cloned()).collect()
    }

    /// The relation a running job works on.
    pub fn object_of(&self, id: i64) -> Option<Oid> {
        lock(&self.book).running.get(&id).and_then(|r| r.job.object)
    }

    /// Tells a running job to stop; false when there is none of that number.
    pub fn cancel(&self, id: i64) -> bool {
        let book = lock(&self.book);
        match book.running.get(&id) {
            Some(running) => {
                running.stop.cancel();
                true
            }
            None => false,
        }
    }

    /// Remembers what compaction did.
    pub fn compacted(&self, done: Compaction) {
        let mut book = lock(&self.book);
        if book.compactions.len() == REMEMBERED {
            book.compactions.pop_front();
        }
        book.compactions.push_back(done);
    }

    /// What compaction did lately, the newest first.
    pub fn compactions(&self) -> Vec<Compaction> {
        lock(&self.book).compactions.iter().rev().cloned().collect()
    }

    /// Remembers that so many keys of a view's state were wrong; none: it agrees with its sources.
    pub fn compared(&self, view: Oid, wrong: usize) {
        let mut book = lock(&self.book);
        let known = book.verified.entry(view).or_default();
        match wrong {
            0 => known.at_micros = Some(now_micros()),
            wrong => known.mismatches = known.mismatches.saturating_add(wrong as u64),
        }
    }

    /// What comparing a view's state with its sources has shown since the server started.
    pub fn verified(&self, view: Oid) -> Verified {
        let book = lock(&self.book);
        book.verified.get(&view).copied().unwrap_or_default()
    }

    /// Forgets what was compared of views that are gone.
    pub fn forget_verified(&self, stays: impl Fn(Oid) -> bool) {
        lock(&self.book).verified.retain(|view, _| stays(*view));
    }

    /// Waits for a table's turn.
    pub async fn turn(&self, table: Oid) -> Turn {
        self.turn_of(table).lock_owned().await
    }

    /// A table's turn, when nobody has it.
    pub fn turn_now(&self, table: Oid) -> Option<Turn> {
        self.turn_of(table).try_lock_owned().ok()
    }

    fn turn_of(&self, table: Oid) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        // locks nobody holds are dropped on the way, so dropped tables leave nothing behind
        turns.retain(|oid, turn| *oid == table || Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(table).or_default())
    }
}

impl Running {
    fn seen(&self) -> Job {
        Job {
            done: self.done.get(),
            total: self.total.get(),
            ..self.job.clone()
        }
    }
}

impl Handle {
    /// Its number.
    pub fn id(&self) -> i64 {
        self.running.job.id
    }

    /// When it began, microseconds since the Unix epoch.
    pub fn started_at(&self) -> i64 {
        self.running.job.started_at_micros.unwrap_or_default()
    }

    /// Cancelled when the job is to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.running.stop
    }

    /// Refuses to go on once the job is to stop.
    ///
    /// # Errors
    /// 57014.
    pub fn check(&self) -> Result<()> {
        match self.running.stop.is_cancelled() {
            true => Err(canceled()),
            false => Ok(()),
        }
    }

    /// There is so much more to do.
    pub fn expect(&self, amount: Amount) {
        self.running.total.add(amount);
    }

    /// So much more is done.
    pub fn advance(&self, amount: Amount) {
        self.running.done.add(amount);
    }

    /// What counts rows as they pass.
    pub fn row_counter(&self) -> impl Fn(usize) + Send + 'static {
        let running = Arc::clone(&self.running);
        move |rows| {
            running.done.rows.fetch_add(rows as u64, Relaxed);
        }
    }

    /// The job is over, and was too small to be remembered.
    pub fn forget(mut self) {
        self.over = true;
        lock(&self.jobs.book).running.remove(&self.running.job.id);
    }

    /// The job is over.
    pub fn end<T>(self, result: &Result<T>, detail: Option<String>) {
        self.ended(result.as_ref().err(), detail);
    }

    /// The job is over; with an error, it failed.
    pub fn ended(mut self, error: Option<&Error>, detail: Option<String>) {
        let state = match error {
            None => "done",
            Some(_) if self.running.stop.is_cancelled() => "canceled",
            Some(_) => "failed",
        };
        let error = error.filter(|_| state == "failed").map(Error::to_string);
        self.close(state, detail, error);
    }

    fn close(&mut self, state: &str, detail: Option<String>, error: Option<String>) {
        self.over = true;
        let job = Job {
            state: state.to_owned(),
            ended_at_micros: Some(now_micros()),
            detail,
            error,
            ..self.running.seen()
        };
        let mut book = lock(&self.jobs.book);
        book.running.remove(&job.id);
        if book.ended.len() == REMEMBERED {
            book.ended.pop_front();
        }
        book.ended.push_back(job);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.over {
            self.running.stop.cancel();
            self.close("canceled", None, None);
        }
    }
}

/// 57014.
pub(super) fn canceled() -> Error {
    Error::refused(SqlState::QUERY_CANCELED, "the job was canceled")
}

// A panic elsewhere leaves the book whole: every change of it is one step.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_seen_running_and_ended() {
        let jobs = Jobs::new(CancellationToken::new());
        let first = jobs.begin("compaction", Oid(7), Trigger::Schedule);
        let second = jobs.begin("vacuum", Oid(8), Trigger::Statement);
        first.expect(Amount {
            files: 3,
            rows: 10,
            bytes: 0,
        });
        first.row_counter()(4);
        let states = |jobs: &Jobs| -> Vec<(i64, String)> {
            jobs.list().into_iter().map(|j| (j.id, j.state)).collect()
        };
        assert_eq!(
            states(&jobs),
            [(2, "running".into()), (1, "running".into())]
        );
        let seen = jobs.list().pop().unwrap();
        assert_eq!(
            (seen.done.rows, seen.total.rows, seen.total.files),
            (4, 10, 3)
        );

        assert!(jobs.cancel(second.id()));
        assert_eq!(
            second.check().unwrap_err().state(),
            SqlState::QUERY_CANCELED
        );
        second.end::<()>(&Err(canceled()), None);
        assert!(!jobs.cancel(2));
        first.end(&Ok(()), Some("1 file".to_owned()));
        assert_eq!(states(&jobs), [(1, "done".into()), (2, "canceled".into())]);
        drop(jobs.begin("compaction", Oid(7), Trigger::Schedule));
        assert_eq!(jobs.list()[0].state, "canceled");
    }

    #[tokio::test]
    async fn one_turn_per_table() {
        let jobs = Jobs::new(CancellationToken::new());
        let turn = jobs.turn(Oid(1)).await;
        assert!(jobs.turn_now(Oid(1)).is_none());
        assert!(jobs.turn_now(Oid(2)).is_some());
        drop(turn);
        assert!(jobs.turn_now(Oid(1)).is_some());
    }

    #[test]
    fn the_book_has_an_end() {
        let jobs = Jobs::new(CancellationToken::new());
        for _ in 0..REMEMBERED + 5 {
            let job = jobs.begin("checkpoint", Oid(1), Trigger::Schedule);
            job.end(&Ok(()), None);
        }
        assert_eq!(jobs.list().len(), REMEMBERED);
    }
}
