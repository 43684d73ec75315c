//! What users see of a view that is being stored.

use std::fmt::Debug;

use tokio_util::sync::CancellationToken;

use super::spool::Spool;
use crate::error::Error;

/// Who wants a view stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A statement waits for it.
    Statement,
    /// Nobody: it was time.
    Schedule,
}

/// A piece of work on a view as others see it, from its begin to its end.
pub trait Progress: Debug + Send + Sync {
    /// So many more positions of the sources are to be counted.
    fn expect(&self, positions: u64);

    /// So many more are.
    fn advance(&self, positions: u64);

    /// Cancelled when the work is to stop.
    fn stop(&self) -> CancellationToken;

    /// It is over. `error` says why it failed, `detail` what it did.
    fn end(self: Box<Self>, error: Option<&Error>, detail: Option<String>);
}

/// Work that has begun, with what it has done so far.
#[derive(Debug)]
pub(super) struct Work {
    progress: Box<dyn Progress>,
    runs: u64,
    rows: usize,
    spilled_bytes: u64,
}

impl Work {
    pub(super) fn new(progress: Box<dyn Progress>) -> Self {
        Self {
            progress,
            runs: 0,
            rows: 0,
            spilled_bytes: 0,
        }
    }

    pub(super) fn progress(&self) -> &dyn Progress {
        self.progress.as_ref()
    }

    /// A run is computed.
    pub(super) fn computed(&mut self, run: &Spool) {
        self.runs += 1;
        self.rows += run.rows();
        self.spilled_bytes += run.spilled_bytes();
        crate::metrics::view_spilled(run.spilled_bytes());
    }

    pub(super) fn end(self, error: Option<&Error>) {
        let Self { rows, runs, .. } = self;
        let mut detail = match runs {
            1 => format!("{rows} rows in one run"),
            runs => format!("{rows} rows in {runs} runs"),
        };
        if self.spilled_bytes > 0 {
            detail += &format!(", {} bytes spilled", self.spilled_bytes);
        }
        self.progress.end(error, Some(detail));
    }
}
