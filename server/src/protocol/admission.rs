//! Which requests with rows are worked on, in which order, and which are turned away before they are read.
//!
//! Rows that have arrived wait here for their turn: decoding more at once than there are processors makes
//! every one of them late. While rows wait longer than they should, new requests are refused at once, so
//! that those which were let in are answered as soon as ever. What they may hold meanwhile is
//! [`Buffers`](super::buffers::Buffers)'s.
//!
//! In times of overload, rows that would have to wait until older ones are stored are not let in either,
//! nor those for which there are enough others on their way; in other times they do wait, and their sender
//! with them.
//!
//! A queue that stands is the sign of overload, not one that a burst makes and that goes away again
//! (Nichols and Jacobson, Controlling Queue Delay, 2012).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::{Error, Result, SqlState};

/// What is worked on at once, in bytes of bodies, for each processor: it decodes them in about 10 ms.
const AT_ONCE: usize = 1 << 20;
/// What may be on its way to its turn in times of overload, in the same measure.
const AHEAD: usize = 1 << 20;
/// One body counts as at most this part of it: a large one is not alone.
const LARGEST_SHARE: usize = 4;
/// What is counted, in bytes.
const UNIT: usize = 1024;
/// Rows may wait this long for their turn,
const TARGET: Duration = Duration::from_millis(20);
/// and longer than that for this long, when it has not happened lately.
const BURST: Duration = Duration::from_millis(100);
/// Overload is over when nobody was turned away for this long.
const LATELY: Duration = Duration::from_secs(10);
/// Longest wait for a turn of what has been read.
const WAIT: Duration = Duration::from_secs(10);

/// The queue. Clones share it.
#[derive(Clone)]
pub struct Admission {
    full: Arc<dyn Fn() -> bool + Send + Sync>,
    free: Arc<Semaphore>,
    units: usize,
    ahead: usize,
    queue: Arc<Mutex<Queue>>,
}

/// Who waits, the first in front.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Instant)>,
    /// Since when the first one has waited too long, whoever it was.
    late_since: Option<Instant>,
    turned_away: Option<Instant>,
    /// Bytes that were let in and have not had their turn.
    coming: usize,
}

/// Rows that were let in, until their turn comes or they are dropped.
#[derive(Debug)]
pub(super) struct Coming {
    bytes: usize,
    queue: Arc<Mutex<Queue>>,
}

/// A turn, over when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _taken: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let free = self.free.available_permits();
        f.debug_struct("Admission").field("free", &free).finish()
    }
}

impl Admission {
    /// For that many processors. `full` says whether there is hardly any room left for more rows.
    pub fn new(processors: usize, full: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let units = (AT_ONCE / UNIT).saturating_mul(processors.max(1));
        let units = units.min(Semaphore::MAX_PERMITS);
        Self {
            full: Arc::new(full),
            free: Arc::new(Semaphore::new(units)),
            units,
            ahead: AHEAD.saturating_mul(processors.max(1)),
            queue: Arc::default(),
        }
    }

    /// Whether one more request of about so many bytes may come in: asked before anything of it is read.
    ///
    /// # Errors
    /// `53400` while rows wait too long for their turn, and in times of overload while enough of them come.
    pub(super) fn let_in(&self, bytes: usize) -> Result<Coming> {
        // senders that are slow themselves keep nobody away who could be served
        let busy = self.free.available_permits() < self.units_of(bytes);
        let mut queue = self.queue();
        let enough = busy && queue.coming > 0 && queue.coming.saturating_add(bytes) > self.ahead;
        match queue.overloaded(Instant::now(), enough || (self.full)()) {
            true => Err(overloaded()),
            false => {
                queue.coming = queue.coming.saturating_add(bytes);
                Ok(Coming {
                    bytes,
                    queue: Arc::clone(&self.queue),
                })
            }
        }
    }

    /// Waits for the turn of a body of that many bytes.
    ///
    /// # Errors
    /// `53400` when it does not come within ten seconds.
    pub(super) async fn turn(&self, coming: Coming, bytes: usize) -> Result<Turn> {
        let turn = self.turn_within(WAIT, bytes).await;
        drop(coming);
        turn
    }

    fn units_of(&self, bytes: usize) -> usize {
        let most = (self.units / LARGEST_SHARE).max(1);
        bytes.div_ceil(UNIT).clamp(1, most)
    }

