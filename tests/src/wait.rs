//! Waiting with a deadline. Tests never sleep for luck: they poll for what they want.

use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`; panics with `what` when `limit` has passed.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(STEP).await;
    }
}
