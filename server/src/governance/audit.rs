//! The trace of every statement: collects rows, writes them to the catalog in order and in groups.
//!
//! A statement that changed something is acknowledged after its row is durable; a read is not held
//! up by it: rows of reads wait a moment for others, since each group costs a sync of the catalog.

use std::sync::Arc;
use std::time::Duration;

use catalog::{AuditRow, Store};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::tasks;

/// Rows that may wait for the writer before statements wait for it.
const QUEUE: usize = 4096;
/// Rows written in one catalog transaction.
const GROUP: usize = 512;
/// Rows that nobody waits for wait this long for more of them.
const LINGER: Duration = Duration::from_millis(50);
/// Statement texts are cut to this many characters.
const MAX_TEXT: usize = 4096;

type Entry = (AuditRow, Option<oneshot::Sender<bool>>);

/// Where sessions leave their rows.
#[derive(Debug)]
pub struct Audit {
    queue: mpsc::Sender<Entry>,
    writer: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Starts the writer.
    pub fn start(store: Arc<dyn Store>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let writer = tasks::spawn("audit", write(store, entries));
        Self {
            queue,
            writer: std::sync::Mutex::new(Some(writer)),
        }
    }

    /// Leaves a row; it is written soon.
    pub async fn note(&self, row: AuditRow) {
        if self.queue.send((row, None)).await.is_err() {
            tracing::error!("audit row after the audit log was closed");
        }
    }

    /// Leaves a row from where nothing can wait (a dropped stream).
    pub fn note_now(&self, row: AuditRow) {
        if self.queue.try_send((row, None)).is_err() {
            tracing::error!("audit queue is full; a read's row is lost");
        }
    }

    /// Leaves a row and waits until it is durable.
    ///
    /// # Errors
    /// When the catalog did not take it: the statement must not be acknowledged as audited.
    pub async fn record(&self, row: AuditRow) -> Result<()> {
        let (done, written) = oneshot::channel();
        let sent = self.queue.send((row, Some(done))).await.is_ok();
        match sent && written.await.unwrap_or(false) {
            true => Ok(()),
            false => Err(Error::Internal(
                "the audit log cannot be written".to_owned(),
            )),
        }
    }

    /// Waits until every row left before is durable: who reads the log sees its own statements.
    pub async fn sync(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send((closing(), Some(done))).await.is_ok() {
            // an end without an answer means that the writer is gone, and says so itself
            let _ = written.await;
        }
    }

    /// Writes what is waiting and ends.
    pub async fn close(&self) {
        let writer = self.writer.lock().map(|mut w| w.take()).unwrap_or_default();
        let (done, written) = oneshot::channel();
        if self.queue.send((closing(), Some(done))).await.is_ok() {
            let _ = written.await;
        }
        if let Some(writer) = writer {
            writer.abort();
        }
    }
}

/// A marker that asks the writer to answer once everything before it is written.
fn closing() -> AuditRow {
    AuditRow {
        seq: -1,
        at_micros: 0,
        session: String::new(),
        door: String::new(),
        role: String::new(),
        command: String::new(),
        statement: String::new(),
        objects: Vec::new(),
        rows: None,
        outcome: catalog::AuditOutcome::Ok,
        sqlstate: None,
        prev_hash: String::new(),
        hash: String::new(),
    }
}

async fn write(store: Arc<dyn Store>, mut entries: mpsc::Receiver<Entry>) {
    let mut group = Vec::with_capacity(GROUP);
    while entries.recv_many(&mut group, GROUP).await > 0 {
        let until = Instant::now() + LINGER;
        while group.len() < GROUP && group.iter().all(|(_, waiter)| waiter.is_none()) {
            let room = GROUP - group.len();
            match timeout_at(until, entries.recv_many(&mut group, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let (rows, waiters): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let rows: Vec<AuditRow> = rows.into_iter().filter(|r| r.seq >= 0).collect();
        let written = rows.is_empty()
            || match store.append_audit(rows).await {
                Ok(()) => true,
                Err(e) => {
                    tracing::error!(error = %e, "cannot write the audit log");
                    false
                }
            };
        for waiter in waiters.into_iter().flatten() {
            // the statement was dropped: nobody waits any more
            let _ = waiter.send(written);
        }
    }
}

/// The text of a statement with every literal replaced by `?`, so that no value of a row, password or
/// key gets into the log.
pub fn redact(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else {
        return "(unreadable)".to_owned();
    };
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_) => text.push('?'),
            Token::Whitespace(_) => text.push(' '),
            other => text.push_str(&other.to_string()),
        }
        if text.len() > MAX_TEXT {
            break;
        }
    }
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn literals_never_reach_the_log() {
        let text =
            redact("SELECT * FROM t WHERE email = 'a@b.c' AND n = 42 AND x = $$secret$$ -- 'c'");
        assert!(!text.contains("a@b.c") && !text.contains("42") && !text.contains("secret"));
        assert!(text.starts_with("SELECT * FROM t WHERE email = ? AND n = ?"));
        assert!(!redact("CREATE ROLE r PASSWORD 'hunter2'").contains("hunter2"));
        assert_eq!(redact("select 'open"), "(unreadable)");
    }
}