    async fn turn_within(&self, longest: Duration, bytes: usize) -> Result<Turn> {
        let units = self.units_of(bytes);
        let place = Place {
            number: self.queue().enter(Instant::now()),
            queue: Arc::clone(&self.queue),
        };
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let turn = Arc::clone(&self.free).acquire_many_owned(units);
        let taken = tokio::time::timeout(longest, turn).await;
        drop(place);
        match taken {
            Ok(Ok(taken)) => Ok(Turn { _taken: taken }),
            // nobody closes it: only the time is over
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn enter(&mut self, now: Instant) -> u64 {
        self.next += 1;
        self.waiting.push_back((self.next, now));
        self.next
    }

    fn leave(&mut self, number: u64, now: Instant) {
        if let Ok(at) = self.waiting.binary_search_by_key(&number, |(n, _)| *n) {
            let since = self.waiting.remove(at).map(|(_, since)| since);
            let soon = since.is_some_and(|since| now.duration_since(since) <= TARGET);
            if soon || self.waiting.is_empty() {
                self.late_since = None;
            }
        }
    }

    /// Whether a request that comes now is turned away; `full` when it would find no room.
    fn overloaded(&mut self, now: Instant, full: bool) -> bool {
        let lately = |at: Instant| now.duration_since(at) < LATELY;
        let lately = self.turned_away.is_some_and(lately);
        let waits = |since: &(u64, Instant)| now.duration_since(since.1) > TARGET;
        let late = self.waiting.front().is_some_and(waits);
        if !late {
            self.late_since = None;
        }
        let stands = late && now.duration_since(*self.late_since.get_or_insert(now)) > BURST;
        let overloaded = stands || (lately && (late || full));
        if overloaded {
            self.turned_away = Some(now);
        }
        overloaded
    }
}

/// A place in the queue, left when dropped: a client may go away while it waits.
struct Place {
    number: u64,
    queue: Arc<Mutex<Queue>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.leave(self.number, Instant::now());
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.coming = queue.coming.saturating_sub(self.bytes);
    }
}

fn overloaded() -> Error {
    Error::refused(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "more rows arrive than the server can take",
    )
    .with_hint("send them again later, or more slowly")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_a_standing_queue_is_not() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut queue = Queue::default();
        assert!(!queue.overloaded(at(0), false));
        let first = queue.enter(at(0));
        let second = queue.enter(at(5));
        assert!(!queue.overloaded(at(20), false));
        // late, but not for long
        assert!(!queue.overloaded(at(30), false));
        assert!(!queue.overloaded(at(130), false));
        assert!(queue.overloaded(at(131), false));
        queue.leave(first, at(131));
        assert!(queue.overloaded(at(132), false));
        queue.leave(second, at(133));
        assert!(!queue.overloaded(at(133), false));
        // it was lately: nothing is let in that would wait
        let third = queue.enter(at(140));
        assert!(!queue.overloaded(at(160), false));
        assert!(queue.overloaded(at(161), false));
        queue.leave(third, at(162));
        // nor what would wait for room
        assert!(queue.overloaded(at(163), true));
        assert!(!queue.overloaded(at(163), false));
        // long ago: a burst again
        assert!(!queue.overloaded(at(20_000), true));
        queue.enter(at(20_000));
        assert!(!queue.overloaded(at(20_030), false));
        assert!(!queue.overloaded(at(20_130), false));
        assert!(queue.overloaded(at(20_131), false));
    }

    #[tokio::test]
    async fn turns_come_in_order_and_places_are_left() {
        let admission = Admission::new(1, || false);
        let share = AT_ONCE / LARGEST_SHARE;
        let mut turns = Vec::new();
        for _ in 0..LARGEST_SHARE {
            // a body of any size is one share at most
            turns.push(admission.turn_within(WAIT, usize::MAX).await.unwrap());
        }
        {
            let waiting = admission.turn_within(WAIT, share);
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            tokio::time::sleep(TARGET * 2).await;
            admission.let_in(1).unwrap();
            tokio::time::sleep(BURST * 2).await;
            let refused = admission.let_in(1).unwrap_err();
            assert_eq!(refused.state(), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        }
        // the one that waited went away
        admission.let_in(1).unwrap();
        let refused = admission.turn_within(TARGET, 1).await.unwrap_err();
        assert_eq!(refused.state(), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        turns.pop();
        let coming = admission.let_in(share).unwrap();
        admission.turn(coming, share).await.unwrap();
        assert_eq!(admission.queue().coming, 0);
    }

    #[tokio::test]
    async fn enough_is_let_in_while_there_is_too_much() {
        let admission = Admission::new(1, || false);
        let refused = |bytes| admission.let_in(bytes).is_err();
        let half = admission.let_in(AHEAD / 2).unwrap();
        let all = admission.let_in(AHEAD).unwrap();
        // an overload, lately
        admission.queue().turned_away = Some(Instant::now());
        assert!(!refused(1), "nobody works on anything");
        let mut turns = Vec::new();
        for _ in 0..LARGEST_SHARE {
            turns.push(admission.turn_within(WAIT, usize::MAX).await.unwrap());
        }
        assert!(refused(1));
        drop(all);
        assert!(!refused(AHEAD / 2));
        assert!(refused(AHEAD));
        drop(half);
        assert!(!refused(usize::MAX), "the only one");
        let _all = admission.let_in(AHEAD).unwrap();
        assert!(refused(1));
        turns.pop();
        assert!(!refused(1));
    }
}
