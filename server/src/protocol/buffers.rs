//! The memory of rows between their arrival and the log, one budget for all requests over HTTP and
//! Flight. Who finds no room waits without having been read, or is turned away; who has room never
//! waits for more of it without a deadline. Rows in the log are the tail's (`stream.tail_bytes`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result, SqlState};

/// What is counted, in bytes; a semaphore counts no further than 32 bits.
const UNIT: usize = 1024;
/// How long a request waits for room: what waits longer is answered later than it could be sent again.
const WAIT: Duration = Duration::from_secs(1);

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct Buffers {
    free: Arc<Semaphore>,
    units: u32,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    buffers: Buffers,
    taken: OwnedSemaphorePermit,
}

impl Buffers {
    /// A budget of that many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4);
        let units = units.clamp(1, u32::MAX >> 4);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Room for that many bytes, or the whole budget where they are more: what is larger than all of
    /// it passes alone.
    ///
    /// # Errors
    /// `53400` when there is none within a second.
    pub(super) async fn take(&self, bytes: usize) -> Result<Room> {
        match tokio::time::timeout(WAIT, self.wait(bytes)).await {
            Ok(room) => room,
            Err(_) => Err(full()),
        }
    }

    /// [`Self::take`] for a sender that is not read meanwhile, however long that is.
    pub(super) async fn wait(&self, bytes: usize) -> Result<Room> {
        let free = Arc::clone(&self.free);
        let taken = free.acquire_many_owned(self.units_of(bytes)).await;
        // nobody closes it
        let taken = taken.map_err(|_| full())?;
        Ok(self.room(taken))
    }

    /// Room, if there is some at once.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Room> {
        let free = Arc::clone(&self.free);
        let taken = free.try_acquire_many_owned(self.units_of(bytes)).ok()?;
        Some(self.room(taken))
    }

    fn room(&self, taken: OwnedSemaphorePermit) -> Room {
        Room {
            buffers: self.clone(),
            taken,
        }
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).map_or(self.units, |units| units.min(self.units))
    }
}

impl Room {
    /// Gives back what is beyond that size.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let units = self.buffers.units_of(bytes) as usize;
        let beyond = self.taken.num_permits().saturating_sub(units);
        drop(self.taken.split(beyond));
    }

    /// Makes it at least that large.
    ///
    /// # Errors
    /// `53400` as [`Buffers::take`].
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let units = self.buffers.units_of(bytes) as usize;
        let more = units.saturating_sub(self.taken.num_permits());
        if more > 0 {
            let more = self.buffers.take(more * UNIT).await?;
            self.taken.merge(more.taken);
        }
        Ok(())
    }
}

fn full() -> Error {
    Error::refused(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "the server is receiving as much as it may hold",
    )
    .with_hint("send it again later; rows have stream.buffer_bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks;

    #[tokio::test]
    async fn room_is_given_back_and_waited_for_with_a_deadline() {
        let buffers = Buffers::new(10 * UNIT);
        let mut first = buffers.take(4 * UNIT).await.unwrap();
        first.grow_to(3 * UNIT).await.unwrap();
        first.grow_to(8 * UNIT).await.unwrap();
        first.shrink_to(9 * UNIT);
        first.shrink_to(6 * UNIT);
        assert!(buffers.try_take(5 * UNIT).is_none());
        let small = buffers.try_take(4 * UNIT).unwrap();
        let refused = buffers.take(1).await.unwrap_err();
        assert_eq!(refused.state(), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        drop(small);
        buffers.take(4 * UNIT).await.unwrap();
        drop(first);
        assert_eq!(buffers.free.available_permits(), 10);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_passes_alone() {
        let buffers = Buffers::new(10 * UNIT);
        let all = buffers.take(usize::MAX).await.unwrap();
        assert!(buffers.try_take(1).is_none());
        let waiting = tasks::spawn("waiting", {
            let buffers = buffers.clone();
            async move { buffers.wait(usize::MAX).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(all);
        assert!(waiting.await.unwrap());
        assert_eq!(buffers.free.available_permits(), 10);
    }
}
