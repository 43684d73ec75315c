//! Threads that encode Parquet and write logs, so a flush never holds up a connection.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

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

impl Drop for Compute {
    // A runtime may not be dropped inside another one; this way it may.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
