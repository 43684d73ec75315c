//! Commit tokens: a position of the log as text.

use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::stream::head::Lsn;

/// How long a read waits for a token when there is no `statement_timeout`.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// The token of a position.
pub fn of(lsn: Lsn) -> String {
    format!("weir-{}", lsn.0)
}

/// The position behind a token.
///
/// # Errors
/// 22023 when it is none.
pub fn parse(token: &str) -> Result<Lsn> {
    token
        .strip_prefix("weir-")
        .and_then(|n| n.parse().ok())
        .map(Lsn)
        .ok_or_else(|| {
            Error::refused(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid commit token \"{token}\""),
            )
        })
}

/// Waits until the newest cut contains the token's position.
///
/// # Errors
/// 57014 when it does not in time.
pub async fn wait(engine: &Engine, token: &str, timeout: Option<Duration>) -> Result<()> {
    let wanted = parse(token)?;
    let reached = async {
        while engine.stream.head().visible < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let wait = timeout.unwrap_or(DEFAULT_WAIT);
    tokio::time::timeout(wait, reached)
        .await
        .map_err(|_| super::rows::timed_out())
}
