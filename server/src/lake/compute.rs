//! Threads that encode Parquet and write logs, so a flush never holds up a connection.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

use crate::error::{Error, Result};

/// Against a thread of usual priority such a one gets a third.
const NICE: i32 = 5;

/// A small runtime of its own. Dropping it stops what still runs there.
#[derive(Debug)]
pub struct Compute {
    // `None` only while dropping
    runtime: Option<Runtime>,
}

impl Compute {
    /// Starts the threads.
    pub fn start(threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("weir-lake")
            .on_thread_start(step_back)
            .enable_all()
            .build()
            .map_err(Error::io("start the table writer threads"))?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs `work` there to its end, also when the caller stops waiting: what it has begun on
    /// disk is finished, not torn.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else {
            return Err(Error::Internal("table writer threads are gone".to_owned()));
        };
        match runtime.spawn(work).await {
            Ok(result) => result,
            Err(e) => Err(Error::Internal(format!("table writer task failed: {e}"))),
        }
    }
}

/// On a busy machine rows and answers come first: storing what the log has can wait, until tails are full.
fn step_back() {
    if let Err(e) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(error = %e, "cannot lower the priority of a table writer thread");
    }
}

impl Drop for Compute {
    // A runtime may not be dropped inside another one; this way it may.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
