//! Background work: the one place that starts tasks.
//!
//! [`Tasks`] owns long-lived, named tasks and stops them in order; [`spawn`] starts a short-lived one
//! for its caller to await. A panic in either is logged with the task's name and never takes the
//! process down.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// How long a task that was aborted may take to be dropped.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Starts a task. Dropping the handle leaves it running: give the task its own end (a token, a closed
/// channel), or wrap the handle in [`AbortOnDrop`]. A panic is logged and comes back as [`JoinError`].
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    tokio::spawn(logging_panics(name, future))
}

/// Stops its task when it is dropped; awaiting it gives what the task gives.
#[derive(Debug)]
pub struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Ties the task's life to this value's.
    pub fn new(handle: JoinHandle<T>) -> Self {
        Self(handle)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Named tasks that live until they are told to stop. Ending before that is a fault, whatever the
/// result: [`Tasks::failed`] reports it.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<Result<()>>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group whose tasks stop when `stop` is cancelled (or by [`Tasks::stop`]).
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            names: HashMap::new(),
            stop,
        }
    }

    /// Starts a task. It gets the group's token and must end soon after that is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let future = logging_panics(name, task(self.stop.clone()));
        let id = self.set.spawn(future).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends without having been told to: its name and its error. Never returns
    /// while all run. Cancel safe.
    pub async fn failed(&mut self) -> (&'static str, Error) {
        loop {
            match self.next_end().await {
                Some((name, outcome)) => {
                    let fault = match outcome {
                        Ok(()) => Error::Internal(format!("task \"{name}\" ended by itself")),
                        Err(e) => e,
                    };
                    return (name, fault);
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Tells all tasks to stop and waits for them until `deadline`; then aborts the rest and gives
    /// their names. Errors of tasks that do end are logged.
    pub async fn stop(&mut self, deadline: Instant) -> Vec<&'static str> {
        self.stop.cancel();
        while let Ok(Some((name, outcome))) =
            tokio::time::timeout_at(deadline, self.next_end()).await
        {
            if let Err(e) = outcome {
                tracing::warn!(task = name, error = %e, "task ended with an error while stopping");
            }
        }
        let mut late: Vec<_> = self.names.values().copied().collect();
        late.sort_unstable();
        self.set.abort_all();
        let gone = async { while self.next_end().await.is_some() {} };
        // A task stuck in synchronous code cannot be aborted; the process must end all the same.
        if tokio::time::timeout(ABORT_GRACE, gone).await.is_err() {
            self.set.detach_all();
        }
        late
    }

    /// The next task that ends, or `None` when none is left.
    async fn next_end(&mut self) -> Option<(&'static str, Result<()>)> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(e) => (
                e.id(),
                Err(Error::Internal(format!("task did not finish: {e}"))),
            ),
        };
        Some((self.names.remove(&id).unwrap_or("unnamed"), outcome))
    }
}

/// Runs a future; a panic is logged with the task's name before it goes on to the join handle.
pub(crate) async fn logging_panics<F: Future>(name: &'static str, future: F) -> F::Output {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => output,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            tracing::error!(task = name, panic = text.unwrap_or("?"), "task panicked");
            std::panic::resume_unwind(payload)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_a_fault() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("patient", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("hasty", |_| async { Ok(()) });
        let (name, fault) = tasks.failed().await;
        assert_eq!(name, "hasty");
        assert!(fault.to_string().contains("ended by itself"));
        assert!(tasks.stop(soon()).await.is_empty());
    }

    #[tokio::test]
    async fn stop_names_the_late() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("deaf", |_| std::future::pending());
        tasks.spawn("polite", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        assert_eq!(tasks.stop(soon()).await, ["deaf"]);
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_and_nothing_more() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("shaky", |_| async { panic!("boom") });
        assert_eq!(tasks.failed().await.0, "shaky");
        assert!(spawn("short", async { panic!("boom") }).await.is_err());
    }

    #[tokio::test]
    async fn abort_on_drop_stops_the_task() {
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        let task = AbortOnDrop::new(spawn("held", async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }));
        drop(task);
        tokio::time::timeout(Duration::from_secs(5), token.cancelled())
            .await
            .expect("the task is dropped");
    }
}
