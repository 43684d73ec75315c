//! Answers that wait until rows are in their table's storage.
//!
//! Owns when a flush is made because writers wait for it. What wait at the same time share one: the
//! first of them makes it, the others find their rows stored. Rows are durable in the log and visible
//! before anybody comes here; this only holds the answer back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use catalog::Oid;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::Stream;
use super::head::Lsn;
use crate::error::{Error, Result, SqlState};

/// Longest pause after repeated failures: who waits should hear soon that the store is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Flushes of one table that were made because writers waited.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// No other one before that.
    next: Option<Instant>,
    /// How many failed in a row.
    failures: u32,
}

/// What went wrong last while a writer waited.
type Trouble = Mutex<Option<String>>;

impl Stream {
    /// Waits until the storage of these streaming tables has all their rows up to a position, and sees
    /// to it that this is soon. Dropping the future gives up the answer, never the rows.
    ///
    /// # Errors
    /// `40003` when they are not there in time: they are in the log, and will be.
    pub async fn in_storage(&self, tables: &[Oid], upto: Lsn) -> Result<()> {
        let trouble = Trouble::default();
        let all = try_join_all(
            tables
                .iter()
                .map(|oid| self.flushed_to(*oid, upto, &trouble)),
        );
        match tokio::time::timeout(self.options.acknowledge_wait, all).await {
            Ok(done) => done.map(drop),
            Err(_) => {
                let first = tables.first().and_then(|oid| self.owned(*oid).ok());
                let name = first.map(|owned| owned.name.clone()).unwrap_or_default();
                Err(unknown(&name, trouble))
            }
        }
    }

    async fn flushed_to(&self, oid: Oid, upto: Lsn, trouble: &Trouble) -> Result<()> {
        let interval = self.options.acknowledge_interval;
        loop {
            // a table that is dropped has no rows to wait for
            if !self.core.lacks(oid, upto) {
                return Ok(());
            }
            let Ok(owned) = self.owned(oid) else {
                return Ok(());
            };
            let mut prompt = owned.prompt.lock().await;
            if !self.core.lacks(oid, upto) {
                return Ok(());
            }
            if let Some(next) = prompt.next {
                tokio::time::sleep_until(next).await;
            }
            // before the flush: who gives up while it runs leaves its time behind
            prompt.next = Some(Instant::now() + interval);
            match self.flush(oid).await {
                Ok(_) => prompt.failures = 0,
                Err(e) => {
                    prompt.failures = prompt.failures.saturating_add(1);
                    let pause = interval.saturating_mul(1 << prompt.failures.min(8));
                    prompt.next = Some(Instant::now() + pause.min(LONGEST_PAUSE.max(interval)));
                    tracing::warn!(
                        table = owned.name,
                        error = ?e,
                        failures = prompt.failures,
                        "cannot flush a table whose writers wait for its storage"
                    );
                    let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                    *trouble = Some(e.report().message);
                }
            }
        }
    }
}

fn unknown(table: &str, trouble: Trouble) -> Error {
    let failed = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed = failed.unwrap_or_else(|| "the commit takes long".to_owned());
    Error::refused(
        SqlState::STATEMENT_COMPLETION_UNKNOWN,
        format!("the rows are not yet committed to the storage of table \"{table}\""),
    )
    .with_detail(format!(
        "they are stored in the server's own log, visible, and will be committed: {failed}"
    ))
    .with_hint("do not send them again without an idempotency key")
}
