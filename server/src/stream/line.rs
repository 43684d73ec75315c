//! The line of one producer: what it sent first enters the log first.
//!
//! Appends of a producer may be prepared side by side; before each enters the log it waits for its
//! [`Turn`]. When one fails before that, those behind it fail too, so that what is stored is always
//! a beginning of what was sent.

use tokio::sync::oneshot;

use crate::error::{Error, Result, SqlState};

/// Hands out turns, one after the other.
#[derive(Debug, Default)]
pub struct Line {
    last: Option<oneshot::Receiver<()>>,
}

impl Line {
    /// The turn after all that were handed out.
    pub fn turn(&mut self) -> Turn {
        let (over, before_next) = oneshot::channel();
        Turn {
            before: self.last.replace(before_next),
            over: Some(over),
        }
    }
}

/// A place in a line. The default one stands alone. Dropping it without [`Turn::over`] refuses all
/// behind it.
#[derive(Debug, Default)]
pub struct Turn {
    before: Option<oneshot::Receiver<()>>,
    over: Option<oneshot::Sender<()>>,
}

impl Turn {
    /// Waits until all before it have entered the log.
    ///
    /// # Errors
    /// `57014` when one before it failed.
    pub async fn come(&mut self) -> Result<()> {
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        before.await.map_err(|_| {
            Error::refused(
                SqlState::QUERY_CANCELED,
                "rows sent before these were refused",
            )
        })
    }

    /// Lets the next one in.
    pub fn over(mut self) {
        if let Some(over) = self.over.take() {
            // nobody may stand behind it
            let _ = over.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn turns_come_in_order() {
        let mut line = Line::default();
        let (mut first, mut second) = (line.turn(), line.turn());
        assert!(second.come().now_or_never().is_none());
        first.come().await.unwrap();
        first.over();
        let mut third = line.turn();
        assert!(third.come().now_or_never().is_none());
        second.over();
        third.come().await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_refuses_all_behind_it() {
        let mut line = Line::default();
        let (first, mut second, mut third) = (line.turn(), line.turn(), line.turn());
        drop(first);
        assert!(second.come().await.is_err());
        drop(second);
        assert!(third.come().await.is_err());
        Turn::default().come().await.unwrap();
    }
}
